/* Flat passes against the formulas they promise, over awkward counts and any alignment. */
#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <trainrun/ops.h>

enum { MOST = 3 * TR_PARAM_BLOCK + 7 };
static const uint64_t counts[] = {0, 1, 2, 3, 5, 15, 16, 17, 31, 97, 1021, 4095, 4096, 4097, 8191, MOST};
enum { COUNTS = sizeof counts / sizeof counts[0] };

static float *random_values(uint64_t count, uint64_t stream, float scale) {
  float *values = malloc((count + 1) * sizeof *values);
  for (uint64_t i = 0; i < count; i++)
    values[i] = scale * (2.0f * tr_rng_unit(tr_rng(stream, TR_RNG_USER, 0, i).v[0]) - 1.0f);
  return values;
}

static float *copy_of(const float *values, uint64_t count) {
  float *copy = malloc((count + 1) * sizeof *copy);
  if (count > 0) memcpy(copy, values, count * sizeof *copy);
  return copy;
}

Test(flat, add_adds_each_element) {
  for (int c = 0; c < COUNTS; c++) {
    float *a = random_values(counts[c], 1, 1.0f), *b = random_values(counts[c], 2, 1.0f);
    float *sum = copy_of(a, counts[c]);
    tr_flat_add(sum, b, counts[c]);
    for (uint64_t i = 0; i < counts[c]; i++) cr_assert_eq(sum[i], a[i] + b[i]);
    free(a), free(b), free(sum);
  }
}

/* A cut on a block changes nothing: what two ranks compute of their slices is what one computes of the whole. */
Test(flat, square_sums_are_the_same_for_any_cut_on_blocks) {
  float *values = random_values(MOST, 3, 2.0f);
  double whole[4], cut[4];
  tr_flat_square_sums(values, MOST, whole);
  tr_flat_square_sums(values, TR_PARAM_BLOCK, cut);
  tr_flat_square_sums(values + TR_PARAM_BLOCK, MOST - TR_PARAM_BLOCK, cut + 1);
  cr_expect_arr_eq(whole, cut, sizeof whole);
  double sum = 0, expected = 0;
  for (int i = 0; i < MOST; i++) expected += (double)values[i] * (double)values[i];
  sum = tr_flat_tree_sum(whole, 4);
  cr_expect_lt(fabs(sum - expected), 1e-9 * expected);
  free(values);
}

Test(flat, square_sums_do_not_depend_on_alignment) {
  float *values = random_values(MOST, 4, 2.0f);
  float *shifted = malloc((MOST + 1) * sizeof *shifted);
  memcpy(shifted + 1, values, MOST * sizeof *values);
  double a[4], b[4];
  tr_flat_square_sums(values, MOST, a);
  tr_flat_square_sums(shifted + 1, MOST, b);
  cr_expect_arr_eq(a, b, sizeof a);
  free(values), free(shifted);
}

static double tree(const double *values, uint64_t count, uint64_t width) {
  if (count <= 1) return values[0];
  while (width >= count) width /= 2;
  return tree(values, width, width / 2) + tree(values + width, count - width, width / 2);
}

Test(flat, tree_sum_is_the_balanced_tree_with_aligned_halves) {
  cr_expect_eq(tr_flat_tree_sum(NULL, 0), 0.0);
  for (uint64_t count = 1; count <= 70; count++) {
    double values[70], kept[70];
    for (uint64_t i = 0; i < count; i++) values[i] = kept[i] = 1.0 / (double)(3 * i + 1);
    cr_assert_eq(tr_flat_tree_sum(values, count), tree(kept, count, 64), "%d leaves", (int)count);
  }
}

Test(flat, finite_finds_a_single_bad_value_anywhere) {
  const float bad[] = {INFINITY, -INFINITY, NAN};
  for (int c = 1; c < COUNTS; c++) {
    float *values = random_values(counts[c], 5, 1e30f);
    cr_assert(tr_flat_finite(values, counts[c]));
    const uint64_t places[] = {0, counts[c] / 2, counts[c] - 1};
    for (int p = 0; p < 3; p++) {
      const float before = values[places[p]];
      values[places[p]] = bad[p];
      cr_assert_not(tr_flat_finite(values, counts[c]));
      values[places[p]] = before;
    }
    free(values);
  }
}

