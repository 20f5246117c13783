/* Reading by several ranks together: threads that broadcast through shared memory stand for the ranks. */
#include <pthread.h>

#include "model.h"
#include "support/fault_store.h"

enum { RANKS_MAX = 8 };

/* A broadcast among threads: the root shows its buffer, all copy, all meet again. */
typedef struct meeting {
  pthread_barrier_t barrier;
  const void *shown;
  uint64_t messages; /* by the root of each */
} meeting;

typedef struct member {
  meeting *meeting;
  tr_store *store;
  int rank, size;
  int odd; /* what this rank does wrong; 0: nothing */
  uint64_t fail_allocation;
  tr_status status;
  tr_error error;
  bool right;
} member;

static tr_status broadcast(void *self, void *buffer, size_t bytes, int32_t root, tr_error *error) {
  (void)error;
  member *member = self;
  if (member->rank == root) member->meeting->shown = buffer;
  pthread_barrier_wait(&member->meeting->barrier);
  if (member->rank != root) memcpy(buffer, member->meeting->shown, bytes);
  pthread_barrier_wait(&member->meeting->barrier);
  return TR_OK;
}

static void *read_as_rank(void *argument) {
  member *member = argument;
  const tr_ckpt_exchange exchange = {.struct_bytes = sizeof exchange,
                                     .rank = member->rank,
                                     .size = member->size,
                                     .broadcast = broadcast,
                                     .self = member};
  tr_counting_allocator counting;
  tr_counting_allocator_init(&counting);
  tr_ckpt *ckpt = NULL;
  member->status = tr_ckpt_open_together(&counting.allocator, member->store, "r/step-7", &exchange, &ckpt,
                                         &member->error);
  if (member->status != TR_OK) return NULL;
  if (member->fail_allocation != 0) counting.fail_at = counting.allocations + member->fail_allocation;
  tr_piece pieces[MODEL_TENSORS];
  uint8_t *data[MODEL_TENSORS];
  model_pieces(member->rank, member->size, 7, false, pieces, data);
  if (member->odd == 1) pieces[3].name = "nothing.of.that.name";
  if (member->odd == 2) pieces[2].shape[0]++;
  size_t count = MODEL_TENSORS;
  if (member->odd == 3) count = 0;
  member->status = tr_ckpt_read(ckpt, pieces, count, &exchange, &member->error);
  if (member->odd == 3) memset(pieces, 0, sizeof pieces);
  member->right = member->status == TR_OK && (member->odd == 3 || model_check(pieces, data, 7));
  model_free(data);
  tr_ckpt_close(ckpt);
  return NULL;
}

static void read_together(tr_store *store, int size, member members[RANKS_MAX]) {
  meeting meeting = {0};
  pthread_t threads[RANKS_MAX];
  pthread_barrier_init(&meeting.barrier, NULL, (unsigned)size);
  for (int rank = 0; rank < size; rank++) {
    members[rank].meeting = &meeting;
    members[rank].store = store;
    members[rank].rank = rank;
    members[rank].size = size;
    cr_assert_eq(pthread_create(&threads[rank], NULL, read_as_rank, &members[rank]), 0);
  }
  for (int rank = 0; rank < size; rank++) pthread_join(threads[rank], NULL);
  pthread_barrier_destroy(&meeting.barrier);
}

Test(read, reads_each_byte_once_for_the_whole_job, .timeout = 60) {
  for (int saved = 1; saved <= 5; saved += 2) {
    for (int size = 1; size <= RANKS_MAX; size++) {
      ts_faults faults = {0};
      tr_store *memory = model_store();
      model_save(memory, "r", 7, saved);
      tr_store *store = ts_fault_store(memory, true, &faults);
      member members[RANKS_MAX] = {0};
      read_together(store, size, members);
      size_t data_bytes = 0, manifest_bytes = 0;
      for (size_t t = 0; t < MODEL_TENSORS; t++) data_bytes += model_bytes(&model_tensors[t]);
      tr_object_info info;
      cr_assert_eq(tr_store_head(memory, "r/step-7/manifest.json", &info, NULL), TR_OK);
      manifest_bytes = (size_t)info.bytes;
      for (int rank = 0; rank < size; rank++) cr_expect(members[rank].right, "%s", members[rank].error.message);
      cr_expect_eq(faults.bytes_read, data_bytes + manifest_bytes, "%d saved, %d read", saved, size);
      tr_store_destroy(store);
    }
  }
}

