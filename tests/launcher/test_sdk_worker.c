/* Workers that keep the contract of worker.h, played by fake_worker. */
#include "command.h"

#include <trainrun/worker.h>
#include <unistd.h>

static void write_job(const char *folder, const char *more) {
  const char *job = ts_format("name = \"fake\"\nprogram = \"%s\"\n[cluster]\nworkers-per-node = 2\n%s",
                              ts_built("tests/fake_worker"), more);
  ts_file_write(ts_format("%s/job.toml", folder), job, strlen(job));
}

static ts_result run_fake(const char *folder, const char *more, const char *const *words) {
  command command = command_in(folder);
  write_job(folder, more);
  add(&command, "job.toml");
  for (; *words != NULL; words++) add(&command, *words);
  return run(&command);
}
#define FAKE(folder, more, ...) run_fake(folder, more, (const char *const[]){__VA_ARGS__, NULL})

static json_t *summary_of(const char *folder) {
  return ts_json(ts_format("%s/summary.json", only_run(folder, "fake")));
}

Test(sdk_worker, finds_its_place_and_its_records_find_the_folder) {
  const char *folder = ts_folder();
  const ts_result result = FAKE(folder, "", "steps=5");
  EXITS(result, 0);
  HAS(result.out, "[0/0] rank 0 of 2 from step -1");
  HAS(result.out, "[0/1] rank 1 of 2 from step -1");
  HAS(result.out, "5 steps"); /* of the summary */
  char *metrics = ts_file_read(ts_format("%s/metrics.jsonl", only_run(folder, "fake")), NULL);
  HAS(metrics, "{\"step\": 5, \"epoch\": 0, \"samples\": 40, \"loss\": 0.167}\n");
  cr_assert_eq(ts_json_number(summary_of(folder), "steps"), 5);
}

Test(sdk_worker, is_restarted_with_all_others_after_a_kill) {
  const char *folder = ts_folder();
  const char *once = ts_format("fail-once=%s/once", folder);
  const ts_result result = FAKE(folder, "", "steps=10", "fail-rank=1", "fail-step=4", "fail-signal=9", once);
  EXITS(result, 0);
  HAS(result.err, "rank 1 was killed by SIGKILL (signal 9)");
  HAS(result.err, "restart 1 of 3: all workers from the beginning");
  const json_t *summary = summary_of(folder);
  cr_assert_str_eq(ts_json_text(summary, "status"), "done");
  cr_assert_eq(ts_json_number(summary, "restarts"), 1);
  cr_assert_geq(ts_json_number(summary, "steps_lost"), 4);
}

Test(sdk_worker, is_named_within_a_second) {
  const char *folder = ts_folder();
  command command = command_in(folder);
  write_job(folder, "");
  WITH(&command, "job.toml", "steps=100000", "step-ms=10");
  ts_process process = start(&command);
  wait_for(process.out_path, "rank 1 of 2");
  const char *const find[] = {"pgrep", "-P", ts_format("%d", (int)process.pid), "-n", NULL};
  ts_result found = ts_run(find, NULL);
  EXITS(found, 0);
  const double killed = ts_now_s();
  kill((pid_t)atoi(found.out), SIGKILL);
  wait_for(process.err_path, "rank 1 was killed");
  cr_assert_lt(ts_now_s() - killed, 1);
  wait_for(process.err_path, "restart 1 of 3");
  kill(process.pid, SIGINT);
  const ts_result result = ts_finish(&process, 20);
  EXITS(result, 130);
}

Test(sdk_worker, that_fails_twice_at_one_step_is_given_up_with_the_first_cause) {
  const char *folder = ts_folder();
  const ts_result result = FAKE(folder, "", "steps=10", "fail-rank=1", "fail-step=4", "fail-code=3");
  EXITS(result, 3);
  HAS(result.err, "restart 1 of 3");
  HAS_NOT(result.err, "restart 2 of 3");
  HAS(ts_json_text(summary_of(folder), "cause"), "gave up");
}

Test(sdk_worker, whose_data_are_corrupt_is_not_retried) {
  const char *folder = ts_folder();
  const ts_result result = FAKE(folder, "", "steps=10", "fail-rank=1", "fail-step=4", "fail-code=1", "error=corrupt");
  EXITS(result, 1);
  HAS(result.err, "rank 1 ended with exit code 1 at step ");
  HAS(result.err, ": shard 7 at byte 512");
  HAS_NOT(result.err, "restart");
}

Test(sdk_worker, that_says_its_job_is_wrong_is_not_retried) {
  static const char *const codes[] = {"fail-code=78", "fail-code=69"};
  for (size_t i = 0; i < 2; i++) {
    const char *folder = ts_format("%s/%zu", ts_folder(), i);
    cr_assert_eq(mkdir(folder, 0700), 0);
    const ts_result result = FAKE(folder, "", "steps=10", "fail-rank=1", "fail-step=4", codes[i]);
    EXITS(result, i == 0 ? 78 : 69);
    HAS_NOT(result.err, "restart");
  }
}

Test(sdk_worker, that_meets_a_passing_error_is_retried) {
  const char *folder = ts_folder();
  const char *once = ts_format("fail-once=%s/once", folder);
  const ts_result result = FAKE(folder, "", "steps=10", "fail-step=4", "fail-code=1", "error=store", once);
  EXITS(result, 0);
  HAS(result.err, "restart 1 of 3");
}

