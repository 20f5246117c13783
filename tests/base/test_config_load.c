/* Reading jobs: defaults, types, precedence, ${NAME}, paths. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>
#include <trainrun/clock.h>
#include <trainrun/config.h>

typedef struct given {
  const char *text;
  const char *directory;
  const tr_override *overrides;
  size_t override_count;
  const char *const *environment;
} given;

static tr_config *load(given g) {
  const tr_config_source source = {
      .struct_bytes = sizeof source,
      .text = g.text,
      .text_bytes = g.text != NULL ? strlen(g.text) : 0,
      .name = "job.toml",
      .directory = g.directory,
      .overrides = g.overrides,
      .override_count = g.override_count,
      .environment = g.environment,
  };
  tr_config *config = NULL;
  tr_error error = {.message = ""};
  const tr_status status = tr_config_load(&source, NULL, &config, &error);
  cr_assert_eq(status, TR_OK, "%s", error.message);
  return config;
}

static tr_config *load_text(const char *text) { return load((given){.text = text}); }

Test(config_load, a_job_without_a_file_has_every_default) {
  tr_config *c = load((given){0});
  cr_assert_null(tr_config_text(c, "program"));
  cr_assert_eq(tr_config_integer(c, "seed"), 0);
  cr_assert_eq(tr_config_integer(c, "data.batch-size"), 64);
  cr_assert_eq(tr_config_integer(c, "train.epochs"), 1);
  cr_assert_eq(tr_config_integer(c, "train.micro-batch"), 0, "auto reads as 0");
  cr_assert_eq(tr_config_integer(c, "cluster.workers-per-node"), 0);
  cr_assert_eq(tr_config_real(c, "optimizer.lr"), 1e-3);
  cr_assert_eq(tr_config_real(c, "optimizer.eps"), 1e-8);
  cr_assert_eq(tr_config_real(c, "optimizer.weight-decay"), 0.01);
  cr_assert_eq(tr_config_real(c, "optimizer.momentum"), 0);
  cr_assert_eq(tr_config_real(c, "train.grad-clip"), 0);
  cr_assert_str_eq(tr_config_text(c, "optimizer.name"), "adamw");
  cr_assert_str_eq(tr_config_text(c, "optimizer.schedule"), "constant");
  cr_assert_str_eq(tr_config_text(c, "data.shuffle"), "true");
  cr_assert_str_eq(tr_config_text(c, "data.on-corrupt"), "stop");
  cr_assert_str_eq(tr_config_text(c, "train.precision"), "fp32");
  cr_assert_str_eq(tr_config_text(c, "checkpoint.resume"), "auto");
  cr_assert_str_eq(tr_config_text(c, "run-dir"), "runs");
  cr_assert_eq(tr_config_bytes(c, "data.prefetch"), UINT64_C(256) << 20);
  cr_assert_eq(tr_config_duration_ns(c, "failure.hang-timeout"), UINT64_C(60000000000));
  cr_assert_eq(tr_config_integer(c, "failure.max-restarts"), 3);
  cr_assert_eq(tr_config_integer(c, "checkpoint.keep.last"), 2);
  cr_assert(tr_config_boolean(c, "metrics.jsonl"));
  cr_assert_eq(tr_config_every(c, "metrics.log-every").steps, 10);
  cr_assert_eq(tr_config_every(c, "train.eval-every").epochs, 1);
  const tr_every never = tr_config_every(c, "checkpoint.every");
  cr_assert(never.steps == 0 && never.epochs == 0 && never.time_ns == 0 && never.samples == 0 && never.tokens == 0);
  const tr_value *betas = tr_config_find(c, "optimizer.betas");
  cr_assert(betas->count == 2 && betas->items[0].real == 0.9 && betas->items[1].real == 0.999);
  cr_assert_eq(tr_config_strings(c, "data.transforms", NULL), 0);
  cr_assert(!tr_config_is_set(c, "seed"));
  cr_assert_str_eq(tr_config_origin(c, "seed"), "default");
  tr_config_destroy(c);
}

Test(config_load, decay_is_zero_for_sgd_unless_given) {
  tr_config *c = load_text("[optimizer]\nname = \"sgd\"\n");
  cr_assert_eq(tr_config_real(c, "optimizer.weight-decay"), 0);
  tr_config_destroy(c);
  c = load_text("[optimizer]\nname = \"sgd\"\nweight-decay = 0.5\n");
  cr_assert_eq(tr_config_real(c, "optimizer.weight-decay"), 0.5);
  tr_config_destroy(c);
}

Test(config_load, every_type_is_converted) {
  tr_config *c = load_text(
      "name = \"x-1\"\nseed = 7\ncommand = \"a\"\n"
      "[cluster]\nworkers-per-node = 4\ndevice = \"cpu\"\nhosts = [\"n1\", \"n2:4\"]\n"
      "[checkpoint]\nevery = \"200 steps\"\nkeep = { last = 5, best = \"min loss\" }\n"
      "[failure]\nhang-timeout = \"1.5m\"\n[metrics]\njsonl = false\nlog-every = \"30s\"\n");
  const char *const *items;
  cr_assert_str_eq(tr_config_text(c, "name"), "x-1");
  cr_assert_eq(tr_config_integer(c, "seed"), 7);
  cr_assert_eq(tr_config_strings(c, "command", &items), 1, "a string is a list of one");
  cr_assert_str_eq(items[0], "a");
  cr_assert_eq(tr_config_integer(c, "cluster.workers-per-node"), 4);
  cr_assert_eq(tr_config_strings(c, "cluster.hosts", &items), 2);
  cr_assert_str_eq(items[1], "n2:4");
  cr_assert_eq(tr_config_every(c, "checkpoint.every").steps, 200);
  cr_assert_eq(tr_config_integer(c, "checkpoint.keep.last"), 5);
  cr_assert_str_eq(tr_config_text(c, "checkpoint.keep.best"), "min loss");
  cr_assert_eq(tr_config_duration_ns(c, "failure.hang-timeout"), UINT64_C(90000000000));
  cr_assert(!tr_config_boolean(c, "metrics.jsonl"));
  cr_assert_eq(tr_config_every(c, "metrics.log-every").time_ns, UINT64_C(30000000000));
  tr_config_destroy(c);
}

Test(config_load, intervals_have_five_units) {
  static const struct {
    const char *text;
    tr_every every;
  } cases[] = {
      {"1 epoch", {.epochs = 1}},
      {"0.5 epochs", {.epochs = 0.5}},
      {"1 step", {.steps = 1}},
      {"200 steps", {.steps = 200}},
      {"50000 samples", {.samples = 50000}},
      {"1 sample", {.samples = 1}},
      {"1000000 tokens", {.tokens = 1000000}},
      {"10m", {.time_ns = UINT64_C(600000000000)}},
      {"never", {.epochs = 0}},
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    char text[100];
    snprintf(text, sizeof text, "[checkpoint]\nevery = \"%s\"\n", cases[i].text);
    tr_config *c = load_text(text);
    const tr_every e = tr_config_every(c, "checkpoint.every");
    cr_assert(e.epochs == cases[i].every.epochs && e.steps == cases[i].every.steps &&
                  e.samples == cases[i].every.samples && e.tokens == cases[i].every.tokens &&
                  e.time_ns == cases[i].every.time_ns,
              "%s", cases[i].text);
    tr_config_destroy(c);
  }
}

Test(config_load, shuffle_takes_booleans_and_full) {
  static const char *const given_and_read[][2] = {{"true", "true"}, {"false", "false"}, {"\"full\"", "full"}};
  for (int i = 0; i < 3; i++) {
    char text[60];
    snprintf(text, sizeof text, "[data]\nshuffle = %s\n", given_and_read[i][0]);
    tr_config *c = load_text(text);
    cr_assert_str_eq(tr_config_text(c, "data.shuffle"), given_and_read[i][1]);
    tr_config_destroy(c);
  }
}

Test(config_load, the_tree_keeps_places_and_the_order_of_the_file) {
  tr_config *c = load_text("[params]\nz = 1\na = [true, 2.5, \"t\"]\n  m = { y = 1, b = 2 }\n");
  const tr_value *params = tr_config_find(c, "params");
  cr_assert_eq(params->count, 3);
  cr_assert_str_eq(params->items[0].key, "z");
  cr_assert_str_eq(params->items[1].key, "a");
  cr_assert_str_eq(params->items[2].key, "m");
  cr_assert(params->items[2].key_place.line == 4 && params->items[2].key_place.column == 3);
  cr_assert_str_eq(params->items[2].items[0].key, "y");
  const tr_value *a = tr_value_get(params, "a");
  cr_assert(a->type == TR_VALUE_ARRAY && a->count == 3);
  cr_assert(a->items[0].type == TR_VALUE_BOOLEAN && a->items[0].integer == 1);
  cr_assert(a->items[1].type == TR_VALUE_REAL && a->items[1].real == 2.5);
  cr_assert(a->items[2].type == TR_VALUE_STRING && strcmp(a->items[2].text, "t") == 0);
  cr_assert(a->items[1].place.line == 3 && a->items[1].place.column == 12);
  cr_assert_eq(tr_config_find(c, "params.m.b")->integer, 2);
  cr_assert_null(tr_config_find(c, "params.m.c"));
  cr_assert_null(tr_config_find(c, "params.z.c"));
  cr_assert_null(tr_value_get(NULL, "x"));
  cr_assert_str_eq(tr_config_origin(c, "params.m"), "job.toml:4:3");
  tr_config_destroy(c);
}

Test(config_load, tables_of_data_are_read) {
  tr_config *c = load_text(
      "[[data.train]]\nname = \"a\"\nurl = \"x.csv\"\nweight = 2\n[[data.train]]\nurl = [\"y\", \"z\"]\n"
      "format = \"csv\"\nfields = { image = \"png\" }\n[data.valid.test]\nurl = \"v\"\n");
  const tr_value *train = tr_config_find(c, "data.train");
  cr_assert(train->type == TR_VALUE_ARRAY && train->count == 2);
  cr_assert_str_eq(tr_value_get(&train->items[0], "name")->text, "a");
  cr_assert_str_eq(tr_config_find(c, "data.valid.test.url")->text, "v");
  tr_config_destroy(c);
}

Test(config_load, storage_tables_have_any_name) {
  tr_config *c = load_text(
      "[storage.lake]\nendpoint = \"http://h\"\npath-style = true\nbuckets = [\"a\"]\n"
      "access-key = { env = \"X\" }\n[storage.b2]\nregion = \"r\"\n");
  cr_assert_str_eq(tr_config_text(c, "storage.lake.endpoint"), "http://h");
  cr_assert(tr_config_boolean(c, "storage.lake.path-style"));
  cr_assert_eq(tr_config_strings(c, "storage.lake.buckets", NULL), 1);
  cr_assert_str_eq(tr_config_find(c, "storage.lake.access-key.env")->text, "X");
  cr_assert_null(tr_config_text(c, "storage.b2.endpoint"));
  cr_assert_str_eq(tr_config_text(c, "storage.b2.region"), "r");
  cr_assert_null(tr_config_text(c, "storage.nobody.region"));
  cr_assert(tr_config_is_set(c, "storage.lake.endpoint") && !tr_config_is_set(c, "storage.b2.endpoint"));
  tr_config_destroy(c);
}

/* ---- Precedence ------------------------------------------------------------------------------------------------- */

