/* Many threads on one store: for ThreadSanitizer, and for the promises that only a race can break. */
#include <criterion/criterion.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <trainrun/store.h>
#include <unistd.h>

#include "support/s3_server.h"
#include "support/support.h"

enum { THREADS = 4, ROUNDS = 60, OBJECT_BYTES = 3000 };
/* File, memory, MinIO, and versitygw, whose posix backend looks and then writes: of many that create it lets several, and
 * a folder that is removed meanwhile fails a put. */
enum { EXACT_KINDS = 3, KINDS = 4 };

/* NULL where there is no such server here: test_conformance says so. */
static tr_store *open_store(int kind) {
  tr_store *store = NULL;
  if (kind >= 2) {
    const ts_s3_kind server = kind == 2 ? TS_MINIO : TS_VERSITYGW;
    if (ts_s3_missing(server) != NULL) return NULL;
    const tr_store_s3_options options = ts_s3_options(server, NULL);
    cr_assert_eq(tr_store_s3_open(&options, &store, NULL), TR_OK);
    return store;
  }
  if (kind == 0) {
    const tr_store_file_options options = {.struct_bytes = sizeof options, .root = ts_folder(), .threads = 3};
    cr_assert_eq(tr_store_file_open(&options, &store, NULL), TR_OK);
  } else {
    const tr_store_memory_options options = {.struct_bytes = sizeof options};
    cr_assert_eq(tr_store_memory_open(&options, &store, NULL), TR_OK);
  }
  return store;
}

typedef struct thread_job {
  tr_store *store;
  int number;
  int wins, torn;
  tr_error error; /* the last */
} thread_job;

static void in_threads(tr_store *store, void *(*body)(void *), thread_job jobs[THREADS]) {
  pthread_t threads[THREADS];
  for (int i = 0; i < THREADS; i++) {
    jobs[i] = (thread_job){.store = store, .number = i};
    cr_assert_eq(pthread_create(&threads[i], NULL, body, &jobs[i]), 0);
  }
  for (int i = 0; i < THREADS; i++) pthread_join(threads[i], NULL);
}

/* Objects are all one byte value: a mixture would show. */
static void *put_and_get(void *argument) {
  thread_job *job = argument;
  char data[OBJECT_BYTES], buffer[OBJECT_BYTES], key[32];
  for (int round = 0; round < ROUNDS; round++) {
    snprintf(key, sizeof key, "shared/%d", round % 3);
    memset(data, 'a' + (job->number * 7 + round) % 26, sizeof data);
    tr_store_request put = {.struct_bytes = sizeof put,
                            .verb = TR_STORE_PUT,
                            .priority = TR_STORE_BACKGROUND,
                            .key = key,
                            .data = data,
                            .data_bytes = sizeof data};
    tr_store_request get = {
        .struct_bytes = sizeof get, .verb = TR_STORE_GET, .key = key, .buffer = buffer, .buffer_bytes = sizeof buffer};
    if (tr_store_submit(job->store, &put, NULL) != TR_OK || tr_store_submit(job->store, &get, NULL) != TR_OK)
      return NULL;
    if (tr_store_wait(job->store, &get, NULL) == TR_OK) {
      job->torn += get.bytes != sizeof buffer || memcmp(buffer, buffer + 1, sizeof buffer - 1) != 0;
    }
    job->wins += tr_store_wait(job->store, &put, NULL) == TR_OK;
  }
  return NULL;
}

Test(concurrency, never_shows_a_mixture_of_two_puts) {
  for (int kind = 0; kind < KINDS; kind++) {
    tr_store *store = open_store(kind);
    if (store == NULL) continue;
    thread_job jobs[THREADS];
    in_threads(store, put_and_get, jobs);
    for (int i = 0; i < THREADS; i++) {
      cr_expect_eq(jobs[i].wins, ROUNDS);
      cr_expect_eq(jobs[i].torn, 0);
    }
    tr_store_destroy(store);
  }
}

static void *claim(void *argument) {
  thread_job *job = argument;
  for (int round = 0; round < ROUNDS; round++) {
    char key[32];
    snprintf(key, sizeof key, "epochs/%d", round);
    job->wins += tr_store_put(job->store, key, &job->number, sizeof job->number, true, NULL) == TR_OK;
  }
  return NULL;
}

Test(concurrency, lets_exactly_one_of_many_create) {
  for (int kind = 0; kind < EXACT_KINDS; kind++) {
    tr_store *store = open_store(kind);
    if (store == NULL) continue;
    thread_job jobs[THREADS];
    in_threads(store, claim, jobs);
    int wins = 0;
    for (int i = 0; i < THREADS; i++) wins += jobs[i].wins;
    cr_expect_eq(wins, ROUNDS);
    tr_store_destroy(store);
  }
}

