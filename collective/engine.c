/* Operations from begin to done: the ring of those under way, who has arrived, what is complete. */
#include "engine.h"

static engine_op *op_of(engine *e, uint64_t seq) { return &e->ops[seq % SEG_IN_FLIGHT]; }

tr_status engine_break(engine *e, const tr_error *why) {
  if (e->broken.status == TR_OK) e->broken = *why;
  return e->broken.status;
}

tr_status engine_check(engine *e, tr_error *error) {
  const uint32_t aborted = atomic_load_explicit(&e->view.head->abort, memory_order_relaxed);
  if (aborted >= (uint32_t)e->epoch)
    return tr_fail(error, TR_ERR_ABORTED, "collective: epoch %u was aborted", (unsigned)e->epoch);
  if (e->broken.status != TR_OK) {
    if (error != NULL) *error = e->broken;
    return e->broken.status;
  }
  return TR_OK;
}

void engine_publish_phase(engine *e, engine_op *op) {
  op->phase = ++e->phase;
  /* Sequentially consistent, as all of the sleeping protocol (engine_wait.c); it also releases what was written. */
  atomic_store(&e->view.control->phase, seg_tag(e->epoch, e->phase));
  engine_ring(e);
}

bool engine_reached(engine *e, uint64_t phase) {
  if (phase <= e->reached) return true;
  uint64_t lowest = e->phase;
  for (int32_t q = 0; q < e->local_size; q++) {
    const uint64_t word = atomic_load(&e->peers[q].control->phase);
    const uint64_t theirs = word >> 44 == seg_tag(e->epoch, 0) >> 44 ? word - seg_tag(e->epoch, 0) : 0;
    if (theirs < phase) {
      e->missing = e->peers[q].rank;
      return false;
    }
    if (theirs < lowest) lowest = theirs;
  }
  e->reached = lowest;
  return true;
}

tr_status engine_advance(engine *e, uint64_t budget_ns, bool *moved, tr_error *error) {
  TR_TRY(engine_check(e, error));
  e->missing = -1;
  const uint64_t end_ns = budget_ns > 0 ? tr_clock_now_ns(e->base.clock) + budget_ns : 0;
  while (e->worked < e->begun) {
    tr_error why;
    const step result = engine_step(e, op_of(e, e->worked + 1), &why);
    if (result == STEP_FAILED) {
      if (error != NULL) *error = why;
      return engine_break(e, &why);
    }
    if (result == STEP_STUCK) break;
    *moved = true;
    if (result == STEP_DONE) e->worked++;
    if (end_ns != 0 && tr_clock_now_ns(e->base.clock) >= end_ns) break;
    if (result == STEP_MORE) TR_TRY(engine_check(e, error));
  }
  while (e->completed < e->worked) {
    engine_op *op = op_of(e, e->completed + 1);
    if (!engine_reached(e, op->phase)) break;
    if (op->timed) op->done_ns = tr_clock_now_ns(e->base.clock);
    e->completed++;
    *moved = true;
  }
  return TR_OK;
}

/* Blocks until `seq` is complete. last_rank (may be NULL) becomes the last one that was waited for. */
static tr_status wait_for(engine *e, uint64_t seq, int32_t *last_rank, tr_error *error) {
  engine_patience patience = {0};
  tr_status status = TR_OK;
  while (status == TR_OK) {
    bool moved = false;
    status = engine_advance(e, 0, &moved, error);
    if (e->completed >= seq || status != TR_OK) break;
    if (moved) {
      if (patience.deadline_ns != 0) engine_rested(e);
      patience = (engine_patience){0};
      continue;
    }
    if (last_rank != NULL && e->missing >= 0) *last_rank = e->missing;
    status = engine_rest(e, &patience, error);
  }
  if (patience.deadline_ns != 0) engine_rested(e);
  return status;
}

/* Between hosts a barrier is a sum of one word from each rank: only reductions have messages. */
static comm_request barrier_between_hosts(engine *e, bool untimed) {
  e->barrier_part[0] = &e->barrier_word;
  return (comm_request){.kind = COMM_REDUCE,
                        .dtype = TR_I32,
                        .op = TR_MAX,
                        .element_bytes = sizeof e->barrier_word,
                        .leaf_count = (uint64_t)e->world.size,
                        .parts = e->barrier_part,
                        .part_count = 1,
                        .untimed = untimed,
                        .result = &e->barrier_word,
                        .count = 1};
}

