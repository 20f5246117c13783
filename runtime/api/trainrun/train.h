/* Training: a session (who am I, which ranks, which job) and a trainer (the steps).
 *
 * A session is one worker's place in a job. tr_session_open finds the job in this order: the launcher's environment
 * (TRAINRUN_WORKER_*), an argument JOB.toml, $TRAINRUN_JOB, defaults; and its ranks: the launcher's, MPI's (under mpirun or
 * srun), or itself alone. So one program runs unchanged in all four ways. Two sessions can live in one process.
 *
 * A trainer runs the job on a model given as a function that builds a graph: step = next batch, micro-batches forward and
 * backward with overlapped buckets, vote, update. All that persists changes in the update alone.
 *
 * Thread rule: one thread uses a session and what belongs to it. tr_session_request_stop is async-signal-safe and may be
 * called from anywhere. The library installs no signal handler and changes no environment. */
#ifndef TRAINRUN_TRAIN_H
#define TRAINRUN_TRAIN_H

#include <trainrun/checkpoint.h>
#include <trainrun/collective.h>
#include <trainrun/dataloader.h>
#include <trainrun/ops.h>
#include <trainrun/run.h>

TR_BEGIN_C

/* ---- Session ------------------------------------------------------------------------------------------------------- */

typedef struct tr_session tr_session;

/* A key of [params] that the program takes; an undeclared key in the job is an error with a suggestion. */
typedef enum tr_param_type {
  TR_PARAM_INTEGER = 0,
  TR_PARAM_REAL = 1,
  TR_PARAM_BOOLEAN = 2,
  TR_PARAM_TEXT = 3
} tr_param_type;
typedef struct tr_param_declaration {
  const char *name;
  tr_param_type type;
  const char *default_text; /* "32", "0.5", "true", any text */
  const char *help;
} tr_param_declaration;

typedef struct tr_session_options {
  size_t struct_bytes;
  const tr_allocator *allocator;
  const tr_clock *clock;
  const tr_param_declaration *params;
  size_t param_count;
  const char *program;   /* for --describe and messages; NULL: argv[0] */
  int log_descriptor;    /* where log lines go; 0: standard error */
  int output_descriptor; /* where --describe goes; 0: standard output */
} tr_session_options;

/* options may be NULL. With the argument --describe the declared [params] are written as JSON and TR_ERR_CANCELLED comes
 * back (tr_status_exit_code gives 0 for it). */
TR_API TR_MUST_USE tr_status tr_session_open(int argc, char **argv, const tr_session_options *options, tr_session **out,
                                             tr_error *error);
/* Ends the job for this rank: tells the launcher (or writes the summary) with the status the work ended with, and frees.
 * Returns the exit code for the program: 0, 75, 130, 78, … `error` is what the work failed with, or NULL. */
TR_API int tr_session_close(tr_session *session, tr_status status, const tr_error *error);

TR_API void tr_session_request_stop(tr_session *session, tr_stop_reason reason);

TR_API int32_t tr_session_rank(const tr_session *session);
TR_API int32_t tr_session_size(const tr_session *session);
TR_API tr_comm *tr_session_comm(tr_session *session); /* host memory */
TR_API tr_device *tr_session_device(tr_session *session);
TR_API tr_pool *tr_session_pool(tr_session *session);
TR_API tr_stores *tr_session_stores(tr_session *session);
TR_API tr_log *tr_session_log(tr_session *session);
TR_API const tr_clock *tr_session_clock(const tr_session *session);
TR_API const tr_allocator *tr_session_allocator(const tr_session *session);
TR_API const tr_config *tr_session_config(const tr_session *session);
TR_API uint64_t tr_session_seed(const tr_session *session);
/* Of this run: the checkpoints' URL, and the step to resume (-1: none). Collective the first time, since without a
 * launcher rank 0 opens the run then. */
TR_API TR_MUST_USE tr_status tr_session_checkpoint(tr_session *session, const char **url, int64_t *resume_step,
                                                   tr_error *error);

/* Declared [params]; a name that was not declared asserts. */
TR_API int64_t tr_session_param_integer(const tr_session *session, const char *name);
TR_API double tr_session_param_real(const tr_session *session, const char *name);
TR_API bool tr_session_param_boolean(const tr_session *session, const char *name);
TR_API const char *tr_session_param_text(const tr_session *session, const char *name);

/* The job's data.train or data.valid as a data set and a loader cut for this rank, for loops of one's own. `set` is
 * "train", "valid" or "valid.NAME". TR_ERR_NOT_FOUND where the job names none. The loader of "train" never ends, the others
 * end after one epoch; cursor NULL: from the start. Close the loader, then the data set. */
TR_API TR_MUST_USE tr_status tr_session_open_dataset(tr_session *session, const char *set, tr_dataset **out,
                                                     tr_error *error);
TR_API TR_MUST_USE tr_status tr_session_open_loader(tr_session *session, const char *set, tr_dataset *dataset,
                                                    const tr_cursor *cursor, tr_loader **out, tr_error *error);
/* The callback tables of the siblings, served by the session's communicator. */
TR_API tr_exchange tr_session_exchange(tr_session *session);
TR_API tr_ckpt_exchange tr_session_ckpt_exchange(tr_session *session);

/* A metric of one's own for metrics.jsonl and the terminal (rank 0's is kept); members is JSON without braces. Without a
 * launcher the run must be known (tr_session_checkpoint opens it), else nothing is written. */
TR_API void tr_session_report(tr_session *session, uint64_t step, const char *members);

/* ---- Trainer ------------------------------------------------------------------------------------------------------- */

/* What a model is built for. */
typedef struct tr_model {
  tr_graph *graph;
  tr_session *session;
  const tr_field *fields; /* of the data set */
  size_t field_count;
} tr_model;

/* Builds the model into model->graph (inputs, layers, tr_graph_loss, metrics); called for the training and for each
 * evaluation graph. */
typedef tr_status (*tr_model_build)(void *self, const tr_model *model, tr_error *error);

/* The field `name` as an input of its dtype and shape. */
TR_API tr_tensor tr_model_input(const tr_model *model, const char *name);

typedef struct tr_trainer_options {
  size_t struct_bytes;
  tr_model_build build;
  void *self;
  tr_sample_map map; /* a transform of one's own for each training sample, or NULL */
  void *map_self;
} tr_trainer_options;

typedef struct tr_train_result {
  uint64_t steps, samples, epochs;
  double loss;      /* of the last step, mean over the global batch */
  double eval_loss; /* NAN: not evaluated */
  uint32_t params_crc32c, order_crc32c;
  tr_stop_reason stopped; /* TR_STOP_NONE: ran to its end */
} tr_train_result;

/* Trains (or, in an eval run, evaluates) to the end of the job: resumes, checkpoints, evaluates and reports as the job
 * says. TR_ERR_STOPPED after a requested stop, with the checkpoint written. */
TR_API TR_MUST_USE tr_status tr_train(tr_session *session, const tr_trainer_options *options, tr_train_result *result,
                                      tr_error *error);

TR_END_C
#endif
