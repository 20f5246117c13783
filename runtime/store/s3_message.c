/* Failures as sentences that a person can act on. What the server says is untrusted text: only printable letters of it are
 * shown. No secret can be in a message: they are made of the endpoint, bucket, key, key id and the server's words. */
#include <stdio.h>
#include <string.h>

#include "s3_private.h"

void s3_message_name(const s3_store *store, const char *key, char *text, size_t capacity) {
  snprintf(text, capacity, "s3://%s%s%.120s", store->bucket, key != NULL ? "/" : "", key != NULL ? key : "");
}

static void show(const char *from, char *text, size_t capacity) {
  size_t bytes = 0;
  for (; *from != '\0' && bytes + 1 < capacity; from++) text[bytes++] = *from >= ' ' && *from != 0x7f ? *from : '?';
  text[bytes] = '\0';
}

void s3_message_key_id(s3_store *store, char *text, size_t capacity) {
  char first[8] = "", shown[8];
  pthread_mutex_lock(&store->lock);
  if (store->sign) snprintf(first, sizeof first, "%.4s", store->credentials.access_key);
  pthread_mutex_unlock(&store->lock);
  show(first, shown, sizeof shown);
  snprintf(text, capacity, "%s%s", shown, shown[0] != '\0' ? "…" : "");
}

static const char *verb_of(const s3_slot *slot) {
  switch (slot->call.method) {
    case S3_GET: return slot->call.key != NULL ? "reading" : "listing";
    case S3_HEAD: return "asking for";
    case S3_DELETE: return "deleting";
    default: return "writing";
  }
}

/* Only where to: a query may carry somebody's signature. */
static void show_location(const char *location, char *text, size_t capacity) {
  show(location, text, capacity);
  text[strcspn(text, "?#")] = '\0';
}

static tr_status redirected(const s3_slot *slot, const char *name, const char *region, tr_error *error) {
  char location[sizeof slot->reply.location];
  show_location(slot->reply.location, location, sizeof location);
  if (region[0] != '\0' && strcmp(region, slot->store->region) != 0) {
    return tr_fail(error, TR_ERR_CONFIG,
                   "%s: the bucket is in the region '%s', '%s' was asked for: set region = \"%s\"", name, region,
                   slot->store->region, region);
  }
  return tr_fail(error, TR_ERR_CONFIG,
                 "%s: %s redirects (HTTP %d)%s%s; redirects are not followed: set the endpoint to the right server",
                 name, slot->store->endpoint, slot->reply.http, location[0] != '\0' ? " to " : "", location);
}

static tr_status denied(const s3_slot *slot, const char *name, const s3_error_answer *answer, tr_error *error) {
  char id[130], words[200];
  s3_message_key_id(slot->store, id, sizeof id);
  show(answer->message, words, sizeof words);
  const char *endpoint = slot->store->endpoint;
  if (id[0] == '\0') {
    return tr_fail(error, TR_ERR_DENIED, "%s: %s allows no %s without credentials, and none are set", name, endpoint,
                   verb_of(slot));
  }
  if (strcmp(answer->code, "InvalidAccessKeyId") == 0) {
    return tr_fail(error, TR_ERR_DENIED,
                   "%s: %s does not know the access key id '%s'; is it of this server, is the endpoint the right one?",
                   name, endpoint, id);
  }
  if (strcmp(answer->code, "SignatureDoesNotMatch") == 0) {
    return tr_fail(error, TR_ERR_DENIED,
                   "%s: %s refuses the signature: the secret key is not the one of access key id '%s', or a proxy "
                   "changes requests",
                   name, endpoint, id);
  }
  if (strcmp(answer->code, "RequestTimeTooSkewed") == 0) {
    return tr_fail(error, TR_ERR_DENIED, "%s: the clocks of this machine and of %s differ too much; set this one right",
                   name, endpoint);
  }
  return tr_fail(error, TR_ERR_DENIED, "%s: access key id '%s' is not allowed %s here (HTTP %d %s%s%s)", name, id,
                 verb_of(slot), slot->reply.http, answer->code, words[0] != '\0' ? ": " : "", words);
}

static bool is_credentials(const char *code) {
  static const char *const codes[] = {"InvalidAccessKeyId", "SignatureDoesNotMatch", "AccessDenied",     "ExpiredToken",
                                      "InvalidToken",       "TokenRefreshRequired",  "AllAccessDisabled"};
  for (size_t i = 0; i < sizeof codes / sizeof *codes; i++) {
    if (strcmp(code, codes[i]) == 0) return true;
  }
  return false;
}

static bool is_full(const s3_slot *slot, const char *code) {
  return slot->reply.http == 507 || strcmp(code, "XMinioStorageFull") == 0 || strcmp(code, "QuotaExceeded") == 0 ||
         strcmp(code, "XMinioAdminBucketQuotaExceeded") == 0;
}