Test(sdk_worker, that_hangs_is_named_killed_and_replaced) {
  const char *folder = ts_folder();
  const ts_result result = FAKE(folder, "[failure]\nhang-timeout = \"1s\"\nmax-restarts = 1\n", "steps=10",
                                "fail-rank=1", "fail-step=4", "hang=4");
  EXITS(result, 128 + SIGKILL);
  HAS(result.err, "rank 1 made no progress");
  HAS(result.err, "stuck in 'compute'");
  HAS(result.err, "restart 1 of 1");
}

Test(sdk_worker, that_waits_for_its_store_is_left_alone) {
  const char *folder = ts_folder();
  command command = command_in(folder);
  write_job(folder, "[failure]\nhang-timeout = \"500ms\"\n");
  WITH(&command, "job.toml", "steps=10", "fail-rank=1", "fail-step=4", "hang=3");
  ts_process process = start(&command);
  wait_for(process.out_path, "rank 1 of 2");
  ts_sleep_s(2);
  char *said = ts_file_read(process.err_path, NULL);
  HAS_NOT(said, "no progress");
  kill(process.pid, SIGINT);
  ts_sleep_s(0.1);
  kill(process.pid, SIGINT);
  const ts_result result = ts_finish(&process, 20);
  EXITS(result, 130);
}

Test(sdk_worker, that_is_suspended_is_found) {
  const char *folder = ts_folder();
  const char *once = ts_format("fail-once=%s/once", folder);
  const ts_result result = FAKE(folder, "[failure]\nhang-timeout = \"1500ms\"\n", "steps=800", "fail-rank=0",
                                "fail-step=4", ts_format("fail-signal=%d", SIGSTOP), once);
  EXITS(result, 0);
  HAS(result.err, "rank 0 made no progress");
}

static ts_result stopped_by(const char *folder, int number, int times, const char *more) {
  command command = command_in(folder);
  write_job(folder, "[failure]\nhang-timeout = \"1s\"\n");
  WITH(&command, "job.toml", "steps=100000", "step-ms=10", more);
  ts_process process = start(&command);
  wait_for(process.out_path, "rank 0 of 2");
  wait_for(process.out_path, "rank 1 of 2");
  for (int i = 0; i < times; i++) {
    kill(process.pid, number);
    ts_sleep_s(0.1);
  }
  return ts_finish(&process, 50);
}

Test(sdk_worker, takes_a_stop_from_the_board) {
  static const struct {
    int number, code;
    const char *status;
  } cases[] = {
      {SIGINT, 130, "stopped"}, {SIGTERM, 75, "preempted"}, {SIGUSR1, 0, "stopped"}, {SIGHUP, 75, "preempted"}};
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    const char *folder = ts_format("%s/%zu", ts_folder(), i);
    cr_assert_eq(mkdir(folder, 0700), 0);
    const ts_result result = stopped_by(folder, cases[i].number, 1, "fail-step=-1");
    EXITS(result, cases[i].code);
    const json_t *summary = summary_of(folder);
    cr_assert_str_eq(ts_json_text(summary, "status"), cases[i].status);
    cr_assert_eq(ts_json_number(summary, "exit_code"), cases[i].code);
    cr_assert_gt(ts_json_number(summary, "steps"), 0);
  }
}

Test(sdk_worker, that_is_deaf_is_killed_by_the_second_interrupt) {
  const ts_result result = stopped_by(ts_folder(), SIGINT, 2, "deaf=1");
  EXITS(result, 130);
  cr_assert_lt(result.seconds, 10);
}

Test(sdk_worker, shows_in_status) {
  const char *folder = ts_folder();
  command job = command_in(folder), status = command_in(folder);
  write_job(folder, "");
  WITH(&job, "job.toml", "steps=100000", "step-ms=5");
  ts_process process = start(&job);
  wait_for(process.out_path, "rank 0 of 2");
  wait_for(process.out_path, "rank 1 of 2");
  ts_sleep_s(0.3);
  WITH(&status, "status", "--json", "fake");
  const ts_result shown = run(&status);
  EXITS(shown, 0);
  json_t *root = json_loads(shown.out, 0, NULL);
  const json_t *workers = json_object_get(root, "workers");
  cr_assert_eq(json_array_size(workers), 2);
  for (size_t i = 0; i < 2; i++) {
    const json_t *worker = json_array_get(workers, i);
    cr_assert_eq(json_integer_value(json_object_get(worker, "rank")), (json_int_t)i);
    cr_assert_gt(json_integer_value(json_object_get(worker, "step")), 0);
    cr_assert_str_eq(json_string_value(json_object_get(worker, "phase")), "compute");
    cr_assert_lt(json_number_value(json_object_get(worker, "last_progress_s")), 5);
  }
  json_decref(root);
  kill(process.pid, SIGTERM);
  const ts_result result = ts_finish(&process, 20);
  EXITS(result, 75);
}

Test(sdk_worker, resumes_its_unfinished_run_as_the_next_attempt) {
  const char *folder = ts_folder();
  ts_result result = stopped_by(folder, SIGTERM, 1, "fail-step=-1");
  EXITS(result, 75);
  result = FAKE(folder, "[failure]\nhang-timeout = \"1s\"\n", "steps=5");
  EXITS(result, 0);
  HAS(result.err, "attempt 2");
  cr_assert(ts_exists(ts_format("%s/logs/attempt_2/0.log", only_run(folder, "fake"))));
  cr_assert_str_eq(ts_json_text(summary_of(folder), "status"), "done");
}
