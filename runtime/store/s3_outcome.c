/* What becomes of an exchange when libcurl is done with it: it is over, goes on at its offset, is asked again later, asks
 * for a reason, or fails. */
#include <stdio.h>
#include <string.h>

#include "s3_private.h"
#include "s3_text.h"

#define LOG_EVERY_NS UINT64_C(20000000000)

typedef struct outcome {
  s3_kind kind;
  CURLcode code;
  s3_error_answer answer; /* the server's code and words, where it gave any */
  tr_status status;       /* and the request's error: what it comes to if it fails for good */
} outcome;

static bool is_success(const s3_slot *slot) { return slot->reply.http >= 200 && slot->reply.http < 300; }

static s3_ask *ask_of(const s3_slot *slot) {
  return slot->job->request->verb == S3_ASK ? slot->job->request->user : NULL;
}

static tr_error *error_of(const s3_slot *slot) { return &slot->job->request->error; }

static bool is_read(const s3_slot *slot) { return slot->phase == S3_PHASE_MAIN && slot->call.ranged; }

/* ---- Judging ------------------------------------------------------------------------------------------------------- */

/* A server may answer 200 before it knows, and then write an <Error>. */
static void read_error_body(const s3_slot *slot, outcome *made) {
  const s3_ask *ask = ask_of(slot);
  if (ask != NULL && is_success(slot) && slot->phase == S3_PHASE_MAIN) {
    s3_answer_error(ask->answer, ask->answer_bytes, &made->answer);
  } else if (!is_success(slot) || slot->call.method == S3_PUT) {
    s3_answer_error(slot->reply.body, slot->reply.body_bytes, &made->answer);
  }
}

static void judge_refusal(s3_slot *slot, outcome *made) {
  made->kind = slot->refusal == S3_REFUSAL_TOO_MUCH ? S3_TRANSIENT : S3_FATAL;
  made->status = s3_message_body(slot, error_of(slot));
}

static outcome judge(s3_slot *slot, CURLcode code) {
  outcome made = {.kind = S3_FINE, .code = code, .status = TR_OK};
  if (slot->refusal != S3_REFUSAL_NONE) {
    judge_refusal(slot, &made);
    return made;
  }
  if (code != CURLE_OK && (slot->reply.http < 300 || slot->stalled)) {
    made.kind = s3_message_classify_transport(code);
    if (slot->stalled) made.kind = S3_TRANSIENT;
    made.status = s3_message_transport(slot, code, error_of(slot));
    return made;
  }
  read_error_body(slot, &made);
  made.kind = s3_retry_classify(slot->reply.http, made.answer.code);
  if (made.kind != S3_FINE) {
    made.status = s3_message_refused(slot, &made.answer, error_of(slot));
    if (made.status == TR_ERR_NO_SPACE) made.kind = S3_FATAL;
  } else if (is_read(slot)) {
    if (!slot->head_seen) slot->refusal = s3_job_check_head(slot);
    if (slot->refusal != S3_REFUSAL_NONE) {
      judge_refusal(slot, &made);
    } else if (slot->done_bytes != slot->expected_bytes) {
      made.kind = S3_TRANSIENT;
      made.status = s3_message_body(slot, error_of(slot));
    }
  }
  return made;
}

/* ---- Again --------------------------------------------------------------------------------------------------------- */

static void say_waiting(s3_slot *slot, uint64_t now) {
  s3_store *store = slot->store;
  if (slot->waits_since_ns == 0) slot->waits_since_ns = now;
  if (store->wait_said && now - store->wait_logged_ns < LOG_EVERY_NS) return;
  char waited[32];
  tr_format_duration(now - slot->waits_since_ns, waited);
  if (now == slot->waits_since_ns) {
    tr_logf(store->log, TR_LOG_WARNING, "waiting for the store: %s", error_of(slot)->message);
  } else {
    tr_logf(store->log, TR_LOG_WARNING, "waiting for the store for %s: %s", waited, error_of(slot)->message);
  }
  store->wait_said = true;
  store->wait_logged_ns = now;
}

/* It answers: who waits because it did not need not wait any longer. */
static void say_back(s3_slot *slot, uint64_t now) {
  s3_store *store = slot->store;
  char since[32];
  if (slot->waits_since_ns == 0) return;
  tr_format_duration(now - slot->waits_since_ns, since);
  if (store->wait_said)
    tr_logf(store->log, TR_LOG_INFO, "the store at %s answers again, after %s", store->endpoint, since);
  store->wait_said = false;
  for (uint32_t i = 0; i < store->slot_count; i++) {
    s3_slot *other = &store->slots[i];
    if (other->state == S3_SLOT_WAITING && other->unreachable) other->due_ns = now;
  }
}

