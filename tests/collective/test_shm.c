/* The life of a communicator over shared memory: memory, waiting, death, abort, rebuild, the board, mistakes. */
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <trainrun/collective.h>
#include "support/support.h"

static int make_segment(int size) {
  int descriptor = -1;
  tr_error error;
  cr_assert_eq(tr_comm_segment_create(size, &descriptor, &error), TR_OK, "%s", error.message);
  return descriptor;
}

static tr_status open_rank(int descriptor, int rank, int size, uint64_t epoch, uint64_t timeout_ns, tr_comm **out,
                           tr_error *error) {
  const tr_comm_shm_options options = {.struct_bytes = sizeof options,
                                       .rank = rank,
                                       .size = size,
                                       .descriptor = descriptor,
                                       .epoch = epoch,
                                       .timeout_ns = timeout_ns};
  return tr_comm_open_shm(&options, out, error);
}

static tr_comm *must_open(int descriptor, int rank, int size, uint64_t epoch) {
  tr_comm *comm = NULL;
  tr_error error;
  const tr_status status = open_rank(descriptor, rank, size, epoch, 20000000000u, &comm, &error);
  if (status != TR_OK) {
    fprintf(stderr, "rank %d: %s\n", rank, error.message);
    abort();
  }
  return comm;
}

/* ---- One rank ---------------------------------------------------------------------------------------------------- */

Test(shm, memory_is_zeroed_aligned_and_used_again) {
  const int descriptor = make_segment(1);
  tr_comm *comm = must_open(descriptor, 0, 1, 1);
  void *a, *b, *c;
  cr_assert_eq(tr_comm_alloc(comm, 100000, &a, NULL), TR_OK);
  cr_assert_eq(tr_comm_alloc(comm, 1, &b, NULL), TR_OK);
  memset(a, 7, 100000);
  tr_comm_free(comm, a);
  cr_assert_eq(tr_comm_alloc(comm, 50000, &c, NULL), TR_OK);
  cr_assert_eq((uintptr_t)c % 64, 0);
  for (int i = 0; i < 50000; i++) cr_assert_eq(((char *)c)[i], 0);
  tr_comm_free(comm, NULL);
  tr_comm_close(comm);
  close(descriptor);
}

Test(shm, a_full_memory_is_an_error_that_says_so) {
  const int descriptor = make_segment(1);
  tr_comm *comm = must_open(descriptor, 0, 1, 1);
  void *p = NULL;
  tr_error error;
  cr_assert_eq(tr_comm_alloc(comm, (size_t)200 << 30, &p, &error), TR_ERR_NO_MEMORY);
  cr_assert_not_null(strstr(error.message, "MiB left"), "%s", error.message);
  cr_assert_eq(tr_comm_alloc(comm, (size_t)1 << 50, &p, &error), TR_ERR_NO_MEMORY);
  cr_assert_eq(tr_comm_alloc(comm, SIZE_MAX, &p, &error), TR_ERR_NO_MEMORY);
  cr_assert_null(p);
  cr_assert_eq(tr_comm_alloc(comm, 4096, &p, &error), TR_OK);
  tr_comm_close(comm);
  close(descriptor);
}

Test(shm, each_allocation_that_fails_is_a_clean_error) {
  for (uint64_t nth = 1;; nth++) {
    const int descriptor = make_segment(1);
    tr_counting_allocator counting;
    tr_counting_allocator_init(&counting);
    counting.fail_at = nth;
    const tr_comm_shm_options options = {.struct_bytes = sizeof options,
                                         .allocator = &counting.allocator,
                                         .size = 1,
                                         .descriptor = descriptor,
                                         .epoch = 1,
                                         .timeout_ns = 5000000000u};
    tr_comm *comm = NULL;
    tr_error error;
    const tr_status status = tr_comm_open_shm(&options, &comm, &error);
    tr_comm_close(comm);
    close(descriptor);
    cr_assert_eq(counting.live_blocks, 0, "allocation %lu", (unsigned long)nth);
    if (status == TR_OK) {
      cr_assert_gt(nth, 5);
      break;
    }
    cr_assert_eq(status, TR_ERR_NO_MEMORY);
  }
}