Test(config_load, a_flag_wins_over_the_environment_over_the_file_over_the_default) {
  static const char *const environment[] = {"TRAINRUN_SEED=2", "TRAINRUN_DATA_BATCH_SIZE=20", "HOME=/x", NULL};
  const tr_override flags[] = {{"seed", "3", NULL}};
  const char *text = "seed = 1\n[data]\nbatch-size = 10\nstreams = 5\n";
  tr_config *c = load((given){.text = text, .overrides = flags, .override_count = 1, .environment = environment});
  cr_assert_eq(tr_config_integer(c, "seed"), 3);
  cr_assert_eq(tr_config_integer(c, "data.batch-size"), 20);
  cr_assert_eq(tr_config_integer(c, "data.streams"), 5);
  cr_assert_str_eq(tr_config_origin(c, "seed"), "flag --set");
  cr_assert_str_eq(tr_config_origin(c, "data.batch-size"), "environment TRAINRUN_DATA_BATCH_SIZE");
  cr_assert_str_eq(tr_config_origin(c, "data.streams"), "job.toml:4:1");
  cr_assert_str_eq(tr_config_origin(c, "data.prefetch"), "default");
  tr_config_destroy(c);
}

Test(config_load, the_last_flag_wins_and_knows_its_name) {
  const tr_override flags[] = {{"cluster.workers-per-node", "3", "--workers"},
                               {"cluster.workers_per_node", "4", "--gpus"}};
  tr_config *c = load((given){.overrides = flags, .override_count = 2});
  cr_assert_eq(tr_config_integer(c, "cluster.workers-per-node"), 4);
  cr_assert_str_eq(tr_config_origin(c, "cluster.workers-per-node"), "flag --gpus");
  tr_config_destroy(c);
}

