/* What every store promises, run over each of them: a further store is one more line in the table below. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <trainrun/store.h>

#include "support/s3_server.h"
#include "support/support.h"

typedef struct backend {
  const char *name;
  int server; /* the ts_s3_kind it needs; -1: none */
  tr_status (*open)(const tr_allocator *allocator, const char *folder, tr_store **out, tr_error *error);
} backend;

static tr_status open_file(const tr_allocator *allocator, const char *folder, tr_store **out, tr_error *error) {
  const tr_store_file_options options = {.struct_bytes = sizeof options, .allocator = allocator, .root = folder};
  return tr_store_file_open(&options, out, error);
}

static tr_status open_memory(const tr_allocator *allocator, const char *folder, tr_store **out, tr_error *error) {
  (void)folder;
  const tr_store_memory_options options = {.struct_bytes = sizeof options, .allocator = allocator};
  return tr_store_memory_open(&options, out, error);
}

static tr_status open_minio(const tr_allocator *allocator, const char *folder, tr_store **out, tr_error *error) {
  (void)folder;
  const tr_store_s3_options options = ts_s3_options(TS_MINIO, allocator);
  return tr_store_s3_open(&options, out, error);
}

static tr_status open_versitygw(const tr_allocator *allocator, const char *folder, tr_store **out, tr_error *error) {
  (void)folder;
  const tr_store_s3_options options = ts_s3_options(TS_VERSITYGW, allocator);
  return tr_store_s3_open(&options, out, error);
}

enum { A_FILE, A_MEMORY, A_MINIO, A_VERSITYGW };

static const backend backends[] = {[A_FILE] = {"file", -1, open_file},
                                   [A_MEMORY] = {"memory", -1, open_memory},
                                   [A_MINIO] = {"minio", TS_MINIO, open_minio},
                                   [A_VERSITYGW] = {"versitygw", TS_VERSITYGW, open_versitygw}};

static void skip_without_server(const backend *of) {
  if (of->server >= 0 && ts_s3_missing((ts_s3_kind)of->server) != NULL) {
    cr_skip_test("%s", ts_s3_missing((ts_s3_kind)of->server));
  }
}

static void conforms(int number, void (*body)(tr_store *store, const char *backend_name)) {
  const backend *of = &backends[number];
  tr_store *store = NULL;
  tr_error error;
  skip_without_server(of);
  cr_assert_eq(of->open(NULL, ts_folder(), &store, &error), TR_OK, "%s", error.message);
  body(store, of->name);
  tr_store_destroy(store);
}

/* A test of each kind of store, which runs the body that follows with an empty one. */
#define CONFORMS(NAME)                                                                                                 \
  static void NAME(tr_store *store, const char *backend_name);                                                         \
  Test(file, NAME) { conforms(A_FILE, NAME); }                                                                         \
  Test(memory, NAME) { conforms(A_MEMORY, NAME); }                                                                     \
  Test(minio, NAME) { conforms(A_MINIO, NAME); }                                                                       \
  Test(versitygw, NAME) { conforms(A_VERSITYGW, NAME); }                                                               \
  static void NAME(tr_store *store, const char *backend_name)

static void put_text(tr_store *store, const char *key, const char *text) {
  tr_error error;
  cr_assert_eq(tr_store_put(store, key, text, strlen(text), false, &error), TR_OK, "%s: %s", key, error.message);
}

static void expect_text(tr_store *store, const char *key, const char *text) {
  void *data = NULL;
  size_t bytes = 0;
  tr_error error;
  cr_assert_eq(tr_store_get_all(store, NULL, key, 1 << 20, &data, &bytes, &error), TR_OK, "%s: %s", key, error.message);
  cr_expect_eq(bytes, strlen(text));
  cr_expect_str_eq((char *)data, text);
  tr_free(NULL, data);
}

CONFORMS(gives_back_what_was_put) {
  (void)backend_name;
  const size_t sizes[] = {0, 1, 7, 4095, 4096, 4097, 1 << 20, (1 << 20) + 13};
  for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
    unsigned char *data = malloc(sizes[i] + 1);
    for (size_t k = 0; k < sizes[i]; k++) data[k] = (unsigned char)(k * 31 + i);
    cr_assert_eq(tr_store_put(store, "a/b/object", data, sizes[i], false, NULL), TR_OK);
    void *got = NULL;
    size_t bytes = 99;
    cr_assert_eq(tr_store_get_all(store, NULL, "a/b/object", 2 << 20, &got, &bytes, NULL), TR_OK);
    cr_expect_eq(bytes, sizes[i]);
    cr_expect_eq(memcmp(got, data, sizes[i]), 0);
    cr_expect_eq(((char *)got)[bytes], 0);
    tr_free(NULL, got);
    free(data);
  }
}

