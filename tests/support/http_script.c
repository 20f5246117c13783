/* A scripted HTTP server: see http_script.h. */
#include "support/http_script.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>

enum { CONNECTIONS = 256, HEAD_BYTES = 32768 };

struct ts_http {
  ts_http_fn answer;
  void *self;
  int listener;
  char endpoint[64];
  atomic_int requests, connections;
  atomic_bool stopping;
  pthread_t acceptor;
  pthread_t threads[CONNECTIONS];
  int fds[CONNECTIONS];
};

typedef struct connection {
  ts_http *http;
  int fd;
} connection;

bool ts_http_header(const ts_http_request *request, const char *name, char value[256]) {
  const size_t length = strlen(name);
  for (const char *line = strstr(request->head, "\r\n"); line != NULL; line = strstr(line, "\r\n")) {
    line += 2;
    if (strncasecmp(line, name, length) != 0 || line[length] != ':') continue;
    line += length + 1;
    while (*line == ' ') line++;
    snprintf(value, 256, "%.*s", (int)strcspn(line, "\r\n"), line);
    return true;
  }
  value[0] = '\0';
  return false;
}

void ts_http_write(int fd, const void *data, size_t bytes) {
  const char *at = data;
  while (bytes > 0) {
    const ssize_t sent = send(fd, at, bytes, MSG_NOSIGNAL);
    if (sent <= 0) return;
    at += sent;
    bytes -= (size_t)sent;
  }
}

void ts_http_reply(int fd, const char *status, const char *headers, const void *body, size_t bytes) {
  char head[4096];
  const int length = snprintf(head, sizeof head, "HTTP/1.1 %s\r\nContent-Length: %zu\r\n%s\r\n", status, bytes,
                              headers);
  ts_http_write(fd, head, (size_t)length);
  ts_http_write(fd, body, bytes);
}

/* False at the end of the connection. */
static bool read_request(int fd, ts_http_request *request) {
  size_t bytes = 0;
  char *end = NULL, value[256];
  request->head = calloc(1, HEAD_BYTES);
  request->body = NULL;
  while (end == NULL && bytes < HEAD_BYTES - 1) {
    const ssize_t got = recv(fd, request->head + bytes, HEAD_BYTES - 1 - bytes, 0);
    if (got <= 0) return false;
    bytes += (size_t)got;
    end = strstr(request->head, "\r\n\r\n");
  }
  if (end == NULL || sscanf(request->head, "%15s %4095s", request->method, request->target) != 2) return false;
  request->body_bytes = ts_http_header(request, "content-length", value) ? strtoul(value, NULL, 10) : 0;
  request->body = calloc(1, request->body_bytes + 1);
  size_t have = bytes - (size_t)(end + 4 - request->head);
  memcpy(request->body, end + 4, have);
  end[2] = '\0';
  while (have < request->body_bytes) {
    const ssize_t got = recv(fd, request->body + have, request->body_bytes - have, 0);
    if (got <= 0) return false;
    have += (size_t)got;
  }
  return true;
}

static void *serve(void *argument) {
  connection *one = argument;
  ts_http *http = one->http;
  bool good = true;
  while (good && !http->stopping) {
    ts_http_request request = {0};
    good = read_request(one->fd, &request);
    if (good) {
      request.number = ++http->requests;
      good = http->answer(http->self, &request, one->fd);
    }
    free(request.head);
    free(request.body);
  }
  shutdown(one->fd, SHUT_RDWR);
  free(one);
  return NULL;
}

static void *accept_all(void *argument) {
  ts_http *http = argument;
  for (int fd; (fd = accept(http->listener, NULL, NULL)) >= 0;) {
    const int number = http->connections;
    connection *one = malloc(sizeof *one);
    if (one == NULL || number == CONNECTIONS) abort();
    *one = (connection){.http = http, .fd = fd};
    http->fds[number] = fd;
    if (pthread_create(&http->threads[number], NULL, serve, one) != 0) abort();
    http->connections = number + 1;
  }
  return NULL;
}

ts_http *ts_http_start(ts_http_fn answer, void *self) {
  ts_http *http = calloc(1, sizeof *http);
  struct sockaddr_in address = {.sin_family = AF_INET};
  socklen_t bytes = sizeof address;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  http->answer = answer;
  http->self = self;
  http->listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (bind(http->listener, (struct sockaddr *)&address, sizeof address) != 0 || listen(http->listener, 128) != 0 ||
      getsockname(http->listener, (struct sockaddr *)&address, &bytes) != 0) {
    abort();
  }
  snprintf(http->endpoint, sizeof http->endpoint, "http://127.0.0.1:%d", ntohs(address.sin_port));
  if (pthread_create(&http->acceptor, NULL, accept_all, http) != 0) abort();
  return http;
}

const char *ts_http_endpoint(const ts_http *http) { return http->endpoint; }

int ts_http_count(const ts_http *http) { return http->requests; }

void ts_http_stop(ts_http *http) {
  http->stopping = true;
  shutdown(http->listener, SHUT_RDWR);
  pthread_join(http->acceptor, NULL);
  for (int i = 0; i < http->connections; i++) shutdown(http->fds[i], SHUT_RDWR);
  for (int i = 0; i < http->connections; i++) {
    pthread_join(http->threads[i], NULL);
    close(http->fds[i]);
  }
  close(http->listener);
  free(http);
}
