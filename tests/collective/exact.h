/* Exactness, checked the same way on every backend: sums of random leaves against a naive recursive tree, bit by bit.
 * All ranks call these together. They return the number of mismatches and print the first of them. */
#ifndef TESTS_COLLECTIVE_EXACT_H
#define TESTS_COLLECTIVE_EXACT_H

#include <trainrun/collective.h>

typedef struct exact_options {
  bool registered; /* parts and result in memory of tr_comm_alloc */
  bool apart;      /* the result is not one of the parts */
  size_t most;     /* elements of the largest buffer */
  size_t stride;   /* of the elements that are compared in large buffers; 0: all */
  bool few;        /* only some leaf counts */
  uint32_t seed;
} exact_options;

/* reduce_leaves over leaf counts 1..17 and some large ones, awkward sizes, f32 and f64. */
int exact_leaves(tr_comm *comm, const exact_options *options);
/* all_reduce, reduce_scatter, all_gather, broadcast, barrier over types, operations and sizes. */
int exact_operations(tr_comm *comm, const exact_options *options);
/* The same with one buffer that is larger than any staging buffer. */
int exact_operations_large(tr_comm *comm, const exact_options *options);
/* Many operations under way at once, moved on by progress, with messages of all sizes in between. */
int exact_under_way(tr_comm *comm, const exact_options *options);

#endif
