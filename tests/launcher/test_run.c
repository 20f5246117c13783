/* Bare programs and commands, which know nothing of trainrun: output, exit codes, restarts, signals, records. */
#include "command.h"

#include <unistd.h>

static json_t *summary_of(const char *folder, const char *name) {
  return ts_json(ts_format("%s/summary.json", only_run(folder, name)));
}

Test(run, prefixes_lines_and_keeps_them_raw_in_logs) {
  const char *folder = ts_folder();
  command command = command_in(folder);
  WITH(&command, "--workers", "2", script(folder, "p", "echo out; echo err >&2; printf last"));
  const ts_result result = run(&command);
  EXITS(result, 0);
  for (int rank = 0; rank < 2; rank++) {
    HAS(result.out, ts_format("[0/%d] out\n", rank));
    HAS(result.out, ts_format("[0/%d] last\n", rank));
    HAS(result.err, ts_format("[0/%d] err\n", rank));
    char *log = ts_file_read(ts_format("%s/logs/attempt_1/%d.log", only_run(folder, "p"), rank), NULL);
    HAS(log, "out\n");
    HAS(log, "err\n");
    HAS_NOT(log, "[0/");
  }
  HAS(result.err, "1 node x 2 = 2 workers, cpu, shm, launched locally");
  const json_t *summary = summary_of(folder, "p");
  cr_assert_str_eq(ts_json_text(summary, "status"), "done");
  cr_assert_eq(ts_json_number(summary, "world_size"), 2);
}

Test(run, loses_no_output) {
  const char *folder = ts_folder();
  command command = command_in(folder);
  WITH(&command, "--quiet", "--workers", "2",
       script(folder, "p", "i=0; while [ $i -lt 20000 ]; do echo line $i; i=$((i+1)); done"));
  const ts_result result = run(&command);
  EXITS(result, 0);
  size_t lines = 0;
  for (const char *c = result.out; *c != '\0'; c++) lines += *c == '\n';
  cr_assert_eq(lines, 40000);
  HAS(result.out, "[0/1] line 19999\n");
}

Test(run, passes_the_exit_code_of_the_first_to_fail_on) {
  const char *folder = ts_folder();
  command command = command_in(folder);
  WITH(&command, "--workers", "3", script(folder, "p", "if [ $RANK = 1 ]; then echo no luck; exit 7; fi; sleep 60"));
  const double begin = ts_now_s();
  const ts_result result = run(&command);
  EXITS(result, 7);
  HAS(result.err, "rank 1 ended with exit code 7");
  HAS(result.err, "no luck");
  cr_assert_lt(ts_now_s() - begin, 5, "the others are ended with it");
  const json_t *summary = summary_of(folder, "p");
  cr_assert_str_eq(ts_json_text(summary, "status"), "failed");
  HAS(ts_json_text(summary, "cause"), "rank 1");
  cr_assert_eq(ts_json_number(summary, "exit_code"), 7);
}

Test(run, gives_128_and_the_signal) {
  const char *folder = ts_folder();
  command command = command_in(folder);
  WITH(&command, "--workers", "2", script(folder, "p", "if [ $RANK = 0 ]; then kill -SEGV $$; fi; sleep 60"));
  const ts_result result = run(&command);
  EXITS(result, 128 + SIGSEGV);
  HAS(result.err, "rank 0 was killed by SIGSEGV");
}

