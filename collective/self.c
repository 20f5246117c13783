/* The communicator of one rank: every operation is complete when it is begun.
 *
 * All leaves are one part here, so the sum is that part: at most one copy. */
#include "comm.h"

#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

typedef struct self_block {
  void *memory;
  size_t bytes; /* as given to the allocator */
} self_block;

typedef struct self_comm {
  tr_comm base;
  self_block *blocks;
  size_t block_count, block_capacity;
  uint64_t handles;
  tr_beacon *beacon;
  uint32_t stop;
  _Atomic uint32_t aborted;
} self_comm;

enum { ALIGN = 64, LARGE_PAGE = 2 << 20 };

static void self_free(tr_comm *comm, void *p) {
  self_comm *self = (self_comm *)comm;
  for (size_t i = 0; i < self->block_count; i++)
    if (self->blocks[i].memory == p) {
      tr_free_aligned(comm->allocator, p, self->blocks[i].bytes);
      self->blocks[i] = self->blocks[--self->block_count];
      return;
    }
}

static void self_close(tr_comm *comm) {
  self_comm *self = (self_comm *)comm;
  while (self->block_count > 0) self_free(comm, self->blocks[0].memory);
  tr_free(comm->allocator, self->blocks);
  if (self->beacon != NULL) tr_free_aligned(comm->allocator, self->beacon, sizeof *self->beacon);
  tr_free(comm->allocator, self);
}

static tr_comm_info self_describe(const tr_comm *comm) {
  (void)comm;
  return (tr_comm_info){.size = 1, .local_size = 1, .host_count = 1, .backend = "self"};
}

static tr_status self_alloc(tr_comm *comm, size_t bytes, void **out, tr_error *error) {
  self_comm *self = (self_comm *)comm;
  TR_TRY(tr_reserve(comm->allocator, (void **)&self->blocks, &self->block_capacity, self->block_count + 1,
                    sizeof *self->blocks, error));
  const size_t align = bytes >= LARGE_PAGE ? LARGE_PAGE : ALIGN;
  void *memory = tr_alloc_aligned(comm->allocator, bytes, align);
  if (memory == NULL) return tr_fail_memory(error, "a registered buffer", bytes);
  /* As the memory of several ranks has them; where there are none, nothing happens. */
  if (bytes >= LARGE_PAGE) (void)madvise(memory, bytes / LARGE_PAGE * LARGE_PAGE, MADV_HUGEPAGE);
  memset(memory, 0, bytes);
  self->blocks[self->block_count++] = (self_block){memory, bytes};
  *out = memory;
  return TR_OK;
}

static bool is_aborted(self_comm *self) { return atomic_load_explicit(&self->aborted, memory_order_relaxed) != 0; }

static tr_status fail_aborted(tr_error *error) {
  return tr_fail(error, TR_ERR_ABORTED, "collective: the communicator was aborted");
}

static tr_status self_begin(tr_comm *comm, const comm_request *request, tr_comm_handle *handle, tr_error *error) {
  self_comm *self = (self_comm *)comm;
  if (is_aborted(self)) return fail_aborted(error);
  const size_t bytes = request->count * request->element_bytes;
  const void *from = request->kind == COMM_ALL_GATHER ? request->in : request->result;
  if (request->kind == COMM_REDUCE) from = request->parts[0];
  if (bytes > 0 && from != request->result) memmove(request->result, from, bytes);
  *handle = ++self->handles;
  return TR_OK;
}

static tr_status self_progress(tr_comm *comm, tr_error *error) {
  return is_aborted((self_comm *)comm) ? fail_aborted(error) : TR_OK;
}

static tr_status self_wait(tr_comm *comm, tr_comm_handle handle, tr_comm_wait_info *info, tr_error *error) {
  self_comm *self = (self_comm *)comm;
  if (handle == 0 || handle > self->handles) return tr_fail(error, TR_ERR_INVALID, "collective: no such handle");
  if (is_aborted(self)) return fail_aborted(error);
  if (info != NULL) {
    const uint64_t now = tr_clock_now_ns(comm->clock);
    *info = (tr_comm_wait_info){.begun_ns = now, .all_arrived_ns = now, .done_ns = now, .last_rank = -1};
  }
  return TR_OK;
}

static void self_abort(tr_comm *comm) { atomic_store_explicit(&((self_comm *)comm)->aborted, 1, memory_order_relaxed); }

static tr_status self_rebuild(tr_comm *comm, int32_t rank, int32_t size, uint64_t epoch, tr_error *error) {
  (void)comm, (void)rank, (void)size, (void)epoch;
  return tr_fail(error, TR_ERR_UNSUPPORTED, "collective: a communicator of one rank cannot be rebuilt");
}

static tr_board self_board(tr_comm *comm) {
  self_comm *self = (self_comm *)comm;
  return (tr_board){self->beacon, &self->stop, (uint32_t *)&self->aborted, 1};
}

static const comm_vtable self_vtable = {.close = self_close,
                                        .describe = self_describe,
                                        .alloc = self_alloc,
                                        .free = self_free,
                                        .begin = self_begin,
                                        .progress = self_progress,
                                        .wait = self_wait,
                                        .abort = self_abort,
                                        .rebuild = self_rebuild,
                                        .board = self_board};

tr_status tr_comm_open_self(const tr_comm_self_options *options, tr_comm **out, tr_error *error) {
  if (options->struct_bytes != sizeof *options)
    return tr_fail(error, TR_ERR_INVALID, "tr_comm_self_options: wrong struct_bytes");
  self_comm *self = tr_calloc(options->allocator, 1, sizeof *self);
  if (self == NULL) return tr_fail_memory(error, "a communicator", sizeof *self);
  self->base = (tr_comm){&self_vtable, options->allocator, options->clock, 0, 1};
  self->beacon = tr_alloc_aligned(options->allocator, sizeof *self->beacon, ALIGN);
  if (self->beacon == NULL) {
    self_close(&self->base);
    return tr_fail_memory(error, "a beacon", sizeof *self->beacon);
  }
  *self->beacon = (tr_beacon){.waits_for = -1, .pid = (uint32_t)getpid()};
  *out = &self->base;
  return TR_OK;
}
