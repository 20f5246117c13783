/* Epochs into batches, batches into micro-batches, micro-batches over ranks: see plan.h. */
#include "plan.h"

static uint64_t divide_up(uint64_t n, uint64_t by) { return n / by + (n % by != 0); }

tr_batch_info dl_plan_batch(const dl_plan *plan, tr_cursor at) {
  const uint64_t begin = at.batch * plan->batch_size;
  const uint64_t left = plan->samples - begin;
  tr_batch_info info = {.epoch = at.epoch, .batch = at.batch};
  info.rows = left < plan->batch_size ? left : plan->batch_size;
  info.leaf_count = divide_up(info.rows, plan->micro_batch);
  info.leaf_begin = tr_split_begin(info.leaf_count, (uint64_t)plan->size, (uint64_t)plan->rank);
  info.leaf_end = tr_split_end(info.leaf_count, (uint64_t)plan->size, (uint64_t)plan->rank);
  info.last_of_epoch = at.batch + 1 == plan->batches;
  return info;
}

bool dl_plan_ended(const dl_plan *plan, tr_cursor at) { return plan->epochs > 0 && at.epoch >= plan->epochs; }

tr_cursor dl_plan_next(const dl_plan *plan, tr_cursor at) {
  if (at.batch + 1 < plan->batches) return (tr_cursor){.epoch = at.epoch, .batch = at.batch + 1};
  return (tr_cursor){.epoch = at.epoch + 1};
}

uint64_t dl_plan_run_max(const dl_plan *plan) {
  /* All batches but the last are alike, and a short one can be cut so that another rank gets its micro-batch. */
  const tr_batch_info first = dl_plan_batch(plan, (tr_cursor){0});
  const tr_batch_info last = dl_plan_batch(plan, (tr_cursor){.batch = plan->batches - 1});
  const uint64_t a = first.leaf_end - first.leaf_begin, b = last.leaf_end - last.leaf_begin;
  return a > b ? a : b;
}

bool dl_plan_ticket(const dl_plan *plan, tr_cursor *at, uint64_t *leaf, dl_ticket *ticket) {
  if (dl_plan_ended(plan, *at)) return false;
  tr_batch_info info = dl_plan_batch(plan, *at);
  while (info.leaf_begin + *leaf >= info.leaf_end) {
    *at = dl_plan_next(plan, *at);
    *leaf = 0;
    if (dl_plan_ended(plan, *at)) return false;
    info = dl_plan_batch(plan, *at);
  }
  *ticket = (dl_ticket){.epoch = info.epoch, .leaf = info.leaf_begin + *leaf};
  ++*leaf;
  ticket->row_offset = ticket->leaf * plan->micro_batch;
  const uint64_t left = info.rows - ticket->row_offset;
  ticket->row_count = (uint32_t)(left < plan->micro_batch ? left : plan->micro_batch);
  ticket->position = info.batch * plan->batch_size + ticket->row_offset;
  ticket->last = info.leaf_begin + *leaf == info.leaf_end;
  return true;
}
