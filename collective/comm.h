/* What every backend gives: one vtable, one form of request. Arguments have been checked when they come here. */
#ifndef TRAINRUN_COLLECTIVE_COMM_H
#define TRAINRUN_COLLECTIVE_COMM_H

#include <trainrun/collective.h>

typedef enum comm_kind {
  COMM_REDUCE = 1,
  COMM_REDUCE_SCATTER = 2,
  COMM_ALL_GATHER = 3,
  COMM_BROADCAST = 4,
  COMM_BARRIER = 5
} comm_kind;

/* One operation. `count` is in elements of element_bytes. Reductions: parts -> result. All-gather: in -> result (size
 * times as long). Broadcast: result of root -> result. */
typedef struct comm_request {
  comm_kind kind;
  tr_dtype dtype;
  tr_reduce_op op;
  uint32_t element_bytes;
  uint64_t leaf_count;
  void *const *parts;
  uint32_t part_count;
  int32_t root;
  bool untimed; /* nobody will ask when what happened */
  const void *in;
  void *result;
  size_t count;
} comm_request;

typedef struct comm_vtable {
  void (*close)(tr_comm *comm);
  tr_comm_info (*describe)(const tr_comm *comm);
  tr_status (*alloc)(tr_comm *comm, size_t bytes, void **out, tr_error *error);
  void (*free)(tr_comm *comm, void *p);
  tr_status (*begin)(tr_comm *comm, const comm_request *request, tr_comm_handle *handle, tr_error *error);
  tr_status (*progress)(tr_comm *comm, tr_error *error);
  tr_status (*wait)(tr_comm *comm, tr_comm_handle handle, tr_comm_wait_info *info, tr_error *error);
  void (*abort)(tr_comm *comm);
  tr_status (*rebuild)(tr_comm *comm, int32_t rank, int32_t size, uint64_t epoch, tr_error *error);
  tr_board (*board)(tr_comm *comm);
} comm_vtable;

/* The head of every backend's communicator. */
struct tr_comm {
  const comm_vtable *vtable;
  const tr_allocator *allocator;
  const tr_clock *clock;
  int32_t rank, size;
};

#endif
