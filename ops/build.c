/* Ops without parameters: their shape rules, and the nodes they append. */
#include <math.h>
#include <string.h>

#include "build_private.h"

bool tr_build_ok(tr_graph *graph, const char *op, const char *name, tr_tensor tensor) {
  if (graph->failed) return false;
  if (tr_graph_has(graph, tensor)) return true;
  tr_graph_fail_op(graph, op, name, "an input is not a tensor of this graph");
  return false;
}

bool tr_build_float(tr_graph *graph, const char *op, const char *name, tr_tensor tensor) {
  if (!tr_build_ok(graph, op, name, tensor)) return false;
  const tr_tensor_info *info = &tr_graph_tensor_at(graph, tensor)->info;
  if (info->dtype == TR_F32) return true;
  char text[96];
  tr_graph_fail_op(graph, op, name, "input %s is %s, not f32; tr_to_float makes it so", tr_graph_shape_text(info, text),
                   tr_dtype_name(info->dtype));
  return false;
}

bool tr_build_rows(tr_graph *graph, const char *op, const char *name, tr_tensor tensor) {
  const tr_tensor_info *info = &tr_graph_tensor_at(graph, tensor)->info;
  if (tr_graph_root(graph, tensor)->kind != TR_TENSOR_PARAM && info->ndim >= 1 && info->shape[0] == graph->rows)
    return true;
  char text[96];
  tr_graph_fail_op(graph, op, name, "input %s does not begin with the graph's %lld rows",
                   tr_graph_shape_text(info, text), (long long)graph->rows);
  return false;
}

static bool same_shape(const tr_tensor_info *a, const tr_tensor_info *b) {
  return a->ndim == b->ndim && memcmp(a->shape, b->shape, a->ndim * sizeof a->shape[0]) == 0;
}

/* f32 of the input's shape. */
static tr_tensor elementwise(tr_graph *graph, const tr_op_class *op, tr_tensor x, const void *attributes,
                             size_t attribute_bytes) {
  tr_tensor_info output = tr_graph_tensor_at(graph, x)->info;
  output.dtype = TR_F32;
  return tr_graph_add_node(graph, op, NULL, &x, 1, attributes, attribute_bytes, &output);
}

tr_tensor tr_to_float(tr_graph *graph, tr_tensor x, float scale, float shift) {
  if (!tr_build_ok(graph, "to_float", NULL, x)) return TR_TENSOR_INVALID;
  const tr_affine_attributes attributes = {.scale = scale, .shift = shift};
  return elementwise(graph, &tr_op_to_float, x, &attributes, sizeof attributes);
}

tr_tensor tr_add(tr_graph *graph, tr_tensor a, tr_tensor b) {
  if (!tr_build_float(graph, "add", NULL, a) || !tr_build_float(graph, "add", NULL, b)) return TR_TENSOR_INVALID;
  const tr_tensor_info first = tr_graph_tensor_at(graph, a)->info, second = tr_graph_tensor_at(graph, b)->info;
  char text[2][96];
  if (!same_shape(&first, &second))
    return tr_graph_fail_op(graph, "add", NULL, "%s and %s differ", tr_graph_shape_text(&first, text[0]),
                            tr_graph_shape_text(&second, text[1]));
  const tr_tensor inputs[] = {a, b};
  return tr_graph_add_node(graph, &tr_op_add, NULL, inputs, 2, NULL, 0, &first);
}

static tr_tensor activation(tr_graph *graph, const tr_op_class *op, tr_tensor x) {
  if (!tr_build_float(graph, op->name, NULL, x)) return TR_TENSOR_INVALID;
  return elementwise(graph, op, x, NULL, 0);
}

tr_tensor tr_relu(tr_graph *graph, tr_tensor x) { return activation(graph, &tr_op_relu, x); }
tr_tensor tr_gelu(tr_graph *graph, tr_tensor x) { return activation(graph, &tr_op_gelu, x); }
tr_tensor tr_gelu_tanh(tr_graph *graph, tr_tensor x) { return activation(graph, &tr_op_gelu_tanh, x); }

/* Random numbers belong to the global row, so what is dropped from must have the rows first. */
tr_tensor tr_dropout(tr_graph *graph, tr_tensor x, float p) {
  if (!tr_build_float(graph, "dropout", NULL, x) || !tr_build_rows(graph, "dropout", NULL, x)) return TR_TENSOR_INVALID;
  if (!(p >= 0.0f && p < 1.0f)) return tr_graph_fail_op(graph, "dropout", NULL, "p is %g, not in [0, 1)", (double)p);
  if (!graph->training || p == 0.0f) {
    graph->next_number++; /* the ops after it keep their numbers */
    return x;
  }
  const tr_dropout_attributes attributes = {.p = p};
  return elementwise(graph, &tr_op_dropout, x, &attributes, sizeof attributes);
}

