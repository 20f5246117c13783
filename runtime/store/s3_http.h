/* One small HTTP exchange, blocking: what metadata services and STS are asked with. Not for objects (store_s3).
 *
 * No redirect is followed, no proxy or .netrc is used, nothing larger than max_bytes is taken. Messages name the host,
 * never headers, bodies or the rest of the URL: those may be secrets. Any thread may call it. */
#ifndef TRAINRUN_STORE_S3_HTTP_H
#define TRAINRUN_STORE_S3_HTTP_H

#include <trainrun/base.h>

typedef struct s3_http_request {
  const char *method;         /* "GET", "PUT", "POST" */
  const char *url;            /* http:// or https:// */
  const char *const *headers; /* "Name: value" */
  size_t header_count;
  const char *body;    /* NULL: none */
  const char *ca_file; /* NULL: the system's */
  uint32_t timeout_ms; /* of the whole */
  size_t max_bytes;
} s3_http_request;

typedef struct s3_http_answer {
  uint32_t status; /* 200, 404, … */
  char *body;      /* with a 0 behind it */
  size_t bytes;
} s3_http_answer;

/* TR_ERR_STORE where nothing answered; an answer of any status is TR_OK. */
tr_status s3_http(const tr_allocator *allocator, const s3_http_request *request, s3_http_answer *answer,
                  tr_error *error);
/* Wipes the body. */
void s3_http_answer_fini(const tr_allocator *allocator, s3_http_answer *answer);

#endif
