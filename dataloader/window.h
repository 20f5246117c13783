/* A file read through once, from front to back, at the speed of the wire: for scanning. It comes in large pieces, several
 * of them under way while one is looked at: one request for each thing looked at would be slower, and what is read can be
 * checksummed. Going back is allowed and reads again. */
#ifndef TRAINRUN_DATALOADER_WINDOW_H
#define TRAINRUN_DATALOADER_WINDOW_H

#include "files.h"

enum { DL_WINDOW_BYTES = 1 << 20, DL_WINDOW_PIECE = 8 << 20, DL_WINDOW_PIECES = 3 };

typedef struct dl_window {
  const dl_file *file;
  const tr_allocator *allocator;
  size_t piece_bytes;
  uint64_t piece_count;
  uint64_t first, asked; /* pieces [first, asked) are here or under way, piece p in slot p % DL_WINDOW_PIECES */
  struct {
    uint8_t *bytes;
    bool here;
    tr_store_request request;
  } slots[DL_WINDOW_PIECES];
  uint8_t *joint; /* what lies across the end of a piece */
} dl_window;

void dl_window_init(dl_window *window, const dl_file *file, const tr_allocator *allocator);
/* Waits for what is under way. */
void dl_window_fini(dl_window *window);
/* Shows [offset, offset + *bytes): at least `least` bytes (<= DL_WINDOW_BYTES), which must be in the file; *bytes is all
 * that is at hand. Valid until the next call. */
tr_status dl_window_show(dl_window *window, uint64_t offset, size_t least, const uint8_t **data, size_t *bytes,
                         tr_error *error);
/* The CRC32C of [offset, offset + bytes). */
tr_status dl_window_crc(dl_window *window, uint64_t offset, uint64_t bytes, uint32_t *crc, tr_error *error);

#endif
