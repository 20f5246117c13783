/* The naive twins: every kernel of the table as one would first write it, in scalar C and libm's functions.
 *
 * They are what the vectorised kernels are tested against, and what runs where neither AVX2 nor AVX-512 is there. */
#include <math.h>
#include <string.h>

#include "isa.h"
#include "kernels.h"

static void put(float *at, float value, bool add) { *at = add ? *at + value : value; }

static void relu_forward(const float *x, float *y, size_t n) {
  for (size_t i = 0; i < n; i++) y[i] = x[i] < 0 ? 0 : x[i];
}

static void relu_backward(const float *y, const float *dy, float *dx, size_t n, bool add) {
  for (size_t i = 0; i < n; i++) put(&dx[i], y[i] > 0 ? dy[i] : 0, add);
}

/* 0.5 x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))) */
static void gelu_tanh_forward(const float *x, float *y, size_t n) {
  for (size_t i = 0; i < n; i++) {
    const double v = x[i], u = 0.7978845608028654 * (v + 0.044715 * v * v * v);
    y[i] = (float)(0.5 * v * (1 + tanh(u)));
  }
}

static void gelu_tanh_backward(const float *x, const float *dy, float *dx, size_t n, bool add) {
  for (size_t i = 0; i < n; i++) {
    const double v = x[i], t = tanh(0.7978845608028654 * (v + 0.044715 * v * v * v));
    const double du = 0.7978845608028654 * (1 + 3 * 0.044715 * v * v);
    put(&dx[i], (float)(dy[i] * (0.5 * (1 + t) + 0.5 * v * (1 - t * t) * du)), add);
  }
}

static void gelu_erf_forward(const float *x, float *y, size_t n) {
  for (size_t i = 0; i < n; i++) y[i] = (float)(0.5 * x[i] * (1 + erf(x[i] * 0.7071067811865476)));
}

static void gelu_erf_backward(const float *x, const float *dy, float *dx, size_t n, bool add) {
  for (size_t i = 0; i < n; i++) {
    const double v = x[i], density = 0.3989422804014327 * exp(-0.5 * v * v);
    put(&dx[i], (float)(dy[i] * (0.5 * (1 + erf(v * 0.7071067811865476)) + v * density)), add);
  }
}

static void exp_all(const float *x, float *y, size_t n) {
  for (size_t i = 0; i < n; i++) y[i] = x[i] < -87.3f ? 0 : expf(x[i]);
}

static void add_all(const float *a, const float *b, float *y, size_t n) {
  for (size_t i = 0; i < n; i++) y[i] = a[i] + b[i];
}

static void scale_all(const float *x, float factor, float *y, size_t n, bool add) {
  for (size_t i = 0; i < n; i++) put(&y[i], factor * x[i], add);
}

static void convert_u8(const uint8_t *x, float factor, float offset, float *y, size_t n) {
  for (size_t i = 0; i < n; i++) y[i] = factor * (float)x[i] + offset;
}

static void dropout(const float *x, float *y, size_t n, const tr_dropout_key *key, uint64_t first, bool add) {
  const double threshold = (double)key->p * 4294967296.0;
  for (size_t i = 0; i < n; i++) {
    const uint64_t e = first + i;
    const tr_rng4 r = tr_rng(key->seed, TR_RNG_DROPOUT, key->step, (uint64_t)key->stream << 48 | e / 4);
    put(&y[i], r.v[e % 4] < threshold ? 0 : x[i] * (1 / (1 - key->p)), add);
  }
}

static void bias_add(const float *x, const float *bias, float *y, size_t rows, size_t cols) {
  for (size_t r = 0; r < rows; r++)
    for (size_t c = 0; c < cols; c++) y[r * cols + c] = x[r * cols + c] + bias[c];
}

static void bias_grad(const float *dy, float *db, size_t rows, size_t cols, size_t c0, size_t c1, bool add) {
  for (size_t c = c0; c < c1; c++) {
    double sum = 0;
    for (size_t r = 0; r < rows; r++) sum += dy[r * cols + c];
    put(&db[c], (float)sum, add);
  }
}

static void layer_norm_forward(const float *x, const float *gamma, const float *beta, float eps, float *y, float *mean,
                               float *rstd, size_t rows, size_t cols) {
  for (size_t r = 0; r < rows; r++) {
    const float *row = x + r * cols;
    double m = 0, var = 0;
    for (size_t c = 0; c < cols; c++) m += row[c];
    m /= (double)cols;
    for (size_t c = 0; c < cols; c++) var += (row[c] - m) * (row[c] - m);
    mean[r] = (float)m;
    rstd[r] = (float)(1 / sqrt(var / (double)cols + eps));
    for (size_t c = 0; c < cols; c++) y[r * cols + c] = (row[c] - mean[r]) * rstd[r] * gamma[c] + beta[c];
  }
}

