/* What a graph is made of, for the files of this room only.
 *
 * Build: tensors and nodes are appended in the order of the calls; a node's number is its place in the build and never
 * changes. A view (reshape) is a tensor with another tensor as its root and no node of its own.
 * Compile: fuse -> differentiate (which gradients exist, who writes them first) -> prepare (objects and sizes of each
 * op) -> plan (an offset in the arena for each buffer) -> bind (a tr_op_run with all pointers for each step).
 * Execute: walk the steps; only inputs and parameter gradients are patched, since they come with each call.
 *
 * Time, as the plan counts it: forward steps 0..F-1, then F (losses are summed, the loss gradient is written, state slots
 * are written), then backward steps F+1..F+B. */
#ifndef TRAINRUN_OPS_GRAPH_PRIVATE_H
#define TRAINRUN_OPS_GRAPH_PRIVATE_H

#include <trainrun/graph.h>

#include "kernels/kernels.h"

typedef struct tr_graph_node tr_graph_node;
typedef struct tr_op_class tr_op_class;

typedef enum tr_tensor_kind { TR_TENSOR_ACTIVATION, TR_TENSOR_INPUT, TR_TENSOR_PARAM } tr_tensor_kind;

typedef struct tr_graph_tensor {
  tr_tensor_info info;
  uint64_t count; /* elements */
  size_t bytes;
  tr_tensor_kind kind;
  tr_tensor root;   /* itself, or what it is a view of */
  int32_t producer; /* node, or -1 */
  int32_t input;    /* INPUT: its number */
  tr_param param;   /* PARAM */
  bool is_output;   /* a loss or metric reads it (of roots) */

  /* Compile; of roots only. */
  bool wants_gradient;                   /* something trained lies behind it */
  bool has_gradient;                     /* a backward step writes it */
  int32_t value_buffer, gradient_buffer; /* -1: none */
} tr_graph_tensor;

/* Everything an op sees when it runs. `call` is what ops from outside see too. */
typedef struct tr_op_run {
  tr_op_call call;
  void *output_gradient; /* as call.output_gradient, but the op may destroy it */
  const tr_graph_node *node;
  void *saved;   /* from forward to backward */
  void *scratch; /* as call.workspace */
  const void *packed;
  const tr_kernels *kernels;
  tr_pool *pool;
  const float *row_weight; /* [rows], what the step says of each row */
  uint64_t *bad_ids;
} tr_op_run;

/* What the graph knows of a kind of op. Bit i of a mask is input i. */
struct tr_op_class {
  const char *name;
  uint32_t saves_inputs; /* backward reads their values */
  bool saves_output;
  uint32_t forward_in_place;  /* output may lie where input i is */
  uint32_t backward_in_place; /* gradient i may lie where the output's gradient is */
  /* Makes node->object and sets the sizes; called once gradients are known. NULL: nothing is needed. */
  tr_status (*prepare)(tr_graph *graph, tr_graph_node *node, tr_error *error);
  void (*unprepare)(tr_graph *graph, tr_graph_node *node);
  void (*pack)(const tr_op_run *run, void *packed); /* when the parameters' version rises */
  void (*forward)(tr_op_run *run);
  void (*backward)(tr_op_run *run);    /* NULL: no gradient flows through */
  void (*write_state)(tr_op_run *run); /* the slots of STATE inputs, before backward; NULL: none */
  double (*flops)(const tr_graph *graph, const tr_graph_node *node); /* forward; NULL: 0 */
};

struct tr_graph_node {
  const tr_op_class *op;
  const char *name; /* of the layer, or "" */
  uint64_t number;  /* canonical: place in the build */
  tr_tensor inputs[TR_OP_INPUTS_MAX];
  int32_t input_count;
  tr_tensor output;
  void *attributes; /* the op's own struct; fusion may change it */
  size_t attribute_bytes;
  const tr_op_descriptor *custom; /* an op from outside */
  bool dead;                      /* fused into another, or nobody reads it */

  /* Compile. */
  uint32_t saves_inputs;
  bool saves_output;
  bool differentiated;      /* it has a backward step */
  uint32_t gradient_wanted; /* bit i: backward writes the gradient of input i */
  uint32_t gradient_add;    /* bit i: adding to what is there */
  void *object;
  size_t saved_bytes, forward_scratch, backward_scratch, packed_bytes;
  void *packed;
  uint64_t packed_version;
  int32_t forward_time, backward_time; /* -1: none */
  int32_t saved_buffer, forward_scratch_buffer, backward_scratch_buffer;
};

typedef struct tr_graph_step {
  int32_t node;
  tr_op_run run;
  uint64_t watermark; /* backward: all gradients at or above it are final after this step */
} tr_graph_step;

/* Pointers that come with a call: args->inputs[number] or gradient + offset. */
typedef struct tr_graph_patch {
  void **where;
  uint64_t what;
} tr_graph_patch;

/* A piece of the arena that must stay untouched from time `first` to time `last`. */
typedef struct tr_graph_buffer {
  size_t bytes;
  int32_t first, last;
  int32_t merged; /* -1, or the buffer that it lies on (in place) */
  size_t offset;
} tr_graph_buffer;

typedef struct tr_graph_output {
  const char *name;
  tr_tensor tensor; /* TR_TENSOR_INVALID: none yet */
} tr_graph_output;

typedef struct tr_graph_fill {
  uint64_t offset, count;
} tr_graph_fill;

struct tr_graph {
  const tr_allocator *allocator;
  tr_arena *memory; /* names, attributes, everything of compile */
  tr_device *device;
  tr_params *params;
  int64_t rows;
  bool training;

