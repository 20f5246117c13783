/* Threads that decode into a ring of slots: see ring.h. */
#include "ring.h"

#include <signal.h>
#include <string.h>

#include "sampler.h"

enum { ALIGN = 64, RUN_BYTES = 256 << 10, TICKETS_MOST = 16384 };

static uint64_t rounded(uint64_t bytes) { return (bytes + ALIGN - 1) / ALIGN * ALIGN; }

uint64_t dl_ring_slot_bytes(const tr_field *fields, size_t field_count, uint64_t micro_batch) {
  uint64_t total = 0;
  for (size_t i = 0; i < field_count; i++) total += rounded(fields[i].bytes * micro_batch);
  return total;
}

/* ---- Work (with the lock) ---------------------------------------------------------------------------------------- */

/* What a thread does next: rows of a slot, or a packed range. */
typedef struct job {
  dl_fill fill;
  dl_run run; /* in the engine; count 0: the data are in memory */
  bool unpacks;
  uint32_t packed;
} job;

static bool slot_is_free(const dl_ring *ring) {
  if (ring->next_ticket >= ring->given_back + ring->slot_count) return false;
  return ring->slots[ring->next_ticket % ring->slot_count].state != DL_SLOT_FILLING;
}

static dl_slot *open_slot(dl_ring *ring, const dl_ticket *ticket) {
  dl_slot *slot = &ring->slots[ring->next_ticket % ring->slot_count];
  slot->state = DL_SLOT_FILLING;
  slot->ticket = ring->next_ticket++;
  slot->epoch = ticket->epoch;
  slot->leaf = ticket->leaf;
  slot->row_offset = ticket->row_offset;
  slot->row_count = slot->rows_left = ticket->row_count;
  slot->begin_ns = 0;
  slot->arrival = (dl_arrival){0};
  slot->spent = (tr_wait_account){0};
  slot->status = TR_OK;
  slot->skipped = 0;
  return slot;
}

/* A whole slot of data that are in memory. */
static bool find_slot(dl_ring *ring, job *found) {
  dl_ticket ticket;
  if (!slot_is_free(ring) || !dl_plan_ticket(&ring->plan, &ring->claim_at, &ring->claim_leaf, &ticket)) return false;
  dl_slot *slot = open_slot(ring, &ticket);
  for (uint32_t row = 0; row < slot->row_count; row++) {
    slot->ids[row] = tr_sampler_at(ring->sampler, ticket.epoch, ticket.position + row);
  }
  *found = (job){.fill = {.slot = slot, .count = slot->row_count}};
  return true;
}

static bool find_rows(dl_ring *ring, job *found) {
  dl_fetch *fetch = &ring->fetch;
  while (ring->next_ticket < fetch->tickets_walked && slot_is_free(ring)) {
    open_slot(ring, &fetch->tickets[ring->next_ticket % fetch->ticket_capacity]);
    dl_fetch_forget(fetch, ring->next_ticket);
  }
  uint32_t packed;
  if (dl_fetch_take_packed(fetch, &packed)) {
    *found = (job){.unpacks = true, .packed = packed};
    return true;
  }
  dl_run run;
  if (!dl_fetch_take(fetch, ring->next_ticket, RUN_BYTES, &run)) return false;
  const dl_row *row = dl_fetch_row(fetch, run.first);
  *found = (job){.run = run,
                 .fill = {.slot = &ring->slots[row->ticket % ring->slot_count],
                          .begin = row->number,
                          .count = run.count,
                          .first = run.first}};
  return true;
}

static void note_spent(tr_wait_account *sum, const tr_wait_account *more) {
  sum->first_byte_ns += more->first_byte_ns;
  sum->bandwidth_ns += more->bandwidth_ns;
  sum->throttled_ns += more->throttled_ns;
  sum->retry_ns += more->retry_ns;
}

static void finish_slot(dl_ring *ring, dl_slot *slot) {
  pthread_mutex_unlock(&ring->lock);
  dl_ring_clear_rest(ring, slot);
  tr_trace_span(ring->trace, TR_LANE_DATA, "micro-batch", slot->begin_ns, tr_clock_now_ns(ring->clock));
  pthread_mutex_lock(&ring->lock);
  slot->state = DL_SLOT_READY;
  if (ring->taker_waits) pthread_cond_signal(&ring->ready);
}

/* Notes what came of rows; the last ones complete their slot. */
static void finish_rows(dl_ring *ring, const job *done, const tr_wait_account *spent, const tr_error *error) {
  const dl_fill *fill = &done->fill;
  dl_slot *slot = fill->slot;
  if (done->run.count > 0) dl_fetch_done(&ring->fetch, &done->run, &slot->arrival);
  note_spent(&slot->spent, spent);
  slot->skipped += fill->skipped;
  if (fill->status != TR_OK && (slot->status == TR_OK || fill->failed_row < slot->failed_row)) {
    slot->status = fill->status;
    slot->failed_row = fill->failed_row;
    slot->error = *error;
  }
  slot->rows_left -= fill->count;
  if (slot->rows_left == 0) finish_slot(ring, slot);
}

static void do_job(dl_ring *ring, job *todo, dl_scratch *scratch) {
  tr_error error;
  scratch->account = (tr_wait_account){0};
  if (!todo->unpacks && todo->fill.slot->begin_ns == 0) todo->fill.slot->begin_ns = tr_clock_now_ns(ring->clock);
  /* There may be more: who sleeps should see. */
  if (ring->fetches && ring->sleeping > 0) pthread_cond_signal(&ring->work);
  pthread_mutex_unlock(&ring->lock);
  if (todo->unpacks) {
    dl_fetch_unpack(&ring->fetch, todo->packed, scratch);
  } else {
    dl_ring_fill(ring, &todo->fill, scratch, &error);
  }
  pthread_mutex_lock(&ring->lock);
  if (todo->unpacks) {
    dl_fetch_packed_done(&ring->fetch, todo->packed);
  } else {
    finish_rows(ring, todo, &scratch->account, &error);
  }
}

