/* An object written from front to back, of any size, in bounded memory: one put where it fits into a buffer, parts of
 * which several are under way where it does not. It is there when object_out_commit has returned OK, and not before; an
 * abort leaves nothing. One thread at a time. */
#ifndef TRAINRUN_LAUNCHER_OBJECT_OUT_H
#define TRAINRUN_LAUNCHER_OBJECT_OUT_H

#include "buffers.h"

#include <trainrun/store.h>

enum { OBJECT_PARTS_MAX = 10000 };

typedef struct tr_object_out {
  tr_store *store;
  const char *key;
  tr_buffers *buffers; /* each holds a part: at least the store's part_bytes_min */
  void *upload;
  uint32_t parts;
  uint64_t offset; /* where the buffer being filled begins */
  uint8_t *filling;
  size_t filled;
  uint32_t crc32c;                        /* of all that was written */
  tr_store_request requests[BUFFERS_MAX]; /* a ring of those under way */
  uint32_t oldest, pending;
} tr_object_out;

/* `key` is borrowed. The struct is large: keep it off small stacks. */
void object_out_begin(tr_object_out *out, tr_store *store, const char *key, tr_buffers *buffers);
/* Room in the buffer being filled, at least one byte: write there, then object_out_wrote. */
tr_status object_out_room(tr_object_out *out, uint8_t **data, size_t *bytes, tr_error *error);
void object_out_wrote(tr_object_out *out, size_t bytes);
/* The same for bytes that lie elsewhere. */
tr_status object_out_write(tr_object_out *out, const void *data, size_t bytes, tr_error *error);
/* Either of them ends it; *bytes and *crc32c may be NULL. */
tr_status object_out_commit(tr_object_out *out, uint64_t *bytes, uint32_t *crc32c, tr_error *error);
void object_out_abort(tr_object_out *out);

#endif
