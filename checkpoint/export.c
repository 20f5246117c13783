/* Exporting: a checkpoint's tensors, put together from their pieces, as plain safetensors files in the layout of Hugging
 * Face: one file, or several and an index that is written last. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "safetensors.h"
#include "stream.h"

enum { FILE_NAME_BYTES = 64, FILES_MAX = 99999 };

static const uint64_t default_file_bytes = 5000000000u;

typedef struct export_file {
  size_t first, count; /* of the plan's tensors */
  uint64_t bytes;      /* of their data */
} export_file;

typedef struct export_plan {
  tr_ckpt *ckpt;
  tr_arena *arena;
  uint32_t *tensors; /* numbers in the manifest, file by file, in a file the widest elements first */
  size_t tensor_count;
  export_file *files;
  size_t file_count;
  uint64_t bytes;
  ckpt_piece **pieces; /* room for those of one file */
} export_plan;

static uint64_t tensor_bytes(const ckpt_manifest *manifest, uint32_t t) {
  const tr_ckpt_tensor *tensor = &manifest->tensors[t];
  uint64_t elements = 0;
  ckpt_elements(tensor->dtype, tensor->ndim, tensor->shape, &elements);
  return elements * tr_dtype_bytes(tensor->dtype);
}

/* Wide elements first, so that each tensor is aligned for its type; within a width by name, as they stand in the manifest. */
static int by_width(const void *a, const void *b, void *self) {
  const ckpt_manifest *manifest = self;
  const uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
  const size_t left = tr_dtype_bytes(manifest->tensors[x].dtype), right = tr_dtype_bytes(manifest->tensors[y].dtype);
  if (left != right) return left > right ? -1 : 1;
  return x < y ? -1 : x > y;
}

static tr_status plan_export(export_plan *plan, const tr_ckpt_export_options *options, tr_error *error) {
  ckpt_manifest *manifest = &plan->ckpt->manifest;
  const uint64_t limit = options->file_bytes != 0 ? options->file_bytes : default_file_bytes;
  const size_t skipped = options->without != NULL ? strlen(options->without) : 0;
  plan->tensors = tr_arena_alloc(plan->arena, (manifest->tensor_count + 1) * sizeof *plan->tensors);
  plan->files = tr_arena_alloc(plan->arena, (manifest->tensor_count + 1) * sizeof *plan->files);
  plan->pieces = tr_arena_alloc(plan->arena, (manifest->piece_count + 1) * sizeof(ckpt_piece *));
  if (plan->tensors == NULL || plan->files == NULL || plan->pieces == NULL) {
    return tr_fail_memory(error, "an export", manifest->piece_count * sizeof(ckpt_piece *));
  }
  plan->files[0] = (export_file){0};
  plan->file_count = 1;
  for (uint32_t t = 0; t < manifest->tensor_count; t++) {
    if (skipped > 0 && strncmp(manifest->tensors[t].name, options->without, skipped) == 0) continue;
    const uint64_t bytes = tensor_bytes(manifest, t);
    export_file *file = &plan->files[plan->file_count - 1];
    if (file->count > 0 && (file->bytes >= limit || bytes > limit - file->bytes)) {
      file = &plan->files[plan->file_count++];
      *file = (export_file){.first = plan->tensor_count};
    }
    plan->tensors[plan->tensor_count++] = t;
    file->count++;
    file->bytes += bytes;
    plan->bytes += bytes;
  }
  if (plan->tensor_count == 0) {
    return tr_fail(error, TR_ERR_NOT_FOUND, "%s has no tensor to export", plan->ckpt->folder);
  }
  if (plan->file_count > FILES_MAX) {
    return tr_fail(error, TR_ERR_INVALID, "exporting %s: more than %d files", plan->ckpt->folder, FILES_MAX);
  }
  for (size_t i = 0; i < plan->file_count; i++) {
    uint32_t *first = plan->tensors + plan->files[i].first;
    qsort_r(first, plan->files[i].count, sizeof *first, by_width, manifest);
  }
  return TR_OK;
}

static void file_name(const export_plan *plan, size_t i, char name[FILE_NAME_BYTES]) {
  if (plan->file_count == 1) {
    snprintf(name, FILE_NAME_BYTES, "model.safetensors");
  } else {
    snprintf(name, FILE_NAME_BYTES, "model-%05zu-of-%05zu.safetensors", i + 1, plan->file_count);
  }
}

