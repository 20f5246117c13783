/* What only the file store can get wrong: kills, full disks, links, folders, names under way. */
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <trainrun/store.h>
#include <unistd.h>

#include "support/support.h"

/* A path or the like; good for the next dozen of calls. */
static const char *text(const char *format, ...) {
  static char buffers[16][4352];
  static int next;
  char *buffer = buffers[next++ % 16];
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(buffer, sizeof buffers[0], format, arguments);
  va_end(arguments);
  return buffer;
}

static void expect_file(const char *path, const char *content) {
  char *found = ts_file_read(path, NULL);
  cr_assert_not_null(found, "%s is missing", path);
  cr_expect_str_eq(found, content);
  free(found);
}

static tr_store *open_at(const char *root) {
  const tr_store_file_options options = {.struct_bytes = sizeof options, .root = root};
  tr_store *store = NULL;
  tr_error error;
  cr_assert_eq(tr_store_file_open(&options, &store, &error), TR_OK, "%s", error.message);
  return store;
}

static int count_entries(tr_store *store) {
  void *self = NULL;
  const tr_store_ops *ops = tr_store_vtable(store, &self);
  tr_list_page page;
  cr_assert_eq(ops->list(self, "", NULL, 1000, &page, NULL), TR_OK);
  const int count = (int)page.count;
  ops->list_free(self, &page);
  return count;
}

enum { KILL_BYTES = 3 << 20 };

/* Until it is killed: puts objects that are all one byte value, over each other and conditionally. */
static void put_for_ever(const char *folder) {
  tr_store *store = open_at(folder);
  char *data = malloc(KILL_BYTES);
  for (unsigned round = 0;; round++) {
    memset(data, 'a' + (int)(round % 26), KILL_BYTES);
    char key[64];
    if (tr_store_put(store, "dir/object", data, KILL_BYTES, false, NULL) != TR_OK) _exit(1);
    snprintf(key, sizeof key, "dir/new-%u", round % 8);
    const tr_status status = tr_store_put(store, key, data, KILL_BYTES, true, NULL);
    if (status != TR_OK && status != TR_ERR_EXISTS) _exit(1);
    if (status == TR_ERR_EXISTS && tr_store_delete(store, key, NULL) != TR_OK) _exit(1);
  }
}

static tr_status check_whole(void *self, const tr_list_entry *entry, tr_error *error) {
  char *buffer = self;
  if (entry->info.bytes != KILL_BYTES) {
    return tr_fail(error, TR_ERR_CORRUPT, "%s has %d bytes", entry->key, (int)entry->info.bytes);
  }
  if (strncmp(entry->key, "dir/object", 10) != 0 && strncmp(entry->key, "dir/new-", 8) != 0) {
    return tr_fail(error, TR_ERR_CORRUPT, "%s should not be there", entry->key);
  }
  (void)buffer;
  return TR_OK;
}

static void check_object(tr_store *store, char *buffer) {
  size_t bytes = 0;
  const tr_status status = tr_store_get(store, "dir/object", 0, buffer, KILL_BYTES, &bytes, NULL);
  if (status == TR_ERR_NOT_FOUND) return;
  cr_assert_eq(status, TR_OK);
  cr_assert_eq(bytes, KILL_BYTES);
  cr_assert_eq(memcmp(buffer, buffer + 1, KILL_BYTES - 1), 0, "a half object was left");
}

Test(file_store, leaves_no_half_object_when_it_is_killed, .timeout = 240) {
  const char *folder = ts_folder();
  char *buffer = malloc(KILL_BYTES);
  const int rounds = ts_long() ? 200 : 25;
  tr_store *store = open_at(folder);
  for (int round = 0; round < rounds; round++) {
    const pid_t child = fork();
    cr_assert_neq(child, -1);
    if (child == 0) put_for_ever(folder);
    usleep((unsigned)(1000 + tr_rng_below(7, TR_RNG_USER, 0, (uint64_t)round, 40000)));
    int exit_status = 0;
    kill(child, SIGKILL);
    waitpid(child, &exit_status, 0);
    cr_assert(WIFSIGNALED(exit_status), "the child failed by itself");
    tr_error error;
    cr_assert_eq(tr_store_walk(store, "", check_whole, buffer, &error), TR_OK, "%s", error.message);
    check_object(store, buffer);
  }
  tr_store_destroy(store);
  free(buffer);
}

