/* Exported weights: what any reader of safetensors finds in them, whoever saved, into however many files. */
#include <jansson.h>

#include "model.h"
#include "support/fault_store.h"
#include "support/support.h"

static json_t *json_of(tr_store *store, const char *key) {
  void *text = NULL;
  size_t bytes = 0;
  cr_assert_eq(tr_store_get_all(store, NULL, key, 1 << 24, &text, &bytes, NULL), TR_OK, "%s", key);
  json_t *root = json_loadb(text, bytes, JSON_REJECT_DUPLICATES, NULL);
  cr_assert_not_null(root);
  tr_free(NULL, text);
  return root;
}

static size_t model_tensor_of(const char *name) {
  for (size_t t = 0; t < MODEL_TENSORS; t++) {
    if (strcmp(model_tensors[t].name, name) == 0) return t;
  }
  return MODEL_TENSORS;
}

/* Names, shapes, places and bytes of a file; marks in `found` what it has. No hole, no byte too many. */
static void check_file(tr_store *store, const char *key, uint64_t step, bool found[MODEL_TENSORS]) {
  void *data = NULL;
  size_t bytes = 0;
  cr_assert_eq(tr_store_get_all(store, NULL, key, 1 << 24, &data, &bytes, NULL), TR_OK, "%s", key);
  const uint8_t *file = data;
  uint64_t header_bytes = 0;
  for (int i = 7; i >= 0; i--) header_bytes = header_bytes << 8 | file[i];
  cr_assert_leq(header_bytes, bytes - 8);
  json_t *root = json_loadb((const char *)file + 8, (size_t)header_bytes, JSON_REJECT_DUPLICATES, NULL);
  cr_assert_not_null(root);
  cr_expect_str_eq(json_string_value(json_object_get(json_object_get(root, "__metadata__"), "format")), "pt");
  const char *name;
  json_t *value;
  json_int_t at = 0;
  json_object_foreach(root, name, value) {
    if (strcmp(name, "__metadata__") == 0) continue;
    const size_t t = model_tensor_of(name);
    cr_assert_lt(t, MODEL_TENSORS, "%s is no tensor of the model", name);
    const json_t *offsets = json_object_get(value, "data_offsets"), *shape = json_object_get(value, "shape");
    const json_int_t begin = json_integer_value(json_array_get(offsets, 0));
    const json_int_t end = json_integer_value(json_array_get(offsets, 1));
    cr_expect_eq(begin, at, "%s leaves a hole", name);
    cr_expect_eq((size_t)(end - begin), model_bytes(&model_tensors[t]));
    cr_expect_eq(json_array_size(shape), model_tensors[t].ndim);
    for (uint32_t d = 0; d < model_tensors[t].ndim; d++) {
      cr_expect_eq(json_integer_value(json_array_get(shape, d)), model_tensors[t].shape[d]);
    }
    cr_assert_leq((size_t)end, bytes - 8 - (size_t)header_bytes);
    uint8_t *expected = model_data(t, step);
    cr_expect_eq(memcmp(file + 8 + header_bytes + begin, expected, (size_t)(end - begin)), 0, "%s", name);
    free(expected);
    cr_expect_not(found[t], "%s is there twice", name);
    found[t] = true;
    at = end;
  }
  cr_expect_eq((size_t)at, bytes - 8 - (size_t)header_bytes);
  json_decref(root);
  tr_free(NULL, data);
}

static tr_status export(tr_store *from, const char *folder, tr_store *to, const char *to_folder, uint64_t file_bytes,
                        const tr_allocator *allocator, tr_error *error) {
  tr_ckpt *ckpt = NULL;
  const tr_ckpt_export_options options = {
      .struct_bytes = sizeof options, .file_bytes = file_bytes, .without = TR_CKPT_OPTIMIZER};
  TR_TRY(tr_ckpt_open(allocator, from, folder, &ckpt, error));
  const tr_status status = tr_ckpt_export(ckpt, to, to_folder, &options, error);
  tr_ckpt_close(ckpt);
  return status;
}

