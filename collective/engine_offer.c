/* What a rank says in its slot: the data itself where it is small, where it lies otherwise. */
#include <string.h>

#include "engine.h"

const seg_slot *engine_slot(const engine *e, int32_t local, uint64_t seq) {
  return &e->peers[local].control->slots[seq % SEG_SLOTS];
}

/* Ranks decide this alone and alike, so it depends only on what they all know. */
bool engine_fits_inline(const engine *e, const comm_request *request, const engine_plans *plans) {
  if (engine_spans_hosts(e)) return false;
  const size_t parts = plans != NULL ? plans->most_parts : 1;
  return request->count <= SEG_PAYLOAD_BYTES / request->element_bytes / parts;
}

uint64_t engine_signature(const comm_request *request) {
  const uint64_t kind = (uint64_t)request->kind | (uint64_t)request->dtype << 8 | (uint64_t)request->op << 16 |
                        (uint64_t)request->root << 24;
  uint64_t hash = (kind ^ request->count) * 0x9e3779b97f4a7c15ull;
  hash = (hash ^ hash >> 32 ^ request->leaf_count) * 0xd6e8feb86659fd93ull;
  return hash ^ hash >> 32;
}

void engine_inline_write(const engine *e, const engine_op *op, seg_slot *slot) {
  const comm_request *request = &op->request;
  const size_t bytes = request->count * request->element_bytes;
  if (bytes == 0) return;
  switch (request->kind) {
    case COMM_REDUCE:
    case COMM_REDUCE_SCATTER:
      for (uint32_t p = 0; p < request->part_count; p++) memcpy(slot->payload + p * bytes, request->parts[p], bytes);
      return;
    case COMM_ALL_GATHER: memcpy(slot->payload, request->in, bytes); return;
    case COMM_BROADCAST:
      if (request->root == e->world.rank) memcpy(slot->payload, request->result, bytes);
      return;
    case COMM_BARRIER: return;
  }
}

void engine_inline_finish(engine *e, engine_op *op) {
  const comm_request *request = &op->request;
  const size_t bytes = request->count * request->element_bytes;
  if (bytes == 0) return;
  switch (request->kind) {
    case COMM_REDUCE:
    case COMM_REDUCE_SCATTER: {
      comm_plan *plan = op->plans->root;
      for (uint32_t i = 0; i < plan->input_count; i++)
        plan->sources[i] = engine_slot(e, plan->inputs[i].rank, op->seq)->payload + plan->inputs[i].index * bytes;
      const comm_math math = engine_math(request);
      comm_plan_run(plan, &math, &op->request.result, 1, 0, request->count);
      return;
    }
    case COMM_ALL_GATHER:
      for (int32_t q = 0; q < e->local_size; q++)
        memcpy((char *)request->result + (size_t)q * bytes, engine_slot(e, q, op->seq)->payload, bytes);
      return;
    case COMM_BROADCAST:
      if (request->root != e->world.rank)
        memcpy(request->result, engine_slot(e, request->root, op->seq)->payload, bytes);
      return;
    case COMM_BARRIER: return;
  }
}

/* Where the memory of an operation lies in our heap; false where any of it does not. */
static bool find_registered(engine *e, const engine_op *op, engine_offer *offer) {
  const comm_request *request = &op->request;
  const size_t bytes = request->count * request->element_bytes;
  for (uint32_t p = 0; p < offer->part_count; p++)
    if (!comm_heap_find(&e->heap, op->parts[p], bytes, &offer->parts[p])) return false;
  if (request->kind != COMM_REDUCE) return true;
  return comm_heap_find(&e->heap, request->result, bytes, &offer->result);
}

static tr_status need_staging(engine *e, tr_error *error) {
  if (e->staging != NULL) return TR_OK;
  const size_t bytes = engine_spans_hosts(e) ? ENGINE_REMOTE_STAGE_BYTES : ENGINE_STAGE_BYTES;
  TR_TRY(comm_heap_alloc(&e->heap, bytes, &e->staging, error));
  (void)comm_heap_find(&e->heap, e->staging, bytes, &e->staging_offset);
  return TR_OK;
}

tr_status engine_offer_write(engine *e, engine_op *op, seg_slot *slot, tr_error *error) {
  const comm_request *request = &op->request;
  engine_offer *offer = (engine_offer *)slot->payload;
  const size_t stage_bytes = engine_spans_hosts(e) ? ENGINE_REMOTE_STAGE_BYTES : ENGINE_STAGE_BYTES;
  const uint32_t most_parts = op->plans != NULL ? op->plans->most_parts : 1;
  op->round_elements = stage_bytes / most_parts / TR_CACHE_LINE * TR_CACHE_LINE / request->element_bytes;
  offer->part_count = request->part_count;
  offer->result = 0;
  offer->staged = 0;
  if (request->kind == COMM_BROADCAST && engine_broadcast_source(e, op) != e->local_rank) {
    offer->part_count = 0;
    return TR_OK;
  }
  if (request->count == 0 || find_registered(e, op, offer)) return TR_OK;
  TR_TRY(need_staging(e, error));
  offer->staged = 1;
  op->staged = true;
  for (uint32_t p = 0; p < offer->part_count; p++)
    offer->parts[p] = e->staging_offset + p * op->round_elements * request->element_bytes;
  offer->result = e->staging_offset;
  return TR_OK;
}

/* Our own memory is used where the caller has it mapped, a peer's in the mapping of its heap. */
static char *address(const engine *e, const engine_op *op, int32_t local, void *own, uint64_t offset, size_t element) {
  const bool staged = engine_offer_of(e, local, op->seq)->staged != 0;
  char *base;
  if (local != e->local_rank)
    base = seg_heap_at(&e->view, e->peers[local].home, offset);
  else
    base = staged ? (char *)e->staging + (offset - e->staging_offset) : own;
  return base + (staged ? element - op->round_begin : element) * op->request.element_bytes;
}

char *engine_part(const engine *e, const engine_op *op, int32_t local, uint32_t part, size_t element) {
  return address(e, op, local, op->parts[part], engine_offer_of(e, local, op->seq)->parts[part], element);
}

char *engine_result(const engine *e, const engine_op *op, int32_t local, size_t element) {
  return address(e, op, local, op->request.result, engine_offer_of(e, local, op->seq)->result, element);
}
