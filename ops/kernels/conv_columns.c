/* Convolution through columns. Scratch: [columns][gradient or output of a block][scratch of the products]. */
#include "conv_columns.h"

#include <string.h>

enum { COLUMNS_BYTES = 256 * 1024 }; /* of a block, where a row is not more: half of a second-level cache */

static size_t window_floats(const conv_shape *s) { return (size_t)s->kh * s->kw * s->ic; }

/* Rows of the convolution in a block: even under a pool. */
static int32_t block_rows(const conv_shape *s) {
  const size_t row_bytes = (size_t)s->conv_w * window_floats(s) * sizeof(float);
  const size_t fit = COLUMNS_BYTES / row_bytes;
  const int32_t most = s->pool ? 2 * s->out_h : s->conv_h;
  int32_t rows = fit < 1 ? 1 : fit > (size_t)most ? most : (int32_t)fit;
  if (s->pool) rows = rows < 2 ? 2 : rows / 2 * 2;
  return rows;
}

static size_t round_up(size_t n) { return (n + 15) / 16 * 16; }
static size_t column_floats(const conv_shape *s) {
  return round_up((size_t)block_rows(s) * s->conv_w * window_floats(s));
}
static size_t block_floats(const conv_shape *s) { return round_up((size_t)block_rows(s) * s->conv_w * s->oc); }

size_t conv_columns_scratch_bytes(const conv_shape *s, const gemm_kernels *gemm) {
  return (column_floats(s) + block_floats(s)) * sizeof(float) + gemm->scratch_bytes;
}

/* Where row ky of the window at (oy, ox) meets the image: *from floats of the window row are outside on the left, then
 * *count lie in the image at *at. */
static void window_row(const conv_shape *s, int32_t oy, int32_t ox, int32_t ky, size_t *from, size_t *count,
                       size_t *at) {
  const int32_t iy = oy * s->stride_h - s->pad_h + ky, ix = ox * s->stride_w - s->pad_w;
  const int32_t left = ix < 0 ? -ix : 0;
  const int32_t right = ix + s->kw > s->w ? s->w - ix : s->kw;
  const bool empty = iy < 0 || iy >= s->h || right <= left;
  *from = empty ? 0 : (size_t)left * s->ic;
  *count = empty ? 0 : (size_t)(right - left) * s->ic;
  *at = empty ? 0 : ((size_t)iy * s->w + (size_t)(ix + left)) * s->ic;
}

static void gather(const conv_shape *s, const float *image, int32_t y0, int32_t y1, float *col) {
  const size_t span = (size_t)s->kw * s->ic;
  for (int32_t oy = y0; oy < y1; oy++) {
    for (int32_t ox = 0; ox < s->conv_w; ox++) {
      for (int32_t ky = 0; ky < s->kh; ky++, col += span) {
        size_t from, count, at;
        window_row(s, oy, ox, ky, &from, &count, &at);
        if (count < span) memset(col, 0, span * sizeof *col);
        if (count > 0) memcpy(col + from, image + at, count * sizeof *col);
      }
    }
  }
}

static void scatter(const conv_shape *s, const float *col, int32_t y0, int32_t y1, float *image) {
  const size_t span = (size_t)s->kw * s->ic;
  for (int32_t oy = y0; oy < y1; oy++) {
    for (int32_t ox = 0; ox < s->conv_w; ox++) {
      for (int32_t ky = 0; ky < s->kh; ky++, col += span) {
        size_t from, count, at;
        window_row(s, oy, ox, ky, &from, &count, &at);
        for (size_t i = 0; i < count; i++) image[at + i] += col[from + i];
      }
    }
  }
}

static void finish(const conv_shape *s, size_t pixels, const float *bias, float *y) {
  for (size_t p = 0; p < pixels; p++) {
    for (int32_t c = 0; c < s->oc; c++) {
      const float value = bias ? y[p * s->oc + c] + bias[c] : y[p * s->oc + c];
      y[p * s->oc + c] = s->relu && value < 0 ? 0 : value;
    }
  }
}

/* Rows [y0, y1) of the convolution, in `block`, to pooled rows of y: the first largest of four. */
static void pool(const conv_shape *s, int32_t y0, int32_t y1, const float *block, float *y, uint8_t *choice) {
  for (int32_t py = y0 / 2; py < y1 / 2; py++) {
    for (int32_t px = 0; px < s->out_w; px++) {
      const float *corner = block + ((size_t)(2 * py - y0) * s->conv_w + (size_t)(2 * px)) * s->oc;
      const size_t at = ((size_t)py * s->out_w + px) * s->oc;
      for (int32_t c = 0; c < s->oc; c++) {
        y[at + c] = corner[c];
        choice[at + c] = 0;
        for (int k = 1; k < 4; k++) {
          const float value = corner[((size_t)(k / 2) * s->conv_w + (size_t)(k % 2)) * s->oc + c];
          if (!(value > y[at + c])) continue;
          y[at + c] = value;
          choice[at + c] = (uint8_t)k;
        }
      }
    }
  }
}

