/* Ops that take each element alone: conversion, addition, activations, dropout. */
#include <string.h>

#include "graph_private.h"

static size_t output_count(const tr_op_run *run) { return (size_t)tr_graph_count_of(&run->call.output_info); }

/* ---- to_float ------------------------------------------------------------------------------------------------------ */

#define CONVERT(type)                                                                                                  \
  do {                                                                                                                 \
    const type *x = run->call.inputs[0];                                                                               \
    for (size_t i = begin; i < end; i++) y[i] = (float)x[i] * a->scale + a->shift;                                     \
  } while (0)

static void to_float_range(tr_op_run *run, size_t begin, size_t end) {
  const tr_affine_attributes *a = run->call.attributes;
  float *y = run->call.output;
  switch (run->call.input_info[0].dtype) {
    case TR_U8:
      run->kernels->convert_u8((const uint8_t *)run->call.inputs[0] + begin, a->scale, a->shift, y + begin,
                               end - begin);
      return;
    case TR_F32: CONVERT(float); return;
    case TR_I32: CONVERT(int32_t); return;
    case TR_U16: CONVERT(uint16_t); return;
    case TR_I64: CONVERT(int64_t); return;
    case TR_F64: CONVERT(double); return;
    case TR_BF16: {
      const uint16_t *x = run->call.inputs[0];
      for (size_t i = begin; i < end; i++) {
        const uint32_t bits = (uint32_t)x[i] << 16;
        float value;
        memcpy(&value, &bits, sizeof value);
        y[i] = value * a->scale + a->shift;
      }
      return;
    }
  }
}

static void to_float_forward(tr_op_run *run) { tr_ops_split(run, output_count(run), TR_OPS_GRAIN, to_float_range); }

static void to_float_backward_range(tr_op_run *run, size_t begin, size_t end) {
  const tr_affine_attributes *a = run->call.attributes;
  run->kernels->scale((const float *)run->output_gradient + begin, a->scale,
                      (float *)run->call.input_gradients[0] + begin, end - begin, run->call.input_gradient_add[0]);
}

static void to_float_backward(tr_op_run *run) {
  if (run->call.input_gradients[0] != NULL) tr_ops_split(run, output_count(run), TR_OPS_GRAIN, to_float_backward_range);
}

const tr_op_class tr_op_to_float = {.name = "to_float", .forward = to_float_forward, .backward = to_float_backward};

/* ---- add ----------------------------------------------------------------------------------------------------------- */

static void add_range(tr_op_run *run, size_t begin, size_t end) {
  run->kernels->add((const float *)run->call.inputs[0] + begin, (const float *)run->call.inputs[1] + begin,
                    (float *)run->call.output + begin, end - begin);
}

static void add_forward(tr_op_run *run) { tr_ops_split(run, output_count(run), TR_OPS_GRAIN, add_range); }

static void add_backward_range(tr_op_run *run, size_t begin, size_t end) {
  const float *dy = (const float *)run->output_gradient + begin;
  for (int i = 0; i < 2; i++) {
    float *dx = run->call.input_gradients[i];
    if (dx == NULL) continue;
    dx += begin;
    if (run->call.input_gradient_add[i])
      run->kernels->add(dx, dy, dx, end - begin);
    else if (dx != dy)
      memcpy(dx, dy, (end - begin) * sizeof *dx);
  }
}

static void add_backward(tr_op_run *run) { tr_ops_split(run, output_count(run), TR_OPS_GRAIN, add_backward_range); }

const tr_op_class tr_op_add = {
    .name = "add", .forward_in_place = 3, .backward_in_place = 3, .forward = add_forward, .backward = add_backward};

/* ---- activations --------------------------------------------------------------------------------------------------- */

static void relu_range(tr_op_run *run, size_t begin, size_t end) {
  run->kernels->relu_forward((const float *)run->call.inputs[0] + begin, (float *)run->call.output + begin,
                             end - begin);
}
static void relu_forward(tr_op_run *run) { tr_ops_split(run, output_count(run), TR_OPS_GRAIN, relu_range); }

static void relu_backward_range(tr_op_run *run, size_t begin, size_t end) {
  run->kernels->relu_backward((const float *)run->call.output + begin, (const float *)run->output_gradient + begin,
                              (float *)run->call.input_gradients[0] + begin, end - begin,
                              run->call.input_gradient_add[0]);
}
static void relu_backward(tr_op_run *run) { tr_ops_split(run, output_count(run), TR_OPS_GRAIN, relu_backward_range); }

