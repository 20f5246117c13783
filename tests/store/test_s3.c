/* The S3 store over real servers: what is particular to buckets, large objects, mistakes of a user, a server that goes. */
#include <criterion/criterion.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <trainrun/s3.h>

#include "support/s3_server.h"
#include "support/support.h"

#define MIB ((size_t)1 << 20)

static void need(ts_s3_kind kind) {
  if (ts_s3_missing(kind) != NULL) cr_skip_test("%s", ts_s3_missing(kind));
}

static tr_store *open_with(const tr_store_s3_options *options) {
  tr_store *store = NULL;
  tr_error error;
  cr_assert_eq(tr_store_s3_open(options, &store, &error), TR_OK, "%s", error.message);
  return store;
}

static tr_store *open_kind(ts_s3_kind kind) {
  const tr_store_s3_options options = ts_s3_options(kind, NULL);
  return open_with(&options);
}

static tr_s3_stats stats_of(const tr_store *store) {
  tr_s3_stats stats = {.struct_bytes = sizeof stats};
  cr_assert_eq(tr_store_s3_stats(store, &stats, NULL), TR_OK);
  return stats;
}

/* A test of each server. */
#define WITH_SERVER(NAME)                                                                                              \
  static void NAME(ts_s3_kind kind);                                                                                   \
  Test(s3_minio, NAME) {                                                                                               \
    need(TS_MINIO);                                                                                                    \
    NAME(TS_MINIO);                                                                                                    \
  }                                                                                                                    \
  Test(s3_versitygw, NAME) {                                                                                           \
    need(TS_VERSITYGW);                                                                                                \
    NAME(TS_VERSITYGW);                                                                                                \
  }                                                                                                                    \
  static void NAME(ts_s3_kind kind)

static unsigned char *pattern(size_t bytes) {
  unsigned char *data = malloc(bytes);
  uint64_t state = 88172645463325252u;
  for (size_t i = 0; i < bytes; i++) {
    state ^= state << 13, state ^= state >> 7, state ^= state << 17;
    data[i] = (unsigned char)state;
  }
  return data;
}

WITH_SERVER(reads_large_objects_in_parts_and_any_range_of_them) {
  const size_t bytes = 40 * MIB + 12345, part = 8 * MIB;
  tr_store *store = open_kind(kind);
  tr_error error;
  unsigned char *data = pattern(bytes), *got = malloc(bytes + 100);
  cr_assert_eq(tr_store_put(store, "large", data, bytes, false, &error), TR_OK, "%s", error.message);
  const struct {
    size_t offset, wanted;
  } cases[] = {{0, bytes},        {0, bytes + 100},     {1, bytes},      {part - 1, part + 2}, {part, part},
               {0, part},         {0, part + 1},        {bytes - 1, 10}, {bytes, 10},          {bytes + 5, 3 * part},
               {3, 2 * part - 3}, {bytes - part, part}, {17, 20 * MIB}};
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    size_t read = 99;
    const size_t there = cases[i].offset < bytes ? bytes - cases[i].offset : 0;
    const size_t expected = there < cases[i].wanted ? there : cases[i].wanted;
    memset(got, 0x55, bytes + 100);
    cr_assert_eq(tr_store_get(store, "large", cases[i].offset, got, cases[i].wanted, &read, &error), TR_OK, "%s",
                 error.message);
    cr_assert_eq(read, expected, "case %zu", i);
    cr_expect(read == 0 || memcmp(got, data + cases[i].offset, read) == 0, "case %zu", i);
    cr_expect_eq(got[read], 0x55);
  }
  tr_store_destroy(store);
  free(got);
  free(data);
}

