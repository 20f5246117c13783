/* A convolutional network on Fashion-MNIST: the main example.
 *
 *   trainrun --workers 2 examples/fashion_mnist/job.toml
 *
 * The model is PyTorch's MNIST example: two 3x3 convolutions, a max-pool, two linear layers. With params.variant =
 * "norm" each convolution is followed by batch norm and the linear layers by dropout. */
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <trainrun/trainrun.h>

static tr_session *session;

static void on_signal(int number) {
  tr_session_request_stop(session, number == SIGINT ? TR_STOP_INTERRUPT : TR_STOP_PREEMPT);
}

static tr_status build(void *self, const tr_model *model, tr_error *error) {
  (void)self;
  (void)error;
  tr_graph *g = model->graph;
  const int64_t width = tr_session_param_integer(model->session, "width");
  const bool norm = strcmp(tr_session_param_text(model->session, "variant"), "norm") == 0;
  const tr_conv2d_options conv1 = {.struct_bytes = sizeof conv1, .out_channels = width};
  const tr_conv2d_options conv2 = {.struct_bytes = sizeof conv2, .out_channels = 2 * width};
  const int64_t image[] = {28, 28, 1};

  tr_tensor x = tr_to_float(g, tr_model_input(model, "image"), 1.0F / 255.0F, 0.0F);
  x = tr_conv2d(g, "conv1", tr_reshape(g, x, 3, image), &conv1); /* [rows, 26, 26, width] */
  if (norm) x = tr_batch_norm(g, "norm1", x, 1e-5F);
  x = tr_conv2d(g, "conv2", tr_relu(g, x), &conv2); /* [rows, 24, 24, 2 width] */
  if (norm) x = tr_batch_norm(g, "norm2", x, 1e-5F);
  x = tr_flatten(g, tr_max_pool2d(g, tr_relu(g, x), NULL)); /* [rows, 12 * 12 * 2 width] */
  if (norm) x = tr_dropout(g, x, 0.25F);
  x = tr_relu(g, tr_linear(g, "fc1", x, 128, true));
  if (norm) x = tr_dropout(g, x, 0.5F);
  x = tr_linear(g, "fc2", x, 10, true);

  tr_tensor label = tr_model_input(model, "label");
  tr_graph_loss(g, tr_softmax_cross_entropy(g, x, label));
  tr_graph_metric(g, "accuracy", tr_accuracy(g, x, label));
  return TR_OK;
}

int main(int argc, char **argv) {
  static const tr_param_declaration params[] = {
      {"width", TR_PARAM_INTEGER, "32", "channels of the first convolution; the second has twice as many"},
      {"variant", TR_PARAM_TEXT, "plain", "plain, or norm: with batch norm and dropout"},
  };
  const tr_session_options options = {.struct_bytes = sizeof options, .params = params, .param_count = 2};
  const tr_trainer_options trainer = {.struct_bytes = sizeof trainer, .build = build};
  tr_error error = {.status = TR_OK};

  tr_status status = tr_session_open(argc, argv, &options, &session, &error);
  if (status == TR_OK) {
    signal(SIGTERM, on_signal);
    signal(SIGINT, on_signal);
    status = tr_train(session, &trainer, NULL, &error);
  }
  if (status != TR_OK && status != TR_ERR_STOPPED && status != TR_ERR_CANCELLED) {
    fprintf(stderr, "fashion_mnist: %s\n", error.message);
  }
  return tr_session_close(session, status, &error);
}
