/* The commit: one manifest, put last and only where none is. */
#include <string.h>

#include "checkpoint.h"

/* Nothing is committed that is not there: a look at each shard's size catches a put that was lost. */
static tr_status check_shards(tr_store *store, const char *folder, const ckpt_manifest *manifest, tr_error *error) {
  for (size_t i = 0; i < manifest->shard_count; i++) {
    const ckpt_shard *shard = &manifest->shards[i];
    char key[TR_KEY_BYTES];
    tr_object_info info;
    TR_TRY(ckpt_key(key, error, folder, "%s", shard->name));
    const tr_status status = tr_store_head(store, key, &info, error);
    if (status != TR_OK) return tr_error_context(error, status, "committing %s", folder);
    if (info.bytes != shard->bytes) {
      return tr_fail(error, TR_ERR_CORRUPT, "committing %s: %s has %llu bytes and should have %llu", folder, key,
                     (unsigned long long)info.bytes, (unsigned long long)shard->bytes);
    }
  }
  return TR_OK;
}

/* A commit may be repeated by one who did not hear of its success. */
static tr_status compare_with_there(const tr_allocator *allocator, tr_store *store, const char *key,
                                    const tr_writer *text, tr_error *error) {
  void *there = NULL;
  size_t bytes = 0;
  TR_TRY(tr_store_get_all(store, allocator, key, MANIFEST_BYTES_MAX, &there, &bytes, error));
  const bool same = bytes == text->bytes && memcmp(there, text->data, bytes) == 0;
  tr_free(allocator, there);
  if (same) return TR_OK;
  return tr_fail(error, TR_ERR_EXISTS, "%s is already there and says something else", key);
}

tr_status ckpt_put_manifest(const tr_allocator *allocator, tr_store *store, const char *folder, const tr_writer *text,
                            tr_error *error) {
  char key[TR_KEY_BYTES];
  TR_TRY(ckpt_key(key, error, folder, MANIFEST_NAME));
  const tr_status status = tr_store_put(store, key, text->data, text->bytes, true, error);
  return status == TR_ERR_EXISTS ? compare_with_there(allocator, store, key, text, error) : status;
}

static tr_status check_json(const char *what, const char *text, tr_error *error) {
  if (text == NULL) return TR_OK;
  json_t *value = json_loads(text, JSON_DECODE_ANY | JSON_REJECT_DUPLICATES, NULL);
  if (value == NULL) return tr_fail(error, TR_ERR_INVALID, "checkpoint: the %s is no JSON", what);
  json_decref(value);
  return TR_OK;
}

static tr_status check_meta(const tr_ckpt_save_options *options, const tr_ckpt_meta *meta, tr_error *error) {
  if (options == NULL || options->struct_bytes != sizeof *options || options->store == NULL ||
      options->prefix == NULL || meta == NULL || meta->struct_bytes != sizeof *meta || meta->step != options->step) {
    return tr_fail(error, TR_ERR_INVALID, "checkpoint: options or meta are of another version, or of different steps");
  }
  const uint64_t largest = INT64_MAX; /* JSON's integers, as its reader knows them */
  if (meta->step > largest || meta->epoch > largest || meta->batch > largest || meta->samples > largest ||
      meta->world_size < 0) {
    return tr_fail(error, TR_ERR_INVALID, "checkpoint: a number of the meta data is out of range");
  }
  TR_TRY(check_json("fingerprint", meta->fingerprint, error));
  TR_TRY(check_json("data lock", meta->data_lock, error));
  return check_json("state", meta->state, error);
}

tr_status tr_ckpt_commit(const tr_ckpt_save_options *options, const tr_ckpt_meta *meta, const char *const *records,
                         size_t record_count, tr_error *error) {
  TR_TRY(check_meta(options, meta, error));
  char folder[TR_KEY_BYTES];
  TR_TRY(ckpt_key(folder, error, options->prefix, "step-%llu", (unsigned long long)options->step));
  ckpt_manifest manifest;
  TR_TRY(ckpt_manifest_join(options->allocator, meta, records, record_count, &manifest, error));
  tr_writer text;
  tr_writer_init(&text, options->allocator);
  ckpt_manifest_write(&manifest, &text);
  tr_status status = TR_OK;
  if (text.failed) {
    status = tr_fail_memory(error, "a manifest", text.bytes);
  } else if (text.bytes > MANIFEST_BYTES_MAX) {
    status = tr_fail(error, TR_ERR_INVALID, "checkpoint: the manifest of %s would be larger than 64 MiB", folder);
  }
  if (status == TR_OK) status = check_shards(options->store, folder, &manifest, error);
  if (status == TR_OK) status = ckpt_put_manifest(options->allocator, options->store, folder, &text, error);
  tr_writer_fini(&text);
  ckpt_manifest_fini(&manifest);
  return status;
}
