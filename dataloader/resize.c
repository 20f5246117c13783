/* Resizing, see resize.h: the weights of each axis, then one pass a direction. The loops are written once and compiled
 * twice on x86-64, for any processor and for AVX2; they are of integers, so both give the same bits. */
#include "resize.h"

#include <math.h>
#include <string.h>

#if defined(__x86_64__)
#define WIDE __attribute__((target("avx2")))
static bool wide(void) { return __builtin_cpu_supports("avx2"); }
#else
#define WIDE
static bool wide(void) { return false; }
#endif
#define LOOP static inline __attribute__((always_inline)) void

/* Weights have 22 bits behind the point: with 8 bits of a pixel and one of carry that fills 31. */
enum { POINT = 22, STRIP = 16, SLACK = 16 };

/* ---- Weights ----------------------------------------------------------------------------------------------------- */

/* Output i is the sum over t < counts[i] of weights[i * taps + t] * input[firsts[i] + t]. */
typedef struct axis {
  uint32_t taps;
  uint32_t *firsts, *counts;
  int32_t *weights;
} axis;

static double triangle(double x) {
  x = fabs(x);
  return x < 1 ? 1 - x : 0;
}

static double stretch_of(double begin, double end, uint32_t outputs) {
  const double scale = (end - begin) / outputs;
  return scale < 1 ? 1 : scale;
}

static uint32_t taps_of(double begin, double end, uint32_t outputs) {
  return (uint32_t)ceil(stretch_of(begin, end, outputs)) * 2 + 1;
}

static size_t axis_bytes(uint32_t taps, uint32_t outputs) { return (size_t)outputs * (2 + (size_t)taps) * 4; }

static void fill_axis(axis *a, uint32_t inputs, double begin, double end, uint32_t outputs, void *memory) {
  const double scale = (end - begin) / outputs, support = stretch_of(begin, end, outputs), shrink = 1.0 / support;
  a->taps = taps_of(begin, end, outputs);
  a->firsts = memory;
  a->counts = a->firsts + outputs;
  a->weights = (int32_t *)(a->counts + outputs);
  for (uint32_t i = 0; i < outputs; i++) {
    const double center = begin + (i + 0.5) * scale;
    int64_t first = (int64_t)(center - support + 0.5), last = (int64_t)(center + support + 0.5);
    if (first < 0) first = 0;
    if (last > inputs) last = inputs;
    double sum = 0;
    for (int64_t at = first; at < last; at++) sum += triangle(((double)at - center + 0.5) * shrink);
    int32_t *weights = a->weights + (size_t)i * a->taps;
    for (int64_t at = first; at < last; at++) {
      const double weight = triangle(((double)at - center + 0.5) * shrink);
      weights[at - first] = (int32_t)(0.5 + (sum != 0 ? weight / sum : weight) * (1 << POINT));
    }
    a->firsts[i] = (uint32_t)first;
    a->counts[i] = (uint32_t)(last - first);
  }
}

/* ---- Passes ------------------------------------------------------------------------------------------------------ */

typedef uint8_t u8x4 __attribute__((vector_size(4)));
typedef int32_t i32x4 __attribute__((vector_size(16)));

/* One row. Four channels are summed whatever there are: `line` has SLACK bytes behind its end, and so has `to`. */
LOOP across_loop(const uint8_t *line, uint8_t *to, const axis *a, uint32_t outputs, uint32_t channels) {
  const int32_t half = 1 << (POINT - 1);
  for (uint32_t i = 0; i < outputs; i++) {
    const int32_t *weights = a->weights + (size_t)i * a->taps;
    const uint8_t *at = line + (size_t)a->firsts[i] * channels;
    i32x4 sum = {half, half, half, half};
    for (uint32_t t = 0; t < a->counts[i]; t++, at += channels) {
      u8x4 pixel;
      memcpy(&pixel, at, sizeof pixel);
      sum += __builtin_convertvector(pixel, i32x4) * weights[t];
    }
    sum >>= POINT;
    for (uint32_t c = 0; c < 4; c++) to[(size_t)i * channels + c] = (uint8_t)(sum[c] > 255 ? 255 : sum[c]);
  }
}
WIDE static void across_wide(const uint8_t *line, uint8_t *to, const axis *a, uint32_t outputs, uint32_t channels) {
  if (channels == 3) {
    across_loop(line, to, a, outputs, 3);
  } else {
    across_loop(line, to, a, outputs, channels);
  }
}
static void across_any(const uint8_t *line, uint8_t *to, const axis *a, uint32_t outputs, uint32_t channels) {
  across_loop(line, to, a, outputs, channels);
}

