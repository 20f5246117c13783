/* Sizes, times and numbers as people write them in job files, both ways. */
#include <trainrun/bytes.h>

#include "c_locale.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

__extension__ typedef unsigned __int128 u128;

typedef struct unit {
  const char *name;
  uint64_t scale;
} unit;

static const unit byte_units[] = {
    {"", 1},
    {"B", 1},
    {"KiB", UINT64_C(1) << 10},
    {"MiB", UINT64_C(1) << 20},
    {"GiB", UINT64_C(1) << 30},
    {"TiB", UINT64_C(1) << 40},
    {"kB", 1000},
    {"KB", 1000},
    {"MB", 1000000},
    {"GB", 1000000000},
    {"TB", UINT64_C(1000000000000)},
    {NULL, 0},
};

static const unit time_units[] = {
    {"ns", 1},
    {"us", 1000},
    {"ms", 1000000},
    {"s", 1000000000},
    {"m", UINT64_C(60000000000)},
    {"h", UINT64_C(3600000000000)},
    {"d", UINT64_C(86400000000000)},
    {NULL, 0},
};

static bool is_digit(char c) { return c >= '0' && c <= '9'; }

/* "12.5" with at most nine decimals, as a count of 1e-9; returns what follows or NULL. */
static const char *parse_decimal(const char *text, u128 *nano) {
  if (!is_digit(*text)) return NULL;
  u128 value = 0;
  for (; is_digit(*text); text++) {
    value = value * 10 + (u128)(*text - '0');
    if (value > UINT64_MAX) return NULL;
  }
  int decimals = 0;
  if (*text == '.') {
    text++;
    for (; is_digit(*text) && decimals < 9; text++, decimals++) value = value * 10 + (u128)(*text - '0');
    if (decimals == 0 || is_digit(*text)) return NULL;
  }
  for (; decimals < 9; decimals++) value *= 10;
  *nano = value;
  return text;
}

static bool parse_with_unit(const char *text, const unit *units, uint64_t *out) {
  u128 nano;
  const char *rest = parse_decimal(text, &nano);
  if (rest == NULL) return false;
  if (*rest == ' ' && rest[1] != '\0') rest++;
  for (; units->name != NULL; units++) {
    if (strcmp(rest, units->name) != 0) continue;
    /* nano < 2^64 * 1e9 < 2^94 and a scale is below 2^47, so the product can pass 2^128 only far out of range. */
    if (nano > ~(u128)0 / units->scale - 1) return false;
    const u128 value = (nano * units->scale + 500000000u) / 1000000000u;
    if (value > UINT64_MAX) return false;
    *out = (uint64_t)value;
    return true;
  }
  return false;
}

bool tr_parse_bytes(const char *text, uint64_t *bytes) { return parse_with_unit(text, byte_units, bytes); }

bool tr_parse_duration(const char *text, uint64_t *duration_ns) {
  if (strcmp(text, "0") == 0) {
    *duration_ns = 0;
    return true;
  }
  return parse_with_unit(text, time_units, duration_ns);
}

bool tr_parse_u64(const char *text, uint64_t *value) {
  uint64_t result = 0;
  if (!is_digit(*text)) return false;
  for (; is_digit(*text); text++) {
    if (__builtin_mul_overflow(result, 10u, &result)) return false;
    if (__builtin_add_overflow(result, (uint64_t)(*text - '0'), &result)) return false;
  }
  if (*text != '\0') return false;
  *value = result;
  return true;
}

bool tr_parse_real(const char *text, double *value) {
  /* strtod alone would take blanks, hexadecimal, "inf" and "nan". */
  const char *first = *text == '-' || *text == '+' ? text + 1 : text;
  if (!is_digit(*first) && *first != '.') return false;
  if (text[strspn(text, "0123456789+-.eE")] != '\0') return false;
  const locale_t before = tr_c_locale_enter();
  char *end = NULL;
  const double result = strtod(text, &end);
  tr_c_locale_leave(before);
  if (end == text || *end != '\0' || !isfinite(result)) return false;
  *value = result;
  return true;
}

void tr_format_bytes(uint64_t bytes, char text[32]) {
  static const char *const names[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
  size_t power = 0;
  double value = (double)bytes;
  while (value >= 1023.95 && power + 1 < sizeof names / sizeof *names) {
    value /= 1024;
    power++;
  }
  const locale_t before = tr_c_locale_enter();
  if (power == 0 || value == floor(value)) {
    snprintf(text, 32, "%.0f %s", value, names[power]);
  } else {
    snprintf(text, 32, value < 99.95 ? "%.1f %s" : "%.0f %s", value, names[power]);
  }
  tr_c_locale_leave(before);
}

void tr_format_duration(uint64_t duration_ns, char text[32]) {
  const uint64_t second = UINT64_C(1000000000);
  if (duration_ns >= 60 * second) {
    const uint64_t s = duration_ns / second;
    if (s >= 86400) {
      snprintf(text, 32, "%llu d %02u h", (unsigned long long)(s / 86400), (unsigned)(s % 86400 / 3600));
    } else if (s >= 3600) {
      snprintf(text, 32, "%u h %02u m", (unsigned)(s / 3600), (unsigned)(s % 3600 / 60));
    } else {
      snprintf(text, 32, "%u m %02u s", (unsigned)(s / 60), (unsigned)(s % 60));
    }
    return;
  }
  static const char *const names[] = {"ns", "us", "ms", "s"};
  size_t power = 0;
  double value = (double)duration_ns;
  while (value >= 999.95 && power < 3) {
    value /= 1000;
    power++;
  }
  const locale_t before = tr_c_locale_enter();
  snprintf(text, 32, value == floor(value) || value >= 99.95 ? "%.0f %s" : "%.1f %s", value, names[power]);
  tr_c_locale_leave(before);
}
