/* One round of an operation between hosts.
 *
 * Slice r of a round belongs to rank r of the whole job. On every other host one rank is its agent: it sums the parts
 * of its host as far as the tree allows, sends those nodes to r, gets the sum back and writes it for all ranks of its
 * host. So a byte crosses the network once in each direction, however many ranks a host has, and the additions are
 * those of the one tree. A round never has two messages of one kind between two ranks, and nodes are always sent and
 * expected before sums: the order in which messages arrive needs no numbers. */
#include <string.h>

#include "engine.h"

typedef enum remote_stage { REMOTE_NODES, REMOTE_SUM, REMOTE_SPREAD } remote_stage;

struct engine_remote {
  remote_stage stage;
  bool filling;     /* a broadcast's messages are on their way */
  tr_status status; /* of the messages posted by engine_remote_begin */
  tr_error error;
  int32_t *wards; /* ranks of other hosts whose agent we are */
  int32_t ward_count, next_ward;
  uint64_t *requests; /* first those that the sum waits for, then the others */
  int32_t awaited, requested;
};

/* The rank of `host` that looks after the slice of `rank`. */
static int32_t agent_of(const engine_world *world, int32_t host, int32_t rank) {
  const int32_t size = world->host_begin[host + 1] - world->host_begin[host];
  return world->order[world->host_begin[host] + world->local[rank] % size];
}

static int32_t here_of(const engine *e) { return e->world.host[e->world.rank]; }

tr_status engine_remote_create(engine *e, tr_error *error) {
  const engine_world *world = &e->world;
  const size_t n = (size_t)world->size;
  engine_remote *remote = tr_calloc(e->base.allocator, 1, sizeof *remote);
  if (remote == NULL) return tr_fail_memory(error, "messages between hosts", sizeof *remote);
  e->remote = remote;
  remote->wards = tr_calloc(e->base.allocator, n, sizeof *remote->wards);
  remote->requests = tr_calloc(e->base.allocator, 4 * n, sizeof *remote->requests);
  if (remote->wards == NULL || remote->requests == NULL)
    return tr_fail_memory(error, "messages between hosts", 4 * n * sizeof *remote->requests);
  for (int32_t r = 0; r < world->size; r++)
    if (world->host[r] != here_of(e) && agent_of(world, here_of(e), r) == world->rank)
      remote->wards[remote->ward_count++] = r;
  return TR_OK;
}

void engine_remote_destroy(engine *e) {
  if (e->remote == NULL) return;
  tr_free(e->base.allocator, e->remote->wards);
  tr_free(e->base.allocator, e->remote->requests);
  tr_free(e->base.allocator, e->remote);
  e->remote = NULL;
}

/* Bytes of the longest slice of a round of these plans. */
static size_t slice_bytes_most(const engine *e, const engine_plans *plans) {
  const size_t lines = ENGINE_REMOTE_STAGE_BYTES / plans->most_parts / TR_CACHE_LINE;
  return (lines / (size_t)e->world.size + 1) * TR_CACHE_LINE;
}

/* The buffer of a plan: nodes we send for each ward, sums we get for each ward, nodes that we get from each host. */
tr_status engine_remote_reserve(engine *e, engine_plans *plans, tr_error *error) {
  const int32_t here = here_of(e);
  size_t slices = (size_t)e->remote->ward_count * (plans->host_nodes[here] + 1);
  for (int32_t h = 0; h < e->world.host_count; h++)
    if (h != here) slices += plans->host_nodes[h];
  plans->message_bytes = (slices > 0 ? slices : 1) * slice_bytes_most(e, plans);
  plans->messages = tr_alloc_aligned(e->base.allocator, plans->message_bytes, TR_CACHE_LINE);
  if (plans->messages == NULL) return tr_fail_memory(error, "messages between hosts", plans->message_bytes);
  return TR_OK;
}

