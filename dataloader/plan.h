/* Which micro-batches a rank prepares, in order: a pure walk over epochs and batches. */
#ifndef TRAINRUN_DATALOADER_PLAN_H
#define TRAINRUN_DATALOADER_PLAN_H

#include <trainrun/dataloader.h>

typedef struct dl_plan {
  uint64_t samples, batch_size, micro_batch;
  uint64_t batches; /* an epoch */
  uint64_t epochs;  /* 0: no end */
  int32_t rank, size;
} dl_plan;

/* What this rank has of one global batch. */
tr_batch_info dl_plan_batch(const dl_plan *plan, tr_cursor at);
/* True when all epochs are delivered. */
bool dl_plan_ended(const dl_plan *plan, tr_cursor at);
tr_cursor dl_plan_next(const dl_plan *plan, tr_cursor at);
/* The most micro-batches that a batch gives this rank; 0: it never has any. */
uint64_t dl_plan_run_max(const dl_plan *plan);

/* One micro-batch of this rank. */
typedef struct dl_ticket {
  uint64_t epoch, leaf;
  uint64_t row_offset; /* of its first row in the global batch */
  uint64_t position;   /* of its first row in the epoch */
  uint32_t row_count;
  bool last; /* of this rank's in the batch */
} dl_ticket;

/* The next one from (*at, *leaf) on, which move past it; `leaf` counts in this rank's run of the batch. False when all
 * epochs are delivered. The rank has one sooner or later (dl_plan_run_max is not 0). */
bool dl_plan_ticket(const dl_plan *plan, tr_cursor *at, uint64_t *leaf, dl_ticket *ticket);

#endif
