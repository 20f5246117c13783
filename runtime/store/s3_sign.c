/* SigV4 over OpenSSL's HMAC and SHA-256: see s3_sign.h. */
#include "s3_sign.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

#include "s3_text.h"

enum { HASH_BYTES = 32, SCOPE_BYTES = 192, SIGNED_NAMES_BYTES = 512 };

static const char algorithm[] = "AWS4-HMAC-SHA256";

static tr_status crypto_failed(tr_error *error) {
  return tr_fail(error, TR_ERR_UNAVAILABLE, "s3: OpenSSL cannot do HMAC-SHA256; is its configuration whole?");
}

void s3_sign_stamp(int64_t wall_ns, char stamp[S3_STAMP_BYTES]) {
  const time_t seconds = (time_t)(wall_ns / 1000000000);
  struct tm utc;
  gmtime_r(&seconds, &utc);
  strftime(stamp, S3_STAMP_BYTES, "%Y%m%dT%H%M%SZ", &utc);
}

tr_status s3_sign_sha256(const s3_lib *lib, const void *data, size_t bytes, char hex[S3_HASH_HEX_BYTES],
                         tr_error *error) {
  unsigned char hash[HASH_BYTES];
  size_t hash_bytes = 0;
  if (lib->EVP_Q_digest(NULL, "SHA256", NULL, data, bytes, hash, &hash_bytes) != 1) return crypto_failed(error);
  s3_text_hex(hash, sizeof hash, hex);
  return TR_OK;
}

static bool hmac(const s3_lib *lib, const void *key, size_t key_bytes, const char *text,
                 unsigned char out[HASH_BYTES]) {
  size_t bytes = 0;
  return lib->EVP_Q_mac(NULL, "HMAC", NULL, "SHA256", NULL, key, key_bytes, (const unsigned char *)text, strlen(text),
                        out, HASH_BYTES, &bytes) != NULL &&
         bytes == HASH_BYTES;
}

/* "20130524/us-east-1/s3/aws4_request" */
static bool write_scope(const s3_sign_input *input, char scope[SCOPE_BYTES]) {
  const int length = snprintf(scope, SCOPE_BYTES, "%.8s/%s/s3/aws4_request", input->stamp, input->region);
  return length > 0 && length < SCOPE_BYTES;
}

static bool write_signed_names(const s3_sign_input *input, char names[SIGNED_NAMES_BYTES]) {
  s3_text text = s3_text_in(names, SIGNED_NAMES_BYTES);
  for (size_t i = 0; i < input->header_count; i++) {
    s3_text_addf(&text, "%s%s", i > 0 ? ";" : "", input->headers[i].name);
  }
  return !text.cut;
}

static tr_status too_long(tr_error *error) {
  return tr_fail(error, TR_ERR_INVALID, "s3: a request's key, query or session token is too long to be signed");
}

/* The key of a day, a region and a service; then the signature of one text. */
static tr_status sign_text(const s3_lib *lib, const s3_sign_input *input, const char *text,
                           char signature[S3_HASH_HEX_BYTES], tr_error *error) {
  char first[sizeof input->credentials->secret_key + 8], date[9];
  unsigned char key[HASH_BYTES], next[HASH_BYTES];
  const int first_bytes = snprintf(first, sizeof first, "AWS4%s", input->credentials->secret_key);
  snprintf(date, sizeof date, "%.8s", input->stamp);
  const bool done = hmac(lib, first, (size_t)first_bytes, date, key) &&
                    hmac(lib, key, sizeof key, input->region, next) && hmac(lib, next, sizeof next, "s3", key) &&
                    hmac(lib, key, sizeof key, "aws4_request", next) && hmac(lib, next, sizeof next, text, key);
  explicit_bzero(first, sizeof first);
  explicit_bzero(next, sizeof next);
  if (!done) return crypto_failed(error);
  s3_text_hex(key, sizeof key, signature);
  return TR_OK;
}

static tr_status sign_request(const s3_lib *lib, const s3_sign_input *input, const char *query, const char *names,
                              const char *scope, char signature[S3_HASH_HEX_BYTES], tr_error *error) {
  char memory[S3_CANONICAL_BYTES], hash[S3_HASH_HEX_BYTES], to_sign[SCOPE_BYTES + 256];
  s3_text canonical = s3_text_in(memory, sizeof memory);
  s3_text_addf(&canonical, "%s\n%s\n%s\n", input->method, input->path, query);
  for (size_t i = 0; i < input->header_count; i++) {
    s3_text_addf(&canonical, "%s:%s\n", input->headers[i].name, input->headers[i].value);
  }
  s3_text_addf(&canonical, "\n%s\n%s", names, input->payload_hash);
  if (canonical.cut) return too_long(error);
  TR_TRY(s3_sign_sha256(lib, memory, canonical.bytes, hash, error));
  snprintf(to_sign, sizeof to_sign, "%s\n%s\n%s\n%s", algorithm, input->stamp, scope, hash);
  return sign_text(lib, input, to_sign, signature, error);
}

tr_status s3_sign(const s3_lib *lib, const s3_sign_input *input, char authorization[S3_AUTHORIZATION_BYTES],
                  tr_error *error) {
  char scope[SCOPE_BYTES], names[SIGNED_NAMES_BYTES], signature[S3_HASH_HEX_BYTES];
  if (!write_scope(input, scope) || !write_signed_names(input, names)) return too_long(error);
  TR_TRY(sign_request(lib, input, input->query, names, scope, signature, error));
  s3_text text = s3_text_in(authorization, S3_AUTHORIZATION_BYTES);
  s3_text_addf(&text, "%s Credential=%s/%s, SignedHeaders=%s, Signature=%s", algorithm, input->credentials->access_key,
               scope, names, signature);
  return text.cut ? too_long(error) : TR_OK;
}

tr_status s3_sign_query(const s3_lib *lib, const s3_sign_input *input, uint32_t seconds, char *query,
                        size_t query_bytes, tr_error *error) {
  char scope[SCOPE_BYTES], names[SIGNED_NAMES_BYTES], signature[S3_HASH_HEX_BYTES];
  if (!write_scope(input, scope) || !write_signed_names(input, names)) return too_long(error);
  s3_text text = s3_text_in(query, query_bytes);
  s3_text_addf(&text, "X-Amz-Algorithm=%s&X-Amz-Credential=", algorithm);
  s3_text_encode(&text, input->credentials->access_key, false);
  s3_text_add(&text, "%2F", 3);
  s3_text_encode(&text, scope, false);
  s3_text_addf(&text, "&X-Amz-Date=%s&X-Amz-Expires=%u", input->stamp, (unsigned)seconds);
  if (input->credentials->session_token[0] != '\0') {
    s3_text_addf(&text, "&X-Amz-Security-Token=");
    s3_text_encode(&text, input->credentials->session_token, false);
  }
  s3_text_addf(&text, "&X-Amz-SignedHeaders=");
  s3_text_encode(&text, names, false);
  if (text.cut) return too_long(error);
  TR_TRY(sign_request(lib, input, query, names, scope, signature, error));
  s3_text_addf(&text, "&X-Amz-Signature=%s", signature);
  return text.cut ? too_long(error) : TR_OK;
}
