/* The policy of retries, with random numbers from a seed and no time at all. */
#include <criterion/criterion.h>

#include "s3_retry.h"

static const uint64_t millisecond = 1000000;
static const s3_retry_policy standard = {.attempts = 3}, persistent = {.attempts = 3, .persistent = true};

Test(retry, knows_what_cannot_succeed_from_what_may) {
  const struct {
    int http;
    const char *code;
    s3_kind kind;
  } cases[] = {{200, "", S3_FINE},
               {204, "", S3_FINE},
               {206, "", S3_FINE},
               {200, "InternalError", S3_TRANSIENT},
               {200, "SlowDown", S3_THROTTLED},
               {200, "SomethingNew", S3_TRANSIENT},
               {301, "PermanentRedirect", S3_FATAL},
               {400, "InvalidArgument", S3_FATAL},
               {400, "RequestTimeout", S3_TRANSIENT},
               {400, "ExpiredToken", S3_CREDENTIALS},
               {400, "BadDigest", S3_TRANSIENT},
               {403, "", S3_FATAL},
               {403, "AccessDenied", S3_FATAL},
               {403, "SignatureDoesNotMatch", S3_FATAL},
               {403, "RequestTimeTooSkewed", S3_SKEWED},
               {404, "NoSuchBucket", S3_FATAL},
               {404, "NoSuchKey", S3_FATAL},
               {404, "", S3_FATAL},
               {408, "", S3_TRANSIENT},
               {409, "ConditionalRequestConflict", S3_TRANSIENT},
               {412, "PreconditionFailed", S3_FATAL},
               {416, "InvalidRange", S3_FATAL},
               {429, "", S3_THROTTLED},
               {429, "TooManyRequests", S3_THROTTLED},
               {500, "", S3_TRANSIENT},
               {500, "InternalError", S3_TRANSIENT},
               {501, "NotImplemented", S3_FATAL},
               {502, "", S3_TRANSIENT},
               {503, "", S3_THROTTLED},
               {503, "SlowDown", S3_THROTTLED},
               {503, "ServiceUnavailable", S3_TRANSIENT},
               {504, "", S3_TRANSIENT}};
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    cr_expect_eq(s3_retry_classify(cases[i].http, cases[i].code), cases[i].kind, "%d %s", cases[i].http, cases[i].code);
  }
}

Test(retry, tries_as_often_as_it_should_and_then_gives_up) {
  s3_quota quota = {.tokens = S3_QUOTA_TOKENS};
  s3_retry retry = {0};
  uint64_t delay = 0;
  cr_expect(s3_retry_next(&standard, &quota, &retry, S3_TRANSIENT, 0, 0, &delay));
  cr_expect(s3_retry_next(&standard, &quota, &retry, S3_TRANSIENT, 0, 0, &delay));
  cr_expect_not(s3_retry_next(&standard, &quota, &retry, S3_TRANSIENT, 0, 0, &delay));
  const s3_retry_policy once = {.attempts = 1};
  retry = (s3_retry){0};
  cr_expect_not(s3_retry_next(&once, &quota, &retry, S3_TRANSIENT, 0, 0, &delay));
}

Test(retry, waits_by_full_jitter_over_a_base_that_doubles) {
  const s3_retry_policy many = {.attempts = 100};
  for (int kind = S3_TRANSIENT; kind <= S3_THROTTLED; kind++) {
    uint64_t most = kind == S3_TRANSIENT ? 50 * millisecond : 1000 * millisecond;
    for (int failures = 0; failures < 40; failures++) {
      uint64_t sum = 0, largest = 0;
      for (uint64_t draw = 0; draw < 256; draw++) {
        s3_quota quota = {.tokens = S3_QUOTA_TOKENS};
        s3_retry retry = {.failures = (uint32_t)failures};
        uint64_t delay = 0;
        cr_assert(s3_retry_next(&many, &quota, &retry, (s3_kind)kind, 0, tr_rng_u64(7, TR_RNG_RETRY, 0, draw), &delay));
        cr_assert_lt(delay, most);
        sum += delay;
        if (delay > largest) largest = delay;
      }
      cr_expect(sum / 256 > most * 4 / 10 && sum / 256 < most * 6 / 10, "it is uniform");
      cr_expect_gt(largest, most * 9 / 10);
      most = most * 2 < S3_RETRY_CAP_NS ? most * 2 : S3_RETRY_CAP_NS;
    }
  }
}

