/* What a run's writer writes: control.json, records of workers, events, summary.json and trace.json. */
#include "run_internal.h"

#include <jansson.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include <pwd.h>

static void write_key(tr_writer *writer, const char *key) {
  tr_write_json_string(writer, key);
  tr_write_text(writer, ": ");
}

static void write_text_member(tr_writer *writer, const char *key, const char *value) {
  tr_write_text(writer, ", ");
  write_key(writer, key);
  if (value == NULL) {
    tr_write_text(writer, "null");
  } else {
    tr_write_json_string(writer, value);
  }
}

/* The moment the run was first made, kept over attempts: it orders the runs of a name. */
static int64_t created_ns(const tr_run *run) {
  char *text = NULL;
  size_t bytes = 0;
  int64_t created = 0;
  if (tr_folder_read(run->allocator, run->info.folder, "control.json", &text, &bytes, NULL) == TR_OK) {
    json_t *control = json_loadb(text, bytes, 0, NULL);
    created = json_integer_value(json_object_get(control, "created_ns"));
    json_decref(control);
    tr_free(run->allocator, text);
  }
  return created > 0 ? created : run->started_wall_ns;
}

static void host_name(char host[256]) {
  if (gethostname(host, 255) != 0) snprintf(host, 256, "unknown");
  host[255] = '\0';
}

tr_status tr_run_write_control(const tr_run *run, const char *status, tr_error *error) {
  tr_writer writer;
  char host[256];
  host_name(host);
  tr_writer_init(&writer, run->allocator);
  tr_write_text(&writer, "{\"schema\": 1, \"kind\": \"%s\"", run->eval ? "eval" : "train");
  write_text_member(&writer, "name", run->info.name);
  write_text_member(&writer, "run_id", run->info.run_id);
  write_text_member(&writer, "status", status);
  write_text_member(&writer, "host", host);
  tr_write_text(&writer,
                ", \"pid\": %d, \"attempt\": %llu, \"world_size\": %d, \"created_ns\": %lld, \"started_ns\": %lld",
                (int)getpid(), (unsigned long long)run->info.attempt, run->world_size, (long long)created_ns(run),
                (long long)run->started_wall_ns);
  write_text_member(&writer, "device", run->device);
  write_text_member(&writer, "checkpoint_url", run->info.checkpoint_url);
  tr_write_text(&writer, "}\n");
  tr_status result = writer.failed ? tr_fail_memory(error, "control.json", writer.bytes) : TR_OK;
  if (result == TR_OK) {
    result = tr_folder_write(run->info.folder, "control.json", writer.data, writer.bytes, 0600, false, error);
  }
  tr_writer_fini(&writer);
  return result;
}

void tr_run_write_worker(const tr_run *run, bool profile, bool trace, tr_writer *writer) {
  tr_write_text(writer, "{\"kind\": \"%s\"", run->eval ? "eval" : "train");
  write_text_member(writer, "name", run->info.name);
  write_text_member(writer, "run_id", run->info.run_id);
  write_text_member(writer, "folder", run->info.folder);
  write_text_member(writer, "checkpoint_url", run->info.checkpoint_url);
  write_text_member(writer, "resume_url", run->info.resume_url);
  tr_write_text(writer, ", \"attempt\": %llu, \"resume\": %lld, \"profile\": %s, \"trace\": %s}\n",
                (unsigned long long)run->info.attempt, (long long)run->info.resume_step, profile ? "true" : "false",
                trace ? "true" : "false");
}

/* ---- Messages ---- */

/* The text of the member "record", which is the last of its line, so that numbers keep the digits they were sent with. */
static bool record_text(const char *line, size_t bytes, const char **record, size_t *record_bytes) {
  static const char mark[] = "\"record\": ";
  const char *begin = memmem(line, bytes, mark, sizeof mark - 1);
  if (begin == NULL) return false;
  begin += sizeof mark - 1;
  const char *end = line + bytes;
  while (end > begin && end[-1] != '}') end--;
  if (end - begin < 3) return false;
  *record = begin;
  *record_bytes = (size_t)(end - begin) - 1;
  return true;
}

static tr_status keep_text(const tr_run *run, char **to, const char *text, size_t bytes, tr_error *error) {
  char *copy = tr_strndup(run->allocator, text, bytes);
  if (copy == NULL) return tr_fail_memory(error, "a worker's record", bytes);
  tr_free(run->allocator, *to);
  *to = copy;
  return TR_OK;
}

