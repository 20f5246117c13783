/* What the S3 store does when a server answers as servers do on bad days. Each server here is a script. */
#include <criterion/criterion.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <trainrun/s3.h>

#include "support/http_script.h"
#include "support/support.h"

static const char secret[] = "a-secret-that-nobody-may-see";

/* ---- A store over a script ------------------------------------------------------------------------------------------ */

typedef struct script {
  atomic_int state;
  atomic_int others;
  char text[64];
} script;

static tr_status get_credentials(void *self, bool renew, tr_s3_credentials *credentials, tr_error *error) {
  (void)self, (void)renew, (void)error;
  *credentials = (tr_s3_credentials){.access_key = "KEYID"};
  strcpy(credentials->secret_key, secret);
  return TR_OK;
}

static tr_store_s3_options options_for(const ts_http *http) {
  return (tr_store_s3_options){.struct_bytes = sizeof(tr_store_s3_options),
                               .bucket = "bucket",
                               .endpoint = ts_http_endpoint(http),
                               .path_style = true,
                               .credentials = {.get = get_credentials}};
}

static tr_store *open_with(const tr_store_s3_options *options) {
  tr_store *store = NULL;
  tr_error error;
  cr_assert_eq(tr_store_s3_open(options, &store, &error), TR_OK, "%s", error.message);
  return store;
}

static tr_store *open_for(const ts_http *http) {
  const tr_store_s3_options options = options_for(http);
  return open_with(&options);
}

static tr_s3_stats stats_of(const tr_store *store) {
  tr_s3_stats stats = {.struct_bytes = sizeof stats};
  cr_assert_eq(tr_store_s3_stats(store, &stats, NULL), TR_OK);
  return stats;
}

static tr_status run(tr_store *store, tr_store_request *request, tr_error *error) {
  request->struct_bytes = sizeof *request;
  tr_status status = tr_store_submit(store, request, error);
  return status == TR_OK ? tr_store_wait(store, request, error) : status;
}

/* The object that the scripts serve: letters, of this ETag. */
enum { OBJECT_BYTES = 2000 };
static char object_byte(uint64_t at) { return (char)('a' + at % 23 + at / 100 % 3); }

static void fill_object(char *data, uint64_t offset, size_t bytes) {
  for (size_t i = 0; i < bytes; i++) data[i] = object_byte(offset + i);
}

/* A right answer to a ranged GET, but only `sent` bytes of the body. */
static bool answer_range(const ts_http_request *request, int fd, const char *etag, size_t sent) {
  char value[256], head[512], body[OBJECT_BYTES];
  unsigned long long first = 0, last = 0;
  ts_http_header(request, "range", value);
  if (sscanf(value, "bytes=%llu-%llu", &first, &last) != 2 || first >= OBJECT_BYTES) {
    ts_http_reply(fd, "416 Range", "", "", 0);
    return true;
  }
  if (last >= OBJECT_BYTES) last = OBJECT_BYTES - 1;
  const size_t bytes = (size_t)(last - first + 1);
  fill_object(body, first, bytes);
  const int length = snprintf(head, sizeof head,
                              "HTTP/1.1 206 Partial\r\nContent-Length: %zu\r\nContent-Range: bytes %llu-%llu/%d\r\n"
                              "ETag: \"%s\"\r\n\r\n",
                              bytes, first, last, (int)OBJECT_BYTES, etag);
  ts_http_write(fd, head, (size_t)length);
  ts_http_write(fd, body, sent < bytes ? sent : bytes);
  return sent >= bytes;
}

static void expect_object(const char *data, size_t bytes) {
  cr_assert_eq(bytes, OBJECT_BYTES);
  for (size_t i = 0; i < bytes; i++) cr_assert_eq(data[i], object_byte(i), "byte %zu", i);
}

/* ---- Retries -------------------------------------------------------------------------------------------------------- */

static bool slow_down_twice(void *self, const ts_http_request *request, int fd) {
  (void)self;
  if (request->number > 2) return answer_range(request, fd, "v1", SIZE_MAX);
  static const char body[] = "<Error><Code>SlowDown</Code><Message>not so fast</Message></Error>";
  ts_http_reply(fd, "503 Slow", request->number == 1 ? "x-amz-retry-after: 120\r\n" : "x-amz-retry-after: 60\r\n", body,
                sizeof body - 1);
  return true;
}

