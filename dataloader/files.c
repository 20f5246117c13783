/* Finding and reading the objects of a data set: see files.h. */
#include "files.h"

#include <string.h>

#include "agree.h"

/* ---- Finding ----------------------------------------------------------------------------------------------------- */

static tr_status resolve(tr_dataset *dataset, const char *url, dl_file *file, tr_error *error) {
  char key[TR_KEY_BYTES];
  TR_TRY(tr_stores_resolve(dataset->stores, url, &file->store, key, error));
  file->url = url;
  file->key = tr_arena_strdup(dataset->arena, key);
  return file->key != NULL ? TR_OK : tr_fail_memory(error, "a key", sizeof key);
}

static tr_status ask(tr_dataset *dataset, const char *url, tr_object_info *info, tr_error *error) {
  dl_file file;
  TR_TRY(resolve(dataset, url, &file, error));
  const tr_status status = tr_store_head(file.store, file.key, info, error);
  return status == TR_OK ? TR_OK : tr_error_context(error, status, "data %s", url);
}

/* What a rank found out about a candidate, as it travels: u8 which, u64 bytes, the ETag. */
static tr_status find_one(tr_dataset *dataset, const dl_candidate *candidate, tr_writer *found, tr_error *error) {
  tr_object_info info = {0};
  uint8_t which = 0;
  tr_error second;
  tr_status status = ask(dataset, candidate->url, &info, error);
  if (status == TR_ERR_NOT_FOUND && candidate->otherwise != NULL) {
    const tr_status other = ask(dataset, candidate->otherwise, &info, &second);
    /* Where neither is there, the message names what was asked for first. */
    if (other != TR_ERR_NOT_FOUND) {
      status = other;
      if (other != TR_OK && error != NULL) *error = second;
    }
    which = 1;
  }
  if (status != TR_OK) return status;
  info.etag[TR_ETAG_BYTES - 1] = '\0';
  tr_write_u8(found, which);
  tr_write_u64le(found, info.bytes);
  tr_write_bytes(found, info.etag, TR_ETAG_BYTES);
  return found->failed ? tr_fail_memory(error, "the list of files", found->bytes) : TR_OK;
}

static tr_status take_found(tr_dataset *dataset, const dl_candidate *candidates, size_t count, const tr_writer *found,
                            tr_error *error) {
  tr_reader reader = tr_reader_of(found->data, found->bytes);
  dataset->files = tr_arena_alloc(dataset->arena, count * sizeof *dataset->files);
  if (dataset->files == NULL) return tr_fail_memory(error, "the list of files", count * sizeof *dataset->files);
  dataset->file_count = count;
  for (size_t i = 0; i < count; i++) {
    dl_file *file = &dataset->files[i];
    const uint8_t which = tr_read_u8(&reader);
    const uint64_t bytes = tr_read_u64le(&reader);
    const char *etag = tr_read_bytes(&reader, TR_ETAG_BYTES);
    if (etag == NULL || (which == 1 && candidates[i].otherwise == NULL)) {
      return tr_fail(error, TR_ERR_PEER, "the list of files came broken from a peer");
    }
    TR_TRY(resolve(dataset, which == 1 ? candidates[i].otherwise : candidates[i].url, file, error));
    file->bytes = bytes;
    memcpy(file->etag, etag, TR_ETAG_BYTES - 1);
  }
  return TR_OK;
}

tr_status dl_files_find(tr_dataset *dataset, const dl_candidate *candidates, size_t count, tr_error *error) {
  const uint64_t ranks = (uint64_t)dl_ranks(dataset->exchange), rank = (uint64_t)dl_rank(dataset->exchange);
  tr_writer found;
  tr_writer_init(&found, dataset->allocator);
  tr_status status = TR_OK;
  const uint64_t end = tr_split_end(count, ranks, rank);
  for (uint64_t i = tr_split_begin(count, ranks, rank); i < end && status == TR_OK; i++) {
    status = find_one(dataset, &candidates[i], &found, error);
  }
  status = dl_agree_join(dataset->exchange, dataset->allocator, status, &found, error);
  if (status == TR_OK) {
    status = dl_agree(dataset->exchange, take_found(dataset, candidates, count, &found, error), error);
  }
  tr_writer_fini(&found);
  return status;
}

/* ---- Reading ----------------------------------------------------------------------------------------------------- */

static void charge(tr_wait_account *account, const tr_store_request *request, uint64_t begin_ns, uint64_t end_ns) {
  const uint64_t whole = end_ns - begin_ns;
  uint64_t left = whole;
  const uint64_t retry = request->retry_ns < left ? request->retry_ns : left;
  left -= retry;
  const uint64_t throttled = request->throttled_ns < left ? request->throttled_ns : left;
  left -= throttled;
  uint64_t first = request->first_byte_ns > begin_ns ? request->first_byte_ns - begin_ns : 0;
  first = first > retry + throttled ? first - retry - throttled : 0;
  if (first > left) first = left;
  account->retry_ns += retry;
  account->throttled_ns += throttled;
  account->first_byte_ns += first;
  account->bandwidth_ns += left - first;
}