static void *decode(void *self) {
  dl_ring *ring = self;
  dl_scratch scratch;
  dl_scratch_init(&scratch, ring->allocator, ring->clock);
  pthread_mutex_lock(&ring->lock);
  while (!ring->stop) {
    job found;
    if ((ring->fetches ? find_rows : find_slot)(ring, &found)) {
      do_job(ring, &found, &scratch);
      continue;
    }
    ring->sleeping++;
    pthread_cond_wait(&ring->work, &ring->lock);
    ring->sleeping--;
  }
  pthread_mutex_unlock(&ring->lock);
  dl_scratch_fini(&scratch);
  return NULL;
}

/* ---- The taker --------------------------------------------------------------------------------------------------- */

dl_slot *dl_ring_slot(dl_ring *ring, uint64_t ticket) { return &ring->slots[ticket % ring->slot_count]; }

dl_slot *dl_ring_take(dl_ring *ring, uint64_t ticket, uint64_t *begin_ns, uint64_t *end_ns) {
  dl_slot *slot = dl_ring_slot(ring, ticket);
  *begin_ns = *end_ns = 0;
  pthread_mutex_lock(&ring->lock);
  if (slot->state != DL_SLOT_READY || slot->ticket != ticket) {
    *begin_ns = tr_clock_now_ns(ring->clock);
    if (ring->sleeping > 0) pthread_cond_broadcast(&ring->work);
    ring->taker_waits = true;
    while (slot->state != DL_SLOT_READY || slot->ticket != ticket) pthread_cond_wait(&ring->ready, &ring->lock);
    ring->taker_waits = false;
    *end_ns = tr_clock_now_ns(ring->clock);
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
  const size_t field_count = ring->dataset->field_count;
  const uint64_t micro_batch = ring->plan.micro_batch;
  const uint64_t slot_bytes = dl_ring_slot_bytes(ring->fields, field_count, micro_batch);
  const size_t fields_bytes = rounded(field_count * sizeof(void *));
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
    for (size_t f = 0; f < field_count; f++) {
      slot->fields[f] = pinned;
      pinned += rounded(ring->fields[f].bytes * micro_batch);
    }
  }
  return TR_OK;
}

static tr_status start_fetch(dl_ring *ring, const dl_ring_size *size, tr_error *error) {
  const tr_dataset *dataset = ring->dataset;
  dl_fetch *fetch = &ring->fetch;
  uint64_t stored_bytes = 0;
  for (size_t i = 0; i < dataset->file_count; i++) stored_bytes += dataset->files[i].bytes;
  fetch->allocator = ring->allocator;
  fetch->clock = ring->clock;
  fetch->dataset = dataset;
  fetch->plan = ring->plan;
  fetch->sampler = ring->sampler;
  fetch->walk_at = ring->claim_at;
  fetch->arena_bytes = size->arena_bytes;
  fetch->packed_count = dl_fetch_packed_count(size->packed_bytes, dataset->unpacked_bytes_max);
  fetch->row_capacity = size->row_capacity;
  fetch->ticket_capacity = size->row_capacity < TICKETS_MOST ? size->row_capacity : TICKETS_MOST;
  fetch->mean_bytes = stored_bytes / tr_dataset_size(dataset);
  fetch->first_rows = dl_plan_run_max(&ring->plan) * ring->plan.micro_batch;
  fetch->round = dl_sampler_round(ring->sampler);
  fetch->lock = &ring->lock;
  fetch->work = &ring->work;
  ring->fetches = true;
  return dl_fetch_start(fetch, error);
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
    code = pthread_create(&ring->threads[ring->thread_count], NULL, decode, ring);
    if (code == 0) pthread_setname_np(ring->threads[ring->thread_count++], "tr-data");
  }
  pthread_sigmask(SIG_SETMASK, &before, NULL);
  return code == 0 ? TR_OK : tr_fail_errno(error, TR_ERR_IO, code, "cannot start a prefetch thread");
}

tr_status dl_ring_start(dl_ring *ring, const dl_ring_size *size, tr_error *error) {
  pthread_mutex_init(&ring->lock, NULL);
  pthread_cond_init(&ring->work, NULL);
  pthread_cond_init(&ring->ready, NULL);
  if (size->slot_count == 0) return TR_OK; /* a rank without micro-batches */
  TR_TRY(make_slots(ring, size->slot_count, error));
  if (size->arena_bytes > 0) TR_TRY(start_fetch(ring, size, error));
  return start_threads(ring, size->threads, error);
}

void dl_ring_stop(dl_ring *ring) {
  if (ring->thread_count > 0) {
    pthread_mutex_lock(&ring->lock);
    ring->stop = true;
    pthread_cond_broadcast(&ring->work);
    pthread_mutex_unlock(&ring->lock);
    for (uint32_t i = 0; i < ring->thread_count; i++) pthread_join(ring->threads[i], NULL);
  }
  if (ring->fetches) dl_fetch_stop(&ring->fetch);
  pthread_cond_destroy(&ring->ready);
  pthread_cond_destroy(&ring->work);
  pthread_mutex_destroy(&ring->lock);
  if (ring->pinned != NULL) tr_device_free(ring->device, TR_SPACE_PINNED, ring->pinned, ring->pinned_bytes);
  tr_free(ring->allocator, ring->threads);
  tr_free(ring->allocator, ring->meta);
  tr_free(ring->allocator, ring->slots);
}
