/* Inside of a session: one worker's place in a job. Fields are grouped by who sets them; only `stop` is touched by other
 * threads and signal handlers. */
#ifndef TRAINRUN_SESSION_H
#define TRAINRUN_SESSION_H

#include <trainrun/train.h>

#include "ledger.h"

/* Where the ranks come from. */
typedef enum tr_origin { TR_ORIGIN_ALONE = 0, TR_ORIGIN_LAUNCHER = 1, TR_ORIGIN_MPI = 2 } tr_origin;

/* What the environment says of this worker; session_world.c. */
typedef struct tr_world {
  tr_origin origin;
  int32_t rank, size, local_rank, local_size, node_rank;
  int segment, job, run, control; /* descriptors, -1: none */
  uint64_t epoch, started_ns;
  int64_t slurm_tasks; /* of this srun step, 0: none */
} tr_world;

/* What is known of the run; texts in the session's arena. */
typedef struct tr_run_facts {
  bool open, eval, profile, trace;
  const char *name, *run_id, *folder, *checkpoint_url, *resume_url;
  int64_t resume_step;
  uint64_t attempt;
} tr_run_facts;

struct tr_session {
  /* Set by tr_session_open. */
  const tr_allocator *allocator;
  const tr_clock *clock;
  tr_arena *arena;
  tr_log *log;
  int log_descriptor;
  tr_config *config;
  tr_world world;
  tr_comm *comm;
  tr_comm_info comm_info;
  tr_board board;
  tr_device *device;
  tr_pool *pool;
  tr_stores *stores;
  const tr_param_declaration *declarations;
  size_t declaration_count;

  /* Set when the run is known (session_run.c). */
  tr_run_facts facts;
  tr_run *run; /* rank 0 without a launcher: the writer of the folder */

  /* Set with the first data set, where the job has a cache. */
  tr_cache *cache;

  /* Of the work. */
  tr_ledger ledger;
  tr_trace *trace;
  tr_writer line;         /* a message being made */
  tr_stop_reason stopped; /* decided by the vote */
  uint64_t steps_lost;
  bool result_sent;

  /* Any thread, any signal handler. */
  _Atomic uint32_t stop;
};

/* ---- session_world.c ---- */
/* The value of NAME in an environ-like list, or NULL. */
const char *tr_environment_find(const char *const *environment, const char *name);
tr_status tr_world_find(const char *const *environment, tr_world *world, tr_error *error);
/* CPUs that this process may use: affinity and the cgroup's quota. */
uint32_t tr_world_cpus(void);
/* The whole content of a descriptor (by pread from 0), NUL-terminated, at most 16 MiB. */
tr_status tr_read_descriptor(const tr_allocator *allocator, int descriptor, const char *what, char **text,
                             size_t *bytes, tr_error *error);

/* ---- session_params.c ---- */
void tr_session_describe(const tr_param_declaration *params, size_t count, const char *program, tr_writer *writer);
tr_status tr_session_check_params(tr_session *session, const char *job_text, const char *job_name, tr_error *error);

/* ---- session_run.c ---- */
/* Collective the first time where there is no launcher: opens the run (rank 0) and tells all ranks. */
tr_status tr_session_open_run(tr_session *session, tr_error *error);
/* Sends {"type": type, "record": record} to the one who writes the run's folder. record is a JSON object. */
void tr_session_send(tr_session *session, const char *type, const char *record, size_t bytes);
/* {"time": …, "event": name, members} as an event record. */
void tr_session_event(tr_session *session, const char *name, const char *format, ...) TR_PRINTF(3, 4);
/* Waits, for a second at most, until the launcher has read what was sent: it outlives a kill of either then. */
void tr_session_drain(tr_session *session);
void tr_session_send_error(tr_session *session, const tr_error *error, int exit_code);
void tr_session_send_trace(tr_session *session);

/* ---- session_data.c ---- */
/* Rows of a micro-batch, "auto" resolved: an eighth of the batch. */
uint64_t tr_session_micro_batch(const tr_session *session);
/* A loader's options for the set "train" (shuffled, endless) or another (in order, once). */
tr_loader_options tr_session_loader_options(tr_session *session, const char *set, tr_dataset *dataset);

/* Marks where this rank is, for the board and the ledger's switch. */
void tr_session_phase(tr_session *session, tr_phase phase, tr_cause cause);

#endif