/* ---- Views --------------------------------------------------------------------------------------------------------- */

tr_tensor tr_reshape(tr_graph *graph, tr_tensor x, uint32_t ndim, const int64_t *shape) {
  if (!tr_build_ok(graph, "reshape", NULL, x) || !tr_build_rows(graph, "reshape", NULL, x)) return TR_TENSOR_INVALID;
  if (ndim + 1 > TR_NDIM_MAX)
    return tr_graph_fail_op(graph, "reshape", NULL, "%u dimensions besides the rows, at most %d", ndim,
                            TR_NDIM_MAX - 1);
  const tr_graph_tensor *from = tr_graph_tensor_at(graph, x);
  tr_graph_tensor view = *from;
  view.info.ndim = ndim + 1;
  memset(view.info.shape, 0, sizeof view.info.shape);
  view.info.shape[0] = graph->rows;
  if (ndim > 0) memcpy(view.info.shape + 1, shape, ndim * sizeof *shape);
  if (tr_graph_count_of(&view.info) != from->count) {
    char text[2][96];
    return tr_graph_fail_op(graph, "reshape", NULL, "%s has not as many elements as %s",
                            tr_graph_shape_text(&from->info, text[0]), tr_graph_shape_text(&view.info, text[1]));
  }
  graph->next_number++;
  view.is_output = false;
  return tr_graph_add_tensor(graph, &view);
}

tr_tensor tr_flatten(tr_graph *graph, tr_tensor x) {
  if (!tr_build_ok(graph, "flatten", NULL, x) || !tr_build_rows(graph, "flatten", NULL, x)) return TR_TENSOR_INVALID;
  const int64_t rest = (int64_t)tr_graph_tensor_at(graph, x)->count / graph->rows;
  return tr_reshape(graph, x, 1, &rest);
}

/* ---- Pooling ------------------------------------------------------------------------------------------------------- */

bool tr_build_window(tr_graph *graph, const char *op, const char *name, tr_tensor x, const int64_t kernel[2],
                     const int64_t stride[2], const int64_t padding[2], tr_window *window) {
  if (!tr_build_float(graph, op, name, x) || !tr_build_rows(graph, op, name, x)) return false;
  const tr_tensor_info *info = &tr_graph_tensor_at(graph, x)->info;
  char text[96];
  tr_graph_shape_text(info, text);
  if (info->ndim != 4) {
    tr_graph_fail_op(graph, op, name, "input %s is not [rows, height, width, channels]", text);
    return false;
  }
  for (int d = 1; d < 4; d++) {
    if (info->shape[d] > 1 << 20) {
      tr_graph_fail_op(graph, op, name, "input %s is too large", text);
      return false;
    }
  }
  for (int d = 0; d < 2; d++) {
    if (kernel[d] < 1 || stride[d] < 1 || padding[d] < 0 || kernel[d] > 4096 || stride[d] > 4096 ||
        padding[d] >= kernel[d]) {
      tr_graph_fail_op(graph, op, name, "kernel [%lld, %lld], stride [%lld, %lld], padding [%lld, %lld] make no window",
                       (long long)kernel[0], (long long)kernel[1], (long long)stride[0], (long long)stride[1],
                       (long long)padding[0], (long long)padding[1]);
      return false;
    }
    if (info->shape[1 + d] + 2 * padding[d] < kernel[d]) {
      tr_graph_fail_op(graph, op, name, "input %s is smaller than the kernel [%lld, %lld]", text, (long long)kernel[0],
                       (long long)kernel[1]);
      return false;
    }
  }
  *window = (tr_window){.h = (int32_t)info->shape[1],
                        .w = (int32_t)info->shape[2],
                        .c = (int32_t)info->shape[3],
                        .kh = (int32_t)kernel[0],
                        .kw = (int32_t)kernel[1],
                        .stride_h = (int32_t)stride[0],
                        .stride_w = (int32_t)stride[1],
                        .pad_h = (int32_t)padding[0],
                        .pad_w = (int32_t)padding[1]};
  window->out_h = (window->h + 2 * window->pad_h - window->kh) / window->stride_h + 1;
  window->out_w = (window->w + 2 * window->pad_w - window->kw) / window->stride_w + 1;
  return true;
}

