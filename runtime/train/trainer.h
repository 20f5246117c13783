/* Inside of tr_train: everything a rank keeps between steps.
 *
 * The step (trainer_step.c) computes this rank's micro-batches and sums gradients with the others while backward goes on;
 * the vote (trainer_vote.c) lets all ranks see what any of them has seen; the update and what follows from it (trainer.c)
 * change what persists. One thread. Nothing here allocates between the first step and the last, but for checkpoints,
 * evaluations and log lines. */
#ifndef TRAINRUN_TRAINER_H
#define TRAINRUN_TRAINER_H

#include <pthread.h>
#include <stdatomic.h>

#include "optimizer.h"
#include "schedule.h"
#include "session.h"

enum {
  TR_BUFFERS_MAX = 66,                 /* gradients alive at once: one a level of the tree, and the newest */
  TR_SCALARS_MAX = TR_OUTPUTS_MAX + 4, /* of a micro-batch: outputs, weight, rows, micro-batches with rows */
  TR_BUCKETS_MAX = 4096,
  TR_EVAL_SETS_MAX = 16
};

/* Places of the scalars behind the outputs. */
typedef enum tr_scalar { TR_SCALAR_WEIGHT, TR_SCALAR_ROWS, TR_SCALAR_LEAVES, TR_SCALAR_COUNT } tr_scalar;

typedef struct tr_eval_set {
  const char *set, *label; /* "valid.clean", "clean"; label "" for the only one */
  tr_dataset *dataset;
  tr_graph *graph;
  const tr_field *fields;
  size_t field_count;
  int32_t input_field[TR_FIELDS_MAX];
  double values[TR_OUTPUTS_MAX]; /* of the last evaluation, means */
} tr_eval_set;

/* What each rank tells all others once a step. Norm partials of its blocks follow behind. */
typedef struct tr_ballot {
  tr_window window;
  uint64_t elapsed_ns; /* rank 0's decides what is due by time */
  uint64_t ids_bytes;
  uint32_t ids_crc32c;
  uint32_t stop;   /* tr_stop_reason */
  uint32_t failed; /* tr_status of a step that this rank could not finish */
  uint32_t save;   /* tr_save_state */
} tr_ballot;

typedef enum tr_save_state {
  TR_SAVE_NONE = 0,
  TR_SAVE_RUNNING = 1,
  TR_SAVE_DURABLE = 2,
  TR_SAVE_FAILED = 3,
  TR_SAVE_COMMITTING = 4, /* what a rank other than 0 says to the end */
  TR_SAVE_COMMITTED = 5
} tr_save_state;

/* The commit under way; zero where there is none. */
typedef struct tr_commit {
  bool begun;
  char *memory; /* of the records */

  /* Rank 0's: the thread's from its start until `done`. */
  const char **records;
  tr_ckpt_meta meta;
  tr_error error;
  pthread_t thread;
  bool thread_runs; /* of the step thread: not joined yet */
  atomic_bool done;
} tr_commit;

typedef struct tr_piece_list {
  tr_piece *items;
  size_t count, capacity;
  tr_arena *names;
} tr_piece_list;

typedef struct tr_trainer {
  tr_session *session;
  const tr_trainer_options *options;
  const tr_allocator *allocator;
  tr_comm *comm;
  int32_t rank, size;
  uint64_t seed, batch_size, micro_batch;

  /* The model and its data. */
  tr_params *params;
  tr_graph *graph;
  tr_dataset *dataset;
  tr_loader *loader;
  const tr_field *fields;
  size_t field_count;
  int32_t input_field[TR_FIELDS_MAX]; /* graph input -> field */
  int32_t output_count, scalar_count;
  tr_optimizer *optimizer;
  tr_eval_set eval_sets[TR_EVAL_SETS_MAX];
  size_t eval_count;

  /* Plans. */
  tr_length length;
  uint64_t total_steps; /* 0: by time */
  uint64_t batches;     /* an epoch */
  tr_lr_schedule schedule;
  tr_every log_every, eval_every, checkpoint_every;
  tr_bucket buckets[TR_BUCKETS_MAX];
  size_t bucket_count;
  double grad_clip;

  /* Gradients and scalars of micro-batches, a stack of buffers of registered memory; and, of the step under way, how many
   * are on it, how far down backward is, which buckets were handed over. */
  float *gradients[TR_BUFFERS_MAX];
  double *scalars[TR_BUFFERS_MAX];
  uint32_t buffer_count, depth;
  double totals[TR_SCALARS_MAX]; /* of the whole batch */
  bool last_leaf;
  uint32_t last_merges;
  size_t buckets_begun;
  uint64_t merged_from;
  tr_comm_handle handles[TR_BUCKETS_MAX], scalar_handle;
  tr_batch_info batch;
  tr_status comm_status;
  tr_error comm_error;
  uint64_t longest_wait_ns;
  int32_t waited_for;

  /* The vote. */
  uint64_t block_count, blocks_a_rank;
  size_t ballot_bytes;
  uint8_t *ballots; /* [size] of ballot_bytes */
  double *partials; /* [block_count] */
  double grad_norm;
  bool finite;
  uint32_t batch_crc32c;
  uint64_t batch_crc_bytes;
  tr_window *windows; /* [size] */
  tr_blame blame;
  double sample_bytes; /* mean, as stored */
  tr_status step_status;
  tr_error step_error;
  uint32_t ids_crc32c;
  uint64_t ids_bytes;

  /* What persists, besides parameters and moments. */
  uint64_t step, samples; /* finished */
  tr_cursor cursor;
  uint32_t order_crc32c;
  double best_metric;
  uint64_t bad_evaluations;
  double last_loss;

  /* Of this attempt. */
  uint64_t first_step, first_sample;
  uint64_t elapsed_ns, elapsed_before_ns; /* as rank 0 said, after this step and the one before */
  uint64_t logged_ns, logged_samples;
  uint64_t training_ns; /* in steps, without evaluations and waits for checkpoints */
  bool evaluated;       /* at this step */
  bool evaluation_owed; /* due at this step, put off by a stop: the next attempt begins with it */

  /* The checkpoint under way. */
  tr_ckpt_saver *saver;
  tr_ckpt_save *save;
  tr_commit commit;
  uint64_t save_begun_ns, save_blocked_ns; /* when; and what of the time that updates waited is charged */
  tr_ckpt_meta save_meta;
  char save_state_json[256];
  int64_t last_checkpoint; /* step, -1: none */
  tr_store *ckpt_store;
  char ckpt_prefix[TR_KEY_BYTES];
  tr_writer data_lock, fingerprint;
} tr_trainer;

