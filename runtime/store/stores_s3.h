/* What a set of stores needs for its buckets: from a URL to a name and a key, and from a name to an open store. */
#ifndef TRAINRUN_STORE_STORES_S3_H
#define TRAINRUN_STORE_STORES_S3_H

#include <trainrun/store.h>

enum { S3_BUCKET_BYTES = 64 };

typedef struct stores_s3 stores_s3;

/* Copies the environment and the overrides of the options, so that they may change or go; wipes them at the end. */
tr_status stores_s3_create(const tr_stores_options *options, stores_s3 **out, tr_error *error);
void stores_s3_destroy(stores_s3 *s3);

/* "s3://bucket/key": the key as it is written, without a slash at its end. Pure. Keys that other programs would read in
 * another way ("//", "..") are refused, as are names that no server gives a bucket. */
tr_status stores_s3_parse(const char *url, char bucket[S3_BUCKET_BYTES], char key[TR_KEY_BYTES], tr_error *error);

/* May block for as long as keys are looked for. */
tr_status stores_s3_open(const stores_s3 *s3, const char *bucket, tr_store **store, tr_error *error);

#endif
