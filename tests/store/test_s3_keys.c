/* Keys: every place they come from, against fake servers and programs, and how they are kept and renewed. */
#include <criterion/criterion.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <trainrun/s3.h>
#include <unistd.h>

#include "s3_chain.h"
#include "s3_keychain.h"
#include "s3_inputs.h"
#include "store/fake_http.h"
#include "support/support.h"

enum { VARIABLES = 16 };

/* A source with its own HOME, where nothing is set but what a test sets. */
typedef struct bench {
  const char *home;
  const char *environment[VARIABLES];
  size_t count;
  tr_manual_clock clock;
  tr_log *log;
  char lines[4096];
  tr_s3_credentials_source source;
  uint32_t process_timeout_ms;
} bench;

static void set(bench *b, const char *variable) { b->environment[b->count++] = variable; }

static void keep_line(void *self, tr_log_level level, const char *line, size_t bytes) {
  (void)level;
  bench *b = self;
  snprintf(b->lines + strlen(b->lines), sizeof b->lines - strlen(b->lines), "%.*s", (int)bytes, line);
}

static bench *start(void) {
  bench *b = calloc(1, sizeof *b);
  b->home = ts_folder();
  mkdir(ts_format("%s/.aws", b->home), 0700);
  set(b, ts_format("HOME=%s", b->home));
  set(b, "AWS_EC2_METADATA_DISABLED=true");
  set(b, ts_format("PATH=%s", getenv("PATH")));
  /* 2026-11-26T00:00:00Z */
  tr_manual_clock_init(&b->clock, UINT64_C(1000000000));
  b->clock.wall_offset = INT64_C(1795651200000000000) - INT64_C(1000000000);
  return b;
}

static void write_config(bench *b, const char *name, const char *text) {
  ts_file_write(ts_format("%s/.aws/%s", b->home, name), text, strlen(text));
}

static void open_source(bench *b, const char *job, const tr_s3_overrides *overrides) {
  const tr_log_options log = {
      .struct_bytes = sizeof log, .level = TR_LOG_DEBUG, .rank = -1, .write = keep_line, .write_self = b};
  tr_error error = {.message = ""};
  cr_assert_eq(tr_log_create(&log, &b->log, &error), TR_OK);
  tr_config *config = NULL;
  const tr_config_source source = {.struct_bytes = sizeof source,
                                   .text = job,
                                   .text_bytes = job != NULL ? strlen(job) : 0,
                                   .name = "job.toml",
                                   .directory = b->home};
  cr_assert_eq(tr_config_load(&source, NULL, &config, &error), TR_OK, "%s", error.message);
  s3_profiles profiles;
  cr_assert_eq(s3_profiles_load(NULL, b->environment, &profiles, &error), TR_OK, "%s", error.message);
  const s3_settings_source from = {
      .config = config, .environment = b->environment, .overrides = overrides, .profiles = &profiles, .bucket = "data"};
  s3_settings settings;
  cr_assert_eq(s3_settings_make(&from, &settings, &error), TR_OK, "%s", error.message);
  s3_profiles_fini(&profiles);
  tr_config_destroy(config);
  const s3_keychain_options options = {.clock = &b->clock.clock,
                                       .log = b->log,
                                       .environment = b->environment,
                                       .process_timeout_ms = b->process_timeout_ms};
  cr_assert_eq(s3_keychain_create(&options, &settings, &b->source, &error), TR_OK, "%s", error.message);
}

static void stop(bench *b) {
  if (b->source.destroy != NULL) b->source.destroy(b->source.self);
  tr_log_destroy(b->log);
  free(b);
}

static void expect_keys(bench *b, bool renew, const char *access, const char *secret, const char *token) {
  tr_s3_credentials keys = {.access_key = "unset"};
  tr_error error = {.message = ""};
  const tr_status status = b->source.get(b->source.self, renew, &keys, &error);
  cr_assert_eq(status, TR_OK, "%s", error.message);
  cr_expect_str_eq(keys.access_key, access);
  cr_expect_str_eq(keys.secret_key, secret);
  cr_expect_str_eq(keys.session_token, token);
}

static tr_status refused(bench *b, const char *words) {
  tr_s3_credentials keys = {.access_key = "unset"};
  tr_error error = {.message = ""};
  const tr_status status = b->source.get(b->source.self, false, &keys, &error);
  cr_expect_neq(status, TR_OK);
  cr_expect_not_null(strstr(error.message, words), "'%s' is not in: %s", words, error.message);
  cr_expect_null(strstr(error.message, "CANARY"), "%s", error.message);
  cr_expect_null(strstr(b->lines, "CANARY"), "%s", b->lines);
  cr_expect_str_eq(keys.access_key, "unset", "outputs are written on success only");
  return status;
}