WITH_SERVER(checks_a_whole_object_against_the_checksum_of_its_head) {
  const size_t bytes = 20 * MIB + 1;
  tr_store *store = open_kind(kind);
  unsigned char *data = pattern(bytes);
  void *got = NULL;
  size_t read = 0;
  tr_error error;
  cr_assert_eq(tr_store_put(store, "whole", data, bytes, false, &error), TR_OK, "%s", error.message);
  cr_assert_eq(tr_store_get_all(store, NULL, "whole", bytes, &got, &read, &error), TR_OK, "%s", error.message);
  cr_expect_eq(read, bytes);
  cr_expect_eq(memcmp(got, data, bytes), 0);
  cr_expect_eq(stats_of(store).retries, 0);
  tr_free(NULL, got);
  tr_store_destroy(store);
  free(data);
}

WITH_SERVER(keeps_keys_of_all_letters_as_they_are) {
  static const char *const keys[] = {
      "a b",   "a+b",   "a%b", "a%20b", "a&b=c",  "what?", "sharp#1", "\xc3\xa4/\xe6\x97\xa5",
      "!*'()", ";,:@$", "[x]", "...",   "a..b/c", "~-._",  "'\"<>"};
  tr_store *store = open_kind(kind);
  for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
    char text[64] = "";
    size_t read = 0;
    tr_error error;
    cr_assert_eq(tr_store_put(store, keys[i], keys[i], strlen(keys[i]), true, &error), TR_OK, "%s", error.message);
    cr_assert_eq(tr_store_get(store, keys[i], 0, text, sizeof text, &read, &error), TR_OK, "%s", error.message);
    cr_expect_eq(read, strlen(keys[i]));
    cr_expect_str_eq(text, keys[i]);
  }
  void *self = NULL;
  const tr_store_ops *ops = tr_store_vtable(store, &self);
  tr_list_page page;
  cr_assert_eq(ops->list(self, "", NULL, 1000, &page, NULL), TR_OK);
  cr_expect_eq(page.count, sizeof keys / sizeof *keys);
  for (size_t i = 0; i < page.count; i++) {
    bool known = false;
    for (size_t k = 0; k < sizeof keys / sizeof *keys; k++) known = known || strcmp(keys[k], page.entries[i].key) == 0;
    cr_expect(known, "'%s'", page.entries[i].key);
  }
  ops->list_free(self, &page);
  tr_store_destroy(store);
}

WITH_SERVER(keeps_the_promise_of_a_conditional_put) {
  tr_store *store = open_kind(kind);
  bool ignored = true;
  tr_object_info info;
  cr_assert_eq(tr_store_s3_probe_conditional(store, "probe/x", &ignored, NULL), TR_OK);
  cr_expect_not(ignored);
  cr_expect_eq(tr_store_head(store, "probe/x", &info, NULL), TR_ERR_NOT_FOUND, "it leaves nothing");
  tr_store_destroy(store);
}

WITH_SERVER(sweeps_uploads_that_were_left_over_below_a_prefix) {
  tr_store *store = open_kind(kind);
  void *self = NULL, *left[3], *kept = NULL;
  const tr_store_ops *ops = tr_store_vtable(store, &self);
  tr_error error;
  const char *const keys[] = {"run/a/shard", "run/b c/\xc3\xa4", "run/b c/\xc3\xa4"};
  for (int i = 0; i < 3; i++) cr_assert_eq(ops->upload_begin(self, keys[i], &left[i], NULL), TR_OK);
  cr_assert_eq(ops->upload_begin(self, "other/shard", &kept, NULL), TR_OK);
  cr_assert_eq(ops->upload_sweep(self, "run/", &error), TR_OK, "%s", error.message);
  tr_store_request part = {.struct_bytes = sizeof part, .verb = TR_STORE_PART, .part = 1, .data = "x", .data_bytes = 1};
  for (int i = 0; i < 3; i++) {
    part.upload = left[i];
    cr_assert_eq(tr_store_submit(store, &part, NULL), TR_OK);
    cr_expect_neq(tr_store_wait(store, &part, NULL), TR_OK, "it was swept");
    ops->upload_abort(self, left[i]);
  }
  part.upload = kept;
  cr_assert_eq(tr_store_submit(store, &part, NULL), TR_OK);
  cr_expect_eq(tr_store_wait(store, &part, NULL), TR_OK);
  cr_expect_eq(ops->upload_commit(self, kept, true, NULL), TR_OK);
  cr_expect_eq(ops->upload_sweep(self, "run/", &error), TR_OK, "%s", error.message);
  tr_store_destroy(store);
}

