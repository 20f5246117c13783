/* Writing to the terminal. See term.h. */
#include "term.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#define DIM   "\033[2m"
#define RED   "\033[31m"
#define PLAIN "\033[0m"

static const char *value_of(const tr_cli *cli, const char *name) {
  const size_t length = strlen(name);
  for (char *const *item = cli->environment; *item != NULL; item++) {
    if (strncmp(*item, name, length) == 0 && (*item)[length] == '=') return *item + length + 1;
  }
  return "";
}

bool term_is_terminal(const tr_cli *cli, int descriptor) {
  return isatty(descriptor) == 1 && strcmp(value_of(cli, "TERM"), "dumb") != 0;
}

bool term_wants_color(const tr_cli *cli, int descriptor) {
  return !cli->no_color && !cli->json && value_of(cli, "NO_COLOR")[0] == '\0' && term_is_terminal(cli, descriptor);
}

void term_init(tr_term *term, const tr_cli *cli) {
  term->quiet = cli->quiet;
  term->json = cli->json;
  term->live = !cli->quiet && !cli->json && term_is_terminal(cli, STDERR_FILENO);
  term->live_shown = 0;
  term->live_text[0] = '\0';
  term->out.descriptor = STDOUT_FILENO;
  term->err.descriptor = STDERR_FILENO;
  term->out.color = term_wants_color(cli, STDOUT_FILENO);
  term->err.color = term_wants_color(cli, STDERR_FILENO);
  term->out.bytes = term->err.bytes = 0;
}

static void write_all(int descriptor, const char *data, size_t bytes) {
  while (bytes > 0) {
    const ssize_t written = write(descriptor, data, bytes);
    if (written >= 0) {
      data += written;
      bytes -= (size_t)written;
    } else if (errno == EAGAIN) { /* somebody made the terminal non-blocking */
      struct pollfd ready = {.fd = descriptor, .events = POLLOUT};
      (void)poll(&ready, 1, 1000);
    } else if (errno != EINTR) {
      return;
    }
  }
}

static void flush(tr_term_stream *stream) {
  write_all(stream->descriptor, stream->data, stream->bytes);
  stream->bytes = 0;
}

static void put(tr_term *term, tr_term_stream *stream, const char *data, size_t bytes) {
  /* Both streams may be one terminal: what was said first comes first. */
  tr_term_stream *other = stream == &term->out ? &term->err : &term->out;
  if (other->bytes > 0) flush(other);
  while (bytes > 0) {
    if (stream->bytes == sizeof stream->data) flush(stream);
    const size_t room = sizeof stream->data - stream->bytes, part = bytes < room ? bytes : room;
    memcpy(stream->data + stream->bytes, data, part);
    stream->bytes += part;
    data += part;
    bytes -= part;
  }
}

static void put_text(tr_term *term, tr_term_stream *stream, const char *text) { put(term, stream, text, strlen(text)); }

static void take_live_away(tr_term *term) {
  if (term->live_shown == 0) return;
  put_text(term, &term->err, "\r\033[K");
  term->live_shown = 0;
}

static void put_json(tr_term *term, const char *type, const char *member, const char *text) {
  tr_writer writer;
  tr_writer_init(&writer, NULL);
  tr_write_text(&writer, "{\"type\": \"%s\", \"%s\": ", type, member);
  tr_write_json_string(&writer, text);
  tr_write_text(&writer, "}\n");
  if (!writer.failed) put(term, &term->out, (const char *)writer.data, writer.bytes);
  tr_writer_fini(&writer);
}

static void say(tr_term *term, const char *color, const char *kind, const char *text) {
  if (term->json) put_json(term, kind, "text", text);
  take_live_away(term);
  if (term->json && strcmp(kind, "note") == 0) return;
  put_text(term, &term->err, term->err.color ? color : "");
  put_text(term, &term->err, "trainrun: ");
  put_text(term, &term->err, text);
  put_text(term, &term->err, term->err.color ? PLAIN "\n" : "\n");
}

void term_note(tr_term *term, const char *format, ...) {
  char text[2048];
  if (term->quiet) return;
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(text, sizeof text, format, arguments);
  va_end(arguments);
  say(term, DIM, "note", text);
}

void term_error(tr_term *term, const char *format, ...) {
  char text[2048];
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(text, sizeof text, format, arguments);
  va_end(arguments);
  say(term, RED, "error", text);
}

static void worker_json(tr_term *term, bool standard_error, int32_t node, int32_t rank, const char *line,
                        size_t bytes) {
  tr_writer writer;
  char *text = tr_strndup(NULL, line, bytes);
  tr_writer_init(&writer, NULL);
  tr_write_text(&writer, "{\"type\": \"output\", \"node\": %d, \"rank\": %d, \"stream\": \"%s\", \"line\": ", node,
                rank, standard_error ? "stderr" : "stdout");
  if (text != NULL) tr_write_json_string(&writer, text);
  tr_write_text(&writer, "}\n");
  if (text != NULL && !writer.failed) put(term, &term->out, (const char *)writer.data, writer.bytes);
  tr_free(NULL, text);
  tr_writer_fini(&writer);
}

void term_worker(tr_term *term, bool standard_error, int32_t node, int32_t rank, const char *line, size_t bytes) {
  if (term->json) {
    worker_json(term, standard_error, node, rank, line, bytes);
    return;
  }
  char prefix[64];
  tr_term_stream *stream = standard_error ? &term->err : &term->out;
  take_live_away(term);
  if (stream->color) {
    snprintf(prefix, sizeof prefix, "\033[%dm[%d/%d]\033[0m ", 32 + rank % 5, node, rank);
  } else {
    snprintf(prefix, sizeof prefix, "[%d/%d] ", node, rank);
  }
  put_text(term, stream, prefix);
  put(term, stream, line, bytes);
  put_text(term, stream, "\n");
}

void term_record(tr_term *term, const char *type, const char *record, size_t bytes) {
  if (!term->json) return;
  char head[64];
  snprintf(head, sizeof head, "{\"type\": \"%s\", \"record\": ", type);
  put_text(term, &term->out, head);
  put(term, &term->out, record, bytes);
  put_text(term, &term->out, "}\n");
}

void term_text(tr_term *term, const char *text, size_t bytes) {
  take_live_away(term);
  put(term, &term->out, text, bytes);
}

int term_columns(void) {
  struct winsize size;
  return ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0 ? size.ws_col : 80;
}

void term_live(tr_term *term, const char *text) {
  if (!term->live) return;
  snprintf(term->live_text, sizeof term->live_text, "%s", text);
  if (text[0] == '\0') {
    take_live_away(term);
    return;
  }
  put_text(term, &term->err, "\r");
  put_text(term, &term->err, text);
  put_text(term, &term->err, "\033[K");
  term->live_shown = strlen(text);
}

void term_flush(tr_term *term) {
  /* A line that made room for others comes back under them. */
  if (term->live && term->live_shown == 0 && term->live_text[0] != '\0') term_live(term, term->live_text);
  flush(&term->out);
  flush(&term->err);
}
