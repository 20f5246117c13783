/* How a piece of a get finds its bytes: see cache.h. */
#include <string.h>

#include "cache.h"

static const uint64_t sweep_every_ns = 1000000000;

static void count(tr_cache *cache, dl_cache_count what, uint64_t by) { dl_table_count(&cache->table, what, by); }

/* ---- Waiting ----------------------------------------------------------------------------------------------------- */

/* From here on the piece is no longer the caller's. */
static void park(tr_cache *cache, dl_piece *piece, const dl_hit *hit) {
  const uint32_t slot = hit->slot;
  const uint64_t version = hit->version;
  piece->slot = slot;
  piece->version = version;
  if (piece->parked_ns == 0) piece->parked_ns = tr_clock_now_ns(cache->clock);
  pthread_mutex_lock(&cache->lock);
  piece->next = cache->parked;
  cache->parked = piece;
  pthread_cond_signal(&cache->parked_some);
  pthread_mutex_unlock(&cache->lock);
  /* It may have changed before the piece was in the list. */
  if (!dl_table_unchanged(&cache->table, slot, version)) dl_cache_kick(cache);
}

/* ---- The end of a piece ------------------------------------------------------------------------------------------ */

static void end_piece(tr_cache *cache, dl_piece *piece, tr_status status) {
  piece->status = status;
  if (status == TR_OK) count(cache, DL_COUNT_SERVED_BYTES, piece->moved);
  dl_cache_get_piece_done(piece->get);
}

/* The range of a chunk that the piece wants, of what is there. */
static uint32_t wanted_bytes(const dl_piece *piece, const dl_cache_chunk *chunk) {
  if (piece->begin >= chunk->bytes) return 0;
  const uint32_t there = chunk->bytes - piece->begin;
  return piece->bytes < there ? piece->bytes : there;
}

static void end_with(tr_cache *cache, dl_piece *piece, const dl_cache_chunk *chunk, dl_cache_count hit) {
  piece->moved = wanted_bytes(piece, chunk);
  piece->object_bytes = chunk->object_bytes;
  piece->modified_ns = chunk->modified_ns;
  count(cache, piece->parked_ns != 0 && hit != DL_COUNT_MISSES ? DL_COUNT_WAITED_HITS : hit, 1);
  end_piece(cache, piece, TR_OK);
}

/* ---- The store behind -------------------------------------------------------------------------------------------- */

static void behind(dl_piece *piece, uint64_t offset, void *buffer, size_t bytes, void (*done)(tr_store_request *)) {
  const tr_store_request *asked = piece->get->request;
  piece->request = (tr_store_request){.struct_bytes = sizeof piece->request,
                                      .verb = TR_STORE_GET,
                                      .priority = asked->priority,
                                      .key = asked->key,
                                      .offset = offset,
                                      .buffer = buffer,
                                      .buffer_bytes = bytes,
                                      .if_match = asked->if_match,
                                      .fresh = asked->fresh,
                                      .done = done,
                                      .user = piece};
  tr_error error;
  const tr_status status = tr_store_submit(piece->get->store->inner, &piece->request, &error);
  if (status == TR_OK) return;
  piece->request.status = status;
  piece->request.error = error;
  done(&piece->request);
}

static void take_times(dl_piece *piece) {
  piece->times = (dl_fetch_times){.first_byte_ns = piece->request.first_byte_ns,
                                  .throttled_ns = piece->request.throttled_ns,
                                  .retry_ns = piece->request.retry_ns};
}

/* On the store's engine thread: nothing here takes long. */
static void direct_done(tr_store_request *request) {
  dl_piece *piece = request->user;
  tr_cache *cache = piece->get->store->cache;
  take_times(piece);
  piece->moved = (uint32_t)request->bytes;
  piece->object_bytes = request->info.bytes;
  piece->modified_ns = request->info.modified_ns;
  count(cache, DL_COUNT_MISSES, 1);
  count(cache, DL_COUNT_FETCHED_BYTES, request->bytes);
  end_piece(cache, piece, request->status);
}

/* Past the cache, as it was asked for. */
void dl_piece_read_direct(dl_piece *piece) {
  behind(piece, piece->number * DL_CACHE_CHUNK_BYTES + piece->begin, piece->to, piece->bytes, direct_done);
}

static void fetch_done(tr_store_request *request) {
  dl_piece *piece = request->user;
  piece->stage = DL_PIECE_FETCHED;
  dl_cache_queue(piece->get->store->cache, piece, piece);
}