Test(shm, refuses_what_is_no_segment_and_wrong_ranks) {
  tr_comm *comm = NULL;
  tr_error error;
  const int null = open("/dev/null", O_RDWR), descriptor = make_segment(2);
  const int other = memfd_create("other", 0);
  cr_assert_eq(ftruncate(other, 100000), 0);
  cr_assert_eq(open_rank(null, 0, 1, 1, 0, &comm, &error), TR_ERR_INVALID);
  cr_assert_eq(open_rank(other, 0, 1, 1, 0, &comm, &error), TR_ERR_INVALID);
  cr_assert_eq(open_rank(-1, 0, 1, 1, 0, &comm, &error), TR_ERR_INVALID);
  cr_assert_eq(open_rank(descriptor, 2, 2, 1, 0, &comm, &error), TR_ERR_INVALID);
  cr_assert_eq(open_rank(descriptor, 0, 3, 1, 0, &comm, &error), TR_ERR_INVALID);
  cr_assert_eq(open_rank(descriptor, 0, 1, 0, 0, &comm, &error), TR_ERR_INVALID);
  int made;
  cr_assert_eq(tr_comm_segment_create(0, &made, &error), TR_ERR_INVALID);
  cr_assert_eq(tr_comm_segment_create(100000, &made, &error), TR_ERR_INVALID);
  cr_assert_null(comm);
  cr_assert_neq(fcntl(descriptor, F_GETFD) & FD_CLOEXEC, 0);
  close(null), close(other), close(descriptor);
}

Test(shm, a_rank_that_does_not_come_is_named) {
  const int descriptor = make_segment(2);
  tr_comm *comm = NULL;
  tr_error error;
  cr_assert_eq(open_rank(descriptor, 0, 2, 1, 50000000, &comm, &error), TR_ERR_TIMEOUT);
  cr_assert_eq(error.rank, 1);
  close(descriptor);
}

/* ---- Several ranks as threads over one segment (what ThreadSanitizer can see) ------------------------------------ */

enum { THREADS = 3 };

typedef struct thread_rank {
  int descriptor, rank;
  int (*body)(tr_comm *comm, int rank);
  int result;
} thread_rank;

static void *thread_main(void *context) {
  thread_rank *self = context;
  tr_comm *comm = must_open(self->descriptor, self->rank, THREADS, 1);
  self->result = self->body(comm, self->rank);
  tr_comm_close(comm);
  return NULL;
}

static void run_threads(int (*body)(tr_comm *comm, int rank)) {
  pthread_t threads[THREADS];
  thread_rank ranks[THREADS];
  const int descriptor = make_segment(THREADS);
  for (int r = 0; r < THREADS; r++) {
    ranks[r] = (thread_rank){descriptor, r, body, -1};
    cr_assert_eq(pthread_create(&threads[r], NULL, thread_main, &ranks[r]), 0);
  }
  for (int r = 0; r < THREADS; r++) pthread_join(threads[r], NULL);
  for (int r = 0; r < THREADS; r++) cr_assert_eq(ranks[r].result, 0, "rank %d: %d", r, ranks[r].result);
  close(descriptor);
}

static int sum_many(tr_comm *comm, int rank) {
  float *buffer;
  if (tr_comm_alloc(comm, 40000 * sizeof *buffer, (void **)&buffer, NULL) != TR_OK) return 1;
  for (int round = 0; round < 200; round++) {
    const size_t count = round % 3 == 0 ? 1 : (size_t)(round * 199);
    for (size_t i = 0; i < count; i++) buffer[i] = (float)(rank + round);
    if (tr_comm_all_reduce(comm, buffer, count, TR_F32, TR_SUM, NULL, NULL) != TR_OK) return 2;
    for (size_t i = 0; i < count; i++)
      if (buffer[i] != (float)(3 * round + 3)) return 3;
  }
  return 0;
}

Test(shm, ranks_may_be_threads_of_one_process) { run_threads(sum_many); }

static int call_something_else(tr_comm *comm, int rank) {
  float buffer[8] = {0};
  tr_error error;
  const tr_status status = tr_comm_all_reduce(comm, buffer, rank == 2 ? 7 : 8, TR_F32, TR_SUM, NULL, &error);
  if (status != TR_ERR_PEER) return 1;
  if (rank < 2 && error.rank != 2) return 2;
  /* It stays broken. */
  return tr_comm_barrier(comm, NULL, &error) == TR_ERR_PEER ? 0 : 3;
}

Test(shm, ranks_that_call_different_operations_are_told) { run_threads(call_something_else); }

