/* The cache's threads, their queue, and those who wait for somebody else's fetch: see cache.h. */
#include <signal.h>

#include "cache.h"

enum { WATCH_MS = 50 };
/* Who has waited so long for another process reads for itself: that one may be stopped, or its store does not answer. */
static const uint64_t patience_ns = 10ull * 1000000000;
/* What is left to be written to the folder when a cache is closed has so long. */
static const uint64_t flush_ns = 2ull * 1000000000;

/* ---- The queue and those who wait -------------------------------------------------------------------------------- */

void dl_cache_queue(tr_cache *cache, dl_piece *first, dl_piece *last) {
  const bool many = first != last;
  pthread_mutex_lock(&cache->lock);
  last->next = NULL;
  if (cache->queue_tail != NULL) {
    cache->queue_tail->next = first;
  } else {
    cache->queue_head = first;
  }
  cache->queue_tail = last;
  if (many) {
    pthread_cond_broadcast(&cache->work);
  } else {
    pthread_cond_signal(&cache->work);
  }
  pthread_mutex_unlock(&cache->lock);
}

/* Takes those parked pieces out of which `chosen` says so; returns them as a list. */
dl_piece *dl_cache_unpark(tr_cache *cache,
                          bool (*chosen)(const tr_cache *cache, const dl_piece *piece, const void *self),
                          const void *self) {
  dl_piece *out = NULL;
  pthread_mutex_lock(&cache->lock);
  for (dl_piece **at = &cache->parked; *at != NULL;) {
    dl_piece *piece = *at;
    if (!chosen(cache, piece, self)) {
      at = &piece->next;
      continue;
    }
    *at = piece->next;
    piece->next = out;
    out = piece;
  }
  pthread_mutex_unlock(&cache->lock);
  return out;
}

static bool has_changed(const tr_cache *cache, const dl_piece *piece, const void *self) {
  (void)self;
  return !dl_table_unchanged(&cache->table, piece->slot, piece->version);
}

/* Those that wait for something that has changed look again. */
void dl_cache_kick(tr_cache *cache) {
  dl_piece *next;
  for (dl_piece *piece = dl_cache_unpark(cache, has_changed, NULL); piece != NULL; piece = next) {
    next = piece->next;
    dl_cache_queue(cache, piece, piece);
  }
}

/* ---- Threads ----------------------------------------------------------------------------------------------------- */

static void write_slot(tr_cache *cache, uint32_t slot) {
  dl_cache_object object;
  dl_cache_chunk chunk;
  uint64_t number;
  if (dl_table_describe(&cache->table, slot, &object, &number, &chunk))
    dl_disk_write(&cache->disk, &object, number, &chunk, dl_table_slot(&cache->table, slot));
  if (!dl_table_written(&cache->table, slot)) dl_disk_drop(&cache->disk, &object, number);
  dl_table_count(&cache->table, DL_COUNT_EVICTED_BYTES, atomic_exchange(&cache->disk.evicted_bytes, 0));
}

/* With the lock held. One thread always stays free for reading. */
static bool may_write(const tr_cache *cache) {
  return cache->write_count > 0 && cache->writing + 1 < DL_CACHE_THREADS &&
         (!cache->stop || tr_clock_now_ns(cache->clock) < cache->stop_ns);
}

static void *thread_main(void *argument) {
  tr_cache *cache = argument;
  pthread_mutex_lock(&cache->lock);
  for (;;) {
    dl_piece *piece = cache->queue_head;
    if (piece != NULL) {
      cache->queue_head = piece->next;
      if (cache->queue_head == NULL) cache->queue_tail = NULL;
      pthread_mutex_unlock(&cache->lock);
      dl_piece_work(cache, piece);
      pthread_mutex_lock(&cache->lock);
    } else if (may_write(cache)) {
      const uint32_t slot = cache->writes[cache->write_first];
      cache->write_first = (cache->write_first + 1) % cache->table.slot_count;
      cache->write_count--;
      cache->writing++;
      pthread_mutex_unlock(&cache->lock);
      write_slot(cache, slot);
      pthread_mutex_lock(&cache->lock);
      cache->writing--;
    } else if (cache->stop) {
      break;
    } else {
      pthread_cond_wait(&cache->work, &cache->lock);
    }
  }
  pthread_mutex_unlock(&cache->lock);
  return NULL;
}

