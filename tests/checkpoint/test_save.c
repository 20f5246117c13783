/* Saving and committing, and reading the same back alone. */
#include <jansson.h>
#include <math.h>

#include "model.h"
#include "support/fault_store.h"
#include "support/support.h"

Test(checkpoint, gives_back_every_byte_to_any_number_of_ranks) {
  const int sizes[] = {1, 2, 3, 5, 8, 40};
  for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++) {
    tr_store *store = model_store();
    model_save(store, "runs/a", 40, sizes[s]);
    for (size_t r = 0; r < sizeof sizes / sizeof *sizes; r++) {
      for (int rank = 0; rank < sizes[r]; rank++) {
        tr_error error;
        cr_assert_eq(model_load(store, "runs/a/step-40", 40, rank, sizes[r], NULL, &error), TR_OK, "%s", error.message);
      }
    }
    tr_store_destroy(store);
  }
}

Test(checkpoint, remembers_what_the_meta_data_say) {
  tr_store *store = model_store();
  tr_ckpt_meta meta = model_meta(123, 2);
  meta.parent = 100;
  cr_assert_eq(model_save_meta(store, "r", 2, &meta, NULL, NULL), TR_OK);
  tr_ckpt *ckpt = NULL;
  cr_assert_eq(tr_ckpt_open(NULL, store, "r/step-123", &ckpt, NULL), TR_OK);
  const tr_ckpt_meta *found = tr_ckpt_describe(ckpt);
  cr_expect_eq(found->step, 123);
  cr_expect_eq(found->epoch, 2);
  cr_expect_eq(found->batch, 17);
  cr_expect_eq(found->samples, 123 * 64);
  cr_expect_eq(found->order_crc32c, 0xdeadbeef);
  cr_expect_eq(found->params_crc32c, 0x01234567);
  cr_expect_eq(found->world_size, 2);
  cr_expect_eq(found->parent, 100);
  cr_expect_eq(found->metric, 0.75);
  cr_expect_str_eq(found->run_id, "run-7");
  cr_expect_str_eq(found->fingerprint, meta.fingerprint);
  cr_expect_str_eq(found->data_lock, meta.data_lock);
  cr_expect_str_eq(found->state, meta.state);
  const tr_ckpt_tensor *tensors = NULL;
  cr_assert_eq(tr_ckpt_tensors(ckpt, &tensors), MODEL_TENSORS);
  for (size_t i = 1; i < MODEL_TENSORS; i++) cr_expect_lt(strcmp(tensors[i - 1].name, tensors[i].name), 0);
  cr_expect_eq(tr_ckpt_verify(ckpt, NULL), TR_OK);
  tr_ckpt_close(ckpt);
  tr_store_destroy(store);
}

Test(checkpoint, keeps_what_is_not_known_unknown) {
  tr_store *store = model_store();
  tr_ckpt_meta meta = {.struct_bytes = sizeof meta, .step = 0, .parent = -1, .metric = NAN};
  cr_assert_eq(model_save_meta(store, "", 1, &meta, NULL, NULL), TR_OK);
  tr_ckpt *ckpt = NULL;
  cr_assert_eq(tr_ckpt_open(NULL, store, "step-0", &ckpt, NULL), TR_OK);
  const tr_ckpt_meta *found = tr_ckpt_describe(ckpt);
  cr_expect_null(found->run_id);
  cr_expect_null(found->fingerprint);
  cr_expect_null(found->state);
  cr_expect_eq(found->parent, -1);
  cr_expect(isnan(found->metric));
  tr_ckpt_close(ckpt);
  tr_store_destroy(store);
}

