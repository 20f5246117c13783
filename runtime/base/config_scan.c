/* A look at TOML text before it is parsed: how many values and how deep, so that a hostile file is refused cheaply.
 *
 * toml++ bounds nested brackets but neither dotted keys nor the number of values. The scan knows just enough of TOML to
 * skip strings and comments; where it meets something that cannot be TOML it stops, and the parser reports it. It also
 * refuses what toml++ 3.3 cannot take without undefined behaviour: a letter outside ASCII where a key or white space may
 * stand. */
#include "config_internal.h"

#include "utf8.h"

#include <stdio.h>
#include <string.h>

/* toml++ destroys tables recursively: 64 brackets with 16 dots in each are as deep as the stack is asked to carry. */
enum { MAX_DOTS = 16 };

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

typedef enum skipped { SKIPPED, UNFINISHED, REFUSED } skipped;

static bool is_ascii(const scan *s) { return s->at >= s->end || (unsigned char)*s->at < 0x80; }

/* Past a backslash and what it escapes; in a text of several lines that may be white space up to the next word. toml++
 * runs into undefined behaviour where that word does not begin in ASCII. */
static bool skip_escape(scan *s, bool multiline) {
  advance(s, 1);
  if (!multiline || s->at >= s->end) {
    advance(s, 1);
    return true;
  }
  if (strchr(" \t\r\n", *s->at) == NULL || *s->at == '\0') {
    const bool good = is_ascii(s);
    if (good) advance(s, 1);
    return good;
  }
  while (s->at < s->end && strchr(" \t\r\n", *s->at) != NULL && *s->at != '\0') advance(s, 1);
  return is_ascii(s);
}

/* Past a string that begins here. */
static skipped skip_string(scan *s) {
  const char quote = *s->at;
  const char triple[] = {quote, quote, quote, '\0'};
  const bool multiline = starts_with(s, triple);
  advance(s, multiline ? 3 : 1);
  while (s->at < s->end) {
    if (*s->at == '\\' && quote == '"') {
      if (!skip_escape(s, multiline)) return REFUSED;
    } else if (multiline && starts_with(s, triple)) {
      advance(s, 3);
      while (s->at < s->end && *s->at == quote) advance(s, 1); /* up to two quotes may precede the end */
      return SKIPPED;
    } else if (!multiline && *s->at == quote) {
      advance(s, 1);
      return SKIPPED;
    } else if (!multiline && *s->at == '\n') {
      return UNFINISHED;
    } else {
      advance(s, 1);
    }
  }
  return UNFINISHED;
}

/* At a '[' that begins a line outside of all brackets: true where no name of a table follows. */
static bool is_nameless_header(const scan *s) {
  const char *at = s->at + 1;
  while (at < s->end && (*at == ' ' || *at == '\t')) at++;
  if (at == s->at + 1 && at < s->end && *at == '[') at++;
  while (at < s->end && (*at == ' ' || *at == '\t')) at++;
  if (at >= s->end) return false;
  const char c = *at;
  const bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
  return !letter && (c == '\0' || strchr("-_\"'[]", c) == NULL);
}

static tr_status refuse(const scan *s, tr_toml_mistake *mistake, const char *message) {
  mistake->place = s->place;
  snprintf(mistake->message, sizeof mistake->message, "%s", message);
  return TR_ERR_CONFIG;
}

tr_status tr_toml_scan(const char *text, size_t bytes, tr_toml_mistake *mistake) {
  scan s = {.at = text, .end = text + bytes, .place = {1, 1}};
  size_t values = 0, dots = 0;
  ptrdiff_t depth = 0;
  bool line_start = true;
  if (starts_with(&s, "\xEF\xBB\xBF")) s.at += 3; /* a byte order mark has no column */
  while (s.at < s.end) {
    const char c = *s.at;
    if (line_start && depth <= 0 && c == '[' && is_nameless_header(&s)) {
      return refuse(&s, mistake, "'[' without the name of a table");
    }
    depth += (c == '[' || c == '{') - (c == ']' || c == '}');
    line_start = c == '\n' || (line_start && (c == ' ' || c == '\t'));
    if (c == '"' || c == '\'') {
      const skipped result = skip_string(&s);
      if (result == REFUSED) return refuse(&s, mistake, "a word after '\\' and white space must begin in ASCII");
      if (result == UNFINISHED) return TR_OK;
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
    if (values > TR_CONFIG_MAX_VALUES) return refuse(&s, mistake, "too many values (at most 100000)");
    if (dots > MAX_DOTS) return refuse(&s, mistake, "a key has too many dots (at most 16)");
    if (!is_ascii(&s)) return refuse(&s, mistake, "letters outside ASCII can stand only in quotes and comments");
    advance(&s, 1);
  }
  return TR_OK;
}

static const char *find_place(const char *text, tr_place place, const char *end) {
  const char *at = text;
  for (uint32_t line = 1; line < place.line; line++) {
    at = memchr(at, '\n', (size_t)(end - at));
    if (at == NULL) return NULL;
    at++;
  }
  for (uint32_t column = 1; column < place.column && at < end && *at != '\n'; column++) {
    const size_t length = tr_utf8_length((const unsigned char *)at, (size_t)(end - at));
    at += length > 0 ? length : 1;
  }
  return at;
}

uint32_t tr_source_token_length(const char *text, size_t bytes, tr_place place, bool key) {
  if (text == NULL || place.line == 0) return 1;
  const char *end = text + bytes;
  const char *at = find_place(text, place, end);
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
    while (stop < end && strchr(key ? " \t\r\n]=." : " \t\r\n,]}#", *stop) == NULL) stop++;
  }
  uint32_t length = 0;
  for (; at < stop; at++) length += ((unsigned char)*at & 0xC0) != 0x80;
  return length > 0 ? length : 1;
}
