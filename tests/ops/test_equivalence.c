/* What must not change results: fusion and optimized kernels (within a tolerance), the number of compute threads, poison
 * and the plan of memory (not at all). */
#include "ops_fixture.h"

/* The one table of tolerances: the largest difference of two ways to compute a gradient or a loss, relative to its
 * largest entry. */
static const struct {
  const char *dtype;
  double gradient, loss;
} tolerances[] = {{"f32", 2e-4, 1e-5}};

typedef enum way { REFERENCE, UNFUSED, FUSED, POISONED, UNFUSED_POISONED, REFERENCE_FUSED } way;

static tr_graph_compile_options options_of(way w) {
  tr_graph_compile_options options = {0};
  options.reference = w == REFERENCE || w == REFERENCE_FUSED;
  options.no_fusion = w == REFERENCE || w == UNFUSED || w == UNFUSED_POISONED;
  options.poison = w == POISONED || w == UNFUSED_POISONED;
  return options;
}

static void compare(way a, way b, bool exact) {
  for (int m = 0; m < FX_MODELS; m++) {
    for (int s = 0; s < fx_size_count(); s++) {
      fx first = {.rows = fx_rows[s], .size = fx_sizes[s], .compile = options_of(a)};
      fx second = {.rows = fx_rows[s], .size = fx_sizes[s], .compile = options_of(b)};
      fx_open(&first, fx_models[m].build);
      fx_open(&second, fx_models[m].build);
      const double x = fx_step(&first), y = fx_step(&second);
      const char *where = "", *name = fx_models[m].name;
      if (exact) {
        cr_assert_eq(x, y, "%s, size %d: losses %.17g and %.17g", name, first.size, x, y);
        cr_assert(fx_same_gradient(&first, &second), "%s, size %d", name, first.size);
      } else {
        const double distance = fx_gradient_distance(&first, &second, &where);
        cr_assert_lt(fabs(x - y), tolerances[0].loss * (1.0 + fabs(x)), "%s, size %d: %g, %g", name, first.size, x, y);
        cr_assert_lt(distance, tolerances[0].gradient, "%s, size %d: %s differs by %g", name, first.size, where,
                     distance);
      }
      fx_close(&first);
      fx_close(&second);
    }
  }
}

Test(equivalence, fusion_changes_no_number_that_matters, .timeout = 60) { compare(UNFUSED, FUSED, false); }
Test(equivalence, optimized_kernels_agree_with_their_plain_twins, .timeout = 60) { compare(REFERENCE, FUSED, false); }
Test(equivalence, plain_kernels_agree_fused_and_unfused, .timeout = 60) { compare(REFERENCE, REFERENCE_FUSED, false); }
Test(equivalence, nothing_dead_is_read, .timeout = 60) {
  compare(FUSED, POISONED, true);
  compare(UNFUSED, UNFUSED_POISONED, true);
}

Test(equivalence, the_number_of_threads_changes_no_bit, .timeout = 60) {
  for (int m = 0; m < FX_MODELS; m++) {
    for (int s = 0; s < fx_size_count(); s += 2) {
      fx alone = {.rows = fx_rows[s], .size = fx_sizes[s]};
      fx_open(&alone, fx_models[m].build);
      const double loss = fx_step(&alone);
      for (uint32_t threads = 2; threads <= 4; threads++) {
        tr_pool *pool = NULL;
        cr_assert_eq(tr_pool_create(NULL, threads, &pool, NULL), TR_OK);
        fx many = {.rows = fx_rows[s], .size = fx_sizes[s], .compile = {.pool = pool}};
        fx_open(&many, fx_models[m].build);
        for (int repeat = 0; repeat < 2; repeat++) {
          cr_assert_eq(fx_step(&many), loss, "%s, %u threads", fx_models[m].name, threads);
          cr_assert(fx_same_gradient(&alone, &many), "%s, %u threads", fx_models[m].name, threads);
        }
        fx_close(&many);
        tr_pool_destroy(pool);
      }
      fx_close(&alone);
    }
  }
}

/* Larger than one piece of work, so that threads do share each op. */
static void large(fx *f, tr_graph *g, int size) {
  tr_tensor x = tr_relu(g, fx_conv(g, "conv1", fx_image(g, 18, 18, 3), size, 3, 1, 1));
  x = tr_dropout(g, tr_batch_norm(g, "norm", x, 1e-3f), 0.2f);
  x = tr_max_pool2d(g, tr_relu(g, fx_conv(g, "conv2", x, size + 1, 3, 1, 0)), NULL);
  x = tr_layer_norm(g, "flat", tr_gelu(g, tr_linear(g, "fc1", tr_flatten(g, x), 100, true)), 1e-3f);
  fx_end_with_xent(f, g, tr_linear(g, "fc2", x, 10, true), 10, TR_U8);
}

Test(equivalence, a_second_step_and_another_pool_give_the_same_bits_on_a_larger_model, .timeout = 60) {
  fx alone = {.rows = 12, .size = 17};
  fx_open(&alone, large);
  const double loss = fx_step(&alone);
  for (uint32_t threads = 1; threads <= 3; threads++) {
    tr_pool *pool = NULL;
    cr_assert_eq(tr_pool_create(NULL, threads, &pool, NULL), TR_OK);
    fx many = {.rows = 12, .size = 17, .compile = {.pool = pool, .poison = threads == 2}};
    fx_open(&many, large);
    for (int repeat = 0; repeat < 2; repeat++) {
      cr_assert_eq(fx_step(&many), loss);
      cr_assert(fx_same_gradient(&alone, &many));
    }
    fx_close(&many);
    tr_pool_destroy(pool);
  }
  fx_close(&alone);
}
