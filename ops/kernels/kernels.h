/* The CPU kernels under the ops: plain functions over pointers and shapes, chosen once at run time by instruction set.
 *
 * Nothing here knows graphs, tensors or threads. A kernel is single-threaded; where splitting makes sense it takes a
 * half-open range of its *outputs* (rows, columns, tiles), and the pool splits at boundaries that depend on shapes alone.
 *
 * Bits: a result is a pure function of inputs, shapes and ISA class; never of the range it was computed in (for the
 * ranges' rules see each group), of alignment, of a thread or of a run. GEMM and convolution may differ between classes;
 * everything in tr_kernels has the same bits in AVX2 and AVX-512, and those of the naive twins are close.
 *
 * Layouts: activations of images are [rows][h][w][c], convolution weights [oc][kh][kw][ic], linear weights [out][in];
 * everything fp32 and dense. Pointers need the alignment of their type only; 64 bytes is faster. Outputs never alias
 * inputs unless a comment allows it. Every `add` flag: false overwrites the output, true adds to it. */
#ifndef TRAINRUN_OPS_KERNELS_H
#define TRAINRUN_OPS_KERNELS_H

#include <trainrun/alloc.h>
#include <trainrun/rng.h>

typedef enum tr_isa {
  TR_ISA_PLAIN = 0,  /* the naive twins, in C only */
  TR_ISA_AVX2 = 1,   /* AVX2 and FMA */
  TR_ISA_AVX512 = 2, /* AVX-512 F, BW, VL, DQ */
  TR_ISA_COUNT = 3
} tr_isa;

/* Which random numbers an element of a dropout draws: word (e % 4) of tr_rng(seed, TR_RNG_DROPOUT, step, stream << 48
 * | e / 4), e being the canonical number of the element (global row * elements of a row + position). */
typedef struct tr_dropout_key {
  uint64_t seed;
  uint64_t step;
  uint32_t stream; /* the op's number in its graph, below 2^16 */
  float p;         /* an element is dropped with this probability, the others are scaled by 1 / (1 - p) */
} tr_dropout_key;

/* A window that slides over an image: pooling and convolution. Padding counts as -inf (max) or is left out (average). */
typedef struct tr_window {
  int32_t h, w, c; /* of one input image */
  int32_t kh, kw;  /* kh * kw <= 255 for max pooling */
  int32_t stride_h, stride_w;
  int32_t pad_h, pad_w; /* on both sides, smaller than the kernel */
  int32_t out_h, out_w; /* (h + 2 pad - k) / stride + 1, rounded down */
} tr_window;

/* Fills out_h and out_w; false when the window does not fit. */
bool tr_window_shape(tr_window *window);

