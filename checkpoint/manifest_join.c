/* From the records of the ranks to one manifest: shards by name, tensors by name, pieces by first element. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "manifest.h"

/* A piece as its rank told it, before tensors and shards have numbers. */
typedef struct told_piece {
  tr_ckpt_tensor tensor;
  const char *shard;
  uint64_t offset, begin, count;
  uint32_t crc32c;
} told_piece;

typedef struct told_list {
  told_piece *pieces;
  size_t count;
} told_list;

static const char *copy_text(ckpt_json *source, tr_arena *arena, const char *text) {
  const char *copy = tr_arena_strdup(arena, text);
  if (copy == NULL && source->status == TR_OK)
    source->status = tr_fail_memory(source->error, "a manifest", strlen(text));
  return copy != NULL ? copy : "";
}

static void read_piece(ckpt_json *source, const json_t *item, ckpt_manifest *manifest, const char *shard,
                       told_piece *piece) {
  piece->shard = shard;
  piece->tensor.name = copy_text(source, manifest->arena, ckpt_json_get_text(source, item, "name"));
  if (!ckpt_dtype_of(ckpt_json_get_text(source, item, "dtype"), &piece->tensor.dtype)) {
    ckpt_json_fail(source, "tensor '%.80s' has an unknown dtype", piece->tensor.name);
  }
  const json_t *shape = ckpt_json_get_array(source, item, "shape");
  if (json_array_size(shape) > 6) ckpt_json_fail(source, "tensor '%.80s' has too many dimensions", piece->tensor.name);
  for (size_t i = 0; i < json_array_size(shape) && i < 6; i++) {
    piece->tensor.shape[i] = (int64_t)ckpt_json_item_u64(source, shape, i);
    piece->tensor.ndim = (uint32_t)i + 1;
  }
  piece->offset = ckpt_json_get_u64(source, item, "offset");
  piece->begin = ckpt_json_get_u64(source, item, "begin");
  piece->count = ckpt_json_get_u64(source, item, "count");
  piece->crc32c = ckpt_json_get_hex32(source, item, "crc32c");
}

static void read_record(ckpt_json *source, const json_t *root, ckpt_manifest *manifest, told_list *told) {
  /* A rank without pieces has no shard. */
  if (json_is_null(json_object_get(root, "shard"))) return;
  const json_t *shard = ckpt_json_get_object(source, root, "shard");
  const json_t *pieces = ckpt_json_get_array(source, root, "pieces");
  if (source->status != TR_OK) return;
  ckpt_shard *made = &manifest->shards[manifest->shard_count++];
  made->name = copy_text(source, manifest->arena, ckpt_json_get_text(source, shard, "name"));
  made->bytes = ckpt_json_get_u64(source, shard, "bytes");
  made->header_bytes = ckpt_json_get_u64(source, shard, "header_bytes");
  made->header_crc32c = ckpt_json_get_hex32(source, shard, "header_crc32c");
  for (size_t i = 0; i < json_array_size(pieces) && source->status == TR_OK; i++) {
    read_piece(source, json_array_get(pieces, i), manifest, made->name, &told->pieces[told->count++]);
  }
}

/* All records, parsed; the sum of their pieces in *piece_count. */
static void parse_records(ckpt_json *source, const char *const *records, size_t record_count, json_t **roots,
                          size_t *piece_count) {
  char object[48];
  const char *outer = source->object;
  for (size_t i = 0; i < record_count && source->status == TR_OK; i++) {
    snprintf(object, sizeof object, "the record of rank %zu", i);
    source->object = object;
    const size_t bytes = strlen(records[i]);
    if (bytes > MANIFEST_BYTES_MAX) {
      ckpt_json_fail(source, "larger than a manifest may be");
    } else {
      roots[i] = ckpt_json_parse(source, records[i], bytes);
    }
    *piece_count += json_array_size(json_object_get(roots[i], "pieces"));
  }
  source->object = outer;
}

static int shard_order(const void *a, const void *b) {
  return strcmp(((const ckpt_shard *)a)->name, ((const ckpt_shard *)b)->name);
}

static int piece_order(const void *a, const void *b) {
  const told_piece *x = a, *y = b;
  const int names = strcmp(x->tensor.name, y->tensor.name);
  if (names != 0) return names;
  if (x->begin != y->begin) return x->begin < y->begin ? -1 : 1;
  /* An empty piece goes before the one that begins at the same element. */
  return x->count < y->count ? -1 : x->count > y->count;
}

static bool same_tensor(const tr_ckpt_tensor *a, const tr_ckpt_tensor *b) {
  return a->dtype == b->dtype && a->ndim == b->ndim && memcmp(a->shape, b->shape, sizeof a->shape) == 0;
}

