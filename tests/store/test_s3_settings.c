/* How a bucket is reached, for every rule of precedence: tables, command line, variables, profiles. Pure: nothing is
 * opened and no file is read, but for the tests of the files themselves. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <trainrun/store.h>

#include "s3_profiles.h"
#include "s3_settings.h"
#include "s3_words.h"
#include "support/support.h"

typedef struct given {
  const char *job; /* the job file; NULL: none */
  const char *bucket;
  const char *environment[8];
  const char *config, *credentials; /* the texts of ~/.aws/config and ~/.aws/credentials */
  tr_s3_overrides overrides;
} given;

static tr_config *load(const char *job) {
  const tr_config_source source = {.struct_bytes = sizeof source,
                                   .text = job,
                                   .text_bytes = job != NULL ? strlen(job) : 0,
                                   .name = "job.toml",
                                   .directory = "/jobs"};
  tr_config *config = NULL;
  tr_error error = {.message = ""};
  cr_assert_eq(tr_config_load(&source, NULL, &config, &error), TR_OK, "%s", error.message);
  return config;
}

static tr_status make_with(const tr_allocator *allocator, const given *g, const tr_config *config,
                           s3_settings *settings, tr_error *error) {
  s3_profiles profiles;
  TR_TRY(
      s3_profiles_parse(allocator, "~/.aws/config", g->config, "~/.aws/credentials", g->credentials, &profiles, error));
  const s3_settings_source source = {.allocator = allocator,
                                     .config = config,
                                     .environment = g->environment,
                                     .overrides = &g->overrides,
                                     .profiles = &profiles,
                                     .bucket = g->bucket != NULL ? g->bucket : "data"};
  const tr_status status = s3_settings_make(&source, settings, error);
  s3_profiles_fini(&profiles);
  return status;
}

static s3_settings make(given g) {
  tr_config *config = g.job != NULL ? load(g.job) : NULL;
  s3_settings settings = {0};
  tr_error error = {.message = ""};
  cr_assert_eq(make_with(NULL, &g, config, &settings, &error), TR_OK, "%s", error.message);
  tr_config_destroy(config);
  return settings;
}

static void refuse(given g, const char *words) {
  tr_config *config = g.job != NULL ? load(g.job) : NULL;
  s3_settings settings = {0};
  tr_error error = {.message = ""};
  cr_expect_eq(make_with(NULL, &g, config, &settings, &error), TR_ERR_CONFIG);
  cr_expect_not_null(strstr(error.message, words), "'%s' is not in: %s", words, error.message);
  tr_config_destroy(config);
}

static void expect_text(const char *got, const char *wanted, const char *what) {
  if (wanted == NULL) {
    cr_expect_null(got, "%s is %s", what, got);
  } else {
    cr_expect(got != NULL && strcmp(got, wanted) == 0, "%s is %s, not %s", what, got != NULL ? got : "(none)", wanted);
  }
}

#define EXPECT(GIVEN, FIELD, WANTED)                                                                                   \
  do {                                                                                                                 \
    s3_settings expect_settings_ = make(GIVEN);                                                                        \
    expect_text(expect_settings_.FIELD, WANTED, #FIELD);                                                               \
    s3_settings_fini(&expect_settings_);                                                                               \
  } while (0)
#define GIVEN(...) ((given){__VA_ARGS__})

/* ---- Tables ---- */

static const char lake_and_others[] =
    "[storage.lake]\nbuckets = [\"fashion\", \"runs-*\"]\nendpoint = \"http://lake:9000\"\n"
    "[storage.long]\nbuckets = [\"runs-2026-*\"]\nendpoint = \"http://long:9000\"\n"
    "[storage.exact]\nbuckets = [\"runs-2026-x\"]\nendpoint = \"http://exact:9000\"\n"
    "[storage.rest]\nendpoint = \"http://rest:9000\"\n";

Test(s3_settings, the_table_that_matches_best_serves_a_bucket) {
  static const struct {
    const char *bucket, *table, *endpoint;
  } cases[] = {{"fashion", "lake", "http://lake:9000"},     {"runs-a", "lake", "http://lake:9000"},
               {"runs-2026-a", "long", "http://long:9000"}, {"runs-2026-x", "exact", "http://exact:9000"},
               {"fashion2", "rest", "http://rest:9000"},    {"runs", "rest", "http://rest:9000"}};
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    EXPECT(GIVEN(.job = lake_and_others, .bucket = cases[i].bucket), table, cases[i].table);
    EXPECT(GIVEN(.job = lake_and_others, .bucket = cases[i].bucket), endpoint, cases[i].endpoint);
  }
}

