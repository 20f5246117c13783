/* Linear layers: three matrix products and their split into tiles.
 *
 * Forward is a.b^T with both sides dense along the sum, so nothing is packed. Tiles cut the longer side of an output;
 * as an element's sum does not depend on the cut, tiles are only a matter of sharing work. */
#include "gemm.h"
#include "isa.h"

enum {
  FORWARD_STEP = 24,    /* outputs: a whole number of micro-kernel widths in every class */
  BACKWARD_STEP = 1024, /* columns */
  TILES_MOST = 64
};

struct tr_linear_kernel {
  tr_allocator allocator;
  const gemm_kernels *gemm;
  size_t rows, in, out;
  bool bias, relu;
  size_t forward_step, data_step, weight_step;
  bool weights_by_in; /* tiles of dw are ranges of input columns, else of outputs */
};

/* A tile's width: a multiple of `step` that gives at most TILES_MOST tiles. */
static size_t tile_width(size_t length, size_t step) {
  const size_t least = (length + TILES_MOST - 1) / TILES_MOST;
  return (least + step - 1) / step * step;
}

static int32_t tile_count(size_t length, size_t width) { return (int32_t)((length + width - 1) / width); }

static size_t tile_first(size_t width, int32_t tile) { return (size_t)tile * width; }

static size_t tile_length(size_t length, size_t width, int32_t tile) {
  const size_t left = length - tile_first(width, tile);
  return left < width ? left : width;
}

tr_status tr_linear_create(const tr_kernels *kernels, const tr_linear_options *options, const tr_allocator *allocator,
                           tr_linear_kernel **linear, tr_error *error) {
  if (options->struct_bytes != sizeof *options || options->rows < 1 || options->in < 1 || options->out < 1)
    return tr_fail(error, TR_ERR_INVALID, "linear: %d rows of %d to %d", options->rows, options->in, options->out);
  if (!allocator) allocator = tr_allocator_system();
  tr_linear_kernel *l = tr_calloc(allocator, 1, sizeof *l);
  if (!l) return tr_fail_memory(error, "a linear layer", sizeof *l);
  l->allocator = *allocator;
  l->gemm = gemm_kernels_get(kernels->isa);
  l->rows = (size_t)options->rows;
  l->in = (size_t)options->in;
  l->out = (size_t)options->out;
  l->bias = options->bias;
  l->relu = options->relu;
  l->forward_step = tile_width(l->out, FORWARD_STEP);
  l->data_step = tile_width(l->in, BACKWARD_STEP);
  l->weights_by_in = l->in >= l->out;
  l->weight_step = tile_width(l->weights_by_in ? l->in : l->out, BACKWARD_STEP);
  *linear = l;
  return TR_OK;
}

void tr_linear_destroy(tr_linear_kernel *linear) {
  if (!linear) return;
  const tr_allocator allocator = linear->allocator;
  tr_free(&allocator, linear);
}

size_t tr_linear_scratch_bytes(const tr_linear_kernel *l) { return l->gemm->scratch_bytes; }
int32_t tr_linear_forward_tiles(const tr_linear_kernel *l) { return tile_count(l->out, l->forward_step); }
int32_t tr_linear_data_tiles(const tr_linear_kernel *l) { return tile_count(l->in, l->data_step); }
int32_t tr_linear_weight_tiles(const tr_linear_kernel *l) {
  return tile_count(l->weights_by_in ? l->in : l->out, l->weight_step);
}

void tr_linear_forward(const tr_linear_kernel *l, int32_t tile, const float *x, const float *w, const float *bias,
                       float *y, void *scratch) {
  (void)scratch;
  const size_t first = tile_first(l->forward_step, tile), count = tile_length(l->out, l->forward_step, tile);
  l->gemm->dot(&(gemm_args){.m = l->rows,
                            .n = count,
                            .k = l->in,
                            .a = x,
                            .a_row = l->in,
                            .a_col = 1,
                            .b = w + first * l->in,
                            .b_row = 1,
                            .b_col = l->in,
                            .c = y + first,
                            .c_row = l->out});
  if (!l->bias && !l->relu) return;
  for (size_t r = 0; r < l->rows; r++) {
    float *to = y + r * l->out + first;
    for (size_t j = 0; j < count; j++) {
      const float value = l->bias ? to[j] + bias[first + j] : to[j];
      to[j] = l->relu && value < 0 ? 0 : value;
    }
  }
}

void tr_linear_backward_data(const tr_linear_kernel *l, int32_t tile, const float *dy, const float *w, float *dx,
                             bool add, void *scratch) {
  const size_t first = tile_first(l->data_step, tile);
  l->gemm->multiply(&(gemm_args){.m = l->rows,
                                 .n = tile_length(l->in, l->data_step, tile),
                                 .k = l->out,
                                 .a = dy,
                                 .a_row = l->out,
                                 .a_col = 1,
                                 .b = w + first,
                                 .b_row = l->in,
                                 .b_col = 1,
                                 .c = dx + first,
                                 .c_row = l->in,
                                 .add = add},
                    scratch);
}

/* Column sums of dy over a range of outputs; the tile that starts at column 0 does all of them when tiles cut `in`. */
static void bias_gradient(const tr_linear_kernel *l, size_t first, size_t count, const float *dy, float *db, bool add) {
  for (size_t j = first; j < first + count; j++) {
    float sum = 0;
    for (size_t r = 0; r < l->rows; r++) sum += dy[r * l->out + j];
    db[j] = add ? db[j] + sum : sum;
  }
}

void tr_linear_backward_weights(const tr_linear_kernel *l, int32_t tile, const float *dy, const float *x, float *dw,
                                float *db, bool add, void *scratch) {
  const size_t whole = l->weights_by_in ? l->in : l->out;
  const size_t first = tile_first(l->weight_step, tile), count = tile_length(whole, l->weight_step, tile);
  const size_t out0 = l->weights_by_in ? 0 : first, in0 = l->weights_by_in ? first : 0;
  l->gemm->multiply(&(gemm_args){.m = l->weights_by_in ? l->out : count,
                                 .n = l->weights_by_in ? count : l->in,
                                 .k = l->rows,
                                 .a = dy + out0,
                                 .a_row = 1,
                                 .a_col = l->out,
                                 .b = x + in0,
                                 .b_row = l->in,
                                 .b_col = 1,
                                 .c = dw + out0 * l->in + in0,
                                 .c_row = l->in,
                                 .add = add},
                    scratch);
  if (!db) return;
  if (!l->weights_by_in) bias_gradient(l, first, count, dy, db, add);
  if (l->weights_by_in && tile == 0) bias_gradient(l, 0, l->out, dy, db, add);
}
