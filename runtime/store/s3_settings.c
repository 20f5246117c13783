/* Each setting of a bucket: the first of command line, table, variables and profile that has it. */
#include "s3_settings.h"

#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "s3_inputs.h"

enum { PATH_BYTES = 256, ATTEMPTS_MAX = 100 };

/* What the functions below work on: the source, and the settings as far as they are made. */
typedef struct maker {
  const s3_settings_source *source;
  tr_s3_overrides overrides;
  s3_settings made;
  const char *profile_from; /* who named the profile; NULL: nobody, it is "default" */
  bool no_memory;
} maker;

static const char *keep(maker *m, const char *text) {
  if (text == NULL) return NULL;
  const char *copy = tr_arena_strdup(m->made.arena, text);
  m->no_memory = m->no_memory || copy == NULL;
  return copy;
}

static const char *variable(const maker *m, const char *name) { return s3_environment(m->source->environment, name); }

static const char *of_profile(const maker *m, const char *key) {
  return s3_profiles_get(m->source->profiles, m->made.profile, key);
}

/* "storage.TABLE.KEY" where the table has the key, else NULL. */
static const char *table_path(const maker *m, const char *key, char path[PATH_BYTES]) {
  if (m->made.table == NULL) return NULL;
  snprintf(path, PATH_BYTES, "storage.%s.%s", m->made.table, key);
  return tr_config_is_set(m->source->config, path) ? path : NULL;
}

static const char *of_table(const maker *m, const char *key) {
  char path[PATH_BYTES];
  const char *text = table_path(m, key, path) != NULL ? tr_config_text(m->source->config, path) : NULL;
  return text != NULL && text[0] != '\0' ? text : NULL;
}

/* A path in the table, relative to the job file. */
static const char *resolved(maker *m, const char *key, const char *path) {
  char *made = tr_config_path(m->source->config, m->source->allocator, key, path);
  m->no_memory = m->no_memory || made == NULL;
  const char *kept = keep(m, made);
  tr_free(m->source->allocator, made);
  return kept;
}

static tr_status choose_profile(maker *m, tr_error *error) {
  const char *of_the_table = of_table(m, "profile"), *name = m->overrides.profile;
  m->profile_from = name != NULL ? "--profile" : NULL;
  if (name == NULL && of_the_table != NULL) {
    name = of_the_table;
    m->profile_from = "the job file";
  }
  m->made.keys = name != NULL ? S3_KEYS_PROFILE : S3_KEYS_CHAIN;
  static const char *const variables[] = {"AWS_DEFAULT_PROFILE", "AWS_PROFILE"};
  for (size_t i = 0; name == NULL && i < sizeof variables / sizeof *variables; i++) {
    name = variable(m, variables[i]);
    m->profile_from = name != NULL ? variables[i] : NULL;
  }
  m->made.profile = keep(m, name != NULL ? name : "default");
  if (m->profile_from == NULL || s3_profiles_has(m->source->profiles, name)) return TR_OK;
  const char *config = m->source->profiles->config_path, *credentials = m->source->profiles->credentials_path;
  return tr_fail(error, TR_ERR_CONFIG, "profile '%s', named by %s, is neither in %s nor in %s", name, m->profile_from,
                 config != NULL ? config : "~/.aws/config (HOME is not set)",
                 credentials != NULL ? credentials : "~/.aws/credentials (HOME is not set)");
}

/* ---- Keys ---- */

static s3_secret secret_of(maker *m, const char *key) {
  char path[PATH_BYTES];
  s3_secret secret = {0};
  if (table_path(m, key, path) == NULL) return secret;
  const tr_value *tables = tr_value_get(tr_config_root(m->source->config), "storage");
  const tr_value *value = tr_value_get(tr_value_get(tables, m->made.table), key);
  const tr_value *env = tr_value_get(value, "env"), *file = tr_value_get(value, "file");
  if (env != NULL && env->type == TR_VALUE_STRING) secret.env = keep(m, env->text);
  if (file != NULL && file->type == TR_VALUE_STRING) secret.file = resolved(m, path, file->text);
  return secret;
}

static bool is_given(const s3_secret *secret) { return secret->env != NULL || secret->file != NULL; }