CONFORMS(reads_any_range_and_stops_at_the_end) {
  (void)backend_name;
  char data[1000], buffer[1200];
  for (int i = 0; i < 1000; i++) data[i] = (char)(i * 7);
  cr_assert_eq(tr_store_put(store, "o", data, sizeof data, false, NULL), TR_OK);
  const struct {
    uint64_t offset;
    size_t wanted, got;
  } cases[] = {{0, 1000, 1000}, {0, 1200, 1000}, {1, 999, 999}, {999, 1, 1},    {999, 5, 1},
               {1000, 5, 0},    {1001, 5, 0},    {500, 0, 0},   {77, 123, 123}, {UINT64_MAX - 3, 5, 0}};
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    size_t bytes = 99;
    memset(buffer, 0x55, sizeof buffer);
    cr_assert_eq(tr_store_get(store, "o", cases[i].offset, buffer, cases[i].wanted, &bytes, NULL), TR_OK);
    cr_expect_eq(bytes, cases[i].got, "case %zu", i);
    if (bytes > 0) cr_expect_eq(memcmp(buffer, data + cases[i].offset, bytes), 0);
    cr_expect_eq(buffer[bytes], 0x55, "nothing is written past the end");
  }
}

CONFORMS(says_not_found_and_names_the_object) {
  (void)backend_name;
  char buffer[8];
  tr_error error;
  tr_object_info info;
  cr_expect_eq(tr_store_get(store, "not/there", 0, buffer, 8, NULL, &error), TR_ERR_NOT_FOUND);
  cr_expect_not_null(strstr(error.message, "not/there"), "%s", error.message);
  cr_expect_eq(tr_store_head(store, "not/there", &info, &error), TR_ERR_NOT_FOUND);
  cr_expect_not_null(strstr(error.message, "not/there"), "%s", error.message);
}

CONFORMS(deletes_and_does_not_mind_what_is_not_there) {
  (void)backend_name;
  tr_object_info info;
  put_text(store, "d/x", "1");
  cr_expect_eq(tr_store_delete(store, "d/x", NULL), TR_OK);
  cr_expect_eq(tr_store_head(store, "d/x", &info, NULL), TR_ERR_NOT_FOUND);
  cr_expect_eq(tr_store_delete(store, "d/x", NULL), TR_OK);
  put_text(store, "d/x", "2");
  expect_text(store, "d/x", "2");
}

CONFORMS(creates_only_once_when_asked_to) {
  (void)backend_name;
  tr_error error;
  cr_expect_eq(tr_store_put(store, "epochs/1", "one", 3, true, NULL), TR_OK);
  cr_expect_eq(tr_store_put(store, "epochs/1", "two", 3, true, &error), TR_ERR_EXISTS);
  cr_expect_not_null(strstr(error.message, "epochs/1"), "%s", error.message);
  expect_text(store, "epochs/1", "one");
  cr_expect_eq(tr_store_put(store, "epochs/1", "three", 5, false, NULL), TR_OK);
  expect_text(store, "epochs/1", "three");
}

CONFORMS(changes_the_etag_with_the_content_and_refuses_the_old_one) {
  (void)backend_name;
  tr_object_info first, second;
  char buffer[8];
  put_text(store, "o", "first");
  cr_assert_eq(tr_store_head(store, "o", &first, NULL), TR_OK);
  cr_expect_eq(first.bytes, 5);
  cr_expect_gt(first.modified_ns, 0);
  tr_store_request request = {.struct_bytes = sizeof request,
                              .verb = TR_STORE_GET,
                              .key = "o",
                              .buffer = buffer,
                              .buffer_bytes = 5,
                              .if_match = first.etag};
  cr_assert_eq(tr_store_submit(store, &request, NULL), TR_OK);
  cr_expect_eq(tr_store_wait(store, &request, NULL), TR_OK);
  cr_expect_str_eq(request.info.etag, first.etag);
  put_text(store, "o", "other");
  cr_assert_eq(tr_store_head(store, "o", &second, NULL), TR_OK);
  cr_expect_str_neq(first.etag, second.etag);
  tr_error error;
  cr_assert_eq(tr_store_submit(store, &request, NULL), TR_OK);
  cr_expect_eq(tr_store_wait(store, &request, &error), TR_ERR_CHANGED);
  cr_expect_not_null(strstr(error.message, "o"), "%s", error.message);
}