Test(read, fails_on_all_ranks_when_one_wants_what_is_not_there, .timeout = 60) {
  const struct {
    int odd;
    const char *words;
  } cases[] = {{1, "nothing.of.that.name"}, {2, "saved as f32 [37, 101] and is wanted as f32 [38, 101]"}};
  for (size_t i = 0; i < 2; i++) {
    tr_store *store = model_store();
    model_save(store, "r", 7, 2);
    member members[RANKS_MAX] = {0};
    members[1].odd = cases[i].odd;
    read_together(store, 3, members);
    for (int rank = 0; rank < 3; rank++) {
      cr_expect_eq(members[rank].status, TR_ERR_MISMATCH);
      cr_expect_not_null(strstr(members[rank].error.message, cases[i].words), "%s", members[rank].error.message);
    }
    tr_store_destroy(store);
  }
}

Test(read, lets_a_rank_want_nothing, .timeout = 60) {
  tr_store *store = model_store();
  model_save(store, "r", 7, 2);
  member members[RANKS_MAX] = {0};
  members[0].odd = 3;
  read_together(store, 3, members);
  for (int rank = 0; rank < 3; rank++) cr_expect(members[rank].right, "%s", members[rank].error.message);
  tr_store_destroy(store);
}

Test(read, fails_on_all_ranks_at_a_corrupt_piece_and_names_it, .timeout = 60) {
  tr_store *store = model_store();
  model_save(store, "r", 7, 2);
  const char *key = "r/step-7/shard-00001-of-00002.safetensors";
  void *shard = NULL;
  size_t bytes = 0;
  cr_assert_eq(tr_store_get_all(store, NULL, key, 1 << 24, &shard, &bytes, NULL), TR_OK);
  ((uint8_t *)shard)[bytes - 1] ^= 1;
  cr_assert_eq(tr_store_put(store, key, shard, bytes, false, NULL), TR_OK);
  tr_free(NULL, shard);
  member members[RANKS_MAX] = {0};
  read_together(store, 3, members);
  for (int rank = 0; rank < 3; rank++) {
    cr_expect_eq(members[rank].status, TR_ERR_CORRUPT);
    cr_expect_not_null(strstr(members[rank].error.message, key), "%s", members[rank].error.message);
    cr_expect_not_null(strstr(members[rank].error.message, "at byte"), "%s", members[rank].error.message);
    cr_expect_not_null(strstr(members[rank].error.message, "'bytes'"), "%s", members[rank].error.message);
  }
  tr_store_destroy(store);
}

Test(read, fails_on_all_ranks_when_one_read_fails, .timeout = 60) {
  for (uint64_t fail_get = 1; fail_get <= 3; fail_get++) { /* the manifest, and a run of each shard */
    ts_faults faults = {.fail_get = fail_get, .status = TR_ERR_STORE};
    tr_store *memory = model_store();
    model_save(memory, "r", 7, 2);
    tr_store *store = ts_fault_store(memory, true, &faults);
    member members[RANKS_MAX] = {0};
    read_together(store, 3, members);
    for (int rank = 0; rank < 3; rank++) {
      cr_expect_eq(members[rank].status, TR_ERR_STORE, "%s", members[rank].error.message);
      cr_expect_not_null(strstr(members[rank].error.message, "fault store"), "%s", members[rank].error.message);
    }
    tr_store_destroy(store);
  }
}

Test(read, fails_on_all_ranks_when_one_has_no_memory, .timeout = 60) {
  for (uint64_t fail_at = 1; fail_at <= 6; fail_at++) {
    tr_store *store = model_store();
    model_save(store, "r", 7, 2);
    member members[RANKS_MAX] = {0};
    members[2].fail_allocation = fail_at;
    read_together(store, 3, members);
    for (int rank = 0; rank < 3; rank++) cr_expect_eq(members[rank].status, TR_ERR_NO_MEMORY);
    tr_store_destroy(store);
  }
}

Test(read, says_which_shard_is_missing_or_short) {
  tr_store *store = model_store();
  model_save(store, "r", 7, 2);
  const char *key = "r/step-7/shard-00000-of-00002.safetensors";
  void *shard = NULL;
  size_t bytes = 0;
  tr_error error;
  cr_assert_eq(tr_store_get_all(store, NULL, key, 1 << 24, &shard, &bytes, NULL), TR_OK);
  cr_assert_eq(tr_store_put(store, key, shard, bytes - 100, false, NULL), TR_OK);
  cr_expect_eq(model_load(store, "r/step-7", 7, 0, 1, NULL, &error), TR_ERR_CORRUPT);
  cr_expect_not_null(strstr(error.message, "truncated"), "%s", error.message);
  cr_expect_not_null(strstr(error.message, key), "%s", error.message);
  cr_assert_eq(tr_store_delete(store, key, NULL), TR_OK);
  cr_expect_eq(model_load(store, "r/step-7", 7, 0, 1, NULL, &error), TR_ERR_CORRUPT);
  cr_expect_not_null(strstr(error.message, "missing"), "%s", error.message);
  tr_free(NULL, shard);
  tr_store_destroy(store);
}

