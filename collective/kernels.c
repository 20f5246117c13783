/* Sum, maximum and minimum of two buffers, for each instruction set that a machine may have.
 *
 * Written with the compiler's vectors of one cache line: the compiler cuts them to what the target has, and element i
 * depends on elements i alone, so every instruction set gives the same bits. Which one is used is asked of the CPU at
 * run time; nothing is compiled with flags that a machine could lack. */
#include "kernels.h"

#include <string.h>

#define INLINE static inline __attribute__((always_inline))
enum { LINE = 64 };

/* One type: S its scalar, I the integer of its width for masks. A vector is loaded and stored element-aligned. */
#define DEFINE_TYPE(name, S, I)                                                                                        \
  typedef S name##_vector __attribute__((vector_size(LINE)));                                                          \
  typedef I name##_mask __attribute__((vector_size(LINE)));                                                            \
  typedef S name##_line __attribute__((vector_size(LINE), aligned(sizeof(S)), may_alias));                             \
  typedef S name##_one __attribute__((may_alias));

DEFINE_TYPE(f32, float, int32_t)
DEFINE_TYPE(f64, double, int64_t)
DEFINE_TYPE(i32, int32_t, int32_t)
DEFINE_TYPE(i64, int64_t, int64_t)
/* Unsigned twins, so that a sum that overflows is defined. */
DEFINE_TYPE(u32, uint32_t, int32_t)
DEFINE_TYPE(u64, uint64_t, int64_t)

#define SCALAR_ADD(a, b) ((a) + (b))
/* a where it is larger (smaller) or not a number, else b; an integer equals itself, so the second test goes away. */
#define SCALAR_MAX(a, b) ((a) > (b) || (a) != (a) ? (a) : (b))
#define SCALAR_MIN(a, b) ((a) < (b) || (a) != (a) ? (a) : (b))

