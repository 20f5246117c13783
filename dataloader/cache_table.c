/* The table's states and its lock: see cache_table.h. Making and mapping the memfd is in cache_memfd.c. */
#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "cache_process.h"
#include "cache_table.h"

/* ---- Under the lock ---------------------------------------------------------------------------------------------- */

static uint32_t bucket_of(const dl_table *table, const uint64_t hash[2], uint64_t number) {
  return (uint32_t)(hash[1] + number * 0x9E3779B97F4A7C15ull) & (table->head->bucket_count - 1);
}

static dl_entry_state state_of(const dl_entry *entry) {
  return (dl_entry_state)atomic_load_explicit(&entry->state, memory_order_relaxed);
}

/* The version is counted up before the slot's bytes may change, the state is written after everything else: so a reader
 * without the lock sees that it was too late, and a kill in between leaves the old state. */
static void set_state(dl_entry *entry, dl_entry_state state) {
  atomic_fetch_add_explicit(&entry->version, 1, memory_order_relaxed);
  atomic_store_explicit(&entry->state, state, memory_order_release);
  atomic_thread_fence(memory_order_seq_cst);
}

static void link_entry(dl_table *table, uint32_t slot) {
  dl_entry *entry = &table->entries[slot];
  uint32_t *bucket = &table->buckets[bucket_of(table, entry->hash, entry->number)];
  entry->next = *bucket;
  *bucket = slot + 1;
}

static void unlink_entry(dl_table *table, uint32_t slot) {
  dl_entry *entry = &table->entries[slot];
  uint32_t *at = &table->buckets[bucket_of(table, entry->hash, entry->number)];
  while (*at != 0 && *at != slot + 1) at = &table->entries[*at - 1].next;
  if (*at != 0) *at = entry->next;
}

static void make_free(dl_table *table, uint32_t slot) {
  dl_entry *entry = &table->entries[slot];
  if (!entry->gone) unlink_entry(table, slot);
  set_state(entry, DL_ENTRY_FREE);
  entry->unwritten = entry->gone = false;
  if (slot >= table->head->kept) return;
  entry->next = table->head->free_kept;
  table->head->free_kept = slot + 1;
}

/* A ready entry, which nobody finds from now on. */
static void drop(dl_table *table, uint32_t slot) {
  dl_entry *entry = &table->entries[slot];
  if (!entry->unwritten) {
    make_free(table, slot);
  } else {
    unlink_entry(table, slot);
    entry->gone = true;
    set_state(entry, DL_ENTRY_READY);
  }
}

/* After a death with the lock held: everything that can be derived from the entries is. */
static void repair(dl_table *table) {
  dl_table_head *head = table->head;
  memset(table->buckets, 0, head->bucket_count * sizeof *table->buckets);
  head->free_kept = 0;
  for (uint32_t slot = 0; slot < table->slot_count; slot++) {
    dl_entry *entry = &table->entries[slot];
    const dl_entry_state state = state_of(entry);
    if (state == DL_ENTRY_CLAIMED || (state == DL_ENTRY_READY && !entry->gone)) {
      link_entry(table, slot);
    } else if (state == DL_ENTRY_FREE && slot < head->kept) {
      entry->next = head->free_kept;
      head->free_kept = slot + 1;
    }
  }
}

static void lock(dl_table *table) {
  if (pthread_mutex_lock(&table->head->lock) != EOWNERDEAD) return;
  repair(table);
  pthread_mutex_consistent(&table->head->lock);
}

static void unlock(dl_table *table) { pthread_mutex_unlock(&table->head->lock); }

static bool is_mine(const dl_table *table, const dl_entry *entry) {
  return entry->owner_pid == table->pid && entry->owner_start == table->start;
}

/* Its owner is not done with it. */
static bool is_held(const dl_entry *entry) {
  const dl_entry_state state = state_of(entry);
  return state == DL_ENTRY_CLAIMED || (state == DL_ENTRY_READY && entry->unwritten);
}

static uint32_t find(const dl_table *table, const dl_cache_object *object, uint64_t number) {
  uint32_t at = table->buckets[bucket_of(table, object->hash, number)];
  for (; at != 0; at = table->entries[at - 1].next) {
    const dl_entry *entry = &table->entries[at - 1];
    if (entry->hash[0] == object->hash[0] && entry->hash[1] == object->hash[1] && entry->number == number &&
        entry->text_bytes == object->text_bytes && memcmp(entry->text, object->text, object->text_bytes) == 0) {
      break;
    }
  }
  return at;
}

static bool is_pinned(const dl_table *table, uint32_t slot) {
  return atomic_load_explicit(&table->pins[slot], memory_order_acquire) > 0;
}

