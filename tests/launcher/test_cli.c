/* What is typed: flags, aliases, mistakes, things that are not there. */
#include "command.h"

#include <stdio.h>
#include <unistd.h>

static ts_result call(const char *a, const char *b, const char *c, const char *d) {
  command command = command_in(ts_folder());
  const char *words[] = {a, b, c, d};
  for (size_t i = 0; i < 4 && words[i] != NULL; i++) add(&command, words[i]);
  return run(&command);
}

Test(cli, suggests_the_nearest_flag) {
  const ts_result result = call("--wrokers", "2", "x", NULL);
  EXITS(result, 2);
  HAS(result.err, "unknown flag --wrokers");
  HAS(result.err, "did you mean --workers?");
}

Test(cli, knows_torchruns_names_and_underscores) {
  static const char *const spellings[] = {"--workers=3", "--nproc-per-node=3", "--nproc_per_node=3",
                                          "--workers-per-node=3"};
  const char *folder = ts_folder(), *program = script(folder, "p", "exit 0");
  for (size_t i = 0; i < sizeof spellings / sizeof *spellings; i++) {
    command command = command_in(folder);
    WITH(&command, "--dry-run", spellings[i], program);
    const ts_result result = run(&command);
    EXITS(result, 0);
    HAS(result.out, "1 node x 3 = 3 workers, cpu, shm, launched locally");
  }
}

Test(cli, leaves_what_follows_the_program_to_the_program) {
  const char *folder = ts_folder();
  static const char *const separators[] = {NULL, "--"};
  for (size_t i = 0; i < 2; i++) {
    command command = command_in(folder);
    WITH(&command, "run", "--quiet", "--fresh", "--workers", "1", script(folder, "p", "echo \"$@\""));
    if (separators[i] != NULL) add(&command, separators[i]);
    WITH(&command, "--workers", "7", "--help");
    const ts_result result = run(&command);
    EXITS(result, 0);
    cr_assert_str_eq(result.out, "[0/0] --workers 7 --help\n");
    cr_assert_str_eq(result.err, "");
  }
}

Test(cli, has_help_with_an_example_everywhere) {
  static const char *const names[] = {"run",  "eval", "check", "schema",     "init", "ps",    "status", "logs",
                                      "wait", "stop", "ckpt",  "completion", "help", "store", "data",   "plan"};
  ts_result result = call("--help", NULL, NULL, NULL);
  EXITS(result, 0);
  HAS(result.out, "Example");
  for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
    result = call(names[i], "--help", NULL, NULL);
    EXITS(result, 0);
    HAS(result.out, "Example");
    HAS(result.out, names[i]);
  }
}

Test(cli, says_its_version) {
  const ts_result result = call("--version", NULL, NULL, NULL);
  EXITS(result, 0);
  HAS(result.out, "trainrun 0.");
}

Test(cli, answers_planned_for_what_comes_later) {
  static const char *const names[] = {"agent", "render", "bench", "doctor", "plan"};
  for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
    const ts_result result = call(names[i], "--whatever", "x", NULL);
    EXITS(result, 69);
    HAS(result.err, "planned, not in this version");
  }
}

Test(cli, says_what_gpus_are_missing) {
  const char *folder = ts_folder();
  command command = command_in(folder);
  if (access("/dev/nvidia0", F_OK) == 0) cr_skip("this machine has GPUs");
  WITH(&command, "--gpus", "2", script(folder, "p", "exit 0"));
  const ts_result result = run(&command);
  EXITS(result, 69);
  HAS(result.err, "job asks for 2 GPUs a node, this node has 0; use --workers 2 to train on the CPU");
}

Test(cli, names_three_ways_to_give_nodes) {
  const char *folder = ts_folder();
  command command = command_in(folder);
  WITH(&command, "--nnodes", "4", script(folder, "p", "exit 0"));
  const ts_result result = run(&command);
  EXITS(result, 69);
  HAS(result.err, "salloc");
  HAS(result.err, "mpirun");
  HAS(result.err, "--hosts");
}