Test(file_store, passes_over_names_that_a_killed_put_left) {
  const char *folder = ts_folder();
  tr_store *store = open_at(folder);
  for (int i = 0; i < 5; i++) ts_file_write(text("%s/.tmp-%d-%d", folder, (int)getpid(), i), "stale", 5);
  cr_expect_eq(tr_store_put(store, "o", "new", 3, false, NULL), TR_OK);
  cr_expect_eq(tr_store_put(store, "o", "newer", 5, false, NULL), TR_OK);
  cr_expect_eq(count_entries(store), 1);
  expect_file(text("%s/o", folder), "newer");
  cr_expect_eq(tr_store_put(store, "a/.tmp-x", "1", 1, false, NULL), TR_ERR_INVALID);
  cr_expect_eq(tr_store_put(store, ".tmp-x/a", "1", 1, false, NULL), TR_ERR_INVALID);
  tr_store_destroy(store);
}

Test(file_store, sweeps_what_killed_uploads_left_below_a_prefix) {
  const char *folder = ts_folder();
  tr_store *store = open_at(folder);
  void *self = NULL;
  const tr_store_ops *ops = tr_store_vtable(store, &self);
  cr_expect_eq(tr_store_put(store, "run/step-1/shard", "new", 3, false, NULL), TR_OK);
  cr_expect_eq(tr_store_put(store, "other/shard", "new", 3, false, NULL), TR_OK);
  ts_file_write(text("%s/run/.tmp-1-1", folder), "stale", 5);
  ts_file_write(text("%s/run/step-1/.tmp-1-2", folder), "stale", 5);
  ts_file_write(text("%s/other/.tmp-1-3", folder), "stale", 5);
  cr_expect_eq(ops->upload_sweep(self, "run", NULL), TR_OK);
  cr_expect_neq(access(text("%s/run/.tmp-1-1", folder), F_OK), 0);
  cr_expect_neq(access(text("%s/run/step-1/.tmp-1-2", folder), F_OK), 0);
  expect_file(text("%s/other/.tmp-1-3", folder), "stale");
  expect_file(text("%s/run/step-1/shard", folder), "new");
  cr_expect_eq(ops->upload_sweep(self, "nobody", NULL), TR_OK);
  tr_store_destroy(store);
}

/* Aligned memory may go past the page cache, odd ends and memory that is not aligned may not: the bytes are the same. */
Test(file_store, writes_long_parts_from_aligned_memory_and_from_any_other) {
  const size_t part_bytes = 2 << 20, bytes = 3 * part_bytes + 4099;
  for (size_t shift = 0; shift <= 8; shift += 8) {
    tr_store *store = open_at(ts_folder());
    void *self = NULL, *upload = NULL, *found = NULL;
    const tr_store_ops *ops = tr_store_vtable(store, &self);
    void *memory = NULL;
    cr_assert_eq(posix_memalign(&memory, 4096, bytes + shift), 0);
    char *data = (char *)memory + shift;
    for (size_t i = 0; i < bytes; i++) data[i] = (char)(i * 2654435761u >> 13);
    cr_assert_eq(ops->upload_begin(self, "o", &upload, NULL), TR_OK);
    uint32_t number = 0;
    for (size_t at = 0; at < bytes; at += part_bytes) {
      tr_store_request request = {
          .struct_bytes = sizeof request, .verb = TR_STORE_PART, .upload = upload, .part = ++number, .offset = at};
      request.data = data + at;
      request.data_bytes = bytes - at < part_bytes ? bytes - at : part_bytes;
      cr_assert_eq(tr_store_submit(store, &request, NULL), TR_OK);
      cr_assert_eq(tr_store_wait(store, &request, NULL), TR_OK);
    }
    cr_assert_eq(ops->upload_commit(self, upload, true, NULL), TR_OK);
    size_t found_bytes = 0;
    cr_assert_eq(tr_store_get_all(store, NULL, "o", bytes, &found, &found_bytes, NULL), TR_OK);
    cr_expect_eq(found_bytes, bytes);
    cr_expect_eq(memcmp(found, data, bytes), 0);
    tr_free(NULL, found);
    free(memory);
    tr_store_destroy(store);
  }
}

