/* See slow_store.h. */
#include "dataloader/slow_store.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

enum { THREADS = 64 };

typedef struct slow {
  const tr_store_ops *ops;
  void *self; /* the inner store's */
  slow_settings *settings;

  pthread_mutex_t lock;
  pthread_cond_t work;
  tr_store_request *head, *tail;
  uint64_t wire_free_ns;
  bool closing;
  pthread_t threads[THREADS];
} slow;

static uint64_t now_ns(void) { return tr_clock_now_ns(NULL); }

static void sleep_until(uint64_t until_ns) {
  const uint64_t now = now_ns();
  if (until_ns > now) tr_clock_sleep_ns(NULL, until_ns - now);
}

static bool use_one(uint64_t *left) {
  uint64_t before = __atomic_load_n(left, __ATOMIC_RELAXED);
  while (before > 0 &&
         !__atomic_compare_exchange_n(left, &before, before - 1, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {
  }
  return before > 0;
}

static void spoil(slow_settings *settings, tr_store_request *request) {
  if (settings->flip_at >= request->offset && settings->flip_at - request->offset < request->bytes &&
      use_one(&settings->flips)) {
    ((uint8_t *)request->buffer)[settings->flip_at - request->offset] ^= 4;
  }
  if (use_one(&settings->short_gets)) request->bytes /= 2;
  if (use_one(&settings->fail_gets)) request->status = tr_fail(&request->error, TR_ERR_STORE, "slow store: it fails");
}

/* The whole of one get, its waits included. */
static void serve(slow *s, tr_store_request *request) {
  slow_settings *settings = s->settings;
  const uint64_t submitted = request->submitted_ns;
  __atomic_add_fetch(&settings->gets, 1, __ATOMIC_RELAXED);
  if (request->fresh) __atomic_add_fetch(&settings->fresh, 1, __ATOMIC_RELAXED);
  sleep_until(submitted + settings->throttled_ns + settings->retry_ns + settings->first_byte_ns);
  const uint64_t first = now_ns();
  if (settings->bytes_per_s > 0) {
    const uint64_t takes = (uint64_t)((double)request->buffer_bytes / settings->bytes_per_s * 1e9);
    pthread_mutex_lock(&s->lock);
    s->wire_free_ns = (s->wire_free_ns > first ? s->wire_free_ns : first) + takes;
    const uint64_t until = s->wire_free_ns;
    pthread_mutex_unlock(&s->lock);
    sleep_until(until);
  }
  s->ops->run(s->self, request);
  __atomic_add_fetch(&settings->bytes_read, request->bytes, __ATOMIC_RELAXED);
  if (request->status == TR_OK) spoil(settings, request);
  request->submitted_ns = submitted;
  request->first_byte_ns = first;
  request->throttled_ns = settings->throttled_ns;
  request->retry_ns = settings->retry_ns;
  request->done_ns = now_ns();
}

static void *serve_all(void *self) {
  slow *s = self;
  pthread_mutex_lock(&s->lock);
  for (;;) {
    tr_store_request *request = s->head;
    if (request == NULL) {
      if (s->closing) break;
      pthread_cond_wait(&s->work, &s->lock);
      continue;
    }
    s->head = request->private_next;
    if (s->head == NULL) s->tail = NULL;
    pthread_mutex_unlock(&s->lock);
    const uint64_t others = __atomic_add_fetch(&s->settings->under_way, 1, __ATOMIC_RELAXED);
    uint64_t most = __atomic_load_n(&s->settings->under_way_most, __ATOMIC_RELAXED);
    if (others > most) __atomic_store_n(&s->settings->under_way_most, others, __ATOMIC_RELAXED);
    serve(s, request);
    __atomic_sub_fetch(&s->settings->under_way, 1, __ATOMIC_RELAXED);
    request->done(request);
    pthread_mutex_lock(&s->lock);
  }
  pthread_mutex_unlock(&s->lock);
  return NULL;
}

static tr_status submit(void *self, tr_store_request *request, tr_error *error) {
  slow *s = self;
  if (request->verb != TR_STORE_GET) return s->ops->submit(s->self, request, error);
  request->submitted_ns = now_ns();
  if (s->settings->at_once) {
    serve(s, request);
    request->done(request);
    return TR_OK;
  }
  request->private_next = NULL;
  pthread_mutex_lock(&s->lock);
  if (s->tail != NULL) {
    s->tail->private_next = request;
  } else {
    s->head = request;
  }
  s->tail = request;
  pthread_cond_signal(&s->work);
  pthread_mutex_unlock(&s->lock);
  return TR_OK;
}

static tr_status list(void *self, const char *prefix, const char *after, size_t max_keys, tr_list_page *page,
                      tr_error *error) {
  slow *s = self;
  return s->ops->list(s->self, prefix, after, max_keys, page, error);
}

static void list_free(void *self, tr_list_page *page) {
  slow *s = self;
  s->ops->list_free(s->self, page);
}

static void destroy(void *self) {
  slow *s = self;
  pthread_mutex_lock(&s->lock);
  s->closing = true;
  pthread_cond_broadcast(&s->work);
  pthread_mutex_unlock(&s->lock);
  for (int i = 0; i < THREADS; i++) pthread_join(s->threads[i], NULL);
  pthread_cond_destroy(&s->work);
  pthread_mutex_destroy(&s->lock);
  free(s);
}

tr_store *slow_store(tr_store *inner, slow_settings *settings) {
  slow *s = calloc(1, sizeof *s);
  tr_store *made = NULL;
  const tr_store_ops ops = {.struct_bytes = sizeof ops,
                            .name = "slow",
                            .submit = submit,
                            .list = list,
                            .list_free = list_free,
                            .part_bytes_min = 1,
                            .destroy = destroy};
  if (s == NULL || tr_store_create(NULL, &ops, s, &made, NULL) != TR_OK) abort();
  s->settings = settings;
  s->ops = tr_store_vtable(inner, &s->self);
  pthread_mutex_init(&s->lock, NULL);
  pthread_cond_init(&s->work, NULL);
  for (int i = 0; i < THREADS; i++) {
    if (pthread_create(&s->threads[i], NULL, serve_all, s) != 0) abort();
  }
  return made;
}
