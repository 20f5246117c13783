/* Ranks that sum together.
 *
 * A communicator is a set of ranks 0..size-1 behind one vtable: `self` (one rank), `shm` (ranks of one host, each reads
 * its peers' registered memory straight), `mpi` (a module: MPI moves bytes between hosts, shm inside one). Later:
 * `net`, `nccl`.
 *
 * Sums are exact and alike everywhere: a reduction adds along one balanced binary tree over numbered leaves (below), so
 * its bits depend on the leaves alone, never on the number of ranks, hosts or the backend.
 *
 * Thread rule: one thread issues all operations of a communicator, in the same program order on every rank; that thread
 * moves them on in tr_comm_progress and tr_comm_wait. tr_comm_abort may be called from any thread. Operations complete
 * in the order they were begun. Waiting spins briefly, then yields, then sleeps (futex); where there are more ranks
 * than cores it sleeps at once. Not for GPUs' gradients (nccl is an additional communicator) and not for messages
 * between two ranks. */
#ifndef TRAINRUN_COLLECTIVE_H
#define TRAINRUN_COLLECTIVE_H

#include <trainrun/device.h>

TR_BEGIN_C

typedef struct tr_comm tr_comm;

typedef enum tr_reduce_op { TR_SUM = 0, TR_MAX = 1, TR_MIN = 2 } tr_reduce_op;

/* ---- Opening ----------------------------------------------------------------------------------------------------- */

typedef struct tr_comm_self_options {
  size_t struct_bytes;
  const tr_allocator *allocator;
  const tr_clock *clock;
} tr_comm_self_options;
TR_API TR_MUST_USE tr_status tr_comm_open_self(const tr_comm_self_options *options, tr_comm **out, tr_error *error);

/* The segment of a host: one memfd, made by whoever starts the ranks and inherited by number. It is sparse: a process
 * that joins takes a home in it, with its control words and its heap at a fixed offset; pages are allocated before use,
 * so a full memory is an error and never a SIGBUS. Returns the descriptor (close-on-exec set), sized for `size`
 * ranks. */
TR_API TR_MUST_USE tr_status tr_comm_segment_create(int32_t size, int *descriptor, tr_error *error);

typedef struct tr_comm_shm_options {
  size_t struct_bytes;
  const tr_allocator *allocator;
  const tr_clock *clock;
  int32_t rank, size;
  int descriptor;      /* of the segment; duplicated, so the caller keeps its own */
  uint64_t epoch;      /* from 1, each used once a segment; ranks of another epoch are never seen */
  uint64_t timeout_ns; /* of one wait; 0: none */
  int32_t cores;       /* that these ranks share; 0: of this process's affinity mask */
} tr_comm_shm_options;
/* Collective: returns when all ranks are there. */
TR_API TR_MUST_USE tr_status tr_comm_open_shm(const tr_comm_shm_options *options, tr_comm **out, tr_error *error);

typedef struct tr_comm_mpi_options {
  size_t struct_bytes;
  const tr_allocator *allocator;
  const tr_clock *clock;
  const char *module_folder; /* where libtrainrun_mpi.so is; NULL: beside libtrainrun */
  uint64_t timeout_ns;
  int32_t cores;
  /* Tests: take every so many consecutive ranks for a host of its own; negative: deal ranks out to so many hosts in
   * turn; 0: ask MPI. */
  int32_t ranks_per_host;
} tr_comm_mpi_options;
/* MPI_Init (once a process), ranks of MPI_COMM_WORLD. TR_ERR_UNAVAILABLE where the module or its MPI is not there. */
TR_API TR_MUST_USE tr_status tr_comm_open_mpi(const tr_comm_mpi_options *options, tr_comm **out, tr_error *error);

/* Frees the communicator and all its memory; waits for nobody. Under mpi it ends MPI where opening began it, which all
 * ranks do together. */
TR_API void tr_comm_close(tr_comm *comm);

typedef struct tr_comm_info {
  int32_t rank, size;
  int32_t local_rank, local_size; /* within this host */
  int32_t host, host_count;
  const char *backend; /* "self", "shm", "mpi" */
} tr_comm_info;
TR_API tr_comm_info tr_comm_describe(const tr_comm *comm);

/* ---- Memory ------------------------------------------------------------------------------------------------------ */

/* Registered memory that peers can reach: 64-byte aligned, zeroed, its pages allocated. Reductions in it move no byte
 * twice; others are staged through a bounded buffer. Local, not collective. Freed by tr_comm_free or with the comm. */
TR_API TR_MUST_USE tr_status tr_comm_alloc(tr_comm *comm, size_t bytes, void **out, tr_error *error);
TR_API void tr_comm_free(tr_comm *comm, void *p);

