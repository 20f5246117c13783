/* The cache's folder: chunks as files, bounded, shared by all processes that use it, of one job or several.
 *
 * A file gets its name when it is whole, and is not made durable: what a loss of power tears is found by its checksums
 * when it is read, removed, and fetched again. A read never fails because of the folder. Where a write does (no space, a
 * quota, a broken disk), the folder is only read from then on, and the log says so once.
 *
 * What is in the folder is counted in a small file, under a lock that dies with its holder; each entry is counted before
 * it is there and until it is gone, so a kill can only make the count too high, and the walk over the folder that comes
 * before anything is evicted sets it right. Evicted are entries that this job's data do not name, those not used for the
 * longest time first; the job's own are kept (decision 0043). Whatever else lies in the folder is left alone. */
#ifndef TRAINRUN_DATALOADER_CACHE_DISK_H
#define TRAINRUN_DATALOADER_CACHE_DISK_H

#include <pthread.h>
#include <stdatomic.h>
#include <trainrun/log.h>

#include "cache_file.h"

typedef struct dl_disk_options {
  const tr_allocator *allocator;
  const tr_clock *clock;
  tr_log *log;
  const char *dir;
  uint64_t limit_bytes; /* 0: as much as is free, less a tenth */
  /* Whether this process's data name this version of an object. */
  bool (*wanted)(void *self, const uint64_t hash[2]);
  void *self;
} dl_disk_options;

typedef struct dl_disk {
  /* Set once. */
  const tr_allocator *allocator;
  const tr_clock *clock;
  tr_log *log;
  const char *dir; /* the opener's */
  bool (*wanted)(void *self, const uint64_t hash[2]);
  void *self;
  int folder, usage; /* descriptors */
  uint64_t nonce;    /* in the names of files being written */
  uint64_t limit_bytes;

  _Atomic bool write_off;         /* a write failed */
  _Atomic uint64_t full_until;    /* tr_clock_now_ns; nothing could be evicted before */
  _Atomic uint64_t evicted_bytes; /* not yet told */

  pthread_mutex_t lock; /* with the lock of the file `usage`: all that changes what is in the folder */
  uint64_t temporary_count;
} dl_disk;

TR_MUST_USE tr_status dl_disk_open(dl_disk *disk, const dl_disk_options *options, tr_error *error);
void dl_disk_close(dl_disk *disk);
/* Whether another chunk may find a place. */
bool dl_disk_takes(dl_disk *disk);
/* What is wanted has changed: something may have become evictable. */
void dl_disk_reconsider(dl_disk *disk);

typedef enum dl_disk_result { DL_DISK_HIT, DL_DISK_MISS, DL_DISK_DAMAGED } dl_disk_result;
/* As much of [begin, begin + bytes) as the chunk has. */
dl_disk_result dl_disk_read(dl_disk *disk, const dl_cache_object *object, uint64_t number, uint32_t begin,
                            uint32_t bytes, uint8_t *to, dl_cache_chunk *chunk);
/* Best effort. */
void dl_disk_write(dl_disk *disk, const dl_cache_object *object, uint64_t number, const dl_cache_chunk *chunk,
                   const uint8_t *data);
void dl_disk_drop(dl_disk *disk, const dl_cache_object *object, uint64_t number);

/* ---- cache_usage.c: between dl_usage_lock and dl_usage_unlock ---- */

void dl_usage_lock(dl_disk *disk);
void dl_usage_unlock(dl_disk *disk);
/* Counts `bytes` more, evicting where needed; false: they do not fit. */
bool dl_usage_add(dl_disk *disk, uint64_t bytes);
void dl_usage_remove(dl_disk *disk, uint64_t bytes);
uint64_t dl_usage_bytes(dl_disk *disk);

#endif
