/* What the files of the S3 store share.
 *
 * A request (of a caller, or an s3_ask of the store itself) becomes a job when the engine takes it. A job is one HTTP
 * exchange, or several for a large read, which is cut into parts. An exchange lives in a slot: there are at most as many as
 * connections, and a slot that waits to be asked again keeps its place, so that a slow or throttling server is asked less
 * and nothing grows. All of it belongs to the engine's thread; what other threads touch
 * stands under `lock` or is atomic. */
#ifndef TRAINRUN_STORE_S3_PRIVATE_H
#define TRAINRUN_STORE_S3_PRIVATE_H

#include <pthread.h>
#include <stdatomic.h>
#include <trainrun/s3.h>

#include "s3_answer.h"
#include "s3_lib.h"
#include "s3_retry.h"
#include "s3_sign.h"

enum {
  S3_QUERY_BYTES = 8192,
  S3_PART_QUERY_BYTES = 3 * S3_UPLOAD_ID_BYTES + 64,
  S3_PATH_BYTES = 3 * TR_KEY_BYTES + 80,
  S3_BASE_BYTES = 512,
  S3_URL_BYTES = S3_BASE_BYTES + S3_PATH_BYTES + S3_QUERY_BYTES,
  S3_HEADER_LINES = 16,
  S3_HEADER_TEXT_BYTES = 8192,
  S3_BODY_BYTES = 8192, /* of an error that is looked at */
  S3_PARTS = 256,       /* of one read */
  S3_LATENCIES = 64
};

#define S3_PART_BYTES ((size_t)8 << 20)
#define S3_ASK        ((tr_store_verb)100) /* a request whose `user` is an s3_ask */

typedef struct s3_store s3_store;
typedef struct s3_slot s3_slot;

typedef enum s3_method { S3_GET, S3_HEAD, S3_PUT, S3_DELETE, S3_POST } s3_method;

/* One question, complete enough to be asked again. */
typedef struct s3_call {
  s3_method method;
  const char *key; /* NULL: of the bucket */
  const void *body;
  size_t body_bytes;
  bool has_crc; /* of the body, sent along */
  uint32_t crc;
  bool if_absent;
  bool begins_upload; /* whose parts will have checksums */
  bool ranged;        /* [offset, offset + wanted) of the object */
  uint64_t offset;
  size_t wanted;
  char if_match[TR_ETAG_BYTES]; /* "": any */
  const char *query;            /* encoded and sorted; NULL: none */
} s3_call;

/* What the server said. */
typedef struct s3_reply {
  int http; /* 0: nothing yet */
  bool has_length, has_range, has_crc;
  uint64_t length;
  uint64_t range_begin, range_end, total; /* Content-Range, the end exclusive */
  uint32_t crc;                           /* of the whole object */
  tr_object_info info;
  int64_t date_ns;
  uint64_t retry_after_ns;
  char composite[32]; /* the checksum of an object of parts, "…-N" */
  char region[48], location[200], request_id[64];
  size_t body_bytes;
  char body[S3_BODY_BYTES + 1]; /* of an error */
} s3_reply;

/* A question outside the data path, asked by s3_ask_run. */
typedef struct s3_ask {
  tr_store_request request;
  s3_call call;
  char query[S3_QUERY_BYTES]; /* memory for call.query */
  size_t limit_bytes;         /* of the answer */
  bool brief;                 /* fails when its attempts are used up, in a persistent store too */

  char *answer; /* of a success, and a NUL; freed by s3_ask_fini */
  size_t answer_bytes, answer_capacity;
  s3_error_answer refusal; /* of a failure: the server's code, "" where it gave none */
  int http;
  bool repeated; /* an attempt before the last may have been carried out */
  tr_object_info info;
  bool has_crc;
  uint32_t crc;
  char composite[32];
  bool done; /* under the store's lock */
} s3_ask;

/* A request under way. */
typedef struct s3_job {
  tr_store_request *request; /* NULL: free */
  struct s3_job *next_active;
  uint32_t slots;    /* that work on it */
  bool begun;        /* its first exchange was given out */
  tr_status failure; /* it ends when its slots have */

  /* Of a read. */
  size_t part_bytes, issued_bytes, limit_bytes;
  bool known; /* an answer told the size and the version */
  bool whole; /* every part may be asked for at once */
  tr_object_info info;
  uint32_t refetches;          /* because a checksum did not fit */
  bool has_crc;                /* of the whole object, from the server or from what was seen before */
  uint32_t crc;                /* likewise */
  uint32_t part_crc[S3_PARTS]; /* of what arrived */
} s3_job;

typedef enum s3_slot_state {
  S3_SLOT_FREE,
  S3_SLOT_SENT,    /* in the multi handle */
  S3_SLOT_WAITING, /* to be sent at due_ns */
  S3_SLOT_PARKED   /* until there are new credentials */
} s3_slot_state;