  /* Build. */
  tr_graph_tensor *tensors;
  size_t tensor_count, tensor_capacity;
  tr_graph_node *nodes;
  size_t node_count, node_capacity;
  uint64_t next_number;
  tr_tensor *inputs;
  const char **input_names;
  int32_t input_count;
  size_t input_capacity, input_name_capacity;
  tr_graph_output outputs[TR_OUTPUTS_MAX];
  int32_t output_count;
  tr_op_class **custom;
  const tr_op_descriptor **custom_descriptors;
  size_t custom_count, custom_capacity, custom_descriptor_capacity;
  bool failed;
  tr_error first_error;

  /* Compile. */
  bool compiled;
  tr_graph_compile_options options;
  const tr_kernels *kernels;
  bool readable; /* every activation keeps its place until the end */
  tr_graph_buffer *buffers;
  size_t buffer_count, buffer_capacity;
  tr_graph_step *forward_steps, *backward_steps, *state_steps;
  int32_t forward_count, backward_count, state_count;
  tr_graph_patch *input_patches, *gradient_patches;
  size_t input_patch_count, gradient_patch_count;
  tr_graph_fill *zero_fills; /* gradients that nobody writes */
  size_t zero_fill_count;
  uint64_t first_watermark;
  char *arena;
  size_t arena_bytes;
  char *packed;
  size_t packed_bytes;
  tr_op_profile *profile;
  size_t profile_count;

  /* Execute. */
  tr_step_args args;
  float *row_weight;
  bool forward_done;
  uint64_t bad_ids;
};

/* --- graph.c --- */
static inline tr_graph_tensor *tr_graph_tensor_at(const tr_graph *graph, tr_tensor tensor) {
  return &graph->tensors[tensor];
}
static inline tr_graph_tensor *tr_graph_root(const tr_graph *graph, tr_tensor tensor) {
  return &graph->tensors[graph->tensors[tensor].root];
}
bool tr_graph_has(const tr_graph *graph, tr_tensor tensor);
/* Keeps the first failure; always TR_TENSOR_INVALID. "op 'name': message" */
tr_tensor tr_graph_fail_op(tr_graph *graph, const char *op, const char *name, const char *format, ...) TR_PRINTF(4, 5);
void tr_graph_fail_error(tr_graph *graph, const tr_error *error);
/* "[16, 28, 28, 1]" into text. */
const char *tr_graph_shape_text(const tr_tensor_info *info, char text[96]);
tr_tensor tr_graph_add_tensor(tr_graph *graph, const tr_graph_tensor *tensor);
/* Appends a node with a copy of the attributes; its output has the given shape. */
tr_tensor tr_graph_add_node(tr_graph *graph, const tr_op_class *op, const char *name, const tr_tensor *inputs,
                            int32_t input_count, const void *attributes, size_t attribute_bytes,
                            const tr_tensor_info *output);
/* Elements; 0 when there are too many or a dimension is below 1. */
uint64_t tr_graph_count_of(const tr_tensor_info *info);

/* --- compile's passes, in order --- */
void tr_graph_fuse(tr_graph *graph);
tr_status tr_graph_differentiate(tr_graph *graph, tr_error *error);
tr_status tr_graph_plan(tr_graph *graph, tr_error *error);
tr_status tr_graph_bind(tr_graph *graph, tr_error *error);
/* Offsets at multiples of 64 so that buffers alive at one time never overlap; returns the bytes needed. Pure. */
size_t tr_plan_offsets(tr_graph_buffer *buffers, const int32_t *order, size_t count);
void tr_graph_poison(const tr_graph *graph, int32_t time);
tr_status tr_graph_profile_make(tr_graph *graph, tr_error *error);

/* --- parallel.c --- */
/* fn over pieces of [0, n) of `grain` each, on the pool's threads; over [0, n) at once where there is one thread. */
void tr_ops_split(tr_op_run *run, size_t n, size_t grain, void (*fn)(tr_op_run *run, size_t begin, size_t end));
/* fn for each tile, each thread with its own `scratch_bytes` (a multiple of 64) of run->scratch + scratch_offset. */
void tr_ops_tiles(tr_op_run *run, int32_t tiles, size_t scratch_offset, size_t scratch_bytes,
                  void (*fn)(tr_op_run *run, int32_t tile, void *scratch));
size_t tr_ops_tiles_scratch(const tr_graph *graph, int32_t tiles, size_t scratch_bytes);
static inline size_t tr_ops_round64(size_t bytes) { return (bytes + 63) & ~(size_t)63; }
enum { TR_OPS_GRAIN = 16384 };

/* --- Attributes of our own ops. --- */
typedef struct tr_linear_attributes {
  int64_t rows, in, out;
  bool bias, relu;
} tr_linear_attributes;
typedef struct tr_conv_attributes {
  tr_window window;
  int64_t out_c;
  bool bias, relu, pool;
} tr_conv_attributes;
typedef struct tr_affine_attributes {
  float scale, shift;
} tr_affine_attributes;
typedef struct tr_norm_attributes {
  int64_t n, c; /* [n][c] */
  float eps;
} tr_norm_attributes;
typedef struct tr_dropout_attributes {
  float p;
} tr_dropout_attributes;
typedef struct tr_embedding_attributes {
  int64_t n, count, width;
} tr_embedding_attributes;

extern const tr_op_class tr_op_to_float, tr_op_add, tr_op_relu, tr_op_gelu, tr_op_gelu_tanh, tr_op_dropout;
extern const tr_op_class tr_op_linear, tr_op_conv2d, tr_op_max_pool2d, tr_op_avg_pool2d;
extern const tr_op_class tr_op_layer_norm, tr_op_batch_norm, tr_op_batch_norm_running, tr_op_embedding;
extern const tr_op_class tr_op_softmax_cross_entropy, tr_op_mean_squared_error, tr_op_accuracy;

#endif
