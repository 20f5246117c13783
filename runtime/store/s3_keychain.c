/* Keys that are kept and renewed: one refresh at a time, outside the lock. */
#include "s3_keychain.h"

#include <pthread.h>
#include <string.h>

#include "s3_chain.h"

#define SECOND_NS INT64_C(1000000000)

static const int64_t window_ns = 300 * SECOND_NS; /* before the end, when new keys are fetched */
static const int64_t jitter_ns = 60 * SECOND_NS;  /* so much earlier at most, for many workers fetch alike */
static const int64_t again_ns = 10 * SECOND_NS;   /* after a failure, while the old ones still serve */
static const uint64_t young_ns = 1 * SECOND_NS;   /* keys this new are not fetched again for having been refused */

typedef struct s3_keychain {
  s3_settings settings;
  s3_chain chain;

  /* Under `lock`. */
  pthread_mutex_t lock;
  pthread_cond_t fetched;
  bool fetching;
  uint64_t fetches; /* ended, well or not */
  bool have;
  tr_s3_credentials keys;
  int64_t refresh_ns;  /* wall: from then on new ones are wanted */
  uint64_t fetched_ns; /* monotonic */
  tr_status status;    /* of the last fetch */
  tr_error error;
} s3_keychain;

/* When keys that were fetched at `now` are to be renewed. */
static int64_t refresh_time(const tr_s3_credentials *keys, int64_t now, uint64_t fetches) {
  if (keys->expires_ns == 0) return INT64_MAX;
  int64_t early = window_ns + (int64_t)tr_rng_below((uint64_t)now, TR_RNG_RETRY, 0, fetches, (uint64_t)jitter_ns);
  const int64_t life = keys->expires_ns - now;
  if (early > life / 2) early = life > 0 ? life / 2 : 0;
  return keys->expires_ns - early;
}

static bool is_valid(const s3_keychain *c, int64_t now) {
  return c->have && (c->keys.expires_ns == 0 || now < c->keys.expires_ns);
}

static void drop_keys(s3_keychain *c) {
  explicit_bzero(&c->keys, sizeof c->keys);
  c->have = false;
}

/* With the lock held, which it gives up while it asks. */
static void fetch(s3_keychain *c) {
  tr_s3_credentials keys = {0};
  tr_error error = {.status = TR_OK};
  c->fetching = true;
  pthread_mutex_unlock(&c->lock);
  tr_status status = s3_chain_find(&c->chain, &keys, &error);
  const int64_t now = tr_clock_wall_ns(c->chain.clock);
  if (status == TR_OK && keys.expires_ns != 0 && keys.expires_ns <= now) {
    status = tr_fail(&error, TR_ERR_DENIED, "keys were found that have ended already; is this machine's clock right?");
  }
  if (status != TR_OK) tr_error_context(&error, status, "keys for s3://%s", c->settings.bucket);
  pthread_mutex_lock(&c->lock);
  c->fetching = false;
  c->fetches++;
  c->status = status;
  c->error = error;
  if (status == TR_OK) {
    c->keys = keys;
    c->have = true;
    c->refresh_ns = refresh_time(&keys, now, c->fetches);
    c->fetched_ns = tr_clock_now_ns(c->chain.clock);
  } else if (is_valid(c, now)) {
    c->refresh_ns = now + again_ns;
    tr_logf(c->chain.log, TR_LOG_WARNING, "keys are not renewed, the old ones still serve for %lld s: %s",
            (long long)((c->keys.expires_ns - now) / SECOND_NS), error.message);
  } else {
    drop_keys(c);
  }
  explicit_bzero(&keys, sizeof keys);
  pthread_cond_broadcast(&c->fetched);
}

/* With the lock held: the keys in place are good, or those of a fetch that this call made or waited for. */
static tr_status settle(s3_keychain *c, bool renew) {
  const uint64_t before = c->fetches;
  if (renew && c->have && tr_clock_now_ns(c->chain.clock) - c->fetched_ns < young_ns) renew = false;
  for (;;) {
    const int64_t now = tr_clock_wall_ns(c->chain.clock);
    const bool answered = c->fetches != before;
    if ((!renew || answered) && is_valid(c, now) && (now < c->refresh_ns || c->fetching)) return TR_OK;
    if (answered && is_valid(c, now)) return TR_OK;
    if (answered) return c->status != TR_OK ? c->status : tr_fail(&c->error, TR_ERR_DENIED, "keys ended as they came");
    if (c->fetching) {
      pthread_cond_wait(&c->fetched, &c->lock);
      continue;
    }
    if (renew) drop_keys(c);
    fetch(c);
  }
}

static tr_status get(void *self, bool renew, tr_s3_credentials *credentials, tr_error *error) {
  s3_keychain *c = self;
  pthread_mutex_lock(&c->lock);
  const tr_status status = settle(c, renew);
  if (status == TR_OK) {
    *credentials = c->keys;
  } else if (error != NULL) {
    *error = c->error;
  }
  pthread_mutex_unlock(&c->lock);
  return status;
}

static void destroy(void *self) {
  s3_keychain *c = self;
  const tr_allocator *allocator = c->chain.allocator;
  s3_settings_fini(&c->settings);
  pthread_cond_destroy(&c->fetched);
  pthread_mutex_destroy(&c->lock);
  explicit_bzero(c, sizeof *c);
  tr_free(allocator, c);
}

tr_status s3_keychain_create(const s3_keychain_options *options, s3_settings *settings,
                             tr_s3_credentials_source *source, tr_error *error) {
  s3_keychain *c = tr_calloc(options->allocator, 1, sizeof *c);
  if (c == NULL) return tr_fail_memory(error, "keys of a store", sizeof *c);
  c->settings = *settings;
  *settings = (s3_settings){0};
  c->chain = (s3_chain){.allocator = options->allocator,
                        .clock = options->clock,
                        .log = options->log,
                        .settings = &c->settings,
                        .environment = options->environment,
                        .process_timeout_ms = options->process_timeout_ms > 0 ? options->process_timeout_ms : 60000};
  pthread_mutex_init(&c->lock, NULL);
  pthread_cond_init(&c->fetched, NULL);
  *source = (tr_s3_credentials_source){.get = get, .destroy = destroy, .self = c};
  return TR_OK;
}
