/* The work of one operation, step by step: arrive, then rounds of (fill, wait), work, (wait, empty).
 *
 * A step never waits and never takes long, so that tr_comm_progress can stop between two. Only the operation at the
 * head works; those behind it have merely been published. */
#include <string.h>
#include <trainrun/split.h>

#include "engine.h"

comm_math engine_math(const comm_request *request) {
  return (comm_math){comm_combine(request->dtype, request->op), request->element_bytes};
}

void engine_slice(const engine_op *op, int32_t n, int32_t i, size_t *begin, size_t *end) {
  if (op->request.kind == COMM_REDUCE_SCATTER) {
    const size_t from = tr_split_begin(op->request.count, (uint64_t)n, (uint64_t)i);
    const size_t to = tr_split_end(op->request.count, (uint64_t)n, (uint64_t)i);
    *begin = from > op->round_begin ? from : op->round_begin;
    *end = to < op->round_end ? to : op->round_end;
    if (*end < *begin) *end = *begin;
    return;
  }
  const size_t line = TR_CACHE_LINE / op->request.element_bytes;
  const size_t lines = (op->round_end - op->round_begin + line - 1) / line;
  *begin = op->round_begin + tr_split_begin(lines, (uint64_t)n, (uint64_t)i) * line;
  *end = op->round_begin + tr_split_end(lines, (uint64_t)n, (uint64_t)i) * line;
  if (*begin > op->round_end) *begin = op->round_end;
  if (*end > op->round_end) *end = op->round_end;
}

int32_t engine_broadcast_source(const engine *e, const engine_op *op) {
  const int32_t root = op->request.root;
  return e->world.host[root] == e->world.host[e->world.rank] ? e->world.local[root] : 0;
}

static bool is_reduction(const engine_op *op) {
  return op->request.kind == COMM_REDUCE || op->request.kind == COMM_REDUCE_SCATTER;
}

/* Between hosts a broadcast must reach the source of the host before its peers can copy. */
static bool has_inner_phases(const engine *e, const engine_op *op) {
  return op->any_staged || (op->request.kind == COMM_BROADCAST && engine_spans_hosts(e));
}

static tr_status map_peers(engine *e, const engine_op *op, tr_error *error) {
  const size_t bytes = op->request.count * op->request.element_bytes;
  const size_t stage = engine_spans_hosts(e) ? ENGINE_REMOTE_STAGE_BYTES : ENGINE_STAGE_BYTES;
  for (int32_t q = 0; q < e->local_size; q++) {
    const engine_offer *offer = engine_offer_of(e, q, op->seq);
    if (q == e->local_rank) continue;
    if (offer->part_count > TR_TREE_PARTS_MAX || offer->result >> SEG_HOME_SHIFT != 0)
      return tr_fail(error, TR_ERR_PEER, "collective: rank %d broke the protocol", e->peers[q].rank);
    uint64_t end = op->request.kind == COMM_REDUCE ? offer->result + (offer->staged ? stage : bytes) : 0;
    for (uint32_t p = 0; p < offer->part_count; p++) {
      if (offer->parts[p] >> SEG_HOME_SHIFT != 0)
        return tr_fail(error, TR_ERR_PEER, "collective: rank %d broke the protocol", e->peers[q].rank);
      const uint64_t part_end = offer->parts[p] + (offer->staged ? stage : bytes);
      if (part_end > end) end = part_end;
    }
    TR_TRY(seg_heap_map_grow(&e->view, e->peers[q].home, end, error));
  }
  return TR_OK;
}

/* Who began last, where the ranks took the time. */
static int32_t last_to_begin(const engine *e, const engine_op *op) {
  int32_t last = e->local_rank;
  for (int32_t q = 0; q < e->local_size; q++)
    if (engine_slot(e, q, op->seq)->stamp_ns > engine_slot(e, last, op->seq)->stamp_ns) last = q;
  return last == e->local_rank ? -1 : e->peers[last].rank;
}

static step arrive(engine *e, engine_op *op, tr_error *error) {
  const uint64_t tag = seg_tag(e->epoch, op->seq);
  for (; op->arrived < e->local_size; op->arrived++) {
    const seg_slot *slot = engine_slot(e, op->arrived, op->seq);
    if (atomic_load(&slot->tag) != tag) {
      e->missing = e->peers[op->arrived].rank;
      return STEP_STUCK;
    }
    if (slot->signature != engine_slot(e, e->local_rank, op->seq)->signature) {
      const int32_t rank = e->peers[op->arrived].rank;
      tr_fail(error, TR_ERR_PEER, "collective: operation %llu of rank %d is another than that of rank %d",
              (unsigned long long)op->seq, rank, e->world.rank);
      error->rank = rank;
      return STEP_FAILED;
    }
  }
  if (op->timed) {
    op->arrived_ns = tr_clock_now_ns(e->base.clock);
    op->last_rank = last_to_begin(e, op);
  }
  if (op->inlined) {
    engine_inline_finish(e, op);
    return STEP_DONE;
  }
  for (int32_t q = 0; q < e->local_size; q++) op->any_staged |= engine_offer_of(e, q, op->seq)->staged != 0;
  if (map_peers(e, op, error) != TR_OK) return STEP_FAILED;
  op->round_begin = op->round_end = 0;
  op->stage = OP_ROUND;
  return STEP_MORE;
}

static step begin_round(engine *e, engine_op *op) {
  const size_t count = op->request.count;
  if (op->round_end == count) return STEP_DONE;
  op->round_begin = op->round_end;
  const bool whole = !op->any_staged && !engine_spans_hosts(e);
  op->round_end = whole || count - op->round_begin < op->round_elements ? count : op->round_begin + op->round_elements;
  op->stage = has_inner_phases(e, op) ? OP_FILL : OP_WORK;
  op->at = op->end = SIZE_MAX; /* not set up yet */
  op->filled = false;
  return STEP_MORE;
}

