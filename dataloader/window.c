/* Reading a file through with pieces under way ahead: see window.h. */
#include "window.h"

#include <string.h>

void dl_window_init(dl_window *window, const dl_file *file, const tr_allocator *allocator) {
  *window = (dl_window){.file = file, .allocator = allocator};
  window->piece_bytes = file->bytes < DL_WINDOW_PIECE ? (size_t)file->bytes : DL_WINDOW_PIECE;
  window->piece_count = file->bytes / DL_WINDOW_PIECE + (file->bytes % DL_WINDOW_PIECE != 0);
}

static void settle(dl_window *window) {
  for (; window->first < window->asked; window->first++) {
    const size_t slot = window->first % DL_WINDOW_PIECES;
    if (!window->slots[slot].here) tr_store_wait(window->file->store, &window->slots[slot].request, NULL);
  }
}

void dl_window_fini(dl_window *window) {
  settle(window);
  for (size_t i = 0; i < DL_WINDOW_PIECES; i++) {
    tr_free(window->allocator, window->slots[i].bytes);
    window->slots[i].bytes = NULL;
  }
  tr_free(window->allocator, window->joint);
  window->joint = NULL;
}

static size_t bytes_of(const dl_window *window, uint64_t piece) {
  const uint64_t left = window->file->bytes - piece * DL_WINDOW_PIECE;
  return left < DL_WINDOW_PIECE ? (size_t)left : DL_WINDOW_PIECE;
}

static tr_status ask(dl_window *window, uint64_t piece, tr_error *error) {
  const size_t slot = piece % DL_WINDOW_PIECES;
  const dl_file *file = window->file;
  if (window->slots[slot].bytes == NULL) {
    window->slots[slot].bytes = tr_alloc(window->allocator, window->piece_bytes);
    if (window->slots[slot].bytes == NULL) return tr_fail_memory(error, "reading a file", window->piece_bytes);
  }
  window->slots[slot].here = false;
  window->slots[slot].request = (tr_store_request){.struct_bytes = sizeof(tr_store_request),
                                                   .verb = TR_STORE_GET,
                                                   .priority = TR_STORE_TRAINING,
                                                   .key = file->key,
                                                   .offset = piece * DL_WINDOW_PIECE,
                                                   .buffer = window->slots[slot].bytes,
                                                   .buffer_bytes = bytes_of(window, piece),
                                                   .if_match = file->etag[0] != '\0' ? file->etag : NULL};
  return tr_store_submit(file->store, &window->slots[slot].request, error);
}

/* Waits for the piece, with others under way behind it. */
static tr_status bring(dl_window *window, uint64_t piece, tr_error *error) {
  const size_t slot = piece % DL_WINDOW_PIECES;
  if (piece < window->first) {
    settle(window);
    window->first = window->asked = piece;
  }
  while (window->first < piece && window->first < window->asked) {
    const size_t passed = window->first % DL_WINDOW_PIECES;
    if (!window->slots[passed].here) tr_store_wait(window->file->store, &window->slots[passed].request, NULL);
    window->first++;
  }
  if (window->first < piece) window->first = window->asked = piece;
  while (window->asked < window->piece_count && window->asked < window->first + DL_WINDOW_PIECES) {
    TR_TRY(ask(window, window->asked, error));
    window->asked++;
  }
  if (window->slots[slot].here) return TR_OK;
  tr_store_request *request = &window->slots[slot].request;
  const tr_status status = tr_store_wait(window->file->store, request, error);
  window->slots[slot].here = true;
  if (status == TR_OK && request->bytes == request->buffer_bytes) return TR_OK;
  window->first = piece + 1;
  if (status != TR_OK) {
    return tr_error_context(error, status, "%s: offset %llu", window->file->url, (unsigned long long)request->offset);
  }
  return tr_fail(error, TR_ERR_CORRUPT, "%s: truncated: %zu bytes at offset %llu, %zu were expected", window->file->url,
                 request->bytes, (unsigned long long)request->offset, request->buffer_bytes);
}

/* What is asked for lies in two pieces. */
static tr_status join(dl_window *window, uint64_t offset, size_t least, tr_error *error) {
  const uint64_t piece = offset / DL_WINDOW_PIECE;
  const size_t at = (size_t)(offset % DL_WINDOW_PIECE), head = DL_WINDOW_PIECE - at;
  if (window->joint == NULL) {
    window->joint = tr_alloc(window->allocator, DL_WINDOW_BYTES);
    if (window->joint == NULL) return tr_fail_memory(error, "reading a file", DL_WINDOW_BYTES);
  }
  memcpy(window->joint, window->slots[piece % DL_WINDOW_PIECES].bytes + at, head);
  TR_TRY(bring(window, piece + 1, error));
  memcpy(window->joint + head, window->slots[(piece + 1) % DL_WINDOW_PIECES].bytes, least - head);
  return TR_OK;
}

tr_status dl_window_show(dl_window *window, uint64_t offset, size_t least, const uint8_t **data, size_t *bytes,
                         tr_error *error) {
  if (offset > window->file->bytes || least > window->file->bytes - offset) {
    return tr_fail(error, TR_ERR_CORRUPT, "%s: truncated: %zu bytes are expected at offset %llu, the file has %llu",
                   window->file->url, least, (unsigned long long)offset, (unsigned long long)window->file->bytes);
  }
  *data = NULL;
  *bytes = 0;
  if (offset == window->file->bytes) return TR_OK;
  const uint64_t piece = offset / DL_WINDOW_PIECE;
  const size_t at = (size_t)(offset % DL_WINDOW_PIECE);
  TR_TRY(bring(window, piece, error));
  const size_t here = bytes_of(window, piece) - at;
  if (least <= here) {
    *data = window->slots[piece % DL_WINDOW_PIECES].bytes + at;
    *bytes = here;
    return TR_OK;
  }
  TR_TRY(join(window, offset, least, error));
  *data = window->joint;
  *bytes = least;
  return TR_OK;
}

tr_status dl_window_crc(dl_window *window, uint64_t offset, uint64_t bytes, uint32_t *crc, tr_error *error) {
  uint32_t sum = 0;
  while (bytes > 0) {
    const uint8_t *data;
    size_t shown;
    TR_TRY(dl_window_show(window, offset, 1, &data, &shown, error));
    const size_t part = bytes < shown ? (size_t)bytes : shown;
    sum = tr_crc32c(sum, data, part);
    offset += part;
    bytes -= part;
  }
  *crc = sum;
  return TR_OK;
}
