/* The run of a session: read from the launcher, or opened by rank 0 and told to all; and the messages that end in its folder. */
#include "session.h"

#include <errno.h>
#include <jansson.h>
#include <linux/sockios.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

static const char *text_of(tr_session *session, json_t *root, const char *key) {
  const char *text = json_string_value(json_object_get(root, key));
  return tr_arena_strdup(session->arena, text != NULL ? text : "");
}

static tr_status take_facts(tr_session *session, const char *text, size_t bytes, tr_error *error) {
  json_error_t where;
  json_t *root = json_loadb(text, bytes, 0, &where);
  if (!json_is_object(root)) {
    json_decref(root);
    return tr_fail(error, TR_ERR_CORRUPT, "the launcher's description of the run is no JSON object: %s", where.text);
  }
  tr_run_facts *facts = &session->facts;
  const char *kind = json_string_value(json_object_get(root, "kind"));
  facts->eval = kind != NULL && strcmp(kind, "eval") == 0;
  facts->profile = json_is_true(json_object_get(root, "profile"));
  facts->trace = json_is_true(json_object_get(root, "trace"));
  facts->attempt = (uint64_t)json_integer_value(json_object_get(root, "attempt"));
  facts->resume_step = json_integer_value(json_object_get(root, "resume"));
  facts->name = text_of(session, root, "name");
  facts->run_id = text_of(session, root, "run_id");
  facts->folder = text_of(session, root, "folder");
  facts->checkpoint_url = text_of(session, root, "checkpoint_url");
  facts->resume_url = text_of(session, root, "resume_url");
  json_decref(root);
  if (facts->name == NULL || facts->run_id == NULL || facts->folder == NULL || facts->checkpoint_url == NULL ||
      facts->resume_url == NULL) {
    return tr_fail_memory(error, "the run", bytes);
  }
  facts->open = true;
  return TR_OK;
}

static tr_status open_own(tr_session *session, tr_writer *told, tr_error *error) {
  const tr_run_options options = {
      .struct_bytes = sizeof options,
      .allocator = session->allocator,
      .clock = session->clock,
      .log = session->log,
      .stores = session->stores,
      .config = session->config,
      .world_size = session->comm_info.size,
      .device = tr_device_kind_of(session->device) == TR_DEVICE_CUDA ? "cuda" : "cpu",
  };
  TR_TRY(tr_run_open(&options, &session->run, error));
  tr_run_write_worker(session->run, false, false, told);
  return told->failed ? tr_fail_memory(error, "the run", told->bytes) : TR_OK;
}

/* What rank 0 tells the others: how the opening went and, when well, the run. */
typedef struct announcement {
  tr_error error;
  uint64_t bytes;
} announcement;

static tr_status share_run(tr_session *session, tr_error *error) {
  announcement said = {.error = {.status = TR_OK, .rank = -1}};
  tr_writer told;
  tr_writer_init(&told, session->allocator);
  if (session->comm_info.rank == 0) {
    const tr_status status = open_own(session, &told, &said.error);
    said.error.status = status;
    said.bytes = told.bytes;
  }
  tr_status status = tr_comm_broadcast(session->comm, &said, sizeof said, 0, NULL, error);
  if (status == TR_OK && said.error.status != TR_OK) {
    if (error != NULL) *error = said.error;
    status = said.error.status;
  }
  if (status != TR_OK) goto done;
  char *text = tr_alloc(session->allocator, said.bytes);
  if (text == NULL) {
    status = tr_fail_memory(error, "the run", said.bytes);
    goto done;
  }
  if (session->comm_info.rank == 0) memcpy(text, told.data, said.bytes);
  status = tr_comm_broadcast(session->comm, text, said.bytes, 0, NULL, error);
  if (status == TR_OK) status = take_facts(session, text, said.bytes, error);
  tr_free(session->allocator, text);
done:
  tr_writer_fini(&told);
  return status;
}

tr_status tr_session_open_run(tr_session *session, tr_error *error) {
  if (session->facts.open) return TR_OK;
  if (session->world.origin != TR_ORIGIN_LAUNCHER) return share_run(session, error);
  char *text = NULL;
  size_t bytes = 0;
  TR_TRY(tr_read_descriptor(session->allocator, session->world.run, "the launcher's description of the run", &text,
                            &bytes, error));
  const tr_status status = take_facts(session, text, bytes, error);
  tr_free(session->allocator, text);
  return status;
}

