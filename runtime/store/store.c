/* The public side of every store: checks requests, lets callers wait, and does the blocking forms on top. */
#include <trainrun/store.h>

#include <pthread.h>
#include <string.h>

#include "store_key.h"

enum { STATE_IDLE = 0, STATE_PENDING = 1, STATE_DONE = 2 };
enum { PAGE_KEYS = 1000, READ_ATTEMPTS = 8 };

struct tr_store {
  const tr_allocator *allocator;
  tr_store_ops ops;
  void *self;

  /* `lock` owns private_state of the requests without `done`. */
  pthread_mutex_t lock;
  pthread_cond_t completed;
};

tr_status tr_store_create(const tr_allocator *allocator, const tr_store_ops *ops, void *self, tr_store **out,
                          tr_error *error) {
  if (ops == NULL || ops->struct_bytes != sizeof *ops || ops->submit == NULL || ops->destroy == NULL) {
    return tr_fail(error, TR_ERR_INVALID, "store: the table of functions is of another version or incomplete");
  }
  tr_store *store = tr_calloc(allocator, 1, sizeof *store);
  if (store == NULL) return tr_fail_memory(error, "a store", sizeof *store);
  store->allocator = allocator;
  store->ops = *ops;
  store->self = self;
  pthread_mutex_init(&store->lock, NULL);
  pthread_cond_init(&store->completed, NULL);
  *out = store;
  return TR_OK;
}

void tr_store_destroy(tr_store *store) {
  if (store == NULL) return;
  store->ops.destroy(store->self);
  pthread_cond_destroy(&store->completed);
  pthread_mutex_destroy(&store->lock);
  tr_free(store->allocator, store);
}

const tr_store_ops *tr_store_vtable(const tr_store *store, void **self) {
  if (self != NULL) *self = store->self;
  return &store->ops;
}

static tr_status check_request(const tr_store_request *request, tr_error *error) {
  if (request->struct_bytes != sizeof *request) {
    return tr_fail(error, TR_ERR_INVALID, "store: a request is of another version of trainrun");
  }
  if (request->priority != TR_STORE_TRAINING && request->priority != TR_STORE_BACKGROUND) {
    return tr_fail(error, TR_ERR_INVALID, "store: priority %d is unknown", (int)request->priority);
  }
  switch (request->verb) {
    case TR_STORE_GET:
      if (request->buffer == NULL && request->buffer_bytes > 0) {
        return tr_fail(error, TR_ERR_INVALID, "store: a get of '%s' has no buffer", request->key);
      }
      break;
    case TR_STORE_PUT:
    case TR_STORE_PART:
      if (request->data == NULL && request->data_bytes > 0) {
        return tr_fail(error, TR_ERR_INVALID, "store: a put has no data");
      }
      break;
    case TR_STORE_HEAD:
    case TR_STORE_DELETE: break;
    default: return tr_fail(error, TR_ERR_INVALID, "store: verb %d is unknown", (int)request->verb);
  }
  if (request->verb != TR_STORE_PART) return tr_store_key_check(request->key, error);
  if (request->upload == NULL || request->part == 0) {
    return tr_fail(error, TR_ERR_INVALID, "store: a part has no upload or no number");
  }
  return TR_OK;
}

static void reset_results(tr_store_request *request) {
  request->status = TR_OK;
  request->error = (tr_error){.status = TR_OK, .rank = -1};
  request->bytes = 0;
  request->info = (tr_object_info){0};
  request->submitted_ns = request->first_byte_ns = request->done_ns = request->throttled_ns = request->retry_ns = 0;
}

/* Stands in as `done` of a request without one. After the unlock the request may be gone. */
static void wake_waiter(tr_store_request *request) {
  tr_store *store = request->private_store;
  pthread_mutex_lock(&store->lock);
  request->private_state = STATE_DONE;
  pthread_cond_broadcast(&store->completed);
  pthread_mutex_unlock(&store->lock);
}

tr_status tr_store_submit(tr_store *store, tr_store_request *request, tr_error *error) {
  TR_TRY(check_request(request, error));
  reset_results(request);
  const bool waited = request->done == NULL || request->done == wake_waiter;
  request->private_store = store;
  request->private_state = waited ? STATE_PENDING : STATE_IDLE;
  if (waited) request->done = wake_waiter;
  const tr_status status = store->ops.submit(store->self, request, error);
  if (status != TR_OK && waited) {
    request->private_state = STATE_IDLE;
    request->done = NULL;
  }
  return status;
}

tr_status tr_store_wait(tr_store *store, tr_store_request *request, tr_error *error) {
  pthread_mutex_lock(&store->lock);
  while (request->private_state == STATE_PENDING) pthread_cond_wait(&store->completed, &store->lock);
  const bool done = request->private_state == STATE_DONE;
  pthread_mutex_unlock(&store->lock);
  if (!done)
    return tr_fail(error, TR_ERR_INVALID, "store: waiting for a request that was not submitted, or calls back");
  if (request->done == wake_waiter) request->done = NULL;
  if (error != NULL && request->status != TR_OK) *error = request->error;
  return request->status;
}

