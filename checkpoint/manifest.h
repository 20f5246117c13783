/* What a manifest says, as a struct: made from the ranks' records or from its text, checked by one function, written by
 * one other. All memory lies in its arena.
 *
 *   shards[]    the files, sorted by name; each is a header and then its pieces, back to back, to the last byte
 *   tensors[]   sorted by name
 *   pieces[]    sorted by tensor and first element; together the pieces of a tensor cover it exactly once
 *   by_place[]  the same pieces sorted by shard and offset */
#ifndef TRAINRUN_CHECKPOINT_MANIFEST_H
#define TRAINRUN_CHECKPOINT_MANIFEST_H

#include <trainrun/checkpoint.h>

#include "json.h"

enum { MANIFEST_BYTES_MAX = 64 << 20, MANIFEST_VERSION = 1, SHARD_NAME_BYTES = 64 };

#define MANIFEST_NAME "manifest.json"

typedef struct ckpt_shard {
  const char *name;
  uint64_t bytes;
  uint64_t header_bytes; /* with its length field: where the first piece begins */
  uint32_t header_crc32c;
  size_t first_place; /* in by_place */
  size_t place_count;
} ckpt_shard;

typedef struct ckpt_piece {
  uint32_t tensor, shard;
  uint64_t begin, count;  /* elements */
  uint64_t offset, bytes; /* in the shard */
  uint32_t crc32c;
} ckpt_piece;

typedef struct ckpt_manifest {
  tr_arena *arena;
  tr_ckpt_meta meta;
  ckpt_shard *shards;
  size_t shard_count;
  tr_ckpt_tensor *tensors;
  size_t tensor_count;
  ckpt_piece *pieces;
  size_t piece_count;
  size_t *first_piece; /* of each tensor, and one past the last */
  ckpt_piece **by_place;
} ckpt_manifest;

void ckpt_manifest_fini(ckpt_manifest *manifest);

/* Fills first_piece, by_place and the shards' places from sorted shards, tensors and pieces, and checks everything that
 * has to hold. Fails with the source's status and in its name. */
tr_status ckpt_manifest_check(ckpt_manifest *manifest, ckpt_json *source);

/* manifest_read.c: from the text of a manifest. `object` is its key. */
tr_status ckpt_manifest_read(const tr_allocator *allocator, const char *text, size_t bytes, const char *object,
                             ckpt_manifest *manifest, tr_error *error);
/* manifest_join.c: from the records of the ranks. */
tr_status ckpt_manifest_join(const tr_allocator *allocator, const tr_ckpt_meta *meta, const char *const *records,
                             size_t record_count, ckpt_manifest *manifest, tr_error *error);
/* manifest_write.c: its text; look at writer->failed. */
void ckpt_manifest_write(const ckpt_manifest *manifest, tr_writer *writer);

/* Of a shape; false where the number of its elements does not fit 2^62 bytes. */
bool ckpt_elements(tr_dtype dtype, uint32_t ndim, const int64_t *shape, uint64_t *elements);
bool ckpt_dtype_of(const char *name, tr_dtype *dtype);
/* The bytes of all pieces, at most `limit`: what a buffer for runs of them needs. At least 1. */
size_t ckpt_data_bytes(const ckpt_manifest *manifest, size_t limit);
/* "f32 [3, 4]" for messages. */
void ckpt_describe_shape(char text[160], tr_dtype dtype, uint32_t ndim, const int64_t *shape);

/* prefix + "/" + the formatted rest; TR_ERR_INVALID where that is too long for a key. */
tr_status ckpt_key(char key[TR_KEY_BYTES], tr_error *error, const char *prefix, const char *format, ...)
    TR_PRINTF(4, 5);
/* The n of "step-<n>" where `name` (of `bytes` bytes) is such a name. */
bool ckpt_step_of(const char *name, size_t bytes, uint64_t *step);

#endif