Test(s3_settings, a_bucket_that_no_table_serves_has_variables_and_profiles) {
  const given g = {.job = "[storage.lake]\nbuckets = [\"fashion\"]\nendpoint = \"http://lake\"\n",
                   .bucket = "other",
                   .environment = {"AWS_ENDPOINT_URL=http://env"}};
  EXPECT(g, table, NULL);
  EXPECT(g, endpoint, "http://env");
}

Test(s3_settings, a_tie_names_both_tables) {
  refuse(GIVEN(.job = "[storage.one]\nregion = \"a\"\n[storage.two]\nregion = \"b\"\n"),
         "[storage.one] and [storage.two]");
  refuse(GIVEN(.job = "[storage.one]\nbuckets = [\"da*\"]\n[storage.two]\nbuckets = [\"da?a\"]\n"),
         "[storage.one] and [storage.two] match bucket 'data' alike");
  refuse(GIVEN(.job = "[storage.one]\nbuckets = [\"data\"]\n[storage.two]\nbuckets = [\"x\", \"data\"]\n"),
         "[storage.one] and [storage.two]");
  EXPECT(GIVEN(.job = "[storage.one]\nbuckets = [\"da*\"]\n[storage.two]\nbuckets = [\"da?a\", \"data\"]\n"), table,
         "two");
}

/* ---- Endpoint, region and the rest ---- */

static const char profiles_text[] =
    "[default]\nregion = eu-central-1\nendpoint_url = http://default\n"
    "[profile lake]\nregion = eu-lake-1\nservices = both\nendpoint_url = http://general\n"
    "max_attempts = 7\nca_bundle = /ca/profile.pem\n"
    "[services both]\ns3 =\n  endpoint_url = http://service\n"
    "sts =\n  endpoint_url = http://sts-service\n"
    "[profile plain]\nendpoint_url = http://plain/\n";

Test(s3_settings, the_endpoint_is_the_first_that_somebody_named) {
  given g = {.config = profiles_text, .environment = {"AWS_PROFILE=lake"}};
  EXPECT(g, endpoint, "http://service");
  g.environment[1] = "AWS_ENDPOINT_URL=http://env";
  EXPECT(g, endpoint, "http://env");
  g.environment[2] = "AWS_ENDPOINT_URL_S3=http://env-s3";
  EXPECT(g, endpoint, "http://env-s3");
  g.job = "[storage.x]\nendpoint = \"http://table\"\n";
  EXPECT(g, endpoint, "http://table");
  g.overrides.endpoint = "http://flag";
  EXPECT(g, endpoint, "http://flag");
  EXPECT(GIVEN(.config = profiles_text, .environment = {"AWS_PROFILE=plain"}), endpoint, "http://plain");
  EXPECT(GIVEN(.config = profiles_text), endpoint, "http://default");
  EXPECT(GIVEN(.bucket = "data"), endpoint, NULL);
}

Test(s3_settings, configured_endpoints_can_be_ignored) {
  EXPECT(GIVEN(.environment = {"AWS_ENDPOINT_URL=http://env", "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS=true"}), endpoint,
         NULL);
  EXPECT(GIVEN(.environment = {"AWS_IGNORE_CONFIGURED_ENDPOINT_URLS=true"}, .overrides = {.endpoint = "http://flag"}),
         endpoint, "http://flag");
}

