/* Which instruction set this processor has, and the tables that go with it. */
#include "isa.h"

#if defined(__x86_64__)

tr_isa tr_isa_detect(void) {
  if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma")) return TR_ISA_PLAIN;
  const bool wide = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                    __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
  return wide ? TR_ISA_AVX512 : TR_ISA_AVX2;
}

static tr_isa lower(tr_isa wanted) {
  const tr_isa here = tr_isa_detect();
  return wanted < here ? wanted : here;
}

const tr_kernels *tr_kernels_get(tr_isa isa) {
  static const tr_kernels *const tables[TR_ISA_COUNT] = {&tr_kernels_plain, &tr_kernels_avx2, &tr_kernels_avx512};
  return tables[lower(isa)];
}

const gemm_kernels *gemm_kernels_get(tr_isa isa) {
  static const gemm_kernels *const tables[TR_ISA_COUNT] = {&gemm_kernels_plain, &gemm_kernels_avx2,
                                                           &gemm_kernels_avx512};
  return tables[lower(isa)];
}

const conv_kernels *conv_kernels_get(tr_isa isa) {
  static const conv_kernels *const tables[TR_ISA_COUNT] = {NULL, &conv_kernels_avx2, &conv_kernels_avx512};
  return tables[lower(isa)];
}

#else

tr_isa tr_isa_detect(void) { return TR_ISA_PLAIN; }

const tr_kernels *tr_kernels_get(tr_isa isa) {
  (void)isa;
  return &tr_kernels_plain;
}

const gemm_kernels *gemm_kernels_get(tr_isa isa) {
  (void)isa;
  return &gemm_kernels_plain;
}

const conv_kernels *conv_kernels_get(tr_isa isa) {
  (void)isa;
  return NULL;
}

#endif
