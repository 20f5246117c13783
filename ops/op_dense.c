/* Linear and convolution: objects of the kernels, made when the graph is compiled, run tile by tile. */
#include <string.h>

#include "graph_private.h"

/* One flag says "add" for weight and bias together. Where a tie makes them differ, the one to overwrite is zeroed. */
static bool common_add(const tr_op_run *run, int32_t weight, int32_t bias, size_t weight_count, size_t bias_count) {
  float *dw = run->call.input_gradients[weight], *db = run->call.input_gradients[bias];
  const bool add_w = run->call.input_gradient_add[weight], add_b = run->call.input_gradient_add[bias];
  if (dw == NULL || db == NULL || add_w == add_b) return dw != NULL ? add_w : add_b;
  if (add_w)
    memset(db, 0, bias_count * sizeof *db);
  else
    memset(dw, 0, weight_count * sizeof *dw);
  return true;
}

/* ---- linear -------------------------------------------------------------------------------------------------------- */

static tr_status linear_prepare(tr_graph *graph, tr_graph_node *node, tr_error *error) {
  const tr_linear_attributes *a = node->attributes;
  const tr_linear_options options = {.struct_bytes = sizeof options,
                                     .rows = (int32_t)a->rows,
                                     .in = (int32_t)a->in,
                                     .out = (int32_t)a->out,
                                     .bias = a->bias,
                                     .relu = a->relu};
  tr_linear_kernel *linear = NULL;
  TR_TRY(tr_linear_create(graph->kernels, &options, graph->allocator, &linear, error));
  node->object = linear;
  node->saves_output = a->relu;
  const size_t scratch = tr_linear_scratch_bytes(linear);
  node->forward_scratch = tr_ops_tiles_scratch(graph, tr_linear_forward_tiles(linear), scratch);
  int32_t tiles = tr_linear_data_tiles(linear);
  if (tr_linear_weight_tiles(linear) > tiles) tiles = tr_linear_weight_tiles(linear);
  node->backward_scratch = tr_ops_tiles_scratch(graph, tiles, scratch);
  return TR_OK;
}

static void linear_unprepare(tr_graph *graph, tr_graph_node *node) {
  (void)graph;
  tr_linear_destroy(node->object);
  node->object = NULL;
}

static void linear_forward_tile(tr_op_run *run, int32_t tile, void *scratch) {
  const tr_op_call *call = &run->call;
  tr_linear_forward(run->node->object, tile, call->inputs[0], call->inputs[1],
                    call->input_count > 2 ? call->inputs[2] : NULL, call->output, scratch);
}

static void linear_forward(tr_op_run *run) {
  const tr_linear_kernel *linear = run->node->object;
  tr_ops_tiles(run, tr_linear_forward_tiles(linear), 0, tr_linear_scratch_bytes(linear), linear_forward_tile);
}

/* The gradient of what ReLU let through; nobody reads the output's gradient after this op. */
static void linear_mask_range(tr_op_run *run, size_t begin, size_t end) {
  float *dy = run->output_gradient;
  run->kernels->relu_backward((const float *)run->call.output + begin, dy + begin, dy + begin, end - begin, false);
}

static void linear_data_tile(tr_op_run *run, int32_t tile, void *scratch) {
  tr_linear_backward_data(run->node->object, tile, run->output_gradient, run->call.inputs[1],
                          run->call.input_gradients[0], run->call.input_gradient_add[0], scratch);
}

static void linear_weight_tile(tr_op_run *run, int32_t tile, void *scratch) {
  tr_linear_backward_weights(run->node->object, tile, run->output_gradient, run->call.inputs[0],
                             run->call.input_gradients[1], run->call.input_gradients[2],
                             run->call.input_gradient_add[1], scratch);
}

static void linear_bias_range(tr_op_run *run, size_t begin, size_t end) {
  const tr_linear_attributes *a = run->call.attributes;
  run->kernels->bias_grad(run->output_gradient, run->call.input_gradients[2], (size_t)a->rows, (size_t)a->out, begin,
                          end, run->call.input_gradient_add[2]);
}

static void linear_backward(tr_op_run *run) {
  const tr_linear_attributes *a = run->call.attributes;
  const tr_linear_kernel *linear = run->node->object;
  const size_t scratch = tr_linear_scratch_bytes(linear);
  if (a->relu) tr_ops_split(run, (size_t)(a->rows * a->out), TR_OPS_GRAIN, linear_mask_range);
  if (run->call.input_gradients[1] != NULL) {
    const bool add = common_add(run, 1, 2, (size_t)(a->in * a->out), (size_t)a->out);
    run->call.input_gradient_add[1] = add;
    tr_ops_tiles(run, tr_linear_weight_tiles(linear), 0, scratch, linear_weight_tile);
    run->call.input_gradient_add[1] = run->node->gradient_add >> 1 & 1;
  } else if (run->call.input_gradients[2] != NULL) {
    tr_ops_split(run, (size_t)a->out, 256, linear_bias_range);
  }
  if (run->call.input_gradients[0] != NULL)
    tr_ops_tiles(run, tr_linear_data_tiles(linear), 0, scratch, linear_data_tile);
}

static double linear_flops(const tr_graph *graph, const tr_graph_node *node) {
  (void)graph;
  const tr_linear_attributes *a = node->attributes;
  return 2.0 * (double)a->rows * (double)a->in * (double)a->out;
}

