/* Executing: rows that are missing, weights, where gradients go and when they are final, batch-norm statistics, dropout
 * by global row, and steps that allocate nothing. */
#include "ops_fixture.h"

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define COUNTS_MALLOC 0
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define COUNTS_MALLOC 0
#endif
#endif
#ifndef COUNTS_MALLOC
#define COUNTS_MALLOC 1
#endif

#if COUNTS_MALLOC
/* Every allocation of this process goes by here, also those of libraries. */
static unsigned long long allocation_count;
void *__libc_malloc(size_t bytes);
void *__libc_calloc(size_t count, size_t bytes);
void *__libc_realloc(void *p, size_t bytes);
void *malloc(size_t bytes) {
  __atomic_add_fetch(&allocation_count, 1, __ATOMIC_RELAXED);
  return __libc_malloc(bytes);
}
void *calloc(size_t count, size_t bytes) {
  __atomic_add_fetch(&allocation_count, 1, __ATOMIC_RELAXED);
  return __libc_calloc(count, bytes);
}
void *realloc(void *p, size_t bytes) {
  __atomic_add_fetch(&allocation_count, 1, __ATOMIC_RELAXED);
  return __libc_realloc(p, bytes);
}
#endif

Test(execute, allocates_nothing_in_a_step) {
#if !COUNTS_MALLOC
  cr_skip("a sanitizer owns malloc");
#else
  tr_counting_allocator counting;
  tr_counting_allocator_init(&counting);
  for (int m = 0; m < FX_MODELS; m++) {
    fx f = {.allocator = &counting.allocator, .rows = 5, .size = 17};
    fx_open(&f, fx_models[m].build);
    fx_step(&f);
    const uint64_t before = counting.allocations;
    const unsigned long long all_before = __atomic_load_n(&allocation_count, __ATOMIC_RELAXED);
    tr_status status = TR_OK;
    for (int i = 0; i < 3 && status == TR_OK; i++) {
      tr_params_touch(f.params);
      status = tr_graph_forward(f.graph, &f.args, f.outputs, NULL);
      if (status == TR_OK) status = tr_graph_backward(f.graph, &f.args, f.gradient, NULL, NULL, NULL);
    }
    const unsigned long long all_after = __atomic_load_n(&allocation_count, __ATOMIC_RELAXED);
    cr_assert_eq(status, TR_OK);
    cr_expect_eq(counting.allocations, before, "%s", fx_models[m].name);
    cr_expect_eq(all_after, all_before, "%s", fx_models[m].name);
    fx_close(&f);
  }
  cr_expect_eq(counting.live_blocks, 0);
#endif
}

/* Each allocation of building and compiling fails once; all that was made goes back. */
Test(execute, gives_all_memory_back_when_an_allocation_fails, .timeout = 60) {
  const fx_build builds[] = {fx_cnn, fx_batch_norm, fx_embedding};
  for (int b = 0; b < 3; b++) {
    for (uint64_t fail_at = 1;; fail_at++) {
      tr_counting_allocator counting;
      tr_counting_allocator_init(&counting);
      counting.fail_at = fail_at;
      fx f = {.allocator = &counting.allocator, .rows = 3, .size = 2, .compile = {.profile = true}};
      tr_error error = {0};
      const tr_status status = fx_try_open(&f, builds[b], &error);
      fx_close(&f);
      cr_assert_eq(counting.live_blocks, 0, "allocation %d", (int)fail_at);
      if (status == TR_OK) break;
      cr_assert_eq(status, TR_ERR_NO_MEMORY, "allocation %d: %s", (int)fail_at, error.message);
      cr_assert_lt(fail_at, 2000);
    }
  }
}

