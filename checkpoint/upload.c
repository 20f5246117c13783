/* The upload of a shard: part by part as the image becomes whole, each byte checksummed once on its way.
 *
 * While nobody waits the parts are spread over the time that the caller gave, and a store that can work in the calling
 * thread does, at that thread's low priority. Once somebody waits (hurry) a few parts are under way at a time. */
#include "save.h"

#include <string.h>
#include <time.h>

#include "checkpoint.h"

enum { PART_BYTES = 16 << 20, PARTS_MAX = 10000, IN_FLIGHT = 4 };

typedef struct part_slot {
  tr_store_request request;
  bool busy;
} part_slot;

static bool is_set(const atomic_bool *flag) { return atomic_load_explicit(flag, memory_order_acquire); }

/* The CRCs of the image up to `end`, which is whole. */
static void checksum(tr_ckpt_save *save, uint64_t end) {
  if (save->summed == 0) {
    save->header_crc32c = tr_crc32c(0, save->image, save->header_bytes);
    save->summed = save->header_bytes;
  }
  while (save->summing < save->piece_count) {
    saved_piece *piece = &save->pieces[save->summing];
    const uint64_t piece_end = piece->offset + piece->bytes;
    const uint64_t until = piece_end < end ? piece_end : end;
    if (until > save->summed) {
      piece->crc32c = tr_crc32c(piece->crc32c, save->image + save->summed, until - save->summed);
      save->summed = until;
    }
    if (piece_end > end) return;
    save->summing++;
  }
}

/* Until the part at `offset` is due, somebody waits, or all is given up. */
static void pace(tr_ckpt_save *save, uint64_t offset) {
  if (save->spread_ns == 0) return;
  const double share = (double)offset / (double)save->image_bytes;
  const uint64_t due_ns = save->begun_ns + (uint64_t)(share * (double)save->spread_ns);
  const struct timespec due = {.tv_sec = (time_t)(due_ns / 1000000000u), .tv_nsec = (long)(due_ns % 1000000000u)};
  int code = 0;
  pthread_mutex_lock(&save->lock);
  while (code == 0 && !is_set(&save->hurry) && !is_set(&save->cancel)) {
    code = pthread_cond_timedwait(&save->changed, &save->lock, &due);
  }
  pthread_mutex_unlock(&save->lock);
}

static tr_status put_whole(tr_ckpt_save *save, tr_error *error) {
  tr_store_request request = {.struct_bytes = sizeof request,
                              .verb = TR_STORE_PUT,
                              .priority = TR_STORE_BACKGROUND,
                              .key = save->key,
                              .data = save->image,
                              .data_bytes = save->image_bytes};
  TR_TRY(tr_store_submit(save->store, &request, error));
  checksum(save, save->image_bytes);
  return tr_store_wait(save->store, &request, error);
}

static tr_status wait_part(tr_ckpt_save *save, part_slot *slot, tr_error *error) {
  if (!slot->busy) return TR_OK;
  slot->busy = false;
  return tr_store_wait(save->store, &slot->request, error);
}

static tr_status put_part(tr_ckpt_save *save, part_slot *slot, tr_error *error) {
  void *self = NULL;
  const tr_store_ops *ops = tr_store_vtable(save->store, &self);
  if (ops->run != NULL && !is_set(&save->hurry)) {
    ops->run(self, &slot->request);
    if (slot->request.status != TR_OK && error != NULL) *error = slot->request.error;
    return slot->request.status;
  }
  TR_TRY(tr_store_submit(save->store, &slot->request, error));
  slot->busy = true;
  return TR_OK;
}

static tr_status put_parts(tr_ckpt_save *save, void *upload, size_t part_bytes, tr_error *error) {
  part_slot slots[IN_FLIGHT] = {0};
  tr_status status = TR_OK;
  uint32_t number = 0;
  for (size_t offset = 0; offset < save->image_bytes && status == TR_OK; offset += part_bytes) {
    const size_t left = save->image_bytes - offset;
    const size_t bytes = left < part_bytes ? left : part_bytes;
    part_slot *slot = &slots[number % IN_FLIGHT];
    ckpt_snapshot_copy(&save->snapshot, offset + bytes);
    pace(save, offset);
    checksum(save, offset + bytes);
    status = wait_part(save, slot, error);
    if (status != TR_OK) break;
    if (is_set(&save->cancel)) {
      status = tr_fail(error, TR_ERR_CANCELLED, "the save was given up");
      break;
    }
    slot->request = (tr_store_request){.struct_bytes = sizeof slot->request,
                                       .verb = TR_STORE_PART,
                                       .priority = TR_STORE_BACKGROUND,
                                       .key = save->key,
                                       .upload = upload,
                                       .part = ++number,
                                       .offset = offset,
                                       .data = save->image + offset,
                                       .data_bytes = bytes};
    status = put_part(save, slot, error);
  }
  for (size_t i = 0; i < IN_FLIGHT; i++) {
    const tr_status waited = wait_part(save, &slots[i], status == TR_OK ? error : NULL);
    if (status == TR_OK) status = waited;
  }
  return status;
}

static tr_status put_image(tr_ckpt_save *save, tr_error *error) {
  void *self = NULL, *upload = NULL;
  const tr_store_ops *ops = tr_store_vtable(save->store, &self);
  if (save->image_bytes <= PART_BYTES || ops->upload_begin == NULL) {
    ckpt_snapshot_copy(&save->snapshot, save->image_bytes);
    return put_whole(save, error);
  }
  size_t part_bytes = ops->part_bytes_min > PART_BYTES ? (size_t)ops->part_bytes_min : PART_BYTES;
  while (save->image_bytes / part_bytes >= PARTS_MAX) part_bytes *= 2;
  TR_TRY(ops->upload_begin(self, save->key, &upload, error));
  const tr_status status = put_parts(save, upload, part_bytes, error);
  if (status == TR_OK) return ops->upload_commit(self, upload, false, error);
  ops->upload_abort(self, upload);
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
  ckpt_snapshot_copy(&save->snapshot, save->image_bytes);
  checksum(save, save->image_bytes);
  for (size_t i = 0; i < ckpt->manifest.shard_count && !*there; i++) {
    const ckpt_shard *shard = &ckpt->manifest.shards[i];
    *there = strcmp(shard->name, save->name) == 0 && is_same_shard(save, &ckpt->manifest, shard);
  }
  tr_ckpt_close(ckpt);
  return *there ? TR_OK : tr_fail(error, TR_ERR_EXISTS, "%s is already a checkpoint with other content", folder);
}

/* The copying comes first, as fast as it goes, for an update waits for it; unless somebody waits for the whole. */
static void copy_ahead(tr_ckpt_save *save) {
  for (uint64_t end = PART_BYTES; !ckpt_snapshot_is_copied(&save->snapshot); end += PART_BYTES) {
    if (is_set(&save->hurry) || is_set(&save->cancel)) return;
    ckpt_snapshot_copy(&save->snapshot, end);
  }
}

tr_status ckpt_save_upload(tr_ckpt_save *save, tr_error *error) {
  bool there = false;
  if (save->piece_count == 0) return TR_OK;
  copy_ahead(save);
  /* What is small is done sooner than it is put off. */
  if (save->image_bytes > PART_BYTES && !is_set(&save->hurry)) ckpt_thread_yield_to_others();
  TR_TRY(check_free(save, &there, error));
  return there ? TR_OK : put_image(save, error);
}
