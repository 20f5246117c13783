/* Convolution of any shape through columns and matrix products: what serves where no special kernel does.
 *
 * A block of the convolution's rows at a time has its windows laid out as a matrix [pixels][kh * kw * ic]. */
#ifndef TRAINRUN_OPS_CONV_COLUMNS_H
#define TRAINRUN_OPS_CONV_COLUMNS_H

#include "conv_shape.h"
#include "gemm.h"

size_t conv_columns_scratch_bytes(const conv_shape *s, const gemm_kernels *gemm);

void conv_columns_forward(const conv_shape *s, const gemm_kernels *gemm, int32_t r0, int32_t r1, const float *x,
                          const float *w, const float *bias, float *y, uint8_t *choice, void *scratch);

/* Overwrites the part; dx may be NULL. */
void conv_columns_backward(const conv_shape *s, const gemm_kernels *gemm, int32_t r0, int32_t r1, const float *x,
                           const float *w, const float *y, const uint8_t *choice, const float *dy, float *dx, bool add,
                           conv_part part, void *scratch);

#endif