Test(s3_settings, the_region_is_the_first_that_somebody_named) {
  given g = {.bucket = "data"};
  EXPECT(g, region, "us-east-1");
  g.config = profiles_text;
  EXPECT(g, region, "eu-central-1");
  g.environment[0] = "AWS_DEFAULT_REGION=from-default";
  EXPECT(g, region, "from-default");
  g.environment[1] = "AWS_REGION=from-region";
  EXPECT(g, region, "from-region");
  g.job = "[storage.x]\nregion = \"from-table\"\n";
  EXPECT(g, region, "from-table");
  g.overrides.region = "from-flag";
  EXPECT(g, region, "from-flag");
  g.overrides.region = "evil.example/";
  refuse(g, "is no region");
}

Test(s3_settings, an_empty_variable_is_not_set) {
  EXPECT(GIVEN(.config = profiles_text, .environment = {"AWS_REGION=", "AWS_ENDPOINT_URL=", "AWS_PROFILE="}), region,
         "eu-central-1");
}

Test(s3_settings, the_bucket_stands_in_the_path_unless_the_server_is_amazons) {
  static const struct {
    const char *endpoint, *bucket, *config, *job;
    bool path_style;
  } cases[] = {
      {NULL, "data", NULL, NULL, false},
      {NULL, "my.data", NULL, NULL, true},
      {"http://127.0.0.1:9000", "data", NULL, NULL, true},
      {"https://s3.eu-west-1.amazonaws.com", "data", NULL, NULL, false},
      {"https://s3.cn-north-1.amazonaws.com.cn", "data", NULL, NULL, false},
      {"https://s3.amazonaws.com.evil.example", "data", NULL, NULL, true},
      {NULL, "data", "[default]\ns3 =\n    addressing_style = path\n", NULL, true},
      {"http://h", "data", "[default]\ns3 =\n  addressing_style = virtual\n", NULL, false},
      {"http://h", "data", "[default]\ns3 =\n  addressing_style = auto\n", NULL, true},
      {"http://h", "data", NULL, "[storage.x]\npath-style = false\n", false},
      {NULL, "data", "[default]\ns3 =\n  addressing_style = virtual\n", "[storage.x]\npath-style = true\n", true},
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    s3_settings settings = make(GIVEN(.bucket = cases[i].bucket, .config = cases[i].config, .job = cases[i].job,
                                      .overrides = {.endpoint = cases[i].endpoint}));
    cr_expect_eq(settings.path_style, cases[i].path_style, "case %zu", i);
    s3_settings_fini(&settings);
  }
  refuse(GIVEN(.config = "[default]\ns3 =\n  addressing_style = both\n"), "none of auto, path, virtual");
}

Test(s3_settings, the_authorities_are_the_first_that_somebody_named) {
  given g = {.config = profiles_text, .environment = {"AWS_PROFILE=lake"}};
  EXPECT(g, ca_file, "/ca/profile.pem");
  g.environment[1] = "AWS_CA_BUNDLE=/ca/env.pem";
  EXPECT(g, ca_file, "/ca/env.pem");
  g.job = "[storage.x]\nca-file = \"certs/table.pem\"\n";
  EXPECT(g, ca_file, "/jobs/certs/table.pem");
  g.overrides.ca_file = "flag.pem";
  EXPECT(g, ca_file, "flag.pem");
}

