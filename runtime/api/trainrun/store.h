/* Objects: bytes under a key, in a folder, in memory or in a bucket.
 *
 * A store is a vtable (tr_store_ops), so one of your own is as good as ours. Keys are '/'-separated UTF-8 without "." or
 * ".." parts. Requests are asynchronous: the caller owns the request and its buffer until it completes; completion is a
 * callback on the store's engine thread, or tr_store_wait. Reads for training go before uploads of checkpoints.
 *
 * Thread rule: every function may be called from any thread. A callback must be short and must not wait on this store.
 * What a store promises: a put is atomic and durable when it completes OK (fsync of file and folder, or the server's
 * 200); a put with if_absent is an atomic "create unless there" and answers TR_ERR_EXISTS; a get never returns bytes
 * that are not the object's. Not for caching (dataloader) and not for retry policy of a job (train). */
#ifndef TRAINRUN_STORE_H
#define TRAINRUN_STORE_H

#include <trainrun/base.h>

TR_BEGIN_C

typedef struct tr_store tr_store;

typedef enum tr_store_priority { TR_STORE_TRAINING = 0, TR_STORE_BACKGROUND = 1 } tr_store_priority;

enum { TR_ETAG_BYTES = 72, TR_KEY_BYTES = 1024 };

typedef struct tr_object_info {
  uint64_t bytes;
  int64_t modified_ns;      /* wall time */
  char etag[TR_ETAG_BYTES]; /* changes when the content does; a file's is made of size, mtime and inode */
  /* The CRC32C that a store keeps, as a head gives it: "0a1b2c3d" of the contents, or "0a1b2c3d-12" of the CRCs
   * (big-endian) of the 12 parts that the object was written in; "": not said. */
  char crc32c[20];
} tr_object_info;

typedef enum tr_store_verb {
  TR_STORE_GET,    /* buffer <- object[offset, offset + buffer_bytes), fewer bytes only at the object's end */
  TR_STORE_PUT,    /* object <- data[0, data_bytes) */
  TR_STORE_HEAD,   /* info */
  TR_STORE_DELETE, /* deleting what is not there is OK */
  TR_STORE_PART    /* one part of a tr_upload */
} tr_store_verb;

typedef struct tr_store_request tr_store_request;
struct tr_store_request {
  size_t struct_bytes;

  /* Set by the caller, untouched and alive until completion. */
  tr_store_verb verb;
  tr_store_priority priority;
  const char *key;
  uint64_t offset; /* GET: where in the object; PART: where the part begins in the object (parts lie back to back) */
  void *buffer;    /* host or pinned memory */
  size_t buffer_bytes;
  const void *data;
  size_t data_bytes;
  bool if_absent;       /* PUT: TR_ERR_EXISTS when the object is there */
  const char *if_match; /* GET: TR_ERR_CHANGED when the ETag differs; NULL: any */
  bool fresh;   /* GET: what was read before was wrong: a cache asks the store behind it and keeps the new bytes */
  void *upload; /* PART: from upload_begin; and its number, from 1 */
  uint32_t part;
  void (*done)(tr_store_request *request); /* NULL: use tr_store_wait */
  void *user;

  /* Written before completion. Times are tr_clock_now_ns; they let the ledger split a wait into first byte, bandwidth,
   * throttling and retry. */
  tr_status status;
  tr_error error;
  size_t bytes; /* moved */
  tr_object_info info;
  uint64_t submitted_ns, first_byte_ns, done_ns, throttled_ns, retry_ns;

  /* The store's own; zero before the first use. */
  void *private_next;
  void *private_store;
  uint32_t private_state;
};

/* One page of a listing. `keys` lie in the page's memory, sorted bytewise. */
typedef struct tr_list_entry {
  const char *key;
  tr_object_info info;
} tr_list_entry;
typedef struct tr_list_page {
  tr_list_entry *entries;
  size_t count;
  char next[TR_KEY_BYTES]; /* hand to the next call as `after`; empty: this was the last page */
  void *memory;
} tr_list_page;

