/* Ops of one's own: swish, x * sigmoid(beta * x), registered, checked against differences, fused with nothing. */
#include "ops_fixture.h"

typedef struct swish_attributes {
  float beta;
} swish_attributes;

static uint64_t count_of(const tr_tensor_info *info) {
  uint64_t count = 1;
  for (uint32_t d = 0; d < info->ndim; d++) count *= (uint64_t)info->shape[d];
  return count;
}

static tr_status swish_shape(const tr_tensor_info *inputs, int32_t input_count, const void *attributes,
                             tr_tensor_info *output, tr_error *error) {
  const swish_attributes *a = attributes;
  if (input_count != 1 || inputs[0].dtype != TR_F32) return tr_fail(error, TR_ERR_INVALID, "takes one f32 input");
  if (a->beta <= 0.0f) return tr_fail(error, TR_ERR_INVALID, "beta is %g", (double)a->beta);
  *output = inputs[0];
  return TR_OK;
}

static void swish_forward(const tr_op_call *call) {
  const swish_attributes *a = call->attributes;
  const float *x = call->inputs[0];
  float *y = call->output;
  for (uint64_t i = 0; i < count_of(&call->output_info); i++) y[i] = x[i] / (1.0f + expf(-a->beta * x[i]));
}

static void swish_backward(const tr_op_call *call) {
  const swish_attributes *a = call->attributes;
  const float *x = call->inputs[0], *dy = call->output_gradient;
  float *dx = call->input_gradients[0];
  for (uint64_t i = 0; i < count_of(&call->output_info); i++) {
    const float s = 1.0f / (1.0f + expf(-a->beta * x[i]));
    const float g = dy[i] * (s + a->beta * x[i] * s * (1.0f - s));
    dx[i] = call->input_gradient_add[0] ? dx[i] + g : g;
  }
}

static double swish_flops(const tr_tensor_info *inputs, int32_t input_count, const void *attributes) {
  (void)input_count, (void)attributes;
  return 4.0 * (double)count_of(&inputs[0]);
}

static const tr_op_descriptor swish = {.struct_bytes = sizeof swish,
                                       .name = "swish",
                                       .attribute_bytes = sizeof(swish_attributes),
                                       .shape = swish_shape,
                                       .saves_inputs = 1,
                                       .forward = swish_forward,
                                       .backward = swish_backward,
                                       .flops = swish_flops};

static void with_swish(fx *f, tr_graph *g, int size) {
  (void)f;
  cr_assert_eq(tr_op_register(g, &swish, NULL), TR_OK);
  const swish_attributes attributes = {.beta = 1.5f};
  tr_tensor x = tr_linear(g, "first", fx_input(g, "x", size), size + 1, true);
  const tr_tensor y = tr_op_apply(g, "swish", &x, 1, &attributes);
  fx_end_with_mse(g, tr_linear(g, "second", tr_add(g, x, y), 2, true), 2);
}

Test(custom_op, has_gradients_that_agree_with_differences) {
  for (int size = 1; size <= 17; size += 4) {
    fx f = {.rows = 5, .size = size, .compile = {.poison = true}};
    fx_open(&f, with_swish);
    fx_step(&f);
    const tr_param_info info = tr_params_info(f.params, 0);
    for (uint64_t i = 0; i < info.count; i++) {
      float *value = tr_params_values(f.params) + info.offset + i;
      const float kept = *value;
      *value = kept + 4e-3f;
      tr_params_touch(f.params);
      const double up = fx_forward(&f);
      *value = kept - 4e-3f;
      tr_params_touch(f.params);
      const double down = fx_forward(&f);
      *value = kept;
      tr_params_touch(f.params);
      const double gradient = (double)f.gradient[info.offset + i];
      cr_assert_lt(fabs((up - down) / 8e-3 - gradient), 0.02 * fabs(gradient) + 2e-3);
    }
    fx_close(&f);
  }
}

