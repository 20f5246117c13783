/* Prefetch threads over a ring of slots: see ring.h. */
#include "ring.h"

#include <signal.h>
#include <string.h>

enum { ALIGN = 64, SKIPS_LOGGED_MAX = 20 };

static uint64_t rounded(uint64_t bytes) { return (bytes + ALIGN - 1) / ALIGN * ALIGN; }

uint64_t dl_ring_slot_bytes(const tr_field *fields, size_t field_count, uint64_t micro_batch) {
  uint64_t total = 0;
  for (size_t i = 0; i < field_count; i++) total += rounded(fields[i].bytes * micro_batch);
  return total;
}

/* ---- Filling a slot (a prefetch thread, without the lock) -------------------------------------------------------- */

static tr_status read_row(dl_ring *ring, const dl_slot *slot, uint32_t row, dl_scratch *scratch, bool *of_sample,
                          tr_error *error) {
  const tr_dataset *dataset = ring->dataset;
  void *to[TR_FIELDS_MAX];
  for (size_t i = 0; i < dataset->field_count; i++) {
    to[i] = (uint8_t *)slot->fields[i] + row * ring->fields[i].bytes;
  }
  const dl_sample sample = dl_dataset_sample(dataset, slot->epoch, slot->ids[row], ring->transforms);
  tr_status status = dl_dataset_read(dataset, &sample, false, to, scratch, error);
  *of_sample = status == TR_ERR_CORRUPT;
  if (status == TR_OK && ring->map != NULL) {
    status = ring->map(ring->map_self, slot->epoch, slot->ids[row], to, error);
    *of_sample = status != TR_OK;
    if (status != TR_OK) {
      char name[256];
      tr_dataset_sample_name(dataset, slot->ids[row], name, sizeof name);
      status = tr_error_context(error, status, "sample %s: its transform", name);
    }
  }
  return status;
}

static void clear_rows(const dl_ring *ring, const dl_slot *slot, uint64_t begin, uint64_t end) {
  if (begin == end) return;
  for (size_t i = 0; i < ring->dataset->field_count; i++) {
    const size_t bytes = ring->fields[i].bytes;
    memset((uint8_t *)slot->fields[i] + begin * bytes, 0, (end - begin) * bytes);
  }
  for (uint64_t row = begin; row < end; row++) slot->row_weight[row] = 0;
}

static void note_skip(dl_ring *ring, const tr_error *error) {
  pthread_mutex_lock(&ring->lock);
  const uint64_t number = ++ring->skips_logged;
  pthread_mutex_unlock(&ring->lock);
  if (number < SKIPS_LOGGED_MAX) tr_logf(ring->log, TR_LOG_WARNING, "skipped: %s", error->message);
  if (number == SKIPS_LOGGED_MAX) {
    tr_logf(ring->log, TR_LOG_WARNING, "skipped: %s; further ones are not logged, only recorded", error->message);
  }
}

static void fill(dl_ring *ring, dl_slot *slot, dl_scratch *scratch) {
  const uint64_t begin_ns = tr_clock_now_ns(ring->clock);
  scratch->account = (tr_wait_account){0};
  slot->status = TR_OK;
  slot->skipped = 0;
  for (uint32_t row = 0; row < slot->row_count && slot->status == TR_OK; row++) {
    bool of_sample = false;
    slot->row_weight[row] = 1;
    const tr_status status = read_row(ring, slot, row, scratch, &of_sample, &slot->error);
    if (status == TR_OK) continue;
    if (of_sample && ring->skip_corrupt) {
      clear_rows(ring, slot, row, row + 1);
      slot->skipped++;
      note_skip(ring, &slot->error);
    } else {
      slot->status = status;
    }
  }
  clear_rows(ring, slot, slot->row_count, ring->plan.micro_batch);
  const uint64_t end_ns = tr_clock_now_ns(ring->clock);
  slot->spent = scratch->account;
  const tr_wait_account *spent = &slot->spent;
  const uint64_t reading = spent->first_byte_ns + spent->bandwidth_ns + spent->throttled_ns + spent->retry_ns;
  slot->spent.decode_ns = end_ns - begin_ns > reading ? end_ns - begin_ns - reading : 0;
  tr_trace_span(ring->trace, TR_LANE_DATA, "micro-batch", begin_ns, end_ns);
}

/* ---- Claiming (with the lock) ------------------------------------------------------------------------------------ */