Test(scripted, asks_again_when_told_to_slow_down_and_charges_the_wait_to_it) {
  ts_http *http = ts_http_start(slow_down_twice, NULL);
  tr_store *store = open_for(http);
  char data[OBJECT_BYTES];
  tr_error error;
  tr_store_request request = {.verb = TR_STORE_GET, .key = "o", .buffer = data, .buffer_bytes = sizeof data};
  cr_assert_eq(run(store, &request, &error), TR_OK, "%s", error.message);
  expect_object(data, request.bytes);
  cr_expect_geq(request.throttled_ns, 180000000, "what the server asked for");
  cr_expect_leq(request.throttled_ns, request.done_ns - request.submitted_ns);
  cr_expect_eq(request.retry_ns, 0);
  cr_expect_gt(request.first_byte_ns, request.submitted_ns + 180000000);
  const tr_s3_stats stats = stats_of(store);
  cr_expect_eq(stats.requests, 3);
  cr_expect_eq(stats.retries, 2);
  cr_expect_eq(stats.throttled, 2);
  tr_store_destroy(store);
  ts_http_stop(http);
}

static bool always_fails(void *self, const ts_http_request *request, int fd) {
  (void)request;
  ts_http_reply(fd, self, "", "", 0);
  return true;
}

Test(scripted, gives_up_after_its_attempts_and_says_why) {
  static const struct {
    const char *answer, *word;
    tr_status status;
    int requests;
  } cases[] = {{"500 Oh", "HTTP 500", TR_ERR_STORE, 2},      {"503 Slow", "HTTP 503", TR_ERR_THROTTLED, 2},
               {"403 No", "not allowed", TR_ERR_DENIED, 1},  {"400 What", "HTTP 400", TR_ERR_STORE, 1},
               {"404 No", "not there", TR_ERR_NOT_FOUND, 1}, {"507 Full", "no space left", TR_ERR_NO_SPACE, 1},
               {"301 Moved", "redirects", TR_ERR_CONFIG, 1}};
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    ts_http *http = ts_http_start(always_fails, (void *)cases[i].answer);
    tr_store_s3_options options = options_for(http);
    options.attempts = 2;
    tr_store *store = open_with(&options);
    tr_error error;
    cr_expect_eq(tr_store_put(store, "a/key", "x", 1, false, &error), cases[i].status, "%s", error.message);
    cr_expect_not_null(strstr(error.message, cases[i].word), "%s", error.message);
    cr_expect_not_null(strstr(error.message, "s3://bucket/a/key"), "%s", error.message);
    cr_expect_eq(ts_http_count(http), cases[i].requests, "%s", cases[i].answer);
    tr_store_destroy(store);
    ts_http_stop(http);
  }
}

static bool ok_with_error(void *self, const ts_http_request *request, int fd) {
  (void)self;
  static const char body[] = "<Error><Code>InternalError</Code></Error>";
  const bool bad = request->number == 1;
  ts_http_reply(fd, "200 OK", "ETag: \"v\"\r\n", bad ? body : "", bad ? sizeof body - 1 : 0);
  return true;
}

Test(scripted, reads_the_error_in_a_200) {
  ts_http *http = ts_http_start(ok_with_error, NULL);
  tr_store *store = open_for(http);
  tr_store_request request = {.verb = TR_STORE_PUT, .key = "o", .data = "x", .data_bytes = 1};
  cr_expect_eq(run(store, &request, NULL), TR_OK);
  cr_expect_eq(ts_http_count(http), 2);
  cr_expect_gt(request.retry_ns, 0);
  cr_expect_str_eq(request.info.etag, "v");
  tr_store_destroy(store);
  ts_http_stop(http);
}

