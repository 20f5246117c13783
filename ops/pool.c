/* Compute threads: one job at a time, its tasks drawn from a shared counter.
 *
 * Which thread runs a task is left to chance, so tasks must write different outputs and their limits must come from the
 * shapes alone. A run is a new number in `generation`; every thread checks in on every run, so when the last one has, no
 * thread can still look at the job that is over. */
#include <errno.h>
#include <linux/futex.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/syscall.h>
#include <trainrun/graph.h>
#include <unistd.h>

/* About 10 us: longer than the gap between two kernels, shorter than a time slice. */
enum { SPINS = 4000, THREADS_MAX = 1024 };

struct tr_pool {
  const tr_allocator *allocator;
  pthread_t *threads; /* all but the caller */
  uint32_t count;     /* with the caller */
  uint32_t started;

  /* Written by the caller before `generation` rises, read by the threads after they saw it. */
  void (*body)(void *self, uint32_t task);
  void *self;
  uint32_t tasks;
  bool stop;

  _Alignas(TR_CACHE_LINE) atomic_uint generation;
  _Alignas(TR_CACHE_LINE) atomic_uint next;    /* task */
  _Alignas(TR_CACHE_LINE) atomic_uint working; /* threads that have not checked in */
  atomic_uint sleepers;                        /* in futex on generation */
  atomic_uint caller_sleeps;                   /* in futex on working */
};

static void relax(void) {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  __asm__ volatile("yield");
#endif
}

static void futex_wait(atomic_uint *word, unsigned value) {
  syscall(SYS_futex, (unsigned *)word, FUTEX_WAIT_PRIVATE, value, NULL, NULL, 0);
}
static void futex_wake(atomic_uint *word) {
  syscall(SYS_futex, (unsigned *)word, FUTEX_WAKE_PRIVATE, INT32_MAX, NULL, NULL, 0);
}

static void work(tr_pool *pool) {
  for (;;) {
    const uint32_t task = atomic_fetch_add_explicit(&pool->next, 1, memory_order_relaxed);
    if (task >= pool->tasks) return;
    pool->body(pool->self, task);
  }
}

/* Waits until *word differs from `seen`, counting itself in `sleepers` before it sleeps: the other side changes the word
 * first and looks at the counter second, both sequentially consistent, so one of the two sees the other. */
static void wait_change(atomic_uint *word, unsigned seen, atomic_uint *sleepers) {
  for (int i = 0; i < SPINS; i++) {
    if (atomic_load_explicit(word, memory_order_acquire) != seen) return;
    relax();
  }
  atomic_fetch_add(sleepers, 1);
  while (atomic_load(word) == seen) futex_wait(word, seen);
  atomic_fetch_sub(sleepers, 1);
}

static void *thread_main(void *argument) {
  tr_pool *pool = argument;
  unsigned seen = 0;
  for (;;) {
    wait_change(&pool->generation, seen, &pool->sleepers);
    seen++;
    const bool stop = pool->stop;
    if (!stop) work(pool);
    if (atomic_fetch_sub(&pool->working, 1) == 1 && atomic_load(&pool->caller_sleeps) != 0) futex_wake(&pool->working);
    if (stop) return NULL;
  }
}

static void start_run(tr_pool *pool) {
  atomic_store_explicit(&pool->next, 0, memory_order_relaxed);
  atomic_store_explicit(&pool->working, pool->started, memory_order_relaxed);
  atomic_fetch_add(&pool->generation, 1);
  if (atomic_load(&pool->sleepers) != 0) futex_wake(&pool->generation);
}

static void finish_run(tr_pool *pool) {
  for (;;) {
    const unsigned left = atomic_load_explicit(&pool->working, memory_order_acquire);
    if (left == 0) return;
    wait_change(&pool->working, left, &pool->caller_sleeps);
  }
}

/* A thread of ours must not take a signal that the program's own threads are to handle. */
static int start_thread(tr_pool *pool, pthread_t *thread) {
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  const int result = pthread_create(thread, NULL, thread_main, pool);
  pthread_sigmask(SIG_SETMASK, &before, NULL);
  return result;
}

tr_status tr_pool_create(const tr_allocator *allocator, uint32_t threads, tr_pool **out, tr_error *error) {
  if (allocator == NULL) allocator = tr_allocator_system();
  if (threads < 1 || threads > THREADS_MAX)
    return tr_fail(error, TR_ERR_INVALID, "a pool of %u threads: 1 to %d are possible", threads, THREADS_MAX);
  tr_pool *pool = tr_alloc_aligned(allocator, sizeof *pool, _Alignof(tr_pool));
  if (pool == NULL) return tr_fail_memory(error, "the compute threads", sizeof *pool);
  memset(pool, 0, sizeof *pool);
  pool->allocator = allocator;
  pool->count = threads;
  tr_status status = TR_OK;
  if (threads > 1) {
    pool->threads = tr_calloc(allocator, threads - 1, sizeof *pool->threads);
    if (pool->threads == NULL) {
      status = tr_fail_memory(error, "the compute threads", (threads - 1) * sizeof *pool->threads);
      goto err_pool;
    }
  }
  for (; pool->started < threads - 1; pool->started++) {
    const int failed = start_thread(pool, &pool->threads[pool->started]);
    if (failed != 0) {
      status = tr_fail_errno(error, TR_ERR_UNAVAILABLE, failed, "cannot start compute thread %u of %u",
                             pool->started + 1, threads);
      goto err_pool;
    }
  }
  *out = pool;
  return TR_OK;

err_pool:
  tr_pool_destroy(pool);
  return status;
}

void tr_pool_destroy(tr_pool *pool) {
  if (pool == NULL) return;
  if (pool->started > 0) {
    pool->stop = true;
    start_run(pool);
    for (uint32_t i = 0; i < pool->started; i++) pthread_join(pool->threads[i], NULL);
  }
  tr_free(pool->allocator, pool->threads);
  tr_free_aligned(pool->allocator, pool, sizeof *pool);
}

uint32_t tr_pool_threads(const tr_pool *pool) { return pool == NULL ? 1 : pool->count; }

void tr_pool_run(tr_pool *pool, uint32_t tasks, void (*body)(void *self, uint32_t task), void *self) {
  if (pool == NULL || pool->count == 1 || tasks < 2) {
    for (uint32_t i = 0; i < tasks; i++) body(self, i);
    return;
  }
  pool->body = body;
  pool->self = self;
  pool->tasks = tasks;
  start_run(pool);
  work(pool);
  finish_run(pool);
}