Test(run, restarts_all_workers_of_a_command) {
  const char *folder = ts_folder();
  script(folder, "p",
         "echo attempt $TORCHELASTIC_RESTART_COUNT of $TORCHELASTIC_MAX_RESTARTS port $MASTER_PORT\n"
         "[ $RANK = 1 ] && [ $TORCHELASTIC_RESTART_COUNT -lt 2 ] && exit 9\n"
         "[ $TORCHELASTIC_RESTART_COUNT -lt 2 ] && sleep 60\nexit 0");
  const char job[] =
      "name = \"j\"\ncommand = [\"./p\"]\n[cluster]\nworkers-per-node = 2\n[failure]\nmax-restarts = 2\n";
  ts_file_write(ts_format("%s/job.toml", folder), job, strlen(job));
  command command = command_in(folder);
  add(&command, "job.toml");
  const ts_result result = run(&command);
  EXITS(result, 0);
  HAS(result.err, "restart 1 of 2");
  HAS(result.err, "restart 2 of 2");
  HAS(result.out, "[0/0] attempt 2 of 2");
  const char *folder_of_run = only_run(folder, "j");
  cr_assert(ts_exists(ts_format("%s/logs/attempt_3/1.log", folder_of_run)));
  const json_t *summary = summary_of(folder, "j");
  cr_assert_eq(ts_json_number(summary, "restarts"), 2);
  char *events = ts_file_read(ts_format("%s/events.jsonl", folder_of_run), NULL);
  HAS(events, "\"event\": \"failure\"");
  HAS(events, "\"event\": \"restart\"");
  HAS(events, "\"event\": \"end\"");
}

Test(run, does_not_restart_a_bare_program_unless_asked) {
  const char *folder = ts_folder();
  const char *program = script(folder, "p", "echo once; exit 5");
  command plain = command_in(folder), asked = command_in(folder);
  WITH(&plain, "--workers", "1", "--fresh", program);
  ts_result result = run(&plain);
  EXITS(result, 5);
  HAS_NOT(result.err, "restart");
  WITH(&asked, "--workers", "1", "--fresh", "--set", "failure.max-restarts=1", program);
  result = run(&asked);
  EXITS(result, 5);
  HAS(result.err, "restart 1 of 1");
}

static ts_result signalled(const char *body, int number, int times) {
  const char *folder = ts_folder();
  command command = command_in(folder);
  WITH(&command, "--workers", "2", script(folder, "p", body));
  ts_process process = start(&command);
  wait_for(process.out_path, "[0/0] ready");
  wait_for(process.out_path, "[0/1] ready");
  for (int i = 0; i < times; i++) {
    kill(process.pid, number);
    ts_sleep_s(0.1);
  }
  return ts_finish(&process, 20);
}

Test(run, forwards_a_stop_and_ends_preempted_or_stopped) {
  const char *polite = "trap 'echo bye; exit 0' TERM INT; echo ready; while :; do sleep 0.05; done";
  ts_result result = signalled(polite, SIGTERM, 1);
  EXITS(result, 75);
  HAS(result.out, "[0/1] bye");
  result = signalled(polite, SIGINT, 1);
  EXITS(result, 130);
  HAS(result.out, "[0/0] bye");
}

Test(run, stops_at_once_on_the_second_interrupt) {
  const ts_result result = signalled("trap '' TERM INT; echo ready; while :; do sleep 0.05; done", SIGINT, 2);
  EXITS(result, 130);
  cr_assert_lt(result.seconds, 10);
}

Test(run, leaves_no_grandchild_behind) {
  const char *folder = ts_folder();
  command command = command_in(folder);
  const char *mark = ts_format("%d.75", (int)getpid() + 100000);
  WITH(&command, "--workers", "2",
       script(folder, "p", ts_format("sleep %s & (setsid sleep %s &) ; sleep 0.1; exit 3", mark, mark)));
  const ts_result result = run(&command);
  EXITS(result, 3);
  const char *const look[] = {"pgrep", "-f", ts_format("^sleep %s", mark), NULL};
  const ts_result found = ts_run(look, NULL);
  cr_assert_eq(found.exit_code, 1, "left: %s", found.out);
}

Test(run, writes_one_json_object_a_line) {
  const char *folder = ts_folder();
  command command = command_in(folder);
  WITH(&command, "--json", "--workers", "2", script(folder, "p", "echo 'a \"b\"'"));
  const ts_result result = run(&command);
  EXITS(result, 0);
  size_t outputs = 0, summaries = 0;
  for (char *line = strtok(result.out, "\n"); line != NULL; line = strtok(NULL, "\n")) {
    json_t *root = json_loads(line, 0, NULL);
    cr_assert(json_is_object(root), "no JSON: %s", line);
    const char *type = json_string_value(json_object_get(root, "type"));
    if (strcmp(type, "output") == 0) {
      outputs++;
      cr_assert_str_eq(json_string_value(json_object_get(root, "line")), "a \"b\"");
    }
    summaries += strcmp(type, "summary") == 0;
    json_decref(root);
  }
  cr_assert_eq(outputs, 2);
  cr_assert_eq(summaries, 1);
}

