/* From the text of a manifest to its struct. Nothing in the text is believed: its CRC first, then its form, then the
 * rules of manifest.c. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "manifest.h"

enum { COVERED_AT = 21 };

/* The text begins {"crc32c":"xxxxxxxx", and the CRC is of everything behind that comma. */
static void check_crc(ckpt_json *source, const char *text, size_t bytes) {
  char expected[COVERED_AT + 1];
  const uint32_t crc = bytes > COVERED_AT ? tr_crc32c(0, text + COVERED_AT, bytes - COVERED_AT) : 0;
  snprintf(expected, sizeof expected, "{\"crc32c\":\"%08x\",", crc);
  if (bytes <= COVERED_AT || memcmp(text, expected, COVERED_AT) != 0) {
    ckpt_json_fail(source, "the bytes from %d on do not have the CRC32C that the first %d state", COVERED_AT,
                   COVERED_AT);
  }
}

static const char *copy_text(ckpt_json *source, tr_arena *arena, const char *text) {
  if (text == NULL) return NULL;
  const char *copy = tr_arena_strdup(arena, text);
  if (copy == NULL && source->status == TR_OK)
    source->status = tr_fail_memory(source->error, "a manifest", strlen(text));
  return copy != NULL ? copy : "";
}

static void read_meta(ckpt_json *source, const json_t *root, ckpt_manifest *manifest) {
  tr_ckpt_meta *meta = &manifest->meta;
  meta->struct_bytes = sizeof *meta;
  if (strcmp(ckpt_json_get_text(source, root, "format"), "trainrun-checkpoint") != 0) {
    ckpt_json_fail(source, "not a checkpoint of trainrun");
  }
  const uint64_t version = ckpt_json_get_u64(source, root, "version");
  if (source->status == TR_OK && version != MANIFEST_VERSION) {
    source->failure = TR_ERR_UNSUPPORTED;
    ckpt_json_fail(source, "version %llu of the format is not known to this version of trainrun",
                   (unsigned long long)version);
  }
  meta->step = ckpt_json_get_u64(source, root, "step");
  meta->epoch = ckpt_json_get_u64(source, root, "epoch");
  meta->batch = ckpt_json_get_u64(source, root, "batch");
  meta->samples = ckpt_json_get_u64(source, root, "samples");
  meta->order_crc32c = ckpt_json_get_hex32(source, root, "order_crc32c");
  meta->params_crc32c = ckpt_json_get_hex32(source, root, "params_crc32c");
  const uint64_t world_size = ckpt_json_get_u64(source, root, "world_size");
  if (world_size > INT32_MAX) ckpt_json_fail(source, "'world_size' is too large");
  meta->world_size = (int32_t)world_size;
  meta->parent = json_is_null(json_object_get(root, "parent")) ? -1
                                                               : (int64_t)ckpt_json_get_u64(source, root, "parent");
  const json_t *metric = json_object_get(root, "metric");
  if (metric == NULL || !(json_is_null(metric) || json_is_number(metric))) {
    ckpt_json_fail(source, "'metric' is not a number");
  }
  meta->metric = json_is_number(metric) ? json_number_value(metric) : NAN;
  meta->run_id = copy_text(source, manifest->arena, ckpt_json_get_text_or_null(source, root, "run_id"));
  meta->fingerprint = copy_text(source, manifest->arena, ckpt_json_get_text_or_null(source, root, "fingerprint"));
  meta->data_lock = copy_text(source, manifest->arena, ckpt_json_get_text_or_null(source, root, "data_lock"));
  meta->state = copy_text(source, manifest->arena, ckpt_json_get_text_or_null(source, root, "state"));
}

static void read_shards(ckpt_json *source, const json_t *array, ckpt_manifest *manifest) {
  manifest->shard_count = json_array_size(array);
  for (size_t i = 0; i < manifest->shard_count && source->status == TR_OK; i++) {
    const json_t *item = json_array_get(array, i);
    ckpt_shard *shard = &manifest->shards[i];
    shard->name = copy_text(source, manifest->arena, ckpt_json_get_text(source, item, "name"));
    shard->bytes = ckpt_json_get_u64(source, item, "bytes");
    shard->header_bytes = ckpt_json_get_u64(source, item, "header_bytes");
    shard->header_crc32c = ckpt_json_get_hex32(source, item, "header_crc32c");
  }
}

