/* Keys that a [storage.*] table refers to, and those of AWS's variables. */
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "s3_chain.h"
#include "s3_inputs.h"

/* What a reference holds, in new memory: wipe it. NULL for one that is not given. */
static tr_status read_secret(const s3_chain *chain, const char *key, const s3_secret *secret, char **text,
                             tr_error *error) {
  const char *table = chain->settings->table;
  if (secret->env != NULL) {
    const char *value = s3_environment(chain->environment, secret->env);
    if (value == NULL) {
      return tr_fail(error, TR_ERR_CONFIG, "[storage.%s] %s: the variable %s is not set", table, key, secret->env);
    }
    *text = tr_strdup(chain->allocator, value);
    return *text != NULL ? TR_OK : tr_fail_memory(error, key, strlen(value));
  }
  if (secret->file == NULL) return TR_OK;
  uint32_t mode = 0;
  size_t bytes = 0;
  const tr_status status = s3_file_read(chain->allocator, key, secret->file, TR_S3_SECRET_BYTES, text, &bytes, &mode,
                                        error);
  if (status != TR_OK) return tr_error_context(error, status, "[storage.%s]", table);
  if ((mode & S_IROTH) != 0) {
    tr_logf(chain->log, TR_LOG_WARNING, "[storage.%s] %s: everybody on this machine can read %s; chmod 600 it", table,
            key, secret->file);
  }
  return TR_OK;
}

static void drop(const s3_chain *chain, char *text) {
  if (text != NULL) explicit_bzero(text, strlen(text));
  tr_free(chain->allocator, text);
}

tr_status s3_keys_table(const s3_chain *chain, s3_search *search, tr_error *error) {
  const s3_settings *settings = chain->settings;
  char *access_key = NULL, *secret_key = NULL, *session_token = NULL, from[128];
  snprintf(from, sizeof from, "[storage.%.100s]", settings->table);
  tr_status status = read_secret(chain, "access-key", &settings->access_key, &access_key, error);
  if (status == TR_OK) status = read_secret(chain, "secret-key", &settings->secret_key, &secret_key, error);
  if (status == TR_OK) status = read_secret(chain, "session-token", &settings->session_token, &session_token, error);
  if (status == TR_OK) status = s3_search_take(search, from, access_key, secret_key, session_token, 0, error);
  drop(chain, access_key);
  drop(chain, secret_key);
  drop(chain, session_token);
  return status;
}

tr_status s3_keys_environment(const s3_chain *chain, s3_search *search, tr_error *error) {
  const char *const *environment = chain->environment;
  const char *access_key = s3_environment(environment, "AWS_ACCESS_KEY_ID");
  const char *secret_key = s3_environment(environment, "AWS_SECRET_ACCESS_KEY");
  if (access_key == NULL) {
    s3_search_tried(search, "AWS_ACCESS_KEY_ID (not set)");
    return TR_OK;
  }
  if (secret_key == NULL) {
    return tr_fail(error, TR_ERR_CONFIG, "AWS_ACCESS_KEY_ID is set and AWS_SECRET_ACCESS_KEY is not");
  }
  const char *token = s3_environment(environment, "AWS_SESSION_TOKEN");
  if (token == NULL) token = s3_environment(environment, "AWS_SECURITY_TOKEN");
  return s3_search_take(search, "AWS_ACCESS_KEY_ID and its like", access_key, secret_key, token, 0, error);
}
