/* The memory of a node's cache: one memfd that all workers of the node map, and the table of what is in it.
 *
 *     dl_table_head     magic, sizes, the lock, counters
 *     buckets           u32 each: number of the first entry + 1
 *     entries           one a slot: whose chunk it holds, and in which state
 *     slots             DL_CACHE_CHUNK_BYTES each; their pages are allocated when a slot is first used
 *
 * The first `kept` slots are the memory tier: what is put there stays until it is dropped. The others are for chunks on
 * their way to the folder, and used in turn.
 *
 *     free ──claim──> claimed ──publish──> ready ──drop, or its slot is used again──> free
 *                        └──────release──────────────────────────────────────────────────^
 *
 * The table is under one robust mutex of all processes, held for a few hundred instructions and never over a system call
 * that can block. A process may be killed at any of them: an entry's state is written last, chains can be made anew from
 * the entries, and a claim names its owner by pid and start time, so that one whose owner died is taken back.
 * A reader copies without the lock: the entry's version, which every change counts up, tells it afterwards whether it
 * copied what it meant to, and the checksums tell whether that is what was put in. Within a process slots that are being
 * copied from are pinned as well and not used again meanwhile. */
#ifndef TRAINRUN_DATALOADER_CACHE_TABLE_H
#define TRAINRUN_DATALOADER_CACHE_TABLE_H

#include <pthread.h>
#include <stdatomic.h>

#include "cache_key.h"

typedef enum dl_entry_state {
  DL_ENTRY_FREE = 0,
  DL_ENTRY_CLAIMED = 1, /* its owner fills it */
  DL_ENTRY_READY = 2,
  DL_ENTRY_LOST = 3 /* the host had no pages for its slot */
} dl_entry_state;

/* How a fetch went, on the clock that all processes of a host share: who waited for it says so too. */
typedef struct dl_fetch_times {
  uint64_t first_byte_ns, throttled_ns, retry_ns;
} dl_fetch_times;

typedef struct dl_entry {
  _Atomic uint64_t version;
  _Atomic uint32_t state;
  uint32_t next; /* in its bucket, or in the list of free slots: number + 1 */
  bool has_pages;
  bool unwritten; /* ready, and its owner is to write it to the folder: until then the slot is not used again */
  bool gone;      /* dropped while it was unwritten: nobody finds it any more */
  int32_t owner_pid;
  uint64_t owner_start;
  uint64_t hash[2], number; /* of the object's version; of the chunk */
  uint32_t text_bytes;
  char text[DL_CACHE_TEXT_BYTES];
  dl_cache_chunk chunk;
  dl_fetch_times times;
} dl_entry;

/* Of the node: what all its workers have done. */
typedef enum dl_cache_count {
  DL_COUNT_MEMORY_HITS,
  DL_COUNT_DISK_HITS,
  DL_COUNT_WAITED_HITS,
  DL_COUNT_MISSES,
  DL_COUNT_FETCHED_BYTES,
  DL_COUNT_SERVED_BYTES,
  DL_COUNT_EVICTED_BYTES,
  DL_COUNT_DAMAGED,
  DL_COUNTS
} dl_cache_count;

typedef struct dl_table_head {
  uint64_t magic, nonce;
  uint32_t version, slot_bytes, kept, transit, bucket_count;
  uint64_t folder_bytes; /* the bound of the folder, as the node's first worker found it */
  _Alignas(TR_CACHE_LINE) pthread_mutex_t lock;
  uint32_t free_kept;                              /* number + 1 */
  uint32_t transit_at;                             /* where the next search of a slot in transit begins */
  _Alignas(TR_CACHE_LINE) _Atomic uint32_t events; /* futex: something changed that somebody may wait for */
  _Atomic uint32_t sleepers;
  _Alignas(TR_CACHE_LINE) _Atomic uint64_t counts[DL_COUNTS];
} dl_table_head;

/* A process's view. */
typedef struct dl_table {
  const tr_allocator *allocator;
  size_t mapped_bytes;
  dl_table_head *head;
  uint32_t *buckets;
  dl_entry *entries;
  uint8_t *slots;
  uint32_t slot_count;
  _Atomic uint32_t *pins; /* [slot] of this process */
  int descriptor;
  int32_t pid;
  uint64_t start;
} dl_table;