typedef struct moment {
  dl_table *table;
  uint64_t now_ns;
} moment;

static bool is_impatient(const tr_cache *cache, const dl_piece *piece, const void *self) {
  const moment *at = self;
  (void)cache;
  return at->now_ns - piece->parked_ns > patience_ns && dl_table_is_foreign(at->table, piece->slot, piece->version);
}

/* Whether those who fill what is waited for are alive, and quick enough. */
static void look_after(tr_cache *cache) {
  enum { AT_ONCE = 32 };
  uint32_t slots[AT_ONCE];
  uint64_t versions[AT_ONCE];
  size_t found = 0;
  pthread_mutex_lock(&cache->lock);
  for (const dl_piece *piece = cache->parked; piece != NULL && found < AT_ONCE; piece = piece->next) {
    bool known = false;
    for (size_t i = 0; i < found && !known; i++) known = slots[i] == piece->slot;
    if (known) continue;
    slots[found] = piece->slot;
    versions[found++] = piece->version;
  }
  pthread_mutex_unlock(&cache->lock);
  for (size_t i = 0; i < found; i++) dl_table_reap(&cache->table, slots[i], versions[i]);
  dl_cache_kick(cache);
  const moment now = {&cache->table, tr_clock_now_ns(cache->clock)};
  dl_piece *next;
  for (dl_piece *piece = dl_cache_unpark(cache, is_impatient, &now); piece != NULL; piece = next) {
    next = piece->next;
    dl_piece_read_direct(piece);
  }
}

static void *watcher_main(void *argument) {
  tr_cache *cache = argument;
  uint64_t looked_ns = 0;
  for (;;) {
    const uint32_t seen = dl_table_events(&cache->table);
    pthread_mutex_lock(&cache->lock);
    while (!cache->stop && cache->parked == NULL) pthread_cond_wait(&cache->parked_some, &cache->lock);
    const bool stop = cache->stop;
    pthread_mutex_unlock(&cache->lock);
    if (stop) return NULL;
    dl_cache_kick(cache);
    dl_table_sleep(&cache->table, seen, WATCH_MS);
    const uint64_t now_ns = tr_clock_now_ns(cache->clock);
    if (now_ns - looked_ns < WATCH_MS * 1000000ull) continue;
    looked_ns = now_ns;
    look_after(cache);
  }
}

static bool start_thread(pthread_t *thread, void *(*main_function)(void *), tr_cache *cache) {
  if (pthread_create(thread, NULL, main_function, cache) != 0) return false;
  pthread_setname_np(*thread, "tr-cache");
  return true;
}

tr_status dl_cache_start(tr_cache *cache, tr_error *error) {
  /* Signals are for the program's own threads. */
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  while (cache->thread_count < DL_CACHE_THREADS &&
         start_thread(&cache->threads[cache->thread_count], thread_main, cache)) {
    cache->thread_count++;
  }
  if (cache->is_shared) cache->has_watcher = start_thread(&cache->watcher, watcher_main, cache);
  pthread_sigmask(SIG_SETMASK, &before, NULL);
  if (cache->thread_count < DL_CACHE_THREADS || (cache->is_shared && !cache->has_watcher))
    return tr_fail(error, TR_ERR_NO_MEMORY, "cache: no thread can be started");
  return TR_OK;
}

void dl_cache_stop(tr_cache *cache) {
  pthread_mutex_lock(&cache->lock);
  cache->stop = true;
  cache->stop_ns = tr_clock_now_ns(cache->clock) + flush_ns;
  pthread_cond_broadcast(&cache->work);
  pthread_cond_broadcast(&cache->parked_some);
  pthread_mutex_unlock(&cache->lock);
  if (cache->has_watcher) dl_table_wake(&cache->table);
  for (uint32_t i = 0; i < cache->thread_count; i++) pthread_join(cache->threads[i], NULL);
  if (cache->has_watcher) pthread_join(cache->watcher, NULL);
  /* Others may use the slots that were not written. */
  for (; cache->write_count > 0; cache->write_count--) {
    (void)dl_table_written(&cache->table, cache->writes[cache->write_first]);
    cache->write_first = (cache->write_first + 1) % cache->table.slot_count;
  }
}