static char *nodes_for_ward(const engine *e, const engine_plans *plans, int32_t ward) {
  return plans->messages + (size_t)ward * plans->host_nodes[here_of(e)] * slice_bytes_most(e, plans);
}
static char *sum_for_ward(const engine *e, const engine_plans *plans, int32_t ward) {
  return nodes_for_ward(e, plans, e->remote->ward_count) + (size_t)ward * slice_bytes_most(e, plans);
}
static char *nodes_from_host(const engine *e, const engine_plans *plans, int32_t host) {
  size_t before = 0;
  for (int32_t h = 0; h < host; h++)
    if (h != here_of(e)) before += plans->host_nodes[h];
  return sum_for_ward(e, plans, e->remote->ward_count) + before * slice_bytes_most(e, plans);
}

/* Keeps the first failure; later messages are not even tried. */
static void send(engine *e, const void *bytes, size_t count, int32_t to) {
  engine_remote *remote = e->remote;
  if (remote->status != TR_OK || count == 0) return;
  remote->status = e->transport.send(e->transport.self, bytes, count, to, &remote->requests[remote->requested],
                                     &remote->error);
  if (remote->status == TR_OK) remote->requested++;
}

static void receive(engine *e, void *bytes, size_t count, int32_t from) {
  engine_remote *remote = e->remote;
  if (remote->status != TR_OK || count == 0) return;
  remote->status = e->transport.receive(e->transport.self, bytes, count, from, &remote->requests[remote->requested],
                                        &remote->error);
  if (remote->status == TR_OK) remote->requested++;
}

static step test(engine *e, int32_t first, int32_t count, tr_error *error) {
  engine_remote *remote = e->remote;
  bool done = true;
  if (remote->status == TR_OK && count > 0)
    remote->status = e->transport.test(e->transport.self, remote->requests + first, count, &done, &remote->error);
  if (remote->status == TR_OK) return done ? STEP_DONE : STEP_STUCK;
  *error = remote->error;
  return STEP_FAILED;
}

static void begin_messages(engine_remote *remote) {
  remote->status = TR_OK;
  remote->requested = remote->awaited = 0;
  remote->next_ward = 0;
}

static size_t slice_of(const engine *e, const engine_op *op, int32_t rank, size_t *begin) {
  size_t end;
  engine_slice(op, e->world.size, rank, begin, &end);
  return (end - *begin) * op->request.element_bytes;
}

static void begin_gather(engine *e, const engine_op *op) {
  const comm_request *request = &op->request;
  const size_t bytes = op->round_end - op->round_begin;
  for (int32_t r = 0; r < e->world.size; r++) {
    if (e->world.host[r] == here_of(e)) continue;
    receive(e, (char *)request->result + (size_t)r * request->count + op->round_begin, bytes, r);
    send(e, (const char *)request->in + op->round_begin, bytes, r);
  }
  e->remote->stage = REMOTE_SPREAD;
}

void engine_remote_begin(engine *e, engine_op *op) {
  engine_remote *remote = e->remote;
  begin_messages(remote);
  if (op->request.kind == COMM_ALL_GATHER) {
    begin_gather(e, op);
    return;
  }
  size_t begin;
  const size_t mine = slice_of(e, op, e->world.rank, &begin);
  for (int32_t h = 0; h < e->world.host_count; h++)
    if (h != here_of(e))
      receive(e, nodes_from_host(e, op->plans, h), mine * op->plans->host_nodes[h],
              agent_of(&e->world, h, e->world.rank));
  remote->awaited = remote->requested;
  for (int32_t w = 0; w < remote->ward_count; w++) {
    const size_t bytes = slice_of(e, op, remote->wards[w], &begin);
    receive(e, sum_for_ward(e, op->plans, w), bytes, remote->wards[w]);
  }
  remote->stage = REMOTE_NODES;
}

/* Sums what our host has of a ward's slice, and sends it. */
static void send_nodes(engine *e, engine_op *op, int32_t ward) {
  const int32_t rank = e->remote->wards[ward];
  comm_plan *plan = op->plans->host;
  size_t begin;
  const size_t bytes = slice_of(e, op, rank, &begin);
  if (bytes == 0 || plan->output_count == 0) return;
  for (uint32_t i = 0; i < plan->input_count; i++)
    plan->sources[i] = engine_part(e, op, e->world.local[plan->inputs[i].rank], plan->inputs[i].index, begin);
  char *nodes = nodes_for_ward(e, op->plans, ward);
  const comm_math math = engine_math(&op->request);
  for (uint32_t o = 0; o < plan->output_count; o++) plan->targets[o] = nodes + o * bytes;
  comm_plan_run(plan, &math, plan->targets, plan->output_count, 0, bytes / op->request.element_bytes);
  send(e, nodes, bytes * plan->output_count, rank);
}

