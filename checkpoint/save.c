/* Saving: the pieces of this rank are copied into the image of its shard, which a thread then checksums and puts.
 *
 * The image is the file: a safetensors header, then the pieces back to back, the widest element type first, so that each
 * is aligned for its type. The put and the checksums run side by side. */
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include "checkpoint.h"
#include "safetensors.h"

enum { PART_BYTES = 64 << 20, PARTS_MAX = 10000 };

typedef struct saved_piece {
  tr_ckpt_tensor tensor;
  uint64_t begin, count;
  uint64_t offset, bytes; /* in the image */
  uint32_t crc32c;
} saved_piece;

struct tr_ckpt_save {
  /* Never changed once the thread runs, but for the pieces' CRCs and the record, which are the thread's until `done`. */
  const tr_allocator *allocator;
  tr_store *store;
  tr_arena *arena;
  char key[TR_KEY_BYTES];
  const char *name; /* of the shard, the end of key */
  saved_piece *pieces;
  size_t piece_count;
  uint8_t *image;
  size_t image_bytes, header_bytes;
  uint32_t header_crc32c;
  tr_writer record;
  pthread_t thread;
  bool thread_runs; /* of the owner: not joined yet */

  /* Under `lock`. */
  pthread_mutex_t lock;
  bool done;
  tr_status status;
  tr_error error;
};

static tr_status check_piece(const tr_piece *piece, tr_error *error) {
  uint64_t elements = 0;
  const size_t length = piece->name != NULL ? strlen(piece->name) : 0;
  if (length == 0 || length >= TR_TENSOR_NAME_BYTES) {
    return tr_fail(error, TR_ERR_INVALID, "checkpoint: a tensor's name is empty or longer than %d bytes",
                   TR_TENSOR_NAME_BYTES - 1);
  }
  if (!ckpt_elements(piece->dtype, piece->ndim, piece->shape, &elements) || piece->begin > elements ||
      piece->count > elements - piece->begin || (piece->data == NULL && piece->count > 0)) {
    return tr_fail(error, TR_ERR_INVALID, "checkpoint: the piece of tensor '%s' lies outside of its shape",
                   piece->name);
  }
  return TR_OK;
}

/* An empty run of a tensor that is not empty says nothing. */
static bool is_said(const tr_piece *piece) {
  uint64_t elements = 0;
  ckpt_elements(piece->dtype, piece->ndim, piece->shape, &elements);
  return piece->count > 0 || elements == 0;
}

/* The pieces in the order of the image: by width of their elements, otherwise as given. */
static tr_status plan_pieces(tr_ckpt_save *save, const tr_piece *pieces, size_t count, const tr_piece **sources,
                             tr_error *error) {
  uint64_t offset = 0;
  for (size_t width = 8; width > 0; width /= 2) {
    for (size_t i = 0; i < count; i++) {
      const tr_piece *piece = &pieces[i];
      if (tr_dtype_bytes(piece->dtype) != width || !is_said(piece)) continue;
      saved_piece *made = &save->pieces[save->piece_count];
      sources[save->piece_count++] = piece;
      made->tensor.name = tr_arena_strdup(save->arena, piece->name);
      if (made->tensor.name == NULL) return tr_fail_memory(error, "a checkpoint", strlen(piece->name));
      made->tensor.dtype = piece->dtype;
      made->tensor.ndim = piece->ndim;
      memcpy(made->tensor.shape, piece->shape, piece->ndim * sizeof piece->shape[0]);
      made->begin = piece->begin;
      made->count = piece->count;
      made->offset = offset;
      made->bytes = piece->count * width;
      offset += made->bytes;
    }
  }
  return TR_OK;
}

static tr_status write_header(tr_ckpt_save *save, const tr_ckpt_save_options *options, tr_writer *header,
                              tr_error *error) {
  safetensors_entry *entries = tr_arena_alloc(save->arena, save->piece_count * sizeof *entries);
  char *names = tr_arena_alloc(save->arena, save->piece_count * SAFETENSORS_NAME_BYTES);
  const char *metadata = tr_arena_printf(
      save->arena, "{\"format\":\"trainrun\",\"step\":\"%llu\",\"rank\":\"%d\",\"world_size\":\"%d\"}",
      (unsigned long long)options->step, (int)options->rank, (int)options->size);
  if (entries == NULL || names == NULL || metadata == NULL) return tr_fail_memory(error, "a checkpoint's header", 0);
  for (size_t i = 0; i < save->piece_count; i++) {
    const saved_piece *piece = &save->pieces[i];
    ckpt_safetensors_name(names + i * SAFETENSORS_NAME_BYTES, &piece->tensor, piece->begin, piece->count, &entries[i]);
    entries[i].begin = piece->offset;
    entries[i].end = piece->offset + piece->bytes;
  }
  ckpt_safetensors_write(header, metadata, entries, save->piece_count);
  if (header->failed) return tr_fail_memory(error, "a checkpoint's header", header->bytes);
  if (header->bytes > SAFETENSORS_HEADER_MAX) {
    return tr_fail(error, TR_ERR_INVALID, "checkpoint: a rank saves more pieces than one header holds");
  }
  return TR_OK;
}