Test(checkpoint, is_not_there_before_its_manifest) {
  tr_store *store = model_store();
  tr_piece pieces[MODEL_TENSORS];
  uint8_t *data[MODEL_TENSORS];
  const tr_ckpt_save_options options = model_options(store, "r", 5, 0, 1);
  model_pieces(0, 1, 5, true, pieces, data);
  tr_ckpt_save *save = NULL;
  cr_assert_eq(tr_ckpt_save_begin(&options, pieces, MODEL_TENSORS, &save, NULL), TR_OK);
  model_free(data);
  cr_assert_eq(tr_ckpt_save_wait(save, NULL), TR_OK);
  tr_ckpt *ckpt = NULL;
  cr_expect_eq(tr_ckpt_open(NULL, store, "r/step-5", &ckpt, NULL), TR_ERR_NOT_FOUND);
  bool done = false;
  cr_expect_eq(tr_ckpt_save_poll(save, &done, NULL), TR_OK);
  cr_expect(done);
  const char *record = tr_ckpt_save_record(save, NULL);
  const tr_ckpt_meta meta = model_meta(5, 1);
  cr_expect_eq(tr_ckpt_commit(&options, &meta, &record, 1, NULL), TR_OK);
  cr_expect_eq(tr_ckpt_open(NULL, store, "r/step-5", &ckpt, NULL), TR_OK);
  tr_ckpt_close(ckpt);
  tr_ckpt_save_destroy(save);
  tr_store_destroy(store);
}

Test(checkpoint, committed_twice_is_one_checkpoint_but_not_over_another) {
  tr_store *store = model_store();
  model_save(store, "r", 9, 2);
  model_save(store, "r", 9, 2);
  tr_ckpt_meta other = model_meta(9, 2);
  other.samples++;
  tr_error error;
  cr_expect_eq(model_save_meta(store, "r", 2, &other, NULL, &error), TR_ERR_EXISTS);
  cr_expect_not_null(strstr(error.message, "r/step-9/manifest.json"), "%s", error.message);
  cr_expect_eq(model_load(store, "r/step-9", 9, 0, 1, NULL, NULL), TR_OK);
  tr_store_destroy(store);
}

Test(checkpoint, is_never_written_over_by_another_of_the_same_step) {
  tr_store *store = model_store();
  model_save(store, "r", 9, 2);
  for (int size = 1; size <= 3; size++) {
    float value = 1.5f;
    const tr_ckpt_save_options options = model_options(store, "r", 9, 0, size);
    const tr_piece piece = {.name = "w", .dtype = TR_F32, .count = 1, .data = &value};
    tr_ckpt_save *save = NULL;
    tr_error error;
    cr_assert_eq(tr_ckpt_save_begin(&options, &piece, 1, &save, NULL), TR_OK);
    cr_expect_eq(tr_ckpt_save_wait(save, &error), TR_ERR_EXISTS);
    cr_expect_not_null(strstr(error.message, "r/step-9 is already a checkpoint"), "%s", error.message);
    cr_expect_null(tr_ckpt_save_record(save, NULL));
    tr_ckpt_save_destroy(save);
  }
  cr_expect_eq(model_load(store, "r/step-9", 9, 0, 1, NULL, NULL), TR_OK);
  tr_store_destroy(store);
}

Test(checkpoint, refuses_ranks_that_do_not_fit_together) {
  tr_store *store = model_store();
  float values[12] = {0};
  tr_piece piece = {.name = "w", .dtype = TR_F32, .ndim = 1, .shape = {12}, .begin = 0, .count = 6, .data = values};
  const struct {
    uint64_t begin, count;
    int64_t size;
    tr_dtype dtype;
    const char *words;
  } cases[] = {{6, 6, 12, TR_F32, NULL},
               {5, 7, 12, TR_F32, "element 5 is saved twice"},
               {7, 5, 12, TR_F32, "element 6 is saved twice or not at all"},
               {6, 5, 12, TR_F32, "element 11 is not saved"},
               {6, 6, 13, TR_F32, "not the same dtype and shape"},
               {6, 6, 12, TR_I32, "not the same dtype and shape"}};
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    tr_ckpt_save *saves[2] = {0};
    const char *records[2];
    for (int rank = 0; rank < 2; rank++) {
      const tr_ckpt_save_options options = model_options(store, "r", i, rank, 2);
      tr_piece own = piece;
      if (rank == 1) {
        own.begin = cases[i].begin, own.count = cases[i].count;
        own.shape[0] = cases[i].size, own.dtype = cases[i].dtype;
      }
      cr_assert_eq(tr_ckpt_save_begin(&options, &own, 1, &saves[rank], NULL), TR_OK);
      cr_assert_eq(tr_ckpt_save_wait(saves[rank], NULL), TR_OK);
      records[rank] = tr_ckpt_save_record(saves[rank], NULL);
    }
    const tr_ckpt_save_options options = model_options(store, "r", i, 0, 2);
    const tr_ckpt_meta meta = model_meta(i, 2);
    tr_error error = {.status = TR_OK};
    cr_expect_eq(tr_ckpt_commit(&options, &meta, records, 2, &error), cases[i].words ? TR_ERR_INVALID : TR_OK);
    if (cases[i].words) cr_expect_not_null(strstr(error.message, cases[i].words), "%s", error.message);
    tr_ckpt_save_destroy(saves[0]);
    tr_ckpt_save_destroy(saves[1]);
  }
  tr_store_destroy(store);
}

