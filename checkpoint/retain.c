/* Many checkpoints below one prefix: listing, removing, keeping the right ones; and the claims of epochs beside them. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "checkpoint.h"

/* A step's folder, as a walk over the keys finds it. */
typedef struct found_step {
  uint64_t step;
  bool committed;
  int64_t modified_ns; /* of the manifest */
} found_step;

typedef struct step_list {
  const tr_allocator *allocator;
  size_t prefix_bytes; /* of the keys, with the slash */
  found_step *steps;
  size_t count, capacity;
} step_list;

static int by_step(const void *a, const void *b) {
  const uint64_t x = ((const found_step *)a)->step, y = ((const found_step *)b)->step;
  return x < y ? -1 : x > y;
}

/* The keys of one step follow each other, since the walk is sorted. */
static tr_status note_key(void *self, const tr_list_entry *entry, tr_error *error) {
  step_list *list = self;
  const char *name = entry->key + list->prefix_bytes;
  const char *slash = strchr(name, '/');
  uint64_t step = 0;
  if (slash == NULL || !ckpt_step_of(name, (size_t)(slash - name), &step)) return TR_OK;
  if (list->count == 0 || list->steps[list->count - 1].step != step) {
    TR_TRY(tr_reserve(list->allocator, (void **)&list->steps, &list->capacity, list->count + 1, sizeof *list->steps,
                      error));
    list->steps[list->count++] = (found_step){.step = step};
  }
  if (strcmp(slash + 1, MANIFEST_NAME) == 0) {
    list->steps[list->count - 1].committed = true;
    list->steps[list->count - 1].modified_ns = entry->info.modified_ns;
  }
  return TR_OK;
}

static tr_status find_steps(tr_store *store, const char *prefix, step_list *list, tr_error *error) {
  char below[TR_KEY_BYTES], narrowed[TR_KEY_BYTES];
  TR_TRY(ckpt_key(below, error, prefix, "%s", ""));
  TR_TRY(ckpt_key(narrowed, error, prefix, "step-"));
  list->prefix_bytes = strlen(below);
  TR_TRY(tr_store_walk(store, narrowed, note_key, list, error));
  if (list->count > 0) qsort(list->steps, list->count, sizeof *list->steps, by_step);
  return TR_OK;
}

/* What the manifest says of one step. A manifest that cannot be understood is still listed, with nothing known of it, so
 * that whoever wants this step hears what is wrong with it. */
static tr_status describe_step(const tr_allocator *allocator, tr_store *store, const char *prefix,
                               const found_step *found, tr_ckpt_entry *entry, tr_error *error) {
  *entry = (tr_ckpt_entry){.step = found->step, .metric = NAN, .modified_ns = found->modified_ns};
  char folder[TR_KEY_BYTES];
  tr_ckpt *ckpt = NULL;
  TR_TRY(ckpt_key(folder, error, prefix, "step-%llu", (unsigned long long)found->step));
  const tr_status status = tr_ckpt_open(allocator, store, folder, &ckpt, error);
  if (status == TR_ERR_CORRUPT || status == TR_ERR_UNSUPPORTED) return TR_OK;
  if (status != TR_OK) return status;
  entry->metric = tr_ckpt_describe(ckpt)->metric;
  entry->bytes = tr_ckpt_bytes(ckpt);
  tr_ckpt_close(ckpt);
  return TR_OK;
}

tr_status tr_ckpt_list(const tr_allocator *allocator, tr_store *store, const char *prefix, tr_ckpt_entry **entries,
                       size_t *count, tr_error *error) {
  step_list list = {.allocator = allocator};
  tr_ckpt_entry *made = NULL;
  size_t made_count = 0;
  tr_status status = find_steps(store, prefix, &list, error);
  if (status == TR_OK) {
    made = tr_alloc(allocator, (list.count + 1) * sizeof *made);
    if (made == NULL) status = tr_fail_memory(error, "a list of checkpoints", list.count * sizeof *made);
  }
  for (size_t i = 0; i < list.count && status == TR_OK; i++) {
    if (!list.steps[i].committed) continue;
    status = describe_step(allocator, store, prefix, &list.steps[i], &made[made_count], error);
    /* Removed since the walk saw it. */
    if (status == TR_ERR_NOT_FOUND) {
      status = TR_OK;
    } else {
      made_count++;
    }
  }
  tr_free(allocator, list.steps);
  if (status != TR_OK) {
    tr_free(allocator, made);
    return status;
  }
  *entries = made;
  *count = made_count;
  return TR_OK;
}