static void charge(s3_slot *slot, uint64_t since, uint64_t now) {
  if (now <= since) return;
  if (slot->failed_as == S3_THROTTLED) {
    slot->throttled_ns += now - since;
  } else {
    slot->retry_ns += now - since;
  }
}

static void fail(s3_slot *slot, tr_status status) { s3_job_slot_done(slot->store, slot, status); }

static void give_up(s3_slot *slot, const outcome *made) {
  tr_status status = made->status;
  if (slot->store->ending && slot->store->policy.persistent) {
    status = error_of(slot)->status = TR_ERR_CANCELLED;
    status = tr_error_context(error_of(slot), status, "the store was closed while a request waited");
  } else if (slot->retry.failures > 1) {
    status = tr_error_context(error_of(slot), status, "gave up after %u attempts", (unsigned)slot->retry.failures);
  }
  fail(slot, status);
}

static void ask_again(s3_slot *slot, const outcome *made) {
  s3_store *store = slot->store;
  const uint64_t now = s3_now(store);
  uint64_t delay = 0;
  /* An attempt that brought bytes is a new beginning; the quota still counts it. */
  const bool progress = is_read(slot) && slot->head_seen && slot->first_byte_ns != 0;
  if (progress) slot->retry.failures = 0;
  /* What is still to come must be of the version that the first bytes were of. */
  if (is_read(slot) && slot->job->known) memcpy(slot->call.if_match, slot->job->info.etag, TR_ETAG_BYTES);
  if (made->kind == S3_TRANSIENT && (slot->call.method == S3_PUT || slot->call.method == S3_POST))
    slot->repeated = true;
  slot->failed_as = made->kind;
  slot->failed_ns = now;
  slot->unreachable = slot->reply.http == 0;
  charge(slot, progress ? slot->last_byte_ns : slot->sent_ns, now);
  s3_retry_policy policy = store->policy;
  /* A name without an address or a port without TLS, before the server ever answered, is a mistake and no outage. */
  const bool never = !store->answered_once &&
                     (made->code == CURLE_COULDNT_RESOLVE_HOST || made->code == CURLE_SSL_CONNECT_ERROR ||
                      made->code == CURLE_WEIRD_SERVER_REPLY);
  const bool brief = ask_of(slot) != NULL && ask_of(slot)->brief;
  policy.persistent = policy.persistent && !store->ending && !never && !brief;
  if (store->ending && store->policy.persistent) policy.attempts = 1;
  const uint64_t random = tr_rng_u64(store->random_seed, TR_RNG_RETRY, 0, store->random_counter++);
  if (made->kind == S3_THROTTLED) store->throttled++;
  if (!s3_retry_next(&policy, &store->quota, &slot->retry, made->kind, slot->reply.retry_after_ns, random, &delay)) {
    give_up(slot, made);
    return;
  }
  if (slot->retry.exhausted) say_waiting(slot, now);
  slot->state = S3_SLOT_WAITING;
  slot->due_ns = now + delay;
}

void s3_slot_resend(s3_slot *slot) {
  if (slot->failed_ns != 0) {
    charge(slot, slot->failed_ns, s3_now(slot->store));
    slot->failed_ns = 0;
    slot->store->retries++;
  }
  s3_slot_send(slot);
}

void s3_slot_cancel(s3_slot *slot) {
  const outcome made = {.kind = S3_TRANSIENT, .status = TR_ERR_CANCELLED};
  give_up(slot, &made);
}

static void in_phase(s3_slot *slot, s3_phase phase) {
  slot->phase = phase;
  s3_slot_send(slot);
}

/* ---- Good ends ----------------------------------------------------------------------------------------------------- */

static void finish_put(s3_slot *slot) {
  s3_store *store = slot->store;
  tr_store_request *request = slot->job->request;
  tr_status status = TR_OK;
  store->bytes_written += slot->call.body_bytes;
  if (request->verb == TR_STORE_PART) {
    status = s3_upload_note(store, request, slot->call.crc, slot->reply.info.etag, &request->error);
  } else {
    request->info = slot->reply.info;
    request->info.bytes = slot->call.body_bytes;
    if (request->info.modified_ns == 0) request->info.modified_ns = slot->reply.date_ns;
    s3_known_add(store, request->key, &request->info, slot->call.crc);
  }
  if (status == TR_OK) request->bytes = slot->call.body_bytes;
  s3_job_slot_done(store, slot, status);
}