/* Copies everything: from here on the caller's memory is free again. */
static tr_status take_snapshot(tr_ckpt_save *save, const tr_writer *header, const tr_piece **sources, tr_error *error) {
  const saved_piece *last = &save->pieces[save->piece_count - 1];
  save->header_bytes = header->bytes;
  save->image_bytes = header->bytes + last->offset + last->bytes;
  save->image = tr_alloc_aligned(save->allocator, save->image_bytes, SAFETENSORS_ALIGN);
  if (save->image == NULL) return tr_fail_memory(error, "the snapshot of a checkpoint", save->image_bytes);
  memcpy(save->image, header->data, header->bytes);
  for (size_t i = 0; i < save->piece_count; i++) {
    saved_piece *piece = &save->pieces[i];
    piece->offset += header->bytes;
    if (piece->bytes > 0) memcpy(save->image + piece->offset, sources[i]->data, piece->bytes);
  }
  return TR_OK;
}

static void compute_checksums(tr_ckpt_save *save) {
  save->header_crc32c = tr_crc32c(0, save->image, save->header_bytes);
  for (size_t i = 0; i < save->piece_count; i++) {
    saved_piece *piece = &save->pieces[i];
    piece->crc32c = tr_crc32c(0, save->image + piece->offset, piece->bytes);
  }
}

static tr_status put_whole(tr_ckpt_save *save, tr_error *error) {
  tr_store_request request = {.struct_bytes = sizeof request,
                              .verb = TR_STORE_PUT,
                              .priority = TR_STORE_BACKGROUND,
                              .key = save->key,
                              .data = save->image,
                              .data_bytes = save->image_bytes};
  TR_TRY(tr_store_submit(save->store, &request, error));
  compute_checksums(save);
  return tr_store_wait(save->store, &request, error);
}

static tr_status put_parts(tr_ckpt_save *save, void *upload, tr_store_request *requests, size_t part_bytes,
                           size_t part_count, tr_error *error) {
  tr_status status = TR_OK;
  size_t submitted = 0;
  for (; submitted < part_count && status == TR_OK; submitted++) {
    const size_t offset = submitted * part_bytes;
    const size_t left = save->image_bytes - offset;
    requests[submitted] = (tr_store_request){.struct_bytes = sizeof *requests,
                                             .verb = TR_STORE_PART,
                                             .priority = TR_STORE_BACKGROUND,
                                             .upload = upload,
                                             .part = (uint32_t)submitted + 1,
                                             .offset = offset,
                                             .data = save->image + offset,
                                             .data_bytes = left < part_bytes ? left : part_bytes};
    status = tr_store_submit(save->store, &requests[submitted], error);
    if (status != TR_OK) break;
  }
  if (status == TR_OK) compute_checksums(save);
  for (size_t i = 0; i < submitted; i++) {
    const tr_status waited = tr_store_wait(save->store, &requests[i], status == TR_OK ? error : NULL);
    if (status == TR_OK) status = waited;
  }
  return status;
}

static tr_status put_image(tr_ckpt_save *save, tr_error *error) {
  void *self = NULL, *upload = NULL;
  const tr_store_ops *ops = tr_store_vtable(save->store, &self);
  if (save->image_bytes <= PART_BYTES || ops->upload_begin == NULL) return put_whole(save, error);
  size_t part_bytes = ops->part_bytes_min > PART_BYTES ? (size_t)ops->part_bytes_min : PART_BYTES;
  while (save->image_bytes / part_bytes >= PARTS_MAX) part_bytes *= 2;
  const size_t part_count = (save->image_bytes + part_bytes - 1) / part_bytes;
  tr_store_request *requests = tr_calloc(save->allocator, part_count, sizeof *requests);
  if (requests == NULL) return tr_fail_memory(error, "an upload", part_count * sizeof *requests);
  tr_status status = ops->upload_begin(self, save->key, &upload, error);
  if (status == TR_OK) {
    status = put_parts(save, upload, requests, part_bytes, part_count, error);
    if (status == TR_OK) {
      status = ops->upload_commit(self, upload, false, error);
    } else {
      ops->upload_abort(self, upload);
    }
  }
  tr_free(save->allocator, requests);
  return status;
}

