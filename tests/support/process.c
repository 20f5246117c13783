/* Programs and ranks as child processes, always with a time limit: see support.h. */
#include "support/support.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

enum { TS_DEFAULT_TIMEOUT_S = 60, TS_RANKS_MAX = 256 };

static void redirect(const char *path, int flags, int target) {
  const int fd = open(path, flags, 0600);
  if (fd < 0) _exit(126);
  dup2(fd, target);
  if (fd != target) close(fd);
}

static void change_environment(const char *const *environment) {
  for (; environment != NULL && *environment != NULL; environment++) {
    if (strchr(*environment, '=') != NULL) {
      putenv((char *)*environment);
    } else {
      unsetenv(*environment);
    }
  }
}

ts_process ts_start(const char *const *arguments, const ts_options *options) {
  const char *folder = ts_folder();
  ts_process process = {.out_path = ts_format("%s/out", folder), .err_path = ts_format("%s/err", folder)};
  process.started_s = ts_now_s();
  process.pid = fork();
  if (process.pid < 0) abort();
  if (process.pid == 0) {
    setpgid(0, 0);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    redirect("/dev/null", O_RDONLY, STDIN_FILENO);
    redirect(process.out_path, O_WRONLY | O_CREAT | O_TRUNC, STDOUT_FILENO);
    redirect(process.err_path, O_WRONLY | O_CREAT | O_TRUNC, STDERR_FILENO);
    if (options != NULL) {
      change_environment(options->environment);
      if (options->folder != NULL && chdir(options->folder) != 0) _exit(126);
    }
    execvp(arguments[0], (char *const *)arguments);
    fprintf(stderr, "%s: %s\n", arguments[0], strerror(errno));
    _exit(127);
  }
  setpgid(process.pid, process.pid); /* both sides do it, so that a kill of the group cannot come too early */
  return process;
}

/* Waits for one child until the deadline; false when it still runs then. */
static bool wait_until(pid_t pid, double deadline_s, int *status) {
  for (double pause_s = 0.0005;;) {
    const pid_t got = waitpid(pid, status, WNOHANG);
    if (got == pid) return true;
    if (got < 0 && errno != EINTR) abort();
    if (ts_now_s() > deadline_s) return false;
    ts_sleep_s(pause_s);
    if (pause_s < 0.01) pause_s *= 2;
  }
}

static int code_of(int status) { return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status); }

ts_result ts_finish(ts_process *process, double timeout_s) {
  ts_result result = {0};
  int status = 0;
  if (!wait_until(process->pid, ts_now_s() + (timeout_s > 0 ? timeout_s : TS_DEFAULT_TIMEOUT_S), &status)) {
    result.timed_out = true;
    kill(-process->pid, SIGKILL);
    kill(process->pid, SIGKILL);
    waitpid(process->pid, &status, 0);
  }
  result.exit_code = code_of(status);
  result.seconds = ts_now_s() - process->started_s;
  result.out = ts_file_read(process->out_path, NULL);
  result.err = ts_file_read(process->err_path, NULL);
  free(process->out_path);
  free(process->err_path);
  process->out_path = process->err_path = NULL;
  if (result.timed_out) fprintf(stderr, "test support: killed after %.1f s\n%s\n", result.seconds, result.err);
  return result;
}

ts_result ts_run(const char *const *arguments, const ts_options *options) {
  ts_process process = ts_start(arguments, options);
  return ts_finish(&process, options != NULL ? options->timeout_s : 0);
}

void ts_result_free(ts_result *result) {
  free(result->out);
  free(result->err);
  result->out = result->err = NULL;
}

bool ts_ranks(int rank_count, double timeout_s, int (*body)(int rank, int rank_count, void *context), void *context) {
  pid_t pids[TS_RANKS_MAX];
  if (rank_count > TS_RANKS_MAX) abort();
  const double deadline_s = ts_now_s() + (timeout_s > 0 ? timeout_s : TS_DEFAULT_TIMEOUT_S);
  fflush(NULL);
  for (int rank = 0; rank < rank_count; rank++) {
    pids[rank] = fork();
    if (pids[rank] < 0) abort();
    if (pids[rank] == 0) {
      prctl(PR_SET_PDEATHSIG, SIGKILL);
      const int code = body(rank, rank_count, context);
      fflush(NULL);
      _exit(code);
    }
  }
  bool good = true;
  for (int rank = 0; rank < rank_count; rank++) {
    int status = 0;
    if (!wait_until(pids[rank], deadline_s, &status)) {
      fprintf(stderr, "test support: rank %d of %d still runs after the time limit\n", rank, rank_count);
      for (int other = rank; other < rank_count; other++) kill(pids[other], SIGKILL);
      waitpid(pids[rank], &status, 0);
      good = false;
    } else if (code_of(status) != 0) {
      fprintf(stderr, "test support: rank %d of %d ended with %d\n", rank, rank_count, code_of(status));
      good = false;
    }
  }
  return good;
}
