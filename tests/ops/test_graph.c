/* Building graphs: shapes, names, and the first mistake with the op's name and both shapes. */
#include "ops_fixture.h"

/* Builds something wrong and gives the message of compile. */
static const char *message_of(fx_build build, tr_status expected) {
  static tr_error error;
  fx f = {.rows = 4, .size = 3};
  error = (tr_error){0};
  cr_expect_eq(fx_try_open(&f, build, &error), expected);
  fx_close(&f);
  return error.message;
}

static void wrong_conv_input(fx *f, tr_graph *g, int size) {
  (void)f;
  fx_conv(g, "conv1", fx_input(g, "x", size), 4, 3, 1, 0);
}
static void wrong_kernel(fx *f, tr_graph *g, int size) {
  (void)f, (void)size;
  fx_conv(g, "conv1", fx_image(g, 2, 9, 1), 4, 3, 1, 0);
}
static void wrong_add(fx *f, tr_graph *g, int size) {
  (void)f;
  tr_add(g, fx_input(g, "x", size), fx_input(g, "y", size + 1));
}
static void wrong_reshape(fx *f, tr_graph *g, int size) {
  (void)f, (void)size;
  const int64_t shape[] = {5, 5};
  tr_reshape(g, fx_input(g, "x", 24), 2, shape);
}
static void wrong_dtype(fx *f, tr_graph *g, int size) {
  (void)f, (void)size;
  const int64_t width = 5;
  tr_linear(g, "fc1", tr_input(g, "pixels", TR_U8, 1, &width), 10, true);
}
static void wrong_labels(fx *f, tr_graph *g, int size) {
  (void)f, (void)size;
  tr_softmax_cross_entropy(g, fx_input(g, "x", 10), fx_input(g, "label", 2));
}
static void wrong_tie(fx *f, tr_graph *g, int size) {
  (void)f, (void)size;
  tr_linear(g, "fc", tr_linear(g, "fc", fx_input(g, "x", 10), 7, true), 7, true);
}
static void wrong_input_twice(fx *f, tr_graph *g, int size) {
  (void)f, (void)size;
  fx_input(g, "x", 1), fx_input(g, "x", 2);
}
static void wrong_dropout(fx *f, tr_graph *g, int size) {
  (void)f, (void)size;
  tr_dropout(g, fx_input(g, "x", 1), 1.0f);
}
static void wrong_batch_norm_twice(fx *f, tr_graph *g, int size) {
  (void)f, (void)size;
  tr_batch_norm(g, "bn", tr_batch_norm(g, "bn", fx_input(g, "x", 3), 1e-5f), 1e-5f);
}
static void no_loss(fx *f, tr_graph *g, int size) {
  (void)f;
  tr_linear(g, "fc", fx_input(g, "x", size), 2, true);
}
static void loss_of_nothing_trained(fx *f, tr_graph *g, int size) {
  (void)f;
  tr_graph_loss(g, tr_mean_squared_error(g, fx_input(g, "x", size), fx_input(g, "y", size)));
}
static void loss_not_a_row(fx *f, tr_graph *g, int size) {
  (void)f;
  tr_graph_loss(g, tr_linear(g, "fc", fx_input(g, "x", size), 2, true));
}
static void failed_by_the_program(fx *f, tr_graph *g, int size) {
  (void)f;
  tr_graph_fail(g, "width must be even, not %d", size);
  wrong_add(f, g, size);
}

Test(graph, reports_the_first_mistake_with_the_ops_name_and_the_shapes) {
  const struct {
    fx_build build;
    const char *parts[3];
  } cases[] = {
      {wrong_conv_input, {"conv2d 'conv1'", "[4, 3]", "[rows, height, width, channels]"}},
      {wrong_kernel, {"conv2d 'conv1'", "[4, 2, 9, 1]", "[3, 3]"}},
      {wrong_add, {"add", "[4, 3]", "[4, 4]"}},
      {wrong_reshape, {"reshape", "[4, 24]", "[4, 5, 5]"}},
      {wrong_dtype, {"linear 'fc1'", "[4, 5]", "u8"}},
      {wrong_labels, {"softmax_cross_entropy", "[4, 10]", "[4, 2]"}},
      {wrong_tie, {"parameter 'fc.weight'", "two shapes", ""}},
      {wrong_input_twice, {"input 'x'", "two inputs", ""}},
      {wrong_dropout, {"dropout", "p is 1", ""}},
      {wrong_batch_norm_twice, {"batch_norm 'bn'", "another writer", ""}},
      {no_loss, {"no loss", "", ""}},
      {loss_of_nothing_trained, {"does not depend on any trained", "", ""}},
      {loss_not_a_row, {"loss", "[4]", "[4, 2]"}},
      {failed_by_the_program, {"width must be even, not 3", "", ""}},
  };
  for (size_t c = 0; c < sizeof cases / sizeof cases[0]; c++) {
    const char *message = message_of(cases[c].build, TR_ERR_INVALID);
    for (int p = 0; p < 3; p++)
      cr_expect(strstr(message, cases[c].parts[p]) != NULL, "case %d: \"%s\" lacks \"%s\"", (int)c, message,
                cases[c].parts[p]);
  }
}