/* Makes a memfd for so many slots; *nonce tells it from others. */
TR_MUST_USE tr_status dl_table_create(uint32_t kept, uint32_t transit, int *descriptor, uint64_t *nonce,
                                      tr_error *error);
/* Maps it; the descriptor stays the caller's. */
TR_MUST_USE tr_status dl_table_open(dl_table *table, const tr_allocator *allocator, int descriptor, uint64_t nonce,
                                    tr_error *error);
void dl_table_close(dl_table *table);

typedef enum dl_found {
  DL_FOUND_NOTHING, /* not there, and not claimed: not asked for, or no slot is free */
  DL_FOUND_CLAIMED, /* by this call: fill the slot, then publish or release it */
  DL_FOUND_BUSY,    /* somebody fills it: wait until its version changes */
  DL_FOUND_READY    /* pinned: copy, then unpin */
} dl_found;
typedef enum dl_claim { DL_CLAIM_NOT, DL_CLAIM_KEPT, DL_CLAIM_TRANSIT } dl_claim;

typedef struct dl_hit {
  uint32_t slot;
  uint64_t version;
  dl_cache_chunk chunk; /* of a ready one */
  dl_fetch_times times;
} dl_hit;
dl_found dl_table_find(dl_table *table, const dl_cache_object *object, uint64_t number, dl_claim claim, dl_hit *hit);

static inline uint8_t *dl_table_slot(const dl_table *table, uint32_t slot) {
  return table->slots + (size_t)slot * DL_CACHE_CHUNK_BYTES;
}
/* Whether the slot still holds what a hit said. */
bool dl_table_unchanged(const dl_table *table, uint32_t slot, uint64_t version);
/* Whether another process is filling what a hit said. */
bool dl_table_is_foreign(dl_table *table, uint32_t slot, uint64_t version);
void dl_table_unpin(dl_table *table, uint32_t slot);

/* Of a claim: pages for the slot. False: the host has none left; then dl_table_lose gives claim and slot up for good. */
bool dl_table_back(dl_table *table, uint32_t slot);
void dl_table_lose(dl_table *table, uint32_t slot);
/* Memory that the host could still give without killing anybody. */
uint64_t dl_table_host_bytes(void);
/* The slot is filled. `unwritten`: not used again before dl_table_written. */
void dl_table_publish(dl_table *table, uint32_t slot, const dl_cache_chunk *chunk, const dl_fetch_times *times,
                      bool unwritten);
void dl_table_release(dl_table *table, uint32_t slot);
/* Copies what an unwritten slot of this process holds. False: it was dropped meanwhile. */
bool dl_table_describe(dl_table *table, uint32_t slot, dl_cache_object *object, uint64_t *number,
                       dl_cache_chunk *chunk);
/* Ends that. False: it was dropped meanwhile. */
bool dl_table_written(dl_table *table, uint32_t slot);

/* Drops what a hit said, if it is still there. */
void dl_table_drop(dl_table *table, uint32_t slot, uint64_t version);
/* Chunks [first, last] of a version; those being filled stay. Returns their bytes. */
uint64_t dl_table_drop_range(dl_table *table, const uint64_t hash[2], uint64_t first, uint64_t last);
/* Takes back what a dead owner can no longer finish. */
void dl_table_reap(dl_table *table, uint32_t slot, uint64_t version);
/* The same for all slots: asked when none is free. */
void dl_table_sweep(dl_table *table);

static inline void dl_table_count(dl_table *table, dl_cache_count what, uint64_t by) {
  atomic_fetch_add_explicit(&table->head->counts[what], by, memory_order_relaxed);
}
/* Sleeps until something changed since `seen` was read, at most timeout_ms. */
uint32_t dl_table_events(const dl_table *table);
void dl_table_sleep(dl_table *table, uint32_t seen, uint32_t timeout_ms);
void dl_table_wake(dl_table *table);

#endif