/* ---- The tree ---------------------------------------------------------------------------------------------------- */

/* Leaves 0..leaf_count-1 (micro-batches, say) are cut over ranks by tr_split: rank r holds [tr_split_begin(L, size, r),
 * tr_split_end(L, size, r)). Node (level, index) covers leaves [index << level, (index + 1) << level) below leaf_count;
 * its value is left + right, or left alone where the right half is empty. The result is the root. A rank's run is cut
 * into its maximal aligned nodes, its *parts*, in leaf order; it pre-sums each part along the tree and hands them
 * over. */
enum { TR_TREE_PARTS_MAX = 126 };
typedef struct tr_tree_part {
  uint64_t first_leaf, leaf_end; /* leaf_end may be cut off by leaf_count */
  uint32_t level;
} tr_tree_part;
/* Parts of the run [begin, end) among leaf_count leaves; returns how many (0 for an empty run). Pure. A node whose
 * right half lies beyond leaf_count counts as whole. */
TR_API uint32_t tr_tree_parts(uint64_t leaf_count, uint64_t begin, uint64_t end, tr_tree_part parts[TR_TREE_PARTS_MAX]);
/* After leaf `leaf` of the run that began at `begin` has been added as a buffer of its own: how many times the last two
 * buffers of the rank now merge (last but one += last), so that at the end of the run the buffers are its parts.
 * Pure. */
TR_API uint32_t tr_tree_merges(uint64_t leaf_count, uint64_t begin, uint64_t leaf);
/* Most buffers alive at once during the run [begin, end), the newest leaf included. Pure. */
TR_API uint32_t tr_tree_buffers(uint64_t leaf_count, uint64_t begin, uint64_t end);

/* ---- Operations -------------------------------------------------------------------------------------------------- */

typedef struct tr_comm_wait_info {
  uint64_t begun_ns, all_arrived_ns, done_ns; /* of the last rank's arrival as this rank saw it; done here */
  uint64_t blocked_ns;                        /* this thread spent inside wait (and blocking operations) */
  uint64_t blocked_for_peers_ns;              /* of that: before all had arrived */
  int32_t last_rank;                          /* who arrived last; -1 when nobody was waited for */
} tr_comm_wait_info;

/* The sum of all leaves, into `result` of every rank. Each rank gives its parts (tr_tree_parts of its run), `count`
 * elements each; result may be one of the parts. A rank with no leaf gives part_count 0. TR_F32 or TR_F64, TR_SUM. */
typedef struct tr_reduce_leaves_args {
  size_t struct_bytes;
  uint64_t leaf_count;
  void *const *parts; /* host memory, registered for speed; contents are undefined afterwards unless it is result */
  uint32_t part_count;
  void *result;
  size_t count;
  tr_dtype dtype;
} tr_reduce_leaves_args;

/* A number that names an operation under way; 0 is never one. */
typedef uint64_t tr_comm_handle;

/* Up to 64 operations are under way at once; beginning another then waits for the oldest. Buffers belong to the
 * operation until it is complete. Ranks whose operations differ (kind, count, type, leaves) get TR_ERR_PEER. */
TR_API TR_MUST_USE tr_status tr_comm_reduce_leaves_begin(tr_comm *comm, const tr_reduce_leaves_args *args,
                                                         tr_comm_handle *handle, tr_error *error);
/* Leaves = ranks: the in-place all-reduce that everyone knows. F32, F64: SUM, MAX, MIN; I32, I64: the same. */
TR_API TR_MUST_USE tr_status tr_comm_all_reduce_begin(tr_comm *comm, void *buffer, size_t count, tr_dtype dtype,
                                                      tr_reduce_op op, tr_comm_handle *handle, tr_error *error);
/* Moves operations on as far as it goes without waiting: call it between pieces of work. */
TR_API TR_MUST_USE tr_status tr_comm_progress(tr_comm *comm, tr_error *error);
/* Blocks until the operation (and all before it) is complete here. info may be NULL. TR_ERR_TIMEOUT: nothing has moved
 * for the communicator's timeout, and error->rank is who is missing; the operation stays under way. */
TR_API TR_MUST_USE tr_status tr_comm_wait(tr_comm *comm, tr_comm_handle handle, tr_comm_wait_info *info,
                                          tr_error *error);

/* Blocking. Buffers need not be registered. */
TR_API TR_MUST_USE tr_status tr_comm_reduce_leaves(tr_comm *comm, const tr_reduce_leaves_args *args,
                                                   tr_comm_wait_info *info, tr_error *error);
