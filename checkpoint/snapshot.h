/* The copying of a snapshot: runs of memory, cut to blocks, each copied once by whoever comes first: the thread of the save,
 * or one that is about to write to the memory.
 *
 * A block is free, then being copied, then copied. `add` and `begin` are of one thread, before anyone copies; `copy` and
 * `abandon` of the save's thread alone; `release` of any. */
#ifndef TRAINRUN_CHECKPOINT_SNAPSHOT_H
#define TRAINRUN_CHECKPOINT_SNAPSHOT_H

#include <trainrun/checkpoint.h>

#include <pthread.h>
#include <stdatomic.h>

typedef struct snapshot_block {
  const uint8_t *source;
  uint64_t offset; /* in the image */
  uint32_t bytes;
  atomic_uint state;
} snapshot_block;

typedef struct ckpt_snapshot {
  /* Never changed once it began. */
  const tr_allocator *allocator;
  const tr_clock *clock;
  uint8_t *image;
  snapshot_block *blocks; /* in the order of the image */
  size_t block_count, block_capacity;
  uint32_t *by_source; /* numbers of blocks, sorted by source */

  size_t next; /* of the save's thread: all blocks before it are copied */

  atomic_size_t left; /* blocks that are not copied */
  _Atomic uint64_t blocked_ns;

  /* Who waits for a block that another thread copies. */
  atomic_uint waiters;
  pthread_mutex_t lock;
  pthread_cond_t copied;
} ckpt_snapshot;

void ckpt_snapshot_init(ckpt_snapshot *snapshot, const tr_allocator *allocator, const tr_clock *clock);
void ckpt_snapshot_fini(ckpt_snapshot *snapshot);
/* Runs in the order of their offsets. */
tr_status ckpt_snapshot_add(ckpt_snapshot *snapshot, const void *source, uint64_t offset, size_t bytes,
                            tr_error *error);
tr_status ckpt_snapshot_begin(ckpt_snapshot *snapshot, uint8_t *image, tr_error *error);
/* On return image[0, end) is whole, but for what was not added. */
void ckpt_snapshot_copy(ckpt_snapshot *snapshot, uint64_t end);
bool ckpt_snapshot_is_copied(const ckpt_snapshot *snapshot);
/* What is not copied is never read again; the image is worth nothing. */
void ckpt_snapshot_abandon(ckpt_snapshot *snapshot);
void ckpt_snapshot_release(ckpt_snapshot *snapshot, const void *memory, size_t bytes);

#endif