Test(config_load, flags_are_toml_or_else_text) {
  const tr_override flags[] = {
      {"name", "123", NULL},
      {"program", "./a b", NULL},
      {"data.train", "[\"a\", \"b\"]", NULL},
      {"data.fields", "{ image = \"png\" }", NULL},
      {"data.transforms", "flip", NULL},
      {"train.early-stop.metric", "\"loss\"", NULL},
      {"params.width", "32", NULL},
      {"params.rate", "1.5", NULL},
      {"params.kind", "big one", NULL},
      {"params.on", "true", NULL},
      {"params.my_key", "1", NULL},
      {"env.set.NCCL_DEBUG", "INFO", NULL},
      {"storage.lake.endpoint", "http://127.0.0.1:9000", NULL},
      {"data.shuffle", "full", NULL},
      {"metrics.jsonl", "false", NULL},
      {"model.init", "s3://${B}/x", NULL},
  };
  tr_config *c = load((given){.overrides = flags, .override_count = sizeof flags / sizeof *flags});
  cr_assert_str_eq(tr_config_text(c, "name"), "123");
  cr_assert_str_eq(tr_config_text(c, "program"), "./a b");
  cr_assert_eq(tr_config_find(c, "data.train")->count, 2);
  cr_assert_str_eq(tr_config_find(c, "data.fields.image")->text, "png");
  cr_assert_eq(tr_config_strings(c, "data.transforms", NULL), 1);
  cr_assert_str_eq(tr_config_text(c, "train.early-stop.metric"), "loss");
  cr_assert_eq(tr_config_find(c, "params.width")->type, TR_VALUE_INTEGER);
  cr_assert_eq(tr_config_find(c, "params.rate")->real, 1.5);
  cr_assert_str_eq(tr_config_find(c, "params.kind")->text, "big one");
  cr_assert_eq(tr_config_find(c, "params.on")->type, TR_VALUE_BOOLEAN);
  cr_assert_not_null(tr_config_find(c, "params.my_key"), "members of [params] keep their underscores");
  cr_assert_str_eq(tr_config_find(c, "env.set.NCCL_DEBUG")->text, "INFO");
  cr_assert_str_eq(tr_config_text(c, "storage.lake.endpoint"), "http://127.0.0.1:9000");
  cr_assert_str_eq(tr_config_text(c, "data.shuffle"), "full");
  cr_assert(!tr_config_boolean(c, "metrics.jsonl"));
  cr_assert_str_eq(tr_config_text(c, "model.init"), "s3://${B}/x", "flags are not interpolated");
  tr_config_destroy(c);
}

