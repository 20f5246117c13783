/* Writing jobs: the resolved file loads to the same job, fingerprints compare, nothing secret is written. */
#include <criterion/criterion.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>
#include <trainrun/config.h>
#include <unistd.h>

static tr_config *load(const char *text, const char *directory, const tr_override *flags, size_t count) {
  static const char *const environment[] = {"BUCKET=fashion", "QUOTE=a\"b\\c", "BROKEN=x\xFFy", NULL};
  const tr_config_source source = {.struct_bytes = sizeof source,
                                   .text = text,
                                   .text_bytes = strlen(text),
                                   .name = "job.toml",
                                   .directory = directory,
                                   .overrides = flags,
                                   .override_count = count,
                                   .environment = environment};
  tr_config *config = NULL;
  tr_error error = {.message = ""};
  cr_assert_eq(tr_config_load(&source, NULL, &config, &error), TR_OK, "%s\n%s", error.message, text);
  return config;
}

typedef void write_fn(const tr_config *config, tr_writer *writer);

static char *text_of(const tr_config *config, write_fn *write) {
  tr_writer w;
  tr_writer_init(&w, NULL);
  write(config, &w);
  tr_write_u8(&w, 0);
  cr_assert(!w.failed);
  return (char *)w.data; /* tr_free frees what a writer owns */
}

static const char whole[] =
    "name = \"fashion-mnist\"\nprogram = \"bin/x\"\nseed = 1\nrun-dir = \"runs\"\n"
    "[cluster]\nworkers-per-node = 3\nhosts = [\"n1\", \"n2:4\"]\nslurm = { args = [\"--partition=gpu\"] }\n"
    "[env]\nset = { A = \"x\", \"B C\" = 3, D = true, E = 1.5 }\npass = [\"HF_*\"]\n"
    "[storage.lake]\nbuckets = [\"fashion\"]\nendpoint = \"http://h:9000\"\npath-style = true\nca-file = \"ca.pem\"\n"
    "access-key = { env = \"X\" }\nsecret-key = { file = \"keys/s\" }\n"
    "[storage.empty]\n"
    "[data]\ntrain = \"s3://${BUCKET}/$${n}/a.tar\"\nfields = { image = \"png\" }\nbatch-size = \"${BS:-128}\"\n"
    "shuffle = \"full\"\ntransforms = [\"flip\", \"${QUOTE}\\n\\t\"]\nprefetch = \"1.5GiB\"\n"
    "cache = { dir = \"c\", size = \"50GiB\" }\nvalid.a.url = \"v/a.csv\"\nvalid.b = { url = [\"/x\", \"y\"], format = "
    "\"csv\" }\n"
    "[train]\nsamples = 1000\ngrad-clip = 1\neval-every = \"0.5 epochs\"\nearly-stop = { metric = \"loss\", patience = "
    "5 }\n"
    "[optimizer]\nname = \"sgd\"\nlr = 0.1\nbetas = [0, 0.99]\nno-decay = []\nwarmup = \"3%\"\n"
    "[model]\ninit = \"m\"\n"
    "[params]\nwidth = 32\nz = -1.0\nbig = 1e300\nbools = [true, false]\n\"a.b\" = { q = \"\", \"\\u00e4\" = [[1], []] "
    "}\n"
    "broken = \"${BROKEN}\"\n"
    "[checkpoint]\nevery = \"10m\"\nkeep = { last = 4, best = \"max accuracy\" }\nresume = \"never\"\n"
    "[failure]\nhang-timeout = \"90s\"\n[metrics]\njsonl = false\n";

