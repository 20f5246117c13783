/* Opening and closing the cache of a node: see cache.h. */
#include "cache.h"

#include <string.h>
#include <unistd.h>

#include "agree.h"
#include "cache_share.h"

/* Slots for chunks on their way to the folder. */
enum { TRANSIT_A_WORKER = 16, TRANSIT_LEAST = 32 };

/* ---- What is wanted ---------------------------------------------------------------------------------------------- */

static bool is_wanted(void *self, const uint64_t hash[2]) {
  tr_cache *cache = self;
  pthread_mutex_lock(&cache->wanted_lock);
  const bool wanted = dl_wanted_has(&cache->wanted, hash);
  pthread_mutex_unlock(&cache->wanted_lock);
  return wanted;
}

void dl_cache_name(tr_cache *cache, const dl_cache_object *object) {
  uint64_t old[2];
  pthread_mutex_lock(&cache->wanted_lock);
  const dl_wanted_result result = dl_wanted_add(&cache->wanted, object, old);
  pthread_mutex_unlock(&cache->wanted_lock);
  if (result != DL_WANTED_REPLACED) return;
  dl_table_count(&cache->table, DL_COUNT_EVICTED_BYTES, dl_table_drop_range(&cache->table, old, 0, UINT64_MAX));
  if (cache->has_disk) dl_disk_reconsider(&cache->disk);
}

void dl_cache_drop(tr_cache *cache, const dl_cache_object *object, uint64_t first, uint64_t last) {
  dl_table_drop_range(&cache->table, object->hash, first, last);
  for (uint64_t number = first; cache->has_disk && number <= last; number++) dl_disk_drop(&cache->disk, object, number);
}

/* ---- Opening ----------------------------------------------------------------------------------------------------- */

/* How much memory there may be; what the host does not have is not promised. */
static uint32_t kept_slots(const tr_cache_options *options) {
  uint64_t bytes = options->memory_bytes;
  const uint64_t host_bytes = dl_table_host_bytes();
  if (bytes > host_bytes) {
    char asked[32], given[32];
    tr_format_bytes(bytes, asked);
    tr_format_bytes(host_bytes, given);
    tr_logf(options->log, TR_LOG_WARNING, "cache: %s of memory are asked for, the host has %s left: that is used",
            asked, given);
    bytes = host_bytes;
  }
  const uint64_t slots = bytes / DL_CACHE_CHUNK_BYTES;
  return slots < 1 << 24 ? (uint32_t)slots : 1 << 24;
}

static tr_status make_table(void *self, int32_t node_size, int *descriptor, uint64_t *nonce, tr_error *error) {
  const tr_cache_options *options = self;
  const uint32_t workers = TRANSIT_A_WORKER * (uint32_t)node_size;
  const uint32_t transit = options->dir == NULL ? 0 : workers > TRANSIT_LEAST ? workers : TRANSIT_LEAST;
  const uint32_t kept = kept_slots(options);
  if (kept + transit == 0) return tr_fail(error, TR_ERR_NO_MEMORY, "cache: the host has no memory left for it");
  return dl_table_create(kept, transit, descriptor, nonce, error);
}

static tr_status check_options(const tr_cache_options *options, tr_error *error) {
  if (options == NULL || options->struct_bytes != sizeof *options)
    return tr_fail(error, TR_ERR_INVALID, "cache: options are of another version of trainrun");
  if (options->dir == NULL && options->memory_bytes == 0)
    return tr_fail(error, TR_ERR_INVALID, "cache: it has neither a folder nor memory");
  if (options->memory_bytes > 0 && options->memory_bytes < DL_CACHE_CHUNK_BYTES)
    return tr_fail(error, TR_ERR_CONFIG, "cache: its memory must be at least %d MiB", DL_CACHE_CHUNK_BYTES >> 20);
  return TR_OK;
}

static tr_status open_disk(tr_cache *cache, const tr_cache_options *options, tr_error *error) {
  if (options->dir == NULL) return TR_OK;
  cache->dir = tr_strdup(cache->allocator, options->dir);
  if (cache->dir == NULL) return tr_fail_memory(error, options->dir, strlen(options->dir));
  const dl_disk_options disk = {.allocator = cache->allocator,
                                .clock = cache->clock,
                                .log = cache->log,
                                .dir = cache->dir,
                                .limit_bytes = options->dir_bytes,
                                .wanted = is_wanted,
                                .self = cache};
  TR_TRY(dl_disk_open(&cache->disk, &disk, error));
  cache->has_disk = true;
  return TR_OK;
}

static tr_status open_here(tr_cache *cache, const tr_cache_options *options, const dl_share *share, tr_error *error) {
  TR_TRY(dl_table_open(&cache->table, cache->allocator, share->descriptor, share->nonce, error));
  TR_TRY(open_disk(cache, options, error));
  cache->writes = tr_calloc(cache->allocator, cache->table.slot_count, sizeof *cache->writes);
  if (cache->writes == NULL)
    return tr_fail_memory(error, "the cache's queue", cache->table.slot_count * sizeof(uint32_t));
  return dl_cache_start(cache, error);
}

