/* Executing a compiled graph: walk the steps. Nothing here allocates, and nothing but the arena, the packed weights and
 * the gradient is written. */
#include <string.h>

#include "graph_private.h"

static tr_status check_args(const tr_graph *graph, const tr_step_args *args, tr_error *error) {
  if (!graph->compiled) return tr_fail(error, TR_ERR_INVALID, "the graph is not compiled");
  if ((int64_t)args->row_count > graph->rows)
    return tr_fail(error, TR_ERR_INVALID, "%u rows for a graph of %lld", args->row_count, (long long)graph->rows);
  if (graph->input_count > 0 && args->inputs == NULL) return tr_fail(error, TR_ERR_INVALID, "the step has no inputs");
  for (int32_t i = 0; i < graph->input_count; i++)
    if (args->inputs[i] == NULL) return tr_fail(error, TR_ERR_INVALID, "input '%s' is missing", graph->input_names[i]);
  return TR_OK;
}

static void take_args(tr_graph *graph, const tr_step_args *args) {
  graph->args = *args;
  for (int64_t row = 0; row < graph->rows; row++) {
    const bool there = row < (int64_t)args->row_count;
    graph->row_weight[row] = !there ? 0.0f : args->row_weight != NULL ? args->row_weight[row] : 1.0f;
  }
  for (size_t i = 0; i < graph->input_patch_count; i++)
    *graph->input_patches[i].where = (void *)args->inputs[graph->input_patches[i].what];
}

static void run_step(tr_graph *graph, tr_graph_step *step, void (*run)(tr_op_run *), size_t profile) {
  if (graph->profile == NULL) {
    run(&step->run);
    return;
  }
  const uint64_t begun = tr_clock_now_ns(NULL);
  run(&step->run);
  graph->profile[profile].time_ns += tr_clock_now_ns(NULL) - begun;
  graph->profile[profile].calls++;
}

/* A packed copy of the weights is made again when their version rose since the last. */
static void refresh_packed(tr_graph *graph, tr_graph_step *step, uint64_t version) {
  tr_graph_node *node = &graph->nodes[step->node];
  if (node->packed == NULL || node->packed_version == version) return;
  node->op->pack(&step->run, node->packed);
  node->packed_version = version;
}

/* In double, in the order of rows. A row of weight 0 is not looked at: nothing promises that its value is finite. */
static double weighted_sum(const tr_graph *graph, tr_tensor tensor) {
  if (tensor == TR_TENSOR_INVALID) return 0.0;
  const tr_graph_tensor *root = tr_graph_root(graph, tensor);
  const float *values = (const float *)(graph->arena + graph->buffers[root->value_buffer].offset);
  double sum = 0.0;
  for (int64_t row = 0; row < graph->rows; row++)
    if (graph->row_weight[row] != 0.0f) sum += (double)graph->row_weight[row] * (double)values[row];
  return sum;
}

tr_status tr_graph_forward(tr_graph *graph, const tr_step_args *args, double *outputs, tr_error *error) {
  TR_TRY(check_args(graph, args, error));
  take_args(graph, args);
  tr_graph_poison(graph, -1);
  const uint64_t version = tr_params_version(graph->params);
  for (int32_t s = 0; s < graph->forward_count; s++) {
    tr_graph_step *step = &graph->forward_steps[s];
    refresh_packed(graph, step, version);
    run_step(graph, step, graph->nodes[step->node].op->forward, (size_t)s);
    tr_graph_poison(graph, s);
  }
  if (outputs != NULL)
    for (int32_t i = 0; i < graph->output_count; i++) outputs[i] = weighted_sum(graph, graph->outputs[i].tensor);
  graph->forward_done = true;
  return TR_OK;
}

static void seed_loss(tr_graph *graph) {
  const tr_graph_tensor *loss = tr_graph_root(graph, graph->outputs[0].tensor);
  float *gradient = (float *)(graph->arena + graph->buffers[loss->gradient_buffer].offset);
  const float scale = graph->args.loss_scale;
  for (int64_t row = 0; row < graph->rows; row++) gradient[row] = graph->row_weight[row] * scale;
}

static void begin_backward(tr_graph *graph, float *gradient) {
  for (size_t i = 0; i < graph->gradient_patch_count; i++)
    *graph->gradient_patches[i].where = gradient + graph->gradient_patches[i].what;
  for (size_t i = 0; i < graph->zero_fill_count; i++)
    memset(gradient + graph->zero_fills[i].offset, 0, (size_t)graph->zero_fills[i].count * sizeof *gradient);
  for (int32_t s = 0; s < graph->state_count; s++)
    graph->nodes[graph->state_steps[s].node].op->write_state(&graph->state_steps[s].run);
  seed_loss(graph);
}

tr_status tr_graph_backward(tr_graph *graph, const tr_step_args *args, float *gradient,
                            void (*ready)(void *self, uint64_t offset), void *self, tr_error *error) {
  if (!graph->training) return tr_fail(error, TR_ERR_INVALID, "a graph for evaluation has no backward pass");
  TR_TRY(check_args(graph, args, error));
  if (!graph->forward_done) return tr_fail(error, TR_ERR_INVALID, "backward without a forward before it");
  graph->forward_done = false;
  take_args(graph, args);
  begin_backward(graph, gradient);
  tr_graph_poison(graph, graph->forward_count);
  uint64_t mark = graph->first_watermark;
  if (ready != NULL && mark < tr_params_gradient_count(graph->params)) ready(self, mark);
  for (int32_t s = 0; s < graph->backward_count; s++) {
    tr_graph_step *step = &graph->backward_steps[s];
    run_step(graph, step, graph->nodes[step->node].op->backward, (size_t)(graph->forward_count + s));
    tr_graph_poison(graph, graph->forward_count + 1 + s);
    if (step->watermark == mark) continue;
    mark = step->watermark;
    if (ready != NULL) ready(self, mark);
  }
  return TR_OK;
}

uint64_t tr_graph_bad_ids(const tr_graph *graph) { return graph->bad_ids; }

tr_status tr_graph_read(tr_graph *graph, tr_tensor tensor, void *to, size_t bytes, tr_error *error) {
  if (!graph->compiled || !graph->readable)
    return tr_fail(error, TR_ERR_INVALID, "tensors can be read of a graph compiled with reference or no_fusion");
  if (!tr_graph_has(graph, tensor)) return tr_fail(error, TR_ERR_INVALID, "no such tensor");
  const tr_graph_tensor *t = tr_graph_tensor_at(graph, tensor), *root = tr_graph_root(graph, tensor);
  if (bytes != t->bytes) return tr_fail(error, TR_ERR_INVALID, "the tensor has %zu bytes, not %zu", t->bytes, bytes);
  const void *from = NULL;
  if (root->kind == TR_TENSOR_PARAM)
    from = tr_params_values(graph->params) + tr_params_info(graph->params, root->param).offset;
  else if (root->kind == TR_TENSOR_ACTIVATION && root->value_buffer >= 0)
    from = graph->arena + graph->buffers[root->value_buffer].offset;
  if (from == NULL) return tr_fail(error, TR_ERR_INVALID, "the tensor is an input or was fused into another op");
  memcpy(to, from, bytes);
  return TR_OK;
}