static void fetch(tr_cache *cache, dl_piece *piece, const dl_hit *claim) {
  piece->slot = claim->slot;
  piece->version = claim->version;
  behind(piece, piece->number * DL_CACHE_CHUNK_BYTES, dl_table_slot(&cache->table, claim->slot), DL_CACHE_CHUNK_BYTES,
         fetch_done);
}

static bool waits_for_same(const tr_cache *cache, const dl_piece *piece, const void *self) {
  const dl_piece *fetched = self;
  (void)cache;
  return piece->slot == fetched->slot && piece->version == fetched->version;
}

/* Those of this process that waited for a fetch that failed fail with it; other processes try for themselves. */
static void fail_fetch(tr_cache *cache, dl_piece *piece) {
  dl_piece *with = dl_cache_unpark(cache, waits_for_same, piece), *next;
  dl_table_release(&cache->table, piece->slot);
  dl_cache_kick(cache);
  for (; with != NULL; with = next) {
    next = with->next;
    with->request.error = piece->request.error;
    end_piece(cache, with, piece->request.status);
  }
  end_piece(cache, piece, piece->request.status);
}

static void queue_write(tr_cache *cache, uint32_t slot) {
  pthread_mutex_lock(&cache->lock);
  cache->writes[(cache->write_first + cache->write_count++) % cache->table.slot_count] = slot;
  pthread_cond_signal(&cache->work);
  pthread_mutex_unlock(&cache->lock);
}

/* A chunk came: everybody gets it, and the folder. */
static void take_fetched(tr_cache *cache, dl_piece *piece) {
  const tr_store_request *request = &piece->request;
  const uint64_t offset = piece->number * DL_CACHE_CHUNK_BYTES;
  const uint32_t slot = piece->slot;
  if (request->status != TR_OK) {
    fail_fetch(cache, piece);
    return;
  }
  dl_cache_chunk chunk = {
      .bytes = (uint32_t)request->bytes, .object_bytes = request->info.bytes, .modified_ns = request->info.modified_ns};
  count(cache, DL_COUNT_FETCHED_BYTES, chunk.bytes);
  if (chunk.bytes < DL_CACHE_CHUNK_BYTES && chunk.object_bytes > offset + chunk.bytes) {
    /* The store fell short: that is for the reader to see, and nothing to keep. */
    dl_table_release(&cache->table, slot);
    dl_cache_kick(cache);
    dl_piece_read_direct(piece);
    return;
  }
  const uint8_t *data = dl_table_slot(&cache->table, slot);
  dl_cache_chunk_sum(&chunk, data);
  take_times(piece);
  memcpy(piece->to, data + piece->begin, wanted_bytes(piece, &chunk));
  const bool to_disk = cache->has_disk && dl_disk_takes(&cache->disk);
  dl_table_publish(&cache->table, slot, &chunk, &piece->times, to_disk);
  dl_cache_kick(cache);
  if (to_disk) queue_write(cache, slot);
  end_with(cache, piece, &chunk, DL_COUNT_MISSES);
}

/* ---- Looking ----------------------------------------------------------------------------------------------------- */

static bool read_slot(void *self, uint32_t offset, uint8_t *to, uint32_t bytes) {
  memcpy(to, (const uint8_t *)self + offset, bytes);
  return true;
}

typedef enum looked { LOOKED_DONE, LOOKED_AGAIN, LOOKED_NOWHERE } looked;

static looked take_ready(tr_cache *cache, dl_piece *piece, const dl_hit *hit) {
  dl_table *table = &cache->table;
  const uint64_t now_ns = tr_clock_now_ns(cache->clock);
  const bool good = dl_cache_chunk_take(&hit->chunk, piece->begin, wanted_bytes(piece, &hit->chunk), piece->to,
                                        read_slot, dl_table_slot(table, hit->slot));
  const bool same = dl_table_unchanged(table, hit->slot, hit->version);
  dl_table_unpin(table, hit->slot);
  if (!same) return LOOKED_AGAIN;
  if (!good) {
    tr_logf(cache->log, TR_LOG_WARNING, "cache: a chunk in memory is damaged (faulty memory?): fetched again");
    count(cache, DL_COUNT_DAMAGED, 1);
    dl_table_drop(table, hit->slot, hit->version);
    return LOOKED_NOWHERE;
  }
  piece->times = (dl_fetch_times){.first_byte_ns = now_ns};
  if (piece->parked_ns != 0) piece->times = hit->times;
  end_with(cache, piece, &hit->chunk, DL_COUNT_MEMORY_HITS);
  return LOOKED_DONE;
}

