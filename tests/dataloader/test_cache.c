/* The cache of a node, seen by one process: right bytes whatever the range, second reads without the store, bounds. */
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/file.h>
#include <unistd.h>

#include "dataloader/cache_world.h"

/* Memory, folder, both. */
static const struct {
  bool dir;
  uint64_t memory_bytes;
} tiers[] = {{false, 64 * MIB}, {true, 0}, {true, 8 * MIB}};

Test(cache, any_range_of_an_object_is_right) {
  const uint64_t sizes[] = {1, 100, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK + 12345};
  for (size_t t = 0; t < sizeof tiers / sizeof *tiers; t++) {
    cache_world *w = world_make(NULL);
    tr_error e = {0};
    EXPECT_OK(world_cache(w, tiers[t].dir ? ts_folder() : NULL, 0, tiers[t].memory_bytes, NULL, &e));
    uint8_t *buffer = malloc(3 * CHUNK);
    for (int k = 0; k < 6; k++) world_put(w, k, 0, sizes[k]);
    for (uint64_t i = 0; i < 300; i++) {
      const int k = (int)(noise(1, i) % 6);
      char etag[TR_ETAG_BYTES];
      world_etag(w, k, etag);
      const uint64_t at = noise(2, i) % sizes[k];
      const size_t wanted = 1 + noise(3, i) % (i % 4 == 0 ? 2 * CHUNK : 200000);
      const size_t there = sizes[k] - at < wanted ? (size_t)(sizes[k] - at) : wanted;
      size_t moved = 0;
      memset(buffer, 0xEE, wanted);
      EXPECT_OK(world_read(w, k, etag, at, buffer, wanted, &moved, &e));
      cr_assert_eq(moved, there, "%zu of %zu bytes", moved, there);
      cr_assert(world_right(k, 0, at, buffer, moved));
    }
    free(buffer);
    world_end(w);
  }
}

Test(cache, a_second_epoch_does_not_touch_the_store) {
  for (size_t t = 0; t < sizeof tiers / sizeof *tiers; t++) {
    cache_world *w = world_make(NULL);
    tr_error e = {0};
    EXPECT_OK(world_cache(w, tiers[t].dir ? ts_folder() : NULL, 0, tiers[t].memory_bytes, NULL, &e));
    for (int k = 0; k < 3; k++) world_put(w, k, 0, 10 * MIB);
    for (int k = 0; k < 3; k++) cr_assert_eq(world_read_all(w, k, 0, 10 * MIB, 300000), 0);
    cr_assert_eq(world_gets(w), 9, "three chunks of each object are fetched once each, not %d", (int)world_gets(w));
    for (int k = 0; k < 3; k++) cr_assert_eq(world_read_all(w, k, 0, 10 * MIB, 300000), 0);
    const tr_cache_stats stats = world_stats(w);
    cr_assert_eq(world_gets(w), 9);
    cr_assert_eq(stats.misses, 9);
    cr_assert_eq(stats.fetched_bytes, 30 * MIB);
    cr_assert_eq(stats.served_bytes, 60 * MIB);
    world_end(w);
  }
}

Test(cache, the_next_job_finds_the_data_in_the_folder) {
  const char *dir = ts_folder();
  cache_world *w = world_make(NULL);
  tr_error e = {0};
  EXPECT_OK(world_cache(w, dir, 0, 0, NULL, &e));
  world_put(w, 0, 0, 10 * MIB);
  cr_assert_eq(world_read_all(w, 0, 0, 10 * MIB, MIB), 0);
  world_again(w, dir, 0, 64 * MIB);
  cr_assert_eq(world_read_all(w, 0, 0, 10 * MIB, MIB), 0);
  cr_assert_eq(world_gets(w), 3);
  /* Each chunk came to memory with its first read. */
  cr_assert_eq(world_stats(w).disk_hits, 3);
  cr_assert_gt(world_stats(w).memory_hits, 5);
  world_end(w);
}

Test(cache, a_new_version_is_another_entry) {
  for (int disk = 0; disk < 2; disk++) {
    cache_world *w = world_make(NULL);
    tr_error e = {0};
    EXPECT_OK(world_cache(w, disk ? ts_folder() : NULL, 0, 64 * MIB, NULL, &e));
    world_put(w, 0, 1, 5 * MIB);
    cr_assert_eq(world_read_all(w, 0, 1, 5 * MIB, MIB), 0);
    world_put(w, 0, 2, 5 * MIB);
    cr_assert_eq(world_read_all(w, 0, 2, 5 * MIB, MIB), 0);
    cr_assert_eq(world_gets(w), 4);
    /* The old version leaves the memory, at the latest when it is in the folder. */
    for (int i = 0; i < 1000 && world_stats(w).evicted_bytes < 5 * MIB; i++) ts_sleep_s(0.005);
    cr_assert_eq(world_stats(w).evicted_bytes, 5 * MIB);
    world_end(w);
  }
}