WITH_SERVER(uploads_parts_from_several_connections_at_once) {
  enum { PARTS = 6 };
  const size_t part_bytes = 5 * MIB, bytes = (PARTS - 1) * part_bytes + 777;
  tr_store *store = open_kind(kind);
  void *self = NULL, *upload = NULL, *got = NULL;
  size_t read = 0;
  tr_error error;
  const tr_store_ops *ops = tr_store_vtable(store, &self);
  unsigned char *data = pattern(bytes);
  tr_store_request parts[PARTS];
  cr_assert_eq(ops->upload_begin(self, "big", &upload, &error), TR_OK, "%s", error.message);
  for (int i = PARTS - 1; i >= 0; i--) {
    const size_t offset = (size_t)i * part_bytes;
    parts[i] = (tr_store_request){.struct_bytes = sizeof *parts,
                                  .verb = TR_STORE_PART,
                                  .priority = TR_STORE_BACKGROUND,
                                  .upload = upload,
                                  .part = (uint32_t)i + 1,
                                  .offset = offset,
                                  .data = data + offset,
                                  .data_bytes = i == PARTS - 1 ? 777 : part_bytes};
    cr_assert_eq(tr_store_submit(store, &parts[i], NULL), TR_OK);
  }
  for (int i = 0; i < PARTS; i++) cr_assert_eq(tr_store_wait(store, &parts[i], &error), TR_OK, "%s", error.message);
  cr_assert_eq(ops->upload_commit(self, upload, true, &error), TR_OK, "%s", error.message);
  cr_assert_eq(tr_store_get_all(store, NULL, "big", bytes, &got, &read, &error), TR_OK, "%s", error.message);
  cr_expect_eq(memcmp(got, data, bytes), 0);
  tr_free(NULL, got);
  tr_store_destroy(store);
  free(data);
}

WITH_SERVER(gives_a_url_that_anyone_may_read) {
  tr_store *store = open_kind(kind);
  char url[8192];
  const char *const key = "a b/\xc3\xa4+%&?#x";
  cr_assert_eq(tr_store_put(store, key, "shared", 6, false, NULL), TR_OK);
  cr_assert_eq(tr_store_s3_presign(store, key, 60, url, sizeof url, NULL), TR_OK);
  const char *const script = "import sys, urllib.request; print(urllib.request.urlopen(sys.argv[1]).read().decode())";
  const char *const command[] = {"python3", "-c", script, url, NULL};
  ts_result result = ts_run(command, NULL);
  cr_expect_eq(result.exit_code, 0, "%s", result.err);
  cr_expect_str_eq(result.out, "shared\n");
  cr_expect_null(strstr(url, TS_S3_SECRET));
  cr_expect_eq(tr_store_s3_presign(store, key, 0, url, sizeof url, NULL), TR_ERR_INVALID);
  cr_expect_eq(tr_store_s3_presign(store, key, 604801, url, sizeof url, NULL), TR_ERR_INVALID);
  cr_expect_eq(tr_store_s3_presign(store, "../x", 60, url, sizeof url, NULL), TR_ERR_INVALID);
  cr_expect_eq(tr_store_s3_presign(store, key, 60, url, 20, NULL), TR_ERR_INVALID);
  tr_store_destroy(store);
}

/* ---- Mistakes ------------------------------------------------------------------------------------------------------- */