static tr_status choose_keys(maker *m, tr_error *error) {
  char path[PATH_BYTES];
  const bool unsigned_table = table_path(m, "sign", path) != NULL && !tr_config_boolean(m->source->config, path);
  if (m->overrides.no_sign_request || (unsigned_table && m->overrides.profile == NULL)) {
    m->made.keys = S3_KEYS_NONE;
    return TR_OK;
  }
  if (m->overrides.profile != NULL) return TR_OK;
  m->made.access_key = secret_of(m, "access-key");
  m->made.secret_key = secret_of(m, "secret-key");
  m->made.session_token = secret_of(m, "session-token");
  const bool access = is_given(&m->made.access_key), secret = is_given(&m->made.secret_key);
  if (!access && !secret && !is_given(&m->made.session_token)) return TR_OK;
  if (!access || !secret) {
    return tr_fail(error, TR_ERR_CONFIG, "[storage.%s]: keys go together, and %s is missing", m->made.table,
                   access ? "secret-key" : "access-key");
  }
  m->made.keys = S3_KEYS_TABLE;
  return TR_OK;
}

/* ---- Where ---- */

static tr_status check_url(const char *url, const char *from, tr_error *error) {
  const size_t scheme = strncmp(url, "https://", 8) == 0 ? 8 : strncmp(url, "http://", 7) == 0 ? 7 : 0;
  const size_t host = strcspn(url + scheme, "/?#");
  if (memchr(url + scheme, '@', host) != NULL) {
    return tr_fail(error, TR_ERR_CONFIG,
                   "the endpoint of %s holds a name or password; keys go elsewhere (see "
                   "docs/storage.md)",
                   from);
  }
  if (scheme == 0) {
    return tr_fail(error, TR_ERR_CONFIG, "%s: '%.200s' is no endpoint; write http://HOST:PORT or https://HOST", from,
                   url);
  }
  const char *bad = strpbrk(url, "?#\\ \t\r\n");
  if (host == 0 || bad != NULL) {
    return tr_fail(error, TR_ERR_CONFIG, "%s: '%.200s' is no endpoint: %s", from, url,
                   host == 0 ? "it names no host" : "it may have neither a query nor blanks");
  }
  return TR_OK;
}

/* The endpoint of a service by variables and profile, and who said it. */
static const char *found_endpoint(const maker *m, const char *own_variable, const char *service, const char **from) {
  const char *ignore = variable(m, "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS");
  if (ignore == NULL) ignore = of_profile(m, "ignore_configured_endpoint_urls");
  if (ignore != NULL && strcasecmp(ignore, "true") == 0) return NULL;
  const char *const variables[] = {own_variable, "AWS_ENDPOINT_URL"};
  for (size_t i = 0; i < 2; i++) {
    *from = variables[i];
    if (variable(m, variables[i]) != NULL) return variable(m, variables[i]);
  }
  *from = "endpoint_url of the profile";
  const char *url = s3_profiles_get_service(m->source->profiles, m->made.profile, service, "endpoint_url");
  return url != NULL ? url : of_profile(m, "endpoint_url");
}

static const char *without_slash(maker *m, const char *url) {
  size_t length = strlen(url);
  while (length > 0 && url[length - 1] == '/') length--;
  const char *kept = tr_arena_strndup(m->made.arena, url, length);
  m->no_memory = m->no_memory || kept == NULL;
  return kept;
}

static tr_status choose_endpoint(maker *m, tr_error *error) {
  const char *from = "--endpoint-url", *url = m->overrides.endpoint;
  if (url == NULL && (url = of_table(m, "endpoint")) != NULL) from = "[storage.*] endpoint";
  if (url == NULL) url = found_endpoint(m, "AWS_ENDPOINT_URL_S3", "s3", &from);
  if (url == NULL) return TR_OK;
  TR_TRY(check_url(url, from, error));
  m->made.endpoint = without_slash(m, url);
  return TR_OK;
}

static tr_status choose_sts_endpoint(maker *m, tr_error *error) {
  const char *from = NULL, *url = found_endpoint(m, "AWS_ENDPOINT_URL_STS", "sts", &from);
  if (url != NULL) {
    TR_TRY(check_url(url, from, error));
    m->made.sts_endpoint = without_slash(m, url);
    return TR_OK;
  }
  m->made.sts_endpoint = tr_arena_printf(m->made.arena, "https://sts.%s.amazonaws.com%s", m->made.region,
                                         strncmp(m->made.region, "cn-", 3) == 0 ? ".cn" : "");
  m->no_memory = m->no_memory || m->made.sts_endpoint == NULL;
  return TR_OK;
}