Test(cache, what_names_no_version_is_passed_on) {
  cache_world *w = world_make(NULL);
  tr_error e = {0};
  uint8_t buffer[64];
  size_t moved;
  EXPECT_OK(world_cache(w, NULL, 0, 64 * MIB, NULL, &e));
  world_put(w, 0, 0, 1000);
  for (int i = 0; i < 2; i++) {
    EXPECT_OK(tr_store_get(w->outer, "o0", 10, buffer, sizeof buffer, &moved, &e));
    cr_assert(moved == sizeof buffer && world_right(0, 0, 10, buffer, moved));
  }
  cr_assert_eq(world_gets(w), 2);
  EXPECT_OK(tr_store_put(w->outer, "p", "abc", 3, true, &e));
  EXPECT_FAIL(tr_store_put(w->outer, "p", "abc", 3, true, &e), TR_ERR_EXISTS, "p");
  tr_object_info info;
  EXPECT_OK(tr_store_head(w->outer, "p", &info, &e));
  cr_assert_eq(info.bytes, 3);
  EXPECT_OK(tr_store_delete(w->outer, "p", &e));
  EXPECT_FAIL(tr_store_head(w->outer, "p", &info, &e), TR_ERR_NOT_FOUND, "p");
  world_end(w);
}

Test(cache, a_store_is_wrapped_once) {
  cache_world *w = world_make(NULL);
  tr_error e = {0};
  tr_store *again;
  EXPECT_OK(world_cache(w, NULL, 0, 64 * MIB, NULL, &e));
  EXPECT_OK(tr_cache_wrap(w->cache, w->inner, "test://bucket", &again, &e));
  cr_assert_eq(again, w->outer);
  world_end(w);
}

typedef struct reader {
  cache_world *w;
  pthread_t thread;
  char etag[TR_ETAG_BYTES];
  tr_status status;
  bool right;
} reader;

static void *read_first(void *argument) {
  reader *r = argument;
  static _Thread_local uint8_t buffer[100000];
  size_t moved = 0;
  tr_error e;
  r->status = world_read(r->w, 0, r->etag, 50000, buffer, sizeof buffer, &moved, &e);
  r->right = moved == sizeof buffer && world_right(0, 0, 50000, buffer, moved);
  return NULL;
}

static void read_at_once(cache_world *w, reader *readers, int count) {
  for (int i = 0; i < count; i++) {
    readers[i] = (reader){.w = w};
    world_etag(w, 0, readers[i].etag);
  }
  for (int i = 0; i < count; i++) pthread_create(&readers[i].thread, NULL, read_first, &readers[i]);
  for (int i = 0; i < count; i++) pthread_join(readers[i].thread, NULL);
}

Test(cache, threads_that_want_one_chunk_share_one_fetch) {
  cache_world *w = world_make(NULL);
  tr_error e = {0};
  reader readers[8];
  EXPECT_OK(world_cache(w, NULL, 0, 64 * MIB, NULL, &e));
  world_put(w, 0, 0, 2 * MIB);
  w->faults->delay_ns = 50000000;
  read_at_once(w, readers, 8);
  for (int i = 0; i < 8; i++) cr_assert(readers[i].status == TR_OK && readers[i].right);
  cr_assert_eq(world_gets(w), 1);
  world_end(w);
}

Test(cache, a_failed_fetch_fails_those_who_waited_and_nobody_later) {
  cache_world *w = world_make(NULL);
  tr_error e = {0};
  reader readers[6];
  EXPECT_OK(world_cache(w, ts_folder(), 0, 64 * MIB, NULL, &e));
  world_put(w, 0, 0, 2 * MIB);
  w->faults->delay_ns = 100000000;
  w->faults->fail_get = 1;
  w->faults->status = TR_ERR_THROTTLED;
  read_at_once(w, readers, 6);
  int failed = 0;
  for (int i = 0; i < 6; i++) {
    failed += readers[i].status == TR_ERR_THROTTLED;
    cr_assert(readers[i].status == TR_ERR_THROTTLED || readers[i].right);
  }
  cr_assert_geq(failed, 1);
  w->faults->delay_ns = 0;
  cr_assert_eq(world_read_all(w, 0, 0, 2 * MIB, MIB), 0);
  world_end(w);
}

