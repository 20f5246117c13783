/* The graph as it is built: tensors, nodes, inputs, outputs, and the first error of all. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "graph_private.h"

/* Elements of one tensor: far above any that fits in memory, far below where products overflow. */
#define COUNT_MAX ((uint64_t)1 << 40)

tr_status tr_graph_create(const tr_graph_options *options, tr_graph **out, tr_error *error) {
  if (options->params == NULL || options->device == NULL)
    return tr_fail(error, TR_ERR_INVALID, "a graph needs parameters and a device");
  if (options->rows < 1 || options->rows > INT32_MAX / 2)
    return tr_fail(error, TR_ERR_INVALID, "a graph of %lld rows", (long long)options->rows);
  if (tr_device_kind_of(options->device) != TR_DEVICE_CPU)
    return tr_fail(error, TR_ERR_UNSUPPORTED, "graphs on %s: planned, not in this version",
                   tr_device_name(options->device));
  const tr_allocator *allocator = options->allocator != NULL ? options->allocator : tr_allocator_system();
  tr_graph *graph = tr_calloc(allocator, 1, sizeof *graph);
  if (graph == NULL) return tr_fail_memory(error, "a graph", sizeof *graph);
  graph->allocator = allocator;
  graph->device = options->device;
  graph->params = options->params;
  graph->rows = options->rows;
  graph->training = options->training;
  graph->output_count = 1;
  graph->outputs[0] = (tr_graph_output){.name = "loss", .tensor = TR_TENSOR_INVALID};
  const tr_status status = tr_arena_create(allocator, 16384, &graph->memory, error);
  if (status != TR_OK) {
    tr_free(allocator, graph);
    return status;
  }
  *out = graph;
  return TR_OK;
}

void tr_graph_destroy(tr_graph *graph) {
  if (graph == NULL) return;
  for (size_t i = 0; i < graph->node_count; i++) {
    tr_graph_node *node = &graph->nodes[i];
    if (node->object != NULL && node->op->unprepare != NULL) node->op->unprepare(graph, node);
  }
  if (graph->arena != NULL) tr_device_free(graph->device, TR_SPACE_DEVICE, graph->arena, graph->arena_bytes);
  if (graph->packed != NULL) tr_device_free(graph->device, TR_SPACE_DEVICE, graph->packed, graph->packed_bytes);
  tr_free(graph->allocator, graph->tensors);
  tr_free(graph->allocator, graph->nodes);
  tr_free(graph->allocator, graph->inputs);
  tr_free(graph->allocator, graph->input_names);
  tr_free(graph->allocator, graph->custom);
  tr_free(graph->allocator, graph->custom_descriptors);
  tr_free(graph->allocator, graph->buffers);
  tr_arena_destroy(graph->memory);
  tr_free(graph->allocator, graph);
}

bool tr_graph_training(const tr_graph *graph) { return graph->training; }
int64_t tr_graph_rows(const tr_graph *graph) { return graph->rows; }

bool tr_graph_has(const tr_graph *graph, tr_tensor tensor) {
  return tensor >= 0 && (size_t)tensor < graph->tensor_count;
}

tr_tensor_info tr_tensor_describe(const tr_graph *graph, tr_tensor tensor) {
  if (!tr_graph_has(graph, tensor)) return (tr_tensor_info){0};
  return graph->tensors[tensor].info;
}

/* ---- Failure ------------------------------------------------------------------------------------------------------- */

void tr_graph_fail_error(tr_graph *graph, const tr_error *error) {
  if (graph->failed) return;
  graph->failed = true;
  graph->first_error = *error;
}

tr_tensor tr_graph_fail(tr_graph *graph, const char *format, ...) {
  char message[TR_ERROR_MESSAGE_BYTES];
  va_list list;
  va_start(list, format);
  vsnprintf(message, sizeof message, format, list);
  va_end(list);
  tr_error error;
  tr_fail(&error, TR_ERR_INVALID, "%s", message);
  tr_graph_fail_error(graph, &error);
  return TR_TENSOR_INVALID;
}

tr_tensor tr_graph_fail_op(tr_graph *graph, const char *op, const char *name, const char *format, ...) {
  char message[TR_ERROR_MESSAGE_BYTES - 160];
  va_list list;
  va_start(list, format);
  vsnprintf(message, sizeof message, format, list);
  va_end(list);
  if (name == NULL || name[0] == '\0') return tr_graph_fail(graph, "%s: %s", op, message);
  return tr_graph_fail(graph, "%s '%s': %s", op, name, message);
}

static tr_tensor fail_memory(tr_graph *graph, const char *what, size_t bytes) {
  tr_error error;
  tr_fail_memory(&error, what, bytes);
  tr_graph_fail_error(graph, &error);
  return TR_TENSOR_INVALID;
}

const char *tr_graph_shape_text(const tr_tensor_info *info, char text[96]) {
  size_t at = 0;
  text[at++] = '[';
  for (uint32_t d = 0; d < info->ndim; d++) {
    const int written = snprintf(text + at, 96 - at, "%s%lld", d > 0 ? ", " : "", (long long)info->shape[d]);
    if (written < 0 || (size_t)written >= 95 - at) break;
    at += (size_t)written;
  }
  text[at++] = ']';
  text[at] = '\0';
  return text;
}

