/* The convolution object: which kernels serve a shape, how rows are cut into tiles, what memory they need.
 *
 * Memory of the weight gradient: `parts` holds for each tile [dw][db], padded to 16 floats each. */
#include "conv_columns.h"
#include "conv_shape.h"
#include "conv_turned.h"
#include "isa.h"

#include <string.h>

enum { TILES_MOST = 8, SMALL_TAPS_MOST = 32 };

typedef enum conv_way { WAY_COLUMNS, WAY_WINOGRAD, WAY_SPARSE, WAY_SMALL } conv_way;

struct tr_conv {
  tr_allocator allocator;
  const tr_kernels *kernels;
  const conv_kernels *special; /* NULL: only columns */
  const gemm_kernels *gemm;
  conv_shape shape;
  conv_way forward, backward;
  bool trains, input_grad;
  bool turns; /* the columns of backward leave dx to a convolution with turned weights */
  conv_shape turned;
  int32_t tile_rows, tiles;
};

bool tr_window_shape(tr_window *w) {
  if (w->h < 1 || w->w < 1 || w->c < 1 || w->kh < 1 || w->kw < 1 || w->stride_h < 1 || w->stride_w < 1) return false;
  if (w->pad_h < 0 || w->pad_w < 0 || w->pad_h >= w->kh || w->pad_w >= w->kw) return false;
  if (w->h > 32768 || w->w > 32768 || w->kh > w->h + 2 * w->pad_h || w->kw > w->w + 2 * w->pad_w) return false;
  w->out_h = (w->h + 2 * w->pad_h - w->kh) / w->stride_h + 1;
  w->out_w = (w->w + 2 * w->pad_w - w->kw) / w->stride_w + 1;
  return true;
}

static size_t weight_floats(const conv_shape *s) { return (size_t)s->oc * s->kh * s->kw * s->ic; }
static size_t round_up(size_t n, size_t to) { return (n + to - 1) / to * to; }

/* A few tiles for the threads of a rank; fewer where each would carry a large weight gradient. */
static int32_t tiles_most(const conv_shape *s) {
  const size_t bytes = weight_floats(s) * sizeof(float);
  return bytes > (4u << 20) ? 2 : bytes > (256u << 10) ? 4 : TILES_MOST;
}

static void choose(tr_conv *conv) {
  const conv_shape *s = &conv->shape;
  conv->forward = conv->backward = WAY_COLUMNS;
  if (!conv->special) return;
  const int32_t lanes = conv->special->lanes;
  const bool three = s->kh == 3 && s->kw == 3 && s->stride_h == 1 && s->stride_w == 1;
  const bool whole = s->ic % lanes == 0 && s->oc % lanes == 0;
  const bool small = s->kh * s->kw * s->ic <= SMALL_TAPS_MOST && s->oc % lanes == 0 && !s->pool;
  if (three && whole) conv->forward = WAY_WINOGRAD;
  if (three && whole && s->pool) conv->backward = WAY_SPARSE;
  if (small) conv->forward = WAY_SMALL;
  if (small && !conv->input_grad) conv->backward = WAY_SMALL;
  conv->turns = conv->input_grad && conv->backward == WAY_COLUMNS && conv_turned_shape(conv->special, s, &conv->turned);
}

static bool shape_init(conv_shape *s, const tr_conv_options *o) {
  tr_window w = o->window;
  if (o->rows < 1 || o->out_c < 1 || (o->pool && !o->relu) || !tr_window_shape(&w)) return false;
  *s = (conv_shape){.rows = o->rows,
                    .h = w.h,
                    .w = w.w,
                    .ic = w.c,
                    .oc = o->out_c,
                    .kh = w.kh,
                    .kw = w.kw,
                    .stride_h = w.stride_h,
                    .stride_w = w.stride_w,
                    .pad_h = w.pad_h,
                    .pad_w = w.pad_w,
                    .conv_h = w.out_h,
                    .conv_w = w.out_w,
                    .out_h = o->pool ? w.out_h / 2 : w.out_h,
                    .out_w = o->pool ? w.out_w / 2 : w.out_w,
                    .bias = o->bias,
                    .relu = o->relu,
                    .pool = o->pool};
  return s->out_h > 0 && s->out_w > 0;
}

