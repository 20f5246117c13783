/* Objects into memory and back, as a program of a user's own would move them.
 *
 *   store_copy get URL...              each object whole, all at once, into memory that was touched before
 *   store_copy put BYTES URL...        as many objects of BYTES bytes
 *
 * Prints a line of JSON: seconds, CPU seconds of this process (user and system), bytes. Credentials and endpoint come from
 * the environment, as for AWS's tools. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <trainrun/trainrun.h>

#include "lib/windows.h"

extern char **environ;

enum { OBJECTS_MAX = 64, PART_BYTES = 16 << 20 };

typedef struct object {
  tr_store *store;
  char key[TR_KEY_BYTES];
  uint8_t *bytes;
  size_t count;
  void *upload;
  tr_store_request *requests;
  size_t request_count;
} object;

static double cpu_s(void) {
  struct rusage used;
  getrusage(RUSAGE_SELF, &used);
  return (double)(used.ru_utime.tv_sec + used.ru_stime.tv_sec) +
         1e-6 * (double)(used.ru_utime.tv_usec + used.ru_stime.tv_usec);
}

static tr_status prepare(object *o, tr_stores *stores, const char *url, size_t put_bytes, tr_error *error) {
  TR_TRY(tr_stores_resolve(stores, url, &o->store, o->key, error));
  o->count = put_bytes;
  if (put_bytes == 0) {
    tr_object_info info;
    TR_TRY(tr_store_head(o->store, o->key, &info, error));
    o->count = (size_t)info.bytes;
  }
  o->request_count = put_bytes == 0 ? 1 : (o->count + PART_BYTES - 1) / PART_BYTES;
  o->bytes = malloc(o->count);
  o->requests = calloc(o->request_count, sizeof *o->requests);
  if (o->bytes == NULL || o->requests == NULL) return tr_fail(error, TR_ERR_NO_MEMORY, "%s does not fit", url);
  for (size_t i = 0; i < o->count; i++) o->bytes[i] = (uint8_t)(i * 2654435761u >> 24);
  return TR_OK;
}

static tr_status begin_get(object *o, tr_error *error) {
  o->requests[0] = (tr_store_request){.struct_bytes = sizeof o->requests[0],
                                      .verb = TR_STORE_GET,
                                      .key = o->key,
                                      .buffer = o->bytes,
                                      .buffer_bytes = o->count};
  return tr_store_submit(o->store, &o->requests[0], error);
}

static tr_status begin_put(object *o, tr_error *error) {
  void *self = NULL;
  const tr_store_ops *ops = tr_store_vtable(o->store, &self);
  TR_TRY(ops->upload_begin(self, o->key, &o->upload, error));
  for (size_t i = 0; i < o->request_count; i++) {
    const size_t offset = i * PART_BYTES, left = o->count - offset;
    o->requests[i] = (tr_store_request){.struct_bytes = sizeof o->requests[i],
                                        .verb = TR_STORE_PART,
                                        .upload = o->upload,
                                        .part = (uint32_t)i + 1,
                                        .offset = offset,
                                        .data = o->bytes + offset,
                                        .data_bytes = left < PART_BYTES ? left : PART_BYTES};
    TR_TRY(tr_store_submit(o->store, &o->requests[i], error));
  }
  return TR_OK;
}

static tr_status finish(object *o, tr_error *error) {
  for (size_t i = 0; i < o->request_count; i++) TR_TRY(tr_store_wait(o->store, &o->requests[i], error));
  if (o->upload == NULL) return TR_OK;
  void *self = NULL;
  const tr_store_ops *ops = tr_store_vtable(o->store, &self);
  return ops->upload_commit(self, o->upload, false, error);
}

static tr_status run(tr_stores *stores, char **urls, size_t count, size_t put_bytes, tr_error *error) {
  static object objects[OBJECTS_MAX];
  if (count > OBJECTS_MAX) return tr_fail(error, TR_ERR_INVALID, "at most %d objects", OBJECTS_MAX);
  size_t bytes = 0;
  for (size_t i = 0; i < count; i++) TR_TRY(prepare(&objects[i], stores, urls[i], put_bytes, error));
  const uint64_t begun_ns = bench_now_ns();
  const double begun_cpu_s = cpu_s();
  for (size_t i = 0; i < count; i++) {
    TR_TRY(put_bytes == 0 ? begin_get(&objects[i], error) : begin_put(&objects[i], error));
  }
  for (size_t i = 0; i < count; i++) TR_TRY(finish(&objects[i], error));
  const double seconds = 1e-9 * (double)(bench_now_ns() - begun_ns), used_s = cpu_s() - begun_cpu_s;
  for (size_t i = 0; i < count; i++) bytes += objects[i].count;
  printf("{\"seconds\": %.6f, \"cpu_s\": %.6f, \"bytes\": %zu}\n", seconds, used_s, bytes);
  return TR_OK;
}

int main(int argc, char **argv) {
  const bool put = argc > 1 && strcmp(argv[1], "put") == 0;
  const int first = put ? 3 : 2;
  if (argc <= first) {
    fprintf(stderr, "usage: store_copy get URL... | put BYTES URL...\n");
    return 2;
  }
  const tr_stores_options options = {.struct_bytes = sizeof options, .environment = (const char *const *)environ};
  tr_stores *stores = NULL;
  tr_error error = {.status = TR_OK};
  tr_status status = tr_stores_create(&options, &stores, &error);
  if (status == TR_OK) {
    status = run(stores, argv + first, (size_t)(argc - first), put ? strtoul(argv[2], NULL, 10) : 0, &error);
  }
  if (status != TR_OK) fprintf(stderr, "store_copy: %s\n", error.message);
  tr_stores_destroy(stores);
  return tr_status_exit_code(status);
}
