/* Threads for the commands that do many things: see crew.h. */
#include "crew.h"

#include <pthread.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { TICK_MS = 50 };

typedef enum piece_state { FREE, WORKING, DONE } piece_state;

struct tr_crew {
  const tr_crew_job *job;
  atomic_bool *stop;
  pthread_mutex_t next_lock; /* held around next(); taken before `lock` */

  /* Under `lock`. */
  pthread_mutex_t lock;
  pthread_cond_t changed;
  char *pieces; /* [window] of piece_bytes */
  piece_state *states;
  uint64_t handed, taken; /* pieces handed out; taken, in order */
  uint32_t idle;          /* threads that have ended */
  bool ended;             /* next() has no more */
  tr_status status;
  tr_error error;
};

static void fail(tr_crew *crew, tr_status status, const tr_error *error) {
  if (crew->status == TR_OK) {
    crew->status = status;
    crew->error = *error;
  }
  atomic_store(crew->stop, true);
}

/* With a taker a piece has its place in the ring; without one any free piece will do. */
static bool find_room(tr_crew *crew, size_t *slot) {
  const uint32_t window = crew->job->window;
  if (crew->job->take != NULL) {
    *slot = (size_t)(crew->handed % window);
    return crew->handed - crew->taken < window;
  }
  for (*slot = 0; *slot < window; ++*slot) {
    if (crew->states[*slot] == FREE) return true;
  }
  return false;
}

/* The next piece into a slot of the ring, or false when there is nothing more to do. */
static bool hand_out(tr_crew *crew, size_t *slot) {
  const tr_crew_job *job = crew->job;
  pthread_mutex_lock(&crew->next_lock);
  pthread_mutex_lock(&crew->lock);
  while (!find_room(crew, slot) && !crew->ended && !atomic_load(crew->stop)) {
    pthread_cond_wait(&crew->changed, &crew->lock);
  }
  bool end = crew->ended || atomic_load(crew->stop);
  pthread_mutex_unlock(&crew->lock);
  if (!end) {
    tr_error error;
    char *piece = crew->pieces + *slot * job->piece_bytes;
    memset(piece, 0, job->piece_bytes);
    const tr_status status = job->next(job->self, piece, &end, &error);
    pthread_mutex_lock(&crew->lock);
    if (status != TR_OK) fail(crew, status, &error);
    end = end || status != TR_OK;
    crew->ended = crew->ended || end;
    if (!end) {
      crew->states[*slot] = WORKING;
      crew->handed++;
    }
    pthread_cond_broadcast(&crew->changed);
    pthread_mutex_unlock(&crew->lock);
  }
  pthread_mutex_unlock(&crew->next_lock);
  return !end;
}

static void *work_along(void *argument) {
  tr_crew *crew = argument;
  const tr_crew_job *job = crew->job;
  size_t slot;
  while (hand_out(crew, &slot)) {
    tr_error error;
    const tr_status status = job->work(job->self, crew->pieces + slot * job->piece_bytes, &error);
    pthread_mutex_lock(&crew->lock);
    if (status != TR_OK) fail(crew, status, &error);
    crew->states[slot] = DONE;
    if (job->take == NULL) {
      if (job->drop != NULL) job->drop(job->self, crew->pieces + slot * job->piece_bytes);
      crew->states[slot] = FREE;
      crew->taken++;
    }
    pthread_cond_broadcast(&crew->changed);
    pthread_mutex_unlock(&crew->lock);
  }
  pthread_mutex_lock(&crew->lock);
  crew->idle++;
  pthread_cond_broadcast(&crew->changed);
  pthread_mutex_unlock(&crew->lock);
  return NULL;
}

void crew_block_signals(sigset_t *signals, sigset_t *before) {
  sigemptyset(signals);
  sigaddset(signals, SIGINT);
  sigaddset(signals, SIGTERM);
  sigaddset(signals, SIGHUP);
  pthread_sigmask(SIG_BLOCK, signals, before);
}