Test(custom_op, is_refused_under_a_name_that_is_taken_or_without_its_parts) {
  fx f = {.rows = 2, .size = 3};
  fx_open(&f, with_swish);
  tr_op_descriptor other = swish;
  cr_expect_eq(tr_op_register(f.graph, &other, NULL), TR_ERR_EXISTS);
  other.name = "conv2d";
  cr_expect_eq(tr_op_register(f.graph, &other, NULL), TR_ERR_EXISTS);
  other.name = "fine";
  other.forward = NULL;
  cr_expect_eq(tr_op_register(f.graph, &other, NULL), TR_ERR_INVALID);
  fx_close(&f);
}

static void with_bad_beta(fx *f, tr_graph *g, int size) {
  (void)f;
  cr_assert_eq(tr_op_register(g, &swish, NULL), TR_OK);
  const swish_attributes attributes = {.beta = -1.0f};
  const tr_tensor x = fx_input(g, "x", size);
  tr_op_apply(g, "swish", &x, 1, &attributes);
}

static void with_unknown_op(fx *f, tr_graph *g, int size) {
  (void)f;
  const tr_tensor x = fx_input(g, "x", size);
  tr_op_apply(g, "swosh", &x, 1, NULL);
}

Test(custom_op, tells_what_is_wrong_by_its_name) {
  tr_error error = {0};
  fx f = {.rows = 2, .size = 3};
  cr_expect_eq(fx_try_open(&f, with_bad_beta, &error), TR_ERR_INVALID);
  cr_expect_str_eq(error.message, "swish: beta is -1");
  fx_close(&f);
  fx g = {.rows = 2, .size = 3};
  cr_expect_eq(fx_try_open(&g, with_unknown_op, &error), TR_ERR_INVALID);
  cr_expect(strstr(error.message, "swosh") != NULL);
  fx_close(&g);
}

/* Keeps its input's address from forward although it did not say that backward needs it: poison must show. */
typedef struct thief_attributes {
  const float **kept;
} thief_attributes;

static tr_status thief_shape(const tr_tensor_info *inputs, int32_t input_count, const void *attributes,
                             tr_tensor_info *output, tr_error *error) {
  (void)input_count, (void)attributes, (void)error;
  *output = inputs[0];
  return TR_OK;
}
static void thief_forward(const tr_op_call *call) {
  const thief_attributes *a = call->attributes;
  *a->kept = call->inputs[0];
  memcpy(call->output, call->inputs[0], count_of(&call->output_info) * sizeof(float));
}
static void thief_backward(const tr_op_call *call) {
  const thief_attributes *a = call->attributes;
  cr_assert_null(call->inputs[0]);
  float *dx = call->input_gradients[0];
  const float *dy = call->output_gradient;
  for (uint64_t i = 0; i < count_of(&call->output_info); i++) dx[i] = dy[i] * (*a->kept)[i];
}

static const float *kept_address;
static void with_thief(fx *f, tr_graph *g, int size) {
  (void)f;
  const tr_op_descriptor thief = {.struct_bytes = sizeof thief,
                                  .name = "thief",
                                  .attribute_bytes = sizeof(thief_attributes),
                                  .shape = thief_shape,
                                  .forward = thief_forward,
                                  .backward = thief_backward};
  cr_assert_eq(tr_op_register(g, &thief, NULL), TR_OK);
  const thief_attributes attributes = {.kept = &kept_address};
  const tr_tensor x = tr_linear(g, "first", fx_input(g, "x", size), size, true);
  fx_end_with_mse(g, tr_op_apply(g, "thief", &x, 1, &attributes), size);
}

Test(custom_op, that_reads_what_is_dead_is_caught_by_poison) {
  fx f = {.rows = 4, .size = 8, .compile = {.poison = true}};
  fx_open(&f, with_thief);
  fx_step(&f);
  cr_expect(isnan(f.gradient[0]));
  fx_close(&f);
}
