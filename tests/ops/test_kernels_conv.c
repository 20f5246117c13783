/* Convolutions against a naive one in double: each way a shape can take, in each class, forward and backward. */
#include "kernel_support.h"

typedef struct shape {
  int32_t rows, h, w, ic, oc, k, stride, pad;
  bool relu, pool, input_grad;
} shape;

static const shape shapes[] = {
    {2, 14, 14, 32, 64, 3, 1, 0, true, true, true},  /* the main example's second, of smaller images */
    {2, 28, 28, 1, 32, 3, 1, 0, true, false, false}, /* and its first */
    {9, 8, 8, 16, 16, 3, 1, 0, true, true, true},    /* one block of channels */
    {2, 9, 11, 16, 48, 3, 1, 0, true, true, true},   /* rows and columns that the pool drops */
    {2, 10, 7, 32, 16, 3, 1, 1, true, true, true},   /* padded */
    {1, 5, 5, 16, 80, 3, 1, 2, true, true, true},    /* padded beyond same */
    {2, 12, 12, 16, 32, 3, 1, 1, true, true, false}, /* sparse without dx */
    {2, 4, 4, 16, 16, 3, 1, 0, true, true, true},    /* one pooled pixel */
    {2, 9, 9, 16, 32, 3, 1, 1, true, false, true},   /* winograd without pool, odd size */
    {2, 9, 9, 32, 16, 3, 1, 0, false, false, true},  /* without ReLU */
    {2, 7, 7, 16, 16, 3, 1, 0, true, false, true},   /* winograd of small tiles */
    {2, 12, 10, 8, 24, 3, 1, 1, true, true, true},   /* eight lanes only */
    {2, 7, 9, 3, 16, 3, 2, 1, true, false, false},   /* few channels, strided */
    {2, 7, 9, 3, 16, 3, 2, 1, false, false, true},   /* the same with dx */
    {1, 8, 8, 1, 48, 5, 1, 2, false, false, false},  /* 25 taps */
    {2, 7, 6, 5, 7, 3, 1, 1, true, true, true},      /* nothing is a multiple of anything */
    {2, 9, 8, 3, 5, 2, 3, 0, false, false, true},    /* strides wider than the window */
    {1, 3, 3, 4, 6, 3, 1, 0, true, false, true},     /* one pixel */
    {5, 6, 6, 16, 16, 1, 1, 0, true, false, true},   /* 1 x 1 */
    {1, 1, 1, 1, 1, 1, 1, 0, false, false, true},
};
enum { SHAPE_COUNT = sizeof shapes / sizeof shapes[0] };

typedef struct problem {
  shape s;
  int32_t conv_h, conv_w, out_h, out_w;
  array x, w, b, dy, y, dx, dw, db; /* the last four: what a naive convolution gives */
} problem;

static size_t pixels(const problem *p) { return (size_t)p->s.rows * (size_t)p->out_h * (size_t)p->out_w; }

static size_t input_at(const shape *s, int32_t r, int32_t y, int32_t x) {
  return (((size_t)r * (size_t)s->h + (size_t)y) * (size_t)s->w + (size_t)x) * (size_t)s->ic;
}

/* One output value of the convolution, or, with g, its share of the gradients. */
static double tap_sum(problem *p, double *dw, double *dx, int32_t r, int32_t oy, int32_t ox, int32_t oc, double g) {
  const shape *s = &p->s;
  double sum = p->b.data[oc];
  for (int32_t k = 0; k < s->k * s->k; k++) {
    const int32_t iy = oy * s->stride - s->pad + k / s->k, ix = ox * s->stride - s->pad + k % s->k;
    if (iy < 0 || iy >= s->h || ix < 0 || ix >= s->w) continue;
    const size_t at = input_at(s, r, iy, ix), weight = (size_t)(oc * s->k * s->k + k) * (size_t)s->ic;
    for (int32_t c = 0; c < s->ic; c++) {
      sum += (double)p->x.data[at + (size_t)c] * p->w.data[weight + (size_t)c];
      if (dw) dw[weight + (size_t)c] += g * p->x.data[at + (size_t)c];
      if (dx) dx[at + (size_t)c] += g * p->w.data[weight + (size_t)c];
    }
  }
  return sum;
}