/* Each question of a store that cannot work ends at once, with these words. */
static void expect_refusal(const tr_store_s3_options *options, tr_status status, const char *words) {
  tr_store *store = open_with(options);
  void *self = NULL, *upload = NULL;
  const tr_store_ops *ops = tr_store_vtable(store, &self);
  tr_object_info info;
  tr_list_page page;
  char byte;
  tr_error errors[5];
  cr_expect_eq(tr_store_get(store, "k", 0, &byte, 1, NULL, &errors[0]), status, "%s", errors[0].message);
  cr_expect_eq(tr_store_head(store, "k", &info, &errors[1]), status, "%s", errors[1].message);
  cr_expect_eq(tr_store_put(store, "k", "x", 1, false, &errors[2]), status, "%s", errors[2].message);
  cr_expect_eq(ops->list(self, "", NULL, 10, &page, &errors[3]), status, "%s", errors[3].message);
  cr_expect_eq(ops->upload_begin(self, "k", &upload, &errors[4]), status, "%s", errors[4].message);
  for (int i = 0; i < 5; i++) {
    cr_expect_not_null(strstr(errors[i].message, words), "%s", errors[i].message);
    cr_expect_null(strstr(errors[i].message, TS_S3_SECRET), "%s", errors[i].message);
  }
  cr_expect_eq(stats_of(store).retries, 0);
  tr_store_destroy(store);
}

WITH_SERVER(says_that_a_bucket_is_not_there_and_how_that_may_be) {
  tr_store_s3_options options = ts_s3_options(kind, NULL);
  options.bucket = "no-such-bucket";
  options.persistent = true;
  expect_refusal(&options, TR_ERR_CONFIG, "there is no bucket 'no-such-bucket' at http://127.0.0.1:");
}

static tr_status wrong_secret(void *self, bool renew, tr_s3_credentials *credentials, tr_error *error) {
  (void)self, (void)renew, (void)error;
  *credentials = (tr_s3_credentials){.access_key = TS_S3_KEY, .secret_key = "not-" TS_S3_SECRET};
  return TR_OK;
}

static tr_status wrong_key(void *self, bool renew, tr_s3_credentials *credentials, tr_error *error) {
  (void)self, (void)renew, (void)error;
  *credentials = (tr_s3_credentials){.access_key = "nobody", .secret_key = TS_S3_SECRET};
  return TR_OK;
}

WITH_SERVER(names_the_key_id_that_is_wrong_by_its_beginning_and_shows_no_secret) {
  tr_store_s3_options options = ts_s3_options(kind, NULL);
  options.persistent = true;
  options.credentials.get = wrong_secret;
  expect_refusal(&options, TR_ERR_DENIED, "'trai…'");
  options.credentials.get = wrong_key;
  expect_refusal(&options, TR_ERR_DENIED, "'nobo…'");
  options.credentials.get = NULL;
  expect_refusal(&options, TR_ERR_DENIED, "without credentials");
}

Test(s3, refuses_options_that_cannot_work) {
  tr_store_s3_options options = {.struct_bytes = sizeof options, .bucket = "b"};
  tr_store *store = NULL;
  tr_error error;
  static const char *const buckets[] = {"", "a/b", "..", "-x", "a b", "a?b"};
  for (size_t i = 0; i < sizeof buckets / sizeof *buckets; i++) {
    options.bucket = buckets[i];
    cr_expect_eq(tr_store_s3_open(&options, &store, &error), TR_ERR_CONFIG, "%s", buckets[i]);
  }
  options.bucket = "b";
  static const char *const endpoints[] = {"localhost:9000", "ftp://x", "http://", "http://h/path",
                                          "http://user:word@h"};
  for (size_t i = 0; i < sizeof endpoints / sizeof *endpoints; i++) {
    options.endpoint = endpoints[i];
    cr_expect_eq(tr_store_s3_open(&options, &store, &error), TR_ERR_CONFIG, "%s", endpoints[i]);
    cr_expect_null(strstr(error.message, "word"), "%s", error.message);
  }
  options.endpoint = NULL;
  options.region = "a/b";
  cr_expect_eq(tr_store_s3_open(&options, &store, &error), TR_ERR_CONFIG);
  options.struct_bytes = 8;
  cr_expect_eq(tr_store_s3_open(&options, &store, &error), TR_ERR_INVALID);
  cr_expect_null(store);
  const tr_store_memory_options memory = {.struct_bytes = sizeof memory};
  tr_s3_stats stats = {.struct_bytes = sizeof stats};
  cr_assert_eq(tr_store_memory_open(&memory, &store, NULL), TR_OK);
  cr_expect_eq(tr_store_s3_stats(store, &stats, NULL), TR_ERR_INVALID, "of another kind");
  tr_store_destroy(store);
}

