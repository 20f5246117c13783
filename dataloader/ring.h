/* The ring of micro-batches: threads fill slots ahead of the one who takes them.
 *
 * Micro-batches are numbered by tickets, in the order of the plan; ticket t lives in slot t % slot_count. Threads claim
 * tickets in order, fill their slots at the same time, and sleep when the ring is full; the taker gets them in order
 * and gives them back in order, so what it sees does not depend on the number of threads or slots.
 *
 * A slot belongs to the thread that claimed it while it is being filled, then to the taker until it is given back. */
#ifndef TRAINRUN_DATALOADER_RING_H
#define TRAINRUN_DATALOADER_RING_H

#include <pthread.h>

#include "dataset.h"
#include "plan.h"

typedef enum dl_slot_state { DL_SLOT_EMPTY = 0, DL_SLOT_FILLING = 1, DL_SLOT_READY = 2 } dl_slot_state;

typedef struct dl_slot {
  /* Under the ring's lock. */
  dl_slot_state state;
  uint64_t ticket;

  /* The claimer's, then the taker's. */
  uint64_t epoch, leaf, row_offset;
  uint32_t row_count, skipped;
  uint64_t *ids;     /* [micro_batch] */
  float *row_weight; /* [micro_batch] */
  void **fields;     /* [field_count] into the pinned block */
  tr_wait_account spent;
  tr_status status;
  tr_error error;
} dl_slot;

typedef struct dl_ring {
  /* Set once. */
  const tr_allocator *allocator;
  const tr_clock *clock;
  tr_log *log;
  tr_trace *trace;
  tr_device *device;
  const tr_dataset *dataset;
  const dl_transforms *transforms; /* NULL: none */
  const tr_field *fields;          /* as they come out of them; as many as the data set has */
  dl_plan plan;
  tr_sample_map map;
  void *map_self;
  bool skip_corrupt;
  dl_slot *slots;
  size_t slot_count;
  uint8_t *pinned;
  size_t pinned_bytes;
  void *meta; /* ids, weights and pointers of all slots */
  pthread_t *threads;
  uint32_t thread_count; /* that were started */

  pthread_mutex_t lock;
  pthread_cond_t work;  /* there may be something to claim */
  pthread_cond_t ready; /* the slot that the taker waits for is filled */

  /* Under the lock. */
  tr_sampler *sampler;
  tr_cursor claim_at; /* the batch that the next ticket is of */
  uint64_t claim_leaf;
  uint64_t next_ticket; /* to be claimed */
  uint64_t given_back;  /* tickets below it are */
  uint32_t sleeping;
  bool stop, taker_waits;
  uint64_t skips_logged;
} dl_ring;

/* Everything that is "set once" but the slots and threads is filled in, and the sampler and cursor. On failure
 * dl_ring_stop cleans up. */
tr_status dl_ring_start(dl_ring *ring, uint64_t slot_count, uint32_t threads, tr_error *error);
/* Ends the threads and frees all; also a ring that was half started. */
void dl_ring_stop(dl_ring *ring);
/* Blocks until the ticket's slot is filled. *waited_ns: how long. */
dl_slot *dl_ring_take(dl_ring *ring, uint64_t ticket, uint64_t *waited_ns);
/* The slot of a ticket that was taken and not given back. */
dl_slot *dl_ring_slot(dl_ring *ring, uint64_t ticket);
/* All tickets below `ticket`. */
void dl_ring_give_back(dl_ring *ring, uint64_t ticket);
/* Bytes of pinned memory of one slot. */
uint64_t dl_ring_slot_bytes(const tr_field *fields, size_t field_count, uint64_t micro_batch);

#endif
