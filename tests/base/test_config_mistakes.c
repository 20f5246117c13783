/* Mistakes in job files: each has a message, a place and, where there is one, the right key. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>
#include <trainrun/config.h>

typedef struct outcome {
  tr_status status;
  tr_diagnostics *diagnostics;
  tr_error error;
} outcome;

static outcome load_with(const char *text, const tr_override *flags, size_t count, const char *const *environment) {
  const tr_config_source source = {.struct_bytes = sizeof source,
                                   .text = text,
                                   .text_bytes = strlen(text),
                                   .name = "job.toml",
                                   .overrides = flags,
                                   .override_count = count,
                                   .environment = environment};
  outcome o = {0};
  tr_config *config = NULL;
  cr_assert_eq(tr_diagnostics_create(NULL, &o.diagnostics, NULL), TR_OK);
  o.status = tr_config_load(&source, o.diagnostics, &config, &o.error);
  cr_assert_eq(o.status == TR_OK, config != NULL);
  tr_config_destroy(config);
  return o;
}

static outcome load(const char *text) { return load_with(text, NULL, 0, NULL); }

/* Exactly one mistake, at a place, with a message and a hint that contain the given words; NULL: none. */
static void check_one(const char *text, uint32_t line, uint32_t column, const char *message, const char *hint) {
  outcome o = load(text);
  cr_assert_eq(o.status, TR_ERR_CONFIG, "accepted: %s", text);
  cr_assert_eq(tr_diagnostics_count(o.diagnostics), 1, "%s\n%zu: %s", text, tr_diagnostics_count(o.diagnostics),
               o.error.message);
  const tr_diagnostic *d = tr_diagnostics_at(o.diagnostics, 0);
  cr_assert_not_null(strstr(d->message, message), "%s\nsays: %s", text, d->message);
  cr_assert(d->place.line == line && d->place.column == column, "%s\nat %u:%u", text, d->place.line, d->place.column);
  if (hint != NULL) {
    cr_assert(d->hint != NULL && strstr(d->hint, hint) != NULL, "%s\nhints: %s", text, d->hint != NULL ? d->hint : "-");
  } else {
    cr_assert_null(d->hint, "%s\nhints: %s", text, d->hint);
  }
  tr_diagnostics_destroy(o.diagnostics);
}

Test(config_mistakes, an_unknown_key_names_the_nearest_right_one) {
  static const struct {
    const char *text, *key, *right;
    uint32_t line, column;
  } cases[] = {
      {"sede = 1", "sede", "'seed'", 1, 1},
      {"[train]\nepoch = 2", "epoch", "'epochs'", 2, 1},
      {"[train]\n  grad_clip = 2", "grad_clip", "'grad-clip'", 2, 3},
      {"[optimizer]\nlearning-rate = 2", "learning-rate", "'lr'", 2, 1},
      {"[optimizer]\nlerning-rate = 2", "lerning-rate", "'lr'", 2, 1},
      {"batch-size = 2", "batch-size", "'data.batch-size'", 1, 1},
      {"[train]\nbatch-size = 2", "batch-size", "'data.batch-size'", 2, 1},
      {"lr = 2", "lr", "'optimizer.lr'", 1, 1},
      {"[optimiser]\nlr = 2", "optimiser", "'optimizer'", 1, 2},
      {"[Train]\nsteps = 2", "Train", "'train'", 1, 2},
      {"[checkpoint]\nkeep-last = 2", "keep-last", "'keep.last'", 2, 1},
      {"[checkpoint]\nkeep = { lats = 2 }", "lats", "'last'", 2, 10},
      {"[storage.lake]\nendpiont = \"x\"", "endpiont", "'endpoint'", 2, 1},
      {"[cluster]\nnum-workers = 2", "num-workers", "'workers-per-node'", 2, 1},
      {"[data]\nshuffel = true", "shuffel", "'shuffle'", 2, 1},
      {"\"data.batch-size\" = 2", "data.batch-size", "data.batch-size without the quotes", 1, 1},
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    char message[100];
    snprintf(message, sizeof message, "unknown key '%s'", cases[i].key);
    check_one(cases[i].text, cases[i].line, cases[i].column, message, cases[i].right);
  }
}

Test(config_mistakes, a_key_like_no_other_gets_no_suggestion) {
  check_one("zzzzqqqq = 1", 1, 1, "unknown key 'zzzzqqqq'", NULL);
}

