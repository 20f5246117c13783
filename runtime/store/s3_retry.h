/* When a request is asked again: AWS's standard mode as pure functions. Who calls owns the state and gives time and
 * randomness.
 *
 * A request is tried `attempts` times, with full jitter over a base that doubles (50 ms after a transient error, 1 s after
 * throttling), at most 20 s; what Retry-After says beyond that is waited for too, up to 5 s (a server that is just starting
 * asks for two minutes and is there in one second). A retry costs tokens of a quota that all requests of a store share;
 * its success gives them back, a success at the first attempt gives one: a server that fails everything is not asked twice
 * as often. A persistent request goes on past attempts and quota, ever more seldom, up to once in 20 s. */
#ifndef TRAINRUN_STORE_S3_RETRY_H
#define TRAINRUN_STORE_S3_RETRY_H

#include <trainrun/base.h>

enum { S3_QUOTA_TOKENS = 500, S3_COST_TRANSIENT = 14, S3_COST_THROTTLED = 5 };

#define S3_RETRY_CAP_NS       UINT64_C(20000000000)
#define S3_RETRY_AFTER_CAP_NS UINT64_C(5000000000)

typedef enum s3_kind {
  S3_FINE,
  S3_FATAL,       /* the next attempt would end the same way */
  S3_TRANSIENT,   /* the next one may not */
  S3_THROTTLED,   /* the server asks to slow down */
  S3_CREDENTIALS, /* they have run out: get new ones, then go on */
  S3_SKEWED       /* our clock is off: take the server's time, then go on */
} s3_kind;

/* Of an answer: the HTTP status and the code of its <Error> ("" where it has none). */
s3_kind s3_retry_classify(int http, const char *code);

typedef struct s3_quota {
  uint32_t tokens;
} s3_quota;

typedef struct s3_retry_policy {
  uint32_t attempts;
  bool persistent;
} s3_retry_policy;

/* Of one request. */
typedef struct s3_retry {
  uint32_t failures; /* attempts that failed */
  uint32_t charged;  /* tokens that the last retry cost */
  bool exhausted;    /* goes on only because it is persistent */
} s3_retry;

/* After a failed attempt. False: give up. True: *delay_ns until the next. `random` is 64 uniform bits, retry_after_ns what
 * the server asked for (0: nothing). */
bool s3_retry_next(const s3_retry_policy *policy, s3_quota *quota, s3_retry *retry, s3_kind kind,
                   uint64_t retry_after_ns, uint64_t random, uint64_t *delay_ns);
/* After a success: tokens go back. */
void s3_retry_done(s3_quota *quota, s3_retry *retry);

#endif
