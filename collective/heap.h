/* Registered memory of one process: blocks in the heap of its home, each mapped on its own so that it never moves. */
#ifndef TRAINRUN_COLLECTIVE_HEAP_H
#define TRAINRUN_COLLECTIVE_HEAP_H

#include "segment.h"

typedef struct heap_block {
  char *memory;
  uint64_t offset; /* in the heap */
  size_t bytes;    /* whole pages */
} heap_block;

typedef struct comm_heap {
  const tr_allocator *allocator;
  int descriptor;
  int32_t home;
  heap_block *blocks; /* by offset */
  size_t count, capacity;
  size_t last_hit;
} comm_heap;

TR_MUST_USE tr_status comm_heap_alloc(comm_heap *heap, size_t bytes, void **out, tr_error *error);
void comm_heap_free(comm_heap *heap, void *p);
/* Unmaps everything. The pages go with the home. */
void comm_heap_fini(comm_heap *heap);
/* Whether [p, p + bytes) lies in a block; then where. */
bool comm_heap_find(comm_heap *heap, const void *p, size_t bytes, uint64_t *offset);

#endif
