/* Many checkpoints: listing, keeping, removing, copying, debris, epochs. */
#include <math.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include "model.h"
#include "support/fault_store.h"
#include "support/support.h"

static void expect_plan(const char *kept, tr_retain_options options, const uint64_t *steps, const double *metrics,
                        size_t count) {
  tr_ckpt_entry entries[16];
  bool remove[16];
  char found[256] = "";
  options.struct_bytes = sizeof options;
  for (size_t i = 0; i < count; i++) entries[i] = (tr_ckpt_entry){.step = steps[i], .metric = metrics[i]};
  tr_retain_plan(&options, entries, count, remove);
  for (size_t i = 0; i < count; i++) {
    if (!remove[i]) snprintf(found + strlen(found), sizeof found - strlen(found), "%d ", (int)steps[i]);
  }
  cr_expect_str_eq(found, kept);
}

Test(retain_plan, keeps_the_last_the_multiples_and_the_best) {
  const uint64_t steps[] = {10, 20, 30, 40, 50, 60};
  const double metrics[] = {NAN, 0.5, 0.9, 0.1, 0.9, NAN};
  expect_plan("60 ", (tr_retain_options){.last = 1}, steps, metrics, 6);
  expect_plan("60 ", (tr_retain_options){.last = 0}, steps, metrics, 6);
  expect_plan("50 60 ", (tr_retain_options){.last = 2}, steps, metrics, 6);
  expect_plan("10 20 30 40 50 60 ", (tr_retain_options){.last = 99}, steps, metrics, 6);
  expect_plan("30 60 ", (tr_retain_options){.last = 1, .every = 30}, steps, metrics, 6);
  expect_plan("30 60 ", (tr_retain_options){.last = 1, .best = TR_BEST_MAX}, steps, metrics, 6);
  expect_plan("40 60 ", (tr_retain_options){.last = 1, .best = TR_BEST_MIN}, steps, metrics, 6);
  expect_plan("20 30 40 60 ", (tr_retain_options){.last = 1, .every = 20, .best = TR_BEST_MAX}, steps, metrics, 6);
  expect_plan("60 ", (tr_retain_options){.last = 1, .best = TR_BEST_MAX}, steps + 5, metrics + 5, 1);
  expect_plan("", (tr_retain_options){.last = 1, .best = TR_BEST_MAX}, steps, metrics, 0);
}

static void save_with_metric(tr_store *store, uint64_t step, double metric) {
  tr_ckpt_meta meta = model_meta(step, 2);
  meta.metric = metric;
  tr_error error;
  cr_assert_eq(model_save_meta(store, "r", 2, &meta, NULL, &error), TR_OK, "%s", error.message);
}

static void expect_steps(tr_store *store, const char *expected) {
  tr_ckpt_entry *entries = NULL;
  size_t count = 0;
  char found[256] = "";
  tr_error error;
  cr_assert_eq(tr_ckpt_list(NULL, store, "r", &entries, &count, &error), TR_OK, "%s", error.message);
  for (size_t i = 0; i < count; i++) {
    snprintf(found + strlen(found), sizeof found - strlen(found), "%d ", (int)entries[i].step);
  }
  cr_expect_str_eq(found, expected);
  tr_free(NULL, entries);
}

static tr_status count_key(void *self, const tr_list_entry *entry, tr_error *error) {
  (void)entry, (void)error;
  ++*(int *)self;
  return TR_OK;
}

static int count_keys(tr_store *store, const char *prefix) {
  int count = 0;
  cr_assert_eq(tr_store_walk(store, prefix, count_key, &count, NULL), TR_OK);
  return count;
}

Test(retain, lists_by_number_and_says_what_each_is) {
  tr_store *store = model_store();
  const uint64_t steps[] = {100, 9, 20, 0};
  for (size_t i = 0; i < 4; i++) save_with_metric(store, steps[i], i == 2 ? NAN : (double)i);
  cr_assert_eq(tr_store_put(store, "r/step-07/manifest.json", "x", 1, false, NULL), TR_OK, "is no step");
  cr_assert_eq(tr_store_put(store, "r/stepped/manifest.json", "x", 1, false, NULL), TR_OK);
  cr_assert_eq(tr_store_put(store, "r/step-5", "x", 1, false, NULL), TR_OK);
  cr_assert_eq(tr_store_put(store, "rr/step-5/manifest.json", "x", 1, false, NULL), TR_OK);
  expect_steps(store, "0 9 20 100 ");
  tr_ckpt_entry *entries = NULL;
  size_t count = 0;
  cr_assert_eq(tr_ckpt_list(NULL, store, "r/", &entries, &count, NULL), TR_OK);
  cr_assert_eq(count, 4);
  cr_expect_eq(entries[0].metric, 3);
  cr_expect(isnan(entries[2].metric));
  cr_expect_gt(entries[1].bytes, 1000);
  cr_expect_gt(entries[1].modified_ns, 0);
  tr_free(NULL, entries);
  tr_store_destroy(store);
}