tr_status tr_conv_create(const tr_kernels *kernels, const tr_conv_options *options, const tr_allocator *allocator,
                         tr_conv **conv, tr_error *error) {
  conv_shape shape;
  if (options->struct_bytes != sizeof *options || !shape_init(&shape, options))
    return tr_fail(error, TR_ERR_INVALID, "conv2d: a %dx%d window does not fit an image of %dx%d", options->window.kh,
                   options->window.kw, options->window.h, options->window.w);
  if (!allocator) allocator = tr_allocator_system();
  tr_conv *c = tr_calloc(allocator, 1, sizeof *c);
  if (!c) return tr_fail_memory(error, "a convolution", sizeof *c);
  c->allocator = *allocator;
  c->kernels = kernels;
  c->special = conv_kernels_get(kernels->isa);
  c->gemm = gemm_kernels_get(kernels->isa);
  c->shape = shape;
  c->trains = options->backward;
  c->input_grad = options->backward && options->input_grad;
  choose(c);
  const int32_t most = tiles_most(&shape);
  c->tile_rows = (shape.rows + most - 1) / most;
  c->tiles = (shape.rows + c->tile_rows - 1) / c->tile_rows;
  *conv = c;
  return TR_OK;
}

void tr_conv_destroy(tr_conv *conv) {
  if (!conv) return;
  const tr_allocator allocator = conv->allocator;
  tr_free(&allocator, conv);
}

const char *tr_conv_algorithm(const tr_conv *c) {
  static const char *const names[4][4] = {
      [WAY_COLUMNS] = {[WAY_COLUMNS] = "columns", [WAY_SMALL] = "columns+small"},
      [WAY_WINOGRAD] =
          {[WAY_COLUMNS] = "winograd+columns", [WAY_SPARSE] = "winograd+sparse", [WAY_SMALL] = "winograd+small"},
      [WAY_SMALL] = {[WAY_COLUMNS] = "small+columns", [WAY_SMALL] = "small", [WAY_SPARSE] = "small+sparse"}};
  const char *name = names[c->forward][c->backward];
  return name ? name : "columns";
}

void tr_conv_output(const tr_conv *c, int32_t *out_h, int32_t *out_w) {
  *out_h = c->shape.out_h;
  *out_w = c->shape.out_w;
}

int32_t tr_conv_tiles(const tr_conv *c) { return c->tiles; }

/* The weights of forward; those of a turned backward stand behind them. */
static size_t forward_packed_bytes(const tr_conv *c) {
  if (c->forward == WAY_WINOGRAD) return c->special->winograd_packed_bytes(&c->shape);
  if (c->forward == WAY_SMALL) return c->special->small_packed_bytes(&c->shape);
  return weight_floats(&c->shape) * sizeof(float);
}

size_t tr_conv_packed_bytes(const tr_conv *c) {
  const size_t forward = round_up(forward_packed_bytes(c), 64);
  return c->turns ? forward + conv_turned_packed_bytes(c->special, &c->turned) : forward;
}

size_t tr_conv_saved_bytes(const tr_conv *c) {
  const conv_shape *s = &c->shape;
  return s->pool ? (size_t)s->rows * s->out_h * s->out_w * s->oc : 0;
}

static size_t way_scratch(const tr_conv *c, conv_way way) {
  switch (way) {
    case WAY_WINOGRAD: return c->special->winograd_scratch_bytes(&c->shape);
    case WAY_SPARSE: return c->special->sparse_scratch_bytes(&c->shape);
    case WAY_SMALL: return c->special->small_scratch_bytes(&c->shape);
    case WAY_COLUMNS: break;
  }
  return conv_columns_scratch_bytes(&c->shape, c->gemm);
}

size_t tr_conv_scratch_bytes(const tr_conv *c) {
  const size_t forward = way_scratch(c, c->forward), backward = c->trains ? way_scratch(c, c->backward) : 0;
  const size_t turned = c->turns ? conv_turned_scratch_bytes(c->special, &c->turned) : 0;
  const size_t most = forward > backward ? forward : backward;
  return most > turned ? most : turned;
}

static size_t part_floats(const conv_shape *s) { return round_up(weight_floats(s), 16) + round_up((size_t)s->oc, 16); }