static void naive(problem *p) {
  const shape *s = &p->s;
  double *dw = calloc(p->w.n, sizeof *dw), *dx = calloc(p->x.n, sizeof *dx), *db = calloc(p->b.n, sizeof *db);
  size_t o = 0;
  for (int32_t r = 0; r < s->rows; r++) {
    for (int32_t py = 0; py < p->out_h; py++) {
      for (int32_t px = 0; px < p->out_w; px++) {
        for (int32_t oc = 0; oc < s->oc; oc++, o++) {
          int32_t y = py, x = px;
          double best = s->pool ? -1e30 : tap_sum(p, NULL, NULL, r, y, x, oc, 0);
          for (int k = 0; s->pool && k < 4; k++) {
            const double value = tap_sum(p, NULL, NULL, r, 2 * py + k / 2, 2 * px + k % 2, oc, 0);
            if (value <= best) continue;
            best = value;
            y = 2 * py + k / 2;
            x = 2 * px + k % 2;
          }
          p->y.data[o] = (float)(s->relu && best < 0 ? 0 : best);
          if (s->relu && best <= 0) continue;
          tap_sum(p, dw, dx, r, y, x, oc, p->dy.data[o]);
          db[oc] += p->dy.data[o];
        }
      }
    }
  }
  for (size_t i = 0; i < p->w.n; i++) p->dw.data[i] = (float)dw[i];
  for (size_t i = 0; i < p->x.n; i++) p->dx.data[i] = (float)dx[i];
  for (size_t i = 0; i < p->b.n; i++) p->db.data[i] = (float)db[i];
  free(dw);
  free(dx);
  free(db);
}

static problem problem_new(const shape *s, uint64_t seed) {
  problem p = {.s = *s};
  p.conv_h = (s->h + 2 * s->pad - s->k) / s->stride + 1;
  p.conv_w = (s->w + 2 * s->pad - s->k) / s->stride + 1;
  p.out_h = s->pool ? p.conv_h / 2 : p.conv_h;
  p.out_w = s->pool ? p.conv_w / 2 : p.conv_w;
  const size_t weights = (size_t)(s->oc * s->k * s->k * s->ic), oc = (size_t)s->oc;
  const float reach = 1 / sqrtf((float)(s->k * s->k * s->ic));
  p.x = array_random((size_t)s->rows * input_at(s, 1, 0, 0), seed % 3, seed, -0.5f, 1);
  p.w = array_random(weights, (seed + 1) % 3, seed + 1, -reach, reach);
  p.b = array_random(oc, 1, seed + 2, -0.1f, 0.1f);
  p.dy = array_random(pixels(&p) * oc, 0, seed + 3, -1, 1);
  p.y = array_new(pixels(&p) * oc, 0);
  p.dx = array_new(p.x.n, 0);
  p.dw = array_new(weights, 0);
  p.db = array_new(oc, 0);
  naive(&p);
  return p;
}

static void problem_free(problem *p) {
  array *const all[] = {&p->x, &p->w, &p->b, &p->dy, &p->y, &p->dx, &p->dw, &p->db};
  for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) array_free(all[i]);
}

static tr_conv *make(const tr_kernels *k, const shape *s) {
  const tr_conv_options options = {.struct_bytes = sizeof options,
                                   .rows = s->rows,
                                   .window = {.h = s->h,
                                              .w = s->w,
                                              .c = s->ic,
                                              .kh = s->k,
                                              .kw = s->k,
                                              .stride_h = s->stride,
                                              .stride_w = s->stride,
                                              .pad_h = s->pad,
                                              .pad_w = s->pad},
                                   .out_c = s->oc,
                                   .bias = true,
                                   .relu = s->relu,
                                   .pool = s->pool,
                                   .input_grad = s->input_grad,
                                   .backward = true};
  tr_conv *conv = NULL;
  tr_error error = {0};
  cr_assert_eq(tr_conv_create(k, &options, NULL, &conv, &error), TR_OK, "%s", error.message);
  return conv;
}

