/* Compiling: the passes in order, and the memory that a compiled graph owns. */
#include <string.h>

#include "graph_private.h"

static tr_status check(const tr_graph *graph, tr_error *error) {
  if (graph->failed) {
    if (error != NULL) *error = graph->first_error;
    return graph->first_error.status;
  }
  if (graph->compiled) return tr_fail(error, TR_ERR_INVALID, "the graph is compiled already");
  if (graph->buffer_count > 0) return tr_fail(error, TR_ERR_INVALID, "the graph failed to compile before");
  if (tr_params_version(graph->params) == 0)
    return tr_fail(error, TR_ERR_INVALID, "seal the parameters before compiling a graph");
  const bool has_loss = graph->outputs[0].tensor != TR_TENSOR_INVALID;
  if (!has_loss && (graph->training || graph->output_count > 1))
    return tr_fail(error, TR_ERR_INVALID, "the graph has no loss: give it one with tr_graph_loss");
  return TR_OK;
}

static tr_status prepare(tr_graph *graph, tr_error *error) {
  for (size_t n = 0; n < graph->node_count; n++) {
    tr_graph_node *node = &graph->nodes[n];
    if (node->dead || node->op->prepare == NULL) continue;
    const tr_status status = node->op->prepare(graph, node, error);
    if (status != TR_OK) return tr_error_context(error, status, "%s '%s'", node->op->name, node->name);
  }
  return TR_OK;
}

static tr_status allocate(tr_graph *graph, tr_error *error) {
  if (graph->arena_bytes > 0) {
    graph->arena = tr_device_alloc(graph->device, TR_SPACE_DEVICE, graph->arena_bytes);
    if (graph->arena == NULL) return tr_fail_memory(error, "the arena of activations", graph->arena_bytes);
  }
  size_t packed = 0;
  for (size_t n = 0; n < graph->node_count; n++) packed += tr_ops_round64(graph->nodes[n].packed_bytes);
  if (packed == 0) return TR_OK;
  graph->packed = tr_device_alloc(graph->device, TR_SPACE_DEVICE, packed);
  if (graph->packed == NULL) return tr_fail_memory(error, "packed weights", packed);
  graph->packed_bytes = packed;
  size_t at = 0;
  for (size_t n = 0; n < graph->node_count; n++) {
    tr_graph_node *node = &graph->nodes[n];
    if (node->packed_bytes == 0) continue;
    node->packed = graph->packed + at;
    at += tr_ops_round64(node->packed_bytes);
  }
  return TR_OK;
}

tr_status tr_graph_compile(tr_graph *graph, const tr_graph_compile_options *options, tr_error *error) {
  TR_TRY(check(graph, error));
  const tr_graph_compile_options defaults = {.struct_bytes = sizeof defaults};
  graph->options = options != NULL ? *options : defaults;
  graph->readable = (graph->options.reference || graph->options.no_fusion) && !graph->options.poison;
  graph->kernels = tr_kernels_get(graph->options.reference ? TR_ISA_PLAIN : tr_isa_detect());
  tr_graph_fuse(graph);
  TR_TRY(tr_graph_differentiate(graph, error));
  TR_TRY(prepare(graph, error));
  TR_TRY(tr_graph_plan(graph, error));
  TR_TRY(allocate(graph, error));
  TR_TRY(tr_graph_bind(graph, error));
  if (graph->options.profile) TR_TRY(tr_graph_profile_make(graph, error));
  graph->compiled = true;
  return TR_OK;
}

size_t tr_graph_arena_bytes(const tr_graph *graph) { return graph->arena_bytes; }
