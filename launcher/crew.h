/* Threads that do one thing after the other, for the commands that copy, read or check many objects.
 *
 * next() hands out work, one caller at a time; work() does it on any thread; take(), where there is one, receives what
 * was done in the order of next(), on the thread that called crew_run. At most `window` pieces are under way, so memory is
 * bounded. The first failure ends it all. SIGINT, SIGTERM and SIGHUP end it too, with TR_ERR_STOPPED, once what is under
 * way has seen crew_stopping(). */
#ifndef TRAINRUN_LAUNCHER_CREW_H
#define TRAINRUN_LAUNCHER_CREW_H

#include "progress.h"

#include <signal.h>

typedef struct tr_crew tr_crew;

typedef struct tr_crew_job {
  void *self;
  uint32_t threads, window;
  size_t piece_bytes; /* of what next() fills; zeroed before */
  tr_status (*next)(void *self, void *piece, bool *end, tr_error *error);
  tr_status (*work)(void *self, void *piece, tr_error *error);
  tr_status (*take)(void *self, void *piece, tr_error *error); /* may be NULL */
  void (*drop)(void *self, void *piece);                       /* frees what a piece holds, taken or not; may be NULL */
  tr_progress *progress;                                       /* drawn meanwhile; may be NULL */
  atomic_bool *stop;                                           /* set when all is to end */
} tr_crew_job;

tr_status crew_run(const tr_crew_job *job, tr_error *error);

/* For what runs without a crew: blocks the three signals, so that sigtimedwait can ask for them; and the error of one. */
void crew_block_signals(sigset_t *signals, sigset_t *before);
tr_status crew_stopped(int number, tr_error *error);

/* The exit code of a command that ended so: 128 + n for a signal (the message then names it). */
int crew_exit_code(const tr_error *error);

#endif
