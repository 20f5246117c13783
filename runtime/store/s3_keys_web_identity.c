/* Keys for a web identity: the token of a file (EKS writes and renews it) exchanged at STS.
 *
 * Variables go before the profile's keys of the same meaning. The answer is XML, of which four elements are read. */
#include <stdio.h>
#include <string.h>

#include "s3_chain.h"
#include "s3_http.h"
#include "s3_inputs.h"
#include "s3_text.h"
#include "s3_xml.h"

enum { TIMEOUT_MS = 10000, ANSWER_BYTES_MAX = 64 << 10, TOKEN_BYTES_MAX = 20000, FORM_BYTES = 64 << 10, ATTEMPTS = 3 };

typedef struct identity {
  char *role, *token_file, *session; /* copies: the profile's text does not stay */
} identity;

static void identity_fini(const s3_chain *chain, identity *id) {
  tr_free(chain->allocator, id->role);
  tr_free(chain->allocator, id->token_file);
  tr_free(chain->allocator, id->session);
}

static bool choose(const s3_chain *chain, const s3_profiles *profiles, const char *variable, const char *key,
                   char **copy) {
  const char *value = NULL;
  if (chain->settings->keys != S3_KEYS_PROFILE) value = s3_environment(chain->environment, variable);
  if (value == NULL) value = s3_profiles_get(profiles, chain->settings->profile, key);
  *copy = value != NULL ? tr_strdup(chain->allocator, value) : NULL;
  return value == NULL || *copy != NULL;
}

static tr_status find_identity(const s3_chain *chain, identity *id, tr_error *error) {
  s3_profiles profiles;
  TR_TRY(s3_profiles_load(chain->allocator, chain->environment, &profiles, error));
  const bool whole = choose(chain, &profiles, "AWS_WEB_IDENTITY_TOKEN_FILE", "web_identity_token_file",
                            &id->token_file) &&
                     choose(chain, &profiles, "AWS_ROLE_ARN", "role_arn", &id->role) &&
                     choose(chain, &profiles, "AWS_ROLE_SESSION_NAME", "role_session_name", &id->session);
  s3_profiles_fini(&profiles);
  return whole ? TR_OK : tr_fail_memory(error, "a web identity", 0);
}

/* ---- The answer ---- */

typedef struct sts_keys {
  char access_key[256], secret_key[256], session_token[TR_S3_SECRET_BYTES], expiration[40];
} sts_keys;

static bool read_keys(const s3_http_answer *answer, sts_keys *keys) {
  const struct {
    const char *name;
    char *text;
    size_t capacity;
  } wanted[] = {{"AccessKeyId", keys->access_key, sizeof keys->access_key},
                {"SecretAccessKey", keys->secret_key, sizeof keys->secret_key},
                {"SessionToken", keys->session_token, sizeof keys->session_token},
                {"Expiration", keys->expiration, sizeof keys->expiration}};
  enum { WANTED = sizeof wanted / sizeof *wanted };
  bool inside = false, whole = true;
  size_t found = 0;
  s3_xml xml = s3_xml_of(answer->body, answer->bytes);
  for (s3_xml_event event; (event = s3_xml_next(&xml)) != S3_XML_END;) {
    if (event == S3_XML_BAD) return false;
    if (s3_xml_is(&xml, "Credentials")) inside = event == S3_XML_OPEN;
    for (size_t i = 0; i < WANTED && inside && event == S3_XML_CLOSE; i++) {
      if (!s3_xml_is(&xml, wanted[i].name)) continue;
      whole = s3_xml_text(&xml, wanted[i].text, wanted[i].capacity) && whole;
      found++;
    }
  }
  return whole && found == WANTED;
}

static tr_status take_answer(const s3_http_answer *answer, s3_search *search, tr_error *error) {
  sts_keys keys = {.access_key = ""};
  int64_t expires_ns = 0;
  tr_status status;
  if (!read_keys(answer, &keys)) {
    status = tr_fail(error, TR_ERR_DENIED, "STS: the answer holds no keys");
  } else if (!s3_time_parse(keys.expiration, &expires_ns)) {
    status = tr_fail(error, TR_ERR_CONFIG, "STS: Expiration is no time such as 2026-01-31T12:00:00Z");
  } else {
    status = s3_search_take(search, "STS", keys.access_key, keys.secret_key, keys.session_token, expires_ns, error);
  }
  explicit_bzero(&keys, sizeof keys);
  return status;
}