static tr_status run(tr_store *store, tr_store_request *request, tr_error *error) {
  void *self;
  const tr_store_ops *ops = tr_store_vtable(store, &self);
  if (ops->run == NULL) {
    TR_TRY(tr_store_submit(store, request, error));
    return tr_store_wait(store, request, error);
  }
  ops->run(self, request);
  if (request->status != TR_OK && error != NULL) *error = request->error;
  return request->status;
}

static tr_status read_exactly(const dl_file *file, const tr_clock *clock, uint64_t offset, void *buffer, size_t bytes,
                              bool fresh, tr_wait_account *account, tr_error *error) {
  if (offset > file->bytes || bytes > file->bytes - offset) {
    return tr_fail(error, TR_ERR_CORRUPT, "%s: truncated: %zu bytes are expected at offset %llu, the file has %llu",
                   file->url, bytes, (unsigned long long)offset, (unsigned long long)file->bytes);
  }
  if (bytes == 0) return TR_OK;
  tr_store_request request = {.struct_bytes = sizeof request,
                              .verb = TR_STORE_GET,
                              .priority = TR_STORE_TRAINING,
                              .key = file->key,
                              .offset = offset,
                              .buffer = buffer,
                              .buffer_bytes = bytes,
                              .if_match = file->etag[0] != '\0' ? file->etag : NULL,
                              .fresh = fresh};
  const uint64_t begin_ns = account != NULL ? tr_clock_now_ns(clock) : 0;
  const tr_status status = run(file->store, &request, error);
  if (account != NULL && fresh) account->retry_ns += tr_clock_now_ns(clock) - begin_ns;
  if (account != NULL && !fresh) charge(account, &request, begin_ns, tr_clock_now_ns(clock));
  if (status != TR_OK) return tr_error_context(error, status, "%s: offset %llu", file->url, (unsigned long long)offset);
  if (request.bytes != bytes) {
    return tr_fail(error, TR_ERR_CORRUPT, "%s: truncated: %zu bytes at offset %llu, %zu were expected", file->url,
                   request.bytes, (unsigned long long)offset, bytes);
  }
  return TR_OK;
}

tr_status dl_file_read(const dl_file *file, const tr_clock *clock, uint64_t offset, void *buffer, size_t bytes,
                       tr_wait_account *account, tr_error *error) {
  return read_exactly(file, clock, offset, buffer, bytes, false, account, error);
}

tr_status dl_file_read_again(const dl_file *file, const tr_clock *clock, uint64_t offset, void *buffer, size_t bytes,
                             tr_wait_account *account, tr_error *error) {
  return read_exactly(file, clock, offset, buffer, bytes, true, account, error);
}

/* ---- Scanning ---------------------------------------------------------------------------------------------------- */

enum { CHUNK_LEAST = 4096 };

tr_status dl_window_init(dl_window *window, const dl_file *file, const tr_allocator *allocator, const tr_clock *clock,
                         tr_error *error) {
  *window = (dl_window){.file = file, .clock = clock, .allocator = allocator, .chunk = 64 << 10};
  window->bytes = tr_alloc(allocator, DL_WINDOW_BYTES);
  return window->bytes != NULL ? TR_OK : tr_fail_memory(error, "a window on a file", DL_WINDOW_BYTES);
}

void dl_window_fini(dl_window *window) {
  tr_free(window->allocator, window->bytes);
  window->bytes = NULL;
}

tr_status dl_window_show(dl_window *window, uint64_t offset, size_t least, const uint8_t **data, size_t *bytes,
                         tr_error *error) {
  const uint64_t end = window->offset + window->filled;
  if (offset < window->offset || offset > end || least > end - offset) {
    /* Keep what is already here; read on from there. A jump past the end means that payloads are being skipped. */
    size_t kept = 0;
    if (offset >= window->offset && offset < end) {
      kept = (size_t)(end - offset);
      memmove(window->bytes, window->bytes + (offset - window->offset), kept);
    }
    const bool skipped = window->filled > 0 && offset > end;
    window->chunk = skipped ? CHUNK_LEAST : window->chunk * 2 < DL_WINDOW_BYTES ? window->chunk * 2 : DL_WINDOW_BYTES;
    uint64_t wanted = window->chunk > least ? window->chunk : least;
    const uint64_t there = offset < window->file->bytes ? window->file->bytes - offset : 0;
    if (wanted > there) wanted = there > least ? there : least;
    window->offset = offset;
    window->filled = kept;
    if (wanted > kept) {
      TR_TRY(dl_file_read(window->file, window->clock, offset + kept, window->bytes + kept, (size_t)wanted - kept, NULL,
                          error));
      window->filled = (size_t)wanted;
    }
  }
  *data = window->bytes + (offset - window->offset);
  *bytes = (size_t)(window->offset + window->filled - offset);
  return TR_OK;
}
