/* Layer norm over each row, batch norm over each channel.
 *
 * Batch norm takes its statistics over the rows that are there: rows of weight 0 are left out of the mean, the variance
 * and the gradient, wherever they stand. Usually they are the last ones and the kernels simply see fewer rows; where
 * they stand in between, a plain loop that skips them does the work. */
#include <string.h>

#include "graph_private.h"

/* ---- layer norm: saved = mean, rstd --------------------------------------------------------------------------------- */

static tr_status layer_prepare(tr_graph *graph, tr_graph_node *node, tr_error *error) {
  (void)graph;
  (void)error;
  const tr_norm_attributes *a = node->attributes;
  node->saved_bytes = 2 * (size_t)a->n * sizeof(float);
  node->backward_scratch = 2 * (size_t)a->c * sizeof(float);
  return TR_OK;
}

static void layer_forward_rows(tr_op_run *run, size_t begin, size_t end) {
  const tr_norm_attributes *a = run->call.attributes;
  float *mean = run->saved, *rstd = mean + a->n;
  const size_t c = (size_t)a->c;
  run->kernels->layer_norm_forward((const float *)run->call.inputs[0] + begin * c, run->call.inputs[1],
                                   run->call.inputs[2], a->eps, (float *)run->call.output + begin * c, mean + begin,
                                   rstd + begin, end - begin, c);
}

static void layer_forward(tr_op_run *run) {
  const tr_norm_attributes *a = run->call.attributes;
  tr_ops_split(run, (size_t)a->n, 16, layer_forward_rows);
}

static void layer_data_rows(tr_op_run *run, size_t begin, size_t end) {
  const tr_norm_attributes *a = run->call.attributes;
  const float *mean = run->saved, *rstd = mean + a->n;
  const size_t c = (size_t)a->c;
  run->kernels->layer_norm_backward_data((const float *)run->call.inputs[0] + begin * c,
                                         (const float *)run->output_gradient + begin * c, run->call.inputs[1],
                                         mean + begin, rstd + begin, (float *)run->call.input_gradients[0] + begin * c,
                                         end - begin, c, run->call.input_gradient_add[0]);
}

/* Sums go to the scratch and from there to where they are wanted, so that weight and bias may differ in add. */
static void layer_param_columns(tr_op_run *run, size_t begin, size_t end) {
  const tr_norm_attributes *a = run->call.attributes;
  const float *mean = run->saved, *rstd = mean + a->n;
  float *sums = run->scratch;
  run->kernels->layer_norm_backward_params(run->call.inputs[0], run->output_gradient, mean, rstd, sums, sums + a->c,
                                           (size_t)a->n, (size_t)a->c, begin, end, false);
}

static void hand_over(tr_op_run *run, int32_t input, const float *sums, size_t count) {
  float *to = run->call.input_gradients[input];
  if (to == NULL) return;
  if (run->call.input_gradient_add[input])
    run->kernels->add(to, sums, to, count);
  else
    memcpy(to, sums, count * sizeof *to);
}

static void layer_backward(tr_op_run *run) {
  const tr_norm_attributes *a = run->call.attributes;
  const float *sums = run->scratch;
  if (run->call.input_gradients[1] != NULL || run->call.input_gradients[2] != NULL) {
    tr_ops_split(run, (size_t)a->c, 64, layer_param_columns);
    hand_over(run, 1, sums, (size_t)a->c);
    hand_over(run, 2, sums + a->c, (size_t)a->c);
  }
  if (run->call.input_gradients[0] != NULL) tr_ops_split(run, (size_t)a->n, 16, layer_data_rows);
}

static double norm_flops(const tr_graph *graph, const tr_graph_node *node) {
  (void)graph;
  const tr_norm_attributes *a = node->attributes;
  return 8.0 * (double)a->n * (double)a->c;
}

const tr_op_class tr_op_layer_norm = {.name = "layer_norm",
                                      .saves_inputs = 3,
                                      .prepare = layer_prepare,
                                      .forward = layer_forward,
                                      .backward = layer_backward,
                                      .flops = norm_flops};

/* ---- batch norm: saved = mean, rstd, variance (unbiased) ------------------------------------------------------------- */