/* "AccessDenied" of an error's XML; what does not look like a code is not repeated. */
static void read_code(const s3_http_answer *answer, char code[64]) {
  snprintf(code, 64, "no reason");
  s3_xml xml = s3_xml_of(answer->body, answer->bytes);
  for (s3_xml_event event; (event = s3_xml_next(&xml)) != S3_XML_END && event != S3_XML_BAD;) {
    char text[64];
    if (event != S3_XML_CLOSE || !s3_xml_is(&xml, "Code") || !s3_xml_text(&xml, text, sizeof text)) continue;
    const size_t letters = strspn(text, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.");
    if (letters > 0 && text[letters] == '\0') memcpy(code, text, letters + 1);
    return;
  }
}

/* ---- The request ---- */

static tr_status ask_once(const s3_chain *chain, const char *form, s3_search *search, tr_error *error) {
  static const char *const headers[] = {"Content-Type: application/x-www-form-urlencoded", "Accept: application/xml"};
  char url[512];
  if (snprintf(url, sizeof url, "%s/", chain->settings->sts_endpoint) >= (int)sizeof url) {
    return tr_fail(error, TR_ERR_CONFIG, "the endpoint of STS is too long");
  }
  const s3_http_request request = {.method = "POST",
                                   .url = url,
                                   .headers = headers,
                                   .header_count = 2,
                                   .body = form,
                                   .ca_file = chain->settings->ca_file,
                                   .timeout_ms = TIMEOUT_MS,
                                   .max_bytes = ANSWER_BYTES_MAX};
  s3_http_answer answer = {0};
  TR_TRY(s3_http(chain->allocator, &request, &answer, error));
  tr_status status;
  if (answer.status == 200) {
    status = take_answer(&answer, search, error);
  } else {
    char code[64];
    read_code(&answer, code);
    status = tr_fail(error, answer.status >= 500 || answer.status == 429 ? TR_ERR_STORE : TR_ERR_DENIED,
                     "STS answers with status %u (%s)", answer.status, code);
  }
  s3_http_answer_fini(chain->allocator, &answer);
  return status;
}

static tr_status exchange(const s3_chain *chain, const identity *id, const char *token, s3_search *search,
                          tr_error *error) {
  char *form = tr_alloc(chain->allocator, FORM_BYTES), made[64];
  if (form == NULL) return tr_fail_memory(error, "a request to STS", FORM_BYTES);
  snprintf(made, sizeof made, "trainrun-%lld", (long long)(tr_clock_wall_ns(chain->clock) / 1000000000));
  s3_text text = s3_text_in(form, FORM_BYTES);
  s3_text_addf(&text, "Action=AssumeRoleWithWebIdentity&Version=2011-06-15&RoleArn=");
  s3_text_encode(&text, id->role, false);
  s3_text_addf(&text, "&RoleSessionName=");
  s3_text_encode(&text, id->session != NULL ? id->session : made, false);
  s3_text_addf(&text, "&WebIdentityToken=");
  s3_text_encode(&text, token, false);
  tr_status status = TR_ERR_STORE;
  if (text.cut) status = tr_fail(error, TR_ERR_CONFIG, "AWS_ROLE_ARN and its like are too long");
  for (int attempt = 1; attempt <= ATTEMPTS && status == TR_ERR_STORE; attempt++) {
    if (attempt > 1) tr_clock_sleep_ns(chain->clock, UINT64_C(500000000));
    status = ask_once(chain, form, search, error);
  }
  explicit_bzero(form, FORM_BYTES);
  tr_free(chain->allocator, form);
  return status;
}

static tr_status become(const s3_chain *chain, const identity *id, s3_search *search, tr_error *error) {
  if (id->role == NULL) {
    return tr_fail(error, TR_ERR_CONFIG, "AWS_WEB_IDENTITY_TOKEN_FILE is set and AWS_ROLE_ARN is not");
  }
  char *token = NULL;
  size_t bytes = 0;
  TR_TRY(s3_file_read(chain->allocator, "AWS_WEB_IDENTITY_TOKEN_FILE", id->token_file, TOKEN_BYTES_MAX, &token, &bytes,
                      NULL, error));
  token[strcspn(token, " \t\r\n")] = '\0';
  const tr_status status = exchange(chain, id, token, search, error);
  explicit_bzero(token, bytes);
  tr_free(chain->allocator, token);
  return status;
}

tr_status s3_keys_web_identity(const s3_chain *chain, s3_search *search, tr_error *error) {
  identity id = {0};
  tr_status status = find_identity(chain, &id, error);
  if (status == TR_OK && id.token_file != NULL) {
    status = become(chain, &id, search, error);
  } else if (status == TR_OK) {
    s3_search_tried(search, "AWS_WEB_IDENTITY_TOKEN_FILE (not set)");
  }
  identity_fini(chain, &id);
  return status;
}