Test(cache, what_the_store_refuses_is_refused_with_its_words) {
  cache_world *w = world_make(NULL);
  tr_error e = {0};
  uint8_t buffer[100];
  size_t moved;
  char etag[TR_ETAG_BYTES];
  EXPECT_OK(world_cache(w, ts_folder(), 0, 64 * MIB, NULL, &e));
  world_put(w, 0, 1, 1000);
  world_etag(w, 0, etag);
  world_put(w, 0, 2, 1000);
  EXPECT_FAIL(world_read(w, 0, etag, 0, buffer, sizeof buffer, &moved, &e), TR_ERR_CHANGED, "o0");
  EXPECT_FAIL(world_read(w, 7, etag, 0, buffer, sizeof buffer, &moved, &e), TR_ERR_NOT_FOUND, "o7");
  world_end(w);
}

Test(cache, a_store_that_falls_short_is_not_believed_for_ever) {
  cache_world *w = world_make(NULL);
  tr_error e = {0};
  EXPECT_OK(world_cache(w, ts_folder(), 0, 64 * MIB, NULL, &e));
  world_put(w, 0, 0, 6 * MIB);
  w->faults->short_get = 1;
  cr_assert_eq(world_read_all(w, 0, 0, 6 * MIB, MIB), 0);
  cr_assert_eq(world_read_all(w, 0, 0, 6 * MIB, MIB), 0);
  world_end(w);
}

Test(cache, a_fresh_read_replaces_what_came_wrong) {
  cache_world *w = world_make(NULL);
  tr_error e = {0};
  char etag[TR_ETAG_BYTES];
  uint8_t byte;
  size_t moved;
  EXPECT_OK(world_cache(w, ts_folder(), 0, 64 * MIB, NULL, &e));
  world_put(w, 0, 0, 6 * MIB);
  world_etag(w, 0, etag);
  w->faults->flip_get = 1;
  cr_assert_eq(world_read_all(w, 0, 0, 6 * MIB, MIB), 1, "the store's wrong bit is in the middle of the first chunk");
  cr_assert_eq(world_read_all(w, 0, 0, 6 * MIB, MIB), 1);
  w->fresh = true;
  EXPECT_OK(world_read(w, 0, etag, 2 * MIB, &byte, 1, &moved, &e));
  w->fresh = false;
  cr_assert_eq(world_read_all(w, 0, 0, 6 * MIB, MIB), 0);
  cr_assert_eq(world_gets(w), 3);
  world_end(w);
}

/* ---- Bounds ------------------------------------------------------------------------------------------------------ */

/* A pass of twelve chunks in order, of which six fit; the bytes it fetched. */
static uint64_t pass(cache_world *w) {
  const uint64_t before = w->faults->bytes_read;
  for (int k = 0; k < 12; k++) cr_assert_eq(world_read_all(w, k, 0, CHUNK, MIB), 0);
  return w->faults->bytes_read - before;
}

Test(cache, half_of_the_data_in_the_cache_is_half_of_the_reads) {
  const uint64_t room = 6 * (CHUNK + 4096);
  for (int disk = 0; disk < 2; disk++) {
    const char *dir = disk ? ts_folder() : NULL;
    cache_world *w = world_make(NULL);
    tr_error e = {0};
    EXPECT_OK(world_cache(w, dir, room, disk ? 0 : room, NULL, &e));
    for (int k = 0; k < 12; k++) world_put(w, k, 0, CHUNK);
    pass(w);
    for (int epoch = 1; epoch < 3; epoch++) {
      /* Slots on the way to the folder would still hold what they held last. */
      if (disk) world_again(w, dir, room, 0);
      const uint64_t fetched = pass(w);
      cr_assert_eq(fetched, 6 * CHUNK, "%d: %d MiB", disk, (int)(fetched >> 20));
    }
    world_end(w);
  }
}

/* Looks at a folder again and again, with the lock that everybody takes who changes it. */
typedef struct guard {
  const char *dir;
  _Atomic bool stop;
  uint64_t most;
} guard;

static void *watch_folder(void *argument) {
  guard *g = argument;
  char *path = ts_format("%s/.trainrun-cache", g->dir);
  const int lock = open(path, O_RDONLY | O_CLOEXEC);
  free(path);
  cr_assert_geq(lock, 0);
  while (!atomic_load(&g->stop)) {
    flock(lock, LOCK_SH);
    const uint64_t bytes = folder_bytes(g->dir);
    flock(lock, LOCK_UN);
    if (bytes > g->most) g->most = bytes;
    ts_sleep_s(0.001);
  }
  close(lock);
  return NULL;
}

