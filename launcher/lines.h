/* A stream cut into lines, whole, however it arrives. */
#ifndef TRAINRUN_LAUNCHER_LINES_H
#define TRAINRUN_LAUNCHER_LINES_H

#include <trainrun/base.h>

typedef struct tr_lines {
  char *data;
  size_t bytes, capacity;
  size_t limit;  /* a line longer than this is handed on in pieces */
  bool carriage; /* '\r' ends a line too (progress bars) */
  bool swallow;  /* the '\n' of a "\r\n" that was cut in two */
} tr_lines;

typedef struct tr_lines_sink {
  void *self;
  /* What was read, as it came. May be NULL. */
  void (*raw)(void *self, const char *data, size_t bytes);
  /* Without its end; `passing` when a '\r' ended it and another version of it will follow. */
  void (*line)(void *self, const char *line, size_t bytes, bool passing);
} tr_lines_sink;

/* Reads what is there, at most `most` bytes. False at the end of the stream (and after an error). */
bool lines_read(tr_lines *lines, int descriptor, size_t most, const tr_lines_sink *sink);
/* A last line without its end. */
void lines_finish(tr_lines *lines, const tr_lines_sink *sink);
void lines_free(tr_lines *lines);

#endif