typedef struct tr_kernels {
  tr_isa isa;
  const char *name; /* "plain", "avx2", "avx512": goes into a run's fingerprint */

  /* --- Elementwise over n elements; any range of a tensor may be done alone. y == x is allowed everywhere. --- */
  void (*relu_forward)(const float *x, float *y, size_t n);
  void (*relu_backward)(const float *y, const float *dy, float *dx, size_t n, bool add); /* dx = y > 0 ? dy : 0 */
  void (*gelu_tanh_forward)(const float *x, float *y, size_t n);
  void (*gelu_tanh_backward)(const float *x, const float *dy, float *dx, size_t n, bool add);
  void (*gelu_erf_forward)(const float *x, float *y, size_t n);
  void (*gelu_erf_backward)(const float *x, const float *dy, float *dx, size_t n, bool add);
  void (*exp)(const float *x, float *y, size_t n); /* 0 below -87.3, +inf above 88.7 */
  void (*add)(const float *a, const float *b, float *y, size_t n);
  void (*scale)(const float *x, float factor, float *y, size_t n, bool add);            /* y (+)= factor * x */
  void (*convert_u8)(const uint8_t *x, float factor, float offset, float *y, size_t n); /* factor * x + offset */
  /* Forward and backward are this one function: y (+)= mask * x. first: the canonical number of x[0]. */
  void (*dropout)(const float *x, float *y, size_t n, const tr_dropout_key *key, uint64_t first, bool add);

  /* --- Matrices [rows][cols]. --- */
  void (*bias_add)(const float *x, const float *bias, float *y, size_t rows, size_t cols); /* y == x allowed */
  /* db[c] (+)= sum over all rows of dy[.][c], for columns [c0, c1) only. Any range of columns. */
  void (*bias_grad)(const float *dy, float *db, size_t rows, size_t cols, size_t c0, size_t c1, bool add);

  /* Layer norm over each row; mean and rstd: one a row, kept for backward. Any range of rows is a call of its own. */
  void (*layer_norm_forward)(const float *x, const float *gamma, const float *beta, float eps, float *y, float *mean,
                             float *rstd, size_t rows, size_t cols);
  void (*layer_norm_backward_data)(const float *x, const float *dy, const float *gamma, const float *mean,
                                   const float *rstd, float *dx, size_t rows, size_t cols, bool add);
  void (*layer_norm_backward_params)(const float *x, const float *dy, const float *mean, const float *rstd,
                                     float *dgamma, float *dbeta, size_t rows, size_t cols, size_t c0, size_t c1,
                                     bool add);

  /* Batch norm of [n][c] (n = rows * h * w), by columns. stats gives mean and *biased* variance of columns [c0, c1).
   * apply and backward_data may be called for any range of n. rstd = 1 / sqrt(var + eps), by batch_norm_rstd. */
  void (*batch_norm_stats)(const float *x, size_t n, size_t c, size_t c0, size_t c1, float *mean, float *var);
  void (*batch_norm_rstd)(const float *var, float eps, float *rstd, size_t c);
  void (*batch_norm_apply)(const float *x, const float *mean, const float *rstd, const float *gamma, const float *beta,
                           float *y, size_t n, size_t c);
  /* dgamma and dbeta of columns [c0, c1); they are what backward_data needs, so keep sums of this batch apart from
   * accumulated gradients: always overwrites. */
  void (*batch_norm_backward_params)(const float *x, const float *dy, const float *mean, const float *rstd,
                                     float *dgamma, float *dbeta, size_t n, size_t c, size_t c0, size_t c1);
  /* n: of the range; n_total: of the batch that mean, rstd, dgamma and dbeta were taken over. */
  void (*batch_norm_backward_data)(const float *x, const float *dy, const float *mean, const float *rstd,
                                   const float *gamma, const float *dgamma, const float *dbeta, float *dx, size_t n,
                                   size_t n_total, size_t c, bool add);

  /* --- Losses; any range of rows alone. weight: one a row, NULL for all 1. --- */
  /* loss[r] = weight[r] * (logsumexp(logits[r]) - logits[r][label[r]]), 0 where the label lies outside [0, classes);
   * prob: softmax, kept for backward (may be NULL, may be logits). hit[r] (may be NULL) = weight[r] where the first
   * largest logit is the label's, else 0. */
  void (*softmax_xent_forward)(const float *logits, const int32_t *label, const float *weight, float *prob, float *loss,
                               float *hit, size_t rows, size_t classes);
  /* dlogits (+)= scale * weight[r] * (prob - onehot). dlogits == prob is allowed. */
  void (*softmax_xent_backward)(const float *prob, const int32_t *label, const float *weight, float scale,
                                float *dlogits, size_t rows, size_t classes, bool add);
  void (*softmax)(const float *x, float *y, size_t rows, size_t cols); /* y == x allowed */
  /* loss[r] = weight[r] * mean over the row of (x - target)^2. */
  void (*mse_forward)(const float *x, const float *target, const float *weight, float *loss, size_t rows, size_t cols);
  void (*mse_backward)(const float *x, const float *target, const float *weight, float scale, float *dx, size_t rows,
                       size_t cols, bool add);

  /* --- Tables. An id outside [0, vocabulary) reads as zeros and gets no gradient. --- */
  void (*embedding_forward)(const int32_t *id, const float *table, float *y, size_t n, size_t dim, size_t vocabulary);
  /* dtable rows [v0, v1) only, in the order of n. Adds: zero dtable first (nothing else needs zeroes). */
  void (*embedding_backward)(const int32_t *id, const float *dy, float *dtable, size_t n, size_t dim, size_t v0,
                             size_t v1);

  /* --- Pooling of [rows] images. choice: position kh * kw wise of the first largest, one byte an output. --- */
  void (*max_pool_forward)(const tr_window *window, const float *x, float *y, uint8_t *choice, size_t rows);
  void (*max_pool_backward)(const tr_window *window, const float *dy, const uint8_t *choice, float *dx, size_t rows,
                            bool add);
  void (*avg_pool_forward)(const tr_window *window, const float *x, float *y, size_t rows);
  void (*avg_pool_backward)(const tr_window *window, const float *dy, float *dx, size_t rows, bool add);
} tr_kernels;

/* The best class this processor has. */
tr_isa tr_isa_detect(void);

/* The table of a class, or of the next lower one where the processor lacks it. Never NULL. */
const tr_kernels *tr_kernels_get(tr_isa isa);

/* --- Linear: y[rows][out] = x[rows][in] . w[out][in]^T + bias. --------------------------------------------------
 * An object made once for a shape. Work is cut into tr_linear_*_tiles() tiles, a function of the shape alone; tiles of
 * one pass may run at once on several threads, each with a scratch of its own (64-byte aligned, tr_linear_scratch). */
typedef struct tr_linear_kernel tr_linear_kernel;

