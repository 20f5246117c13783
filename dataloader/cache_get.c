/* The cache as a store: gets cut into pieces and put together again, everything else passed through; see cache.h. */
#include <string.h>

#include "cache.h"

/* ---- Gets -------------------------------------------------------------------------------------------------------- */

static dl_cache_get *take_get(tr_cache *cache) {
  pthread_mutex_lock(&cache->lock);
  dl_cache_get *get = cache->free_gets;
  if (get != NULL) cache->free_gets = get->next_free;
  pthread_mutex_unlock(&cache->lock);
  return get != NULL ? get : tr_calloc(cache->allocator, 1, sizeof *get);
}

/* With the lock held. */
static void give_back(tr_cache *cache, dl_cache_get *get) {
  get->next_free = cache->free_gets;
  cache->free_gets = get;
  if (--get->store->gets == 0) pthread_cond_broadcast(&cache->finished);
}

static void cut(dl_cache_get *get) {
  const tr_store_request *request = get->request;
  uint64_t at = request->offset;
  uint8_t *to = request->buffer;
  size_t left = request->buffer_bytes;
  for (size_t i = 0; i < get->count; i++) {
    dl_piece *piece = &get->pieces[i];
    const uint32_t begin = (uint32_t)(at % DL_CACHE_CHUNK_BYTES), room = DL_CACHE_CHUNK_BYTES - begin;
    const uint32_t bytes = left < room ? (uint32_t)left : room;
    memset(piece, 0, offsetof(dl_piece, request));
    piece->next = i + 1 < get->count ? piece + 1 : NULL;
    piece->get = get;
    piece->number = at / DL_CACHE_CHUNK_BYTES;
    piece->begin = begin;
    piece->bytes = bytes;
    piece->to = to;
    at += bytes;
    to += bytes;
    left -= bytes;
  }
}

/* NULL with TR_OK: the cache is not for this one. */
static tr_status begin_get(dl_cache_store *store, tr_store_request *request, bool blocking, dl_cache_get **out,
                           tr_error *error) {
  tr_cache *cache = store->cache;
  uint64_t end;
  *out = NULL;
  if (request->verb != TR_STORE_GET || request->if_match == NULL || request->buffer_bytes == 0 ||
      __builtin_add_overflow(request->offset, request->buffer_bytes, &end)) {
    return TR_OK;
  }
  dl_cache_get *get = take_get(cache);
  if (get == NULL) return tr_fail_memory(error, "a read through the cache", sizeof *get);
  get->store = store;
  get->request = request;
  get->blocking = blocking;
  get->complete = false;
  get->count = (size_t)((end - 1) / DL_CACHE_CHUNK_BYTES - request->offset / DL_CACHE_CHUNK_BYTES + 1);
  atomic_init(&get->left, (uint32_t)get->count);
  const bool fits = dl_cache_object_init(&get->object, store->identity, request->key, request->if_match);
  const tr_status status = tr_reserve(cache->allocator, (void **)&get->pieces, &get->capacity, get->count,
                                      sizeof *get->pieces, error);
  pthread_mutex_lock(&cache->lock);
  store->gets++;
  if (!fits || status != TR_OK) give_back(cache, get);
  pthread_mutex_unlock(&cache->lock);
  if (!fits || status != TR_OK) return status;
  cut(get);
  dl_cache_name(cache, &get->object);
  if (request->fresh) dl_cache_drop(cache, &get->object, get->pieces[0].number, get->pieces[get->count - 1].number);
  request->submitted_ns = tr_clock_now_ns(cache->clock);
  *out = get;
  return TR_OK;
}

static uint64_t larger(uint64_t a, uint64_t b) { return a > b ? a : b; }

/* The request's results from those of the pieces: bytes end at the first piece that ends the object, and what failed
 * behind that does not matter. */
static void put_together(dl_cache_get *get, uint64_t now_ns) {
  tr_store_request *request = get->request;
  const uint64_t took_ns = now_ns - request->submitted_ns;
  request->bytes = 0;
  request->first_byte_ns = request->throttled_ns = request->retry_ns = 0;
  for (size_t i = 0; i < get->count; i++) {
    const dl_piece *piece = &get->pieces[i];
    if (piece->status != TR_OK) {
      request->status = piece->status;
      request->error = piece->request.error;
      break;
    }
    request->bytes += piece->moved;
    if (piece->object_bytes > 0) request->info.bytes = piece->object_bytes;
    if (piece->modified_ns != 0) request->info.modified_ns = piece->modified_ns;
    const uint64_t first_ns = larger(piece->times.first_byte_ns, request->submitted_ns);
    if (request->first_byte_ns == 0 || first_ns < request->first_byte_ns) request->first_byte_ns = first_ns;
    request->throttled_ns = larger(request->throttled_ns, piece->times.throttled_ns);
    request->retry_ns = larger(request->retry_ns, piece->times.retry_ns);
    if (piece->moved < piece->bytes) break;
  }
  /* A fetch that was waited for may have begun before this request. */
  if (request->throttled_ns > took_ns) request->throttled_ns = took_ns;
  if (request->retry_ns > took_ns - request->throttled_ns) request->retry_ns = took_ns - request->throttled_ns;
  strncpy(request->info.etag, request->if_match, sizeof request->info.etag - 1);
  request->done_ns = now_ns;
}