/* ---- Tensors and nodes --------------------------------------------------------------------------------------------- */

uint64_t tr_graph_count_of(const tr_tensor_info *info) {
  uint64_t count = 1;
  for (uint32_t d = 0; d < info->ndim; d++) {
    if (info->shape[d] < 1 || (uint64_t)info->shape[d] > COUNT_MAX / count) return 0;
    count *= (uint64_t)info->shape[d];
  }
  return count;
}

tr_tensor tr_graph_add_tensor(tr_graph *graph, const tr_graph_tensor *tensor) {
  tr_error error;
  if (tr_reserve(graph->allocator, (void **)&graph->tensors, &graph->tensor_capacity, graph->tensor_count + 1,
                 sizeof *graph->tensors, &error) != TR_OK) {
    tr_graph_fail_error(graph, &error);
    return TR_TENSOR_INVALID;
  }
  tr_graph_tensor made = *tensor;
  made.count = tr_graph_count_of(&made.info);
  made.bytes = (size_t)made.count * tr_dtype_bytes(made.info.dtype);
  if (made.root < 0) made.root = (tr_tensor)graph->tensor_count;
  made.value_buffer = made.gradient_buffer = -1;
  graph->tensors[graph->tensor_count] = made;
  return (tr_tensor)graph->tensor_count++;
}

tr_tensor tr_graph_add_node(tr_graph *graph, const tr_op_class *op, const char *name, const tr_tensor *inputs,
                            int32_t input_count, const void *attributes, size_t attribute_bytes,
                            const tr_tensor_info *output) {
  if (graph->failed) return TR_TENSOR_INVALID;
  if (tr_graph_count_of(output) == 0) {
    char text[96];
    return tr_graph_fail_op(graph, op->name, name, "the output %s is empty or too large",
                            tr_graph_shape_text(output, text));
  }
  tr_error error;
  if (tr_reserve(graph->allocator, (void **)&graph->nodes, &graph->node_capacity, graph->node_count + 1,
                 sizeof *graph->nodes, &error) != TR_OK) {
    tr_graph_fail_error(graph, &error);
    return TR_TENSOR_INVALID;
  }
  tr_graph_node node = {.op = op, .number = graph->next_number++, .input_count = input_count, .name = ""};
  node.forward_time = node.backward_time = -1;
  node.saved_buffer = node.forward_scratch_buffer = node.backward_scratch_buffer = -1;
  memcpy(node.inputs, inputs, (size_t)input_count * sizeof *inputs);
  if (name != NULL && name[0] != '\0') {
    node.name = tr_arena_strdup(graph->memory, name);
    if (node.name == NULL) return fail_memory(graph, "a layer's name", strlen(name) + 1);
  }
  if (attribute_bytes > 0) {
    node.attributes = tr_arena_alloc(graph->memory, attribute_bytes);
    if (node.attributes == NULL) return fail_memory(graph, "an op's attributes", attribute_bytes);
    memcpy(node.attributes, attributes, attribute_bytes);
    node.attribute_bytes = attribute_bytes;
  }
  const tr_graph_tensor tensor = {
      .info = *output, .root = -1, .producer = (int32_t)graph->node_count, .input = -1, .param = -1};
  node.output = tr_graph_add_tensor(graph, &tensor);
  if (node.output == TR_TENSOR_INVALID) return TR_TENSOR_INVALID;
  graph->nodes[graph->node_count++] = node;
  return node.output;
}

/* ---- Inputs and parameters ----------------------------------------------------------------------------------------- */

tr_tensor tr_input(tr_graph *graph, const char *name, tr_dtype dtype, uint32_t ndim, const int64_t *shape) {
  if (graph->failed) return TR_TENSOR_INVALID;
  if (ndim + 1 > TR_NDIM_MAX)
    return tr_graph_fail_op(graph, "input", name, "%u dimensions besides the rows, at most %d", ndim, TR_NDIM_MAX - 1);
  for (int32_t i = 0; i < graph->input_count; i++)
    if (strcmp(graph->input_names[i], name) == 0)
      return tr_graph_fail_op(graph, "input", name, "there are two inputs of that name");
  tr_graph_tensor tensor = {.info = {.dtype = dtype, .ndim = ndim + 1},
                            .kind = TR_TENSOR_INPUT,
                            .root = -1,
                            .producer = -1,
                            .input = graph->input_count,
                            .param = -1};
  tensor.info.shape[0] = graph->rows;
  if (ndim > 0) memcpy(tensor.info.shape + 1, shape, ndim * sizeof *shape);
  char text[96];
  if (tr_graph_count_of(&tensor.info) == 0)
    return tr_graph_fail_op(graph, "input", name, "%s is empty or too large", tr_graph_shape_text(&tensor.info, text));
  const char *copy = tr_arena_strdup(graph->memory, name);
  if (copy == NULL) return fail_memory(graph, "an input's name", strlen(name) + 1);
  tr_error error;
  const size_t needed = (size_t)graph->input_count + 1;
  if (tr_reserve(graph->allocator, (void **)&graph->inputs, &graph->input_capacity, needed, sizeof *graph->inputs,
                 &error) != TR_OK ||
      tr_reserve(graph->allocator, (void **)&graph->input_names, &graph->input_name_capacity, needed,
                 sizeof *graph->input_names, &error) != TR_OK) {
    tr_graph_fail_error(graph, &error);
    return TR_TENSOR_INVALID;
  }
  const tr_tensor made = tr_graph_add_tensor(graph, &tensor);
  if (made == TR_TENSOR_INVALID) return made;
  graph->inputs[graph->input_count] = made;
  graph->input_names[graph->input_count++] = copy;
  return made;
}

