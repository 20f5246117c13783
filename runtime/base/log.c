/* Log lines: formatted into one buffer under one lock and handed to the callback whole. */
#include <trainrun/log.h>

#include "c_locale.h"
#include "utf8.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { MESSAGE_BYTES = 2048, LINE_BYTES = 6 * MESSAGE_BYTES + 256 };

struct tr_log {
  /* Set at creation. */
  const tr_allocator *allocator;
  const tr_clock *clock;
  tr_log_level level;
  bool json;
  int32_t rank;
  tr_log_write_fn write;
  void *write_self;

  /* Atomic: the step of the next lines plus one; 0 before the first. */
  uint64_t step_plus_one;

  /* Guarded by `lock`. */
  pthread_mutex_t lock;
  char message[MESSAGE_BYTES];
  char line[LINE_BYTES];
};

static const char *level_name(tr_log_level level) {
  switch (level) {
    case TR_LOG_ERROR: return "error";
    case TR_LOG_WARNING: return "warning";
    case TR_LOG_INFO: return "info";
    case TR_LOG_DEBUG: return "debug";
  }
  return "info";
}

tr_status tr_log_create(const tr_log_options *options, tr_log **out, tr_error *error) {
  if (options == NULL || options->struct_bytes != sizeof *options || options->write == NULL) {
    return tr_fail(error, TR_ERR_INVALID, "tr_log_create: struct_bytes is wrong or write is missing");
  }
  tr_log *log = tr_calloc(options->allocator, 1, sizeof *log);
  if (log == NULL) return tr_fail_memory(error, "a log", sizeof *log);
  log->allocator = options->allocator;
  log->clock = options->clock;
  log->level = options->level;
  log->json = options->json;
  log->rank = options->rank;
  log->write = options->write;
  log->write_self = options->write_self;
  pthread_mutex_init(&log->lock, NULL);
  *out = log;
  return TR_OK;
}

void tr_log_destroy(tr_log *log) {
  if (log == NULL) return;
  pthread_mutex_destroy(&log->lock);
  tr_free(log->allocator, log);
}

/* Relaxed: the step only labels lines. */
void tr_log_set_step(tr_log *log, uint64_t step) {
  if (log != NULL) __atomic_store_n(&log->step_plus_one, step + 1, __ATOMIC_RELAXED);
}

bool tr_log_enabled(const tr_log *log, tr_log_level level) { return log != NULL && level <= log->level; }

/* Appends `text`; LINE_BYTES has room for any message, each byte of which takes at most six. */
static size_t put(char *line, size_t at, const char *text) {
  const size_t length = strlen(text);
  memcpy(line + at, text, length);
  return at + length;
}

static size_t put_escape(char *line, size_t at, unsigned char c, bool json) {
  char text[8];
  if (c == '\n' || c == '\t' || c == '\r') {
    snprintf(text, sizeof text, "\\%c", c == '\n' ? 'n' : c == '\t' ? 't' : 'r');
  } else if (c == '"' || c == '\\') {
    snprintf(text, sizeof text, "\\%c", c);
  } else {
    snprintf(text, sizeof text, json ? "\\u%04x" : "\\x%02x", (unsigned)c);
  }
  return put(line, at, text);
}

/* A message stays one line and cannot forge another: control characters are escaped, what is not UTF-8 replaced. */
static size_t put_message(char *line, size_t at, const char *message, bool json) {
  const unsigned char *p = (const unsigned char *)message;
  size_t left = strlen(message);
  while (left > 0) {
    const size_t length = tr_utf8_length(p, left);
    const size_t step = length > 0 ? length : 1;
    if (length == 0) {
      at = put(line, at, "\xEF\xBF\xBD");
    } else if (*p < 0x20 || *p == 0x7F || (json && (*p == '"' || *p == '\\'))) {
      at = put_escape(line, at, *p, json);
    } else {
      memcpy(line + at, p, length);
      at += length;
    }
    p += step;
    left -= step;
  }
  return at;
}

static size_t put_prefix(const tr_log *log, char *line, const char *time, tr_log_level level, uint64_t step_plus_one) {
  size_t at = 0;
  char number[64];
  at = put(line, at, log->json ? "{\"time\":\"" : "");
  at = put(line, at, time);
  at = put(line, at, log->json ? "\",\"level\":\"" : " ");
  at = put(line, at, level_name(level));
  at = put(line, at, log->json ? "\"" : "");
  if (log->rank >= 0) {
    snprintf(number, sizeof number, log->json ? ",\"rank\":%d" : " rank %d", (int)log->rank);
    at = put(line, at, number);
  }
  if (step_plus_one > 0) {
    snprintf(number, sizeof number, log->json ? ",\"step\":%llu" : " step %llu",
             (unsigned long long)(step_plus_one - 1));
    at = put(line, at, number);
  }
  return put(line, at, log->json ? ",\"message\":\"" : ": ");
}

void tr_logf(tr_log *log, tr_log_level level, const char *format, ...) {
  if (!tr_log_enabled(log, level)) return;
  char time[32];
  tr_time_format(tr_clock_wall_ns(log->clock), time);
  pthread_mutex_lock(&log->lock);
  va_list arguments;
  va_start(arguments, format);
  const locale_t before = tr_c_locale_enter();
  if (vsnprintf(log->message, sizeof log->message, format, arguments) < 0) log->message[0] = '\0';
  tr_c_locale_leave(before);
  va_end(arguments);
  size_t at = put_prefix(log, log->line, time, level, __atomic_load_n(&log->step_plus_one, __ATOMIC_RELAXED));
  at = put_message(log->line, at, log->message, log->json);
  at = put(log->line, at, log->json ? "\"}\n" : "\n");
  log->write(log->write_self, level, log->line, at);
  pthread_mutex_unlock(&log->lock);
}

void tr_log_error(tr_log *log, const char *context, const tr_error *error) {
  if (!tr_log_enabled(log, TR_LOG_ERROR) || error == NULL) return;
  tr_logf(log, TR_LOG_ERROR, "%s%s%s (%s)", context != NULL ? context : "", context != NULL ? ": " : "", error->message,
          tr_status_name(error->status));
}

void tr_log_write_fd(void *self, tr_log_level level, const char *line, size_t bytes) {
  (void)level;
  const int fd = *(const int *)self;
  while (bytes > 0) {
    const ssize_t written = write(fd, line, bytes);
    if (written < 0 && errno == EINTR) continue;
    if (written <= 0) return;
    line += written;
    bytes -= (size_t)written;
  }
}
