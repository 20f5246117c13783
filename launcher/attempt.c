/* Starting all workers of an attempt: descriptors, environment, processes, and only then the files of their logs, so that
 * the disk is touched while the workers load. */
#include "environment.h"
#include "spawn.h"
#include "supervise.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

static void shut(int *descriptor) {
  if (*descriptor >= 0) close(*descriptor);
  *descriptor = -1;
}

/* Text that workers read and nobody writes any more. */
static int seal_text(const char *name, const tr_writer *writer) {
  const int descriptor = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING);
  if (descriptor < 0) return -1;
  for (size_t done = 0; done < writer->bytes;) {
    const ssize_t written = write(descriptor, writer->data + done, writer->bytes - done);
    if (written < 0 && errno == EINTR) continue;
    if (written <= 0) {
      close(descriptor);
      return -1;
    }
    done += (size_t)written;
  }
  (void)fcntl(descriptor, F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_GROW | F_SEAL_SHRINK | F_SEAL_SEAL);
  return descriptor;
}

bool attempt_prepare(tr_supervisor *supervisor) {
  tr_writer text;
  tr_writer_init(&text, NULL);
  tr_config_write_toml(supervisor->job->config, &text);
  supervisor->null = open("/dev/null", O_RDWR | O_CLOEXEC);
  supervisor->job_memory = text.failed ? -1 : seal_text("trainrun-job", &text);
  tr_writer_fini(&text);
  supervisor->ranks = calloc((size_t)supervisor->size, sizeof *supervisor->ranks);
  supervisor->workers = calloc((size_t)supervisor->size, sizeof *supervisor->workers);
  if (supervisor->null < 0 || supervisor->job_memory < 0 || supervisor->ranks == NULL || supervisor->workers == NULL) {
    term_error(supervisor->term, "cannot prepare the start of %d workers: %s", supervisor->size, strerror(errno));
    return false;
  }
  for (int32_t i = 0; i < supervisor->size; i++) {
    tr_worker *worker = &supervisor->workers[i];
    worker->supervisor = supervisor;
    worker->rank = i;
    worker->out = worker->err = worker->control = worker->log = -1;
    worker->out_lines.limit = worker->err_lines.limit = 64 * 1024;
    worker->out_lines.carriage = worker->err_lines.carriage = true;
    worker->control_lines.limit = TR_WORKER_LINE_BYTES;
  }
  /* What workers leave behind comes to us, not to init. */
  if (supervisor->plan->foreign) prctl(PR_SET_CHILD_SUBREAPER, 1);
  return true;
}

void attempt_release(tr_supervisor *supervisor) {
  attempt_end(supervisor);
  for (int32_t i = 0; supervisor->workers != NULL && i < supervisor->size; i++) {
    lines_free(&supervisor->workers[i].out_lines);
    lines_free(&supervisor->workers[i].err_lines);
    lines_free(&supervisor->workers[i].control_lines);
  }
  if (supervisor->guard >= 0) guard_end(supervisor->guard, supervisor->guard_pid);
  supervisor->guard = -1;
  shut(&supervisor->null);
  shut(&supervisor->job_memory);
  free(supervisor->ranks);
  free(supervisor->workers);
  supervisor->ranks = NULL;
  supervisor->workers = NULL;
}

/* ---- The environment ---- */

static void set_text_of_value(tr_environment *environment, const tr_value *value) {
  switch (value->type) {
    case TR_VALUE_STRING: environment_set(environment, value->key, "%s", value->text); return;
    case TR_VALUE_INTEGER: environment_set(environment, value->key, "%lld", (long long)value->integer); return;
    case TR_VALUE_BOOLEAN:
      environment_set(environment, value->key, "%s", value->integer != 0 ? "true" : "false");
      return;
    case TR_VALUE_REAL: environment_set(environment, value->key, "%.17g", value->real); return;
    default: return;
  }
}