static void pass_seconds(bench *b, uint64_t seconds) { b->clock.now += seconds * UINT64_C(1000000000); }

/* ---- Variables, tables, profiles ---- */

Test(s3_keys, of_the_environment_go_before_the_profile) {
  bench *b = start();
  write_config(b, "credentials", "[default]\naws_access_key_id = P\naws_secret_access_key = Q\n");
  set(b, "AWS_ACCESS_KEY_ID=A");
  set(b, "AWS_SECRET_ACCESS_KEY=S");
  set(b, "AWS_SESSION_TOKEN=T");
  open_source(b, NULL, NULL);
  expect_keys(b, false, "A", "S", "T");
  stop(b);
}

Test(s3_keys, of_a_profile_asked_for_by_name_go_before_the_environment) {
  const tr_s3_overrides overrides = {.profile = "p"};
  for (int by_flag = 0; by_flag < 2; by_flag++) {
    bench *b = start();
    write_config(b, "credentials", "[p]\naws_access_key_id = P\naws_secret_access_key = Q\naws_session_token = R\n");
    set(b, "AWS_ACCESS_KEY_ID=A");
    set(b, "AWS_SECRET_ACCESS_KEY=S");
    open_source(b, by_flag ? NULL : "[storage.x]\nprofile = \"p\"\n", by_flag ? &overrides : NULL);
    expect_keys(b, false, "P", "Q", "R");
    stop(b);
  }
  bench *b = start(); /* AWS_PROFILE is weaker than keys in variables, as in botocore */
  write_config(b, "credentials", "[p]\naws_access_key_id = P\naws_secret_access_key = Q\n");
  set(b, "AWS_ACCESS_KEY_ID=A");
  set(b, "AWS_SECRET_ACCESS_KEY=S");
  set(b, "AWS_PROFILE=p");
  open_source(b, NULL, NULL);
  expect_keys(b, false, "A", "S", "");
  stop(b);
}

static const char table[] = "[storage.lake]\naccess-key = { env = \"MY_KEY\" }\nsecret-key = { file = \"secret\" }\n";

Test(s3_keys, of_a_table_are_read_where_it_says_and_again_when_refused) {
  bench *b = start();
  const char *path = ts_format("%s/secret", b->home);
  ts_file_write(path, " CANARY1\n", 9);
  chmod(path, 0600);
  set(b, "MY_KEY=K");
  set(b, "AWS_ACCESS_KEY_ID=A");
  set(b, "AWS_SECRET_ACCESS_KEY=S");
  open_source(b, table, NULL);
  expect_keys(b, false, "K", "CANARY1", "");
  cr_expect_str_empty(b->lines);
  ts_file_write(path, "CANARY2\r\n", 9);
  chmod(path, 0644);
  pass_seconds(b, 100000);
  expect_keys(b, false, "K", "CANARY1", "");
  expect_keys(b, true, "K", "CANARY2", "");
  cr_expect_not_null(strstr(b->lines, "everybody on this machine can read"), "%s", b->lines);
  cr_expect_null(strstr(b->lines, "CANARY"));
  stop(b);
}

Test(s3_keys, that_a_table_misses_are_named) {
  bench *b = start();
  open_source(b, table, NULL);
  cr_expect_eq(refused(b, "[storage.lake] access-key: the variable MY_KEY is not set"), TR_ERR_CONFIG);
  stop(b);
  b = start();
  set(b, "MY_KEY=K");
  open_source(b, table, NULL);
  cr_expect_eq(refused(b, "/secret"), TR_ERR_NOT_FOUND);
  stop(b);
  b = start();
  set(b, "MY_KEY=CANARY CANARY");
  ts_file_write(ts_format("%s/secret", b->home), "x", 1);
  open_source(b, table, NULL);
  cr_expect_eq(refused(b, "the access key holds blanks"), TR_ERR_DENIED);
  stop(b);
  b = start();
  set(b, "MY_KEY=K");
  ts_file_write(ts_format("%s/secret", b->home), "\n", 1);
  open_source(b, table, NULL);
  cr_expect_eq(refused(b, "the secret key is empty"), TR_ERR_DENIED);
  stop(b);
}

