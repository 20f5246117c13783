/* The cache of a node, inside: a store in front of a store (tr_cache_wrap) whose reads are cut into chunks.
 *
 *     get ─ cut into ─> pieces, one a chunk, each of which
 *       is copied from the memory tier, or read from the folder      (cache_table.h, cache_disk.h)
 *       waits for a worker of this node that is filling the chunk
 *       claims the chunk, has it read whole from the store behind, and gives it to all who wait
 *       or, where neither tier has room for the chunk, is read from the store behind as it was asked for
 *
 * Threads: pieces are worked on by the cache's own threads (and by the caller's where it waits anyway), which also write
 * files; the store behind calls back on its engine's thread, which only queues. A watcher looks after those that wait for
 * other processes. What is kept is never replaced by what comes later (decision 0043). */
#ifndef TRAINRUN_DATALOADER_CACHE_H
#define TRAINRUN_DATALOADER_CACHE_H

#include <trainrun/dataloader.h>

#include "cache_disk.h"
#include "cache_table.h"
#include "cache_wanted.h"

enum { DL_CACHE_THREADS = 4 };

typedef struct dl_cache_get dl_cache_get;
typedef struct dl_cache_store dl_cache_store;

typedef enum dl_piece_stage { DL_PIECE_LOOK, DL_PIECE_FETCHED } dl_piece_stage;

/* What a get wants of one chunk. Belongs to the thread that works on it, to the queue, or to the parked ones. */
typedef struct dl_piece {
  struct dl_piece *next;
  dl_cache_get *get;
  dl_piece_stage stage;
  uint64_t number; /* of the chunk */
  uint32_t begin, bytes;
  uint8_t *to;

  /* Of a claim, or of what is waited for. */
  uint32_t slot;
  uint64_t version;
  uint64_t parked_ns; /* since when it waits; 0: it never did */

  /* The result. */
  tr_status status;
  uint32_t moved;
  uint64_t object_bytes;
  int64_t modified_ns;
  dl_fetch_times times;

  tr_store_request request; /* to the store behind; its error is the piece's */
} dl_piece;

struct dl_cache_get {
  dl_cache_get *next_free;
  dl_cache_store *store;
  tr_store_request *request;
  dl_cache_object object;
  dl_piece *pieces;
  size_t count, capacity;
  bool blocking; /* its caller waits: nobody calls back */
  bool complete; /* under the cache's lock */
  _Atomic uint32_t left;
};

/* A store in front of another. */
struct dl_cache_store {
  dl_cache_store *next;
  tr_cache *cache;
  tr_store *inner;
  const tr_store_ops *inner_ops;
  void *inner_self;
  char *identity;
  tr_store *outer;
  uint32_t gets; /* under way; under the cache's lock */
};

struct tr_cache {
  /* Set once. */
  const tr_allocator *allocator;
  const tr_clock *clock;
  tr_log *log;
  char *dir;
  bool has_disk, is_shared, is_first; /* of the workers of the node */
  dl_table table;
  dl_disk disk;
  pthread_t threads[DL_CACHE_THREADS], watcher;
  uint32_t thread_count; /* that were started */
  bool has_watcher;

  _Atomic uint64_t swept_ns;
  _Atomic bool memory_is_short; /* said */

  pthread_mutex_t wanted_lock;
  dl_wanted wanted;

  pthread_mutex_t lock;
  pthread_cond_t work;        /* for the threads */
  pthread_cond_t parked_some; /* for the watcher */
  pthread_cond_t finished;    /* a get that is waited for, the last get of a store */

  /* Under the lock. */
  dl_cache_store *stores;
  dl_cache_get *free_gets;
  dl_piece *queue_head, *queue_tail;
  dl_piece *parked;
  uint32_t *writes; /* slots to be written to the folder: a ring of slot_count */
  uint32_t write_first, write_count, writing;
  bool stop;
  uint64_t stop_ns; /* after it nothing more is written */
};

/* ---- cache_threads.c ---- */
tr_status dl_cache_start(tr_cache *cache, tr_error *error);
/* Every get has ended. */
void dl_cache_stop(tr_cache *cache);
void dl_cache_queue(tr_cache *cache, dl_piece *first, dl_piece *last);
/* Takes the parked pieces out of which `chosen` says so; a list. */
dl_piece *dl_cache_unpark(tr_cache *cache,
                          bool (*chosen)(const tr_cache *cache, const dl_piece *piece, const void *self),
                          const void *self);
/* Those that wait for something that has changed look again. */
void dl_cache_kick(tr_cache *cache);

/* ---- cache_pieces.c ---- */
/* In the calling thread, as far as it goes without waiting. */
void dl_piece_work(tr_cache *cache, dl_piece *piece);
/* Past the cache, as it was asked for. */
void dl_piece_read_direct(dl_piece *piece);

/* ---- cache_get.c ---- */
tr_status dl_cache_store_create(tr_cache *cache, tr_store *inner, const char *identity, dl_cache_store **out,
                                tr_error *error);
/* One of its pieces is done. */
void dl_cache_get_piece_done(dl_cache_get *get);

/* ---- cache.c ---- */
/* A version of an object will be read: what the cache holds of it stays, what it holds of other versions may go. */
void dl_cache_use(tr_cache *cache, const tr_store *outer, const char *key, const char *etag);
void dl_cache_name(tr_cache *cache, const dl_cache_object *object);
/* Takes chunks [first, last] of a version out of both tiers. */
void dl_cache_drop(tr_cache *cache, const dl_cache_object *object, uint64_t first, uint64_t last);

#endif
