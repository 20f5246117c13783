/* trainrun wait: sleeps until a job of this machine ends, and ends with its exit code. */
#include "runs.h"

#include <jansson.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

/* False where the time passed first. */
static bool wait_for_end(const found_run *run, uint64_t timeout_ns) {
  const uint64_t start = tr_clock_now_ns(NULL);
  const int descriptor = (int)syscall(SYS_pidfd_open, run->pid, 0);
  bool ended = !runs_is_alive(run);
  while (!ended) {
    const uint64_t spent = tr_clock_now_ns(NULL) - start;
    if (timeout_ns > 0 && spent >= timeout_ns) break;
    struct pollfd process = {.fd = descriptor, .events = POLLIN};
    uint64_t left_ms = timeout_ns > 0 ? (timeout_ns - spent) / 1000000 + 1 : 1000;
    if (left_ms > 1000) left_ms = 1000;
    if (descriptor < 0 && left_ms > 200) left_ms = 200;
    const int ready = poll(&process, 1, (int)left_ms);
    ended = ready > 0 || !runs_is_alive(run);
  }
  if (descriptor >= 0) close(descriptor);
  return ended;
}

int cmd_wait(const tr_cli *cli) {
  static found_run run;
  uint64_t timeout_ns = 0;
  if (cli->timeout != NULL && !tr_parse_duration(cli->timeout, &timeout_ns)) {
    fprintf(stderr, "trainrun: --timeout %s: it takes a time such as 30s or 10m\n", cli->timeout);
    return EXIT_USAGE;
  }
  const int code = runs_find(cli, &run);
  if (code != 0) return code;
  if (!wait_for_end(&run, timeout_ns)) {
    fprintf(stderr, "trainrun: %s/%s still runs after %s\n", run.name, run.run_id, cli->timeout);
    return EXIT_UNAVAILABLE;
  }
  char *summary = runs_read(&run, "summary.json");
  json_t *root = summary != NULL ? json_loads(summary, 0, NULL) : NULL;
  const char *status = json_string_value(json_object_get(root, "status"));
  const json_t *exit_code = json_object_get(root, "exit_code");
  const int ended = json_is_integer(exit_code) ? (int)json_integer_value(exit_code) : EXIT_UNAVAILABLE;
  if (!cli->quiet)
    printf("%s/%s %s\n", run.name, run.run_id, status != NULL ? status : "interrupted: it left no summary");
  json_decref(root);
  free(summary);
  return ended;
}
