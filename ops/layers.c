/* Layers: ops that bring parameters of their own, NAME.weight and the like, initialised as PyTorch does. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "build_private.h"

/* NAME.part, or TR_TENSOR_INVALID. The last dimensions that are 0 do not exist. */
static tr_tensor part(tr_graph *graph, const char *name, const char *what, tr_param_role role, tr_init init,
                      const int64_t shape[4]) {
  char full[TR_NAME_BYTES + 32];
  snprintf(full, sizeof full, "%s.%s", name, what);
  tr_param_spec spec = {.struct_bytes = sizeof spec, .name = full, .role = role, .init = init};
  while (spec.ndim < 4 && shape[spec.ndim] != 0) {
    spec.shape[spec.ndim] = shape[spec.ndim];
    spec.ndim++;
  }
  return tr_parameter(graph, &spec);
}

static bool named(tr_graph *graph, const char *op, const char *name) {
  if (graph->failed) return false;
  if (name != NULL && name[0] != '\0' && strlen(name) < TR_NAME_BYTES - 16) return true;
  tr_graph_fail_op(graph, op, NULL, "a layer needs a name shorter than %d bytes", TR_NAME_BYTES - 16);
  return false;
}

/* kaiming_uniform(a = sqrt(5)) of PyTorch's layers comes to this for the weight, and so does the bias. */
static tr_init uniform_by_fan_in(int64_t fan_in) {
  const float bound = (float)(1.0 / sqrt((double)fan_in));
  return (tr_init){.kind = TR_INIT_UNIFORM, .a = -bound, .b = bound};
}

static const tr_init ones = {.kind = TR_INIT_CONSTANT, .a = 1.0f};
static const tr_init zeros = {.kind = TR_INIT_ZEROS};

tr_tensor tr_linear(tr_graph *graph, const char *name, tr_tensor x, int64_t out_features, bool bias) {
  if (!named(graph, "linear", name) || !tr_build_float(graph, "linear", name, x)) return TR_TENSOR_INVALID;
  tr_tensor_info output = tr_graph_tensor_at(graph, x)->info;
  const int64_t in = output.ndim > 0 ? output.shape[output.ndim - 1] : 0;
  const int64_t rows = in > 0 ? (int64_t)tr_graph_tensor_at(graph, x)->count / in : 0;
  char text[96];
  tr_graph_shape_text(&output, text);
  if (output.ndim < 2) return tr_graph_fail_op(graph, "linear", name, "input %s is not [rows, ..., in]", text);
  if (out_features < 1 || out_features > INT32_MAX / 2 || in > INT32_MAX / 2 || rows > INT32_MAX / 2)
    return tr_graph_fail_op(graph, "linear", name, "input %s with weight [%lld, %lld]: too small or too large", text,
                            (long long)out_features, (long long)in);
  const tr_init init = uniform_by_fan_in(in);
  tr_tensor inputs[3] = {x};
  inputs[1] = part(graph, name, "weight", TR_PARAM_TRAINED, init, (int64_t[4]){out_features, in});
  if (bias) inputs[2] = part(graph, name, "bias", TR_PARAM_TRAINED, init, (int64_t[4]){out_features});
  output.shape[output.ndim - 1] = out_features;
  const tr_linear_attributes attributes = {.rows = rows, .in = in, .out = out_features, .bias = bias};
  return tr_graph_add_node(graph, &tr_op_linear, name, inputs, bias ? 3 : 2, &attributes, sizeof attributes, &output);
}

tr_tensor tr_conv2d(tr_graph *graph, const char *name, tr_tensor x, const tr_conv2d_options *options) {
  if (!named(graph, "conv2d", name)) return TR_TENSOR_INVALID;
  int64_t kernel[2], stride[2];
  for (int d = 0; d < 2; d++) {
    kernel[d] = options->kernel[d] != 0 ? options->kernel[d] : 3;
    stride[d] = options->stride[d] != 0 ? options->stride[d] : 1;
  }
  tr_conv_attributes attributes = {.out_c = options->out_channels, .bias = !options->no_bias};
  tr_window *window = &attributes.window;
  if (!tr_build_window(graph, "conv2d", name, x, kernel, stride, options->padding, window)) return TR_TENSOR_INVALID;
  if (options->out_channels < 1 || options->out_channels > 1 << 20)
    return tr_graph_fail_op(graph, "conv2d", name, "out_channels is %lld", (long long)options->out_channels);
  const tr_init init = uniform_by_fan_in(kernel[0] * kernel[1] * window->c);
  tr_tensor inputs[3] = {x};
  inputs[1] = part(graph, name, "weight", TR_PARAM_TRAINED, init,
                   (int64_t[4]){options->out_channels, kernel[0], kernel[1], window->c});
  if (attributes.bias)
    inputs[2] = part(graph, name, "bias", TR_PARAM_TRAINED, init, (int64_t[4]){options->out_channels});
  const tr_tensor_info output = {
      .dtype = TR_F32, .ndim = 4, .shape = {graph->rows, window->out_h, window->out_w, options->out_channels}};
  return tr_graph_add_node(graph, &tr_op_conv2d, name, inputs, attributes.bias ? 3 : 2, &attributes, sizeof attributes,
                           &output);
}

