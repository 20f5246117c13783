/* The ring of micro-batches: threads fill slots ahead of the one who takes them.
 *
 * Micro-batches are numbered by tickets, in the order of the plan; ticket t lives in slot t % slot_count. Tickets get
 * their slots in order, slots are filled at the same time, and threads sleep when the ring is full; the taker gets them in
 * order and gives them back in order, so what it sees does not depend on the number of threads or slots.
 *
 * Where the data are in memory a thread fills a whole slot. Otherwise dl_fetch reads ahead, and threads decode runs of
 * rows as their bytes arrive, whichever of the open slots they are of; the one that decodes a slot's last row completes it.
 *
 * A row of a slot belongs to the thread that decodes it, the slot then to the taker until it is given back. */
#ifndef TRAINRUN_DATALOADER_RING_H
#define TRAINRUN_DATALOADER_RING_H

#include <pthread.h>

#include "fetch.h"

typedef enum dl_slot_state { DL_SLOT_EMPTY = 0, DL_SLOT_FILLING = 1, DL_SLOT_READY = 2 } dl_slot_state;

typedef struct dl_slot {
  /* Under the ring's lock. */
  dl_slot_state state;
  uint64_t ticket;
  uint32_t rows_left;    /* not decoded */
  uint64_t begin_ns;     /* the first row was taken; 0: none yet */
  dl_arrival arrival;    /* of the bytes that came last */
  tr_wait_account spent; /* on reads while decoding */
  tr_status status;      /* of the first row that failed, by its number */
  uint32_t failed_row;
  tr_error error;

  /* Set when the slot is opened, then read by all until it is given back. */
  uint64_t epoch, leaf, row_offset;
  uint32_t row_count;

  /* Rows: their decoder's, then the taker's. */
  uint32_t skipped;  /* under the lock while filling */
  uint64_t *ids;     /* [micro_batch] */
  float *row_weight; /* [micro_batch] */
  void **fields;     /* [field_count] into the pinned block */
} dl_slot;

typedef struct dl_ring {
  /* Set once. */
  const tr_allocator *allocator;
  const tr_clock *clock;
  tr_log *log;
  tr_trace *trace;
  tr_device *device;
  const tr_dataset *dataset;
  const tr_field *fields;          /* [dataset->field_count] as they come out */
  const dl_transforms *transforms; /* NULL: none */
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
  pthread_cond_t work;  /* there may be something to decode */
  pthread_cond_t ready; /* the slot that the taker waits for is filled */

  /* Under the lock. */
  dl_fetch fetch; /* not where the data are in memory */
  bool fetches;
  tr_sampler *sampler;  /* the fetching thread's, where there is one */
  tr_cursor claim_at;   /* the batch that the next ticket is of */
  uint64_t claim_leaf;  /* in the run of that batch */
  uint64_t next_ticket; /* to get a slot */
  uint64_t given_back;  /* tickets below it are */
  uint32_t sleeping;
  bool stop, taker_waits;
  uint64_t skips_logged;
} dl_ring;

/* How much memory there is: of slots, and for reading ahead. */
typedef struct dl_ring_size {
  uint64_t slot_count;
  uint64_t arena_bytes, packed_bytes; /* 0, 0: the data are in memory */
  uint32_t row_capacity;
  uint32_t threads;
} dl_ring_size;

/* Everything that is "set once" but the slots and threads is filled in, and the sampler and cursor. On failure
 * dl_ring_stop cleans up. */
tr_status dl_ring_start(dl_ring *ring, const dl_ring_size *size, tr_error *error);
/* Ends the threads and frees all; also a ring that was half started. */
void dl_ring_stop(dl_ring *ring);
/* Blocks until the ticket's slot is filled: [*begin_ns, *end_ns), both 0 where it was. */
dl_slot *dl_ring_take(dl_ring *ring, uint64_t ticket, uint64_t *begin_ns, uint64_t *end_ns);
/* The slot of a ticket that was taken and not given back. */
dl_slot *dl_ring_slot(dl_ring *ring, uint64_t ticket);
/* All tickets below `ticket`. */
void dl_ring_give_back(dl_ring *ring, uint64_t ticket);
/* Bytes of pinned memory of one slot. */
uint64_t dl_ring_slot_bytes(const tr_field *fields, size_t field_count, uint64_t micro_batch);

/* ring_fill.c: decodes rows [begin, begin + count) of a slot. `first`: their number in the engine that read them. */
typedef struct dl_fill {
  dl_slot *slot;
  uint32_t begin, count;
  uint64_t first;
  /* Out: what is to be noted in the slot. */
  uint32_t skipped;
  tr_status status; /* of the first row that failed; later ones are not decoded */
  uint32_t failed_row;
} dl_fill;
void dl_ring_fill(dl_ring *ring, dl_fill *fill, dl_scratch *scratch, tr_error *error);
/* The rows that are missing, when all others are decoded. */
void dl_ring_clear_rest(const dl_ring *ring, dl_slot *slot);

#endif