Test(retain, lists_a_checkpoint_whose_manifest_is_corrupt) {
  tr_store *store = model_store();
  save_with_metric(store, 10, 1);
  cr_assert_eq(tr_store_put(store, "r/step-20/manifest.json", "{}", 2, false, NULL), TR_OK);
  expect_steps(store, "10 20 ");
  tr_store_destroy(store);
}

Test(retain, keeps_what_is_planned_and_clears_debris) {
  tr_store *store = model_store();
  for (uint64_t step = 10; step <= 50; step += 10) save_with_metric(store, step, step == 20 ? 9 : 1);
  const char *const debris[] = {"r/step-60/shard-00000-of-00002.safetensors", "r/step-5/a/b", "r/step-70/x"};
  for (int i = 0; i < 3; i++) cr_assert_eq(tr_store_put(store, debris[i], "x", 1, false, NULL), TR_OK);
  cr_assert_eq(tr_store_put(store, "r/epochs/1", "{}", 2, false, NULL), TR_OK);
  cr_assert_eq(tr_store_put(store, "other/step-1/x", "x", 1, false, NULL), TR_OK);
  const tr_retain_options options = {.struct_bytes = sizeof options, .last = 2, .best = TR_BEST_MAX};
  cr_expect_eq(tr_ckpt_retain(NULL, store, "r", &options, 70, NULL), TR_OK);
  expect_steps(store, "20 40 50 ");
  cr_expect_eq(count_keys(store, "r/step-10/"), 0);
  cr_expect_eq(count_keys(store, "r/step-5/"), 0);
  cr_expect_eq(count_keys(store, "r/step-60/"), 0);
  cr_expect_eq(count_keys(store, "r/step-70/"), 1, "it is being saved");
  cr_expect_eq(count_keys(store, "r/epochs/"), 1);
  cr_expect_eq(count_keys(store, "other/"), 1);
  tr_store_destroy(store);
}

Test(retain, clears_shards_that_another_number_of_ranks_had_begun) {
  tr_store *store = model_store();
  cr_assert_eq(tr_store_put(store, "r/step-10/shard-00000-of-00003.safetensors", "x", 1, false, NULL), TR_OK);
  save_with_metric(store, 10, 1);
  const tr_retain_options options = {.struct_bytes = sizeof options, .last = 1};
  cr_expect_eq(tr_ckpt_retain(NULL, store, "r", &options, 10, NULL), TR_OK);
  cr_expect_eq(count_keys(store, "r/step-10/"), 4, "it is being saved");
  cr_expect_eq(tr_ckpt_retain(NULL, store, "r", &options, UINT64_MAX, NULL), TR_OK);
  cr_expect_eq(count_keys(store, "r/step-10/"), 3);
  cr_expect_eq(model_load(store, "r/step-10", 10, 0, 1, NULL, NULL), TR_OK);
  tr_store_destroy(store);
}

Test(retain, removes_the_manifest_first) {
  tr_store *memory = model_store();
  save_with_metric(memory, 10, 1);
  ts_faults faults = {.fail_delete = 2};
  tr_store *store = ts_fault_store(memory, true, &faults);
  cr_expect_eq(tr_ckpt_remove(NULL, store, "r", 10, NULL), TR_ERR_IO);
  expect_steps(store, "");
  cr_expect_gt(count_keys(store, "r/"), 0);
  const tr_retain_options options = {.struct_bytes = sizeof options, .last = 1};
  cr_expect_eq(tr_ckpt_retain(NULL, store, "r", &options, UINT64_MAX, NULL), TR_OK);
  cr_expect_eq(count_keys(store, "r/"), 0);
  tr_store_destroy(store);
}