Test(scripted, names_the_endpoint_that_nobody_listens_at) {
  ts_http *http = ts_http_start(always_fails, (void *)"500 Oh");
  tr_store *store = open_for(http);
  ts_http_stop(http);
  tr_error error;
  tr_object_info info;
  cr_expect_eq(tr_store_head(store, "k", &info, &error), TR_ERR_STORE);
  cr_expect_not_null(strstr(error.message, "http://127.0.0.1:"), "%s", error.message);
  cr_expect_not_null(strstr(error.message, "does the server run"), "%s", error.message);
  cr_expect_not_null(strstr(error.message, "3 attempts"), "%s", error.message);
  tr_store_destroy(store);
}

/* ---- Bodies --------------------------------------------------------------------------------------------------------- */

static bool cut_in_the_middle(void *self, const ts_http_request *request, int fd) {
  script *at = self;
  char range[256], match[256];
  ts_http_header(request, "range", range);
  ts_http_header(request, "if-match", match);
  if (request->number == 1) return answer_range(request, fd, "v1", 700);
  if (request->number == 2) snprintf(at->text, sizeof at->text, "%.30s %.20s", range, match);
  return answer_range(request, fd, "v1", SIZE_MAX);
}

Test(scripted, goes_on_at_its_offset_with_the_same_version_when_a_body_is_cut) {
  script at = {0};
  ts_http *http = ts_http_start(cut_in_the_middle, &at);
  tr_store *store = open_for(http);
  char data[OBJECT_BYTES];
  tr_store_request request = {.verb = TR_STORE_GET, .key = "o", .buffer = data, .buffer_bytes = sizeof data};
  cr_assert_eq(run(store, &request, NULL), TR_OK);
  expect_object(data, request.bytes);
  cr_expect_str_eq(at.text, "bytes=700-1999 \"v1\"");
  cr_expect_eq(stats_of(store).bytes_read, OBJECT_BYTES, "no byte comes twice");
  tr_store_destroy(store);
  ts_http_stop(http);
}

static bool other_version_next(void *self, const ts_http_request *request, int fd) {
  char match[256];
  script *at = self;
  if (request->number == 1) return answer_range(request, fd, "v1", 700);
  /* A server that knows If-Match, or one that does not. */
  if (at->state == 0 && ts_http_header(request, "if-match", match)) {
    ts_http_reply(fd, "412 Changed", "", "", 0);
    return true;
  }
  return answer_range(request, fd, "v2", SIZE_MAX);
}

Test(scripted, notices_an_object_that_changes_while_it_is_read) {
  for (int knows = 0; knows < 2; knows++) {
    script at = {.state = knows};
    ts_http *http = ts_http_start(other_version_next, &at);
    tr_store *store = open_for(http);
    char data[OBJECT_BYTES];
    tr_error error;
    tr_store_request request = {.verb = TR_STORE_GET, .key = "o", .buffer = data, .buffer_bytes = sizeof data};
    cr_expect_eq(run(store, &request, &error), TR_ERR_CHANGED);
    cr_expect_not_null(strstr(error.message, "s3://bucket/o"), "%s", error.message);
    cr_expect_eq(request.bytes, 0);
    tr_store_destroy(store);
    ts_http_stop(http);
  }
}

static bool stalls_once(void *self, const ts_http_request *request, int fd) {
  script *at = self;
  if (request->number > 1) return answer_range(request, fd, "v1", SIZE_MAX);
  answer_range(request, fd, "v1", 900);
  for (int i = 0; i < 1000 && at->state == 0; i++) ts_sleep_s(0.01);
  return false;
}

Test(scripted, cuts_a_transfer_that_stalls_and_goes_on) {
  script at = {0};
  ts_http *http = ts_http_start(stalls_once, &at);
  tr_store_s3_options options = options_for(http);
  options.stall_timeout_ms = 200;
  tr_store *store = open_with(&options);
  char data[OBJECT_BYTES];
  tr_store_request request = {.verb = TR_STORE_GET, .key = "o", .buffer = data, .buffer_bytes = sizeof data};
  cr_assert_eq(run(store, &request, NULL), TR_OK);
  expect_object(data, request.bytes);
  at.state = 1;
  cr_expect_lt(request.done_ns - request.submitted_ns, UINT64_C(8000000000), "it does not wait for what never comes");
  cr_expect_geq(request.retry_ns, 190000000);
  tr_store_destroy(store);
  ts_http_stop(http);
}

