/* Verifying and copying: every byte of every shard passes by once, in order, and is checked on its way. */
#include <string.h>

#include "checkpoint.h"
#include "safetensors.h"

enum { CHUNK_BYTES = 8 << 20 };

/* Takes the bytes of a shard in order. */
typedef tr_status (*sink_fn)(void *self, const void *data, size_t bytes, tr_error *error);

typedef struct shard_stream {
  tr_ckpt *ckpt;
  const ckpt_shard *shard;
  char key[TR_KEY_BYTES];
  sink_fn sink; /* NULL: only verified */
  void *sink_self;
  uint8_t *buffer;
} shard_stream;

static tr_status read_range(const shard_stream *stream, uint64_t offset, void *buffer, size_t bytes, tr_error *error) {
  size_t got = 0;
  const tr_status status = tr_store_get(stream->ckpt->store, stream->key, offset, buffer, bytes, &got, error);
  return ckpt_check_read(stream->ckpt, stream->shard, offset, bytes, got, status, error);
}

static tr_status pass_on(const shard_stream *stream, const void *data, size_t bytes, tr_error *error) {
  return stream->sink != NULL && bytes > 0 ? stream->sink(stream->sink_self, data, bytes, error) : TR_OK;
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
  if (status == TR_OK) status = pass_on(stream, header, (size_t)shard->header_bytes, error);
  tr_free(stream->ckpt->allocator, header);
  return status;
}

static tr_status stream_piece(const shard_stream *stream, const ckpt_piece *piece, tr_error *error) {
  uint32_t crc = 0;
  for (uint64_t at = 0; at < piece->bytes;) {
    const uint64_t left = piece->bytes - at;
    const size_t now = left < CHUNK_BYTES ? (size_t)left : CHUNK_BYTES;
    TR_TRY(read_range(stream, piece->offset + at, stream->buffer, now, error));
    crc = tr_crc32c(crc, stream->buffer, now);
    TR_TRY(pass_on(stream, stream->buffer, now, error));
    at += now;
  }
  return crc == piece->crc32c ? TR_OK : ckpt_fail_piece(stream->ckpt, piece, error);
}

static tr_status stream_shard(shard_stream *stream, tr_error *error) {
  const ckpt_shard *shard = stream->shard;
  TR_TRY(ckpt_key(stream->key, error, stream->ckpt->folder, "%s", shard->name));
  TR_TRY(stream_header(stream, error));
  for (size_t i = 0; i < shard->place_count; i++) {
    TR_TRY(stream_piece(stream, stream->ckpt->manifest.by_place[shard->first_place + i], error));
  }
  return TR_OK;
}

tr_status tr_ckpt_verify(tr_ckpt *ckpt, tr_error *error) {
  const size_t buffer_bytes = ckpt_chunk_bytes(&ckpt->manifest, CHUNK_BYTES);
  shard_stream stream = {.ckpt = ckpt, .buffer = tr_alloc(ckpt->allocator, buffer_bytes)};
  if (stream.buffer == NULL) return tr_fail_memory(error, "verifying a checkpoint", buffer_bytes);
  tr_status status = TR_OK;
  for (size_t i = 0; i < ckpt->manifest.shard_count && status == TR_OK; i++) {
    stream.shard = &ckpt->manifest.shards[i];
    status = stream_shard(&stream, error);
  }
  tr_free(ckpt->allocator, stream.buffer);
  return status;
}

/* ---- Copying ------------------------------------------------------------------------------------------------------- */

/* Gathers a shard in parts of one size and puts them; a shard of one part is one put. */
typedef struct copy_sink {
  tr_store *store;
  const tr_store_ops *ops;
  void *self; /* the store's */
  char key[TR_KEY_BYTES];
  uint8_t *part;
  size_t part_bytes, used;
  uint64_t offset; /* of the part in the object */
  uint32_t number;
  void *upload; /* NULL: one put */
} copy_sink;

