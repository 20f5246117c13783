/* A small HTTP server in a thread of the test: what STS, a container's host or EC2's metadata service say, by rule, and
 * what they were asked. One connection at a time; loopback, a free port. */
#ifndef TRAINRUN_TESTS_FAKE_HTTP_H
#define TRAINRUN_TESTS_FAKE_HTTP_H

#include <pthread.h>
#include <stddef.h>

enum { FAKE_RULES = 8, FAKE_REQUESTS = 32, FAKE_TEXT = 8192 };

typedef struct fake_rule {
  const char *words; /* answers the first request that holds them */
  int status;
  const char *body;
  const char *header; /* one more, "Location: …"; NULL: none */
  int delay_ms;
} fake_rule;

typedef struct fake_http {
  int listener;
  int port;
  pthread_t thread;

  /* Under `lock`. */
  pthread_mutex_t lock;
  fake_rule rules[FAKE_RULES]; /* up to the first without words; what none fits is answered 404 */
  char requests[FAKE_REQUESTS][FAKE_TEXT];
  size_t count;
} fake_http;

fake_http *fake_http_start(void);
void fake_http_stop(fake_http *fake);
/* Replaces the rules; ends with the first that has no words. */
void fake_http_rules(fake_http *fake, const fake_rule *rules);
size_t fake_http_count(fake_http *fake);
/* "http://127.0.0.1:PORT" in memory of its own. */
char *fake_http_url(const fake_http *fake);

#endif