Test(retry, does_what_retry_after_says_within_limits) {
  s3_quota quota = {.tokens = S3_QUOTA_TOKENS};
  s3_retry retry = {0};
  uint64_t delay = 0;
  cr_assert(s3_retry_next(&standard, &quota, &retry, S3_THROTTLED, 4000 * millisecond, 1, &delay));
  cr_expect_eq(delay, 4000 * millisecond);
  cr_assert(s3_retry_next(&standard, &quota, &retry, S3_THROTTLED, UINT64_MAX, 1, &delay));
  cr_expect_eq(delay, S3_RETRY_AFTER_CAP_NS, "a server cannot put us to sleep");
}

Test(retry, stops_when_the_shared_quota_is_used_up_and_fills_it_by_successes) {
  s3_quota quota = {.tokens = S3_QUOTA_TOKENS};
  uint64_t delay = 0;
  int granted = 0;
  for (int request = 0; request < 1000; request++) {
    s3_retry retry = {0};
    granted += s3_retry_next(&standard, &quota, &retry, S3_TRANSIENT, 0, 0, &delay);
  }
  cr_expect_eq(granted, S3_QUOTA_TOKENS / S3_COST_TRANSIENT,
               "a store that fails everything is not asked twice as often");
  s3_retry cheap = {0};
  for (uint32_t i = 0; i < 3; i++) s3_retry_done(&quota, &cheap);
  cr_expect_eq(quota.tokens, S3_QUOTA_TOKENS % S3_COST_TRANSIENT + 3);
  s3_retry paid = {.charged = S3_COST_TRANSIENT};
  s3_retry_done(&quota, &paid);
  cr_expect_eq(quota.tokens, S3_QUOTA_TOKENS % S3_COST_TRANSIENT + 3 + S3_COST_TRANSIENT);
  for (int i = 0; i < 2000; i++) s3_retry_done(&quota, &cheap);
  cr_expect_eq(quota.tokens, S3_QUOTA_TOKENS, "it does not grow past its size");
}

/* The goal: 503 on a tenth of all requests costs at most half as many again, and nearly none fail. */
Test(retry, sends_little_more_when_a_tenth_is_refused) {
  enum { REQUESTS = 20000 };
  s3_quota quota = {.tokens = S3_QUOTA_TOKENS};
  uint64_t sent = 0, failed = 0, draw = 0;
  for (int request = 0; request < REQUESTS; request++) {
    s3_retry retry = {0};
    for (;;) {
      uint64_t delay = 0;
      sent++;
      if (tr_rng_below(99, TR_RNG_RETRY, 1, draw++, 10) != 0) {
        s3_retry_done(&quota, &retry);
        break;
      }
      if (!s3_retry_next(&standard, &quota, &retry, S3_THROTTLED, 0, draw, &delay)) {
        failed++;
        break;
      }
    }
  }
  cr_expect_lt(sent, REQUESTS * 3 / 2);
  cr_expect_lt(failed, REQUESTS / 500);
}

Test(retry, goes_on_for_ever_when_it_must_ever_more_seldom) {
  s3_quota quota = {.tokens = 0};
  s3_retry retry = {0};
  uint64_t delay = 0, before = 0;
  for (int i = 0; i < 100; i++) {
    cr_assert(s3_retry_next(&persistent, &quota, &retry, S3_TRANSIENT, 0, UINT64_MAX / 2, &delay));
    cr_expect(retry.exhausted);
    cr_expect_geq(delay, before);
    cr_expect_leq(delay, S3_RETRY_CAP_NS);
    before = delay;
  }
  cr_expect_geq(delay, S3_RETRY_CAP_NS / 2);
  cr_expect_eq(quota.tokens, 0);
  s3_retry_done(&quota, &retry);
  cr_expect_eq(quota.tokens, 1);
  cr_expect_not(retry.exhausted);
}