static tr_status flush_part(copy_sink *sink, tr_error *error) {
  if (sink->upload == NULL) return tr_store_put(sink->store, sink->key, sink->part, sink->used, false, error);
  tr_store_request request = {.struct_bytes = sizeof request,
                              .verb = TR_STORE_PART,
                              .priority = TR_STORE_BACKGROUND,
                              .upload = sink->upload,
                              .part = ++sink->number,
                              .offset = sink->offset,
                              .data = sink->part,
                              .data_bytes = sink->used};
  TR_TRY(tr_store_submit(sink->store, &request, error));
  TR_TRY(tr_store_wait(sink->store, &request, error));
  sink->offset += sink->used;
  sink->used = 0;
  return TR_OK;
}

static tr_status take_bytes(void *self, const void *data, size_t bytes, tr_error *error) {
  copy_sink *sink = self;
  const uint8_t *at = data;
  while (bytes > 0) {
    if (sink->used == sink->part_bytes) TR_TRY(flush_part(sink, error));
    const size_t room = sink->part_bytes - sink->used;
    const size_t now = bytes < room ? bytes : room;
    memcpy(sink->part + sink->used, at, now);
    sink->used += now;
    at += now;
    bytes -= now;
  }
  return TR_OK;
}

static tr_status copy_through(shard_stream *stream, copy_sink *sink, bool in_parts, tr_error *error) {
  if (in_parts) TR_TRY(sink->ops->upload_begin(sink->self, sink->key, &sink->upload, error));
  tr_status status = stream_shard(stream, error);
  if (status == TR_OK) status = flush_part(sink, error);
  if (sink->upload == NULL) return status;
  /* Only what was verified to its last byte becomes an object. */
  if (status == TR_OK) return sink->ops->upload_commit(sink->self, sink->upload, false, error);
  sink->ops->upload_abort(sink->self, sink->upload);
  return status;
}

static tr_status copy_shard(shard_stream *stream, tr_store *to, const char *folder, tr_error *error) {
  copy_sink sink = {.store = to};
  sink.ops = tr_store_vtable(to, &sink.self);
  TR_TRY(ckpt_key(sink.key, error, folder, "%s", stream->shard->name));
  const size_t smallest = sink.ops->part_bytes_min > CHUNK_BYTES ? (size_t)sink.ops->part_bytes_min : CHUNK_BYTES;
  const bool in_parts = sink.ops->upload_begin != NULL && stream->shard->bytes > smallest;
  sink.part_bytes = in_parts ? smallest : (size_t)stream->shard->bytes;
  while (in_parts && stream->shard->bytes / sink.part_bytes >= 10000) sink.part_bytes *= 2;
  sink.part = tr_alloc(stream->ckpt->allocator, sink.part_bytes);
  if (sink.part == NULL) return tr_fail_memory(error, "copying a checkpoint", sink.part_bytes);
  stream->sink = take_bytes;
  stream->sink_self = &sink;
  const tr_status status = copy_through(stream, &sink, in_parts, error);
  tr_free(stream->ckpt->allocator, sink.part);
  return status;
}

static tr_status copy_shards(tr_ckpt *ckpt, tr_store *to, const char *folder, tr_error *error) {
  const size_t buffer_bytes = ckpt_chunk_bytes(&ckpt->manifest, CHUNK_BYTES);
  shard_stream stream = {.ckpt = ckpt, .buffer = tr_alloc(ckpt->allocator, buffer_bytes)};
  if (stream.buffer == NULL) return tr_fail_memory(error, "copying a checkpoint", buffer_bytes);
  tr_status status = TR_OK;
  for (size_t i = 0; i < ckpt->manifest.shard_count && status == TR_OK; i++) {
    stream.shard = &ckpt->manifest.shards[i];
    status = copy_shard(&stream, to, folder, error);
  }
  tr_free(ckpt->allocator, stream.buffer);
  return status;
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