size_t tr_conv_parts_bytes(const tr_conv *c) {
  return c->trains ? (size_t)c->tiles * part_floats(&c->shape) * sizeof(float) : 0;
}

void tr_conv_pack(const tr_conv *c, const float *w, void *packed) {
  if (c->forward == WAY_WINOGRAD) c->special->winograd_pack(&c->shape, w, packed);
  if (c->forward == WAY_SMALL) c->special->small_pack(&c->shape, w, packed);
  if (c->forward == WAY_COLUMNS) memcpy(packed, w, weight_floats(&c->shape) * sizeof(float));
  if (c->turns) conv_turned_pack(c->special, &c->turned, w, (char *)packed + round_up(forward_packed_bytes(c), 64));
}

static int32_t tile_end(const tr_conv *c, int32_t tile) {
  const int32_t end = (tile + 1) * c->tile_rows;
  return end < c->shape.rows ? end : c->shape.rows;
}

void tr_conv_forward(const tr_conv *c, int32_t tile, const float *x, const void *packed, const float *bias, float *y,
                     void *saved, void *scratch) {
  const int32_t r0 = tile * c->tile_rows, r1 = tile_end(c, tile);
  if (!c->shape.bias) bias = NULL;
  switch (c->forward) {
    case WAY_WINOGRAD: c->special->winograd_forward(&c->shape, r0, r1, x, packed, bias, y, saved, scratch); return;
    case WAY_SMALL: c->special->small_forward(&c->shape, r0, r1, x, packed, bias, y, scratch); return;
    case WAY_SPARSE:
    case WAY_COLUMNS: break;
  }
  conv_columns_forward(&c->shape, c->gemm, r0, r1, x, packed, bias, y, saved, scratch);
}

void tr_conv_backward(const tr_conv *c, int32_t tile, const float *x, const float *w, const void *packed,
                      const float *y, const void *saved, const float *dy, float *dx, bool add_dx, void *parts,
                      void *scratch) {
  const int32_t r0 = tile * c->tile_rows, r1 = tile_end(c, tile);
  float *at = (float *)parts + (size_t)tile * part_floats(&c->shape);
  const conv_part part = {.dw = at, .db = at + round_up(weight_floats(&c->shape), 16)};
  if (!c->input_grad) dx = NULL;
  switch (c->backward) {
    case WAY_SPARSE:
      c->special->sparse_backward(&c->shape, r0, r1, x, w, y, saved, dy, dx, add_dx, part, scratch);
      return;
    case WAY_SMALL: c->special->small_backward(&c->shape, r0, r1, x, y, dy, part, scratch); return;
    case WAY_WINOGRAD:
    case WAY_COLUMNS: break;
  }
  float *columns_dx = c->turns ? NULL : dx;
  conv_columns_backward(&c->shape, c->gemm, r0, r1, x, w, y, saved, dy, columns_dx, add_dx, part, scratch);
  if (c->turns && dx)
    conv_turned_backward(c->special, &c->turned, c->shape.relu, r0, r1,
                         (const char *)packed + round_up(forward_packed_bytes(c), 64), y, dy, dx, add_dx, scratch);
}

/* to (+)= the sum over tiles of n floats at `from`, one after the other. */
static void sum_parts(const tr_conv *c, const float *from, size_t n, float *to, bool add) {
  enum { CHUNK = 512 };
  for (size_t i = 0; i < n; i += CHUNK) {
    const size_t count = n - i < CHUNK ? n - i : CHUNK;
    float sum[CHUNK];
    memcpy(sum, from + i, count * sizeof *sum);
    for (int32_t t = 1; t < c->tiles; t++)
      c->kernels->add(sum, from + (size_t)t * part_floats(&c->shape) + i, sum, count);
    if (add)
      c->kernels->add(to + i, sum, to + i, count);
    else
      memcpy(to + i, sum, count * sizeof *sum);
  }
}

void tr_conv_backward_finish(const tr_conv *c, const void *parts, float *dw, float *db, bool add) {
  const float *from = parts;
  sum_parts(c, from, weight_floats(&c->shape), dw, add);
  if (db) sum_parts(c, from + round_up(weight_floats(&c->shape), 16), (size_t)c->shape.oc, db, add);
}
