/* A save that copies while its memory is being used: what is saved is what was there when it began, whatever is written
 * behind a release, in whatever order, by however many threads; and only then is memory free. */
#include <pthread.h>
#include <stdatomic.h>

#include "model.h"
#include "support/fault_store.h"
#include "support/support.h"

enum { WRITERS = 3, ARRAYS = 3, BLOCK = 4096 };

/* Three arrays as an update has them: values and two moments, an element at the same place. */
typedef struct training {
  float *arrays[ARRAYS];
  uint64_t count;
  tr_ckpt_save *save;
  uint64_t seed;
  atomic_ullong next; /* of the runs of a step */
  uint64_t run;       /* elements a run */
  uint64_t step;
} training;

static float value_at(size_t array, uint64_t i, uint64_t step) {
  return (float)(tr_rng_u64(step, TR_RNG_USER, array, i) >> 40);
}

static void fill(training *t, uint64_t step) {
  for (size_t a = 0; a < ARRAYS; a++) {
    for (uint64_t i = 0; i < t->count; i++) t->arrays[a][i] = value_at(a, i, step);
  }
}

static void training_open(training *t, uint64_t seed, uint64_t count) {
  *t = (training){.count = count, .seed = seed};
  for (size_t a = 0; a < ARRAYS; a++) t->arrays[a] = malloc(count * sizeof(float));
  fill(t, 0);
}

static void training_close(training *t) {
  for (size_t a = 0; a < ARRAYS; a++) free(t->arrays[a]);
}

static const char *const names[ARRAYS] = {"w", "optimizer.m/w", "optimizer.v/w"};

/* Rank's share of each array, cut into pieces of odd sizes. */
static size_t cut_pieces(const training *t, int rank, int size, tr_piece *pieces) {
  size_t count = 0;
  for (size_t a = 0; a < ARRAYS; a++) {
    const uint64_t begin = tr_split_begin(t->count, (uint64_t)size, (uint64_t)rank);
    const uint64_t end = tr_split_end(t->count, (uint64_t)size, (uint64_t)rank);
    for (uint64_t at = begin; at < end;) {
      uint64_t length = 1 + tr_rng_below(t->seed, TR_RNG_USER, 7 + a, at, 300000);
      if (length > end - at) length = end - at;
      pieces[count] = (tr_piece){.name = names[a], .dtype = TR_F32, .ndim = 1, .shape = {(int64_t)t->count}};
      pieces[count].begin = at, pieces[count].count = length, pieces[count].data = t->arrays[a] + at;
      count++;
      at += length;
    }
  }
  return count;
}

/* One update: threads take runs of elements, release each array's and write it. */
static void *update(void *argument) {
  training *t = argument;
  for (;;) {
    const uint64_t begin = atomic_fetch_add(&t->next, t->run);
    if (begin >= t->count) return NULL;
    const uint64_t end = begin + t->run < t->count ? begin + t->run : t->count;
    for (size_t a = 0; a < ARRAYS; a++) {
      if (t->save != NULL) tr_ckpt_save_release(t->save, t->arrays[a] + begin, (end - begin) * sizeof(float));
      for (uint64_t i = begin; i < end; i++) t->arrays[a][i] = value_at(a, i, t->step);
    }
  }
}

static void run_step(training *t, uint64_t step) {
  pthread_t threads[WRITERS];
  t->step = step;
  atomic_store(&t->next, 0);
  for (int i = 0; i < WRITERS; i++) cr_assert_eq(pthread_create(&threads[i], NULL, update, t), 0);
  for (int i = 0; i < WRITERS; i++) pthread_join(threads[i], NULL);
}

static tr_status commit(tr_store *store, tr_ckpt_save *save, uint64_t step) {
  const tr_ckpt_save_options options = model_options(store, "r", step, 0, 1);
  const tr_ckpt_meta meta = model_meta(step, 1);
  const char *record = tr_ckpt_save_record(save, NULL);
  return tr_ckpt_commit(&options, &meta, &record, 1, NULL);
}

