/* Cutting records and reading numbers: see csv.h. */
#include "csv.h"

#include <math.h>
#include <string.h>

enum { NUMBER_MAX = 64, EXACT_DIGITS = 15 };

static bool at_line_end(const char *text, size_t bytes, size_t at) {
  return at == bytes || text[at] == '\n' || (text[at] == '\r' && (at + 1 == bytes || text[at + 1] == '\n'));
}

/* A cell that begins at `at`; returns where it ends, or what is wrong. */
static const char *cut_cell(const char *text, size_t bytes, size_t *at, dl_csv_cell *cell) {
  size_t begin = *at, end = begin;
  cell->quoted = begin < bytes && text[begin] == '"';
  if (!cell->quoted) {
    while (!at_line_end(text, bytes, end) && text[end] != ',') {
      if (text[end] == '"') return "a quote inside a cell that does not begin with one";
      end++;
    }
    *at = end;
  } else {
    begin = end = begin + 1;
    while (end < bytes && (text[end] != '"' || (end + 1 < bytes && text[end + 1] == '"'))) {
      end += text[end] == '"' ? 2 : 1;
    }
    if (end >= bytes) return "a quote that is never closed";
    *at = end + 1;
    if (!at_line_end(text, bytes, *at) && text[*at] != ',') return "text behind a closing quote";
  }
  cell->at = (uint32_t)begin;
  cell->length = (uint32_t)(end - begin);
  return NULL;
}

const char *dl_csv_cut(const char *text, size_t bytes, dl_csv_cell *cells, size_t cells_max, size_t *count) {
  size_t at = 0;
  for (*count = 0;;) {
    dl_csv_cell cell;
    const char *wrong = cut_cell(text, bytes, &at, &cell);
    if (wrong != NULL) return wrong;
    if (*count < cells_max) cells[*count] = cell;
    ++*count;
    if (at_line_end(text, bytes, at)) return NULL;
    at++; /* the comma */
  }
}

static void trim(const char **text, size_t *length) {
  while (*length > 0 && (**text == ' ' || **text == '\t')) ++*text, --*length;
  while (*length > 0 && ((*text)[*length - 1] == ' ' || (*text)[*length - 1] == '\t')) --*length;
}

/* Numbers of at most 15 digits: integer and power of ten are exact doubles, so one division rounds right. */
static bool short_number(const char *text, size_t length, double *value) {
  static const double tens[] = {1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15};
  size_t at = 0, digits = 0, decimals = 0;
  int64_t integer = 0;
  const bool negative = length > 0 && text[0] == '-';
  bool point = false;
  if (length > 0 && (text[0] == '-' || text[0] == '+')) at++;
  for (; at < length; at++) {
    if (text[at] == '.' && !point) {
      point = true;
    } else if (text[at] >= '0' && text[at] <= '9' && digits < EXACT_DIGITS) {
      integer = integer * 10 + (text[at] - '0');
      digits++;
      decimals += point;
    } else {
      return false;
    }
  }
  if (digits == 0) return false;
  const double magnitude = (double)integer / tens[decimals];
  *value = negative ? -magnitude : magnitude;
  return true;
}

bool dl_csv_real(const char *text, size_t length, float *value) {
  double number;
  trim(&text, &length);
  if (!short_number(text, length, &number)) {
    char copy[NUMBER_MAX];
    if (length >= sizeof copy) return false;
    memcpy(copy, text, length);
    copy[length] = '\0';
    if (strlen(copy) != length || !tr_parse_real(copy, &number)) return false;
  }
  *value = (float)number;
  return isfinite(*value);
}

bool dl_csv_integer(const char *text, size_t length, int32_t *value) {
  trim(&text, &length);
  const bool negative = length > 0 && *text == '-';
  size_t at = length > 0 && (*text == '-' || *text == '+') ? 1 : 0;
  int64_t number = 0;
  if (at == length) return false;
  for (; at < length; at++) {
    if (text[at] < '0' || text[at] > '9') return false;
    number = number * 10 + (text[at] - '0');
    if (number > (int64_t)INT32_MAX + negative) return false;
  }
  *value = (int32_t)(negative ? -number : number);
  return true;
}
