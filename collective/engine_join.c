/* How ranks find each other in a segment, at the opening and again in each epoch. */
#include "engine.h"

#include <string.h>
#include <unistd.h>

enum { NAP_FIRST_NS = 20000, NAP_LONGEST_NS = 1000000 };

tr_status engine_world_create(const tr_allocator *allocator, int32_t rank, int32_t size, const int32_t *host_of_rank,
                              engine_world *out, tr_error *error) {
  const size_t n = (size_t)size;
  engine_world world = {.rank = rank, .size = size, .host_count = 1};
  for (size_t r = 0; host_of_rank != NULL && r < n; r++)
    if (host_of_rank[r] >= world.host_count) world.host_count = host_of_rank[r] + 1;
  world.host = tr_calloc(allocator, n, sizeof *world.host);
  world.local = tr_calloc(allocator, n, sizeof *world.local);
  world.order = tr_calloc(allocator, n, sizeof *world.order);
  world.host_begin = tr_calloc(allocator, (size_t)world.host_count + 1, sizeof *world.host_begin);
  if (!world.host || !world.local || !world.order || !world.host_begin) {
    engine_world_fini(allocator, &world);
    return tr_fail_memory(error, "the table of ranks", 3 * n * sizeof *world.host);
  }
  int32_t placed = 0;
  for (int32_t h = 0; h < world.host_count; h++) {
    world.host_begin[h] = placed;
    for (int32_t r = 0; r < size; r++) {
      if (host_of_rank != NULL && host_of_rank[r] != h) continue;
      world.host[r] = h;
      world.local[r] = placed - world.host_begin[h];
      world.order[placed++] = r;
    }
  }
  world.host_begin[world.host_count] = placed;
  *out = world;
  return TR_OK;
}

void engine_world_fini(const tr_allocator *allocator, engine_world *world) {
  tr_free(allocator, world->host);
  tr_free(allocator, world->local);
  tr_free(allocator, world->order);
  tr_free(allocator, world->host_begin);
  world->host = world->local = world->order = world->host_begin = NULL;
}

/* Forgets the operations of the epoch before; takes rank, host and size from the world. */
static tr_status reset(engine *e, uint64_t epoch, tr_error *error) {
  const int32_t rank = e->world.rank, host = e->world.host[rank];
  const int32_t size = e->world.host_begin[host + 1] - e->world.host_begin[host];
  const tr_allocator *allocator = e->base.allocator;
  engine_plans_clear(e);
  if (size > e->local_size) {
    engine_peer *peers = tr_calloc(allocator, (size_t)size, sizeof *peers);
    void **targets = tr_calloc(allocator, (size_t)size, sizeof *targets);
    if (peers == NULL || targets == NULL) {
      tr_free(allocator, peers);
      tr_free(allocator, targets);
      return tr_fail_memory(error, "the table of peers", (size_t)size * sizeof *peers);
    }
    tr_free(allocator, e->peers);
    tr_free(allocator, e->targets);
    e->peers = peers;
    e->targets = targets;
  }
  memset(e->ops, 0, SEG_IN_FLIGHT * sizeof *e->ops);
  e->base.rank = rank;
  e->base.size = e->world.size;
  e->local_rank = e->world.local[rank];
  e->local_size = 0; /* nobody to ring until all are known */
  e->epoch = epoch;
  atomic_store(&e->abort_word, (uint32_t)epoch);
  e->spin_limit = engine_spin_limit(size, e->cores);
  e->begun = e->worked = e->completed = e->phase = e->reached = 0;
  e->missing = -1;
  e->broken.status = TR_OK;
  return TR_OK;
}

/* Our words first, then our name: who reads the name finds the words of this epoch. */
static void announce(engine *e) {
  seg_head *head = e->view.head;
  atomic_store(&seg_homes(head)[e->view.home], seg_tag(e->epoch, 1));
  atomic_store(&e->view.control->phase, seg_tag(e->epoch, 0));
  atomic_store(&e->view.control->sleeping, 0);
  tr_beacon *beacon = &seg_beacons(head)[e->local_rank];
  __atomic_store_n(&beacon->waits_for, -1, __ATOMIC_RELAXED);
  __atomic_store_n(&beacon->pid, (uint32_t)getpid(), __ATOMIC_RELAXED);
  e->announced = true;
  atomic_store(&seg_ranks(head)[e->local_rank], seg_tag(e->epoch, (uint64_t)e->view.home + 1));
}

static void nap(uint64_t *ns) {
  tr_clock_sleep_ns(NULL, *ns);
  if (*ns < NAP_LONGEST_NS) *ns *= 2;
}

/* Waits until the rank has announced itself in this epoch. */
static tr_status find_peer(engine *e, int32_t local, uint64_t deadline_ns, engine_peer *peer, tr_error *error) {
  const int32_t host = e->world.host[e->world.rank];
  _Atomic uint64_t *word = &seg_ranks(e->view.head)[local];
  peer->rank = e->world.order[e->world.host_begin[host] + local];
  uint64_t ns = NAP_FIRST_NS, seen;
  while ((seen = atomic_load(word)) >> 44 != seg_tag(e->epoch, 0) >> 44) {
    TR_TRY(engine_check(e, error));
    if (tr_clock_now_ns(e->base.clock) >= deadline_ns) {
      tr_fail(error, TR_ERR_TIMEOUT, "collective: rank %d has not joined within %.3f s", peer->rank,
              (double)e->timeout_ns / 1e9);
      if (error != NULL) error->rank = peer->rank;
      return TR_ERR_TIMEOUT;
    }
    nap(&ns);
  }
  const uint64_t home = seen - seg_tag(e->epoch, 0) - 1;
  if (home >= (uint64_t)seg_home_count(e->view.capacity))
    return tr_fail(error, TR_ERR_PEER, "collective: the segment is damaged");
  seg_control *control;
  TR_TRY(seg_control_map(&e->view, (int32_t)home, &control, error));
  peer->home = (int32_t)home;
  peer->control = control;
  peer->doorbell = &control->doorbell;
  peer->sleeping = &control->sleeping;
  return TR_OK;
}

tr_status engine_join(engine *e, uint64_t epoch, tr_error *error) {
  TR_TRY(reset(e, epoch, error));
  TR_TRY(engine_check(e, error));
  announce(e);
  const int32_t host = e->world.host[e->world.rank];
  const int32_t size = e->world.host_begin[host + 1] - e->world.host_begin[host];
  const uint64_t deadline_ns = e->timeout_ns > 0 ? tr_clock_now_ns(e->base.clock) + e->timeout_ns : UINT64_MAX;
  for (int32_t q = 0; q < size; q++) TR_TRY(find_peer(e, q, deadline_ns, &e->peers[q], error));
  e->local_size = size;
  if (engine_spans_hosts(e)) TR_TRY(engine_remote_create(e, error));
  engine_plans *plans;
  TR_TRY(engine_plans_get(e, (uint64_t)e->world.size, &plans, error));
  TR_TRY(tr_comm_barrier(&e->base, NULL, error));
  /* Now nobody of an older epoch is left: what the dead had is free. */
  if (e->local_rank == 0) seg_homes_sweep(&e->view, epoch);
  return TR_OK;
}
