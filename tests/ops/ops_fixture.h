/* Small models over awkward sizes, and what every test of graphs does with them: build, fill inputs by seed, run forward
 * and backward once, compare. */
#ifndef TRAINRUN_TESTS_OPS_FIXTURE_H
#define TRAINRUN_TESTS_OPS_FIXTURE_H

#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <trainrun/ops.h>

#include "support/support.h"

enum { FX_INPUTS_MAX = 8 };

typedef struct fx {
  const tr_allocator *allocator; /* of the graph; NULL: the system's */
  int64_t rows;
  int size;
  bool evaluation;
  tr_graph_compile_options compile;

  tr_device *device;
  tr_params *params;
  tr_graph *graph;
  int32_t id_count[FX_INPUTS_MAX]; /* inputs that are labels or ids: below this; 0: any value */
  void *inputs[FX_INPUTS_MAX];
  float *row_weight;
  tr_step_args args;
  float *gradient;
  double outputs[TR_OUTPUTS_MAX];
} fx;

/* Builds into f->graph and sets the loss. */
typedef void (*fx_build)(fx *f, tr_graph *g, int size);

typedef struct fx_model {
  const char *name;
  fx_build build;
} fx_model;

static inline float fx_random(uint64_t stream, uint64_t i) {
  return 2.0f * tr_rng_unit(tr_rng(stream, TR_RNG_USER, 0, i).v[0]) - 1.0f;
}

static inline void fx_fill_input(fx *f, int32_t input) {
  const tr_tensor_info info = tr_tensor_describe(f->graph, tr_graph_input_tensor(f->graph, input));
  uint64_t count = 1;
  for (uint32_t d = 0; d < info.ndim; d++) count *= (uint64_t)info.shape[d];
  void *values = calloc(count + 16, tr_dtype_bytes(info.dtype));
  const int32_t below = f->id_count[input];
  for (uint64_t i = 0; i < count; i++) {
    const uint64_t word = tr_rng_u64(77 + (uint64_t)input, TR_RNG_USER, 0, i);
    switch (info.dtype) {
      case TR_F32: ((float *)values)[i] = fx_random(91 + (uint64_t)input, i); break;
      case TR_U8: ((uint8_t *)values)[i] = (uint8_t)(below > 0 ? word % (uint64_t)below : word & 255); break;
      case TR_U16: ((uint16_t *)values)[i] = (uint16_t)(below > 0 ? word % (uint64_t)below : word & 65535); break;
      default: ((int32_t *)values)[i] = (int32_t)(below > 0 ? word % (uint64_t)below : word & 1023); break;
    }
  }
  f->inputs[input] = values;
}

static inline tr_status fx_try_open(fx *f, fx_build build, tr_error *error) {
  const tr_device_options device = {.struct_bytes = sizeof device, .allocator = f->allocator, .kind = TR_DEVICE_CPU};
  TR_TRY(tr_device_open(&device, &f->device, error));
  TR_TRY(tr_params_create(f->allocator, &f->params, error));
  const tr_graph_options graph = {.struct_bytes = sizeof graph,
                                  .allocator = f->allocator,
                                  .device = f->device,
                                  .params = f->params,
                                  .rows = f->rows,
                                  .training = !f->evaluation};
  TR_TRY(tr_graph_create(&graph, &f->graph, error));
  build(f, f->graph, f->size);
  TR_TRY(tr_params_seal(f->params, f->device, error));
  tr_params_initialize(f->params, 5);
  f->compile.struct_bytes = sizeof f->compile;
  return tr_graph_compile(f->graph, &f->compile, error);
}

static inline void fx_close(fx *f) {
  tr_graph_destroy(f->graph);
  tr_params_destroy(f->params);
  tr_device_close(f->device);
  for (int i = 0; i < FX_INPUTS_MAX; i++) free(f->inputs[i]);
  free(f->gradient);
}

/* Ends with inputs, arguments and a place for the gradient. */
static inline void fx_open(fx *f, fx_build build) {
  tr_error error = {0};
  cr_assert_eq(fx_try_open(f, build, &error), TR_OK, "%s", error.message);
  for (int32_t i = 0; i < tr_graph_input_count(f->graph); i++) fx_fill_input(f, i);
  f->args = (tr_step_args){.struct_bytes = sizeof f->args,
                           .seed = 11,
                           .step = 3,
                           .row_offset = 32,
                           .row_count = (uint32_t)f->rows,
                           .loss_scale = 1.0f,
                           .inputs = (const void *const *)f->inputs};
  const size_t count = tr_params_gradient_count(f->params) + 1;
  f->gradient = malloc(count * sizeof *f->gradient);
  for (size_t i = 0; i < count; i++) f->gradient[i] = NAN; /* what is not written shows */
}

