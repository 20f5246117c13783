/* Opening and closing a session: find the job, find the ranks, connect. */
#include "session.h"

#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

extern char **environ;

/* ---- The job ---- */

typedef struct job_text {
  char *text; /* NULL: an all-default job */
  size_t bytes;
  const char *name; /* for messages */
  char directory[TR_KEY_BYTES];
} job_text;

static bool is_job(const char *argument) {
  const size_t length = strlen(argument);
  return length > 5 && strcmp(argument + length - 5, ".toml") == 0;
}

static tr_status read_job_file(tr_session *session, const char *path, job_text *job, tr_error *error) {
  const int descriptor = open(path, O_RDONLY | O_CLOEXEC);
  if (descriptor < 0) {
    return tr_fail_errno(error, errno == ENOENT ? TR_ERR_CONFIG : tr_status_from_errno(errno), errno, "job file '%s'",
                         path);
  }
  const tr_status status = tr_read_descriptor(session->allocator, descriptor, path, &job->text, &job->bytes, error);
  close(descriptor);
  TR_TRY(status);
  job->name = path;
  const char *slash = strrchr(path, '/');
  const size_t length = slash == NULL ? 1 : slash == path ? 1 : (size_t)(slash - path);
  if (length >= sizeof job->directory)
    return tr_fail(error, TR_ERR_CONFIG, "job file '%s': the path is too long", path);
  memcpy(job->directory, slash == NULL ? "." : path, length);
  job->directory[length] = '\0';
  return TR_OK;
}

static tr_status find_job(tr_session *session, int argc, char **argv, job_text *job, tr_error *error) {
  const char *const *environment = (const char *const *)environ;
  job->name = "job.toml";
  if (session->world.origin == TR_ORIGIN_LAUNCHER) {
    job->name = "the job given by the launcher";
    return tr_read_descriptor(session->allocator, session->world.job, job->name, &job->text, &job->bytes, error);
  }
  for (int i = 1; i < argc; i++) {
    if (is_job(argv[i])) return read_job_file(session, argv[i], job, error);
  }
  const char *named = tr_environment_find(environment, "TRAINRUN_JOB");
  return named != NULL && named[0] != '\0' ? read_job_file(session, named, job, error) : TR_OK;
}

/* Without a name of its own a job is called as its file, or as the program. */
static const char *default_name(tr_session *session, const job_text *job, int argc, char **argv) {
  const char *path = job->text != NULL && session->world.origin != TR_ORIGIN_LAUNCHER ? job->name
                     : argc > 0                                                       ? argv[0]
                                                                                      : "job";
  const char *slash = strrchr(path, '/');
  const char *base = slash != NULL ? slash + 1 : path;
  const char *dot = strrchr(base, '.');
  return tr_arena_strndup(session->arena, base, dot != NULL && dot > base ? (size_t)(dot - base) : strlen(base));
}

static tr_status complain(tr_session *session, const job_text *job, const tr_diagnostics *diagnostics,
                          tr_error *error) {
  tr_writer text;
  tr_writer_init(&text, session->allocator);
  tr_diagnostics_write(diagnostics, job->name, job->text != NULL ? job->text : "", false, &text);
  tr_write_u8(&text, 0);
  if (!text.failed && session->world.rank == 0) tr_logf(session->log, TR_LOG_ERROR, "%s", (const char *)text.data);
  tr_writer_fini(&text);
  return tr_fail(error, TR_ERR_CONFIG, "%s: %zu mistakes; the first: %s", job->name, tr_diagnostics_errors(diagnostics),
                 tr_diagnostics_at(diagnostics, 0)->message);
}