CONFORMS(tells_the_etag_with_a_put) {
  (void)backend_name;
  tr_store_request request = {
      .struct_bytes = sizeof request, .verb = TR_STORE_PUT, .key = "o", .data = "abc", .data_bytes = 3};
  tr_object_info info;
  cr_assert_eq(tr_store_submit(store, &request, NULL), TR_OK);
  cr_assert_eq(tr_store_wait(store, &request, NULL), TR_OK);
  cr_assert_eq(tr_store_head(store, "o", &info, NULL), TR_OK);
  cr_expect_str_eq(request.info.etag, info.etag);
  cr_expect_eq(request.info.bytes, 3);
  cr_expect_eq(request.bytes, 3);
}

CONFORMS(refuses_keys_that_climb_or_are_empty) {
  (void)backend_name;
  char longest[TR_KEY_BYTES + 1];
  memset(longest, 'k', sizeof longest);
  longest[TR_KEY_BYTES] = '\0';
  const char *const bad[] = {"",       "/a",   "a/",  "a//b",  "..",          ".",  "../a",
                             "a/../b", "a/..", "./a", "a/./b", "/etc/passwd", "//", longest};
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
    tr_object_info info;
    cr_expect_eq(tr_store_put(store, bad[i], "x", 1, false, NULL), TR_ERR_INVALID, "'%s'", bad[i]);
    cr_expect_eq(tr_store_head(store, bad[i], &info, NULL), TR_ERR_INVALID, "'%s'", bad[i]);
    cr_expect_eq(tr_store_delete(store, bad[i], NULL), TR_ERR_INVALID, "'%s'", bad[i]);
  }
  const char *const good[] = {"...", "..a", "a..", ".hidden", "a b", "ä/é", "a/...b/c"};
  for (size_t i = 0; i < sizeof good / sizeof *good; i++) put_text(store, good[i], "x");
}

CONFORMS(refuses_requests_that_can_never_work) {
  (void)backend_name;
  tr_store_request request = {.struct_bytes = sizeof request - 8, .verb = TR_STORE_HEAD, .key = "a"};
  cr_expect_eq(tr_store_submit(store, &request, NULL), TR_ERR_INVALID);
  request = (tr_store_request){.struct_bytes = sizeof request, .verb = (tr_store_verb)77, .key = "a"};
  cr_expect_eq(tr_store_submit(store, &request, NULL), TR_ERR_INVALID);
  request = (tr_store_request){.struct_bytes = sizeof request, .verb = TR_STORE_GET, .key = "a", .buffer_bytes = 1};
  cr_expect_eq(tr_store_submit(store, &request, NULL), TR_ERR_INVALID);
  request = (tr_store_request){.struct_bytes = sizeof request, .verb = TR_STORE_HEAD, .key = "a"};
  request.priority = (tr_store_priority)5;
  cr_expect_eq(tr_store_submit(store, &request, NULL), TR_ERR_INVALID);
  cr_expect_eq(tr_store_wait(store, &request, NULL), TR_ERR_INVALID, "it was never submitted");
}

static const char *const listed[] = {"a",       "a-b/x", "a.b",     "a/b",       "a/b.c",     "a/b/c", "a/b/d/e",
                                     "a/b0",    "a0",    "ab/c",    "b/1",       "b/10",      "b/2",   "c",
                                     "c~/last", "z/y/x", "z/y/x.y", "z/y/xx/yy", "\xc3\xa9/t"};
enum { LISTED = sizeof listed / sizeof *listed };

/* In a file system "a" and "a/b" cannot both be objects, nor "a/b" and "a/b/c"; both servers keep objects in one. */
static bool usable(const char *backend_name, const char *key) {
  return strcmp(backend_name, "memory") == 0 ||
         (strcmp(key, "a") != 0 && strcmp(key, "a/b") != 0 && strcmp(key, "z/y/x") != 0);
}

