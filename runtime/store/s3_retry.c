/* The policy of retries: see s3_retry.h. */
#include "s3_retry.h"

#include <string.h>

enum { DOUBLINGS_MAX = 20 };

static const uint64_t transient_base_ns = 50000000, throttled_base_ns = 1000000000;

static bool is_among(const char *code, const char *const *list, size_t count) {
  for (size_t i = 0; i < count; i++) {
    if (strcmp(code, list[i]) == 0) return true;
  }
  return false;
}

#define IS_AMONG(code, list) is_among(code, list, sizeof(list) / sizeof *(list))

static const char *const throttling[] = {"SlowDown",
                                         "SlowDownRead",
                                         "SlowDownWrite",
                                         "Throttling",
                                         "ThrottlingException",
                                         "ThrottledException",
                                         "RequestThrottled",
                                         "RequestThrottledException",
                                         "RequestLimitExceeded",
                                         "BandwidthLimitExceeded",
                                         "TooManyRequests",
                                         "TooManyRequestsException",
                                         "PriorRequestNotComplete",
                                         "EC2ThrottledException"};
static const char *const transient[] = {"InternalError",
                                        "InternalServerError",
                                        "RequestTimeout",
                                        "RequestTimeoutException",
                                        "OperationAborted",
                                        "ConditionalRequestConflict",
                                        "ServiceUnavailable",
                                        "BadDigest",
                                        "XAmzContentChecksumMismatch",
                                        "IncompleteBody",
                                        "XMinioServerNotInitialized"};
static const char *const expired[] = {"ExpiredToken", "ExpiredTokenException", "TokenRefreshRequired", "InvalidToken",
                                      "RequestExpired"};

s3_kind s3_retry_classify(int http, const char *code) {
  if (IS_AMONG(code, throttling)) return S3_THROTTLED;
  if (IS_AMONG(code, transient)) return S3_TRANSIENT;
  if (IS_AMONG(code, expired)) return S3_CREDENTIALS;
  if (strcmp(code, "RequestTimeTooSkewed") == 0) return S3_SKEWED;
  if (http == 429 || (http == 503 && code[0] == '\0')) return S3_THROTTLED;
  /* A 200 may carry an <Error>; what it is called is not foreseen here. 501 is an answer that will not change. */
  if (http == 408 || (http >= 500 && http != 501) || (http >= 200 && http < 300 && code[0] != '\0'))
    return S3_TRANSIENT;
  return http >= 200 && http < 300 ? S3_FINE : S3_FATAL;
}

static uint64_t below(uint64_t random, uint64_t bound) { return (uint64_t)(((unsigned __int128)random * bound) >> 64); }

bool s3_retry_next(const s3_retry_policy *policy, s3_quota *quota, s3_retry *retry, s3_kind kind,
                   uint64_t retry_after_ns, uint64_t random, uint64_t *delay_ns) {
  const uint32_t cost = kind == S3_THROTTLED ? S3_COST_THROTTLED : S3_COST_TRANSIENT;
  const uint64_t base = kind == S3_THROTTLED ? throttled_base_ns : transient_base_ns;
  const uint32_t doublings = retry->failures < DOUBLINGS_MAX ? retry->failures : DOUBLINGS_MAX;
  retry->failures++;
  retry->charged = 0;
  const bool within = retry->failures < policy->attempts && quota->tokens >= cost;
  if (!within && !policy->persistent) return false;
  uint64_t most = base << doublings;
  if (most > S3_RETRY_CAP_NS) most = S3_RETRY_CAP_NS;
  uint64_t delay = below(random, most);
  if (within) {
    quota->tokens -= cost;
    retry->charged = cost;
  } else {
    /* Nobody counts these any more, so they keep a distance of their own. */
    retry->exhausted = true;
    delay = most / 2 + delay / 2;
  }
  const uint64_t longest = delay + S3_RETRY_AFTER_CAP_NS;
  if (retry_after_ns > longest) retry_after_ns = longest;
  *delay_ns = delay > retry_after_ns ? delay : retry_after_ns;
  return true;
}

void s3_retry_done(s3_quota *quota, s3_retry *retry) {
  quota->tokens += retry->charged > 0 ? retry->charged : 1;
  if (quota->tokens > S3_QUOTA_TOKENS) quota->tokens = S3_QUOTA_TOKENS;
  *retry = (s3_retry){0};
}
