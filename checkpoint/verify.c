/* Verifying and copying: every byte of every shard passes by once, in order, and is checked on its way. */
#include <string.h>

#include "safetensors.h"
#include "stream.h"

typedef struct shard_stream {
  tr_ckpt *ckpt;
  const ckpt_shard *shard;
  char key[TR_KEY_BYTES];
  ckpt_sink_fn sink; /* NULL: only verified */
  void *sink_self;
} shard_stream;

static tr_status read_range(const shard_stream *stream, uint64_t offset, void *buffer, size_t bytes, tr_error *error) {
  size_t got = 0;
  const tr_status status = tr_store_get(stream->ckpt->store, stream->key, offset, buffer, bytes, &got, error);
  return ckpt_check_read(stream->ckpt, stream->shard, offset, bytes, got, status, error);
}

/* The header names what the manifest says lies behind it. */
static void compare_entries(const shard_stream *stream, const safetensors_entry *entries, size_t count,
                            ckpt_json *source) {
  const ckpt_manifest *manifest = &stream->ckpt->manifest;
  const ckpt_shard *shard = stream->shard;
  bool same = count == shard->place_count;
  for (size_t i = 0; same && i < count; i++) {
    const ckpt_piece *piece = manifest->by_place[shard->first_place + i];
    same = entries[i].begin + shard->header_bytes == piece->offset && entries[i].end - entries[i].begin == piece->bytes;
    /* Empty tensors share their place, so only the others can be compared by name. */
    if (same && piece->bytes > 0) {
      char name[SAFETENSORS_NAME_BYTES];
      safetensors_entry expected;
      ckpt_safetensors_name(name, &manifest->tensors[piece->tensor], piece->begin, piece->count, &expected);
      same = strcmp(name, entries[i].name) == 0 && expected.dtype == entries[i].dtype;
    }
  }
  if (!same) ckpt_json_fail(source, "the header does not name what the manifest says");
}

static tr_status check_header_text(const shard_stream *stream, const uint8_t *header, tr_error *error) {
  const ckpt_shard *shard = stream->shard;
  ckpt_json source = {.object = stream->key, .failure = TR_ERR_CORRUPT, .error = error};
  tr_reader reader = tr_reader_of(header, 8);
  if (tr_crc32c(0, header, shard->header_bytes) != shard->header_crc32c) {
    ckpt_json_fail(&source, "the %llu bytes at byte 0 (the header) do not have their CRC32C",
                   (unsigned long long)shard->header_bytes);
  } else if (tr_read_u64le(&reader) != shard->header_bytes - 8) {
    ckpt_json_fail(&source, "the header's length at byte 0 is wrong");
  }
  if (source.status != TR_OK) return source.status;
  tr_arena *arena = NULL;
  TR_TRY(tr_arena_create(stream->ckpt->allocator, 64 << 10, &arena, error));
  safetensors_entry *entries = NULL;
  size_t count = 0;
  tr_status status = ckpt_safetensors_read(arena, &source, (const char *)header + 8, (size_t)shard->header_bytes - 8,
                                           shard->bytes - shard->header_bytes, &entries, &count);
  if (status == TR_OK) {
    compare_entries(stream, entries, count, &source);
    status = source.status;
  }
  tr_arena_destroy(arena);
  return status;
}

static tr_status stream_header(const shard_stream *stream, tr_error *error) {
  const ckpt_shard *shard = stream->shard;
  tr_object_info info;
  tr_status status = tr_store_head(stream->ckpt->store, stream->key, &info, error);
  TR_TRY(ckpt_check_read(stream->ckpt, shard, 0, 0, 0, status, error));
  if (info.bytes != shard->bytes) {
    return tr_fail(error, TR_ERR_CORRUPT, "%s has %llu bytes, and the manifest says %llu", stream->key,
                   (unsigned long long)info.bytes, (unsigned long long)shard->bytes);
  }
  if (shard->header_bytes > SAFETENSORS_HEADER_MAX) {
    return tr_fail(error, TR_ERR_CORRUPT, "%s: a header of %llu bytes is too long", stream->key,
                   (unsigned long long)shard->header_bytes);
  }
  uint8_t *header = tr_alloc(stream->ckpt->allocator, (size_t)shard->header_bytes);
  if (header == NULL) return tr_fail_memory(error, "a header", (size_t)shard->header_bytes);
  status = read_range(stream, 0, header, (size_t)shard->header_bytes, error);
  if (status == TR_OK) status = check_header_text(stream, header, error);
  if (status == TR_OK && stream->sink != NULL) {
    status = stream->sink(stream->sink_self, header, (size_t)shard->header_bytes, error);
  }
  tr_free(stream->ckpt->allocator, header);
  return status;
}

