/* s3:// URLs: what they name, which are refused, and one store a bucket with the settings of its table. Nothing is asked
 * of a server: requests without keys are looked up nowhere. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <trainrun/s3.h>

#include "support/support.h"

static const char *const environment[] = {"AWS_EC2_METADATA_DISABLED=true", "HOME=/nonexistent", NULL};

static tr_config *load(const char *job) {
  const tr_config_source source = {
      .struct_bytes = sizeof source, .text = job, .text_bytes = job != NULL ? strlen(job) : 0, .name = "job.toml"};
  tr_config *config = NULL;
  tr_error error = {.message = ""};
  cr_assert_eq(tr_config_load(&source, NULL, &config, &error), TR_OK, "%s", error.message);
  return config;
}

static tr_stores *open_set(const tr_config *config, tr_s3_overrides overrides) {
  const tr_stores_options options = {
      .struct_bytes = sizeof options, .config = config, .environment = environment, .s3 = overrides};
  tr_stores *set = NULL;
  tr_error error = {.message = ""};
  cr_assert_eq(tr_stores_create(&options, &set, &error), TR_OK, "%s", error.message);
  return set;
}

static const tr_s3_overrides open_bucket = {.endpoint = "http://127.0.0.1:9", .no_sign_request = true};

Test(s3_urls, name_a_bucket_and_a_key_as_it_is_written) {
  static const struct {
    const char *url, *key;
  } cases[] = {{"s3://bucket/key", "key"},
               {"s3://bucket", ""},
               {"s3://bucket/", ""},
               {"s3://bucket/a/b.tar", "a/b.tar"},
               {"s3://bucket/a/b/", "a/b"},
               {"s3://bucket/a b+c%20d?e#f=g&h", "a b+c%20d?e#f=g&h"},
               {"s3://bucket/\xc3\xa9\xe6\xb0\xb4", "\xc3\xa9\xe6\xb0\xb4"},
               {"s3://my.bucket-1/..x/y..", "..x/y.."},
               {"s3://000/x", "x"}};
  tr_stores *set = open_set(NULL, open_bucket);
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    tr_store *store = NULL;
    char key[TR_KEY_BYTES];
    tr_error error = {.message = ""};
    cr_expect_eq(tr_stores_resolve(set, cases[i].url, &store, key, &error), TR_OK, "%s: %s", cases[i].url,
                 error.message);
    cr_expect_str_eq(key, cases[i].key);
    if (store != NULL) cr_expect_str_eq(tr_store_vtable(store, NULL)->name, "s3");
  }
  tr_stores_destroy(set);
}

Test(s3_urls, that_can_never_work_are_refused_with_a_reason) {
  static const struct {
    const char *url, *words;
  } cases[] = {{"s3://", "names no bucket"},          {"s3:///key", "names no bucket"},
               {"s3://bucket//key", "'//'"},          {"s3://bucket/a//key", "'//'"},
               {"s3://bucket/a//", "'//'"},           {"s3://bucket//", "'//'"},
               {"s3://bucket/../key", "'..'"},        {"s3://bucket/a/..", "'..'"},
               {"s3://bucket/./key", "'..'"},         {"s3://ab/key", "is no bucket"},
               {"s3://Bucket/key", "is no bucket"},   {"s3://my_bucket/key", "is no bucket"},
               {"s3://-bucket/key", "is no bucket"},  {"s3://bucket-/key", "is no bucket"},
               {"s3://buc..ket/key", "is no bucket"}, {"s3://bucket:9000/key", "is no bucket"},
               {"s3://bucket?x=y", "is no bucket"},   {"s3://AKID:CANARY@bucket/key", "keys do not go into URLs"}};
  tr_stores *set = open_set(NULL, open_bucket);
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    tr_store *store = NULL;
    char key[TR_KEY_BYTES] = "unset";
    tr_error error = {.message = ""};
    cr_expect_eq(tr_stores_resolve(set, cases[i].url, &store, key, &error), TR_ERR_CONFIG, "%s", cases[i].url);
    cr_expect_not_null(strstr(error.message, cases[i].words), "%s: %s", cases[i].url, error.message);
    cr_expect_null(strstr(error.message, "CANARY"), "%s", error.message);
    cr_expect_null(store);
    cr_expect_str_eq(key, "unset");
  }
  char *url = ts_format("s3://bucket/%01100d", 7);
  tr_store *store = NULL;
  char key[TR_KEY_BYTES];
  tr_error error = {.message = ""};
  cr_expect_eq(tr_stores_resolve(set, url, &store, key, &error), TR_ERR_CONFIG);
  cr_expect_not_null(strstr(error.message, "longer than 1023 bytes"), "%s", error.message);
  tr_stores_destroy(set);
}

Test(s3_urls, have_one_store_a_bucket) {
  tr_stores *set = open_set(NULL, open_bucket);
  tr_store *a = NULL, *b = NULL, *c = NULL;
  char key[TR_KEY_BYTES];
  cr_assert_eq(tr_stores_resolve(set, "s3://one/x", &a, key, NULL), TR_OK);
  cr_assert_eq(tr_stores_resolve(set, "s3://one", &b, key, NULL), TR_OK);
  cr_assert_eq(tr_stores_resolve(set, "s3://two/x", &c, key, NULL), TR_OK);
  cr_expect_eq(a, b);
  cr_expect_neq(a, c);
  tr_stores_destroy(set);
}

Test(s3_urls, without_keys_say_where_was_looked) {
  tr_stores *set = open_set(NULL, (tr_s3_overrides){.endpoint = "http://127.0.0.1:9"});
  tr_store *store = NULL;
  char key[TR_KEY_BYTES];
  tr_error error = {.message = ""};
  cr_expect_eq(tr_stores_resolve(set, "s3://bucket/key", &store, key, &error), TR_ERR_DENIED);
  cr_expect_not_null(strstr(error.message, "AWS_ACCESS_KEY_ID (not set)"), "%s", error.message);
  tr_stores_destroy(set);
}

Test(s3_urls, take_the_settings_of_the_bucket_s_table) {
  tr_config *config = load(
      "[storage.lake]\nbuckets = [\"lake-*\"]\nendpoint = \"http://127.0.0.1:9\"\nsign = false\n"
      "[storage.bad]\nbuckets = [\"bad\"]\nendpoint = \"127.0.0.1\"\nsign = false\n");
  tr_stores *set = open_set(config, (tr_s3_overrides){0});
  tr_store *store = NULL;
  char key[TR_KEY_BYTES];
  tr_error error = {.message = ""};
  cr_expect_eq(tr_stores_resolve(set, "s3://lake-1/x", &store, key, &error), TR_OK, "%s", error.message);
  cr_expect_eq(tr_stores_resolve(set, "s3://bad/x", &store, key, &error), TR_ERR_CONFIG);
  cr_expect_not_null(strstr(error.message, "bucket 'bad': [storage.*] endpoint: '127.0.0.1' is no endpoint"), "%s",
                     error.message);
  tr_stores_destroy(set);
  tr_config_destroy(config);
}

Test(s3_urls, survive_each_allocation_failing_in_turn) {
  bool finished = false;
  for (uint64_t fail_at = 1; !finished && fail_at < 400; fail_at++) {
    tr_counting_allocator counting;
    tr_counting_allocator_init(&counting);
    counting.fail_at = fail_at;
    const tr_stores_options options = {.struct_bytes = sizeof options,
                                       .allocator = &counting.allocator,
                                       .environment = environment,
                                       .s3 = open_bucket};
    tr_stores *set = NULL;
    tr_store *store = NULL;
    char key[TR_KEY_BYTES];
    tr_error error = {.message = ""};
    tr_status status = tr_stores_create(&options, &set, &error);
    if (status == TR_OK) status = tr_stores_resolve(set, "s3://bucket/x", &store, key, &error);
    tr_stores_destroy(set);
    finished = counting.allocations < fail_at;
    cr_expect_eq(status, finished ? TR_OK : TR_ERR_NO_MEMORY, "at %llu: %s", (unsigned long long)fail_at,
                 error.message);
    cr_expect_eq(counting.live_blocks, 0, "at %llu", (unsigned long long)fail_at);
  }
  cr_expect(finished);
}
