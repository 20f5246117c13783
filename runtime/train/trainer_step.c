/* One step's compute: micro-batches forward and backward, gradients summed along the tree, buckets handed over while the
 * last backward is still going on.
 *
 * The rank keeps a stack of gradient buffers. A micro-batch writes the buffer on top; then as many pairs are merged
 * (lower += upper) as the tree says, so that after the last one the stack holds this rank's parts. For the last
 * micro-batch the merges are done bucket by bucket as its gradient becomes final, and each bucket is handed to the
 * communicator at once. Progress is made between ops: there is no communication thread. */
#include "trainer.h"

#include <string.h>

static void note_comm(tr_trainer *trainer, tr_status status, const tr_error *error) {
  if (status == TR_OK || trainer->comm_status != TR_OK) return;
  trainer->comm_status = status;
  trainer->comm_error = *error;
}

static void note_failure(tr_trainer *trainer, tr_status status, const tr_error *error) {
  if (status == TR_OK || trainer->step_status != TR_OK) return;
  trainer->step_status = status;
  trainer->step_error = *error;
  trainer->step_error.rank = trainer->rank;
}

/* Merges the last micro-batch's gradient down the stack for elements [from, to) and hands over the buckets that are whole. */
static void hand_over(tr_trainer *trainer, uint64_t offset) {
  tr_error error = {.status = TR_OK};
  while (trainer->buckets_begun < trainer->bucket_count && trainer->comm_status == TR_OK) {
    const tr_bucket *bucket = &trainer->buckets[trainer->buckets_begun];
    if (bucket->offset < offset) return;
    uint32_t parts = trainer->depth;
    /* Adding up this rank's own micro-batches is no communication. */
    const tr_cause before = tr_ledger_enter(&trainer->session->ledger, TR_CAUSE_COMPUTE);
    for (uint32_t i = 0; i < trainer->last_merges; i++, parts--) {
      tr_flat_add(trainer->gradients[parts - 2] + bucket->offset, trainer->gradients[parts - 1] + bucket->offset,
                  bucket->count);
    }
    tr_ledger_enter(&trainer->session->ledger, before);
    void *pointers[TR_BUFFERS_MAX];
    for (uint32_t i = 0; i < parts; i++) pointers[i] = trainer->gradients[i] + bucket->offset;
    const tr_reduce_leaves_args args = {
        .struct_bytes = sizeof args,
        .leaf_count = trainer->batch.leaf_count,
        .parts = pointers,
        .part_count = parts,
        .result = trainer->gradients[0] + bucket->offset,
        .count = bucket->count,
        .dtype = TR_F32,
    };
    tr_comm_handle *handle = &trainer->handles[trainer->buckets_begun];
    note_comm(trainer, tr_comm_reduce_leaves_begin(trainer->comm, &args, handle, &error), &error);
    trainer->buckets_begun++;
  }
}

/* Called between ops of backward. */
static void ready(void *self, uint64_t offset) {
  tr_trainer *trainer = self;
  tr_error error = {.status = TR_OK};
  if (trainer->comm_status != TR_OK || trainer->size == 1) return;
  const tr_cause before = tr_ledger_enter(&trainer->session->ledger, TR_CAUSE_COLLECTIVE);
  if (trainer->last_leaf) hand_over(trainer, offset);
  if (trainer->buckets_begun > 0) note_comm(trainer, tr_comm_progress(trainer->comm, &error), &error);
  tr_ledger_enter(&trainer->session->ledger, before);
}

/* Charges the time that the loader blocked to its causes. */
static void charge_data(tr_trainer *trainer, const tr_wait_account *account) {
  tr_ledger *ledger = &trainer->session->ledger;
  tr_ledger_enter(ledger, TR_CAUSE_OTHER);
  tr_ledger_move(ledger, TR_CAUSE_OTHER, TR_CAUSE_FIRST_BYTE, account->first_byte_ns);
  tr_ledger_move(ledger, TR_CAUSE_OTHER, TR_CAUSE_BANDWIDTH, account->bandwidth_ns);
  tr_ledger_move(ledger, TR_CAUSE_OTHER, TR_CAUSE_THROTTLED, account->throttled_ns);
  tr_ledger_move(ledger, TR_CAUSE_OTHER, TR_CAUSE_RETRY, account->retry_ns);
  tr_ledger_move(ledger, TR_CAUSE_OTHER, TR_CAUSE_DECODE, account->decode_ns);
}

static tr_status forward_backward(tr_trainer *trainer, const tr_micro_batch *micro, bool last, tr_error *error) {
  const void *inputs[TR_FIELDS_MAX];
  const int32_t input_count = tr_graph_input_count(trainer->graph);
  for (int32_t i = 0; i < input_count; i++) inputs[i] = micro->fields[trainer->input_field[i]];
  const tr_step_args args = {
      .struct_bytes = sizeof args,
      .seed = trainer->seed,
      .step = trainer->step,
      .row_offset = micro->row_offset,
      .row_count = micro->row_count,
      .row_weight = micro->row_weight,
      .loss_scale = 1.0F,
      .inputs = inputs,
  };
  float *gradient = trainer->gradients[trainer->depth];
  double *scalars = trainer->scalars[trainer->depth];
  TR_TRY(tr_graph_forward(trainer->graph, &args, scalars, error));
  double weight = 0;
  for (uint32_t row = 0; row < micro->row_count; row++) weight += (double)micro->row_weight[row];
  double *behind = scalars + trainer->output_count;
  behind[TR_SCALAR_WEIGHT] = weight;
  behind[TR_SCALAR_ROWS] = micro->row_count;
  behind[TR_SCALAR_LEAVES] = weight > 0 ? 1 : 0;
  trainer->depth++;
  trainer->last_leaf = last;
  trainer->last_merges = last ? tr_tree_merges(trainer->batch.leaf_count, trainer->batch.leaf_begin, micro->leaf) : 0;
  return tr_graph_backward(trainer->graph, &args, gradient, ready, trainer, error);
}