Test(cli, refuses_to_start_one_job_a_task) {
  static const char *const environment[] = {"OMPI_COMM_WORLD_SIZE=2", NULL};
  const char *folder = ts_folder();
  command command = command_in(folder);
  command.options.environment = environment;
  WITH(&command, "--workers", "2", script(folder, "p", "echo started"));
  const ts_result result = run(&command);
  EXITS(result, 69);
  HAS(result.err, "mpirun -np N PROGRAM JOB.toml");
  HAS_NOT(result.out, "started");
}

Test(cli, refuses_a_flag_of_another_subcommand) {
  const ts_result result = call("schema", "--fresh", NULL, NULL);
  EXITS(result, 2);
  HAS(result.err, "'schema' takes no --fresh");
}

Test(cli, wants_a_key_and_a_value_for_set) {
  const ts_result result = call("--set", "train.epochs", "x", NULL);
  EXITS(result, 2);
  HAS(result.err, "key=value");
}

Test(cli, says_that_a_program_is_not_there) {
  ts_result result = call("--workers", "2", "no-such-program", NULL);
  EXITS(result, 69);
  HAS(result.err, "cannot find the program 'no-such-program'");
  result = call("--workers", "2", "./no-such-program", NULL);
  EXITS(result, 69);
  HAS(result.err, "there is no such file");
}

Test(cli, says_that_a_job_file_is_not_there) {
  const ts_result result = call("no-such.toml", NULL, NULL, NULL);
  EXITS(result, 69);
  HAS(result.err, "no-such.toml");
}

/* ---- check, schema, init, completion ---- */

static const char *write_job(const char *folder, const char *text) {
  ts_file_write(ts_format("%s/job.toml", folder), text, strlen(text));
  return "job.toml";
}

Test(check, reports_every_mistake_and_starts_nothing) {
  const char *folder = ts_folder();
  const char *job = write_job(folder, "program = \"p\"\nsed = 1\n[train]\nepochs = \"two\"\n[optimzer]\nlr = 1\n");
  script(folder, "p", "echo started");
  for (int i = 0; i < 2; i++) {
    command command = command_in(folder);
    if (i == 0) add(&command, "check");
    add(&command, job);
    const ts_result result = run(&command);
    EXITS(result, 78);
    HAS(result.err, "job.toml:2:1");
    HAS(result.err, "seed");
    HAS(result.err, "job.toml:4:");
    HAS(result.err, "optimizer");
    HAS(result.err, "3 mistakes");
    HAS_NOT(result.out, "started");
    cr_assert_not(ts_exists(ts_format("%s/runs", folder)));
  }
}

Test(check, explains_where_each_value_came_from) {
  static const char *const environment[] = {"TRAINRUN_SEED=7", NULL};
  const char *folder = ts_folder();
  command command = command_in(folder);
  command.options.environment = environment;
  WITH(&command, "check", "--explain", "--set", "train.epochs=3", "--workers", "2",
       write_job(folder, "name = \"n\"\nprogram = \"p\"\n"));
  const ts_result result = run(&command);
  EXITS(result, 0);
  HAS(result.out, "flag --set");
  HAS(result.out, "flag --workers");
  HAS(result.out, "environment TRAINRUN_SEED");
  HAS(result.out, "job.toml:1:");
  HAS(result.out, "# default");
}

Test(check, asks_the_program_for_its_parameters) {
  const char *folder = ts_folder();
  script(folder, "p",
         "[ \"$1\" = --describe ] || exit 9\n"
         "echo '{\"program\": \"p\", \"params\": [{\"name\": \"width\", \"type\": \"integer\", \"default\": \"8\", "
         "\"help\": \"how wide\"}]}'");
  const char *job = write_job(folder, "program = \"./p\"\nsed = 1\n[params]\nwidht = 3\n[train]\nepochs = 1\n");
  command command = command_in(folder);
  WITH(&command, "check", job);
  ts_result result = run(&command);
  EXITS(result, 78);
  HAS(result.err, "2 mistakes");
  HAS(result.err, "job.toml:4:1: error: unknown parameter 'widht'");
  HAS(result.err, "did you mean 'width'?");
  write_job(folder, "program = \"./p\"\n[params]\nwidth = \"wide\"\n");
  result = run(&command);
  EXITS(result, 78);
  HAS(result.err, "job.toml:3:9: error: parameter 'width' must be an integer");
  write_job(folder, "program = \"./p\"\n[params]\nwidth = 3\n");
  result = run(&command);
  EXITS(result, 0);
}