void dl_cache_get_piece_done(dl_cache_get *get) {
  if (atomic_fetch_sub_explicit(&get->left, 1, memory_order_acq_rel) != 1) return;
  tr_cache *cache = get->store->cache;
  tr_store_request *request = get->request;
  put_together(get, tr_clock_now_ns(cache->clock));
  if (!get->blocking) request->done(request);
  pthread_mutex_lock(&cache->lock);
  if (get->blocking) {
    get->complete = true;
    pthread_cond_broadcast(&cache->finished);
  } else {
    give_back(cache, get);
  }
  pthread_mutex_unlock(&cache->lock);
}

/* ---- The table of functions -------------------------------------------------------------------------------------- */

static tr_status submit(void *self, tr_store_request *request, tr_error *error) {
  dl_cache_store *store = self;
  dl_cache_get *get;
  TR_TRY(begin_get(store, request, false, &get, error));
  if (get == NULL) return store->inner_ops->submit(store->inner_self, request, error);
  dl_cache_queue(store->cache, &get->pieces[0], &get->pieces[get->count - 1]);
  return TR_OK;
}

/* The store behind may have no way to do a request at once. */
static void run_behind(dl_cache_store *store, tr_store_request *request) {
  if (store->inner_ops->run != NULL) {
    store->inner_ops->run(store->inner_self, request);
    return;
  }
  tr_store_request passed = *request;
  passed.done = NULL;
  passed.status = tr_store_submit(store->inner, &passed, &passed.error);
  if (passed.status == TR_OK) (void)tr_store_wait(store->inner, &passed, NULL);
  request->status = passed.status;
  request->error = passed.error;
  request->bytes = passed.bytes;
  request->info = passed.info;
  request->submitted_ns = passed.submitted_ns;
  request->first_byte_ns = passed.first_byte_ns;
  request->done_ns = passed.done_ns;
  request->throttled_ns = passed.throttled_ns;
  request->retry_ns = passed.retry_ns;
}

static void run(void *self, tr_store_request *request) {
  dl_cache_store *store = self;
  tr_cache *cache = store->cache;
  dl_cache_get *get;
  request->status = begin_get(store, request, true, &get, &request->error);
  if (request->status != TR_OK) return;
  if (get == NULL) {
    run_behind(store, request);
    return;
  }
  for (size_t i = 0; i < get->count; i++) {
    get->pieces[i].next = NULL;
    dl_piece_work(cache, &get->pieces[i]);
  }
  pthread_mutex_lock(&cache->lock);
  while (!get->complete) pthread_cond_wait(&cache->finished, &cache->lock);
  give_back(cache, get);
  pthread_mutex_unlock(&cache->lock);
}

static tr_status list(void *self, const char *prefix, const char *after, size_t max_keys, tr_list_page *page,
                      tr_error *error) {
  dl_cache_store *store = self;
  return store->inner_ops->list(store->inner_self, prefix, after, max_keys, page, error);
}

static void list_free(void *self, tr_list_page *page) {
  dl_cache_store *store = self;
  store->inner_ops->list_free(store->inner_self, page);
}

static tr_status upload_begin(void *self, const char *key, void **upload, tr_error *error) {
  dl_cache_store *store = self;
  return store->inner_ops->upload_begin(store->inner_self, key, upload, error);
}

static tr_status upload_commit(void *self, void *upload, bool if_absent, tr_error *error) {
  dl_cache_store *store = self;
  return store->inner_ops->upload_commit(store->inner_self, upload, if_absent, error);
}

static void upload_abort(void *self, void *upload) {
  dl_cache_store *store = self;
  store->inner_ops->upload_abort(store->inner_self, upload);
}

static tr_status upload_sweep(void *self, const char *prefix, tr_error *error) {
  dl_cache_store *store = self;
  return store->inner_ops->upload_sweep(store->inner_self, prefix, error);
}

static void destroy(void *self) {
  dl_cache_store *store = self;
  tr_cache *cache = store->cache;
  pthread_mutex_lock(&cache->lock);
  while (store->gets > 0) pthread_cond_wait(&cache->finished, &cache->lock);
  pthread_mutex_unlock(&cache->lock);
  tr_free(cache->allocator, store->identity);
  tr_free(cache->allocator, store);
}

tr_status dl_cache_store_create(tr_cache *cache, tr_store *inner, const char *identity, dl_cache_store **out,
                                tr_error *error) {
  dl_cache_store *store = tr_calloc(cache->allocator, 1, sizeof *store);
  if (store == NULL) return tr_fail_memory(error, "a store's cache", sizeof *store);
  store->cache = cache;
  store->inner = inner;
  store->inner_ops = tr_store_vtable(inner, &store->inner_self);
  store->identity = tr_strdup(cache->allocator, identity);
  const tr_store_ops ops = {.struct_bytes = sizeof ops,
                            .name = "cache",
                            .submit = submit,
                            .run = run,
                            .list = list,
                            .list_free = list_free,
                            .upload_begin = upload_begin,
                            .upload_commit = upload_commit,
                            .upload_abort = upload_abort,
                            .part_bytes_min = store->inner_ops->part_bytes_min,
                            .upload_sweep = store->inner_ops->upload_sweep != NULL ? upload_sweep : NULL,
                            .destroy = destroy};
  const tr_status status = store->identity == NULL
                               ? tr_fail_memory(error, "a store's name", strlen(identity))
                               : tr_store_create(cache->allocator, &ops, store, &store->outer, error);
  if (status != TR_OK) {
    destroy(store);
    return status;
  }
  *out = store;
  return TR_OK;
}
