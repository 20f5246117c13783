/* Batches for a rank: the taker's side of the ring, and the cursor that moves when a batch is committed. */
#include <trainrun/dataloader.h>

#include <string.h>

#include "ring.h"
#include "transform.h"

enum {
  /* Steps that the ring holds at most: data that needs no I/O is copied just in time, storage may stall for a while. */
  STEPS_IN_MEMORY = 4,
  STEPS_STORED = 64,
  STEPS_LEAST = 2,
  /* Batches get this part of the budget, what is read ahead the rest, and half of it at least. */
  RING_PART = 4,
  ARENA_LEAST = 64 << 10,
  ROWS_AHEAD_LEAST = 1024,
  ROWS_AHEAD_MOST = 65536,
  SKIPPED_MAX = 4096,
  MICRO_BATCH_MAX = 1 << 24
};

struct tr_loader {
  const tr_allocator *allocator;
  tr_dataset *dataset;
  dl_transforms *transforms; /* NULL: none */
  dl_ring ring;

  /* The batch that is being delivered. */
  tr_cursor cursor;
  bool begun;
  tr_batch_info info;
  uint64_t next_leaf;
  uint64_t first_ticket; /* of this batch */

  uint64_t *skipped; /* ids not yet asked for, at most SKIPPED_MAX: the oldest stay */
  size_t skipped_count;
};

static tr_status check_options(const tr_loader_options *options, tr_error *error) {
  if (options->struct_bytes != sizeof *options || options->dataset == NULL || options->device == NULL) {
    return tr_fail(error, TR_ERR_INVALID, "loader: the options are of another version of trainrun or incomplete");
  }
  if (options->batch_size == 0 || options->micro_batch == 0 || options->micro_batch > MICRO_BATCH_MAX) {
    return tr_fail(error, TR_ERR_INVALID,
                   "loader: batch size %llu, micro-batch %llu: both are at least 1, the latter at "
                   "most %d",
                   (unsigned long long)options->batch_size, (unsigned long long)options->micro_batch, MICRO_BATCH_MAX);
  }
  if (options->size < 1 || options->rank < 0 || options->rank >= options->size) {
    return tr_fail(error, TR_ERR_INVALID, "loader: rank %d of %d", (int)options->rank, (int)options->size);
  }
  return TR_OK;
}

/* How many slots: what their part of the budget holds, but two steps at least, and not more than there is use for. */
static uint64_t slots_of(const dl_ring *ring, uint64_t bytes) {
  const uint64_t run = dl_plan_run_max(&ring->plan);
  const uint64_t steps_most = ring->dataset->in_memory ? STEPS_IN_MEMORY : STEPS_STORED;
  const uint64_t slot_bytes = dl_ring_slot_bytes(ring->fields, ring->dataset->field_count, ring->plan.micro_batch);
  uint64_t slots = bytes / (slot_bytes > 0 ? slot_bytes : 1);
  if (slots > run * steps_most) slots = run * steps_most;
  if (slots < run * STEPS_LEAST) slots = run * STEPS_LEAST;
  return slots;
}

static uint64_t clamp(uint64_t value, uint64_t least, uint64_t most) {
  return value < least ? least : value > most ? most : value;
}

/* What is read ahead: the rest of the budget, but no more than twice the data set. */
static dl_ring_size size_of(const dl_ring *ring, const tr_loader_options *options) {
  const tr_dataset *dataset = ring->dataset;
  dl_ring_size size = {.threads = options->threads > 0 ? options->threads : 1};
  const uint64_t budget = options->prefetch_bytes;
  size.slot_count = slots_of(ring, dataset->in_memory ? budget : budget / RING_PART);
  if (dataset->in_memory) return size;
  const uint64_t slot_bytes = dl_ring_slot_bytes(ring->fields, dataset->field_count, ring->plan.micro_batch);
  const uint64_t slots_bytes = size.slot_count * slot_bytes;
  size.arena_bytes = slots_bytes < budget / 2 ? budget - slots_bytes : budget / 2;
  uint64_t stored_bytes = 0;
  for (size_t i = 0; i < dataset->file_count; i++) stored_bytes += dataset->files[i].bytes;
  if (size.arena_bytes > 2 * stored_bytes) size.arena_bytes = 2 * stored_bytes;
  if (dataset->unpacked_bytes_max > 0) {
    size.packed_bytes = size.arena_bytes / 4 * 3;
    size.arena_bytes /= 4;
  }
  if (size.arena_bytes < ARENA_LEAST) size.arena_bytes = ARENA_LEAST;
  const uint64_t mean = stored_bytes / tr_dataset_size(dataset) + 1;
  size.row_capacity = (uint32_t)clamp(size.arena_bytes / mean * 3 / 2, ROWS_AHEAD_LEAST, ROWS_AHEAD_MOST);
  return size;
}

