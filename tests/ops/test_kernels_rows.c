/* Kernels over matrices, tables and pooling windows against their naive twins, on awkward shapes, whole and in parts. */
#include "kernel_support.h"

typedef struct extent {
  size_t rows, cols;
} extent;

static const extent extents[] = {{1, 1},   {1, 10},  {3, 16},  {16, 10},  {5, 17},   {2, 100},
                                 {64, 33}, {7, 200}, {300, 5}, {129, 64}, {40, 130}, {520, 96}};
enum { EXTENT_COUNT = sizeof extents / sizeof extents[0] };

static const tr_kernels *plain(void) { return tr_kernels_get(TR_ISA_PLAIN); }

Test(rows, biases_and_their_gradients_are_close) {
  for (size_t s = 0; s < EXTENT_COUNT; s++) {
    const size_t rows = extents[s].rows, cols = extents[s].cols, n = rows * cols;
    array x = array_random(n, s % 3, s, -1, 1), b = array_random(cols, 1, s + 1, -1, 1), want = array_new(n, 0);
    array sums = array_copy(&b, 0);
    plain()->bias_add(x.data, b.data, want.data, rows, cols);
    plain()->bias_grad(x.data, sums.data, rows, cols, 0, cols, true);
    EACH_ISA(k) {
      array y = array_new(n, 1), db = array_copy(&b, 0), split = array_copy(&b, 1);
      k->bias_add(x.data, b.data, y.data, rows, cols);
      expect_same_bits(y.data, want.data, n, "bias_add");
      k->bias_grad(x.data, db.data, rows, cols, 0, cols, true);
      expect_near(db.data, sums.data, cols, 2e-5, 1e-6, "bias_grad");
      for (size_t c = 0; c < cols; c += 7)
        k->bias_grad(x.data, split.data, rows, cols, c, c + 7 < cols ? c + 7 : cols, true);
      expect_same_bits(db.data, split.data, cols, "bias_grad of parts");
      array_free(&y);
      array_free(&db);
      array_free(&split);
    }
    array_free(&x);
    array_free(&b);
    array_free(&want);
    array_free(&sums);
  }
}

Test(rows, layer_norm_is_close_to_its_twin) {
  for (size_t s = 0; s < EXTENT_COUNT; s++) {
    const size_t rows = extents[s].rows, cols = extents[s].cols, n = rows * cols;
    array x = array_random(n, s % 3, s, 3, 5), dy = array_random(n, 0, s + 1, -1, 1);
    array gamma = array_random(cols, 1, s + 2, 0.5f, 2), beta = array_random(cols, 0, s + 3, -1, 1);
    array want = array_new(n, 0), mean = array_new(rows, 0), rstd = array_new(rows, 0);
    array want_dx = array_new(n, 0), want_dg = array_new(cols, 0), want_db = array_new(cols, 0);
    plain()->layer_norm_forward(x.data, gamma.data, beta.data, 1e-2f, want.data, mean.data, rstd.data, rows, cols);
    plain()->layer_norm_backward_data(x.data, dy.data, gamma.data, mean.data, rstd.data, want_dx.data, rows, cols,
                                      false);
    plain()->layer_norm_backward_params(x.data, dy.data, mean.data, rstd.data, want_dg.data, want_db.data, rows, cols,
                                        0, cols, false);
    EACH_ISA(k) {
      array y = array_new(n, 1), my_mean = array_new(rows, 1), my_rstd = array_new(rows, 1), dx = array_new(n, 0);
      array dg = array_new(cols, 1), db = array_new(cols, 1);
      k->layer_norm_forward(x.data, gamma.data, beta.data, 1e-2f, y.data, my_mean.data, my_rstd.data, rows, cols);
      expect_near(y.data, want.data, n, 2e-5, 1e-5, "layer norm");
      k->layer_norm_backward_data(x.data, dy.data, gamma.data, mean.data, rstd.data, dx.data, rows, cols, false);
      expect_near(dx.data, want_dx.data, n, 2e-5, 1e-5, "layer norm dx");
      k->layer_norm_backward_data(x.data, dy.data, gamma.data, mean.data, rstd.data, dx.data, rows, cols, true);
      for (size_t i = 0; i < n; i++) dx.data[i] /= 2;
      expect_near(dx.data, want_dx.data, n, 2e-5, 1e-5, "layer norm dx added");
      const size_t cut = cols / 2;
      k->layer_norm_backward_params(x.data, dy.data, mean.data, rstd.data, dg.data, db.data, rows, cols, 0, cut, false);
      k->layer_norm_backward_params(x.data, dy.data, mean.data, rstd.data, dg.data, db.data, rows, cols, cut, cols,
                                    false);
      expect_near(dg.data, want_dg.data, cols, 1e-4, 1e-5, "layer norm gamma");
      expect_near(db.data, want_db.data, cols, 1e-4, 1e-5, "layer norm beta");
      array *const all[] = {&y, &my_mean, &my_rstd, &dx, &dg, &db};
      for (size_t i = 0; i < 6; i++) array_free(all[i]);
    }
    array *const all[] = {&x, &dy, &gamma, &beta, &want, &mean, &rstd, &want_dx, &want_dg, &want_db};
    for (size_t i = 0; i < 10; i++) array_free(all[i]);
  }
}