static int fill(tr_store *store, const char *backend_name) {
  for (size_t i = 0; i < LISTED; i++) {
    const char *key = listed[(i * 7) % LISTED];
    if (usable(backend_name, key)) put_text(store, key, key);
  }
  return 0;
}

CONFORMS(lists_sorted_bytewise_by_pages_of_any_size) {
  fill(store, backend_name);
  void *self = NULL;
  const tr_store_ops *ops = tr_store_vtable(store, &self);
  const char *const prefixes[] = {"", "a", "a/", "a/b", "a/b/", "b/1", "z/y/x", "nothing", "a/nothing/", "\xc3\xa9"};
  for (size_t p = 0; p < sizeof prefixes / sizeof *prefixes; p++) {
    for (size_t max_keys = 1; max_keys <= 20; max_keys += max_keys < 4 ? 1 : 8) {
      char after[TR_KEY_BYTES] = "";
      size_t at = 0;
      do {
        tr_list_page page;
        tr_error error;
        cr_assert_eq(ops->list(self, prefixes[p], after[0] ? after : NULL, max_keys, &page, &error), TR_OK, "%s",
                     error.message);
        cr_expect_leq(page.count, max_keys);
        cr_expect(page.count == max_keys || page.next[0] == '\0');
        for (size_t i = 0; i < page.count; i++) {
          while (at < LISTED &&
                 (strncmp(listed[at], prefixes[p], strlen(prefixes[p])) != 0 || !usable(backend_name, listed[at]))) {
            at++;
          }
          cr_assert_lt(at, LISTED, "%s: '%s' is one too many below '%s'", backend_name, page.entries[i].key,
                       prefixes[p]);
          cr_expect_str_eq(page.entries[i].key, listed[at]);
          cr_expect_eq(page.entries[i].info.bytes, strlen(listed[at]));
          at++;
        }
        strcpy(after, page.next);
        ops->list_free(self, &page);
      } while (after[0] != '\0');
      for (; at < LISTED; at++) {
        cr_expect(strncmp(listed[at], prefixes[p], strlen(prefixes[p])) != 0 || !usable(backend_name, listed[at]),
                  "%s: '%s' is missing below '%s' by %zu", backend_name, listed[at], prefixes[p], max_keys);
      }
    }
  }
}

CONFORMS(lists_after_any_key_there_or_not) {
  fill(store, backend_name);
  void *self = NULL;
  const tr_store_ops *ops = tr_store_vtable(store, &self);
  const char *const starts[] = {"a", "a/", "a/b", "a/b/", "a/b/c", "a/b/zzz", "a/zz", "b/10", "b", "zz", "\xff", "A"};
  for (size_t s = 0; s < sizeof starts / sizeof *starts; s++) {
    tr_list_page page;
    cr_assert_eq(ops->list(self, "", starts[s], 1000, &page, NULL), TR_OK);
    size_t at = 0;
    for (size_t i = 0; i < LISTED; i++) {
      if (strcmp(listed[i], starts[s]) <= 0 || !usable(backend_name, listed[i])) continue;
      cr_assert_lt(at, page.count, "%s: '%s' is missing after '%s'", backend_name, listed[i], starts[s]);
      cr_expect_str_eq(page.entries[at++].key, listed[i]);
    }
    cr_expect_eq(at, page.count);
    ops->list_free(self, &page);
  }
}

CONFORMS(refuses_listings_that_climb_or_are_too_large) {
  void *self = NULL;
  const tr_store_ops *ops = tr_store_vtable(store, &self);
  tr_list_page page;
  cr_expect_eq(ops->list(self, "", NULL, 0, &page, NULL), TR_ERR_INVALID);
  cr_expect_eq(ops->list(self, "", NULL, 1001, &page, NULL), TR_ERR_INVALID);
  if (strcmp(backend_name, "file") == 0) {
    const char *const bad[] = {"../", "a/../b", "/etc/", "a//b", "./a"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
      cr_expect_eq(ops->list(self, bad[i], NULL, 10, &page, NULL), TR_ERR_INVALID, "'%s'", bad[i]);
    }
  }
}

static tr_status count_keys(void *self, const tr_list_entry *entry, tr_error *error) {
  int *count = self;
  if (strcmp(entry->key, "w/0777") == 0) return tr_fail(error, TR_ERR_STOPPED, "enough at %s", entry->key);
  ++*count;
  return TR_OK;
}

