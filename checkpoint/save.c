/* Saving: the pieces of this rank are copied into the image of its shard, which a thread checksums and puts.
 *
 * The image is the file: a safetensors header, which is known at the start, then the pieces back to back, the widest
 * element type first, so that each is aligned for its type. Copying is snapshot.c's, putting upload.c's. */
#include "save.h"

#include <string.h>

#include "checkpoint.h"
#include "safetensors.h"

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

/* The image with its header, and where what is missing comes from. */
static tr_status plan_snapshot(tr_ckpt_save *save, const tr_writer *header, const tr_piece **sources, tr_error *error) {
  const saved_piece *last = &save->pieces[save->piece_count - 1];
  save->header_bytes = header->bytes;
  save->image_bytes = header->bytes + last->offset + last->bytes;
  TR_TRY(ckpt_saver_take(save->saver, save->image_bytes, &save->image, error));
  memcpy(save->image, header->data, header->bytes);
  for (size_t i = 0; i < save->piece_count; i++) {
    saved_piece *piece = &save->pieces[i];
    piece->offset += header->bytes;
    TR_TRY(ckpt_snapshot_add(&save->snapshot, sources[i]->data, piece->offset, piece->bytes, error));
  }
  return ckpt_snapshot_begin(&save->snapshot, save->image, error);
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
  save->status = ckpt_save_upload(save, &save->error);
  if (save->status != TR_OK) {
    tr_error_context(&save->error, save->status, "saving the checkpoint shard %s", save->key);
  } else {
    save->status = write_record(save, &save->error);
  }
  if (save->status != TR_OK) ckpt_snapshot_abandon(&save->snapshot);
  atomic_store_explicit(&save->done, true, memory_order_release);
  return NULL;
}

static void start(tr_ckpt_save *save) {
  if (save->own_saver != NULL) ckpt_snapshot_copy(&save->snapshot, save->image_bytes);
  save->begun_ns = tr_clock_now_ns(NULL);
  save->thread_runs = ckpt_thread_start(&save->thread, thread_main, save);
  if (save->thread_runs) return;
  /* Where no thread can be had the checkpoint is still worth its time. */
  atomic_store_explicit(&save->hurry, true, memory_order_release);
  thread_main(save);
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
  if (status == TR_OK) status = plan_snapshot(save, &header, sources, error);
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
  save->spread_ns = options->spread_ns;
  save->error = (tr_error){.status = TR_OK, .rank = -1};
  pthread_condattr_t monotonic;
  pthread_condattr_init(&monotonic);
  pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
  pthread_mutex_init(&save->lock, NULL);
  pthread_cond_init(&save->changed, &monotonic);
  pthread_condattr_destroy(&monotonic);
  ckpt_snapshot_init(&save->snapshot, options->allocator, options->clock);
  tr_writer_init(&save->record, options->allocator);
  tr_status status = TR_OK;
  if (options->saver == NULL) status = tr_ckpt_saver_create(options->allocator, 0, &save->own_saver, error);
  save->saver = options->saver != NULL ? options->saver : save->own_saver;
  if (status == TR_OK) status = prepare(save, options, pieces, piece_count, error);
  if (status != TR_OK) {
    tr_ckpt_save_destroy(save);
    return status;
  }
  start(save);
  *out = save;
  return TR_OK;
}

void tr_ckpt_save_release(tr_ckpt_save *save, const void *memory, size_t bytes) {
  ckpt_snapshot_release(&save->snapshot, memory, bytes);
}

uint64_t tr_ckpt_save_blocked_ns(const tr_ckpt_save *save) {
  return atomic_load_explicit(&save->snapshot.blocked_ns, memory_order_relaxed);
}

tr_status tr_ckpt_save_poll(tr_ckpt_save *save, bool *done, tr_error *error) {
  *done = atomic_load_explicit(&save->done, memory_order_acquire);
  if (!*done) return TR_OK;
  if (save->status != TR_OK && error != NULL) *error = save->error;
  return save->status;
}

/* Tells the thread, which may be waiting for its next part to become due. */
static void tell(tr_ckpt_save *save, atomic_bool *flag) {
  pthread_mutex_lock(&save->lock);
  atomic_store_explicit(flag, true, memory_order_release);
  pthread_cond_signal(&save->changed);
  pthread_mutex_unlock(&save->lock);
}

static void join(tr_ckpt_save *save) {
  if (!save->thread_runs) return;
  pthread_join(save->thread, NULL);
  save->thread_runs = false;
}

tr_status tr_ckpt_save_wait(tr_ckpt_save *save, tr_error *error) {
  tell(save, &save->hurry);
  join(save);
  bool done;
  return tr_ckpt_save_poll(save, &done, error);
}

const char *tr_ckpt_save_record(const tr_ckpt_save *save, size_t *bytes) {
  if (!atomic_load_explicit(&save->done, memory_order_acquire) || save->status != TR_OK) return NULL;
  if (bytes != NULL) *bytes = save->record.bytes - 1;
  return (const char *)save->record.data;
}

void tr_ckpt_save_destroy(tr_ckpt_save *save) {
  if (save == NULL) return;
  tell(save, &save->cancel);
  join(save);
  if (save->image != NULL) ckpt_saver_give_back(save->saver);
  tr_ckpt_saver_destroy(save->own_saver);
  ckpt_snapshot_fini(&save->snapshot);
  tr_writer_fini(&save->record);
  tr_arena_destroy(save->arena);
  pthread_cond_destroy(&save->changed);
  pthread_mutex_destroy(&save->lock);
  tr_free(save->allocator, save);
}
