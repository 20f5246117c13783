/* An open checkpoint, as reading, verifying and copying share it. */
#ifndef TRAINRUN_CHECKPOINT_PRIVATE_H
#define TRAINRUN_CHECKPOINT_PRIVATE_H

#include "manifest.h"

struct tr_ckpt {
  const tr_allocator *allocator;
  tr_store *store;
  char folder[TR_KEY_BYTES];
  char *text; /* the manifest as it is in the store */
  size_t text_bytes;
  ckpt_manifest manifest;
};

/* The error of a piece whose bytes are wrong. */
tr_status ckpt_fail_piece(const tr_ckpt *ckpt, const ckpt_piece *piece, tr_error *error);
/* Reads a range of a shard whole: a missing or short shard is TR_ERR_CORRUPT, since the manifest promises it. */
tr_status ckpt_check_read(const tr_ckpt *ckpt, const ckpt_shard *shard, uint64_t offset, size_t wanted, size_t got,
                          tr_status status, tr_error *error);

/* commit.c: puts a manifest unless there is one; the same one counts as success. */
tr_status ckpt_put_manifest(const tr_allocator *allocator, tr_store *store, const char *folder, const tr_writer *text,
                            tr_error *error);

#endif