typedef enum s3_phase {
  S3_PHASE_MAIN,
  S3_PHASE_WHY,  /* a HEAD was refused, which carries no reason: the same as a GET of one byte */
  S3_PHASE_SIZE, /* a range was past the end: how long the object is */
  S3_PHASE_OURS  /* "it is already there" after an answer that was lost: is it what we wrote? */
} s3_phase;

/* Why a body is not taken. */
typedef enum s3_refusal {
  S3_REFUSAL_NONE,
  S3_REFUSAL_CUT,      /* nobody wants it any more */
  S3_REFUSAL_CHANGED,  /* another version of the object */
  S3_REFUSAL_NO_RANGE, /* the server ignores Range, or answers another one */
  S3_REFUSAL_TOO_MUCH, /* more bytes than it said */
  S3_REFUSAL_TOO_LARGE,
  S3_REFUSAL_NO_MEMORY
} s3_refusal;

struct s3_slot {
  s3_store *store;
  CURL *easy;
  s3_slot_state state;
  s3_phase phase;
  s3_job *job;
  s3_slot *twin; /* asks the same; the first byte decides */
  s3_call call;
  char part_query[S3_PART_QUERY_BYTES];
  s3_reply reply;
  s3_refusal refusal;
  bool head_seen; /* the reply's head was checked */

  /* The part of a read: where it goes and how far it is. */
  char *into;
  size_t part_index, done_bytes, expected_bytes;
  uint32_t crc;

  /* Retries. */
  s3_retry retry;
  bool stalled;         /* cut by us */
  bool connected;       /* this attempt was sent, or is about to be */
  bool repeated;        /* an attempt whose answer was lost may have been carried out */
  bool renewed, skewed; /* done once already */
  bool unreachable;     /* it waits because there was no answer at all */
  uint64_t signed_with; /* the version of the credentials */
  uint64_t sent_ns, first_byte_ns, last_byte_ns, due_ns;
  uint64_t failed_ns, waits_since_ns;
  s3_kind failed_as;
  uint64_t throttled_ns, retry_ns;

  /* Of the request that is being sent. */
  size_t sent_bytes;
  char url[S3_URL_BYTES];
  char path[S3_PATH_BYTES];
  char header_text[S3_HEADER_TEXT_BYTES];
  struct curl_slist lines[S3_HEADER_LINES];
  char curl_error[CURL_ERROR_SIZE];
};

typedef struct s3_queue {
  tr_store_request *head, *tail;
} s3_queue;

typedef struct s3_known_object {
  uint64_t name; /* hash of key and ETag; 0: none */
  uint64_t bytes;
  uint32_t crc;
} s3_known_object;

enum { S3_KNOWN_OBJECTS = 64 };

struct s3_store {
  /* Never changed once opened. */
  const tr_allocator *allocator;
  const tr_clock *clock;
  tr_log *log;
  s3_lib lib;
  char *bucket, *region, *ca_file;
  char base[S3_BASE_BYTES];     /* "https://host:port", no slash */
  char host[S3_BASE_BYTES];     /* as in the Host header */
  char endpoint[S3_BASE_BYTES]; /* for messages */
  bool bucket_in_path, tls;
  uint32_t connections, background_limit, stall_timeout_ms;
  s3_retry_policy policy;
  tr_s3_credentials_source source;
  bool sign;

  /* Under `lock`. */
  pthread_mutex_t lock;
  pthread_cond_t answered; /* of s3_ask */
  s3_queue inbox[2];
  bool closing, started;
  tr_s3_credentials credentials;
  uint64_t credentials_version;
  bool fetching, fetched; /* a thread asks the source; its result is there */
  bool fetch_renew;
  tr_status fetch_status;
  tr_error fetch_error;

  pthread_t thread, fetch_thread;
  bool fetch_joinable;

  /* The engine's. */
  CURLM *multi;
  int epoll_fd, wake_fd; /* -1: none yet */
  uint64_t curl_due_ns;  /* when libcurl wants to be asked, whatever the sockets say; UINT64_MAX: never */
  s3_slot *slots;        /* room for as many as connections, */
  uint32_t slot_count;   /* of which so many were ever needed */
  s3_job *jobs;
  uint32_t job_count;
  s3_job *active_head[2], *active_tail[2];
  uint32_t jobs_of[2], slots_of[2];
  s3_quota quota;
  uint64_t random_counter, random_seed;
  bool answered_once, bucket_seen;
  uint64_t refresh_due_ns;
  bool ending;             /* `closing` as the engine last saw it */
  uint64_t wait_logged_ns; /* the last warning */
  bool wait_said;          /* a warning stands that has not been taken back */
  uint64_t latencies[S3_LATENCIES];
  uint32_t latency_count;
  uint64_t hedge_after_ns; /* 0: not known yet */
  double hedge_budget;
  s3_known_object known[S3_KNOWN_OBJECTS];
  uint32_t known_next;

  atomic_llong skew_ns; /* the server's clock less ours */
  atomic_ullong requests, retries, throttled, hedged, bytes_read, bytes_written;
};