static void layer_norm_backward_data(const float *x, const float *dy, const float *gamma, const float *mean,
                                     const float *rstd, float *dx, size_t rows, size_t cols, bool add) {
  for (size_t r = 0; r < rows; r++) {
    double sum = 0, dot = 0;
    for (size_t c = 0; c < cols; c++) {
      const double d = (double)dy[r * cols + c] * gamma[c];
      sum += d;
      dot += d * (x[r * cols + c] - mean[r]) * rstd[r];
    }
    for (size_t c = 0; c < cols; c++) {
      const double d = (double)dy[r * cols + c] * gamma[c], hat = (x[r * cols + c] - mean[r]) * rstd[r];
      put(&dx[r * cols + c], (float)(rstd[r] * (d - (sum + hat * dot) / (double)cols)), add);
    }
  }
}

static void layer_norm_backward_params(const float *x, const float *dy, const float *mean, const float *rstd,
                                       float *dgamma, float *dbeta, size_t rows, size_t cols, size_t c0, size_t c1,
                                       bool add) {
  for (size_t c = c0; c < c1; c++) {
    double sum = 0, dot = 0;
    for (size_t r = 0; r < rows; r++) {
      sum += dy[r * cols + c];
      dot += (double)dy[r * cols + c] * (x[r * cols + c] - mean[r]) * rstd[r];
    }
    put(&dgamma[c], (float)dot, add);
    put(&dbeta[c], (float)sum, add);
  }
}

static void batch_norm_stats(const float *x, size_t n, size_t c, size_t c0, size_t c1, float *mean, float *var) {
  for (size_t j = c0; j < c1; j++) {
    double m = 0, v = 0;
    for (size_t i = 0; i < n; i++) m += x[i * c + j];
    m /= (double)n;
    for (size_t i = 0; i < n; i++) v += (x[i * c + j] - m) * (x[i * c + j] - m);
    mean[j] = (float)m;
    var[j] = (float)(v / (double)n);
  }
}

static void batch_norm_rstd(const float *var, float eps, float *rstd, size_t c) {
  for (size_t j = 0; j < c; j++) rstd[j] = 1 / sqrtf(var[j] + eps);
}

static void batch_norm_apply(const float *x, const float *mean, const float *rstd, const float *gamma,
                             const float *beta, float *y, size_t n, size_t c) {
  for (size_t i = 0; i < n; i++)
    for (size_t j = 0; j < c; j++) y[i * c + j] = (x[i * c + j] - mean[j]) * rstd[j] * gamma[j] + beta[j];
}

static void batch_norm_backward_params(const float *x, const float *dy, const float *mean, const float *rstd,
                                       float *dgamma, float *dbeta, size_t n, size_t c, size_t c0, size_t c1) {
  for (size_t j = c0; j < c1; j++) {
    double sum = 0, dot = 0;
    for (size_t i = 0; i < n; i++) {
      sum += dy[i * c + j];
      dot += (double)dy[i * c + j] * (x[i * c + j] - mean[j]) * rstd[j];
    }
    dgamma[j] = (float)dot;
    dbeta[j] = (float)sum;
  }
}

static void batch_norm_backward_data(const float *x, const float *dy, const float *mean, const float *rstd,
                                     const float *gamma, const float *dgamma, const float *dbeta, float *dx, size_t n,
                                     size_t n_total, size_t c, bool add) {
  for (size_t i = 0; i < n; i++) {
    for (size_t j = 0; j < c; j++) {
      const double hat = (x[i * c + j] - mean[j]) * rstd[j];
      const double centred = dy[i * c + j] - ((double)dbeta[j] + hat * dgamma[j]) / (double)n_total;
      put(&dx[i * c + j], (float)(gamma[j] * rstd[j] * centred), add);
    }
  }
}

static void softmax_xent_forward(const float *logits, const int32_t *label, const float *weight, float *prob,
                                 float *loss, float *hit, size_t rows, size_t classes) {
  for (size_t r = 0; r < rows; r++) {
    const float *row = logits + r * classes, w = weight ? weight[r] : 1;
    const bool inside = label[r] >= 0 && (size_t)label[r] < classes;
    const float target = inside ? row[label[r]] : 0;
    size_t best = 0;
    double sum = 0;
    for (size_t c = 1; c < classes; c++)
      if (row[c] > row[best]) best = c;
    const float top = row[best];
    for (size_t c = 0; c < classes; c++) sum += exp((double)row[c] - top);
    loss[r] = inside ? (float)(w * (log(sum) + top - target)) : 0;
    if (hit) hit[r] = inside && (size_t)label[r] == best ? w : 0;
    if (prob)
      for (size_t c = 0; c < classes; c++) prob[r * classes + c] = (float)(exp((double)row[c] - top) / sum);
  }
}