Test(checkpoint, of_a_rank_without_pieces_has_no_shard) {
  tr_store *store = model_store();
  const tr_ckpt_save_options options = model_options(store, "r", 1, 1, 2);
  tr_ckpt_save *save = NULL;
  cr_assert_eq(tr_ckpt_save_begin(&options, NULL, 0, &save, NULL), TR_OK);
  cr_assert_eq(tr_ckpt_save_wait(save, NULL), TR_OK);
  cr_expect_str_eq(tr_ckpt_save_record(save, NULL), "{\"shard\":null,\"pieces\":[]}");
  tr_object_info info;
  cr_expect_eq(tr_store_head(store, "r/step-1/shard-00001-of-00002.safetensors", &info, NULL), TR_ERR_NOT_FOUND);
  tr_ckpt_save_destroy(save);
  tr_store_destroy(store);
}

Test(checkpoint, refuses_pieces_outside_of_their_tensor) {
  tr_store *store = model_store();
  float values[4] = {0};
  const tr_ckpt_save_options options = model_options(store, "r", 1, 0, 1);
  const tr_piece good = {.name = "w", .dtype = TR_F32, .ndim = 1, .shape = {4}, .count = 4, .data = values};
  tr_piece bad[7];
  for (int i = 0; i < 7; i++) bad[i] = good;
  bad[0].begin = 1;
  bad[1].count = 5;
  bad[2].name = "";
  bad[3].data = NULL;
  bad[4].shape[0] = -1;
  bad[5].ndim = 7;
  bad[6].begin = UINT64_MAX;
  for (int i = 0; i < 7; i++) {
    tr_ckpt_save *save = NULL;
    cr_expect_eq(tr_ckpt_save_begin(&options, &bad[i], 1, &save, NULL), TR_ERR_INVALID, "case %d", i);
    cr_expect_null(save);
  }
  tr_store_destroy(store);
}

/* An independent look at a shard: it is what any reader of safetensors expects. */
static void check_safetensors(const uint8_t *shard, size_t bytes) {
  uint64_t header_bytes = 0;
  cr_assert_gt(bytes, 8);
  for (int i = 7; i >= 0; i--) header_bytes = header_bytes << 8 | shard[i];
  cr_assert_leq(header_bytes, bytes - 8);
  cr_expect_eq((8 + header_bytes) % 64, 0);
  json_t *root = json_loadb((const char *)shard + 8, (size_t)header_bytes, JSON_REJECT_DUPLICATES, NULL);
  cr_assert_not_null(root);
  const char *name;
  json_t *value;
  json_int_t covered = 0;
  json_object_foreach(root, name, value) {
    if (strcmp(name, "__metadata__") == 0) {
      cr_expect_str_eq(json_string_value(json_object_get(value, "format")), "trainrun");
      continue;
    }
    const json_t *offsets = json_object_get(value, "data_offsets");
    const char *dtype = json_string_value(json_object_get(value, "dtype"));
    const json_int_t width = strchr("4", dtype[strlen(dtype) - 1]) ? 8
                             : strstr(dtype, "32")                 ? 4
                             : strstr(dtype, "16")                 ? 2
                                                                   : 1;
    json_int_t elements = 1;
    for (size_t i = 0; i < json_array_size(json_object_get(value, "shape")); i++) {
      elements *= json_integer_value(json_array_get(json_object_get(value, "shape"), i));
    }
    const json_int_t begin = json_integer_value(json_array_get(offsets, 0));
    const json_int_t end = json_integer_value(json_array_get(offsets, 1));
    cr_expect_eq(begin, covered, "%s leaves a hole", name);
    cr_expect_eq(end - begin, elements * width, "%s", name);
    cr_expect_eq(begin % width, 0, "%s is not aligned", name);
    covered = end;
  }
  cr_expect_eq((size_t)covered, bytes - 8 - (size_t)header_bytes);
  json_decref(root);
}