Test(s3_keys, that_are_half_there_are_an_error) {
  bench *b = start();
  set(b, "AWS_ACCESS_KEY_ID=CANARY");
  open_source(b, NULL, NULL);
  refused(b, "AWS_ACCESS_KEY_ID is set and AWS_SECRET_ACCESS_KEY is not");
  stop(b);
  b = start();
  write_config(b, "credentials", "[default]\naws_access_key_id = CANARY\n");
  open_source(b, NULL, NULL);
  refused(b, "no aws_secret_access_key");
  stop(b);
}

Test(s3_keys, that_are_nowhere_are_an_error_that_says_where_was_looked) {
  bench *b = start();
  open_source(b, NULL, NULL);
  cr_expect_eq(refused(b,
                       "keys for s3://data: there are no keys; looked at AWS_ACCESS_KEY_ID (not set), "
                       "AWS_WEB_IDENTITY_TOKEN_FILE (not set), profile 'default' (no keys in "),
               TR_ERR_DENIED);
  refused(b, "AWS_CONTAINER_CREDENTIALS_* (not set), EC2 metadata (disabled). For a public bucket: --no-sign-request");
  stop(b);
}

Test(s3_keys, of_a_profile_are_read_anew_when_refused) {
  bench *b = start();
  write_config(b, "credentials", "[default]\naws_access_key_id = P\naws_secret_access_key = Q\n");
  open_source(b, NULL, NULL);
  expect_keys(b, false, "P", "Q", "");
  write_config(b, "credentials", "[default]\naws_access_key_id = P2\naws_secret_access_key = Q2\n");
  expect_keys(b, true, "P", "Q", ""); /* keys one second old are not fetched again at once */
  pass_seconds(b, 2);
  expect_keys(b, false, "P", "Q", "");
  expect_keys(b, true, "P2", "Q2", "");
  stop(b);
}

Test(s3_keys, by_sso_and_by_another_profiles_role_are_refused_with_a_way_out) {
  static const char *const configs[] = {"[default]\nsso_session = x\n", "[default]\nsso_start_url = x\n",
                                        "[default]\nrole_arn = x\nsource_profile = y\naws_access_key_id = CANARY\n"};
  for (size_t i = 0; i < sizeof configs / sizeof *configs; i++) {
    bench *b = start();
    write_config(b, "config", configs[i]);
    open_source(b, NULL, NULL);
    cr_expect_eq(refused(b, "aws configure export-credentials --profile default --format process"), TR_ERR_UNSUPPORTED);
    stop(b);
  }
}

/* ---- credential_process ---- */

static bench *start_process(const char *script) {
  bench *b = start();
  const char *path = ts_format("%s/my tool", b->home);
  const char *text = ts_format("#!/bin/sh\n%s\n", script);
  ts_file_write(path, text, strlen(text));
  chmod(path, 0700);
  write_config(b, "config",
               ts_format("[default]\ncredential_process = '%s' --secret CANARY \"two words\" $HOME;\n", path));
  return b;
}

Test(s3_keys, of_a_program_are_its_output) {
  bench *b = start_process(
      "echo \"{\\\"Version\\\": 1, \\\"AccessKeyId\\\": \\\"$#\\\", \\\"SecretAccessKey\\\": "
      "\\\"$(echo $3$4 | tr -d ' ')\\\", \\\"SessionToken\\\": \\\"T\\\"}\"; exit 0");
  open_source(b, NULL, NULL);
  expect_keys(b, false, "4", "twowords$HOME;", "T");
  stop(b);
}

Test(s3_keys, of_a_program_that_inherits_nothing) {
  const int one = open("/dev/null", O_RDONLY);
  const int leaked = fcntl(one, F_DUPFD, 100); /* higher than any that a shell opens for itself, but for 255 */
  cr_assert_geq(leaked, 100);
  bench *b = start_process(
      "n=$(ls /proc/$$/fd | tr '\\n' '.'); read -r line && n=input; echo noise >&2\n"
      "echo \"{\\\"Version\\\":1,\\\"AccessKeyId\\\":\\\"$n\\\",\\\"SecretAccessKey\\\":\\\"s\\\"}\"");
  sigset_t all;
  sigfillset(&all);
  pthread_sigmask(SIG_BLOCK, &all, NULL);
  open_source(b, NULL, NULL);
  tr_s3_credentials keys;
  tr_error error = {.message = ""};
  cr_assert_eq(b->source.get(b->source.self, false, &keys, &error), TR_OK, "%s", error.message);
  cr_expect_eq(strncmp(keys.access_key, "0.1.", 4), 0, "%s", keys.access_key); /* and its input is empty */
  cr_expect_null(strstr(keys.access_key, ts_format(".%d.", leaked)), "%s", keys.access_key);
  close(leaked);
  close(one);
  stop(b);
}