/* One row of the result from `count` rows that lie `stride` bytes apart. */
LOOP down_loop(const uint8_t *from, size_t stride, const int32_t *weights, uint32_t count, uint8_t *to, size_t bytes) {
  const int32_t half = 1 << (POINT - 1);
  size_t x = 0;
  for (; x + STRIP <= bytes; x += STRIP) {
    int32_t sums[STRIP];
    for (int i = 0; i < STRIP; i++) sums[i] = half;
    for (uint32_t t = 0; t < count; t++) {
      const uint8_t *at = from + t * stride + x;
      for (int i = 0; i < STRIP; i++) sums[i] += at[i] * weights[t];
    }
    for (int i = 0; i < STRIP; i++) sums[i] = sums[i] >> POINT > 255 ? 255 : sums[i] >> POINT;
    for (int i = 0; i < STRIP; i++) to[x + i] = (uint8_t)sums[i];
  }
  for (; x < bytes; x++) {
    int32_t sum = half;
    for (uint32_t t = 0; t < count; t++) sum += from[t * stride + x] * weights[t];
    to[x] = (uint8_t)(sum >> POINT > 255 ? 255 : sum >> POINT);
  }
}
WIDE static void down_wide(const uint8_t *from, size_t stride, const int32_t *weights, uint32_t count, uint8_t *to,
                           size_t bytes) {
  down_loop(from, stride, weights, count, to, bytes);
}
static void down_any(const uint8_t *from, size_t stride, const int32_t *weights, uint32_t count, uint8_t *to,
                     size_t bytes) {
  down_loop(from, stride, weights, count, to, bytes);
}

/* Rows [first, first + count) of `from` -> rows of `width` pixels, `stride` bytes apart. */
static void go_across(const dl_view *from, const axis *a, uint32_t first, uint32_t count, uint32_t width, uint8_t *line,
                      uint8_t *to, size_t stride) {
  const size_t line_bytes = (size_t)from->width * from->channels;
  const bool use_wide = wide();
  memset(line + line_bytes, 0, SLACK);
  for (uint32_t y = 0; y < count; y++) {
    memcpy(line, from->at + (first + y) * from->stride, line_bytes);
    if (use_wide) {
      across_wide(line, to + y * stride, a, width, from->channels);
    } else {
      across_any(line, to + y * stride, a, width, from->channels);
    }
  }
}

static void go_down(const uint8_t *from, size_t stride, const axis *a, uint32_t first, uint32_t height, uint8_t *to,
                    size_t row_bytes) {
  const bool use_wide = wide();
  for (uint32_t y = 0; y < height; y++) {
    const int32_t *weights = a->weights + (size_t)y * a->taps;
    const uint8_t *rows = from + (a->firsts[y] - first) * stride;
    if (use_wide) {
      down_wide(rows, stride, weights, a->counts[y], to + y * row_bytes, row_bytes);
    } else {
      down_any(rows, stride, weights, a->counts[y], to + y * row_bytes, row_bytes);
    }
  }
}

tr_status dl_resize(const dl_view *from, const dl_box *box, uint32_t height, uint32_t width, uint8_t *to,
                    dl_scratch *scratch, tr_error *error) {
  const bool across = box->left != 0 || box->right != from->width || width != from->width;
  const bool down = box->top != 0 || box->bottom != from->height || height != from->height;
  const size_t row_bytes = (size_t)width * from->channels, stride = row_bytes + SLACK;
  const uint32_t x_taps = taps_of(box->left, box->right, width), y_taps = taps_of(box->top, box->bottom, height);
  const size_t x_bytes = axis_bytes(x_taps, width), y_bytes = axis_bytes(y_taps, height);
  axis x_axis, y_axis;
  uint8_t *memory;
  TR_TRY(dl_scratch_room(scratch, DL_ROOM_AXES, x_bytes + y_bytes + (size_t)from->width * from->channels + SLACK,
                         &memory, error));
  fill_axis(&x_axis, from->width, box->left, box->right, width, memory);
  fill_axis(&y_axis, from->height, box->top, box->bottom, height, memory + x_bytes);
  const uint32_t first = down ? y_axis.firsts[0] : 0;
  const uint32_t end = down ? y_axis.firsts[height - 1] + y_axis.counts[height - 1] : from->height;
  const uint8_t *rows = from->at + first * from->stride;
  size_t rows_stride = from->stride;
  if (across) {
    uint8_t *between;
    TR_TRY(dl_scratch_room(scratch, DL_ROOM_ACROSS, (end - first) * stride, &between, error));
    go_across(from, &x_axis, first, end - first, width, memory + x_bytes + y_bytes, between, stride);
    rows = between;
    rows_stride = stride;
  }
  if (down) {
    go_down(rows, rows_stride, &y_axis, first, height, to, row_bytes);
  } else {
    for (uint32_t y = 0; y < height; y++) memcpy(to + y * row_bytes, rows + y * rows_stride, row_bytes);
  }
  return TR_OK;
}
