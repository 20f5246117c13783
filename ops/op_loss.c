/* Losses and metrics: one value a row, unweighted. The executor weighs rows when it sums, and the gradient that comes in
 * carries each row's weight. */
#include <string.h>

#include "graph_private.h"

static void labels_to_i32(tr_dtype dtype, const void *from, int32_t *to, size_t count) {
  if (dtype == TR_U8)
    for (size_t i = 0; i < count; i++) to[i] = ((const uint8_t *)from)[i];
  else
    for (size_t i = 0; i < count; i++) to[i] = ((const uint16_t *)from)[i];
}

/* ---- softmax cross-entropy: saved = probabilities, then labels as int32 where they come as something else ------------ */

typedef struct xent_parts {
  size_t rows, classes;
  float *prob;
  const int32_t *label;
  int32_t *converted; /* NULL where the labels are int32 already */
} xent_parts;

static size_t xent_label_offset(size_t rows, size_t classes) { return tr_ops_round64(rows * classes * sizeof(float)); }

static xent_parts xent_parts_of(const tr_op_run *run) {
  const tr_tensor_info *logits = &run->call.input_info[0];
  xent_parts parts = {.rows = (size_t)logits->shape[0], .classes = (size_t)logits->shape[1], .prob = run->saved};
  if (run->call.input_info[1].dtype == TR_I32) {
    parts.label = run->call.inputs[1];
  } else {
    parts.converted = (int32_t *)((char *)run->saved + xent_label_offset(parts.rows, parts.classes));
    parts.label = parts.converted;
  }
  return parts;
}

static tr_status xent_prepare(tr_graph *graph, tr_graph_node *node, tr_error *error) {
  (void)error;
  const tr_tensor_info *logits = &tr_graph_tensor_at(graph, node->inputs[0])->info;
  const size_t rows = (size_t)logits->shape[0], classes = (size_t)logits->shape[1];
  node->saved_bytes = xent_label_offset(rows, classes) + rows * sizeof(int32_t);
  return TR_OK;
}

static void xent_forward_rows(tr_op_run *run, size_t begin, size_t end) {
  const xent_parts p = xent_parts_of(run);
  run->kernels->softmax_xent_forward((const float *)run->call.inputs[0] + begin * p.classes, p.label + begin, NULL,
                                     p.prob + begin * p.classes, (float *)run->call.output + begin, NULL, end - begin,
                                     p.classes);
}

static void xent_forward(tr_op_run *run) {
  const xent_parts p = xent_parts_of(run);
  if (p.converted != NULL) labels_to_i32(run->call.input_info[1].dtype, run->call.inputs[1], p.converted, p.rows);
  tr_ops_split(run, p.rows, 16, xent_forward_rows);
}

static void xent_backward_rows(tr_op_run *run, size_t begin, size_t end) {
  const xent_parts p = xent_parts_of(run);
  run->kernels->softmax_xent_backward(p.prob + begin * p.classes, p.label + begin,
                                      (const float *)run->output_gradient + begin, 1.0f,
                                      (float *)run->call.input_gradients[0] + begin * p.classes, end - begin, p.classes,
                                      run->call.input_gradient_add[0]);
}

static void xent_backward(tr_op_run *run) {
  if (run->call.input_gradients[0] != NULL)
    tr_ops_split(run, (size_t)run->call.input_info[0].shape[0], 16, xent_backward_rows);
}

static double xent_flops(const tr_graph *graph, const tr_graph_node *node) {
  return 5.0 * (double)tr_graph_tensor_at(graph, node->inputs[0])->count;
}

const tr_op_class tr_op_softmax_cross_entropy = {.name = "softmax_cross_entropy",
                                                 .saves_inputs = 2,
                                                 .prepare = xent_prepare,
                                                 .forward = xent_forward,
                                                 .backward = xent_backward,
                                                 .flops = xent_flops};

/* ---- mean squared error -------------------------------------------------------------------------------------------- */

static size_t elements_a_row(const tr_tensor_info *info) {
  return (size_t)(tr_graph_count_of(info) / (uint64_t)info->shape[0]);
}

static void mse_forward_rows(tr_op_run *run, size_t begin, size_t end) {
  const size_t cols = elements_a_row(&run->call.input_info[0]);
  run->kernels->mse_forward((const float *)run->call.inputs[0] + begin * cols,
                            (const float *)run->call.inputs[1] + begin * cols, NULL, (float *)run->call.output + begin,
                            end - begin, cols);
}

static void mse_forward(tr_op_run *run) {
  tr_ops_split(run, (size_t)run->call.output_info.shape[0], 16, mse_forward_rows);
}

/* The error is symmetric, so the gradient of the target is that of x with the two in each other's place. */
static void mse_backward_rows(tr_op_run *run, size_t begin, size_t end) {
  const size_t cols = elements_a_row(&run->call.input_info[0]);
  const float *weight = (const float *)run->output_gradient + begin;
  for (int side = 0; side < 2; side++) {
    if (run->call.input_gradients[side] == NULL) continue;
    run->kernels->mse_backward((const float *)run->call.inputs[side] + begin * cols,
                               (const float *)run->call.inputs[1 - side] + begin * cols, weight, 1.0f,
                               (float *)run->call.input_gradients[side] + begin * cols, end - begin, cols,
                               run->call.input_gradient_add[side]);
  }
}

static void mse_backward(tr_op_run *run) {
  tr_ops_split(run, (size_t)run->call.output_info.shape[0], 16, mse_backward_rows);
}

const tr_op_class tr_op_mean_squared_error = {
    .name = "mean_squared_error", .saves_inputs = 3, .forward = mse_forward, .backward = mse_backward};

/* ---- accuracy ------------------------------------------------------------------------------------------------------ */

static int64_t label_at(const tr_op_run *run, size_t row) {
  const void *labels = run->call.inputs[1];
  switch (run->call.input_info[1].dtype) {
    case TR_U8: return ((const uint8_t *)labels)[row];
    case TR_U16: return ((const uint16_t *)labels)[row];
    default: return ((const int32_t *)labels)[row];
  }
}

static void accuracy_forward(tr_op_run *run) {
  const size_t rows = (size_t)run->call.input_info[0].shape[0], classes = (size_t)run->call.input_info[0].shape[1];
  float *y = run->call.output;
  for (size_t row = 0; row < rows; row++) {
    const float *x = (const float *)run->call.inputs[0] + row * classes;
    size_t best = 0;
    for (size_t c = 1; c < classes; c++)
      if (x[c] > x[best]) best = c;
    y[row] = (int64_t)best == label_at(run, row) ? 1.0f : 0.0f;
  }
}

const tr_op_class tr_op_accuracy = {.name = "accuracy", .forward = accuracy_forward};
