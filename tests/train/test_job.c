/* A whole small job in one process: its results, its resumption, and every allocation and request made to fail in turn. */
#include "job_fixture.h"

#include <math.h>

static small_job undisturbed(void) {
  small_job job = {0};
  cr_assert_eq(small_run(&job), TR_OK, "%s", job.error.message);
  return job;
}

Test(job, trains_to_its_end_and_reports_what_it_did) {
  const small_job job = undisturbed();
  cr_expect_eq(job.exit_code, 0);
  cr_expect_eq(job.result.steps, 10);
  cr_expect_eq(job.result.samples, 74);
  cr_expect_eq(job.result.epochs, 2);
  cr_expect(isfinite(job.result.loss));
  cr_expect(isfinite(job.result.eval_loss));
}

Test(job, gives_the_same_bits_every_time) {
  const small_job first = undisturbed(), second = undisturbed();
  cr_expect_eq(first.result.params_crc32c, second.result.params_crc32c);
  cr_expect_eq(first.result.order_crc32c, second.result.order_crc32c);
}

/* Equal bits would say nothing if they did not depend on the job. */
Test(job, gives_other_bits_for_another_learning_rate_in_the_same_order) {
  small_job first = undisturbed(), other = {.extra = "[optimizer]\nlr = 2e-3\n"};
  cr_assert_eq(small_run(&other), TR_OK, "%s", other.error.message);
  cr_expect_neq(first.result.params_crc32c, other.result.params_crc32c);
  cr_expect_eq(first.result.order_crc32c, other.result.order_crc32c);
}

typedef struct killer {
  uint64_t left; /* samples until the map fails */
} killer;

static tr_status fail_late(void *self, uint64_t epoch, uint64_t id, void *const *fields, tr_error *error) {
  killer *k = self;
  (void)epoch;
  (void)fields;
  if (k->left-- == 1) return tr_fail(error, TR_ERR_CORRUPT, "sample %llu was made to fail", (unsigned long long)id);
  return TR_OK;
}

Test(job, resumed_after_a_failure_anywhere_ends_with_the_same_bits) {
  const small_job whole = undisturbed();
  for (uint64_t at = 1; at <= 74; at += ts_long() ? 1 : 9) {
    const tr_store_memory_options memory = {.struct_bytes = sizeof memory};
    small_job job = {.map = fail_late};
    killer k = {at};
    job.map_self = &k;
    cr_assert_eq(tr_store_memory_open(&memory, &job.kept, NULL), TR_OK);
    cr_expect_eq(small_run(&job), TR_ERR_CORRUPT, "sample %llu", (unsigned long long)at);
    cr_expect_not_null(strstr(job.error.message, "made to fail"), "%s", job.error.message);
    job.map = NULL;
    cr_expect_eq(small_run(&job), TR_OK, "%s", job.error.message);
    cr_expect_eq(job.result.params_crc32c, whole.result.params_crc32c, "failed at sample %llu", (unsigned long long)at);
    cr_expect_eq(job.result.order_crc32c, whole.result.order_crc32c);
    cr_expect_eq(job.result.samples, 74);
    tr_store_destroy(job.kept);
  }
}

Test(job, every_request_of_the_store_failing_in_turn_is_a_clean_error_that_a_resume_mends, .timeout = 120) {
  const small_job whole = undisturbed();
  uint64_t failures = 0;
  for (uint64_t at = 1; at < 200; at++) {
    const tr_store_memory_options memory = {.struct_bytes = sizeof memory};
    small_job job = {.faults = {.fail_any = at, .status = TR_ERR_NO_SPACE}};
    cr_assert_eq(tr_store_memory_open(&memory, &job.kept, NULL), TR_OK);
    const tr_status status = small_run(&job);
    const bool reached = job.faults.any >= at;
    if (status != TR_OK) {
      failures++;
      cr_expect_eq(status, TR_ERR_NO_SPACE, "request %llu: %s", (unsigned long long)at, job.error.message);
      cr_expect_neq(job.error.message[0], '\0');
      job.faults.fail_any = 0;
      cr_expect_eq(small_run(&job), TR_OK, "after request %llu: %s", (unsigned long long)at, job.error.message);
    }
    cr_expect_eq(job.result.params_crc32c, whole.result.params_crc32c, "request %llu", (unsigned long long)at);
    tr_store_destroy(job.kept);
    if (!reached) break;
  }
  cr_expect_gt(failures, 4);
}

Test(job, every_allocation_failing_in_turn_is_a_clean_error_without_a_leak, .timeout = 600) {
  tr_counting_allocator counting;
  tr_counting_allocator_init(&counting);
  small_job job = {.allocator = &counting.allocator};
  cr_assert_eq(small_run(&job), TR_OK, "%s", job.error.message);
  cr_expect_eq(counting.live_blocks, 0);
  const uint64_t total = counting.allocations;
  const uint64_t stride = ts_long() ? 1 : total / 150 + 1;
  cr_expect_gt(total, 100);
  for (uint64_t at = 1; at <= total; at += stride) {
    tr_counting_allocator_init(&counting);
    counting.fail_at = at;
    small_job failing = {.allocator = &counting.allocator};
    const tr_status status = small_run(&failing);
    /* A log line or an index that was not kept may be lost without harm to the job. */
    if (status != TR_OK) {
      cr_expect_eq(status, TR_ERR_NO_MEMORY, "allocation %llu: %s (%s)", (unsigned long long)at, failing.error.message,
                   tr_status_name(status));
      cr_expect_neq(failing.exit_code, 0);
    } else {
      cr_expect_eq(failing.result.params_crc32c, job.result.params_crc32c, "allocation %llu", (unsigned long long)at);
    }
    cr_expect_eq(counting.live_blocks, 0, "allocation %llu of %llu leaks %llu blocks", (unsigned long long)at,
                 (unsigned long long)total, (unsigned long long)counting.live_blocks);
  }
}

Test(job, a_loss_that_is_not_finite_stops_before_the_update) {
  small_job job = {.extra = "[optimizer]\nname = \"sgd\"\nlr = 1e30\n"};
  cr_expect_eq(small_run(&job), TR_ERR_DIVERGED);
  cr_expect_not_null(strstr(job.error.message, "not finite"), "%s", job.error.message);
  cr_expect_eq(job.exit_code, 1);
}
