/* Log lines for people: level, rank and step on each line, as text or JSON.
 *
 * The one who detects logs, once; callers pass the tr_error on. A log writes to a callback (one whole line a call), never
 * to a stream of its own. Thread-safe. Logging allocates nothing. A NULL tr_log swallows everything. */
#ifndef TRAINRUN_LOG_H
#define TRAINRUN_LOG_H

#include <trainrun/alloc.h>
#include <trainrun/clock.h>

TR_BEGIN_C

typedef struct tr_log tr_log;

typedef enum tr_log_level { TR_LOG_ERROR = 0, TR_LOG_WARNING = 1, TR_LOG_INFO = 2, TR_LOG_DEBUG = 3 } tr_log_level;

/* `line` ends in '\n' and is `bytes` long. Called with the log's lock held. */
typedef void (*tr_log_write_fn)(void *self, tr_log_level level, const char *line, size_t bytes);

typedef struct tr_log_options {
  size_t struct_bytes;
  const tr_allocator *allocator;
  const tr_clock *clock;
  tr_log_level level; /* most verbose level that is written */
  bool json;
  int32_t rank; /* -1: no rank on the lines */
  tr_log_write_fn write;
  void *write_self;
} tr_log_options;

TR_API TR_MUST_USE tr_status tr_log_create(const tr_log_options *options, tr_log **out, tr_error *error);
TR_API void tr_log_destroy(tr_log *log);
TR_API void tr_log_set_step(tr_log *log, uint64_t step);
TR_API bool tr_log_enabled(const tr_log *log, tr_log_level level);
TR_API void tr_logf(tr_log *log, tr_log_level level, const char *format, ...) TR_PRINTF(3, 4);
/* "context: message (status)" at error level. */
TR_API void tr_log_error(tr_log *log, const char *context, const tr_error *error);

/* A ready write function: self is an int * holding a file descriptor. Partial writes are completed; errors ignored. */
TR_API void tr_log_write_fd(void *self, tr_log_level level, const char *line, size_t bytes);

TR_END_C
#endif
