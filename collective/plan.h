/* The order of additions for one layout of leaves over ranks, and its execution on a run of elements.
 *
 * Built once for a leaf count, then run many times without an allocation. The plan adds along the canonical tree: its
 * inputs are disjoint nodes in leaf order, its outputs the nodes that remain when all siblings have been merged (the
 * root alone where the inputs cover all leaves). */
#ifndef TRAINRUN_COLLECTIVE_PLAN_H
#define TRAINRUN_COLLECTIVE_PLAN_H

#include <trainrun/collective.h>

#include "kernels.h"

/* Where an input comes from: part `index` of rank `rank` (rank >= 0) or of host `host` as summed there (rank < 0). */
typedef struct comm_node {
  uint64_t first, end; /* leaves */
  int32_t rank, host;
  uint32_t index;
} comm_node;

/* dst = a + b; an operand below input_count is an input, others are temporaries. */
typedef struct comm_add {
  uint32_t dst, a, b;
} comm_add;

typedef struct comm_output {
  uint64_t first, end;
  uint32_t operand;
} comm_output;

typedef struct comm_plan {
  const tr_allocator *allocator;
  uint64_t leaf_count;
  uint32_t input_count, add_count, output_count, temp_count;
  comm_node *inputs;    /* input_count */
  comm_add *adds;       /* add_count, in order */
  comm_output *outputs; /* output_count */
  const void **sources; /* input_count: filled in by the one who runs the plan */
  void **targets;       /* output_count: room for whoever runs a plan of several outputs */
  char *temps;          /* temp_count chunks */
} comm_plan;

/* inputs: disjoint nodes in leaf order; copied. */
TR_MUST_USE tr_status comm_plan_create(const tr_allocator *allocator, uint64_t leaf_count, const comm_node *inputs,
                                       uint32_t input_count, comm_plan **out, tr_error *error);
void comm_plan_destroy(comm_plan *plan);

/* How comm_plan_run adds. */
typedef struct comm_math {
  comm_combine_fn combine;
  uint32_t element_bytes;
} comm_math;

/* Adds elements [from, from + n) of plan->sources. A plan of one output writes it to all of `targets`; one of several
 * writes output i to targets[i] (target_count == output_count). Sources and targets point at element 0. A target may be
 * a source. */
void comm_plan_run(comm_plan *plan, const comm_math *math, void *const *targets, uint32_t target_count, size_t from,
                   size_t n);

#endif
