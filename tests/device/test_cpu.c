/* The cpu device: what it says of itself, its memory, its streams. */
#include <criterion/criterion.h>
#include <string.h>
#include <trainrun/device.h>

static tr_device *open_cpu(const tr_allocator *allocator) {
  const tr_device_options options = {.struct_bytes = sizeof options, .allocator = allocator, .kind = TR_DEVICE_CPU};
  tr_device *device = NULL;
  tr_error error;
  cr_assert_eq(tr_device_open(&options, &device, &error), TR_OK, "%s", error.message);
  return device;
}

Test(dtype, knows_width_and_name_of_each_type) {
  const struct {
    tr_dtype dtype;
    size_t bytes;
    const char *name;
  } cases[] = {{TR_F32, 4, "f32"}, {TR_BF16, 2, "bf16"}, {TR_I32, 4, "i32"}, {TR_U16, 2, "u16"},
               {TR_U8, 1, "u8"},   {TR_I64, 8, "i64"},   {TR_F64, 8, "f64"}};
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    cr_expect_eq(tr_dtype_bytes(cases[i].dtype), cases[i].bytes);
    cr_expect_str_eq(tr_dtype_name(cases[i].dtype), cases[i].name);
  }
}

Test(dtype, answers_for_an_unknown_type) {
  cr_expect_eq(tr_dtype_bytes((tr_dtype)99), 0);
  cr_expect_str_eq(tr_dtype_name((tr_dtype)99), "unknown");
}

Test(cpu, says_its_kind_and_name) {
  tr_device *device = open_cpu(NULL);
  cr_expect_eq(tr_device_kind_of(device), TR_DEVICE_CPU);
  cr_expect_eq(strncmp(tr_device_name(device), "cpu (", 5), 0, "%s", tr_device_name(device));
  cr_expect_not_null(strstr(tr_device_name(device), "core"));
  tr_device_close(device);
}

Test(cpu, gives_memory_aligned_as_promised) {
  tr_device *device = open_cpu(NULL);
  const size_t sizes[] = {0, 1, 63, 64, 65, 4095, 4096, 4097, 1 << 20, (8 << 20) - 1, 8 << 20, (9 << 20) + 7};
  for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
    for (int space = TR_SPACE_HOST; space <= TR_SPACE_DEVICE; space++) {
      unsigned char *p = tr_device_alloc(device, (tr_space)space, sizes[i]);
      cr_assert_not_null(p);
      cr_expect_eq((uintptr_t)p % (sizes[i] >= 4096 ? 4096 : 64), 0, "%zu bytes", sizes[i]);
      if (sizes[i] > 0) memset(p, 0xA5, sizes[i]);
      tr_device_free(device, (tr_space)space, p, sizes[i]);
    }
  }
  tr_device_close(device);
}

Test(cpu, refuses_more_memory_than_there_can_be) {
  tr_device *device = open_cpu(NULL);
  cr_expect_null(tr_device_alloc(device, TR_SPACE_HOST, SIZE_MAX));
  cr_expect_null(tr_device_alloc(device, TR_SPACE_HOST, SIZE_MAX - 4096));
  tr_device_close(device);
}

Test(cpu, copies_between_all_spaces_and_overlapping_ranges) {
  tr_device *device = open_cpu(NULL);
  unsigned char bytes[300], expected[300];
  for (int i = 0; i < 300; i++) bytes[i] = (unsigned char)i;
  memcpy(expected, bytes, sizeof expected);
  memmove(expected + 7, expected, 200);
  cr_expect_eq(tr_device_copy(device, bytes + 7, bytes, 200, NULL, NULL), TR_OK);
  cr_expect_eq(memcmp(bytes, expected, sizeof bytes), 0);
  cr_expect_eq(tr_device_copy(device, NULL, NULL, 0, NULL, NULL), TR_OK);
  tr_device_close(device);
}

Test(cpu, has_streams_and_events_that_are_done_at_once) {
  tr_device *device = open_cpu(NULL);
  tr_stream *stream = NULL, *other = NULL;
  tr_event *event = NULL;
  cr_assert_eq(tr_stream_create(device, &stream, NULL), TR_OK);
  cr_assert_eq(tr_stream_create(device, &other, NULL), TR_OK);
  cr_expect_neq(stream, other);
  cr_assert_eq(tr_event_create(device, &event, NULL), TR_OK);
  cr_expect_eq(tr_event_record(device, event, stream, NULL), TR_OK);
  cr_expect_eq(tr_stream_wait_event(device, other, event, NULL), TR_OK);
  cr_expect_eq(tr_stream_sync(device, other, NULL), TR_OK);
  cr_expect_eq(tr_stream_sync(device, NULL, NULL), TR_OK);
  tr_event_destroy(device, event);
  tr_stream_destroy(device, stream);
  tr_stream_destroy(device, other);
  tr_stream_destroy(device, NULL);
  tr_event_destroy(device, NULL);
  tr_device_close(device);
}

Test(cpu, survives_each_allocation_failing_in_turn) {
  for (uint64_t fail_at = 1; fail_at <= 8; fail_at++) {
    tr_counting_allocator counting;
    tr_counting_allocator_init(&counting);
    counting.fail_at = fail_at;
    const tr_device_options options = {
        .struct_bytes = sizeof options, .allocator = &counting.allocator, .kind = TR_DEVICE_CPU};
    tr_device *device = NULL;
    tr_error error = {.status = TR_OK};
    tr_stream *stream = NULL;
    tr_event *event = NULL;
    tr_status status = tr_device_open(&options, &device, &error);
    if (status == TR_OK) status = tr_stream_create(device, &stream, &error);
    if (status == TR_OK) status = tr_event_create(device, &event, &error);
    if (status != TR_OK) {
      cr_expect_eq(status, TR_ERR_NO_MEMORY);
      cr_expect_neq(error.message[0], '\0');
    }
    if (device != NULL) {
      tr_event_destroy(device, event);
      tr_stream_destroy(device, stream);
    }
    tr_device_close(device);
    cr_expect_eq(counting.live_blocks, 0);
  }
}

Test(cpu, refuses_options_of_another_size) {
  const tr_device_options options = {.struct_bytes = sizeof options - 1, .kind = TR_DEVICE_CPU};
  tr_device *device = NULL;
  tr_error error;
  cr_expect_eq(tr_device_open(&options, &device, &error), TR_ERR_INVALID);
  cr_expect_null(device);
}

Test(cpu, closes_null) { tr_device_close(NULL); }