typedef struct key_list {
  tr_arena *arena;
  const tr_allocator *allocator;
  const char **keys;
  size_t count, capacity;
} key_list;

static tr_status keep_key(void *self, const tr_list_entry *entry, tr_error *error) {
  key_list *list = self;
  TR_TRY(
      tr_reserve(list->allocator, (void **)&list->keys, &list->capacity, list->count + 1, sizeof *list->keys, error));
  const char *copy = tr_arena_strdup(list->arena, entry->key);
  if (copy == NULL) return tr_fail_memory(error, "a list of keys", strlen(entry->key));
  list->keys[list->count++] = copy;
  return TR_OK;
}

tr_status tr_ckpt_remove(const tr_allocator *allocator, tr_store *store, const char *prefix, uint64_t step,
                         tr_error *error) {
  char manifest[TR_KEY_BYTES], below[TR_KEY_BYTES];
  TR_TRY(ckpt_key(manifest, error, prefix, "step-%llu/" MANIFEST_NAME, (unsigned long long)step));
  TR_TRY(ckpt_key(below, error, prefix, "step-%llu/", (unsigned long long)step));
  /* From here on it is no checkpoint any more, whatever happens to the rest. */
  TR_TRY(tr_store_delete(store, manifest, error));
  key_list list = {.allocator = allocator};
  TR_TRY(tr_arena_create(allocator, 16 << 10, &list.arena, error));
  tr_status status = tr_store_walk(store, below, keep_key, &list, error);
  for (size_t i = 0; i < list.count && status == TR_OK; i++) status = tr_store_delete(store, list.keys[i], error);
  tr_free(allocator, list.keys);
  tr_arena_destroy(list.arena);
  return status;
}

/* The best entry: the earliest of equal ones, since a later one is no better. `count` where none was evaluated. */
static size_t find_best(tr_keep_best best, const tr_ckpt_entry *entries, size_t count) {
  size_t found = count;
  for (size_t i = 0; i < count; i++) {
    if (isnan(entries[i].metric)) continue;
    if (found == count ||
        (best == TR_BEST_MIN ? entries[i].metric < entries[found].metric : entries[i].metric > entries[found].metric)) {
      found = i;
    }
  }
  return found;
}

void tr_retain_plan(const tr_retain_options *options, const tr_ckpt_entry *entries, size_t count, bool *remove) {
  const uint64_t last = options->last > 0 ? options->last : 1;
  const size_t best = options->best != TR_BEST_NONE ? find_best(options->best, entries, count) : count;
  for (size_t i = 0; i < count; i++) {
    const bool newest = count - i <= last;
    const bool multiple = options->every != 0 && entries[i].step % options->every == 0;
    remove[i] = !newest && !multiple && i != best;
  }
}

static bool belongs(const tr_ckpt *ckpt, const char *name) {
  if (strcmp(name, MANIFEST_NAME) == 0) return true;
  for (size_t i = 0; i < ckpt->manifest.shard_count; i++) {
    if (strcmp(ckpt->manifest.shards[i].name, name) == 0) return true;
  }
  return false;
}

