/* URLs: brace lists, joining, and from a URL to its store. */
#include <criterion/criterion.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
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

static tr_arena *arena(void) {
  tr_arena *made = NULL;
  cr_assert_eq(tr_arena_create(NULL, 4096, &made, NULL), TR_OK);
  return made;
}

Test(url_expand, makes_the_list_a_shell_would_make) {
  const struct {
    const char *url, *first, *last;
    size_t count;
  } cases[] = {
      {"plain/path", "plain/path", "plain/path", 1},
      {"a/{000..015}.tar", "a/000.tar", "a/015.tar", 16},
      {"{0..9}", "0", "9", 10},
      {"{8..11}", "8", "11", 4},
      {"{08..11}", "08", "11", 4},
      {"{1..010}", "001", "010", 10},
      {"{3..1}", "3", "1", 3},
      {"{5..5}x", "5x", "5x", 1},
      {"x{a,b}", "xa", "xb", 2},
      {"x{a,,b}y", "xay", "xby", 3},
      {"{a,b}/{00..02}/{x,y}", "a/00/x", "b/02/y", 12},
      {"s3://bucket/t-{000000..000146}.tar", "s3://bucket/t-000000.tar", "s3://bucket/t-000146.tar", 147},
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    tr_arena *memory = arena();
    const char *const *urls = NULL;
    size_t count = 0;
    tr_error error;
    cr_assert_eq(tr_url_expand(memory, cases[i].url, &urls, &count, &error), TR_OK, "%s", error.message);
    cr_assert_eq(count, cases[i].count, "%s", cases[i].url);
    cr_expect_str_eq(urls[0], cases[i].first);
    cr_expect_str_eq(urls[count - 1], cases[i].last);
    tr_arena_destroy(memory);
  }
}

Test(url_expand, moves_the_last_list_fastest) {
  tr_arena *memory = arena();
  const char *const *urls = NULL;
  size_t count = 0;
  cr_assert_eq(tr_url_expand(memory, "{a,b}{1..2}", &urls, &count, NULL), TR_OK);
  cr_assert_eq(count, 4);
  cr_expect_str_eq(urls[0], "a1");
  cr_expect_str_eq(urls[1], "a2");
  cr_expect_str_eq(urls[2], "b1");
  cr_expect_str_eq(urls[3], "b2");
  tr_arena_destroy(memory);
}

Test(url_expand, refuses_what_it_cannot_mean) {
  const char *const bad[] = {"",
                             "a{",
                             "a}",
                             "a{b",
                             "{a{b,c}}",
                             "{abc}",
                             "{}",
                             "{1..}",
                             "{..3}",
                             "{a..c}",
                             "{1..2..3}",
                             "{-1..3}",
                             "{0..1000000}",
                             "{0..999}{0..999}{0..1}",
                             "{0..99999999999999999999}"};
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
    tr_arena *memory = arena();
    const char *const *urls = NULL;
    size_t count = 0;
    tr_error error = {.status = TR_OK};
    cr_expect_eq(tr_url_expand(memory, bad[i], &urls, &count, &error), TR_ERR_CONFIG, "'%s'", bad[i]);
    cr_expect_neq(error.message[0], '\0');
    tr_arena_destroy(memory);
  }
}

Test(url_expand, goes_up_to_a_million) {
  tr_arena *memory = arena();
  const char *const *urls = NULL;
  size_t count = 0;
  cr_assert_eq(tr_url_expand(memory, "{000..999}{000..999}", &urls, &count, NULL), TR_OK);
  cr_expect_eq(count, 1000000);
  cr_expect_str_eq(urls[999999], "999999");
  cr_expect_str_eq(urls[123456], "123456");
  tr_arena_destroy(memory);
}

Test(url_join, puts_one_slash_between) {
  const struct {
    const char *base, *path, *joined;
  } cases[] = {{"a", "b", "a/b"},
               {"a/", "b", "a/b"},
               {"a//", "/b", "a/b"},
               {"/", "b", "/b"},
               {"", "b", "b"},
               {"a", "", "a"},
               {"memory://x", "k", "memory://x/k"},
               {"memory://", "x/k", "memory://x/k"},
               {"file:///tmp/", "k", "file:///tmp/k"},
               {"file:///", "k", "file:///k"}};
  tr_arena *memory = arena();
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    cr_expect_str_eq(tr_url_join(memory, cases[i].base, cases[i].path), cases[i].joined);
  }
  tr_arena_destroy(memory);
}

static tr_stores *stores(void) {
  const tr_stores_options options = {.struct_bytes = sizeof options};
  tr_stores *made = NULL;
  cr_assert_eq(tr_stores_create(&options, &made, NULL), TR_OK);
  return made;
}

Test(stores, give_every_local_path_one_key) {
  tr_stores *set = stores();
  const char *folder = ts_folder();
  cr_assert_eq(chdir(folder), 0);
  char here[4096];
  cr_assert_not_null(getcwd(here, sizeof here));
  const char *const spellings[] = {"data/x",
                                   "./data/x",
                                   "data//x/",
                                   "data/y/../x",
                                   "other/../data/./x",
                                   text("%s/data/x", here),
                                   text("%s/../%s/data/x", here, strrchr(here, '/') + 1),
                                   text("file://%s/data/x", here),
                                   text("file://localhost%s/data/x", here)};
  tr_store *first = NULL;
  for (size_t i = 0; i < sizeof spellings / sizeof *spellings; i++) {
    tr_store *store = NULL;
    char key[TR_KEY_BYTES];
    tr_error error;
    cr_assert_eq(tr_stores_resolve(set, spellings[i], &store, key, &error), TR_OK, "%s", error.message);
    cr_expect_str_eq(key, text("%s/data/x", here) + 1);
    if (first == NULL) first = store;
    cr_expect_eq(store, first);
  }
  tr_stores_destroy(set);
}

