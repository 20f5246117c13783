/* Writing and reading safetensors headers; see safetensors.h. */
#include "safetensors.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "manifest.h"

static const struct {
  const char *name;
  tr_dtype dtype;
} dtypes[] = {{"F32", TR_F32}, {"BF16", TR_BF16}, {"I32", TR_I32}, {"U16", TR_U16},
              {"U8", TR_U8},   {"I64", TR_I64},   {"F64", TR_F64}};

static const char *dtype_name(tr_dtype dtype) {
  for (size_t i = 0; i < sizeof dtypes / sizeof *dtypes; i++) {
    if (dtypes[i].dtype == dtype) return dtypes[i].name;
  }
  return "U8";
}

void ckpt_safetensors_name(char name[SAFETENSORS_NAME_BYTES], const tr_ckpt_tensor *tensor, uint64_t begin,
                           uint64_t count, safetensors_entry *entry) {
  uint64_t elements = 0;
  ckpt_elements(tensor->dtype, tensor->ndim, tensor->shape, &elements);
  entry->name = name;
  entry->dtype = tensor->dtype;
  memset(entry->shape, 0, sizeof entry->shape);
  if (begin == 0 && count == elements) {
    snprintf(name, SAFETENSORS_NAME_BYTES, "%s", tensor->name);
    entry->ndim = tensor->ndim;
    memcpy(entry->shape, tensor->shape, sizeof entry->shape);
  } else {
    snprintf(name, SAFETENSORS_NAME_BYTES, "%s[%llu:%llu]", tensor->name, (unsigned long long)begin,
             (unsigned long long)(begin + count));
    entry->ndim = 1;
    entry->shape[0] = (int64_t)count;
  }
}

void ckpt_safetensors_write(tr_writer *writer, const char *metadata, const safetensors_entry *entries, size_t count) {
  const size_t start = writer->bytes;
  tr_write_u64le(writer, 0);
  tr_write_text(writer, "{\"__metadata__\":%s", metadata);
  for (size_t i = 0; i < count; i++) {
    tr_write_text(writer, ",");
    tr_write_json_string(writer, entries[i].name);
    tr_write_text(writer, ":{\"dtype\":\"%s\",\"shape\":[", dtype_name(entries[i].dtype));
    for (uint32_t d = 0; d < entries[i].ndim; d++) {
      tr_write_text(writer, d == 0 ? "%lld" : ",%lld", (long long)entries[i].shape[d]);
    }
    tr_write_text(writer, "],\"data_offsets\":[%llu,%llu]}", (unsigned long long)entries[i].begin,
                  (unsigned long long)entries[i].end);
  }
  tr_write_text(writer, "}");
  while (!writer->failed && (writer->bytes - start) % SAFETENSORS_ALIGN != 0) tr_write_u8(writer, ' ');
  if (writer->failed) return;
  const uint64_t length = writer->bytes - start - 8;
  for (int i = 0; i < 8; i++) writer->data[start + (size_t)i] = (uint8_t)(length >> (8 * i));
}

static void read_entry(ckpt_json *source, const char *name, const json_t *item, tr_arena *arena,
                       safetensors_entry *entry) {
  entry->name = tr_arena_strdup(arena, name);
  if (entry->name == NULL) source->status = tr_fail_memory(source->error, "a header", strlen(name));
  const char *dtype = ckpt_json_get_text(source, item, "dtype");
  size_t d = 0;
  while (d < sizeof dtypes / sizeof *dtypes && strcmp(dtypes[d].name, dtype) != 0) d++;
  if (d == sizeof dtypes / sizeof *dtypes) {
    ckpt_json_fail(source, "'%.80s' has a dtype that is not known here", name);
    return;
  }
  entry->dtype = dtypes[d].dtype;
  const json_t *shape = ckpt_json_get_array(source, item, "shape");
  const json_t *offsets = ckpt_json_get_array(source, item, "data_offsets");
  if (json_array_size(shape) > 6 || json_array_size(offsets) != 2) {
    ckpt_json_fail(source, "'%.80s' has too many dimensions, or not two offsets", name);
    return;
  }
  entry->ndim = (uint32_t)json_array_size(shape);
  for (uint32_t i = 0; i < entry->ndim; i++) entry->shape[i] = (int64_t)ckpt_json_item_u64(source, shape, i);
  entry->begin = ckpt_json_item_u64(source, offsets, 0);
  entry->end = ckpt_json_item_u64(source, offsets, 1);
}

static int by_offset(const void *a, const void *b) {
  const safetensors_entry *x = a, *y = b;
  if (x->begin != y->begin) return x->begin < y->begin ? -1 : 1;
  return x->end < y->end ? -1 : x->end > y->end;
}

/* No holes, no overlaps, and each entry as large as its shape says. */
static void check_entries(ckpt_json *source, const safetensors_entry *entries, size_t count, uint64_t data_bytes) {
  uint64_t at = 0;
  for (size_t i = 0; i < count && source->status == TR_OK; i++) {
    uint64_t elements = 0;
    if (entries[i].begin != at || entries[i].end < at ||
        !ckpt_elements(entries[i].dtype, entries[i].ndim, entries[i].shape, &elements) ||
        elements * tr_dtype_bytes(entries[i].dtype) != entries[i].end - at) {
      ckpt_json_fail(source, "'%.80s' does not lie where and as large as it should", entries[i].name);
    }
    at = entries[i].end;
  }
  if (at != data_bytes) ckpt_json_fail(source, "the tensors end at byte %llu of the data", (unsigned long long)at);
}

tr_status ckpt_safetensors_read(tr_arena *arena, ckpt_json *source, const char *text, size_t bytes, uint64_t data_bytes,
                                safetensors_entry **entries, size_t *count) {
  if (bytes == 0 || text[0] != '{') {
    ckpt_json_fail(source, "the header does not begin with {");
    return source->status;
  }
  json_t *root = ckpt_json_parse(source, text, bytes);
  if (root == NULL) return source->status;
  safetensors_entry *made = tr_arena_alloc(arena, (json_object_size(root) + 1) * sizeof *made);
  if (made == NULL) source->status = tr_fail_memory(source->error, "a header", json_object_size(root) * sizeof *made);
  size_t found = 0;
  const char *name;
  json_t *item;
  json_object_foreach(root, name, item) {
    if (source->status != TR_OK) break;
    if (strcmp(name, "__metadata__") != 0) read_entry(source, name, item, arena, &made[found++]);
  }
  json_decref(root);
  if (source->status != TR_OK) return source->status;
  if (found > 0) qsort(made, found, sizeof *made, by_offset);
  check_entries(source, made, found, data_bytes);
  if (source->status != TR_OK) return source->status;
  *entries = made;
  *count = found;
  return TR_OK;
}