static void *put_and_delete(void *argument) {
  thread_job *job = argument;
  for (int round = 0; round < ROUNDS; round++) {
    job->wins += tr_store_put(job->store, "folder/deep/x", "1", 1, false, &job->error) == TR_OK;
    job->wins += tr_store_delete(job->store, "folder/deep/x", &job->error) == TR_OK;
  }
  return NULL;
}

Test(concurrency, puts_into_a_folder_that_others_keep_removing) {
  for (int kind = 0; kind < EXACT_KINDS; kind++) {
    tr_store *store = open_store(kind);
    if (store == NULL) continue;
    thread_job jobs[THREADS];
    in_threads(store, put_and_delete, jobs);
    for (int i = 0; i < THREADS; i++) cr_expect_eq(jobs[i].wins, 2 * ROUNDS, "%s", jobs[i].error.message);
    tr_store_destroy(store);
  }
}

/* A store of one thread whose gate holds the first request back, so that the queue fills behind it. */
typedef struct call_order {
  pthread_mutex_t lock;
  char seen[16];
  int count;
} call_order;

static void note(tr_store_request *request) {
  call_order *order = request->user;
  pthread_mutex_lock(&order->lock);
  order->seen[order->count++] = request->key[0];
  pthread_mutex_unlock(&order->lock);
}

Test(concurrency, takes_reads_of_training_before_uploads) {
  const char *folder = ts_folder();
  const tr_store_file_options options = {.struct_bytes = sizeof options, .root = folder, .threads = 1};
  tr_store *store = NULL;
  cr_assert_eq(tr_store_file_open(&options, &store, NULL), TR_OK);
  call_order order = {.lock = PTHREAD_MUTEX_INITIALIZER};
  const char *const keys[] = {"gate", "b1", "b2", "t1", "t2"};
  tr_store_request requests[5];
  /* The callback of the first request waits for this lock: the engine's one thread stands still meanwhile. */
  pthread_mutex_lock(&order.lock);
  for (int i = 0; i < 5; i++) {
    requests[i] = (tr_store_request){.struct_bytes = sizeof requests[i],
                                     .verb = TR_STORE_DELETE,
                                     .priority = keys[i][0] == 'b' ? TR_STORE_BACKGROUND : TR_STORE_TRAINING,
                                     .key = keys[i],
                                     .done = note,
                                     .user = &order};
    cr_assert_eq(tr_store_submit(store, &requests[i], NULL), TR_OK);
    if (i == 0) usleep(50000);
  }
  pthread_mutex_unlock(&order.lock);
  tr_store_destroy(store);
  cr_expect_str_eq(order.seen, "gttbb");
}

static void hold(tr_store_request *request) {
  call_order *order = request->user;
  pthread_mutex_lock(&order->lock);
  order->count++;
  pthread_mutex_unlock(&order->lock);
}

Test(concurrency, keeps_a_thread_free_of_uploads) {
  const tr_store_file_options options = {.struct_bytes = sizeof options, .root = ts_folder(), .threads = 2};
  tr_store *store = NULL;
  cr_assert_eq(tr_store_file_open(&options, &store, NULL), TR_OK);
  call_order order = {.lock = PTHREAD_MUTEX_INITIALIZER};
  tr_store_request uploads[4];
  pthread_mutex_lock(&order.lock);
  for (int i = 0; i < 4; i++) {
    uploads[i] = (tr_store_request){.struct_bytes = sizeof uploads[i],
                                    .verb = TR_STORE_DELETE,
                                    .priority = TR_STORE_BACKGROUND,
                                    .key = "upload",
                                    .done = hold,
                                    .user = &order};
    cr_assert_eq(tr_store_submit(store, &uploads[i], NULL), TR_OK);
  }
  usleep(20000);
  tr_store_request read = {.struct_bytes = sizeof read, .verb = TR_STORE_DELETE, .key = "read"};
  cr_assert_eq(tr_store_submit(store, &read, NULL), TR_OK);
  cr_expect_eq(tr_store_wait(store, &read, NULL), TR_OK, "it must not wait for the uploads that are held back");
  pthread_mutex_unlock(&order.lock);
  tr_store_destroy(store);
  cr_expect_eq(order.count, 4);
}

static int thread_count(void) {
  int count = 0;
  char line[256];
  FILE *file = fopen("/proc/self/status", "r");
  while (file != NULL && fgets(line, sizeof line, file) != NULL) sscanf(line, "Threads: %d", &count);
  if (file != NULL) fclose(file);
  return count;
}

Test(concurrency, starts_no_thread_for_blocking_calls) {
  for (int kind = 0; kind < 2; kind++) {
    tr_store *store = open_store(kind);
    const int before = thread_count();
    cr_assert_eq(tr_store_put(store, "a", "x", 1, false, NULL), TR_OK);
    cr_assert_eq(tr_store_get(store, "a", 0, (char[1]){0}, 1, NULL, NULL), TR_OK);
    cr_expect_eq(thread_count(), before);
    tr_store_destroy(store);
  }
}