Test(s3_keys, of_a_program_that_goes_wrong_are_an_error_without_its_words) {
  static const struct {
    const char *script, *words;
  } cases[] = {
      {"echo CANARY; echo CANARY >&2; exit 3", "my tool ended with code 3; run it by hand"},
      {"kill -9 $$", "my tool ended with signal 9"},
      {"echo CANARY", "the answer is no JSON object"},
      {"echo '[1]'", "the answer is no JSON object"},
      {"echo '{\"Version\": 2, \"AccessKeyId\": \"CANARY\"}'", "no \"Version\": 1"},
      {"echo '{\"Version\": 1, \"AccessKeyId\": \"CANARY\"}'", "no SecretAccessKey"},
      {"echo '{\"Version\": 1, \"AccessKeyId\": 7, \"SecretAccessKey\": \"CANARY\"}'", "no AccessKeyId"},
      {"echo '{\"Version\": 1, \"AccessKeyId\": \"CANARY X\", \"SecretAccessKey\": \"CANARY\"}'", "holds blanks"},
      {"echo '{\"Version\":1,\"AccessKeyId\":\"a\",\"SecretAccessKey\":\"CANARY\",\"Expiration\":\"soon\"}'",
       "Expiration is no time"},
      {"echo '{\"Version\":1,\"AccessKeyId\":\"a\",\"SecretAccessKey\":\"CANARY\",\"Expiration\":"
       "\"2020-01-01T00:00:00Z\"}'",
       "have ended already"},
      {"head -c 100000 /dev/zero | tr '\\0' x", "says more than 65536 bytes"},
      {"while :; do echo CANARY; done", "says more than 65536 bytes"},
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    bench *b = start_process(cases[i].script);
    open_source(b, NULL, NULL);
    refused(b, cases[i].words);
    stop(b);
  }
  bench *b = start();
  write_config(b, "config", "[default]\ncredential_process = /no/such/tool CANARY\n");
  open_source(b, NULL, NULL);
  refused(b, "/no/such/tool is not found");
  stop(b);
}

Test(s3_keys, of_a_program_that_hangs_end_with_it) {
  bench *b = start_process("sleep 600 & echo $! > \"$HOME/child\"; wait");
  b->process_timeout_ms = 400;
  open_source(b, NULL, NULL);
  const double began = ts_now_s();
  cr_expect_eq(refused(b, "did not end within 0.4 s"), TR_ERR_TIMEOUT);
  cr_expect_lt(ts_now_s() - began, 10);
  char *child = ts_file_read(ts_format("%s/child", b->home), NULL);
  cr_assert_not_null(child);
  const pid_t pid = (pid_t)atoi(child);
  for (int i = 0; i < 100 && kill(pid, 0) == 0; i++) {
    char *state = ts_file_read(ts_format("/proc/%d/stat", (int)pid), NULL);
    if (state != NULL && strstr(state, ") Z") != NULL) break;
    ts_sleep_s(0.05);
  }
  char *state = ts_file_read(ts_format("/proc/%d/stat", (int)pid), NULL);
  cr_expect(state == NULL || strstr(state, ") Z") != NULL, "its child still runs: %s", state);
  stop(b);
}

/* ---- Keys that end ---- */

static const char counting_script[] =
    "n=$(cat \"$HOME/n\" 2>/dev/null || echo 0); n=$((n + 1)); echo $n > \"$HOME/n\"\n"
    "[ -e \"$HOME/broken\" ] && exit 5\n"
    "echo \"{\\\"Version\\\":1,\\\"AccessKeyId\\\":\\\"K$n\\\",\\\"SecretAccessKey\\\":\\\"s\\\",\\\"Expiration\\\":"
    "\\\"$(cat \"$HOME/until\")\\\"}\"";

static void keys_until(bench *b, const char *time) {
  ts_file_write(ts_format("%s/until", b->home), time, strlen(time));
}

