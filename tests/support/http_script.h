/* A server of HTTP in a thread of the test, that answers as a function of the test says: for what no real server does when
 * asked to. A thread a connection; the function writes to the connection whatever it likes, also nothing or half. */
#ifndef TRAINRUN_TESTS_HTTP_SCRIPT_H
#define TRAINRUN_TESTS_HTTP_SCRIPT_H

#include "support/support.h"

typedef struct ts_http_request {
  int number; /* of the server's requests, from 1 */
  char method[16], target[4096];
  char *head; /* all lines */
  char *body;
  size_t body_bytes;
} ts_http_request;

/* Answers on fd; false: the connection is closed afterwards. Several at once, from several threads. */
typedef bool (*ts_http_fn)(void *self, const ts_http_request *request, int fd);

typedef struct ts_http ts_http;
ts_http *ts_http_start(ts_http_fn answer, void *self);
const char *ts_http_endpoint(const ts_http *http);
int ts_http_count(const ts_http *http); /* of requests so far */
void ts_http_stop(ts_http *http);

/* The value of a header in `value`, or false. */
bool ts_http_header(const ts_http_request *request, const char *name, char value[256]);
void ts_http_write(int fd, const void *data, size_t bytes);
/* "HTTP/1.1 STATUS" with these headers ("A: b\r\n") and a body with its Content-Length. */
void ts_http_reply(int fd, const char *status, const char *headers, const void *body, size_t bytes);

#endif