Test(graph, describes_inputs_outputs_and_tensors) {
  fx f = {.rows = 6, .size = 2};
  fx_open(&f, fx_cnn);
  cr_expect_eq(tr_graph_rows(f.graph), 6);
  cr_expect(tr_graph_training(f.graph));
  cr_assert_eq(tr_graph_input_count(f.graph), 2);
  cr_expect_str_eq(tr_graph_input_name(f.graph, 0), "image");
  cr_expect_str_eq(tr_graph_input_name(f.graph, 1), "label");
  cr_expect_null(tr_graph_input_name(f.graph, 2));
  const tr_tensor_info image = tr_tensor_describe(f.graph, tr_graph_input_tensor(f.graph, 0));
  cr_expect_eq(image.ndim, 4);
  cr_expect_eq(image.shape[0], 6);
  cr_expect_eq(image.shape[2], 9);
  cr_assert_eq(tr_graph_output_count(f.graph), 2);
  cr_expect_str_eq(tr_graph_output_name(f.graph, 0), "loss");
  cr_expect_str_eq(tr_graph_output_name(f.graph, 1), "accuracy");
  cr_expect_null(tr_graph_output_name(f.graph, 2));
  cr_expect_eq(tr_tensor_describe(f.graph, 9999).ndim, 0);
  fx_close(&f);
}

Test(graph, makes_parameters_as_pytorch_names_and_starts_them) {
  fx f = {.rows = 3, .size = 4};
  fx_open(&f, fx_batch_norm);
  const tr_param_info conv = tr_params_info(f.params, tr_params_find(f.params, "conv.weight"));
  cr_assert_eq(conv.ndim, 4);
  const int64_t shape[] = {4, 3, 3, 2};
  cr_expect_arr_eq(conv.shape, shape, sizeof shape);
  const float bound = 1.0f / sqrtf(3 * 3 * 2);
  float largest = 0.0f;
  for (uint64_t i = 0; i < conv.count; i++)
    largest = fmaxf(largest, fabsf(tr_params_values(f.params)[conv.offset + i]));
  cr_expect(largest <= bound && largest > 0.8f * bound);
  const tr_param_info var = tr_params_info(f.params, tr_params_find(f.params, "norm1.running_var"));
  cr_expect_eq(var.role, TR_PARAM_STATE);
  cr_expect_eq(tr_params_values(f.params)[var.offset], 1.0f);
  fx_close(&f);
}

Test(graph, gives_tensors_to_read_where_nothing_is_fused) {
  fx f = {.rows = 2, .size = 3, .compile = {.no_fusion = true}};
  fx_open(&f, fx_linear);
  fx_step(&f);
  float x[2][7], weight[7][3];
  tr_error error = {0};
  const tr_param_info first = tr_params_info(f.params, tr_params_find(f.params, "first.weight"));
  const tr_param_info bias = tr_params_info(f.params, tr_params_find(f.params, "first.bias"));
  memcpy(weight, tr_params_values(f.params) + first.offset, sizeof weight);
  tr_tensor y = TR_TENSOR_INVALID;
  for (tr_tensor t = 0; tr_tensor_describe(f.graph, t).ndim > 0 && y < 0; t++) {
    const tr_tensor_info info = tr_tensor_describe(f.graph, t);
    if (info.ndim == 2 && info.shape[0] == 2 && info.shape[1] == 7) y = t;
  }
  cr_assert_eq(tr_graph_read(f.graph, y, x, sizeof x, &error), TR_OK, "%s", error.message);
  for (int r = 0; r < 2; r++) {
    for (int o = 0; o < 7; o++) {
      double sum = (double)tr_params_values(f.params)[bias.offset + (uint64_t)o];
      for (int i = 0; i < 3; i++) sum += (double)weight[o][i] * (double)((float *)f.inputs[0])[r * 3 + i];
      cr_expect_lt(fabs(sum - (double)x[r][o]), 1e-5);
    }
  }
  cr_expect_eq(tr_graph_read(f.graph, y, x, 4, NULL), TR_ERR_INVALID);
  cr_expect_eq(tr_graph_read(f.graph, 9999, x, sizeof x, NULL), TR_ERR_INVALID);
  fx_close(&f);
}