static void check_round_trip(const char *text, const tr_override *flags, size_t count) {
  tr_config *first = load(text, "/jobs/one", flags, count);
  char *written = text_of(first, tr_config_write_toml);
  tr_config *second = load(written, "/elsewhere", NULL, 0);
  char *again = text_of(second, tr_config_write_toml);
  cr_assert_str_eq(again, written);
  char *a = text_of(first, tr_config_write_fingerprint), *b = text_of(second, tr_config_write_fingerprint);
  cr_assert_str_eq(a, b);
  size_t knob_count;
  const tr_knob *knobs = tr_config_knobs(&knob_count);
  for (size_t i = 0; i < knob_count; i++) {
    const char *key = knobs[i].key;
    if (strchr(key, '*') != NULL) continue;
    switch (knobs[i].type) {
      case TR_KNOB_INTEGER:
      case TR_KNOB_COUNT: cr_assert_eq(tr_config_integer(first, key), tr_config_integer(second, key), "%s", key); break;
      case TR_KNOB_REAL: cr_assert_eq(tr_config_real(first, key), tr_config_real(second, key), "%s", key); break;
      case TR_KNOB_BOOLEAN:
        cr_assert_eq(tr_config_boolean(first, key), tr_config_boolean(second, key), "%s", key);
        break;
      case TR_KNOB_BYTES: cr_assert_eq(tr_config_bytes(first, key), tr_config_bytes(second, key), "%s", key); break;
      case TR_KNOB_DURATION:
        cr_assert_eq(tr_config_duration_ns(first, key), tr_config_duration_ns(second, key), "%s", key);
        break;
      case TR_KNOB_STRINGS: {
        const char *const *x, *const *y;
        const size_t n = tr_config_strings(first, key, &x);
        cr_assert_eq(n, tr_config_strings(second, key, &y), "%s", key);
        for (size_t j = 0; j < n; j++) cr_assert_str_eq(x[j], y[j]);
        break;
      }
      case TR_KNOB_EVERY: {
        const tr_every x = tr_config_every(first, key), y = tr_config_every(second, key);
        cr_assert(x.epochs == y.epochs && x.steps == y.steps && x.samples == y.samples && x.time_ns == y.time_ns, "%s",
                  key);
        break;
      }
      case TR_KNOB_CHOICE: cr_assert_str_eq(tr_config_text(first, key), tr_config_text(second, key)); break;
      default: break;
    }
  }
  tr_free(NULL, written);
  tr_free(NULL, again);
  tr_free(NULL, a);
  tr_free(NULL, b);
  tr_config_destroy(first);
  tr_config_destroy(second);
}

Test(config_write, a_written_job_loads_to_the_same_job) {
  check_round_trip(whole, NULL, 0);
  check_round_trip("", NULL, 0);
  check_round_trip(
      "[[data.train]]\nname = \"a\"\nurl = \"x.csv\"\nweight = 2\nfields = { url = \"f\" }\n[[data.train]]\n"
      "url = [\"y\", \"s3://z\"]\n",
      NULL, 0);
  check_round_trip("command = [\"sh\", \"-c\", \"echo $${HOME} 'q' \\\"x\\\"\"]\n[params]\n", NULL, 0);
}

Test(config_write, a_written_job_with_flags_loads_to_the_same_job) {
  const tr_override flags[] = {{"data.train", "a ${X} b.csv", NULL},
                               {"params.deep", "{ x = [1, { y = 2 }] }", NULL},
                               {"model.init", "rel/m", NULL},
                               {"train.time", "1h", NULL},
                               {"checkpoint.resume", "../run@step-5", NULL}};
  check_round_trip(whole, flags, sizeof flags / sizeof *flags);
}