const tr_op_class tr_op_relu = {.name = "relu",
                                .saves_output = true,
                                .forward_in_place = 1,
                                .backward_in_place = 1,
                                .forward = relu_forward,
                                .backward = relu_backward};

static void gelu_range(tr_op_run *run, size_t begin, size_t end) {
  run->kernels->gelu_erf_forward((const float *)run->call.inputs[0] + begin, (float *)run->call.output + begin,
                                 end - begin);
}
static void gelu_forward(tr_op_run *run) { tr_ops_split(run, output_count(run), TR_OPS_GRAIN, gelu_range); }

static void gelu_backward_range(tr_op_run *run, size_t begin, size_t end) {
  run->kernels->gelu_erf_backward(
      (const float *)run->call.inputs[0] + begin, (const float *)run->output_gradient + begin,
      (float *)run->call.input_gradients[0] + begin, end - begin, run->call.input_gradient_add[0]);
}
static void gelu_backward(tr_op_run *run) { tr_ops_split(run, output_count(run), TR_OPS_GRAIN, gelu_backward_range); }

const tr_op_class tr_op_gelu = {.name = "gelu",
                                .saves_inputs = 1,
                                .forward_in_place = 1,
                                .backward_in_place = 1,
                                .forward = gelu_forward,
                                .backward = gelu_backward};

static void gelu_tanh_range(tr_op_run *run, size_t begin, size_t end) {
  run->kernels->gelu_tanh_forward((const float *)run->call.inputs[0] + begin, (float *)run->call.output + begin,
                                  end - begin);
}
static void gelu_tanh_forward(tr_op_run *run) { tr_ops_split(run, output_count(run), TR_OPS_GRAIN, gelu_tanh_range); }

static void gelu_tanh_backward_range(tr_op_run *run, size_t begin, size_t end) {
  run->kernels->gelu_tanh_backward(
      (const float *)run->call.inputs[0] + begin, (const float *)run->output_gradient + begin,
      (float *)run->call.input_gradients[0] + begin, end - begin, run->call.input_gradient_add[0]);
}
static void gelu_tanh_backward(tr_op_run *run) {
  tr_ops_split(run, output_count(run), TR_OPS_GRAIN, gelu_tanh_backward_range);
}

const tr_op_class tr_op_gelu_tanh = {.name = "gelu_tanh",
                                     .saves_inputs = 1,
                                     .forward_in_place = 1,
                                     .backward_in_place = 1,
                                     .forward = gelu_tanh_forward,
                                     .backward = gelu_tanh_backward};

/* ---- dropout ------------------------------------------------------------------------------------------------------- */

/* Backward is forward on the gradient: the mask is drawn again, so none is kept. Ranges begin at multiples of the grain,
 * which is a multiple of the four elements that one draw serves. */
static void drop(const tr_op_run *run, const float *x, float *y, size_t begin, size_t end, bool add) {
  const tr_dropout_attributes *a = run->call.attributes;
  const tr_step_args *step = run->call.step;
  const tr_dropout_key key = {
      .seed = step->seed, .step = step->step, .stream = (uint32_t)run->call.op_number, .p = a->p};
  const uint64_t rows = (uint64_t)run->call.output_info.shape[0];
  const uint64_t per_row = tr_graph_count_of(&run->call.output_info) / rows;
  run->kernels->dropout(x + begin, y + begin, end - begin, &key, step->row_offset * per_row + begin, add);
}

static void dropout_range(tr_op_run *run, size_t begin, size_t end) {
  drop(run, run->call.inputs[0], run->call.output, begin, end, false);
}
static void dropout_forward(tr_op_run *run) { tr_ops_split(run, output_count(run), TR_OPS_GRAIN, dropout_range); }

static void dropout_backward_range(tr_op_run *run, size_t begin, size_t end) {
  drop(run, run->output_gradient, run->call.input_gradients[0], begin, end, run->call.input_gradient_add[0]);
}
static void dropout_backward(tr_op_run *run) {
  tr_ops_split(run, output_count(run), TR_OPS_GRAIN, dropout_backward_range);
}

const tr_op_class tr_op_dropout = {.name = "dropout",
                                   .forward_in_place = 1,
                                   .backward_in_place = 1,
                                   .forward = dropout_forward,
                                   .backward = dropout_backward};
