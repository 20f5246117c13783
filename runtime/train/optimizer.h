/* The update of the flat parameters: AdamW and SGD, with weight decay by parameter.
 *
 * Moments lie in arrays as long as the gradient, an element at the same offset. The update is elementwise, so its bits
 * depend neither on threads nor on ranks; runs of elements with one weight decay are cut once, when it is made. */
#ifndef TRAINRUN_OPTIMIZER_H
#define TRAINRUN_OPTIMIZER_H

#include <trainrun/checkpoint.h>
#include <trainrun/ops.h>

typedef struct tr_optimizer tr_optimizer;

tr_status tr_optimizer_create(const tr_allocator *allocator, const tr_config *config, tr_params *params, tr_pool *pool,
                              tr_optimizer **out, tr_error *error);
void tr_optimizer_destroy(tr_optimizer *optimizer);

typedef struct tr_update_args {
  uint64_t step; /* 0-based */
  double lr;
  double gradient_scale; /* 1 / weight of the batch, times the clip factor */
  double state_scale;    /* 1 / micro-batches that had rows: mean of their statistics; 0: leave STATE alone */
  tr_ckpt_save *save;    /* NULL, or the one whose snapshot must have what is written over */
} tr_update_args;
void tr_optimizer_update(tr_optimizer *optimizer, const float *gradient, const tr_update_args *args);

/* Named arrays of state, each tr_params_trained_count long: "m", "v" or "momentum". */
size_t tr_optimizer_states(const tr_optimizer *optimizer);
const char *tr_optimizer_state_name(const tr_optimizer *optimizer, size_t i);
float *tr_optimizer_state(tr_optimizer *optimizer, size_t i);

#endif
