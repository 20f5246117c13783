/* The public operations: arguments are checked here, once for all backends, and become one comm_request. */
#include "comm.h"

#include <trainrun/split.h>

/* Bytes of an element that can be reduced; 0 for other types. */
static uint32_t reducible_bytes(tr_dtype dtype) {
  switch (dtype) {
    case TR_F32:
    case TR_I32: return 4;
    case TR_F64:
    case TR_I64: return 8;
    default: return 0;
  }
}

static tr_status fail_argument(tr_error *error, const char *what) {
  return tr_fail(error, TR_ERR_INVALID, "collective: %s", what);
}

static tr_status check_reduction(uint32_t element_bytes, tr_reduce_op op, size_t count, tr_error *error) {
  if (element_bytes == 0) return fail_argument(error, "only f32, f64, i32 and i64 can be reduced");
  if (op != TR_SUM && op != TR_MAX && op != TR_MIN) return fail_argument(error, "no such reduce operation");
  if (count > SIZE_MAX / 16) return fail_argument(error, "count is too large");
  return TR_OK;
}

tr_status tr_comm_reduce_leaves_begin(tr_comm *comm, const tr_reduce_leaves_args *args, tr_comm_handle *handle,
                                      tr_error *error) {
  if (args->struct_bytes != sizeof *args) return fail_argument(error, "tr_reduce_leaves_args: wrong struct_bytes");
  if (args->dtype != TR_F32 && args->dtype != TR_F64) return fail_argument(error, "leaves are f32 or f64");
  if (args->leaf_count == 0 || args->leaf_count >> 62 != 0) return fail_argument(error, "leaf_count is out of range");
  TR_TRY(check_reduction(reducible_bytes(args->dtype), TR_SUM, args->count, error));
  const uint64_t begin = tr_split_begin(args->leaf_count, (uint64_t)comm->size, (uint64_t)comm->rank);
  const uint64_t end = tr_split_end(args->leaf_count, (uint64_t)comm->size, (uint64_t)comm->rank);
  tr_tree_part parts[TR_TREE_PARTS_MAX];
  const uint32_t wanted = tr_tree_parts(args->leaf_count, begin, end, parts);
  if (wanted != args->part_count)
    return tr_fail(error, TR_ERR_INVALID, "collective: leaves [%llu, %llu) of %llu are %u parts, %u given",
                   (unsigned long long)begin, (unsigned long long)end, (unsigned long long)args->leaf_count, wanted,
                   args->part_count);
  const comm_request request = {.kind = COMM_REDUCE,
                                .dtype = args->dtype,
                                .op = TR_SUM,
                                .element_bytes = reducible_bytes(args->dtype),
                                .leaf_count = args->leaf_count,
                                .parts = args->parts,
                                .part_count = args->part_count,
                                .result = args->result,
                                .count = args->count};
  return comm->vtable->begin(comm, &request, handle, error);
}

static tr_status begin_reduction(tr_comm *comm, comm_kind kind, void *buffer, size_t count, tr_dtype dtype,
                                 tr_reduce_op op, bool untimed, tr_comm_handle *handle, tr_error *error) {
  const uint32_t element_bytes = reducible_bytes(dtype);
  TR_TRY(check_reduction(element_bytes, op, count, error));
  void *const parts[1] = {buffer};
  const comm_request request = {.kind = kind,
                                .dtype = dtype,
                                .op = op,
                                .element_bytes = element_bytes,
                                .leaf_count = (uint64_t)comm->size,
                                .parts = parts,
                                .part_count = 1,
                                .untimed = untimed,
                                .result = buffer,
                                .count = count};
  return comm->vtable->begin(comm, &request, handle, error);
}

tr_status tr_comm_all_reduce_begin(tr_comm *comm, void *buffer, size_t count, tr_dtype dtype, tr_reduce_op op,
                                   tr_comm_handle *handle, tr_error *error) {
  return begin_reduction(comm, COMM_REDUCE, buffer, count, dtype, op, false, handle, error);
}

tr_status tr_comm_progress(tr_comm *comm, tr_error *error) { return comm->vtable->progress(comm, error); }