/* All at once: a server takes its time for each. */
static void put_many(tr_store *store, int count) {
  tr_store_request *requests = calloc((size_t)count, sizeof *requests);
  char(*keys)[16] = calloc((size_t)count, sizeof *keys);
  for (int i = 0; i < count; i++) {
    snprintf(keys[i], sizeof keys[i], "v/%04d", i);
    requests[i] = (tr_store_request){.struct_bytes = sizeof *requests, .verb = TR_STORE_PUT, .key = keys[i]};
    cr_assert_eq(tr_store_submit(store, &requests[i], NULL), TR_OK);
  }
  for (int i = 0; i < count; i++) cr_assert_eq(tr_store_wait(store, &requests[i], NULL), TR_OK);
  free(keys);
  free(requests);
}

CONFORMS(walks_over_more_keys_than_a_page_and_stops_when_told) {
  if (strcmp(backend_name, "file") == 0 && !ts_long()) return; /* two fsyncs a put */
  put_many(store, 2500);
  int count = 0;
  cr_expect_eq(tr_store_walk(store, "v/", count_keys, &count, NULL), TR_OK);
  cr_expect_eq(count, 2500);
  put_text(store, "w/0776", "");
  put_text(store, "w/0777", "");
  put_text(store, "w/0778", "");
  tr_error error;
  cr_expect_eq(tr_store_walk(store, "w/", count_keys, &count, &error), TR_ERR_STOPPED);
  cr_expect_str_eq(error.message, "enough at w/0777");
  cr_expect_eq(count, 2501);
}

/* Parts as small as the store takes them, at least four bytes; all of one letter. */
static size_t part_bytes(tr_store *store) {
  const uint64_t least = tr_store_vtable(store, NULL)->part_bytes_min;
  return least > 4 ? (size_t)least : 4;
}

static void put_part(tr_store *store, void *upload, uint32_t number, uint64_t offset, char letter, size_t bytes) {
  char *data = malloc(bytes);
  memset(data, letter, bytes);
  tr_store_request request = {.struct_bytes = sizeof request,
                              .verb = TR_STORE_PART,
                              .upload = upload,
                              .part = number,
                              .offset = offset,
                              .data = data,
                              .data_bytes = bytes};
  tr_error error;
  cr_assert_eq(tr_store_submit(store, &request, &error), TR_OK, "%s", error.message);
  cr_assert_eq(tr_store_wait(store, &request, &error), TR_OK, "%s", error.message);
  cr_expect_eq(request.bytes, bytes);
  free(data);
}

static bool is_all(const char *data, char letter, size_t bytes) {
  return data[0] == letter && memcmp(data, data + 1, bytes - 1) == 0;
}

CONFORMS(joins_parts_in_any_order_and_shows_nothing_before_the_commit) {
  (void)backend_name;
  void *self = NULL, *upload = NULL, *data = NULL;
  const tr_store_ops *ops = tr_store_vtable(store, &self);
  const size_t part = part_bytes(store);
  size_t bytes = 0;
  tr_object_info info;
  tr_error error;
  cr_assert_eq(ops->upload_begin(self, "up/big", &upload, &error), TR_OK, "%s", error.message);
  put_part(store, upload, 3, 2 * part, 'c', 2);
  put_part(store, upload, 1, 0, 'X', part);
  put_part(store, upload, 2, part, 'b', part);
  put_part(store, upload, 1, 0, 'a', part);
  cr_expect_eq(tr_store_head(store, "up/big", &info, NULL), TR_ERR_NOT_FOUND);
  tr_list_page page;
  cr_assert_eq(ops->list(self, "", NULL, 10, &page, NULL), TR_OK);
  cr_expect_eq(page.count, 0);
  ops->list_free(self, &page);
  cr_assert_eq(ops->upload_commit(self, upload, false, &error), TR_OK, "%s", error.message);
  cr_assert_eq(tr_store_get_all(store, NULL, "up/big", 3 * part, &data, &bytes, &error), TR_OK, "%s", error.message);
  cr_assert_eq(bytes, 2 * part + 2);
  cr_expect(is_all(data, 'a', part));
  cr_expect(is_all((char *)data + part, 'b', part));
  cr_expect(is_all((char *)data + 2 * part, 'c', 2));
  tr_free(NULL, data);
}

