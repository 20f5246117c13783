/* The kernels for AVX512: the bodies, compiled for it whatever the compiler's flags. Called only where tr_isa_detect()
 * found it. */
#if defined(__x86_64__)
#include <math.h>
#include <string.h>

#include <immintrin.h>

#include "conv_shape.h"
#include "isa.h"
#include "kernels.h"

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,avx2,fma"))),                   \
                             apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512vl,avx512dq,avx2,fma")
#endif

#define TR_SIMD            512
#define TR_SIMD_NAME(name) name##_avx512
#include "simd.h"

#include "math.inc"
#include "elementwise.inc"
#include "rows.inc"
#include "pool.inc"
#include "gemm.inc"
#include "conv_winograd.inc"
#include "conv_sparse.inc"
#include "conv_small.inc"
#include "tables.inc"

#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif
#endif
