/* The cache of a node, shared by processes: one fetches and the others wait, whoever is killed and whenever. */
#include <fcntl.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "dataloader/cache_world.h"

/* What the ranks of a test have in common; in shared memory. */
typedef struct node {
  exchange_area *area;
  ts_faults *faults;
  const char *dir;
  uint64_t memory_bytes;
  tr_cache_stats stats;
  size_t read_bytes; /* of one read of those that are killed */
  _Atomic int ready, killed, go, good;
} node;

static node *node_make(int ranks) {
  node *n = mmap(NULL, sizeof *n, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  cr_assert_neq(n, MAP_FAILED);
  *n = (node){.area = exchange_area_make(ranks, 1 << 20)};
  n->faults = mmap(NULL, sizeof *n->faults, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  return n;
}

enum { OBJECTS = 4, OBJECT_BYTES = 9 << 20 };

/* A rank's own store with the same objects as everybody's, its counters everybody's. */
static cache_world *join(node *n, int rank, int ranks) {
  cache_world *w = world_make(NULL);
  tr_error e = {0};
  for (int k = 0; k < OBJECTS; k++) world_put(w, k, 0, OBJECT_BYTES);
  world_count_in(w, n->faults);
  const tr_exchange exchange = exchange_of(n->area, rank, ranks);
  const tr_status status = world_cache(w, n->dir, 0, n->memory_bytes, &exchange, &e);
  if (status != TR_OK) {
    fprintf(stderr, "rank %d: %s\n", rank, e.message);
    _exit(9);
  }
  return w;
}

static void meet(node *n, int rank, int ranks) {
  const tr_exchange exchange = exchange_of(n->area, rank, ranks);
  uint64_t word = 0, all[64];
  tr_error e;
  (void)!exchange.all_gather(exchange.self, &word, sizeof word, all, &e);
}

static int read_everything(int rank, int ranks, void *context) {
  node *n = context;
  cache_world *w = join(n, rank, ranks);
  for (int epoch = 0; epoch < 2; epoch++) {
    for (int k = 0; k < OBJECTS; k++) {
      if (world_read_all(w, k, 0, OBJECT_BYTES, 500000) != 0) return 1;
    }
    meet(n, rank, ranks);
  }
  if (rank == 0) n->stats = world_stats(w);
  meet(n, rank, ranks);
  world_end(w);
  return 0;
}

Test(cache_ranks, one_fetch_serves_all_workers_of_a_node) {
  for (int disk = 0; disk < 3; disk++) {
    node *n = node_make(4);
    n->dir = disk > 0 ? ts_folder() : NULL;
    n->memory_bytes = disk == 1 ? 0 : 64 * MIB;
    n->faults->delay_ns = 2000000;
    cr_assert(ts_ranks(4, 60, read_everything, n));
    cr_assert_eq(n->faults->gets, 3 * OBJECTS, "%d fetches", (int)n->faults->gets);
    cr_assert_eq(n->stats.misses, 3 * OBJECTS, "what one worker counts, all see");
    cr_assert_gt(n->stats.waited_hits, 0);
    cr_assert_eq(n->stats.served_bytes, (uint64_t)4 * 2 * OBJECTS * OBJECT_BYTES);
  }
}

/* The last rank kills rank 0 while it fetches what the others wait for. */
static int kill_first(node *n) {
  while (atomic_load(&n->ready) == 0) ts_sleep_s(0.001);
  ts_sleep_s(0.1); /* it sleeps in the store now, with a claim */
  n->faults->delay_ns = 0;
  atomic_store(&n->go, 1);
  ts_sleep_s(0.1); /* the others wait for it now */
  return kill(atomic_load(&n->ready), SIGKILL);
}

static int outlive(int rank, int ranks, void *context) {
  node *n = context;
  if (rank == ranks - 1) return kill_first(n);
  cache_world *w = join(n, rank, ranks - 1);
  if (rank == 0) {
    char etag[TR_ETAG_BYTES];
    uint8_t byte;
    size_t moved;
    world_etag(w, 0, etag);
    n->faults->delay_ns = 20000000000ull;
    atomic_store(&n->ready, (int)getpid());
    (void)!world_read(w, 0, etag, 0, &byte, 1, &moved, NULL);
    return 1;
  }
  while (atomic_load(&n->go) == 0) ts_sleep_s(0.001);
  if (world_read_all(w, 0, 0, OBJECT_BYTES, CHUNK) == 0) atomic_fetch_add(&n->good, 1);
  world_end(w);
  return 0;
}

Test(cache_ranks, who_is_killed_in_mid_fetch_is_replaced) {
  for (int disk = 0; disk < 2; disk++) {
    node *n = node_make(3);
    n->dir = disk ? ts_folder() : NULL;
    n->memory_bytes = disk ? 0 : 64 * MIB;
    const double begin_s = ts_now_s();
    cr_assert_not(ts_ranks(4, 30, outlive, n), "rank 0 was killed");
    cr_assert_eq(atomic_load(&n->good), 2);
    cr_assert_lt(ts_now_s() - begin_s, 5);
    cr_assert_eq(n->faults->gets, 3, "the others fetched each chunk once, not %d", (int)n->faults->gets);
  }
}

static const char *const keys[OBJECTS] = {"o0", "o1", "o2", "o3"};

/* Where nothing is: a fresh read looks at the whole table first, with its lock held. */
#define FAR_BEHIND ((uint64_t)1 << 40)

/* In this thread, as a reader does that has nothing else to do. */
static bool read_here(cache_world *w, int k, const char *etag, uint64_t at, uint8_t *buffer, size_t bytes, bool fresh) {
  void *self;
  const tr_store_ops *ops = tr_store_vtable(w->outer, &self);
  tr_store_request request = {.struct_bytes = sizeof request,
                              .verb = TR_STORE_GET,
                              .key = keys[k],
                              .offset = at,
                              .buffer = buffer,
                              .buffer_bytes = bytes,
                              .if_match = etag,
                              .fresh = fresh};
  ops->run(self, &request);
  return request.status == TR_OK && request.bytes == bytes && world_right(k, 0, at, buffer, bytes);
}

/* Ranks are killed at any moment; the last one must read right bytes throughout and to the end. */
static int read_until_killed(int rank, int ranks, void *context) {
  node *n = context;
  cache_world *w = join(n, rank, ranks);
  uint8_t *buffer = malloc(MIB);
  char etags[OBJECTS][TR_ETAG_BYTES];
  for (int k = 0; k < OBJECTS; k++) world_etag(w, k, etags[k]);
  atomic_fetch_add(&n->ready, 1);
  for (uint64_t i = 0; rank < ranks - 1 || atomic_load(&n->killed) < ranks - 1; i++) {
    const int k = (int)(noise((uint64_t)rank, i) % OBJECTS);
    const uint64_t at = noise((uint64_t)rank + 100, i) % (OBJECT_BYTES - n->read_bytes);
    if (!read_here(w, k, etags[k], at, buffer, n->read_bytes, false)) {
      fprintf(stderr, "rank %d: wrong bytes\n", rank);
      return 1;
    }
    /* So that there is something to fetch, copy and write at any time. */
    const bool large = n->read_bytes == MIB;
    if (!large || i % 8 == 0) read_here(w, k, etags[k], large ? at : FAR_BEHIND, buffer, n->read_bytes, true);
  }
  const int wrong = world_read_all(w, 1, 0, OBJECT_BYTES, CHUNK);
  world_end(w);
  free(buffer);
  return wrong == 0 ? 0 : 1;
}

static int kill_in_turn(int rank, int ranks, void *context) {
  node *n = context;
  (void)rank;
  (void)ranks;
  enum { RANKS = 5 };
  pid_t pids[RANKS];
  for (int r = 0; r < RANKS; r++) {
    pids[r] = fork();
    if (pids[r] == 0) _exit(read_until_killed(r, RANKS, n));
  }
  while (atomic_load(&n->ready) < RANKS) ts_sleep_s(0.001);
  for (int r = 0; r < RANKS - 1; r++) {
    ts_sleep_s(0.01 + 0.001 * (double)(noise(7, (uint64_t)pids[r]) % 50));
    kill(pids[r], SIGKILL);
    waitpid(pids[r], NULL, 0);
    atomic_fetch_add(&n->killed, 1);
  }
  int status = 0;
  waitpid(pids[RANKS - 1], &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : 99;
}

Test(cache_ranks, kills_at_any_moment_leave_right_bytes_to_those_who_live) {
  const int rounds = ts_long() ? 60 : 6;
  for (int i = 0; i < rounds; i++) {
    node *n = node_make(5);
    n->dir = i % 3 != 0 ? ts_folder() : NULL;
    n->memory_bytes = i % 3 == 1 ? 0 : 16 * MIB;
    n->read_bytes = MIB;
    cr_assert(ts_ranks(1, 60, kill_in_turn, n));
    if (n->dir != NULL) ts_remove_tree(n->dir);
  }
}

/* Somebody holds the lock of a large table nearly all the time. */
Test(cache_ranks, kills_of_who_holds_the_lock_leave_it_to_others) {
  const int rounds = ts_long() ? 100 : 5;
  for (int i = 0; i < rounds; i++) {
    node *n = node_make(5);
    n->memory_bytes = 4096 * MIB;
    n->read_bytes = 16;
    cr_assert(ts_ranks(1, 60, kill_in_turn, n));
  }
}

/* One rank cannot make its folder: all are told so, and by whom. */
static int fail_together(int rank, int ranks, void *context) {
  node *n = context;
  cache_world *w = world_make(NULL);
  tr_error e = {0};
  const tr_exchange exchange = exchange_of(n->area, rank, ranks);
  const tr_status status = world_cache(w, rank == 1 ? "/proc/nothing" : n->dir, 0, 0, &exchange, &e);
  world_end(w);
  return status == TR_ERR_NOT_FOUND && strstr(e.message, "/proc/nothing") != NULL ? 0 : 1;
}

Test(cache_ranks, all_fail_where_one_cannot_open) {
  node *n = node_make(3);
  n->dir = ts_folder();
  cr_assert(ts_ranks(3, 30, fail_together, n));
}