Test(read, reads_only_the_pieces_that_are_wanted) {
  ts_faults faults = {0};
  tr_store *memory = model_store();
  model_save(memory, "r", 7, 1);
  tr_store *store = ts_fault_store(memory, true, &faults);
  tr_ckpt *ckpt = NULL;
  cr_assert_eq(tr_ckpt_open(NULL, store, "r/step-7", &ckpt, NULL), TR_OK);
  faults.bytes_read = 0;
  float bias[8] = {0};
  const tr_piece piece = {.name = "conv1.bias", .dtype = TR_F32, .ndim = 1, .shape = {8}, .count = 8, .data = bias};
  cr_expect_eq(tr_ckpt_read(ckpt, &piece, 1, NULL, NULL), TR_OK);
  cr_expect_eq(faults.bytes_read, sizeof bias);
  uint8_t *expected = model_data(1, 7);
  cr_expect_eq(memcmp(bias, expected, sizeof bias), 0);
  free(expected);
  tr_ckpt_close(ckpt);
  tr_store_destroy(store);
}

/* ---- Larger than a chunk ---- */

enum { LARGE_ELEMENTS = 8 << 20, SMALL_TENSORS = 300, SMALL_ELEMENTS = 7 };

static uint32_t large_value(uint64_t i) { return (uint32_t)i * 2654435761u; }

/* One large tensor between many small ones, rank's share of each. */
static size_t large_pieces(uint32_t *large, uint32_t (*small)[SMALL_ELEMENTS], char (*names)[24], int rank, int size,
                           tr_piece *pieces) {
  size_t count = 0;
  for (size_t t = 0; t <= SMALL_TENSORS; t++) {
    const uint64_t elements = t == SMALL_TENSORS / 2 ? LARGE_ELEMENTS : SMALL_ELEMENTS;
    const uint64_t begin = tr_split_begin(elements, (uint64_t)size, (uint64_t)rank);
    const uint64_t end = tr_split_end(elements, (uint64_t)size, (uint64_t)rank);
    uint32_t *data = t == SMALL_TENSORS / 2 ? large : small[t];
    snprintf(names[t], sizeof names[t], "tensor-%03zu", t);
    pieces[count++] = (tr_piece){.name = names[t],
                                 .dtype = TR_I32,
                                 .ndim = 1,
                                 .shape = {(int64_t)elements},
                                 .begin = begin,
                                 .count = end - begin,
                                 .data = data + begin};
  }
  return count;
}

typedef struct large_model {
  uint32_t *large;
  uint32_t small[SMALL_TENSORS + 1][SMALL_ELEMENTS];
  char names[SMALL_TENSORS + 1][24];
  tr_piece pieces[SMALL_TENSORS + 1];
} large_model;

static void save_large(tr_store *store, int size) {
  large_model *model = calloc(1, sizeof *model);
  model->large = malloc(LARGE_ELEMENTS * sizeof(uint32_t));
  for (uint64_t i = 0; i < LARGE_ELEMENTS; i++) model->large[i] = large_value(i);
  for (uint64_t t = 0; t <= SMALL_TENSORS; t++) {
    for (uint64_t i = 0; i < SMALL_ELEMENTS; i++) model->small[t][i] = large_value(t + i);
  }
  tr_ckpt_save *saves[4] = {0};
  const char *records[4];
  for (int rank = 0; rank < size; rank++) {
    const tr_ckpt_save_options options = model_options(store, "r", 7, rank, size);
    const size_t count = large_pieces(model->large, model->small, model->names, rank, size, model->pieces);
    cr_assert_eq(tr_ckpt_save_begin(&options, model->pieces, count, &saves[rank], NULL), TR_OK);
    cr_assert_eq(tr_ckpt_save_wait(saves[rank], NULL), TR_OK);
    records[rank] = tr_ckpt_save_record(saves[rank], NULL);
  }
  const tr_ckpt_save_options options = model_options(store, "r", 7, 0, size);
  const tr_ckpt_meta meta = model_meta(7, size);
  cr_assert_eq(tr_ckpt_commit(&options, &meta, records, (size_t)size, NULL), TR_OK);
  for (int rank = 0; rank < size; rank++) tr_ckpt_save_destroy(saves[rank]);
  free(model->large);
  free(model);
}

