/* A store for the fault suite to play with: reads commands, does them on one bucket, answers each with a line of JSON.
 *
 *   s3_driver ENDPOINT BUCKET [attempts=N] [stall-ms=N] [connections=N] [persistent]
 *
 *   get KEY CHUNK FILE [ETAG]      all chunks of CHUNK bytes at once, into FILE; of the version ETAG where one is given
 *   put KEY FILE | put-absent KEY FILE | upload KEY FILE PART | upload-absent KEY FILE PART
 *   head KEY | delete KEY | list PREFIX
 *
 * The keys are AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY; the session token is FIRST_TOKEN until a renewal is asked for,
 * then none. Each answer has status, message, seconds, bytes, etag, keys, requests, retries, throttled, renewals. */
#include <jansson.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <trainrun/s3.h>

enum { CHUNKS_MAX = 4096, LINE_BYTES = 4096 };

typedef struct driver {
  tr_store *store;
  atomic_uint renewals;
  json_t *answer;
} driver;

static tr_status get_credentials(void *self, bool renew, tr_s3_credentials *credentials, tr_error *error) {
  (void)error;
  driver *of = self;
  if (renew) atomic_fetch_add(&of->renewals, 1);
  memset(credentials, 0, sizeof *credentials);
  snprintf(credentials->access_key, sizeof credentials->access_key, "%s", getenv("AWS_ACCESS_KEY_ID"));
  snprintf(credentials->secret_key, sizeof credentials->secret_key, "%s", getenv("AWS_SECRET_ACCESS_KEY"));
  const char *token = getenv("FIRST_TOKEN");
  if (token != NULL && atomic_load(&of->renewals) == 0) {
    snprintf(credentials->session_token, sizeof credentials->session_token, "%s", token);
  }
  return TR_OK;
}

static char *read_file(const char *path, size_t *bytes) {
  FILE *file = fopen(path, "rb");
  if (file == NULL) exit(2);
  fseek(file, 0, SEEK_END);
  *bytes = (size_t)ftell(file);
  rewind(file);
  char *data = malloc(*bytes + 1);
  if (data == NULL || fread(data, 1, *bytes, file) != *bytes) exit(2);
  fclose(file);
  return data;
}

static tr_status get(driver *of, const char *key, size_t chunk, const char *path, const char *etag, tr_error *error) {
  static tr_store_request requests[CHUNKS_MAX];
  tr_object_info info;
  TR_TRY(tr_store_head(of->store, key, &info, error));
  const size_t count = (info.bytes + chunk - 1) / chunk;
  char *data = malloc(info.bytes + 1);
  if (count > CHUNKS_MAX || data == NULL) exit(2);
  tr_status first = TR_OK;
  size_t bytes = 0;
  for (size_t i = 0; i < count; i++) {
    const size_t offset = i * chunk, left = (size_t)info.bytes - offset;
    requests[i] = (tr_store_request){.struct_bytes = sizeof requests[i],
                                     .verb = TR_STORE_GET,
                                     .key = key,
                                     .offset = offset,
                                     .buffer = data + offset,
                                     .buffer_bytes = left < chunk ? left : chunk,
                                     .if_match = etag[0] != '\0' ? etag : info.etag};
    tr_error failed;
    const tr_status status = tr_store_submit(of->store, &requests[i], &failed);
    if (status != TR_OK) exit(2);
  }
  for (size_t i = 0; i < count; i++) {
    tr_error failed;
    const tr_status status = tr_store_wait(of->store, &requests[i], &failed);
    bytes += requests[i].bytes;
    if (status != TR_OK && first == TR_OK) {
      first = status;
      *error = failed;
    }
  }
  json_object_set_new(of->answer, "bytes", json_integer((json_int_t)bytes));
  if (first == TR_OK) {
    FILE *file = fopen(path, "wb");
    if (file == NULL || fwrite(data, 1, bytes, file) != bytes || fclose(file) != 0) exit(2);
  }
  free(data);
  return first;
}

static tr_status upload(driver *of, const char *key, const char *path, size_t part, bool absent, tr_error *error) {
  static tr_store_request requests[CHUNKS_MAX];
  void *self, *upload;
  size_t bytes;
  char *data = read_file(path, &bytes);
  const size_t count = (bytes + part - 1) / part;
  const tr_store_ops *ops = tr_store_vtable(of->store, &self);
  tr_status first = ops->upload_begin(self, key, &upload, error);
  if (first != TR_OK) {
    free(data);
    return first;
  }
  for (size_t i = 0; i < count; i++) {
    const size_t offset = i * part, left = bytes - offset;
    requests[i] = (tr_store_request){.struct_bytes = sizeof requests[i],
                                     .verb = TR_STORE_PART,
                                     .priority = TR_STORE_BACKGROUND,
                                     .key = key,
                                     .offset = offset,
                                     .data = data + offset,
                                     .data_bytes = left < part ? left : part,
                                     .upload = upload,
                                     .part = (uint32_t)i + 1};
    tr_error failed;
    if (tr_store_submit(of->store, &requests[i], &failed) != TR_OK) exit(2);
  }
  for (size_t i = 0; i < count; i++) {
    tr_error failed;
    const tr_status status = tr_store_wait(of->store, &requests[i], &failed);
    if (status != TR_OK && first == TR_OK) {
      first = status;
      *error = failed;
    }
  }
  if (first == TR_OK)
    first = ops->upload_commit(self, upload, absent, error);
  else
    ops->upload_abort(self, upload);
  free(data);
  return first;
}

