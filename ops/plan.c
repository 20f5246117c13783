/* The memory plan: how long each activation, gradient, saved piece and scratch is needed, what may lie in place of what,
 * and where in the one arena it goes. */
#include <stdlib.h>

#include "graph_private.h"

enum { ALIGN = 64 };

/* ---- Offsets: pure ------------------------------------------------------------------------------------------------- */

static bool overlap_in_time(const tr_graph_buffer *a, const tr_graph_buffer *b) {
  return a->first <= b->last && b->first <= a->last;
}

/* In the given order (largest first packs best), each at the lowest place that is free for all of its time. */
size_t tr_plan_offsets(tr_graph_buffer *buffers, const int32_t *order, size_t count) {
  size_t top = 0;
  for (size_t k = 0; k < count; k++) {
    tr_graph_buffer *buffer = &buffers[order[k]];
    const size_t bytes = (buffer->bytes + ALIGN - 1) / ALIGN * ALIGN;
    size_t at = 0;
    for (bool moved = true; moved;) {
      moved = false;
      for (size_t j = 0; j < k; j++) {
        const tr_graph_buffer *other = &buffers[order[j]];
        const size_t other_end = other->offset + (other->bytes + ALIGN - 1) / ALIGN * ALIGN;
        if (!overlap_in_time(buffer, other) || at >= other_end || at + bytes <= other->offset) continue;
        at = other_end;
        moved = true;
      }
    }
    buffer->offset = at;
    if (at + bytes > top) top = at + bytes;
  }
  return top;
}

/* ---- Lifetimes ----------------------------------------------------------------------------------------------------- */

static void set_times(tr_graph *graph) {
  int32_t time = 0;
  for (size_t n = 0; n < graph->node_count; n++)
    if (!graph->nodes[n].dead) graph->nodes[n].forward_time = time++;
  graph->forward_count = time++;
  for (size_t n = graph->node_count; n-- > 0;)
    if (graph->nodes[n].differentiated) graph->nodes[n].backward_time = time++;
  graph->backward_count = time - graph->forward_count - 1;
}

static tr_status new_buffer(tr_graph *graph, size_t bytes, int32_t first, int32_t last, int32_t *out, tr_error *error) {
  TR_TRY(tr_reserve(graph->allocator, (void **)&graph->buffers, &graph->buffer_capacity, graph->buffer_count + 1,
                    sizeof *graph->buffers, error));
  graph->buffers[graph->buffer_count] = (tr_graph_buffer){.bytes = bytes, .first = first, .last = last, .merged = -1};
  *out = (int32_t)graph->buffer_count++;
  return TR_OK;
}

static void live_until(tr_graph *graph, int32_t buffer, int32_t time) {
  if (buffer >= 0 && graph->buffers[buffer].last < time) graph->buffers[buffer].last = time;
}

static int32_t end_of_time(const tr_graph *graph) { return graph->forward_count + graph->backward_count; }

static tr_status value_buffers(tr_graph *graph, tr_error *error) {
  for (size_t t = 0; t < graph->tensor_count; t++) {
    tr_graph_tensor *tensor = &graph->tensors[t];
    if (tensor->kind != TR_TENSOR_ACTIVATION || tensor->root != (tr_tensor)t) continue;
    const tr_graph_node *producer = &graph->nodes[tensor->producer];
    if (producer->dead || producer->output != (tr_tensor)t) continue;
    const int32_t made = producer->forward_time;
    TR_TRY(new_buffer(graph, tensor->bytes, made, made, &tensor->value_buffer, error));
    if (tensor->is_output) live_until(graph, tensor->value_buffer, graph->forward_count);
    if (graph->readable) live_until(graph, tensor->value_buffer, end_of_time(graph));
  }
  for (size_t n = 0; n < graph->node_count; n++) {
    const tr_graph_node *node = &graph->nodes[n];
    if (node->dead) continue;
    for (int32_t i = 0; i < node->input_count; i++) {
      const int32_t buffer = tr_graph_root(graph, node->inputs[i])->value_buffer;
      live_until(graph, buffer, node->forward_time);
      if (node->differentiated && (node->saves_inputs >> i & 1)) live_until(graph, buffer, node->backward_time);
    }
    if (node->differentiated && node->saves_output)
      live_until(graph, tr_graph_root(graph, node->output)->value_buffer, node->backward_time);
  }
  return TR_OK;
}

/* In the order of execution, so the first to touch a gradient is the one that makes its buffer. */
static tr_status gradient_buffers(tr_graph *graph, tr_error *error) {
  if (!graph->training) return TR_OK;
  tr_graph_tensor *loss = tr_graph_root(graph, graph->outputs[0].tensor);
  TR_TRY(new_buffer(graph, loss->bytes, graph->forward_count, graph->forward_count, &loss->gradient_buffer, error));
  for (size_t n = graph->node_count; n-- > 0;) {
    const tr_graph_node *node = &graph->nodes[n];
    if (!node->differentiated) continue;
    live_until(graph, tr_graph_root(graph, node->output)->gradient_buffer, node->backward_time);
    for (int32_t i = 0; i < node->input_count; i++) {
      tr_graph_tensor *input = tr_graph_root(graph, node->inputs[i]);
      if (input->kind != TR_TENSOR_ACTIVATION || !(node->gradient_wanted >> i & 1)) continue;
      if (input->gradient_buffer < 0)
        TR_TRY(
            new_buffer(graph, input->bytes, node->backward_time, node->backward_time, &input->gradient_buffer, error));
      live_until(graph, input->gradient_buffer, node->backward_time);
    }
  }
  return TR_OK;
}

