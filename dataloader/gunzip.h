/* A file read from front to back, inflated on the way where it is gzip: every byte that comes out has passed the CRC
 * and length of its member once dl_stream_end has said OK. */
#ifndef TRAINRUN_DATALOADER_GUNZIP_H
#define TRAINRUN_DATALOADER_GUNZIP_H

#include "window.h"

struct inflate_state;

typedef struct dl_stream {
  const dl_file *file;
  const tr_allocator *allocator;
  const tr_clock *clock;
  dl_window window;
  bool gzip;
  uint64_t offset; /* of the next byte that is asked of the file */
  const uint8_t *chunk;
  size_t chunk_bytes, chunk_at;  /* what is shown, and how much of it is used */
  struct inflate_state *inflate; /* gzip only */
  bool member_done;
} dl_stream;

/* Gzip is known by its first two bytes. */
tr_status dl_stream_open(dl_stream *stream, const dl_file *file, const tr_allocator *allocator, const tr_clock *clock,
                         tr_error *error);
void dl_stream_close(dl_stream *stream);
/* Exactly `bytes` bytes; a stream that ends before is TR_ERR_CORRUPT. */
tr_status dl_stream_read(dl_stream *stream, void *to, size_t bytes, tr_error *error);
/* Nothing may follow. */
tr_status dl_stream_end(dl_stream *stream, tr_error *error);

#endif
