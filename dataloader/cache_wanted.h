/* Which version of which object this process's data name: what the cache keeps. One thread at a time. */
#ifndef TRAINRUN_DATALOADER_CACHE_WANTED_H
#define TRAINRUN_DATALOADER_CACHE_WANTED_H

#include "cache_key.h"

typedef struct dl_wanted_entry {
  uint64_t name, hash[2];
  bool used;
} dl_wanted_entry;

/* Two tables of open addressing over the same entries, each at most half full. */
typedef struct dl_wanted {
  const tr_allocator *allocator;
  dl_wanted_entry *by_name, *by_hash; /* [capacity], a power of two; 0: none yet */
  size_t capacity, count;
} dl_wanted;

typedef enum dl_wanted_result { DL_WANTED_KNOWN, DL_WANTED_NEW, DL_WANTED_REPLACED } dl_wanted_result;

void dl_wanted_fini(dl_wanted *wanted);
/* Names a version; another one of the same object is no longer wanted, and is told in `old`. Without memory for it the
 * version is not remembered, and may be evicted. */
dl_wanted_result dl_wanted_add(dl_wanted *wanted, const dl_cache_object *object, uint64_t old[2]);
bool dl_wanted_has(const dl_wanted *wanted, const uint64_t hash[2]);

#endif