Test(config_load, a_flag_cannot_smuggle_in_a_second_key) {
  const tr_override flags[] = {{"params.a", "1\nseed = 5", NULL}};
  tr_config *c = load((given){.overrides = flags, .override_count = 1});
  cr_assert_str_eq(tr_config_find(c, "params.a")->text, "1\nseed = 5");
  cr_assert_eq(tr_config_integer(c, "seed"), 0);
  tr_config_destroy(c);
}

Test(config_load, variables_reach_params_and_named_tables) {
  static const char *const environment[] = {"TRAINRUN_PARAMS_WIDTH=64",
                                            "TRAINRUN_PARAMS_HIDDEN_SIZE=9",
                                            "TRAINRUN_PARAMS_DROP_OUT=0.5",
                                            "TRAINRUN_STORAGE_LAKE_REGION=eu",
                                            "TRAINRUN_RUN_DIR=/tmp/r",
                                            "TRAINRUN_CHECKPOINT_KEEP_LAST=7",
                                            "TRAINRUN_DATA_TRAIN=[\"a\", \"b\"]",
                                            "TRAINRUN_NAME=",
                                            NULL};
  tr_config *c = load((given){.text = "[params]\nhidden_size = 1\n", .environment = environment});
  cr_assert_eq(tr_config_find(c, "params.width")->integer, 64);
  cr_assert_eq(tr_config_find(c, "params.hidden_size")->integer, 9, "the spelling of the file is found");
  cr_assert_eq(tr_config_find(c, "params.drop-out")->real, 0.5);
  cr_assert_str_eq(tr_config_text(c, "storage.lake.region"), "eu");
  cr_assert_str_eq(tr_config_text(c, "run-dir"), "/tmp/r");
  cr_assert_eq(tr_config_integer(c, "checkpoint.keep.last"), 7);
  cr_assert_eq(tr_config_find(c, "data.train")->count, 2);
  cr_assert(!tr_config_is_set(c, "name"), "an empty variable counts as unset");
  tr_config_destroy(c);
}

