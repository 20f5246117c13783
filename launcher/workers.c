/* What workers say: lines of output into logs and onto the terminal, messages into the run's records. */
#include "supervise.h"

#include <errno.h>
#include <jansson.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { READ_MOST_BYTES = 256 * 1024, ERROR_FILE_BYTES = 256 * 1024 };
static const uint64_t passing_every_ns = 1000000000;

static void shut(int *descriptor) {
  if (*descriptor >= 0) close(*descriptor);
  *descriptor = -1;
}

/* ---- Output ---- */

static void write_log(void *self, const char *data, size_t bytes) {
  tr_worker *worker = self;
  while (worker->log >= 0 && bytes > 0) {
    const ssize_t written = write(worker->log, data, bytes);
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) {
      term_error(worker->supervisor->term, "cannot write %s/%d.log, its lines are lost from here on: %s",
                 worker->supervisor->logs, worker->rank, strerror(errno));
      shut(&worker->log);
      return;
    }
    data += written;
    bytes -= (size_t)written;
  }
}

static void show_line(tr_worker *worker, bool standard_error, const char *line, size_t bytes, bool passing) {
  if (passing) {
    const uint64_t now = tr_clock_now_ns(NULL);
    if (now - worker->passing_ns < passing_every_ns) return;
    worker->passing_ns = now;
  }
  term_worker(worker->supervisor->term, standard_error, 0, worker->rank, line, bytes);
  if (bytes == 0) return;
  snprintf(worker->last_line, sizeof worker->last_line, "%.*s", (int)(bytes < 250 ? bytes : 250), line);
}

static void show_output(void *self, const char *line, size_t bytes, bool passing) {
  show_line(self, false, line, bytes, passing);
}

static void show_error(void *self, const char *line, size_t bytes, bool passing) {
  show_line(self, true, line, bytes, passing);
}

void worker_read_output(tr_worker *worker, bool standard_error) {
  const tr_lines_sink sink = {.self = worker, .raw = write_log, .line = standard_error ? show_error : show_output};
  int *descriptor = standard_error ? &worker->err : &worker->out;
  tr_lines *lines = standard_error ? &worker->err_lines : &worker->out_lines;
  if (*descriptor < 0) return;
  if (lines_read(lines, *descriptor, READ_MOST_BYTES, &sink)) return;
  lines_finish(lines, &sink);
  shut(descriptor);
}

/* ---- Messages ---- */

/* What cannot be otherwise the next time: mistakes of the user, of the data, of the program. */
static bool is_final_status(const char *status) {
  static const tr_status final[] = {TR_ERR_INVALID,  TR_ERR_CONFIG,      TR_ERR_NOT_FOUND, TR_ERR_CORRUPT,
                                    TR_ERR_CHANGED,  TR_ERR_UNSUPPORTED, TR_ERR_DENIED,    TR_ERR_MISMATCH,
                                    TR_ERR_NO_SPACE, TR_ERR_UNAVAILABLE, TR_ERR_DIVERGED};
  for (size_t i = 0; status != NULL && i < sizeof final / sizeof *final; i++) {
    if (strcmp(status, tr_status_name(final[i])) == 0) return true;
  }
  return false;
}

static void take_error(tr_worker *worker, const json_t *root) {
  const char *message = json_string_value(json_object_get(root, "message"));
  worker->final = is_final_status(json_string_value(json_object_get(root, "status")));
  if (message != NULL) snprintf(worker->message, sizeof worker->message, "%s", message);
}

/* What the terminal wants to know of a record that was kept. */
static void show_record(tr_supervisor *supervisor, const char *type, const json_t *root) {
  const bool wanted = supervisor->term->json || strcmp(type, "metrics") == 0 || strcmp(type, "event") == 0;
  char *record = wanted ? json_dumps(json_object_get(root, "record"), JSON_COMPACT) : NULL;
  if (record == NULL) return;
  live_record(&supervisor->live, type, record, strlen(record));
  term_record(supervisor->term, type, record, strlen(record));
  free(record);
}

