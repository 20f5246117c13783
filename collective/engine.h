/* The engine behind `shm` and `mpi`: operations under way, moved on by the thread that issues them.
 *
 * An operation has a sequence number, the same on every rank. A rank arrives by filling its slot of that number and
 * publishing the slot's tag; when all ranks of the host have arrived, each does its own share of the work, and says so
 * by counting its *phase* up; the operation is complete when all phases have come that far. Nothing is locked.
 *
 * - A small operation is carried in the slots themselves: every rank reads all slots and computes the result alone; it
 *   is complete when all have arrived.
 * - A large one in registered memory is one round: the rank's slice, straight from all parts to all results.
 * - Otherwise it goes in rounds through a staging buffer: copy in, phase, work, phase, copy out. All ranks follow the
 *   same rounds, since the slots say who is staged.
 * - Between hosts there are always rounds, and slices travel as messages (engine_remote.c).
 *
 * A slot is used again SEG_SLOTS operations later. At most SEG_IN_FLIGHT = SEG_SLOTS / 2 are under way at once, so a
 * peer that has arrived at operation t has completed t - SEG_IN_FLIGHT, and a rank that begins t + SEG_IN_FLIGHT knows
 * that nobody reads slot t - SEG_IN_FLIGHT any more.
 *
 * Thread rule: one thread, except engine_abort. */
#ifndef TRAINRUN_COLLECTIVE_ENGINE_H
#define TRAINRUN_COLLECTIVE_ENGINE_H

#include "comm.h"
#include "heap.h"
#include "plan.h"
#include "segment.h"

enum {
  ENGINE_PLANS = 8,
  ENGINE_STAGE_BYTES = 1 << 20,        /* of one round within a host */
  ENGINE_REMOTE_STAGE_BYTES = 4 << 20, /* of one round between hosts */
  ENGINE_PIECE_BYTES = 256 << 10,      /* worked on between two looks at the clock */
  ENGINE_PROGRESS_NS = 200000          /* most of one tr_comm_progress */
};

/* Who is where. All ranks hold the same table. */
typedef struct engine_world {
  int32_t rank, size, host_count;
  int32_t *host;       /* [rank] */
  int32_t *local;      /* [rank]: its number on its host */
  int32_t *order;      /* ranks by host, then by local number */
  int32_t *host_begin; /* [host_count + 1] into order */
} engine_world;

/* Moves bytes between hosts. Requests are 8 bytes of the transport's own; `test` completes all or none. */
typedef struct engine_transport {
  void *self;
  tr_status (*send)(void *self, const void *bytes, size_t count, int32_t to, uint64_t *request, tr_error *error);
  tr_status (*receive)(void *self, void *bytes, size_t count, int32_t from, uint64_t *request, tr_error *error);
  tr_status (*test)(void *self, uint64_t *requests, int32_t count, bool *done, tr_error *error);
  void (*close)(void *self, bool aborted);
} engine_transport;

typedef struct engine_peer {
  const seg_control *control;
  _Atomic uint32_t *doorbell, *sleeping;
  int32_t home, rank; /* rank in the world */
} engine_peer;

/* The plans of one leaf count. */
typedef struct engine_plans {
  uint64_t leaf_count;  /* 0: an empty entry */
  uint64_t last_used;   /* sequence number: an operation under way keeps its entry */
  uint32_t most_parts;  /* of any rank */
  comm_plan *root;      /* local parts and other hosts' sums -> the sum of all */
  comm_plan *host;      /* local parts -> this host's nodes; NULL with one host */
  uint32_t *host_nodes; /* [host]: how many nodes each host sends; NULL with one host */
  char *messages;       /* what is sent and received in a round; NULL with one host */
  size_t message_bytes;
} engine_plans;

/* What a large operation publishes in its slot: offsets into the heap of its home. */
typedef struct engine_offer {
  uint32_t part_count;
  uint32_t staged; /* offsets are of the staging buffer, whose first element is the first of the round */
  uint64_t result;
  uint64_t parts[TR_TREE_PARTS_MAX];
} engine_offer;
_Static_assert(sizeof(engine_offer) <= SEG_PAYLOAD_BYTES, "an offer fits in a slot");

typedef enum op_stage { OP_ARRIVE, OP_ROUND, OP_FILL, OP_WAIT_IN, OP_WORK, OP_REMOTE, OP_WAIT_OUT } op_stage;

typedef struct engine_op {
  comm_request request; /* parts points at `parts` */
  uint64_t seq;
  engine_plans *plans;
  op_stage stage;
  bool inlined;
  bool staged;     /* this rank's memory is not registered */
  bool any_staged; /* some rank's */
  bool timed;
  bool filled;           /* the staging buffer, in this round */
  int32_t arrived;       /* local ranks seen so far */
  size_t round_elements; /* of a whole round */
  size_t round_begin, round_end;
  size_t share_begin, at, end; /* of this rank in the current round; at SIZE_MAX: not known yet */
  uint64_t phase;              /* the last that this operation published */
  uint64_t begun_ns, arrived_ns, done_ns;
  int32_t last_rank;
  void *parts[TR_TREE_PARTS_MAX];
} engine_op;

typedef enum step { STEP_STUCK, STEP_MORE, STEP_DONE, STEP_FAILED } step;

typedef struct engine_remote engine_remote;