static void set_worker(tr_environment *environment, const tr_supervisor *supervisor, const tr_worker *worker,
                       int control) {
  const tr_run_info *info = tr_run_describe(supervisor->run);
  const struct {
    const char *name;
    long long value;
  } numbers[] = {
      {TR_WORKER_RANK, worker->rank},
      {TR_WORKER_WORLD_SIZE, supervisor->size},
      {TR_WORKER_LOCAL_RANK, worker->rank},
      {TR_WORKER_LOCAL_WORLD_SIZE, supervisor->size},
      {TR_WORKER_NODE_RANK, 0},
      {TR_WORKER_SEGMENT_FD, supervisor->segment},
      {TR_WORKER_JOB_FD, supervisor->job_memory},
      {TR_WORKER_RUN_FD, supervisor->run_memory},
      {TR_WORKER_CONTROL_FD, control},
      {TR_WORKER_EPOCH, (long long)info->attempt},
      {TR_WORKER_STARTED_NS, (long long)supervisor->attempt_started_ns},
  };
  for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) {
    environment_set(environment, numbers[i].name, "%lld", numbers[i].value);
  }
}

const char *attempt_error_file(const tr_supervisor *supervisor, int32_t rank, char path[PATH_MAX]) {
  if (snprintf(path, PATH_MAX, "%s/%d.error.json", supervisor->logs, rank) >= PATH_MAX) path[0] = '\0';
  return path;
}

static void make_environment(tr_environment *environment, const tr_supervisor *supervisor, const tr_worker *worker,
                             int control, uint16_t port) {
  environment_init(environment, supervisor->cli->environment);
  if (supervisor->plan->foreign) {
    char error_file[PATH_MAX];
    const torchrun_place place = {
        .rank = worker->rank,
        .world_size = supervisor->size,
        .local_rank = worker->rank,
        .local_world_size = supervisor->size,
        .group_world_size = 1,
        .master_address = "127.0.0.1",
        .master_port = port,
        .restarts = supervisor->control.restarts,
        .max_restarts = supervisor->control.options.foreign_max_restarts,
        .run_id = tr_run_describe(supervisor->run)->run_id,
        .error_file = attempt_error_file(supervisor, worker->rank, error_file),
    };
    torchrun_environment(environment, &place);
  }
  const tr_value *set = tr_config_find(supervisor->job->config, "env.set");
  for (size_t i = 0; set != NULL && i < set->count; i++) set_text_of_value(environment, &set->items[i]);
  set_worker(environment, supervisor, worker, control);
}

/* ---- Processes ---- */

/* The worker's ends of its streams, closed here as soon as it has them. */
typedef struct far_ends {
  int out, err, control;
} far_ends;

static bool open_streams(tr_worker *worker, far_ends *far) {
  int out[2] = {-1, -1}, err[2] = {-1, -1}, control[2] = {-1, -1};
  if (pipe2(out, O_CLOEXEC) != 0 || pipe2(err, O_CLOEXEC) != 0 ||
      socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, control) != 0) {
    const int number = errno;
    shut(&out[0]), shut(&out[1]), shut(&err[0]), shut(&err[1]);
    errno = number;
    return false;
  }
  fcntl(out[0], F_SETFL, O_NONBLOCK);
  fcntl(err[0], F_SETFL, O_NONBLOCK);
  fcntl(control[0], F_SETFL, O_NONBLOCK);
  worker->out = out[0];
  worker->err = err[0];
  worker->control = control[0];
  *far = (far_ends){out[1], err[1], control[1]};
  return true;
}

static bool start_worker(tr_supervisor *supervisor, tr_worker *worker, uint16_t port) {
  far_ends far = {-1, -1, -1};
  tr_environment environment;
  if (!open_streams(worker, &far)) return false;
  make_environment(&environment, supervisor, worker, far.control, port);
  pid_t pid = -1;
  if (environment.failed) {
    errno = ENOMEM;
  } else {
    const spawn_options options = {
        .path = supervisor->plan->program,
        .argv = supervisor->plan->argv,
        .environment = environment.items,
        .input = supervisor->null,
        .output = far.out,
        .error = far.err,
        .guard = supervisor->guard,
        .keep = {far.control, supervisor->segment, supervisor->job_memory, supervisor->run_memory},
        .keep_count = 4,
    };
    pid = spawn_worker(&options);
  }
  const int number = errno;
  environment_fini(&environment);
  shut(&far.out), shut(&far.err), shut(&far.control);
  errno = number;
  if (pid < 0) return false;
  worker->pid = pid;
  worker->running = true;
  return true;
}