static int come_late(tr_comm *comm, int rank) {
  int32_t word = rank;
  tr_comm_wait_info info;
  if (rank == 1) tr_clock_sleep_ns(NULL, 100000000);
  if (tr_comm_all_reduce(comm, &word, 1, TR_I32, TR_SUM, &info, NULL) != TR_OK) return 1;
  if (rank == 1) return info.blocked_for_peers_ns < 50000000 ? 0 : 2;
  if (info.last_rank != 1) return 3;
  return info.blocked_for_peers_ns > 50000000 && info.all_arrived_ns - info.begun_ns > 50000000 ? 0 : 4;
}

Test(shm, a_wait_says_for_whom_and_how_long) { run_threads(come_late); }

static int32_t waits_for(tr_comm *comm, int rank) {
  return __atomic_load_n(&tr_comm_board(comm).beacons[rank].waits_for, __ATOMIC_RELAXED);
}

static int be_waited_for(tr_comm *comm, int rank) {
  float *buffer;
  if (tr_comm_alloc(comm, 1 << 20, (void **)&buffer, NULL) != TR_OK) return 1;
  for (int tries = 0; rank == 1 && (waits_for(comm, 0) != 1 || waits_for(comm, 2) != 1); tries++) {
    if (tries == 5000) return 2;
    tr_clock_sleep_ns(NULL, 1000000);
  }
  if (tr_comm_all_reduce(comm, buffer, 1 << 18, TR_F32, TR_SUM, NULL, NULL) != TR_OK) return 3;
  return waits_for(comm, rank) == -1 ? 0 : 4;
}

Test(shm, the_board_says_who_waits_for_whom) { run_threads(be_waited_for); }

static int abort_by_one(tr_comm *comm, int rank) {
  int32_t word = rank;
  tr_error error;
  if (rank == 1) {
    tr_clock_sleep_ns(NULL, 30000000);
    tr_comm_abort(comm);
    return tr_comm_progress(comm, &error) == TR_ERR_ABORTED ? 0 : 1;
  }
  return tr_comm_all_reduce(comm, &word, 1, TR_I32, TR_SUM, NULL, &error) == TR_ERR_ABORTED ? 0 : 2;
}

Test(shm, an_abort_by_one_releases_all) { run_threads(abort_by_one); }

static int overlap(tr_comm *comm, int rank) {
  float *buffer;
  const size_t count = 1 << 20;
  if (tr_comm_alloc(comm, count * sizeof *buffer, (void **)&buffer, NULL) != TR_OK) return 1;
  for (size_t i = 0; i < count; i++) buffer[i] = (float)rank;
  tr_comm_handle handle;
  if (tr_comm_all_reduce_begin(comm, buffer, count, TR_F32, TR_SUM, &handle, NULL) != TR_OK) return 2;
  for (int i = 0; i < 2000; i++) {
    if (tr_comm_progress(comm, NULL) != TR_OK) return 3;
    tr_clock_sleep_ns(NULL, 100000);
  }
  tr_comm_wait_info info;
  if (tr_comm_wait(comm, handle, &info, NULL) != TR_OK) return 4;
  if (buffer[0] != 3 || buffer[count - 1] != 3) return 5;
  return info.blocked_ns < 10000000 && info.last_rank == -1 ? 0 : 6;
}

Test(shm, progress_alone_finishes_an_operation) { run_threads(overlap); }

/* ---- Processes --------------------------------------------------------------------------------------------------- */

static int beacon_body(int rank, int size, void *context) {
  tr_comm *comm = must_open(*(int *)context, rank, size, 1);
  const tr_board board = tr_comm_board(comm);
  __atomic_store_n(&board.beacons[rank].step, (uint64_t)(100 + rank), __ATOMIC_RELAXED);
  if (tr_comm_barrier(comm, NULL, NULL) != TR_OK) return 1;
  while (__atomic_load_n(board.stop, __ATOMIC_RELAXED) == 0) tr_clock_sleep_ns(NULL, 1000000);
  tr_comm_close(comm);
  return 0;
}

Test(shm, the_launcher_reads_beacons_and_says_stop, .timeout = 60) {
  int descriptor = make_segment(2);
  tr_board board;
  tr_error error;
  cr_assert_eq(tr_comm_segment_map(descriptor, 2, &board, &error), TR_OK);
  const pid_t child = fork();
  if (child == 0) _exit(ts_ranks(2, 20, beacon_body, &descriptor) ? 0 : 1);
  while (__atomic_load_n(&board.beacons[0].step, __ATOMIC_RELAXED) != 100 ||
         __atomic_load_n(&board.beacons[1].step, __ATOMIC_RELAXED) != 101)
    tr_clock_sleep_ns(NULL, 1000000);
  cr_assert_neq(board.beacons[0].pid, board.beacons[1].pid);
  __atomic_store_n(board.stop, 1, __ATOMIC_RELAXED);
  int status;
  waitpid(child, &status, 0);
  cr_assert_eq(status, 0);
  tr_comm_segment_unmap(&board);
  cr_assert_eq(tr_comm_segment_map(descriptor, 3, &board, &error), TR_ERR_INVALID);
  close(descriptor);
}

