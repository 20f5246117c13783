/* Binding: each step gets a tr_op_run with every pointer that the plan fixes; pointers that come with a call (inputs,
 * slots of the gradient) become patches. */
#include <string.h>

#include "graph_private.h"

typedef struct binder {
  tr_graph *graph;
  size_t input_patches, gradient_patches; /* filled, or only counted while the lists are NULL */
} binder;

static char *at_buffer(const tr_graph *graph, int32_t buffer) {
  return buffer < 0 ? NULL : graph->arena + graph->buffers[buffer].offset;
}

static void patch_input(binder *b, const void **where, int32_t input) {
  tr_graph *graph = b->graph;
  if (graph->input_patches != NULL)
    graph->input_patches[b->input_patches] = (tr_graph_patch){.where = (void **)where, .what = (uint64_t)input};
  b->input_patches++;
}

static void patch_gradient(binder *b, void **where, tr_param param) {
  tr_graph *graph = b->graph;
  const uint64_t offset = tr_params_info(graph->params, param).offset;
  if (graph->gradient_patches != NULL)
    graph->gradient_patches[b->gradient_patches] = (tr_graph_patch){.where = where, .what = offset};
  b->gradient_patches++;
}

static void bind_value(binder *b, tr_op_run *run, int32_t i, bool readable) {
  const tr_graph *graph = b->graph;
  const tr_graph_tensor *root = tr_graph_root(graph, run->node->inputs[i]);
  switch (root->kind) {
    case TR_TENSOR_ACTIVATION: run->call.inputs[i] = readable ? at_buffer(graph, root->value_buffer) : NULL; return;
    case TR_TENSOR_PARAM:
      run->call.inputs[i] = tr_params_values(graph->params) + tr_params_info(graph->params, root->param).offset;
      return;
    case TR_TENSOR_INPUT: patch_input(b, &run->call.inputs[i], root->input); return;
  }
}

static void bind_gradient(binder *b, tr_op_run *run, int32_t i) {
  const tr_graph *graph = b->graph;
  const tr_graph_tensor *root = tr_graph_root(graph, run->node->inputs[i]);
  if (!(run->node->gradient_wanted >> i & 1)) return;
  run->call.input_gradient_add[i] = run->node->gradient_add >> i & 1;
  if (root->kind == TR_TENSOR_PARAM)
    patch_gradient(b, &run->call.input_gradients[i], root->param);
  else
    run->call.input_gradients[i] = at_buffer(graph, root->gradient_buffer);
}

static void bind_common(const tr_graph *graph, const tr_graph_node *node, tr_op_run *run) {
  memset(run, 0, sizeof *run);
  run->node = node;
  run->saved = at_buffer(graph, node->saved_buffer);
  run->packed = node->packed;
  run->kernels = graph->kernels;
  run->pool = graph->options.pool;
  run->row_weight = graph->row_weight;
  run->bad_ids = (uint64_t *)&graph->bad_ids;
  run->call.input_count = node->input_count;
  run->call.output_info = tr_graph_tensor_at(graph, node->output)->info;
  run->call.step = &graph->args;
  run->call.attributes = node->attributes;
  run->call.op_number = node->number;
  for (int32_t i = 0; i < node->input_count; i++)
    run->call.input_info[i] = tr_graph_tensor_at(graph, node->inputs[i])->info;
}

static void bind_forward(binder *b, const tr_graph_node *node, tr_op_run *run) {
  const tr_graph *graph = b->graph;
  bind_common(graph, node, run);
  for (int32_t i = 0; i < node->input_count; i++) bind_value(b, run, i, true);
  run->call.output = at_buffer(graph, tr_graph_root(graph, node->output)->value_buffer);
  run->scratch = run->call.workspace = at_buffer(graph, node->forward_scratch_buffer);
}

static void bind_backward(binder *b, const tr_graph_node *node, tr_op_run *run) {
  const tr_graph *graph = b->graph;
  bind_common(graph, node, run);
  for (int32_t i = 0; i < node->input_count; i++) {
    bind_value(b, run, i, node->saves_inputs >> i & 1);
    bind_gradient(b, run, i);
  }
  const tr_graph_tensor *output = tr_graph_root(graph, node->output);
  if (node->saves_output) run->call.output = at_buffer(graph, output->value_buffer);
  run->output_gradient = at_buffer(graph, output->gradient_buffer);
  run->call.output_gradient = run->output_gradient;
  run->scratch = run->call.workspace = at_buffer(graph, node->backward_scratch_buffer);
}