Test(config_mistakes, wrong_types_say_what_is_wanted) {
  check_one("seed = \"one\"", 1, 8, "'seed' must be an integer, not a string", NULL);
  check_one("seed = \"1\"", 1, 8, "'seed' must be an integer", "remove the quotes");
  check_one("seed = 1.5", 1, 8, "must be an integer, not a number", NULL);
  check_one("seed = 2.0", 1, 8, "must be an integer", "without a point");
  check_one("name = 3", 1, 8, "'name' must be a string", "quotes");
  check_one("[optimizer]\nlr = \"1e-3\"", 2, 6, "'lr' must be a number", "remove the quotes");
  check_one("[metrics]\njsonl = \"true\"", 2, 9, "'jsonl' must be true or false", "remove the quotes");
  check_one("[metrics]\njsonl = 1", 2, 9, "'jsonl' must be true or false", NULL);
  check_one("[data]\nprefetch = 64", 2, 12, "'prefetch' must be a size", "\"64MiB\"");
  check_one("[failure]\nhang-timeout = 60", 2, 16, "'hang-timeout' must be a time", "\"60s\"");
  check_one("[checkpoint]\nevery = 200", 2, 9, "'every' must be a length", "\"200 steps\"");
  check_one("command = [1]", 1, 12, "list of strings", "quotes");
  check_one("command = 3", 1, 11, "'command' must be a list of strings", NULL);
  check_one("data = 3", 1, 1, "'data' must be a table", "[data]");
  check_one("params = 3", 1, 10, "'params' must be a table", NULL);
  check_one("[cluster]\nworkers-per-node = \"many\"", 2, 20, "an integer or \"auto\"", NULL);
  check_one("[env]\nset = \"x\"", 2, 7, "'env.set' must be a table", "NAME");
  check_one("[data]\nfields = { a = 1 }", 2, 16, "'a' must be a string", "quotes");
  check_one("seed = 2026-11-23", 1, 8, "dates and times", NULL);
}

Test(config_mistakes, bad_units_list_the_good_ones) {
  check_one("[data]\nprefetch = \"64MiBi\"", 2, 12, "'64MiBi' is no size", "GiB");
  check_one("[failure]\nhang-timeout = \"60 sec\"", 2, 16, "'60 sec' is no time", "ms");
  check_one("[checkpoint]\nevery = \"200 stepz\"", 2, 9, "'200 stepz' is no length", "200 steps");
  check_one("[checkpoint]\nevery = \"0 steps\"", 2, 9, "is no length", "never");
  check_one("[checkpoint]\nevery = \"-1 steps\"", 2, 9, "is no length", "never");
}

Test(config_mistakes, numbers_out_of_range_say_the_bound) {
  check_one("seed = -1", 1, 8, "at least 0, not -1", NULL);
  check_one("[data]\nbatch-size = 0", 2, 14, "'batch-size' must be at least 1, not 0", NULL);
  check_one("[optimizer]\nlr = -0.5", 2, 6, "at least 0, not -0.5", NULL);
  check_one("[optimizer]\nlr = inf", 2, 6, "finite", NULL);
  check_one("[optimizer]\nmomentum = 1.5", 2, 12, "at most 1, not 1.5", NULL);
  check_one("[cluster]\nworkers-per-node = 0", 2, 20, "at least 1", NULL);
  check_one("[failure]\nhang-timeout = \"1us\"", 2, 16, "too small", NULL);
  check_one("[optimizer]\nbetas = [0.9, 1.0]", 2, 9, "two numbers", "[0.9, 0.999]");
  check_one("[optimizer]\nbetas = 0.9", 2, 9, "two numbers", "[0.9, 0.999]");
}

Test(config_mistakes, bad_choices_list_the_good_ones) {
  check_one("[cluster]\ndevice = \"cuad\"", 2, 10, "auto, cpu or cuda, not 'cuad'", "\"cuda\"");
  check_one("[cluster]\ndevice = \"tpux\"", 2, 10, "auto, cpu or cuda", NULL);
  check_one("[cluster]\ndevice = 3", 2, 10, "auto, cpu or cuda, not an integer", NULL);
  check_one("[data]\nformat = \"cvs\"", 2, 10, "parquet, not 'cvs'", "\"csv\"");
}