static uint32_t shard_number(const ckpt_manifest *manifest, const char *name) {
  const ckpt_shard wanted = {.name = name};
  const ckpt_shard *found = bsearch(&wanted, manifest->shards, manifest->shard_count, sizeof *manifest->shards,
                                    shard_order);
  return found != NULL ? (uint32_t)(found - manifest->shards) : UINT32_MAX;
}

static void number_pieces(ckpt_json *source, told_list *told, ckpt_manifest *manifest) {
  if (manifest->shard_count > 0) {
    qsort(manifest->shards, manifest->shard_count, sizeof *manifest->shards, shard_order);
  }
  if (told->count > 0) qsort(told->pieces, told->count, sizeof *told->pieces, piece_order);
  for (size_t i = 0; i < told->count && source->status == TR_OK; i++) {
    const told_piece *piece = &told->pieces[i];
    const bool new_tensor = i == 0 || strcmp(told->pieces[i - 1].tensor.name, piece->tensor.name) != 0;
    if (new_tensor) {
      manifest->tensors[manifest->tensor_count++] = piece->tensor;
    } else if (!same_tensor(&told->pieces[i - 1].tensor, &piece->tensor)) {
      ckpt_json_fail(source, "tensor '%s' has not the same dtype and shape on all ranks", piece->tensor.name);
    }
    manifest->pieces[manifest->piece_count++] = (ckpt_piece){.tensor = (uint32_t)manifest->tensor_count - 1,
                                                             .shard = shard_number(manifest, piece->shard),
                                                             .offset = piece->offset,
                                                             .begin = piece->begin,
                                                             .count = piece->count,
                                                             .crc32c = piece->crc32c};
  }
}

static void join(ckpt_json *source, json_t **roots, size_t record_count, size_t piece_count, ckpt_manifest *manifest) {
  told_list told = {.pieces = tr_arena_alloc(manifest->arena, (piece_count + 1) * sizeof *told.pieces)};
  manifest->shards = tr_arena_alloc(manifest->arena, (record_count + 1) * sizeof(ckpt_shard));
  manifest->tensors = tr_arena_alloc(manifest->arena, (piece_count + 1) * sizeof(tr_ckpt_tensor));
  manifest->pieces = tr_arena_alloc(manifest->arena, (piece_count + 1) * sizeof(ckpt_piece));
  if (told.pieces == NULL || manifest->shards == NULL || manifest->tensors == NULL || manifest->pieces == NULL) {
    source->status = tr_fail_memory(source->error, "a manifest", piece_count * sizeof *told.pieces);
    return;
  }
  for (size_t i = 0; i < record_count && source->status == TR_OK; i++) read_record(source, roots[i], manifest, &told);
  if (source->status == TR_OK) number_pieces(source, &told, manifest);
  if (source->status == TR_OK) ckpt_manifest_check(manifest, source);
}

tr_status ckpt_manifest_join(const tr_allocator *allocator, const tr_ckpt_meta *meta, const char *const *records,
                             size_t record_count, ckpt_manifest *manifest, tr_error *error) {
  *manifest = (ckpt_manifest){.meta = *meta};
  ckpt_json source = {.object = "checkpoint", .failure = TR_ERR_INVALID, .error = error};
  json_t **roots = tr_calloc(allocator, record_count + 1, sizeof *roots);
  if (roots == NULL) return tr_fail_memory(error, "a manifest", record_count * sizeof *roots);
  size_t piece_count = 0;
  parse_records(&source, records, record_count, roots, &piece_count);
  if (source.status == TR_OK) source.status = tr_arena_create(allocator, 64 << 10, &manifest->arena, error);
  if (source.status == TR_OK) join(&source, roots, record_count, piece_count, manifest);
  for (size_t i = 0; i < record_count; i++) json_decref(roots[i]);
  tr_free(allocator, roots);
  if (source.status != TR_OK) ckpt_manifest_fini(manifest);
  return source.status;
}

tr_status tr_ckpt_records_crc32c(const tr_allocator *allocator, const char *const *records, size_t record_count,
                                 const char *without, uint32_t *crc32c, tr_error *error) {
  const tr_ckpt_meta meta = {.struct_bytes = sizeof meta};
  ckpt_manifest manifest;
  TR_TRY(ckpt_manifest_join(allocator, &meta, records, record_count, &manifest, error));
  uint32_t crc = 0;
  /* Pieces are sorted by tensor, tensors by name, and the pieces of a tensor cover it from its first element on. */
  for (size_t i = 0; i < manifest.piece_count; i++) {
    const ckpt_piece *piece = &manifest.pieces[i];
    const char *name = manifest.tensors[piece->tensor].name;
    if (without != NULL && strncmp(name, without, strlen(without)) == 0) continue;
    crc = tr_crc32c_combine(crc, piece->crc32c, piece->bytes);
  }
  ckpt_manifest_fini(&manifest);
  *crc32c = crc;
  return TR_OK;
}