Test(s3_keys, are_renewed_before_they_end) {
  bench *b = start_process(counting_script);
  keys_until(b, "2026-11-26T01:00:00Z");
  open_source(b, NULL, NULL);
  expect_keys(b, false, "K1", "s", "");
  pass_seconds(b, 3600 - 361);
  expect_keys(b, false, "K1", "s", "");
  pass_seconds(b, 62); /* less than five minutes left */
  keys_until(b, "2026-11-26T02:00:00.000+00:00");
  expect_keys(b, false, "K2", "s", "");
  expect_keys(b, false, "K2", "s", "");
  stop(b);
}

Test(s3_keys, that_live_shortly_are_renewed_at_half_their_life) {
  bench *b = start_process(counting_script);
  keys_until(b, "2026-11-26T00:02:00Z");
  open_source(b, NULL, NULL);
  expect_keys(b, false, "K1", "s", "");
  pass_seconds(b, 59);
  expect_keys(b, false, "K1", "s", "");
  pass_seconds(b, 2);
  keys_until(b, "2026-11-26T00:04:00Z");
  expect_keys(b, false, "K2", "s", "");
  stop(b);
}

Test(s3_keys, that_cannot_be_renewed_serve_to_their_end) {
  bench *b = start_process(counting_script);
  keys_until(b, "2026-11-26T01:00:00Z");
  open_source(b, NULL, NULL);
  expect_keys(b, false, "K1", "s", "");
  pass_seconds(b, 3600 - 200);
  ts_file_write(ts_format("%s/broken", b->home), "", 0);
  expect_keys(b, false, "K1", "s", "");
  cr_expect_not_null(strstr(b->lines, "the old ones still serve for 200 s: keys for s3://data: credential_process of"),
                     "%s", b->lines);
  expect_keys(b, false, "K1", "s", ""); /* and not asked again at once */
  cr_expect_str_eq(ts_file_read(ts_format("%s/n", b->home), NULL), "2\n");
  pass_seconds(b, 11);
  expect_keys(b, false, "K1", "s", "");
  cr_expect_str_eq(ts_file_read(ts_format("%s/n", b->home), NULL), "3\n");
  pass_seconds(b, 200);
  refused(b, "ended with code 5");
  unlink(ts_format("%s/broken", b->home));
  keys_until(b, "2026-11-26T05:00:00Z");
  expect_keys(b, false, "K5", "s", "");
  stop(b);
}

typedef struct asker {
  bench *b;
  pthread_t thread;
  char key[16];
} asker;

static void *ask(void *self) {
  asker *a = self;
  tr_s3_credentials keys = {0};
  if (a->b->source.get(a->b->source.self, true, &keys, NULL) == TR_OK)
    snprintf(a->key, sizeof a->key, "%.15s", keys.access_key);
  return NULL;
}

Test(s3_keys, are_fetched_once_for_all_who_wait) {
  bench *b = start_process(ts_format("sleep 0.3\n%s", counting_script));
  keys_until(b, "2026-11-26T01:00:00Z");
  open_source(b, NULL, NULL);
  asker askers[8];
  for (size_t i = 0; i < 8; i++) {
    askers[i] = (asker){.b = b};
    pthread_create(&askers[i].thread, NULL, ask, &askers[i]);
  }
  for (size_t i = 0; i < 8; i++) {
    pthread_join(askers[i].thread, NULL);
    cr_expect_str_eq(askers[i].key, "K1");
  }
  cr_expect_str_eq(ts_file_read(ts_format("%s/n", b->home), NULL), "1\n");
  stop(b);
}

/* ---- Servers ---- */

static const char sts_answer[] =
    "<AssumeRoleWithWebIdentityResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\">"
    "<AssumeRoleWithWebIdentityResult><Audience>a</Audience><Credentials><AccessKeyId>STSKEY</AccessKeyId>\n"
    "<SecretAccessKey>STSCANARY/+=</SecretAccessKey><SessionToken>TOKEN==</SessionToken>"
    "<Expiration>2026-11-26T01:00:00Z</Expiration></Credentials></AssumeRoleWithWebIdentityResult>"
    "</AssumeRoleWithWebIdentityResponse>";

static bench *start_web_identity(fake_http *fake) {
  bench *b = start();
  const char *path = ts_format("%s/token", b->home);
  ts_file_write(path, "to.ke+n/CANARY\n", 15);
  set(b, ts_format("AWS_WEB_IDENTITY_TOKEN_FILE=%s", path));
  set(b, "AWS_ROLE_ARN=arn:aws:iam::1:role/r");
  set(b, "AWS_ROLE_SESSION_NAME=me");
  set(b, ts_format("AWS_ENDPOINT_URL_STS=%s", fake_http_url(fake)));
  return b;
}