Test(file_store, removes_a_folder_that_a_delete_leaves_empty_but_never_the_root) {
  const char *folder = ts_folder();
  tr_store *store = open_at(folder);
  cr_assert_eq(tr_store_put(store, "run/step-1/a", "1", 1, false, NULL), TR_OK);
  cr_assert_eq(tr_store_put(store, "run/step-1/b", "1", 1, false, NULL), TR_OK);
  cr_assert_eq(tr_store_put(store, "top", "1", 1, false, NULL), TR_OK);
  cr_expect_eq(tr_store_delete(store, "run/step-1/a", NULL), TR_OK);
  cr_expect(ts_exists(text("%s/run/step-1", folder)));
  cr_expect_eq(tr_store_delete(store, "run/step-1/b", NULL), TR_OK);
  cr_expect_not(ts_exists(text("%s/run/step-1", folder)));
  cr_expect_eq(tr_store_delete(store, "top", NULL), TR_OK);
  cr_expect(ts_exists(folder));
  tr_store_destroy(store);
}

Test(file_store, says_which_file_cannot_be_written) {
  const char *folder = ts_folder();
  ts_file_write(text("%s/file", folder), "x", 1);
  tr_store *store = open_at(folder);
  tr_error error;
  cr_expect_neq(tr_store_put(store, "file/below", "1", 1, false, &error), TR_OK);
  cr_expect_not_null(strstr(error.message, "/file"), "%s", error.message);
  mkdir(text("%s/folder", folder), 0777);
  ts_file_write(text("%s/folder/x", folder), "x", 1);
  cr_expect_neq(tr_store_put(store, "folder", "1", 1, false, &error), TR_OK, "a folder is there");
  cr_expect_not_null(strstr(error.message, "/folder"), "%s", error.message);
  cr_expect_neq(tr_store_delete(store, "folder", &error), TR_OK);
  cr_expect_eq(count_entries(store), 2);
  tr_store_destroy(store);
}

Test(file_store, takes_only_regular_files_for_objects) {
  const char *folder = ts_folder();
  tr_store *store = open_at(folder);
  char buffer[8];
  tr_error error;
  tr_object_info info;
  mkdir(text("%s/folder", folder), 0777);
  mkfifo(text("%s/pipe", folder), 0666);
  cr_expect_eq(tr_store_get(store, "folder", 0, buffer, 8, NULL, &error), TR_ERR_NOT_FOUND);
  cr_expect_not_null(strstr(error.message, "is a folder"), "%s", error.message);
  cr_expect_eq(tr_store_get(store, "pipe", 0, buffer, 8, NULL, &error), TR_ERR_NOT_FOUND, "and does not hang");
  cr_expect_eq(tr_store_head(store, "folder", &info, NULL), TR_ERR_NOT_FOUND);
  cr_expect_eq(count_entries(store), 0);
  tr_store_destroy(store);
}

Test(file_store, reads_through_links_and_lists_links_to_files_only) {
  const char *folder = ts_folder(), *elsewhere = ts_folder();
  ts_file_write(text("%s/real", elsewhere), "linked", 6);
  cr_assert_eq(symlink(text("%s/real", elsewhere), text("%s/link", folder)), 0);
  cr_assert_eq(symlink(elsewhere, text("%s/tree", folder)), 0);
  cr_assert_eq(symlink(folder, text("%s/loop", folder)), 0);
  cr_assert_eq(symlink("/nowhere/at/all", text("%s/broken", folder)), 0);
  tr_store *store = open_at(folder);
  char buffer[8] = "";
  cr_expect_eq(tr_store_get(store, "link", 0, buffer, 6, NULL, NULL), TR_OK);
  cr_expect_str_eq(buffer, "linked");
  cr_expect_eq(tr_store_get(store, "tree/real", 0, buffer, 6, NULL, NULL), TR_OK);
  cr_expect_eq(count_entries(store), 1);
  tr_store_destroy(store);
}

typedef struct writer {
  const char *path;
  bool stop; /* atomic */
} writer_state;

static void *write_in_place(void *argument) {
  writer_state *state = argument;
  char data[65536];
  const int fd = open(state->path, O_WRONLY);
  for (int round = 0; !__atomic_load_n(&state->stop, __ATOMIC_SEQ_CST); round++) {
    memset(data, 'a' + round % 26, sizeof data);
    for (off_t at = 0; at < 4 << 20; at += (off_t)sizeof data) {
      if (pwrite(fd, data, sizeof data, at) < 0) return NULL;
    }
  }
  close(fd);
  return NULL;
}

