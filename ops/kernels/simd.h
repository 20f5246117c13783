/* Vectors of the instruction set a file is compiled for: the few operations that the kernels' bodies are written in.
 *
 * A body (*.inc) is one source for AVX2 and AVX-512: isa_avx2.c and isa_avx512.c define TR_SIMD as 2 or 512, include
 * this header and then the bodies, all under a target pragma, so that the rest of the binary runs on any x86-64.
 *
 * Two types. `nf` is the native register (TR_NF floats), for GEMM-like loops that count registers. `vf` is 16 floats
 * in every class (two registers in AVX2), for loops whose result shall not depend on the class. A tail of n < 16 lanes
 * goes through the same arithmetic with vf_load_n and vf_store_n, so an element has the same bits in body and tail. */
#ifndef TRAINRUN_OPS_SIMD_H
#define TRAINRUN_OPS_SIMD_H

#include <immintrin.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define TR_INLINE static inline __attribute__((always_inline, unused))

/* Loops over registers are unrolled whole, so that the arrays they index become registers. */
#if defined(__clang__)
#define TR_UNROLL _Pragma("unroll")
#else
#define TR_UNROLL _Pragma("GCC unroll 32")
#endif

#if TR_SIMD == 512

enum { TR_NF = 16, TR_NF_REGS = 32 };
typedef __m512 nf;

TR_INLINE nf nf_load(const float *p) { return _mm512_loadu_ps(p); }
TR_INLINE void nf_store(float *p, nf a) { _mm512_storeu_ps(p, a); }
TR_INLINE nf nf_set(float a) { return _mm512_set1_ps(a); }
TR_INLINE nf nf_zero(void) { return _mm512_setzero_ps(); }
TR_INLINE nf nf_add(nf a, nf b) { return _mm512_add_ps(a, b); }
TR_INLINE nf nf_sub(nf a, nf b) { return _mm512_sub_ps(a, b); }
TR_INLINE nf nf_mul(nf a, nf b) { return _mm512_mul_ps(a, b); }
TR_INLINE nf nf_fma(nf a, nf b, nf c) { return _mm512_fmadd_ps(a, b, c); }
/* The second operand where either is NaN, as MAXPS has it. */
TR_INLINE nf nf_max(nf a, nf b) { return _mm512_max_ps(a, b); }
typedef __mmask16 nm;
TR_INLINE nm nf_gt(nf a, nf b) { return _mm512_cmp_ps_mask(a, b, _CMP_GT_OQ); }
TR_INLINE nf nf_select(nm m, nf yes, nf no) { return _mm512_mask_blend_ps(m, no, yes); }
/* TR_NF words, with `bit` set in those that m marks. */
TR_INLINE void nf_mark(uint32_t *words, nm m, uint32_t bit) {
  const __m512i old = _mm512_loadu_si512(words);
  _mm512_storeu_si512(words, _mm512_mask_or_epi32(old, m, old, _mm512_set1_epi32((int32_t)bit)));
}
/* A bit a lane: those that m marks, and those of TR_NF bytes that equal `value`. */
TR_INLINE uint32_t nf_bits(nm m) { return m; }
TR_INLINE uint32_t nf_equal_u8(const uint8_t *p, uint8_t value) {
  return _mm_cmpeq_epi8_mask(_mm_loadu_si128((const __m128i *)p), _mm_set1_epi8((char)value));
}
/* TR_NF bytes from small whole numbers. */
TR_INLINE void nf_store_u8(uint8_t *p, nf a) {
  _mm_storeu_si128((__m128i *)p, _mm512_cvtepi32_epi8(_mm512_cvtps_epi32(a)));
}

typedef __m512 vf;
typedef __m512i vi;
typedef __mmask16 vm;

