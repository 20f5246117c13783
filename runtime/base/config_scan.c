/* A look at TOML text before it is parsed: how many values and how deep, so that a hostile file is refused cheaply.
 *
 * toml++ bounds nested brackets but neither dotted keys nor the number of values. The scan knows just enough of TOML to
 * skip strings and comments; where it meets something that cannot be TOML it stops, and the parser reports it. */
#include "config_internal.h"

#include "utf8.h"

#include <stdio.h>
#include <string.h>

typedef struct scan {
  const char *at, *end;
  tr_place place;
} scan;

static void advance(scan *s, size_t bytes) {
  for (; bytes > 0 && s->at < s->end; bytes--, s->at++) {
    if (*s->at == '\n') {
      s->place.line++;
      s->place.column = 1;
    } else if (((unsigned char)*s->at & 0xC0) != 0x80) {
      s->place.column++;
    }
  }
}

static bool starts_with(const scan *s, const char *text) {
  const size_t length = strlen(text);
  return (size_t)(s->end - s->at) >= length && memcmp(s->at, text, length) == 0;
}

/* Past a string that begins here; false where it does not end as it should. */
static bool skip_string(scan *s) {
  const char quote = *s->at;
  const char triple[] = {quote, quote, quote, '\0'};
  const bool multiline = starts_with(s, triple);
  advance(s, multiline ? 3 : 1);
  while (s->at < s->end) {
    if (*s->at == '\\' && quote == '"') {
      advance(s, 2);
    } else if (multiline && starts_with(s, triple)) {
      advance(s, 3);
      while (s->at < s->end && *s->at == quote) advance(s, 1); /* up to two quotes may precede the end */
      return true;
    } else if (!multiline && *s->at == quote) {
      advance(s, 1);
      return true;
    } else if (!multiline && *s->at == '\n') {
      return false;
    } else {
      advance(s, 1);
    }
  }
  return false;
}

tr_status tr_toml_scan(const char *text, size_t bytes, tr_toml_mistake *mistake) {
  scan s = {.at = text, .end = text + bytes, .place = {1, 1}};
  size_t values = 0, dots = 0;
  while (s.at < s.end) {
    const char c = *s.at;
    if (c == '"' || c == '\'') {
      if (!skip_string(&s)) return TR_OK;
      continue;
    }
    if (c == '#') {
      const char *newline = memchr(s.at, '\n', (size_t)(s.end - s.at));
      if (newline == NULL) return TR_OK;
      advance(&s, (size_t)(newline - s.at));
      continue;
    }
    if (strchr(",=[{", c) != NULL && c != '\0') values++;
    dots = c == '.' ? dots + 1 : strchr(",=[]{}\n", c) != NULL ? 0 : dots;
    if (values > TR_CONFIG_MAX_VALUES || dots > TR_CONFIG_MAX_DEPTH) {
      mistake->place = s.place;
      snprintf(mistake->message, sizeof mistake->message, "%s (at most %d)",
               values > TR_CONFIG_MAX_VALUES ? "too many values" : "keys are nested too deeply",
               values > TR_CONFIG_MAX_VALUES ? TR_CONFIG_MAX_VALUES : TR_CONFIG_MAX_DEPTH);
      return TR_ERR_CONFIG;
    }
    advance(&s, 1);
  }
  return TR_OK;
}

static const char *find_place(const char *text, size_t bytes, tr_place place, const char *end) {
  const char *at = text;
  for (uint32_t line = 1; line < place.line; line++) {
    at = memchr(at, '\n', (size_t)(end - at));
    if (at == NULL) return NULL;
    at++;
  }
  (void)bytes;
  for (uint32_t column = 1; column < place.column && at < end && *at != '\n'; column++) {
    const size_t length = tr_utf8_length((const unsigned char *)at, (size_t)(end - at));
    at += length > 0 ? length : 1;
  }
  return at;
}

uint32_t tr_source_token_length(const char *text, size_t bytes, tr_place place) {
  if (text == NULL || place.line == 0) return 1;
  const char *end = text + bytes;
  const char *at = find_place(text, bytes, place, end);
  if (at == NULL || at >= end) return 1;
  const char *stop = at;
  if (*at == '"' || *at == '\'') {
    for (stop++; stop < end && *stop != *at && *stop != '\n'; stop++) {
      if (*stop == '\\' && *at == '"' && stop + 1 < end) stop++;
    }
    if (stop < end && *stop == *at) stop++;
  } else if (*at == '[' || *at == '{') {
    int depth = 0;
    for (; stop < end && *stop != '\n' && *stop != '#'; stop++) {
      depth += (*stop == '[' || *stop == '{') - (*stop == ']' || *stop == '}');
      if (depth == 0) {
        stop++;
        break;
      }
    }
    while (stop > at && (stop[-1] == ' ' || stop[-1] == '\r')) stop--;
  } else {
    while (stop < end && strchr(" \t\r\n,]}#=", *stop) == NULL) stop++;
  }
  uint32_t length = 0;
  for (; at < stop; at++) length += ((unsigned char)*at & 0xC0) != 0x80;
  return length > 0 ? length : 1;
}
