/* A small model for tests of checkpoints: tensors whose every element follows from the tensor, its place and the step, cut
 * among any number of ranks. */
#ifndef TRAINRUN_TESTS_CHECKPOINT_MODEL_H
#define TRAINRUN_TESTS_CHECKPOINT_MODEL_H

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <trainrun/checkpoint.h>

typedef struct model_tensor {
  const char *name;
  tr_dtype dtype;
  uint32_t ndim;
  int64_t shape[6];
} model_tensor;

static const model_tensor model_tensors[] = {
    {"conv1.weight", TR_F32, 4, {8, 1, 3, 3}},
    {"conv1.bias", TR_F32, 1, {8}},
    {"fc.weight", TR_F32, 2, {37, 101}},
    {"optimizer.m/fc.weight", TR_F32, 2, {37, 101}},
    {"half", TR_BF16, 1, {13}},
    {"bytes", TR_U8, 3, {3, 5, 7}},
    {"steps", TR_I64, 0, {0}},
    {"empty", TR_F32, 2, {0, 4}},
    {"name \"quoted\" \xc3\xa9", TR_I32, 1, {3}},
    {"doubles", TR_F64, 1, {5}},
};
enum { MODEL_TENSORS = sizeof model_tensors / sizeof *model_tensors };

static inline uint64_t model_elements(const model_tensor *tensor) {
  uint64_t elements = 1;
  for (uint32_t i = 0; i < tensor->ndim; i++) elements *= (uint64_t)tensor->shape[i];
  return elements;
}

static inline size_t model_bytes(const model_tensor *tensor) {
  return (size_t)model_elements(tensor) * tr_dtype_bytes(tensor->dtype);
}

static inline uint8_t model_byte(size_t t, uint64_t step, size_t i) {
  return (uint8_t)(tr_rng_u64(step, TR_RNG_USER, t, i / 8) >> (i % 8 * 8));
}

/* The whole tensor; the caller frees it. */
static inline uint8_t *model_data(size_t t, uint64_t step) {
  const size_t bytes = model_bytes(&model_tensors[t]);
  uint8_t *data = malloc(bytes + 1);
  for (size_t i = 0; i < bytes; i++) data[i] = model_byte(t, step, i);
  return data;
}

/* Rank's pieces: a cut of every tensor. data[t] gets the whole tensor, of which the piece is a part. */
static inline void model_pieces(int rank, int size, uint64_t step, bool fill, tr_piece pieces[MODEL_TENSORS],
                                uint8_t *data[MODEL_TENSORS]) {
  for (size_t t = 0; t < MODEL_TENSORS; t++) {
    const model_tensor *tensor = &model_tensors[t];
    const uint64_t elements = model_elements(tensor);
    const uint64_t begin = tr_split_begin(elements, (uint64_t)size, (uint64_t)rank);
    const uint64_t end = tr_split_end(elements, (uint64_t)size, (uint64_t)rank);
    data[t] = fill ? model_data(t, step) : calloc(1, model_bytes(tensor) + 1);
    pieces[t] = (tr_piece){.name = tensor->name,
                           .dtype = tensor->dtype,
                           .ndim = tensor->ndim,
                           .begin = begin,
                           .count = end - begin,
                           .data = data[t] + begin * tr_dtype_bytes(tensor->dtype)};
    memcpy(pieces[t].shape, tensor->shape, sizeof tensor->shape);
  }
}

static inline void model_free(uint8_t *data[MODEL_TENSORS]) {
  for (size_t t = 0; t < MODEL_TENSORS; t++) free(data[t]);
}

/* Whether the pieces hold what the model says, and not a byte beside them was written. */
static inline bool model_check(const tr_piece pieces[MODEL_TENSORS], uint8_t *data[MODEL_TENSORS], uint64_t step) {
  for (size_t t = 0; t < MODEL_TENSORS; t++) {
    const size_t width = tr_dtype_bytes(model_tensors[t].dtype);
    const size_t begin = (size_t)pieces[t].begin * width, end = begin + (size_t)pieces[t].count * width;
    for (size_t i = 0; i < model_bytes(&model_tensors[t]); i++) {
      const uint8_t expected = i >= begin && i < end ? model_byte(t, step, i) : 0;
      if (data[t][i] != expected) return false;
    }
  }
  return true;
}