TR_INLINE vf vf_load(const float *p) { return _mm512_loadu_ps(p); }
TR_INLINE vf vf_load_n(const float *p, size_t n) { return _mm512_maskz_loadu_ps((__mmask16)((1u << n) - 1), p); }
TR_INLINE void vf_store(float *p, vf a) { _mm512_storeu_ps(p, a); }
TR_INLINE void vf_store_n(float *p, vf a, size_t n) { _mm512_mask_storeu_ps(p, (__mmask16)((1u << n) - 1), a); }
TR_INLINE vf vf_set(float a) { return _mm512_set1_ps(a); }
TR_INLINE vf vf_add(vf a, vf b) { return _mm512_add_ps(a, b); }
TR_INLINE vf vf_sub(vf a, vf b) { return _mm512_sub_ps(a, b); }
TR_INLINE vf vf_mul(vf a, vf b) { return _mm512_mul_ps(a, b); }
TR_INLINE vf vf_div(vf a, vf b) { return _mm512_div_ps(a, b); }
TR_INLINE vf vf_sqrt(vf a) { return _mm512_sqrt_ps(a); }
TR_INLINE vf vf_fma(vf a, vf b, vf c) { return _mm512_fmadd_ps(a, b, c); }
TR_INLINE vf vf_max(vf a, vf b) { return _mm512_max_ps(a, b); }
TR_INLINE vf vf_min(vf a, vf b) { return _mm512_min_ps(a, b); }
TR_INLINE vf vf_round(vf a) { return _mm512_roundscale_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
TR_INLINE vm vf_gt(vf a, vf b) { return _mm512_cmp_ps_mask(a, b, _CMP_GT_OQ); }
TR_INLINE vm vf_lt(vf a, vf b) { return _mm512_cmp_ps_mask(a, b, _CMP_LT_OQ); }
TR_INLINE vm vf_eq(vf a, vf b) { return _mm512_cmp_ps_mask(a, b, _CMP_EQ_OQ); }
TR_INLINE vf vf_select(vm m, vf yes, vf no) { return _mm512_mask_blend_ps(m, no, yes); }
TR_INLINE vi vi_set(int32_t a) { return _mm512_set1_epi32(a); }
TR_INLINE vi vi_load(const int32_t *p) { return _mm512_loadu_si512(p); }
TR_INLINE vi vi_add(vi a, vi b) { return _mm512_add_epi32(a, b); }
TR_INLINE vi vi_xor(vi a, vi b) { return _mm512_xor_si512(a, b); }
TR_INLINE vi vi_and(vi a, vi b) { return _mm512_and_si512(a, b); }
TR_INLINE vi vi_or(vi a, vi b) { return _mm512_or_si512(a, b); }
TR_INLINE vi vi_shl(vi a, int bits) { return _mm512_slli_epi32(a, (unsigned)bits); }
TR_INLINE vi vi_shr(vi a, int bits) { return _mm512_srli_epi32(a, (unsigned)bits); }
/* Unsigned 32 x 32 bits: the high and the low halves. */
TR_INLINE vi vi_mulhi(vi a, vi b) {
  const __m512i even = _mm512_srli_epi64(_mm512_mul_epu32(a, b), 32);
  const __m512i odd = _mm512_mul_epu32(_mm512_srli_epi64(a, 32), _mm512_srli_epi64(b, 32));
  return _mm512_mask_blend_epi32(0xaaaa, even, odd);
}
TR_INLINE vi vi_mullo(vi a, vi b) { return _mm512_mullo_epi32(a, b); }
TR_INLINE vm vi_ltu(vi a, vi b) { return _mm512_cmplt_epu32_mask(a, b); }
TR_INLINE vi vf_to_int(vf a) { return _mm512_cvtps_epi32(a); }
TR_INLINE vf vi_as_float(vi a) { return _mm512_castsi512_ps(a); }
TR_INLINE vi vf_as_int(vf a) { return _mm512_castps_si512(a); }
TR_INLINE vf vf_abs(vf a) { return _mm512_and_ps(a, _mm512_castsi512_ps(_mm512_set1_epi32(INT32_MAX))); }
/* a with the sign of b. */
TR_INLINE vf vf_copysign(vf a, vf b) {
  const __m512 sign = _mm512_castsi512_ps(_mm512_set1_epi32(INT32_MIN));
  return _mm512_or_ps(_mm512_andnot_ps(sign, a), _mm512_and_ps(sign, b));
}
/* 16 bytes as floats, and small whole numbers as bytes. */
TR_INLINE void vf_store_u8(uint8_t *p, vf a) {
  _mm_storeu_si128((__m128i *)p, _mm512_cvtepi32_epi8(_mm512_cvtps_epi32(a)));
}
TR_INLINE vf vf_from_u8(const uint8_t *p) {
  return _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)p)));
}

