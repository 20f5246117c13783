/* Pooling of images, cut by rows of the micro-batch. */
#include "graph_private.h"

static size_t elements_a_row(const tr_tensor_info *info) {
  return (size_t)(tr_graph_count_of(info) / (uint64_t)info->shape[0]);
}

typedef struct row_pointers {
  const float *x, *dy;
  float *y, *dx;
  uint8_t *choice;
} row_pointers;

static row_pointers at_row(const tr_op_run *run, size_t row) {
  const size_t in = elements_a_row(&run->call.input_info[0]) * row, out = elements_a_row(&run->call.output_info) * row;
  row_pointers p = {0};
  if (run->call.inputs[0] != NULL) p.x = (const float *)run->call.inputs[0] + in;
  if (run->call.output != NULL) p.y = (float *)run->call.output + out;
  if (run->output_gradient != NULL) p.dy = (const float *)run->output_gradient + out;
  if (run->call.input_gradients[0] != NULL) p.dx = (float *)run->call.input_gradients[0] + in;
  if (run->saved != NULL) p.choice = (uint8_t *)run->saved + out;
  return p;
}

static size_t rows_of(const tr_op_run *run) { return (size_t)run->call.output_info.shape[0]; }

/* ---- max ----------------------------------------------------------------------------------------------------------- */

static tr_status max_prepare(tr_graph *graph, tr_graph_node *node, tr_error *error) {
  (void)error;
  node->saved_bytes = (size_t)tr_graph_tensor_at(graph, node->output)->count; /* a choice is one byte */
  return TR_OK;
}

static void max_forward_rows(tr_op_run *run, size_t begin, size_t end) {
  const row_pointers p = at_row(run, begin);
  run->kernels->max_pool_forward(run->call.attributes, p.x, p.y, p.choice, end - begin);
}
static void max_forward(tr_op_run *run) { tr_ops_split(run, rows_of(run), 1, max_forward_rows); }

static void max_backward_rows(tr_op_run *run, size_t begin, size_t end) {
  const row_pointers p = at_row(run, begin);
  run->kernels->max_pool_backward(run->call.attributes, p.dy, p.choice, p.dx, end - begin,
                                  run->call.input_gradient_add[0]);
}
static void max_backward(tr_op_run *run) { tr_ops_split(run, rows_of(run), 1, max_backward_rows); }

const tr_op_class tr_op_max_pool2d = {
    .name = "max_pool2d", .prepare = max_prepare, .forward = max_forward, .backward = max_backward};

/* ---- average ------------------------------------------------------------------------------------------------------- */

static void avg_forward_rows(tr_op_run *run, size_t begin, size_t end) {
  const row_pointers p = at_row(run, begin);
  run->kernels->avg_pool_forward(run->call.attributes, p.x, p.y, end - begin);
}
static void avg_forward(tr_op_run *run) { tr_ops_split(run, rows_of(run), 1, avg_forward_rows); }

static void avg_backward_rows(tr_op_run *run, size_t begin, size_t end) {
  const row_pointers p = at_row(run, begin);
  run->kernels->avg_pool_backward(run->call.attributes, p.dy, p.dx, end - begin, run->call.input_gradient_add[0]);
}
static void avg_backward(tr_op_run *run) { tr_ops_split(run, rows_of(run), 1, avg_backward_rows); }

const tr_op_class tr_op_avg_pool2d = {.name = "avg_pool2d", .forward = avg_forward, .backward = avg_backward};
