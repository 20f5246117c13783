/* Keys that a container's host hands out: ECS, EKS pod identity, and whatever speaks like them. */
#include <arpa/inet.h>
#include <stdio.h>
#include <string.h>

#include "s3_chain.h"
#include "s3_http.h"
#include "s3_inputs.h"

enum { TIMEOUT_MS = 2000, ANSWER_BYTES_MAX = 64 << 10, TOKEN_BYTES_MAX = 16 << 10, ATTEMPTS = 3, URL_BYTES = 2048 };

static bool is_own_address(const char *host) {
  static const char *const known[] = {"localhost", "169.254.170.2", "169.254.170.23", "[fd00:ec2::23]", "[::1]"};
  for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
    if (strcmp(host, known[i]) == 0) return true;
  }
  struct in_addr address;
  return inet_pton(AF_INET, host, &address) == 1 && ntohl(address.s_addr) >> 24 == 127;
}

bool s3_container_may_ask(const char *url) {
  if (strncmp(url, "https://", 8) == 0) return true;
  if (strncmp(url, "http://", 7) != 0) return false;
  char host[256];
  const size_t bytes = strcspn(url + 7, "/?#");
  if (bytes == 0 || bytes >= sizeof host) return false;
  memcpy(host, url + 7, bytes);
  host[bytes] = '\0';
  if (strpbrk(host, "@\\%") != NULL) return false;
  char *port = strrchr(host, ':');
  if (port != NULL && strchr(port, ']') == NULL) *port = '\0';
  return is_own_address(host);
}

/* "Authorization: …" in new memory: wipe it; NULL where no token is given. */
static tr_status make_header(const s3_chain *chain, char **header, tr_error *error) {
  const char *path = s3_environment(chain->environment, "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE");
  const char *given = s3_environment(chain->environment, "AWS_CONTAINER_AUTHORIZATION_TOKEN");
  char *read = NULL;
  size_t bytes = 0;
  if (path != NULL) {
    TR_TRY(s3_file_read(chain->allocator, "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", path, TOKEN_BYTES_MAX, &read,
                        &bytes, NULL, error));
  }
  const char *token = read != NULL ? read : given;
  size_t length = token != NULL ? strlen(token) : 0;
  while (length > 0 && (token[length - 1] == '\n' || token[length - 1] == '\r')) length--;
  tr_status status = TR_OK;
  if (token != NULL && strcspn(token, "\r\n") < length) {
    status = tr_fail(error, TR_ERR_CONFIG, "AWS_CONTAINER_AUTHORIZATION_TOKEN has more than one line");
  } else if (token != NULL) {
    *header = tr_asprintf(chain->allocator, "Authorization: %.*s", (int)length, token);
    if (*header == NULL) status = tr_fail_memory(error, "a header", length);
  }
  if (read != NULL) explicit_bzero(read, bytes);
  tr_free(chain->allocator, read);
  return status;
}

static tr_status ask(const s3_chain *chain, const char *url, const char *header, s3_search *search, tr_error *error) {
  const char *const headers[] = {"Accept: application/json", header};
  const s3_http_request request = {.method = "GET",
                                   .url = url,
                                   .headers = headers,
                                   .header_count = header != NULL ? 2 : 1,
                                   .ca_file = chain->settings->ca_file,
                                   .timeout_ms = TIMEOUT_MS,
                                   .max_bytes = ANSWER_BYTES_MAX};
  s3_http_answer answer = {0};
  tr_status status = TR_ERR_STORE;
  for (int attempt = 1; attempt <= ATTEMPTS && status == TR_ERR_STORE; attempt++) {
    if (attempt > 1) tr_clock_sleep_ns(chain->clock, UINT64_C(500000000));
    status = s3_http(chain->allocator, &request, &answer, error);
    if (status != TR_OK || answer.status == 200) continue;
    status = tr_fail(error, answer.status >= 500 ? TR_ERR_STORE : TR_ERR_DENIED, "it answers with status %u",
                     answer.status);
    s3_http_answer_fini(chain->allocator, &answer);
  }
  if (status != TR_OK) return tr_error_context(error, status, "the container's credentials");
  status = s3_search_take_json(search, "the container's credentials", answer.body, answer.bytes, "Token", false, error);
  s3_http_answer_fini(chain->allocator, &answer);
  return status;
}

tr_status s3_keys_container(const s3_chain *chain, s3_search *search, tr_error *error) {
  const char *relative = s3_environment(chain->environment, "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI");
  const char *full = s3_environment(chain->environment, "AWS_CONTAINER_CREDENTIALS_FULL_URI");
  if (relative == NULL && full == NULL) {
    s3_search_tried(search, "AWS_CONTAINER_CREDENTIALS_* (not set)");
    return TR_OK;
  }
  char url[URL_BYTES];
  const int length = relative != NULL ? snprintf(url, sizeof url, "http://169.254.170.2%s", relative)
                                      : snprintf(url, sizeof url, "%s", full);
  if (length >= (int)sizeof url || (relative != NULL && relative[0] != '/') || !s3_container_may_ask(url)) {
    return tr_fail(
        error, TR_ERR_CONFIG,
        "AWS_CONTAINER_CREDENTIALS_%s is refused: over http only this machine, 169.254.170.2, 169.254.170.23 "
        "and [fd00:ec2::23] are asked for keys",
        relative != NULL ? "RELATIVE_URI" : "FULL_URI");
  }
  char *header = NULL;
  tr_status status = make_header(chain, &header, error);
  if (status == TR_OK) status = ask(chain, url, header, search, error);
  if (header != NULL) explicit_bzero(header, strlen(header));
  tr_free(chain->allocator, header);
  explicit_bzero(url, sizeof url);
  return status;
}