CONFORMS(makes_an_empty_object_of_an_upload_without_parts) {
  (void)backend_name;
  void *self = NULL, *upload = NULL;
  const tr_store_ops *ops = tr_store_vtable(store, &self);
  tr_object_info info = {.bytes = 9};
  cr_assert_eq(ops->upload_begin(self, "up/empty", &upload, NULL), TR_OK);
  cr_assert_eq(ops->upload_commit(self, upload, false, NULL), TR_OK);
  cr_assert_eq(tr_store_head(store, "up/empty", &info, NULL), TR_OK);
  cr_expect_eq(info.bytes, 0);
}

CONFORMS(leaves_nothing_of_an_upload_that_is_aborted_or_lost_the_race) {
  (void)backend_name;
  void *self = NULL, *upload = NULL;
  const tr_store_ops *ops = tr_store_vtable(store, &self);
  const size_t part = part_bytes(store);
  tr_object_info info;
  cr_assert_eq(ops->upload_begin(self, "up/a", &upload, NULL), TR_OK);
  put_part(store, upload, 1, 0, 'd', 4);
  ops->upload_abort(self, upload);
  ops->upload_abort(self, NULL);
  cr_expect_eq(tr_store_head(store, "up/a", &info, NULL), TR_ERR_NOT_FOUND);
  put_text(store, "up/b", "first");
  cr_assert_eq(ops->upload_begin(self, "up/b", &upload, NULL), TR_OK);
  put_part(store, upload, 1, 0, 's', 6);
  cr_expect_eq(ops->upload_commit(self, upload, true, NULL), TR_ERR_EXISTS);
  expect_text(store, "up/b", "first");
  cr_assert_eq(ops->upload_begin(self, "up/c", &upload, NULL), TR_OK);
  put_part(store, upload, 1, 0, 'a', part);
  put_part(store, upload, 3, 2 * part, 'c', 4);
  cr_expect_eq(ops->upload_commit(self, upload, false, NULL), TR_ERR_INVALID, "part 2 is missing");
  cr_expect_eq(tr_store_head(store, "up/c", &info, NULL), TR_ERR_NOT_FOUND);
}

typedef struct call_count {
  int count; /* atomic */
} call_count;

static void count_done(tr_store_request *request) {
  call_count *called = request->user;
  __atomic_add_fetch(&called->count, 1, __ATOMIC_SEQ_CST);
}

CONFORMS(calls_back_once_for_each_request_and_writes_its_times) {
  (void)backend_name;
  enum { COUNT = 64 };
  static char buffers[COUNT][16];
  tr_store_request requests[COUNT];
  call_count called = {0};
  put_text(store, "o", "0123456789abcdef");
  for (int i = 0; i < COUNT; i++) {
    requests[i] = (tr_store_request){.struct_bytes = sizeof requests[i],
                                     .verb = TR_STORE_GET,
                                     .priority = i % 2 ? TR_STORE_BACKGROUND : TR_STORE_TRAINING,
                                     .key = i % 8 == 7 ? "missing" : "o",
                                     .buffer = buffers[i],
                                     .buffer_bytes = sizeof buffers[i],
                                     .done = count_done,
                                     .user = &called};
    cr_assert_eq(tr_store_submit(store, &requests[i], NULL), TR_OK);
  }
  for (int spin = 0; spin < 10000 && __atomic_load_n(&called.count, __ATOMIC_SEQ_CST) < COUNT; spin++) {
    tr_clock_sleep_ns(NULL, 1000000);
  }
  cr_assert_eq(__atomic_load_n(&called.count, __ATOMIC_SEQ_CST), COUNT);
  for (int i = 0; i < COUNT; i++) {
    cr_expect_eq(requests[i].status, i % 8 == 7 ? TR_ERR_NOT_FOUND : TR_OK);
    cr_expect_gt(requests[i].submitted_ns, 0);
    cr_expect_geq(requests[i].done_ns, requests[i].submitted_ns);
    if (i % 8 == 7) continue;
    cr_expect_geq(requests[i].first_byte_ns, requests[i].submitted_ns);
    cr_expect_geq(requests[i].done_ns, requests[i].first_byte_ns);
    cr_expect_eq(memcmp(buffers[i], "0123456789abcdef", 16), 0);
  }
}

