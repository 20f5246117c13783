/* The header of a safetensors file: a u64 (little-endian) with the length of a JSON object, then that object, padded with
 * spaces so that the data begin at a multiple of 64 bytes.
 *
 * The object maps a name to {dtype, shape, data_offsets: [begin, end)} relative to the first byte behind it. Data lie back
 * to back in the order of the entries. */
#ifndef TRAINRUN_CHECKPOINT_SAFETENSORS_H
#define TRAINRUN_CHECKPOINT_SAFETENSORS_H

#include <trainrun/checkpoint.h>

#include "json.h"

enum { SAFETENSORS_HEADER_MAX = 100 << 20, SAFETENSORS_ALIGN = 64, SAFETENSORS_NAME_BYTES = TR_TENSOR_NAME_BYTES + 48 };

typedef struct safetensors_entry {
  const char *name;
  tr_dtype dtype;
  uint32_t ndim;
  int64_t shape[6];
  uint64_t begin, end; /* bytes behind the header */
} safetensors_entry;

/* The name and shape a piece has in its shard: its tensor's where it is whole, else "name[begin:end]" and one
 * dimension. */
void ckpt_safetensors_name(char name[SAFETENSORS_NAME_BYTES], const tr_ckpt_tensor *tensor, uint64_t begin,
                           uint64_t count, safetensors_entry *entry);

/* Appends the whole header; `metadata` is a JSON object of strings. */
void ckpt_safetensors_write(tr_writer *writer, const char *metadata, const safetensors_entry *entries, size_t count);

/* The JSON behind the length field; `data_bytes` lie behind it. Entries come sorted by offset, in the arena. */
tr_status ckpt_safetensors_read(tr_arena *arena, ckpt_json *source, const char *text, size_t bytes, uint64_t data_bytes,
                                safetensors_entry **entries, size_t *count);

#endif