/* ---- trainer_setup.c ---- */
tr_status tr_trainer_setup(tr_trainer *trainer, tr_error *error);
void tr_trainer_fini(tr_trainer *trainer);
/* Field numbers of a graph's inputs; dtype and size must agree. */
tr_status tr_trainer_bind(const tr_graph *graph, const tr_field *fields, size_t field_count, int32_t *input_field,
                          tr_error *error);

/* ---- trainer_step.c ---- */
/* This rank's micro-batches of the batch that was begun, forward and backward, and the sums over all ranks: gradients[0]
 * and totals. What fails here alone is kept in step_status for the vote; only a communicator's failure is returned. */
tr_status tr_trainer_compute(tr_trainer *trainer, tr_error *error);

/* ---- trainer_vote.c ---- */
typedef struct tr_decision {
  tr_stop_reason stop;
  bool save_durable;   /* every rank's shard is */
  bool save_committed; /* rank 0's manifest is written */
  bool save_failed;
} tr_decision;
/* Exchanges ballots: norm, order checksum, windows, stops. A failure of any rank fails the step on all. */
tr_status tr_trainer_vote(tr_trainer *trainer, tr_decision *decision, tr_error *error);

/* ---- trainer_eval.c ---- */
/* Evaluates every set; values are exact at any world size. Without `report` no record is written: it stands already. */
tr_status tr_trainer_evaluate(tr_trainer *trainer, bool report, tr_error *error);
/* "loss" or "accuracy", "NAME.loss" with several sets; NAN where there is none or nothing was evaluated. */
double tr_trainer_metric(const tr_trainer *trainer, const char *name);

/* ---- trainer_ckpt.c ---- */
/* All arrays of the state, with the optimizer's `moments` or without, cut to part `part` of `parts`. The list is to be
 * freed after a failure too. */
tr_status tr_trainer_collect(tr_trainer *trainer, uint64_t part, uint64_t parts, bool moments, tr_piece_list *list,
                             tr_error *error);
void tr_trainer_free_pieces(tr_trainer *trainer, tr_piece_list *list);
tr_ckpt_save_options tr_trainer_save_options(const tr_trainer *trainer, uint64_t step);
/* Before the first step: the store, the memory of the snapshot, what a killed attempt left unfinished. */
tr_status tr_trainer_save_prepare(tr_trainer *trainer, tr_error *error);
/* Begins a checkpoint of the state as it is; one that is under way is finished first. With `required` a failure is
 * returned; otherwise one that may pass is logged, and there is no checkpoint of this step. */
tr_status tr_trainer_save_begin(tr_trainer *trainer, bool required, tr_error *error);
/* Moves what an update waited for the snapshot from the optimizer's account to the checkpoint's. */
void tr_trainer_save_charge(tr_trainer *trainer);
/* All ranks, after the vote saw every shard durable: begins the commit. */
tr_status tr_trainer_save_commit(tr_trainer *trainer, tr_error *error);
/* Ends the one under way; all ranks, after the vote saw it committed or failed, or with `wait` at any time. */
tr_status tr_trainer_save_finish(tr_trainer *trainer, bool wait, bool required, tr_error *error);
tr_save_state tr_trainer_save_state(tr_trainer *trainer);
void tr_trainer_save_fini(tr_trainer *trainer);

/* ---- trainer_commit.c ---- */
tr_status tr_trainer_commit_begin(tr_trainer *trainer, tr_error *error);
tr_save_state tr_trainer_commit_state(const tr_trainer *trainer);
/* Rank 0's outcome; TR_OK on the others. */
tr_status tr_trainer_commit_wait(tr_trainer *trainer, tr_error *error);
void tr_trainer_commit_fini(tr_trainer *trainer);
/* Keeps what the job says and clears what a killed attempt left half done. Rank 0's work; a failure is logged. */
void tr_trainer_retain(tr_trainer *trainer);

/* ---- trainer_restore.c ---- */
tr_status tr_trainer_restore(tr_trainer *trainer, tr_error *error);
tr_status tr_trainer_load_init(tr_trainer *trainer, const char *url, tr_error *error);

/* ---- trainer_report.c ---- */
void tr_trainer_report_step(tr_trainer *trainer, double lr);
void tr_trainer_report_evaluation(tr_trainer *trainer, const tr_eval_set *set);
/* The result record, the verdict and the profile; collective. */
tr_status tr_trainer_report_end(tr_trainer *trainer, tr_train_result *result, tr_error *error);

#endif