static bool can_claim(const dl_ring *ring) {
  if (dl_plan_ended(&ring->plan, ring->claim_at)) return false;
  if (ring->next_ticket >= ring->given_back + ring->slot_count) return false;
  return ring->slots[ring->next_ticket % ring->slot_count].state != DL_SLOT_FILLING;
}

/* Moves to a batch in which this rank has a micro-batch left. There is one sooner or later, or no thread runs. */
static tr_batch_info find_batch(dl_ring *ring) {
  tr_batch_info info = dl_plan_batch(&ring->plan, ring->claim_at);
  while (info.leaf_begin + ring->claim_leaf >= info.leaf_end) {
    ring->claim_at = dl_plan_next(&ring->plan, ring->claim_at);
    ring->claim_leaf = 0;
    if (dl_plan_ended(&ring->plan, ring->claim_at)) break;
    info = dl_plan_batch(&ring->plan, ring->claim_at);
  }
  return info;
}

static dl_slot *claim(dl_ring *ring) {
  if (!can_claim(ring)) return NULL;
  const tr_batch_info info = find_batch(ring);
  if (dl_plan_ended(&ring->plan, ring->claim_at)) return NULL;
  dl_slot *slot = &ring->slots[ring->next_ticket % ring->slot_count];
  const uint64_t micro_batch = ring->plan.micro_batch;
  slot->state = DL_SLOT_FILLING;
  slot->ticket = ring->next_ticket++;
  slot->epoch = info.epoch;
  slot->leaf = info.leaf_begin + ring->claim_leaf++;
  slot->row_offset = slot->leaf * micro_batch;
  const uint64_t left = info.rows - slot->row_offset;
  slot->row_count = (uint32_t)(left < micro_batch ? left : micro_batch);
  const uint64_t position = info.batch * ring->plan.batch_size + slot->row_offset;
  for (uint32_t row = 0; row < slot->row_count; row++) {
    slot->ids[row] = tr_sampler_at(ring->sampler, info.epoch, position + row);
  }
  return slot;
}

static void *prefetch(void *self) {
  dl_ring *ring = self;
  dl_scratch scratch;
  dl_scratch_init(&scratch, ring->allocator, ring->clock);
  pthread_mutex_lock(&ring->lock);
  while (!ring->stop) {
    dl_slot *slot = claim(ring);
    if (slot == NULL) {
      ring->sleeping++;
      pthread_cond_wait(&ring->work, &ring->lock);
      ring->sleeping--;
      continue;
    }
    pthread_mutex_unlock(&ring->lock);
    fill(ring, slot, &scratch);
    pthread_mutex_lock(&ring->lock);
    slot->state = DL_SLOT_READY;
    if (ring->taker_waits) pthread_cond_signal(&ring->ready);
  }
  pthread_mutex_unlock(&ring->lock);
  dl_scratch_fini(&scratch);
  return NULL;
}

/* ---- The taker --------------------------------------------------------------------------------------------------- */

dl_slot *dl_ring_slot(dl_ring *ring, uint64_t ticket) { return &ring->slots[ticket % ring->slot_count]; }

dl_slot *dl_ring_take(dl_ring *ring, uint64_t ticket, uint64_t *waited_ns) {
  dl_slot *slot = dl_ring_slot(ring, ticket);
  *waited_ns = 0;
  pthread_mutex_lock(&ring->lock);
  if (slot->state != DL_SLOT_READY || slot->ticket != ticket) {
    const uint64_t begin_ns = tr_clock_now_ns(ring->clock);
    if (ring->sleeping > 0) pthread_cond_broadcast(&ring->work);
    ring->taker_waits = true;
    while (slot->state != DL_SLOT_READY || slot->ticket != ticket) pthread_cond_wait(&ring->ready, &ring->lock);
    ring->taker_waits = false;
    *waited_ns = tr_clock_now_ns(ring->clock) - begin_ns;
  }
  pthread_mutex_unlock(&ring->lock);
  return slot;
}

void dl_ring_give_back(dl_ring *ring, uint64_t ticket) {
  pthread_mutex_lock(&ring->lock);
  ring->given_back = ticket;
  /* Waking costs the step a system call and a context switch, so it is done when half the ring is free, not for each
   * slot; who waits for a slot wakes them too. */
  const uint64_t ahead = ring->next_ticket > ticket ? ring->next_ticket - ticket : 0;
  if (ring->sleeping > 0 && ahead <= ring->slot_count / 2) pthread_cond_broadcast(&ring->work);
  pthread_mutex_unlock(&ring->lock);
}