Test(file_store, notices_a_file_that_is_written_in_place_while_it_is_read) {
  const char *folder = ts_folder();
  char *data = calloc(1, 4 << 20);
  writer_state state = {.path = text("%s/o", folder)};
  ts_file_write(state.path, data, 4 << 20);
  tr_store *store = open_at(folder);
  pthread_t thread;
  cr_assert_eq(pthread_create(&thread, NULL, write_in_place, &state), 0);
  int changed = 0;
  for (int i = 0; i < 200 && changed == 0; i++) {
    tr_error error;
    const tr_status status = tr_store_get(store, "o", 0, data, 4 << 20, NULL, &error);
    changed += status == TR_ERR_CHANGED && strstr(error.message, "changed while it was read") != NULL;
  }
  __atomic_store_n(&state.stop, true, __ATOMIC_SEQ_CST);
  pthread_join(thread, NULL);
  cr_expect_gt(changed, 0);
  tr_store_destroy(store);
  free(data);
}

Test(file_store, keeps_a_relative_root_where_it_was) {
  const char *folder = ts_folder();
  cr_assert_eq(chdir(folder), 0);
  tr_store *store = open_at("below//");
  cr_assert_eq(chdir("/"), 0);
  cr_expect_eq(tr_store_put(store, "o", "1", 1, false, NULL), TR_OK);
  cr_expect(ts_exists(text("%s/below/o", folder)));
  tr_store_destroy(store);
}

Test(file_store, refuses_options_that_lack_a_root) {
  tr_store *store = NULL;
  tr_store_file_options options = {.struct_bytes = sizeof options};
  cr_expect_eq(tr_store_file_open(&options, &store, NULL), TR_ERR_INVALID);
  options.root = "";
  cr_expect_eq(tr_store_file_open(&options, &store, NULL), TR_ERR_INVALID);
  options.root = "/";
  options.struct_bytes = 8;
  cr_expect_eq(tr_store_file_open(&options, &store, NULL), TR_ERR_INVALID);
  cr_expect_null(store);
}

Test(file_store, says_denied_for_a_file_it_may_not_read) {
  if (getuid() == 0) cr_skip_test("root may read everything");
  const char *folder = ts_folder();
  ts_file_write(text("%s/o", folder), "x", 1);
  chmod(text("%s/o", folder), 0);
  tr_store *store = open_at(folder);
  char buffer[4];
  cr_expect_eq(tr_store_get(store, "o", 0, buffer, 1, NULL, NULL), TR_ERR_DENIED);
  tr_store_destroy(store);
}

Test(file_store, says_no_space_on_a_full_disk_and_leaves_nothing_half_written) {
  const char *folder = ts_folder();
  if (mount("tmpfs", folder, "tmpfs", 0, "size=256k") != 0) {
    cr_skip_test("a small disk cannot be mounted here: %s", strerror(errno));
  }
  tr_store *store = open_at(folder);
  char *data = malloc(1 << 20);
  memset(data, 'x', 1 << 20);
  tr_error error;
  cr_expect_eq(tr_store_put(store, "a/old", "whole", 5, false, &error), TR_OK, "%s", error.message);
  cr_expect_eq(tr_store_put(store, "a/old", data, 1 << 20, false, &error), TR_ERR_NO_SPACE, "%s", error.message);
  cr_expect_not_null(strstr(error.message, "/a/old at byte"), "%s", error.message);
  cr_expect_eq(tr_store_put(store, "b/new", data, 1 << 20, true, &error), TR_ERR_NO_SPACE, "%s", error.message);
  char buffer[8] = "";
  cr_expect_eq(tr_store_get(store, "a/old", 0, buffer, 8, NULL, NULL), TR_OK);
  cr_expect_str_eq(buffer, "whole");
  cr_expect_eq(count_entries(store), 1);
  cr_expect_eq(tr_store_put(store, "c/fits", data, 100 << 10, false, &error), TR_OK, "room came back: %s",
               error.message);
  tr_store_destroy(store);
  free(data);
  umount2(folder, MNT_DETACH);
}
