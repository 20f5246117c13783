/* A save: what its thread, its owner and those who release memory share. */
#ifndef TRAINRUN_CHECKPOINT_SAVE_H
#define TRAINRUN_CHECKPOINT_SAVE_H

#include "background.h"
#include "snapshot.h"

typedef struct saved_piece {
  tr_ckpt_tensor tensor;
  uint64_t begin, count;
  uint64_t offset, bytes; /* in the image */
  uint32_t crc32c;
} saved_piece;

struct tr_ckpt_save {
  /* Never changed once the thread runs. */
  const tr_allocator *allocator;
  tr_store *store;
  tr_ckpt_saver *saver, *own_saver;
  tr_arena *arena;
  char key[TR_KEY_BYTES];
  const char *name; /* of the shard, the end of key */
  size_t piece_count;
  uint8_t *image;
  size_t image_bytes, header_bytes;
  uint64_t begun_ns, spread_ns;
  pthread_t thread;
  bool thread_runs; /* of the owner: not joined yet */

  /* The thread's until `done`. */
  saved_piece *pieces;
  uint32_t header_crc32c;
  uint64_t summed; /* bytes of the image that went into the CRCs */
  size_t summing;  /* the piece that the next byte belongs to */
  tr_writer record;
  tr_status status;
  tr_error error;

  ckpt_snapshot snapshot; /* any thread */

  /* Set once, by the owner (the first two) or the thread (done, behind everything that is the thread's); no lock, for the
   * thread runs at low priority and nobody may wait for it to leave one. */
  atomic_bool hurry, cancel, done;
  pthread_mutex_t lock; /* for the wait of a thread that paces itself */
  pthread_cond_t changed;
};

/* upload.c: copies what is not copied yet, computes the CRCs and puts the shard, as far as it is not there already. */
tr_status ckpt_save_upload(tr_ckpt_save *save, tr_error *error);

#endif