static tr_status open_sampler(const tr_loader_options *options, tr_sampler **out, tr_error *error) {
  tr_sampler_options sampler = {.struct_bytes = sizeof sampler,
                                .allocator = options->allocator,
                                .seed = options->seed,
                                .shuffle = options->shuffle,
                                .streams = options->streams,
                                .batch_size = options->batch_size};
  tr_dataset_order(options->dataset, &sampler);
  return tr_sampler_create(&sampler, out, error);
}

static tr_status make_transforms(tr_loader *loader, const tr_loader_options *options, tr_error *error) {
  const tr_dataset *dataset = options->dataset;
  loader->ring.fields = dataset->fields;
  if (options->transform_count == 0) return TR_OK;
  TR_TRY(dl_transforms_create(options->allocator, options->seed, options->transforms, options->transform_count,
                              dataset->fields, dataset->field_count, &loader->transforms, error));
  loader->ring.transforms = loader->transforms;
  loader->ring.fields = dl_transforms_fields(loader->transforms);
  return TR_OK;
}

static tr_status start(tr_loader *loader, const tr_loader_options *options, tr_error *error) {
  dl_ring *ring = &loader->ring;
  TR_TRY(make_transforms(loader, options, error));
  TR_TRY(open_sampler(options, &ring->sampler, error));
  ring->plan = (dl_plan){.samples = tr_sampler_size(ring->sampler),
                         .batch_size = options->batch_size,
                         .micro_batch = options->micro_batch,
                         .batches = tr_sampler_batches(ring->sampler),
                         .epochs = options->epochs,
                         .rank = options->rank,
                         .size = options->size};
  loader->cursor = options->cursor;
  if (loader->cursor.batch > ring->plan.batches) {
    return tr_fail(error, TR_ERR_INVALID, "loader: the cursor is at batch %llu of an epoch of %llu",
                   (unsigned long long)loader->cursor.batch, (unsigned long long)ring->plan.batches);
  }
  if (loader->cursor.batch == ring->plan.batches) loader->cursor = (tr_cursor){.epoch = loader->cursor.epoch + 1};
  loader->skipped = tr_calloc(options->allocator, SKIPPED_MAX, sizeof *loader->skipped);
  if (loader->skipped == NULL) return tr_fail_memory(error, "a loader", SKIPPED_MAX * sizeof *loader->skipped);
  ring->claim_at = loader->cursor;
  ring->allocator = options->allocator;
  ring->clock = options->clock;
  ring->log = options->log;
  ring->trace = options->trace;
  ring->device = options->device;
  ring->dataset = options->dataset;
  ring->map = options->map;
  ring->map_self = options->map_self;
  ring->skip_corrupt = options->skip_corrupt;
  const dl_ring_size size = size_of(ring, options);
  const tr_status status = dl_ring_start(ring, &size, error);
  if (status != TR_OK) dl_ring_stop(ring);
  return status;
}

static void release(tr_loader *loader) {
  tr_sampler_destroy(loader->ring.sampler);
  dl_transforms_destroy(loader->transforms);
  tr_free(loader->allocator, loader->skipped);
  tr_free(loader->allocator, loader);
}