static void take_message(void *self, const char *line, size_t bytes, bool passing) {
  tr_worker *worker = self;
  tr_supervisor *supervisor = worker->supervisor;
  tr_error error;
  (void)passing;
  worker->spoke = true;
  const tr_status status = tr_run_message(supervisor->run, line, bytes, &error);
  if (status != TR_OK && !supervisor->record_failed) {
    supervisor->record_failed = status != TR_ERR_CORRUPT;
    term_error(supervisor->term, "a message of rank %d is lost: %s", worker->rank, error.message);
  }
  static const char trace[] = "{\"type\": \"trace\"";
  if (bytes > sizeof trace && memcmp(line, trace, sizeof trace - 1) == 0) return; /* long, and nothing to show */
  json_t *root = json_loadb(line, bytes, 0, NULL);
  const char *type = json_string_value(json_object_get(root, "type"));
  if (type != NULL && strcmp(type, "error") == 0) {
    take_error(worker, root);
  } else if (type != NULL && status == TR_OK) {
    show_record(supervisor, type, root);
  }
  json_decref(root);
}

void worker_read_control(tr_worker *worker) {
  const tr_lines_sink sink = {.self = worker, .line = take_message};
  if (worker->control < 0) return;
  if (!lines_read(&worker->control_lines, worker->control, TR_WORKER_LINE_BYTES, &sink)) shut(&worker->control);
}

void worker_drain(tr_worker *worker) {
  worker_read_control(worker);
  worker_read_output(worker, false);
  worker_read_output(worker, true);
  const tr_lines_sink out = {.self = worker, .line = show_output}, err = {.self = worker, .line = show_error};
  lines_finish(&worker->out_lines, &out);
  lines_finish(&worker->err_lines, &err);
  /* Children it left may hold the other ends for ever. */
  shut(&worker->control);
  shut(&worker->out);
  shut(&worker->err);
}

void worker_signal(const tr_worker *worker, int number) {
  if (worker->pid > 0 && (worker->running || worker->lingers)) kill(-worker->pid, number);
}

/* ---- Failure ---- */

/* torchrun's error file: {"message": {"message": "ValueError: ...", ...}}. */
static void read_error_file(tr_worker *worker) {
  char path[PATH_MAX];
  if (worker->message[0] != '\0' || !worker->supervisor->plan->foreign) return;
  json_t *root = json_load_file(attempt_error_file(worker->supervisor, worker->rank, path), 0, NULL);
  const json_t *message = json_object_get(root, "message");
  const char *text = json_string_value(json_is_object(message) ? json_object_get(message, "message") : message);
  if (text != NULL) snprintf(worker->message, sizeof worker->message, "%s", text);
  json_decref(root);
}

static const char *signal_name(int number) {
  const char *name = sigabbrev_np(number);
  return name != NULL ? name : "?";
}

void worker_describe_failure(tr_worker *worker, const control_cause *cause, char *text, size_t bytes) {
  char what[160], at[48] = "";
  read_error_file(worker);
  switch (cause->kind) {
    case CAUSE_SIGNAL:
      snprintf(what, sizeof what, "was killed by SIG%s (signal %d)%s", signal_name(cause->code), cause->code,
               cause->code == SIGKILL ? ", by somebody or for want of memory" : "");
      break;
    case CAUSE_STUCK:
      snprintf(what, sizeof what, "made no progress for longer than failure.hang-timeout, %s '%s'",
               cause->suspended ? "its process stopped (SIGSTOP) in" : "stuck in", tr_phase_name(cause->phase));
      break;
    case CAUSE_START: snprintf(what, sizeof what, "could not be started"); break;
    default: snprintf(what, sizeof what, "ended with exit code %d", cause->code); break;
  }
  if (cause->step > 0) snprintf(at, sizeof at, " at step %llu", (unsigned long long)cause->step);
  const char *said = worker->message[0] != '\0' ? worker->message : worker->last_line;
  const char *how = said[0] == '\0' ? "" : worker->message[0] != '\0' ? ": " : "; its last line: ";
  snprintf(text, bytes, "rank %d %s%s%s%s", worker->rank, what, at, how, said);
}