static void finish_ask(s3_slot *slot) {
  s3_ask *ask = ask_of(slot);
  ask->http = slot->reply.http;
  ask->info = slot->reply.info;
  ask->info.bytes = slot->reply.length;
  ask->has_crc = slot->reply.has_crc;
  ask->crc = slot->reply.crc;
  ask->repeated = slot->repeated;
  memcpy(ask->composite, slot->reply.composite, sizeof ask->composite);
  s3_job_slot_done(slot->store, slot, TR_OK);
}

static void finish_head(s3_slot *slot) {
  s3_store *store = slot->store;
  tr_store_request *request = slot->job->request;
  request->info = slot->reply.info;
  request->info.bytes = slot->reply.length;
  if (slot->reply.has_crc) s3_known_add(store, request->key, &request->info, slot->reply.crc);
  s3_job_slot_done(store, slot, TR_OK);
}

/* A range past the end: nothing of it is there, and this is how long the object is. */
static void finish_size(s3_slot *slot, outcome *made) {
  s3_job *job = slot->job;
  const tr_store_request *request = job->request;
  const uint64_t total = slot->reply.length;
  slot->phase = S3_PHASE_MAIN;
  if (slot->call.offset + slot->done_bytes < total) {
    /* It was replaced between the two questions. */
    made->kind = S3_TRANSIENT;
    made->status = tr_fail(error_of(slot), TR_ERR_CHANGED, "s3://%s/%.120s changed while it was read",
                           slot->store->bucket, request->key);
    ask_again(slot, made);
    return;
  }
  if (!job->known) {
    const uint64_t there = total > request->offset ? total - request->offset : 0;
    job->info = slot->reply.info;
    job->info.bytes = total;
    job->limit_bytes = there < request->buffer_bytes ? (size_t)there : request->buffer_bytes;
    job->known = job->whole = true;
  }
  s3_job_slot_done(slot->store, slot, TR_OK);
}

static bool has_md5(const s3_slot *slot, const char *etag) {
  unsigned char hash[16];
  char hex[33];
  size_t bytes = 0;
  if (strlen(etag) != 32) return false;
  if (slot->store->lib.EVP_Q_digest(NULL, "MD5", NULL, slot->call.body, slot->call.body_bytes, hash, &bytes) != 1) {
    return false;
  }
  s3_text_hex(hash, sizeof hash, hex);
  return strcmp(hex, etag) == 0;
}

/* The object is there: by our own first attempt, whose answer was lost, or by another's. */
static void finish_ours(s3_slot *slot) {
  const s3_reply *reply = &slot->reply;
  const bool same_crc = reply->has_crc ? reply->crc == slot->call.crc : has_md5(slot, reply->info.etag);
  slot->phase = S3_PHASE_MAIN;
  if (reply->length == slot->call.body_bytes && same_crc) {
    finish_put(slot);
    return;
  }
  slot->reply.http = 412;
  fail(slot, s3_message_refused(slot, &(s3_error_answer){0}, error_of(slot)));
}

static void finish(s3_slot *slot, outcome *made) {
  s3_store *store = slot->store;
  store->answered_once = store->bucket_seen = true;
  say_back(slot, s3_now(store));
  if (slot->phase == S3_PHASE_MAIN) s3_retry_done(&store->quota, &slot->retry);
  switch (slot->phase) {
    case S3_PHASE_MAIN: break;
    case S3_PHASE_SIZE: finish_size(slot, made); return;
    case S3_PHASE_OURS: finish_ours(slot); return;
    case S3_PHASE_WHY:
      /* The server that refused a moment ago does not any more. */
      slot->phase = S3_PHASE_MAIN;
      made->kind = S3_TRANSIENT;
      made->status = error_of(slot)->status != TR_OK ? error_of(slot)->status : TR_ERR_STORE;
      ask_again(slot, made);
      return;
  }
  if (ask_of(slot) != NULL) {
    finish_ask(slot);
  } else if (is_read(slot)) {
    s3_hedge_note(store, slot->first_byte_ns > slot->sent_ns ? slot->first_byte_ns - slot->sent_ns : 0);
    s3_job_slot_done(store, slot, TR_OK);
  } else if (slot->call.method == S3_PUT) {
    finish_put(slot);
  } else if (slot->call.method == S3_HEAD) {
    finish_head(slot);
  } else {
    s3_job_slot_done(store, slot, TR_OK);
  }
}

