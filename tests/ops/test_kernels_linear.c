/* Matrix products and linear layers against sums in double: awkward shapes, any tile order, any cut of the output. */
#include "gemm.h"
#include "kernel_support.h"

typedef struct shape {
  int32_t rows, in, out;
} shape;

static const shape shapes[] = {{16, 2200, 40}, {1, 1, 1},     {3, 5, 7},      {16, 128, 10}, {64, 130, 33},
                               {17, 300, 65},  {100, 70, 90}, {13, 1100, 24}, {5, 3, 2000},  {97, 257, 31}};

static void naive(const shape *s, const float *x, const float *w, const float *b, float *y) {
  for (int32_t r = 0; r < s->rows; r++) {
    for (int32_t o = 0; o < s->out; o++) {
      double sum = b ? b[o] : 0;
      for (int32_t i = 0; i < s->in; i++)
        sum += (double)x[(size_t)r * (size_t)s->in + (size_t)i] * w[(size_t)o * (size_t)s->in + (size_t)i];
      y[r * s->out + o] = (float)sum;
    }
  }
}

/* dw[o][i] and dx[r][i], summed in double. */
static void naive_backward(const shape *s, const float *x, const float *w, const float *dy, float *dx, float *dw,
                           float *db) {
  const size_t in = (size_t)s->in, out = (size_t)s->out, rows = (size_t)s->rows;
  for (size_t i = 0; i < in; i++) {
    for (size_t r = 0; r < rows; r++) {
      double sum = 0;
      for (size_t o = 0; o < out; o++) sum += (double)dy[r * out + o] * w[o * in + i];
      dx[r * in + i] = (float)sum;
    }
    for (size_t o = 0; o < out; o++) {
      double sum = 0;
      for (size_t r = 0; r < rows; r++) sum += (double)dy[r * out + o] * x[r * in + i];
      dw[o * in + i] = (float)sum;
    }
  }
  for (size_t o = 0; o < out; o++) {
    double sum = 0;
    for (size_t r = 0; r < rows; r++) sum += dy[r * out + o];
    db[o] = (float)sum;
  }
}

static void take_away(array *a, const array *before) {
  for (size_t i = 0; i < a->n; i++) a->data[i] -= before->data[i];
}

static void check(const tr_kernels *k, const shape *s, bool relu) {
  const size_t in = (size_t)s->in, out = (size_t)s->out, rows = (size_t)s->rows;
  array x = array_random(rows * in, 1, in, -1, 1), w = array_random(in * out, 2, out, -1, 1);
  array b = array_random(out, 0, 7, -1, 1), dy = array_random(rows * out, 3, rows, -1, 1);
  array want[4] = {array_new(rows * out, 0), array_new(rows * in, 0), array_new(in * out, 0), array_new(out, 0)};
  array got[4] = {array_new(rows * out, 1), array_new(rows * in, 1), array_new(in * out, 1), array_new(out, 1)};
  naive(s, x.data, w.data, b.data, want[0].data);
  for (size_t i = 0; relu && i < want[0].n; i++) want[0].data[i] = fmaxf(want[0].data[i], 0);
  naive_backward(s, x.data, w.data, dy.data, want[1].data, want[2].data, want[3].data);
  tr_linear_kernel *linear = NULL;
  const tr_linear_options options = {
      .struct_bytes = sizeof options, .rows = s->rows, .in = s->in, .out = s->out, .bias = true, .relu = relu};
  cr_assert_eq(tr_linear_create(k, &options, NULL, &linear, NULL), TR_OK);
  void *scratch = aligned_alloc(64, (tr_linear_scratch_bytes(linear) + 64) / 64 * 64);
  for (int32_t t = tr_linear_forward_tiles(linear) - 1; t >= 0; t--)
    tr_linear_forward(linear, t, x.data, w.data, b.data, got[0].data, scratch);
  expect_near(got[0].data, want[0].data, want[0].n, 3e-6 * sqrt((double)in) + 1e-6, 1e-5, "y");
  for (int add = 0; add < 2; add++) {
    array before[3] = {array_random(rows * in, 0, 1, -1, 1), array_random(in * out, 0, 2, -1, 1),
                       array_random(out, 0, 3, -1, 1)};
    for (int i = 0; add && i < 3; i++) memcpy(got[i + 1].data, before[i].data, before[i].n * sizeof(float));
    for (int32_t t = tr_linear_data_tiles(linear) - 1; t >= 0; t--)
      tr_linear_backward_data(linear, t, dy.data, w.data, got[1].data, add, scratch);
    for (int32_t t = tr_linear_weight_tiles(linear) - 1; t >= 0; t--)
      tr_linear_backward_weights(linear, t, dy.data, x.data, got[2].data, got[3].data, add, scratch);
    for (int i = 0; i < 3; i++) {
      if (add) take_away(&got[i + 1], &before[i]);
      expect_near(got[i + 1].data, want[i + 1].data, want[i + 1].n, 1e-4, 1e-5, i == 0 ? "dx" : i == 1 ? "dw" : "db");
      array_free(&before[i]);
    }
  }
  free(scratch);
  tr_linear_destroy(linear);
  for (int i = 0; i < 4; i++) {
    array_free(&want[i]);
    array_free(&got[i]);
  }
  array *const all[] = {&x, &w, &b, &dy};
  for (int i = 0; i < 4; i++) array_free(all[i]);
}