typedef struct batch_view {
  size_t c;
  size_t positions; /* of a row: height * width */
  size_t rows;
  size_t rows_there; /* of weight other than 0 */
  bool in_front;     /* those are the first ones */
  float eps;
  float *mean, *rstd, *var;
} batch_view;

static batch_view view_of(const tr_op_run *run) {
  const tr_norm_attributes *a = run->call.attributes;
  batch_view v = {.c = (size_t)a->c, .rows = (size_t)run->call.output_info.shape[0], .in_front = true, .eps = a->eps};
  v.positions = (size_t)a->n / v.rows;
  v.mean = run->saved;
  v.rstd = v.mean + v.c;
  v.var = v.rstd + v.c;
  for (size_t row = 0; row < v.rows; row++) {
    if (run->row_weight[row] == 0.0f) continue;
    v.in_front = v.in_front && row == v.rows_there;
    v.rows_there++;
  }
  return v;
}

static tr_status batch_prepare(tr_graph *graph, tr_graph_node *node, tr_error *error) {
  (void)graph;
  (void)error;
  const tr_norm_attributes *a = node->attributes;
  node->saved_bytes = 3 * (size_t)a->c * sizeof(float);
  node->backward_scratch = 2 * (size_t)a->c * sizeof(float);
  return TR_OK;
}

/* Mean and biased variance of columns [c0, c1) over the rows of weight other than 0. */
static void stats_skipping(const tr_op_run *run, const batch_view *v, size_t c0, size_t c1) {
  const float *x = run->call.inputs[0];
  const double n = (double)(v->rows_there * v->positions);
  for (size_t c = c0; c < c1; c++) {
    double sum = 0.0, squares = 0.0;
    for (size_t i = 0; i < v->rows * v->positions; i++)
      if (run->row_weight[i / v->positions] != 0.0f) sum += (double)x[i * v->c + c];
    const double mean = sum / n;
    for (size_t i = 0; i < v->rows * v->positions; i++) {
      const double d = (double)x[i * v->c + c] - mean;
      if (run->row_weight[i / v->positions] != 0.0f) squares += d * d;
    }
    v->mean[c] = (float)mean;
    v->var[c] = (float)(squares / n);
  }
}

static void batch_stats_columns(tr_op_run *run, size_t begin, size_t end) {
  const batch_view v = view_of(run);
  if (v.rows_there == 0) {
    memset(v.mean + begin, 0, (end - begin) * sizeof *v.mean);
    memset(v.var + begin, 0, (end - begin) * sizeof *v.var);
  } else if (v.in_front) {
    run->kernels->batch_norm_stats(run->call.inputs[0], v.rows_there * v.positions, v.c, begin, end, v.mean, v.var);
  } else {
    stats_skipping(run, &v, begin, end);
  }
}

static void batch_apply_rows(tr_op_run *run, size_t begin, size_t end) {
  const batch_view v = view_of(run);
  const size_t at = begin * v.positions * v.c;
  run->kernels->batch_norm_apply((const float *)run->call.inputs[0] + at, v.mean, v.rstd, run->call.inputs[1],
                                 run->call.inputs[2], (float *)run->call.output + at, (end - begin) * v.positions, v.c);
}

static void batch_forward(tr_op_run *run) {
  const batch_view v = view_of(run);
  tr_ops_split(run, v.c, 32, batch_stats_columns);
  run->kernels->batch_norm_rstd(v.var, v.eps, v.rstd, v.c);
  tr_ops_split(run, v.rows, 1, batch_apply_rows);
  /* What the running variance takes in is unbiased; a single value has no other than its own. */
  const double n = (double)(v.rows_there * v.positions);
  if (n > 1.0)
    for (size_t c = 0; c < v.c; c++) v.var[c] = (float)((double)v.var[c] * (n / (n - 1.0)));
}

static void batch_write_state(tr_op_run *run) {
  const batch_view v = view_of(run);
  memcpy(run->call.input_gradients[3], v.mean, v.c * sizeof *v.mean);
  memcpy(run->call.input_gradients[4], v.var, v.c * sizeof *v.var);
}