typedef struct tr_store_ops {
  size_t struct_bytes;
  const char *name; /* "file", "memory", "s3" */
  /* Queues; fails only for arguments that can never work. Completion always follows an OK: status, error, bytes, info and
   * times are written, then done(request) is called, which here is never NULL; after it the request is not touched. */
  tr_status (*submit)(void *self, tr_store_request *request, tr_error *error);
  /* Optional: does the request at once, in the calling thread, and does not call `done`. NULL: submit and wait. */
  void (*run)(void *self, tr_store_request *request);
  /* Keys that begin with prefix and are greater than `after` (NULL: from the start), at most max_keys (<= 1000). */
  tr_status (*list)(void *self, const char *prefix, const char *after, size_t max_keys, tr_list_page *page,
                    tr_error *error);
  void (*list_free)(void *self, tr_list_page *page);
  /* Objects larger than one put. Parts but the last are at least part_bytes_min. Nothing exists before commit; an abort
   * leaves nothing. A commit ends the upload, failed or not; if_absent as in a put. */
  tr_status (*upload_begin)(void *self, const char *key, void **upload, tr_error *error);
  tr_status (*upload_commit)(void *self, void *upload, bool if_absent, tr_error *error);
  void (*upload_abort)(void *self, void *upload);
  uint64_t part_bytes_min;
  /* Optional: aborts uploads below prefix that were begun and neither committed nor aborted by whoever was killed. Only
   * for a prefix that nobody else is writing to. */
  tr_status (*upload_sweep)(void *self, const char *prefix, tr_error *error);
  void (*destroy)(void *self); /* waits for what is under way */
} tr_store_ops;

/* A store of one's own; takes `self` over (where it fails, `self` stays the caller's). `ops` is copied. */
TR_API TR_MUST_USE tr_status tr_store_create(const tr_allocator *allocator, const tr_store_ops *ops, void *self,
                                             tr_store **out, tr_error *error);
TR_API void tr_store_destroy(tr_store *store);
TR_API const tr_store_ops *tr_store_vtable(const tr_store *store, void **self);

/* Files. Keys have no part that begins with ".tmp-": those names are of puts under way, and of ones that were killed; a
 * listing leaves them out. Parent folders are made by a put, and a folder that a delete leaves empty goes with it. A
 * listing follows symbolic links to files, not to folders. Several processes may use one root. */
typedef struct tr_store_file_options {
  size_t struct_bytes;
  const tr_allocator *allocator;
  const tr_clock *clock;
  const char *root; /* keys are paths below it; "/" for absolute paths */
  uint32_t threads; /* of the engine; 0: 2 */
} tr_store_file_options;
TR_API TR_MUST_USE tr_status tr_store_file_open(const tr_store_file_options *options, tr_store **out, tr_error *error);

typedef struct tr_store_memory_options {
  size_t struct_bytes;
  const tr_allocator *allocator;
  const tr_clock *clock;
  uint64_t capacity_bytes; /* 0: no limit; beyond it TR_ERR_NO_SPACE */
} tr_store_memory_options;
TR_API TR_MUST_USE tr_status tr_store_memory_open(const tr_store_memory_options *options, tr_store **out,
                                                  tr_error *error);

/* ---- Requests ------------------------------------------------------------------------------------------------------ */

TR_API TR_MUST_USE tr_status tr_store_submit(tr_store *store, tr_store_request *request, tr_error *error);
/* For requests without `done`: blocks, copies the request's error out, returns its status. */
TR_API tr_status tr_store_wait(tr_store *store, tr_store_request *request, tr_error *error);

/* The same, one at a time and blocking, for everything that is not the data path. */
TR_API TR_MUST_USE tr_status tr_store_get(tr_store *store, const char *key, uint64_t offset, void *buffer,
                                          size_t buffer_bytes, size_t *bytes, tr_error *error);
/* The whole object in new memory (tr_free; one 0 byte is added behind it); more than max_bytes is TR_ERR_INVALID. */
TR_API TR_MUST_USE tr_status tr_store_get_all(tr_store *store, const tr_allocator *allocator, const char *key,
                                              size_t max_bytes, void **data, size_t *bytes, tr_error *error);