#else /* AVX2 */

enum { TR_NF = 8, TR_NF_REGS = 16 };
typedef __m256 nf;

TR_INLINE nf nf_load(const float *p) { return _mm256_loadu_ps(p); }
TR_INLINE void nf_store(float *p, nf a) { _mm256_storeu_ps(p, a); }
TR_INLINE nf nf_set(float a) { return _mm256_set1_ps(a); }
TR_INLINE nf nf_zero(void) { return _mm256_setzero_ps(); }
TR_INLINE nf nf_add(nf a, nf b) { return _mm256_add_ps(a, b); }
TR_INLINE nf nf_sub(nf a, nf b) { return _mm256_sub_ps(a, b); }
TR_INLINE nf nf_mul(nf a, nf b) { return _mm256_mul_ps(a, b); }
TR_INLINE nf nf_fma(nf a, nf b, nf c) { return _mm256_fmadd_ps(a, b, c); }
TR_INLINE nf nf_max(nf a, nf b) { return _mm256_max_ps(a, b); }
typedef __m256 nm;
TR_INLINE nm nf_gt(nf a, nf b) { return _mm256_cmp_ps(a, b, _CMP_GT_OQ); }
TR_INLINE nf nf_select(nm m, nf yes, nf no) { return _mm256_blendv_ps(no, yes, m); }
TR_INLINE void nf_mark(uint32_t *words, nm m, uint32_t bit) {
  const __m256i old = _mm256_loadu_si256((const __m256i *)words);
  const __m256i add = _mm256_and_si256(_mm256_castps_si256(m), _mm256_set1_epi32((int32_t)bit));
  _mm256_storeu_si256((__m256i *)words, _mm256_or_si256(old, add));
}
TR_INLINE uint32_t nf_bits(nm m) { return (uint32_t)_mm256_movemask_ps(m); }
TR_INLINE uint32_t nf_equal_u8(const uint8_t *p, uint8_t value) {
  const __m128i bytes = _mm_loadl_epi64((const __m128i *)p);
  return (uint32_t)_mm_movemask_epi8(_mm_cmpeq_epi8(bytes, _mm_set1_epi8((char)value))) & 0xff;
}
TR_INLINE void nf_store_u8(uint8_t *p, nf a) {
  const __m256i words = _mm256_cvtps_epi32(a);
  const __m128i halves = _mm_packus_epi32(_mm256_castsi256_si128(words), _mm256_extracti128_si256(words, 1));
  _mm_storel_epi64((__m128i *)p, _mm_packus_epi16(halves, halves));
}

typedef struct vf {
  __m256 lo, hi;
} vf;
typedef struct vi {
  __m256i lo, hi;
} vi;
typedef vf vm; /* all ones where true */

#define TR_VF1(op, a)    ((vf){op((a).lo), op((a).hi)})
#define TR_VF2(op, a, b) ((vf){op((a).lo, (b).lo), op((a).hi, (b).hi)})
#define TR_VI2(op, a, b) ((vi){op((a).lo, (b).lo), op((a).hi, (b).hi)})