Test(s3_settings, attempts_come_from_the_variable_before_the_profile) {
  given g = {.config = profiles_text, .environment = {"AWS_PROFILE=lake"}};
  s3_settings settings = make(g);
  cr_expect_eq(settings.attempts, 7);
  s3_settings_fini(&settings);
  g.environment[1] = "AWS_MAX_ATTEMPTS=5";
  settings = make(g);
  cr_expect_eq(settings.attempts, 5);
  s3_settings_fini(&settings);
  static const char *const wrong[] = {"AWS_MAX_ATTEMPTS=0", "AWS_MAX_ATTEMPTS=-1", "AWS_MAX_ATTEMPTS=many",
                                      "AWS_MAX_ATTEMPTS=1000000000000"};
  for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
    g.environment[1] = wrong[i];
    refuse(g, "AWS_MAX_ATTEMPTS");
  }
}

Test(s3_settings, sts_has_an_endpoint_of_its_own) {
  given g = {.environment = {"AWS_REGION=eu-west-3"}};
  EXPECT(g, sts_endpoint, "https://sts.eu-west-3.amazonaws.com");
  EXPECT(GIVEN(.environment = {"AWS_REGION=cn-north-1"}), sts_endpoint, "https://sts.cn-north-1.amazonaws.com.cn");
  g.environment[1] = "AWS_ENDPOINT_URL=http://all";
  EXPECT(g, sts_endpoint, "http://all");
  g.environment[2] = "AWS_ENDPOINT_URL_STS=http://sts/";
  EXPECT(g, sts_endpoint, "http://sts");
  EXPECT(GIVEN(.config = profiles_text, .environment = {"AWS_PROFILE=lake"}), sts_endpoint, "http://sts-service");
}

Test(s3_settings, an_endpoint_is_a_scheme_and_a_host) {
  static const char *const wrong[] = {"minio:9000",   "ftp://h",     "http://",   "http:///x",
                                      "http://h?x=1", "https://h#x", "http://h h"};
  for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
    refuse(GIVEN(.overrides = {.endpoint = wrong[i]}), "is no endpoint");
  }
  given g = {.environment = {"AWS_ENDPOINT_URL=http://user:CANARY@host"}};
  refuse(g, "holds a name or password");
  s3_settings settings = {0};
  tr_error error;
  cr_expect_eq(make_with(NULL, &g, NULL, &settings, &error), TR_ERR_CONFIG);
  cr_expect_null(strstr(error.message, "CANARY"), "%s", error.message);
  EXPECT(GIVEN(.overrides = {.endpoint = "https://host:9000//"}), endpoint, "https://host:9000");
}

/* ---- Profiles and keys ---- */

Test(s3_settings, the_profile_is_the_first_that_somebody_named) {
  static const char three[] =
      "[profile a]\nregion = a\n[profile b]\nregion = b\n[profile c]\nregion = c\n"
      "[profile d]\nregion = d\n";
  given g = {.config = three};
  EXPECT(g, profile, "default");
  g.environment[0] = "AWS_PROFILE=a";
  EXPECT(g, region, "a");
  g.environment[1] = "AWS_DEFAULT_PROFILE=b";
  EXPECT(g, region, "b");
  g.job = "[storage.x]\nprofile = \"c\"\n";
  EXPECT(g, region, "c");
  g.overrides.profile = "d";
  EXPECT(g, region, "d");
  g.overrides.profile = "nobody";
  refuse(g, "profile 'nobody', named by --profile");
  refuse(GIVEN(.environment = {"AWS_PROFILE=ghost"}), "profile 'ghost', named by AWS_PROFILE");
}

static s3_keys keys_of(given g) {
  s3_settings settings = make(g);
  const s3_keys keys = settings.keys;
  s3_settings_fini(&settings);
  return keys;
}

