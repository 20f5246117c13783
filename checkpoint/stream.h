/* Bytes of pieces in an order of one's own: read some runs ahead, checked, handed on. And objects written in order, in
 * parts. Memory is bounded by a few runs and parts. */
#ifndef TRAINRUN_CHECKPOINT_STREAM_H
#define TRAINRUN_CHECKPOINT_STREAM_H

#include "checkpoint.h"

/* Takes bytes in order. */
typedef tr_status (*ckpt_sink_fn)(void *self, const void *data, size_t bytes, tr_error *error);

/* Reads the pieces in the order given, checks the CRC32C of each and hands their bytes on (sink NULL: only checks). What
 * was handed on before a failure may be wrong: the sink's owner throws it away. */
tr_status ckpt_stream_pieces(const tr_ckpt *ckpt, ckpt_piece *const *pieces, size_t count, ckpt_sink_fn sink,
                             void *self, tr_error *error);

enum { OBJECT_PARTS = 2 };

/* An object that is written from its first byte to its last; it is there after the commit, or not at all. */
typedef struct ckpt_object {
  const tr_allocator *allocator;
  tr_store *store;
  char key[TR_KEY_BYTES];
  size_t part_bytes, used; /* of the part that is being filled */
  uint64_t offset;         /* of that part */
  uint32_t number;         /* parts before it */
  void *upload;            /* NULL: one put */
  struct {
    uint8_t *data;
    tr_store_request request;
    bool busy;
  } parts[OBJECT_PARTS];
} ckpt_object;

/* `bytes`: of the whole object. */
tr_status ckpt_object_begin(ckpt_object *object, const tr_allocator *allocator, tr_store *store, uint64_t bytes,
                            tr_error *error);
tr_status ckpt_object_write(void *object, const void *data, size_t bytes, tr_error *error); /* a ckpt_sink_fn */
/* Ends the object: makes it visible where `status` is TR_OK, else drops it. */
tr_status ckpt_object_end(ckpt_object *object, tr_status status, tr_error *error);

#endif