static uint32_t take_kept(dl_table *table) {
  uint32_t *at = &table->head->free_kept;
  while (*at != 0 && is_pinned(table, *at - 1)) at = &table->entries[*at - 1].next;
  const uint32_t taken = *at;
  if (taken != 0) *at = table->entries[taken - 1].next;
  return taken;
}

static uint32_t take_transit(dl_table *table) {
  dl_table_head *head = table->head;
  for (uint32_t i = 0; i < head->transit; i++) {
    const uint32_t slot = head->kept + (head->transit_at + i) % head->transit;
    const dl_entry *entry = &table->entries[slot];
    const dl_entry_state state = state_of(entry);
    if (state == DL_ENTRY_LOST || is_held(entry) || is_pinned(table, slot)) continue;
    head->transit_at = slot - head->kept + 1;
    if (state != DL_ENTRY_FREE) make_free(table, slot);
    return slot + 1;
  }
  return 0;
}

static uint32_t take_slot(dl_table *table, dl_claim claim) {
  if (claim == DL_CLAIM_KEPT) return take_kept(table);
  return claim == DL_CLAIM_TRANSIT ? take_transit(table) : 0;
}

static void claim_slot(dl_table *table, uint32_t slot, const dl_cache_object *object, uint64_t number) {
  dl_entry *entry = &table->entries[slot];
  entry->owner_pid = table->pid;
  entry->owner_start = table->start;
  memcpy(entry->hash, object->hash, sizeof entry->hash);
  entry->number = number;
  entry->text_bytes = object->text_bytes;
  memcpy(entry->text, object->text, object->text_bytes);
  entry->unwritten = false;
  link_entry(table, slot);
  set_state(entry, DL_ENTRY_CLAIMED);
}

/* ---- Finding and filling ----------------------------------------------------------------------------------------- */

dl_found dl_table_find(dl_table *table, const dl_cache_object *object, uint64_t number, dl_claim claim, dl_hit *hit) {
  dl_found found = DL_FOUND_NOTHING;
  lock(table);
  uint32_t at = find(table, object, number);
  if (at != 0) {
    found = state_of(&table->entries[at - 1]) == DL_ENTRY_READY ? DL_FOUND_READY : DL_FOUND_BUSY;
  } else {
    at = take_slot(table, claim);
    if (at != 0) {
      claim_slot(table, at - 1, object, number);
      found = DL_FOUND_CLAIMED;
    }
  }
  if (at != 0) {
    const dl_entry *entry = &table->entries[at - 1];
    hit->slot = at - 1;
    hit->version = atomic_load_explicit(&entry->version, memory_order_relaxed);
    if (found == DL_FOUND_READY) {
      hit->chunk = entry->chunk;
      hit->times = entry->times;
      atomic_fetch_add_explicit(&table->pins[at - 1], 1, memory_order_relaxed);
    }
  }
  unlock(table);
  return found;
}

bool dl_table_unchanged(const dl_table *table, uint32_t slot, uint64_t version) {
  /* The copy before this comes before the load. */
  atomic_thread_fence(memory_order_acquire);
  return atomic_load_explicit(&table->entries[slot].version, memory_order_relaxed) == version;
}

void dl_table_unpin(dl_table *table, uint32_t slot) {
  atomic_fetch_sub_explicit(&table->pins[slot], 1, memory_order_release);
}

void dl_table_publish(dl_table *table, uint32_t slot, const dl_cache_chunk *chunk, const dl_fetch_times *times,
                      bool unwritten) {
  lock(table);
  dl_entry *entry = &table->entries[slot];
  entry->chunk = *chunk;
  entry->times = *times;
  entry->unwritten = unwritten;
  set_state(entry, DL_ENTRY_READY);
  unlock(table);
  dl_table_wake(table);
}

void dl_table_release(dl_table *table, uint32_t slot) {
  lock(table);
  make_free(table, slot);
  unlock(table);
  dl_table_wake(table);
}

void dl_table_lose(dl_table *table, uint32_t slot) {
  lock(table);
  unlink_entry(table, slot);
  set_state(&table->entries[slot], DL_ENTRY_LOST);
  unlock(table);
  dl_table_wake(table);
}

bool dl_table_describe(dl_table *table, uint32_t slot, dl_cache_object *object, uint64_t *number,
                       dl_cache_chunk *chunk) {
  lock(table);
  const dl_entry *entry = &table->entries[slot];
  const bool there = !entry->gone;
  memcpy(object->hash, entry->hash, sizeof object->hash);
  object->text_bytes = entry->text_bytes;
  memcpy(object->text, entry->text, entry->text_bytes);
  *number = entry->number;
  *chunk = entry->chunk;
  unlock(table);
  return there;
}