/* What is in the store is what the arrays were at that step. */
static bool holds(tr_store *store, const training *t, uint64_t step) {
  char folder[64];
  snprintf(folder, sizeof folder, "r/step-%llu", (unsigned long long)step);
  tr_ckpt *ckpt = NULL;
  if (tr_ckpt_open(NULL, store, folder, &ckpt, NULL) != TR_OK) return false;
  bool same = true;
  float *read = malloc(t->count * sizeof(float));
  for (size_t a = 0; a < ARRAYS && same; a++) {
    const tr_piece piece = {
        .name = names[a], .dtype = TR_F32, .ndim = 1, .shape = {(int64_t)t->count}, .count = t->count, .data = read};
    same = tr_ckpt_read(ckpt, &piece, 1, NULL, NULL) == TR_OK;
    for (uint64_t i = 0; same && i < t->count; i++) same = read[i] == value_at(a, i, step);
  }
  free(read);
  tr_ckpt_close(ckpt);
  return same;
}

Test(snapshot, saves_the_step_it_began_at_whatever_updates_do_meanwhile) {
  const uint64_t rounds = ts_long() ? 300 : 25;
  for (uint64_t seed = 1; seed <= rounds; seed++) {
    training t;
    ts_faults faults = {.delay_ns = tr_rng_below(seed, TR_RNG_USER, 1, 0, 300000)};
    tr_store *store = ts_fault_store(model_store(), true, &faults);
    tr_ckpt_saver *saver = NULL;
    training_open(&t, seed, 1 + tr_rng_below(seed, TR_RNG_USER, 2, 0, seed % 5 == 0 ? 1500000 : 150000));
    t.run = 1 + tr_rng_below(seed, TR_RNG_USER, 3, 0, 40000);
    cr_assert_eq(tr_ckpt_saver_create(NULL, seed % 2 == 0 ? t.count * 12 : 0, &saver, NULL), TR_OK);
    tr_piece *pieces = calloc(t.count, sizeof *pieces);
    for (uint64_t step = 0; step < 6; step++) {
      tr_error error;
      if (step % 2 == 0) {
        tr_ckpt_save_options options = model_options(store, "r", step, 0, 1);
        options.saver = saver;
        options.spread_ns = tr_rng_below(seed, TR_RNG_USER, 4, step, 2) * 2000000;
        cr_assert_eq(tr_ckpt_save_begin(&options, pieces, cut_pieces(&t, 0, 1, pieces), &t.save, &error), TR_OK, "%s",
                     error.message);
      }
      run_step(&t, step + 1);
      if (step % 2 == 1) {
        cr_assert_eq(tr_ckpt_save_wait(t.save, &error), TR_OK, "%s", error.message);
        cr_assert_eq(commit(store, t.save, step - 1), TR_OK);
        cr_expect(holds(store, &t, step - 1), "seed %d, step %d", (int)seed, (int)step - 1);
        tr_ckpt_save_destroy(t.save);
        t.save = NULL;
      }
    }
    free(pieces);
    tr_ckpt_saver_destroy(saver);
    training_close(&t);
    tr_store_destroy(store);
  }
}

Test(snapshot, is_free_as_a_whole_when_all_of_it_is_released) {
  training t;
  tr_store *store = model_store();
  tr_ckpt_saver *saver = NULL;
  training_open(&t, 3, 700001);
  cr_assert_eq(tr_ckpt_saver_create(NULL, 0, &saver, NULL), TR_OK);
  tr_piece *pieces = calloc(t.count, sizeof *pieces);
  tr_ckpt_save_options options = model_options(store, "r", 0, 0, 1);
  options.saver = saver;
  cr_assert_eq(tr_ckpt_save_begin(&options, pieces, cut_pieces(&t, 0, 1, pieces), &t.save, NULL), TR_OK);
  tr_ckpt_save_release(t.save, NULL, 0);
  fill(&t, 9);
  cr_assert_eq(tr_ckpt_save_wait(t.save, NULL), TR_OK);
  cr_assert_eq(commit(store, t.save, 0), TR_OK);
  cr_expect(holds(store, &t, 0));
  tr_ckpt_save_destroy(t.save);
  free(pieces);
  tr_ckpt_saver_destroy(saver);
  training_close(&t);
  tr_store_destroy(store);
}