static void *block(size_t bytes) {
  void *p = aligned_alloc(64, (bytes + 127) / 64 * 64);
  cr_assert_not_null(p);
  memset(p, 0x7f, (bytes + 127) / 64 * 64);
  return p;
}

/* Everything one convolution computes, tiles taken in an order of one's own. */
static void run(const tr_conv *conv, const problem *p, bool backwards, bool add, array *y, array *dx, array *dw,
                array *db) {
  void *packed = block(tr_conv_packed_bytes(conv)), *saved = block(tr_conv_saved_bytes(conv));
  void *scratch = block(tr_conv_scratch_bytes(conv)), *parts = block(tr_conv_parts_bytes(conv));
  const int32_t tiles = tr_conv_tiles(conv);
  float *to = p->s.input_grad ? dx->data : NULL;
  tr_conv_pack(conv, p->w.data, packed);
  for (int32_t i = 0; i < tiles; i++)
    tr_conv_forward(conv, backwards ? tiles - 1 - i : i, p->x.data, packed, p->b.data, y->data, saved, scratch);
  for (int32_t i = 0; i < tiles; i++)
    tr_conv_backward(conv, backwards ? tiles - 1 - i : i, p->x.data, p->w.data, packed, y->data, saved, p->dy.data, to,
                     add, parts, scratch);
  tr_conv_backward_finish(conv, parts, dw->data, db->data, add);
  free(packed);
  free(saved);
  free(scratch);
  free(parts);
}

static void check(const tr_kernels *k, const problem *p) {
  tr_conv *conv = make(k, &p->s);
  array y[2], dx[2], dw[2], db[2];
  for (size_t i = 0; i < 2; i++) {
    y[i] = array_new(p->y.n, i);
    dx[i] = array_new(p->x.n, i);
    dw[i] = array_new(p->w.n, i);
    db[i] = array_new(p->b.n, i);
    run(conv, p, i == 1, false, &y[i], &dx[i], &dw[i], &db[i]);
  }
  const double depth = sqrt((double)(p->out_h * p->out_w * p->s.rows));
  const char *way = tr_conv_algorithm(conv);
  expect_near(y[0].data, p->y.data, p->y.n, 2e-5, 2e-5, way);
  if (p->s.input_grad) expect_near(dx[0].data, p->dx.data, p->x.n, 3e-5, 2e-5, way);
  expect_near(dw[0].data, p->dw.data, p->w.n, 1e-5 * depth, 2e-5, way);
  expect_near(db[0].data, p->db.data, p->b.n, 1e-5 * depth, 2e-5, way);
  expect_same_bits(y[0].data, y[1].data, p->y.n, way);
  if (p->s.input_grad) expect_same_bits(dx[0].data, dx[1].data, p->x.n, way);
  expect_same_bits(dw[0].data, dw[1].data, p->w.n, way);
  expect_same_bits(db[0].data, db[1].data, p->b.n, way);
  /* Once more on top: twice the gradient. */
  run(conv, p, false, true, &y[1], &dx[1], &dw[1], &db[1]);
  for (size_t i = 0; p->s.input_grad && i < p->x.n; i++) dx[1].data[i] /= 2;
  for (size_t i = 0; i < p->w.n; i++) dw[1].data[i] /= 2;
  if (p->s.input_grad) expect_near(dx[1].data, dx[0].data, p->x.n, 1e-5, 1e-5, "dx added");
  expect_near(dw[1].data, dw[0].data, p->w.n, 1e-5, 1e-5, "dw added");
  for (size_t i = 0; i < 2; i++) {
    array_free(&y[i]);
    array_free(&dx[i]);
    array_free(&dw[i]);
    array_free(&db[i]);
  }
  tr_conv_destroy(conv);
}

