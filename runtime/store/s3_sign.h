/* AWS Signature Version 4 for S3: a header for a request, or a query for a URL that anyone may use for a while.
 *
 * Pure: the time is an argument. Paths and queries come as they go over the wire (each byte encoded once, '/' kept, dots and
 * double slashes left as they are, queries sorted by name), so that what is signed is what is sent. */
#ifndef TRAINRUN_STORE_S3_SIGN_H
#define TRAINRUN_STORE_S3_SIGN_H

#include <trainrun/s3.h>

#include "s3_lib.h"

#define S3_UNSIGNED_PAYLOAD "UNSIGNED-PAYLOAD"

enum { S3_STAMP_BYTES = 17, S3_AUTHORIZATION_BYTES = 1024, S3_CANONICAL_BYTES = 32768, S3_HASH_HEX_BYTES = 65 };

typedef struct s3_header {
  const char *name; /* lower case */
  const char *value;
} s3_header;

typedef struct s3_sign_input {
  const char *method; /* "GET" */
  const char *path;   /* "/bucket/key", encoded */
  const char *query;  /* "a=1&b=", encoded and sorted; "": none */
  /* Sorted by name, host among them; those of a header signature include x-amz-date, x-amz-content-sha256 and the
   * session's token. */
  const s3_header *headers;
  size_t header_count;
  const char *payload_hash; /* S3_UNSIGNED_PAYLOAD, or 64 hexadecimal digits */
  const char *region;
  const tr_s3_credentials *credentials;
  const char *stamp; /* from s3_sign_stamp */
} s3_sign_input;

/* "20130524T000000Z" */
void s3_sign_stamp(int64_t wall_ns, char stamp[S3_STAMP_BYTES]);
tr_status s3_sign_sha256(const s3_lib *lib, const void *data, size_t bytes, char hex[S3_HASH_HEX_BYTES],
                         tr_error *error);

/* The value of the Authorization header. */
tr_status s3_sign(const s3_lib *lib, const s3_sign_input *input, char authorization[S3_AUTHORIZATION_BYTES],
                  tr_error *error);
/* The whole query of a presigned URL, without '?': input->query is empty, and headers holds host alone. */
tr_status s3_sign_query(const s3_lib *lib, const s3_sign_input *input, uint32_t seconds, char *query,
                        size_t query_bytes, tr_error *error);

#endif