Test(checkpoint, writes_shards_that_are_safetensors) {
  tr_store *store = model_store();
  model_save(store, "r", 3, 2);
  for (int rank = 0; rank < 2; rank++) {
    char key[80];
    snprintf(key, sizeof key, "r/step-3/shard-%05d-of-00002.safetensors", rank);
    void *shard = NULL;
    size_t bytes = 0;
    cr_assert_eq(tr_store_get_all(store, NULL, key, 1 << 24, &shard, &bytes, NULL), TR_OK);
    check_safetensors(shard, bytes);
    tr_free(NULL, shard);
  }
  tr_store_destroy(store);
}

Test(checkpoint, writes_a_manifest_that_any_reader_of_json_understands) {
  tr_store *store = model_store();
  model_save(store, "r", 3, 2);
  void *text = NULL;
  size_t bytes = 0;
  cr_assert_eq(tr_store_get_all(store, NULL, "r/step-3/manifest.json", 1 << 24, &text, &bytes, NULL), TR_OK);
  json_t *root = json_loadb(text, bytes, JSON_REJECT_DUPLICATES, NULL);
  cr_assert_not_null(root);
  cr_expect_eq(json_integer_value(json_object_get(root, "step")), 3);
  cr_expect_eq(json_array_size(json_object_get(root, "shards")), 2);
  cr_expect_eq(json_array_size(json_object_get(root, "tensors")), MODEL_TENSORS);
  json_decref(root);
  tr_free(NULL, text);
  tr_store_destroy(store);
}

Test(checkpoint, uploads_a_large_shard_in_parts) {
  const size_t bytes = (130u << 20) + 12;
  tr_store *memory = model_store();
  ts_faults faults = {0};
  tr_store *store = ts_fault_store(memory, true, &faults);
  uint32_t *data = malloc(bytes);
  for (size_t i = 0; i < bytes / 4; i++) data[i] = (uint32_t)i * 2654435761u;
  tr_piece piece = {.name = "big", .dtype = TR_I32, .ndim = 1, .shape = {(int64_t)bytes / 4}, .count = bytes / 4};
  piece.data = data;
  const tr_ckpt_save_options options = model_options(store, "r", 1, 0, 1);
  tr_ckpt_save *save = NULL;
  cr_assert_eq(tr_ckpt_save_begin(&options, &piece, 1, &save, NULL), TR_OK);
  cr_assert_eq(tr_ckpt_save_wait(save, NULL), TR_OK);
  cr_expect_eq(faults.commits, 1);
  cr_expect_eq(faults.puts, 9); /* of 16 MiB */
  const char *record = tr_ckpt_save_record(save, NULL);
  const tr_ckpt_meta meta = model_meta(1, 1);
  cr_assert_eq(tr_ckpt_commit(&options, &meta, &record, 1, NULL), TR_OK);
  tr_ckpt_save_destroy(save);
  tr_ckpt *ckpt = NULL;
  cr_assert_eq(tr_ckpt_open(NULL, store, "r/step-1", &ckpt, NULL), TR_OK);
  uint32_t *read = calloc(1, bytes);
  piece.data = read;
  tr_error error;
  cr_assert_eq(tr_ckpt_read(ckpt, &piece, 1, NULL, &error), TR_OK, "%s", error.message);
  cr_expect_eq(memcmp(read, data, bytes), 0);
  tr_ckpt_close(ckpt);
  free(read);
  free(data);
  tr_store_destroy(store);
}

