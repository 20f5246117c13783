/* The set of wanted versions: see cache_wanted.h. */
#include "cache_wanted.h"

#include <string.h>

enum { CAPACITY_LEAST = 64 };

void dl_wanted_fini(dl_wanted *wanted) {
  tr_free(wanted->allocator, wanted->by_name);
  tr_free(wanted->allocator, wanted->by_hash);
  *wanted = (dl_wanted){0};
}

/* Where an entry of the name is, or would be. */
static dl_wanted_entry *name_at(dl_wanted_entry *table, size_t capacity, uint64_t name) {
  size_t at = (size_t)name & (capacity - 1);
  while (table[at].used && table[at].name != name) at = (at + 1) & (capacity - 1);
  return &table[at];
}

static dl_wanted_entry *hash_at(dl_wanted_entry *table, size_t capacity, const uint64_t hash[2]) {
  size_t at = (size_t)hash[0] & (capacity - 1);
  while (table[at].used && (table[at].hash[0] != hash[0] || table[at].hash[1] != hash[1])) {
    at = (at + 1) & (capacity - 1);
  }
  return &table[at];
}

static void index_hashes(dl_wanted *wanted) {
  memset(wanted->by_hash, 0, wanted->capacity * sizeof *wanted->by_hash);
  for (size_t i = 0; i < wanted->capacity; i++) {
    const dl_wanted_entry *entry = &wanted->by_name[i];
    if (entry->used) *hash_at(wanted->by_hash, wanted->capacity, entry->hash) = *entry;
  }
}

static bool grow(dl_wanted *wanted) {
  if ((wanted->count + 1) * 2 <= wanted->capacity) return true;
  const size_t capacity = wanted->capacity > 0 ? wanted->capacity * 2 : CAPACITY_LEAST;
  dl_wanted_entry *by_name = tr_calloc(wanted->allocator, capacity, sizeof *by_name);
  dl_wanted_entry *by_hash = tr_calloc(wanted->allocator, capacity, sizeof *by_hash);
  if (by_name == NULL || by_hash == NULL) {
    tr_free(wanted->allocator, by_name);
    tr_free(wanted->allocator, by_hash);
    return false;
  }
  for (size_t i = 0; i < wanted->capacity; i++) {
    if (wanted->by_name[i].used) *name_at(by_name, capacity, wanted->by_name[i].name) = wanted->by_name[i];
  }
  tr_free(wanted->allocator, wanted->by_name);
  tr_free(wanted->allocator, wanted->by_hash);
  wanted->by_name = by_name;
  wanted->by_hash = by_hash;
  wanted->capacity = capacity;
  index_hashes(wanted);
  return true;
}

dl_wanted_result dl_wanted_add(dl_wanted *wanted, const dl_cache_object *object, uint64_t old[2]) {
  if (dl_wanted_has(wanted, object->hash)) return DL_WANTED_KNOWN;
  if (!grow(wanted)) return DL_WANTED_NEW;
  dl_wanted_entry *entry = name_at(wanted->by_name, wanted->capacity, object->name);
  const bool replaced = entry->used;
  if (replaced) memcpy(old, entry->hash, sizeof entry->hash);
  *entry = (dl_wanted_entry){.name = object->name, .hash = {object->hash[0], object->hash[1]}, .used = true};
  if (replaced) {
    index_hashes(wanted);
    return DL_WANTED_REPLACED;
  }
  wanted->count++;
  *hash_at(wanted->by_hash, wanted->capacity, object->hash) = *entry;
  return DL_WANTED_NEW;
}

bool dl_wanted_has(const dl_wanted *wanted, const uint64_t hash[2]) {
  return wanted->capacity > 0 && hash_at(wanted->by_hash, wanted->capacity, hash)->used;
}
