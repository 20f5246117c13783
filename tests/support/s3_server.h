/* S3 servers for C tests, built by scripts/servers: MinIO and versitygw, each started once for a test program, before its
 * first test and before Criterion forks, and gone when the program ends. A test that needs one begins with
 *
 *   if (ts_s3_missing(kind) != NULL) cr_skip_test("%s", ts_s3_missing(kind)); */
#ifndef TRAINRUN_TESTS_S3_SERVER_H
#define TRAINRUN_TESTS_S3_SERVER_H

#include <trainrun/s3.h>

#include "support/support.h"

typedef enum ts_s3_kind { TS_MINIO, TS_VERSITYGW, TS_S3_KINDS } ts_s3_kind;

#define TS_S3_KEY    "trainrun-test-key"
#define TS_S3_SECRET "trainrun-test-secret"

/* Why there is no such server here; NULL: there is. */
const char *ts_s3_missing(ts_s3_kind kind);
/* "http://127.0.0.1:PORT" of the program's server, waiting until it answers. */
const char *ts_s3_endpoint(ts_s3_kind kind);
/* A new, empty bucket of it: its name. */
const char *ts_s3_bucket(ts_s3_kind kind);
/* Credentials that these servers know. */
tr_s3_credentials_source ts_s3_credentials(void);
/* Options for a new bucket, to be changed and opened. */
tr_store_s3_options ts_s3_options(ts_s3_kind kind, const tr_allocator *allocator);

/* A server of the test's own, to be killed: dies with the test. The port and folder may be those of one before. */
typedef struct ts_s3_server {
  ts_s3_kind kind;
  ts_process process;
  int port;
  const char *folder, *endpoint;
} ts_s3_server;
ts_s3_server ts_s3_start(ts_s3_kind kind, const ts_s3_server *like);
void ts_s3_kill(ts_s3_server *server);
void ts_s3_make_bucket(const ts_s3_server *server, const char *name);

#endif