Test(config_write, paths_become_absolute) {
  const tr_override flags[] = {{"checkpoint.url", "ck", NULL}};
  tr_config *c = load(whole, "/jobs/one", flags, 1);
  char *text = text_of(c, tr_config_write_toml), expected[4200], directory[4096];
  cr_assert_not_null(getcwd(directory, sizeof directory));
  static const char *const lines[] = {"\nprogram = \"/jobs/one/bin/x\"\n", "\ntrain = \"s3://fashion/$${n}/a.tar\"\n",
                                      "url = \"/jobs/one/v/a.csv\"",       "url = [\"/x\", \"/jobs/one/y\"]",
                                      "ca-file = \"/jobs/one/ca.pem\"",    "{ file = \"/jobs/one/keys/s\" }",
                                      "cache.dir = \"/jobs/one/c\"",       "init = \"/jobs/one/m\""};
  for (size_t i = 0; i < sizeof lines / sizeof *lines; i++)
    cr_assert_not_null(strstr(text, lines[i]), "%s\n%s", lines[i], text);
  snprintf(expected, sizeof expected, "run-dir = \"%s/runs\"", directory);
  cr_assert_not_null(strstr(text, expected), "%s", text);
  snprintf(expected, sizeof expected, "url = \"%s/ck\"", directory);
  cr_assert_not_null(strstr(text, expected), "%s", text);
  tr_free(NULL, text);
  tr_config_destroy(c);
}

Test(config_write, a_program_found_by_name_stays_a_name) {
  tr_config *c = load("program = \"fashion_mnist\"\n", "/jobs", NULL, 0);
  char *text = text_of(c, tr_config_write_toml);
  cr_assert_not_null(strstr(text, "\nprogram = \"fashion_mnist\"\n"), "%s", text);
  tr_free(NULL, text);
  tr_config_destroy(c);
}

Test(config_write, writing_without_memory_fails_cleanly) {
  tr_config *c = load(whole, "/jobs/one", NULL, 0);
  static write_fn *const writers[] = {tr_config_write_toml, tr_config_write_fingerprint};
  for (int i = 0; i < 2; i++) {
    tr_counting_allocator counting;
    bool failed = true;
    for (uint64_t n = 1; failed; n++) {
      tr_counting_allocator_init(&counting);
      counting.fail_at = n;
      tr_writer w;
      tr_writer_init(&w, &counting.allocator);
      writers[i](c, &w);
      failed = counting.allocations >= n;
      cr_assert_eq(w.failed, failed, "allocation %llu", (unsigned long long)n);
      tr_writer_fini(&w);
      cr_assert_eq(counting.live_blocks, 0);
    }
  }
  tr_config_destroy(c);
}

/* ---- Fingerprints ----------------------------------------------------------------------------------------------- */

static void differ(const char *a, const char *b, const char *expected) {
  tr_config *x = load(a, "/one", NULL, 0), *y = load(b, "/two", NULL, 0);
  char *fa = text_of(x, tr_config_write_fingerprint), *fb = text_of(y, tr_config_write_fingerprint), key[128];
  const bool differs = tr_config_fingerprint_differs(fa, fb, key);
  cr_assert_eq(differs, expected != NULL, "%s\n%s", fa, fb);
  cr_assert_eq(strcmp(fa, fb) != 0, expected != NULL, "%s\n%s", fa, fb);
  cr_assert_str_eq(key, expected != NULL ? expected : "");
  tr_free(NULL, fa);
  tr_free(NULL, fb);
  tr_config_destroy(x);
  tr_config_destroy(y);
}

Test(config_write, what_decides_bits_changes_the_fingerprint) {
  differ("", "seed = 1", "seed");
  differ("program = \"a\"", "program = \"b\"", "program");
  differ("", "[data]\nbatch-size = 65", "data.batch-size");
  differ("", "[data]\ntrain = \"a\"", "data.train");
  differ("[data]\nfields = { a = \"x\" }", "[data]\nfields = { a = \"y\" }", "data.fields.a");
  differ("", "[data]\ntransforms = [\"flip\"]", "data.transforms");
  differ("", "[data]\nshuffle = false", "data.shuffle");
  differ("", "[data]\nstreams = 8", "data.streams");
  differ("", "[data]\nsequence-length = 8", "data.sequence-length");
  differ("", "[train]\nmicro-batch = 8", "train.micro-batch");
  differ("", "[train]\nprecision = \"bf16\"", "train.precision");
  differ("", "[train]\ngrad-clip = 2", "train.grad-clip");
  differ("", "[optimizer]\nlr = 2", "optimizer.lr");
  differ("", "[optimizer]\nbetas = [0.9, 0.99]", "optimizer.betas");
  differ("", "[optimizer]\nname = \"sgd\"", "optimizer.name");
  differ("[params]\nwidth = 32\ndepth = 2", "[params]\ndepth = 2\nwidth = 33", "params.width");
  differ("[params]\na = { b = { c = 1 } }", "[params]\na = { b = { c = 2 } }", "params.a.b.c");
  differ("[params]\na = 9007199254740993", "[params]\na = 9007199254740992", "params.a");
  differ("", "[model]\ninit = \"x\"", "model.init");
}

