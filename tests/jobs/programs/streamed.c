/* A job that is all data: each sample is some 100 KB of raw bytes of which a few are looked at, each micro-batch computes
 * for params.compute-ms. For the tests of what a slow store does to a job. */
#include <signal.h>
#include <stdio.h>
#include <time.h>
#include <trainrun/trainrun.h>

static tr_session *session;

static void on_signal(int number) {
  tr_session_request_stop(session, number == SIGINT ? TR_STOP_INTERRUPT : TR_STOP_PREEMPT);
}

static tr_status shape(const tr_tensor_info *inputs, int32_t input_count, const void *attributes,
                       tr_tensor_info *output, tr_error *error) {
  (void)input_count;
  (void)attributes;
  (void)error;
  *output = (tr_tensor_info){.dtype = TR_F32, .ndim = 2, .shape = {inputs[0].shape[0], 1}};
  return TR_OK;
}

/* The mean of every thousandth byte of a row. */
static void look(const tr_op_call *call) {
  const double ms = *(const double *)call->attributes;
  const struct timespec span = {(time_t)(ms / 1000), (long)((ms - 1000 * (double)(long)(ms / 1000)) * 1e6)};
  nanosleep(&span, NULL);
  const tr_tensor_info *info = &call->input_info[0];
  const uint8_t *bytes = call->inputs[0];
  float *to = call->output;
  for (int64_t row = 0; row < info->shape[0]; row++, bytes += info->shape[1]) {
    uint32_t sum = 0, count = 0;
    for (int64_t i = 0; i < info->shape[1]; i += 1000, count++) sum += bytes[i];
    to[row] = (float)sum / (255.0F * (float)count);
  }
}

static tr_status build(void *self, const tr_model *model, tr_error *error) {
  static const tr_op_descriptor op = {
      .struct_bytes = sizeof op, .name = "look", .attribute_bytes = sizeof(double), .shape = shape, .forward = look};
  TR_TRY(tr_op_register(model->graph, &op, error));
  tr_graph *g = model->graph;
  const tr_tensor bytes = tr_model_input(model, "x");
  const tr_tensor x = tr_linear(g, "fc", tr_op_apply(g, "look", &bytes, 1, self), 1, true);
  const tr_tensor y = tr_to_float(g, tr_model_input(model, "y"), 1.0F, 0.0F);
  tr_graph_loss(g, tr_mean_squared_error(g, tr_reshape(g, x, 0, NULL), y));
  return TR_OK;
}

int main(int argc, char **argv) {
  static const tr_param_declaration params[] = {{"compute-ms", TR_PARAM_REAL, "5", "a micro-batch"}};
  const tr_session_options options = {.struct_bytes = sizeof options, .params = params, .param_count = 1};
  tr_error error = {.status = TR_OK};
  tr_status status = tr_session_open(argc, argv, &options, &session, &error);
  if (status == TR_OK) {
    signal(SIGTERM, on_signal);
    signal(SIGINT, on_signal);
    double compute_ms = tr_session_param_real(session, "compute-ms");
    const tr_trainer_options trainer = {.struct_bytes = sizeof trainer, .build = build, .self = &compute_ms};
    status = tr_train(session, &trainer, NULL, &error);
  }
  if (status != TR_OK && status != TR_ERR_STOPPED && status != TR_ERR_CANCELLED) {
    fprintf(stderr, "streamed: %s\n", error.message);
  }
  return tr_session_close(session, status, &error);
}
