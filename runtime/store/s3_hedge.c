/* Second requests for reads that wait much longer for their first byte than others do: the tail of a store's latencies is
 * a slow disk or node that another request may miss. At most one in twenty reads gets one. */
#include <stdlib.h>
#include <string.h>

#include "s3_private.h"

enum { LATENCIES_LEAST = 32, BUDGET_MOST = 8, TIMES_SLOWER = 3 };

static const double budget_per_read = 0.05;
static const uint64_t least_wait_ns = 30000000;

static int by_size(const void *a, const void *b) {
  const uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
  return x < y ? -1 : x > y;
}

void s3_hedge_note(s3_store *store, uint64_t latency_ns) {
  store->latencies[store->latency_count++ % S3_LATENCIES] = latency_ns;
  if (store->latency_count < LATENCIES_LEAST || store->latency_count % (LATENCIES_LEAST / 2) != 0) return;
  uint64_t sorted[S3_LATENCIES];
  const size_t count = store->latency_count < S3_LATENCIES ? store->latency_count : S3_LATENCIES;
  memcpy(sorted, store->latencies, sizeof sorted);
  qsort(sorted, count, sizeof *sorted, by_size);
  const uint64_t slow = sorted[count * 95 / 100] * TIMES_SLOWER;
  store->hedge_after_ns = slow > least_wait_ns ? slow : least_wait_ns;
}

void s3_hedge_count(s3_store *store) {
  store->hedge_budget += budget_per_read;
  if (store->hedge_budget > BUDGET_MOST) store->hedge_budget = BUDGET_MOST;
}

/* Only for what a training step may wait for. */
static bool may_hedge(const s3_slot *slot) {
  return slot->state == S3_SLOT_SENT && slot->phase == S3_PHASE_MAIN && slot->call.ranged && slot->twin == NULL &&
         slot->first_byte_ns == 0 && slot->refusal == S3_REFUSAL_NONE &&
         slot->job->request->priority == TR_STORE_TRAINING;
}

static void hedge(s3_store *store, s3_slot *slot, s3_slot *twin) {
  twin->job = slot->job;
  twin->phase = S3_PHASE_MAIN;
  twin->state = S3_SLOT_WAITING;
  twin->call = slot->call;
  twin->into = slot->into;
  twin->part_index = slot->part_index;
  twin->done_bytes = slot->done_bytes;
  twin->expected_bytes = slot->expected_bytes;
  twin->crc = slot->crc;
  twin->retry = slot->retry;
  twin->repeated = twin->renewed = twin->skewed = twin->unreachable = false;
  twin->failed_ns = twin->waits_since_ns = 0;
  twin->throttled_ns = slot->throttled_ns;
  twin->retry_ns = slot->retry_ns;
  slot->job->slots++;
  store->slots_of[TR_STORE_TRAINING]++;
  store->hedge_budget -= 1;
  store->hedged++;
  twin->twin = NULL;
  slot->twin = twin;
  twin->twin = slot;
  s3_slot_send(twin);
}

uint64_t s3_hedge_run(s3_store *store, uint64_t now_ns) {
  uint64_t next = UINT64_MAX;
  if (store->hedge_after_ns == 0 || store->ending) return next;
  for (uint32_t i = 0; i < store->slot_count; i++) {
    s3_slot *slot = &store->slots[i];
    if (!may_hedge(slot)) continue;
    const uint64_t then = slot->sent_ns + store->hedge_after_ns;
    if (then > now_ns) {
      if (then < next) next = then;
      continue;
    }
    s3_slot *twin = store->hedge_budget >= 1 ? s3_slot_free(store) : NULL;
    if (twin == NULL) return next;
    hedge(store, slot, twin);
  }
  return next;
}