static void expect_weights(const bool found[MODEL_TENSORS]) {
  for (size_t t = 0; t < MODEL_TENSORS; t++) {
    const bool wanted = strncmp(model_tensors[t].name, "optimizer.", 10) != 0;
    cr_expect_eq(found[t], wanted, "%s", model_tensors[t].name);
  }
}

Test(export, puts_the_pieces_of_any_number_of_ranks_together_to_whole_weights) {
  for (int size = 1; size <= 5; size++) {
    tr_store *from = model_store(), *to = model_store();
    bool found[MODEL_TENSORS] = {false};
    tr_error error;
    model_save(from, "r", 4, size);
    cr_assert_eq(export(from, "r/step-4", to, "out", 0, NULL, &error), TR_OK, "%s", error.message);
    check_file(to, "out/model.safetensors", 4, found);
    expect_weights(found);
    tr_object_info info;
    cr_expect_eq(tr_store_head(to, "out/model.safetensors.index.json", &info, NULL), TR_ERR_NOT_FOUND);
    tr_store_destroy(from);
    tr_store_destroy(to);
  }
}

Test(export, cuts_into_files_with_an_index_that_says_where_each_tensor_is) {
  tr_store *from = model_store(), *to = model_store();
  bool found[MODEL_TENSORS] = {false};
  model_save(from, "r", 4, 3);
  /* The largest tensor has 14948 bytes: it is a file of its own. */
  cr_assert_eq(export(from, "r/step-4", to, "", 200, NULL, NULL), TR_OK);
  json_t *index = json_of(to, "model.safetensors.index.json");
  const json_t *map = json_object_get(index, "weight_map");
  size_t total = 0, files = 0;
  for (size_t t = 0; t < MODEL_TENSORS; t++) {
    const char *file = json_string_value(json_object_get(map, model_tensors[t].name));
    if (strncmp(model_tensors[t].name, "optimizer.", 10) == 0) {
      cr_expect_null(file);
      continue;
    }
    cr_assert_not_null(file, "%s", model_tensors[t].name);
    total += model_bytes(&model_tensors[t]);
  }
  cr_expect_eq(json_integer_value(json_object_get(json_object_get(index, "metadata"), "total_size")),
               (json_int_t)total);
  for (size_t i = 1; i < 20; i++) {
    char key[64];
    tr_object_info info;
    snprintf(key, sizeof key, "model-%05zu-of-00005.safetensors", i);
    if (tr_store_head(to, key, &info, NULL) != TR_OK) break;
    bool here[MODEL_TENSORS] = {false};
    check_file(to, key, 4, here);
    for (size_t t = 0; t < MODEL_TENSORS; t++) {
      if (!here[t]) continue;
      cr_expect_str_eq(json_string_value(json_object_get(map, model_tensors[t].name)), key);
      cr_expect_not(found[t]);
      found[t] = true;
    }
    files++;
  }
  cr_expect_eq(files, 5);
  expect_weights(found);
  json_decref(index);
  tr_store_destroy(from);
  tr_store_destroy(to);
}

Test(export, leaves_no_file_of_a_corrupt_checkpoint) {
  tr_store *from = model_store(), *to = model_store();
  model_save(from, "r", 4, 2);
  const char *key = "r/step-4/shard-00000-of-00002.safetensors";
  void *shard = NULL;
  size_t bytes = 0;
  tr_error error;
  cr_assert_eq(tr_store_get_all(from, NULL, key, 1 << 24, &shard, &bytes, NULL), TR_OK);
  ((uint8_t *)shard)[bytes - 1] ^= 1;
  cr_assert_eq(tr_store_put(from, key, shard, bytes, false, NULL), TR_OK);
  cr_expect_eq(export(from, "r/step-4", to, "out", 0, NULL, &error), TR_ERR_CORRUPT);
  cr_expect_not_null(strstr(error.message, key), "%s", error.message);
  tr_object_info info;
  cr_expect_eq(tr_store_head(to, "out/model.safetensors", &info, NULL), TR_ERR_NOT_FOUND);
  tr_free(NULL, shard);
  tr_store_destroy(from);
  tr_store_destroy(to);
}