static bool more_than_asked(void *self, const ts_http_request *request, int fd) {
  (void)request, (void)self;
  static char body[4000];
  ts_http_reply(fd, self, "Content-Range: bytes 0-9/4000\r\nETag: \"v\"\r\n", body, sizeof body);
  return false;
}

Test(scripted, takes_no_byte_past_what_was_asked_for) {
  const char *const answers[] = {"206 Partial", "200 OK"};
  for (int i = 0; i < 2; i++) {
    ts_http *http = ts_http_start(more_than_asked, (void *)answers[i]);
    tr_store_s3_options options = options_for(http);
    options.attempts = 1;
    tr_store *store = open_with(&options);
    char data[12];
    memset(data, 0x55, sizeof data);
    tr_store_request request = {.verb = TR_STORE_GET, .key = "o", .buffer = data, .buffer_bytes = 10};
    cr_expect_neq(run(store, &request, NULL), TR_OK, "%s", answers[i]);
    cr_expect_eq(data[10], 0x55);
    cr_expect_eq(request.bytes, 0);
    tr_store_destroy(store);
    ts_http_stop(http);
  }
}

static bool another_range(void *self, const ts_http_request *request, int fd) {
  (void)request, (void)self;
  ts_http_reply(fd, "206 Partial", "Content-Range: bytes 5-14/4000\r\nETag: \"v\"\r\n", "0123456789", 10);
  return true;
}

Test(scripted, refuses_another_range_than_it_asked_for) {
  ts_http *http = ts_http_start(another_range, NULL);
  tr_store *store = open_for(http);
  char data[10];
  tr_error error;
  cr_expect_eq(tr_store_get(store, "o", 4, data, sizeof data, NULL, &error), TR_ERR_STORE);
  cr_expect_not_null(strstr(error.message, "another range"), "%s", error.message);
  tr_store_destroy(store);
  ts_http_stop(http);
}

