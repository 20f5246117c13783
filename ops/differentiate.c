/* The backward pass: which tensors want a gradient, which ops run backward, and who overwrites and who adds.
 *
 * Ops run backward in the reverse of the build. The first that writes a gradient overwrites it, later ones add, so none
 * is ever zeroed first; only slots of parameters that nothing writes are filled with zeros. */
#include "graph_private.h"

static void mark_wanted(tr_graph *graph) {
  for (size_t t = 0; t < graph->tensor_count; t++) {
    tr_graph_tensor *tensor = &graph->tensors[t];
    if (tensor->kind == TR_TENSOR_PARAM)
      tensor->wants_gradient = tr_params_info(graph->params, tensor->param).role == TR_PARAM_TRAINED;
  }
  for (size_t n = 0; n < graph->node_count; n++) {
    const tr_graph_node *node = &graph->nodes[n];
    tr_graph_tensor *output = tr_graph_root(graph, node->output);
    if (node->dead || node->op->backward == NULL || output->info.dtype != TR_F32) continue;
    for (int32_t i = 0; i < node->input_count; i++)
      output->wants_gradient |= tr_graph_root(graph, node->inputs[i])->wants_gradient;
  }
}

static void mark_written(tr_graph *graph) {
  for (size_t n = graph->node_count; n-- > 0;) {
    tr_graph_node *node = &graph->nodes[n];
    const tr_graph_tensor *output = tr_graph_root(graph, node->output);
    if (node->dead || node->op->backward == NULL || !output->wants_gradient || !output->has_gradient) continue;
    node->differentiated = true;
    for (int32_t i = 0; i < node->input_count; i++) {
      tr_graph_tensor *input = tr_graph_root(graph, node->inputs[i]);
      if (!input->wants_gradient) continue;
      node->gradient_wanted |= 1u << i;
      if (input->has_gradient) node->gradient_add |= 1u << i;
      input->has_gradient = true;
    }
  }
}

/* The tensor of a parameter in this graph whose slot of the gradient some op writes. */
static bool is_written(const tr_graph *graph, tr_param param, tr_param_role role) {
  for (size_t t = 0; t < graph->tensor_count; t++) {
    const tr_graph_tensor *tensor = &graph->tensors[t];
    if (tensor->kind != TR_TENSOR_PARAM || tensor->param != param) continue;
    if (role == TR_PARAM_TRAINED) return tensor->has_gradient;
    for (size_t n = 0; n < graph->node_count; n++) {
      const tr_graph_node *node = &graph->nodes[n];
      if (node->dead || node->op->write_state == NULL) continue;
      for (int32_t i = 0; i < node->input_count; i++)
        if (node->inputs[i] == (tr_tensor)t) return true;
    }
  }
  return false;
}

static tr_status list_unwritten(tr_graph *graph, tr_error *error) {
  const int32_t count = tr_params_size(graph->params);
  if (count == 0) return TR_OK;
  graph->zero_fills = tr_arena_alloc(graph->memory, (size_t)count * sizeof *graph->zero_fills);
  if (graph->zero_fills == NULL) return tr_fail_memory(error, "a graph", (size_t)count * sizeof *graph->zero_fills);
  for (tr_param param = 0; param < count; param++) {
    const tr_param_info info = tr_params_info(graph->params, param);
    if (info.role == TR_PARAM_FROZEN || is_written(graph, param, info.role)) continue;
    graph->zero_fills[graph->zero_fill_count++] = (tr_graph_fill){.offset = info.offset, .count = info.count};
  }
  return TR_OK;
}

tr_status tr_graph_differentiate(tr_graph *graph, tr_error *error) {
  for (size_t n = 0; n < graph->node_count; n++) {
    graph->nodes[n].saves_inputs = graph->nodes[n].op->saves_inputs;
    graph->nodes[n].saves_output = graph->nodes[n].op->saves_output;
  }
  if (!graph->training) return TR_OK;
  mark_wanted(graph);
  tr_graph_tensor *loss = tr_graph_root(graph, graph->outputs[0].tensor);
  if (!loss->wants_gradient) return tr_fail(error, TR_ERR_INVALID, "the loss does not depend on any trained parameter");
  loss->has_gradient = true;
  mark_written(graph);
  return list_unwritten(graph, error);
}