/* A graph of 7 rows with 3 of them there gives what a graph of 3 rows gives. */
Test(execute, leaves_missing_rows_out, .timeout = 60) {
  for (int m = 0; m < FX_MODELS; m++) {
    fx full = {.rows = 3, .size = 3}, part = {.rows = 7, .size = 3};
    fx_open(&full, fx_models[m].build);
    fx_open(&part, fx_models[m].build);
    for (int32_t i = 0; i < tr_graph_input_count(part.graph); i++) {
      const tr_tensor_info info = tr_tensor_describe(part.graph, tr_graph_input_tensor(part.graph, i));
      size_t row = tr_dtype_bytes(info.dtype);
      for (uint32_t d = 1; d < info.ndim; d++) row *= (size_t)info.shape[d];
      memcpy(part.inputs[i], full.inputs[i], 3 * row);
      memset((char *)part.inputs[i] + 3 * row, 0, 4 * row);
    }
    part.args.row_count = 3;
    const double a = fx_step(&full), b = fx_step(&part);
    const char *where = "";
    cr_expect_lt(fabs(a - b), 1e-5 * (1 + fabs(a)), "%s: %g and %g", fx_models[m].name, a, b);
    cr_expect_lt(fx_gradient_distance(&full, &part, &where), 2e-4, "%s: %s", fx_models[m].name, where);
    fx_close(&full);
    fx_close(&part);
  }
}

/* Rows of weight 0 in the middle are as good as not there. */
Test(execute, leaves_rows_of_weight_zero_out, .timeout = 60) {
  for (int m = 0; m < FX_MODELS; m++) {
    if (fx_models[m].build == fx_dropout) continue; /* masks belong to the place in the batch */
    fx packed = {.rows = 5, .size = 3}, sparse = {.rows = 5, .size = 3};
    fx_open(&packed, fx_models[m].build);
    fx_open(&sparse, fx_models[m].build);
    const int kept[] = {0, 2, 4};
    for (int32_t i = 0; i < tr_graph_input_count(packed.graph); i++) {
      const tr_tensor_info info = tr_tensor_describe(packed.graph, tr_graph_input_tensor(packed.graph, i));
      size_t row = tr_dtype_bytes(info.dtype);
      for (uint32_t d = 1; d < info.ndim; d++) row *= (size_t)info.shape[d];
      for (int k = 0; k < 3; k++)
        memcpy((char *)packed.inputs[i] + (size_t)k * row, (char *)sparse.inputs[i] + (size_t)kept[k] * row, row);
    }
    const float weights[] = {1, 0, 1, 0, 1};
    sparse.args.row_weight = weights;
    packed.args.row_count = 3;
    const double a = fx_step(&packed), b = fx_step(&sparse);
    const char *where = "";
    cr_expect_lt(fabs(a - b), 1e-5 * (1 + fabs(a)), "%s: %g and %g", fx_models[m].name, a, b);
    cr_expect_lt(fx_gradient_distance(&packed, &sparse, &where), 2e-4, "%s: %s", fx_models[m].name, where);
    fx_close(&packed);
    fx_close(&sparse);
  }
}

Test(execute, weighs_rows_and_scales_gradients) {
  fx plain = {.rows = 1, .size = 5}, weighed = {.rows = 1, .size = 5};
  fx_open(&plain, fx_linear);
  fx_open(&weighed, fx_linear);
  const float weight = 0.25f;
  weighed.args.row_weight = &weight;
  weighed.args.loss_scale = 8.0f;
  const double a = fx_step(&plain), b = fx_step(&weighed);
  cr_expect_lt(fabs(0.25 * a - b), 1e-7);
  const tr_param_info info = tr_params_info(plain.params, 0);
  for (uint64_t i = 0; i < info.count; i++)
    cr_expect_lt(fabs(2.0 * (double)plain.gradient[info.offset + i] - (double)weighed.gradient[info.offset + i]), 1e-6);
  fx_close(&plain);
  fx_close(&weighed);
}

/* A rank without a row still hands in a gradient: zeros, statistics included. */
Test(execute, gives_zeros_for_no_rows, .timeout = 60) {
  for (int m = 0; m < FX_MODELS; m++) {
    fx f = {.rows = 4, .size = 3};
    fx_open(&f, fx_models[m].build);
    f.args.row_count = 0;
    cr_expect_eq(fx_step(&f), 0.0);
    for (tr_param p = 0; p < tr_params_size(f.params); p++) {
      const tr_param_info info = tr_params_info(f.params, p);
      for (uint64_t i = 0; i < info.count; i++)
        cr_assert_eq(f.gradient[info.offset + i], 0.0f, "%s: %s", fx_models[m].name, info.name);
    }
    fx_close(&f);
  }
}