static tr_status append_line(const tr_run *run, int descriptor, const char *name, const char *text, size_t bytes,
                             tr_error *error) {
  if (descriptor < 0) return TR_OK;
  char *line = tr_alloc(run->allocator, bytes + 1);
  if (line == NULL) return tr_fail_memory(error, name, bytes + 1);
  memcpy(line, text, bytes);
  line[bytes] = '\n';
  const tr_status status = tr_folder_append(descriptor, name, line, bytes + 1, error);
  tr_free(run->allocator, line);
  return status;
}

static tr_status take_record(tr_run *run, const char *type, const char *record, size_t bytes, tr_error *error) {
  if (strcmp(type, "metrics") == 0) {
    TR_TRY(keep_text(run, &run->last, record, bytes, error));
    return append_line(run, run->metrics, "metrics.jsonl", record, bytes, error);
  }
  if (strcmp(type, "event") == 0) return append_line(run, run->events, "events.jsonl", record, bytes, error);
  if (strcmp(type, "result") == 0) return keep_text(run, &run->result, record, bytes, error);
  if (strcmp(type, "lock") == 0) {
    return tr_folder_write(run->info.folder, "data.lock.json", record, bytes, 0666, false, error);
  }
  return tr_fail(error, TR_ERR_CORRUPT, "a worker's message of unknown type '%.40s'", type);
}

tr_status tr_run_message(tr_run *run, const char *line, size_t bytes, tr_error *error) {
  json_error_t where;
  json_t *root = json_loadb(line, bytes, 0, &where);
  const char *type = json_string_value(json_object_get(root, "type"));
  const char *events = json_string_value(json_object_get(root, "events"));
  const char *record = NULL;
  size_t record_bytes = 0;
  tr_status status;
  if (type == NULL) {
    status = tr_fail(error, TR_ERR_CORRUPT, "a worker's message is no JSON object with a type: %s", where.text);
  } else if (strcmp(type, "error") == 0) {
    status = TR_OK; /* for the launcher's own decision; it writes the event */
  } else if (strcmp(type, "trace") == 0 && events != NULL) {
    tr_write_text(&run->trace, "%s", run->trace.bytes > 0 ? ",\n" : "");
    tr_write_bytes(&run->trace, events, strlen(events));
    status = run->trace.failed ? tr_fail_memory(error, "trace.json", strlen(events)) : TR_OK;
  } else if (!json_is_object(json_object_get(root, "record")) || !record_text(line, bytes, &record, &record_bytes)) {
    status = tr_fail(error, TR_ERR_CORRUPT, "a worker's message of type '%.40s' has no record", type);
  } else {
    status = take_record(run, type, record, record_bytes, error);
  }
  json_decref(root);
  return status;
}

void tr_run_event(tr_run *run, const char *name, const char *members) {
  tr_writer writer;
  char when[32];
  tr_time_format(tr_clock_wall_ns(run->clock), when);
  tr_writer_init(&writer, run->allocator);
  tr_write_text(&writer, "{\"time\": \"%s\", \"event\": ", when);
  tr_write_json_string(&writer, name);
  tr_write_text(&writer, ", \"attempt\": %llu", (unsigned long long)run->info.attempt);
  if (members != NULL && members[0] != '\0') tr_write_text(&writer, ", %s", members);
  tr_write_text(&writer, "}\n");
  tr_error error;
  if (!writer.failed && run->events >= 0 &&
      tr_folder_append(run->events, "events.jsonl", (const char *)writer.data, writer.bytes, &error) != TR_OK) {
    tr_log_error(run->log, "events.jsonl", &error);
  }
  tr_writer_fini(&writer);
}

/* ---- The end ---- */

/* The members of a JSON object's text without its braces; "" for none. */
static const char *members_of(const char *object, size_t *bytes) {
  *bytes = 0;
  if (object == NULL) return "";
  const char *begin = strchr(object, '{'), *end = strrchr(object, '}');
  if (begin == NULL || end == NULL || end <= begin + 1) return "";
  *bytes = (size_t)(end - begin) - 1;
  return begin + 1;
}

