/* Runs Criterion tests without Criterion's runner, for ThreadSanitizer.
 *
 * Criterion maps memory for its workers where ThreadSanitizer keeps shadows and cannot start under it. This file has the
 * few functions that the macros of its headers call, and a main() that forks a process a test, in order, and reports TAP
 * to --tap=FILE. Understands .init, .fini, .disabled, .signal, .exit_code, .timeout and parametrised tests. */
#include <criterion/criterion.h>
#include <criterion/parameterized.h>
#include <errno.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

enum { EXIT_FAILED = 101, EXIT_SKIPPED = 102, DEFAULT_TIMEOUT_S = 240 };

extern struct criterion_test *__start_cr_tst[] __attribute__((visibility("hidden")));
extern struct criterion_test *__stop_cr_tst[] __attribute__((visibility("hidden")));

struct criterion_options criterion_options;

/* Of the child: the test it runs, its parameter, whether an expectation failed, where a skip says why. */
static struct criterion_test *g_test;
static void *g_parameter;
static bool g_failed;
static int g_reason_pipe;

/* ---- What the macros call ------------------------------------------------------------------------------------------ */

void criterion_internal_test_setup(void) {
  if (g_test->data->init != NULL) g_test->data->init();
}

void criterion_internal_test_main(void (*fn)(void)) {
  if (g_parameter != NULL) {
    ((void (*)(void *))fn)(g_parameter);
  } else {
    fn();
  }
}

void criterion_internal_test_teardown(void) {
  if (g_test->data->fini != NULL) g_test->data->fini();
}

void criterion_send_assert(struct criterion_assert_stats *stats) {
  if (stats->passed) return;
  g_failed = true;
  fprintf(stderr, "%s:%u: %s\n", stats->file, stats->line, stats->message);
}

void criterion_abort_test(void) { exit(EXIT_FAILED); }

void criterion_continue_test(void) {}

void criterion_skip_test(const char *format, ...) {
  va_list arguments;
  va_start(arguments, format);
  vdprintf(g_reason_pipe, format, arguments);
  va_end(arguments);
  exit(EXIT_SKIPPED);
}

void criterion_test_die(const char *format, ...) {
  va_list arguments;
  va_start(arguments, format);
  vfprintf(stderr, format, arguments);
  va_end(arguments);
  exit(EXIT_FAILED);
}

void cri_asserts_passed_incr(void) {}

char *cr_translate_assert_msg(int msg_index, ...) {
  va_list arguments;
  va_start(arguments, msg_index);
  const char *expression = va_arg(arguments, const char *);
  char *text = NULL;
  cr_asprintf(&text, "assertion failed: %s", expression);
  va_end(arguments);
  return text;
}

int cr_vasprintf(char **out, const char *format, va_list arguments) { return vasprintf(out, format, arguments); }

int cr_asprintf(char **out, const char *format, ...) {
  va_list arguments;
  va_start(arguments, format);
  const int length = vasprintf(out, format, arguments);
  va_end(arguments);
  return length;
}

void cr_asprintf_free(char *text) { free(text); }

/* ---- The runner ---------------------------------------------------------------------------------------------------- */

static void run_child(struct criterion_test *test, void *parameter, int reason_pipe) {
  g_test = test;
  g_parameter = parameter;
  g_reason_pipe = reason_pipe;
  alarm(test->data->timeout > 0 ? (unsigned)test->data->timeout + 60 : DEFAULT_TIMEOUT_S);
  test->test();
  exit(g_failed ? EXIT_FAILED : 0);
}

/* One line of TAP; true when nothing is wrong. */
static bool run_one(FILE *tap, struct criterion_test *test, void *parameter) {
  if (test->data->disabled) {
    fprintf(tap, "ok - %s::%s # SKIP disabled\n", test->category, test->name);
    return true;
  }
  int fds[2];
  fflush(NULL);
  if (pipe(fds) != 0) abort();
  const pid_t pid = fork();
  if (pid < 0) abort();
  if (pid == 0) {
    close(fds[0]);
    run_child(test, parameter, fds[1]);
  }
  close(fds[1]);
  int status = 0;
  while (waitpid(pid, &status, 0) < 0 && errno == EINTR) continue;
  char reason[256] = "";
  const ssize_t got = WIFEXITED(status) && WEXITSTATUS(status) == EXIT_SKIPPED ? read(fds[0], reason, 255) : 0;
  reason[got > 0 ? got : 0] = '\0';
  close(fds[0]);
  if (WIFEXITED(status) && WEXITSTATUS(status) == EXIT_SKIPPED) {
    fprintf(tap, "ok - %s::%s # SKIP %s\n", test->category, test->name, reason);
    return true;
  }
  const bool good = test->data->signal != 0 ? WIFSIGNALED(status) && WTERMSIG(status) == test->data->signal
                                            : WIFEXITED(status) && WEXITSTATUS(status) == test->data->exit_code;
  fprintf(tap, "%s - %s::%s\n", good ? "ok" : "not ok", test->category, test->name);
  if (!good && WIFSIGNALED(status))
    fprintf(stderr, "%s::%s: signal %d\n", test->category, test->name, WTERMSIG(status));
  if (!good && WIFEXITED(status)) fprintf(stderr, "%s::%s: exit %d\n", test->category, test->name, WEXITSTATUS(status));
  return good;
}

int main(int argc, char **argv) {
  FILE *tap = stdout;
  for (int i = 1; i < argc; i++) {
    if (strncmp(argv[i], "--tap=", 6) == 0) tap = fopen(argv[i] + 6, "w");
  }
  if (tap == NULL) return 1;
  fprintf(tap, "TAP version 13\n1..%zu\n", (size_t)(__stop_cr_tst - __start_cr_tst));
  bool good = true;
  for (struct criterion_test **test = __start_cr_tst; test < __stop_cr_tst; test++) {
    if (*test == NULL) continue;
    if ((*test)->data->kind_ != CR_TEST_PARAMETERIZED) {
      good = run_one(tap, *test, NULL) && good;
      continue;
    }
    struct criterion_test_params params = (*test)->data->param_();
    for (size_t i = 0; i < params.length; i++)
      good = run_one(tap, *test, (char *)params.params + i * params.size) && good;
    if (params.cleanup != NULL) params.cleanup(&params);
  }
  fclose(tap);
  return good ? 0 : 1;
}