Test(snapshot, without_a_saver_is_whole_when_begin_returns) {
  training t;
  tr_store *store = model_store();
  training_open(&t, 4, 700001);
  tr_piece *pieces = calloc(t.count, sizeof *pieces);
  const tr_ckpt_save_options options = model_options(store, "r", 0, 0, 1);
  cr_assert_eq(tr_ckpt_save_begin(&options, pieces, cut_pieces(&t, 0, 1, pieces), &t.save, NULL), TR_OK);
  fill(&t, 9);
  cr_assert_eq(tr_ckpt_save_wait(t.save, NULL), TR_OK);
  cr_assert_eq(commit(store, t.save, 0), TR_OK);
  cr_expect(holds(store, &t, 0));
  tr_ckpt_save_destroy(t.save);
  free(pieces);
  training_close(&t);
  tr_store_destroy(store);
}

Test(snapshot, costs_nothing_once_all_is_copied) {
  training t;
  tr_store *store = model_store();
  tr_ckpt_saver *saver = NULL;
  training_open(&t, 5, 100000);
  cr_assert_eq(tr_ckpt_saver_create(NULL, 0, &saver, NULL), TR_OK);
  tr_piece *pieces = calloc(t.count, sizeof *pieces);
  tr_ckpt_save_options options = model_options(store, "r", 0, 0, 1);
  options.saver = saver;
  cr_assert_eq(tr_ckpt_save_begin(&options, pieces, cut_pieces(&t, 0, 1, pieces), &t.save, NULL), TR_OK);
  tr_ckpt_save_release(t.save, NULL, 0);
  const uint64_t blocked_ns = tr_ckpt_save_blocked_ns(t.save);
  tr_ckpt_save_release(t.save, NULL, 0);
  tr_ckpt_save_release(t.save, t.arrays[0], 4);
  cr_expect_eq(tr_ckpt_save_blocked_ns(t.save), blocked_ns);
  cr_assert_eq(tr_ckpt_save_wait(t.save, NULL), TR_OK);
  tr_ckpt_save_destroy(t.save);
  free(pieces);
  tr_ckpt_saver_destroy(saver);
  training_close(&t);
  tr_store_destroy(store);
}

Test(snapshot, given_up_or_failed_frees_memory_too) {
  for (int round = 0; round < 12; round++) {
    training t;
    ts_faults faults = {.fail_put = round % 3 == 0 ? 1 : 0, .delay_ns = 1000000};
    tr_store *store = ts_fault_store(model_store(), true, &faults);
    tr_ckpt_saver *saver = NULL;
    training_open(&t, 6, 2500000);
    cr_assert_eq(tr_ckpt_saver_create(NULL, 0, &saver, NULL), TR_OK);
    tr_piece *pieces = calloc(t.count, sizeof *pieces);
    tr_ckpt_save_options options = model_options(store, "r", 0, 0, 1);
    options.saver = saver;
    options.spread_ns = 60000000000u;
    t.run = 50000;
    cr_assert_eq(tr_ckpt_save_begin(&options, pieces, cut_pieces(&t, 0, 1, pieces), &t.save, NULL), TR_OK);
    if (round % 2 == 0) run_step(&t, 1);
    if (round % 3 == 0) cr_expect_eq(tr_ckpt_save_wait(t.save, NULL), TR_ERR_IO);
    tr_ckpt_save_destroy(t.save);
    fill(&t, 2);
    free(pieces);
    tr_ckpt_saver_destroy(saver);
    training_close(&t);
    tr_store_destroy(store);
  }
}