static void merge_top(tr_trainer *trainer, uint32_t merges, bool gradients) {
  const uint64_t count = tr_params_gradient_count(trainer->params);
  for (; merges > 0; merges--) {
    const uint32_t top = --trainer->depth;
    if (gradients) tr_flat_add(trainer->gradients[top - 1], trainer->gradients[top], count);
    for (int32_t i = 0; i < trainer->scalar_count; i++) trainer->scalars[top - 1][i] += trainer->scalars[top][i];
  }
}

static tr_status run_leaf(tr_trainer *trainer, uint64_t leaf, tr_error *error) {
  tr_session *session = trainer->session;
  const bool last = leaf + 1 == trainer->batch.leaf_end;
  tr_micro_batch micro;
  tr_wait_account account = {0};
  tr_session_phase(session, TR_PHASE_DATA, TR_CAUSE_OTHER);
  const tr_status status = tr_loader_next(trainer->loader, &micro, &account, error);
  charge_data(trainer, &account);
  TR_TRY(status);
  trainer->ids_crc32c = tr_crc32c(trainer->ids_crc32c, micro.ids, micro.row_count * sizeof *micro.ids);
  trainer->ids_bytes += micro.row_count * sizeof *micro.ids;
  tr_session_phase(session, TR_PHASE_COMPUTE, TR_CAUSE_COMPUTE);
  const uint64_t begun = session->ledger.last_ns;
  TR_TRY(forward_backward(trainer, &micro, last, error));
  if (!last) merge_top(trainer, tr_tree_merges(trainer->batch.leaf_count, trainer->batch.leaf_begin, leaf), true);
  if (session->trace != NULL) {
    tr_trace_span(session->trace, TR_LANE_STEP, "micro-batch", begun, tr_clock_now_ns(session->clock));
  }
  return TR_OK;
}

/* Scalars of the batch and the rest of the buckets. A rank without micro-batches, or one that failed, still enters: what a
 * failed one hands over is thrown away by the vote. */
static tr_status begin_rest(tr_trainer *trainer, tr_error *error) {
  hand_over(trainer, 0);
  if (trainer->comm_status != TR_OK) {
    if (error != NULL) *error = trainer->comm_error;
    return trainer->comm_status;
  }
  merge_top(trainer, trainer->last_merges, false);
  void *parts[TR_BUFFERS_MAX];
  for (uint32_t i = 0; i < trainer->depth; i++) parts[i] = trainer->scalars[i];
  const tr_reduce_leaves_args args = {
      .struct_bytes = sizeof args,
      .leaf_count = trainer->batch.leaf_count,
      .parts = parts,
      .part_count = trainer->depth,
      .result = trainer->totals,
      .count = (size_t)trainer->scalar_count,
      .dtype = TR_F64,
  };
  return tr_comm_reduce_leaves_begin(trainer->comm, &args, &trainer->scalar_handle, error);
}

static tr_status wait_for(tr_trainer *trainer, tr_comm_handle handle, tr_error *error) {
  tr_comm_wait_info info = {.last_rank = -1};
  const tr_status status = tr_comm_wait(trainer->comm, handle, &info, error);
  tr_ledger *ledger = &trainer->session->ledger;
  tr_ledger_enter(ledger, TR_CAUSE_COLLECTIVE);
  tr_ledger_move(ledger, TR_CAUSE_COLLECTIVE, TR_CAUSE_COLLECTIVE_WAIT, info.blocked_for_peers_ns);
  if (info.last_rank >= 0 && info.last_rank != trainer->rank && info.blocked_for_peers_ns > trainer->longest_wait_ns) {
    trainer->longest_wait_ns = info.blocked_for_peers_ns;
    trainer->waited_for = info.last_rank;
  }
  return status;
}

/* A rank that failed in the middle hands over as many parts as the others expect of it. */
static void pretend_parts(tr_trainer *trainer) {
  tr_tree_part parts[TR_TREE_PARTS_MAX];
  trainer->depth = tr_tree_parts(trainer->batch.leaf_count, trainer->batch.leaf_begin, trainer->batch.leaf_end, parts);
  trainer->last_merges = 0;
}

tr_status tr_trainer_compute(tr_trainer *trainer, tr_error *error) {
  trainer->depth = 0;
  trainer->buckets_begun = 0;
  trainer->last_merges = 0;
  trainer->last_leaf = false;
  trainer->comm_status = trainer->step_status = TR_OK;
  trainer->ids_crc32c = 0;
  trainer->ids_bytes = 0;
  trainer->longest_wait_ns = 0;
  trainer->waited_for = -1;
  tr_error failure = {.status = TR_OK};
  for (uint64_t leaf = trainer->batch.leaf_begin; leaf < trainer->batch.leaf_end; leaf++) {
    const tr_status status = run_leaf(trainer, leaf, &failure);
    if (status == TR_OK) continue;
    note_failure(trainer, status, &failure);
    pretend_parts(trainer);
    break;
  }
  tr_session_phase(trainer->session, TR_PHASE_COLLECTIVE, TR_CAUSE_COLLECTIVE);
  TR_TRY(begin_rest(trainer, error));
  for (size_t i = 0; i < trainer->bucket_count; i++) TR_TRY(wait_for(trainer, trainer->handles[i], error));
  TR_TRY(wait_for(trainer, trainer->scalar_handle, error));
  tr_session_phase(trainer->session, TR_PHASE_UPDATE, TR_CAUSE_OPTIMIZER);
  return TR_OK;
}
