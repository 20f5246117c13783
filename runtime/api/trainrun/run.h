/* A run: <name>/<run-id>, its folder, its attempts, and the decision to resume.
 *
 * The one writer of a run's folder: the launcher, or rank 0 where there is none. Opening a run takes the lock of the name
 * (flock on <run-dir>/<name>/lock, so it ends with the process), decides by resume, fingerprints and summaries whether an
 * unfinished run goes on, claims the next epoch at the checkpoint root, and writes job.resolved.toml, control.json (mode
 * 0600: pid, host, started) and fingerprint.json. Records are appended whole lines; on resume, lines of metrics.jsonl past the
 * resumed step are cut off, so that each step stands once. One thread uses a run. */
#ifndef TRAINRUN_RUN_H
#define TRAINRUN_RUN_H

#include <trainrun/store.h>
#include <trainrun/worker.h>

TR_BEGIN_C

typedef struct tr_run tr_run;

typedef struct tr_run_options {
  size_t struct_bytes;
  const tr_allocator *allocator;
  const tr_clock *clock;
  tr_log *log;
  tr_stores *stores;
  const tr_config *config;
  const char *run_id; /* NULL: chosen: UTC time and four random letters, "20261123-020000-k3wz" */
  bool fresh;
  bool eval; /* kind "eval": a run of its own that resume never picks up */
  int32_t world_size;
  const char *device; /* "cpu" */
} tr_run_options;

/* TR_ERR_EXISTS when a job of this name is alive: says host and pid. TR_ERR_MISMATCH when an explicit checkpoint to
 * resume does not fit. */
TR_API TR_MUST_USE tr_status tr_run_open(const tr_run_options *options, tr_run **out, tr_error *error);
TR_API void tr_run_close(tr_run *run);

typedef struct tr_run_info {
  const char *name, *run_id;
  const char *folder;         /* <run-dir>/<name>/<run-id> */
  const char *checkpoint_url; /* of this run: <checkpoint.url>/<name>/<run-id>; default <folder>/checkpoints */
  uint64_t attempt;           /* from 1 */
  int64_t resume_step;        /* -1: from the beginning */
  const char *resume_url;     /* folder of the checkpoint to load, "" for none (another run's when resume names one) */
  bool done;                  /* --run-id of a finished run: nothing to do, exit 0 */
  const char *differs;        /* the key in which the newest unfinished run differs, "" for none: worth a log line */
} tr_run_info;
TR_API const tr_run_info *tr_run_describe(const tr_run *run);
/* The JSON that a worker reads from RUN_FD. */
TR_API void tr_run_write_worker(const tr_run *run, bool profile, bool trace, tr_writer *writer);

/* After a failure: claims the next epoch and finds the newest checkpoint again. */
TR_API TR_MUST_USE tr_status tr_run_next_attempt(tr_run *run, tr_error *error);

/* A line of a worker's message (worker.h) put where it belongs. Unknown or malformed: TR_ERR_CORRUPT, nothing written. */
TR_API TR_MUST_USE tr_status tr_run_message(tr_run *run, const char *line, size_t bytes, tr_error *error);
/* A launcher's own line of events.jsonl: {"time": …, "event": name, …members}; members is JSON without braces or NULL. */
TR_API void tr_run_event(tr_run *run, const char *name, const char *members);

typedef struct tr_run_outcome {
  size_t struct_bytes;
  const char *status; /* done, stopped, preempted, failed */
  const char *cause;  /* one sentence, or NULL */
  int exit_code;
  uint64_t restarts, steps_lost;
} tr_run_outcome;
/* Writes summary.json (result of rank 0 merged in), trace.json when there were events, ends control.json. */
TR_API TR_MUST_USE tr_status tr_run_finish(tr_run *run, const tr_run_outcome *outcome, tr_error *error);
/* summary.json's text after finish (also of a finished run that was opened), or NULL. */
TR_API const char *tr_run_summary(const tr_run *run);

/* The folder (URL of step-<n>) that a user names as RUN-URL[@latest|@best|@step-N], as an URL of step-<n> itself, or by
 * the name of a job (its newest run below `config`'s run-dir or checkpoint.url). Writes url[TR_KEY_BYTES]. */
TR_API TR_MUST_USE tr_status tr_run_find_checkpoint(const tr_allocator *allocator, tr_stores *stores,
                                                    const tr_config *config, const char *spec, char *url,
                                                    tr_error *error);

TR_END_C
#endif
