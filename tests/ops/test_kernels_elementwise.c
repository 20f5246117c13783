/* Flat kernels against their naive twins: awkward sizes, unaligned arrays, any range alone, one result in each class. */
#include "kernel_support.h"

typedef void (*unary)(const float *x, float *y, size_t n);
typedef void (*gradient)(const float *x, const float *dy, float *dx, size_t n, bool add);

static void check_unary(const char *what, size_t member, float low, float high, double absolute, double relative) {
  unary plain;
  memcpy(&plain, (const char *)tr_kernels_get(TR_ISA_PLAIN) + member, sizeof plain);
  for (size_t s = 0; s < AWKWARD_COUNT; s++) {
    const size_t n = awkward_sizes[s];
    array x = array_random(n, s % 5, s, low, high), want = array_new(n, 0), other = array_new(n, 0);
    plain(x.data, want.data, n);
    EACH_ISA(k) {
      unary function;
      memcpy(&function, (const char *)k + member, sizeof function);
      array y = array_new(n, s % 3), in_place = array_copy(&x, 1);
      function(x.data, y.data, n);
      function(in_place.data, in_place.data, n);
      expect_near(y.data, want.data, n, absolute, relative, what);
      expect_same_bits(y.data, in_place.data, n, what);
      if (k->isa == TR_ISA_AVX2) memcpy(other.data, y.data, n * sizeof(float));
      expect_same_bits(y.data, other.data, n, what);
      array split = array_new(n, 0);
      function(x.data, split.data, n / 3);
      function(x.data + n / 3, split.data + n / 3, n - n / 3);
      expect_same_bits(y.data, split.data, n, what);
      array_free(&y);
      array_free(&in_place);
      array_free(&split);
    }
    array_free(&x);
    array_free(&want);
    array_free(&other);
  }
}

static void check_gradient(const char *what, size_t member, double absolute, double relative) {
  gradient plain;
  memcpy(&plain, (const char *)tr_kernels_get(TR_ISA_PLAIN) + member, sizeof plain);
  for (size_t s = 0; s < 2 * AWKWARD_COUNT; s++) {
    const size_t n = awkward_sizes[s / 2];
    const bool add = s % 2;
    array x = array_random(n, s % 5, s, -6, 6), dy = array_random(n, s % 3, s + 100, -1, 1);
    array before = array_random(n, 0, s + 200, -1, 1), want = array_copy(&before, 0);
    plain(x.data, dy.data, want.data, n, add);
    EACH_ISA(k) {
      gradient function;
      memcpy(&function, (const char *)k + member, sizeof function);
      array dx = array_copy(&before, 1);
      function(x.data, dy.data, dx.data, n, add);
      expect_near(dx.data, want.data, n, absolute, relative, what);
      array_free(&dx);
    }
    array_free(&x);
    array_free(&dy);
    array_free(&before);
    array_free(&want);
  }
}

Test(kernels, relu_is_its_twin) {
  check_unary("relu", offsetof(tr_kernels, relu_forward), -3, 3, 0, 0);
  check_gradient("relu backward", offsetof(tr_kernels, relu_backward), 0, 0);
}

Test(kernels, gelu_is_close_to_its_twin) {
  check_unary("gelu tanh", offsetof(tr_kernels, gelu_tanh_forward), -8, 8, 4e-7, 4e-7);
  check_unary("gelu erf", offsetof(tr_kernels, gelu_erf_forward), -8, 8, 1.2e-6, 4e-7);
  check_gradient("gelu tanh backward", offsetof(tr_kernels, gelu_tanh_backward), 1e-6, 1e-6);
  check_gradient("gelu erf backward", offsetof(tr_kernels, gelu_erf_backward), 1e-6, 1e-6);
}

Test(kernels, exp_is_within_two_ulp) { check_unary("exp", offsetof(tr_kernels, exp), -86, 88, 0, 2.4e-7); }

Test(kernels, exp_saturates_and_passes_nan_on) {
  const float x[6] = {-INFINITY, -200, 88.8f, INFINITY, NAN, 0};
  EACH_ISA(k) {
    float y[6];
    k->exp(x, y, 6);
    cr_assert(y[0] == 0 && y[1] == 0 && isinf(y[2]) && isinf(y[3]) && isnan(y[4]) && y[5] == 1);
  }
}