static inline double fx_forward(fx *f) {
  tr_error error = {0};
  cr_assert_eq(tr_graph_forward(f->graph, &f->args, f->outputs, &error), TR_OK, "%s", error.message);
  return f->outputs[0];
}

static inline double fx_step(fx *f) {
  const double loss = fx_forward(f);
  tr_error error = {0};
  cr_assert_eq(tr_graph_backward(f->graph, &f->args, f->gradient, NULL, NULL, &error), TR_OK, "%s", error.message);
  return loss;
}

/* The largest difference of gradients, relative to the largest entry of each parameter; padding is not looked at. */
static inline double fx_gradient_distance(const fx *a, const fx *b, const char **worst) {
  double distance = 0.0;
  for (tr_param p = 0; p < tr_params_size(a->params); p++) {
    const tr_param_info info = tr_params_info(a->params, p);
    if (info.role == TR_PARAM_FROZEN) continue;
    double largest = 1e-2, difference = 0.0;
    for (uint64_t i = 0; i < info.count; i++) {
      const double x = (double)a->gradient[info.offset + i], y = (double)b->gradient[info.offset + i];
      if (!isfinite(x) || !isfinite(y)) {
        *worst = info.name;
        return INFINITY;
      }
      largest = fmax(largest, fmax(fabs(x), fabs(y)));
      difference = fmax(difference, fabs(x - y));
    }
    if (difference / largest > distance) {
      distance = difference / largest;
      *worst = info.name;
    }
  }
  return distance;
}

/* Every element of every slot, bit for bit. */
static inline bool fx_same_gradient(const fx *a, const fx *b) {
  for (tr_param p = 0; p < tr_params_size(a->params); p++) {
    const tr_param_info info = tr_params_info(a->params, p);
    if (info.role == TR_PARAM_FROZEN) continue;
    if (memcmp(a->gradient + info.offset, b->gradient + info.offset, info.count * sizeof(float)) != 0) return false;
  }
  return true;
}

/* ---- Models ---------------------------------------------------------------------------------------------------------- */

static inline tr_tensor fx_input(tr_graph *g, const char *name, int64_t width) {
  return tr_input(g, name, TR_F32, 1, &width);
}

static inline void fx_end_with_mse(tr_graph *g, tr_tensor x, int64_t width) {
  tr_graph_loss(g, tr_mean_squared_error(g, x, fx_input(g, "target", width)));
}

static inline tr_tensor fx_image(tr_graph *g, int64_t height, int64_t width, int64_t channels) {
  const int64_t shape[] = {height, width, channels};
  return tr_input(g, "image", TR_F32, 3, shape);
}

static inline void fx_end_with_xent(fx *f, tr_graph *g, tr_tensor logits, int32_t classes, tr_dtype dtype) {
  f->id_count[tr_graph_input_count(g)] = classes;
  const tr_tensor labels = tr_input(g, "label", dtype, 0, NULL);
  tr_graph_loss(g, tr_softmax_cross_entropy(g, logits, labels));
  tr_graph_metric(g, "accuracy", tr_accuracy(g, logits, labels));
}

static inline void fx_linear(fx *f, tr_graph *g, int size) {
  (void)f;
  tr_tensor x = tr_linear(g, "first", fx_input(g, "x", size), 2 * size + 1, true);
  fx_end_with_mse(g, tr_linear(g, "second", x, 3, false), 3);
}

static inline void fx_linear_relu(fx *f, tr_graph *g, int size) {
  (void)f;
  tr_tensor x = tr_relu(g, tr_linear(g, "first", fx_input(g, "x", size + 2), 4 * size + 1, true));
  x = tr_relu(g, tr_linear(g, "second", x, size + 5, true));
  fx_end_with_mse(g, tr_linear(g, "third", x, size, true), size);
}

static inline void fx_linear_of_sequences(fx *f, tr_graph *g, int size) {
  (void)f;
  const int64_t shape[] = {3, size};
  tr_tensor x = tr_input(g, "x", TR_F32, 2, shape);
  x = tr_relu(g, tr_linear(g, "first", x, size + 1, true));
  fx_end_with_mse(g, tr_linear(g, "second", tr_flatten(g, x), 2, true), 2);
}

static inline tr_tensor fx_conv(tr_graph *g, const char *name, tr_tensor x, int64_t channels, int64_t kernel,
                                int64_t stride, int64_t padding) {
  const tr_conv2d_options options = {.struct_bytes = sizeof options,
                                     .out_channels = channels,
                                     .kernel = {kernel, kernel},
                                     .stride = {stride, stride},
                                     .padding = {padding, padding}};
  return tr_conv2d(g, name, x, &options);
}