Test(flat, adamw_follows_its_formula) {
  const tr_adamw_args args = {.gradient_scale = 0.125f,
                              .lr = 1e-2f,
                              .beta1 = 0.9f,
                              .beta2 = 0.999f,
                              .eps = 1e-8f,
                              .weight_decay = 0.1f,
                              .correction1 = 0.271f,
                              .correction2 = 0.002997001f};
  for (int c = 0; c < COUNTS; c++) {
    const uint64_t n = counts[c];
    float *p = random_values(n, 6, 1.0f), *g = random_values(n, 7, 3.0f), *m = random_values(n, 8, 0.1f);
    float *v = random_values(n, 9, 0.01f);
    for (uint64_t i = 0; i < n; i++) v[i] = fabsf(v[i]);
    float *p1 = copy_of(p, n), *m1 = copy_of(m, n), *v1 = copy_of(v, n);
    tr_flat_adamw(p1, g, m1, v1, n, &args);
    for (uint64_t i = 0; i < n; i++) {
      const double grad = (double)g[i] * 0.125;
      const double mean = 0.9 * (double)m[i] + 0.1 * grad;
      const double square = 0.999 * (double)v[i] + 0.001 * grad * grad;
      const double value = (double)p[i] * (1 - 1e-2 * 0.1) -
                           1e-2 / 0.271 * mean / (sqrt(square) / sqrt(0.002997001) + 1e-8);
      cr_assert_lt(fabs((double)m1[i] - mean), 1e-6);
      cr_assert_lt(fabs((double)v1[i] - square), 1e-6);
      cr_assert_lt(fabs((double)p1[i] - value), 1e-5 * (1 + fabs(value)));
    }
    free(p), free(g), free(m), free(v), free(p1), free(m1), free(v1);
  }
}

Test(flat, updates_do_not_depend_on_the_cut) {
  const tr_adamw_args args = {.gradient_scale = 1.0f,
                              .lr = 1e-3f,
                              .beta1 = 0.9f,
                              .beta2 = 0.95f,
                              .eps = 1e-8f,
                              .weight_decay = 0.01f,
                              .correction1 = 0.1f,
                              .correction2 = 0.05f};
  float *p = random_values(MOST, 10, 1.0f), *g = random_values(MOST, 11, 1.0f), *m = random_values(MOST, 12, 1.0f);
  float *v = copy_of(p, MOST);
  for (int i = 0; i < MOST; i++) v[i] = v[i] * v[i];
  float *p1 = copy_of(p, MOST), *m1 = copy_of(m, MOST), *v1 = copy_of(v, MOST);
  tr_flat_adamw(p, g, m, v, MOST, &args);
  const uint64_t cut = TR_PARAM_BLOCK;
  tr_flat_adamw(p1, g, m1, v1, cut, &args);
  tr_flat_adamw(p1 + cut, g + cut, m1 + cut, v1 + cut, MOST - cut, &args);
  cr_expect_arr_eq(p, p1, MOST * sizeof *p);
  cr_expect_arr_eq(m, m1, MOST * sizeof *m);
  cr_expect_arr_eq(v, v1, MOST * sizeof *v);
  free(p), free(g), free(m), free(v), free(p1), free(m1), free(v1);
}

Test(flat, sgd_follows_its_formula_with_and_without_momentum) {
  for (int variant = 0; variant < 8; variant++) {
    const bool nesterov = variant & 1, first = variant & 2;
    const float momentum = variant & 4 ? 0.9f : 0.0f;
    const tr_sgd_args args = {.gradient_scale = 0.5f,
                              .lr = 0.1f,
                              .momentum = momentum,
                              .weight_decay = 0.01f,
                              .nesterov = nesterov,
                              .first = first};
    const uint64_t n = 97;
    float *p = random_values(n, 13, 1.0f), *g = random_values(n, 14, 1.0f), *b = random_values(n, 15, 1.0f);
    float *p1 = copy_of(p, n), *b1 = copy_of(b, n);
    tr_flat_sgd(p1, g, momentum == 0.0f ? NULL : b1, n, &args);
    for (uint64_t i = 0; i < n; i++) {
      double grad = 0.5 * (double)g[i] + 0.01 * (double)p[i];
      if (momentum != 0.0f) {
        const double buffer = first ? grad : 0.9 * (double)b[i] + grad;
        cr_assert_lt(fabs((double)b1[i] - buffer), 1e-5);
        grad = nesterov ? grad + 0.9 * buffer : buffer;
      }
      cr_assert_lt(fabs((double)p1[i] - ((double)p[i] - 0.1 * grad)), 1e-5);
    }
    free(p), free(g), free(b), free(p1), free(b1);
  }
}

Test(flat, average_moves_towards_the_scaled_sum) {
  float *values = random_values(31, 16, 1.0f), *sums = random_values(31, 17, 8.0f), *moved = copy_of(values, 31);
  tr_flat_average(moved, sums, 0.1f, 0.125f, 31);
  for (int i = 0; i < 31; i++)
    cr_assert_lt(fabs((double)moved[i] - (0.9 * (double)values[i] + 0.1 * 0.125 * (double)sums[i])), 1e-6);
  free(values), free(sums), free(moved);
}