static bool read_disk(tr_cache *cache, dl_piece *piece, uint32_t begin, uint32_t bytes, uint8_t *to,
                      dl_cache_chunk *chunk) {
  if (!cache->has_disk) return false;
  piece->times = (dl_fetch_times){.first_byte_ns = tr_clock_now_ns(cache->clock)};
  const dl_disk_result result = dl_disk_read(&cache->disk, &piece->get->object, piece->number, begin, bytes, to, chunk);
  if (result == DL_DISK_DAMAGED) count(cache, DL_COUNT_DAMAGED, 1);
  return result == DL_DISK_HIT;
}

/* A slot of the memory tier is the piece's: it is filled from the folder, or else from the store. */
static void fill_claim(tr_cache *cache, dl_piece *piece, const dl_hit *claim) {
  dl_cache_chunk chunk;
  uint8_t *data = dl_table_slot(&cache->table, claim->slot);
  if (!read_disk(cache, piece, 0, DL_CACHE_CHUNK_BYTES, data, &chunk)) {
    fetch(cache, piece, claim);
    return;
  }
  memcpy(piece->to, data + piece->begin, wanted_bytes(piece, &chunk));
  dl_table_publish(&cache->table, claim->slot, &chunk, &piece->times, false);
  dl_cache_kick(cache);
  end_with(cache, piece, &chunk, DL_COUNT_DISK_HITS);
}

/* Pages for a claim; without them the memory tier stays as large as it is. */
static bool has_pages(tr_cache *cache, uint32_t slot) {
  if (dl_table_back(&cache->table, slot)) return true;
  dl_table_lose(&cache->table, slot);
  dl_cache_kick(cache);
  if (!atomic_exchange(&cache->memory_is_short, true)) {
    tr_logf(cache->log, TR_LOG_WARNING, "cache: the host has no more memory for it; it stays as large as it is");
  }
  return false;
}

/* No slot was free. Dead workers may hold some. */
static void sweep(tr_cache *cache) {
  if (!cache->is_shared) return;
  const uint64_t now_ns = tr_clock_now_ns(cache->clock);
  uint64_t swept_ns = atomic_load(&cache->swept_ns);
  if (now_ns - swept_ns < sweep_every_ns || !atomic_compare_exchange_strong(&cache->swept_ns, &swept_ns, now_ns))
    return;
  dl_table_sweep(&cache->table);
}

/* Neither in memory, nor room there. */
static looked look_behind_memory(tr_cache *cache, dl_piece *piece, dl_hit *hit) {
  dl_cache_chunk chunk;
  if (read_disk(cache, piece, piece->begin, piece->bytes, piece->to, &chunk)) {
    end_with(cache, piece, &chunk, DL_COUNT_DISK_HITS);
    return LOOKED_DONE;
  }
  const dl_claim claim = cache->has_disk && dl_disk_takes(&cache->disk) ? DL_CLAIM_TRANSIT : DL_CLAIM_NOT;
  switch (dl_table_find(&cache->table, &piece->get->object, piece->number, claim, hit)) {
    case DL_FOUND_CLAIMED:
      if (!has_pages(cache, hit->slot)) return LOOKED_AGAIN;
      fetch(cache, piece, hit);
      return LOOKED_DONE;
    case DL_FOUND_BUSY: park(cache, piece, hit); return LOOKED_DONE;
    case DL_FOUND_READY: return take_ready(cache, piece, hit);
    case DL_FOUND_NOTHING: break;
  }
  sweep(cache);
  return LOOKED_NOWHERE;
}

static looked look(tr_cache *cache, dl_piece *piece) {
  dl_hit hit;
  switch (dl_table_find(&cache->table, &piece->get->object, piece->number, DL_CLAIM_KEPT, &hit)) {
    case DL_FOUND_CLAIMED:
      if (!has_pages(cache, hit.slot)) return LOOKED_AGAIN;
      fill_claim(cache, piece, &hit);
      return LOOKED_DONE;
    case DL_FOUND_BUSY: park(cache, piece, &hit); return LOOKED_DONE;
    case DL_FOUND_READY: return take_ready(cache, piece, &hit);
    case DL_FOUND_NOTHING: break;
  }
  return look_behind_memory(cache, piece, &hit);
}

void dl_piece_work(tr_cache *cache, dl_piece *piece) {
  if (piece->stage == DL_PIECE_FETCHED) {
    take_fetched(cache, piece);
    return;
  }
  looked result;
  do result = look(cache, piece);
  while (result == LOOKED_AGAIN);
  if (result == LOOKED_NOWHERE) dl_piece_read_direct(piece);
}