static tr_status run(tr_store *store, tr_store_request *request, tr_error *error) {
  if (store->ops.run == NULL) {
    TR_TRY(tr_store_submit(store, request, error));
    return tr_store_wait(store, request, error);
  }
  TR_TRY(check_request(request, error));
  reset_results(request);
  store->ops.run(store->self, request);
  if (error != NULL && request->status != TR_OK) *error = request->error;
  return request->status;
}

tr_status tr_store_get(tr_store *store, const char *key, uint64_t offset, void *buffer, size_t buffer_bytes,
                       size_t *bytes, tr_error *error) {
  tr_store_request request = {.struct_bytes = sizeof request,
                              .verb = TR_STORE_GET,
                              .key = key,
                              .offset = offset,
                              .buffer = buffer,
                              .buffer_bytes = buffer_bytes};
  TR_TRY(run(store, &request, error));
  if (bytes != NULL) *bytes = request.bytes;
  return TR_OK;
}

/* One attempt: the object may be replaced between the question for its size and the read. */
static tr_status get_all_once(tr_store *store, const tr_allocator *allocator, const char *key, size_t max_bytes,
                              void **data, size_t *bytes, tr_error *error) {
  tr_object_info info;
  TR_TRY(tr_store_head(store, key, &info, error));
  if (info.bytes > max_bytes) {
    return tr_fail(error, TR_ERR_INVALID, "'%s' has %llu bytes, more than the %zu that are allowed here", key,
                   (unsigned long long)info.bytes, max_bytes);
  }
  const size_t wanted = (size_t)info.bytes;
  char *buffer = tr_alloc(allocator, wanted + 1);
  if (buffer == NULL) return tr_fail_memory(error, key, wanted + 1);
  tr_store_request request = {.struct_bytes = sizeof request,
                              .verb = TR_STORE_GET,
                              .key = key,
                              .buffer = buffer,
                              .buffer_bytes = wanted,
                              .if_match = info.etag};
  tr_status status = run(store, &request, error);
  if (status == TR_OK && request.bytes != wanted) {
    status = tr_fail(error, TR_ERR_CHANGED, "'%s' became shorter while it was read", key);
  }
  if (status != TR_OK) {
    tr_free(allocator, buffer);
    return status;
  }
  buffer[wanted] = '\0';
  *data = buffer;
  *bytes = wanted;
  return TR_OK;
}

tr_status tr_store_get_all(tr_store *store, const tr_allocator *allocator, const char *key, size_t max_bytes,
                           void **data, size_t *bytes, tr_error *error) {
  tr_status status = TR_ERR_CHANGED;
  for (int attempt = 0; attempt < READ_ATTEMPTS && status == TR_ERR_CHANGED; attempt++) {
    status = get_all_once(store, allocator, key, max_bytes, data, bytes, error);
  }
  return status;
}

tr_status tr_store_put(tr_store *store, const char *key, const void *data, size_t bytes, bool if_absent,
                       tr_error *error) {
  tr_store_request request = {.struct_bytes = sizeof request,
                              .verb = TR_STORE_PUT,
                              .key = key,
                              .data = data,
                              .data_bytes = bytes,
                              .if_absent = if_absent};
  return run(store, &request, error);
}

tr_status tr_store_head(tr_store *store, const char *key, tr_object_info *info, tr_error *error) {
  tr_store_request request = {.struct_bytes = sizeof request, .verb = TR_STORE_HEAD, .key = key};
  TR_TRY(run(store, &request, error));
  *info = request.info;
  return TR_OK;
}

tr_status tr_store_delete(tr_store *store, const char *key, tr_error *error) {
  tr_store_request request = {.struct_bytes = sizeof request, .verb = TR_STORE_DELETE, .key = key};
  return run(store, &request, error);
}

tr_status tr_store_walk(tr_store *store, const char *prefix,
                        tr_status (*visit)(void *self, const tr_list_entry *entry, tr_error *error), void *self,
                        tr_error *error) {
  char after[TR_KEY_BYTES] = "";
  tr_status status = TR_OK;
  do {
    tr_list_page page = {0};
    TR_TRY(store->ops.list(store->self, prefix, after[0] != '\0' ? after : NULL, PAGE_KEYS, &page, error));
    for (size_t i = 0; i < page.count && status == TR_OK; i++) status = visit(self, &page.entries[i], error);
    memcpy(after, page.next, sizeof after);
    store->ops.list_free(store->self, &page);
  } while (status == TR_OK && after[0] != '\0');
  return status;
}