Test(s3_keys, of_a_web_identity_come_from_sts) {
  fake_http *fake = fake_http_start();
  fake_http_rules(fake, (fake_rule[]){{"WebIdentityToken=", 200, sts_answer, NULL, 0}, {0}});
  bench *b = start_web_identity(fake);
  open_source(b, NULL, NULL);
  expect_keys(b, false, "STSKEY", "STSCANARY/+=", "TOKEN==");
  cr_expect_not_null(strstr(fake->requests[0], "POST / HTTP/1.1\r\n"), "%s", fake->requests[0]);
  cr_expect_not_null(
      strstr(fake->requests[0],
             "\r\n\r\nAction=AssumeRoleWithWebIdentity&Version=2011-06-15&RoleArn=arn%3Aaws%3Aiam%3A%3A1%3A"
             "role%2Fr&RoleSessionName=me&WebIdentityToken=to.ke%2Bn%2FCANARY"),
      "%s", fake->requests[0]);
  expect_keys(b, false, "STSKEY", "STSCANARY/+=", "TOKEN==");
  cr_expect_eq(fake_http_count(fake), 1);
  pass_seconds(b, 3500);
  expect_keys(b, false, "STSKEY",
              "STSCANARY/+=", "TOKEN=="); /* asked anew, and the answer is old: the kept ones serve */
  cr_expect_eq(fake_http_count(fake), 2);
  stop(b);
  fake_http_stop(fake);
}

Test(s3_keys, of_a_profiles_web_identity_come_from_sts) {
  fake_http *fake = fake_http_start();
  fake_http_rules(fake, (fake_rule[]){{"RoleArn=other", 200, sts_answer, NULL, 0}, {0}});
  bench *b = start();
  const char *path = ts_format("%s/token", b->home);
  ts_file_write(path, "t", 1);
  write_config(b, "config",
               ts_format("[profile p]\nweb_identity_token_file = %s\nrole_arn = other\nservices = s\n"
                         "[services s]\nsts =\n  endpoint_url = %s\n",
                         path, fake_http_url(fake)));
  set(b, "AWS_PROFILE=p");
  open_source(b, NULL, NULL);
  expect_keys(b, false, "STSKEY", "STSCANARY/+=", "TOKEN==");
  stop(b);
  fake_http_stop(fake);
}

Test(s3_keys, that_sts_refuses_are_an_error_with_its_code) {
  fake_http *fake = fake_http_start();
  fake_http_rules(fake,
                  (fake_rule[]){{"POST", 403,
                                 "<ErrorResponse><Error><Code>InvalidIdentityToken</Code><Message>CANARY</Message>"
                                 "</Error></ErrorResponse>",
                                 NULL, 0},
                                {0}});
  bench *b = start_web_identity(fake);
  open_source(b, NULL, NULL);
  cr_expect_eq(refused(b, "STS answers with status 403 (InvalidIdentityToken)"), TR_ERR_DENIED);
  cr_expect_eq(fake_http_count(fake), 1);
  fake_http_rules(fake, (fake_rule[]){{"POST", 500, "CANARY", NULL, 0}, {0}});
  cr_expect_eq(refused(b, "STS answers with status 500"), TR_ERR_STORE);
  cr_expect_eq(fake_http_count(fake), 4, "three attempts");
  fake_http_rules(fake, (fake_rule[]){{"POST", 302, "CANARY", "Location: /elsewhere", 0}, {0}});
  refused(b, "STS answers with status 302");
  cr_expect_eq(fake_http_count(fake), 5, "a redirect is not followed");
  fake_http_rules(fake, (fake_rule[]){{"POST", 200, "<Credentials><AccessKeyId>CANARY</AccessKeyId>", NULL, 0}, {0}});
  refused(b, "the answer holds no keys");
  stop(b);
  fake_http_stop(fake);
}

static const char metadata_answer[] =
    "{\"Code\": \"Success\", \"AccessKeyId\": \"ROLEKEY\", \"SecretAccessKey\": "
    "\"ROLECANARY\", \"Token\": \"T\", \"Expiration\": \"2026-11-26T06:00:00Z\"}";

