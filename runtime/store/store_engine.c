/* The request queue and its threads; see store_engine.h. */
#include "store_engine.h"

#include <pthread.h>
#include <signal.h>

typedef struct request_queue {
  tr_store_request *head, *tail;
} request_queue;

struct tr_store_engine {
  /* Never changed after creation. */
  const tr_allocator *allocator;
  const tr_clock *clock;
  tr_store_execute_fn execute;
  void *self;
  uint32_t thread_limit;

  /* Under `lock`. */
  pthread_mutex_t lock;
  pthread_cond_t work;
  request_queue queues[2]; /* by priority */
  size_t queued;
  uint32_t started, idle, in_background;
  bool closing;
  pthread_t threads[]; /* `started` of them; read without the lock by destroy, when nobody submits any more */
};

static void push(request_queue *queue, tr_store_request *request) {
  request->private_next = NULL;
  if (queue->tail != NULL) {
    queue->tail->private_next = request;
  } else {
    queue->head = request;
  }
  queue->tail = request;
}

static tr_store_request *pop(request_queue *queue) {
  tr_store_request *request = queue->head;
  if (request == NULL) return NULL;
  queue->head = request->private_next;
  if (queue->head == NULL) queue->tail = NULL;
  return request;
}

/* The next request this thread may take, or NULL. */
static tr_store_request *take(tr_store_engine *engine) {
  tr_store_request *request = pop(&engine->queues[TR_STORE_TRAINING]);
  const bool room = engine->thread_limit == 1 || engine->in_background + 1 < engine->thread_limit;
  if (request == NULL && room) {
    request = pop(&engine->queues[TR_STORE_BACKGROUND]);
    if (request != NULL) engine->in_background++;
  }
  if (request != NULL) engine->queued--;
  return request;
}

static void *thread_main(void *argument) {
  tr_store_engine *engine = argument;
  pthread_mutex_lock(&engine->lock);
  for (;;) {
    tr_store_request *request = take(engine);
    if (request == NULL) {
      if (engine->closing && engine->queued == 0) break;
      engine->idle++;
      pthread_cond_wait(&engine->work, &engine->lock);
      engine->idle--;
      continue;
    }
    const bool background = request->priority == TR_STORE_BACKGROUND;
    pthread_mutex_unlock(&engine->lock);
    tr_store_engine_run(engine, request);
    request->done(request);
    pthread_mutex_lock(&engine->lock);
    if (background) {
      engine->in_background--;
      /* Another thread may wait with a background request it was not allowed to take. */
      if (engine->queued > 0 || engine->closing) pthread_cond_broadcast(&engine->work);
    }
  }
  pthread_mutex_unlock(&engine->lock);
  return NULL;
}

/* Called with the lock held. Signals are for the program's own threads: these block them all. */
static int start_thread(tr_store_engine *engine) {
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  const int code = pthread_create(&engine->threads[engine->started], NULL, thread_main, engine);
  pthread_sigmask(SIG_SETMASK, &before, NULL);
  if (code != 0) return code;
  pthread_setname_np(engine->threads[engine->started], "tr-store");
  engine->started++;
  return 0;
}

tr_status tr_store_engine_create(const tr_store_engine_options *options, tr_store_engine **out, tr_error *error) {
  const size_t bytes = sizeof(tr_store_engine) + options->threads * sizeof(pthread_t);
  tr_store_engine *engine = tr_calloc(options->allocator, 1, bytes);
  if (engine == NULL) return tr_fail_memory(error, "a store's engine", bytes);
  engine->allocator = options->allocator;
  engine->clock = options->clock;
  engine->execute = options->execute;
  engine->self = options->self;
  engine->thread_limit = options->threads;
  pthread_mutex_init(&engine->lock, NULL);
  pthread_cond_init(&engine->work, NULL);
  *out = engine;
  return TR_OK;
}

void tr_store_engine_destroy(tr_store_engine *engine) {
  if (engine == NULL) return;
  pthread_mutex_lock(&engine->lock);
  engine->closing = true;
  pthread_cond_broadcast(&engine->work);
  pthread_mutex_unlock(&engine->lock);
  for (uint32_t i = 0; i < engine->started; i++) pthread_join(engine->threads[i], NULL);
  pthread_cond_destroy(&engine->work);
  pthread_mutex_destroy(&engine->lock);
  tr_free(engine->allocator, engine);
}

tr_status tr_store_engine_submit(tr_store_engine *engine, tr_store_request *request, tr_error *error) {
  request->submitted_ns = tr_clock_now_ns(engine->clock);
  pthread_mutex_lock(&engine->lock);
  int code = 0;
  if (engine->queued + 1 > engine->idle && engine->started < engine->thread_limit) code = start_thread(engine);
  /* One thread is enough to keep the promise; without any the request must not be queued. */
  const bool accepted = code == 0 || engine->started > 0;
  if (accepted) {
    push(&engine->queues[request->priority], request);
    engine->queued++;
    pthread_cond_signal(&engine->work);
  }
  pthread_mutex_unlock(&engine->lock);
  if (!accepted) return tr_fail_errno(error, TR_ERR_NO_MEMORY, code, "store: no thread can be started");
  return TR_OK;
}

void tr_store_engine_run(tr_store_engine *engine, tr_store_request *request) {
  if (request->submitted_ns == 0) request->submitted_ns = tr_clock_now_ns(engine->clock);
  request->status = engine->execute(engine->self, request, &request->error);
  request->done_ns = tr_clock_now_ns(engine->clock);
}