TR_API TR_MUST_USE tr_status tr_store_put(tr_store *store, const char *key, const void *data, size_t bytes,
                                          bool if_absent, tr_error *error);
TR_API TR_MUST_USE tr_status tr_store_head(tr_store *store, const char *key, tr_object_info *info, tr_error *error);
TR_API TR_MUST_USE tr_status tr_store_delete(tr_store *store, const char *key, tr_error *error);
/* Every key below prefix, in order; the callback's failure ends the walk and is returned. */
TR_API TR_MUST_USE tr_status tr_store_walk(tr_store *store, const char *prefix,
                                           tr_status (*visit)(void *self, const tr_list_entry *entry, tr_error *error),
                                           void *self, tr_error *error);

/* ---- URLs ---------------------------------------------------------------------------------------------------------- */

/* The stores of a job: opens one when a URL first needs it and keeps it. "/abs/path", "rel/path", "file:///abs",
 * "memory://NAME/key" (one store a NAME for the life of the set; local paths are taken as they are written, without
 * %-decoding, "." and ".." resolved by name), "s3://bucket/key" (the key is taken as it is written too; one store a
 * bucket, with the settings of the [storage.*] table that matches it best, or of the environment and profiles as AWS's
 * tools have them). Schemes of one's own can be added. */
typedef struct tr_stores tr_stores;

/* What a person says about buckets on the command line (--endpoint-url, --region, --profile, --ca-bundle,
 * --no-sign-request). It goes before every table, variable and profile, for all buckets of the set; NULL and false: not
 * said. A profile named here gives the keys too, even where a table or the environment has some. */
typedef struct tr_s3_overrides {
  const char *endpoint, *region, *profile;
  const char *ca_file;  /* relative to the working directory */
  bool no_sign_request; /* no keys are looked for */
} tr_s3_overrides;

typedef struct tr_stores_options {
  size_t struct_bytes;
  const tr_allocator *allocator;
  const tr_clock *clock;
  tr_log *log;
  const tr_config *config; /* its [storage.*] tables; lives as long as the set; NULL: none */
  /* "NAME=value" as in environ, for AWS's variables and { env = "NAME" }; copied; NULL: no environment. */
  const char *const *environment;
  /* Of a job: a request whose retries are used up is asked again, at most every 20 s, as long as the set lives; each time
   * the log says what is waited for. Otherwise (one-shot commands) it fails. What cannot succeed fails at once in both. */
  bool persistent;
  tr_s3_overrides s3; /* copied */
} tr_stores_options;
TR_API TR_MUST_USE tr_status tr_stores_create(const tr_stores_options *options, tr_stores **out, tr_error *error);
TR_API void tr_stores_destroy(tr_stores *stores);
/* open(self, url, &store, key) is called for "scheme://…"; the set owns the store it returns the first time. */
TR_API TR_MUST_USE tr_status tr_stores_add_scheme(tr_stores *stores, const char *scheme,
                                                  tr_status (*open)(void *self, const char *url, tr_store **store,
                                                                    char key[TR_KEY_BYTES], tr_error *error),
                                                  void *self, tr_error *error);
/* The store that holds url, and the key in it, without a slash at its end ("" for the root). The store stays the set's. */
TR_API TR_MUST_USE tr_status tr_stores_resolve(tr_stores *stores, const char *url, tr_store **store,
                                               char key[TR_KEY_BYTES], tr_error *error);

/* "a/{000..015}.tar", "x{a,b}" -> the list, at most 1,000,000; in `arena`. A URL without braces is a list of one. */
TR_API TR_MUST_USE tr_status tr_url_expand(tr_arena *arena, const char *url, const char *const **urls, size_t *count,
                                           tr_error *error);
/* base + "/" + path, without doubling the slash; in `arena`; NULL: no memory. */
TR_API const char *tr_url_join(tr_arena *arena, const char *base, const char *path);

TR_END_C
#endif