bool dl_table_written(dl_table *table, uint32_t slot) {
  lock(table);
  dl_entry *entry = &table->entries[slot];
  const bool there = !entry->gone;
  entry->unwritten = false;
  if (!there) make_free(table, slot);
  unlock(table);
  return there;
}

/* ---- Dropping ---------------------------------------------------------------------------------------------------- */

void dl_table_drop(dl_table *table, uint32_t slot, uint64_t version) {
  lock(table);
  if (dl_table_unchanged(table, slot, version) && state_of(&table->entries[slot]) == DL_ENTRY_READY) drop(table, slot);
  unlock(table);
}

uint64_t dl_table_drop_range(dl_table *table, const uint64_t hash[2], uint64_t first, uint64_t last) {
  uint64_t bytes = 0;
  lock(table);
  for (uint32_t slot = 0; slot < table->slot_count; slot++) {
    const dl_entry *entry = &table->entries[slot];
    if (state_of(entry) != DL_ENTRY_READY || entry->gone || entry->hash[0] != hash[0] || entry->hash[1] != hash[1] ||
        entry->number < first || entry->number > last) {
      continue;
    }
    bytes += entry->chunk.bytes;
    drop(table, slot);
  }
  unlock(table);
  return bytes;
}

/* A slot that somebody else holds, and who. */
typedef struct held_slot {
  uint32_t slot;
  int32_t pid;
  uint64_t start, version;
} held_slot;

static bool find_held(const dl_table *table, uint32_t slot, held_slot *held) {
  const dl_entry *entry = &table->entries[slot];
  if (!is_held(entry) || is_mine(table, entry)) return false;
  *held = (held_slot){.slot = slot,
                      .pid = entry->owner_pid,
                      .start = entry->owner_start,
                      .version = atomic_load_explicit(&entry->version, memory_order_relaxed)};
  return true;
}

static void reap(dl_table *table, const held_slot *held) {
  if (dl_process_alive(held->pid, held->start)) return;
  lock(table);
  dl_entry *entry = &table->entries[held->slot];
  if (dl_table_unchanged(table, held->slot, held->version)) {
    if (state_of(entry) == DL_ENTRY_CLAIMED || entry->gone) make_free(table, held->slot);
    entry->unwritten = false;
  }
  unlock(table);
  dl_table_wake(table);
}

bool dl_table_is_foreign(dl_table *table, uint32_t slot, uint64_t version) {
  held_slot held;
  lock(table);
  const bool foreign = find_held(table, slot, &held) && held.version == version;
  unlock(table);
  return foreign;
}

void dl_table_reap(dl_table *table, uint32_t slot, uint64_t version) {
  held_slot held;
  lock(table);
  const bool found = find_held(table, slot, &held);
  unlock(table);
  if (found && held.version == version) reap(table, &held);
}

void dl_table_sweep(dl_table *table) {
  enum { AT_ONCE = 64, LOOKED_AT_ONCE = 4096 };
  held_slot held[AT_ONCE];
  for (uint32_t slot = 0; slot < table->slot_count;) {
    size_t count = 0;
    lock(table);
    for (uint32_t i = 0; i < LOOKED_AT_ONCE && slot < table->slot_count && count < AT_ONCE; i++, slot++) {
      if (find_held(table, slot, &held[count])) count++;
    }
    unlock(table);
    for (size_t i = 0; i < count; i++) reap(table, &held[i]);
  }
}

/* ---- Waiting ----------------------------------------------------------------------------------------------------- */

uint32_t dl_table_events(const dl_table *table) { return atomic_load(&table->head->events); }

void dl_table_sleep(dl_table *table, uint32_t seen, uint32_t timeout_ms) {
  const struct timespec timeout = {.tv_sec = timeout_ms / 1000, .tv_nsec = (long)(timeout_ms % 1000) * 1000000};
  atomic_fetch_add(&table->head->sleepers, 1);
  syscall(SYS_futex, &table->head->events, FUTEX_WAIT, seen, &timeout, NULL, 0);
  atomic_fetch_sub(&table->head->sleepers, 1);
}

void dl_table_wake(dl_table *table) {
  atomic_fetch_add(&table->head->events, 1);
  /* A sleeper that was killed is counted for ever: then this wakes nobody, and costs a system call. */
  if (atomic_load(&table->head->sleepers) > 0)
    syscall(SYS_futex, &table->head->events, FUTEX_WAKE, INT_MAX, NULL, NULL, 0);
}