Test(export, of_large_tensors_streams_in_parts) {
  const uint64_t count = 9 << 20; /* 36 MiB */
  tr_store *from = model_store(), *to = model_store();
  ts_faults faults = {0};
  tr_store *watched = ts_fault_store(to, true, &faults);
  uint32_t *data = malloc(count * sizeof *data);
  for (uint64_t i = 0; i < count; i++) data[i] = (uint32_t)i * 2654435761u;
  tr_ckpt_save *saves[2] = {0};
  const char *records[2];
  for (int rank = 0; rank < 2; rank++) {
    const uint64_t begin = tr_split_begin(count, 2, (uint64_t)rank);
    const tr_piece piece = {.name = "big",
                            .dtype = TR_I32,
                            .ndim = 2,
                            .shape = {9, 1 << 20},
                            .begin = begin,
                            .count = tr_split_end(count, 2, (uint64_t)rank) - begin,
                            .data = data + begin};
    const tr_ckpt_save_options options = model_options(from, "r", 1, rank, 2);
    cr_assert_eq(tr_ckpt_save_begin(&options, &piece, 1, &saves[rank], NULL), TR_OK);
    cr_assert_eq(tr_ckpt_save_wait(saves[rank], NULL), TR_OK);
    records[rank] = tr_ckpt_save_record(saves[rank], NULL);
  }
  const tr_ckpt_save_options options = model_options(from, "r", 1, 0, 2);
  const tr_ckpt_meta meta = model_meta(1, 2);
  cr_assert_eq(tr_ckpt_commit(&options, &meta, records, 2, NULL), TR_OK);
  tr_counting_allocator counting;
  tr_counting_allocator_init(&counting);
  cr_assert_eq(export(from, "r/step-1", watched, "out", 0, &counting.allocator, NULL), TR_OK);
  cr_expect_eq(faults.commits, 1);
  cr_expect_eq(faults.puts, 5);
  cr_expect_lt(counting.peak_bytes, 64u << 20);
  void *file = NULL;
  size_t bytes = 0;
  cr_assert_eq(tr_store_get_all(to, NULL, "out/model.safetensors", 1 << 26, &file, &bytes, NULL), TR_OK);
  cr_expect_eq(memcmp((uint8_t *)file + bytes - count * sizeof *data, data, count * sizeof *data), 0);
  tr_free(NULL, file);
  for (int rank = 0; rank < 2; rank++) tr_ckpt_save_destroy(saves[rank]);
  free(data);
  tr_store_destroy(from);
  tr_store_destroy(watched);
}

Test(export, survives_each_allocation_and_each_request_failing_in_turn) {
  tr_store *from = model_store();
  model_save(from, "r", 4, 2);
  bool finished = false;
  for (uint64_t fail_at = 1; !finished; fail_at++) {
    cr_assert_lt(fail_at, 500);
    tr_counting_allocator counting;
    tr_counting_allocator_init(&counting);
    counting.fail_at = fail_at;
    tr_store *to = model_store();
    const tr_status status = export(from, "r/step-4", to, "out", 200, &counting.allocator, NULL);
    cr_expect_eq(counting.live_blocks, 0, "allocation %d leaks", (int)fail_at);
    finished = counting.allocations < fail_at;
    cr_expect_eq(status, finished ? TR_OK : TR_ERR_NO_MEMORY, "allocation %d", (int)fail_at);
    tr_store_destroy(to);
  }
  finished = false;
  for (uint64_t fail_at = 1; !finished; fail_at++) {
    cr_assert_lt(fail_at, 100);
    ts_faults faults = {.fail_any = fail_at, .status = TR_ERR_NO_SPACE};
    tr_store *to = ts_fault_store(model_store(), true, &faults);
    const tr_status status = export(from, "r/step-4", to, "out", 200, NULL, NULL);
    finished = faults.any < fail_at;
    cr_expect_eq(status, finished ? TR_OK : TR_ERR_NO_SPACE, "request %d", (int)fail_at);
    tr_store_destroy(to);
  }
  tr_store_destroy(from);
}