static void read_tensor(ckpt_json *source, const json_t *item, uint32_t number, ckpt_manifest *manifest) {
  tr_ckpt_tensor *tensor = &manifest->tensors[number];
  tensor->name = copy_text(source, manifest->arena, ckpt_json_get_text(source, item, "name"));
  if (!ckpt_dtype_of(ckpt_json_get_text(source, item, "dtype"), &tensor->dtype)) {
    ckpt_json_fail(source, "tensor '%.80s' has an unknown dtype", tensor->name);
  }
  const json_t *shape = ckpt_json_get_array(source, item, "shape");
  const size_t ndim = json_array_size(shape);
  if (ndim > 6) ckpt_json_fail(source, "tensor '%.80s' has more than 6 dimensions", tensor->name);
  tensor->ndim = ndim > 6 ? 6 : (uint32_t)ndim;
  for (uint32_t i = 0; i < tensor->ndim; i++) tensor->shape[i] = (int64_t)ckpt_json_item_u64(source, shape, i);
  const json_t *pieces = ckpt_json_get_array(source, item, "pieces");
  for (size_t i = 0; i < json_array_size(pieces) && source->status == TR_OK; i++) {
    const json_t *found = json_array_get(pieces, i);
    if (json_array_size(found) != 5) ckpt_json_fail(source, "tensor '%.80s': a piece has not five items", tensor->name);
    const uint64_t shard = ckpt_json_item_u64(source, found, 0);
    manifest->pieces[manifest->piece_count++] = (ckpt_piece){.tensor = number,
                                                             .shard = shard < UINT32_MAX ? (uint32_t)shard : UINT32_MAX,
                                                             .offset = ckpt_json_item_u64(source, found, 1),
                                                             .begin = ckpt_json_item_u64(source, found, 2),
                                                             .count = ckpt_json_item_u64(source, found, 3),
                                                             .crc32c = ckpt_json_item_hex32(source, found, 4)};
  }
}

static size_t count_pieces(const json_t *tensors) {
  size_t count = 0, i;
  const json_t *item;
  json_array_foreach(tensors, i, item) count += json_array_size(json_object_get(item, "pieces"));
  return count;
}

static void read_root(ckpt_json *source, const json_t *root, ckpt_manifest *manifest) {
  read_meta(source, root, manifest);
  const json_t *shards = ckpt_json_get_array(source, root, "shards");
  const json_t *tensors = ckpt_json_get_array(source, root, "tensors");
  if (source->status != TR_OK) return;
  manifest->tensor_count = json_array_size(tensors);
  manifest->shards = tr_arena_alloc(manifest->arena, (json_array_size(shards) + 1) * sizeof(ckpt_shard));
  manifest->tensors = tr_arena_alloc(manifest->arena, (manifest->tensor_count + 1) * sizeof(tr_ckpt_tensor));
  manifest->pieces = tr_arena_alloc(manifest->arena, (count_pieces(tensors) + 1) * sizeof(ckpt_piece));
  if (manifest->shards == NULL || manifest->tensors == NULL || manifest->pieces == NULL) {
    source->status = tr_fail_memory(source->error, "a manifest", manifest->tensor_count * sizeof(tr_ckpt_tensor));
    return;
  }
  read_shards(source, shards, manifest);
  for (size_t t = 0; t < manifest->tensor_count && source->status == TR_OK; t++) {
    read_tensor(source, json_array_get(tensors, t), (uint32_t)t, manifest);
  }
}

tr_status ckpt_manifest_read(const tr_allocator *allocator, const char *text, size_t bytes, const char *object,
                             ckpt_manifest *manifest, tr_error *error) {
  *manifest = (ckpt_manifest){0};
  ckpt_json source = {.object = object, .failure = TR_ERR_CORRUPT, .error = error};
  check_crc(&source, text, bytes);
  if (source.status != TR_OK) return source.status;
  TR_TRY(tr_arena_create(allocator, 64 << 10, &manifest->arena, error));
  json_t *root = ckpt_json_parse(&source, text, bytes);
  if (root != NULL) read_root(&source, root, manifest);
  json_decref(root);
  if (source.status == TR_OK) ckpt_manifest_check(manifest, &source);
  if (source.status != TR_OK) ckpt_manifest_fini(manifest);
  return source.status;
}