static void softmax_xent_backward(const float *prob, const int32_t *label, const float *weight, float scale,
                                  float *dlogits, size_t rows, size_t classes, bool add) {
  for (size_t r = 0; r < rows; r++) {
    const bool inside = label[r] >= 0 && (size_t)label[r] < classes;
    const float w = inside ? scale * (weight ? weight[r] : 1) : 0;
    for (size_t c = 0; c < classes; c++)
      put(&dlogits[r * classes + c], w * (prob[r * classes + c] - ((int64_t)c == label[r] ? 1.0f : 0.0f)), add);
  }
}

static void softmax(const float *x, float *y, size_t rows, size_t cols) {
  for (size_t r = 0; r < rows; r++) {
    const float *row = x + r * cols;
    float top = row[0];
    double sum = 0;
    for (size_t c = 1; c < cols; c++) top = row[c] > top ? row[c] : top;
    for (size_t c = 0; c < cols; c++) sum += exp((double)row[c] - top);
    for (size_t c = 0; c < cols; c++) y[r * cols + c] = (float)(exp((double)row[c] - top) / sum);
  }
}

static void mse_forward(const float *x, const float *target, const float *weight, float *loss, size_t rows,
                        size_t cols) {
  for (size_t r = 0; r < rows; r++) {
    double sum = 0;
    for (size_t c = 0; c < cols; c++) {
      const double d = (double)x[r * cols + c] - target[r * cols + c];
      sum += d * d;
    }
    loss[r] = (float)((weight ? weight[r] : 1) * sum / (double)cols);
  }
}

static void mse_backward(const float *x, const float *target, const float *weight, float scale, float *dx, size_t rows,
                         size_t cols, bool add) {
  for (size_t r = 0; r < rows; r++) {
    const float w = 2 * scale * (weight ? weight[r] : 1) / (float)cols;
    for (size_t c = 0; c < cols; c++) put(&dx[r * cols + c], w * (x[r * cols + c] - target[r * cols + c]), add);
  }
}

static void embedding_forward(const int32_t *id, const float *table, float *y, size_t n, size_t dim,
                              size_t vocabulary) {
  for (size_t i = 0; i < n; i++) {
    const bool inside = id[i] >= 0 && (size_t)id[i] < vocabulary;
    for (size_t c = 0; c < dim; c++) y[i * dim + c] = inside ? table[(size_t)id[i] * dim + c] : 0;
  }
}

static void embedding_backward(const int32_t *id, const float *dy, float *dtable, size_t n, size_t dim, size_t v0,
                               size_t v1) {
  for (size_t i = 0; i < n; i++) {
    if (id[i] < 0 || (size_t)id[i] < v0 || (size_t)id[i] >= v1) continue;
    for (size_t c = 0; c < dim; c++) dtable[(size_t)id[i] * dim + c] += dy[i * dim + c];
  }
}

/* The next input of output `o` of row `r` after number `k`, -1 at the end; *in is its offset. */
static int32_t pool_next(const tr_window *w, size_t r, int32_t o, int32_t k, size_t *in) {
  const int32_t y0 = o / w->out_w * w->stride_h - w->pad_h, x0 = o % w->out_w * w->stride_w - w->pad_w;
  for (k++; k < w->kh * w->kw; k++) {
    const int32_t y = y0 + k / w->kw, x = x0 + k % w->kw;
    if (y < 0 || y >= w->h || x < 0 || x >= w->w) continue;
    *in = ((r * (size_t)w->h + (size_t)y) * (size_t)w->w + (size_t)x) * (size_t)w->c;
    return k;
  }
  return -1;
}

static int32_t pool_outputs(const tr_window *w) { return w->out_h * w->out_w; }

static void max_pool_forward(const tr_window *w, const float *x, float *y, uint8_t *choice, size_t rows) {
  const size_t channels = (size_t)w->c;
  for (size_t r = 0; r < rows; r++) {
    for (int32_t o = 0; o < pool_outputs(w); o++) {
      const size_t out = (r * (size_t)pool_outputs(w) + (size_t)o) * channels;
      size_t in = 0;
      bool first = true;
      for (int32_t k = pool_next(w, r, o, -1, &in); k >= 0; k = pool_next(w, r, o, k, &in), first = false) {
        for (size_t c = 0; c < channels; c++) {
          if (!first && !(x[in + c] > y[out + c])) continue;
          y[out + c] = x[in + c];
          choice[out + c] = (uint8_t)k;
        }
      }
    }
  }
}