Test(kernels, relu_passes_nan_on) {
  EACH_ISA(k) {
    const float x[3] = {NAN, -1, 2};
    float y[3];
    k->relu_forward(x, y, 3);
    cr_assert(isnan(y[0]) && y[1] == 0 && y[2] == 2);
  }
}

Test(kernels, add_and_scale_are_their_twins) {
  const tr_kernels *plain = tr_kernels_get(TR_ISA_PLAIN);
  for (size_t s = 0; s < AWKWARD_COUNT; s++) {
    const size_t n = awkward_sizes[s];
    array a = array_random(n, 1, s, -1, 1), b = array_random(n, 2, s + 9, -1, 1);
    array want = array_new(n, 0), y = array_new(n, 3);
    EACH_ISA(k) {
      plain->add(a.data, b.data, want.data, n);
      k->add(a.data, b.data, y.data, n);
      expect_same_bits(y.data, want.data, n, "add");
      plain->scale(a.data, 0.37f, want.data, n, false);
      k->scale(a.data, 0.37f, y.data, n, false);
      expect_same_bits(y.data, want.data, n, "scale");
      plain->scale(b.data, -1.5f, want.data, n, true);
      k->scale(b.data, -1.5f, y.data, n, true);
      expect_same_bits(y.data, want.data, n, "scale and add");
    }
    array_free(&a);
    array_free(&b);
    array_free(&want);
    array_free(&y);
  }
}

Test(kernels, bytes_become_floats) {
  uint8_t x[1031];
  for (size_t i = 0; i < sizeof x; i++) x[i] = (uint8_t)(i * 7);
  for (size_t s = 0; s < AWKWARD_COUNT; s++) {
    const size_t n = awkward_sizes[s];
    EACH_ISA(k) {
      array y = array_new(n, s % 4);
      k->convert_u8(x, 1.0f / 255, -0.5f, y.data, n);
      for (size_t i = 0; i < n; i++) cr_assert_float_eq(y.data[i], (float)x[i] / 255 - 0.5f, 1e-6);
      array_free(&y);
    }
  }
}

Test(kernels, dropout_draws_by_element_number) {
  const tr_kernels *plain = tr_kernels_get(TR_ISA_PLAIN);
  const uint64_t starts[] = {0, 1, 3, 63, 64, 1000003, (UINT64_C(1) << 34) - 5};
  for (size_t s = 0; s < AWKWARD_COUNT; s++) {
    const size_t n = awkward_sizes[s];
    const uint64_t first = starts[s % 7];
    const tr_dropout_key key = {.seed = 99 + s, .step = (UINT64_C(5) << 32) + s, .stream = 7, .p = 0.25f};
    array x = array_random(n, 0, s, 1, 2), want = array_new(n, 0);
    plain->dropout(x.data, want.data, n, &key, first, false);
    EACH_ISA(k) {
      array y = array_new(n, 1);
      k->dropout(x.data, y.data, n, &key, first, false);
      expect_near(y.data, want.data, n, 0, 1e-7, "dropout");
      const size_t cut = n / 3;
      array split = array_new(n, 2);
      k->dropout(x.data, split.data, cut, &key, first, false);
      k->dropout(x.data + cut, split.data + cut, n - cut, &key, first + cut, false);
      expect_same_bits(y.data, split.data, n, "dropout in two ranges");
      array_free(&y);
      array_free(&split);
    }
    array_free(&x);
    array_free(&want);
  }
}

Test(kernels, dropout_keeps_the_share_it_should) {
  enum { N = 20000 };
  array x = array_random(N, 0, 1, 1, 1), y = array_new(N, 0);
  const tr_dropout_key key = {.seed = 3, .step = 4, .stream = 1, .p = 0.1f};
  EACH_ISA(k) {
    k->dropout(x.data, y.data, N, &key, 0, false);
    size_t dropped = 0;
    for (size_t i = 0; i < N; i++) dropped += y.data[i] == 0;
    cr_assert(dropped > N * 0.09 && dropped < N * 0.11, "%zu dropped", dropped);
  }
  array_free(&x);
  array_free(&y);
}
