/* What may happen to the cache's folder: damage, a full disk, files of others, kills. The bytes are right in any case. */
#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "dataloader/cache_world.h"

enum { FILES_MAX = 64 };

/* One object of three chunks, read once and so in the folder. */
static cache_world *filled(const char *dir) {
  cache_world *w = world_make(NULL);
  tr_error e = {0};
  world_put(w, 0, 0, 10 * MIB);
  EXPECT_OK(world_cache(w, dir, 0, 0, NULL, &e));
  cr_assert_eq(world_read_all(w, 0, 0, 10 * MIB, MIB), 0);
  world_again(w, dir, 0, 0);
  return w;
}

static void flip_byte(const char *path, uint64_t at) {
  size_t count;
  char *data = ts_file_read(path, &count);
  data[at < count ? at : count - 1] ^= 1;
  ts_file_write(path, data, count);
  free(data);
}

Test(cache_disk, a_flipped_bit_anywhere_is_found_and_fetched_again) {
  char paths[FILES_MAX][512];
  /* Header: magic, version, sizes, key, checksums, its own; data: first, last. */
  const uint64_t places[] = {0, 8, 20, 24, 32, 80, 300, 4095, 4096, 4096 + 100000, UINT64_MAX};
  for (size_t i = 0; i < sizeof places / sizeof *places; i++) {
    const char *dir = ts_folder();
    cache_world *w = filled(dir);
    cr_assert_eq(folder_files(dir, paths, FILES_MAX), 3);
    flip_byte(paths[i % 3], places[i]);
    cr_assert_eq(world_read_all(w, 0, 0, 10 * MIB, MIB), 0);
    cr_assert_eq(world_stats(w).damaged, 1, "place %zu", i);
    cr_assert_eq(world_gets(w), 4);
    cr_assert_not_null(strstr(w->last_line, "damaged"));
    world_again(w, dir, 0, 0);
    cr_assert_eq(world_read_all(w, 0, 0, 10 * MIB, MIB), 0);
    cr_assert_eq(world_gets(w), 4, "the damaged one was replaced");
    world_end(w);
    ts_remove_tree(dir);
  }
}

static uint64_t file_bytes(const char *path) {
  struct stat st;
  return stat(path, &st) == 0 ? (uint64_t)st.st_size : 0;
}

Test(cache_disk, a_torn_file_is_never_served) {
  char paths[FILES_MAX][512];
  const off_t lengths[] = {0, 100, 4096, 4096 + 16384, 4096 + MIB};
  for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
    const char *dir = ts_folder();
    cache_world *w = filled(dir);
    folder_files(dir, paths, FILES_MAX);
    /* Cut, and as a file system may leave it after a loss of power: the length is there, the data are not. */
    const size_t whole = file_bytes(paths[1]) == 4096 + CHUNK ? 1 : 0;
    cr_assert_eq(truncate(paths[2], lengths[i]), 0);
    cr_assert_eq(truncate(paths[whole], lengths[i]), 0);
    cr_assert_eq(truncate(paths[whole], 4096 + CHUNK), 0);
    cr_assert_eq(world_read_all(w, 0, 0, 10 * MIB, MIB), 0);
    cr_assert_eq(world_stats(w).damaged, 2);
    world_end(w);
    ts_remove_tree(dir);
  }
}

Test(cache_disk, an_entry_in_anothers_place_is_not_believed) {
  char paths[FILES_MAX][512];
  const char *dir = ts_folder();
  cache_world *w = filled(dir);
  folder_files(dir, paths, FILES_MAX);
  size_t count;
  char *data = ts_file_read(paths[0], &count);
  ts_file_write(paths[1], data, count);
  free(data);
  cr_assert_eq(unlink(paths[2]), 0);
  cr_assert_eq(mkfifo(paths[2], 0600), 0);
  cr_assert_eq(world_read_all(w, 0, 0, 10 * MIB, MIB), 0);
  cr_assert_eq(world_stats(w).damaged, 2);
  world_end(w);
}

Test(cache_disk, the_folder_and_its_files_are_the_users_alone) {
  char paths[FILES_MAX][512];
  struct stat st;
  const char *dir = ts_format("%s/deeper/cache", ts_folder());
  cache_world *w = filled(dir);
  cr_assert(stat(dir, &st) == 0 && (st.st_mode & 0777) == 0700);
  folder_files(dir, paths, FILES_MAX);
  cr_assert(stat(paths[0], &st) == 0 && (st.st_mode & 0777) == 0600);
  world_end(w);
}