Test(s3_settings, keys_come_from_the_flag_then_the_table_then_the_chain) {
  static const char refs[] = "[storage.x]\naccess-key = { env = \"A\" }\nsecret-key = { file = \"secret\" }\n";
  static const char profile[] = "[profile p]\nregion = r\n";
  cr_expect_eq(keys_of(GIVEN(.bucket = "data")), S3_KEYS_CHAIN);
  cr_expect_eq(keys_of(GIVEN(.config = profile, .environment = {"AWS_PROFILE=p"})), S3_KEYS_CHAIN);
  cr_expect_eq(keys_of(GIVEN(.config = profile, .job = "[storage.x]\nprofile = \"p\"\n")), S3_KEYS_PROFILE);
  cr_expect_eq(keys_of(GIVEN(.config = profile, .job = refs)), S3_KEYS_TABLE);
  cr_expect_eq(keys_of(GIVEN(.config = profile, .job = refs, .overrides = {.profile = "p"})), S3_KEYS_PROFILE);
  cr_expect_eq(keys_of(GIVEN(.job = refs, .overrides = {.no_sign_request = true})), S3_KEYS_NONE);
  cr_expect_eq(keys_of(GIVEN(.job = "[storage.x]\nsign = false\n")), S3_KEYS_NONE);
  cr_expect_eq(keys_of(GIVEN(.job = "[storage.x]\nsign = true\n")), S3_KEYS_CHAIN);
  EXPECT(GIVEN(.job = refs), access_key.env, "A");
  EXPECT(GIVEN(.job = refs), access_key.file, NULL);
  EXPECT(GIVEN(.job = refs), secret_key.file, "/jobs/secret");
  refuse(GIVEN(.job = "[storage.x]\naccess-key = { env = \"A\" }\n"), "secret-key is missing");
  refuse(GIVEN(.job = "[storage.x]\nsession-token = { env = \"A\" }\n"), "access-key is missing");
}

Test(s3_settings, survive_each_allocation_failing_in_turn) {
  const given g = {.job = lake_and_others, .config = profiles_text, .environment = {"AWS_PROFILE=lake"}};
  tr_config *config = load(g.job);
  bool finished = false;
  for (uint64_t fail_at = 1; !finished && fail_at < 100; fail_at++) {
    tr_counting_allocator counting;
    tr_counting_allocator_init(&counting);
    counting.fail_at = fail_at;
    s3_settings settings = {0};
    const tr_status status = make_with(&counting.allocator, &g, config, &settings, NULL);
    s3_settings_fini(&settings);
    finished = counting.allocations < fail_at;
    cr_expect_eq(status, finished ? TR_OK : TR_ERR_NO_MEMORY, "at %llu", (unsigned long long)fail_at);
    cr_expect_eq(counting.live_blocks, 0, "at %llu", (unsigned long long)fail_at);
  }
  cr_expect(finished);
  tr_config_destroy(config);
}

/* ---- AWS's files ---- */

static void expect_value(const s3_profiles *profiles, const char *profile, const char *key, const char *wanted) {
  expect_text(s3_profiles_get(profiles, profile, key), wanted, ts_format("%s of %s", key, profile));
}

Test(s3_profiles, are_read_as_other_tools_read_them) {
  static const char config[] =
      "# a comment\r\n[default]\r\nRegion=one\r\n; another\r\noutput : json\r\n\r\n"
      "[profile \"with space\"]\n  region = two ; not a comment\n  other = x=y\n"
      "[profile\tq]\nregion = three\ns3 =\n  # inside\n  addressing_style = path\n\n"
      "  max_queue = 3\nlast = 1\n[preview]\nregion = never\n[plain] # head\nregion = never\n";
  static const char credentials[] =
      "[default]\naws_access_key_id = K\nregion = from-credentials\n[plain]\n"
      "aws_access_key_id = P\n";
  s3_profiles p;
  tr_error error = {.message = ""};
  cr_assert_eq(s3_profiles_parse(NULL, "config", config, "credentials", credentials, &p, &error), TR_OK, "%s",
               error.message);
  expect_value(&p, "default", "region", "from-credentials");
  expect_value(&p, "default", "output", "json");
  expect_value(&p, "default", "aws_access_key_id", "K");
  expect_value(&p, "with space", "region", "two ; not a comment");
  expect_value(&p, "with space", "other", "x=y");
  expect_value(&p, "q", "region", "three");
  expect_value(&p, "q", "last", "1");
  expect_value(&p, "q", "s3", NULL);
  expect_text(s3_profiles_get_in(&p, "q", "s3", "addressing_style"), "path", "addressing_style");
  expect_text(s3_profiles_get_in(&p, "q", "s3", "max_queue"), "3", "max_queue");
  expect_value(&p, "plain", "region", NULL);
  expect_value(&p, "plain", "aws_access_key_id", "P");
  cr_expect(s3_profiles_has(&p, "plain") && s3_profiles_has(&p, "q") && !s3_profiles_has(&p, "preview"));
  s3_profiles_fini(&p);
}