Test(config_load, our_own_variables_set_nothing_and_unknown_ones_are_warned_about) {
  static const char *const environment[] = {"TRAINRUN_WORKER_RANK=3",
                                            "TRAINRUN_JOB=x.toml",
                                            "TRAINRUN_SOURCE_DIR=/x",
                                            "TRAINRUN_TEST_LONG=1",
                                            "TRAINRUN_SEEED=1",
                                            "TRAINRUN_BATCH_SIZE=5",
                                            NULL};
  const tr_config_source source = {.struct_bytes = sizeof source, .environment = environment};
  tr_diagnostics *d;
  tr_config *c = NULL;
  cr_assert_eq(tr_diagnostics_create(NULL, &d, NULL), TR_OK);
  cr_assert_eq(tr_config_load(&source, d, &c, NULL), TR_OK);
  cr_assert_eq(tr_diagnostics_errors(d), 0);
  cr_assert_eq(tr_diagnostics_count(d), 2);
  cr_assert(tr_diagnostics_at(d, 0)->warning);
  cr_assert_not_null(strstr(tr_diagnostics_at(d, 0)->message, "TRAINRUN_SEEED"));
  cr_assert_str_eq(tr_diagnostics_at(d, 0)->hint, "did you mean 'TRAINRUN_SEED'?");
  cr_assert_str_eq(tr_diagnostics_at(d, 1)->hint, "did you mean 'TRAINRUN_DATA_BATCH_SIZE'?");
  tr_config_destroy(c);
  tr_diagnostics_destroy(d);
}

Test(config_load, a_length_from_a_flag_replaces_the_files) {
  const tr_override flags[] = {{"train.steps", "10", NULL}};
  tr_config *c = load((given){.text = "[train]\nepochs = 5\n", .overrides = flags, .override_count = 1});
  cr_assert_eq(tr_config_integer(c, "train.steps"), 10);
  cr_assert(!tr_config_is_set(c, "train.epochs"));
  cr_assert_eq(tr_config_integer(c, "train.epochs"), 0);
  tr_config_destroy(c);
}