static tr_status load_job(tr_session *session, int argc, char **argv, tr_error *error) {
  job_text job = {0};
  tr_diagnostics *diagnostics = NULL;
  tr_status status = find_job(session, argc, argv, &job, error);
  if (status == TR_OK) status = tr_diagnostics_create(session->allocator, &diagnostics, error);
  if (status != TR_OK) goto done;
  const bool launched = session->world.origin == TR_ORIGIN_LAUNCHER;
  const tr_config_source source = {
      .struct_bytes = sizeof source,
      .allocator = session->allocator,
      .text = job.text,
      .text_bytes = job.bytes,
      .name = job.name,
      .directory = job.text != NULL && !launched ? job.directory : NULL,
      .environment = launched ? NULL : (const char *const *)environ, /* the launcher has resolved it already */
  };
  status = tr_config_load(&source, diagnostics, &session->config, error);
  if (status == TR_ERR_CONFIG && tr_diagnostics_errors(diagnostics) > 0)
    status = complain(session, &job, diagnostics, error);
  if (status == TR_OK && tr_config_text(session->config, "name") == NULL) {
    const tr_override name = {"name", default_name(session, &job, argc, argv), "default"};
    tr_config_source named = source;
    named.overrides = &name;
    named.override_count = 1;
    tr_config_destroy(session->config);
    session->config = NULL;
    status = name.value == NULL ? tr_fail_memory(error, "the job's name", 64)
                                : tr_config_load(&named, NULL, &session->config, error);
  }
  if (status == TR_OK) status = tr_session_check_params(session, job.text != NULL ? job.text : "", job.name, error);
done:
  tr_diagnostics_destroy(diagnostics);
  tr_free(session->allocator, job.text);
  return status;
}

/* ---- Connecting ---- */

static tr_status open_comm(tr_session *session, tr_error *error) {
  tr_world *world = &session->world;
  if (world->origin == TR_ORIGIN_LAUNCHER) {
    const tr_comm_shm_options options = {
        .struct_bytes = sizeof options,
        .allocator = session->allocator,
        .clock = session->clock,
        .rank = world->rank,
        .size = world->size,
        .descriptor = world->segment,
        .epoch = world->epoch,
    };
    return tr_comm_open_shm(&options, &session->comm, error);
  }
  if (world->origin == TR_ORIGIN_MPI) {
    const tr_comm_mpi_options options = {
        .struct_bytes = sizeof options, .allocator = session->allocator, .clock = session->clock};
    return tr_comm_open_mpi(&options, &session->comm, error);
  }
  const tr_comm_self_options options = {
      .struct_bytes = sizeof options, .allocator = session->allocator, .clock = session->clock};
  return tr_comm_open_self(&options, &session->comm, error);
}

static tr_status connect_ranks(tr_session *session, tr_error *error) {
  TR_TRY(open_comm(session, error));
  session->comm_info = tr_comm_describe(session->comm);
  session->board = tr_comm_board(session->comm);
  if (session->world.slurm_tasks > 1 && session->comm_info.size == 1) {
    return tr_fail(error, TR_ERR_CONFIG, "srun started %lld tasks and MPI sees one: use srun --mpi=pmix",
                   (long long)session->world.slurm_tasks);
  }
  return TR_OK;
}

static tr_status open_compute(tr_session *session, tr_error *error) {
  const char *wanted = tr_config_text(session->config, "cluster.device");
  const tr_device_options device = {
      .struct_bytes = sizeof device,
      .allocator = session->allocator,
      .kind = strcmp(wanted, "cpu") == 0    ? TR_DEVICE_CPU
              : strcmp(wanted, "cuda") == 0 ? TR_DEVICE_CUDA
                                            : TR_DEVICE_AUTO,
      .index = session->comm_info.local_rank,
  };
  TR_TRY(tr_device_open(&device, &session->device, error));
  uint32_t threads = (uint32_t)tr_config_integer(session->config, "cluster.threads-per-worker");
  if (threads == 0) threads = tr_world_cpus() / (uint32_t)session->comm_info.local_size;
  TR_TRY(tr_pool_create(session->allocator, threads > 0 ? threads : 1, &session->pool, error));
  const tr_stores_options stores = {.struct_bytes = sizeof stores,
                                    .allocator = session->allocator,
                                    .clock = session->clock,
                                    .log = session->log,
                                    .config = session->config,
                                    .environment = (const char *const *)environ,
                                    .persistent = true};
  return tr_stores_create(&stores, &session->stores, error);
}

