/* The helpers that other tests trust: a time limit that holds, output that arrives, ranks whose failure is seen. */
#include <criterion/criterion.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

#include "support/support.h"

Test(support, captures_output_and_exit_code) {
  const char *const arguments[] = {"sh", "-c", "echo out; echo err >&2; exit 7", NULL};
  ts_result result = ts_run(arguments, NULL);
  cr_assert_eq(result.exit_code, 7);
  cr_assert_str_eq(result.out, "out\n");
  cr_assert_str_eq(result.err, "err\n");
  cr_assert_not(result.timed_out);
  ts_result_free(&result);
}

Test(support, kills_the_group_at_the_time_limit) {
  const char *const arguments[] = {"sh", "-c", "sleep 30 & sleep 30", NULL};
  ts_result result = ts_run(arguments, &(ts_options){.timeout_s = 0.2});
  cr_assert(result.timed_out);
  cr_assert_eq(result.exit_code, 128 + SIGKILL);
  cr_assert_lt(result.seconds, 10.0);
  ts_result_free(&result);
}

Test(support, adds_to_the_environment_and_takes_from_it) {
  const char *const environment[] = {"TS_NEW=there", "HOME", NULL};
  const char *const arguments[] = {"sh", "-c", "echo \"$TS_NEW:$HOME\"", NULL};
  ts_result result = ts_run(arguments, &(ts_options){.environment = environment});
  cr_assert_str_eq(result.out, "there:\n");
  ts_result_free(&result);
}

static int fail_if_last(int rank, int rank_count, void *context) {
  (void)context;
  return rank == rank_count - 1 ? 3 : 0;
}

static int never_end(int rank, int rank_count, void *context) {
  (void)rank, (void)rank_count, (void)context;
  while (pause() != 0) continue;
  return 0;
}

static int succeed(int rank, int rank_count, void *context) {
  (void)rank, (void)rank_count, (void)context;
  return 0;
}

Test(support, sees_the_rank_that_fails) {
  cr_assert(ts_ranks(3, 10, succeed, NULL));
  cr_assert_not(ts_ranks(3, 10, fail_if_last, NULL));
  cr_assert_not(ts_ranks(2, 0.2, never_end, NULL));
}

Test(support, writes_and_reads_files_and_json) {
  char *path = ts_format("%s/a.json", ts_folder());
  const char text[] = "{\"a\": {\"b\": 2.5, \"c\": \"x\"}}";
  ts_file_write(path, text, strlen(text));
  size_t count = 0;
  char *back = ts_file_read(path, &count);
  cr_assert_eq(count, strlen(text));
  cr_assert_str_eq(back, text);
  json_t *root = ts_json(path);
  cr_assert_eq(ts_json_number(root, "a.b"), 2.5);
  cr_assert_str_eq(ts_json_text(root, "a.c"), "x");
  json_decref(root);
  free(back);
  free(path);
}