static inline tr_ckpt_meta model_meta(uint64_t step, int size) {
  return (tr_ckpt_meta){.struct_bytes = sizeof(tr_ckpt_meta),
                        .step = step,
                        .epoch = 2,
                        .batch = 17,
                        .samples = step * 64,
                        .order_crc32c = 0xdeadbeef,
                        .params_crc32c = 0x01234567,
                        .world_size = size,
                        .run_id = "run-7",
                        .fingerprint = "{\"seed\":1,\"lr\":0.1}",
                        .data_lock = "[{\"url\":\"a\"}]",
                        .state = "{\"best\":0.30000000000000004}",
                        .parent = -1,
                        .metric = 0.75};
}

static inline tr_ckpt_save_options model_options(tr_store *store, const char *prefix, uint64_t step, int rank,
                                                 int size) {
  return (tr_ckpt_save_options){.struct_bytes = sizeof(tr_ckpt_save_options),
                                .store = store,
                                .prefix = prefix,
                                .step = step,
                                .rank = rank,
                                .size = size};
}

/* Saves with `size` ranks, one after the other, and commits. */
static inline tr_status model_save_meta(tr_store *store, const char *prefix, int size, const tr_ckpt_meta *meta,
                                        const tr_allocator *allocator, tr_error *error) {
  tr_ckpt_save *saves[64] = {0};
  const char *records[64] = {0};
  tr_status status = TR_OK;
  for (int rank = 0; rank < size && status == TR_OK; rank++) {
    tr_piece pieces[MODEL_TENSORS];
    uint8_t *data[MODEL_TENSORS];
    tr_ckpt_save_options options = model_options(store, prefix, meta->step, rank, size);
    options.allocator = allocator;
    model_pieces(rank, size, meta->step, true, pieces, data);
    status = tr_ckpt_save_begin(&options, pieces, MODEL_TENSORS, &saves[rank], error);
    for (size_t t = 0; t < MODEL_TENSORS; t++) memset(data[t], 0xEE, model_bytes(&model_tensors[t]));
    model_free(data);
  }
  for (int rank = 0; rank < size && status == TR_OK; rank++) {
    status = tr_ckpt_save_wait(saves[rank], error);
    if (status == TR_OK) records[rank] = tr_ckpt_save_record(saves[rank], NULL);
  }
  tr_ckpt_save_options options = model_options(store, prefix, meta->step, 0, size);
  options.allocator = allocator;
  if (status == TR_OK) status = tr_ckpt_commit(&options, meta, records, (size_t)size, error);
  for (int rank = 0; rank < size; rank++) tr_ckpt_save_destroy(saves[rank]);
  return status;
}

static inline void model_save(tr_store *store, const char *prefix, uint64_t step, int size) {
  const tr_ckpt_meta meta = model_meta(step, size);
  tr_error error;
  cr_assert_eq(model_save_meta(store, prefix, size, &meta, NULL, &error), TR_OK, "%s", error.message);
}

static inline tr_store *model_store(void) {
  const tr_store_memory_options options = {.struct_bytes = sizeof options};
  tr_store *store = NULL;
  cr_assert_eq(tr_store_memory_open(&options, &store, NULL), TR_OK);
  return store;
}

/* Opens and reads all of it as rank of size, alone; TR_OK only where every byte is right. */
static inline tr_status model_load(tr_store *store, const char *folder, uint64_t step, int rank, int size,
                                   const tr_allocator *allocator, tr_error *error) {
  tr_ckpt *ckpt = NULL;
  TR_TRY(tr_ckpt_open(allocator, store, folder, &ckpt, error));
  tr_piece pieces[MODEL_TENSORS];
  uint8_t *data[MODEL_TENSORS];
  model_pieces(rank, size, step, false, pieces, data);
  tr_status status = tr_ckpt_read(ckpt, pieces, MODEL_TENSORS, NULL, error);
  if (status == TR_OK && !model_check(pieces, data, step)) {
    status = tr_fail(error, TR_ERR_BUG, "the values that were read are wrong");
  }
  model_free(data);
  tr_ckpt_close(ckpt);
  return status;
}

#endif