tr_status tr_loader_open(const tr_loader_options *options, tr_loader **out, tr_error *error) {
  TR_TRY(check_options(options, error));
  tr_loader *loader = tr_calloc(options->allocator, 1, sizeof *loader);
  if (loader == NULL) return tr_fail_memory(error, "a loader", sizeof *loader);
  loader->allocator = options->allocator;
  loader->dataset = options->dataset;
  const tr_status status = start(loader, options, error);
  if (status != TR_OK) {
    release(loader);
    return status;
  }
  *out = loader;
  return TR_OK;
}

void tr_loader_close(tr_loader *loader) {
  if (loader == NULL) return;
  dl_ring_stop(&loader->ring);
  release(loader);
}

size_t tr_loader_fields(const tr_loader *loader, const tr_field **fields) {
  *fields = loader->ring.fields;
  return loader->dataset->field_count;
}

uint64_t tr_loader_batches(const tr_loader *loader) { return loader->ring.plan.batches; }

tr_cursor tr_loader_cursor(const tr_loader *loader) { return loader->cursor; }

tr_status tr_loader_begin(tr_loader *loader, tr_batch_info *info, bool *end, tr_error *error) {
  (void)error;
  *end = dl_plan_ended(&loader->ring.plan, loader->cursor);
  if (*end) return TR_OK;
  loader->info = dl_plan_batch(&loader->ring.plan, loader->cursor);
  loader->next_leaf = loader->info.leaf_begin;
  loader->begun = true;
  *info = loader->info;
  return TR_OK;
}

tr_status tr_loader_next(tr_loader *loader, tr_micro_batch *batch, tr_wait_account *account, tr_error *error) {
  if (!loader->begun || loader->next_leaf >= loader->info.leaf_end) {
    return tr_fail(error, TR_ERR_INVALID, "loader: this rank has no more micro-batches in this batch");
  }
  uint64_t begin_ns, end_ns;
  const uint64_t ticket = loader->first_ticket + (loader->next_leaf - loader->info.leaf_begin);
  const dl_slot *slot = dl_ring_take(&loader->ring, ticket, &begin_ns, &end_ns);
  if (account != NULL && end_ns > begin_ns) {
    dl_account_wait(account, &slot->arrival, &slot->spent, begin_ns, end_ns);
  }
  if (slot->status != TR_OK) {
    if (error != NULL) *error = slot->error;
    return slot->status;
  }
  loader->next_leaf++;
  *batch = (tr_micro_batch){.leaf = slot->leaf,
                            .row_offset = slot->row_offset,
                            .row_count = slot->row_count,
                            .ids = slot->ids,
                            .row_weight = slot->row_weight,
                            .fields = (const void *const *)slot->fields};
  return TR_OK;
}

static void collect_skipped(tr_loader *loader) {
  for (uint64_t leaf = loader->info.leaf_begin; leaf < loader->next_leaf; leaf++) {
    const dl_slot *slot = dl_ring_slot(&loader->ring, loader->first_ticket + (leaf - loader->info.leaf_begin));
    for (uint32_t row = 0; slot->skipped > 0 && row < slot->row_count; row++) {
      if (slot->row_weight[row] == 0 && loader->skipped_count < SKIPPED_MAX) {
        loader->skipped[loader->skipped_count++] = slot->ids[row];
      }
    }
  }
}

void tr_loader_commit(tr_loader *loader) {
  if (!loader->begun) return;
  collect_skipped(loader);
  loader->first_ticket += loader->info.leaf_end - loader->info.leaf_begin;
  dl_ring_give_back(&loader->ring, loader->first_ticket);
  loader->cursor = dl_plan_next(&loader->ring.plan, loader->cursor);
  loader->begun = false;
}

size_t tr_loader_skipped(tr_loader *loader, uint64_t *ids, size_t capacity) {
  const size_t count = loader->skipped_count < capacity ? loader->skipped_count : capacity;
  if (count == 0) return 0;
  memcpy(ids, loader->skipped, count * sizeof *ids);
  loader->skipped_count -= count;
  memmove(loader->skipped, loader->skipped + count, loader->skipped_count * sizeof *ids);
  return count;
}