typedef struct scene {
  int descriptor;
  bool large;
  uint64_t *released_ns; /* shared: when each survivor heard of the abort */
  uint32_t *ready;
} scene;

/* Reduces until told to stop; a survivor then goes on in the next epoch with one rank fewer. */
static int mortal(const scene *death, int rank, int size) {
  tr_comm *comm = must_open(death->descriptor, rank, size, 1);
  const size_t count = death->large ? 3 << 20 : 1;
  float *buffer;
  tr_error error;
  if (tr_comm_alloc(comm, count * sizeof *buffer, (void **)&buffer, NULL) != TR_OK) return 1;
  buffer[0] = 42;
  __atomic_fetch_add(death->ready, 1, __ATOMIC_SEQ_CST);
  tr_status status = TR_OK;
  while (status == TR_OK) status = tr_comm_all_reduce(comm, buffer, count, TR_F32, TR_MAX, NULL, &error);
  death->released_ns[rank] = tr_clock_now_ns(NULL);
  if (status != TR_ERR_ABORTED) return 2;
  if (tr_comm_rebuild(comm, rank > 1 ? rank - 1 : rank, size - 1, 2, &error) != TR_OK) {
    fprintf(stderr, "rebuild: %s\n", error.message);
    return 3;
  }
  if (buffer[0] != 42) return 4; /* registered memory has stayed */
  for (size_t i = 0; i < count; i++) buffer[i] = 1;
  if (tr_comm_all_reduce(comm, buffer, count, TR_F32, TR_SUM, NULL, &error) != TR_OK) return 5;
  for (size_t i = 0; i < count; i++)
    if (buffer[i] != (float)(size - 1)) return 6;
  tr_comm_close(comm);
  return 0;
}

/* Returns how long the slowest survivor took to hear of the abort. */
static uint64_t kill_one(int size, bool large, int delay_us) {
  uint64_t slowest_ns = 0;
  struct shared {
    uint64_t released_ns[8];
    uint32_t ready;
  } *shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  const scene death = {make_segment(size), large, shared->released_ns, &shared->ready};
  tr_board board;
  cr_assert_eq(tr_comm_segment_map(death.descriptor, size, &board, NULL), TR_OK);
  pid_t children[8];
  for (int r = 0; r < size; r++)
    if ((children[r] = fork()) == 0) _exit(mortal(&death, r, size));
  while (__atomic_load_n(&shared->ready, __ATOMIC_SEQ_CST) < (uint32_t)size) usleep(100);
  usleep((useconds_t)delay_us);
  kill(children[1], SIGKILL);
  int status;
  waitpid(children[1], &status, 0);
  const uint64_t aborted_ns = tr_clock_now_ns(NULL);
  __atomic_store_n(board.abort, 1, __ATOMIC_SEQ_CST);
  for (int r = 0; r < size; r++) {
    if (r == 1) continue;
    waitpid(children[r], &status, 0);
    cr_assert_eq(status, 0, "rank %d: status %x", r, (unsigned)status);
    if (shared->released_ns[r] - aborted_ns > slowest_ns) slowest_ns = shared->released_ns[r] - aborted_ns;
  }
  tr_comm_segment_unmap(&board);
  close(death.descriptor);
  munmap(shared, sizeof *shared);
  return slowest_ns;
}

Test(shm, survivors_of_a_kill_are_released_and_go_on, .timeout = 120) {
  const int rounds = ts_long() ? 50 : 6;
  int prompt = 0;
  for (int i = 0; i < rounds; i++) prompt += kill_one(2 + i % 3, i % 2 == 0, 500 * (i % 7)) < 100000000;
  /* Within 100 ms; a machine that is busy with other things may delay some of them. */
  cr_assert_geq(2 * prompt, rounds, "%d of %d were prompt", prompt, rounds);
}

/* A new process takes the place of the dead one in the next epoch. */
static int successor(int descriptor, int rank, int size) {
  tr_comm *comm = must_open(descriptor, rank, size, 2);
  float x = 1;
  const tr_status status = tr_comm_all_reduce(comm, &x, 1, TR_F32, TR_SUM, NULL, NULL);
  tr_comm_close(comm);
  return status == TR_OK && x == (float)size ? 0 : 1;
}