Test(s3_profiles, a_mistake_is_named_by_file_and_line_and_never_repeated) {
  static const struct {
    const char *text, *words;
  } cases[] = {
      {"[default]\nCANARY\n", "config:2: neither a [section]"},
      {"key = CANARY\n", "config:1: a key before the first [section]"},
      {"[default\nx = CANARY\n", "config:1: a '[' without its ']'"},
      {"[default] CANARY\n", "config:1: text behind"},
      {"[]\n", "config:1: a section without a name"},
      {"[default]\n = CANARY\n", "config:2: a value without a key"},
      {"[default]\na = 1\nb = 2\nA = CANARY\n", "config:4: the key 'a' was there in line 2"},
      {"[default]\n[x]\n\n[default]\nCANARY = 1", "config:4: the section 'default' was there in line 1"},
      {"[default]\ns3 =\n  a = 1\n  a = CANARY\n", "config:4: the key 'a' was there in line 3"},
      {"[default]\na = 1\n  CANARY\n", "config:3: a value goes on in an indented line"},
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    s3_profiles p;
    tr_error error = {.message = ""};
    cr_expect_eq(s3_profiles_parse(NULL, "config", cases[i].text, NULL, NULL, &p, &error), TR_ERR_CONFIG);
    cr_expect_not_null(strstr(error.message, cases[i].words), "%zu: %s", i, error.message);
    cr_expect_null(strstr(error.message, "CANARY"), "%s", error.message);
  }
}

Test(s3_profiles, of_any_bytes_are_read_or_refused) {
  static const char seed[] =
      "[default]\nregion = a\n[profile \"x y\"]\ns3 =\n  a = b\n  c = d\nservices = z\n# c\n"
      "[services z]\ns3 =\n  endpoint_url = http://h\ncredential_process = 'a b' \\\"c\n";
  static const char letters[] = "[]=:#;'\"\\ \t\r\nax\xff\x80";
  const uint64_t rounds = ts_long() ? 1000000 : 20000;
  for (uint64_t i = 0; i < rounds; i++) {
    char text[sizeof seed];
    memcpy(text, seed, sizeof seed);
    const uint64_t changes = tr_rng_below(7, TR_RNG_USER, i, 0, 8) + 1;
    for (uint64_t j = 1; j <= changes; j++) {
      text[tr_rng_below(7, TR_RNG_USER, i, 2 * j, sizeof seed - 1)] =
          letters[tr_rng_below(7, TR_RNG_USER, i, 2 * j + 1, sizeof letters - 1)];
    }
    tr_counting_allocator counting;
    tr_counting_allocator_init(&counting);
    s3_profiles p;
    if (s3_profiles_parse(&counting.allocator, "c", text, "k", text, &p, NULL) == TR_OK) {
      (void)s3_profiles_get(&p, "default", "region");
      (void)s3_profiles_get_service(&p, "x y", "s3", "endpoint_url");
      s3_profiles_fini(&p);
    }
    cr_assert_eq(counting.live_blocks, 0);
    s3_words words;
    const char *wrong = NULL;
    (void)s3_words_split(text, &words, &wrong);
  }
}