Test(s3_keys, of_a_container_come_from_its_host) {
  fake_http *fake = fake_http_start();
  fake_http_rules(fake, (fake_rule[]){{"GET /creds?x=1 HTTP", 200, metadata_answer, NULL, 0}, {0}});
  bench *b = start();
  const char *path = ts_format("%s/auth", b->home);
  ts_file_write(path, "Basic CANARY\n", 13);
  set(b, ts_format("AWS_CONTAINER_CREDENTIALS_FULL_URI=%s/creds?x=1", fake_http_url(fake)));
  set(b, "AWS_CONTAINER_AUTHORIZATION_TOKEN=weaker");
  set(b, ts_format("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE=%s", path));
  open_source(b, NULL, NULL);
  expect_keys(b, false, "ROLEKEY", "ROLECANARY", "T");
  cr_expect_not_null(strstr(fake->requests[0], "\r\nAuthorization: Basic CANARY\r\n"), "%s", fake->requests[0]);
  fake_http_rules(fake, (fake_rule[]){{"GET", 403, "CANARY", NULL, 0}, {0}});
  pass_seconds(b, 30000);
  cr_expect_eq(refused(b, "the container's credentials: it answers with status 403"), TR_ERR_DENIED);
  char *huge = ts_format("%070000d", 1);
  fake_http_rules(fake, (fake_rule[]){{"GET", 200, huge, NULL, 0}, {0}});
  cr_expect_eq(refused(b, "answered more than 65536 bytes"), TR_ERR_CORRUPT);
  stop(b);
  fake_http_stop(fake);
}

Test(s3_keys, of_a_container_are_asked_for_at_known_addresses_only) {
  static const struct {
    const char *url;
    bool good;
  } cases[] = {{"http://127.0.0.1:80/x", true},
               {"http://127.9.9.9/x", true},
               {"http://localhost:1/x", true},
               {"http://[::1]:80/x", true},
               {"http://169.254.170.2/x", true},
               {"http://169.254.170.23/v1/credentials", true},
               {"http://[fd00:ec2::23]/v1", true},
               {"https://example.com/x", true},
               {"http://example.com/x", false},
               {"http://169.254.169.254/x", false},
               {"http://127.0.0.1@example.com/x", false},
               {"http://127.0.0.1:80@example.com/x", false},
               {"http://example.com\\@127.0.0.1/x", false},
               {"http://127.0.0.1.example.com/", false},
               {"http://localhost.example.com/", false},
               {"http://2130706433.example/", false},
               {"http:///x", false},
               {"ftp://127.0.0.1/x", false},
               {"file:///etc/passwd", false}};
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    cr_expect_eq(s3_container_may_ask(cases[i].url), cases[i].good, "%s", cases[i].url);
  }
  bench *b = start();
  set(b, "AWS_CONTAINER_CREDENTIALS_FULL_URI=http://example.com/CANARY");
  open_source(b, NULL, NULL);
  cr_expect_eq(refused(b, "AWS_CONTAINER_CREDENTIALS_FULL_URI is refused"), TR_ERR_CONFIG);
  stop(b);
  b = start();
  set(b, "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI=@example.com/CANARY");
  open_source(b, NULL, NULL);
  cr_expect_eq(refused(b, "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI is refused"), TR_ERR_CONFIG);
  stop(b);
}

static bench *start_instance(fake_http *fake) {
  bench *b = start();
  b->environment[1] = ts_format("AWS_EC2_METADATA_SERVICE_ENDPOINT=%s/", fake_http_url(fake));
  return b;
}

static const fake_rule instance_rules[] = {
    {"PUT /latest/api/token HTTP", 200, "TOKEN==", NULL, 0},
    {"GET /latest/meta-data/iam/security-credentials/my-role HTTP", 200, metadata_answer, NULL, 0},
    {"GET /latest/meta-data/iam/security-credentials/ HTTP", 200, "my-role\n", NULL, 0},
    {0}};

Test(s3_keys, of_a_machine_come_from_its_metadata_service) {
  fake_http *fake = fake_http_start();
  fake_http_rules(fake, instance_rules);
  bench *b = start_instance(fake);
  open_source(b, NULL, NULL);
  expect_keys(b, false, "ROLEKEY", "ROLECANARY", "T");
  cr_assert_eq(fake_http_count(fake), 3);
  cr_expect_not_null(strcasestr(fake->requests[0], "\r\nx-aws-ec2-metadata-token-ttl-seconds: 21600\r\n"));
  cr_expect_not_null(strcasestr(fake->requests[1], "\r\nx-aws-ec2-metadata-token: TOKEN==\r\n"));
  cr_expect_not_null(strcasestr(fake->requests[2], "\r\nx-aws-ec2-metadata-token: TOKEN==\r\n"));
  stop(b);
  fake_http_stop(fake);
}

