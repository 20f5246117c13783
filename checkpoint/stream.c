/* Reading ahead and writing behind; see stream.h. */
#include "stream.h"

#include <string.h>

enum { RUN_BYTES = 8 << 20, RUNS = 4, PARTS_MAX = 10000, PART_ALIGN = 4096 };

/* ---- Reading ------------------------------------------------------------------------------------------------------- */

/* Bytes that lie together in a shard: of one piece, or of several that follow each other there too. */
typedef struct stream_run {
  size_t first;    /* piece */
  uint64_t offset; /* where the run begins in it */
  size_t bytes;
  uint8_t *data;
  char key[TR_KEY_BYTES];
  tr_store_request request;
  bool busy;
} stream_run;

typedef struct piece_stream {
  const tr_ckpt *ckpt;
  ckpt_piece *const *pieces;
  size_t count;
  stream_run runs[RUNS];
  size_t next; /* the piece that the next run begins in */
  uint64_t offset;
} piece_stream;

/* False at the end. */
static bool next_run(piece_stream *stream, stream_run *run) {
  run->bytes = 0;
  uint64_t end = 0; /* in the shard */
  for (; stream->next < stream->count; stream->next++, stream->offset = 0) {
    const ckpt_piece *piece = stream->pieces[stream->next];
    const uint64_t left = piece->bytes - stream->offset;
    if (left == 0) continue;
    if (run->bytes == 0) {
      run->first = stream->next;
      run->offset = stream->offset;
    } else if (piece->shard != stream->pieces[run->first]->shard || piece->offset != end) {
      return true;
    }
    const size_t room = RUN_BYTES - run->bytes, now = left < room ? (size_t)left : room;
    run->bytes += now;
    stream->offset += now;
    end = piece->offset + stream->offset;
    if (run->bytes == RUN_BYTES) return true;
  }
  return run->bytes > 0;
}

static const ckpt_shard *shard_of(const piece_stream *stream, const stream_run *run) {
  return &stream->ckpt->manifest.shards[stream->pieces[run->first]->shard];
}

static tr_status read_ahead(piece_stream *stream, stream_run *run, tr_error *error) {
  if (!next_run(stream, run)) return TR_OK;
  TR_TRY(ckpt_key(run->key, error, stream->ckpt->folder, "%s", shard_of(stream, run)->name));
  run->request = (tr_store_request){.struct_bytes = sizeof run->request,
                                    .verb = TR_STORE_GET,
                                    .key = run->key,
                                    .offset = stream->pieces[run->first]->offset + run->offset,
                                    .buffer = run->data,
                                    .buffer_bytes = run->bytes};
  TR_TRY(tr_store_submit(stream->ckpt->store, &run->request, error));
  run->busy = true;
  return TR_OK;
}

static tr_status wait_run(piece_stream *stream, stream_run *run, tr_error *error) {
  const tr_status status = tr_store_wait(stream->ckpt->store, &run->request, error);
  run->busy = false;
  return ckpt_check_read(stream->ckpt, shard_of(stream, run), run->request.offset, run->bytes, run->request.bytes,
                         status, error);
}

/* *crc is of the piece that the run begins in. */
static tr_status check_run(const piece_stream *stream, const stream_run *run, uint32_t *crc, tr_error *error) {
  uint64_t offset = run->offset;
  size_t i = run->first;
  for (size_t at = 0; at < run->bytes; i++, offset = 0) {
    const ckpt_piece *piece = stream->pieces[i];
    const uint64_t left = piece->bytes - offset;
    const size_t now = left < run->bytes - at ? (size_t)left : run->bytes - at;
    *crc = tr_crc32c(offset == 0 ? 0 : *crc, run->data + at, now);
    if (now == left && *crc != piece->crc32c) return ckpt_fail_piece(stream->ckpt, piece, error);
    at += now;
  }
  return TR_OK;
}

static tr_status pump(piece_stream *stream, ckpt_sink_fn sink, void *self, tr_error *error) {
  for (size_t i = 0; i < RUNS; i++) TR_TRY(read_ahead(stream, &stream->runs[i], error));
  uint32_t crc = 0;
  for (size_t i = 0; stream->runs[i].busy; i = (i + 1) % RUNS) {
    stream_run *run = &stream->runs[i];
    TR_TRY(wait_run(stream, run, error));
    TR_TRY(check_run(stream, run, &crc, error));
    if (sink != NULL) TR_TRY(sink(self, run->data, run->bytes, error));
    TR_TRY(read_ahead(stream, run, error));
  }
  return TR_OK;
}

