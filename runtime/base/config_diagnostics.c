/* Diagnostics: a list sorted by place, and its text as compilers print it. */
#include "config_internal.h"

#include "utf8.h"

#include <stdio.h>
#include <string.h>

enum { MAX_KEPT = 100, MESSAGE_BYTES = 512, LINE_WIDTH = 120 };

struct tr_diagnostics {
  const tr_allocator *allocator;
  tr_arena *arena;
  tr_diagnostic *items;
  size_t count, capacity;
  size_t errors; /* also those that were not kept */
  bool failed;   /* one could not be kept for want of memory */
};

tr_status tr_diagnostics_create(const tr_allocator *allocator, tr_diagnostics **out, tr_error *error) {
  tr_diagnostics *diagnostics = tr_calloc(allocator, 1, sizeof *diagnostics);
  if (diagnostics == NULL) return tr_fail_memory(error, "diagnostics", sizeof *diagnostics);
  diagnostics->allocator = allocator;
  const tr_status status = tr_arena_create(allocator, 0, &diagnostics->arena, error);
  if (status != TR_OK) {
    tr_free(allocator, diagnostics);
    return status;
  }
  *out = diagnostics;
  return TR_OK;
}

void tr_diagnostics_destroy(tr_diagnostics *diagnostics) {
  if (diagnostics == NULL) return;
  tr_arena_destroy(diagnostics->arena);
  tr_free(diagnostics->allocator, diagnostics->items);
  tr_free(diagnostics->allocator, diagnostics);
}

size_t tr_diagnostics_count(const tr_diagnostics *diagnostics) { return diagnostics->count; }
size_t tr_diagnostics_errors(const tr_diagnostics *diagnostics) { return diagnostics->errors; }
bool tr_diagnostics_full(const tr_diagnostics *diagnostics) { return diagnostics->count > MAX_KEPT; }
bool tr_diagnostics_failed(const tr_diagnostics *diagnostics) { return diagnostics->failed; }

const tr_diagnostic *tr_diagnostics_at(const tr_diagnostics *diagnostics, size_t i) {
  return i < diagnostics->count ? &diagnostics->items[i] : NULL;
}

/* Bytes of a printable character at `text`, 0 for what could steer a terminal or is not UTF-8. */
static size_t printable(const char *text, size_t left) {
  const unsigned char *p = (const unsigned char *)text;
  const size_t length = tr_utf8_length(p, left);
  if (length == 0 || p[0] < 0x20 || p[0] == 0x7F || (p[0] == 0xC2 && p[1] < 0xA0)) return 0;
  return length;
}

/* A copy whose control characters and broken bytes are question marks. */
static const char *keep(tr_diagnostics *diagnostics, const char *text) {
  if (text == NULL) return NULL;
  char *copy = tr_arena_strdup(diagnostics->arena, text);
  if (copy == NULL) {
    diagnostics->failed = true;
    return "";
  }
  for (size_t at = 0, left = strlen(copy); left > 0;) {
    const size_t length = printable(copy + at, left);
    if (length == 0) copy[at] = '?';
    at += length > 0 ? length : 1;
    left -= length > 0 ? length : 1;
  }
  return copy;
}

static bool before(const tr_place a, const tr_place b) {
  return a.line != b.line ? a.line < b.line : a.column < b.column;
}

static void insert(tr_diagnostics *diagnostics, const tr_diagnostic *item) {
  if (tr_reserve(diagnostics->allocator, (void **)&diagnostics->items, &diagnostics->capacity, diagnostics->count + 1,
                 sizeof *diagnostics->items, NULL) != TR_OK) {
    diagnostics->failed = true;
    return;
  }
  size_t at = diagnostics->count;
  while (at > 0 && before(item->place, diagnostics->items[at - 1].place)) at--;
  memmove(&diagnostics->items[at + 1], &diagnostics->items[at], (diagnostics->count - at) * sizeof *item);
  diagnostics->items[at] = *item;
  diagnostics->count++;
}

void tr_diagnostics_addv(tr_diagnostics *diagnostics, tr_place place, uint32_t length, bool warning, const char *key,
                         const char *hint, const char *format, va_list arguments) {
  if (!warning) diagnostics->errors++;
  if (tr_diagnostics_full(diagnostics)) return;
  if (diagnostics->count == MAX_KEPT) {
    const tr_diagnostic last = {.place = {UINT32_MAX, 0}, .message = "too many mistakes, the rest is not listed"};
    insert(diagnostics, &last);
    return;
  }
  char message[MESSAGE_BYTES];
  if (vsnprintf(message, sizeof message, format, arguments) < 0) message[0] = '\0';
  const tr_diagnostic item = {
      .place = place,
      .length = length,
      .warning = warning,
      .key = keep(diagnostics, key),
      .message = keep(diagnostics, message),
      .hint = keep(diagnostics, hint),
  };
  insert(diagnostics, &item);
}

void tr_diagnostics_add(tr_diagnostics *diagnostics, tr_place place, uint32_t length, bool warning, const char *key,
                        const char *hint, const char *format, ...) {
  va_list arguments;
  va_start(arguments, format);
  tr_diagnostics_addv(diagnostics, place, length, warning, key, hint, format, arguments);
  va_end(arguments);
}

/* ---- Printing --------------------------------------------------------------------------------------------------- */

typedef struct colors {
  const char *error, *warning, *frame, *bold, *off;
} colors;

static const colors no_colors = {"", "", "", "", ""};
static const colors ansi_colors = {"\033[1;31m", "\033[1;33m", "\033[1;34m", "\033[1m", "\033[0m"};