static tr_tensor pool2d(tr_graph *graph, const tr_op_class *op, tr_tensor x, const tr_pool2d_options *options,
                        int64_t kernel_area_max) {
  const tr_pool2d_options defaults = {.struct_bytes = sizeof defaults};
  const tr_pool2d_options *given = options != NULL ? options : &defaults;
  int64_t kernel[2], stride[2];
  for (int d = 0; d < 2; d++) {
    kernel[d] = given->kernel[d] != 0 ? given->kernel[d] : 2;
    stride[d] = given->stride[d] != 0 ? given->stride[d] : kernel[d];
  }
  tr_window window;
  if (!tr_build_window(graph, op->name, NULL, x, kernel, stride, given->padding, &window)) return TR_TENSOR_INVALID;
  if (kernel[0] * kernel[1] > kernel_area_max)
    return tr_graph_fail_op(graph, op->name, NULL, "kernel [%lld, %lld] has more than %lld elements",
                            (long long)kernel[0], (long long)kernel[1], (long long)kernel_area_max);
  const tr_tensor_info output = {
      .dtype = TR_F32, .ndim = 4, .shape = {graph->rows, window.out_h, window.out_w, window.c}};
  return tr_graph_add_node(graph, op, NULL, &x, 1, &window, sizeof window, &output);
}

tr_tensor tr_max_pool2d(tr_graph *graph, tr_tensor x, const tr_pool2d_options *options) {
  return pool2d(graph, &tr_op_max_pool2d, x, options, 255); /* a choice is kept in one byte */
}

tr_tensor tr_avg_pool2d(tr_graph *graph, tr_tensor x, const tr_pool2d_options *options) {
  return pool2d(graph, &tr_op_avg_pool2d, x, options, INT32_MAX);
}

/* ---- Losses and metrics -------------------------------------------------------------------------------------------- */

static tr_tensor_info one_a_row(const tr_graph *graph) {
  return (tr_tensor_info){.dtype = TR_F32, .ndim = 1, .shape = {graph->rows}};
}

static bool labelled(tr_graph *graph, const char *op, tr_tensor logits, tr_tensor labels) {
  if (!tr_build_float(graph, op, NULL, logits) || !tr_build_ok(graph, op, NULL, labels) ||
      !tr_build_rows(graph, op, NULL, logits))
    return false;
  const tr_tensor_info *x = &tr_graph_tensor_at(graph, logits)->info, *y = &tr_graph_tensor_at(graph, labels)->info;
  char text[2][96];
  tr_graph_shape_text(x, text[0]);
  tr_graph_shape_text(y, text[1]);
  if (x->ndim != 2 || y->ndim != 1 || y->shape[0] != graph->rows) {
    tr_graph_fail_op(graph, op, NULL, "logits %s and labels %s are not [rows, classes] and [rows]", text[0], text[1]);
    return false;
  }
  if (y->dtype != TR_U8 && y->dtype != TR_U16 && y->dtype != TR_I32) {
    tr_graph_fail_op(graph, op, NULL, "labels %s are %s, not u8, u16 or i32", text[1], tr_dtype_name(y->dtype));
    return false;
  }
  return true;
}

tr_tensor tr_softmax_cross_entropy(tr_graph *graph, tr_tensor logits, tr_tensor labels) {
  if (!labelled(graph, "softmax_cross_entropy", logits, labels)) return TR_TENSOR_INVALID;
  const tr_tensor inputs[] = {logits, labels};
  const tr_tensor_info output = one_a_row(graph);
  return tr_graph_add_node(graph, &tr_op_softmax_cross_entropy, NULL, inputs, 2, NULL, 0, &output);
}

tr_tensor tr_accuracy(tr_graph *graph, tr_tensor logits, tr_tensor labels) {
  if (!labelled(graph, "accuracy", logits, labels)) return TR_TENSOR_INVALID;
  const tr_tensor inputs[] = {logits, labels};
  const tr_tensor_info output = one_a_row(graph);
  return tr_graph_add_node(graph, &tr_op_accuracy, NULL, inputs, 2, NULL, 0, &output);
}

tr_tensor tr_mean_squared_error(tr_graph *graph, tr_tensor x, tr_tensor target) {
  const char *op = "mean_squared_error";
  if (!tr_build_float(graph, op, NULL, x) || !tr_build_float(graph, op, NULL, target) ||
      !tr_build_rows(graph, op, NULL, x))
    return TR_TENSOR_INVALID;
  const tr_tensor_info *a = &tr_graph_tensor_at(graph, x)->info, *b = &tr_graph_tensor_at(graph, target)->info;
  char text[2][96];
  if (!same_shape(a, b))
    return tr_graph_fail_op(graph, op, NULL, "%s and target %s differ", tr_graph_shape_text(a, text[0]),
                            tr_graph_shape_text(b, text[1]));
  const tr_tensor inputs[] = {x, target};
  const tr_tensor_info output = one_a_row(graph);
  return tr_graph_add_node(graph, &tr_op_mean_squared_error, NULL, inputs, 2, NULL, 0, &output);
}