static tr_status engine_begin(tr_comm *comm, const comm_request *request, tr_comm_handle *handle, tr_error *error) {
  engine *e = (engine *)comm;
  comm_request barrier;
  if (request->kind == COMM_BARRIER && engine_spans_hosts(e)) {
    barrier = barrier_between_hosts(e, request->untimed);
    request = &barrier;
  }
  comm_request whole;
  if (request->kind == COMM_REDUCE_SCATTER && engine_spans_hosts(e)) {
    whole = *request; /* rounds between hosts are cut evenly; the rest of the buffer may hold anything */
    whole.kind = COMM_REDUCE;
    request = &whole;
  }
  TR_TRY(engine_check(e, error));
  if (e->begun - e->completed == SEG_IN_FLIGHT) TR_TRY(wait_for(e, e->completed + 1, NULL, error));
  const uint64_t seq = e->begun + 1;
  engine_plans *plans = NULL;
  if (request->kind == COMM_REDUCE || request->kind == COMM_REDUCE_SCATTER)
    TR_TRY(engine_plans_get(e, request->leaf_count, &plans, error));
  engine_op *op = op_of(e, seq);
  op->request = *request;
  op->request.parts = op->parts;
  for (uint32_t p = 0; plans != NULL && p < request->part_count; p++) op->parts[p] = request->parts[p];
  if (plans == NULL) {
    op->parts[0] = request->kind == COMM_ALL_GATHER ? (void *)(uintptr_t)request->in : request->result;
    op->request.part_count = 1;
  }
  op->seq = seq;
  op->plans = plans;
  op->stage = OP_ARRIVE;
  op->staged = op->any_staged = false;
  op->arrived = 0;
  op->phase = 0;
  op->last_rank = -1;
  op->inlined = engine_fits_inline(e, request, plans);
  op->timed = !request->untimed;

  seg_slot *slot = &e->view.control->slots[seq % SEG_SLOTS];
  if (op->inlined)
    engine_inline_write(e, op, slot);
  else
    TR_TRY(engine_offer_write(e, op, slot, error));
  if (plans != NULL) plans->last_used = seq;
  op->begun_ns = op->timed ? tr_clock_now_ns(comm->clock) : 0;
  op->arrived_ns = op->done_ns = op->begun_ns;
  slot->signature = engine_signature(request);
  slot->stamp_ns = op->begun_ns;
  atomic_store(&slot->tag, seg_tag(e->epoch, seq));
  engine_ring(e);
  e->begun = seq;
  /* Peers have read the next slot long ago: take its line back before it is needed. */
  __builtin_prefetch(&e->view.control->slots[(seq + 1) % SEG_SLOTS], 1);
  *handle = seq;
  return TR_OK;
}

static tr_status engine_progress(tr_comm *comm, tr_error *error) {
  engine *e = (engine *)comm;
  if (e->completed == e->begun) return engine_check(e, error);
  bool moved = false;
  return engine_advance(e, ENGINE_PROGRESS_NS, &moved, error);
}

static tr_status engine_wait(tr_comm *comm, tr_comm_handle handle, tr_comm_wait_info *info, tr_error *error) {
  engine *e = (engine *)comm;
  if (handle == 0 || handle > e->begun) return tr_fail(error, TR_ERR_INVALID, "collective: no such handle");
  if (info == NULL) return handle <= e->completed ? engine_check(e, error) : wait_for(e, handle, NULL, error);

  const uint64_t entered_ns = tr_clock_now_ns(comm->clock);
  int32_t last_rank = -1;
  if (handle <= e->completed)
    TR_TRY(engine_check(e, error));
  else
    TR_TRY(wait_for(e, handle, &last_rank, error));
  const uint64_t left_ns = tr_clock_now_ns(comm->clock);
  *info = (tr_comm_wait_info){.done_ns = left_ns, .blocked_ns = left_ns - entered_ns, .last_rank = -1};
  const engine_op *op = op_of(e, handle);
  if (op->seq != handle) return TR_OK; /* completed long ago */
  info->begun_ns = op->begun_ns;
  info->all_arrived_ns = op->arrived_ns;
  info->done_ns = op->done_ns;
  if (op->arrived_ns > entered_ns) {
    info->blocked_for_peers_ns = op->arrived_ns - entered_ns;
    info->last_rank = op->last_rank >= 0 ? op->last_rank : last_rank;
  }
  return TR_OK;
}

static tr_comm_info engine_describe(const tr_comm *comm) {
  const engine *e = (const engine *)comm;
  return (tr_comm_info){.rank = comm->rank,
                        .size = comm->size,
                        .local_rank = e->local_rank,
                        .local_size = e->local_size,
                        .host = e->world.host[comm->rank],
                        .host_count = e->world.host_count,
                        .backend = e->backend};
}

static tr_status engine_alloc(tr_comm *comm, size_t bytes, void **out, tr_error *error) {
  return comm_heap_alloc(&((engine *)comm)->heap, bytes, out, error);
}

static void engine_free(tr_comm *comm, void *p) { comm_heap_free(&((engine *)comm)->heap, p); }