static tr_status node_buffers(tr_graph *graph, tr_error *error) {
  for (size_t n = 0; n < graph->node_count; n++) {
    tr_graph_node *node = &graph->nodes[n];
    if (node->dead) continue;
    const int32_t forward = node->forward_time, backward = node->backward_time;
    if (node->saved_bytes > 0) {
      const int32_t written = node->op->write_state != NULL ? graph->forward_count : forward;
      TR_TRY(new_buffer(graph, node->saved_bytes, forward, backward > written ? backward : written, &node->saved_buffer,
                        error));
    }
    if (node->forward_scratch > 0)
      TR_TRY(new_buffer(graph, node->forward_scratch, forward, forward, &node->forward_scratch_buffer, error));
    if (node->backward_scratch > 0 && node->differentiated)
      TR_TRY(new_buffer(graph, node->backward_scratch, backward, backward, &node->backward_scratch_buffer, error));
  }
  return TR_OK;
}

/* ---- In place ------------------------------------------------------------------------------------------------------ */

static int32_t bottom_of(const tr_graph *graph, int32_t buffer) {
  while (graph->buffers[buffer].merged >= 0) buffer = graph->buffers[buffer].merged;
  return buffer;
}

static void lay_on(tr_graph *graph, int32_t buffer, int32_t under) {
  const int32_t bottom = bottom_of(graph, under);
  graph->buffers[buffer].merged = bottom;
  live_until(graph, bottom, graph->buffers[buffer].last);
}

/* The input's last reader may write its output over it. */
static void forward_in_place(tr_graph *graph, const tr_graph_node *node) {
  const int32_t output = tr_graph_root(graph, node->output)->value_buffer;
  for (int32_t i = 0; i < node->input_count; i++) {
    const int32_t input = tr_graph_root(graph, node->inputs[i])->value_buffer;
    if (!(node->op->forward_in_place >> i & 1) || input < 0) continue;
    if (graph->buffers[input].last != node->forward_time || graph->buffers[input].bytes != graph->buffers[output].bytes)
      continue;
    lay_on(graph, output, input);
    return;
  }
}

static int32_t times_read(const tr_graph *graph, const tr_graph_node *node, tr_tensor root) {
  int32_t times = 0;
  for (int32_t i = 0; i < node->input_count; i++) times += tr_graph_tensor_at(graph, node->inputs[i])->root == root;
  return times;
}

/* The gradient of the output dies in the op that reads it, so the first gradient of an input may lie on it. */
static void backward_in_place(tr_graph *graph, const tr_graph_node *node) {
  const int32_t output = tr_graph_root(graph, node->output)->gradient_buffer;
  for (int32_t i = 0; i < node->input_count; i++) {
    const tr_tensor root = tr_graph_tensor_at(graph, node->inputs[i])->root;
    const int32_t input = tr_graph_tensor_at(graph, root)->gradient_buffer;
    if (!(node->op->backward_in_place >> i & 1) || !(node->gradient_wanted >> i & 1) || input < 0) continue;
    if ((node->gradient_add >> i & 1) || times_read(graph, node, root) != 1 ||
        graph->buffers[input].bytes != graph->buffers[output].bytes)
      continue;
    lay_on(graph, input, output);
    return;
  }
}

/* ---- All of it ----------------------------------------------------------------------------------------------------- */

/* qsort has no context argument in C, so what is sorted carries all that decides. */
typedef struct sort_key {
  size_t bytes;
  int32_t buffer;
} sort_key;

static int by_size(const void *a, const void *b) {
  const sort_key *first = a, *second = b;
  if (first->bytes != second->bytes) return first->bytes > second->bytes ? -1 : 1;
  return first->buffer < second->buffer ? -1 : 1;
}

static tr_status place(tr_graph *graph, tr_error *error) {
  const size_t count = graph->buffer_count;
  sort_key *keys = tr_arena_alloc(graph->memory, (count + 1) * sizeof *keys);
  int32_t *order = tr_arena_alloc(graph->memory, (count + 1) * sizeof *order);
  if (keys == NULL || order == NULL) return tr_fail_memory(error, "the memory plan", count * sizeof *keys);
  size_t placed = 0;
  for (size_t b = 0; b < count; b++)
    if (graph->buffers[b].merged < 0)
      keys[placed++] = (sort_key){.bytes = graph->buffers[b].bytes, .buffer = (int32_t)b};
  qsort(keys, placed, sizeof *keys, by_size);
  for (size_t k = 0; k < placed; k++) order[k] = keys[k].buffer;
  graph->arena_bytes = tr_plan_offsets(graph->buffers, order, placed);
  for (size_t b = 0; b < count; b++)
    if (graph->buffers[b].merged >= 0) graph->buffers[b].offset = graph->buffers[bottom_of(graph, (int32_t)b)].offset;
  return TR_OK;
}

tr_status tr_graph_plan(tr_graph *graph, tr_error *error) {
  set_times(graph);
  TR_TRY(value_buffers(graph, error));
  TR_TRY(gradient_buffers(graph, error));
  TR_TRY(node_buffers(graph, error));
  if (!graph->readable) {
    for (size_t n = 0; n < graph->node_count; n++)
      if (!graph->nodes[n].dead) forward_in_place(graph, &graph->nodes[n]);
    for (size_t n = graph->node_count; n-- > 0;)
      if (graph->nodes[n].differentiated) backward_in_place(graph, &graph->nodes[n]);
  }
  return place(graph, error);
}