TR_API TR_MUST_USE tr_status tr_comm_all_reduce(tr_comm *comm, void *buffer, size_t count, tr_dtype dtype,
                                                tr_reduce_op op, tr_comm_wait_info *info, tr_error *error);
/* Rank r gives buffer[tr_split(count, size, r)] summed over all ranks there; the rest of buffer is undefined after. */
TR_API TR_MUST_USE tr_status tr_comm_reduce_scatter(tr_comm *comm, void *buffer, size_t count, tr_dtype dtype,
                                                    tr_reduce_op op, tr_comm_wait_info *info, tr_error *error);
/* bytes of each rank, in rank order, into out (size * bytes); in may lie at its own place in out. */
TR_API TR_MUST_USE tr_status tr_comm_all_gather(tr_comm *comm, const void *in, size_t bytes, void *out,
                                                tr_comm_wait_info *info, tr_error *error);
TR_API TR_MUST_USE tr_status tr_comm_broadcast(tr_comm *comm, void *buffer, size_t bytes, int32_t root,
                                               tr_comm_wait_info *info, tr_error *error);
TR_API TR_MUST_USE tr_status tr_comm_barrier(tr_comm *comm, tr_comm_wait_info *info, tr_error *error);

/* Makes every operation under way or begun later, on every rank of this host, return TR_ERR_ABORTED. Any thread. */
TR_API void tr_comm_abort(tr_comm *comm);
/* The same segment with other ranks and a new epoch, after an abort; registered memory of this rank stays valid.
 * `shm` only; others answer TR_ERR_UNSUPPORTED. */
TR_API TR_MUST_USE tr_status tr_comm_rebuild(tr_comm *comm, int32_t rank, int32_t size, uint64_t epoch,
                                             tr_error *error);

/* ---- The board --------------------------------------------------------------------------------------------------- */

/* A cache line a rank in the host's segment that the launcher reads without asking: progress, and a word the launcher
 * writes. Ranks without a segment have one of their own memory. Fields are written by the rank with relaxed atomics. */
typedef struct tr_beacon {
  uint64_t step;
  uint64_t progress_ns; /* tr_clock time of the last sign of life */
  uint32_t phase;       /* tr_phase of <trainrun/train.h> */
  int32_t waits_for;    /* rank this one waits for, -1: none */
  uint64_t samples;     /* of the whole job, committed */
  double loss;
  uint32_t pid;
  uint32_t reserved[5];
} tr_beacon;
#ifdef __cplusplus
static_assert(sizeof(tr_beacon) == TR_CACHE_LINE, "a beacon is one cache line");
#else
_Static_assert(sizeof(tr_beacon) == TR_CACHE_LINE, "a beacon is one cache line");
#endif
/* Sent by the launcher to all ranks of the segment: a tr_stop_reason; taken up by the vote. */
typedef struct tr_board {
  tr_beacon *beacons; /* local_size of them, by local rank */
  uint32_t *stop;     /* atomic; 0: go on */
  uint32_t *abort;    /* atomic; the newest epoch to abort: it and older ones end within 10 ms */
  int32_t size;
} tr_board;
TR_API tr_board tr_comm_board(tr_comm *comm);
/* For the launcher: maps the board of a segment without being a rank; unmap with tr_comm_segment_unmap. */
TR_API TR_MUST_USE tr_status tr_comm_segment_map(int descriptor, int32_t size, tr_board *board, tr_error *error);
TR_API void tr_comm_segment_unmap(tr_board *board);

/* ---- Buckets ----------------------------------------------------------------------------------------------------- */

/* Cuts a flat gradient into runs of whole blocks, from the end (where backward starts) to the beginning. Pure. */
typedef struct tr_bucket {
  uint64_t offset, count; /* elements */
} tr_bucket;
typedef struct tr_bucket_options {
  size_t struct_bytes;
  uint64_t count;         /* elements of the flat gradient, a multiple of block */
  uint64_t block;         /* elements; bucket limits are multiples of it */
  uint64_t bucket_bytes;  /* wanted size; 0: 4 MiB */
  uint64_t first_bytes;   /* wanted size of the first to be ready; 0: as the others */
  uint64_t last_bytes;    /* wanted size of the last: it is what stays exposed; 0: as the others */
  uint32_t element_bytes; /* 0: 4 */
} tr_bucket_options;
/* buckets may be NULL: then only *count is written. */
TR_API TR_MUST_USE tr_status tr_bucket_plan(const tr_bucket_options *options, tr_bucket *buckets, size_t capacity,
                                            size_t *count, tr_error *error);

TR_END_C
#endif
