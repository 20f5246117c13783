/* A static graph: built once, differentiated, planned, then executed many times without an allocation.
 *
 * Building: every function takes the graph and tensors of it and returns a tensor; shapes are checked at once. The first
 * error is kept with the op's name and reported by tr_graph_compile, so a model is written without a check on each
 * line (an invalid tensor makes everything built on it invalid). The first dimension of an activation is the rows of a
 * micro-batch, fixed when the graph is made; missing rows are zero and have weight 0. Images are [rows, height, width,
 * channels]; convolution weights [out, kernel height, kernel width, in].
 *
 * Compiling: fuses, derives the backward pass, chooses layouts, plans every activation and gradient as an offset in one
 * arena. Fusion and layouts never change which numbers are meant; the plan and the kernels depend on the shapes, the ISA
 * class and nothing measured.
 *
 * Executing: what changes from step to step is read from one tr_step_args. A loss and metrics are values a row; what the
 * graph reports is sum over rows of weight x value, in double, in row order. Gradients are sums over rows, written
 * (overwrite, never zeroed first) at each parameter's offset in the flat gradient that is handed in.
 *
 * One thread uses a graph at a time; inside, a tr_pool splits outputs only, at fixed limits, so its size changes no bit. */
#ifndef TRAINRUN_GRAPH_H
#define TRAINRUN_GRAPH_H

#include <trainrun/params.h>

TR_BEGIN_C

/* ---- Compute threads ----------------------------------------------------------------------------------------------- */

typedef struct tr_pool tr_pool;
/* threads counts the caller; 1 makes none. They sleep (after a short spin) while there is nothing to do. */
TR_API TR_MUST_USE tr_status tr_pool_create(const tr_allocator *allocator, uint32_t threads, tr_pool **out,
                                            tr_error *error);
TR_API void tr_pool_destroy(tr_pool *pool);
TR_API uint32_t tr_pool_threads(const tr_pool *pool);
/* body(self, i) for i in [0, tasks), each once, spread over the threads; returns when all are done. NULL pool: here. */
TR_API void tr_pool_run(tr_pool *pool, uint32_t tasks, void (*body)(void *self, uint32_t task), void *self);

/* ---- Building ------------------------------------------------------------------------------------------------------ */

typedef struct tr_graph tr_graph;
typedef int32_t tr_tensor;
#define TR_TENSOR_INVALID ((tr_tensor)(-1))

typedef struct tr_graph_options {
  size_t struct_bytes;
  const tr_allocator *allocator;
  tr_device *device;
  tr_params *params;
  int64_t rows;  /* of a micro-batch */
  bool training; /* false: dropout is the identity, batch norm uses running statistics, no backward */
} tr_graph_options;
TR_API TR_MUST_USE tr_status tr_graph_create(const tr_graph_options *options, tr_graph **out, tr_error *error);
TR_API void tr_graph_destroy(tr_graph *graph);
TR_API bool tr_graph_training(const tr_graph *graph);
TR_API int64_t tr_graph_rows(const tr_graph *graph);

typedef struct tr_tensor_info {
  tr_dtype dtype;
  uint32_t ndim;
  int64_t shape[TR_NDIM_MAX];
} tr_tensor_info;
TR_API tr_tensor_info tr_tensor_describe(const tr_graph *graph, tr_tensor tensor);

/* A field of the batch: [rows, shape...]. The name is the loader's field. */
TR_API tr_tensor tr_input(tr_graph *graph, const char *name, tr_dtype dtype, uint32_t ndim, const int64_t *shape);
TR_API int32_t tr_graph_input_count(const tr_graph *graph);
TR_API const char *tr_graph_input_name(const tr_graph *graph, int32_t input);
TR_API tr_tensor tr_graph_input_tensor(const tr_graph *graph, int32_t input);

/* A parameter as a tensor (its name is looked up or added). */
TR_API tr_tensor tr_parameter(tr_graph *graph, const tr_param_spec *spec);

