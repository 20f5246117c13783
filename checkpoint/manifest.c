/* The rules a manifest must keep, and small things its readers and writers share. */
#include "manifest.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void ckpt_manifest_fini(ckpt_manifest *manifest) {
  tr_arena_destroy(manifest->arena);
  *manifest = (ckpt_manifest){0};
}

bool ckpt_dtype_of(const char *name, tr_dtype *dtype) {
  for (int i = TR_F32; i <= TR_F64; i++) {
    if (strcmp(tr_dtype_name((tr_dtype)i), name) == 0) {
      *dtype = (tr_dtype)i;
      return true;
    }
  }
  return false;
}

bool ckpt_elements(tr_dtype dtype, uint32_t ndim, const int64_t *shape, uint64_t *elements) {
  if (tr_dtype_bytes(dtype) == 0 || ndim > 6) return false;
  uint64_t product = 1;
  bool empty = false;
  for (uint32_t i = 0; i < ndim; i++) {
    if (shape[i] < 0) return false;
    if (shape[i] == 0) {
      empty = true;
    } else if (__builtin_mul_overflow(product, (uint64_t)shape[i], &product)) {
      return false;
    }
  }
  if (product > (1ull << 62) / tr_dtype_bytes(dtype)) return false;
  *elements = empty ? 0 : product;
  return true;
}

size_t ckpt_data_bytes(const ckpt_manifest *manifest, size_t limit) {
  size_t bytes = 1;
  for (size_t i = 0; i < manifest->piece_count; i++) {
    if (manifest->pieces[i].bytes >= limit - bytes) return limit;
    bytes += (size_t)manifest->pieces[i].bytes;
  }
  return bytes;
}

void ckpt_describe_shape(char text[160], tr_dtype dtype, uint32_t ndim, const int64_t *shape) {
  size_t at = (size_t)snprintf(text, 160, "%s [", tr_dtype_name(dtype));
  for (uint32_t i = 0; i < ndim && i < 6; i++) {
    at += (size_t)snprintf(text + at, 160 - at, i == 0 ? "%lld" : ", %lld", (long long)shape[i]);
  }
  snprintf(text + at, 160 - at, "]");
}

tr_status ckpt_key(char key[TR_KEY_BYTES], tr_error *error, const char *prefix, const char *format, ...) {
  size_t length = strlen(prefix);
  while (length > 0 && prefix[length - 1] == '/') length--;
  if (length + 2 < TR_KEY_BYTES) {
    memcpy(key, prefix, length);
    if (length > 0) key[length++] = '/';
    va_list arguments;
    va_start(arguments, format);
    const int added = vsnprintf(key + length, TR_KEY_BYTES - length, format, arguments);
    va_end(arguments);
    if (added >= 0 && (size_t)added < TR_KEY_BYTES - length) return TR_OK;
  }
  return tr_fail(error, TR_ERR_INVALID, "checkpoint: the key below '%.60s…' is too long", prefix);
}

bool ckpt_step_of(const char *name, size_t bytes, uint64_t *step) {
  const size_t prefix_bytes = strlen("step-");
  if (bytes <= prefix_bytes || bytes > prefix_bytes + 18 || memcmp(name, "step-", prefix_bytes) != 0) return false;
  if (name[prefix_bytes] == '0' && bytes > prefix_bytes + 1) return false;
  uint64_t number = 0;
  for (size_t i = prefix_bytes; i < bytes; i++) {
    if (name[i] < '0' || name[i] > '9') return false;
    number = number * 10 + (uint64_t)(name[i] - '0');
  }
  *step = number;
  return true;
}

static void check_shards(ckpt_manifest *manifest, ckpt_json *source) {
  for (size_t i = 0; i < manifest->shard_count; i++) {
    const ckpt_shard *shard = &manifest->shards[i];
    const size_t length = strlen(shard->name);
    if (length == 0 || length >= SHARD_NAME_BYTES || strchr(shard->name, '/') != NULL || shard->name[0] == '.' ||
        strcmp(shard->name, MANIFEST_NAME) == 0) {
      ckpt_json_fail(source, "'%.80s' is no name for a shard", shard->name);
    }
    if (i > 0 && strcmp(manifest->shards[i - 1].name, shard->name) >= 0) {
      ckpt_json_fail(source, "shard '%s' is there twice or out of order", shard->name);
    }
    if (shard->header_bytes < 8 || shard->header_bytes > shard->bytes || shard->bytes > 1ull << 62) {
      ckpt_json_fail(source, "the sizes of shard '%s' cannot be", shard->name);
    }
  }
}

