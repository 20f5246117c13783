/* Starting workers, and seeing to it that nothing of them is left.
 *
 * PR_SET_PDEATHSIG alone has a hole: a parent that dies between fork and prctl is never noticed. So the child asks for the
 * signal first and then looks whether its parent is still the one that started it. */
#include "spawn.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

enum { EXIT_CANNOT_RUN = 126, EXIT_NO_PROGRAM = 127, GUARD_GROUPS_MAX = 4096 };

/* From here to exec only async-signal-safe calls: the launcher may have threads (of a store's engine). */

static void close_others(void) {
  if (close_range(3, ~0U, CLOSE_RANGE_CLOEXEC) == 0) return;
  for (int descriptor = 3; descriptor < 4096; descriptor++) (void)fcntl(descriptor, F_SETFD, FD_CLOEXEC);
}

static void default_signals(void) {
  /* A shell starts what runs in its background with SIGINT ignored; nohup's SIGHUP stays ignored. */
  static const int changed[] = {SIGPIPE, SIGINT, SIGTERM, SIGUSR1, SIGCHLD};
  const struct sigaction standard = {.sa_handler = SIG_DFL};
  sigset_t none;
  for (size_t i = 0; i < sizeof changed / sizeof *changed; i++) sigaction(changed[i], &standard, NULL);
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, NULL);
}

static void say(const char *text) {
  const ssize_t ignored = write(STDERR_FILENO, text, strlen(text));
  (void)ignored;
}

static void cannot_run(const char *path, int number) {
  const char *why = strerrordesc_np(number);
  say("trainrun: cannot run '");
  say(path);
  say("': ");
  say(why != NULL ? why : "unknown error");
  say("\n");
  _exit(number == ENOENT ? EXIT_NO_PROGRAM : EXIT_CANNOT_RUN);
}

static void guard_send(int guard, pid_t message) {
  if (guard < 0) return;
  while (send(guard, &message, sizeof message, MSG_NOSIGNAL) < 0 && errno == EINTR) continue;
}

static void child(const spawn_options *options, pid_t parent) {
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (getppid() != parent) _exit(EXIT_CANNOT_RUN);
  setpgid(0, 0);
  guard_send(options->guard, getpid());
  if (dup2(options->input, STDIN_FILENO) < 0 || dup2(options->output, STDOUT_FILENO) < 0 ||
      dup2(options->error, STDERR_FILENO) < 0) {
    _exit(EXIT_CANNOT_RUN);
  }
  close_others();
  for (size_t i = 0; i < options->keep_count; i++) {
    if (fcntl(options->keep[i], F_SETFD, 0) != 0) cannot_run(options->path, errno);
  }
  default_signals();
  execve(options->path, options->argv, options->environment);
  cannot_run(options->path, errno);
}

pid_t spawn_worker(const spawn_options *options) {
  const pid_t parent = getpid();
  const pid_t pid = fork();
  if (pid == 0) child(options, parent);
  /* Both sides do it, so that a kill of the group cannot come too early. */
  if (pid > 0) setpgid(pid, pid);
  return pid;
}

/* ---- The guard ---- */

typedef struct guard_groups {
  pid_t items[GUARD_GROUPS_MAX];
  size_t count;
} guard_groups;

static void guard_take(guard_groups *groups, pid_t message) {
  if (message > 0) {
    if (groups->count < GUARD_GROUPS_MAX) groups->items[groups->count++] = message;
    return;
  }
  for (size_t i = 0; i < groups->count; i++) {
    if (groups->items[i] == -message) groups->items[i] = groups->items[--groups->count];
  }
}

static void guard_main(int descriptor) {
  static guard_groups groups;
  const struct sigaction ignore = {.sa_handler = SIG_IGN};
  static const int ignored[] = {SIGINT, SIGTERM, SIGHUP, SIGUSR1, SIGQUIT, SIGTSTP, SIGTTOU};
  setpgid(0, 0);
  prctl(PR_SET_NAME, "trainrun-guard");
  for (size_t i = 0; i < sizeof ignored / sizeof *ignored; i++) sigaction(ignored[i], &ignore, NULL);
  /* The lock of the run, above all, must not outlive the launcher. */
  if (descriptor != 3) {
    dup2(descriptor, 3);
  }
  if (close_range(4, ~0U, 0) != 0) {
    for (int other = 4; other < 4096; other++) close(other);
  }
  for (int standard = 0; standard < 3; standard++) close(standard);
  for (;;) {
    pid_t message = 0;
    const ssize_t got = read(3, &message, sizeof message);
    if (got < 0 && errno == EINTR) continue;
    if (got != (ssize_t)sizeof message) break;
    guard_take(&groups, message);
  }
  for (size_t i = 0; i < groups.count; i++) kill(-groups.items[i], SIGKILL);
  _exit(0);
}

int guard_start(pid_t *pid) {
  int pair[2];
  if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) != 0) return -1;
  *pid = fork();
  if (*pid == 0) {
    close(pair[0]);
    guard_main(pair[1]);
  }
  close(pair[1]);
  if (*pid > 0) return pair[0];
  close(pair[0]);
  return -1;
}

void guard_forget(int guard, pid_t group) { guard_send(guard, -group); }

void guard_end(int guard, pid_t pid) {
  if (guard < 0) return;
  close(guard);
  while (waitpid(pid, NULL, 0) < 0 && errno == EINTR) continue;
}

/* ---- Strays ---- */

void reap_strays(void) {
  char path[64];
  snprintf(path, sizeof path, "/proc/self/task/%d/children", (int)getpid());
  for (int turn = 0; turn < 100; turn++) {
    FILE *children = fopen(path, "re");
    int pid = 0, found = 0;
    if (children == NULL) return;
    while (fscanf(children, "%d", &pid) == 1) {
      if (kill(pid, SIGKILL) == 0) found++;
    }
    fclose(children);
    if (found == 0) return;
    /* Killed ones hand their own children on to us: look again. */
    while (waitpid(-1, NULL, found > 0 ? 0 : WNOHANG) > 0) found--;
  }
}
