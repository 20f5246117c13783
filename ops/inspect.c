/* For people who look into a graph: the time of each op, and poison over what is dead. */
#include <string.h>

#include "graph_private.h"

/* After `time`, buffers whose life ended with it become NaN; before the first step (-1) all of the arena does. */
void tr_graph_poison(const tr_graph *graph, int32_t time) {
  if (!graph->options.poison || graph->arena_bytes == 0) return;
  if (time < 0) {
    memset(graph->arena, 0xFF, graph->arena_bytes);
    return;
  }
  for (size_t b = 0; b < graph->buffer_count; b++) {
    const tr_graph_buffer *buffer = &graph->buffers[b];
    if (buffer->merged < 0 && buffer->last == time) memset(graph->arena + buffer->offset, 0xFF, buffer->bytes);
  }
}

static double input_bytes(const tr_graph *graph, const tr_graph_node *node, uint32_t mask) {
  double bytes = 0.0;
  for (int32_t i = 0; i < node->input_count; i++)
    if (mask >> i & 1) bytes += (double)tr_graph_tensor_at(graph, node->inputs[i])->bytes;
  return bytes;
}

static double output_bytes(const tr_graph *graph, const tr_graph_node *node) {
  return (double)tr_graph_tensor_at(graph, node->output)->bytes;
}

/* As much again as forward for the gradient of the input and for that of the weight, where they are wanted. */
static double backward_flops(const tr_graph *graph, const tr_graph_node *node) {
  if (node->op->flops == NULL) return 0.0;
  const double forward = node->op->flops(graph, node);
  return forward * ((node->gradient_wanted & 1u) + (node->gradient_wanted >> 1 & 1u));
}

static tr_status name_entry(tr_graph *graph, tr_op_profile *entry, const tr_graph_node *node, const char *pass,
                            tr_error *error) {
  const char *space = node->name[0] != '\0' ? " " : "";
  entry->name = tr_arena_printf(graph->memory, "%s%s%s %s", node->op->name, space, node->name, pass);
  return entry->name != NULL ? TR_OK : tr_fail_memory(error, "a profile", 64);
}

tr_status tr_graph_profile_make(tr_graph *graph, tr_error *error) {
  const size_t count = (size_t)(graph->forward_count + graph->backward_count);
  tr_op_profile *profile = tr_arena_alloc(graph->memory, (count + 1) * sizeof *profile);
  if (profile == NULL) return tr_fail_memory(error, "a profile", (count + 1) * sizeof *profile);
  for (int32_t s = 0; s < graph->forward_count; s++)
    TR_TRY(name_entry(graph, &profile[s], &graph->nodes[graph->forward_steps[s].node], "forward", error));
  for (int32_t s = 0; s < graph->backward_count; s++)
    TR_TRY(name_entry(graph, &profile[graph->forward_count + s], &graph->nodes[graph->backward_steps[s].node],
                      "backward", error));
  graph->profile = profile;
  graph->profile_count = count;
  return TR_OK;
}

/* FLOPs and bytes follow from the calls, so they are worked out when somebody asks. */
size_t tr_graph_profile(const tr_graph *graph, const tr_op_profile **entries) {
  for (size_t p = 0; p < graph->profile_count; p++) {
    tr_op_profile *entry = &graph->profile[p];
    const bool forward = p < (size_t)graph->forward_count;
    const tr_graph_step *step = forward ? &graph->forward_steps[p]
                                        : &graph->backward_steps[p - (size_t)graph->forward_count];
    const tr_graph_node *node = &graph->nodes[step->node];
    double flops, bytes;
    if (forward) {
      flops = node->op->flops != NULL ? node->op->flops(graph, node) : 0.0;
      bytes = input_bytes(graph, node, ~0u) + output_bytes(graph, node);
    } else {
      flops = backward_flops(graph, node);
      bytes = input_bytes(graph, node, node->saves_inputs) + input_bytes(graph, node, node->gradient_wanted) +
              output_bytes(graph, node) * (node->saves_output ? 2.0 : 1.0);
    }
    entry->flops = flops * (double)entry->calls;
    entry->bytes = bytes * (double)entry->calls;
  }
  *entries = graph->profile;
  return graph->profile_count;
}