/* ---- Where gradients go, and when ------------------------------------------------------------------------------------ */

static void with_a_stranger(fx *f, tr_graph *g, int size) {
  const tr_param_spec stranger = {.struct_bytes = sizeof stranger, .name = "stranger", .ndim = 1, .shape = {5}};
  tr_param made;
  cr_assert_eq(tr_params_add(f->params, &stranger, &made, NULL), TR_OK);
  fx_linear(f, g, size);
}

Test(execute, writes_zeros_where_no_op_writes_and_leaves_padding_alone) {
  fx f = {.rows = 2, .size = 3};
  fx_open(&f, with_a_stranger);
  fx_step(&f);
  bool *slot = calloc(tr_params_gradient_count(f.params), 1);
  for (tr_param p = 0; p < tr_params_size(f.params); p++) {
    const tr_param_info info = tr_params_info(f.params, p);
    for (uint64_t i = 0; i < info.count; i++) slot[info.offset + i] = true;
  }
  const tr_param_info stranger = tr_params_info(f.params, tr_params_find(f.params, "stranger"));
  for (uint64_t i = 0; i < tr_params_gradient_count(f.params); i++) {
    if (i >= stranger.offset && i < stranger.offset + stranger.count) cr_assert_eq(f.gradient[i], 0.0f);
    cr_assert_eq(isnan(f.gradient[i]), !slot[i]);
  }
  free(slot);
  fx_close(&f);
}

typedef struct watch {
  fx *f;
  uint64_t last;
  int calls;
  float *seen; /* the gradient as it was when it was said to be final */
} watch;

static void on_ready(void *self, uint64_t offset) {
  watch *w = self;
  cr_assert_lt(offset, w->last);
  memcpy(w->seen + offset, w->f->gradient + offset, (w->last - offset) * sizeof(float));
  w->last = offset;
  w->calls++;
}

Test(execute, says_what_is_final_from_the_end_to_the_beginning, .timeout = 60) {
  for (int m = 0; m < FX_MODELS; m++) {
    fx f = {.rows = 3, .size = 3};
    fx_open(&f, fx_models[m].build);
    fx_forward(&f);
    const uint64_t count = tr_params_gradient_count(f.params);
    for (uint64_t i = 0; i < count; i++) f.gradient[i] = 0.0f;
    watch w = {.f = &f, .last = count, .seen = calloc(count, sizeof(float))};
    cr_assert_eq(tr_graph_backward(f.graph, &f.args, f.gradient, on_ready, &w, NULL), TR_OK);
    cr_expect_eq(w.last, 0);
    cr_expect_geq(w.calls, 2, "%s", fx_models[m].name);
    cr_expect_arr_eq(w.seen, f.gradient, count * sizeof(float), "%s", fx_models[m].name);
    free(w.seen);
    fx_close(&f);
  }
}

/* ---- Batch norm ------------------------------------------------------------------------------------------------------ */

static void one_batch_norm(fx *f, tr_graph *g, int size) {
  (void)f;
  fx_end_with_mse(g, tr_batch_norm(g, "norm", fx_input(g, "x", size), 1e-3f), size);
}