/* Elementwise and shape. */
TR_API tr_tensor tr_to_float(tr_graph *graph, tr_tensor x, float scale, float shift); /* x * scale + shift, any dtype */
TR_API tr_tensor tr_add(tr_graph *graph, tr_tensor a, tr_tensor b);                   /* equal shapes */
TR_API tr_tensor tr_relu(tr_graph *graph, tr_tensor x);
TR_API tr_tensor tr_gelu(tr_graph *graph, tr_tensor x);      /* exact: x * Phi(x) by erf */
TR_API tr_tensor tr_gelu_tanh(tr_graph *graph, tr_tensor x); /* the tanh approximation (GPT-2) */
TR_API tr_tensor tr_reshape(tr_graph *graph, tr_tensor x, uint32_t ndim, const int64_t *shape); /* without rows */
TR_API tr_tensor tr_flatten(tr_graph *graph, tr_tensor x);                                      /* [rows, rest] */
/* Zeroes with probability p and scales by 1/(1-p); bits by (seed, step, global row, op, element). */
TR_API tr_tensor tr_dropout(tr_graph *graph, tr_tensor x, float p);

/* Layers: the op and its parameters NAME.weight, NAME.bias, initialised as PyTorch does. x: [rows, ..., in]. */
TR_API tr_tensor tr_linear(tr_graph *graph, const char *name, tr_tensor x, int64_t out_features, bool bias);
typedef struct tr_conv2d_options {
  size_t struct_bytes;
  int64_t out_channels;
  int64_t kernel[2]; /* height, width; 0: 3 */
  int64_t stride[2]; /* 0: 1 */
  int64_t padding[2];
  bool no_bias;
} tr_conv2d_options;
TR_API tr_tensor tr_conv2d(tr_graph *graph, const char *name, tr_tensor x, const tr_conv2d_options *options);
typedef struct tr_pool2d_options {
  size_t struct_bytes;
  int64_t kernel[2]; /* 0: 2 */
  int64_t stride[2]; /* 0: the kernel */
  int64_t padding[2];
} tr_pool2d_options;
TR_API tr_tensor tr_max_pool2d(tr_graph *graph, tr_tensor x, const tr_pool2d_options *options);
TR_API tr_tensor tr_avg_pool2d(tr_graph *graph, tr_tensor x, const tr_pool2d_options *options);
/* Over the last dimension. NAME.weight, NAME.bias. */
TR_API tr_tensor tr_layer_norm(tr_graph *graph, const char *name, tr_tensor x, float eps);
/* Over all but the last dimension, statistics of the micro-batch (rows of weight 0 left out). NAME.weight, NAME.bias,
 * NAME.running_mean, NAME.running_var (role STATE; unbiased variance, as PyTorch keeps). */
TR_API tr_tensor tr_batch_norm(tr_graph *graph, const char *name, tr_tensor x, float eps);
/* ids: I32 or U16 [rows, ...] -> [rows, ..., width]. NAME.weight [count, width], normal(0, 1). An id outside
 * [0, count) reads row 0 and is counted in tr_graph_bad_ids. */
TR_API tr_tensor tr_embedding(tr_graph *graph, const char *name, tr_tensor ids, int64_t count, int64_t width);

/* Losses and metrics: one value a row, [rows] fp32. labels: U8, U16 or I32 [rows]; targets as x. */
TR_API tr_tensor tr_softmax_cross_entropy(tr_graph *graph, tr_tensor logits, tr_tensor labels);
TR_API tr_tensor tr_mean_squared_error(tr_graph *graph, tr_tensor x, tr_tensor target); /* mean over the row */
TR_API tr_tensor tr_accuracy(tr_graph *graph, tr_tensor logits, tr_tensor labels); /* 1 where argmax is the label */

/* What training minimises, and what is reported: outputs[0] is always the loss. At most TR_OUTPUTS_MAX. */
enum { TR_OUTPUTS_MAX = 16 };
TR_API void tr_graph_loss(tr_graph *graph, tr_tensor per_row);
TR_API void tr_graph_metric(tr_graph *graph, const char *name, tr_tensor per_row);
TR_API int32_t tr_graph_output_count(const tr_graph *graph);
TR_API const char *tr_graph_output_name(const tr_graph *graph, int32_t output);

/* Fails the build from outside (a model that cannot be made from its [params]); the first failure stays. */
TR_API tr_tensor tr_graph_fail(tr_graph *graph, const char *format, ...) TR_PRINTF(2, 3);

/* ---- Compiling and executing --------------------------------------------------------------------------------------- */

typedef struct tr_graph_compile_options {
  size_t struct_bytes;
  tr_pool *pool;  /* NULL: the calling thread alone */
  bool poison;    /* fill dead activations with NaN to catch reads of them (debugging; slow) */
  bool no_fusion; /* the reference graph */
  bool reference; /* the plain kernels */
  bool profile;   /* time every op */
} tr_graph_compile_options;
/* Call after tr_params_seal. Reports the first error of the build. */
TR_API TR_MUST_USE tr_status tr_graph_compile(tr_graph *graph, const tr_graph_compile_options *options,
                                              tr_error *error);