Test(s3_profiles, files_are_found_by_variables_and_by_home) {
  const char *folder = ts_folder();
  s3_profiles p;
  tr_error error = {.message = ""};
  cr_assert_eq(s3_profiles_load(NULL, NULL, &p, &error), TR_OK, "%s", error.message);
  s3_profiles_fini(&p);
  const char *const nothing[] = {ts_format("HOME=%s/none", folder), NULL};
  cr_assert_eq(s3_profiles_load(NULL, nothing, &p, &error), TR_OK, "%s", error.message);
  cr_expect_not(s3_profiles_has(&p, "default"));
  s3_profiles_fini(&p);

  ts_file_write(ts_format("%s/c", folder), "[default]\nregion = r\n", 21);
  ts_file_write(ts_format("%s/k", folder), "[default]\naws_access_key_id = K\n", 32);
  const char *const environment[] = {ts_format("HOME=%s", folder), "AWS_CONFIG_FILE=~/c",
                                     ts_format("AWS_SHARED_CREDENTIALS_FILE=%s/k", folder), NULL};
  cr_assert_eq(s3_profiles_load(NULL, environment, &p, &error), TR_OK, "%s", error.message);
  expect_value(&p, "default", "region", "r");
  expect_value(&p, "default", "aws_access_key_id", "K");
  s3_profiles_fini(&p);
}

Test(s3_profiles, what_is_no_text_file_is_refused) {
  const char *folder = ts_folder();
  s3_profiles p;
  tr_error error;
  ts_file_write(ts_format("%s/zero", folder), "[a]\0b", 5);
  const char *const zero[] = {ts_format("AWS_CONFIG_FILE=%s/zero", folder), NULL};
  cr_expect_eq(s3_profiles_load(NULL, zero, &p, &error), TR_ERR_CONFIG);
  const char *const is_folder[] = {ts_format("AWS_CONFIG_FILE=%s", folder), NULL};
  cr_expect_eq(s3_profiles_load(NULL, is_folder, &p, &error), TR_ERR_CONFIG);
  const char *const endless[] = {"AWS_CONFIG_FILE=/dev/zero", NULL};
  cr_expect_eq(s3_profiles_load(NULL, endless, &p, &error), TR_ERR_CONFIG);
}

/* ---- Words of a command ---- */

Test(s3_words, are_cut_as_a_shell_cuts_them) {
  static const struct {
    const char *command;
    const char *words[5];
  } cases[] = {
      {"a b  c", {"a", "b", "c"}},
      {" /opt/my\\ tool 'x y' \"p q\" ", {"/opt/my tool", "x y", "p q"}},
      {"a''b \"\" 'c\\d' \"e\\f\\\"g\\\\\"", {"ab", "", "c\\d", "e\\f\"g\\"}},
      {"$HOME `id` ; | > *", {"$HOME", "`id`", ";", "|", ">"}},
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    s3_words words;
    const char *wrong = NULL;
    cr_expect(s3_words_split(cases[i].command, &words, &wrong), "%s: %s", cases[i].command, wrong);
    for (size_t j = 0; j < 5 && cases[i].words[j] != NULL; j++) {
      expect_text(j < words.count ? words.items[j] : NULL, cases[i].words[j], cases[i].command);
    }
  }
  static const char *const wrong[] = {"", "  ", "a 'b", "a \"b", "a \\"};
  for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
    s3_words words;
    const char *why = NULL;
    cr_expect_not(s3_words_split(wrong[i], &words, &why), "%s", wrong[i]);
  }
  char *many = ts_format("%0*d", 5000, 7);
  s3_words words;
  const char *why = NULL;
  cr_expect_not(s3_words_split(many, &words, &why));
  for (size_t i = 1; i < 200; i += 2) many[i] = ' ';
  many[200] = '\0';
  cr_expect_not(s3_words_split(many, &words, &why), "too many words");
}