/* ---- A server that goes --------------------------------------------------------------------------------------------- */

typedef struct lines {
  pthread_mutex_t lock;
  char text[8192];
} lines;

static void keep_line(void *self, tr_log_level level, const char *line, size_t bytes) {
  (void)level;
  lines *all = self;
  pthread_mutex_lock(&all->lock);
  const size_t used = strlen(all->text);
  if (used + bytes < sizeof all->text) memcpy(all->text + used, line, bytes);
  pthread_mutex_unlock(&all->lock);
}

static bool has_line(lines *all, const char *words) {
  pthread_mutex_lock(&all->lock);
  const bool found = strstr(all->text, words) != NULL;
  pthread_mutex_unlock(&all->lock);
  return found;
}

static void wait_line(lines *all, const char *words) {
  const double deadline_s = ts_now_s() + 30;
  while (!has_line(all, words) && ts_now_s() < deadline_s) ts_sleep_s(0.02);
  cr_assert(has_line(all, words), "%s", all->text);
}

static tr_store *open_persistent(const ts_s3_server *server, lines *all, tr_log **log) {
  const tr_log_options logging = {
      .struct_bytes = sizeof logging, .level = TR_LOG_INFO, .rank = -1, .write = keep_line, .write_self = all};
  cr_assert_eq(tr_log_create(&logging, log, NULL), TR_OK);
  const tr_store_s3_options options = {.struct_bytes = sizeof options,
                                       .log = *log,
                                       .bucket = "bucket",
                                       .endpoint = server->endpoint,
                                       .path_style = true,
                                       .persistent = true,
                                       .credentials = ts_s3_credentials()};
  return open_with(&options);
}

Test(s3, waits_for_a_server_that_is_killed_says_so_and_goes_on_when_it_is_back) {
  need(TS_MINIO);
  enum { COUNT = 8 };
  const size_t bytes = 24 * MIB;
  lines all = {.lock = PTHREAD_MUTEX_INITIALIZER};
  tr_log *log = NULL;
  ts_s3_server server = ts_s3_start(TS_MINIO, NULL);
  ts_s3_make_bucket(&server, "bucket");
  tr_store *store = open_persistent(&server, &all, &log);
  unsigned char *data = pattern(bytes), *got = malloc(COUNT * bytes);
  cr_assert_eq(tr_store_put(store, "o", data, bytes, false, NULL), TR_OK);
  tr_store_request reads[COUNT];
  for (int i = 0; i < COUNT; i++) {
    reads[i] = (tr_store_request){.struct_bytes = sizeof *reads,
                                  .verb = TR_STORE_GET,
                                  .key = "o",
                                  .buffer = got + (size_t)i * bytes,
                                  .buffer_bytes = bytes};
    cr_assert_eq(tr_store_submit(store, &reads[i], NULL), TR_OK);
  }
  ts_sleep_s(0.03);
  ts_s3_kill(&server);
  tr_store_request put = {
      .struct_bytes = sizeof put, .verb = TR_STORE_PUT, .key = "p", .data = "late", .data_bytes = 4, .if_absent = true};
  cr_assert_eq(tr_store_submit(store, &put, NULL), TR_OK);
  wait_line(&all, "waiting for the store");
  cr_expect(has_line(&all, server.endpoint), "%s", all.text);
  ts_s3_server again = ts_s3_start(TS_MINIO, &server);
  tr_error error;
  for (int i = 0; i < COUNT; i++) {
    cr_expect_eq(tr_store_wait(store, &reads[i], &error), TR_OK, "%s", error.message);
    cr_expect_eq(reads[i].bytes, bytes);
    cr_expect_eq(memcmp(got + (size_t)i * bytes, data, bytes), 0);
  }
  cr_expect_eq(tr_store_wait(store, &put, &error), TR_OK, "%s", error.message);
  cr_expect_gt(put.retry_ns, 0);
  wait_line(&all, "answers again");
  cr_expect_null(strstr(all.text, TS_S3_SECRET));
  tr_store_destroy(store);
  tr_log_destroy(log);
  ts_s3_kill(&again);
  free(got);
  free(data);
}