/* ---- Making and unmaking ----------------------------------------------------------------------------------------- */

static tr_status make_slots(dl_ring *ring, uint64_t slot_count, tr_error *error) {
  const tr_dataset *dataset = ring->dataset;
  const uint64_t micro_batch = ring->plan.micro_batch;
  const uint64_t slot_bytes = dl_ring_slot_bytes(ring->fields, dataset->field_count, micro_batch);
  const size_t fields_bytes = rounded(dataset->field_count * sizeof(void *));
  const size_t ids_bytes = rounded(micro_batch * sizeof(uint64_t)), weight_bytes = rounded(micro_batch * sizeof(float));
  const size_t meta_bytes = fields_bytes + ids_bytes + weight_bytes;
  uint64_t pinned_bytes, all_meta;
  if (__builtin_mul_overflow(slot_bytes, slot_count, &pinned_bytes) ||
      __builtin_mul_overflow(meta_bytes, slot_count, &all_meta)) {
    return tr_fail_memory(error, "the ring of batches", SIZE_MAX);
  }
  ring->slots = tr_calloc(ring->allocator, slot_count, sizeof *ring->slots);
  ring->meta = tr_calloc(ring->allocator, 1, all_meta);
  if (ring->slots == NULL || ring->meta == NULL) return tr_fail_memory(error, "the ring of batches", all_meta);
  ring->pinned = tr_device_alloc(ring->device, TR_SPACE_PINNED, pinned_bytes);
  if (ring->pinned == NULL) return tr_fail_memory(error, "the ring of batches (data.prefetch)", pinned_bytes);
  ring->pinned_bytes = pinned_bytes;
  ring->slot_count = slot_count;
  uint8_t *meta = ring->meta, *pinned = ring->pinned;
  for (size_t i = 0; i < slot_count; i++) {
    dl_slot *slot = &ring->slots[i];
    slot->fields = (void **)meta;
    slot->ids = (uint64_t *)(meta + fields_bytes);
    slot->row_weight = (float *)(meta + fields_bytes + ids_bytes);
    meta += meta_bytes;
    for (size_t f = 0; f < dataset->field_count; f++) {
      slot->fields[f] = pinned;
      pinned += rounded(ring->fields[f].bytes * micro_batch);
    }
  }
  return TR_OK;
}

/* The threads take no signals: those are the program's. */
static tr_status start_threads(dl_ring *ring, uint32_t threads, tr_error *error) {
  ring->threads = tr_calloc(ring->allocator, threads, sizeof *ring->threads);
  if (ring->threads == NULL) return tr_fail_memory(error, "prefetch threads", threads * sizeof *ring->threads);
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  int code = 0;
  while (ring->thread_count < threads && code == 0) {
    code = pthread_create(&ring->threads[ring->thread_count], NULL, prefetch, ring);
    if (code == 0) pthread_setname_np(ring->threads[ring->thread_count++], "tr-data");
  }
  pthread_sigmask(SIG_SETMASK, &before, NULL);
  return code == 0 ? TR_OK : tr_fail_errno(error, TR_ERR_IO, code, "cannot start a prefetch thread");
}

tr_status dl_ring_start(dl_ring *ring, uint64_t slot_count, uint32_t threads, tr_error *error) {
  pthread_mutex_init(&ring->lock, NULL);
  pthread_cond_init(&ring->work, NULL);
  pthread_cond_init(&ring->ready, NULL);
  if (slot_count == 0) return TR_OK; /* a rank without micro-batches */
  TR_TRY(make_slots(ring, slot_count, error));
  return start_threads(ring, threads, error);
}

void dl_ring_stop(dl_ring *ring) {
  if (ring->thread_count > 0) {
    pthread_mutex_lock(&ring->lock);
    ring->stop = true;
    pthread_cond_broadcast(&ring->work);
    pthread_mutex_unlock(&ring->lock);
    for (uint32_t i = 0; i < ring->thread_count; i++) pthread_join(ring->threads[i], NULL);
  }
  pthread_cond_destroy(&ring->ready);
  pthread_cond_destroy(&ring->work);
  pthread_mutex_destroy(&ring->lock);
  if (ring->pinned != NULL) tr_device_free(ring->device, TR_SPACE_PINNED, ring->pinned, ring->pinned_bytes);
  tr_free(ring->allocator, ring->threads);
  tr_free(ring->allocator, ring->meta);
  tr_free(ring->allocator, ring->slots);
}