/* Every rank wants all of it, as a trainer's ranks do. */
static void *read_large(void *argument) {
  member *member = argument;
  const tr_ckpt_exchange exchange = {.struct_bytes = sizeof exchange,
                                     .rank = member->rank,
                                     .size = member->size,
                                     .broadcast = broadcast,
                                     .self = member};
  tr_ckpt *ckpt = NULL;
  member->status = tr_ckpt_open_together(NULL, member->store, "r/step-7", &exchange, &ckpt, &member->error);
  if (member->status != TR_OK) return NULL;
  large_model *model = calloc(1, sizeof *model);
  model->large = calloc(LARGE_ELEMENTS, sizeof(uint32_t));
  const size_t count = large_pieces(model->large, model->small, model->names, 0, 1, model->pieces);
  member->status = tr_ckpt_read(ckpt, model->pieces, count, &exchange, &member->error);
  member->right = member->status == TR_OK;
  for (uint64_t i = 0; i < LARGE_ELEMENTS && member->right; i++) member->right = model->large[i] == large_value(i);
  for (uint64_t t = 0; t <= SMALL_TENSORS && member->right; t++) {
    for (uint64_t i = 0; t != SMALL_TENSORS / 2 && i < SMALL_ELEMENTS && member->right; i++) {
      member->right = model->small[t][i] == large_value(t + i);
    }
  }
  free(model->large);
  free(model);
  tr_ckpt_close(ckpt);
  return NULL;
}

static void read_large_together(tr_store *store, int size, member members[RANKS_MAX]) {
  meeting meeting = {0};
  pthread_t threads[RANKS_MAX];
  pthread_barrier_init(&meeting.barrier, NULL, (unsigned)size);
  for (int rank = 0; rank < size; rank++) {
    members[rank] = (member){.meeting = &meeting, .store = store, .rank = rank, .size = size};
    cr_assert_eq(pthread_create(&threads[rank], NULL, read_large, &members[rank]), 0);
  }
  for (int rank = 0; rank < size; rank++) pthread_join(threads[rank], NULL);
  pthread_barrier_destroy(&meeting.barrier);
}

static uint64_t stored_bytes(tr_store *store, const char *key) {
  tr_object_info info;
  cr_assert_eq(tr_store_head(store, key, &info, NULL), TR_OK);
  return info.bytes;
}

Test(read, reads_large_and_small_tensors_once_in_large_runs_with_several_under_way, .timeout = 60) {
  const uint64_t data_bytes = ((uint64_t)LARGE_ELEMENTS + SMALL_TENSORS * SMALL_ELEMENTS) * sizeof(uint32_t);
  for (int saved = 1; saved <= 2; saved++) {
    for (int size = 1; size <= 3; size++) {
      ts_faults faults = {.hold_ns = 20000000};
      tr_store *memory = model_store();
      save_large(memory, saved);
      tr_store *store = ts_fault_store(memory, true, &faults);
      member members[RANKS_MAX];
      read_large_together(store, size, members);
      for (int rank = 0; rank < size; rank++) cr_expect(members[rank].right, "%s", members[rank].error.message);
      cr_expect_eq(faults.bytes_read, data_bytes + stored_bytes(memory, "r/step-7/manifest.json"));
      /* 32 MiB in runs of 8, and what is left over at the end of each shard. */
      cr_expect_leq(faults.gets, 1 + 4 + (uint64_t)saved);
      cr_expect_geq(faults.most_in_flight, 3);
      tr_store_destroy(store);
    }
  }
}

Test(read, fails_on_all_ranks_whichever_of_many_reads_fails, .timeout = 60) {
  for (uint64_t fail_get = 1; fail_get <= 6; fail_get++) {
    ts_faults faults = {.fail_get = fail_get, .status = TR_ERR_STORE};
    tr_store *memory = model_store();
    save_large(memory, 2);
    tr_store *store = ts_fault_store(memory, true, &faults);
    member members[RANKS_MAX];
    read_large_together(store, 3, members);
    for (int rank = 0; rank < 3; rank++) cr_expect_eq(members[rank].status, TR_ERR_STORE, "get %d", (int)fail_get);
    tr_store_destroy(store);
  }
}
