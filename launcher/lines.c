/* Cutting a stream into lines. See lines.h. */
#include "lines.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

enum { LINES_READ_BYTES = 16 * 1024 };

static const char *find_end(const tr_lines *lines, const char *from, size_t bytes) {
  const char *end = memchr(from, '\n', bytes);
  if (!lines->carriage) return end;
  const char *carriage = memchr(from, '\r', end != NULL ? (size_t)(end - from) : bytes);
  return carriage != NULL ? carriage : end;
}

/* Hands on every whole line and keeps the rest. */
static void cut(tr_lines *lines, const tr_lines_sink *sink) {
  const char *at = lines->data;
  size_t left = lines->bytes;
  while (left > 0) {
    if (lines->swallow && *at == '\n') {
      at++;
      left--;
    }
    lines->swallow = false;
    const char *end = left > 0 ? find_end(lines, at, left) : NULL;
    if (end == NULL) break;
    const size_t length = (size_t)(end - at);
    size_t used = length + 1;
    bool passing = *end == '\r';
    if (passing && used < left && end[1] == '\n') {
      passing = false;
      used++;
    } else if (passing) {
      lines->swallow = used == left;
    }
    if (!passing || length > 0) sink->line(sink->self, at, length, passing);
    at += used;
    left -= used;
  }
  if (left >= lines->limit) {
    sink->line(sink->self, at, left, false);
    left = 0;
  }
  if (left > 0) memmove(lines->data, at, left);
  lines->bytes = left;
}

bool lines_read(tr_lines *lines, int descriptor, size_t most, const tr_lines_sink *sink) {
  for (size_t total = 0; total < most;) {
    if (tr_reserve(NULL, (void **)&lines->data, &lines->capacity, lines->bytes + LINES_READ_BYTES, 1, NULL) != TR_OK) {
      lines_finish(lines, sink); /* rather a line in two than none */
      if (lines->capacity == 0) return false;
    }
    const ssize_t got = read(descriptor, lines->data + lines->bytes, lines->capacity - lines->bytes);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return errno == EAGAIN || errno == EWOULDBLOCK;
    if (got == 0) return false;
    if (sink->raw != NULL) sink->raw(sink->self, lines->data + lines->bytes, (size_t)got);
    lines->bytes += (size_t)got;
    total += (size_t)got;
    cut(lines, sink);
  }
  return true;
}

void lines_finish(tr_lines *lines, const tr_lines_sink *sink) {
  if (lines->bytes > 0) sink->line(sink->self, lines->data, lines->bytes, false);
  lines->bytes = 0;
}

void lines_free(tr_lines *lines) {
  tr_free(NULL, lines->data);
  lines->data = NULL;
  lines->bytes = lines->capacity = 0;
}