static bool open_memory(tr_supervisor *supervisor) {
  tr_writer text;
  tr_writer_init(&text, NULL);
  tr_run_write_worker(supervisor->run, supervisor->cli->profile, supervisor->cli->trace, &text);
  supervisor->run_memory = text.failed ? -1 : seal_text("trainrun-run", &text);
  tr_writer_fini(&text);
  tr_error error;
  if (tr_comm_segment_create(supervisor->size, &supervisor->segment, &error) != TR_OK) {
    term_error(supervisor->term, "%s", error.message);
    return false;
  }
  if (supervisor->run_memory < 0 ||
      tr_comm_segment_map(supervisor->segment, supervisor->size, &supervisor->board, &error) != TR_OK) {
    term_error(supervisor->term, "cannot prepare the memory of the workers: %s", strerror(errno));
    return false;
  }
  return true;
}

/* <folder>/logs/attempt_<k>, absolute: a script may change its folder. */
static void name_logs(tr_supervisor *supervisor) {
  const tr_run_info *info = tr_run_describe(supervisor->run);
  char here[PATH_MAX] = "";
  if (info->folder[0] != '/' && getcwd(here, sizeof here) == NULL) snprintf(here, sizeof here, ".");
  const int length = snprintf(supervisor->logs, sizeof supervisor->logs, "%s%s%s/logs/attempt_%llu", here,
                              here[0] != '\0' ? "/" : "", info->folder, (unsigned long long)info->attempt);
  if (length >= (int)sizeof supervisor->logs) supervisor->logs[0] = '\0';
}

static void open_logs(tr_supervisor *supervisor) {
  char path[PATH_MAX + 32];
  char *last = strrchr(supervisor->logs, '/');
  if (last != NULL) {
    *last = '\0';
    mkdir(supervisor->logs, 0777);
    *last = '/';
    mkdir(supervisor->logs, 0777);
  }
  for (int32_t i = 0; i < supervisor->size; i++) {
    snprintf(path, sizeof path, "%s/%d.log", supervisor->logs, i);
    supervisor->workers[i].log = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
    if (supervisor->workers[i].log >= 0 || supervisor->record_failed) continue;
    supervisor->record_failed = true;
    term_error(supervisor->term, "cannot write the log '%s': %s", path, strerror(errno));
  }
}

static void forget(tr_worker *worker) {
  worker->pid = 0;
  worker->running = worker->lingers = worker->spoke = worker->final = false;
  worker->passing_ns = 0;
  worker->last_line[0] = worker->message[0] = '\0';
  worker->out_lines.bytes = worker->err_lines.bytes = worker->control_lines.bytes = 0;
}

bool attempt_start(tr_supervisor *supervisor) {
  for (int32_t i = 0; i < supervisor->size; i++) forget(&supervisor->workers[i]);
  name_logs(supervisor);
  const uint16_t port = supervisor->plan->foreign ? torchrun_free_port() : 0;
  if (!open_memory(supervisor)) return false;
  /* Programs of the SDK have no children that could be left behind. */
  if (supervisor->plan->foreign && supervisor->guard < 0) supervisor->guard = guard_start(&supervisor->guard_pid);
  for (int32_t i = 0; i < supervisor->size; i++) {
    if (start_worker(supervisor, &supervisor->workers[i], port)) continue;
    term_error(supervisor->term, "cannot start worker %d of %d: %s", i, supervisor->size, strerror(errno));
    for (int32_t j = 0; j < i; j++) worker_signal(&supervisor->workers[j], SIGKILL);
    return false;
  }
  open_logs(supervisor);
  return true;
}

void attempt_end(tr_supervisor *supervisor) {
  for (int32_t i = 0; supervisor->workers != NULL && i < supervisor->size; i++) {
    tr_worker *worker = &supervisor->workers[i];
    shut(&worker->out), shut(&worker->err), shut(&worker->control), shut(&worker->log);
  }
  tr_comm_segment_unmap(&supervisor->board);
  shut(&supervisor->segment);
  shut(&supervisor->run_memory);
}