Test(rows, batch_norm_is_close_to_its_twin) {
  for (size_t s = 0; s < EXTENT_COUNT; s++) {
    const size_t n = extents[s].rows + 1, c = extents[s].cols, all_n = n * c;
    array x = array_random(all_n, s % 3, s, 1, 4), dy = array_random(all_n, 0, s + 1, -1, 1);
    array gamma = array_random(c, 1, s + 2, 0.5f, 2), beta = array_random(c, 0, s + 3, -1, 1);
    array want[8];
    for (size_t i = 0; i < 5; i++) want[i] = array_new(c, 0);
    for (size_t i = 5; i < 7; i++) want[i] = array_new(all_n, 0);
    array *mean = &want[0], *var = &want[1], *rstd = &want[2], *dg = &want[3], *db = &want[4];
    plain()->batch_norm_stats(x.data, n, c, 0, c, mean->data, var->data);
    plain()->batch_norm_rstd(var->data, 1e-2f, rstd->data, c);
    plain()->batch_norm_apply(x.data, mean->data, rstd->data, gamma.data, beta.data, want[5].data, n, c);
    plain()->batch_norm_backward_params(x.data, dy.data, mean->data, rstd->data, dg->data, db->data, n, c, 0, c);
    plain()->batch_norm_backward_data(x.data, dy.data, mean->data, rstd->data, gamma.data, dg->data, db->data,
                                      want[6].data, n, n, c, false);
    EACH_ISA(k) {
      array got[7];
      for (size_t i = 0; i < 5; i++) got[i] = array_new(c, 1);
      for (size_t i = 5; i < 7; i++) got[i] = array_new(all_n, 1);
      k->batch_norm_stats(x.data, n, c, 0, c / 2, got[0].data, got[1].data);
      k->batch_norm_stats(x.data, n, c, c / 2, c, got[0].data, got[1].data);
      expect_near(got[0].data, mean->data, c, 1e-6, 2e-6, "mean");
      expect_near(got[1].data, var->data, c, 1e-6, 5e-6, "var");
      k->batch_norm_rstd(got[1].data, 1e-2f, got[2].data, c);
      expect_near(got[2].data, rstd->data, c, 0, 2e-5, "rstd");
      k->batch_norm_apply(x.data, mean->data, rstd->data, gamma.data, beta.data, got[5].data, n, c);
      expect_near(got[5].data, want[5].data, all_n, 1e-5, 1e-5, "batch norm");
      k->batch_norm_backward_params(x.data, dy.data, mean->data, rstd->data, got[3].data, got[4].data, n, c, 0, c);
      expect_near(got[3].data, dg->data, c, 1e-4, 1e-5, "gamma");
      expect_near(got[4].data, db->data, c, 1e-4, 1e-5, "beta");
      const size_t cut = n / 2;
      k->batch_norm_backward_data(x.data, dy.data, mean->data, rstd->data, gamma.data, dg->data, db->data, got[6].data,
                                  cut, n, c, false);
      k->batch_norm_backward_data(x.data + cut * c, dy.data + cut * c, mean->data, rstd->data, gamma.data, dg->data,
                                  db->data, got[6].data + cut * c, n - cut, n, c, false);
      expect_near(got[6].data, want[6].data, all_n, 2e-5, 1e-5, "batch norm dx");
      for (size_t i = 0; i < 7; i++) array_free(&got[i]);
    }
    for (size_t i = 0; i < 7; i++) array_free(&want[i]);
    array *const inputs[] = {&x, &dy, &gamma, &beta};
    for (size_t i = 0; i < 4; i++) array_free(inputs[i]);
  }
}