typedef struct engine {
  tr_comm base;
  const char *backend;
  engine_world world;
  int32_t local_rank, local_size;
  uint64_t epoch, timeout_ns;
  _Atomic uint32_t abort_word; /* the epoch, for tr_comm_abort from other threads */
  int32_t cores;
  uint32_t spin_limit;

  seg_view view;
  comm_heap heap;
  bool heap_open;
  bool announced;     /* peers may know our home */
  engine_peer *peers; /* [local_size] */
  void **targets;     /* [local_size]: results of the operation at work */
  uint32_t target_count;
  int32_t barrier_word;
  void *barrier_part[1];
  void *staging; /* NULL until first needed */
  uint64_t staging_offset;
  engine_transport transport; /* self NULL: none; used only where there are several hosts */
  engine_remote *remote;

  engine_op *ops; /* [SEG_IN_FLIGHT], by sequence number */
  uint64_t begun, worked, completed;
  uint64_t phase;   /* published by this rank */
  uint64_t reached; /* known to have been published by all */
  int32_t missing;  /* rank (in the world) that progress last stopped at, -1: none */
  engine_plans plans[ENGINE_PLANS];
  tr_error broken; /* status not OK: every call returns it */
} engine;

static inline bool engine_spans_hosts(const engine *e) { return e->world.host_count > 1; }

/* Opens an engine on a segment and joins the others. `world` is taken over (also on failure). */
typedef struct engine_options {
  const char *backend;
  const tr_allocator *allocator;
  const tr_clock *clock;
  int descriptor;
  uint64_t epoch, timeout_ns;
  int32_t cores;
  engine_transport transport; /* taken over on success only */
} engine_options;
TR_MUST_USE tr_status engine_open(const engine_options *options, engine_world *world, tr_comm **out, tr_error *error);
TR_MUST_USE tr_status engine_world_create(const tr_allocator *allocator, int32_t rank, int32_t size,
                                          const int32_t *host_of_rank, engine_world *out, tr_error *error);
void engine_world_fini(const tr_allocator *allocator, engine_world *world);

/* engine.c */
tr_status engine_check(engine *e, tr_error *error);
tr_status engine_break(engine *e, const tr_error *why);
void engine_publish_phase(engine *e, engine_op *op);
bool engine_reached(engine *e, uint64_t phase);

/* engine_wait.c: what to do when nothing moves. */
typedef struct engine_patience {
  uint64_t yield_until_ns, deadline_ns; /* 0: not set yet */
  uint32_t spins;
} engine_patience;
TR_MUST_USE tr_status engine_rest(engine *e, engine_patience *patience, tr_error *error);
void engine_rested(engine *e);
void engine_ring(engine *e);
uint32_t engine_spin_limit(int32_t ranks, int32_t cores);
/* Moves what can be moved, for at most budget_ns (0: no limit); *moved when anything has. */
TR_MUST_USE tr_status engine_advance(engine *e, uint64_t budget_ns, bool *moved, tr_error *error);

/* engine_join.c */
TR_MUST_USE tr_status engine_join(engine *e, uint64_t epoch, tr_error *error);

/* engine_plan.c */
TR_MUST_USE tr_status engine_plans_get(engine *e, uint64_t leaf_count, engine_plans **out, tr_error *error);
void engine_plans_clear(engine *e);

/* engine_offer.c: what is said in a slot. */
bool engine_fits_inline(const engine *e, const comm_request *request, const engine_plans *plans);
uint64_t engine_signature(const comm_request *request);
void engine_inline_write(const engine *e, const engine_op *op, seg_slot *slot);
void engine_inline_finish(engine *e, engine_op *op);
TR_MUST_USE tr_status engine_offer_write(engine *e, engine_op *op, seg_slot *slot, tr_error *error);
const seg_slot *engine_slot(const engine *e, int32_t local, uint64_t seq);
static inline const engine_offer *engine_offer_of(const engine *e, int32_t local, uint64_t seq) {
  return (const engine_offer *)engine_slot(e, local, seq)->payload;
}
/* Element `element` of a part or the result of a local rank. */
char *engine_part(const engine *e, const engine_op *op, int32_t local, uint32_t part, size_t element);
char *engine_result(const engine *e, const engine_op *op, int32_t local, size_t element);

/* engine_work.c: one step of the operation at the head. */
step engine_step(engine *e, engine_op *op, tr_error *error);
comm_math engine_math(const comm_request *request);
/* Slice `i` of `n` of a round: whole cache lines, but for reduce-scatter the exact share of rank i. */
void engine_slice(const engine_op *op, int32_t n, int32_t i, size_t *begin, size_t *end);
/* The local rank that has what a broadcast gives to this host. */
int32_t engine_broadcast_source(const engine *e, const engine_op *op);

/* engine_remote.c */
TR_MUST_USE tr_status engine_remote_create(engine *e, tr_error *error);
void engine_remote_destroy(engine *e);
TR_MUST_USE tr_status engine_remote_reserve(engine *e, engine_plans *plans, tr_error *error);
void engine_remote_begin(engine *e, engine_op *op);
step engine_remote_step(engine *e, engine_op *op, tr_error *error);
/* The source's fetch of a broadcast's round from the root's host. */
step engine_remote_fill(engine *e, engine_op *op, tr_error *error);

#endif