tr_status tr_comm_wait(tr_comm *comm, tr_comm_handle handle, tr_comm_wait_info *info, tr_error *error) {
  return comm->vtable->wait(comm, handle, info, error);
}

tr_status tr_comm_reduce_leaves(tr_comm *comm, const tr_reduce_leaves_args *args, tr_comm_wait_info *info,
                                tr_error *error) {
  tr_comm_handle handle;
  TR_TRY(tr_comm_reduce_leaves_begin(comm, args, &handle, error));
  return comm->vtable->wait(comm, handle, info, error);
}

tr_status tr_comm_all_reduce(tr_comm *comm, void *buffer, size_t count, tr_dtype dtype, tr_reduce_op op,
                             tr_comm_wait_info *info, tr_error *error) {
  tr_comm_handle handle;
  TR_TRY(begin_reduction(comm, COMM_REDUCE, buffer, count, dtype, op, info == NULL, &handle, error));
  return comm->vtable->wait(comm, handle, info, error);
}

tr_status tr_comm_reduce_scatter(tr_comm *comm, void *buffer, size_t count, tr_dtype dtype, tr_reduce_op op,
                                 tr_comm_wait_info *info, tr_error *error) {
  tr_comm_handle handle;
  TR_TRY(begin_reduction(comm, COMM_REDUCE_SCATTER, buffer, count, dtype, op, info == NULL, &handle, error));
  return comm->vtable->wait(comm, handle, info, error);
}

/* The three that move bytes: begin and wait at once. */
static tr_status run_bytes(tr_comm *comm, const comm_request *request, tr_comm_wait_info *info, tr_error *error) {
  if (request->count > SIZE_MAX / 16 / (size_t)comm->size) return fail_argument(error, "too many bytes");
  tr_comm_handle handle;
  TR_TRY(comm->vtable->begin(comm, request, &handle, error));
  return comm->vtable->wait(comm, handle, info, error);
}

tr_status tr_comm_all_gather(tr_comm *comm, const void *in, size_t bytes, void *out, tr_comm_wait_info *info,
                             tr_error *error) {
  const comm_request request = {.kind = COMM_ALL_GATHER,
                                .dtype = TR_U8,
                                .element_bytes = 1,
                                .untimed = info == NULL,
                                .in = in,
                                .result = out,
                                .count = bytes};
  return run_bytes(comm, &request, info, error);
}

tr_status tr_comm_broadcast(tr_comm *comm, void *buffer, size_t bytes, int32_t root, tr_comm_wait_info *info,
                            tr_error *error) {
  if (root < 0 || root >= comm->size) return fail_argument(error, "no such root");
  const comm_request request = {.kind = COMM_BROADCAST,
                                .dtype = TR_U8,
                                .element_bytes = 1,
                                .untimed = info == NULL,
                                .root = root,
                                .result = buffer,
                                .count = bytes};
  return run_bytes(comm, &request, info, error);
}

tr_status tr_comm_barrier(tr_comm *comm, tr_comm_wait_info *info, tr_error *error) {
  const comm_request request = {.kind = COMM_BARRIER, .dtype = TR_U8, .element_bytes = 1, .untimed = info == NULL};
  return run_bytes(comm, &request, info, error);
}

void tr_comm_close(tr_comm *comm) {
  if (comm != NULL) comm->vtable->close(comm);
}

tr_comm_info tr_comm_describe(const tr_comm *comm) { return comm->vtable->describe(comm); }

tr_status tr_comm_alloc(tr_comm *comm, size_t bytes, void **out, tr_error *error) {
  return comm->vtable->alloc(comm, bytes > 0 ? bytes : 1, out, error);
}

void tr_comm_free(tr_comm *comm, void *p) {
  if (p != NULL) comm->vtable->free(comm, p);
}

void tr_comm_abort(tr_comm *comm) { comm->vtable->abort(comm); }

tr_status tr_comm_rebuild(tr_comm *comm, int32_t rank, int32_t size, uint64_t epoch, tr_error *error) {
  return comm->vtable->rebuild(comm, rank, size, epoch, error);
}

tr_board tr_comm_board(tr_comm *comm) { return comm->vtable->board(comm); }