const tr_op_class tr_op_linear = {.name = "linear",
                                  .saves_inputs = 3,
                                  .prepare = linear_prepare,
                                  .unprepare = linear_unprepare,
                                  .forward = linear_forward,
                                  .backward = linear_backward,
                                  .flops = linear_flops};

/* ---- conv2d -------------------------------------------------------------------------------------------------------- */

/* Backward scratch: the lanes' scratch, the tiles' parts, and a place for a weight gradient that nobody wants. */
typedef struct conv_scratch {
  size_t parts, unwanted, bytes;
} conv_scratch;

static size_t conv_weight_count(const tr_conv_attributes *a) {
  return (size_t)a->out_c * (size_t)a->window.kh * (size_t)a->window.kw * (size_t)a->window.c;
}

static conv_scratch conv_backward_layout(const tr_conv *conv, const tr_conv_attributes *a, uint32_t threads,
                                         uint32_t wanted) {
  const uint32_t tiles = (uint32_t)tr_conv_tiles(conv);
  conv_scratch layout;
  layout.parts = (threads < tiles ? threads : tiles) * tr_ops_round64(tr_conv_scratch_bytes(conv));
  layout.unwanted = layout.parts + tr_ops_round64(tr_conv_parts_bytes(conv));
  layout.bytes = layout.unwanted + (wanted >> 1 & 1 ? 0 : tr_ops_round64(conv_weight_count(a) * sizeof(float)));
  return layout;
}

static tr_status conv_prepare(tr_graph *graph, tr_graph_node *node, tr_error *error) {
  const tr_conv_attributes *a = node->attributes;
  const tr_conv_options options = {.struct_bytes = sizeof options,
                                   .rows = (int32_t)graph->rows,
                                   .window = a->window,
                                   .out_c = (int32_t)a->out_c,
                                   .bias = a->bias,
                                   .relu = a->relu,
                                   .pool = a->pool,
                                   .input_grad = node->gradient_wanted & 1,
                                   .backward = node->differentiated};
  tr_conv *conv = NULL;
  TR_TRY(tr_conv_create(graph->kernels, &options, graph->allocator, &conv, error));
  node->object = conv;
  node->saves_output = a->relu;
  node->saved_bytes = tr_conv_saved_bytes(conv);
  node->packed_bytes = tr_conv_packed_bytes(conv);
  node->forward_scratch = tr_ops_tiles_scratch(graph, tr_conv_tiles(conv), tr_conv_scratch_bytes(conv));
  node->backward_scratch =
      conv_backward_layout(conv, a, tr_pool_threads(graph->options.pool), node->gradient_wanted).bytes;
  return TR_OK;
}

static void conv_unprepare(tr_graph *graph, tr_graph_node *node) {
  (void)graph;
  tr_conv_destroy(node->object);
  node->object = NULL;
}

static void conv_pack(const tr_op_run *run, void *packed) {
  tr_conv_pack(run->node->object, run->call.inputs[1], packed);
}

static void conv_forward_tile(tr_op_run *run, int32_t tile, void *scratch) {
  const tr_op_call *call = &run->call;
  tr_conv_forward(run->node->object, tile, call->inputs[0], run->packed, call->input_count > 2 ? call->inputs[2] : NULL,
                  call->output, run->saved, scratch);
}

static void conv_forward(tr_op_run *run) {
  const tr_conv *conv = run->node->object;
  tr_ops_tiles(run, tr_conv_tiles(conv), 0, tr_conv_scratch_bytes(conv), conv_forward_tile);
}

static conv_scratch conv_layout_of(const tr_op_run *run) {
  return conv_backward_layout(run->node->object, run->call.attributes, tr_pool_threads(run->pool),
                              run->node->gradient_wanted);
}

static void conv_backward_tile(tr_op_run *run, int32_t tile, void *scratch) {
  const tr_op_call *call = &run->call;
  char *parts = (char *)run->scratch + conv_layout_of(run).parts;
  tr_conv_backward(run->node->object, tile, call->inputs[0], call->inputs[1], run->packed, call->output, run->saved,
                   run->output_gradient, call->input_gradients[0], call->input_gradient_add[0], parts, scratch);
}

static void conv_backward(tr_op_run *run) {
  const tr_conv_attributes *a = run->call.attributes;
  const tr_conv *conv = run->node->object;
  const conv_scratch layout = conv_layout_of(run);
  tr_ops_tiles(run, tr_conv_tiles(conv), 0, tr_conv_scratch_bytes(conv), conv_backward_tile);
  float *dw = run->call.input_gradients[1], *db = run->call.input_gradients[2];
  if (dw == NULL && db == NULL) return;
  const bool add = common_add(run, 1, 2, conv_weight_count(a), (size_t)a->out_c);
  char *scratch = run->scratch;
  if (dw == NULL) {
    dw = (float *)(scratch + layout.unwanted);
    if (add) memset(dw, 0, conv_weight_count(a) * sizeof *dw);
  }
  tr_conv_backward_finish(conv, scratch + layout.parts, dw, db, add);
}

static double conv_flops(const tr_graph *graph, const tr_graph_node *node) {
  const tr_conv_attributes *a = node->attributes;
  return 2.0 * (double)graph->rows * (double)a->window.out_h * (double)a->window.out_w * (double)conv_weight_count(a);
}

const tr_op_class tr_op_conv2d = {.name = "conv2d",
                                  .saves_inputs = 3,
                                  .prepare = conv_prepare,
                                  .unprepare = conv_unprepare,
                                  .pack = conv_pack,
                                  .forward = conv_forward,
                                  .backward = conv_backward,
                                  .flops = conv_flops};
