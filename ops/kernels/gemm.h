/* Matrix products, single-threaded: what linear.c and the general convolution are made of.
 *
 * An element of c is summed over k in one order that depends on k alone, so c may be cut anywhere into calls without a
 * change of bits. */
#ifndef TRAINRUN_OPS_GEMM_H
#define TRAINRUN_OPS_GEMM_H

#include "kernels.h"

/* c[m][n] (+)= a[m][k] . b[k][n]; element (i, p) of a is a[i * a_row + p * a_col], b alike, c is c[i * c_row + j]. */
typedef struct gemm_args {
  size_t m, n, k;
  const float *a;
  size_t a_row, a_col;
  const float *b;
  size_t b_row, b_col;
  float *c;
  size_t c_row;
  bool add;
} gemm_args;

typedef struct gemm_kernels {
  /* Packs both sides; any strides. */
  void (*multiply)(const gemm_args *args, void *scratch);
  size_t scratch_bytes;
  /* For a_col == 1 and b_row == 1 (c = a . b^T, rows of both dense): packs nothing. add is allowed. */
  void (*dot)(const gemm_args *args);
} gemm_kernels;

/* Never NULL. */
const gemm_kernels *gemm_kernels_get(tr_isa isa);

#endif