/* "pt" is what readers of this layout ask for: elements lie as PyTorch has them. */
static tr_status write_header(const export_plan *plan, const export_file *file, tr_writer *header, tr_error *error) {
  const ckpt_manifest *manifest = &plan->ckpt->manifest;
  safetensors_entry *entries = tr_calloc(plan->ckpt->allocator, file->count, sizeof *entries);
  if (entries == NULL) return tr_fail_memory(error, "a header", file->count * sizeof *entries);
  uint64_t at = 0;
  for (size_t i = 0; i < file->count; i++) {
    const uint32_t t = plan->tensors[file->first + i];
    const tr_ckpt_tensor *tensor = &manifest->tensors[t];
    entries[i] = (safetensors_entry){.name = tensor->name, .dtype = tensor->dtype, .ndim = tensor->ndim, .begin = at};
    memcpy(entries[i].shape, tensor->shape, sizeof entries[i].shape);
    at += tensor_bytes(manifest, t);
    entries[i].end = at;
  }
  ckpt_safetensors_write(header, "{\"format\":\"pt\"}", entries, file->count);
  tr_free(plan->ckpt->allocator, entries);
  if (header->failed) return tr_fail_memory(error, "a header", header->bytes);
  if (header->bytes > SAFETENSORS_HEADER_MAX) {
    return tr_fail(error, TR_ERR_INVALID, "exporting %s: more tensors than one header holds", plan->ckpt->folder);
  }
  return TR_OK;
}

/* The pieces of a file's tensors in the order of the file, into the plan's room. */
static size_t list_pieces(const export_plan *plan, const export_file *file) {
  ckpt_manifest *manifest = &plan->ckpt->manifest;
  size_t count = 0;
  for (size_t i = 0; i < file->count; i++) {
    const uint32_t t = plan->tensors[file->first + i];
    for (size_t p = manifest->first_piece[t]; p < manifest->first_piece[t + 1]; p++) {
      plan->pieces[count++] = &manifest->pieces[p];
    }
  }
  return count;
}

static tr_status write_file(const export_plan *plan, size_t i, tr_store *to, const char *folder,
                            const tr_writer *header, tr_error *error) {
  const export_file *file = &plan->files[i];
  char name[FILE_NAME_BYTES];
  ckpt_object object = {0};
  file_name(plan, i, name);
  TR_TRY(ckpt_key(object.key, error, folder, "%s", name));
  TR_TRY(ckpt_object_begin(&object, plan->ckpt->allocator, to, header->bytes + file->bytes, error));
  tr_status status = ckpt_object_write(&object, header->data, header->bytes, error);
  if (status == TR_OK) {
    status = ckpt_stream_pieces(plan->ckpt, plan->pieces, list_pieces(plan, file), ckpt_object_write, &object, error);
  }
  return ckpt_object_end(&object, status, error);
}

static tr_status write_index(const export_plan *plan, tr_store *to, const char *folder, tr_error *error) {
  char key[TR_KEY_BYTES], name[FILE_NAME_BYTES];
  TR_TRY(ckpt_key(key, error, folder, "model.safetensors.index.json"));
  tr_writer text;
  tr_writer_init(&text, plan->ckpt->allocator);
  tr_write_text(&text, "{\n  \"metadata\": {\"total_size\": %llu},\n  \"weight_map\": {",
                (unsigned long long)plan->bytes);
  const char *separator = "\n    ";
  for (size_t i = 0; i < plan->file_count; i++) {
    file_name(plan, i, name);
    for (size_t t = 0; t < plan->files[i].count; t++, separator = ",\n    ") {
      tr_write_text(&text, "%s", separator);
      tr_write_json_string(&text, plan->ckpt->manifest.tensors[plan->tensors[plan->files[i].first + t]].name);
      tr_write_text(&text, ": \"%s\"", name);
    }
  }
  tr_write_text(&text, "\n  }\n}\n");
  const tr_status status = text.failed ? tr_fail_memory(error, "an index", text.bytes)
                                       : tr_store_put(to, key, text.data, text.bytes, false, error);
  tr_writer_fini(&text);
  return status;
}

tr_status tr_ckpt_export(tr_ckpt *ckpt, tr_store *to, const char *to_folder, const tr_ckpt_export_options *options,
                         tr_error *error) {
  if (options == NULL || options->struct_bytes != sizeof *options) {
    return tr_fail(error, TR_ERR_INVALID, "checkpoint: the options of an export are of another version");
  }
  export_plan plan = {.ckpt = ckpt};
  TR_TRY(tr_arena_create(ckpt->allocator, 64 << 10, &plan.arena, error));
  tr_status status = plan_export(&plan, options, error);
  for (size_t i = 0; i < plan.file_count && status == TR_OK; i++) {
    tr_writer header;
    tr_writer_init(&header, ckpt->allocator);
    status = write_header(&plan, &plan.files[i], &header, error);
    if (status == TR_OK) status = write_file(&plan, i, to, to_folder, &header, error);
    tr_writer_fini(&header);
  }
  if (status == TR_OK && plan.file_count > 1) status = write_index(&plan, to, to_folder, error);
  tr_arena_destroy(plan.arena);
  return status;
}