/* ---- Messages ---- */

static void send_line(tr_session *session) {
  tr_writer *line = &session->line;
  tr_error error;
  if (line->failed) {
    tr_logf(session->log, TR_LOG_WARNING, "out of memory: a record of the run is lost");
    return;
  }
  if (session->run != NULL) {
    if (tr_run_message(session->run, (const char *)line->data, line->bytes, &error) != TR_OK) {
      tr_log_error(session->log, "the run's folder", &error);
    }
    return;
  }
  if (session->world.control < 0) return;
  tr_write_u8(line, '\n');
  if (line->failed) return;
  const char *data = (const char *)line->data;
  for (size_t left = line->bytes; left > 0;) {
    const ssize_t sent = write(session->world.control, data, left);
    if (sent < 0 && errno == EINTR) continue;
    if (sent <= 0) return; /* the launcher is gone, and so will this process be */
    data += sent;
    left -= (size_t)sent;
  }
}

static void begin_line(tr_session *session) {
  session->line.bytes = 0;
  session->line.failed = false;
}

void tr_session_send(tr_session *session, const char *type, const char *record, size_t bytes) {
  if (session->run == NULL && session->world.control < 0) return;
  begin_line(session);
  tr_write_text(&session->line, "{\"type\": \"%s\", \"record\": ", type);
  const size_t begin = session->line.bytes;
  tr_write_bytes(&session->line, record, bytes);
  /* A message is one line; between the tokens of a record any white space will do. */
  for (size_t i = begin; i < session->line.bytes; i++) {
    if (session->line.data[i] == '\n') session->line.data[i] = ' ';
  }
  tr_write_text(&session->line, "}");
  send_line(session);
}

void tr_session_drain(tr_session *session) {
  int unread = 0;
  if (session->world.control < 0) return;
  for (int i = 0; i < 20000 && ioctl(session->world.control, SIOCOUTQ, &unread) == 0 && unread > 0; i++) {
    tr_clock_sleep_ns(session->clock, 50000);
  }
}

void tr_session_event(tr_session *session, const char *name, const char *format, ...) {
  char members[1024], when[32], record[1200];
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(members, sizeof members, format, arguments);
  va_end(arguments);
  tr_time_format(tr_clock_wall_ns(session->clock), when);
  const int length = snprintf(record, sizeof record, "{\"time\": \"%s\", \"event\": \"%s\", \"attempt\": %llu%s%s}",
                              when, name, (unsigned long long)session->facts.attempt, members[0] != '\0' ? ", " : "",
                              members);
  if (length > 0 && length < (int)sizeof record) tr_session_send(session, "event", record, (size_t)length);
}

void tr_session_send_error(tr_session *session, const tr_error *error, int exit_code) {
  begin_line(session);
  tr_write_text(&session->line,
                "{\"type\": \"error\", \"rank\": %d, \"status\": \"%s\", \"exit_code\": %d, \"message\": ",
                (int)session->comm_info.rank, tr_status_name(error->status), exit_code);
  tr_write_json_string(&session->line, error->message);
  tr_write_text(&session->line, "}");
  send_line(session);
}

void tr_session_send_trace(tr_session *session) {
  if (session->trace == NULL) return;
  tr_writer events;
  tr_writer_init(&events, session->allocator);
  tr_trace_write(session->trace, &events);
  tr_write_u8(&events, 0);
  if (!events.failed && events.bytes > 1) {
    begin_line(session);
    tr_write_text(&session->line, "{\"type\": \"trace\", \"events\": ");
    tr_write_json_string(&session->line, (const char *)events.data);
    tr_write_text(&session->line, "}");
    send_line(session);
  }
  tr_writer_fini(&events);
}

void tr_session_report(tr_session *session, uint64_t step, const char *members) {
  if (session->comm_info.rank != 0 || !session->facts.open) return;
  tr_writer record;
  tr_writer_init(&record, session->allocator);
  tr_write_text(&record, "{\"step\": %llu, %s}", (unsigned long long)step, members);
  if (!record.failed) tr_session_send(session, "metrics", (const char *)record.data, record.bytes);
  tr_writer_fini(&record);
}