Test(conv, every_shape_in_every_class_is_close_to_the_naive_one) {
  for (size_t i = 0; i < SHAPE_COUNT; i++) {
    problem p = problem_new(&shapes[i], 10 * i);
    check(tr_kernels_get(TR_ISA_PLAIN), &p);
    EACH_ISA(k) check(k, &p);
    problem_free(&p);
  }
}

Test(conv, the_main_example_takes_the_fast_ways) {
  EACH_ISA(k) {
    tr_conv *conv = make(k, &shapes[0]), *first = make(k, &shapes[1]);
    cr_assert_str_eq(tr_conv_algorithm(conv), "winograd+sparse");
    cr_assert_str_eq(tr_conv_algorithm(first), "small");
    tr_conv_destroy(conv);
    tr_conv_destroy(first);
  }
}

/* An image's output is its own: neither its place in the micro-batch nor its neighbours change a bit of it. */
Test(conv, an_image_has_the_same_bits_in_any_row) {
  EACH_ISA(k) {
    shape one = shapes[0], many = shapes[0];
    one.rows = 1;
    many.rows = 5;
    problem p = problem_new(&many, 3);
    tr_conv *single = make(k, &one), *batch = make(k, &many);
    array y = array_new(p.y.n, 0), y1 = array_new(p.y.n / 5, 1), dx = array_new(p.x.n, 0);
    array dw = array_new(p.w.n, 0), db = array_new(p.b.n, 0);
    run(batch, &p, false, false, &y, &dx, &dw, &db);
    problem last = p;
    last.x.data += 4 * p.x.n / 5;
    last.dy.data += 4 * p.dy.n / 5;
    run(single, &last, false, false, &y1, &dx, &dw, &db);
    expect_same_bits(y.data + 4 * y1.n, y1.data, y1.n, "the fifth image");
    array_free(&y);
    array_free(&y1);
    array_free(&dx);
    array_free(&dw);
    array_free(&db);
    tr_conv_destroy(single);
    tr_conv_destroy(batch);
    problem_free(&p);
  }
}

Test(conv, a_window_that_does_not_fit_is_refused) {
  const shape wrong[] = {{1, 2, 2, 1, 1, 3, 1, 0, false, false, false}, {1, 3, 3, 1, 1, 3, 1, 0, true, true, false},
                         {1, 5, 5, 1, 1, 3, 0, 0, false, false, false}, {1, 5, 5, 1, 1, 3, 1, 3, false, false, false},
                         {0, 5, 5, 1, 1, 3, 1, 0, false, false, false}, {1, 5, 5, 1, 1, 3, 1, 0, false, true, false}};
  for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
    const shape *s = &wrong[i];
    const tr_conv_options options = {.struct_bytes = sizeof options,
                                     .rows = s->rows,
                                     .window = {.h = s->h,
                                                .w = s->w,
                                                .c = s->ic,
                                                .kh = s->k,
                                                .kw = s->k,
                                                .stride_h = s->stride,
                                                .stride_w = s->stride,
                                                .pad_h = s->pad,
                                                .pad_w = s->pad},
                                     .out_c = s->oc,
                                     .relu = s->relu,
                                     .pool = s->pool};
    tr_conv *conv = NULL;
    cr_assert_eq(tr_conv_create(tr_kernels_get(tr_isa_detect()), &options, NULL, &conv, NULL), TR_ERR_INVALID);
    cr_assert_null(conv);
  }
}

Test(conv, a_failed_allocation_is_an_error) {
  tr_counting_allocator counting;
  tr_counting_allocator_init(&counting);
  counting.fail_at = 1;
  const tr_conv_options options = {.struct_bytes = sizeof options,
                                   .rows = 1,
                                   .window = {.h = 5, .w = 5, .c = 1, .kh = 3, .kw = 3, .stride_h = 1, .stride_w = 1},
                                   .out_c = 1};
  tr_conv *conv = NULL;
  tr_error error = {0};
  cr_assert_eq(tr_conv_create(tr_kernels_get(TR_ISA_PLAIN), &options, &counting.allocator, &conv, &error),
               TR_ERR_NO_MEMORY);
  cr_assert_eq(counting.live_blocks, 0);
  tr_conv_destroy(NULL);
}
