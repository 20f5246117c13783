/* Ops from outside: a descriptor becomes an op class of this graph, with adapters that hand the call on. */
#include <string.h>

#include "build_private.h"

static const char *const own_names[] = {"to_float",
                                        "add",
                                        "relu",
                                        "gelu",
                                        "gelu_tanh",
                                        "reshape",
                                        "flatten",
                                        "dropout",
                                        "linear",
                                        "conv2d",
                                        "max_pool2d",
                                        "avg_pool2d",
                                        "layer_norm",
                                        "batch_norm",
                                        "embedding",
                                        "softmax_cross_entropy",
                                        "mean_squared_error",
                                        "accuracy"};

static void custom_forward(tr_op_run *run) { run->node->custom->forward(&run->call); }
static void custom_backward(tr_op_run *run) { run->node->custom->backward(&run->call); }

static void input_infos(const tr_graph *graph, const tr_tensor *inputs, int32_t count,
                        tr_tensor_info infos[TR_OP_INPUTS_MAX]) {
  for (int32_t i = 0; i < count; i++) infos[i] = tr_graph_tensor_at(graph, inputs[i])->info;
}

static tr_status custom_prepare(tr_graph *graph, tr_graph_node *node, tr_error *error) {
  (void)error;
  const tr_op_descriptor *descriptor = node->custom;
  if (descriptor->workspace_bytes == NULL) return TR_OK;
  tr_tensor_info infos[TR_OP_INPUTS_MAX];
  input_infos(graph, node->inputs, node->input_count, infos);
  node->forward_scratch = descriptor->workspace_bytes(infos, node->input_count, node->attributes);
  node->backward_scratch = node->forward_scratch;
  return TR_OK;
}

static double custom_flops(const tr_graph *graph, const tr_graph_node *node) {
  if (node->custom->flops == NULL) return 0.0;
  tr_tensor_info infos[TR_OP_INPUTS_MAX];
  input_infos(graph, node->inputs, node->input_count, infos);
  return node->custom->flops(infos, node->input_count, node->attributes);
}

static tr_status check_descriptor(const tr_graph *graph, const tr_op_descriptor *descriptor, tr_error *error) {
  if (descriptor->name == NULL || descriptor->name[0] == '\0' || strlen(descriptor->name) >= TR_NAME_BYTES)
    return tr_fail(error, TR_ERR_INVALID, "an op needs a name shorter than %d bytes", TR_NAME_BYTES);
  if (descriptor->shape == NULL || descriptor->forward == NULL)
    return tr_fail(error, TR_ERR_INVALID, "op '%s' has no shape rule or no forward", descriptor->name);
  for (size_t i = 0; i < sizeof own_names / sizeof own_names[0]; i++)
    if (strcmp(own_names[i], descriptor->name) == 0)
      return tr_fail(error, TR_ERR_EXISTS, "op '%s' is built in", descriptor->name);
  for (size_t i = 0; i < graph->custom_count; i++)
    if (strcmp(graph->custom_descriptors[i]->name, descriptor->name) == 0)
      return tr_fail(error, TR_ERR_EXISTS, "op '%s' is registered already", descriptor->name);
  return TR_OK;
}

tr_status tr_op_register(tr_graph *graph, const tr_op_descriptor *descriptor, tr_error *error) {
  TR_TRY(check_descriptor(graph, descriptor, error));
  const size_t needed = graph->custom_count + 1;
  TR_TRY(tr_reserve(graph->allocator, (void **)&graph->custom, &graph->custom_capacity, needed, sizeof *graph->custom,
                    error));
  TR_TRY(tr_reserve(graph->allocator, (void **)&graph->custom_descriptors, &graph->custom_descriptor_capacity, needed,
                    sizeof *graph->custom_descriptors, error));
  tr_op_descriptor *copy = tr_arena_alloc(graph->memory, sizeof *copy);
  tr_op_class *op = tr_arena_alloc(graph->memory, sizeof *op);
  char *name = tr_arena_strdup(graph->memory, descriptor->name);
  if (copy == NULL || op == NULL || name == NULL) return tr_fail_memory(error, "an op", sizeof *copy + sizeof *op);
  *copy = *descriptor;
  copy->name = name;
  *op = (tr_op_class){.name = name,
                      .saves_inputs = copy->saves_inputs,
                      .saves_output = copy->saves_output,
                      .prepare = custom_prepare,
                      .forward = custom_forward,
                      .backward = copy->backward != NULL ? custom_backward : NULL,
                      .flops = custom_flops};
  graph->custom_descriptors[graph->custom_count] = copy;
  graph->custom[graph->custom_count++] = op;
  return TR_OK;
}

static int32_t find_custom(const tr_graph *graph, const char *name) {
  for (size_t i = 0; i < graph->custom_count; i++)
    if (strcmp(graph->custom[i]->name, name) == 0) return (int32_t)i;
  return -1;
}

tr_tensor tr_op_apply(tr_graph *graph, const char *op, const tr_tensor *inputs, int32_t input_count,
                      const void *attributes) {
  if (graph->failed) return TR_TENSOR_INVALID;
  const int32_t found = find_custom(graph, op);
  if (found < 0) return tr_graph_fail_op(graph, op, NULL, "no op of that name is registered");
  if (input_count < 1 || input_count > TR_OP_INPUTS_MAX)
    return tr_graph_fail_op(graph, op, NULL, "%d inputs, not 1 to %d", (int)input_count, TR_OP_INPUTS_MAX);
  for (int32_t i = 0; i < input_count; i++)
    if (!tr_build_ok(graph, op, NULL, inputs[i])) return TR_TENSOR_INVALID;
  const tr_op_descriptor *descriptor = graph->custom_descriptors[found];
  if (descriptor->attribute_bytes > 0 && attributes == NULL)
    return tr_graph_fail_op(graph, op, NULL, "its attributes are missing");
  tr_tensor_info infos[TR_OP_INPUTS_MAX], output = {0};
  input_infos(graph, inputs, input_count, infos);
  tr_error error = {0};
  if (descriptor->shape(infos, input_count, attributes, &output, &error) != TR_OK)
    return tr_graph_fail_op(graph, op, NULL, "%s", error.message);
  if (output.ndim < 1 || output.ndim > TR_NDIM_MAX)
    return tr_graph_fail_op(graph, op, NULL, "its shape rule gives %u dimensions", output.ndim);
  const tr_tensor made = tr_graph_add_node(graph, graph->custom[found], NULL, inputs, input_count, attributes,
                                           descriptor->attribute_bytes, &output);
  if (made != TR_TENSOR_INVALID) graph->nodes[graph->node_count - 1].custom = descriptor;
  return made;
}
