/* Keys of a profile: written in AWS's files, or printed by the program that its credential_process names.
 *
 * The files are read anew each time, since tools rewrite them when they renew keys. */
#include <stdio.h>
#include <string.h>

#include "s3_chain.h"
#include "s3_process.h"

enum { OUTPUT_BYTES_MAX = 64 << 10, FROM_BYTES = 200 };

typedef const char *(*file_fn)(const s3_profiles *profiles, const char *profile, const char *key);

static tr_status take_written(const s3_profiles *profiles, const char *profile, file_fn in_file, s3_search *search,
                              const char *from, tr_error *error) {
  const char *secret_key = in_file(profiles, profile, "aws_secret_access_key");
  const char *token = in_file(profiles, profile, "aws_session_token");
  if (token == NULL) token = in_file(profiles, profile, "aws_security_token");
  if (secret_key == NULL) {
    return tr_fail(error, TR_ERR_CONFIG, "%s: there is aws_access_key_id and no aws_secret_access_key", from);
  }
  return s3_search_take(search, from, in_file(profiles, profile, "aws_access_key_id"), secret_key, token, 0, error);
}

static tr_status take_printed(const s3_chain *chain, s3_search *search, const char *from, const char *command,
                              tr_error *error) {
  const s3_process process = {.command = command,
                              .environment = chain->environment,
                              .timeout_ms = chain->process_timeout_ms,
                              .max_bytes = OUTPUT_BYTES_MAX};
  char *output = NULL, whose[FROM_BYTES + 32];
  size_t bytes = 0;
  snprintf(whose, sizeof whose, "credential_process of %s", from);
  const tr_status status = s3_process_run(chain->allocator, &process, &output, &bytes, error);
  if (status != TR_OK) return tr_error_context(error, status, "%s", whose);
  const tr_status taken = s3_search_take_json(search, whose, output, bytes, "SessionToken", true, error);
  explicit_bzero(output, bytes);
  tr_free(chain->allocator, output);
  return taken;
}

/* What other tools would do and this one does not: said, since another place's keys would be a surprise. */
static tr_status refuse_others(const s3_profiles *profiles, const char *profile, const char *from, tr_error *error) {
  static const char *const keys[] = {"sso_session", "sso_start_url", "role_arn"};
  for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
    if (s3_profiles_get(profiles, profile, keys[i]) == NULL) continue;
    return tr_fail(
        error, TR_ERR_UNSUPPORTED,
        "%s gets its keys by %s: not in this version. Make a profile with credential_process = aws configure "
        "export-credentials --profile %.60s --format process",
        from, keys[i], profile);
  }
  return TR_OK;
}

static tr_status look(const s3_chain *chain, const s3_profiles *profiles, s3_search *search, tr_error *error) {
  const char *profile = chain->settings->profile;
  char from[FROM_BYTES];
  snprintf(from, sizeof from, "profile '%.100s'", profile);
  TR_TRY(refuse_others(profiles, profile, from, error));
  /* botocore's order. */
  if (s3_profiles_in_credentials(profiles, profile, "aws_access_key_id") != NULL) {
    return take_written(profiles, profile, s3_profiles_in_credentials, search, from, error);
  }
  const char *command = s3_profiles_get(profiles, profile, "credential_process");
  if (command != NULL) return take_printed(chain, search, from, command, error);
  if (s3_profiles_in_config(profiles, profile, "aws_access_key_id") != NULL) {
    return take_written(profiles, profile, s3_profiles_in_config, search, from, error);
  }
  s3_search_tried(search, "%s (no keys in %.80s)", from,
                  profiles->credentials_path != NULL ? profiles->credentials_path : "~/.aws: HOME is not set");
  return TR_OK;
}

tr_status s3_keys_profile(const s3_chain *chain, s3_search *search, tr_error *error) {
  s3_profiles profiles;
  TR_TRY(s3_profiles_load(chain->allocator, chain->environment, &profiles, error));
  const tr_status status = look(chain, &profiles, search, error);
  s3_profiles_fini(&profiles);
  return status;
}