CONFORMS(destroys_only_after_what_is_under_way) {
  enum { COUNT = 40 };
  tr_store *own = NULL;
  static char buffer[COUNT][64];
  static tr_store_request requests[COUNT];
  for (size_t b = 0; b < sizeof backends / sizeof *backends; b++) {
    if (strcmp(backends[b].name, backend_name) == 0) {
      cr_assert_eq(backends[b].open(NULL, ts_folder(), &own, NULL), TR_OK);
    }
  }
  (void)store;
  call_count called = {0};
  put_text(own, "o", "x");
  for (int i = 0; i < COUNT; i++) {
    requests[i] = (tr_store_request){.struct_bytes = sizeof requests[i],
                                     .verb = TR_STORE_GET,
                                     .priority = i % 3 ? TR_STORE_BACKGROUND : TR_STORE_TRAINING,
                                     .key = "o",
                                     .buffer = buffer[i],
                                     .buffer_bytes = 64,
                                     .done = count_done,
                                     .user = &called};
    cr_assert_eq(tr_store_submit(own, &requests[i], NULL), TR_OK);
  }
  tr_store_destroy(own);
  cr_expect_eq(called.count, COUNT);
}

CONFORMS(refuses_a_get_all_of_more_than_is_allowed) {
  (void)backend_name;
  put_text(store, "o", "0123456789");
  void *data = NULL;
  size_t bytes = 0;
  tr_error error;
  cr_expect_eq(tr_store_get_all(store, NULL, "o", 9, &data, &bytes, &error), TR_ERR_INVALID);
  cr_expect_not_null(strstr(error.message, "10 bytes"), "%s", error.message);
  cr_expect_null(data);
}

/* Everything a store does, once; the first failure ends it. */
static tr_status use_everything(tr_store *store, tr_error *error) {
  void *self = NULL, *upload = NULL, *data = NULL;
  size_t bytes = 0;
  const tr_store_ops *ops = tr_store_vtable(store, &self);
  TR_TRY(tr_store_put(store, "a/x", "12345", 5, false, error));
  TR_TRY(tr_store_put(store, "a/y", "12345", 5, true, error));
  TR_TRY(tr_store_get_all(store, tr_allocator_system(), "a/x", 100, &data, &bytes, error));
  tr_free(NULL, data);
  tr_list_page page;
  TR_TRY(ops->list(self, "", NULL, 5, &page, error));
  ops->list_free(self, &page);
  TR_TRY(ops->upload_begin(self, "up", &upload, error));
  const uint32_t parts = ops->part_bytes_min > 4 ? 1 : 3;
  for (uint32_t part = 1; part <= parts; part++) {
    tr_store_request request = {.struct_bytes = sizeof request,
                                .verb = TR_STORE_PART,
                                .upload = upload,
                                .part = part,
                                .offset = (part - 1) * 4,
                                .data = "abcd",
                                .data_bytes = 4};
    tr_status status = tr_store_submit(store, &request, error);
    if (status == TR_OK) status = tr_store_wait(store, &request, error);
    if (status != TR_OK) {
      ops->upload_abort(self, upload);
      return status;
    }
  }
  TR_TRY(ops->upload_commit(self, upload, false, error));
  return tr_store_delete(store, "a/x", error);
}

static void survives_allocations(int number) {
  const backend *of = &backends[number];
  bool finished = false;
  skip_without_server(of);
  for (uint64_t fail_at = 1; !finished && fail_at < 200; fail_at++) {
    const char *folder = ts_folder();
    tr_counting_allocator counting;
    tr_counting_allocator_init(&counting);
    counting.fail_at = fail_at;
    tr_store *store = NULL;
    tr_error error = {.status = TR_OK};
    tr_status status = of->open(&counting.allocator, folder, &store, &error);
    if (status == TR_OK) status = use_everything(store, &error);
    tr_store_destroy(store);
    cr_expect_eq(counting.live_blocks, 0, "%s leaks when allocation %d fails", of->name, (int)fail_at);
    finished = counting.allocations < fail_at;
    cr_expect_eq(status, finished ? TR_OK : TR_ERR_NO_MEMORY, "%s: allocation %d: %s", of->name, (int)fail_at,
                 error.message);
  }
  cr_expect(finished);
}

Test(file, survives_each_allocation_failing_in_turn) { survives_allocations(A_FILE); }
Test(memory, survives_each_allocation_failing_in_turn) { survives_allocations(A_MEMORY); }
Test(minio, survives_each_allocation_failing_in_turn) { survives_allocations(A_MINIO); }
Test(versitygw, survives_each_allocation_failing_in_turn) { survives_allocations(A_VERSITYGW); }