Test(config_mistakes, special_strings_are_checked) {
  check_one("name = \"../x\"", 1, 8, "no name for a job", "letters");
  check_one("name = \"\"", 1, 8, "no name for a job", "letters");
  check_one("name = \".hidden\"", 1, 8, "no name for a job", "letters");
  check_one("[optimizer]\nwarmup = \"3 %\"", 2, 10, "no warm-up", "3%");
  check_one("[optimizer]\nwarmup = \"101%\"", 2, 10, "no warm-up", "3%");
  check_one("[checkpoint]\nkeep.best = \"accuracy\"", 2, 13, "names no best", "max accuracy");
  check_one("program = \"\"", 1, 11, "must not be empty", "default");
}

Test(config_mistakes, exactly_one_length_is_allowed) {
  check_one("[train]\nepochs = 1\nsteps = 2", 3, 1, "'epochs' and 'steps' both give the length", "keep one");
  check_one("[train]\ntime = \"1h\"\ntokens = 2", 2, 1, "'tokens' and 'time' both give the length", "keep one");
}

Test(config_mistakes, two_lengths_of_flags_are_a_mistake_too) {
  const tr_override flags[] = {{"train.steps", "10", NULL}, {"train.epochs", "1", NULL}};
  outcome o = load_with("", flags, 2, NULL);
  cr_assert_eq(o.status, TR_ERR_CONFIG);
  cr_assert_not_null(strstr(o.error.message, "flag --set: "), "%s", o.error.message);
  tr_diagnostics_destroy(o.diagnostics);
}

Test(config_mistakes, a_command_excludes_a_program_and_training_tables) {
  check_one("command = [\"a\"]\nprogram = \"b\"", 1, 1, "'program' and 'command' are both given", "keep one");
  check_one("command = [\"a\"]\n[data]\ntrain = \"x\"", 2, 2, "'data' has no meaning with 'command'", "program");
  check_one("command = [\"a\"]\n[train]\nsteps = 1", 2, 2, "'train' has no meaning", "program");
  check_one("command = [\"a\"]\n[optimizer]\nlr = 1", 2, 2, "'optimizer' has no meaning", "program");
  check_one("command = []", 1, 11, "'command' must name a program", NULL);
}

Test(config_mistakes, nodes_must_fit_together) {
  check_one("[cluster]\nmin-nodes = 4\nmax-nodes = 2", 2, 13, "'min-nodes' is above 'max-nodes'", NULL);
  check_one("[cluster]\nmin-nodes = 4", 2, 1, "belong together", "add max-nodes");
  check_one("[optimizer]\nlr = 0.1\nmin-lr = 0.2", 3, 10, "'min-lr' is above 'lr'", NULL);
}

Test(config_mistakes, tables_of_data_are_checked) {
  check_one("[data]\ntrain = []", 2, 9, "'train' must be a URL", NULL);
  check_one("[data]\ntrain = 3", 2, 9, "'train' must be a URL", NULL);
  check_one("[data.train]\nurl = \"x\"", 1, 7, "list of them", "[[data.train]]");
  check_one("[[data.train]]\nname = \"x\"", 1, 1, "no 'url'", "url");
  check_one("[[data.train]]\nurl = \"x\"\nwieght = 1", 3, 1, "unknown key 'wieght'", "weight");
  check_one("[[data.train]]\nurl = \"x\"\nweight = 0", 3, 10, "above 0", NULL);
  check_one("[[data.train]]\nurl = \"x\"\nformat = \"cvs\"", 3, 10, "'format' must be one of", "csv");
  check_one("[[data.train]]\nurl = 3", 2, 7, "'url' must be", NULL);
  check_one("[data]\ntrain = [\"a\", { url = \"b\" }]", 2, 10, "not of both", NULL);
  check_one("[data.valid.a]\nname = \"x\"\nurl = \"y\"", 2, 1, "unknown key 'name'", NULL);
  check_one("[data.valid]\nurl = \"x\"", 2, 1, "'data.valid.url' must be a table", "[data.valid.url]");
}