Test(s3, ends_a_wait_when_it_is_closed) {
  need(TS_MINIO);
  lines all = {.lock = PTHREAD_MUTEX_INITIALIZER};
  tr_log *log = NULL;
  ts_s3_server server = ts_s3_start(TS_MINIO, NULL);
  ts_s3_make_bucket(&server, "bucket");
  tr_store *store = open_persistent(&server, &all, &log);
  cr_assert_eq(tr_store_put(store, "o", "x", 1, false, NULL), TR_OK);
  ts_s3_kill(&server);
  enum { COUNT = 50 };
  static tr_store_request requests[COUNT];
  for (int i = 0; i < COUNT; i++) {
    requests[i] = (tr_store_request){
        .struct_bytes = sizeof *requests, .verb = TR_STORE_PUT, .key = "o", .data = "x", .data_bytes = 1};
    cr_assert_eq(tr_store_submit(store, &requests[i], NULL), TR_OK);
  }
  wait_line(&all, "waiting for the store");
  const double start_s = ts_now_s();
  tr_store_destroy(store);
  cr_expect_lt(ts_now_s() - start_s, 5.0);
  for (int i = 0; i < COUNT; i++) cr_expect_eq(requests[i].status, TR_ERR_CANCELLED, "%s", requests[i].error.message);
  tr_log_destroy(log);
}

Test(s3, keeps_connections_for_training_while_uploads_wait) {
  need(TS_MINIO);
  enum { UPLOADS = 40 };
  const size_t bytes = 8 * MIB;
  tr_store_s3_options options = ts_s3_options(TS_MINIO, NULL);
  options.connections = 4;
  tr_store *store = open_with(&options);
  unsigned char *data = pattern(bytes);
  static tr_store_request uploads[UPLOADS];
  char byte[1];
  cr_assert_eq(tr_store_put(store, "o", "x", 1, false, NULL), TR_OK);
  for (int i = 0; i < UPLOADS; i++) {
    uploads[i] = (tr_store_request){.struct_bytes = sizeof *uploads,
                                    .verb = TR_STORE_PUT,
                                    .priority = TR_STORE_BACKGROUND,
                                    .key = "up",
                                    .data = data,
                                    .data_bytes = bytes};
    cr_assert_eq(tr_store_submit(store, &uploads[i], NULL), TR_OK);
  }
  tr_store_request read = {
      .struct_bytes = sizeof read, .verb = TR_STORE_GET, .key = "o", .buffer = byte, .buffer_bytes = 1};
  cr_assert_eq(tr_store_submit(store, &read, NULL), TR_OK);
  cr_assert_eq(tr_store_wait(store, &read, NULL), TR_OK);
  int finished_before = 0;
  for (int i = 0; i < UPLOADS; i++) {
    cr_assert_eq(tr_store_wait(store, &uploads[i], NULL), TR_OK);
    finished_before += uploads[i].done_ns < read.done_ns;
  }
  cr_expect_lt(finished_before, UPLOADS / 2);
  tr_store_destroy(store);
  free(data);
}