Test(snapshot, paced_over_a_minute_is_written_at_once_when_somebody_waits) {
  training t;
  tr_store *store = model_store();
  tr_ckpt_saver *saver = NULL;
  training_open(&t, 8, 6000000); /* 72 MB: five parts */
  cr_assert_eq(tr_ckpt_saver_create(NULL, 0, &saver, NULL), TR_OK);
  tr_piece *pieces = calloc(t.count, sizeof *pieces);
  tr_ckpt_save_options options = model_options(store, "r", 0, 0, 1);
  options.saver = saver;
  options.spread_ns = 60000000000u;
  const uint64_t begun_ns = tr_clock_now_ns(NULL);
  cr_assert_eq(tr_ckpt_save_begin(&options, pieces, cut_pieces(&t, 0, 1, pieces), &t.save, NULL), TR_OK);
  tr_ckpt_save_release(t.save, NULL, 0);
  tr_clock_sleep_ns(NULL, 50000000);
  bool done = true;
  cr_expect_eq(tr_ckpt_save_poll(t.save, &done, NULL), TR_OK);
  cr_expect_not(done);
  cr_expect_eq(tr_ckpt_save_wait(t.save, NULL), TR_OK);
  cr_expect_lt(tr_clock_now_ns(NULL) - begun_ns, 30000000000u);
  cr_assert_eq(commit(store, t.save, 0), TR_OK);
  cr_expect(holds(store, &t, 0));
  tr_ckpt_save_destroy(t.save);
  free(pieces);
  tr_ckpt_saver_destroy(saver);
  training_close(&t);
  tr_store_destroy(store);
}

Test(snapshot, of_two_saves_at_a_time_needs_two_savers) {
  tr_store *store = model_store();
  tr_ckpt_saver *saver = NULL;
  cr_assert_eq(tr_ckpt_saver_create(NULL, 0, &saver, NULL), TR_OK);
  float value = 1;
  const tr_piece piece = {.name = "w", .dtype = TR_F32, .count = 1, .data = &value};
  tr_ckpt_save *first = NULL, *second = NULL;
  tr_ckpt_save_options options = model_options(store, "r", 0, 0, 1);
  options.saver = saver;
  cr_assert_eq(tr_ckpt_save_begin(&options, &piece, 1, &first, NULL), TR_OK);
  options.step = 1;
  cr_expect_eq(tr_ckpt_save_begin(&options, &piece, 1, &second, NULL), TR_ERR_INVALID);
  tr_ckpt_save_destroy(first);
  cr_assert_eq(tr_ckpt_save_begin(&options, &piece, 1, &second, NULL), TR_OK);
  tr_ckpt_save_destroy(second);
  tr_ckpt_saver_destroy(saver);
  tr_store_destroy(store);
}

Test(snapshot, has_the_checksum_of_the_parameters_in_its_records) {
  for (int size = 1; size <= 4; size++) {
    training t;
    tr_store *store = model_store();
    training_open(&t, 10 + (uint64_t)size, 123457);
    tr_ckpt_save *saves[4] = {0};
    const char *records[4];
    tr_piece *pieces = calloc(t.count, sizeof *pieces);
    for (int rank = 0; rank < size; rank++) {
      const tr_ckpt_save_options options = model_options(store, "r", 1, rank, size);
      cr_assert_eq(tr_ckpt_save_begin(&options, pieces, cut_pieces(&t, rank, size, pieces), &saves[rank], NULL), TR_OK);
      cr_assert_eq(tr_ckpt_save_wait(saves[rank], NULL), TR_OK);
      records[rank] = tr_ckpt_save_record(saves[rank], NULL);
    }
    uint32_t all = 0, values = 0;
    cr_assert_eq(tr_ckpt_records_crc32c(NULL, records, (size_t)size, NULL, &all, NULL), TR_OK);
    cr_assert_eq(tr_ckpt_records_crc32c(NULL, records, (size_t)size, "optimizer.", &values, NULL), TR_OK);
    uint32_t expected = 0;
    /* "optimizer.m/w" < "optimizer.v/w" < "w" */
    for (size_t a = 1; a < ARRAYS; a++) expected = tr_crc32c(expected, t.arrays[a], t.count * sizeof(float));
    expected = tr_crc32c(expected, t.arrays[0], t.count * sizeof(float));
    cr_expect_eq(all, expected);
    cr_expect_eq(values, tr_crc32c(0, t.arrays[0], t.count * sizeof(float)));
    for (int rank = 0; rank < size; rank++) tr_ckpt_save_destroy(saves[rank]);
    free(pieces);
    training_close(&t);
    tr_store_destroy(store);
  }
}
