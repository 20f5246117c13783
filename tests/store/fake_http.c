/* The fake server: a loop of accept, read, look up, answer. */
#include "store/fake_http.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>

#include "support/support.h"

/* The head and as much of the body as Content-Length says. */
static size_t read_request(int connection, char text[FAKE_TEXT]) {
  size_t bytes = 0;
  for (;;) {
    const ssize_t got = read(connection, text + bytes, FAKE_TEXT - 1 - bytes);
    if (got <= 0) return 0;
    bytes += (size_t)got;
    text[bytes] = '\0';
    const char *head_end = strstr(text, "\r\n\r\n");
    if (head_end == NULL) continue;
    const char *length = strcasestr(text, "\r\ncontent-length:");
    const size_t body = length != NULL && length < head_end ? strtoul(length + 17, NULL, 10) : 0;
    if (bytes >= (size_t)(head_end + 4 - text) + body || bytes >= FAKE_TEXT - 1) return bytes;
  }
}

static fake_rule find_rule(fake_http *fake, const char *request) {
  for (size_t i = 0; i < FAKE_RULES && fake->rules[i].words != NULL; i++) {
    if (strstr(request, fake->rules[i].words) != NULL) return fake->rules[i];
  }
  return (fake_rule){.status = 404, .body = "nothing here"};
}

static void answer(fake_http *fake, int connection) {
  char request[FAKE_TEXT];
  if (read_request(connection, request) == 0) return;
  pthread_mutex_lock(&fake->lock);
  if (fake->count < FAKE_REQUESTS) memcpy(fake->requests[fake->count++], request, sizeof request);
  const fake_rule rule = find_rule(fake, request);
  pthread_mutex_unlock(&fake->lock);
  if (rule.delay_ms > 0) ts_sleep_s(rule.delay_ms / 1000.0);
  char *text = ts_format("HTTP/1.1 %d X\r\nConnection: close\r\nContent-Length: %zu\r\n%s%s\r\n%s", rule.status,
                         strlen(rule.body), rule.header != NULL ? rule.header : "", rule.header != NULL ? "\r\n" : "",
                         rule.body);
  send(connection, text, strlen(text), MSG_NOSIGNAL);
  free(text);
}

static void *serve(void *self) {
  fake_http *fake = self;
  for (;;) {
    const int connection = accept(fake->listener, NULL, NULL);
    if (connection < 0) return NULL;
    answer(fake, connection);
    close(connection);
  }
}

fake_http *fake_http_start(void) {
  fake_http *fake = calloc(1, sizeof *fake);
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  socklen_t length = sizeof address;
  fake->listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fake->listener < 0 || bind(fake->listener, (struct sockaddr *)&address, sizeof address) != 0 ||
      listen(fake->listener, 16) != 0 || getsockname(fake->listener, (struct sockaddr *)&address, &length) != 0) {
    perror("a fake server");
    exit(1);
  }
  fake->port = ntohs(address.sin_port);
  pthread_mutex_init(&fake->lock, NULL);
  pthread_create(&fake->thread, NULL, serve, fake);
  return fake;
}

void fake_http_stop(fake_http *fake) {
  shutdown(fake->listener, SHUT_RDWR);
  pthread_join(fake->thread, NULL);
  close(fake->listener);
  pthread_mutex_destroy(&fake->lock);
  free(fake);
}

void fake_http_rules(fake_http *fake, const fake_rule *rules) {
  pthread_mutex_lock(&fake->lock);
  memset(fake->rules, 0, sizeof fake->rules);
  for (size_t i = 0; i < FAKE_RULES && rules[i].words != NULL; i++) fake->rules[i] = rules[i];
  pthread_mutex_unlock(&fake->lock);
}

size_t fake_http_count(fake_http *fake) {
  pthread_mutex_lock(&fake->lock);
  const size_t count = fake->count;
  pthread_mutex_unlock(&fake->lock);
  return count;
}

char *fake_http_url(const fake_http *fake) { return ts_format("http://127.0.0.1:%d", fake->port); }
