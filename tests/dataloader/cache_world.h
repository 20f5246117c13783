/* A cache in front of a store that counts: what the cache's tests share.
 *
 * Objects are called o0, o1, …; their bytes follow from number and version, so that any range can be checked. */
#ifndef TRAINRUN_TESTS_DATALOADER_CACHE_WORLD_H
#define TRAINRUN_TESTS_DATALOADER_CACHE_WORLD_H

#include "dataloader/data.h"
#include "support/fault_store.h"

#define MIB ((uint64_t)1 << 20)
enum { CHUNK = 4 << 20 }; /* of the cache */

typedef struct cache_world {
  const tr_allocator *allocator;
  ts_faults *faults; /* in memory that forked processes share */
  bool own_faults;
  tr_store *inner, *outer;
  tr_cache *cache;
  bool fresh;       /* the next reads are */
  tr_store *memory; /* what inner counts for */
  int warnings;     /* that the cache logged */
  char last_line[600];
  tr_log *log;
} cache_world;

/* A store and its counters; the cache is opened by world_cache. */
cache_world *world_make(const tr_allocator *allocator);
void world_end(cache_world *w);
/* Counts, and fails, from now on in counters that others share. */
void world_count_in(cache_world *w, ts_faults *faults);
/* Puts version `version` of object k. */
void world_put(cache_world *w, int k, uint64_t version, uint64_t bytes);
tr_status world_cache(cache_world *w, const char *dir, uint64_t dir_bytes, uint64_t memory_bytes,
                      const tr_exchange *exchange, tr_error *error);
/* The next job: closes the cache and opens it anew. */
void world_again(cache_world *w, const char *dir, uint64_t dir_bytes, uint64_t memory_bytes);

/* The ETag of object k now. */
void world_etag(cache_world *w, int k, char etag[TR_ETAG_BYTES]);
/* Reads a range of a version through the cache, submitted and waited for. */
tr_status world_read(cache_world *w, int k, const char *etag, uint64_t offset, void *buffer, size_t bytes,
                     size_t *moved, tr_error *error);
/* Whether `bytes` are those of version `version` of object k. */
bool world_right(int k, uint64_t version, uint64_t offset, const uint8_t *bytes, size_t count);
/* Reads object k of `size` bytes in steps and says how many of them were wrong or failed. */
int world_read_all(cache_world *w, int k, uint64_t version, uint64_t size, uint64_t step);

tr_cache_stats world_stats(const cache_world *w);
static inline uint64_t world_gets(const cache_world *w) { return __atomic_load_n(&w->faults->gets, __ATOMIC_RELAXED); }
/* Bytes of all files below dir, but for the count that the cache keeps. */
uint64_t folder_bytes(const char *dir);
/* Paths of the chunks' files, at most `room`. */
size_t folder_files(const char *dir, char paths[][512], size_t room);

#endif