Test(s3_keys, of_a_machine_are_never_asked_for_without_a_token) {
  fake_http *fake = fake_http_start();
  fake_http_rules(fake, instance_rules + 1);
  bench *b = start_instance(fake);
  open_source(b, NULL, NULL);
  cr_expect_eq(refused(b, "EC2 metadata (no answer within 1 s)"), TR_ERR_DENIED);
  cr_expect_eq(fake_http_count(fake), 1);
  stop(b);
  fake_http_stop(fake);
}

Test(s3_keys, of_a_machine_without_a_role_or_an_answer_are_nowhere) {
  fake_http *fake = fake_http_start();
  fake_http_rules(fake, (fake_rule[]){instance_rules[0], {0}});
  bench *b = start_instance(fake);
  open_source(b, NULL, NULL);
  cr_expect_eq(refused(b, "EC2 metadata (the machine has no role)"), TR_ERR_DENIED);
  fake_http_rules(
      fake, (fake_rule[]){instance_rules[0],
                          {"credentials/my-role HTTP", 200, "{\"Code\": \"AssumeRoleUnauthorizedAccess\"}", NULL, 0},
                          instance_rules[2],
                          {0}});
  cr_expect_eq(refused(b, "the answer says AssumeRoleUnauthorizedAccess"), TR_ERR_DENIED);
  fake_http_rules(fake, (fake_rule[]){{"PUT", 200, "TOKEN", NULL, 1500}, {0}});
  const double began = ts_now_s();
  cr_expect_eq(refused(b, "EC2 metadata (no answer within 1 s)"), TR_ERR_DENIED);
  cr_expect_lt(ts_now_s() - began, 1.5);
  stop(b);
  fake_http_stop(fake);
}

/* ---- Small things ---- */

Test(s3_keys, have_times_as_aws_writes_them) {
  static const struct {
    const char *text;
    int64_t seconds; /* -1: refused */
  } cases[] = {{"1970-01-01T00:00:00Z", 0},
               {"2026-11-26T01:02:03Z", 1795654923},
               {"2026-11-26T01:02:03.456Z", 1795654923},
               {"2026-11-26T01:02:03+00:00", 1795654923},
               {"2026-11-26T02:32:03+01:30", 1795654923},
               {"2026-11-25T20:02:03-05:00", 1795654923},
               {"2026-11-26", -1},
               {"2026-11-26T01:02:03", -1},
               {"2026-11-26T01:02:03Zx", -1},
               {"2026-13-26T01:02:03Z", -1},
               {"", -1}};
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    int64_t wall_ns = -1;
    cr_expect_eq(s3_time_parse(cases[i].text, &wall_ns), cases[i].seconds >= 0, "%s", cases[i].text);
    if (cases[i].seconds >= 0) cr_expect_eq(wall_ns, cases[i].seconds * INT64_C(1000000000), "%s", cases[i].text);
  }
}

Test(s3_keys, survive_each_allocation_failing_in_turn) {
  bench *b = start();
  write_config(b, "credentials", "[default]\naws_access_key_id = P\naws_secret_access_key = Q\n");
  bool finished = false;
  for (uint64_t fail_at = 1; !finished && fail_at < 100; fail_at++) {
    tr_counting_allocator counting;
    tr_counting_allocator_init(&counting);
    s3_profiles profiles = {0};
    const s3_settings_source from = {
        .allocator = &counting.allocator, .environment = b->environment, .profiles = &profiles, .bucket = "data"};
    s3_settings settings;
    cr_assert_eq(s3_settings_make(&from, &settings, NULL), TR_OK);
    const s3_keychain_options options = {
        .allocator = &counting.allocator, .clock = &b->clock.clock, .environment = b->environment};
    counting.fail_at = counting.allocations + fail_at;
    tr_s3_credentials_source source = {0};
    tr_s3_credentials keys;
    tr_status status = s3_keychain_create(&options, &settings, &source, NULL);
    if (status == TR_OK) status = source.get(source.self, false, &keys, NULL);
    finished = counting.allocations < counting.fail_at;
    cr_expect_eq(status, finished ? TR_OK : TR_ERR_NO_MEMORY, "at %llu", (unsigned long long)fail_at);
    if (source.destroy != NULL) source.destroy(source.self);
    s3_settings_fini(&settings);
    cr_expect_eq(counting.live_blocks, 0, "at %llu", (unsigned long long)fail_at);
  }
  cr_expect(finished);
  stop(b);
}
