/* Fusion: a rewrite of the forward graph before it is differentiated. Linear takes a following ReLU, convolution a ReLU
 * and then a 2x2 max-pool. The graph without it is its reference. Also drops what nobody reads. */
#include "graph_private.h"

/* The one live node that reads this tensor and nothing else of its memory; -1 when there is none or more. */
static int32_t sole_reader(const tr_graph *graph, tr_tensor tensor) {
  const tr_graph_tensor *t = tr_graph_tensor_at(graph, tensor);
  if (t->root != tensor || t->is_output) return -1;
  int32_t found = -1;
  for (size_t n = 0; n < graph->node_count; n++) {
    const tr_graph_node *node = &graph->nodes[n];
    if (node->dead) continue;
    for (int32_t i = 0; i < node->input_count; i++) {
      if (tr_graph_tensor_at(graph, node->inputs[i])->root != tensor) continue;
      if (node->inputs[i] != tensor || found >= 0) return -1;
      found = (int32_t)n;
    }
  }
  return found;
}

/* `node` now makes what `next` made. */
static void take_over(tr_graph *graph, int32_t node, int32_t next) {
  graph->nodes[node].output = graph->nodes[next].output;
  graph->nodes[next].dead = true;
  tr_graph_tensor_at(graph, graph->nodes[node].output)->producer = node;
}

static bool takes_relu(tr_graph *graph, int32_t node) {
  const int32_t next = sole_reader(graph, graph->nodes[node].output);
  if (next < 0 || graph->nodes[next].op != &tr_op_relu) return false;
  take_over(graph, node, next);
  return true;
}

static bool takes_pool(tr_graph *graph, int32_t node) {
  const int32_t next = sole_reader(graph, graph->nodes[node].output);
  if (next < 0 || graph->nodes[next].op != &tr_op_max_pool2d) return false;
  const tr_window *w = graph->nodes[next].attributes;
  if (w->kh != 2 || w->kw != 2 || w->stride_h != 2 || w->stride_w != 2 || w->pad_h != 0 || w->pad_w != 0) return false;
  take_over(graph, node, next);
  return true;
}

static void fuse_node(tr_graph *graph, int32_t index) {
  tr_graph_node *node = &graph->nodes[index];
  if (node->op == &tr_op_linear) {
    tr_linear_attributes *linear = node->attributes;
    linear->relu = takes_relu(graph, index);
  } else if (node->op == &tr_op_conv2d) {
    tr_conv_attributes *conv = node->attributes;
    conv->relu = takes_relu(graph, index);
    conv->pool = conv->relu && takes_pool(graph, index);
  }
}

/* From the end to the beginning: a node lives when its output is reported, is read by a living node, or when it writes
 * state. */
static void drop_unread(tr_graph *graph) {
  bool any_output = false;
  for (int32_t i = 0; i < graph->output_count; i++) any_output |= graph->outputs[i].tensor != TR_TENSOR_INVALID;
  if (!any_output) return;
  for (size_t n = graph->node_count; n-- > 0;) {
    tr_graph_node *node = &graph->nodes[n];
    if (node->dead) continue;
    bool read = tr_graph_root(graph, node->output)->is_output || node->op->write_state != NULL;
    for (size_t later = n + 1; later < graph->node_count && !read; later++) {
      const tr_graph_node *reader = &graph->nodes[later];
      for (int32_t i = 0; i < reader->input_count && !reader->dead; i++)
        read |= tr_graph_tensor_at(graph, reader->inputs[i])->root == node->output;
    }
    node->dead = !read;
  }
}

void tr_graph_fuse(tr_graph *graph) {
  if (graph->options.no_fusion) return;
  for (size_t n = 0; n < graph->node_count; n++)
    if (!graph->nodes[n].dead) fuse_node(graph, (int32_t)n);
  if (!graph->readable) drop_unread(graph);
}
