/* What S3 says in its bodies, read from bytes that nobody vouches for. Pure, but for what a visitor does. */
#ifndef TRAINRUN_STORE_S3_ANSWER_H
#define TRAINRUN_STORE_S3_ANSWER_H

#include <trainrun/store.h>

enum { S3_UPLOAD_ID_BYTES = 1024 };

/* <Error>; members that are missing or too long are "". */
typedef struct s3_error_answer {
  char code[64];
  char message[200];
  char region[48];
} s3_error_answer;

/* False where the body is no <Error>. */
bool s3_answer_error(const void *body, size_t bytes, s3_error_answer *out);
/* The text of a member of the root, "UploadId" of <InitiateMultipartUploadResult>; false where it is not there. */
bool s3_answer_member(const void *body, size_t bytes, const char *root, const char *member, char *text,
                      size_t capacity);

/* <ListBucketResult>, its keys encoded by encoding-type=url. visit gets each object; its failure ends the reading. */
typedef tr_status (*s3_object_fn)(void *self, const char *key, const tr_object_info *info, tr_error *error);
tr_status s3_answer_objects(const void *body, size_t bytes, s3_object_fn visit, void *self, bool *truncated,
                            tr_error *error);

/* <ListMultipartUploadsResult>, likewise. */
typedef tr_status (*s3_upload_fn)(void *self, const char *key, const char *upload_id, tr_error *error);
typedef struct s3_uploads_answer {
  bool truncated;
  char key_marker[TR_KEY_BYTES];
  char upload_marker[S3_UPLOAD_ID_BYTES];
} s3_uploads_answer;
tr_status s3_answer_uploads(const void *body, size_t bytes, s3_upload_fn visit, void *self, s3_uploads_answer *out,
                            tr_error *error);

/* "2026-11-26T01:30:00.000Z"; 0 where it is no time. */
int64_t s3_answer_time(const char *text);
/* An ETag without the quotes around it; false where it does not fit. */
bool s3_answer_etag(const char *text, size_t bytes, char etag[TR_ETAG_BYTES]);

#endif