static void engine_abort(tr_comm *comm) {
  engine *e = (engine *)comm;
  /* Only a word: whoever sleeps looks at it within one slice of sleep. It never goes back to an older epoch. */
  const uint32_t epoch = atomic_load(&e->abort_word);
  _Atomic uint32_t *word = &e->view.head->abort;
  uint32_t seen = atomic_load(word);
  while (seen < epoch && !atomic_compare_exchange_weak(word, &seen, epoch)) continue;
}

static tr_board engine_board(tr_comm *comm) {
  engine *e = (engine *)comm;
  return (tr_board){seg_beacons(e->view.head), (uint32_t *)&e->view.head->stop, (uint32_t *)&e->view.head->abort,
                    e->local_size};
}

static void engine_close(tr_comm *comm) {
  engine *e = (engine *)comm;
  const tr_allocator *allocator = comm->allocator;
  const bool failed = e->view.head == NULL || engine_check(e, NULL) != TR_OK;
  engine_remote_destroy(e);
  if (e->transport.self != NULL) e->transport.close(e->transport.self, failed || e->begun != e->completed);
  if (e->heap_open) comm_heap_fini(&e->heap);
  if (e->view.head != NULL) {
    /* Peers may still read what they were promised: then the memory stays until the segment goes. */
    if (!e->announced)
      seg_home_unclaim(&e->view);
    else if (e->begun == e->completed)
      seg_heap_release(&e->view);
    seg_view_close(&e->view);
  }
  engine_plans_clear(e);
  engine_world_fini(allocator, &e->world);
  tr_free(allocator, e->peers);
  tr_free(allocator, e->targets);
  tr_free(allocator, e->ops);
  tr_free(allocator, e);
}

static tr_status engine_rebuild(tr_comm *comm, int32_t rank, int32_t size, uint64_t epoch, tr_error *error) {
  engine *e = (engine *)comm;
  if (e->transport.self != NULL)
    return tr_fail(error, TR_ERR_UNSUPPORTED, "collective: %s cannot be rebuilt", e->backend);
  if (rank < 0 || size < 1 || rank >= size || size > e->view.capacity || epoch <= e->epoch || epoch > UINT32_MAX)
    return tr_fail(error, TR_ERR_INVALID, "collective: cannot rebuild as rank %d of %d in epoch %llu", rank, size,
                   (unsigned long long)epoch);
  engine_world world;
  TR_TRY(engine_world_create(comm->allocator, rank, size, NULL, &world, error));
  engine_world_fini(comm->allocator, &e->world);
  e->world = world;
  return engine_join(e, epoch, error);
}

static const comm_vtable engine_vtable = {.close = engine_close,
                                          .describe = engine_describe,
                                          .alloc = engine_alloc,
                                          .free = engine_free,
                                          .begin = engine_begin,
                                          .progress = engine_progress,
                                          .wait = engine_wait,
                                          .abort = engine_abort,
                                          .rebuild = engine_rebuild,
                                          .board = engine_board};

static int32_t world_local_size(const engine_world *world) {
  const int32_t host = world->host[world->rank];
  return world->host_begin[host + 1] - world->host_begin[host];
}

tr_status engine_open(const engine_options *options, engine_world *world, tr_comm **out, tr_error *error) {
  engine *e = tr_calloc(options->allocator, 1, sizeof *e);
  if (e == NULL) {
    engine_world_fini(options->allocator, world);
    return tr_fail_memory(error, "a communicator", sizeof *e);
  }
  e->base = (tr_comm){&engine_vtable, options->allocator, options->clock, world->rank, world->size};
  e->backend = options->backend;
  e->world = *world;
  e->epoch = options->epoch;
  e->timeout_ns = options->timeout_ns;
  e->cores = options->cores;
  e->transport = options->transport;
  tr_status status = TR_OK;
  e->ops = tr_calloc(options->allocator, SEG_IN_FLIGHT, sizeof *e->ops);
  if (e->ops == NULL) status = tr_fail_memory(error, "the operations under way", SEG_IN_FLIGHT * sizeof *e->ops);
  if (status == TR_OK) status = seg_view_open(&e->view, options->allocator, options->descriptor, error);
  if (status == TR_OK && world_local_size(&e->world) > e->view.capacity)
    status = tr_fail(error, TR_ERR_INVALID, "collective: a segment for %d ranks is too small for %d", e->view.capacity,
                     world_local_size(&e->world));
  if (status == TR_OK) status = seg_home_claim(&e->view, options->epoch, error);
  if (status == TR_OK) {
    e->heap = (comm_heap){.allocator = options->allocator, .descriptor = e->view.descriptor, .home = e->view.home};
    e->heap_open = true;
    status = engine_join(e, options->epoch, error);
  }
  if (status != TR_OK) {
    e->transport.self = NULL; /* still the caller's */
    engine_close(&e->base);
    return status;
  }
  *out = &e->base;
  return TR_OK;
}
