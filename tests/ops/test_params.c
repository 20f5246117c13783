/* The layout of parameters: regions, blocks, ties, starts that depend on the name alone, and the checksum. */
#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <trainrun/ops.h>

static tr_device *device_of_tests(const tr_allocator *allocator) {
  const tr_device_options options = {.struct_bytes = sizeof options, .allocator = allocator, .kind = TR_DEVICE_CPU};
  tr_device *device = NULL;
  cr_assert_eq(tr_device_open(&options, &device, NULL), TR_OK);
  return device;
}

static tr_param_spec spec_of(const char *name, int64_t count, tr_param_role role) {
  return (tr_param_spec){
      .struct_bytes = sizeof(tr_param_spec), .name = name, .ndim = 1, .shape = {count}, .role = role};
}

static tr_param add(tr_params *params, tr_param_spec spec) {
  tr_param made = -1;
  tr_error error;
  cr_assert_eq(tr_params_add(params, &spec, &made, &error), TR_OK, "%s", error.message);
  return made;
}

Test(params, lays_regions_on_blocks_and_entries_on_cache_lines) {
  tr_device *device = device_of_tests(NULL);
  tr_params *params = NULL;
  cr_assert_eq(tr_params_create(NULL, &params, NULL), TR_OK);
  const tr_param frozen = add(params, spec_of("frozen", 3, TR_PARAM_FROZEN));
  const tr_param a = add(params, spec_of("a", 17, TR_PARAM_TRAINED));
  const tr_param state = add(params, spec_of("state", 5, TR_PARAM_STATE));
  const tr_param b = add(params, spec_of("b", TR_PARAM_BLOCK, TR_PARAM_TRAINED));
  cr_assert_eq(tr_params_seal(params, device, NULL), TR_OK);
  cr_expect_eq(tr_params_info(params, a).offset, 0);
  cr_expect_eq(tr_params_info(params, b).offset, 32);
  cr_expect_eq(tr_params_trained_count(params), 2 * TR_PARAM_BLOCK);
  cr_expect_eq(tr_params_info(params, state).offset, 2 * TR_PARAM_BLOCK);
  cr_expect_eq(tr_params_gradient_count(params), 3 * TR_PARAM_BLOCK);
  cr_expect_eq(tr_params_info(params, frozen).offset, 3 * TR_PARAM_BLOCK);
  cr_expect_eq(tr_params_count(params), 4 * TR_PARAM_BLOCK);
  cr_expect_eq((uintptr_t)tr_params_values(params) % 64, 0);
  tr_params_destroy(params);
  tr_device_close(device);
}

Test(params, are_one_entry_when_tied_and_refuse_another_shape_or_role) {
  tr_params *params = NULL;
  cr_assert_eq(tr_params_create(NULL, &params, NULL), TR_OK);
  const tr_param first = add(params, spec_of("w", 7, TR_PARAM_TRAINED));
  cr_expect_eq(add(params, spec_of("w", 7, TR_PARAM_TRAINED)), first);
  cr_expect_eq(tr_params_size(params), 1);
  tr_param out = 99;
  tr_param_spec other = spec_of("w", 8, TR_PARAM_TRAINED);
  cr_expect_eq(tr_params_add(params, &other, &out, NULL), TR_ERR_INVALID);
  other = spec_of("w", 7, TR_PARAM_FROZEN);
  cr_expect_eq(tr_params_add(params, &other, &out, NULL), TR_ERR_INVALID);
  cr_expect_eq(out, 99);
  cr_expect_eq(tr_params_find(params, "w"), first);
  cr_expect_eq(tr_params_find(params, "v"), -1);
  tr_params_destroy(params);
}

Test(params, refuse_bad_names_shapes_and_anything_new_after_sealing) {
  tr_device *device = device_of_tests(NULL);
  tr_params *params = NULL;
  cr_assert_eq(tr_params_create(NULL, &params, NULL), TR_OK);
  char long_name[TR_NAME_BYTES + 1];
  memset(long_name, 'x', sizeof long_name - 1);
  long_name[sizeof long_name - 1] = '\0';
  const char *names[] = {"", "with space", "quote\"", "../\n", long_name};
  tr_param out;
  for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
    const tr_param_spec spec = spec_of(names[i], 1, TR_PARAM_TRAINED);
    cr_expect_eq(tr_params_add(params, &spec, &out, NULL), TR_ERR_INVALID);
  }
  tr_param_spec spec = spec_of("w", 0, TR_PARAM_TRAINED);
  cr_expect_eq(tr_params_add(params, &spec, &out, NULL), TR_ERR_INVALID);
  spec.ndim = 3;
  spec.shape[0] = spec.shape[1] = spec.shape[2] = INT64_MAX / 2;
  cr_expect_eq(tr_params_add(params, &spec, &out, NULL), TR_ERR_INVALID);
  cr_assert_eq(tr_params_seal(params, device, NULL), TR_OK);
  spec = spec_of("w", 1, TR_PARAM_TRAINED);
  cr_expect_eq(tr_params_add(params, &spec, &out, NULL), TR_ERR_INVALID);
  cr_expect_eq(tr_params_seal(params, device, NULL), TR_ERR_INVALID);
  tr_params_destroy(params);
  tr_device_close(device);
}

