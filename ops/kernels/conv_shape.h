/* The shape of a convolution as its kernels see it, and the kernels that each instruction set brings for it.
 *
 * Private to conv.c and the bodies that it chooses from. All ranges are whole images [r0, r1). */
#ifndef TRAINRUN_OPS_CONV_SHAPE_H
#define TRAINRUN_OPS_CONV_SHAPE_H

#include "kernels.h"

typedef struct conv_shape {
  int32_t rows;
  int32_t h, w, ic, oc;
  int32_t kh, kw, stride_h, stride_w, pad_h, pad_w;
  int32_t conv_h, conv_w; /* of the convolution */
  int32_t out_h, out_w;   /* after the pool, where there is one */
  bool bias, relu, pool;
} conv_shape;

/* Weight and bias gradient of one tile: dw in the weights' layout, then db. */
typedef struct conv_part {
  float *dw; /* [oc][kh][kw][ic] */
  float *db; /* [oc] */
} conv_part;

typedef struct conv_kernels {
  int32_t lanes; /* channels must be a multiple of it for winograd and sparse */

  /* Winograd: 3x3, stride 1, ic and oc multiples of lanes. */
  size_t (*winograd_packed_bytes)(const conv_shape *s);
  size_t (*winograd_scratch_bytes)(const conv_shape *s);
  void (*winograd_pack)(const conv_shape *s, const float *w, float *packed);
  void (*winograd_forward)(const conv_shape *s, int32_t r0, int32_t r1, const float *x, const float *packed,
                           const float *bias, float *y, uint8_t *choice, void *scratch);

  /* Backward of conv + ReLU + max-pool 2x2, 3x3, stride 1: only what the pool chose and ReLU let through is touched.
   * Overwrites the part. dx may be NULL. */
  size_t (*sparse_scratch_bytes)(const conv_shape *s);
  void (*sparse_backward)(const conv_shape *s, int32_t r0, int32_t r1, const float *x, const float *w, const float *y,
                          const uint8_t *choice, const float *dy, float *dx, bool add, conv_part part, void *scratch);

  /* Few input values a window (kh * kw * ic <= 32), oc a multiple of lanes, no pool; backward without dx. */
  size_t (*small_packed_bytes)(const conv_shape *s);
  size_t (*small_scratch_bytes)(const conv_shape *s);
  void (*small_pack)(const conv_shape *s, const float *w, float *packed);
  void (*small_forward)(const conv_shape *s, int32_t r0, int32_t r1, const float *x, const float *packed,
                        const float *bias, float *y, void *scratch);
  void (*small_backward)(const conv_shape *s, int32_t r0, int32_t r1, const float *x, const float *y, const float *dy,
                         conv_part part, void *scratch);
} conv_kernels;

/* NULL for TR_ISA_PLAIN. */
const conv_kernels *conv_kernels_get(tr_isa isa);

#endif
