/* A bucket as a store, by hand: for programs that do not go through tr_stores and its [storage.*] tables.
 *
 * One engine thread owns the sockets (libcurl multi). Requests are signed with SigV4; over TLS the payload is not hashed
 * into the signature, CRC32C guards it. Redirects are never followed. Each request is retried as AWS's standard mode has
 * it (full jitter, a quota that all requests of the store share, Retry-After); a stalled transfer is cut and goes on at
 * its offset, of the same version of the object (If-Match). Thread rule: as store.h. */
#ifndef TRAINRUN_S3_H
#define TRAINRUN_S3_H

#include <trainrun/store.h>

TR_BEGIN_C

enum { TR_S3_SECRET_BYTES = 4096 };

typedef struct tr_s3_credentials {
  char access_key[256];
  char secret_key[256];
  char session_token[TR_S3_SECRET_BYTES]; /* "": none */
  int64_t expires_ns;                     /* wall time; 0: never */
  char from[96];                          /* where they were found, in words, for people; "": not said */
} tr_s3_credentials;

/* Where credentials come from. `get` may block (it may run a process or ask a server) and may be called from any thread;
 * with `renew` what was handed out before was refused, so that anything kept is asked for anew. */
typedef struct tr_s3_credentials_source {
  tr_status (*get)(void *self, bool renew, tr_s3_credentials *credentials, tr_error *error);
  void (*destroy)(void *self); /* may be NULL */
  void *self;
} tr_s3_credentials_source;

typedef struct tr_store_s3_options {
  size_t struct_bytes;
  const tr_allocator *allocator;
  const tr_clock *clock;
  tr_log *log;
  const char *bucket;
  const char *endpoint;      /* "http://127.0.0.1:9000"; NULL: Amazon's for the region */
  const char *region;        /* NULL: us-east-1 */
  const char *ca_file;       /* NULL: the system's authorities */
  bool path_style;           /* endpoint/bucket/key in the place of bucket.endpoint/key */
  uint32_t connections;      /* at most; 0: 32 */
  uint32_t attempts;         /* of a request; 0: 3 */
  bool persistent;           /* see tr_stores_options */
  uint32_t stall_timeout_ms; /* no byte for so long: the transfer is cut and asked again; 0: 10 s */
  /* Taken over by a successful open. get == NULL: requests are not signed. */
  tr_s3_credentials_source credentials;
} tr_store_s3_options;

TR_API TR_MUST_USE tr_status tr_store_s3_open(const tr_store_s3_options *options, tr_store **out, tr_error *error);

/* What a store has done since it was opened, for `probe`, benches and the verdict. */
typedef struct tr_s3_stats {
  size_t struct_bytes;
  uint64_t requests, retries, throttled,
      hedged; /* HTTP requests that were sent; of them again, after a 503 or 429, twice */
  uint64_t bytes_read, bytes_written;
} tr_s3_stats;
/* TR_ERR_INVALID where the store is not one of tr_store_s3_open. */
TR_API TR_MUST_USE tr_status tr_store_s3_stats(const tr_store *store, tr_s3_stats *stats, tr_error *error);

/* How a store reaches its bucket and as whom; never a secret. */
typedef struct tr_s3_description {
  size_t struct_bytes;
  char endpoint[512], region[64];
  char key_id[16];    /* its first letters, "AKIA…"; "": requests are not signed */
  char keys_from[96]; /* "": not said */
} tr_s3_description;
/* TR_ERR_INVALID where the store is not one of tr_store_s3_open. */
TR_API TR_MUST_USE tr_status tr_store_s3_describe(const tr_store *store, tr_s3_description *description,
                                                  tr_error *error);

/* Whether the server keeps the promise of a conditional put: writes and removes `key`. *ignored: it overwrites what is
 * there as if nothing had been asked. */
TR_API TR_MUST_USE tr_status tr_store_s3_probe_conditional(tr_store *store, const char *key, bool *ignored,
                                                           tr_error *error);

/* A URL that anyone may GET for so many seconds (1 to 604800), into url. */
TR_API TR_MUST_USE tr_status tr_store_s3_presign(tr_store *store, const char *key, uint32_t seconds, char *url,
                                                 size_t url_bytes, tr_error *error);

TR_END_C
#endif
