/* What a rank does when nothing moves: spin a little, then yield its core for a millisecond, then sleep on its
 * doorbell.
 *
 * Yielding is for machines that do other things too: a rank that goes to sleep at once is woken while its peer has lost
 * its core, and the two miss each other for many operations; one that stays runnable meets it soon, and takes the core
 * from nobody. Where there are more ranks than cores a rank sleeps at once.
 *
 * A publisher stores its tag and then looks whether a peer sleeps; a sleeper says that it sleeps and then looks at the
 * tags once more. All four accesses are sequentially consistent, so one of the two sees the other and no ring is lost.
 * Even so nobody sleeps longer than a slice: that is how an abort, which is only a word, and a deadline are seen. */
#include <linux/futex.h>
#include <sched.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "engine.h"

enum {
  SPINS = 2000, /* some 30 us */
  YIELD_NS = 1000000,
  SLICE_NS = 10000000,
  REMOTE_SPINS = 20000, /* messages ring no doorbell */
  REMOTE_SLICE_NS = 100000
};

static void pause_cpu(void) {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  __asm__ volatile("yield");
#endif
}

/* Processes of a host share these words, so the futexes are not private. */
static void futex_sleep(_Atomic uint32_t *word, uint32_t seen, uint64_t ns) {
  const struct timespec limit = {.tv_sec = (time_t)(ns / 1000000000u), .tv_nsec = (long)(ns % 1000000000u)};
  (void)syscall(SYS_futex, word, FUTEX_WAIT, seen, &limit, NULL, 0);
}

static void futex_wake(_Atomic uint32_t *word) { (void)syscall(SYS_futex, word, FUTEX_WAKE, 1, NULL, NULL, 0); }

uint32_t engine_spin_limit(int32_t ranks, int32_t cores) {
  if (cores <= 0) {
    cpu_set_t mask;
    cores = sched_getaffinity(0, sizeof mask, &mask) == 0 ? CPU_COUNT(&mask) : 1;
  }
  return ranks > cores ? 0 : SPINS;
}

void engine_ring(engine *e) {
  for (int32_t q = 0; q < e->local_size; q++) {
    const engine_peer *peer = &e->peers[q];
    if (q == e->local_rank || atomic_load(peer->sleeping) == 0) continue;
    atomic_fetch_add(peer->doorbell, 1);
    futex_wake(peer->doorbell);
  }
}

static void set_waits_for(engine *e, int32_t rank) {
  tr_beacon *beacon = &seg_beacons(e->view.head)[e->local_rank];
  __atomic_store_n(&beacon->waits_for, rank, __ATOMIC_RELAXED);
}

void engine_rested(engine *e) { set_waits_for(e, -1); }

static tr_status fail_timeout(engine *e, tr_error *error) {
  const engine_op *op = &e->ops[(e->completed + 1) % SEG_IN_FLIGHT];
  const bool arriving = e->worked < e->begun && op->stage == OP_ARRIVE;
  tr_fail(error, TR_ERR_TIMEOUT, "collective: rank %d has not %s operation %llu within %.3f s", e->missing,
          arriving ? "entered" : "finished", (unsigned long long)op->seq, (double)e->timeout_ns / 1e9);
  if (error != NULL) error->rank = e->missing;
  return TR_ERR_TIMEOUT;
}

tr_status engine_rest(engine *e, engine_patience *patience, tr_error *error) {
  if (patience->spins < e->spin_limit) {
    patience->spins++;
    pause_cpu();
    return TR_OK;
  }
  const bool remote = engine_spans_hosts(e);
  if (remote && patience->spins < REMOTE_SPINS) {
    patience->spins++;
    sched_yield();
    return TR_OK;
  }
  const uint64_t now = tr_clock_now_ns(e->base.clock);
  if (!remote && e->spin_limit > 0) {
    if (patience->yield_until_ns == 0) patience->yield_until_ns = now + YIELD_NS;
    if (now < patience->yield_until_ns) {
      sched_yield();
      return TR_OK;
    }
  }
  if (patience->deadline_ns == 0) patience->deadline_ns = e->timeout_ns > 0 ? now + e->timeout_ns : UINT64_MAX;
  set_waits_for(e, e->missing); /* one may have come since, and another still be missing */
  if (now >= patience->deadline_ns) {
    engine_rested(e);
    return fail_timeout(e, error);
  }
  uint64_t slice = remote ? REMOTE_SLICE_NS : SLICE_NS;
  if (slice > patience->deadline_ns - now) slice = patience->deadline_ns - now;

  seg_control *control = e->view.control;
  atomic_store(&control->sleeping, 1);
  const uint32_t seen = atomic_load(&control->doorbell);
  bool moved = false;
  const tr_status status = engine_advance(e, 0, &moved, error);
  if (status == TR_OK && !moved) futex_sleep(&control->doorbell, seen, slice);
  atomic_store(&control->sleeping, 0);
  return status;
}
