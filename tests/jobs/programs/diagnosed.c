/* A job whose times are known: every micro-batch computes for params.compute-ms, every sample decodes for params.decode-ms,
 * on params.slow-rank one of both takes params.factor times as long. For the tests of the ledger and the verdict. */
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <trainrun/trainrun.h>

typedef struct delays {
  double compute_ms, decode_ms;
} delays;

static void sleep_ms(double ms) {
  const struct timespec span = {(time_t)(ms / 1000), (long)((ms - 1000 * (double)(long)(ms / 1000)) * 1e6)};
  nanosleep(&span, NULL);
}

static tr_status same_shape(const tr_tensor_info *inputs, int32_t input_count, const void *attributes,
                            tr_tensor_info *output, tr_error *error) {
  (void)input_count;
  (void)attributes;
  (void)error;
  *output = inputs[0];
  return TR_OK;
}

static size_t bytes_of(const tr_tensor_info *info) {
  size_t bytes = sizeof(float);
  for (uint32_t d = 0; d < info->ndim; d++) bytes *= (size_t)info->shape[d];
  return bytes;
}

static void forward(const tr_op_call *call) {
  const delays *times = call->attributes;
  sleep_ms(times->compute_ms / 2);
  memcpy(call->output, call->inputs[0], bytes_of(&call->output_info));
}

static void backward(const tr_op_call *call) {
  const delays *times = call->attributes;
  const float *from = call->output_gradient;
  float *to = call->input_gradients[0];
  sleep_ms(times->compute_ms / 2);
  for (size_t i = 0; to != NULL && i < bytes_of(&call->output_info) / sizeof(float); i++) {
    to[i] = call->input_gradient_add[0] ? to[i] + from[i] : from[i];
  }
}

static tr_status build(void *self, const tr_model *model, tr_error *error) {
  static const tr_op_descriptor work = {.struct_bytes = sizeof work,
                                        .name = "work",
                                        .attribute_bytes = sizeof(delays),
                                        .shape = same_shape,
                                        .forward = forward,
                                        .backward = backward};
  TR_TRY(tr_op_register(model->graph, &work, error));
  tr_graph *g = model->graph;
  tr_tensor x = tr_linear(g, "fc", tr_model_input(model, "x"), 1, true);
  x = tr_op_apply(g, "work", &x, 1, self);
  tr_graph_loss(g, tr_mean_squared_error(g, tr_reshape(g, x, 0, NULL), tr_model_input(model, "y")));
  return TR_OK;
}

static tr_status decode(void *self, uint64_t epoch, uint64_t id, void *const *fields, tr_error *error) {
  (void)epoch;
  (void)id;
  (void)fields;
  (void)error;
  const delays *times = self;
  if (times->decode_ms > 0) sleep_ms(times->decode_ms);
  return TR_OK;
}

int main(int argc, char **argv) {
  static const tr_param_declaration params[] = {
      {"compute-ms", TR_PARAM_REAL, "5", "a micro-batch"},     {"decode-ms", TR_PARAM_REAL, "0", "a sample"},
      {"slow-rank", TR_PARAM_INTEGER, "-1", "slowed down"},    {"factor", TR_PARAM_REAL, "3", "how much"},
      {"slow", TR_PARAM_TEXT, "compute", "compute or decode"},
  };
  const tr_session_options options = {.struct_bytes = sizeof options, .params = params, .param_count = 5};
  tr_session *session = NULL;
  tr_error error = {.status = TR_OK};
  tr_status status = tr_session_open(argc, argv, &options, &session, &error);
  if (status == TR_OK) {
    delays times = {tr_session_param_real(session, "compute-ms"), tr_session_param_real(session, "decode-ms")};
    if (tr_session_rank(session) == tr_session_param_integer(session, "slow-rank")) {
      const bool compute = strcmp(tr_session_param_text(session, "slow"), "compute") == 0;
      *(compute ? &times.compute_ms : &times.decode_ms) *= tr_session_param_real(session, "factor");
    }
    const tr_trainer_options trainer = {
        .struct_bytes = sizeof trainer, .build = build, .self = &times, .map = decode, .map_self = &times};
    status = tr_train(session, &trainer, NULL, &error);
  }
  if (status != TR_OK && status != TR_ERR_STOPPED) fprintf(stderr, "diagnosed: %s\n", error.message);
  return tr_session_close(session, status, &error);
}