Test(cache_disk, a_disk_that_takes_no_more_fails_no_read_and_is_said_once) {
  const char *dir = ts_folder();
  cache_world *w = world_make(NULL);
  tr_error e = {0};
  world_put(w, 0, 0, 10 * MIB);
  world_put(w, 1, 0, 10 * MIB);
  EXPECT_OK(world_cache(w, dir, 0, 0, NULL, &e));
  cr_assert_eq(world_read_all(w, 0, 0, 10 * MIB, MIB), 0);
  const struct rlimit limit = {1 << 20, RLIM_INFINITY};
  cr_assert_eq(setrlimit(RLIMIT_FSIZE, &limit), 0);
  for (int i = 0; i < 2; i++) cr_assert_eq(world_read_all(w, 1, 0, 10 * MIB, MIB), 0);
  cr_assert_eq(world_read_all(w, 0, 0, 10 * MIB, MIB), 0);
  tr_cache_close(w->cache);
  w->cache = NULL;
  cr_assert_eq(w->warnings, 1, "%d warnings, the last: %s", w->warnings, w->last_line);
  cr_assert_not_null(strstr(w->last_line, "nothing more is put into it"));
  world_end(w);
}

/* Whether the folder's count is what is in it is seen by what fits: with one chunk's room left, one more is taken. */
static void expect_room_for_one(const char *dir, uint64_t limit, cache_world *w) {
  char paths[FILES_MAX][512];
  world_again(w, dir, limit, 0);
  const size_t before = folder_files(dir, paths, FILES_MAX);
  world_put(w, 5, 0, CHUNK);
  cr_assert_eq(world_read_all(w, 5, 0, CHUNK, CHUNK), 0);
  tr_cache_close(w->cache);
  w->cache = NULL;
  cr_assert_eq(folder_files(dir, paths, FILES_MAX), before + 1);
}

Test(cache_disk, a_count_that_is_damaged_or_too_high_is_made_anew) {
  for (int i = 0; i < 3; i++) {
    const char *dir = ts_folder();
    cache_world *w = filled(dir);
    char *count = ts_format("%s/.trainrun-cache", dir);
    if (i == 0) flip_byte(count, 9);
    if (i == 1) cr_assert_eq(unlink(count), 0);
    if (i == 2) {
      /* What a kill leaves: counted, and not there. */
      char paths[FILES_MAX][512];
      folder_files(dir, paths, FILES_MAX);
      for (int k = 0; k < 2; k++) cr_assert_eq(unlink(paths[k]), 0);
    }
    expect_room_for_one(dir, 10 * MIB + 4 * 4096 + CHUNK, w);
    world_end(w);
    ts_remove_tree(dir);
  }
}

Test(cache_disk, what_a_killed_writer_left_goes_when_room_is_needed) {
  const char *dir = ts_folder();
  cache_world *w = filled(dir);
  char *left = ts_format("%s/.tmp-0123456789abcdef-0", dir), *count = ts_format("%s/.trainrun-cache", dir);
  uint8_t *bytes = calloc(1, 3 * CHUNK);
  ts_file_write(left, bytes, 3 * CHUNK);
  free(bytes);
  unlink(count);
  expect_room_for_one(dir, 10 * MIB + 4 * 4096 + CHUNK, w);
  cr_assert_not(ts_exists(left));
  world_end(w);
}

typedef struct writers {
  const char *dir;
  uint64_t limit;
} writers;

/* A job of its own each: no exchange. Killed at some moment, or not. */
static int write_into(int rank, int ranks, void *context) {
  const writers *shared = context;
  (void)ranks;
  cache_world *w = world_make(NULL);
  tr_error e = {0};
  for (int k = 0; k < 6; k++) world_put(w, k, 0, 3 * MIB);
  if (world_cache(w, shared->dir, shared->limit, rank % 2 == 0 ? 0 : 8 * MIB, NULL, &e) != TR_OK) return 1;
  for (int epoch = 0; epoch < 3; epoch++) {
    for (int k = 0; k < 6; k++) {
      if (world_read_all(w, (k + rank) % 6, 0, 3 * MIB, 700000) != 0) return 2;
    }
  }
  world_end(w);
  return 0;
}

Test(cache_disk, jobs_share_a_folder_and_its_bound) {
  writers shared = {ts_folder(), 4 * (3 * MIB + 4096)};
  cr_assert(ts_ranks(4, 60, write_into, &shared));
  cr_assert_leq(folder_bytes(shared.dir), shared.limit);
  cr_assert_geq(folder_bytes(shared.dir), 2 * 3 * MIB);
}

Test(cache_disk, a_kill_at_any_moment_leaves_a_folder_that_serves_right_bytes) {
  writers shared = {ts_folder(), 4 * (3 * MIB + 4096)};
  const int rounds = ts_long() ? 200 : 20;
  for (int i = 0; i < rounds; i++) {
    const pid_t pid = fork();
    if (pid == 0) {
      for (int k = 0; k < 100; k++) write_into(k, 1, &shared);
      _exit(0);
    }
    ts_sleep_s(0.005 + 0.002 * (double)(noise(4, (uint64_t)i) % 40));
    kill(pid, SIGKILL);
    cr_assert_eq(waitpid(pid, NULL, 0), pid);
    cr_assert_leq(folder_bytes(shared.dir), shared.limit);
  }
  cr_assert(ts_ranks(1, 60, write_into, &shared));
}