static void check_piece(const ckpt_manifest *manifest, const ckpt_piece *piece, ckpt_json *source) {
  const tr_ckpt_tensor *tensor = &manifest->tensors[piece->tensor];
  if (piece->shard >= manifest->shard_count) {
    ckpt_json_fail(source, "tensor '%s': a piece lies in shard %u, which there is not", tensor->name, piece->shard);
    return;
  }
  const ckpt_shard *shard = &manifest->shards[piece->shard];
  if (piece->offset < shard->header_bytes || piece->offset > shard->bytes ||
      piece->bytes > shard->bytes - piece->offset) {
    ckpt_json_fail(source, "tensor '%s': a piece at byte %llu lies outside of %s", tensor->name,
                   (unsigned long long)piece->offset, shard->name);
  }
}

/* The pieces of a tensor follow each other from element 0 to the last. Sets first_piece and the pieces' bytes. */
static void check_tensors(ckpt_manifest *manifest, ckpt_json *source) {
  size_t at = 0;
  for (size_t t = 0; t < manifest->tensor_count && source->status == TR_OK; t++) {
    const tr_ckpt_tensor *tensor = &manifest->tensors[t];
    uint64_t elements = 0, next = 0;
    if (tensor->name[0] == '\0' || strlen(tensor->name) >= TR_TENSOR_NAME_BYTES) {
      ckpt_json_fail(source, "a tensor's name is empty or too long");
    }
    if (t > 0 && strcmp(manifest->tensors[t - 1].name, tensor->name) >= 0) {
      ckpt_json_fail(source, "tensor '%s' is there twice or out of order", tensor->name);
    }
    if (!ckpt_elements(tensor->dtype, tensor->ndim, tensor->shape, &elements)) {
      ckpt_json_fail(source, "tensor '%s' has a shape that cannot be", tensor->name);
    }
    manifest->first_piece[t] = at;
    for (; at < manifest->piece_count && manifest->pieces[at].tensor == t; at++) {
      ckpt_piece *piece = &manifest->pieces[at];
      if (piece->begin != next || piece->count > elements - next) {
        ckpt_json_fail(source, "tensor '%s': element %llu is saved twice or not at all", tensor->name,
                       (unsigned long long)(piece->begin < next ? piece->begin : next));
        return;
      }
      next += piece->count;
      piece->bytes = piece->count * tr_dtype_bytes(tensor->dtype);
      check_piece(manifest, piece, source);
    }
    if (next != elements) {
      ckpt_json_fail(source, "tensor '%s': element %llu is not saved", tensor->name, (unsigned long long)next);
    }
  }
  manifest->first_piece[manifest->tensor_count] = at;
  if (at != manifest->piece_count) ckpt_json_fail(source, "a piece belongs to no tensor");
}

static int by_place(const void *a, const void *b) {
  const ckpt_piece *x = *(ckpt_piece *const *)a, *y = *(ckpt_piece *const *)b;
  if (x->shard != y->shard) return x->shard < y->shard ? -1 : 1;
  if (x->offset != y->offset) return x->offset < y->offset ? -1 : 1;
  return x->bytes < y->bytes ? -1 : x->bytes > y->bytes;
}

/* Every byte of a shard belongs to its header or to exactly one piece. */
static void check_places(ckpt_manifest *manifest, ckpt_json *source) {
  for (size_t i = 0; i < manifest->piece_count; i++) manifest->by_place[i] = &manifest->pieces[i];
  if (manifest->piece_count > 0) {
    qsort(manifest->by_place, manifest->piece_count, sizeof *manifest->by_place, by_place);
  }
  size_t at = 0;
  for (size_t s = 0; s < manifest->shard_count && source->status == TR_OK; s++) {
    ckpt_shard *shard = &manifest->shards[s];
    uint64_t end = shard->header_bytes;
    shard->first_place = at;
    for (; at < manifest->piece_count && manifest->by_place[at]->shard == s; at++) {
      if (manifest->by_place[at]->offset != end) break;
      end += manifest->by_place[at]->bytes;
    }
    shard->place_count = at - shard->first_place;
    if (end != shard->bytes) {
      ckpt_json_fail(source, "byte %llu of %s belongs to no piece, or to two", (unsigned long long)end, shard->name);
    }
  }
  if (at != manifest->piece_count) ckpt_json_fail(source, "pieces lie over each other in a shard");
}

tr_status ckpt_manifest_check(ckpt_manifest *manifest, ckpt_json *source) {
  manifest->first_piece = tr_arena_alloc(manifest->arena, (manifest->tensor_count + 1) * sizeof(size_t));
  manifest->by_place = tr_arena_alloc(manifest->arena, (manifest->piece_count + 1) * sizeof(ckpt_piece *));
  if (manifest->first_piece == NULL || manifest->by_place == NULL) {
    source->status = tr_fail_memory(source->error, "a manifest", manifest->piece_count * sizeof(ckpt_piece *));
    return source->status;
  }
  check_shards(manifest, source);
  if (source->status == TR_OK) check_tensors(manifest, source);
  if (source->status == TR_OK) check_places(manifest, source);
  return source->status;
}