tr_status s3_message_refused(const s3_slot *slot, const s3_error_answer *answer, tr_error *error) {
  const s3_store *store = slot->store;
  const int http = slot->reply.http;
  char name[220], words[200], code[sizeof answer->code];
  s3_message_name(store, slot->call.key, name, sizeof name);
  show(answer->message, words, sizeof words);
  show(answer->code, code, sizeof code);
  const char *region = answer->region[0] != '\0' ? answer->region : slot->reply.region;
  if (strcmp(code, "NoSuchBucket") == 0) {
    return tr_fail(error, TR_ERR_CONFIG,
                   "%s: there is no bucket '%s' at %s; is its name right, is the endpoint the right server?", name,
                   store->bucket, store->endpoint);
  }
  if ((http >= 300 && http < 400) || strcmp(code, "AuthorizationHeaderMalformed") == 0) {
    return redirected(slot, name, region, error);
  }
  if (http == 412) {
    if (slot->call.if_absent) return tr_fail(error, TR_ERR_EXISTS, "%s is already there", name);
    return tr_fail(error, TR_ERR_CHANGED, "%s changed: it is no longer the version %s", name, slot->call.if_match);
  }
  if (is_credentials(code) || http == 401 || http == 403) return denied(slot, name, answer, error);
  if (is_full(slot, code)) {
    return tr_fail(error, TR_ERR_NO_SPACE, "%s: %s has no space left (HTTP %d %s)", name, store->endpoint, http, code);
  }
  if (http == 404) return tr_fail(error, TR_ERR_NOT_FOUND, "%s is not there (%s)", name, store->endpoint);
  const s3_kind kind = s3_retry_classify(http, answer->code);
  const tr_status status = kind == S3_THROTTLED ? TR_ERR_THROTTLED : TR_ERR_STORE;
  if (kind == S3_FATAL && code[0] == '\0') {
    return tr_fail(error, status, "%s: %s answers HTTP %d while %s; is it a server of S3, and is it http or https?",
                   name, store->endpoint, http, verb_of(slot));
  }
  return tr_fail(error, status, "%s: %s answers HTTP %d%s%s%s%s while %s", name, store->endpoint, http,
                 code[0] != '\0' ? " " : "", code, words[0] != '\0' ? ": " : "", words, verb_of(slot));
}

tr_status s3_message_body(const s3_slot *slot, tr_error *error) {
  const s3_store *store = slot->store;
  char name[220];
  s3_message_name(store, slot->call.key, name, sizeof name);
  switch (slot->refusal) {
    case S3_REFUSAL_CHANGED:
      return tr_fail(error, TR_ERR_CHANGED, "%s changed while it was read: version %s became %s", name,
                     slot->job->info.etag, slot->reply.info.etag);
    case S3_REFUSAL_NO_RANGE:
      return tr_fail(error, TR_ERR_STORE,
                     "%s: %s answers another range of bytes than was asked for; is a proxy or cache in between?", name,
                     store->endpoint);
    case S3_REFUSAL_TOO_LARGE:
      return tr_fail(error, TR_ERR_CORRUPT, "%s: the answer of %s is larger than any of S3", name, store->endpoint);
    case S3_REFUSAL_NO_MEMORY: return tr_fail_memory(error, "an answer of S3", S3_BODY_BYTES);
    default: break;
  }
  return tr_fail(error, TR_ERR_STORE, "%s: %s ended an answer after %zu of %zu bytes", name, store->endpoint,
                 slot->done_bytes, slot->expected_bytes);
}

s3_kind s3_message_classify_transport(CURLcode code) {
  switch (code) {
    case CURLE_PEER_FAILED_VERIFICATION:
    case CURLE_SSL_CACERT_BADFILE:
    case CURLE_SSL_CIPHER:
    case CURLE_SSL_ISSUER_ERROR:
    case CURLE_URL_MALFORMAT:
    case CURLE_UNSUPPORTED_PROTOCOL:
    case CURLE_OUT_OF_MEMORY:
    case CURLE_NOT_BUILT_IN: return S3_FATAL;
    default: return S3_TRANSIENT;
  }
}

tr_status s3_message_transport(const s3_slot *slot, CURLcode code, tr_error *error) {
  const s3_store *store = slot->store;
  const char *endpoint = store->endpoint;
  char name[220], words[160];
  s3_message_name(store, slot->call.key, name, sizeof name);
  show(slot->curl_error[0] != '\0' ? slot->curl_error : store->lib.easy_strerror(code), words, sizeof words);
  if (slot->stalled) {
    return tr_fail(error, TR_ERR_STORE, "%s: no byte from %s for %.1f s", name, endpoint,
                   (double)store->stall_timeout_ms / 1000.0);
  }
  switch (code) {
    case CURLE_COULDNT_RESOLVE_HOST:
      return tr_fail(error, TR_ERR_STORE, "%s: the host of the endpoint %s has no address (%s); is its name right?",
                     name, endpoint, words);
    case CURLE_COULDNT_CONNECT:
      return tr_fail(error, TR_ERR_STORE, "%s: %s cannot be reached: %s; does the server run, is the endpoint right?",
                     name, endpoint, words);
    case CURLE_PEER_FAILED_VERIFICATION:
      return tr_fail(error, TR_ERR_CONFIG,
                     "%s: the certificate of %s is not trusted: %s; name its authority's file as the CA file", name,
                     endpoint, words);
    case CURLE_SSL_CACERT_BADFILE:
      return tr_fail(error, TR_ERR_CONFIG, "%s: the CA file %s cannot be used: %s", name,
                     store->ca_file != NULL ? store->ca_file : "of the system", words);
    case CURLE_SSL_CONNECT_ERROR:
      return tr_fail(error, TR_ERR_STORE, "%s: no TLS with %s: %s; does the server speak https there?", name, endpoint,
                     words);
    case CURLE_OUT_OF_MEMORY: return tr_fail_memory(error, "a transfer", 1);
    case CURLE_WEIRD_SERVER_REPLY:
    case CURLE_UNSUPPORTED_PROTOCOL:
      return tr_fail(error, TR_ERR_CONFIG, "%s: %s does not speak HTTP%s: %s; is the endpoint's port the right one?",
                     name, endpoint, store->tls ? "" : " (https, perhaps)", words);
    default: return tr_fail(error, TR_ERR_STORE, "%s: the connection to %s failed: %s", name, endpoint, words);
  }
}