int32_t tr_graph_input_count(const tr_graph *graph) { return graph->input_count; }

const char *tr_graph_input_name(const tr_graph *graph, int32_t input) {
  return input >= 0 && input < graph->input_count ? graph->input_names[input] : NULL;
}

tr_tensor tr_graph_input_tensor(const tr_graph *graph, int32_t input) {
  return input >= 0 && input < graph->input_count ? graph->inputs[input] : TR_TENSOR_INVALID;
}

/* A parameter is one tensor of the graph however many ops read it, so a tie is seen as several readers of one tensor. */
tr_tensor tr_parameter(tr_graph *graph, const tr_param_spec *spec) {
  if (graph->failed) return TR_TENSOR_INVALID;
  tr_error error;
  tr_param param = -1;
  if (tr_params_add(graph->params, spec, &param, &error) != TR_OK) {
    tr_graph_fail_error(graph, &error);
    return TR_TENSOR_INVALID;
  }
  for (size_t i = 0; i < graph->tensor_count; i++)
    if (graph->tensors[i].kind == TR_TENSOR_PARAM && graph->tensors[i].param == param) return (tr_tensor)i;
  tr_graph_tensor tensor = {.info = {.dtype = TR_F32, .ndim = spec->ndim},
                            .kind = TR_TENSOR_PARAM,
                            .root = -1,
                            .producer = -1,
                            .input = -1,
                            .param = param};
  memcpy(tensor.info.shape, spec->shape, spec->ndim * sizeof spec->shape[0]);
  return tr_graph_add_tensor(graph, &tensor);
}

/* ---- Outputs ------------------------------------------------------------------------------------------------------- */

static bool per_row(tr_graph *graph, const char *what, const char *name, tr_tensor tensor) {
  if (graph->failed) return false;
  if (!tr_graph_has(graph, tensor)) {
    tr_graph_fail_op(graph, what, name, "is not a tensor of this graph");
    return false;
  }
  const tr_graph_tensor *t = tr_graph_tensor_at(graph, tensor);
  if (t->info.dtype == TR_F32 && t->info.ndim == 1 && t->info.shape[0] == graph->rows &&
      tr_graph_root(graph, tensor)->kind == TR_TENSOR_ACTIVATION)
    return true;
  char text[96];
  tr_graph_fail_op(graph, what, name, "must be one f32 value a row, [%lld], not %s %s", (long long)graph->rows,
                   tr_dtype_name(t->info.dtype), tr_graph_shape_text(&t->info, text));
  return false;
}

void tr_graph_loss(tr_graph *graph, tr_tensor tensor) {
  if (!per_row(graph, "loss", NULL, tensor)) return;
  if (graph->outputs[0].tensor != TR_TENSOR_INVALID) {
    tr_graph_fail(graph, "loss: there are two; add them, [rows] each");
    return;
  }
  graph->outputs[0].tensor = tensor;
  tr_graph_root(graph, tensor)->is_output = true;
}

void tr_graph_metric(tr_graph *graph, const char *name, tr_tensor tensor) {
  if (!per_row(graph, "metric", name, tensor)) return;
  for (int32_t i = 0; i < graph->output_count; i++) {
    if (strcmp(graph->outputs[i].name, name) == 0) {
      tr_graph_fail_op(graph, "metric", name, "there are two outputs of that name");
      return;
    }
  }
  if (graph->output_count == TR_OUTPUTS_MAX) {
    tr_graph_fail_op(graph, "metric", name, "more than %d outputs", TR_OUTPUTS_MAX);
    return;
  }
  const char *copy = tr_arena_strdup(graph->memory, name);
  if (copy == NULL) {
    fail_memory(graph, "a metric's name", strlen(name) + 1);
    return;
  }
  graph->outputs[graph->output_count++] = (tr_graph_output){.name = copy, .tensor = tensor};
  tr_graph_root(graph, tensor)->is_output = true;
}

int32_t tr_graph_output_count(const tr_graph *graph) { return graph->output_count; }

const char *tr_graph_output_name(const tr_graph *graph, int32_t output) {
  return output >= 0 && output < graph->output_count ? graph->outputs[output].name : NULL;
}