/* [n][c] with the last dimension as c. */
static bool norm_shape(tr_graph *graph, const char *op, const char *name, tr_tensor x, float eps,
                       tr_norm_attributes *attributes) {
  if (!named(graph, op, name) || !tr_build_float(graph, op, name, x) || !tr_build_rows(graph, op, name, x))
    return false;
  const tr_graph_tensor *tensor = tr_graph_tensor_at(graph, x);
  char text[96];
  if (tensor->info.ndim < 2) {
    tr_graph_fail_op(graph, op, name, "input %s is not [rows, ..., channels]",
                     tr_graph_shape_text(&tensor->info, text));
    return false;
  }
  if (!(eps > 0.0f)) {
    tr_graph_fail_op(graph, op, name, "eps is %g, not above 0", (double)eps);
    return false;
  }
  attributes->c = tensor->info.shape[tensor->info.ndim - 1];
  attributes->n = (int64_t)tensor->count / attributes->c;
  attributes->eps = eps;
  return true;
}

tr_tensor tr_layer_norm(tr_graph *graph, const char *name, tr_tensor x, float eps) {
  tr_norm_attributes attributes;
  if (!norm_shape(graph, "layer_norm", name, x, eps, &attributes)) return TR_TENSOR_INVALID;
  const int64_t shape[4] = {attributes.c};
  const tr_tensor inputs[] = {x, part(graph, name, "weight", TR_PARAM_TRAINED, ones, shape),
                              part(graph, name, "bias", TR_PARAM_TRAINED, zeros, shape)};
  const tr_tensor_info output = graph->failed ? (tr_tensor_info){0} : tr_graph_tensor_at(graph, x)->info;
  return tr_graph_add_node(graph, &tr_op_layer_norm, name, inputs, 3, &attributes, sizeof attributes, &output);
}

/* The state slots of the gradient hold one micro-batch's statistics, so one op of a training graph writes them. */
tr_tensor tr_batch_norm(tr_graph *graph, const char *name, tr_tensor x, float eps) {
  tr_norm_attributes attributes;
  if (!norm_shape(graph, "batch_norm", name, x, eps, &attributes)) return TR_TENSOR_INVALID;
  const size_t before = graph->tensor_count;
  const int64_t shape[4] = {attributes.c};
  const tr_tensor inputs[] = {x, part(graph, name, "weight", TR_PARAM_TRAINED, ones, shape),
                              part(graph, name, "bias", TR_PARAM_TRAINED, zeros, shape),
                              part(graph, name, "running_mean", TR_PARAM_STATE, zeros, shape),
                              part(graph, name, "running_var", TR_PARAM_STATE, ones, shape)};
  if (graph->failed) return TR_TENSOR_INVALID;
  if (graph->training && (size_t)inputs[3] < before)
    return tr_graph_fail_op(graph, "batch_norm", name, "its running statistics have another writer already");
  const tr_tensor_info output = tr_graph_tensor_at(graph, x)->info;
  const tr_op_class *op = graph->training ? &tr_op_batch_norm : &tr_op_batch_norm_running;
  return tr_graph_add_node(graph, op, name, inputs, 5, &attributes, sizeof attributes, &output);
}

tr_tensor tr_embedding(tr_graph *graph, const char *name, tr_tensor ids, int64_t count, int64_t width) {
  if (!named(graph, "embedding", name) || !tr_build_ok(graph, "embedding", name, ids)) return TR_TENSOR_INVALID;
  const tr_graph_tensor *tensor = tr_graph_tensor_at(graph, ids);
  tr_tensor_info output = tensor->info;
  char text[96];
  tr_graph_shape_text(&output, text);
  if (output.dtype != TR_I32 && output.dtype != TR_U16)
    return tr_graph_fail_op(graph, "embedding", name, "ids %s are %s, not i32 or u16", text,
                            tr_dtype_name(output.dtype));
  if (output.ndim + 1 > TR_NDIM_MAX)
    return tr_graph_fail_op(graph, "embedding", name, "ids %s have too many dimensions", text);
  if (count < 1 || count > INT32_MAX || width < 1 || width > INT32_MAX)
    return tr_graph_fail_op(graph, "embedding", name, "weight [%lld, %lld]: too small or too large", (long long)count,
                            (long long)width);
  const tr_embedding_attributes attributes = {.n = (int64_t)tensor->count, .count = count, .width = width};
  const tr_init normal = {.kind = TR_INIT_NORMAL, .a = 0.0f, .b = 1.0f};
  const tr_tensor inputs[] = {ids, part(graph, name, "weight", TR_PARAM_TRAINED, normal, (int64_t[4]){count, width})};
  output.dtype = TR_F32;
  output.shape[output.ndim++] = width;
  return tr_graph_add_node(graph, &tr_op_embedding, name, inputs, 2, &attributes, sizeof attributes, &output);
}