Test(cache, the_folder_never_holds_more_than_it_may) {
  const uint64_t limit = 5 * MIB + 3 * CHUNK;
  cache_world *w = world_make(NULL);
  tr_error e = {0};
  guard g = {.dir = ts_folder()};
  pthread_t thread;
  EXPECT_OK(world_cache(w, g.dir, limit, 0, NULL, &e));
  pthread_create(&thread, NULL, watch_folder, &g);
  for (uint64_t version = 0; version < 3; version++) {
    for (int k = 0; k < 5; k++) world_put(w, k, version, 5 * MIB);
    for (int k = 0; k < 5; k++) cr_assert_eq(world_read_all(w, k, version, 5 * MIB, MIB), 0);
  }
  world_again(w, g.dir, limit, 0);
  for (int k = 0; k < 5; k++) cr_assert_eq(world_read_all(w, k, 2, 5 * MIB, MIB), 0);
  atomic_store(&g.stop, true);
  pthread_join(thread, NULL);
  cr_assert_leq(g.most, limit);
  cr_assert_geq(g.most, 2 * CHUNK);
  world_end(w);
}

Test(cache, another_jobs_data_make_room_and_foreign_files_stay) {
  const char *dir = ts_folder();
  const uint64_t limit = 4 * (CHUNK + 4096);
  cache_world *w = world_make(NULL);
  tr_error e = {0};
  for (int k = 0; k < 8; k++) world_put(w, k, 0, CHUNK);
  EXPECT_OK(world_cache(w, dir, limit, 0, NULL, &e));
  for (int k = 0; k < 4; k++) cr_assert_eq(world_read_all(w, k, 0, CHUNK, CHUNK), 0);
  world_again(w, dir, limit, 0);
  char *foreign = ts_format("%s/notes.txt", dir), *inside = ts_format("%s/ab/notes.chunk", dir);
  ts_run((const char *const[]){"mkdir", "-p", ts_format("%s/ab", dir), NULL}, NULL);
  ts_file_write(foreign, "mine", 4);
  ts_file_write(inside, "mine", 4);
  for (int epoch = 0; epoch < 2; epoch++) {
    for (int k = 4; k < 8; k++) cr_assert_eq(world_read_all(w, k, 0, CHUNK, CHUNK), 0);
  }
  cr_assert_eq(world_gets(w), 8, "the second job's data all found a place");
  cr_assert_eq(world_stats(w).evicted_bytes, limit);
  cr_assert(ts_exists(foreign) && ts_exists(inside));
  world_end(w);
}

Test(cache, too_little_memory_or_no_tier_at_all_is_said) {
  cache_world *w = world_make(NULL);
  tr_error e = {0};
  EXPECT_FAIL(world_cache(w, NULL, 0, 0, NULL, &e), TR_ERR_INVALID, "neither a folder nor memory");
  EXPECT_FAIL(world_cache(w, NULL, 0, MIB, NULL, &e), TR_ERR_CONFIG, "at least 4 MiB");
  EXPECT_FAIL(world_cache(w, "/proc/nothing", 0, 0, NULL, &e), TR_ERR_NOT_FOUND, "/proc/nothing");
  world_end(w);
}

Test(cache, memory_beyond_the_hosts_is_cut_and_said) {
  cache_world *w = world_make(NULL);
  tr_error e = {0};
  EXPECT_OK(world_cache(w, NULL, 0, (uint64_t)1 << 42, NULL, &e));
  cr_assert_eq(w->warnings, 1);
  cr_assert_not_null(strstr(w->last_line, "the host has"), "%s", w->last_line);
  world_end(w);
}

Test(cache, memory_that_runs_out_anywhere_is_an_error_and_leaves_nothing) {
  const char *dir = ts_folder();
  for (uint64_t nth = 1; nth < 60; nth++) {
    tr_counting_allocator counting;
    tr_counting_allocator_init(&counting);
    cache_world *w = world_make(&counting.allocator);
    tr_error e = {0};
    world_put(w, 0, 0, 5 * MIB);
    counting.fail_at = nth;
    tr_status status = world_cache(w, dir, 0, 16 * MIB, NULL, &e);
    if (status == TR_OK) {
      const int wrong = world_read_all(w, 0, 0, 5 * MIB, 3 * MIB);
      cr_assert_leq(wrong, 1);
      counting.fail_at = 0;
      cr_assert_eq(world_read_all(w, 0, 0, 5 * MIB, 3 * MIB), 0);
    } else {
      cr_assert_eq(status, TR_ERR_NO_MEMORY);
    }
    world_end(w);
    cr_assert_eq(counting.live_blocks, 0, "allocation %d", (int)nth);
  }
}