Test(checkpoint, fails_cleanly_whichever_request_fails) {
  bool finished = false;
  for (uint64_t fail_at = 1; !finished; fail_at++) {
    cr_assert_lt(fail_at, 100);
    ts_faults faults = {.fail_any = fail_at, .status = TR_ERR_NO_SPACE};
    tr_store *memory = model_store();
    tr_store *store = ts_fault_store(memory, false, &faults);
    const tr_ckpt_meta meta = model_meta(5, 3);
    tr_error error = {.status = TR_OK};
    tr_status status = model_save_meta(store, "r", 3, &meta, NULL, &error);
    if (status != TR_OK) {
      /* What failed to be committed is not there, and can be saved again. */
      tr_ckpt *ckpt = NULL;
      cr_expect_eq(tr_ckpt_open(NULL, memory, "r/step-5", &ckpt, NULL), TR_ERR_NOT_FOUND);
      cr_expect_eq(model_save_meta(memory, "r", 3, &meta, NULL, NULL), TR_OK);
    } else {
      status = model_load(store, "r/step-5", 5, 0, 2, NULL, &error);
    }
    finished = faults.any < fail_at;
    cr_expect_eq(status, finished ? TR_OK : TR_ERR_NO_SPACE, "request %d: %s", (int)fail_at, error.message);
    cr_expect_eq(model_load(memory, "r/step-5", 5, 1, 2, NULL, NULL), TR_OK);
    tr_store_destroy(store);
    tr_store_destroy(memory);
  }
}

Test(checkpoint, is_not_committed_when_a_put_was_lost) {
  ts_faults faults = {.lose_put = 2};
  tr_store *store = ts_fault_store(model_store(), true, &faults);
  const tr_ckpt_meta meta = model_meta(5, 3);
  tr_error error;
  cr_expect_eq(model_save_meta(store, "r", 3, &meta, NULL, &error), TR_ERR_NOT_FOUND);
  cr_expect_not_null(strstr(error.message, "step-5"), "%s", error.message);
  tr_store_destroy(store);
}

Test(checkpoint, is_committed_by_a_put_whose_first_answer_was_lost) {
  ts_faults faults = {.repeat_put = 4}; /* the manifest, after three shards */
  tr_store *store = ts_fault_store(model_store(), true, &faults);
  const tr_ckpt_meta meta = model_meta(5, 3);
  tr_error error;
  cr_expect_eq(model_save_meta(store, "r", 3, &meta, NULL, &error), TR_OK, "%s", error.message);
  cr_expect_eq(faults.puts, 4);
  cr_expect_eq(model_load(store, "r/step-5", 5, 0, 1, NULL, NULL), TR_OK);
  tr_store_destroy(store);
}

Test(checkpoint, survives_each_allocation_failing_in_turn) {
  bool finished = false;
  for (uint64_t fail_at = 1; !finished; fail_at++) {
    cr_assert_lt(fail_at, 500);
    tr_counting_allocator counting;
    tr_counting_allocator_init(&counting);
    counting.fail_at = fail_at;
    tr_store *store = model_store();
    const tr_ckpt_meta meta = model_meta(5, 2);
    tr_error error = {.status = TR_OK};
    tr_status status = model_save_meta(store, "r", 2, &meta, &counting.allocator, &error);
    if (status == TR_OK) status = model_load(store, "r/step-5", 5, 0, 1, &counting.allocator, &error);
    if (status == TR_OK) status = tr_ckpt_copy(&counting.allocator, store, "r/step-5", store, "c/step-5", &error);
    tr_ckpt_entry *entries = NULL;
    size_t count = 0;
    if (status == TR_OK) status = tr_ckpt_list(&counting.allocator, store, "r", &entries, &count, &error);
    tr_free(&counting.allocator, entries);
    const tr_retain_options keep = {.struct_bytes = sizeof keep, .last = 1};
    if (status == TR_OK) status = tr_ckpt_retain(&counting.allocator, store, "r", &keep, UINT64_MAX, &error);
    if (status == TR_OK) status = tr_ckpt_remove(&counting.allocator, store, "r", 5, &error);
    cr_expect_eq(counting.live_blocks, 0, "allocation %d leaks", (int)fail_at);
    finished = counting.allocations < fail_at;
    cr_expect_eq(status, finished ? TR_OK : TR_ERR_NO_MEMORY, "allocation %d: %s", (int)fail_at, error.message);
    tr_store_destroy(store);
  }
}