/* HEAD tells the right checksum; of the GETs the first `state` bring a flipped bit. */
static bool flips_bits(void *self, const ts_http_request *request, int fd) {
  script *at = self;
  char body[OBJECT_BYTES], head[256], crc[16];
  fill_object(body, 0, sizeof body);
  if (strcmp(request->method, "HEAD") == 0) {
    const uint32_t value = tr_crc32c(0, body, sizeof body);
    static const char letters[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    for (int i = 0; i < 6; i++) crc[i] = letters[((uint64_t)value << 4) >> (30 - 6 * i) & 63];
    snprintf(head, sizeof head,
             "HTTP/1.1 200 OK\r\nContent-Length: %d\r\nETag: \"v1\"\r\nx-amz-checksum-crc32c: %.6s==\r\n\r\n",
             (int)OBJECT_BYTES, crc);
    ts_http_write(fd, head, strlen(head));
    return true;
  }
  if (at->state-- <= 0) return answer_range(request, fd, "v1", SIZE_MAX);
  body[123] ^= 4;
  snprintf(head, sizeof head, "Content-Range: bytes 0-%d/%d\r\nETag: \"v1\"\r\n", OBJECT_BYTES - 1, (int)OBJECT_BYTES);
  ts_http_reply(fd, "206 Partial", head, body, sizeof body);
  return true;
}

Test(scripted, fetches_again_what_does_not_have_its_checksum_and_never_hands_it_out) {
  for (int flips = 0; flips < 4; flips += 3) {
    script at = {.state = flips == 0 ? 1 : 100};
    ts_http *http = ts_http_start(flips_bits, &at);
    tr_store *store = open_for(http);
    void *data = NULL;
    size_t bytes = 0;
    tr_error error;
    const tr_status status = tr_store_get_all(store, NULL, "o", 10000, &data, &bytes, &error);
    cr_expect_eq(status, flips == 0 ? TR_OK : TR_ERR_CORRUPT, "%s", error.message);
    if (status == TR_OK) {
      expect_object(data, bytes);
      tr_free(NULL, data);
    } else {
      cr_expect_not_null(strstr(error.message, "s3://bucket/o"), "%s", error.message);
    }
    tr_store_destroy(store);
    ts_http_stop(http);
  }
}

/* ---- Redirects, clocks, credentials --------------------------------------------------------------------------------- */

static bool redirects(void *self, const ts_http_request *request, int fd) {
  char head[256];
  (void)request;
  snprintf(head, sizeof head, "Location: %s/elsewhere?X-Amz-Signature=hidden\r\n", (const char *)self);
  ts_http_reply(fd, "307 Temporary", head, "", 0);
  return true;
}

Test(scripted, follows_no_redirect_and_says_where_it_points) {
  ts_http *other = ts_http_start(always_fails, (void *)"200 OK");
  ts_http *http = ts_http_start(redirects, (void *)ts_http_endpoint(other));
  tr_store *store = open_for(http);
  tr_error error;
  tr_object_info info;
  cr_expect_eq(tr_store_put(store, "o", "x", 1, false, &error), TR_ERR_CONFIG);
  cr_expect_not_null(strstr(error.message, ts_http_endpoint(other)), "%s", error.message);
  cr_expect_null(strstr(error.message, "hidden"), "%s", error.message);
  cr_expect_eq(tr_store_head(store, "o", &info, &error), TR_ERR_CONFIG);
  cr_expect_eq(ts_http_count(other), 0);
  tr_store_destroy(store);
  ts_http_stop(http);
  ts_http_stop(other);
}

static void date_in(int seconds, const char *format, char *text, size_t capacity) {
  const time_t then = time(NULL) + seconds;
  struct tm utc;
  gmtime_r(&then, &utc);
  strftime(text, capacity, format, &utc);
}

/* Twenty minutes ahead of us; takes what is signed within two minutes of its time. */
static bool ahead(void *self, const ts_http_request *request, int fd) {
  script *at = self;
  char stamp[256], early[32], late[32], date[64], head[128];
  ts_http_header(request, "x-amz-date", stamp);
  date_in(1200 - 120, "%Y%m%dT%H%M%SZ", early, sizeof early);
  date_in(1200 + 120, "%Y%m%dT%H%M%SZ", late, sizeof late);
  date_in(1200, "%a, %d %b %Y %H:%M:%S GMT", date, sizeof date);
  snprintf(head, sizeof head, "Date: %s\r\nETag: \"v\"\r\n", date);
  static const char body[] = "<Error><Code>RequestTimeTooSkewed</Code></Error>";
  if (strcmp(stamp, early) > 0 && strcmp(stamp, late) < 0) {
    at->others++;
    ts_http_reply(fd, "200 OK", head, "", 0);
  } else {
    const bool is_head = strcmp(request->method, "HEAD") == 0;
    ts_http_reply(fd, "403 Forbidden", head, body, is_head ? 0 : sizeof body - 1);
  }
  return true;
}

Test(scripted, signs_with_the_time_of_a_server_whose_clock_is_twenty_minutes_off) {
  for (int first = 0; first < 2; first++) {
    script at = {0};
    ts_http *http = ts_http_start(ahead, &at);
    tr_store *store = open_for(http);
    tr_error error;
    tr_object_info info;
    if (first == 1) cr_expect_eq(tr_store_head(store, "o", &info, &error), TR_OK, "%s", error.message);
    cr_expect_eq(tr_store_put(store, "o", "x", 1, false, &error), TR_OK, "%s", error.message);
    cr_expect_eq(tr_store_put(store, "o", "x", 1, false, &error), TR_OK, "%s", error.message);
    cr_expect_eq(ts_http_count(http) - at.others, first == 1 ? 2 : 1, "once corrected it stays so");
    tr_store_destroy(store);
    ts_http_stop(http);
  }
}

typedef struct source {
  atomic_int asked, renewed;
  bool stuck; /* gives the old ones again */
} source;

static tr_status get_token(void *self, bool renew, tr_s3_credentials *credentials, tr_error *error) {
  source *from = self;
  from->asked++;
  if (renew) from->renewed++;
  get_credentials(NULL, false, credentials, error);
  snprintf(credentials->session_token, sizeof credentials->session_token, "token-%d",
           from->stuck ? 0 : (int)from->renewed);
  return TR_OK;
}

static bool old_token_expired(void *self, const ts_http_request *request, int fd) {
  (void)self;
  char token[256];
  static const char body[] =
      "<Error><Code>ExpiredToken</Code><Message>The provided token has expired.</Message></Error>";
  ts_http_header(request, "x-amz-security-token", token);
  if (strcmp(token, "token-0") != 0) {
    ts_http_reply(fd, "200 OK", "ETag: \"v\"\r\n", "", 0);
  } else {
    ts_http_reply(fd, "400 Bad", "", body, sizeof body - 1);
  }
  return true;
}

Test(scripted, renews_credentials_that_ran_out_once_for_all_requests) {
  enum { COUNT = 40 };
  ts_http *http = ts_http_start(old_token_expired, NULL);
  source from = {.stuck = false};
  tr_store_s3_options options = options_for(http);
  options.credentials = (tr_s3_credentials_source){.get = get_token, .self = &from};
  tr_store *store = open_with(&options);
  tr_store_request requests[COUNT];
  for (int i = 0; i < COUNT; i++) {
    requests[i] = (tr_store_request){
        .struct_bytes = sizeof *requests, .verb = TR_STORE_PUT, .key = "o", .data = "x", .data_bytes = 1};
    cr_assert_eq(tr_store_submit(store, &requests[i], NULL), TR_OK);
  }
  for (int i = 0; i < COUNT; i++) cr_expect_eq(tr_store_wait(store, &requests[i], NULL), TR_OK);
  cr_expect_eq(from.renewed, 1);
  tr_store_destroy(store);
  ts_http_stop(http);
}

Test(scripted, fails_when_new_credentials_are_refused_too_and_shows_no_secret) {
  ts_http *http = ts_http_start(old_token_expired, NULL);
  source from = {.stuck = true};
  tr_store_s3_options options = options_for(http);
  options.credentials = (tr_s3_credentials_source){.get = get_token, .self = &from};
  tr_store *store = open_with(&options);
  tr_error error;
  cr_expect_eq(tr_store_put(store, "o", "x", 1, false, &error), TR_ERR_DENIED);
  cr_expect_not_null(strstr(error.message, "expired"), "%s", error.message);
  cr_expect_not_null(strstr(error.message, "KEYI…"), "%s", error.message);
  cr_expect_null(strstr(error.message, secret), "%s", error.message);
  cr_expect_null(strstr(error.message, "token-0"), "%s", error.message);
  cr_expect_eq(from.renewed, 1);
  tr_store_destroy(store);
  ts_http_stop(http);
}

/* ---- Answers that are lost ------------------------------------------------------------------------------------------ */

/* Writes the object and loses the answer; then says that it is there. */
static bool loses_the_answer(void *self, const ts_http_request *request, int fd) {
  script *at = self;
  if (strcmp(request->method, "HEAD") == 0) {
    char head[256];
    snprintf(head, sizeof head,
             "HTTP/1.1 200 OK\r\nContent-Length: 9\r\nETag: \"v\"\r\nx-amz-checksum-crc32c: %s\r\n\r\n",
             at->state == 0 ? "4waSgw==" : "AAAAAA==");
    ts_http_write(fd, head, strlen(head));
    return true;
  }
  if (request->number == 1) return false;
  ts_http_reply(fd, "412 There", "", "", 0);
  return true;
}

Test(scripted, takes_an_object_that_is_there_for_its_own_when_it_is_and_the_answer_was_lost) {
  for (int other = 0; other < 2; other++) {
    script at = {.state = other};
    ts_http *http = ts_http_start(loses_the_answer, &at);
    tr_store *store = open_for(http);
    tr_error error;
    cr_expect_eq(tr_store_put(store, "o", "123456789", 9, true, &error), other == 0 ? TR_OK : TR_ERR_EXISTS, "%s",
                 error.message);
    tr_store_destroy(store);
    ts_http_stop(http);
  }
}

typedef struct upload_script {
  atomic_int commits;
  bool ours;
} upload_script;

/* An upload whose commit is carried out, its answer lost, and which then is not known any more. */
static bool loses_the_commit(void *self, const ts_http_request *request, int fd) {
  upload_script *at = self;
  static const char begun[] = "<InitiateMultipartUploadResult><UploadId>u1</UploadId></InitiateMultipartUploadResult>";
  static const char unknown[] = "<Error><Code>NoSuchUpload</Code></Error>";
  if (strcmp(request->method, "POST") == 0 && strstr(request->target, "uploads=") != NULL) {
    ts_http_reply(fd, "200 OK", "", begun, sizeof begun - 1);
  } else if (strcmp(request->method, "PUT") == 0) {
    ts_http_reply(fd, "200 OK", "ETag: \"25f9e794323b453885f5181f1b624d0b\"\r\n", "", 0); /* MD5 of 123456789 */
  } else if (strcmp(request->method, "POST") == 0) {
    if (++at->commits == 1) return false;
    ts_http_reply(fd, "404 Not", "", unknown, sizeof unknown - 1);
  } else if (strcmp(request->method, "HEAD") == 0) {
    char head[256];
    snprintf(head, sizeof head, "HTTP/1.1 200 OK\r\nContent-Length: 9\r\nETag: \"%s\"\r\n\r\n",
             at->ours ? "5927c5d64d94a5786f90003aa26d0159-1" : "00000000000000000000000000000000-1");
    ts_http_write(fd, head, strlen(head));
  } else {
    ts_http_reply(fd, "204 Gone", "", "", 0);
  }
  return true;
}

Test(scripted, takes_a_commit_for_done_when_its_answer_was_lost_and_the_object_is_ours) {
  for (int ours = 0; ours < 2; ours++) {
    upload_script at = {.ours = ours == 1};
    ts_http *http = ts_http_start(loses_the_commit, &at);
    tr_store *store = open_for(http);
    void *self = NULL, *upload = NULL;
    const tr_store_ops *ops = tr_store_vtable(store, &self);
    tr_error error;
    cr_assert_eq(ops->upload_begin(self, "o", &upload, &error), TR_OK, "%s", error.message);
    tr_store_request part = {.verb = TR_STORE_PART, .upload = upload, .part = 1, .data = "123456789", .data_bytes = 9};
    cr_assert_eq(run(store, &part, &error), TR_OK, "%s", error.message);
    const tr_status status = ops->upload_commit(self, upload, false, &error);
    cr_expect_eq(status, ours == 1 ? TR_OK : TR_ERR_STORE, "%s", error.message);
    cr_expect_eq(at.commits, 2);
    tr_store_destroy(store);
    ts_http_stop(http);
  }
}

/* ---- Stragglers ----------------------------------------------------------------------------------------------------- */

static bool one_straggler(void *self, const ts_http_request *request, int fd) {
  script *at = self;
  if (request->number == 61) {
    for (int i = 0; i < 1000 && at->state == 0; i++) ts_sleep_s(0.01);
  }
  return answer_range(request, fd, "v1", SIZE_MAX);
}

Test(scripted, asks_twice_when_a_first_byte_is_late_and_takes_what_comes_first) {
  script at = {0};
  ts_http *http = ts_http_start(one_straggler, &at);
  tr_store *store = open_for(http);
  char data[OBJECT_BYTES];
  uint64_t longest = 0;
  for (int i = 0; i < 80; i++) {
    memset(data, 0, sizeof data);
    tr_store_request request = {.verb = TR_STORE_GET, .key = "o", .buffer = data, .buffer_bytes = sizeof data};
    cr_assert_eq(run(store, &request, NULL), TR_OK);
    expect_object(data, request.bytes);
    if (request.done_ns - request.submitted_ns > longest) longest = request.done_ns - request.submitted_ns;
  }
  at.state = 1;
  cr_expect_lt(longest, UINT64_C(8000000000));
  cr_expect_geq(stats_of(store).hedged, 1);
  cr_expect_leq(stats_of(store).hedged, 4, "at most one in twenty");
  tr_store_destroy(store);
  ts_http_stop(http);
}
