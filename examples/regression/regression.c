/* A small regression on a CSV table, with an op of the program's own: swish, x * sigmoid(x).
 *
 *   trainrun examples/regression/job.toml
 *
 * The table has columns x0, x1, x2 and y; the job joins the first three into one field. */
#include <math.h>
#include <stdio.h>
#include <trainrun/trainrun.h>

static int64_t elements(const tr_tensor_info *info) {
  int64_t count = 1;
  for (uint32_t d = 0; d < info->ndim; d++) count *= info->shape[d];
  return count;
}

static tr_status swish_shape(const tr_tensor_info *inputs, int32_t input_count, const void *attributes,
                             tr_tensor_info *output, tr_error *error) {
  (void)attributes;
  if (input_count != 1 || inputs[0].dtype != TR_F32)
    return tr_fail(error, TR_ERR_INVALID, "swish takes one f32 tensor");
  *output = inputs[0];
  return TR_OK;
}

static void swish_forward(const tr_op_call *call) {
  const float *x = call->inputs[0];
  float *y = call->output;
  for (int64_t i = 0; i < elements(&call->output_info); i++) y[i] = x[i] / (1 + expf(-x[i]));
}

static void swish_backward(const tr_op_call *call) {
  const float *x = call->inputs[0], *dy = call->output_gradient;
  float *dx = call->input_gradients[0];
  if (dx == NULL) return;
  for (int64_t i = 0; i < elements(&call->output_info); i++) {
    const float s = 1 / (1 + expf(-x[i]));
    const float gradient = dy[i] * (s + x[i] * s * (1 - s));
    dx[i] = call->input_gradient_add[0] ? dx[i] + gradient : gradient;
  }
}

static const tr_op_descriptor swish = {
    .struct_bytes = sizeof swish,
    .name = "swish",
    .shape = swish_shape,
    .saves_inputs = 1,
    .forward = swish_forward,
    .backward = swish_backward,
};

static tr_status build(void *self, const tr_model *model, tr_error *error) {
  (void)self;
  tr_graph *g = model->graph;
  TR_TRY(tr_op_register(g, &swish, error));
  tr_tensor x = tr_linear(g, "hidden", tr_model_input(model, "x"), tr_session_param_integer(model->session, "hidden"),
                          true);
  x = tr_linear(g, "out", tr_op_apply(g, "swish", &x, 1, NULL), 1, true);
  tr_graph_loss(g, tr_mean_squared_error(g, tr_reshape(g, x, 0, NULL), tr_model_input(model, "y")));
  return TR_OK;
}

int main(int argc, char **argv) {
  static const tr_param_declaration params[] = {{"hidden", TR_PARAM_INTEGER, "32", "width of the hidden layer"}};
  const tr_session_options options = {.struct_bytes = sizeof options, .params = params, .param_count = 1};
  const tr_trainer_options trainer = {.struct_bytes = sizeof trainer, .build = build};
  tr_session *session = NULL;
  tr_error error = {.status = TR_OK};
  tr_status status = tr_session_open(argc, argv, &options, &session, &error);
  if (status == TR_OK) status = tr_train(session, &trainer, NULL, &error);
  if (status != TR_OK && status != TR_ERR_STOPPED && status != TR_ERR_CANCELLED)
    fprintf(stderr, "regression: %s\n", error.message);
  return tr_session_close(session, status, &error);
}