/* ---- Opening and closing ---- */

static tr_status describe(const tr_session_options *options, const char *program, tr_error *error) {
  tr_writer text;
  tr_writer_init(&text, options->allocator);
  tr_session_describe(options->params, options->param_count, program, &text);
  tr_status status = text.failed ? tr_fail_memory(error, "--describe", text.bytes)
                                 : tr_fail(error, TR_ERR_CANCELLED, "described");
  int descriptor = options->output_descriptor > 0 ? options->output_descriptor : STDOUT_FILENO;
  if (!text.failed) tr_log_write_fd(&descriptor, TR_LOG_INFO, (const char *)text.data, text.bytes);
  tr_writer_fini(&text);
  return status;
}

static tr_status make_log(tr_session *session, tr_error *error) {
  const tr_log_options options = {
      .struct_bytes = sizeof options,
      .allocator = session->allocator,
      .clock = session->clock,
      .level = TR_LOG_INFO,
      .rank = session->world.origin == TR_ORIGIN_ALONE ? -1 : session->world.rank,
      .write = tr_log_write_fd,
      .write_self = &session->log_descriptor,
  };
  return tr_log_create(&options, &session->log, error);
}

static void free_session(tr_session *session) {
  if (session == NULL) return;
  tr_cache_close(session->cache);
  tr_run_close(session->run);
  tr_comm_close(session->comm);
  tr_pool_destroy(session->pool);
  tr_stores_destroy(session->stores);
  tr_device_close(session->device);
  tr_trace_destroy(session->trace);
  tr_config_destroy(session->config);
  tr_log_destroy(session->log);
  tr_writer_fini(&session->line);
  tr_arena_destroy(session->arena);
  tr_free(session->allocator, session);
}

tr_status tr_session_open(int argc, char **argv, const tr_session_options *options, tr_session **out, tr_error *error) {
  const tr_session_options standard = {.struct_bytes = sizeof standard};
  if (options == NULL) options = &standard;
  const char *program = options->program != NULL ? options->program : argc > 0 ? argv[0] : "program";
  for (int i = 1; i < argc; i++) {
    if (strcmp(argv[i], "--describe") == 0) return describe(options, program, error);
  }
  tr_world world;
  TR_TRY(tr_world_find((const char *const *)environ, &world, error));
  tr_session *session = tr_calloc(options->allocator, 1, sizeof *session);
  if (session == NULL) return tr_fail_memory(error, "the session", sizeof *session);
  session->allocator = options->allocator;
  session->clock = options->clock;
  session->world = world;
  session->declarations = options->params;
  session->declaration_count = options->param_count;
  session->log_descriptor = options->log_descriptor > 0 ? options->log_descriptor : STDERR_FILENO;
  session->facts.resume_step = -1;
  tr_writer_init(&session->line, session->allocator);
  const uint64_t now = tr_clock_now_ns(session->clock);
  tr_ledger_init(&session->ledger, session->clock,
                 world.started_ns > 0 && world.started_ns < now ? world.started_ns : now, TR_CAUSE_STARTUP);
  tr_status status = tr_arena_create(session->allocator, 4096, &session->arena, error);
  if (status == TR_OK) status = make_log(session, error);
  if (status == TR_OK) status = load_job(session, argc, argv, error);
  if (status == TR_OK) status = connect_ranks(session, error);
  if (status == TR_OK) status = open_compute(session, error);
  if (status != TR_OK) {
    session->comm_info.rank = world.rank;
    tr_error told = error != NULL ? *error
                                  : (tr_error){.status = status, .rank = -1, .message = "the session failed to open"};
    tr_session_send_error(session, &told, tr_status_exit_code(status));
    free_session(session);
    return status;
  }
  *out = session;
  return TR_OK;
}