static void params_skipping(const tr_op_run *run, const batch_view *v, size_t c0, size_t c1, float *dgamma,
                            float *dbeta) {
  const float *x = run->call.inputs[0], *dy = run->output_gradient;
  for (size_t c = c0; c < c1; c++) {
    double gamma = 0.0, beta = 0.0;
    for (size_t i = 0; i < v->rows * v->positions; i++) {
      if (run->row_weight[i / v->positions] == 0.0f) continue;
      const double d = (double)dy[i * v->c + c];
      gamma += d * ((double)x[i * v->c + c] - (double)v->mean[c]) * (double)v->rstd[c];
      beta += d;
    }
    dgamma[c] = (float)gamma;
    dbeta[c] = (float)beta;
  }
}

static void batch_param_columns(tr_op_run *run, size_t begin, size_t end) {
  const batch_view v = view_of(run);
  float *dgamma = run->scratch, *dbeta = dgamma + v.c;
  if (v.in_front)
    run->kernels->batch_norm_backward_params(run->call.inputs[0], run->output_gradient, v.mean, v.rstd, dgamma, dbeta,
                                             v.rows_there * v.positions, v.c, begin, end);
  else
    params_skipping(run, &v, begin, end, dgamma, dbeta);
}

/* A row that is not there gets no gradient. */
static void batch_data_rows(tr_op_run *run, size_t begin, size_t end) {
  const batch_view v = view_of(run);
  const float *dgamma = run->scratch, *dbeta = dgamma + v.c;
  const bool add = run->call.input_gradient_add[0];
  for (size_t row = begin; row < end; row++) {
    const size_t at = row * v.positions * v.c;
    float *dx = (float *)run->call.input_gradients[0] + at;
    if (run->row_weight[row] != 0.0f)
      run->kernels->batch_norm_backward_data(
          (const float *)run->call.inputs[0] + at, (const float *)run->output_gradient + at, v.mean, v.rstd,
          run->call.inputs[1], dgamma, dbeta, dx, v.positions, v.rows_there * v.positions, v.c, add);
    else if (!add)
      memset(dx, 0, v.positions * v.c * sizeof *dx);
  }
}

static void batch_backward(tr_op_run *run) {
  const batch_view v = view_of(run);
  const float *sums = run->scratch;
  if (v.rows_there > 0)
    tr_ops_split(run, v.c, 32, batch_param_columns);
  else
    memset(run->scratch, 0, 2 * v.c * sizeof *sums);
  hand_over(run, 1, sums, v.c);
  hand_over(run, 2, sums + v.c, v.c);
  if (run->call.input_gradients[0] != NULL) tr_ops_split(run, v.rows, 1, batch_data_rows);
}

const tr_op_class tr_op_batch_norm = {.name = "batch_norm",
                                      .saves_inputs = 3,
                                      .prepare = batch_prepare,
                                      .forward = batch_forward,
                                      .backward = batch_backward,
                                      .write_state = batch_write_state,
                                      .flops = norm_flops};

/* ---- batch norm in evaluation: the running statistics ---------------------------------------------------------------- */

static tr_status running_prepare(tr_graph *graph, tr_graph_node *node, tr_error *error) {
  (void)graph;
  (void)error;
  const tr_norm_attributes *a = node->attributes;
  node->forward_scratch = (size_t)a->c * sizeof(float);
  return TR_OK;
}

static void running_rows(tr_op_run *run, size_t begin, size_t end) {
  const tr_norm_attributes *a = run->call.attributes;
  const size_t c = (size_t)a->c;
  run->kernels->batch_norm_apply((const float *)run->call.inputs[0] + begin * c, run->call.inputs[3], run->scratch,
                                 run->call.inputs[1], run->call.inputs[2], (float *)run->call.output + begin * c,
                                 end - begin, c);
}

static void running_forward(tr_op_run *run) {
  const tr_norm_attributes *a = run->call.attributes;
  run->kernels->batch_norm_rstd(run->call.inputs[4], a->eps, run->scratch, (size_t)a->c);
  tr_ops_split(run, (size_t)a->n, 256, running_rows);
}

const tr_op_class tr_op_batch_norm_running = {
    .name = "batch_norm", .prepare = running_prepare, .forward = running_forward, .flops = norm_flops};
