/* The thread that owns the sockets: takes requests, gives them to slots, lets libcurl work, looks at the clock.
 *
 * Training goes before background, which never holds all connections. The thread starts with the first request. */
#include <signal.h>
#include <string.h>

#include "s3_private.h"

enum { COMMIT_PATIENCE = 6 };

static void push(s3_queue *queue, tr_store_request *request) {
  request->private_next = NULL;
  if (queue->tail != NULL) {
    queue->tail->private_next = request;
  } else {
    queue->head = request;
  }
  queue->tail = request;
}

static tr_store_request *pop(s3_store *store, tr_store_priority priority) {
  pthread_mutex_lock(&store->lock);
  s3_queue *queue = &store->inbox[priority];
  tr_store_request *request = queue->head;
  if (request != NULL) {
    queue->head = request->private_next;
    if (queue->head == NULL) queue->tail = NULL;
  }
  pthread_mutex_unlock(&store->lock);
  return request;
}

/* A job of this priority that wants another exchange: one under way first, then the next in the queue. */
static s3_job *next_job(s3_store *store, tr_store_priority priority) {
  for (s3_job *job = store->active_head[priority]; job != NULL; job = job->next_active) {
    if (s3_job_has_more(job)) return job;
  }
  if (store->jobs_of[priority] == store->connections) return NULL;
  tr_store_request *request = pop(store, priority);
  if (request == NULL) return NULL;
  s3_job *job = store->jobs;
  while (job->request != NULL) job++;
  s3_job_begin(store, job, request);
  return job;
}

static void schedule(s3_store *store) {
  for (int priority = TR_STORE_TRAINING; priority <= TR_STORE_BACKGROUND; priority++) {
    const uint32_t limit = priority == TR_STORE_BACKGROUND ? store->background_limit : store->connections;
    while (store->slots_of[priority] < limit) {
      s3_slot *slot = s3_slot_free(store);
      if (slot == NULL) return;
      s3_job *job = next_job(store, (tr_store_priority)priority);
      if (job == NULL) break;
      s3_job_issue(store, job, slot);
    }
  }
}

/* A commit of many parts is long work for a server, and it says nothing meanwhile. */
static uint64_t patience_ns(const s3_store *store, const s3_slot *slot) {
  const uint64_t patience = (uint64_t)store->stall_timeout_ms * 1000000;
  return slot->call.method == S3_POST ? patience * COMMIT_PATIENCE : patience;
}

static void earlier(uint64_t *next, uint64_t then) {
  if (then < *next) *next = then;
}

/* Sends what is due, cuts what has stalled; the time of the next look. */
static uint64_t look_at_slots(s3_store *store, uint64_t now) {
  uint64_t next = UINT64_MAX;
  for (uint32_t i = 0; i < store->slot_count; i++) {
    s3_slot *slot = &store->slots[i];
    if (slot->state == S3_SLOT_SENT && slot->refusal == S3_REFUSAL_CUT) s3_slot_ended(slot, CURLE_WRITE_ERROR);
    if (slot->state == S3_SLOT_WAITING && store->ending && store->policy.persistent) {
      s3_slot_cancel(slot);
    } else if (slot->state == S3_SLOT_WAITING && slot->due_ns <= now) {
      s3_slot_resend(slot);
    }
    if (slot->state == S3_SLOT_SENT && now > slot->last_byte_ns + patience_ns(store, slot)) {
      slot->stalled = true;
      s3_slot_ended(slot, CURLE_OPERATION_TIMEDOUT);
    }
    if (slot->state == S3_SLOT_WAITING) earlier(&next, slot->due_ns);
    if (slot->state == S3_SLOT_SENT) earlier(&next, slot->last_byte_ns + patience_ns(store, slot));
  }
  earlier(&next, s3_hedge_run(store, now));
  return next;
}

static void take_messages(s3_store *store) {
  int left = 0;
  for (CURLMsg *message; (message = store->lib.multi_info_read(store->multi, &left)) != NULL;) {
    if (message->msg != CURLMSG_DONE) continue;
    const CURLcode code = message->data.result;
    s3_slot *slot = NULL;
    store->lib.easy_getinfo(message->easy_handle, CURLINFO_PRIVATE, &slot);
    s3_slot_ended(slot, code);
  }
}

static bool is_done(s3_store *store) {
  pthread_mutex_lock(&store->lock);
  store->ending = store->closing;
  const bool queued = store->inbox[0].head != NULL || store->inbox[1].head != NULL;
  pthread_mutex_unlock(&store->lock);
  return store->ending && !queued && store->jobs_of[0] == 0 && store->jobs_of[1] == 0;
}

static void *thread_main(void *argument) {
  s3_store *store = argument;
  for (uint64_t next = 0;;) {
    s3_sockets_run(store, next);
    take_messages(store);
    const uint64_t now = s3_now(store);
    s3_credentials_poll(store, now);
    next = look_at_slots(store, now);
    schedule(store);
    if (is_done(store)) return NULL;
  }
}

/* With the lock held. Signals are for the program's own threads: this one, and those that libcurl starts, block them. */
static int start_thread(s3_store *store) {
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  const int code = pthread_create(&store->thread, NULL, thread_main, store);
  pthread_sigmask(SIG_SETMASK, &before, NULL);
  if (code != 0) return code;
  pthread_setname_np(store->thread, "tr-s3");
  store->started = true;
  return 0;
}

tr_status s3_engine_submit(s3_store *store, tr_store_request *request, tr_error *error) {
  request->submitted_ns = s3_now(store);
  pthread_mutex_lock(&store->lock);
  const int code = store->started ? 0 : start_thread(store);
  if (code == 0) push(&store->inbox[request->priority], request);
  pthread_mutex_unlock(&store->lock);
  if (code != 0) return tr_fail_errno(error, TR_ERR_IO, code, "s3: starting a thread");
  s3_sockets_wake(store);
  return TR_OK;
}

tr_status s3_engine_init(s3_store *store, tr_error *error) {
  const tr_allocator *allocator = store->allocator;
  store->job_count = 2 * store->connections;
  /* Memory that no request has needed is never touched. */
  store->slots = tr_alloc(allocator, store->connections * sizeof *store->slots);
  store->jobs = tr_calloc(allocator, store->job_count, sizeof *store->jobs);
  if (store->slots == NULL || store->jobs == NULL) {
    return tr_fail_memory(error, "the connections of a store", store->connections * sizeof *store->slots);
  }
  store->multi = store->lib.multi_init();
  if (store->multi == NULL) return tr_fail_memory(error, "libcurl", 1);
  store->lib.multi_setopt(store->multi, CURLMOPT_MAXCONNECTS, (long)store->connections);
  TR_TRY(s3_sockets_open(store, error));
  TR_TRY(s3_slot_init(store, &store->slots[0], error));
  store->slot_count = 1;
  return TR_OK;
}

void s3_engine_fini(s3_store *store) {
  pthread_mutex_lock(&store->lock);
  store->closing = true;
  const bool started = store->started;
  pthread_mutex_unlock(&store->lock);
  if (started) {
    s3_sockets_wake(store);
    pthread_join(store->thread, NULL);
  }
  for (uint32_t i = 0; i < store->slot_count; i++) s3_slot_fini(&store->slots[i]);
  if (store->multi != NULL) store->lib.multi_cleanup(store->multi); /* which still tells of sockets */
  s3_sockets_close(store);
  tr_free(store->allocator, store->jobs);
  tr_free(store->allocator, store->slots);
}