static int exit_code_of(const tr_session *session, tr_status status) {
  if (status != TR_OK && status != TR_ERR_STOPPED) return tr_status_exit_code(status);
  switch (session->stopped) {
    case TR_STOP_INTERRUPT: return 130;
    case TR_STOP_PREEMPT: return 75;
    case TR_STOP_REQUEST:
    case TR_STOP_NONE: break;
  }
  return 0;
}

static void finish_run(tr_session *session, tr_status status, const char *cause, int exit_code) {
  static const char *const names[] = {"done", "stopped", "preempted", "stopped"};
  const bool failed = status != TR_OK && status != TR_ERR_STOPPED;
  const tr_run_outcome outcome = {
      .struct_bytes = sizeof outcome,
      .status = failed ? "failed" : names[session->stopped],
      .cause = cause,
      .exit_code = exit_code,
      .steps_lost = session->steps_lost,
  };
  tr_error error;
  if (tr_run_finish(session->run, &outcome, &error) != TR_OK) tr_log_error(session->log, "summary.json", &error);
}

int tr_session_close(tr_session *session, tr_status status, const tr_error *error) {
  if (session == NULL) return tr_status_exit_code(status);
  const int exit_code = exit_code_of(session, status);
  const bool failed = status != TR_OK && status != TR_ERR_STOPPED;
  if (failed) {
    const tr_error unknown = {.status = status, .rank = -1, .message = "no message"};
    const tr_error *told = error != NULL && error->status != TR_OK ? error : &unknown;
    tr_session_send_error(session, told, exit_code);
    tr_comm_abort(session->comm);
  }
  tr_session_send_trace(session);
  if (session->run != NULL) {
    finish_run(session, status, failed && error != NULL ? error->message : NULL, exit_code);
  }
  free_session(session);
  return exit_code;
}

void tr_session_request_stop(tr_session *session, tr_stop_reason reason) {
  atomic_store_explicit(&session->stop, (uint32_t)reason, memory_order_relaxed);
}

void tr_session_phase(tr_session *session, tr_phase phase, tr_cause cause) {
  tr_ledger_enter(&session->ledger, cause);
  tr_beacon *beacon = session->board.beacons != NULL ? &session->board.beacons[session->comm_info.local_rank] : NULL;
  if (beacon == NULL) return;
  __atomic_store_n(&beacon->phase, (uint32_t)phase, __ATOMIC_RELAXED);
  __atomic_store_n(&beacon->progress_ns, session->ledger.last_ns, __ATOMIC_RELAXED);
}

/* ---- What a session holds ---- */

int32_t tr_session_rank(const tr_session *session) { return session->comm_info.rank; }
int32_t tr_session_size(const tr_session *session) { return session->comm_info.size; }
tr_comm *tr_session_comm(tr_session *session) { return session->comm; }
tr_device *tr_session_device(tr_session *session) { return session->device; }
tr_pool *tr_session_pool(tr_session *session) { return session->pool; }
tr_stores *tr_session_stores(tr_session *session) { return session->stores; }
tr_log *tr_session_log(tr_session *session) { return session->log; }
const tr_clock *tr_session_clock(const tr_session *session) { return session->clock; }
const tr_allocator *tr_session_allocator(const tr_session *session) { return session->allocator; }
const tr_config *tr_session_config(const tr_session *session) { return session->config; }
uint64_t tr_session_seed(const tr_session *session) { return (uint64_t)tr_config_integer(session->config, "seed"); }

tr_status tr_session_checkpoint(tr_session *session, const char **url, int64_t *resume_step, tr_error *error) {
  TR_TRY(tr_session_open_run(session, error));
  *url = session->facts.checkpoint_url;
  *resume_step = session->facts.resume_step;
  return TR_OK;
}
