/* posix_spawn, a pipe and a time limit. */
#include "s3_process.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "s3_inputs.h"
#include "s3_words.h"

enum { PATH_BYTES = 4096 };

static bool is_program(const char *path) {
  struct stat about;
  return stat(path, &about) == 0 && S_ISREG(about.st_mode) && access(path, X_OK) == 0;
}

/* By the PATH of the given environment, not by this process's. */
static bool find_program(const char *name, const char *const *environment, char path[PATH_BYTES]) {
  if (strchr(name, '/') != NULL) return snprintf(path, PATH_BYTES, "%s", name) < PATH_BYTES && is_program(path);
  const char *folders = s3_environment(environment, "PATH");
  if (folders == NULL) folders = "/usr/local/bin:/usr/bin:/bin";
  for (;;) {
    const size_t bytes = strcspn(folders, ":");
    if (bytes > 0 && snprintf(path, PATH_BYTES, "%.*s/%s", (int)bytes, folders, name) < PATH_BYTES &&
        is_program(path)) {
      return true;
    }
    if (folders[bytes] == '\0') return false;
    folders += bytes + 1;
  }
}

/* 0 or an errno value. */
static int spawn(const char *path, char *const *arguments, const char *const *environment, int output, pid_t *pid) {
  static char *const empty[] = {NULL};
  char *const *variables = environment != NULL ? (char *const *)environment : empty;
  posix_spawn_file_actions_t actions;
  posix_spawnattr_t attributes;
  sigset_t none, all;
  sigemptyset(&none);
  sigfillset(&all);
  int failure = posix_spawn_file_actions_init(&actions);
  if (failure != 0) return failure;
  failure = posix_spawnattr_init(&attributes);
  if (failure == 0) {
    failure = posix_spawn_file_actions_adddup2(&actions, output, STDOUT_FILENO);
    if (failure == 0) failure = posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
    if (failure == 0) failure = posix_spawn_file_actions_addopen(&actions, STDERR_FILENO, "/dev/null", O_WRONLY, 0);
    if (failure == 0) failure = posix_spawn_file_actions_addclosefrom_np(&actions, 3);
    posix_spawnattr_setsigmask(&attributes, &none);
    posix_spawnattr_setsigdefault(&attributes, &all);
    posix_spawnattr_setpgroup(&attributes, 0);
    posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETPGROUP);
    if (failure == 0) failure = posix_spawn(pid, path, &actions, &attributes, arguments, variables);
    posix_spawnattr_destroy(&attributes);
  }
  posix_spawn_file_actions_destroy(&actions);
  return failure;
}

/* Waits until a descriptor is readable; false when the time is over. */
static bool await(int descriptor, uint64_t deadline_ns) {
  for (;;) {
    const uint64_t now = tr_clock_now_ns(NULL);
    if (now >= deadline_ns) return false;
    struct pollfd waiting = {.fd = descriptor, .events = POLLIN};
    const int ready = poll(&waiting, 1, (int)((deadline_ns - now) / 1000000) + 1);
    if (ready > 0) return true;
    if (ready < 0 && errno != EINTR) return false;
  }
}

typedef struct outcome {
  size_t bytes;
  bool in_time, too_long;
} outcome;

static outcome collect(int pipe, int child, char *output, size_t max_bytes, uint64_t deadline_ns) {
  outcome o = {.in_time = true};
  for (;;) {
    o.in_time = await(pipe, deadline_ns);
    if (!o.in_time) return o;
    const ssize_t got = read(pipe, output + o.bytes, max_bytes + 1 - o.bytes);
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) break;
    o.bytes += (size_t)got;
    o.too_long = o.bytes > max_bytes;
    if (o.too_long) return o;
  }
  o.in_time = await(child, deadline_ns);
  return o;
}

/* Where another thread of the program waits for all children, the status may be gone; then what was said decides. */
static tr_status judge(const char *name, const outcome *o, const siginfo_t *end, bool known, const s3_process *process,
                       tr_error *error) {
  if (!o->in_time) {
    return tr_fail(error, TR_ERR_TIMEOUT, "%s did not end within %.3g s", name, (double)process->timeout_ms / 1000);
  }
  if (o->too_long) return tr_fail(error, TR_ERR_CONFIG, "%s says more than %zu bytes", name, process->max_bytes);
  if (!known || (end->si_code == CLD_EXITED && end->si_status == 0)) return TR_OK;
  return tr_fail(error, TR_ERR_CONFIG, "%s ended with %s %d; run it by hand to see why", name,
                 end->si_code == CLD_EXITED ? "code" : "signal", end->si_status);
}

static tr_status run(const char *path, char *const *arguments, const s3_process *process, char *output, size_t *bytes,
                     tr_error *error) {
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) != 0) return tr_fail_errno(error, TR_ERR_IO, errno, "a pipe for %s", arguments[0]);
  const uint64_t deadline_ns = tr_clock_now_ns(NULL) + process->timeout_ms * UINT64_C(1000000);
  pid_t pid = -1;
  const int failure = spawn(path, arguments, process->environment, ends[1], &pid);
  close(ends[1]);
  if (failure != 0) {
    close(ends[0]);
    return tr_fail_errno(error, TR_ERR_CONFIG, failure, "%s does not start", arguments[0]);
  }
  const int child = pidfd_open(pid, 0);
  outcome o = {.in_time = true};
  tr_status status = TR_OK;
  if (child >= 0) {
    o = collect(ends[0], child, output, process->max_bytes, deadline_ns);
  } else {
    status = tr_fail_errno(error, TR_ERR_IO, errno, "waiting for %s", arguments[0]);
  }
  if (status != TR_OK || !o.in_time || o.too_long) kill(-pid, SIGKILL);
  close(ends[0]);
  siginfo_t end = {0};
  int waited;
  while ((waited = waitid(P_PID, (id_t)pid, &end, WEXITED)) != 0 && errno == EINTR) continue;
  if (child >= 0) close(child);
  if (status == TR_OK) status = judge(arguments[0], &o, &end, waited == 0, process, error);
  *bytes = o.bytes;
  return status;
}

tr_status s3_process_run(const tr_allocator *allocator, const s3_process *process, char **output, size_t *bytes,
                         tr_error *error) {
  s3_words words;
  const char *wrong = NULL;
  if (!s3_words_split(process->command, &words, &wrong)) {
    explicit_bzero(&words, sizeof words);
    return tr_fail(error, TR_ERR_CONFIG, "the command is none: %s", wrong);
  }
  char path[PATH_BYTES];
  char *made = NULL;
  size_t length = 0;
  tr_status status = TR_OK;
  if (!find_program(words.items[0], process->environment, path)) {
    status = tr_fail(error, TR_ERR_CONFIG, "%.200s is not found, or is no program", words.items[0]);
  } else if ((made = tr_alloc(allocator, process->max_bytes + 2)) == NULL) {
    status = tr_fail_memory(error, "a program's output", process->max_bytes + 2);
  } else {
    status = run(path, words.items, process, made, &length, error);
  }
  explicit_bzero(&words, sizeof words);
  if (status != TR_OK) {
    if (made != NULL) explicit_bzero(made, length);
    tr_free(allocator, made);
    return status;
  }
  made[length] = '\0';
  *output = made;
  *bytes = length;
  return TR_OK;
}