static void write_summary(const tr_run *run, const tr_run_outcome *outcome, tr_writer *writer) {
  char host[256];
  host_name(host);
  struct passwd entry, *found = NULL;
  char names[1024];
  if (getpwuid_r(getuid(), &entry, names, sizeof names, &found) != 0) found = NULL;
  size_t bytes = 0;
  const char *members = members_of(run->result != NULL ? run->result : run->last, &bytes);
  tr_write_text(writer, "{\"schema\": 1, \"kind\": \"%s\"", run->eval ? "eval" : "train");
  write_text_member(writer, "name", run->info.name);
  write_text_member(writer, "run_id", run->info.run_id);
  write_text_member(writer, "status", outcome->status);
  write_text_member(writer, "cause", outcome->cause);
  tr_write_text(writer, ", \"exit_code\": %d, \"world_size\": %d", outcome->exit_code, run->world_size);
  write_text_member(writer, "device", run->device);
  if (bytes > 0) {
    tr_write_text(writer, ", ");
    tr_write_bytes(writer, members, bytes);
  }
  tr_write_text(writer, ", \"attempts\": %llu, \"restarts\": %llu, \"steps_lost\": %llu",
                (unsigned long long)run->info.attempt, (unsigned long long)outcome->restarts,
                (unsigned long long)outcome->steps_lost);
  write_text_member(writer, "version", TRAINRUN_VERSION);
  write_text_member(writer, "host", host);
  write_text_member(writer, "user", found != NULL ? found->pw_name : "unknown");
  write_text_member(writer, "checkpoint_url", run->info.checkpoint_url);
  tr_write_text(writer, "}\n");
}

/* Where checkpoints go to a bucket, what tells of the run goes beside them: the bucket alone then says what is in it. A copy
 * that cannot be written is a warning; the folder has the original. */
static void copy_beside_checkpoints(const tr_run *run) {
  static const char *const names[] = {"job.resolved.toml", "events.jsonl", "summary.json"};
  tr_store *store = NULL;
  char prefix[TR_KEY_BYTES], key[TR_KEY_BYTES + 32];
  tr_error error;
  tr_status status = tr_stores_resolve(run->stores, run->info.checkpoint_url, &store, prefix, &error);
  if (status == TR_OK && strcmp(tr_store_vtable(store, NULL)->name, "file") == 0) return;
  for (size_t i = 0; status == TR_OK && i < sizeof names / sizeof *names; i++) {
    char *text = NULL;
    size_t bytes = 0;
    snprintf(key, sizeof key, "%s/%s", prefix, names[i]);
    status = tr_folder_read(run->allocator, run->info.folder, names[i], &text, &bytes, &error);
    if (status == TR_OK) status = tr_store_put(store, key, text, bytes, false, &error);
    tr_free(run->allocator, text);
  }
  if (status != TR_OK) {
    tr_logf(run->log, TR_LOG_WARNING, "the copy of the run's records in '%s': %s", run->info.checkpoint_url,
            error.message);
  }
}

tr_status tr_run_finish(tr_run *run, const tr_run_outcome *outcome, tr_error *error) {
  tr_status status = TR_OK;
  if (run->trace.bytes > 0 && !run->trace.failed) {
    tr_writer trace;
    tr_writer_init(&trace, run->allocator);
    tr_write_text(&trace, "{\"displayTimeUnit\": \"ms\", \"traceEvents\": [\n");
    tr_write_bytes(&trace, run->trace.data, run->trace.bytes);
    tr_write_text(&trace, "\n]}\n");
    status = trace.failed
                 ? tr_fail_memory(error, "trace.json", trace.bytes)
                 : tr_folder_write(run->info.folder, "trace.json", trace.data, trace.bytes, 0666, false, error);
    tr_writer_fini(&trace);
    TR_TRY(status);
  }
  tr_writer summary;
  tr_writer_init(&summary, run->allocator);
  write_summary(run, outcome, &summary);
  status = summary.failed ? tr_fail_memory(error, "summary.json", summary.bytes)
                          : keep_text(run, &run->summary, (const char *)summary.data, summary.bytes, error);
  if (status == TR_OK) {
    status = tr_folder_write(run->info.folder, "summary.json", summary.data, summary.bytes, 0666, true, error);
  }
  tr_writer_fini(&summary);
  TR_TRY(status);
  TR_TRY(tr_run_write_control(run, outcome->status, error));
  copy_beside_checkpoints(run);
  return TR_OK;
}