Test(linear, every_shape_in_every_class_is_close) {
  for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; i++) {
    check(tr_kernels_get(TR_ISA_PLAIN), &shapes[i], i % 2);
    EACH_ISA(k) check(k, &shapes[i], i % 2);
  }
}

/* All strides, and c cut into pieces: an element's bits are those of its own sum. */
Test(linear, products_of_any_strides_do_not_depend_on_the_cut) {
  const size_t sizes[][3] = {{1, 1, 1}, {12, 32, 256}, {13, 33, 257}, {30, 70, 600}, {241, 40, 20}, {7, 1100, 9}};
  for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
    const size_t m = sizes[i][0], n = sizes[i][1], k = sizes[i][2];
    array a = array_random(m * k, 1, i, -1, 1), b = array_random(k * n, 0, i + 1, -1, 1);
    for (int turned = 0; turned < 4; turned++) {
      gemm_args g = {.m = m, .n = n, .k = k, .a = a.data, .b = b.data, .c_row = n};
      g.a_row = turned & 1 ? 1 : k;
      g.a_col = turned & 1 ? m : 1;
      g.b_row = turned & 2 ? 1 : n;
      g.b_col = turned & 2 ? k : 1;
      array want = array_new(m * n, 0);
      g.c = want.data;
      gemm_kernels_get(TR_ISA_PLAIN)->multiply(&g, NULL);
      EACH_ISA(isa) {
        const gemm_kernels *kernels = gemm_kernels_get(isa->isa);
        void *scratch = aligned_alloc(64, (kernels->scratch_bytes + 63) / 64 * 64);
        array c = array_new(m * n, 1), cut = array_new(m * n, 2);
        g.c = c.data;
        kernels->multiply(&g, scratch);
        expect_near(c.data, want.data, m * n, 2e-5, 1e-5, "multiply");
        const size_t i0 = m / 2, j0 = n / 3;
        for (int piece = 0; piece < 4; piece++) {
          gemm_args part = g;
          part.m = piece & 1 ? m - i0 : i0;
          part.n = piece & 2 ? n - j0 : j0;
          part.a += piece & 1 ? i0 * g.a_row : 0;
          part.b += piece & 2 ? j0 * g.b_col : 0;
          part.c = cut.data + (piece & 1 ? i0 * n : 0) + (piece & 2 ? j0 : 0);
          kernels->multiply(&part, scratch);
        }
        expect_same_bits(c.data, cut.data, m * n, "multiply in pieces");
        free(scratch);
        array_free(&c);
        array_free(&cut);
      }
      array_free(&want);
    }
    array_free(&a);
    array_free(&b);
  }
}

Test(linear, wrong_shapes_and_failed_allocations_are_errors) {
  tr_counting_allocator counting;
  tr_counting_allocator_init(&counting);
  tr_linear_kernel *linear = NULL;
  tr_linear_options options = {.struct_bytes = sizeof options, .rows = 1, .in = 0, .out = 1};
  cr_assert_eq(tr_linear_create(tr_kernels_get(TR_ISA_PLAIN), &options, NULL, &linear, NULL), TR_ERR_INVALID);
  options.in = 1;
  counting.fail_at = 1;
  cr_assert_eq(tr_linear_create(tr_kernels_get(TR_ISA_PLAIN), &options, &counting.allocator, &linear, NULL),
               TR_ERR_NO_MEMORY);
  cr_assert_null(linear);
  tr_linear_destroy(linear);
}
