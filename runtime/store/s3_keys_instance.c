/* Keys of the machine's role on EC2: the metadata service, version 2 only.
 *
 * Version 1 answers whoever can make this machine send a GET, so it is never asked. On a machine that is not Amazon's
 * nothing answers; the time for that is one second, and none where AWS_EC2_METADATA_DISABLED=true. */
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "s3_chain.h"
#include "s3_http.h"
#include "s3_inputs.h"

enum { TIMEOUT_S = 1, TOKEN_BYTES_MAX = 4096, ANSWER_BYTES_MAX = 64 << 10, URL_BYTES = 1024 };

typedef struct metadata {
  const s3_chain *chain;
  char endpoint[URL_BYTES / 2];
  uint32_t timeout_ms;
  char header[TOKEN_BYTES_MAX + 64]; /* "X-aws-ec2-metadata-token: …" */
} metadata;

static bool set_up(metadata *m, tr_error *error) {
  const char *const *environment = m->chain->environment;
  const char *endpoint = s3_environment(environment, "AWS_EC2_METADATA_SERVICE_ENDPOINT");
  const char *mode = s3_environment(environment, "AWS_EC2_METADATA_SERVICE_ENDPOINT_MODE");
  if (endpoint == NULL) {
    const bool six = mode != NULL && strcasecmp(mode, "ipv6") == 0;
    endpoint = six ? "http://[fd00:ec2::254]" : "http://169.254.169.254";
  }
  size_t length = strlen(endpoint);
  while (length > 0 && endpoint[length - 1] == '/') length--;
  const char *timeout = s3_environment(environment, "AWS_METADATA_SERVICE_TIMEOUT");
  double timeout_s = TIMEOUT_S;
  if (timeout != NULL && (!tr_parse_real(timeout, &timeout_s) || !(timeout_s > 0) || timeout_s > 600)) {
    tr_fail(error, TR_ERR_CONFIG, "AWS_METADATA_SERVICE_TIMEOUT=%.20s is no number of seconds up to 600", timeout);
    return false;
  }
  m->timeout_ms = (uint32_t)(timeout_s * 1000);
  if (m->timeout_ms == 0) m->timeout_ms = 1;
  if (length >= sizeof m->endpoint || strncmp(endpoint, "http", 4) != 0) {
    tr_fail(error, TR_ERR_CONFIG, "AWS_EC2_METADATA_SERVICE_ENDPOINT is no URL such as http://169.254.169.254");
    return false;
  }
  memcpy(m->endpoint, endpoint, length);
  m->endpoint[length] = '\0';
  return true;
}

static tr_status ask(const metadata *m, const char *method, const char *path, const char *header, size_t max_bytes,
                     s3_http_answer *answer, tr_error *error) {
  char url[URL_BYTES];
  if (snprintf(url, sizeof url, "%s%s", m->endpoint, path) >= (int)sizeof url) {
    return tr_fail(error, TR_ERR_CORRUPT, "the metadata service names a role too long to ask for");
  }
  const s3_http_request request = {.method = method,
                                   .url = url,
                                   .headers = &header,
                                   .header_count = 1,
                                   .timeout_ms = m->timeout_ms,
                                   .max_bytes = max_bytes};
  return s3_http(m->chain->allocator, &request, answer, error);
}

/* False: this machine has no such service, or it does not want to give a token. */
static bool get_token(metadata *m) {
  s3_http_answer answer = {0};
  const char *lifetime = "X-aws-ec2-metadata-token-ttl-seconds: 21600";
  if (ask(m, "PUT", "/latest/api/token", lifetime, TOKEN_BYTES_MAX, &answer, NULL) != TR_OK) return false;
  const bool good = answer.status == 200 && answer.bytes > 0 && strpbrk(answer.body, "\r\n") == NULL;
  if (good) snprintf(m->header, sizeof m->header, "X-aws-ec2-metadata-token: %s", answer.body);
  s3_http_answer_fini(m->chain->allocator, &answer);
  return good;
}

static tr_status get_keys(const metadata *m, s3_search *search, tr_error *error) {
  static const char folder[] = "/latest/meta-data/iam/security-credentials/";
  s3_http_answer roles = {0}, answer = {0};
  TR_TRY(ask(m, "GET", folder, m->header, TOKEN_BYTES_MAX, &roles, error));
  const size_t role_bytes = strcspn(roles.body, "\r\n");
  char path[URL_BYTES / 2];
  const bool good = roles.status == 200 && role_bytes > 0 &&
                    snprintf(path, sizeof path, "%s%.*s", folder, (int)role_bytes, roles.body) < (int)sizeof path &&
                    strpbrk(path, " ?#%") == NULL;
  s3_http_answer_fini(m->chain->allocator, &roles);
  if (!good) {
    s3_search_tried(search, "EC2 metadata (the machine has no role)");
    return TR_OK;
  }
  TR_TRY(ask(m, "GET", path, m->header, ANSWER_BYTES_MAX, &answer, error));
  tr_status status;
  if (answer.status != 200) {
    status = tr_fail(error, answer.status >= 500 ? TR_ERR_STORE : TR_ERR_DENIED,
                     "the EC2 metadata service answers with status %u for the machine's role", answer.status);
  } else {
    status = s3_search_take_json(search, "EC2 metadata", answer.body, answer.bytes, "Token", false, error);
  }
  s3_http_answer_fini(m->chain->allocator, &answer);
  return status;
}

tr_status s3_keys_instance(const s3_chain *chain, s3_search *search, tr_error *error) {
  const char *disabled = s3_environment(chain->environment, "AWS_EC2_METADATA_DISABLED");
  if (disabled != NULL && strcasecmp(disabled, "true") == 0) {
    s3_search_tried(search, "EC2 metadata (disabled)");
    return TR_OK;
  }
  metadata m = {.chain = chain};
  if (!set_up(&m, error)) return TR_ERR_CONFIG;
  if (!get_token(&m)) {
    s3_search_tried(search, "EC2 metadata (no answer within %.3g s)", (double)m.timeout_ms / 1000);
    return TR_OK;
  }
  const tr_status status = get_keys(&m, search, error);
  explicit_bzero(&m, sizeof m);
  return status;
}