Test(config_mistakes, a_secret_in_the_file_is_refused_and_never_shown) {
  static const char *const texts[] = {
      "[storage.lake]\naccess-key = \"AKIASECRET\"\n",
      "[storage]\nlake = { access-key = \"AKIASECRET\", secret-key = 'AKIASECRET' }\n",
      "[storage.lake]\nsecret-key = \"\"\"AKIASECRET\"\"\"\n",
      "[storage.lake]\nsecret-key = { value = \"AKIASECRET\" }\n",
      "[storage.lake]\nsecret-key = AKIASECRET\n",
      "[storage.lake]\nsession_token = \"AKIASECRET\"\n",
  };
  for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
    outcome o = load(texts[i]);
    cr_assert_eq(o.status, TR_ERR_CONFIG);
    tr_writer w;
    tr_writer_init(&w, NULL);
    tr_diagnostics_write(o.diagnostics, "job.toml", texts[i], false, &w);
    tr_write_u8(&w, 0);
    if (i != 3) cr_assert_null(strstr((char *)w.data, "AKIASECRET"), "%s", (char *)w.data);
    if (i < 4) cr_assert_not_null(strstr((char *)w.data, "{ env = \"NAME\" }"), "%s", (char *)w.data);
    cr_assert_null(strstr(o.error.message, "AKIASECRET"));
    tr_writer_fini(&w);
    tr_diagnostics_destroy(o.diagnostics);
  }
}

Test(config_mistakes, what_is_planned_says_so) {
  check_one("[metrics.tensorboard]\ndir = \"x\"", 1, 10, "'metrics.tensorboard' is planned, not in this version",
            "remove");
  check_one("[cluster]\nkubernetes = { image = \"x\" }", 2, 16, "planned, not in this version", "remove");
}

Test(config_mistakes, names_that_are_not_set_are_named) {
  check_one("program = \"${WHERE}/x\"", 1, 11, "environment variable 'WHERE' is not set", "${WHERE:-default}");
  check_one("program = \"${WHERE\"", 1, 11, "without its '}'", "$${");
  check_one("program = \"${a b}\"", 1, 11, "no name", "${NAME}");
  check_one("seed = \"${X:-many}\"", 1, 8, "'seed' must be an integer, not 'many'", NULL);
}

Test(config_mistakes, a_syntax_error_is_reported_alone) {
  check_one("zzz = 1\nname = \"x\nseed = 1", 2, 10, "cannot read", NULL);
  check_one("seed = 1\nseed = 2\n", 2, 1, "redefine", NULL);
  outcome o = load("[cluster]\ndevice = cpu\n");
  cr_assert_eq(o.status, TR_ERR_CONFIG);
  cr_assert_eq(tr_diagnostics_count(o.diagnostics), 1);
  cr_assert_eq(tr_diagnostics_at(o.diagnostics, 0)->place.line, 2);
  cr_assert_str_eq(tr_diagnostics_at(o.diagnostics, 0)->hint, "text needs quotes: \"cpu\"");
  tr_diagnostics_destroy(o.diagnostics);
}

Test(config_mistakes, flags_and_variables_are_named_where_they_are_wrong) {
  const tr_override flags[] = {{"train.epochs", "two", "--epochs"},
                               {"train.epoch", "2", NULL},
                               {"a..b", "1", NULL},
                               {"cluster.device", "gpu", NULL}};
  static const char *const environment[] = {"TRAINRUN_SEED=x", NULL};
  static const char *const expected[] = {"environment TRAINRUN_SEED: 'seed' must be an integer, not 'x'",
                                         "flag --epochs: 'epochs' must be an integer, not 'two'",
                                         "flag --set: unknown key 'train.epoch'", "flag --set: 'a..b' is no key",
                                         "flag --set: 'device' must be auto, cpu or cuda, not 'gpu'"};
  outcome o = load_with("", flags, 4, environment);
  cr_assert_eq(tr_diagnostics_errors(o.diagnostics), 5);
  for (size_t i = 0; i < 5; i++) {
    bool found = false;
    for (size_t j = 0; j < 5; j++) found |= strcmp(tr_diagnostics_at(o.diagnostics, j)->message, expected[i]) == 0;
    cr_assert(found, "%s", expected[i]);
  }
  tr_diagnostics_destroy(o.diagnostics);
}

static const char eight[] =
    "nme = \"x\"\n"
    "seed = \"one\"\n"
    "[cluster]\n"
    "device = \"cpuu\"\n"
    "[data]\n"
    "batch_size = 5\n"
    "prefetch = 64\n"
    "[train]\n"
    "epochs = 0\n"
    "[optimizer]\n"
    "lerning-rate = 0.1\n"
    "[failure]\n"
    "hang-timeout = \"60 seconds\"\n";