Test(graph, refuses_to_run_wrongly) {
  fx f = {.rows = 2, .size = 3};
  fx_open(&f, fx_linear);
  cr_expect_eq(tr_graph_backward(f.graph, &f.args, f.gradient, NULL, NULL, NULL), TR_ERR_INVALID);
  tr_step_args args = f.args;
  args.row_count = 3;
  cr_expect_eq(tr_graph_forward(f.graph, &args, f.outputs, NULL), TR_ERR_INVALID);
  args = f.args;
  args.inputs = NULL;
  cr_expect_eq(tr_graph_forward(f.graph, &args, f.outputs, NULL), TR_ERR_INVALID);
  const void *none[] = {NULL, NULL};
  args.inputs = none;
  tr_error error;
  cr_expect_eq(tr_graph_forward(f.graph, &args, f.outputs, &error), TR_ERR_INVALID);
  cr_expect(strstr(error.message, "'x'") != NULL);
  cr_expect_eq(tr_graph_compile(f.graph, NULL, NULL), TR_ERR_INVALID);
  float value;
  cr_expect_eq(tr_graph_read(f.graph, 0, &value, sizeof value, NULL), TR_ERR_INVALID);
  fx_close(&f);
  fx e = {.rows = 2, .size = 3, .evaluation = true};
  fx_open(&e, fx_linear);
  fx_forward(&e);
  cr_expect_eq(tr_graph_backward(e.graph, &e.args, e.gradient, NULL, NULL, NULL), TR_ERR_INVALID);
  fx_close(&e);
}

Test(graph, counts_ids_outside_the_table_and_reads_row_0_for_them) {
  fx f = {.rows = 2, .size = 3};
  fx_open(&f, fx_embedding);
  int32_t *ids = f.inputs[0];
  ids[0] = 0;
  const double loss = fx_forward(&f);
  cr_expect_eq(tr_graph_bad_ids(f.graph), 0);
  ids[0] = -1;
  cr_expect_eq(fx_forward(&f), loss);
  ids[0] = 7;
  cr_expect_eq(fx_forward(&f), loss);
  cr_expect_eq(tr_graph_bad_ids(f.graph), 2);
  fx_close(&f);
}

/* One set of parameters, a graph to train and one to evaluate with other rows. */
Test(graph, shares_parameters_with_another_graph) {
  fx f = {.rows = 4, .size = 2};
  const tr_device_options device = {.struct_bytes = sizeof device, .kind = TR_DEVICE_CPU};
  cr_assert_eq(tr_device_open(&device, &f.device, NULL), TR_OK);
  cr_assert_eq(tr_params_create(NULL, &f.params, NULL), TR_OK);
  tr_graph *graphs[2];
  fx unused = {0};
  for (int i = 0; i < 2; i++) {
    const tr_graph_options options = {.struct_bytes = sizeof options,
                                      .device = f.device,
                                      .params = f.params,
                                      .rows = i == 0 ? 4 : 1,
                                      .training = i == 0};
    cr_assert_eq(tr_graph_create(&options, &graphs[i], NULL), TR_OK);
    fx_cnn(&unused, graphs[i], 2);
  }
  cr_assert_eq(tr_params_size(f.params), 8);
  cr_assert_eq(tr_params_seal(f.params, f.device, NULL), TR_OK);
  tr_params_initialize(f.params, 5);
  for (int i = 0; i < 2; i++) cr_assert_eq(tr_graph_compile(graphs[i], NULL, NULL), TR_OK);
  f.graph = graphs[0];
  f.id_count[1] = 10;
  fx_fill_input(&f, 0), fx_fill_input(&f, 1);
  double whole[2], sum = 0.0;
  tr_step_args args = {
      .struct_bytes = sizeof args, .row_count = 4, .loss_scale = 1.0f, .inputs = (const void *const *)f.inputs};
  cr_assert_eq(tr_graph_forward(graphs[0], &args, whole, NULL), TR_OK);
  for (int row = 0; row < 4; row++) {
    const void *inputs[] = {(float *)f.inputs[0] + row * 8 * 9, (int32_t *)f.inputs[1] + row};
    double one[2];
    args.inputs = inputs;
    args.row_count = 1;
    cr_assert_eq(tr_graph_forward(graphs[1], &args, one, NULL), TR_OK);
    sum += one[0];
  }
  cr_expect_lt(fabs(sum - whole[0]), 1e-5 * fabs(sum));
  tr_graph_destroy(graphs[1]);
  fx_close(&f);
}