TR_API size_t tr_graph_arena_bytes(const tr_graph *graph);

/* Everything that changes from step to step; in device memory on a GPU, so that a step can be captured and replayed. */
typedef struct tr_step_args {
  size_t struct_bytes;
  uint64_t seed;
  uint64_t step;             /* of the job: 0 for the first */
  uint64_t row_offset;       /* of this micro-batch's first row in the global batch */
  uint32_t row_count;        /* rows that are there; the rest have weight 0 */
  const float *row_weight;   /* [rows], or NULL: 1 for row < row_count */
  float loss_scale;          /* gradients are multiplied by it; 1 on fp32 */
  const void *const *inputs; /* by input number; [rows, shape...] of the input's dtype, missing rows zero */
} tr_step_args;

/* outputs[i]: weighted sum over rows of output i. */
TR_API TR_MUST_USE tr_status tr_graph_forward(tr_graph *graph, const tr_step_args *args, double *outputs,
                                              tr_error *error);
/* After a forward with the same args: writes the whole gradient (tr_params_gradient_count elements; padding is left
 * alone). ready(self, offset) is called from the calling thread between ops: everything at or above offset is final. The
 * offset only falls and ends at 0. ready may be NULL. */
TR_API TR_MUST_USE tr_status tr_graph_backward(tr_graph *graph, const tr_step_args *args, float *gradient,
                                               void (*ready)(void *self, uint64_t offset), void *self, tr_error *error);
TR_API uint64_t tr_graph_bad_ids(const tr_graph *graph);
/* After a forward in an unpoisoned graph made with reference or no_fusion: copies a tensor out (tests). */
TR_API TR_MUST_USE tr_status tr_graph_read(tr_graph *graph, tr_tensor tensor, void *to, size_t bytes, tr_error *error);

typedef struct tr_op_profile {
  const char *name; /* "conv2d conv2 forward" */
  uint64_t calls, time_ns;
  double flops, bytes; /* of all calls */
} tr_op_profile;
/* Entries in execution order; valid until the graph is destroyed. */
TR_API size_t tr_graph_profile(const tr_graph *graph, const tr_op_profile **entries);

/* ---- Ops of one's own ---------------------------------------------------------------------------------------------- */

enum { TR_OP_INPUTS_MAX = 8 };
typedef struct tr_op_call {
  const void *inputs[TR_OP_INPUTS_MAX];
  tr_tensor_info input_info[TR_OP_INPUTS_MAX];
  int32_t input_count;
  void *output; /* forward: written; backward: the saved output when saves_output, else NULL */
  tr_tensor_info output_info;
  const void *output_gradient;               /* backward */
  void *input_gradients[TR_OP_INPUTS_MAX];   /* NULL where none is wanted */
  bool input_gradient_add[TR_OP_INPUTS_MAX]; /* add instead of overwrite */
  void *workspace;
  const tr_step_args *step;
  const void *attributes; /* as given to tr_op_apply, copied */
  uint64_t op_number;     /* canonical: position in the build */
} tr_op_call;

typedef struct tr_op_descriptor {
  size_t struct_bytes;
  const char *name;
  size_t attribute_bytes;
  /* The output's dtype and shape from the inputs'; a failure's message is shown with the op's name. */
  tr_status (*shape)(const tr_tensor_info *inputs, int32_t input_count, const void *attributes, tr_tensor_info *output,
                     tr_error *error);
  uint32_t saves_inputs; /* bit i: backward reads input i */
  bool saves_output;
  size_t (*workspace_bytes)(const tr_tensor_info *inputs, int32_t input_count, const void *attributes); /* or NULL */
  void (*forward)(const tr_op_call *call);
  void (*backward)(const tr_op_call *call); /* NULL: no gradient flows through */
  double (*flops)(const tr_tensor_info *inputs, int32_t input_count, const void *attributes); /* forward; or NULL */
} tr_op_descriptor;
/* Makes the descriptor known to this graph under its name (a name of ours or a second time: TR_ERR_EXISTS). */
TR_API TR_MUST_USE tr_status tr_op_register(tr_graph *graph, const tr_op_descriptor *descriptor, tr_error *error);
TR_API tr_tensor tr_op_apply(tr_graph *graph, const char *op, const tr_tensor *inputs, int32_t input_count,
                             const void *attributes);

TR_END_C
#endif