Test(stores, write_and_read_by_url) {
  tr_stores *set = stores();
  const char *path = text("%s/sub/o", ts_folder());
  tr_store *store = NULL;
  char key[TR_KEY_BYTES];
  cr_assert_eq(tr_stores_resolve(set, path, &store, key, NULL), TR_OK);
  cr_expect_eq(tr_store_put(store, key, "hello", 5, false, NULL), TR_OK);
  expect_file(path, "hello");
  tr_stores_destroy(set);
}

Test(stores, keep_one_memory_store_a_name) {
  tr_stores *set = stores();
  tr_store *a = NULL, *b = NULL, *c = NULL;
  char key[TR_KEY_BYTES];
  cr_assert_eq(tr_stores_resolve(set, "memory://one/x/y", &a, key, NULL), TR_OK);
  cr_expect_str_eq(key, "x/y");
  cr_assert_eq(tr_stores_resolve(set, "memory://one/", &b, key, NULL), TR_OK);
  cr_expect_str_eq(key, "");
  cr_assert_eq(tr_stores_resolve(set, "memory://two", &c, key, NULL), TR_OK);
  cr_expect_eq(a, b);
  cr_expect_neq(a, c);
  tr_stores_destroy(set);
}

Test(stores, say_what_is_unknown) {
  tr_stores *set = stores();
  tr_store *store = NULL;
  char key[TR_KEY_BYTES];
  tr_error error;
  cr_expect_eq(tr_stores_resolve(set, "ftp://host/key", &store, key, &error), TR_ERR_CONFIG);
  cr_expect_not_null(strstr(error.message, "ftp://"), "%s", error.message);
  cr_expect_eq(tr_stores_resolve(set, "", &store, key, NULL), TR_ERR_CONFIG);
  cr_expect_eq(tr_stores_resolve(set, "memory:///x", &store, key, NULL), TR_ERR_CONFIG);
  cr_expect_eq(tr_stores_resolve(set, "file://host/x", &store, key, NULL), TR_ERR_CONFIG);
  cr_expect_eq(tr_stores_resolve(set, "memory://m/a/../b", &store, key, NULL), TR_ERR_INVALID);
  cr_expect_null(store);
  tr_stores_destroy(set);
}

static tr_status open_own(void *self, const char *url, tr_store **store, char key[TR_KEY_BYTES], tr_error *error) {
  tr_store **kept = self;
  if (*kept == NULL) {
    const tr_store_memory_options options = {.struct_bytes = sizeof options};
    TR_TRY(tr_store_memory_open(&options, kept, error));
  }
  *store = *kept;
  strcpy(key, url + strlen("own://"));
  return TR_OK;
}

Test(stores, know_schemes_of_ones_own) {
  tr_stores *set = stores();
  tr_store *kept = NULL, *store = NULL;
  char key[TR_KEY_BYTES];
  cr_assert_eq(tr_stores_add_scheme(set, "own", open_own, &kept, NULL), TR_OK);
  for (int i = 0; i < 3; i++) {
    cr_assert_eq(tr_stores_resolve(set, "own://a/b", &store, key, NULL), TR_OK);
    cr_expect_str_eq(key, "a/b");
    cr_expect_eq(store, kept);
  }
  cr_expect_eq(tr_stores_add_scheme(set, "a:b", open_own, &kept, NULL), TR_ERR_INVALID);
  tr_stores_destroy(set);
}

Test(stores, survive_each_allocation_failing_in_turn) {
  bool finished = false;
  for (uint64_t fail_at = 1; !finished && fail_at < 100; fail_at++) {
    tr_counting_allocator counting;
    tr_counting_allocator_init(&counting);
    counting.fail_at = fail_at;
    const tr_stores_options options = {.struct_bytes = sizeof options, .allocator = &counting.allocator};
    tr_stores *set = NULL;
    tr_store *store = NULL;
    char key[TR_KEY_BYTES];
    tr_error error = {.status = TR_OK};
    tr_store *kept = NULL;
    tr_status status = tr_stores_create(&options, &set, &error);
    if (status == TR_OK) status = tr_stores_add_scheme(set, "own", open_own, &kept, &error);
    if (status == TR_OK) status = tr_stores_resolve(set, "/tmp/x", &store, key, &error);
    if (status == TR_OK) status = tr_stores_resolve(set, "memory://x/y", &store, key, &error);
    if (status == TR_OK) status = tr_stores_resolve(set, "own://y", &store, key, &error);
    tr_stores_destroy(set);
    cr_expect_eq(counting.live_blocks, 0);
    finished = counting.allocations < fail_at;
    cr_expect_eq(status, finished ? TR_OK : TR_ERR_NO_MEMORY, "%s", error.message);
  }
  cr_expect(finished);
}
