/* What the tests of the kernels share. They alone include a private header: the kernels have no public one, and each
 * has a naive twin to be compared with.
 *
 * Arrays are laid out with a guard on both sides and can begin anywhere, so that a kernel that writes past its end or
 * needs alignment is found out. */
#ifndef TRAINRUN_TESTS_KERNEL_SUPPORT_H
#define TRAINRUN_TESTS_KERNEL_SUPPORT_H

#include "kernels.h"

#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { GUARD = 32 };

typedef struct array {
  float *data; /* n floats */
  float *block;
  size_t n;
} array;

static inline float guard_value(size_t i) { return 12345.0f + (float)i; }

static inline array array_new(size_t n, size_t offset) {
  array a = {.block = malloc((n + 2 * GUARD + offset) * sizeof(float)), .n = n};
  cr_assert_not_null(a.block);
  a.data = a.block + GUARD + offset;
  for (size_t i = 0; i < GUARD; i++) {
    a.data[-1 - (ptrdiff_t)i] = guard_value(i);
    a.data[n + i] = guard_value(i);
  }
  for (size_t i = 0; i < n; i++) a.data[i] = NAN; /* what is not written is seen */
  return a;
}

static inline void array_free(array *a) {
  for (size_t i = 0; i < GUARD; i++)
    cr_assert(a->data[-1 - (ptrdiff_t)i] == guard_value(i) && a->data[a->n + i] == guard_value(i),
              "written outside of an array of %zu", a->n);
  free(a->block);
}

/* Uniform in [low, high), a function of (seed, element). */
static inline array array_random(size_t n, size_t offset, uint64_t seed, float low, float high) {
  array a = array_new(n, offset);
  for (size_t i = 0; i < n; i++) a.data[i] = low + (high - low) * tr_rng_unit(tr_rng(seed, TR_RNG_USER, 0, i).v[0]);
  return a;
}

static inline array array_copy(const array *from, size_t offset) {
  array a = array_new(from->n, offset);
  if (from->n > 0) memcpy(a.data, from->data, from->n * sizeof(float));
  return a;
}

static inline void expect_near(const float *got, const float *want, size_t n, double absolute, double relative,
                               const char *what) {
  for (size_t i = 0; i < n; i++) {
    const double limit = absolute + relative * fabs((double)want[i]);
    cr_assert(got[i] == want[i] || fabs((double)got[i] - want[i]) <= limit || (isnan(got[i]) && isnan(want[i])),
              "%s: element %zu of %zu is %.9g, not %.9g", what, i, n, got[i], want[i]);
  }
}

static inline void expect_same_bits(const float *a, const float *b, size_t n, const char *what) {
  for (size_t i = 0; i < n; i++)
    cr_assert(memcmp(&a[i], &b[i], sizeof *a) == 0, "%s: element %zu of %zu: %.9g and %.9g", what, i, n, a[i], b[i]);
}

/* The classes that this processor has, the vectorised ones only. */
#define EACH_ISA(k)                                                                                                    \
  for (int isa_ = TR_ISA_AVX2; isa_ <= (int)tr_isa_detect(); isa_++)                                                   \
    for (const tr_kernels *k = tr_kernels_get((tr_isa)isa_); k != NULL; k = NULL)

static const size_t awkward_sizes[] = {0, 1, 2, 7, 8, 9, 15, 16, 17, 31, 33, 63, 64, 65, 127, 500, 1031};
enum { AWKWARD_COUNT = sizeof awkward_sizes / sizeof awkward_sizes[0] };

#endif