/* Our slice: all nodes are here. The sum goes to the ranks of this host and to the agents on the others. */
static void finish_slice(engine *e, engine_op *op) {
  comm_plan *plan = op->plans->root;
  size_t begin;
  const size_t bytes = slice_of(e, op, e->world.rank, &begin);
  if (bytes == 0) return;
  for (uint32_t i = 0; i < plan->input_count; i++) {
    const comm_node *input = &plan->inputs[i];
    plan->sources[i] = input->rank >= 0 ? engine_part(e, op, e->world.local[input->rank], input->index, begin)
                                        : nodes_from_host(e, op->plans, input->host) + input->index * bytes;
  }
  for (int32_t q = 0; q < e->local_size; q++) e->targets[q] = engine_result(e, op, q, begin);
  const comm_math math = engine_math(&op->request);
  comm_plan_run(plan, &math, e->targets, (uint32_t)e->local_size, 0, bytes / op->request.element_bytes);
  for (int32_t h = 0; h < e->world.host_count; h++)
    if (h != here_of(e)) send(e, e->targets[e->local_rank], bytes, agent_of(&e->world, h, e->world.rank));
}

static void spread_sums(engine *e, const engine_op *op) {
  for (int32_t w = 0; w < e->remote->ward_count; w++) {
    size_t begin;
    const size_t bytes = slice_of(e, op, e->remote->wards[w], &begin);
    for (int32_t q = 0; bytes > 0 && q < e->local_size; q++)
      memcpy(engine_result(e, op, q, begin), sum_for_ward(e, op->plans, w), bytes);
  }
}

/* The host that we miss most is not known message by message: the first agent stands for all. */
static int32_t first_agent(const engine *e) { return agent_of(&e->world, here_of(e) == 0 ? 1 : 0, e->world.rank); }

step engine_remote_step(engine *e, engine_op *op, tr_error *error) {
  engine_remote *remote = e->remote;
  switch (remote->stage) {
    case REMOTE_NODES:
      if (remote->next_ward < remote->ward_count) {
        send_nodes(e, op, remote->next_ward++);
        return STEP_MORE;
      }
      remote->stage = REMOTE_SUM;
      return STEP_MORE;
    case REMOTE_SUM: {
      const step arrived = test(e, 0, remote->awaited, error);
      e->missing = first_agent(e);
      if (arrived != STEP_DONE) return arrived;
      if (op->timed && op->round_begin == 0) {
        op->arrived_ns = tr_clock_now_ns(e->base.clock);
        op->last_rank = e->missing;
      }
      finish_slice(e, op);
      remote->stage = REMOTE_SPREAD;
      return STEP_MORE;
    }
    case REMOTE_SPREAD: {
      const step done = test(e, remote->awaited, remote->requested - remote->awaited, error);
      e->missing = first_agent(e);
      if (done == STEP_DONE && op->request.kind != COMM_ALL_GATHER) spread_sums(e, op);
      return done;
    }
  }
  return STEP_FAILED;
}

step engine_remote_fill(engine *e, engine_op *op, tr_error *error) {
  engine_remote *remote = e->remote;
  const comm_request *request = &op->request;
  const size_t bytes = op->round_end - op->round_begin;
  if (!remote->filling) {
    begin_messages(remote);
    if (request->root != e->world.rank)
      receive(e, engine_part(e, op, e->local_rank, 0, op->round_begin), bytes, request->root);
    for (int32_t h = 0; request->root == e->world.rank && h < e->world.host_count; h++)
      if (h != here_of(e))
        send(e, (const char *)request->result + op->round_begin, bytes, e->world.order[e->world.host_begin[h]]);
    remote->filling = true;
  }
  e->missing = request->root;
  const step done = test(e, 0, remote->requested, error);
  if (done != STEP_STUCK) remote->filling = false;
  return done;
}
