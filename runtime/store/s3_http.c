/* A blocking request over libcurl's easy interface. */
#include "s3_http.h"

#include <signal.h>
#include <string.h>
#include <time.h>

#include "s3_lib.h"

enum { HEADERS_MAX = 8 };

typedef struct receiver {
  char *body;
  size_t bytes, max_bytes;
  bool too_large;
} receiver;

static size_t receive(char *data, size_t size, size_t count, void *self) {
  receiver *r = self;
  const size_t bytes = size * count;
  if (bytes > r->max_bytes - r->bytes) {
    r->too_large = true;
    return 0;
  }
  memcpy(r->body + r->bytes, data, bytes);
  r->bytes += bytes;
  return bytes;
}

/* "169.254.169.254" of a URL: what a message may name. */
static int host_length(const char *url, const char **host) {
  const char *mark = strstr(url, "://");
  *host = mark != NULL ? mark + 3 : url;
  return (int)strcspn(*host, "/?#");
}

/* The list lies on the stack and points to the caller's text: no copy of a token stays behind. */
static void link_headers(const s3_http_request *request, struct curl_slist nodes[HEADERS_MAX]) {
  for (size_t i = 0; i < request->header_count; i++) {
    nodes[i].data = (char *)(uintptr_t)request->headers[i]; /* read only */
    nodes[i].next = i + 1 < request->header_count ? &nodes[i + 1] : NULL;
  }
}

static CURLcode perform(const s3_lib *lib, CURL *curl, const s3_http_request *request, receiver *r, long *code) {
  struct curl_slist headers[HEADERS_MAX];
  link_headers(request, headers);
  lib->easy_setopt(curl, CURLOPT_URL, request->url);
  lib->easy_setopt(curl, CURLOPT_PROTOCOLS_STR, "http,https");
  lib->easy_setopt(curl, CURLOPT_USERAGENT, "trainrun");
  if (request->header_count > 0) lib->easy_setopt(curl, CURLOPT_HTTPHEADER, headers);
  lib->easy_setopt(curl, CURLOPT_PROXY, "");
  lib->easy_setopt(curl, CURLOPT_NOSIGNAL, 1L);
  lib->easy_setopt(curl, CURLOPT_TIMEOUT_MS, (long)request->timeout_ms);
  lib->easy_setopt(curl, CURLOPT_WRITEFUNCTION, receive);
  lib->easy_setopt(curl, CURLOPT_WRITEDATA, r);
  if (request->body != NULL) lib->easy_setopt(curl, CURLOPT_POSTFIELDS, request->body);
  lib->easy_setopt(curl, CURLOPT_CUSTOMREQUEST, request->method);
  if (request->ca_file != NULL) lib->easy_setopt(curl, CURLOPT_CAINFO, request->ca_file);
  const CURLcode done = lib->easy_perform(curl);
  lib->easy_getinfo(curl, CURLINFO_RESPONSE_CODE, code);
  return done;
}

/* TLS writes without MSG_NOSIGNAL: where the server hangs up, the signal stays in this thread and is taken away. */
static CURLcode perform_quietly(const s3_lib *lib, CURL *curl, const s3_http_request *request, receiver *r,
                                long *code) {
  sigset_t pipe, before, pending;
  sigemptyset(&pipe);
  sigaddset(&pipe, SIGPIPE);
  sigpending(&pending);
  const bool was_pending = sigismember(&pending, SIGPIPE) == 1;
  pthread_sigmask(SIG_BLOCK, &pipe, &before);
  const CURLcode done = perform(lib, curl, request, r, code);
  const struct timespec now = {0};
  if (!was_pending) (void)sigtimedwait(&pipe, NULL, &now);
  pthread_sigmask(SIG_SETMASK, &before, NULL);
  return done;
}

static tr_status exchange(const s3_lib *lib, const s3_http_request *request, receiver *r, long *code, tr_error *error) {
  const char *host = NULL;
  const int host_bytes = host_length(request->url, &host);
  CURL *curl = lib->easy_init();
  if (curl == NULL) return tr_fail_memory(error, "a request", 0);
  const CURLcode done = perform_quietly(lib, curl, request, r, code);
  lib->easy_cleanup(curl);
  if (r->too_large) {
    return tr_fail(error, TR_ERR_CORRUPT, "%.*s answered more than %zu bytes", host_bytes, host, request->max_bytes);
  }
  if (done == CURLE_OK) return TR_OK;
  return tr_fail(error, TR_ERR_STORE, "%.*s: %s", host_bytes, host, lib->easy_strerror(done));
}

tr_status s3_http(const tr_allocator *allocator, const s3_http_request *request, s3_http_answer *answer,
                  tr_error *error) {
  if (request->header_count > HEADERS_MAX) return tr_fail(error, TR_ERR_INVALID, "a request has too many headers");
  s3_lib lib;
  TR_TRY(s3_lib_open(&lib, error));
  receiver r = {.body = tr_alloc(allocator, request->max_bytes + 1), .max_bytes = request->max_bytes};
  long code = 0;
  tr_status status = r.body != NULL ? exchange(&lib, request, &r, &code, error)
                                    : tr_fail_memory(error, "a request", request->max_bytes + 1);
  s3_lib_close(&lib);
  if (status != TR_OK) {
    if (r.body != NULL) explicit_bzero(r.body, r.bytes);
    tr_free(allocator, r.body);
    return status;
  }
  r.body[r.bytes] = '\0';
  *answer = (s3_http_answer){.status = (uint32_t)code, .body = r.body, .bytes = r.bytes};
  return TR_OK;
}

void s3_http_answer_fini(const tr_allocator *allocator, s3_http_answer *answer) {
  if (answer->body != NULL) explicit_bzero(answer->body, answer->bytes);
  tr_free(allocator, answer->body);
  *answer = (s3_http_answer){0};
}