static inline void fx_convolutions(fx *f, tr_graph *g, int size) {
  tr_tensor x = fx_conv(g, "conv1", fx_image(g, size + 4, size + 5, 1 + size % 3), size + 1, 3, 1, 0);
  x = fx_conv(g, "conv2", x, 2 * size, 3, 1, 1);
  x = fx_conv(g, "conv3", x, 3, 1 + size % 2, 2, 0);
  fx_end_with_xent(f, g, tr_linear(g, "out", tr_flatten(g, x), 5, true), 5, TR_U8);
}

static inline void fx_cnn(fx *f, tr_graph *g, int size) {
  tr_tensor x = tr_relu(g, fx_conv(g, "conv1", fx_image(g, size + 6, size + 7, 1), size + 3, 3, 1, 0));
  x = tr_relu(g, fx_conv(g, "conv2", x, 2 * size + 1, 3, 1, 0));
  x = tr_max_pool2d(g, x, NULL);
  x = tr_relu(g, tr_linear(g, "fc1", tr_flatten(g, x), size + 9, true));
  fx_end_with_xent(f, g, tr_linear(g, "fc2", x, 10, true), 10, TR_I32);
}

/* Channels that fill registers, so that the special kernels serve; a tensor that three convolutions read. */
static inline void fx_wide_convolutions(fx *f, tr_graph *g, int size) {
  tr_tensor x = tr_relu(g, fx_conv(g, "conv1", fx_image(g, size + 3, 6, 1), 16, 3, 1, 1));
  const tr_tensor a = tr_relu(g, fx_conv(g, "conv2", x, 32, 3, 1, 1));
  const tr_tensor b = fx_conv(g, "conv3", x, 32, 3, 1, 1);
  x = tr_max_pool2d(g, tr_relu(g, fx_conv(g, "conv4", x, 48, 3, 1, 0)), NULL);
  tr_tensor y = fx_conv(g, "conv5", tr_add(g, a, b), 16, 3, 1, 2);
  y = tr_layer_norm(g, "norm", tr_linear(g, "left", tr_flatten(g, y), 7, true), 1e-2f);
  y = tr_add(g, y, tr_linear(g, "right", tr_flatten(g, x), 7, true));
  fx_end_with_xent(f, g, tr_linear(g, "out", y, 5, true), 5, TR_U8);
}

static inline void fx_rectangular_convolution(fx *f, tr_graph *g, int size) {
  const tr_conv2d_options options = {.struct_bytes = sizeof options,
                                     .out_channels = size,
                                     .kernel = {2, 5},
                                     .stride = {1, 2},
                                     .padding = {0, 2},
                                     .no_bias = true};
  tr_tensor x = fx_conv(g, "conv1", fx_image(g, 5, 9, 2), 3, 1, 1, 0);
  x = tr_relu(g, tr_conv2d(g, "conv2", x, &options));
  fx_end_with_xent(f, g, tr_linear(g, "out", tr_flatten(g, x), 3, true), 3, TR_U16);
}

static inline void fx_pools(fx *f, tr_graph *g, int size) {
  tr_tensor x = fx_conv(g, "conv1", fx_image(g, size + 5, size + 4, 2), size, 3, 1, 1);
  const tr_pool2d_options wide = {.struct_bytes = sizeof wide, .kernel = {3, 3}, .stride = {2, 1}, .padding = {1, 1}};
  const tr_tensor most = tr_max_pool2d(g, x, &wide), mean = tr_avg_pool2d(g, x, &wide);
  x = tr_avg_pool2d(g, tr_add(g, most, mean), NULL);
  fx_end_with_xent(f, g, tr_linear(g, "out", tr_flatten(g, x), 4, true), 4, TR_U8);
}

static inline void fx_layer_norm(fx *f, tr_graph *g, int size) {
  (void)f;
  tr_tensor x = tr_linear(g, "first", fx_input(g, "x", size), size + 2, true);
  x = tr_layer_norm(g, "norm", x, 1e-3f);
  fx_end_with_mse(g, tr_linear(g, "second", x, 3, true), 3);
}

static inline void fx_batch_norm(fx *f, tr_graph *g, int size) {
  tr_tensor x = fx_conv(g, "conv", fx_image(g, 4, 5, 2), size, 3, 1, 1);
  x = tr_relu(g, tr_batch_norm(g, "norm1", x, 1e-3f));
  x = tr_linear(g, "first", tr_flatten(g, x), size + 1, true);
  x = tr_batch_norm(g, "norm2", x, 1e-2f);
  fx_end_with_xent(f, g, tr_linear(g, "out", x, 4, true), 4, TR_U8);
}