Test(copy, verifies_what_passes_and_ends_with_the_manifest) {
  tr_store *from = model_store(), *to = model_store();
  save_with_metric(from, 10, 1);
  tr_error error;
  cr_expect_eq(tr_ckpt_copy(NULL, from, "r/step-10", to, "r/step-10", &error), TR_OK, "%s", error.message);
  cr_expect_eq(model_load(to, "r/step-10", 10, 0, 1, NULL, NULL), TR_OK);
  cr_expect_eq(tr_ckpt_copy(NULL, from, "r/step-10", to, "r/step-10", NULL), TR_OK, "the same again");
  cr_expect_eq(tr_ckpt_copy(NULL, from, "r/step-10", to, "r/step-11", NULL), TR_ERR_INVALID);
  cr_expect_eq(tr_ckpt_copy(NULL, from, "r/step-10", to, "saved/final", NULL), TR_OK);
  cr_expect_eq(model_load(to, "saved/final", 10, 0, 1, NULL, NULL), TR_OK);
  tr_store_destroy(from);
  tr_store_destroy(to);
}

Test(copy, does_not_overwrite_another_checkpoint) {
  tr_store *from = model_store(), *to = model_store();
  save_with_metric(from, 10, 1);
  save_with_metric(to, 10, 2);
  cr_expect_eq(tr_ckpt_copy(NULL, from, "r/step-10", to, "r/step-10", NULL), TR_ERR_EXISTS);
  cr_expect_eq(model_load(to, "r/step-10", 10, 0, 1, NULL, NULL), TR_OK);
  tr_store_destroy(from);
  tr_store_destroy(to);
}

Test(copy, of_a_corrupt_checkpoint_makes_none) {
  tr_store *from = model_store(), *to = model_store();
  save_with_metric(from, 10, 1);
  const char *key = "r/step-10/shard-00001-of-00002.safetensors";
  void *shard = NULL;
  size_t bytes = 0;
  cr_assert_eq(tr_store_get_all(from, NULL, key, 1 << 24, &shard, &bytes, NULL), TR_OK);
  ((uint8_t *)shard)[bytes / 2] ^= 4;
  cr_assert_eq(tr_store_put(from, key, shard, bytes, false, NULL), TR_OK);
  tr_free(NULL, shard);
  tr_error error;
  cr_expect_eq(tr_ckpt_copy(NULL, from, "r/step-10", to, "r/step-10", &error), TR_ERR_CORRUPT);
  cr_expect_not_null(strstr(error.message, key), "%s", error.message);
  tr_ckpt *ckpt = NULL;
  cr_expect_eq(tr_ckpt_open(NULL, to, "r/step-10", &ckpt, NULL), TR_ERR_NOT_FOUND);
  tr_store_destroy(from);
  tr_store_destroy(to);
}

Test(copy, of_a_large_checkpoint_goes_in_parts) {
  tr_store *from = model_store(), *memory = model_store();
  ts_faults faults = {0};
  tr_store *to = ts_fault_store(memory, true, &faults);
  const size_t count = 20 << 20;
  uint8_t *data = malloc(count);
  for (size_t i = 0; i < count; i++) data[i] = (uint8_t)(i * 131 >> 7);
  const tr_piece piece = {.name = "b", .dtype = TR_U8, .ndim = 1, .shape = {20 << 20}, .count = count, .data = data};
  const tr_ckpt_save_options options = model_options(from, "r", 1, 0, 1);
  tr_ckpt_save *save = NULL;
  cr_assert_eq(tr_ckpt_save_begin(&options, &piece, 1, &save, NULL), TR_OK);
  cr_assert_eq(tr_ckpt_save_wait(save, NULL), TR_OK);
  const char *record = tr_ckpt_save_record(save, NULL);
  const tr_ckpt_meta meta = model_meta(1, 1);
  cr_assert_eq(tr_ckpt_commit(&options, &meta, &record, 1, NULL), TR_OK);
  tr_ckpt_save_destroy(save);
  cr_expect_eq(tr_ckpt_copy(NULL, from, "r/step-1", to, "c/step-1", NULL), TR_OK);
  cr_expect_eq(faults.commits, 1);
  tr_ckpt *ckpt = NULL;
  cr_assert_eq(tr_ckpt_open(NULL, to, "c/step-1", &ckpt, NULL), TR_OK);
  cr_expect_eq(tr_ckpt_verify(ckpt, NULL), TR_OK);
  tr_ckpt_close(ckpt);
  free(data);
  tr_store_destroy(from);
  tr_store_destroy(to);
}

