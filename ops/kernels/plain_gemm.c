/* Matrix products in plain C: the naive twin of gemm.inc, and what runs without AVX2. */
#include "isa.h"

static void multiply(const gemm_args *g, void *scratch) {
  (void)scratch;
  for (size_t i = 0; i < g->m; i++) {
    for (size_t j = 0; j < g->n; j++) {
      double sum = 0;
      for (size_t p = 0; p < g->k; p++)
        sum += (double)g->a[i * g->a_row + p * g->a_col] * g->b[p * g->b_row + j * g->b_col];
      float *to = g->c + i * g->c_row + j;
      *to = (float)(g->add ? *to + sum : sum);
    }
  }
}

static void dot(const gemm_args *g) { multiply(g, NULL); }

const gemm_kernels gemm_kernels_plain = {.multiply = multiply, .scratch_bytes = 0, .dot = dot};