TR_INLINE vf vf_load(const float *p) { return (vf){_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)}; }
TR_INLINE __m256i vf_mask8(int n) {
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}
TR_INLINE vf vf_load_n(const float *p, size_t n) {
  const int upper = n > 8 ? (int)n - 8 : 0;
  return (vf){_mm256_maskload_ps(p, vf_mask8((int)n)),
              upper > 0 ? _mm256_maskload_ps(p + 8, vf_mask8(upper)) : _mm256_setzero_ps()};
}
TR_INLINE void vf_store(float *p, vf a) {
  _mm256_storeu_ps(p, a.lo);
  _mm256_storeu_ps(p + 8, a.hi);
}
TR_INLINE void vf_store_n(float *p, vf a, size_t n) {
  _mm256_maskstore_ps(p, vf_mask8((int)n), a.lo);
  if (n > 8) _mm256_maskstore_ps(p + 8, vf_mask8((int)n - 8), a.hi);
}
TR_INLINE vf vf_set(float a) { return (vf){_mm256_set1_ps(a), _mm256_set1_ps(a)}; }
TR_INLINE vf vf_add(vf a, vf b) { return TR_VF2(_mm256_add_ps, a, b); }
TR_INLINE vf vf_sub(vf a, vf b) { return TR_VF2(_mm256_sub_ps, a, b); }
TR_INLINE vf vf_mul(vf a, vf b) { return TR_VF2(_mm256_mul_ps, a, b); }
TR_INLINE vf vf_div(vf a, vf b) { return TR_VF2(_mm256_div_ps, a, b); }
TR_INLINE vf vf_sqrt(vf a) { return TR_VF1(_mm256_sqrt_ps, a); }
TR_INLINE vf vf_fma(vf a, vf b, vf c) {
  return (vf){_mm256_fmadd_ps(a.lo, b.lo, c.lo), _mm256_fmadd_ps(a.hi, b.hi, c.hi)};
}
TR_INLINE vf vf_max(vf a, vf b) { return TR_VF2(_mm256_max_ps, a, b); }
TR_INLINE vf vf_min(vf a, vf b) { return TR_VF2(_mm256_min_ps, a, b); }
TR_INLINE vf vf_round(vf a) {
  return (vf){_mm256_round_ps(a.lo, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC),
              _mm256_round_ps(a.hi, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)};
}
TR_INLINE vm vf_gt(vf a, vf b) {
  return (vm){_mm256_cmp_ps(a.lo, b.lo, _CMP_GT_OQ), _mm256_cmp_ps(a.hi, b.hi, _CMP_GT_OQ)};
}
TR_INLINE vm vf_lt(vf a, vf b) { return vf_gt(b, a); }
TR_INLINE vm vf_eq(vf a, vf b) {
  return (vm){_mm256_cmp_ps(a.lo, b.lo, _CMP_EQ_OQ), _mm256_cmp_ps(a.hi, b.hi, _CMP_EQ_OQ)};
}
TR_INLINE vf vf_select(vm m, vf yes, vf no) {
  return (vf){_mm256_blendv_ps(no.lo, yes.lo, m.lo), _mm256_blendv_ps(no.hi, yes.hi, m.hi)};
}
TR_INLINE vi vi_set(int32_t a) { return (vi){_mm256_set1_epi32(a), _mm256_set1_epi32(a)}; }
TR_INLINE vi vi_load(const int32_t *p) {
  return (vi){_mm256_loadu_si256((const __m256i *)p), _mm256_loadu_si256((const __m256i *)(p + 8))};
}
TR_INLINE vi vi_add(vi a, vi b) { return TR_VI2(_mm256_add_epi32, a, b); }
TR_INLINE vi vi_xor(vi a, vi b) { return TR_VI2(_mm256_xor_si256, a, b); }
TR_INLINE vi vi_and(vi a, vi b) { return TR_VI2(_mm256_and_si256, a, b); }
TR_INLINE vi vi_or(vi a, vi b) { return TR_VI2(_mm256_or_si256, a, b); }
TR_INLINE vi vi_shl(vi a, int bits) { return (vi){_mm256_slli_epi32(a.lo, bits), _mm256_slli_epi32(a.hi, bits)}; }
TR_INLINE vi vi_shr(vi a, int bits) { return (vi){_mm256_srli_epi32(a.lo, bits), _mm256_srli_epi32(a.hi, bits)}; }
TR_INLINE __m256i vi_mulhi8(__m256i a, __m256i b) {
  const __m256i even = _mm256_srli_epi64(_mm256_mul_epu32(a, b), 32);
  const __m256i odd = _mm256_mul_epu32(_mm256_srli_epi64(a, 32), _mm256_srli_epi64(b, 32));
  return _mm256_blend_epi32(even, odd, 0xaa);
}
TR_INLINE vi vi_mulhi(vi a, vi b) { return TR_VI2(vi_mulhi8, a, b); }
TR_INLINE vi vi_mullo(vi a, vi b) { return TR_VI2(_mm256_mullo_epi32, a, b); }
TR_INLINE vm vi_ltu(vi a, vi b) {
  const __m256i flip = _mm256_set1_epi32(INT32_MIN);
  return (vm){_mm256_castsi256_ps(_mm256_cmpgt_epi32(_mm256_xor_si256(b.lo, flip), _mm256_xor_si256(a.lo, flip))),
              _mm256_castsi256_ps(_mm256_cmpgt_epi32(_mm256_xor_si256(b.hi, flip), _mm256_xor_si256(a.hi, flip)))};
}
TR_INLINE vi vf_to_int(vf a) { return (vi){_mm256_cvtps_epi32(a.lo), _mm256_cvtps_epi32(a.hi)}; }
TR_INLINE vf vi_as_float(vi a) { return (vf){_mm256_castsi256_ps(a.lo), _mm256_castsi256_ps(a.hi)}; }
TR_INLINE vi vf_as_int(vf a) { return (vi){_mm256_castps_si256(a.lo), _mm256_castps_si256(a.hi)}; }
TR_INLINE vf vf_abs(vf a) {
  const __m256 mask = _mm256_castsi256_ps(_mm256_set1_epi32(INT32_MAX));
  return (vf){_mm256_and_ps(a.lo, mask), _mm256_and_ps(a.hi, mask)};
}
TR_INLINE vf vf_copysign(vf a, vf b) {
  const __m256 sign = _mm256_castsi256_ps(_mm256_set1_epi32(INT32_MIN));
  return (vf){_mm256_or_ps(_mm256_andnot_ps(sign, a.lo), _mm256_and_ps(sign, b.lo)),
              _mm256_or_ps(_mm256_andnot_ps(sign, a.hi), _mm256_and_ps(sign, b.hi))};
}
TR_INLINE void vf_store_u8(uint8_t *p, vf a) {
  nf_store_u8(p, a.lo);
  nf_store_u8(p + 8, a.hi);
}
TR_INLINE vf vf_from_u8(const uint8_t *p) {
  const __m128i bytes = _mm_loadu_si128((const __m128i *)p);
  return (vf){_mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(bytes)),
              _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_srli_si128(bytes, 8)))};
}

