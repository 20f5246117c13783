/* The order in which keys are looked for, and the checks that all of them pass. */
#include "s3_chain.h"

#include <ctype.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

void s3_search_tried(s3_search *search, const char *format, ...) {
  va_list arguments;
  va_start(arguments, format);
  const size_t room = sizeof search->tried - search->tried_bytes;
  if (search->tried_bytes > 0) {
    const int glue = snprintf(search->tried + search->tried_bytes, room, ", ");
    if (glue > 0 && (size_t)glue < room) search->tried_bytes += (size_t)glue;
  }
  const size_t left = sizeof search->tried - search->tried_bytes;
  const int length = vsnprintf(search->tried + search->tried_bytes, left, format, arguments);
  va_end(arguments);
  if (length > 0) search->tried_bytes += (size_t)length < left ? (size_t)length : left - 1;
}

/* ---- Checks ---- */

/* Keys go into headers: printable ASCII without blanks. False where they are not, or do not fit. */
static bool copy_key(char *out, size_t capacity, const char *key) {
  while (isspace((unsigned char)*key)) key++;
  size_t length = strlen(key);
  while (length > 0 && isspace((unsigned char)key[length - 1])) length--;
  for (size_t i = 0; i < length; i++) {
    if (key[i] <= ' ' || key[i] > '~') return false;
  }
  if (length >= capacity) return false;
  memcpy(out, key, length);
  out[length] = '\0';
  return true;
}

tr_status s3_search_take(s3_search *search, const char *from, const char *access_key, const char *secret_key,
                         const char *session_token, int64_t expires_ns, tr_error *error) {
  tr_s3_credentials made = {.expires_ns = expires_ns};
  snprintf(made.from, sizeof made.from, "%s", from);
  const char *what = NULL, *wrong = "holds blanks or control characters, or is too long";
  if (!copy_key(made.access_key, sizeof made.access_key, access_key)) {
    what = "the access key";
  } else if (!copy_key(made.secret_key, sizeof made.secret_key, secret_key)) {
    what = "the secret key";
  } else if (!copy_key(made.session_token, sizeof made.session_token, session_token != NULL ? session_token : "")) {
    what = "the session token";
  } else if (made.access_key[0] == '\0' || made.secret_key[0] == '\0') {
    what = made.access_key[0] == '\0' ? "the access key" : "the secret key";
    wrong = "is empty";
  }
  if (what == NULL) {
    *search->keys = made;
    search->found = true;
  }
  explicit_bzero(&made, sizeof made);
  return what == NULL ? TR_OK : tr_fail(error, TR_ERR_DENIED, "%s: %s %s", from, what, wrong);
}

bool s3_time_parse(const char *text, int64_t *wall_ns) {
  struct tm parts = {0};
  const char *rest = strptime(text, "%Y-%m-%dT%H:%M:%S", &parts);
  if (rest == NULL) return false;
  if (*rest == '.') rest += 1 + strspn(rest + 1, "0123456789");
  int64_t offset_s = 0;
  if (*rest == '+' || *rest == '-') {
    unsigned hours = 0, minutes = 0;
    int end = 0;
    if (sscanf(rest + 1, "%2u:%2u%n", &hours, &minutes, &end) != 2 || rest[1 + end] != '\0') return false;
    offset_s = (int64_t)(hours * 60 + minutes) * (*rest == '+' ? 60 : -60);
  } else if (strcmp(rest, "Z") != 0) {
    return false;
  }
  *wall_ns = ((int64_t)timegm(&parts) - offset_s) * INT64_C(1000000000);
  return true;
}

/* ---- JSON ---- */

static const char *text_of(const json_t *object, const char *key) {
  return json_string_value(json_object_get(object, key));
}

static void wipe(json_t *object) {
  const char *key;
  json_t *value;
  json_object_foreach(object, key, value) {
    if (json_is_string(value)) explicit_bzero((char *)(uintptr_t)json_string_value(value), json_string_length(value));
  }
}

static tr_status take_object(s3_search *search, const char *from, const json_t *object, const char *token_name,
                             bool versioned, tr_error *error) {
  if (versioned && json_integer_value(json_object_get(object, "Version")) != 1) {
    return tr_fail(error, TR_ERR_CONFIG, "%s: the answer has no \"Version\": 1", from);
  }
  const char *code = text_of(object, "Code");
  if (code != NULL && strcmp(code, "Success") != 0) {
    return tr_fail(error, TR_ERR_DENIED, "%s: the answer says %.60s", from, code);
  }
  const char *access_key = text_of(object, "AccessKeyId"), *secret_key = text_of(object, "SecretAccessKey");
  if (access_key == NULL || secret_key == NULL) {
    return tr_fail(error, TR_ERR_DENIED, "%s: the answer has no %s", from,
                   access_key == NULL ? "AccessKeyId" : "SecretAccessKey");
  }
  int64_t expires_ns = 0;
  const char *expiration = text_of(object, "Expiration");
  if (expiration != NULL && !s3_time_parse(expiration, &expires_ns)) {
    return tr_fail(error, TR_ERR_CONFIG, "%s: Expiration is no time such as 2026-01-31T12:00:00Z", from);
  }
  return s3_search_take(search, from, access_key, secret_key, text_of(object, token_name), expires_ns, error);
}

tr_status s3_search_take_json(s3_search *search, const char *from, const char *text, size_t bytes,
                              const char *token_name, bool versioned, tr_error *error) {
  json_t *object = json_loadb(text, bytes, JSON_REJECT_DUPLICATES, NULL);
  if (!json_is_object(object)) {
    json_decref(object);
    return tr_fail(error, TR_ERR_CONFIG, "%s: the answer is no JSON object", from);
  }
  const tr_status status = take_object(search, from, object, token_name, versioned, error);
  wipe(object);
  json_decref(object);
  return status;
}

/* ---- The order ---- */

typedef tr_status (*place)(const s3_chain *chain, s3_search *search, tr_error *error);

static tr_status ask_all(const s3_chain *chain, s3_search *search, tr_error *error) {
  static const place variables[] = {s3_keys_environment, s3_keys_web_identity, s3_keys_profile, s3_keys_container,
                                    s3_keys_instance};
  /* Who names a profile does not mean the variables. */
  const size_t first = chain->settings->keys == S3_KEYS_PROFILE ? 1 : 0;
  for (size_t i = first; i < sizeof variables / sizeof *variables && !search->found; i++) {
    TR_TRY(variables[i](chain, search, error));
  }
  return TR_OK;
}

tr_status s3_chain_find(const s3_chain *chain, tr_s3_credentials *keys, tr_error *error) {
  s3_search search = {.keys = keys};
  if (chain->settings->keys == S3_KEYS_TABLE) return s3_keys_table(chain, &search, error);
  TR_TRY(ask_all(chain, &search, error));
  if (search.found) return TR_OK;
  return tr_fail(error, TR_ERR_DENIED,
                 "there are no keys; looked at %s. For a public bucket: --no-sign-request, or sign = false",
                 search.tried);
}