static bool is_same_shard(const tr_ckpt_save *save, const ckpt_manifest *manifest, const ckpt_shard *shard) {
  if (shard->bytes != save->image_bytes || shard->header_bytes != save->header_bytes ||
      shard->header_crc32c != save->header_crc32c || shard->place_count != save->piece_count) {
    return false;
  }
  /* Both are sorted by offset, and the header says which piece is which. */
  for (size_t i = 0; i < save->piece_count; i++) {
    if (manifest->by_place[shard->first_place + i]->crc32c != save->pieces[i].crc32c) return false;
  }
  return true;
}

/* Where this step is a checkpoint already, its shards are not touched: the same one is left as it is, over another nothing
 * is written. */
static tr_status check_free(tr_ckpt_save *save, bool *there, tr_error *error) {
  char folder[TR_KEY_BYTES];
  const size_t length = (size_t)(save->name - save->key) - 1;
  memcpy(folder, save->key, length);
  folder[length] = '\0';
  tr_ckpt *ckpt = NULL;
  const tr_status status = tr_ckpt_open(save->allocator, save->store, folder, &ckpt, error);
  if (status == TR_ERR_NOT_FOUND) return TR_OK;
  if (status != TR_OK) return status;
  compute_checksums(save);
  for (size_t i = 0; i < ckpt->manifest.shard_count && !*there; i++) {
    const ckpt_shard *shard = &ckpt->manifest.shards[i];
    *there = strcmp(shard->name, save->name) == 0 && is_same_shard(save, &ckpt->manifest, shard);
  }
  tr_ckpt_close(ckpt);
  return *there ? TR_OK : tr_fail(error, TR_ERR_EXISTS, "%s is already a checkpoint with other content", folder);
}

static tr_status write_shard(tr_ckpt_save *save, tr_error *error) {
  bool there = false;
  if (save->piece_count == 0) return TR_OK;
  TR_TRY(check_free(save, &there, error));
  return there ? TR_OK : put_image(save, error);
}

static tr_status write_record(tr_ckpt_save *save, tr_error *error) {
  tr_writer *record = &save->record;
  tr_write_text(record, "{\"shard\":");
  if (save->piece_count == 0) {
    tr_write_text(record, "null");
  } else {
    tr_write_text(record, "{\"name\":");
    tr_write_json_string(record, save->name);
    tr_write_text(record, ",\"bytes\":%zu,\"header_bytes\":%zu,\"header_crc32c\":\"%08x\"}", save->image_bytes,
                  save->header_bytes, save->header_crc32c);
  }
  tr_write_text(record, ",\"pieces\":[");
  for (size_t i = 0; i < save->piece_count; i++) {
    const saved_piece *piece = &save->pieces[i];
    tr_write_text(record, i == 0 ? "{\"name\":" : ",{\"name\":");
    tr_write_json_string(record, piece->tensor.name);
    tr_write_text(record, ",\"dtype\":\"%s\",\"shape\":[", tr_dtype_name(piece->tensor.dtype));
    for (uint32_t d = 0; d < piece->tensor.ndim; d++) {
      tr_write_text(record, d == 0 ? "%lld" : ",%lld", (long long)piece->tensor.shape[d]);
    }
    tr_write_text(record, "],\"offset\":%llu,\"begin\":%llu,\"count\":%llu,\"crc32c\":\"%08x\"}",
                  (unsigned long long)piece->offset, (unsigned long long)piece->begin, (unsigned long long)piece->count,
                  piece->crc32c);
  }
  tr_write_text(record, "]}");
  tr_write_u8(record, 0);
  return record->failed ? tr_fail_memory(error, "a checkpoint's record", record->bytes) : TR_OK;
}

static void *thread_main(void *argument) {
  tr_ckpt_save *save = argument;
  tr_error error = {.status = TR_OK, .rank = -1};
  tr_status status = write_shard(save, &error);
  if (status != TR_OK) tr_error_context(&error, status, "saving the checkpoint shard %s", save->key);
  if (status == TR_OK) status = write_record(save, &error);
  pthread_mutex_lock(&save->lock);
  save->status = status;
  save->error = error;
  save->done = true;
  pthread_mutex_unlock(&save->lock);
  return NULL;
}