static inline uint64_t s3_now(const s3_store *store) { return tr_clock_now_ns(store->clock); }

/* s3_engine.c */
tr_status s3_engine_init(s3_store *store, tr_error *error);
void s3_engine_fini(s3_store *store);
tr_status s3_engine_submit(s3_store *store, tr_store_request *request, tr_error *error);

/* s3_sockets.c: from s3_engine_init on. */
tr_status s3_sockets_open(s3_store *store, tr_error *error);
void s3_sockets_close(s3_store *store);
/* Sleeps until then, or something happens, and lets libcurl do what there is to do. */
void s3_sockets_run(s3_store *store, uint64_t until_ns);
/* Ends the sleep; from any thread. */
void s3_sockets_wake(s3_store *store);

/* s3_ask.c: blocks; not from the engine's thread. */
tr_status s3_ask_run(s3_store *store, s3_ask *ask, tr_error *error);
void s3_ask_fini(s3_store *store, s3_ask *ask);

/* s3_job.c */
bool s3_job_has_more(const s3_job *job);
void s3_job_begin(s3_store *store, s3_job *job, tr_store_request *request);
/* Gives the job's next exchange to a free slot and sends it. */
void s3_job_issue(s3_store *store, s3_job *job, s3_slot *slot);
/* The exchange in `slot` is over for good: with failure != TR_OK, whose message is in the request's error, the whole job
 * is. May complete the request. */
void s3_job_slot_done(s3_store *store, s3_slot *slot, tr_status failure);
/* Checks the head of an answer to a ranged read against what is known. */
s3_refusal s3_job_check_head(s3_slot *slot);

/* s3_slot.c */
tr_status s3_slot_init(s3_store *store, s3_slot *slot, tr_error *error);
void s3_slot_fini(s3_slot *slot);
s3_slot *s3_slot_free(s3_store *store);
/* Signs and hands it to libcurl, or parks it; a failure to do so ends the job. */
void s3_slot_send(s3_slot *slot);
/* Takes it out of libcurl's hands (its connection is closed when in the middle of a transfer). */
void s3_slot_stop(s3_slot *slot);
void s3_slot_release(s3_slot *slot);

/* s3_outcome.c: libcurl is done with the slot. */
void s3_slot_ended(s3_slot *slot, CURLcode code);
/* Its wait is over: sends it again. */
void s3_slot_resend(s3_slot *slot);
/* The store is being closed and the slot waits for what may never come. */
void s3_slot_cancel(s3_slot *slot);

/* s3_message.c: what went wrong, for a person. They return the status that it comes to. */
tr_status s3_message_refused(const s3_slot *slot, const s3_error_answer *answer, tr_error *error);
tr_status s3_message_body(const s3_slot *slot, tr_error *error);
tr_status s3_message_transport(const s3_slot *slot, CURLcode code, tr_error *error);
s3_kind s3_message_classify_transport(CURLcode code);
/* The first letters of the key id: enough to know it by, and no harm done where somebody put the secret in its place. ""
 * for a store that does not sign. */
void s3_message_key_id(s3_store *store, char *text, size_t capacity);
/* "s3://bucket/key" */
void s3_message_name(const s3_store *store, const char *key, char *text, size_t capacity);

/* s3_hedge.c */
void s3_hedge_note(s3_store *store, uint64_t latency_ns);
void s3_hedge_count(s3_store *store);
/* Starts second requests for those that wait too long; the time of the next look. */
uint64_t s3_hedge_run(s3_store *store, uint64_t now_ns);

/* s3_credentials.c */
tr_status s3_credentials_first(s3_store *store, tr_error *error);
void s3_credentials_renew(s3_store *store, bool renew);
/* Takes a fetched result over and wakes parked slots. */
void s3_credentials_poll(s3_store *store, uint64_t now_ns);
void s3_credentials_fini(s3_store *store);

/* s3_known.c: checksums of whole objects seen lately, by key and version. */
void s3_known_add(s3_store *store, const char *key, const tr_object_info *info, uint32_t crc);
bool s3_known_find(const s3_store *store, const char *key, const char *etag, uint64_t *bytes, uint32_t *crc);

/* s3_list.c and s3_upload.c */
tr_status s3_list(void *self, const char *prefix, const char *after, size_t max_keys, tr_list_page *page,
                  tr_error *error);
void s3_list_free(void *self, tr_list_page *page);
tr_status s3_upload_begin(void *self, const char *key, void **upload, tr_error *error);
tr_status s3_upload_commit(void *self, void *upload, bool if_absent, tr_error *error);
void s3_upload_abort(void *self, void *upload);
tr_status s3_upload_sweep(void *self, const char *prefix, tr_error *error);
/* Of a part: its call, and what to keep when it is there. */
tr_status s3_upload_call(const tr_store_request *request, s3_call *call, char query[S3_PART_QUERY_BYTES],
                         tr_error *error);
tr_status s3_upload_note(s3_store *store, const tr_store_request *request, uint32_t crc, const char *etag,
                         tr_error *error);

#endif