/* ---- ${NAME} ---------------------------------------------------------------------------------------------------- */

Test(config_load, names_in_strings_come_from_the_environment_and_convert) {
  static const char *const environment[] = {"BUCKET=fashion", "BS=32", "EMPTY=", "CLIP=0.5", "JSONL=false", NULL};
  tr_config *c = load((given){
      .text =
          "seed = \"${SEED:-9}\"\n[data]\ntrain = \"s3://${BUCKET}/a-${EMPTY:-x}-$${y}$z\"\nbatch-size = \"${BS}\"\n"
          "prefetch = \"${P:-1}MiB\"\n[train]\ngrad-clip = \"${CLIP}\"\n[metrics]\njsonl = \"${JSONL}\"\n"
          "[params]\nwidth = \"${W:-32}\"\nname = \"n${BS}\"\nrate = \"${R:--1.5}\"\n",
      .environment = environment});
  cr_assert_eq(tr_config_integer(c, "seed"), 9);
  cr_assert_str_eq(tr_config_find(c, "data.train")->text, "s3://fashion/a-x-${y}$z");
  cr_assert_eq(tr_config_integer(c, "data.batch-size"), 32);
  cr_assert_eq(tr_config_bytes(c, "data.prefetch"), 1 << 20);
  cr_assert_eq(tr_config_real(c, "train.grad-clip"), 0.5);
  cr_assert(!tr_config_boolean(c, "metrics.jsonl"));
  cr_assert_eq(tr_config_find(c, "params.width")->integer, 32);
  cr_assert_str_eq(tr_config_find(c, "params.name")->text, "n32");
  cr_assert_eq(tr_config_find(c, "params.rate")->real, -1.5);
  tr_config_destroy(c);
}

/* ---- Paths ------------------------------------------------------------------------------------------------------ */

static void check_path(const tr_config *c, const char *key, const char *path, const char *expected) {
  char *got = tr_config_path(c, NULL, key, path);
  cr_assert_str_eq(got, expected);
  tr_free(NULL, got);
}

Test(config_load, paths_of_the_file_are_relative_to_it_and_those_of_flags_are_not) {
  const tr_override flags[] = {{"model.init", "m", NULL}};
  tr_config *c = load((given){.text = "run-dir = \"r\"\n[data]\ntrain = \"a.csv\"\n[data.valid.x]\nurl = \"b\"\n",
                              .directory = "jobs/one",
                              .overrides = flags,
                              .override_count = 1});
  check_path(c, "data.train", "a.csv", "jobs/one/a.csv");
  check_path(c, "data.train", "./a.csv", "jobs/one/a.csv");
  check_path(c, "data.train", "../a.csv", "jobs/one/../a.csv");
  check_path(c, "data.train", "/a.csv", "/a.csv");
  check_path(c, "data.train", "s3://b/a.csv", "s3://b/a.csv");
  check_path(c, "data.valid.x.url", "b", "jobs/one/b");
  check_path(c, "run-dir", "r", "r");
  check_path(c, "model.init", "m", "m");
  tr_config_destroy(c);
}

Test(config_load, without_a_directory_paths_stay_as_they_are) {
  tr_config *c = load_text("[data]\ntrain = \"a.csv\"\n");
  check_path(c, "data.train", "a.csv", "a.csv");
  tr_config_destroy(c);
}

Test(config_load, an_all_default_job_loads_in_well_under_a_millisecond) {
  uint64_t best = UINT64_MAX;
  for (int i = 0; i < 20; i++) {
    const uint64_t begin = tr_clock_now_ns(NULL);
    tr_config *c = load((given){0});
    const uint64_t took = tr_clock_now_ns(NULL) - begin;
    if (took < best) best = took;
    tr_config_destroy(c);
  }
  cr_assert_lt(best, 1000000, "%llu ns", (unsigned long long)best);
}