Test(epochs, are_claimed_once_and_the_highest_is_found) {
  tr_store *store = model_store();
  uint64_t epoch = 99;
  cr_expect_eq(tr_ckpt_last_epoch(store, "r", &epoch, NULL), TR_OK);
  cr_expect_eq(epoch, 0);
  for (uint64_t i = 1; i <= 12; i++) cr_expect_eq(tr_ckpt_claim_epoch(store, "r", i, "{\"pid\":1}", NULL), TR_OK);
  cr_expect_eq(tr_ckpt_claim_epoch(store, "r", 12, "{\"pid\":2}", NULL), TR_ERR_EXISTS);
  cr_expect_eq(tr_ckpt_last_epoch(store, "r", &epoch, NULL), TR_OK);
  cr_expect_eq(epoch, 12);
  tr_store_destroy(store);
}

/* Until it is killed: saves step after step into files, and keeps two. */
static void save_for_ever(const char *folder) {
  const tr_store_file_options options = {.struct_bytes = sizeof options, .root = folder};
  tr_store *store = NULL;
  if (tr_store_file_open(&options, &store, NULL) != TR_OK) _exit(1);
  tr_ckpt_entry *entries = NULL;
  size_t count = 0;
  if (tr_ckpt_list(NULL, store, "r", &entries, &count, NULL) != TR_OK) _exit(1);
  const tr_retain_options keep = {.struct_bytes = sizeof keep, .last = 2};
  for (uint64_t step = count > 0 ? entries[count - 1].step + 1 : 1;; step++) {
    const tr_ckpt_meta meta = model_meta(step, 2);
    if (model_save_meta(store, "r", 2, &meta, NULL, NULL) != TR_OK) _exit(1);
    if (tr_ckpt_retain(NULL, store, "r", &keep, UINT64_MAX, NULL) != TR_OK) _exit(1);
  }
}

static tr_store *open_files(const char *folder) {
  const tr_store_file_options options = {.struct_bytes = sizeof options, .root = folder};
  tr_store *store = NULL;
  cr_assert_eq(tr_store_file_open(&options, &store, NULL), TR_OK);
  return store;
}

/* Every checkpoint that is listed loads; the newest step is returned. */
static uint64_t check_all(tr_store *store) {
  tr_ckpt_entry *entries = NULL;
  size_t count = 0;
  tr_error error;
  cr_assert_eq(tr_ckpt_list(NULL, store, "r", &entries, &count, &error), TR_OK, "%s", error.message);
  for (size_t i = 0; i < count; i++) {
    char key[64];
    snprintf(key, sizeof key, "r/step-%llu", (unsigned long long)entries[i].step);
    cr_assert_eq(model_load(store, key, entries[i].step, 0, 1, NULL, &error), TR_OK, "%s", error.message);
  }
  const uint64_t newest = count > 0 ? entries[count - 1].step : 0;
  tr_free(NULL, entries);
  return newest;
}

Test(kill, leaves_only_whole_checkpoints, .timeout = 240) {
  const char *folder = ts_folder();
  uint64_t newest = 0, window_us = 60000;
  for (int round = 0; round < (ts_long() ? 200 : 20); round++) {
    const pid_t child = fork();
    if (child == 0) save_for_ever(folder);
    usleep((unsigned)(5000 + tr_rng_below(3, TR_RNG_USER, 0, (uint64_t)round, window_us)));
    int exit_status = 0;
    kill(child, SIGKILL);
    waitpid(child, &exit_status, 0);
    cr_assert(WIFSIGNALED(exit_status), "the child failed by itself");
    /* Opened anew each time: a process that forks should have one thread. */
    tr_store *store = open_files(folder);
    const uint64_t found = check_all(store);
    tr_store_destroy(store);
    cr_assert_geq(found, newest, "a commit went lost");
    newest = found;
    /* A slow machine gets longer lives to kill. */
    if (newest == 0 && window_us < 2000000) window_us *= 2;
  }
  cr_expect_gt(newest, 0);
  tr_store *store = open_files(folder);
  const tr_retain_options keep = {.struct_bytes = sizeof keep, .last = 1};
  cr_expect_eq(tr_ckpt_retain(NULL, store, "r", &keep, UINT64_MAX, NULL), TR_OK);
  cr_expect_eq(count_keys(store, ""), 3, "two shards and a manifest");
  tr_store_destroy(store);
}
