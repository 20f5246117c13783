/* Opening a checkpoint: its manifest is read and checked whole; shards are touched only by reading. */
#include <string.h>

#include "checkpoint.h"

/* A folder named step-<n> holds step n: manifests that changed places do not pass. */
static tr_status check_step(const tr_ckpt *ckpt, tr_error *error) {
  const char *slash = strrchr(ckpt->folder, '/');
  const char *name = slash != NULL ? slash + 1 : ckpt->folder;
  uint64_t step = 0;
  if (!ckpt_step_of(name, strlen(name), &step) || step == ckpt->manifest.meta.step) return TR_OK;
  return tr_fail(error, TR_ERR_CORRUPT, "%s/" MANIFEST_NAME " is of step %llu", ckpt->folder,
                 (unsigned long long)ckpt->manifest.meta.step);
}

static tr_status manifest_key(tr_ckpt *ckpt, const char *folder, char key[TR_KEY_BYTES], tr_error *error) {
  TR_TRY(ckpt_key(key, error, folder, MANIFEST_NAME));
  /* The folder without slashes at its end: the key without what was added. */
  const char *end = strrchr(key, '/');
  if (end != NULL) memcpy(ckpt->folder, key, (size_t)(end - key));
  return TR_OK;
}

static tr_status read_text(tr_ckpt *ckpt, const char *key, tr_error *error) {
  void *text = NULL;
  const tr_status status = tr_store_get_all(ckpt->store, ckpt->allocator, key, MANIFEST_BYTES_MAX, &text,
                                            &ckpt->text_bytes, error);
  /* The size is the only thing a get_all finds invalid here. */
  if (status == TR_ERR_INVALID) return tr_fail(error, TR_ERR_CORRUPT, "%s is larger than 64 MiB", key);
  if (status == TR_OK) ckpt->text = text;
  return status;
}

/* What rank 0 tells before the text: how its reading went, and the length. */
typedef struct text_head {
  tr_error error;
  uint64_t bytes;
} text_head;

static tr_status share_text(tr_ckpt *ckpt, const char *key, const tr_ckpt_exchange *exchange, tr_error *error) {
  text_head head = {.error = {.status = TR_OK, .rank = -1}};
  if (exchange->rank == 0) {
    head.error.status = read_text(ckpt, key, &head.error);
    head.bytes = ckpt->text_bytes;
  }
  TR_TRY(exchange->broadcast(exchange->self, &head, sizeof head, 0, error));
  if (head.error.status != TR_OK) {
    if (error != NULL) *error = head.error;
    return head.error.status;
  }
  if (exchange->rank != 0) {
    ckpt->text_bytes = (size_t)head.bytes;
    ckpt->text = tr_calloc(ckpt->allocator, 1, ckpt->text_bytes + 1);
    if (ckpt->text == NULL) return tr_fail_memory(error, "a manifest", ckpt->text_bytes);
  }
  return exchange->broadcast(exchange->self, ckpt->text, ckpt->text_bytes, 0, error);
}

tr_status tr_ckpt_open_together(const tr_allocator *allocator, tr_store *store, const char *folder,
                                const tr_ckpt_exchange *exchange, tr_ckpt **out, tr_error *error) {
  char key[TR_KEY_BYTES];
  tr_ckpt *ckpt = tr_calloc(allocator, 1, sizeof *ckpt);
  if (ckpt == NULL) return tr_fail_memory(error, "a checkpoint", sizeof *ckpt);
  ckpt->allocator = allocator;
  ckpt->store = store;
  tr_status status = manifest_key(ckpt, folder, key, error);
  if (status == TR_OK) {
    status = exchange != NULL && exchange->size > 1 ? share_text(ckpt, key, exchange, error)
                                                    : read_text(ckpt, key, error);
  }
  if (status == TR_OK) {
    status = ckpt_manifest_read(ckpt->allocator, ckpt->text, ckpt->text_bytes, key, &ckpt->manifest, error);
  }
  if (status == TR_OK) status = check_step(ckpt, error);
  if (status != TR_OK) {
    tr_ckpt_close(ckpt);
    return status;
  }
  *out = ckpt;
  return TR_OK;
}

tr_status tr_ckpt_open(const tr_allocator *allocator, tr_store *store, const char *folder, tr_ckpt **out,
                       tr_error *error) {
  return tr_ckpt_open_together(allocator, store, folder, NULL, out, error);
}

void tr_ckpt_close(tr_ckpt *ckpt) {
  if (ckpt == NULL) return;
  ckpt_manifest_fini(&ckpt->manifest);
  tr_free(ckpt->allocator, ckpt->text);
  tr_free(ckpt->allocator, ckpt);
}

const tr_ckpt_meta *tr_ckpt_describe(const tr_ckpt *ckpt) { return &ckpt->manifest.meta; }

uint64_t tr_ckpt_bytes(const tr_ckpt *ckpt) {
  uint64_t bytes = 0;
  for (size_t i = 0; i < ckpt->manifest.shard_count; i++) bytes += ckpt->manifest.shards[i].bytes;
  return bytes;
}

size_t tr_ckpt_tensors(const tr_ckpt *ckpt, const tr_ckpt_tensor **tensors) {
  if (tensors != NULL) *tensors = ckpt->manifest.tensors;
  return ckpt->manifest.tensor_count;
}

tr_status ckpt_fail_piece(const tr_ckpt *ckpt, const ckpt_piece *piece, tr_error *error) {
  const tr_ckpt_tensor *tensor = &ckpt->manifest.tensors[piece->tensor];
  return tr_fail(error, TR_ERR_CORRUPT,
                 "%s/%s is corrupt: the %llu bytes at byte %llu (tensor '%s', elements %llu to %llu) do not have their "
                 "CRC32C",
                 ckpt->folder, ckpt->manifest.shards[piece->shard].name, (unsigned long long)piece->bytes,
                 (unsigned long long)piece->offset, tensor->name, (unsigned long long)piece->begin,
                 (unsigned long long)(piece->begin + piece->count));
}

tr_status ckpt_check_read(const tr_ckpt *ckpt, const ckpt_shard *shard, uint64_t offset, size_t wanted, size_t got,
                          tr_status status, tr_error *error) {
  if (status == TR_ERR_NOT_FOUND) {
    return tr_fail(error, TR_ERR_CORRUPT, "%s/%s is missing, though the manifest is there", ckpt->folder, shard->name);
  }
  if (status == TR_OK && got != wanted) {
    return tr_fail(error, TR_ERR_CORRUPT, "%s/%s is truncated: it ends at byte %llu of %llu", ckpt->folder, shard->name,
                   (unsigned long long)(offset + got), (unsigned long long)shard->bytes);
  }
  return status;
}
