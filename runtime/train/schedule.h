/* When things happen: the length of a run, what comes every so often, the learning rate. Pure. */
#ifndef TRAINRUN_SCHEDULE_H
#define TRAINRUN_SCHEDULE_H

#include <trainrun/base.h>

/* The length of a run; exactly one is set, the others are 0. */
typedef struct tr_length {
  uint64_t epochs, steps, samples, tokens, time_ns;
} tr_length;
tr_length tr_length_of(const tr_config *config);

/* Steps until the end, 0 when it is given by time alone. batches: of an epoch; samples: of an epoch. */
uint64_t tr_length_steps(const tr_length *length, uint64_t batches, uint64_t samples, uint64_t batch_size,
                         uint64_t tokens_per_sample);

/* True when something that comes every `every` is due after step `step` (1-based, just finished), which ended at
 * `elapsed_ns` and the step before at `elapsed_before_ns`; epoch_end: it was the last of its epoch `epochs_done`. */
bool tr_every_due(const tr_every *every, uint64_t step, uint64_t samples_before, uint64_t samples, uint64_t batches,
                  uint64_t elapsed_before_ns, uint64_t elapsed_ns);

typedef struct tr_lr_schedule {
  double lr, min_lr;
  uint64_t warmup_steps, total_steps; /* total 0: constant after the warm-up */
  int kind;                           /* 0 constant, 1 linear, 2 cosine */
} tr_lr_schedule;
tr_status tr_lr_schedule_of(const tr_config *config, uint64_t run_steps, tr_lr_schedule *schedule, tr_error *error);
/* Learning rate of step `step` (0-based). Rises linearly from lr/warmup over the warm-up, then falls to min_lr. */
double tr_lr_at(const tr_lr_schedule *schedule, uint64_t step);

#endif
