/* Runs a planned job to its end: starts workers, reads what they say, decides by control.h, and writes the run's records.
 *
 * One thread, one loop over poll: signals (signalfd), the workers' output and messages, and time. Nothing blocks but the
 * poll. The parts: attempt.c starts all workers of an attempt, workers.c reads them, supervise.c is the loop. */
#ifndef TRAINRUN_LAUNCHER_SUPERVISE_H
#define TRAINRUN_LAUNCHER_SUPERVISE_H

#include "control.h"
#include "lines.h"
#include "live.h"
#include "plan.h"
#include "term.h"

#include <trainrun/collective.h>
#include <trainrun/run.h>

#include <sys/types.h>

typedef struct tr_supervisor tr_supervisor;

typedef struct tr_worker {
  tr_supervisor *supervisor;
  int32_t rank;
  pid_t pid; /* and process group; 0: not started */
  bool running;
  bool lingers;          /* the worker is gone, others of its group may not be */
  bool spoke;            /* sent a message: a program of the SDK */
  int out, err, control; /* our ends, -1: closed */
  int log;               /* logs/attempt_<k>/<rank>.log */
  tr_lines out_lines, err_lines, control_lines;
  uint64_t passing_ns; /* when a passing line (progress bar) was last shown */
  char last_line[256]; /* of its output */
  char message[512];   /* of its error, "" for none */
  bool final;          /* its error: trying again cannot help */
} tr_worker;

struct tr_supervisor {
  const tr_cli *cli;
  const tr_job *job;
  const tr_plan *plan;
  tr_run *run; /* with its folder below run-dir */
  tr_term *term;
  tr_control control;
  control_rank *ranks;
  tr_worker *workers;
  int32_t size;
  tr_live live;

  int signals;             /* signalfd */
  int null;                /* /dev/null */
  int job_memory;          /* memfd of the resolved job */
  int run_memory, segment; /* of this attempt */
  tr_board board;
  int guard;
  pid_t guard_pid;
  uint64_t attempt_started_ns;
  char logs[PATH_MAX]; /* absolute folder of this attempt's logs */

  uint64_t next_look_ns;  /* at the board */
  uint64_t next_plain_ns; /* line where there is no terminal */
  bool record_failed;     /* the folder could not be written, and it was said */
  char cause[1024];       /* of the end, for people */
};

/* From here on signals wait until supervise() takes them up: a stop is never lost between two states. */
void supervise_block_signals(void);
/* The exit code of the command. `run` is open and not done. */
int supervise(const tr_cli *cli, const tr_job *job, const tr_plan *plan, tr_run *run, tr_term *term);

/* ---- attempt.c ---- */

/* Makes what all attempts share. False with the reason said. */
bool attempt_prepare(tr_supervisor *supervisor);
void attempt_release(tr_supervisor *supervisor);
/* Starts all workers. False with the reason said; then none is left. */
bool attempt_start(tr_supervisor *supervisor);
/* Closes what belongs to an attempt whose workers are all reaped. */
void attempt_end(tr_supervisor *supervisor);
const char *attempt_error_file(const tr_supervisor *supervisor, int32_t rank, char path[PATH_MAX]);

/* ---- workers.c ---- */

/* Reads what a worker's descriptor has; closes it at its end. */
void worker_read_output(tr_worker *worker, bool standard_error);
void worker_read_control(tr_worker *worker);
/* Takes the rest after its death. */
void worker_drain(tr_worker *worker);
/* Kills the worker's process group. */
void worker_signal(const tr_worker *worker, int number);
/* What a person should know of how this worker failed. */
void worker_describe_failure(tr_worker *worker, const control_cause *cause, char *text, size_t bytes);

#endif
