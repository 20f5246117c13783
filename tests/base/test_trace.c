/* The ring of spans and its JSON. */
#include <criterion/criterion.h>
#include <jansson.h>
#include <pthread.h>
#include <string.h>
#include <trainrun/trace.h>

static json_t *events(const tr_trace *trace) {
  tr_writer w;
  tr_writer_init(&w, NULL);
  tr_write_text(&w, "{\"traceEvents\":[");
  tr_trace_write(trace, &w);
  tr_write_text(&w, "]}");
  json_error_t error;
  json_t *file = json_loadb((char *)w.data, w.bytes, 0, &error);
  cr_assert_not_null(file, "%s: %.*s", error.text, (int)w.bytes, (char *)w.data);
  json_t *list = json_incref(json_object_get(file, "traceEvents"));
  json_decref(file);
  tr_writer_fini(&w);
  return list;
}

static json_t *field(json_t *list, size_t i, const char *name) {
  return json_object_get(json_array_get(list, i), name);
}

static size_t spans(json_t *list) {
  size_t count = 0;
  for (size_t i = 0; i < json_array_size(list); i++) count += strcmp(json_string_value(field(list, i, "ph")), "X") == 0;
  return count;
}

Test(trace, a_span_has_lane_rank_and_microseconds) {
  tr_trace *trace;
  cr_assert_eq(tr_trace_create(NULL, 5, 8, &trace, NULL), TR_OK);
  tr_trace_span(trace, TR_LANE_COMM, "bucket \"0\"", 1234567, 1239999);
  json_t *list = events(trace);
  const size_t last = json_array_size(list) - 1;
  cr_assert_eq(spans(list), 1);
  cr_assert_str_eq(json_string_value(field(list, last, "name")), "bucket \"0\"");
  cr_assert_eq(json_integer_value(field(list, last, "pid")), 5);
  cr_assert_eq(json_integer_value(field(list, last, "tid")), TR_LANE_COMM);
  cr_assert_float_eq(json_number_value(field(list, last, "ts")), 1234.567, 1e-9);
  cr_assert_float_eq(json_number_value(field(list, last, "dur")), 5.432, 1e-9);
  json_decref(list);
  tr_trace_destroy(trace);
}

Test(trace, a_full_ring_drops_the_oldest_and_says_how_many) {
  static const char *const names[] = {"0", "1", "2", "3", "4", "5", "6", "7", "8", "9"};
  tr_trace *trace;
  cr_assert_eq(tr_trace_create(NULL, 0, 4, &trace, NULL), TR_OK);
  for (size_t i = 0; i < 10; i++) tr_trace_span(trace, TR_LANE_STEP, names[i], i, i + 1);
  json_t *list = events(trace);
  cr_assert_eq(spans(list), 4);
  const size_t count = json_array_size(list);
  for (size_t i = 0; i < 4; i++) cr_assert_str_eq(json_string_value(field(list, count - 4 + i, "name")), names[6 + i]);
  char *text = json_dumps(list, 0);
  cr_assert_not_null(strstr(text, "6 older spans were dropped"));
  free(text);
  json_decref(list);
  tr_trace_destroy(trace);
}

Test(trace, an_empty_trace_is_valid_json) {
  tr_trace *trace;
  cr_assert_eq(tr_trace_create(NULL, 0, 1, &trace, NULL), TR_OK);
  json_t *list = events(trace);
  cr_assert_eq(spans(list), 0);
  json_decref(list);
  tr_trace_destroy(trace);
}

static void *write_spans(void *self) {
  for (uint64_t i = 0; i < 5000; i++) tr_trace_span(self, TR_LANE_DATA, "decode", 10 * i, 10 * i + 3);
  return NULL;
}

Test(trace, threads_write_while_another_reads_and_no_span_is_torn) {
  tr_trace *trace;
  cr_assert_eq(tr_trace_create(NULL, 0, 64, &trace, NULL), TR_OK);
  pthread_t threads[3];
  for (int i = 0; i < 3; i++) pthread_create(&threads[i], NULL, write_spans, trace);
  for (int i = 0; i < 10; i++) {
    json_t *list = events(trace);
    for (size_t j = 0; j < json_array_size(list); j++) {
      if (strcmp(json_string_value(field(list, j, "ph")), "X") != 0) continue;
      cr_assert_float_eq(json_number_value(field(list, j, "dur")), 0.003, 1e-9);
    }
    json_decref(list);
  }
  for (int i = 0; i < 3; i++) pthread_join(threads[i], NULL);
  json_t *list = events(trace);
  cr_assert_gt(spans(list), 60);
  json_decref(list);
  tr_trace_destroy(trace);
}

Test(trace, a_span_allocates_nothing_and_no_trace_swallows_everything) {
  tr_counting_allocator counting;
  tr_counting_allocator_init(&counting);
  tr_trace *trace;
  tr_error error;
  for (uint64_t i = 1; i <= 2; i++) {
    counting.fail_at = counting.allocations + i;
    cr_assert_eq(tr_trace_create(&counting.allocator, 0, 16, &trace, &error), TR_ERR_NO_MEMORY);
    cr_assert_eq(counting.live_blocks, 0);
  }
  counting.fail_at = 0;
  cr_assert_eq(tr_trace_create(&counting.allocator, 0, 16, &trace, &error), TR_OK);
  const uint64_t before = counting.allocations;
  for (uint64_t i = 0; i < 100; i++) tr_trace_span(trace, TR_LANE_STEP, "x", i, i);
  cr_assert_eq(counting.allocations, before);
  tr_trace_destroy(trace);
  cr_assert_eq(counting.live_blocks, 0);
  tr_trace_span(NULL, TR_LANE_STEP, "x", 0, 1);
  tr_trace_write(NULL, NULL);
  tr_trace_destroy(NULL);
  cr_assert_eq(tr_trace_create(NULL, 0, 0, &trace, &error), TR_ERR_INVALID);
}