tr_status crew_stopped(int number, tr_error *error) {
  tr_fail(error, TR_ERR_STOPPED, "stopped by SIG%s", sigabbrev_np(number));
  error->rank = number;
  return TR_ERR_STOPPED;
}

static void look_for_signals(tr_crew *crew, const sigset_t *signals) {
  const struct timespec now = {0};
  const int number = sigtimedwait(signals, NULL, &now);
  if (number <= 0) return;
  if (crew->error.rank == number) _exit(128 + number); /* asked twice: now */
  tr_error error;
  fail(crew, crew_stopped(number, &error), &error);
  pthread_cond_broadcast(&crew->changed);
}

static void wait_a_tick(tr_crew *crew) {
  struct timespec until;
  clock_gettime(CLOCK_REALTIME, &until);
  until.tv_nsec += TICK_MS * 1000000l;
  if (until.tv_nsec >= 1000000000l) {
    until.tv_sec++;
    until.tv_nsec -= 1000000000l;
  }
  pthread_cond_timedwait(&crew->changed, &crew->lock, &until);
}

/* Takes what is done, in order, until all threads have ended. */
static void take_along(tr_crew *crew, uint32_t threads, const sigset_t *signals) {
  const tr_crew_job *job = crew->job;
  pthread_mutex_lock(&crew->lock);
  for (;;) {
    const size_t slot = (size_t)(crew->taken % job->window);
    if (job->take != NULL && crew->taken < crew->handed && crew->states[slot] == DONE) {
      char *piece = crew->pieces + slot * job->piece_bytes;
      const bool good = crew->status == TR_OK;
      pthread_mutex_unlock(&crew->lock);
      tr_error error;
      const tr_status status = good ? job->take(job->self, piece, &error) : TR_OK;
      if (job->drop != NULL) job->drop(job->self, piece);
      pthread_mutex_lock(&crew->lock);
      if (status != TR_OK) fail(crew, status, &error);
      crew->states[slot] = FREE;
      crew->taken++;
      pthread_cond_broadcast(&crew->changed);
    } else if (crew->idle == threads) {
      break;
    } else {
      wait_a_tick(crew);
    }
    look_for_signals(crew, signals);
    if (job->progress != NULL) progress_draw(job->progress);
  }
  pthread_mutex_unlock(&crew->lock);
}

static void run(tr_crew *crew, const sigset_t *signals) {
  pthread_t threads[64];
  uint32_t count = 0;
  for (; count < crew->job->threads && count < 64; count++) {
    if (pthread_create(&threads[count], NULL, work_along, crew) != 0) break;
  }
  if (count == 0) tr_fail(&crew->error, crew->status = TR_ERR_NO_MEMORY, "no thread could be started");
  take_along(crew, count, signals);
  for (uint32_t i = 0; i < count; i++) pthread_join(threads[i], NULL);
}

tr_status crew_run(const tr_crew_job *job, tr_error *error) {
  tr_crew crew = {.job = job, .stop = job->stop};
  sigset_t signals, before;
  crew.pieces = tr_calloc(NULL, job->window, job->piece_bytes);
  crew.states = tr_calloc(NULL, job->window, sizeof *crew.states);
  if (crew.pieces == NULL || crew.states == NULL) {
    crew.status = tr_fail_memory(&crew.error, "pieces of work", job->window * job->piece_bytes);
  } else {
    pthread_mutex_init(&crew.next_lock, NULL);
    pthread_mutex_init(&crew.lock, NULL);
    pthread_cond_init(&crew.changed, NULL);
    crew_block_signals(&signals, &before);
    run(&crew, &signals);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_cond_destroy(&crew.changed);
    pthread_mutex_destroy(&crew.lock);
    pthread_mutex_destroy(&crew.next_lock);
  }
  tr_free(NULL, crew.states);
  tr_free(NULL, crew.pieces);
  if (crew.status != TR_OK) *error = crew.error;
  return crew.status;
}

int crew_exit_code(const tr_error *error) {
  return error->status == TR_ERR_STOPPED && error->rank > 0 ? 128 + error->rank : tr_status_exit_code(error->status);
}