/* A region becomes part of a host name. */
static tr_status choose_region(maker *m, tr_error *error) {
  const char *region = m->overrides.region;
  if (region == NULL) region = of_table(m, "region");
  if (region == NULL) region = variable(m, "AWS_REGION");
  if (region == NULL) region = variable(m, "AWS_DEFAULT_REGION");
  if (region == NULL) region = of_profile(m, "region");
  if (region == NULL) region = "us-east-1";
  const size_t good = strspn(region, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_");
  if (region[good] != '\0' || good > 63) {
    return tr_fail(error, TR_ERR_CONFIG, "'%.100s' is no region: letters, digits and '-' only", region);
  }
  m->made.region = keep(m, region);
  return TR_OK;
}

static void choose_ca_file(maker *m) {
  const char *path = m->overrides.ca_file, *in_table = of_table(m, "ca-file");
  if (path == NULL && in_table != NULL) {
    char key[PATH_BYTES];
    m->made.ca_file = resolved(m, table_path(m, "ca-file", key), in_table);
    return;
  }
  if (path == NULL) path = variable(m, "AWS_CA_BUNDLE");
  if (path == NULL) path = of_profile(m, "ca_bundle");
  m->made.ca_file = keep(m, path);
}

static bool is_amazon(const char *endpoint) {
  const char *host = strstr(endpoint, "://") + 3;
  const size_t bytes = strcspn(host, ":/");
  static const char *const suffixes[] = {".amazonaws.com", ".amazonaws.com.cn"};
  for (size_t i = 0; i < sizeof suffixes / sizeof *suffixes; i++) {
    const size_t length = strlen(suffixes[i]);
    if (bytes > length && strncmp(host + bytes - length, suffixes[i], length) == 0) return true;
  }
  return false;
}

/* By default: in the path for servers of one's own; at Amazon's in the host name, unless its dots would not fit the
 * server's certificate. */
static tr_status choose_style(maker *m, tr_error *error) {
  char path[PATH_BYTES];
  if (table_path(m, "path-style", path) != NULL) {
    m->made.path_style = tr_config_boolean(m->source->config, path);
    return TR_OK;
  }
  const char *style = s3_profiles_get_in(m->source->profiles, m->made.profile, "s3", "addressing_style");
  if (style == NULL || strcmp(style, "auto") == 0) {
    const bool custom = m->made.endpoint != NULL && !is_amazon(m->made.endpoint);
    m->made.path_style = custom || strchr(m->source->bucket, '.') != NULL;
    return TR_OK;
  }
  m->made.path_style = strcmp(style, "path") == 0;
  if (m->made.path_style || strcmp(style, "virtual") == 0) return TR_OK;
  return tr_fail(error, TR_ERR_CONFIG, "profile '%s': addressing_style = %.40s is none of auto, path, virtual",
                 m->made.profile, style);
}

static tr_status choose_attempts(maker *m, tr_error *error) {
  const char *from = "AWS_MAX_ATTEMPTS", *text = variable(m, from);
  if (text == NULL) {
    from = "max_attempts of the profile";
    text = of_profile(m, "max_attempts");
  }
  if (text == NULL) return TR_OK;
  uint64_t attempts = 0;
  if (!tr_parse_u64(text, &attempts) || attempts == 0 || attempts > ATTEMPTS_MAX) {
    return tr_fail(error, TR_ERR_CONFIG, "%s: '%.40s' is no number from 1 to %d", from, text, ATTEMPTS_MAX);
  }
  m->made.attempts = (uint32_t)attempts;
  return TR_OK;
}

static tr_status choose(maker *m, tr_error *error) {
  const char *table = NULL;
  TR_TRY(s3_settings_table(m->source->config, m->source->bucket, &table, error));
  m->made.bucket = keep(m, m->source->bucket);
  m->made.table = keep(m, table);
  if (m->no_memory) return tr_fail_memory(error, "the settings of a bucket", 0);
  TR_TRY(choose_profile(m, error));
  TR_TRY(choose_keys(m, error));
  if (m->no_memory) return tr_fail_memory(error, "the settings of a bucket", 0);
  TR_TRY(choose_region(m, error));
  TR_TRY(choose_endpoint(m, error));
  if (m->no_memory) return tr_fail_memory(error, "the settings of a bucket", 0);
  TR_TRY(choose_sts_endpoint(m, error));
  choose_ca_file(m);
  TR_TRY(choose_style(m, error));
  TR_TRY(choose_attempts(m, error));
  return m->no_memory ? tr_fail_memory(error, "the settings of a bucket", 0) : TR_OK;
}

tr_status s3_settings_make(const s3_settings_source *source, s3_settings *settings, tr_error *error) {
  maker m = {.source = source};
  if (source->overrides != NULL) m.overrides = *source->overrides;
  TR_TRY(tr_arena_create(source->allocator, 1024, &m.made.arena, error));
  const tr_status status = choose(&m, error);
  if (status != TR_OK) {
    s3_settings_fini(&m.made);
    return tr_error_context(error, status, "bucket '%s'", source->bucket);
  }
  *settings = m.made;
  return TR_OK;
}

void s3_settings_fini(s3_settings *settings) {
  tr_arena_destroy(settings->arena);
  *settings = (s3_settings){0};
}