#endif

/* Element i of an array of which `left` elements remain from there: 16 of them, or the tail. */
TR_INLINE vf vf_get(const float *p, size_t i, size_t left) {
  return left >= 16 ? vf_load(p + i) : vf_load_n(p + i, left);
}
TR_INLINE void vf_put(float *p, size_t i, size_t left, vf a) {
  if (left >= 16)
    vf_store(p + i, a);
  else
    vf_store_n(p + i, a, left);
}
/* p (+)= a */
TR_INLINE void vf_out(float *p, size_t i, size_t left, vf a, bool add) {
  vf_put(p, i, left, add ? vf_add(vf_get(p, i, left), a) : a);
}

/* The sum of 16 lanes as one fixed tree: lanes i and i + 8, then i + 4, i + 2, i + 1. */
TR_INLINE float vf_sum(vf a) {
  float v[16];
  vf_store(v, a);
  for (int width = 8; width > 0; width /= 2)
    for (int i = 0; i < width; i++) v[i] += v[i + width];
  return v[0];
}
/* The largest of 16 lanes. */
TR_INLINE float vf_max_lane(vf a) {
  float v[16];
  vf_store(v, a);
  for (int width = 8; width > 0; width /= 2)
    for (int i = 0; i < width; i++) v[i] = v[i + width] > v[i] ? v[i + width] : v[i];
  return v[0];
}

#endif