static tr_status put(driver *of, const char *key, const char *path, bool absent, tr_error *error) {
  size_t bytes;
  char *data = read_file(path, &bytes);
  const tr_status status = tr_store_put(of->store, key, data, bytes, absent, error);
  free(data);
  return status;
}

static tr_status add_key(void *self, const tr_list_entry *entry, tr_error *error) {
  (void)error;
  json_array_append_new(self, json_string(entry->key));
  return TR_OK;
}

static tr_status head(driver *of, const char *key, tr_error *error) {
  tr_object_info info;
  TR_TRY(tr_store_head(of->store, key, &info, error));
  json_object_set_new(of->answer, "bytes", json_integer((json_int_t)info.bytes));
  json_object_set_new(of->answer, "etag", json_string(info.etag));
  return TR_OK;
}

static tr_status list(driver *of, const char *prefix, tr_error *error) {
  json_t *keys = json_array();
  json_object_set_new(of->answer, "keys", keys);
  return tr_store_walk(of->store, prefix, add_key, keys, error);
}

static tr_status run(driver *of, char *line, tr_error *error) {
  char *words[5] = {"", "", "", "", ""};
  size_t count = 0;
  for (char *rest = line, *word; count < 5 && (word = strsep(&rest, "\t\n")) != NULL;) {
    if (word[0] != '\0') words[count++] = word;
  }
  const char *verb = words[0];
  const bool absent = strstr(verb, "-absent") != NULL;
  if (strcmp(verb, "get") == 0) return get(of, words[1], strtoul(words[2], NULL, 10), words[3], words[4], error);
  if (strncmp(verb, "put", 3) == 0) return put(of, words[1], words[2], absent, error);
  if (strncmp(verb, "upload", 6) == 0)
    return upload(of, words[1], words[2], strtoul(words[3], NULL, 10), absent, error);
  if (strcmp(verb, "head") == 0) return head(of, words[1], error);
  if (strcmp(verb, "delete") == 0) return tr_store_delete(of->store, words[1], error);
  if (strcmp(verb, "list") == 0) return list(of, words[1], error);
  return tr_fail(error, TR_ERR_INVALID, "s3_driver: no command %s", verb);
}

static void answer(driver *of, tr_status status, const tr_error *error, uint64_t begun_ns) {
  tr_s3_stats stats = {.struct_bytes = sizeof stats};
  if (tr_store_s3_stats(of->store, &stats, NULL) != TR_OK) exit(2);
  json_object_set_new(of->answer, "status", json_string(tr_status_name(status)));
  json_object_set_new(of->answer, "message", json_string(status == TR_OK ? "" : error->message));
  json_object_set_new(of->answer, "seconds", json_real((double)(tr_clock_now_ns(NULL) - begun_ns) * 1e-9));
  json_object_set_new(of->answer, "requests", json_integer((json_int_t)stats.requests));
  json_object_set_new(of->answer, "retries", json_integer((json_int_t)stats.retries));
  json_object_set_new(of->answer, "throttled", json_integer((json_int_t)stats.throttled));
  json_object_set_new(of->answer, "renewals", json_integer((json_int_t)atomic_load(&of->renewals)));
  json_dumpf(of->answer, stdout, 0);
  putchar('\n');
  fflush(stdout);
}

static uint32_t option(int argc, char **argv, const char *name) {
  for (int i = 3; i < argc; i++) {
    if (strncmp(argv[i], name, strlen(name)) == 0) return (uint32_t)strtoul(argv[i] + strlen(name), NULL, 10);
  }
  return 0;
}

int main(int argc, char **argv) {
  if (argc < 3 || getenv("AWS_ACCESS_KEY_ID") == NULL || getenv("AWS_SECRET_ACCESS_KEY") == NULL) return 2;
  driver of = {.store = NULL};
  int errors = 2;
  tr_log *log = NULL;
  const tr_log_options log_options = {.struct_bytes = sizeof log_options,
                                      .level = TR_LOG_INFO,
                                      .rank = -1,
                                      .write = tr_log_write_fd,
                                      .write_self = &errors};
  tr_error error = {.status = TR_OK};
  if (tr_log_create(&log_options, &log, &error) != TR_OK) return 2;
  tr_store_s3_options options = {.struct_bytes = sizeof options,
                                 .log = log,
                                 .bucket = argv[2],
                                 .endpoint = argv[1],
                                 .path_style = true,
                                 .connections = option(argc, argv, "connections="),
                                 .attempts = option(argc, argv, "attempts="),
                                 .stall_timeout_ms = option(argc, argv, "stall-ms="),
                                 .credentials = {.get = get_credentials, .self = &of}};
  for (int i = 3; i < argc; i++) options.persistent = options.persistent || strcmp(argv[i], "persistent") == 0;
  if (tr_store_s3_open(&options, &of.store, &error) != TR_OK) {
    fprintf(stderr, "s3_driver: %s\n", error.message);
    return 1;
  }
  char line[LINE_BYTES];
  while (fgets(line, sizeof line, stdin) != NULL) {
    of.answer = json_object();
    const uint64_t begun_ns = tr_clock_now_ns(NULL);
    const tr_status status = run(&of, line, &error);
    answer(&of, status, &error, begun_ns);
    json_decref(of.answer);
  }
  tr_store_destroy(of.store);
  tr_log_destroy(log);
  return 0;
}