Test(execute, hands_in_mean_and_unbiased_variance_as_gradients_of_the_state) {
  for (int count = 1; count <= 5; count++) {
    fx f = {.rows = 5, .size = 3};
    fx_open(&f, one_batch_norm);
    f.args.row_count = (uint32_t)count;
    fx_step(&f);
    const float *x = f.inputs[0];
    const uint64_t mean_at = tr_params_info(f.params, tr_params_find(f.params, "norm.running_mean")).offset;
    const uint64_t var_at = tr_params_info(f.params, tr_params_find(f.params, "norm.running_var")).offset;
    for (int c = 0; c < 3; c++) {
      double mean = 0.0, var = 0.0;
      for (int r = 0; r < count; r++) mean += (double)x[r * 3 + c] / count;
      for (int r = 0; r < count; r++) var += ((double)x[r * 3 + c] - mean) * ((double)x[r * 3 + c] - mean);
      if (count > 1) var /= count - 1;
      cr_expect_lt(fabs((double)f.gradient[mean_at + (uint64_t)c] - mean), 1e-6);
      cr_expect_lt(fabs((double)f.gradient[var_at + (uint64_t)c] - var), 1e-6);
    }
    fx_close(&f);
  }
}

Test(execute, evaluates_with_running_statistics) {
  fx f = {.rows = 2, .size = 3, .evaluation = true};
  fx_open(&f, one_batch_norm);
  float *values = tr_params_values(f.params);
  const uint64_t mean_at = tr_params_info(f.params, tr_params_find(f.params, "norm.running_mean")).offset;
  const uint64_t var_at = tr_params_info(f.params, tr_params_find(f.params, "norm.running_var")).offset;
  for (uint64_t c = 0; c < 3; c++) values[mean_at + c] = 0.5f, values[var_at + c] = 4.0f;
  tr_params_touch(f.params);
  double expected = 0.0;
  for (int i = 0; i < 6; i++) {
    const double y = ((double)((float *)f.inputs[0])[i] - 0.5) / sqrt(4.0 + 1e-3) - (double)((float *)f.inputs[1])[i];
    expected += y * y / 3;
  }
  cr_expect_lt(fabs(fx_forward(&f) - expected), 1e-5);
  fx_close(&f);
}

/* ---- Dropout --------------------------------------------------------------------------------------------------------- */

static void one_dropout(fx *f, tr_graph *g, int size) {
  (void)f;
  fx_end_with_mse(g, tr_dropout(g, tr_linear(g, "fc", fx_input(g, "x", size), size, true), 0.5f), size);
}

/* Two micro-batches of 3 rows are one of 6: the mask belongs to the row of the global batch. */
Test(execute, drops_by_global_row) {
  for (int size = 1; size <= 9; size += 2) {
    fx whole = {.rows = 6, .size = size}, half = {.rows = 3, .size = size};
    fx_open(&whole, one_dropout);
    fx_open(&half, one_dropout);
    const double sum = fx_forward(&whole);
    double parts = 0.0;
    for (int i = 0; i < 2; i++) {
      const void *inputs[] = {(float *)whole.inputs[0] + i * 3 * size, (float *)whole.inputs[1] + i * 3 * size};
      half.args.inputs = inputs;
      half.args.row_offset = 32 + (uint64_t)i * 3;
      parts += fx_forward(&half);
    }
    cr_expect_lt(fabs(sum - parts), 1e-5 * (1 + sum), "size %d: %g, %g", size, sum, parts);
    fx_close(&whole);
    fx_close(&half);
  }
}

Test(execute, drops_anew_each_step_and_by_seed_and_nothing_in_evaluation) {
  fx f = {.rows = 4, .size = 9}, e = {.rows = 4, .size = 9, .evaluation = true};
  fx_open(&f, one_dropout);
  fx_open(&e, one_dropout);
  const double first = fx_forward(&f);
  cr_expect_eq(fx_forward(&f), first);
  f.args.step++;
  const double next = fx_forward(&f);
  f.args.step--;
  f.args.seed++;
  const double other = fx_forward(&f);
  cr_expect(first != next && first != other && next != other);
  const double even = fx_forward(&e);
  e.args.seed++;
  cr_expect_eq(fx_forward(&e), even);
  fx_close(&f);
  fx_close(&e);
}

static void dropout_of_ones(fx *f, tr_graph *g, int size) {
  (void)f;
  const tr_tensor x = tr_dropout(g, tr_to_float(g, fx_input(g, "x", size), 0.0f, 1.0f), 0.3f);
  tr_graph_loss(g, tr_mean_squared_error(g, tr_linear(g, "fc", x, 1, true), fx_input(g, "target", 1)));
}