Test(run, leaves_a_finished_run_as_it_is) {
  const char *folder = ts_folder();
  const char *program = script(folder, "p", "echo working");
  for (int i = 0; i < 2; i++) {
    command command = command_in(folder);
    WITH(&command, "--workers", "1", "--run-id", "2-mine", program);
    const ts_result result = run(&command);
    EXITS(result, 0);
    if (i == 0) {
      HAS(result.out, "working");
    } else {
      HAS_NOT(result.out, "working");
      HAS(result.err, "done");
    }
  }
}

Test(run, refuses_a_second_job_of_the_same_name) {
  const char *folder = ts_folder();
  const char *program = script(folder, "p", "echo ready; sleep 30");
  command first = command_in(folder), second = command_in(folder);
  WITH(&first, "--workers", "1", program);
  WITH(&second, "--workers", "1", program);
  ts_process process = start(&first);
  wait_for(process.out_path, "ready");
  const ts_result result = run(&second);
  EXITS(result, 69);
  HAS(result.err, ts_format("pid %d", (int)process.pid));
  kill(process.pid, SIGINT);
  ts_finish(&process, 20);
}

Test(run, gives_env_set_to_the_workers_and_takes_an_outer_launcher_away) {
  static const char *const environment[] = {"OMPI_COMM_WORLD_RANK=3", "SLURM_PROCID=3", "KEPT=yes", NULL};
  const char *folder = ts_folder();
  script(folder, "p", "echo \"$WORD,$NUMBER,$KEPT,$OMPI_COMM_WORLD_RANK,$SLURM_PROCID\"");
  const char job[] = "command = [\"./p\"]\n[env]\nset = { WORD = \"two words\", NUMBER = 7 }\n";
  ts_file_write(ts_format("%s/job.toml", folder), job, strlen(job));
  command command = command_in(folder);
  command.options.environment = environment;
  WITH(&command, "--workers", "1", "job.toml");
  const ts_result result = run(&command);
  EXITS(result, 0);
  HAS(result.out, "[0/0] two words,7,yes,,\n");
}

Test(run, lists_watches_and_stops_a_running_job) {
  const char *folder = ts_folder();
  command job = command_in(folder), ps = command_in(folder), stop = command_in(folder), wait = command_in(folder);
  command logs = command_in(folder);
  WITH(&job, "--workers", "2", script(folder, "p", "trap 'exit 0' TERM; echo ready; while :; do sleep 0.05; done"));
  ts_process process = start(&job);
  wait_for(process.out_path, "[0/0] ready");
  wait_for(process.out_path, "[0/1] ready");
  WITH(&ps, "ps", "--json");
  const ts_result listed = run(&ps);
  EXITS(listed, 0);
  json_t *list = json_loads(listed.out, 0, NULL);
  size_t mine = 0;
  for (size_t i = 0; i < json_array_size(list); i++) {
    mine += json_integer_value(json_object_get(json_array_get(list, i), "pid")) == process.pid;
  }
  cr_assert_eq(mine, 1);
  json_decref(list);
  WITH(&logs, "logs", "p", "--rank", "1");
  const ts_result printed = run(&logs);
  EXITS(printed, 0);
  cr_assert_str_eq(printed.out, "[0/1] ready\n");
  WITH(&stop, "stop", "p");
  const ts_result stopped = run(&stop);
  EXITS(stopped, 0);
  WITH(&wait, "wait", "p");
  const ts_result waited = run(&wait);
  EXITS(waited, 0);
  HAS(waited.out, "stopped");
  const ts_result result = ts_finish(&process, 20);
  EXITS(result, 0);
}