tr_status tr_cache_open(const tr_cache_options *options, tr_cache **out, tr_error *error) {
  TR_TRY(check_options(options, error));
  tr_cache *cache = tr_calloc(options->allocator, 1, sizeof *cache);
  dl_share share = {.descriptor = -1};
  tr_status status = cache == NULL ? tr_fail_memory(error, "the cache", sizeof *cache) : TR_OK;
  status = dl_agree(options->exchange, status, error);
  if (status != TR_OK) goto err_free;
  cache->allocator = options->allocator;
  cache->clock = options->clock;
  cache->log = options->log;
  cache->table.descriptor = -1;
  cache->wanted.allocator = options->allocator;
  pthread_mutex_init(&cache->lock, NULL);
  pthread_mutex_init(&cache->wanted_lock, NULL);
  pthread_cond_init(&cache->work, NULL);
  pthread_cond_init(&cache->parked_some, NULL);
  pthread_cond_init(&cache->finished, NULL);
  status = dl_share_open(options->exchange, options->allocator, make_table, (void *)(uintptr_t)options, &share, error);
  if (status == TR_OK) {
    cache->is_shared = share.node_size > 1;
    cache->is_first = share.node_rank == 0;
    /* The first one's descriptor is open until all have theirs. */
    status = dl_agree(options->exchange, open_here(cache, options, &share, error), error);
    close(share.descriptor);
  }
  if (status != TR_OK) {
    tr_cache_close(cache);
    return status;
  }
  *out = cache;
  return TR_OK;

err_free:
  tr_free(options->allocator, cache);
  return status;
}

/* ---- Closing ----------------------------------------------------------------------------------------------------- */

static void tell(const tr_cache *cache) {
  tr_cache_stats stats = {.struct_bytes = sizeof stats};
  char served[32], fetched[32];
  tr_cache_stats_get(cache, &stats);
  if (!cache->is_first || stats.served_bytes == 0) return;
  tr_format_bytes(stats.served_bytes, served);
  tr_format_bytes(stats.fetched_bytes, fetched);
  const uint64_t hits = stats.memory_hits + stats.disk_hits + stats.waited_hits;
  tr_logf(
      cache->log, TR_LOG_INFO,
      "cache: %.1f %% hits; %s read, %s fetched from the store (%llu memory, %llu disk, %llu waited, %llu missed, %llu "
      "damaged)",
      100.0 * (double)hits / (double)(hits + stats.misses), served, fetched, (unsigned long long)stats.memory_hits,
      (unsigned long long)stats.disk_hits, (unsigned long long)stats.waited_hits, (unsigned long long)stats.misses,
      (unsigned long long)stats.damaged);
}

void tr_cache_close(tr_cache *cache) {
  if (cache == NULL) return;
  for (dl_cache_store *store = cache->stores, *next; store != NULL; store = next) {
    next = store->next;
    tr_store_destroy(store->outer);
  }
  dl_cache_stop(cache);
  if (cache->table.head != NULL) tell(cache);
  for (dl_cache_get *get = cache->free_gets, *next; get != NULL; get = next) {
    next = get->next_free;
    tr_free(cache->allocator, get->pieces);
    tr_free(cache->allocator, get);
  }
  if (cache->has_disk) dl_disk_close(&cache->disk);
  dl_table_close(&cache->table);
  dl_wanted_fini(&cache->wanted);
  tr_free(cache->allocator, cache->writes);
  tr_free(cache->allocator, cache->dir);
  pthread_cond_destroy(&cache->finished);
  pthread_cond_destroy(&cache->parked_some);
  pthread_cond_destroy(&cache->work);
  pthread_mutex_destroy(&cache->wanted_lock);
  pthread_mutex_destroy(&cache->lock);
  tr_free(cache->allocator, cache);
}

void tr_cache_stats_get(const tr_cache *cache, tr_cache_stats *stats) {
  uint64_t counts[DL_COUNTS];
  for (int i = 0; i < DL_COUNTS; i++)
    counts[i] = atomic_load_explicit(&cache->table.head->counts[i], memory_order_relaxed);
  *stats = (tr_cache_stats){.struct_bytes = sizeof *stats,
                            .memory_hits = counts[DL_COUNT_MEMORY_HITS],
                            .disk_hits = counts[DL_COUNT_DISK_HITS],
                            .waited_hits = counts[DL_COUNT_WAITED_HITS],
                            .misses = counts[DL_COUNT_MISSES],
                            .fetched_bytes = counts[DL_COUNT_FETCHED_BYTES],
                            .served_bytes = counts[DL_COUNT_SERVED_BYTES],
                            .evicted_bytes = counts[DL_COUNT_EVICTED_BYTES],
                            .damaged = counts[DL_COUNT_DAMAGED]};
}

/* ---- Stores ------------------------------------------------------------------------------------------------------ */

static dl_cache_store *find_store(tr_cache *cache,
                                  bool (*is_it)(const dl_cache_store *store, const void *inner, const char *identity),
                                  const void *what, const char *identity) {
  pthread_mutex_lock(&cache->lock);
  dl_cache_store *store = cache->stores;
  while (store != NULL && !is_it(store, what, identity)) store = store->next;
  pthread_mutex_unlock(&cache->lock);
  return store;
}

static bool has_inner(const dl_cache_store *store, const void *inner, const char *identity) {
  return store->inner == inner && strcmp(store->identity, identity) == 0;
}

static bool has_outer(const dl_cache_store *store, const void *outer, const char *identity) {
  (void)identity;
  return store->outer == outer;
}

tr_status tr_cache_wrap(tr_cache *cache, tr_store *inner, const char *identity, tr_store **out, tr_error *error) {
  dl_cache_store *store = find_store(cache, has_inner, inner, identity);
  if (store == NULL) {
    TR_TRY(dl_cache_store_create(cache, inner, identity, &store, error));
    pthread_mutex_lock(&cache->lock);
    store->next = cache->stores;
    cache->stores = store;
    pthread_mutex_unlock(&cache->lock);
  }
  *out = store->outer;
  return TR_OK;
}

void dl_cache_use(tr_cache *cache, const tr_store *outer, const char *key, const char *etag) {
  dl_cache_object object;
  const dl_cache_store *store = find_store(cache, has_outer, outer, NULL);
  if (store != NULL && dl_cache_object_init(&object, store->identity, key, etag)) dl_cache_name(cache, &object);
}