void conv_columns_forward(const conv_shape *s, const gemm_kernels *gemm, int32_t r0, int32_t r1, const float *x,
                          const float *w, const float *bias, float *y, uint8_t *choice, void *scratch) {
  const int32_t step = block_rows(s), rows = s->pool ? 2 * s->out_h : s->conv_h;
  const size_t k = window_floats(s), out_image = (size_t)s->out_h * s->out_w * s->oc;
  float *col = scratch, *block = col + column_floats(s);
  for (int32_t r = r0; r < r1; r++) {
    for (int32_t y0 = 0; y0 < rows; y0 += step) {
      const int32_t y1 = y0 + step < rows ? y0 + step : rows;
      const size_t pixels = (size_t)(y1 - y0) * s->conv_w;
      float *to = s->pool ? block : y + (size_t)r * out_image + (size_t)y0 * s->conv_w * s->oc;
      gather(s, x + (size_t)r * s->h * s->w * s->ic, y0, y1, col);
      gemm->dot(&(gemm_args){.m = pixels,
                             .n = (size_t)s->oc,
                             .k = k,
                             .a = col,
                             .a_row = k,
                             .a_col = 1,
                             .b = w,
                             .b_row = 1,
                             .b_col = k,
                             .c = to,
                             .c_row = (size_t)s->oc});
      finish(s, pixels, bias, to);
      if (s->pool) pool(s, y0, y1, block, y + (size_t)r * out_image, choice + (size_t)r * out_image);
    }
  }
}

/* The gradient of rows [y0, y1) of the convolution itself, before pool and ReLU. y, choice, dy: of this image. */
static void gradient(const conv_shape *s, int32_t y0, int32_t y1, const float *y, const uint8_t *choice,
                     const float *dy, float *block) {
  const size_t pixels = (size_t)(y1 - y0) * s->conv_w;
  if (!s->pool) {
    const size_t at = (size_t)y0 * s->conv_w * s->oc;
    for (size_t i = 0; i < pixels * s->oc; i++) block[i] = !s->relu || y[at + i] > 0 ? dy[at + i] : 0;
    return;
  }
  memset(block, 0, pixels * s->oc * sizeof *block);
  for (int32_t py = y0 / 2; py < y1 / 2; py++) {
    for (int32_t px = 0; px < s->out_w; px++) {
      float *corner = block + ((size_t)(2 * py - y0) * s->conv_w + (size_t)(2 * px)) * s->oc;
      const size_t at = ((size_t)py * s->out_w + px) * s->oc;
      for (int32_t c = 0; c < s->oc; c++) {
        const size_t k = choice[at + c] & 3;
        if (y[at + c] > 0) corner[(k / 2 * s->conv_w + k % 2) * s->oc + c] = dy[at + c];
      }
    }
  }
}

void conv_columns_backward(const conv_shape *s, const gemm_kernels *gemm, int32_t r0, int32_t r1, const float *x,
                           const float *w, const float *y, const uint8_t *choice, const float *dy, float *dx, bool add,
                           conv_part part, void *scratch) {
  const int32_t step = block_rows(s), rows = s->pool ? 2 * s->out_h : s->conv_h;
  const size_t k = window_floats(s), oc = (size_t)s->oc;
  const size_t in_image = (size_t)s->h * s->w * s->ic, out_image = (size_t)s->out_h * s->out_w * oc;
  float *col = scratch, *block = col + column_floats(s);
  void *products = block + block_floats(s);
  memset(part.dw, 0, oc * k * sizeof(float));
  memset(part.db, 0, oc * sizeof(float));
  for (int32_t r = r0; r < r1; r++) {
    const size_t out = (size_t)r * out_image;
    if (dx && !add) memset(dx + (size_t)r * in_image, 0, in_image * sizeof *dx);
    for (int32_t y0 = 0; y0 < rows; y0 += step) {
      const int32_t y1 = y0 + step < rows ? y0 + step : rows;
      const size_t pixels = (size_t)(y1 - y0) * s->conv_w;
      gradient(s, y0, y1, y ? y + out : NULL, choice ? choice + out : NULL, dy + out, block);
      for (size_t p = 0; p < pixels; p++)
        for (size_t c = 0; c < oc; c++) part.db[c] += block[p * oc + c];
      gather(s, x + (size_t)r * in_image, y0, y1, col);
      gemm_args g = {.m = oc,
                     .n = k,
                     .k = pixels,
                     .a = block,
                     .a_row = 1,
                     .a_col = oc,
                     .b = col,
                     .b_row = k,
                     .b_col = 1,
                     .c = part.dw,
                     .c_row = k,
                     .add = true};
      gemm->multiply(&g, products);
      if (!dx) continue;
      g = (gemm_args){.m = pixels,
                      .n = k,
                      .k = oc,
                      .a = block,
                      .a_row = oc,
                      .a_col = 1,
                      .b = w,
                      .b_row = k,
                      .b_col = 1,
                      .c = col,
                      .c_row = k};
      gemm->multiply(&g, products);
      scatter(s, col, y0, y1, dx + (size_t)r * in_image);
    }
  }
}