typedef struct tr_linear_options {
  size_t struct_bytes;
  int32_t rows, in, out;
  bool bias;
  bool relu; /* y = max(0, ...); backward then expects dy already multiplied by y > 0 (relu_backward) */
} tr_linear_options;

TR_MUST_USE tr_status tr_linear_create(const tr_kernels *kernels, const tr_linear_options *options,
                                       const tr_allocator *allocator, tr_linear_kernel **linear, tr_error *error);
void tr_linear_destroy(tr_linear_kernel *linear);
size_t tr_linear_scratch_bytes(const tr_linear_kernel *linear); /* a thread */
int32_t tr_linear_forward_tiles(const tr_linear_kernel *linear);
int32_t tr_linear_data_tiles(const tr_linear_kernel *linear);
int32_t tr_linear_weight_tiles(const tr_linear_kernel *linear);
void tr_linear_forward(const tr_linear_kernel *linear, int32_t tile, const float *x, const float *w, const float *bias,
                       float *y, void *scratch);
/* dx[rows][in] (+)= dy . w */
void tr_linear_backward_data(const tr_linear_kernel *linear, int32_t tile, const float *dy, const float *w, float *dx,
                             bool add, void *scratch);
/* dw[out][in] (+)= dy^T . x, db[out] (+)= column sums of dy (db may be NULL) */
void tr_linear_backward_weights(const tr_linear_kernel *linear, int32_t tile, const float *dy, const float *x,
                                float *dw, float *db, bool add, void *scratch);

/* --- Convolution with what may follow it: bias, ReLU, max-pool 2x2 of stride 2. ---------------------------------
 * An object made once for a shape; it chooses among direct, Winograd, sparse and column kernels by shape and ISA alone.
 * Work is cut into tr_conv_tiles() tiles of whole rows, a function of the shape alone. Any number of tiles may run at
 * once, each on one thread with a scratch of its own; two threads never run one tile of one object at once, and one
 * object serves one graph execution at a time.
 *
 *   forward:   tr_conv_pack (once per version of the weights), then tr_conv_forward for every tile
 *   backward:  tr_conv_backward for every tile, then tr_conv_backward_finish once
 *
 * With relu, backward reads y (the output of the fused op) to know what ReLU let through; with pool it also reads
 * `saved`, which forward wrote. dy is the gradient of the fused op's output, as it comes; it is not masked before. */
typedef struct tr_conv tr_conv;

typedef struct tr_conv_options {
  size_t struct_bytes;
  int32_t rows;
  tr_window window; /* of the convolution: h, w, c are the input's */
  int32_t out_c;
  bool bias;
  bool relu;
  bool pool;       /* only with relu: max-pool 2x2, stride 2, rounded down, on the convolution's output */
  bool input_grad; /* whether backward is asked for dx */
  bool backward;   /* false: forward only (evaluation) */
} tr_conv_options;

TR_MUST_USE tr_status tr_conv_create(const tr_kernels *kernels, const tr_conv_options *options,
                                     const tr_allocator *allocator, tr_conv **conv, tr_error *error);
void tr_conv_destroy(tr_conv *conv);

const char *tr_conv_algorithm(const tr_conv *conv); /* for profiles and fingerprints: "winograd+sparse", "columns" */
void tr_conv_output(const tr_conv *conv, int32_t *out_h, int32_t *out_w); /* after the pool */
int32_t tr_conv_tiles(const tr_conv *conv);
/* All of these are bytes at 64-byte alignment; 0 where nothing is needed. */
size_t tr_conv_packed_bytes(const tr_conv *conv);  /* packed weights, shared by all tiles */
size_t tr_conv_saved_bytes(const tr_conv *conv);   /* from forward to backward, whole micro-batch */
size_t tr_conv_scratch_bytes(const tr_conv *conv); /* a thread, within one call */
size_t tr_conv_parts_bytes(const tr_conv *conv);   /* weight gradients of all tiles, from backward to finish */

void tr_conv_pack(const tr_conv *conv, const float *w, void *packed);
/* x, y, saved: of the whole micro-batch. */
void tr_conv_forward(const tr_conv *conv, int32_t tile, const float *x, const void *packed, const float *bias, float *y,
                     void *saved, void *scratch);
/* dx (NULL without input_grad) (+)=; the tile's weight and bias gradients go to `parts`. */
void tr_conv_backward(const tr_conv *conv, int32_t tile, const float *x, const float *w, const void *packed,
                      const float *y, const void *saved, const float *dy, float *dx, bool add_dx, void *parts,
                      void *scratch);
/* dw (+)= and db (+)= (NULL without bias) the sum of all parts, in the order of tiles. */
void tr_conv_backward_finish(const tr_conv *conv, const void *parts, float *dw, float *db, bool add);

#endif
