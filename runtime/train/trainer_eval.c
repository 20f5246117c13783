/* Evaluation over exactly all samples of each set, the same value at any world size: sums over micro-batches along the tree
 * of each batch, batches in order. */
#include "trainer.h"

#include <math.h>
#include <string.h>

static tr_status forward_leaf(tr_trainer *trainer, tr_eval_set *set, tr_loader *loader, double *scalars,
                              tr_error *error) {
  tr_micro_batch micro;
  const void *inputs[TR_FIELDS_MAX];
  TR_TRY(tr_loader_next(loader, &micro, NULL, error));
  const int32_t input_count = tr_graph_input_count(set->graph);
  for (int32_t i = 0; i < input_count; i++) inputs[i] = micro.fields[set->input_field[i]];
  const tr_step_args args = {
      .struct_bytes = sizeof args,
      .seed = trainer->seed,
      .step = trainer->step,
      .row_offset = micro.row_offset,
      .row_count = micro.row_count,
      .row_weight = micro.row_weight,
      .loss_scale = 1.0F,
      .inputs = inputs,
  };
  TR_TRY(tr_graph_forward(set->graph, &args, scalars, error));
  double weight = 0;
  for (uint32_t row = 0; row < micro.row_count; row++) weight += (double)micro.row_weight[row];
  double *behind = scalars + trainer->output_count;
  behind[TR_SCALAR_WEIGHT] = weight;
  behind[TR_SCALAR_ROWS] = micro.row_count;
  behind[TR_SCALAR_LEAVES] = 1;
  return TR_OK;
}

/* A rank that fails in here goes on with zeros to the end of the batch, so that all meet; then all learn of it. */
static tr_status agree(tr_trainer *trainer, tr_status own, const tr_error *own_error, tr_error *error) {
  int64_t worst = own != TR_OK ? trainer->rank + 1 : 0;
  TR_TRY(tr_comm_all_reduce(trainer->comm, &worst, 1, TR_I64, TR_MAX, NULL, error));
  if (worst == 0) return TR_OK;
  tr_error told = {.status = TR_OK};
  if (worst == trainer->rank + 1) told = *own_error;
  TR_TRY(tr_comm_broadcast(trainer->comm, &told, sizeof told, (int32_t)(worst - 1), NULL, error));
  if (error != NULL) *error = told;
  return told.status;
}

static tr_status evaluate_batch(tr_trainer *trainer, tr_eval_set *set, tr_loader *loader, const tr_batch_info *batch,
                                double totals[TR_SCALARS_MAX], tr_error *error) {
  double stack[TR_BUFFERS_MAX][TR_SCALARS_MAX];
  uint32_t depth = 0;
  tr_status own = TR_OK;
  tr_error own_error = {.status = TR_OK};
  for (uint64_t leaf = batch->leaf_begin; leaf < batch->leaf_end; leaf++) {
    memset(stack[depth], 0, sizeof stack[depth]);
    if (own == TR_OK) own = forward_leaf(trainer, set, loader, stack[depth], &own_error);
    depth++;
    for (uint32_t merges = tr_tree_merges(batch->leaf_count, batch->leaf_begin, leaf); merges > 0; merges--) {
      depth--;
      for (int32_t i = 0; i < trainer->scalar_count; i++) stack[depth - 1][i] += stack[depth][i];
    }
  }
  void *parts[TR_BUFFERS_MAX];
  for (uint32_t i = 0; i < depth; i++) parts[i] = stack[i];
  const tr_reduce_leaves_args args = {
      .struct_bytes = sizeof args,
      .leaf_count = batch->leaf_count,
      .parts = parts,
      .part_count = depth,
      .result = totals,
      .count = (size_t)trainer->scalar_count,
      .dtype = TR_F64,
  };
  TR_TRY(tr_comm_reduce_leaves(trainer->comm, &args, NULL, error));
  return agree(trainer, own, &own_error, error);
}

static tr_status evaluate_set(tr_trainer *trainer, tr_eval_set *set, tr_error *error) {
  tr_loader *loader = NULL;
  double sums[TR_SCALARS_MAX] = {0};
  TR_TRY(tr_session_open_loader(trainer->session, set->set, set->dataset, NULL, &loader, error));
  tr_status status = TR_OK;
  for (;;) {
    tr_batch_info batch;
    double totals[TR_SCALARS_MAX] = {0};
    bool end = false;
    status = tr_loader_begin(loader, &batch, &end, error);
    if (status != TR_OK || end) break;
    status = evaluate_batch(trainer, set, loader, &batch, totals, error);
    if (status != TR_OK) break;
    for (int32_t i = 0; i < trainer->scalar_count; i++) sums[i] += totals[i];
    tr_loader_commit(loader);
    tr_session_phase(trainer->session, TR_PHASE_EVALUATION, TR_CAUSE_EVALUATION);
  }
  tr_loader_close(loader);
  TR_TRY(status);
  const double weight = sums[trainer->output_count + TR_SCALAR_WEIGHT];
  for (int32_t i = 0; i < trainer->output_count; i++) set->values[i] = weight > 0 ? sums[i] / weight : NAN;
  return TR_OK;
}

tr_status tr_trainer_evaluate(tr_trainer *trainer, bool report, tr_error *error) {
  tr_session_phase(trainer->session, TR_PHASE_EVALUATION, TR_CAUSE_EVALUATION);
  const uint64_t begun = trainer->session->ledger.last_ns;
  for (size_t i = 0; i < trainer->eval_count; i++) {
    tr_eval_set *set = &trainer->eval_sets[i];
    const tr_status status = evaluate_set(trainer, set, error);
    if (status != TR_OK) return tr_error_context(error, status, "evaluating data.%s", set->set);
    if (report) tr_trainer_report_evaluation(trainer, set);
  }
  trainer->evaluated = true;
  tr_session_phase(trainer->session, TR_PHASE_UPDATE, TR_CAUSE_OTHER);
  tr_trace_span(trainer->session->trace, TR_LANE_STEP, "evaluation", begun, trainer->session->ledger.last_ns);
  return TR_OK;
}

double tr_trainer_metric(const tr_trainer *trainer, const char *name) {
  for (size_t i = 0; i < trainer->eval_count; i++) {
    const tr_eval_set *set = &trainer->eval_sets[i];
    const size_t length = strlen(set->label);
    const char *rest = name;
    if (length > 0) {
      if (strncmp(name, set->label, length) != 0 || name[length] != '.') continue;
      rest = name + length + 1;
    }
    for (int32_t output = 0; output < trainer->output_count; output++) {
      if (strcmp(tr_graph_output_name(set->graph, output), rest) == 0) return set->values[output];
    }
  }
  return NAN;
}