/* What peers will read of us in this round goes into the staging buffer. */
static step fill(engine *e, engine_op *op, tr_error *error) {
  const comm_request *request = &op->request;
  const bool fetch = request->kind == COMM_BROADCAST && engine_spans_hosts(e) &&
                     engine_broadcast_source(e, op) == e->local_rank;
  const bool have_it = request->kind != COMM_BROADCAST || request->root == e->world.rank;
  const size_t from = op->round_begin * request->element_bytes;
  const size_t bytes = (op->round_end - op->round_begin) * request->element_bytes;
  if (op->staged && have_it && !op->filled)
    for (uint32_t p = 0; p < request->part_count; p++)
      memcpy(engine_part(e, op, e->local_rank, p, op->round_begin), (char *)op->parts[p] + from, bytes);
  op->filled = true;
  if (fetch) {
    const step fetched = engine_remote_fill(e, op, error);
    if (fetched != STEP_DONE) return fetched;
  }
  engine_publish_phase(e, op);
  op->stage = OP_WAIT_IN;
  return STEP_MORE;
}

/* The slice of this rank: where its inputs and results begin. */
static void set_up_slice(engine *e, engine_op *op) {
  comm_plan *plan = op->plans->root;
  engine_slice(op, e->world.size, e->world.rank, &op->at, &op->end);
  op->share_begin = op->at;
  for (uint32_t i = 0; i < plan->input_count; i++)
    plan->sources[i] = engine_part(e, op, e->world.local[plan->inputs[i].rank], plan->inputs[i].index, op->at);
  e->target_count = 0;
  if (op->request.kind == COMM_REDUCE_SCATTER)
    e->targets[e->target_count++] = (char *)op->request.result + op->at * op->request.element_bytes;
  else
    for (int32_t q = 0; q < e->local_size; q++) e->targets[e->target_count++] = engine_result(e, op, q, op->at);
}

static void copy_piece(engine *e, engine_op *op, size_t n) {
  const comm_request *request = &op->request;
  if (request->kind == COMM_BROADCAST) {
    const int32_t source = engine_broadcast_source(e, op);
    char *to = (char *)request->result + op->at;
    if (e->world.rank != request->root && (source != e->local_rank || op->staged))
      memcpy(to, engine_part(e, op, source, 0, op->at), n);
    return;
  }
  for (int32_t q = 0; q < e->local_size; q++) {
    char *to = (char *)request->result + (size_t)e->peers[q].rank * request->count + op->at;
    const char *from = q == e->local_rank ? (const char *)request->in + op->at : engine_part(e, op, q, 0, op->at);
    if (to != from) memcpy(to, from, n);
  }
}

static step work(engine *e, engine_op *op) {
  const bool remote = engine_spans_hosts(e);
  if (op->at == SIZE_MAX) {
    if (remote && op->request.kind != COMM_BROADCAST) engine_remote_begin(e, op);
    if (is_reduction(op)) {
      if (remote) {
        op->stage = OP_REMOTE;
        return STEP_MORE;
      }
      set_up_slice(e, op);
    } else {
      op->at = op->round_begin;
      op->end = op->round_end;
    }
  }
  const size_t most = ENGINE_PIECE_BYTES / op->request.element_bytes;
  const size_t n = op->end - op->at < most ? op->end - op->at : most;
  if (is_reduction(op)) {
    const comm_math math = engine_math(&op->request);
    comm_plan_run(op->plans->root, &math, e->targets, e->target_count, op->at - op->share_begin, n);
  } else {
    copy_piece(e, op, n);
  }
  op->at += n;
  if (op->at < op->end) return STEP_MORE;
  if (remote && op->request.kind == COMM_ALL_GATHER) {
    op->stage = OP_REMOTE;
    return STEP_MORE;
  }
  engine_publish_phase(e, op);
  op->stage = has_inner_phases(e, op) ? OP_WAIT_OUT : OP_ROUND;
  return STEP_MORE;
}

/* All have worked: what peers wrote into the staging buffer goes where the caller wants it. */
static void empty(engine *e, engine_op *op) {
  const comm_request *request = &op->request;
  if (!op->staged || request->kind != COMM_REDUCE) return;
  memcpy((char *)request->result + op->round_begin * request->element_bytes,
         engine_result(e, op, e->local_rank, op->round_begin),
         (op->round_end - op->round_begin) * request->element_bytes);
}

step engine_step(engine *e, engine_op *op, tr_error *error) {
  switch (op->stage) {
    case OP_ARRIVE: return arrive(e, op, error);
    case OP_ROUND: return begin_round(e, op);
    case OP_FILL: return fill(e, op, error);
    case OP_WAIT_IN:
      if (!engine_reached(e, op->phase)) return STEP_STUCK;
      op->stage = OP_WORK;
      return STEP_MORE;
    case OP_WORK: return work(e, op);
    case OP_REMOTE: {
      const step result = engine_remote_step(e, op, error);
      if (result != STEP_DONE) return result;
      engine_publish_phase(e, op);
      op->stage = has_inner_phases(e, op) ? OP_WAIT_OUT : OP_ROUND;
      return STEP_MORE;
    }
    case OP_WAIT_OUT:
      if (!engine_reached(e, op->phase)) return STEP_STUCK;
      empty(e, op);
      op->stage = OP_ROUND;
      return STEP_MORE;
  }
  return STEP_FAILED;
}