Test(config_write, what_does_not_decide_bits_leaves_the_fingerprint) {
  differ("", "name = \"other\"", NULL);
  differ("", "[train]\nepochs = 9\neval-every = \"5 steps\"", NULL);
  differ("", "[checkpoint]\nevery = \"1 epoch\"\nkeep.last = 9", NULL);
  differ("", "[metrics]\nlog-every = \"1 step\"", NULL);
  differ("", "[cluster]\nworkers-per-node = 4", NULL);
  differ("", "[failure]\nmax-restarts = 1", NULL);
  differ("", "[data]\nprefetch = \"1MiB\"\non-corrupt = \"skip\"", NULL);
  differ("", "[optimizer]\nlr = 0.001\nshard = true", NULL);
  differ("[params]\na = 1\nb = 2", "[params]\nb = 2\na = 1", NULL);
  differ("[params]\na = 1", "[params]\na = \"${A:-1}\"", NULL);
  differ("[optimizer]\nbetas = [0, 0.5]", "[optimizer]\nbetas = [0.0, 0.5]", NULL);
}

Test(config_write, a_fingerprint_is_compact_json_with_sorted_keys) {
  tr_config *c = load(whole, "/jobs", NULL, 0);
  char *text = text_of(c, tr_config_write_fingerprint);
  json_t *parsed = json_loads(text, JSON_REJECT_DUPLICATES, NULL);
  cr_assert(json_is_object(parsed));
  char *canonical = json_dumps(parsed, JSON_COMPACT | JSON_SORT_KEYS | JSON_REAL_PRECISION(17));
  cr_assert_eq(strchr(text, '\n'), NULL);
  const char *last = "", *key;
  json_t *value;
  json_object_foreach(parsed, key, value) {
    cr_assert_lt(strcmp(last, key), 0);
    last = key;
  }
  cr_assert_str_eq(json_string_value(json_object_get(parsed, "data.train")), "s3://${BUCKET}/$${n}/a.tar",
                   "URLs stand as they were written");
  free(canonical);
  json_decref(parsed);
  tr_free(NULL, text);
  tr_config_destroy(c);
}

Test(config_write, broken_fingerprints_differ_without_a_crash) {
  char key[128];
  cr_assert(!tr_config_fingerprint_differs("{}", "{}", key));
  cr_assert(!tr_config_fingerprint_differs("{\"a\":1}", "{ \"a\" : 1.0 }", key));
  cr_assert(tr_config_fingerprint_differs("", "{}", key));
  cr_assert_str_eq(key, "fingerprint");
  cr_assert(tr_config_fingerprint_differs("[1", "{}", key));
  cr_assert(tr_config_fingerprint_differs("{\"a\":{}}", "{\"a\":[]}", key));
  cr_assert_str_eq(key, "a");
  cr_assert(tr_config_fingerprint_differs("{\"b\":1,\"c\":2}", "{\"c\":3,\"a\":1}", key));
  cr_assert_str_eq(key, "a");
  static char deep[2][40000];
  for (int i = 0; i < 2; i++) {
    for (int j = 0; j < 1000; j++) strcat(deep[i], "{\"a\":");
    strcat(deep[i], i == 0 ? "1" : "2");
    for (int j = 0; j < 1000; j++) strcat(deep[i], "}");
  }
  cr_assert(tr_config_fingerprint_differs(deep[0], deep[1], key));
}