/* ---- Bad ends ------------------------------------------------------------------------------------------------------ */

/* A HEAD says no more than its number; where that is not enough, the same key is asked for by GET. */
static bool wants_a_reason(const s3_slot *slot) {
  const int http = slot->reply.http;
  if (slot->phase == S3_PHASE_WHY || slot->call.key == NULL) return false;
  if (slot->phase == S3_PHASE_MAIN && slot->call.method != S3_HEAD) return false;
  return (http >= 300 && http < 400 && http != 304) || http == 400 || http == 403 ||
         (http == 404 && !slot->store->bucket_seen);
}

static void refused(s3_slot *slot, const outcome *made) {
  s3_store *store = slot->store;
  const int http = slot->reply.http;
  if (http > 0) store->answered_once = true;
  if (strcmp(made->answer.code, "NoSuchKey") == 0) store->bucket_seen = true;
  if (wants_a_reason(slot)) {
    in_phase(slot, S3_PHASE_WHY);
  } else if (http == 416 && is_read(slot)) {
    in_phase(slot, S3_PHASE_SIZE);
  } else if (http == 412 && slot->call.if_absent && slot->repeated && slot->job->request->verb == TR_STORE_PUT) {
    in_phase(slot, S3_PHASE_OURS);
  } else if (http == 404 && slot->call.method == S3_DELETE && strcmp(made->answer.code, "NoSuchBucket") != 0 &&
             ask_of(slot) == NULL) {
    s3_job_slot_done(store, slot, TR_OK);
  } else {
    if (ask_of(slot) != NULL) {
      ask_of(slot)->http = http;
      ask_of(slot)->refusal = made->answer;
      ask_of(slot)->repeated = slot->repeated;
    }
    fail(slot, made->status);
  }
}

static void renew_credentials(s3_slot *slot, const outcome *made) {
  s3_store *store = slot->store;
  if (!store->sign || slot->renewed) {
    fail(slot, made->status);
    return;
  }
  slot->phase = S3_PHASE_MAIN;
  pthread_mutex_lock(&store->lock);
  const bool newer = store->credentials_version != slot->signed_with;
  pthread_mutex_unlock(&store->lock);
  slot->renewed = true;
  if (newer) {
    s3_slot_send(slot);
    return;
  }
  slot->state = S3_SLOT_PARKED;
  slot->failed_as = S3_CREDENTIALS;
  slot->failed_ns = s3_now(store);
  s3_credentials_renew(store, true);
}

static void correct_clock(s3_slot *slot, const outcome *made) {
  s3_store *store = slot->store;
  if (slot->skewed || slot->reply.date_ns == 0) {
    fail(slot, made->status);
    return;
  }
  slot->skewed = true;
  slot->phase = S3_PHASE_MAIN;
  store->skew_ns = slot->reply.date_ns - tr_clock_wall_ns(store->clock);
  tr_logf(store->log, TR_LOG_WARNING, "this machine's clock and that of %s are %lld s apart; signing with the server's",
          store->endpoint, (long long)store->skew_ns / 1000000000);
  s3_slot_send(slot);
}

void s3_slot_ended(s3_slot *slot, CURLcode code) {
  s3_slot_stop(slot);
  if (slot->refusal == S3_REFUSAL_CUT) {
    if (slot->twin != NULL) slot->twin->twin = NULL;
    slot->twin = NULL;
    s3_slot_release(slot);
    return;
  }
  outcome made = judge(slot, code);
  if (made.kind != S3_FINE && slot->twin != NULL) {
    /* The other one is still on its way. */
    slot->twin->twin = NULL;
    slot->twin = NULL;
    s3_slot_release(slot);
    return;
  }
  if (slot->reply.http > 0) slot->store->answered_once = true;
  switch (made.kind) {
    case S3_FINE: finish(slot, &made); break;
    case S3_FATAL: refused(slot, &made); break;
    case S3_TRANSIENT:
    case S3_THROTTLED: ask_again(slot, &made); break;
    case S3_CREDENTIALS: renew_credentials(slot, &made); break;
    case S3_SKEWED: correct_clock(slot, &made); break;
  }
}