/* What lies in the folder of a checkpoint and is not of it: shards that another number of ranks had begun to save. */
static tr_status clear_strays(const tr_allocator *allocator, tr_store *store, const char *prefix, uint64_t step,
                              tr_error *error) {
  char folder[TR_KEY_BYTES], below[TR_KEY_BYTES];
  TR_TRY(ckpt_key(folder, error, prefix, "step-%llu", (unsigned long long)step));
  TR_TRY(ckpt_key(below, error, folder, "%s", ""));
  tr_ckpt *ckpt = NULL;
  tr_status status = tr_ckpt_open(allocator, store, folder, &ckpt, error);
  /* Of a manifest that cannot be understood nothing follows. */
  if (status == TR_ERR_CORRUPT || status == TR_ERR_UNSUPPORTED || status == TR_ERR_NOT_FOUND) return TR_OK;
  if (status != TR_OK) return status;
  key_list list = {.allocator = allocator};
  status = tr_arena_create(allocator, 16 << 10, &list.arena, error);
  if (status == TR_OK) status = tr_store_walk(store, below, keep_key, &list, error);
  for (size_t i = 0; i < list.count && status == TR_OK; i++) {
    if (!belongs(ckpt, list.keys[i] + strlen(below))) status = tr_store_delete(store, list.keys[i], error);
  }
  tr_free(allocator, list.keys);
  tr_arena_destroy(list.arena);
  tr_ckpt_close(ckpt);
  return status;
}

static tr_status clear_debris(const tr_allocator *allocator, tr_store *store, const char *prefix, uint64_t in_progress,
                              tr_error *error) {
  step_list list = {.allocator = allocator};
  tr_status status = find_steps(store, prefix, &list, error);
  for (size_t i = 0; i < list.count && status == TR_OK; i++) {
    const uint64_t step = list.steps[i].step;
    if (step == in_progress) continue;
    status = list.steps[i].committed ? clear_strays(allocator, store, prefix, step, error)
                                     : tr_ckpt_remove(allocator, store, prefix, step, error);
  }
  tr_free(allocator, list.steps);
  return status;
}

tr_status tr_ckpt_retain(const tr_allocator *allocator, tr_store *store, const char *prefix,
                         const tr_retain_options *options, uint64_t in_progress, tr_error *error) {
  if (options == NULL || options->struct_bytes != sizeof *options) {
    return tr_fail(error, TR_ERR_INVALID, "checkpoint: options are of another version of trainrun");
  }
  tr_ckpt_entry *entries = NULL;
  size_t count = 0;
  TR_TRY(tr_ckpt_list(allocator, store, prefix, &entries, &count, error));
  bool *remove = tr_calloc(allocator, count + 1, sizeof *remove);
  tr_status status = remove != NULL ? TR_OK : tr_fail_memory(error, "a list of checkpoints", count);
  if (status == TR_OK) tr_retain_plan(options, entries, count, remove);
  for (size_t i = 0; i < count && status == TR_OK; i++) {
    if (remove[i]) status = tr_ckpt_remove(allocator, store, prefix, entries[i].step, error);
  }
  if (status == TR_OK) status = clear_debris(allocator, store, prefix, in_progress, error);
  tr_free(allocator, remove);
  tr_free(allocator, entries);
  return status;
}

/* ---- Epochs -------------------------------------------------------------------------------------------------------- */

tr_status tr_ckpt_claim_epoch(tr_store *store, const char *prefix, uint64_t epoch, const char *claim_json,
                              tr_error *error) {
  char key[TR_KEY_BYTES];
  TR_TRY(ckpt_key(key, error, prefix, "epochs/%llu", (unsigned long long)epoch));
  return tr_store_put(store, key, claim_json, strlen(claim_json), true, error);
}

typedef struct epoch_search {
  size_t prefix_bytes;
  uint64_t highest;
} epoch_search;

static tr_status note_epoch(void *self, const tr_list_entry *entry, tr_error *error) {
  (void)error;
  epoch_search *search = self;
  uint64_t epoch = 0;
  if (tr_parse_u64(entry->key + search->prefix_bytes, &epoch) && epoch > search->highest) search->highest = epoch;
  return TR_OK;
}

tr_status tr_ckpt_last_epoch(tr_store *store, const char *prefix, uint64_t *epoch, tr_error *error) {
  char below[TR_KEY_BYTES];
  TR_TRY(ckpt_key(below, error, prefix, "epochs/"));
  epoch_search search = {.prefix_bytes = strlen(below)};
  TR_TRY(tr_store_walk(store, below, note_epoch, &search, error));
  *epoch = search.highest;
  return TR_OK;
}