Test(rows, softmax_cross_entropy_is_close_to_its_twin) {
  for (size_t s = 0; s < EXTENT_COUNT; s++) {
    const size_t rows = extents[s].rows, classes = extents[s].cols, n = rows * classes;
    array x = array_random(n, s % 3, s, -20, 20), weight = array_random(rows, 0, s + 1, 0, 2);
    array want = array_new(n, 0), loss = array_new(rows, 0), hit = array_new(rows, 0), grad = array_new(n, 0);
    int32_t *label = malloc(rows * sizeof *label);
    for (size_t r = 0; r < rows; r++) label[r] = r % 5 == 4 ? -1 : (int32_t)((r * 7) % classes);
    const float *w = s % 2 ? weight.data : NULL;
    plain()->softmax_xent_forward(x.data, label, w, want.data, loss.data, hit.data, rows, classes);
    plain()->softmax_xent_backward(want.data, label, w, 0.5f, grad.data, rows, classes, false);
    EACH_ISA(k) {
      array prob = array_new(n, 1), my_loss = array_new(rows, 1), my_hit = array_new(rows, 0), dx = array_copy(&x, 1);
      k->softmax_xent_forward(x.data, label, w, prob.data, my_loss.data, my_hit.data, rows, classes);
      expect_near(prob.data, want.data, n, 1e-7, 5e-6, "softmax");
      expect_near(my_loss.data, loss.data, rows, 1e-5, 1e-6, "loss");
      expect_same_bits(my_hit.data, hit.data, rows, "hit");
      k->softmax_xent_backward(want.data, label, w, 0.5f, dx.data, rows, classes, true);
      for (size_t i = 0; i < n; i++) dx.data[i] -= x.data[i];
      expect_near(dx.data, grad.data, n, 1e-5, 1e-5, "dlogits added");
      k->softmax_xent_backward(prob.data, label, w, 0.5f, prob.data, rows, classes, false);
      expect_near(prob.data, grad.data, n, 1e-6, 1e-5, "dlogits in place");
      k->softmax(x.data, dx.data, rows, classes);
      expect_near(dx.data, want.data, n, 1e-7, 5e-6, "softmax alone");
      array_free(&prob);
      array_free(&my_loss);
      array_free(&my_hit);
      array_free(&dx);
    }
    free(label);
    array *const all[] = {&x, &weight, &want, &loss, &hit, &grad};
    for (size_t i = 0; i < 6; i++) array_free(all[i]);
  }
}

Test(rows, the_first_of_equal_logits_is_the_answer) {
  const float x[4] = {1, 3, 3, 0};
  EACH_ISA(k) {
    for (int32_t label = 0; label < 4; label++) {
      float loss, hit;
      k->softmax_xent_forward(x, &label, NULL, NULL, &loss, &hit, 1, 4);
      cr_assert_eq(hit, label == 1 ? 1.0f : 0.0f);
    }
  }
}

Test(rows, a_nan_logit_makes_a_nan_loss) {
  for (int at = 0; at < 20; at++) {
    float x[20] = {0}, loss;
    const int32_t label = 3;
    x[at] = NAN;
    EACH_ISA(k) {
      k->softmax_xent_forward(x, &label, NULL, NULL, &loss, NULL, 1, 20);
      cr_assert(isnan(loss), "NaN at %d", at);
    }
  }
}

Test(rows, squared_error_is_close_to_its_twin) {
  for (size_t s = 0; s < EXTENT_COUNT; s++) {
    const size_t rows = extents[s].rows, cols = extents[s].cols, n = rows * cols;
    array x = array_random(n, 1, s, -1, 1), t = array_random(n, 2, s + 1, -1, 1), w = array_random(rows, 0, s, 0, 2);
    array want = array_new(rows, 0), loss = array_new(rows, 1), grad = array_new(n, 0), dx = array_new(n, 1);
    EACH_ISA(k) {
      plain()->mse_forward(x.data, t.data, w.data, want.data, rows, cols);
      k->mse_forward(x.data, t.data, w.data, loss.data, rows, cols);
      expect_near(loss.data, want.data, rows, 1e-7, 2e-6, "mse");
      plain()->mse_backward(x.data, t.data, w.data, 0.3f, grad.data, rows, cols, false);
      k->mse_backward(x.data, t.data, w.data, 0.3f, dx.data, rows, cols, false);
      expect_near(dx.data, grad.data, n, 1e-7, 2e-6, "mse gradient");
    }
    array *const all[] = {&x, &t, &w, &want, &loss, &grad, &dx};
    for (size_t i = 0; i < 7; i++) array_free(all[i]);
  }
}

