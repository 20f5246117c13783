/* Buckets of a set of stores: settings and keys found, then opened by tr_store_s3_open. */
#include "stores_s3.h"

#include <string.h>
#include <trainrun/s3.h>

#include "s3_keychain.h"
#include "store_key.h"

struct stores_s3 {
  const tr_allocator *allocator;
  const tr_clock *clock;
  tr_log *log;
  const tr_config *config;
  bool persistent;
  tr_arena *arena; /* of the overrides */
  tr_s3_overrides overrides;
  const char **environment; /* NULL-terminated, into variables; NULL: none */
  char *variables;          /* one behind the other: some are secrets */
  size_t variable_bytes;
};

/* ---- URLs ---- */

static const char letters[] = "abcdefghijklmnopqrstuvwxyz0123456789.-";

static bool is_bucket(const char *name, size_t bytes) {
  if (bytes < 3 || bytes >= S3_BUCKET_BYTES) return false;
  for (size_t i = 0; i < bytes; i++) {
    if (strchr(letters, name[i]) == NULL) return false;
    const bool edge = i == 0 || i + 1 == bytes;
    if ((name[i] == '.' || name[i] == '-') && (edge || (name[i] == '.' && name[i + 1] == '.'))) return false;
  }
  return true;
}

tr_status stores_s3_parse(const char *url, char bucket[S3_BUCKET_BYTES], char key[TR_KEY_BYTES], tr_error *error) {
  const char *name = url + strlen("s3://");
  const size_t name_bytes = strcspn(name, "/");
  if (name_bytes == 0) return tr_fail(error, TR_ERR_CONFIG, "'%.200s' names no bucket; write s3://BUCKET/KEY", url);
  if (memchr(name, '@', name_bytes) != NULL) {
    return tr_fail(error, TR_ERR_CONFIG,
                   "an s3:// URL holds an '@' before its first '/': keys do not go into URLs (see "
                   "docs/storage.md)");
  }
  if (!is_bucket(name, name_bytes)) {
    return tr_fail(
        error, TR_ERR_CONFIG,
        "'%.200s': '%.*s' is no bucket; a name has 3 to 63 lower-case letters, digits, '-' and single '.', and "
        "begins and ends with a letter or digit",
        url, (int)(name_bytes < 100 ? name_bytes : 100), name);
  }
  const char *rest = name + name_bytes + (name[name_bytes] == '/');
  size_t bytes = strlen(rest);
  if (bytes > 0 && rest[bytes - 1] == '/') bytes--;
  if (bytes >= TR_KEY_BYTES) {
    return tr_fail(error, TR_ERR_CONFIG, "'%.60s…': the key is longer than %d bytes", url, TR_KEY_BYTES - 1);
  }
  char made[TR_KEY_BYTES];
  memcpy(made, rest, bytes);
  made[bytes] = '\0';
  if (rest[0] != '\0' && tr_store_key_check(made, NULL) != TR_OK) {
    return tr_fail(error, TR_ERR_CONFIG, "'%.200s': a key has no empty part ('//'), no '.' and no '..'", url);
  }
  memcpy(bucket, name, name_bytes);
  bucket[name_bytes] = '\0';
  memcpy(key, made, sizeof made);
  return TR_OK;
}

/* ---- The set's part ---- */

static tr_status copy_environment(stores_s3 *s3, const char *const *environment, tr_error *error) {
  size_t count = 0, bytes = 0;
  if (environment == NULL) return TR_OK;
  for (; environment[count] != NULL; count++) bytes += strlen(environment[count]) + 1;
  s3->environment = tr_calloc(s3->allocator, count + 1, sizeof *s3->environment);
  s3->variables = tr_alloc(s3->allocator, bytes);
  if (s3->environment == NULL || s3->variables == NULL)
    return tr_fail_memory(error, "a copy of the environment", bytes);
  s3->variable_bytes = bytes;
  char *at = s3->variables;
  for (size_t i = 0; i < count; i++) {
    const size_t length = strlen(environment[i]) + 1;
    memcpy(at, environment[i], length);
    s3->environment[i] = at;
    at += length;
  }
  return TR_OK;
}

static bool copy_text(stores_s3 *s3, const char *text, const char **copy) {
  *copy = text != NULL ? tr_arena_strdup(s3->arena, text) : NULL;
  return text == NULL || *copy != NULL;
}