#define SELECT(name, relation, a, b, out)                                                                              \
  do {                                                                                                                 \
    const name##_mask take_ = ((a)relation(b)) | ((a) != (a));                                                         \
    (out) = (name##_vector)((take_ & (name##_mask)(a)) | (~take_ & (name##_mask)(b)));                                 \
  } while (0)
#define ADD_STEP(name, a, b, out) ((out) = (a) + (b))
#define MAX_STEP(name, a, b, out) SELECT(name, >, a, b, out)
#define MIN_STEP(name, a, b, out) SELECT(name, <, a, b, out)

/* The loop over one buffer: four lines at a time, all loads of a line before its stores, then element by element. */
#define DEFINE_BODY(kernel, name, STEP, SCALAR)                                                                        \
  INLINE void kernel##_line(char *to, char *also, const char *a, const char *b, size_t at) {                           \
    const name##_vector x = *(const name##_line *)(a + at), y = *(const name##_line *)(b + at);                        \
    name##_vector z;                                                                                                   \
    STEP(name, x, y, z);                                                                                               \
    *(name##_line *)(to + at) = z;                                                                                     \
    if (also != NULL) *(name##_line *)(also + at) = z;                                                                 \
  }                                                                                                                    \
  INLINE void kernel##_loop(char *to, char *also, const char *a, const char *b, size_t bytes) {                        \
    size_t at = 0;                                                                                                     \
    for (; at + 4 * LINE <= bytes; at += 4 * LINE) {                                                                   \
      kernel##_line(to, also, a, b, at);                                                                               \
      kernel##_line(to, also, a, b, at + LINE);                                                                        \
      kernel##_line(to, also, a, b, at + 2 * LINE);                                                                    \
      kernel##_line(to, also, a, b, at + 3 * LINE);                                                                    \
    }                                                                                                                  \
    for (; at + LINE <= bytes; at += LINE) kernel##_line(to, also, a, b, at);                                          \
    for (; at < bytes; at += sizeof(name##_one)) {                                                                     \
      const name##_one x = *(const name##_one *)(a + at), y = *(const name##_one *)(b + at);                           \
      const name##_one z = SCALAR(x, y);                                                                               \
      *(name##_one *)(to + at) = z;                                                                                    \
      if (also != NULL) *(name##_one *)(also + at) = z;                                                                \
    }                                                                                                                  \
  }                                                                                                                    \
  INLINE void kernel##_body(void *to, void *also, const void *a, const void *b, size_t n) {                            \
    if (also == NULL)                                                                                                  \
      kernel##_loop(to, NULL, a, b, n * sizeof(name##_one));                                                           \
    else                                                                                                               \
      kernel##_loop(to, also, a, b, n * sizeof(name##_one));                                                           \
  }

#define DEFINE_FOR(kernel, isa, attributes)                                                                            \
  attributes static void kernel##_##isa(void *to, void *also, const void *a, const void *b, size_t n) {                \
    kernel##_body(to, also, a, b, n);                                                                                  \
  }

#if defined(__x86_64__)
#define DEFINE_KERNEL(kernel, name, STEP, SCALAR)                                                                      \
  DEFINE_BODY(kernel, name, STEP, SCALAR)                                                                              \
  DEFINE_FOR(kernel, plain, )                                                                                          \
  DEFINE_FOR(kernel, avx2, __attribute__((target("avx2"))))                                                            \
  DEFINE_FOR(kernel, avx512, __attribute__((target("avx512f,avx512dq"))))
#define ROW(kernel)                                                                                                    \
  { kernel##_plain, kernel##_avx2, kernel##_avx512 }
enum { ISA_COUNT = 3 };
static int isa_of_this_machine(void) {
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq")) return 2;
  return __builtin_cpu_supports("avx2") ? 1 : 0;
}
#else
#define DEFINE_KERNEL(kernel, name, STEP, SCALAR)                                                                      \
  DEFINE_BODY(kernel, name, STEP, SCALAR)                                                                              \
  DEFINE_FOR(kernel, plain, )
#define ROW(kernel)                                                                                                    \
  { kernel##_plain }
enum { ISA_COUNT = 1 };
static int isa_of_this_machine(void) { return 0; }
#endif

DEFINE_KERNEL(f32_sum, f32, ADD_STEP, SCALAR_ADD)
DEFINE_KERNEL(f32_max, f32, MAX_STEP, SCALAR_MAX)
DEFINE_KERNEL(f32_min, f32, MIN_STEP, SCALAR_MIN)
DEFINE_KERNEL(f64_sum, f64, ADD_STEP, SCALAR_ADD)
DEFINE_KERNEL(f64_max, f64, MAX_STEP, SCALAR_MAX)
DEFINE_KERNEL(f64_min, f64, MIN_STEP, SCALAR_MIN)
DEFINE_KERNEL(i32_sum, u32, ADD_STEP, SCALAR_ADD)
DEFINE_KERNEL(i32_max, i32, MAX_STEP, SCALAR_MAX)
DEFINE_KERNEL(i32_min, i32, MIN_STEP, SCALAR_MIN)
DEFINE_KERNEL(i64_sum, u64, ADD_STEP, SCALAR_ADD)
DEFINE_KERNEL(i64_max, i64, MAX_STEP, SCALAR_MAX)
DEFINE_KERNEL(i64_min, i64, MIN_STEP, SCALAR_MIN)

static const comm_combine_fn kernels[4][3][ISA_COUNT] = {
    {ROW(f32_sum), ROW(f32_max), ROW(f32_min)},
    {ROW(f64_sum), ROW(f64_max), ROW(f64_min)},
    {ROW(i32_sum), ROW(i32_max), ROW(i32_min)},
    {ROW(i64_sum), ROW(i64_max), ROW(i64_min)},
};

comm_combine_fn comm_combine(tr_dtype dtype, tr_reduce_op op) {
  const int type = dtype == TR_F32 ? 0 : dtype == TR_F64 ? 1 : dtype == TR_I32 ? 2 : 3;
  return kernels[type][op][isa_of_this_machine()];
}