Test(config_mistakes, eight_mistakes_give_eight_messages_in_the_order_of_the_file) {
  outcome o = load(eight);
  cr_assert_eq(o.status, TR_ERR_CONFIG);
  cr_assert_eq(tr_diagnostics_errors(o.diagnostics), 8);
  static const uint32_t lines[] = {1, 2, 4, 6, 7, 9, 11, 13};
  for (size_t i = 0; i < 8; i++) cr_assert_eq(tr_diagnostics_at(o.diagnostics, i)->place.line, lines[i]);
  cr_assert_str_eq(o.error.message, "job.toml:1:1: unknown key 'nme' (did you mean 'name'?) (and 7 more)");
  cr_assert_null(tr_diagnostics_at(o.diagnostics, 8));
  tr_diagnostics_destroy(o.diagnostics);
}

Test(config_mistakes, diagnostics_print_as_compilers_do) {
  const char *text = "seed = 1\n\n\"\xC3\xA4\" = 3\nname = 5 # \xC2\x9B[31m\n";
  outcome o = load(text);
  tr_writer w;
  tr_writer_init(&w, NULL);
  tr_diagnostics_write(o.diagnostics, "my/job.toml", text, false, &w);
  tr_write_u8(&w, 0);
  cr_assert_str_eq((char *)w.data,
                   "my/job.toml:3:1: error: unknown key '\xC3\xA4'\n"
                   "  |\n3 | \"\xC3\xA4\" = 3\n  | ^^^\n\n"
                   "my/job.toml:4:8: error: 'name' must be a string, not an integer\n"
                   "  |\n4 | name = 5 # ??[31m\n  |        ^\nhelp: put it in quotes\n\n");
  tr_writer_fini(&w);
  tr_diagnostics_destroy(o.diagnostics);
}

Test(config_mistakes, a_caret_stands_under_its_value_even_in_a_long_line) {
  char text[1000] = "command = [";
  for (int i = 0; i < 60; i++) strcat(text, "\"abcdef\", ");
  strcat(text, "77]\n");
  outcome o = load(text);
  tr_writer w;
  tr_writer_init(&w, NULL);
  tr_diagnostics_write(o.diagnostics, "job.toml", text, false, &w);
  tr_write_u8(&w, 0);
  const char *line = strstr((char *)w.data, "1 | ") + 4, *caret = strchr(line, '^');
  const char *under = strchr(line, '\n') + 1 + 4;
  cr_assert_eq(strncmp(line + (caret - under), "77", 2), 0, "%s", (char *)w.data);
  tr_writer_fini(&w);
  tr_diagnostics_destroy(o.diagnostics);
}

Test(config_mistakes, programs_add_their_own) {
  tr_diagnostics *d;
  cr_assert_eq(tr_diagnostics_create(NULL, &d, NULL), TR_OK);
  tr_diagnostics_add(d, (tr_place){9, 2}, 3, false, "params.x", NULL, "second");
  tr_diagnostics_add(d, (tr_place){2, 5}, 3, true, NULL, "a hint", "first %d", 1);
  cr_assert_eq(tr_diagnostics_count(d), 2);
  cr_assert_eq(tr_diagnostics_errors(d), 1);
  cr_assert_str_eq(tr_diagnostics_at(d, 0)->message, "first 1");
  cr_assert_str_eq(tr_diagnostics_at(d, 0)->hint, "a hint");
  cr_assert_str_eq(tr_diagnostics_at(d, 1)->key, "params.x");
  tr_writer w;
  tr_writer_init(&w, NULL);
  tr_diagnostics_write(d, "j", NULL, true, &w);
  tr_write_u8(&w, 0);
  cr_assert_not_null(strstr((char *)w.data, "\033[1;33mwarning:"));
  tr_writer_fini(&w);
  tr_diagnostics_destroy(d);
}

Test(config_mistakes, the_first_mistake_is_the_errors_message_where_nobody_collects) {
  const tr_config_source source = {
      .struct_bytes = sizeof source, .text = "sede = 1\n", .text_bytes = 9, .name = "a.toml"};
  tr_config *config = NULL;
  tr_error error;
  cr_assert_eq(tr_config_load(&source, NULL, &config, &error), TR_ERR_CONFIG);
  cr_assert_str_eq(error.message, "a.toml:1:1: unknown key 'sede' (did you mean 'seed'?)");
  cr_assert_null(config);
}