static void clear(float *dx, size_t n, bool add) {
  if (!add && n > 0) memset(dx, 0, n * sizeof *dx);
}

static size_t pool_inputs(const tr_window *w, size_t rows) { return rows * (size_t)w->h * (size_t)w->w * (size_t)w->c; }

static void max_pool_backward(const tr_window *w, const float *dy, const uint8_t *choice, float *dx, size_t rows,
                              bool add) {
  const size_t channels = (size_t)w->c;
  clear(dx, pool_inputs(w, rows), add);
  for (size_t r = 0; r < rows; r++) {
    for (int32_t o = 0; o < pool_outputs(w); o++) {
      const size_t out = (r * (size_t)pool_outputs(w) + (size_t)o) * channels;
      size_t in = 0;
      for (int32_t k = pool_next(w, r, o, -1, &in); k >= 0; k = pool_next(w, r, o, k, &in))
        for (size_t c = 0; c < channels; c++)
          if (choice[out + c] == k) dx[in + c] += dy[out + c];
    }
  }
}

static int32_t pool_count(const tr_window *w, int32_t o) {
  int32_t count = 0;
  size_t in = 0;
  for (int32_t k = pool_next(w, 0, o, -1, &in); k >= 0; k = pool_next(w, 0, o, k, &in)) count++;
  return count;
}

static void avg_pool_forward(const tr_window *w, const float *x, float *y, size_t rows) {
  const size_t channels = (size_t)w->c;
  for (size_t r = 0; r < rows; r++) {
    for (int32_t o = 0; o < pool_outputs(w); o++) {
      const size_t out = (r * (size_t)pool_outputs(w) + (size_t)o) * channels;
      const float share = 1.0f / (float)pool_count(w, o);
      size_t in = 0;
      for (size_t c = 0; c < channels; c++) y[out + c] = 0;
      for (int32_t k = pool_next(w, r, o, -1, &in); k >= 0; k = pool_next(w, r, o, k, &in))
        for (size_t c = 0; c < channels; c++) y[out + c] += x[in + c];
      for (size_t c = 0; c < channels; c++) y[out + c] *= share;
    }
  }
}

static void avg_pool_backward(const tr_window *w, const float *dy, float *dx, size_t rows, bool add) {
  const size_t channels = (size_t)w->c;
  clear(dx, pool_inputs(w, rows), add);
  for (size_t r = 0; r < rows; r++) {
    for (int32_t o = 0; o < pool_outputs(w); o++) {
      const size_t out = (r * (size_t)pool_outputs(w) + (size_t)o) * channels;
      const float share = 1.0f / (float)pool_count(w, o);
      size_t in = 0;
      for (int32_t k = pool_next(w, r, o, -1, &in); k >= 0; k = pool_next(w, r, o, k, &in))
        for (size_t c = 0; c < channels; c++) dx[in + c] += dy[out + c] * share;
    }
  }
}

const tr_kernels tr_kernels_plain = {
    .isa = TR_ISA_PLAIN,
    .name = "plain",
    .relu_forward = relu_forward,
    .relu_backward = relu_backward,
    .gelu_tanh_forward = gelu_tanh_forward,
    .gelu_tanh_backward = gelu_tanh_backward,
    .gelu_erf_forward = gelu_erf_forward,
    .gelu_erf_backward = gelu_erf_backward,
    .exp = exp_all,
    .add = add_all,
    .scale = scale_all,
    .convert_u8 = convert_u8,
    .dropout = dropout,
    .bias_add = bias_add,
    .bias_grad = bias_grad,
    .layer_norm_forward = layer_norm_forward,
    .layer_norm_backward_data = layer_norm_backward_data,
    .layer_norm_backward_params = layer_norm_backward_params,
    .batch_norm_stats = batch_norm_stats,
    .batch_norm_rstd = batch_norm_rstd,
    .batch_norm_apply = batch_norm_apply,
    .batch_norm_backward_params = batch_norm_backward_params,
    .batch_norm_backward_data = batch_norm_backward_data,
    .softmax_xent_forward = softmax_xent_forward,
    .softmax_xent_backward = softmax_xent_backward,
    .softmax = softmax,
    .mse_forward = mse_forward,
    .mse_backward = mse_backward,
    .embedding_forward = embedding_forward,
    .embedding_backward = embedding_backward,
    .max_pool_forward = max_pool_forward,
    .max_pool_backward = max_pool_backward,
    .avg_pool_forward = avg_pool_forward,
    .avg_pool_backward = avg_pool_backward,
};