Test(execute, drops_as_many_as_asked_and_scales_the_rest) {
  fx f = {.rows = 50, .size = 2001, .compile = {.no_fusion = true}};
  fx_open(&f, dropout_of_ones);
  fx_forward(&f);
  tr_tensor dropped = TR_TENSOR_INVALID;
  for (tr_tensor t = 0; tr_tensor_describe(f.graph, t).ndim > 0; t++)
    if (tr_tensor_describe(f.graph, t).shape[1] == 2001 && tr_tensor_describe(f.graph, t).shape[0] == 50) dropped = t;
  const int count = 50 * 2001;
  float *values = malloc((size_t)count * sizeof *values);
  cr_assert_eq(tr_graph_read(f.graph, dropped, values, (size_t)count * sizeof *values, NULL), TR_OK);
  int zeros = 0;
  for (int i = 0; i < count; i++) {
    cr_assert(values[i] == 0.0f || fabsf(values[i] - 1.0f / 0.7f) < 1e-6f);
    zeros += values[i] == 0.0f;
  }
  cr_expect_lt(fabs((double)zeros / count - 0.3), 0.006);
  free(values);
  fx_close(&f);
}

/* ---- Memory and time ------------------------------------------------------------------------------------------------- */

Test(execute, needs_less_than_all_activations_at_once) {
  for (int m = 0; m < FX_MODELS; m++) {
    fx planned = {.rows = 8, .size = 31}, kept = {.rows = 8, .size = 31, .compile = {.no_fusion = true}};
    fx_open(&planned, fx_models[m].build);
    fx_open(&kept, fx_models[m].build);
    cr_expect_lt(tr_graph_arena_bytes(planned.graph), tr_graph_arena_bytes(kept.graph), "%s", fx_models[m].name);
    fx_close(&planned);
    fx_close(&kept);
  }
}

/* Twelve layers of the same width in evaluation need room for a few of them, not for all. */
static void deep(fx *f, tr_graph *g, int size) {
  (void)f;
  tr_tensor x = fx_input(g, "x", size);
  for (int i = 0; i < 12; i++) {
    char name[16];
    snprintf(name, sizeof name, "fc%d", i);
    x = tr_gelu(g, tr_linear(g, name, x, size, true));
  }
  fx_end_with_mse(g, x, size);
}

Test(execute, reuses_the_memory_of_dead_activations) {
  fx f = {.rows = 64, .size = 64, .evaluation = true};
  fx_open(&f, deep);
  const size_t one = 64 * 64 * sizeof(float);
  fx small = {.rows = 64, .size = 64, .evaluation = true, .compile = {.no_fusion = true}};
  fx_open(&small, deep);
  cr_expect_geq(tr_graph_arena_bytes(small.graph), 24 * one);
  cr_expect_leq(tr_graph_arena_bytes(f.graph) + 20 * one, tr_graph_arena_bytes(small.graph));
  fx_close(&f);
  fx_close(&small);
}

Test(execute, profiles_every_op) {
  fx f = {.rows = 4, .size = 3, .compile = {.profile = true}};
  fx_open(&f, fx_cnn);
  fx_step(&f);
  fx_step(&f);
  const tr_op_profile *entries = NULL;
  const size_t count = tr_graph_profile(f.graph, &entries);
  cr_assert_eq(count, 11); /* conv, conv, fc, fc, loss, accuracy; all but accuracy backward */
  cr_expect_str_eq(entries[0].name, "conv2d conv1 forward");
  cr_expect_str_eq(entries[count - 1].name, "conv2d conv1 backward");
  for (size_t i = 0; i < count; i++) {
    cr_expect_eq(entries[i].calls, 2);
    cr_expect_gt(entries[i].bytes, 0.0);
  }
  const double outputs = 4.0 * 7 * 8 * 6; /* rows, height, width, channels of conv1 */
  cr_expect_lt(fabs(entries[0].flops - 2 * 2.0 * outputs * 9), 1.0, "%g", entries[0].flops);
  fx_close(&f);
}