static tr_status copy_overrides(stores_s3 *s3, const tr_s3_overrides *given, tr_error *error) {
  TR_TRY(tr_arena_create(s3->allocator, 512, &s3->arena, error));
  s3->overrides.no_sign_request = given->no_sign_request;
  const bool whole = copy_text(s3, given->endpoint, &s3->overrides.endpoint) &&
                     copy_text(s3, given->region, &s3->overrides.region) &&
                     copy_text(s3, given->profile, &s3->overrides.profile) &&
                     copy_text(s3, given->ca_file, &s3->overrides.ca_file);
  return whole ? TR_OK : tr_fail_memory(error, "the flags of a store", 0);
}

tr_status stores_s3_create(const tr_stores_options *options, stores_s3 **out, tr_error *error) {
  stores_s3 *s3 = tr_calloc(options->allocator, 1, sizeof *s3);
  if (s3 == NULL) return tr_fail_memory(error, "the buckets of a job", sizeof *s3);
  s3->allocator = options->allocator;
  s3->clock = options->clock;
  s3->log = options->log;
  s3->config = options->config;
  s3->persistent = options->persistent;
  tr_status status = copy_environment(s3, options->environment, error);
  if (status == TR_OK) status = copy_overrides(s3, &options->s3, error);
  if (status != TR_OK) {
    stores_s3_destroy(s3);
    return status;
  }
  *out = s3;
  return TR_OK;
}

void stores_s3_destroy(stores_s3 *s3) {
  if (s3 == NULL) return;
  if (s3->variables != NULL) explicit_bzero(s3->variables, s3->variable_bytes);
  tr_free(s3->allocator, s3->variables);
  tr_free(s3->allocator, s3->environment);
  tr_arena_destroy(s3->arena);
  tr_free(s3->allocator, s3);
}

/* ---- Opening ---- */

static tr_status find_settings(const stores_s3 *s3, const char *bucket, s3_settings *settings, tr_error *error) {
  s3_profiles profiles;
  TR_TRY(s3_profiles_load(s3->allocator, s3->environment, &profiles, error));
  const s3_settings_source source = {.allocator = s3->allocator,
                                     .config = s3->config,
                                     .environment = s3->environment,
                                     .overrides = &s3->overrides,
                                     .profiles = &profiles,
                                     .bucket = bucket};
  const tr_status status = s3_settings_make(&source, settings, error);
  s3_profiles_fini(&profiles);
  return status;
}

static void say(const stores_s3 *s3, const s3_settings *settings) {
  static const char *const keys[] = {"AWS's variables and profiles", "a profile", "the table", "nowhere"};
  tr_logf(s3->log, TR_LOG_DEBUG, "s3://%s: [storage.%s], endpoint %s, region %s, profile %s, keys from %s",
          settings->bucket, settings->table != NULL ? settings->table : "-",
          settings->endpoint != NULL ? settings->endpoint : "Amazon's", settings->region, settings->profile,
          keys[settings->keys]);
}

tr_status stores_s3_open(const stores_s3 *s3, const char *bucket, tr_store **store, tr_error *error) {
  s3_settings settings = {0};
  TR_TRY(find_settings(s3, bucket, &settings, error));
  say(s3, &settings);
  tr_store_s3_options options = {.struct_bytes = sizeof options,
                                 .allocator = s3->allocator,
                                 .clock = s3->clock,
                                 .log = s3->log,
                                 .bucket = settings.bucket,
                                 .endpoint = settings.endpoint,
                                 .region = settings.region,
                                 .ca_file = settings.ca_file,
                                 .path_style = settings.path_style,
                                 .attempts = settings.attempts,
                                 .persistent = s3->persistent};
  tr_status status = TR_OK;
  if (settings.keys != S3_KEYS_NONE) {
    /* Takes the settings over, and with them the text that the options point to. */
    const s3_keychain_options keychain = {
        .allocator = s3->allocator, .clock = s3->clock, .log = s3->log, .environment = s3->environment};
    status = s3_keychain_create(&keychain, &settings, &options.credentials, error);
  }
  if (status == TR_OK) status = tr_store_s3_open(&options, store, error);
  if (status != TR_OK && options.credentials.destroy != NULL) options.credentials.destroy(options.credentials.self);
  s3_settings_fini(&settings);
  return status;
}