/* The line, without its end; false when the text has no such line. */
static bool source_line(const char *text, uint32_t line, const char **begin, size_t *bytes) {
  const char *at = text;
  for (uint32_t i = 1; i < line; i++) {
    at = strchr(at, '\n');
    if (at == NULL) return false;
    at++;
  }
  *begin = at;
  *bytes = strcspn(at, "\n");
  if (*bytes > 0 && at[*bytes - 1] == '\r') (*bytes)--;
  return true;
}

bool tr_config_is_secret_at(const char *line, size_t at) {
  static const char *const names[] = {"access-key", "secret-key", "session-token"};
  while (at > 0 && (line[at - 1] == ' ' || line[at - 1] == '\t')) at--;
  if (at == 0 || line[at - 1] != '=') return false;
  at--;
  while (at > 0 && strchr(" \t\"'", line[at - 1]) != NULL) at--;
  for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
    const size_t length = strlen(names[i]);
    if (at < length) continue;
    const char *word = line + at - length;
    bool same = true;
    for (size_t j = 0; j < length; j++)
      same = same && (word[j] == names[i][j] || (word[j] == '_' && names[i][j] == '-'));
    if (same) return true;
  }
  return false;
}

typedef struct shown_line {
  tr_writer *writer;
  uint32_t skip;  /* columns left of the window */
  uint32_t limit; /* columns shown */
  uint32_t column;
} shown_line;

static void show(shown_line *s, const char *bytes, size_t length) {
  s->column++;
  if (s->column > s->skip && s->column <= s->skip + s->limit) tr_write_bytes(s->writer, bytes, length);
}

/* Bytes of the secret that begins at `at`: a quoted string up to its quote, else everything up to a comma or brace. */
static size_t secret_length(const char *line, size_t at, size_t bytes) {
  const char quote = line[at];
  size_t end = at;
  if (quote != '"' && quote != '\'') {
    while (end < bytes && line[end] != ',' && line[end] != '}') end++;
    return end - at;
  }
  if (bytes - at >= 3 && line[at + 1] == quote && line[at + 2] == quote) return bytes - at;
  for (end = at + 1; end < bytes && line[end] != quote; end++) {
    if (line[end] == '\\' && quote == '"' && end + 1 < bytes) end++;
  }
  return (end < bytes ? end + 1 : bytes) - at;
}

/* The line as it may be shown: control characters as question marks, secrets as stars. */
static void write_source(tr_writer *writer, const char *line, size_t bytes, uint32_t skip) {
  shown_line s = {.writer = writer, .skip = skip, .limit = LINE_WIDTH};
  for (size_t at = 0; at < bytes;) {
    const char c = line[at];
    if (c != ' ' && c != '\t' && c != '{' && c != '=' && tr_config_is_secret_at(line, at)) {
      const size_t secret = secret_length(line, at, bytes);
      for (size_t i = 0; i < secret; i++) {
        if (((unsigned char)line[at + i] & 0xC0) != 0x80) show(&s, "*", 1);
      }
      at += secret;
      if (secret > 0) continue;
    }
    const size_t length = printable(line + at, bytes - at);
    show(&s, c == '\t' ? " " : length == 0 ? "?" : line + at, length > 0 ? length : 1);
    at += length > 0 ? length : 1;
  }
}

static void write_snippet(const tr_diagnostic *d, const char *text, const colors *c, tr_writer *writer) {
  const char *line;
  size_t bytes;
  if (text == NULL || !source_line(text, d->place.line, &line, &bytes)) return;
  const uint32_t skip = d->place.column > LINE_WIDTH - 20 ? d->place.column - (LINE_WIDTH / 2) : 0;
  char number[16];
  const int width = snprintf(number, sizeof number, "%u", (unsigned)d->place.line);
  tr_write_text(writer, "%s%*s |%s\n%s%s |%s ", c->frame, width, "", c->off, c->frame, number, c->off);
  write_source(writer, line, bytes, skip);
  tr_write_text(writer, "\n%s%*s |%s %*s%s", c->frame, width, "", c->off, (int)(d->place.column - skip) - 1, "",
                d->warning ? c->warning : c->error);
  const uint32_t room = LINE_WIDTH - (d->place.column - skip) + 1;
  const uint32_t length = d->length == 0 ? 1 : d->length;
  for (uint32_t i = 0; i < (length < room ? length : room); i++) tr_write_u8(writer, '^');
  tr_write_text(writer, "%s\n", c->off);
}

void tr_diagnostics_write(const tr_diagnostics *diagnostics, const char *source_name, const char *text, bool color,
                          tr_writer *writer) {
  const colors *c = color ? &ansi_colors : &no_colors;
  for (size_t i = 0; i < diagnostics->count; i++) {
    const tr_diagnostic *d = &diagnostics->items[i];
    const bool in_file = d->place.line > 0 && d->place.line < UINT32_MAX && d->place.column > 0;
    if (in_file) {
      tr_write_text(writer, "%s%s:%u:%u:%s ", c->bold, source_name != NULL ? source_name : "job.toml",
                    (unsigned)d->place.line, (unsigned)d->place.column, c->off);
    }
    tr_write_text(writer, "%s%s:%s %s%s%s\n", d->warning ? c->warning : c->error, d->warning ? "warning" : "error",
                  c->off, c->bold, d->message, c->off);
    if (in_file) write_snippet(d, text, c, writer);
    if (d->hint != NULL) tr_write_text(writer, "%shelp:%s %s\n", c->frame, c->off, d->hint);
    tr_write_text(writer, "\n");
  }
}