static void bind_state(binder *b, const tr_graph_node *node, tr_op_run *run) {
  const tr_graph *graph = b->graph;
  bind_common(graph, node, run);
  for (int32_t i = 0; i < node->input_count; i++) {
    const tr_graph_tensor *root = tr_graph_root(graph, node->inputs[i]);
    if (root->kind == TR_TENSOR_PARAM && tr_params_info(graph->params, root->param).role == TR_PARAM_STATE)
      patch_gradient(b, &run->call.input_gradients[i], root->param);
  }
}

static void bind_steps(binder *b) {
  tr_graph *graph = b->graph;
  b->input_patches = b->gradient_patches = 0;
  int32_t forward = 0, backward = 0, state = 0;
  for (size_t n = 0; n < graph->node_count; n++) {
    const tr_graph_node *node = &graph->nodes[n];
    if (node->dead) continue;
    graph->forward_steps[forward].node = (int32_t)n;
    bind_forward(b, node, &graph->forward_steps[forward++].run);
    if (!graph->training || node->op->write_state == NULL) continue;
    graph->state_steps[state].node = (int32_t)n;
    bind_state(b, node, &graph->state_steps[state++].run);
  }
  for (size_t n = graph->node_count; n-- > 0;) {
    if (!graph->nodes[n].differentiated) continue;
    graph->backward_steps[backward].node = (int32_t)n;
    bind_backward(b, &graph->nodes[n], &graph->backward_steps[backward++].run);
  }
}

/* The end of a parameter's slot, with its padding. */
static uint64_t slot_end(const tr_graph *graph, tr_param param) {
  const tr_param_info info = tr_params_info(graph->params, param);
  return info.offset + (info.count + 15) / 16 * 16;
}

/* Walking backward in time, the watermark after a step is the highest end of a slot that a later step still writes. */
static void set_watermarks(tr_graph *graph) {
  uint64_t mark = 0;
  for (int32_t s = graph->backward_count; s-- > 0;) {
    graph->backward_steps[s].watermark = mark;
    const tr_graph_node *node = &graph->nodes[graph->backward_steps[s].node];
    for (int32_t i = 0; i < node->input_count; i++) {
      const tr_graph_tensor *root = tr_graph_root(graph, node->inputs[i]);
      if (root->kind != TR_TENSOR_PARAM || !(node->gradient_wanted >> i & 1)) continue;
      const uint64_t end = slot_end(graph, root->param);
      if (end > mark) mark = end;
    }
  }
  graph->first_watermark = mark;
}

static tr_status list_of(tr_graph *graph, size_t count, size_t bytes, void **out, tr_error *error) {
  *out = tr_arena_alloc(graph->memory, (count + 1) * bytes);
  return *out != NULL ? TR_OK : tr_fail_memory(error, "a graph's steps", (count + 1) * bytes);
}

/* Steps are bound twice: the first time only counts the patches. */
tr_status tr_graph_bind(tr_graph *graph, tr_error *error) {
  graph->state_count = 0;
  for (size_t n = 0; n < graph->node_count; n++)
    graph->state_count += graph->training && !graph->nodes[n].dead && graph->nodes[n].op->write_state != NULL;
  const size_t step = sizeof(tr_graph_step);
  TR_TRY(list_of(graph, (size_t)graph->forward_count, step, (void **)&graph->forward_steps, error));
  TR_TRY(list_of(graph, (size_t)graph->backward_count, step, (void **)&graph->backward_steps, error));
  TR_TRY(list_of(graph, (size_t)graph->state_count, step, (void **)&graph->state_steps, error));
  TR_TRY(list_of(graph, (size_t)graph->rows, sizeof(float), (void **)&graph->row_weight, error));
  binder b = {.graph = graph};
  bind_steps(&b);
  const size_t patch = sizeof(tr_graph_patch);
  void *inputs = NULL, *gradients = NULL;
  TR_TRY(list_of(graph, b.input_patches, patch, &inputs, error));
  TR_TRY(list_of(graph, b.gradient_patches, patch, &gradients, error));
  graph->input_patches = inputs;
  graph->gradient_patches = gradients;
  bind_steps(&b);
  graph->input_patch_count = b.input_patches;
  graph->gradient_patch_count = b.gradient_patches;
  set_watermarks(graph);
  return TR_OK;
}