Test(rows, embeddings_read_and_add_rows) {
  enum { N = 50, VOCABULARY = 11 };
  int32_t id[N];
  for (int i = 0; i < N; i++) id[i] = (i * 5) % 13 - 1;
  const size_t dims[] = {1, 8, 16, 33};
  for (size_t d = 0; d < 4; d++) {
    const size_t dim = dims[d];
    array table = array_random(VOCABULARY * dim, 1, d, -1, 1), dy = array_random(N * dim, 0, d + 1, -1, 1);
    array want = array_new(N * dim, 0), y = array_new(N * dim, 1);
    array grad = array_copy(&table, 0), parts = array_copy(&table, 1);
    EACH_ISA(k) {
      memcpy(grad.data, table.data, table.n * sizeof(float));
      memcpy(parts.data, table.data, table.n * sizeof(float));
      plain()->embedding_forward(id, table.data, want.data, N, dim, VOCABULARY);
      k->embedding_forward(id, table.data, y.data, N, dim, VOCABULARY);
      expect_same_bits(y.data, want.data, N * dim, "embedding");
      plain()->embedding_backward(id, dy.data, grad.data, N, dim, 0, VOCABULARY);
      for (size_t v = 0; v < VOCABULARY; v += 4)
        k->embedding_backward(id, dy.data, parts.data, N, dim, v, v + 4 < VOCABULARY ? v + 4 : VOCABULARY);
      expect_same_bits(parts.data, grad.data, table.n, "embedding gradient");
    }
    array *const all[] = {&table, &dy, &want, &y, &grad, &parts};
    for (size_t i = 0; i < 6; i++) array_free(all[i]);
  }
}

static const tr_window windows[] = {
    {.h = 6, .w = 8, .c = 16, .kh = 2, .kw = 2, .stride_h = 2, .stride_w = 2},
    {.h = 7, .w = 5, .c = 3, .kh = 3, .kw = 3, .stride_h = 2, .stride_w = 2, .pad_h = 1, .pad_w = 1},
    {.h = 5, .w = 9, .c = 20, .kh = 3, .kw = 2, .stride_h = 1, .stride_w = 3, .pad_h = 2, .pad_w = 0},
    {.h = 4, .w = 4, .c = 1, .kh = 4, .kw = 4, .stride_h = 1, .stride_w = 1},
    {.h = 7, .w = 7, .c = 65, .kh = 2, .kw = 2, .stride_h = 2, .stride_w = 2},
};

Test(pool, windows_of_all_kinds_are_their_twins) {
  for (size_t i = 0; i < sizeof windows / sizeof windows[0]; i++) {
    tr_window w = windows[i];
    cr_assert(tr_window_shape(&w));
    enum { ROWS = 3 };
    const size_t in = ROWS * (size_t)(w.h * w.w * w.c), out = ROWS * (size_t)(w.out_h * w.out_w * w.c);
    array x = array_random(in, 1, i, -1, 1), dy = array_random(out, 0, i + 1, -1, 1),
          before = array_random(in, 0, 9, -1, 1);
    array want = array_new(out, 0), want_dx = array_copy(&before, 0);
    uint8_t *choice = malloc(out), *my_choice = malloc(out);
    for (size_t r = 0; r < in; r += 3) x.data[r] = 0.25f; /* equal values: the first must be chosen */
    EACH_ISA(k) {
      array y = array_new(out, 1), dx = array_copy(&before, 1);
      plain()->max_pool_forward(&w, x.data, want.data, choice, ROWS);
      k->max_pool_forward(&w, x.data, y.data, my_choice, ROWS);
      expect_same_bits(y.data, want.data, out, "max pool");
      cr_assert_arr_eq(choice, my_choice, out);
      memcpy(want_dx.data, before.data, in * sizeof(float));
      plain()->max_pool_backward(&w, dy.data, choice, want_dx.data, ROWS, true);
      k->max_pool_backward(&w, dy.data, choice, dx.data, ROWS, true);
      expect_near(dx.data, want_dx.data, in, 1e-6, 1e-6, "max pool added");
      plain()->avg_pool_forward(&w, x.data, want.data, ROWS);
      k->avg_pool_forward(&w, x.data, y.data, ROWS);
      expect_near(y.data, want.data, out, 1e-6, 1e-6, "average pool");
      plain()->avg_pool_backward(&w, dy.data, want_dx.data, ROWS, false);
      k->avg_pool_backward(&w, dy.data, dx.data, ROWS, false);
      expect_near(dx.data, want_dx.data, in, 1e-6, 1e-6, "average pool backward");
      array_free(&y);
      array_free(&dx);
    }
    free(choice);
    free(my_choice);
    array *const all[] = {&x, &dy, &before, &want, &want_dx};
    for (size_t j = 0; j < 5; j++) array_free(all[j]);
  }
}