Test(check, lists_mistakes_as_json) {
  const char *folder = ts_folder();
  command command = command_in(folder);
  WITH(&command, "check", "--json", write_job(folder, "program = \"p\"\nsed = 1\n"));
  const ts_result result = run(&command);
  EXITS(result, 78);
  json_t *root = json_loads(result.out, 0, NULL);
  cr_assert_eq(json_array_size(root), 1);
  cr_assert_eq(json_integer_value(json_object_get(json_array_get(root, 0), "line")), 2);
  json_decref(root);
}

Test(schema, is_json) {
  const ts_result result = call("schema", NULL, NULL, NULL);
  EXITS(result, 0);
  json_t *root = json_loads(result.out, 0, NULL);
  cr_assert(json_is_object(root));
  cr_assert_not_null(json_object_get(root, "properties"));
  json_decref(root);
}

Test(init, writes_jobs_that_check_finds_right) {
  const char *folder = ts_folder();
  ts_result result = call("init", NULL, NULL, NULL);
  EXITS(result, 0);
  ts_file_write(ts_format("%s/first.toml", folder), result.out, strlen(result.out));
  static const char *const lists[][4] = {{"init", "job", "a", NULL}, {"init", "sdk", "b", NULL}};
  for (size_t i = 0; i < 2; i++) {
    command command = command_in(folder);
    for (size_t j = 0; lists[i][j] != NULL; j++) add(&command, lists[i][j]);
    result = run(&command);
    EXITS(result, 0);
    result = run(&command);
    EXITS(result, 69); /* overwrites nothing */
    HAS(result.err, "--force");
  }
  static const char *const jobs[] = {"first.toml", "a/job.toml", "b/job.toml"};
  for (size_t i = 0; i < 3; i++) {
    command command = command_in(folder);
    WITH(&command, "check", jobs[i]);
    result = run(&command);
    EXITS(result, 0);
    HAS(result.out, "no mistakes");
  }
}

Test(init, writes_a_program_that_compiles) {
  const char *folder = ts_folder();
  command command = command_in(folder);
  WITH(&command, "init", "sdk", "b");
  const ts_result made = run(&command);
  EXITS(made, 0);
  const char *includes = ts_format(
      "for d in runtime ops collective dataloader checkpoint; do printf ' -I%s/%%s/api' $d; done", ts_source("."));
  const char *line = ts_format("cc -std=c17 -Wall -Werror -fsyntax-only $(%s) b/main.c", includes);
  const char *const words[] = {"sh", "-c", line, NULL};
  const ts_options options = {.folder = folder};
  const ts_result result = ts_run(words, &options);
  EXITS(result, 0);
}

Test(completion, is_accepted_by_bash) {
  static const char *const shells[] = {"bash", "zsh", "fish"};
  for (size_t i = 0; i < 3; i++) {
    const ts_result result = call("completion", shells[i], NULL, NULL);
    EXITS(result, 0);
    HAS(result.out, "workers");
    HAS(result.out, "ckpt");
    if (i > 0) continue;
    const char *path = ts_format("%s/completion.bash", ts_folder());
    ts_file_write(path, result.out, strlen(result.out));
    const char *test = ts_format(
        "source %s && COMP_WORDS=(trainrun che) COMP_CWORD=1 && _trainrun && echo ${COMPREPLY[@]}", path);
    const char *const words[] = {"bash", "-c", test, NULL};
    const ts_result bash = ts_run(words, NULL);
    EXITS(bash, 0);
    HAS(bash.out, "check");
  }
}