static tr_status stream_shard(shard_stream *stream, tr_error *error) {
  const ckpt_shard *shard = stream->shard;
  TR_TRY(ckpt_key(stream->key, error, stream->ckpt->folder, "%s", shard->name));
  TR_TRY(stream_header(stream, error));
  return ckpt_stream_pieces(stream->ckpt, stream->ckpt->manifest.by_place + shard->first_place, shard->place_count,
                            stream->sink, stream->sink_self, error);
}

tr_status tr_ckpt_verify(tr_ckpt *ckpt, tr_error *error) {
  shard_stream stream = {.ckpt = ckpt};
  for (size_t i = 0; i < ckpt->manifest.shard_count; i++) {
    stream.shard = &ckpt->manifest.shards[i];
    TR_TRY(stream_shard(&stream, error));
  }
  return TR_OK;
}

/* ---- Copying ------------------------------------------------------------------------------------------------------- */

static tr_status copy_shards(tr_ckpt *ckpt, tr_store *to, const char *folder, tr_error *error) {
  for (size_t i = 0; i < ckpt->manifest.shard_count; i++) {
    const ckpt_shard *shard = &ckpt->manifest.shards[i];
    ckpt_object object = {0};
    shard_stream stream = {.ckpt = ckpt, .shard = shard, .sink = ckpt_object_write, .sink_self = &object};
    TR_TRY(ckpt_key(object.key, error, folder, "%s", shard->name));
    TR_TRY(ckpt_object_begin(&object, ckpt->allocator, to, shard->bytes, error));
    /* Only what was verified to its last byte becomes an object. */
    TR_TRY(ckpt_object_end(&object, stream_shard(&stream, error), error));
  }
  return TR_OK;
}

/* The place is free, or holds the same checkpoint: its shards are overwritten before its manifest could be compared. */
static tr_status check_target(const tr_ckpt *ckpt, tr_store *to, const char *folder, tr_error *error) {
  const char *slash = strrchr(folder, '/');
  const char *name = slash != NULL ? slash + 1 : folder;
  uint64_t step = 0;
  if (ckpt_step_of(name, strlen(name), &step) && step != ckpt->manifest.meta.step) {
    return tr_fail(error, TR_ERR_INVALID, "%s is step %llu; it cannot be copied to %s", ckpt->folder,
                   (unsigned long long)ckpt->manifest.meta.step, folder);
  }
  char key[TR_KEY_BYTES];
  void *there = NULL;
  size_t bytes = 0;
  TR_TRY(ckpt_key(key, error, folder, MANIFEST_NAME));
  const tr_status status = tr_store_get_all(to, ckpt->allocator, key, MANIFEST_BYTES_MAX, &there, &bytes, error);
  if (status == TR_ERR_NOT_FOUND) return TR_OK;
  if (status != TR_OK) return status;
  const bool same = bytes == ckpt->text_bytes && memcmp(there, ckpt->text, bytes) == 0;
  tr_free(ckpt->allocator, there);
  return same ? TR_OK : tr_fail(error, TR_ERR_EXISTS, "%s holds another checkpoint", folder);
}

tr_status tr_ckpt_copy(const tr_allocator *allocator, tr_store *from, const char *from_folder, tr_store *to,
                       const char *to_folder, tr_error *error) {
  tr_ckpt *ckpt = NULL;
  TR_TRY(tr_ckpt_open(allocator, from, from_folder, &ckpt, error));
  tr_status status = check_target(ckpt, to, to_folder, error);
  if (status == TR_OK) status = copy_shards(ckpt, to, to_folder, error);
  if (status == TR_OK) {
    const tr_writer text = {.data = (uint8_t *)ckpt->text, .bytes = ckpt->text_bytes};
    status = ckpt_put_manifest(allocator, to, to_folder, &text, error);
  }
  tr_ckpt_close(ckpt);
  return status;
}