static int survivor(int descriptor, int rank, int size) {
  tr_comm *comm = must_open(descriptor, rank, size, 1);
  float x = 1;
  const tr_status first = tr_comm_all_reduce(comm, &x, 1, TR_F32, TR_SUM, NULL, NULL);
  if (rank == 1) return first == TR_OK ? 0 : 1; /* dies without a word */
  if (tr_comm_rebuild(comm, rank, size, 1, NULL) != TR_ERR_INVALID) return 2;
  x = 1;
  if (tr_comm_all_reduce(comm, &x, 1, TR_F32, TR_SUM, NULL, NULL) != TR_ERR_ABORTED) return 3;
  if (tr_comm_rebuild(comm, rank, size, 2, NULL) != TR_OK) return 4;
  x = 1;
  if (tr_comm_all_reduce(comm, &x, 1, TR_F32, TR_SUM, NULL, NULL) != TR_OK || x != (float)size) return 5;
  tr_comm_close(comm);
  return 0;
}

Test(shm, a_new_process_can_take_a_dead_ones_place, .timeout = 60) {
  const int descriptor = make_segment(3);
  tr_board board;
  cr_assert_eq(tr_comm_segment_map(descriptor, 3, &board, NULL), TR_OK);
  pid_t children[4];
  for (int r = 0; r < 3; r++)
    if ((children[r] = fork()) == 0) _exit(survivor(descriptor, r, 3));
  int status;
  waitpid(children[1], &status, 0);
  cr_assert_eq(status, 0);
  __atomic_store_n(board.abort, 1, __ATOMIC_SEQ_CST);
  if ((children[3] = fork()) == 0) _exit(successor(descriptor, 1, 3));
  for (int i = 0; i < 4; i++) {
    if (i == 1) continue;
    waitpid(children[i], &status, 0);
    cr_assert_eq(status, 0, "child %d: %x", i, (unsigned)status);
  }
  tr_comm_segment_unmap(&board);
  close(descriptor);
}

static int stopped_body(int rank, int size, void *context) {
  tr_comm *comm;
  tr_error error;
  if (open_rank(*(int *)context, rank, size, 1, 300000000, &comm, &error) != TR_OK) return 1;
  if (rank == 1) tr_clock_sleep_ns(NULL, 900000000);
  if (rank == 1) return 0;
  const tr_status status = tr_comm_barrier(comm, NULL, &error);
  return status == TR_ERR_TIMEOUT && error.rank == 1 ? 0 : 2;
}

Test(shm, a_rank_that_hangs_is_named_after_the_timeout, .timeout = 60) {
  int descriptor = make_segment(2);
  cr_assert(ts_ranks(2, 20, stopped_body, &descriptor));
  close(descriptor);
}

static int steady_body(int rank, int size, void *context) {
  tr_counting_allocator counting;
  tr_counting_allocator_init(&counting);
  const tr_comm_shm_options options = {.struct_bytes = sizeof options,
                                       .allocator = &counting.allocator,
                                       .rank = rank,
                                       .size = size,
                                       .descriptor = *(int *)context,
                                       .epoch = 1,
                                       .timeout_ns = 20000000000u};
  tr_comm *comm;
  if (tr_comm_open_shm(&options, &comm, NULL) != TR_OK) return 1;
  float *registered, local[5000] = {0};
  if (tr_comm_alloc(comm, 400000, (void **)&registered, NULL) != TR_OK) return 2;
  uint64_t after_first = 0;
  for (int step = 0; step < 200; step++) {
    if (tr_comm_all_reduce(comm, registered, 100000, TR_F32, TR_SUM, NULL, NULL) != TR_OK) return 3;
    if (tr_comm_all_reduce(comm, local, 5000, TR_F32, TR_SUM, NULL, NULL) != TR_OK) return 4;
    if (tr_comm_all_reduce(comm, local, 2, TR_F64, TR_MAX, NULL, NULL) != TR_OK) return 5;
    if (step == 0) after_first = counting.allocations;
  }
  const bool steady = counting.allocations == after_first;
  tr_comm_close(comm);
  return steady && counting.live_blocks == 0 ? 0 : 6;
}

Test(shm, a_steady_step_allocates_nothing, .timeout = 60) {
  int descriptor = make_segment(2);
  cr_assert(ts_ranks(2, 30, steady_body, &descriptor));
  close(descriptor);
}