tr_status ckpt_stream_pieces(const tr_ckpt *ckpt, ckpt_piece *const *pieces, size_t count, ckpt_sink_fn sink,
                             void *self, tr_error *error) {
  piece_stream stream = {.ckpt = ckpt, .pieces = pieces, .count = count};
  const size_t bytes = ckpt_data_bytes(&ckpt->manifest, RUN_BYTES);
  tr_status status = TR_OK;
  for (size_t i = 0; i < RUNS && status == TR_OK; i++) {
    stream.runs[i].data = tr_alloc(ckpt->allocator, bytes);
    if (stream.runs[i].data == NULL) status = tr_fail_memory(error, "reading a checkpoint", bytes);
  }
  if (status == TR_OK) status = pump(&stream, sink, self, error);
  for (size_t i = 0; i < RUNS; i++) {
    if (stream.runs[i].busy) tr_store_wait(ckpt->store, &stream.runs[i].request, NULL);
    tr_free(ckpt->allocator, stream.runs[i].data);
  }
  return status;
}

/* ---- Writing ------------------------------------------------------------------------------------------------------- */

tr_status ckpt_object_begin(ckpt_object *object, const tr_allocator *allocator, tr_store *store, uint64_t bytes,
                            tr_error *error) {
  void *self = NULL;
  const tr_store_ops *ops = tr_store_vtable(store, &self);
  object->allocator = allocator;
  object->store = store;
  size_t smallest = ops->part_bytes_min > RUN_BYTES ? (size_t)ops->part_bytes_min : RUN_BYTES;
  smallest = (smallest + PART_ALIGN - 1) / PART_ALIGN * PART_ALIGN;
  const bool in_parts = ops->upload_begin != NULL && bytes > smallest;
  object->part_bytes = in_parts ? smallest : (size_t)bytes;
  while (in_parts && bytes / object->part_bytes >= PARTS_MAX) object->part_bytes *= 2;
  for (size_t i = 0; i < (in_parts ? OBJECT_PARTS : 1); i++) {
    object->parts[i].data = tr_alloc_aligned(allocator, object->part_bytes + 1, PART_ALIGN);
    if (object->parts[i].data == NULL) {
      return ckpt_object_end(object, tr_fail_memory(error, "writing an object", object->part_bytes), error);
    }
  }
  if (!in_parts) return TR_OK;
  const tr_status status = ops->upload_begin(self, object->key, &object->upload, error);
  return status == TR_OK ? TR_OK : ckpt_object_end(object, status, error);
}

static size_t part_of(const ckpt_object *object) { return object->number % OBJECT_PARTS; }

static tr_status wait_part(ckpt_object *object, size_t i, tr_error *error) {
  if (!object->parts[i].busy) return TR_OK;
  object->parts[i].busy = false;
  return tr_store_wait(object->store, &object->parts[i].request, error);
}

static tr_status flush(ckpt_object *object, tr_error *error) {
  const size_t i = part_of(object);
  tr_store_request *request = &object->parts[i].request;
  *request = (tr_store_request){.struct_bytes = sizeof *request,
                                .verb = TR_STORE_PART,
                                .key = object->key,
                                .upload = object->upload,
                                .part = ++object->number,
                                .offset = object->offset,
                                .data = object->parts[i].data,
                                .data_bytes = object->used};
  TR_TRY(tr_store_submit(object->store, request, error));
  object->parts[i].busy = true;
  object->offset += object->used;
  object->used = 0;
  return wait_part(object, part_of(object), error);
}

tr_status ckpt_object_write(void *self, const void *data, size_t bytes, tr_error *error) {
  ckpt_object *object = self;
  const uint8_t *at = data;
  while (bytes > 0) {
    if (object->used == object->part_bytes) {
      if (object->upload == NULL) return tr_fail(error, TR_ERR_BUG, "%s is longer than was said", object->key);
      TR_TRY(flush(object, error));
    }
    const size_t room = object->part_bytes - object->used, now = bytes < room ? bytes : room;
    memcpy(object->parts[part_of(object)].data + object->used, at, now);
    object->used += now;
    at += now;
    bytes -= now;
  }
  return TR_OK;
}

static tr_status finish(ckpt_object *object, tr_error *error) {
  if (object->upload == NULL) {
    return tr_store_put(object->store, object->key, object->parts[0].data, object->used, false, error);
  }
  TR_TRY(flush(object, error));
  for (size_t i = 0; i < OBJECT_PARTS; i++) TR_TRY(wait_part(object, i, error));
  return TR_OK;
}

tr_status ckpt_object_end(ckpt_object *object, tr_status status, tr_error *error) {
  void *self = NULL;
  const tr_store_ops *ops = tr_store_vtable(object->store, &self);
  if (status == TR_OK) status = finish(object, error);
  for (size_t i = 0; i < OBJECT_PARTS; i++) {
    const tr_status waited = wait_part(object, i, status == TR_OK ? error : NULL);
    if (status == TR_OK) status = waited;
  }
  if (object->upload != NULL && status == TR_OK) {
    status = ops->upload_commit(self, object->upload, false, error);
  } else if (object->upload != NULL) {
    ops->upload_abort(self, object->upload);
  }
  object->upload = NULL;
  for (size_t i = 0; i < OBJECT_PARTS; i++) {
    if (object->parts[i].data != NULL) {
      tr_free_aligned(object->allocator, object->parts[i].data, object->part_bytes + 1);
    }
    object->parts[i].data = NULL;
  }
  return status;
}