static void start(tr_ckpt_save *save) {
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  save->thread_runs = pthread_create(&save->thread, NULL, thread_main, save) == 0;
  pthread_sigmask(SIG_SETMASK, &before, NULL);
  /* Where no thread can be had the checkpoint is still worth its time. */
  if (!save->thread_runs) thread_main(save);
}

static tr_status prepare(tr_ckpt_save *save, const tr_ckpt_save_options *options, const tr_piece *pieces, size_t count,
                         tr_error *error) {
  for (size_t i = 0; i < count; i++) TR_TRY(check_piece(&pieces[i], error));
  TR_TRY(ckpt_key(save->key, error, options->prefix, "step-%llu/shard-%05d-of-%05d.safetensors",
                  (unsigned long long)options->step, (int)options->rank, (int)options->size));
  save->name = strrchr(save->key, '/') + 1;
  TR_TRY(tr_arena_create(save->allocator, 64 << 10, &save->arena, error));
  save->pieces = tr_arena_alloc(save->arena, (count + 1) * sizeof *save->pieces);
  const tr_piece **sources = tr_arena_alloc(save->arena, (count + 1) * sizeof *sources);
  if (save->pieces == NULL || sources == NULL)
    return tr_fail_memory(error, "a checkpoint", count * sizeof(saved_piece));
  TR_TRY(plan_pieces(save, pieces, count, sources, error));
  if (save->piece_count == 0) return TR_OK;
  tr_writer header;
  tr_writer_init(&header, save->allocator);
  tr_status status = write_header(save, options, &header, error);
  if (status == TR_OK) status = take_snapshot(save, &header, sources, error);
  tr_writer_fini(&header);
  return status;
}

tr_status tr_ckpt_save_begin(const tr_ckpt_save_options *options, const tr_piece *pieces, size_t piece_count,
                             tr_ckpt_save **out, tr_error *error) {
  if (options == NULL || options->struct_bytes != sizeof *options || options->store == NULL ||
      options->prefix == NULL || options->rank < 0 || options->rank >= options->size) {
    return tr_fail(error, TR_ERR_INVALID,
                   "checkpoint: options are of another version, or lack a store, prefix or rank");
  }
  tr_ckpt_save *save = tr_calloc(options->allocator, 1, sizeof *save);
  if (save == NULL) return tr_fail_memory(error, "a checkpoint", sizeof *save);
  save->allocator = options->allocator;
  save->store = options->store;
  pthread_mutex_init(&save->lock, NULL);
  tr_writer_init(&save->record, options->allocator);
  const tr_status status = prepare(save, options, pieces, piece_count, error);
  if (status != TR_OK) {
    tr_ckpt_save_destroy(save);
    return status;
  }
  start(save);
  *out = save;
  return TR_OK;
}

tr_status tr_ckpt_save_poll(tr_ckpt_save *save, bool *done, tr_error *error) {
  pthread_mutex_lock(&save->lock);
  *done = save->done;
  const tr_status status = save->done ? save->status : TR_OK;
  if (status != TR_OK && error != NULL) *error = save->error;
  pthread_mutex_unlock(&save->lock);
  return status;
}

tr_status tr_ckpt_save_wait(tr_ckpt_save *save, tr_error *error) {
  if (save->thread_runs) {
    pthread_join(save->thread, NULL);
    save->thread_runs = false;
  }
  bool done;
  return tr_ckpt_save_poll(save, &done, error);
}

const char *tr_ckpt_save_record(const tr_ckpt_save *save, size_t *bytes) {
  tr_ckpt_save *own = (tr_ckpt_save *)(uintptr_t)save;
  bool done = false;
  if (tr_ckpt_save_poll(own, &done, NULL) != TR_OK || !done) return NULL;
  if (bytes != NULL) *bytes = save->record.bytes - 1;
  return (const char *)save->record.data;
}

void tr_ckpt_save_destroy(tr_ckpt_save *save) {
  if (save == NULL) return;
  if (save->thread_runs) pthread_join(save->thread, NULL);
  if (save->image != NULL) tr_free_aligned(save->allocator, save->image, save->image_bytes);
  tr_writer_fini(&save->record);
  tr_arena_destroy(save->arena);
  pthread_mutex_destroy(&save->lock);
  tr_free(save->allocator, save);
}