/* A parameter's start is a matter of seed and name: what else there is does not move it. */
Test(params, start_alike_whatever_else_there_is) {
  tr_device *device = device_of_tests(NULL);
  float first[37];
  for (int extra = 0; extra < 3; extra++) {
    tr_params *params = NULL;
    cr_assert_eq(tr_params_create(NULL, &params, NULL), TR_OK);
    char name[16];
    for (int i = 0; i < extra; i++) {
      snprintf(name, sizeof name, "other%d", i);
      add(params, spec_of(name, 11, TR_PARAM_TRAINED));
    }
    tr_param_spec spec = spec_of("w", 37, TR_PARAM_TRAINED);
    spec.init = (tr_init){.kind = TR_INIT_UNIFORM, .a = -0.5f, .b = 0.25f};
    const tr_param w = add(params, spec);
    cr_assert_eq(tr_params_seal(params, device, NULL), TR_OK);
    const uint64_t version = tr_params_version(params);
    tr_params_initialize(params, 7);
    cr_expect_gt(tr_params_version(params), version);
    const float *values = tr_params_values(params) + tr_params_info(params, w).offset;
    if (extra == 0) memcpy(first, values, sizeof first);
    cr_expect_arr_eq(values, first, sizeof first);
    for (int i = 0; i < 37; i++) cr_expect(values[i] >= -0.5f && values[i] < 0.25f);
    for (int i = 37; i < 48; i++) cr_expect_eq(values[i], 0.0f);
    tr_params_destroy(params);
  }
  tr_device_close(device);
}

Test(params, of_a_normal_start_have_its_mean_and_deviation) {
  tr_device *device = device_of_tests(NULL);
  tr_params *params = NULL;
  cr_assert_eq(tr_params_create(NULL, &params, NULL), TR_OK);
  tr_param_spec spec = spec_of("w", 100003, TR_PARAM_TRAINED);
  spec.init = (tr_init){.kind = TR_INIT_NORMAL, .a = 2.0f, .b = 0.5f};
  add(params, spec);
  cr_assert_eq(tr_params_seal(params, device, NULL), TR_OK);
  tr_params_initialize(params, 3);
  const float *w = tr_params_values(params);
  double sum = 0, squares = 0;
  for (int i = 0; i < 100003; i++) sum += (double)w[i];
  const double mean = sum / 100003;
  for (int i = 0; i < 100003; i++) squares += ((double)w[i] - mean) * ((double)w[i] - mean);
  cr_expect_lt(fabs(mean - 2.0), 0.01);
  cr_expect_lt(fabs(sqrt(squares / 100003) - 0.5), 0.01);
  tr_params_destroy(params);
  tr_device_close(device);
}

Test(params, have_a_checksum_over_names_in_order_without_padding) {
  tr_device *device = device_of_tests(NULL);
  uint32_t crcs[2];
  for (int order = 0; order < 2; order++) {
    tr_params *params = NULL;
    cr_assert_eq(tr_params_create(NULL, &params, NULL), TR_OK);
    const char *names[2][2] = {{"b", "a"}, {"a", "b"}};
    for (int i = 0; i < 2; i++) add(params, spec_of(names[order][i], 3, TR_PARAM_TRAINED));
    cr_assert_eq(tr_params_seal(params, device, NULL), TR_OK);
    float *values = tr_params_values(params);
    for (int i = 0; i < 3; i++) {
      values[tr_params_info(params, tr_params_find(params, "a")).offset + (uint64_t)i] = (float)i;
      values[tr_params_info(params, tr_params_find(params, "b")).offset + (uint64_t)i] = (float)(i + 3);
    }
    crcs[order] = tr_params_crc32c(params);
    tr_params_destroy(params);
  }
  const float all[] = {0, 1, 2, 3, 4, 5};
  cr_expect_eq(crcs[0], tr_crc32c(0, all, sizeof all));
  cr_expect_eq(crcs[1], crcs[0]);
  tr_device_close(device);
}

/* Every allocation fails once; what was made before goes back. */
Test(params, give_all_memory_back_when_an_allocation_fails) {
  for (uint64_t fail_at = 1;; fail_at++) {
    tr_counting_allocator counting;
    tr_counting_allocator_init(&counting);
    tr_device *device = device_of_tests(NULL);
    counting.fail_at = fail_at;
    tr_params *params = NULL;
    tr_error error;
    tr_status status = tr_params_create(&counting.allocator, &params, &error);
    for (int i = 0; status == TR_OK && i < 20; i++) {
      char name[16];
      snprintf(name, sizeof name, "w%d", i);
      const tr_param_spec spec = spec_of(name, 5, TR_PARAM_TRAINED);
      tr_param out;
      status = tr_params_add(params, &spec, &out, &error);
    }
    if (status == TR_OK) status = tr_params_seal(params, device, &error);
    tr_params_destroy(params);
    tr_device_close(device);
    cr_assert_eq(counting.live_blocks, 0);
    if (status == TR_OK) break;
    cr_assert_eq(status, TR_ERR_NO_MEMORY);
    cr_assert_lt(fail_at, 1000);
  }
}
