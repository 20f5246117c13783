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

/* The CRC of the parameters in a checkpoint, from its bytes. */
static uint32_t crc_of(tr_ckpt *ckpt) {
  const tr_ckpt_tensor *tensors = NULL;
  const size_t count = tr_ckpt_tensors(ckpt, &tensors);
  uint32_t crc = 0;
  for (size_t i = 0; i < count; i++) {
    if (strncmp(tensors[i].name, "optimizer.", 10) == 0) continue;
    tr_piece piece = {.name = tensors[i].name, .dtype = tensors[i].dtype, .ndim = tensors[i].ndim, .count = 1};
    for (uint32_t d = 0; d < piece.ndim; d++) piece.count *= (uint64_t)tensors[i].shape[d];
    memcpy(piece.shape, tensors[i].shape, sizeof piece.shape);
    piece.data = calloc(piece.count, sizeof(float));
    cr_assert_eq(tr_ckpt_read(ckpt, &piece, 1, NULL, NULL), TR_OK);
    crc = tr_crc32c(crc, piece.data, piece.count * sizeof(float));
    free(piece.data);
  }
  return crc;
}

typedef struct kept_list {
  char folders[32][128];
  size_t count;
} kept_list;

static tr_status note_manifest(void *self, const tr_list_entry *entry, tr_error *error) {
  kept_list *kept = self;
  const char *end = strstr(entry->key, "/manifest.json");
  if (end == NULL || kept->count == 32) return TR_OK;
  snprintf(kept->folders[kept->count++], 128, "%.*s", (int)(end - entry->key), entry->key);
  (void)error;
  return TR_OK;
}

Test(job, saved_at_every_step_has_the_right_checksum_in_each_manifest_and_the_same_bits) {
  const small_job whole = undisturbed();
  const tr_store_memory_options memory = {.struct_bytes = sizeof memory};
  small_job job = {.extra = "[checkpoint.keep]\nlast = 100\n", .every = "1 step"};
  kept_list kept = {.count = 0};
  cr_assert_eq(tr_store_memory_open(&memory, &job.kept, NULL), TR_OK);
  cr_assert_eq(small_run(&job), TR_OK, "%s", job.error.message);
  cr_expect_eq(job.result.params_crc32c, whole.result.params_crc32c);
  cr_assert_eq(tr_store_walk(job.kept, "", note_manifest, &kept, NULL), TR_OK);
  cr_expect_eq(kept.count, 10);
  for (size_t i = 0; i < kept.count; i++) {
    tr_ckpt *ckpt = NULL;
    cr_assert_eq(tr_ckpt_open(NULL, job.kept, kept.folders[i], &ckpt, NULL), TR_OK);
    const tr_ckpt_meta *meta = tr_ckpt_describe(ckpt);
    cr_expect_eq(meta->params_crc32c, crc_of(ckpt), "%s", kept.folders[i]);
    if (meta->step == 10) cr_expect_eq(meta->params_crc32c, whole.result.params_crc32c);
    tr_ckpt_close(ckpt);
  }
  tr_store_destroy(job.kept);
}

/* events.jsonl of the newest run; the next call frees it. */
static const char *small_events(void) {
  static char *text;
  char path[128] = "";
  FILE *find = popen("ls -td runs/small/*/events.jsonl", "r");
  if (find != NULL && fgets(path, sizeof path, find) != NULL) path[strcspn(path, "\n")] = '\0';
  if (find != NULL) pclose(find);
  free(text);
  text = ts_file_read(path, NULL);
  return text != NULL ? text : "";
}

Test(job, goes_on_without_a_checkpoint_that_could_not_be_written_and_tries_the_next) {
  const small_job whole = undisturbed();
  /* The first put is the claim of the epoch, the second the first checkpoint's shard. */
  const tr_status passing[] = {TR_ERR_NO_SPACE, TR_ERR_IO, TR_ERR_STORE, TR_ERR_THROTTLED};
  for (size_t i = 0; i < sizeof passing / sizeof *passing; i++) {
    small_job job = {.faults = {.fail_put = 2, .status = passing[i]}};
    cr_expect_eq(small_run(&job), TR_OK, "%s", job.error.message);
    cr_expect_eq(job.result.params_crc32c, whole.result.params_crc32c);
    cr_expect_geq(job.faults.puts, 5);
    cr_expect_not_null(strstr(small_events(), "\"event\": \"checkpoint-failed\""));
  }
}

Test(job, fails_when_its_last_checkpoint_cannot_be_written) {
  small_job job = {.faults = {.fail_put = 2, .forever = true, .status = TR_ERR_NO_SPACE}};
  cr_expect_eq(small_run(&job), TR_ERR_NO_SPACE);
  cr_expect_not_null(strstr(job.error.message, "checkpoint of step 10"), "%s", job.error.message);
  cr_expect_neq(job.exit_code, 0);
}

Test(job, fails_at_once_when_a_checkpoint_can_never_be_written) {
  small_job job = {.faults = {.fail_put = 2, .status = TR_ERR_DENIED}};
  cr_expect_eq(small_run(&job), TR_ERR_DENIED);
  cr_expect_not_null(strstr(job.error.message, "checkpoint of step 3"), "%s", job.error.message);
}

Test(job, sweeps_unfinished_uploads_when_it_is_tried_again) {
  const tr_store_memory_options memory = {.struct_bytes = sizeof memory};
  small_job job = {.map = fail_late};
  killer k = {50};
  job.map_self = &k;
  cr_assert_eq(tr_store_memory_open(&memory, &job.kept, NULL), TR_OK);
  cr_expect_eq(small_run(&job), TR_ERR_CORRUPT);
  cr_expect_eq(job.faults.sweeps, 0);
  job.map = NULL;
  cr_expect_eq(small_run(&job), TR_OK, "%s", job.error.message);
  cr_expect_eq(job.faults.sweeps, 1);
  tr_store_destroy(job.kept);
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