static inline void fx_gelu(fx *f, tr_graph *g, int size) {
  (void)f;
  tr_tensor x = tr_linear(g, "first", fx_input(g, "x", size), 2 * size, true);
  x = tr_gelu(g, x);
  x = tr_gelu_tanh(g, tr_linear(g, "second", x, size + 3, true));
  fx_end_with_mse(g, x, size + 3);
}

static inline void fx_dropout(fx *f, tr_graph *g, int size) {
  (void)f;
  tr_tensor x = tr_relu(g, tr_linear(g, "first", fx_input(g, "x", size + 1), 3 * size, true));
  x = tr_dropout(g, x, 0.3f);
  x = tr_linear(g, "second", x, size + 3, true);
  fx_end_with_mse(g, tr_dropout(g, x, 0.5f), size + 3);
}

static inline void fx_embedding(fx *f, tr_graph *g, int size) {
  const int64_t length = 3;
  f->id_count[0] = 2 * size + 1;
  f->id_count[1] = size;
  tr_tensor a = tr_embedding(g, "words", tr_input(g, "a", TR_I32, 1, &length), 2 * size + 1, size);
  tr_tensor b = tr_embedding(g, "places", tr_input(g, "b", TR_U16, 1, &length), size, size);
  tr_tensor x = tr_layer_norm(g, "norm", tr_add(g, a, b), 1e-3f);
  fx_end_with_xent(f, g, tr_linear(g, "out", tr_flatten(g, x), 6, true), 6, TR_I32);
}

/* One weight read by an embedding and a linear; one linear used three times; x + x; a residual. */
static inline void fx_ties(fx *f, tr_graph *g, int size) {
  const int64_t length = 2;
  f->id_count[0] = size + 3;
  tr_tensor x = tr_embedding(g, "table", tr_input(g, "ids", TR_I32, 1, &length), size + 3, size);
  tr_tensor y = tr_relu(g, tr_linear(g, "shared", x, size, true));
  y = tr_add(g, tr_linear(g, "shared", y, size, true), x);
  y = tr_add(g, y, y);
  y = tr_linear(g, "shared", y, size, true);
  tr_tensor logits = tr_linear(g, "table", y, size + 3, false);
  fx_end_with_xent(f, g, tr_linear(g, "out", tr_flatten(g, logits), 4, true), 4, TR_U8);
}

/* A target that is trained too, and a tensor that is read through a view and straight. */
static inline void fx_two_sided(fx *f, tr_graph *g, int size) {
  (void)f;
  const tr_tensor x = fx_input(g, "x", 2 * size);
  const tr_tensor a = tr_linear(g, "a", x, 2 * size, true), b = tr_linear(g, "b", x, 2 * size, true);
  const int64_t pairs[] = {2, size};
  const int64_t flat = 2 * size;
  const tr_tensor half = tr_linear(g, "c", tr_reshape(g, a, 2, pairs), size, true);
  const tr_tensor back = tr_reshape(g, half, 1, &flat);
  tr_graph_loss(g, tr_add(g, tr_mean_squared_error(g, a, b), tr_mean_squared_error(g, back, b)));
}

static inline void fx_bytes(fx *f, tr_graph *g, int size) {
  const int64_t shape[] = {size};
  tr_tensor x = tr_to_float(g, tr_input(g, "pixels", TR_U8, 1, shape), 1.0f / 255.0f, -0.5f);
  x = tr_to_float(g, tr_linear(g, "first", x, size + 4, true), 2.0f, 0.125f);
  fx_end_with_xent(f, g, tr_linear(g, "out", x, 3, true), 3, TR_U8);
}

static const fx_model fx_models[] = {
    {"linear", fx_linear},
    {"linear_relu", fx_linear_relu},
    {"linear_of_sequences", fx_linear_of_sequences},
    {"convolutions", fx_convolutions},
    {"cnn", fx_cnn},
    {"wide_convolutions", fx_wide_convolutions},
    {"rectangular_convolution", fx_rectangular_convolution},
    {"pools", fx_pools},
    {"layer_norm", fx_layer_norm},
    {"batch_norm", fx_batch_norm},
    {"gelu", fx_gelu},
    {"dropout", fx_dropout},
    {"embedding", fx_embedding},
    {"ties", fx_ties},
    {"two_sided", fx_two_sided},
    {"bytes", fx_bytes},
};
enum { FX_MODELS = sizeof fx_models / sizeof fx_models[0] };

/* The larger ones take long under a sanitizer and without optimization; TRAINRUN_TEST_LONG=1 runs them too. */
static const int fx_sizes[] = {1, 2, 3, 7, 16, 17, 31};
static const int64_t fx_rows[] = {1, 2, 5, 16, 3, 4, 7};
static inline int fx_size_count(void) { return ts_long() ? 7 : 5; }

#endif
