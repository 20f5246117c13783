/* The life of a job as a pure function: state, event, now -> state, actions.
 *
 * It decides who failed first, when all workers are killed and started anew, when the job gives up, what a signal means
 * and how the job ends. It reads no clock, starts nothing and kills nothing, so a test can run it through any story by a
 * seed. Rules: the first worker that fails is the cause; all others are then cleared away before the next attempt begins;
 * nothing is restarted after a stop was asked for; a mistake of the user is not retried; a job that fails twice in the
 * same way at the same step gives up. */
#ifndef TRAINRUN_LAUNCHER_CONTROL_H
#define TRAINRUN_LAUNCHER_CONTROL_H

#include <trainrun/worker.h>

typedef enum control_state {
  CONTROL_RUNNING,
  CONTROL_STOPPING, /* asked to stop: waits for the workers */
  CONTROL_CLEARING, /* a worker failed, or stop now: waits until all are reaped */
  CONTROL_WAITING,  /* backs off before the next attempt */
  CONTROL_ENDED
} control_state;

typedef enum control_kind {
  CAUSE_NONE,
  CAUSE_EXIT,   /* exit code */
  CAUSE_SIGNAL, /* died of a signal that the launcher did not send */
  CAUSE_STUCK,  /* no progress within the time limit */
  CAUSE_START   /* could not be started */
} control_kind;

typedef struct control_cause {
  control_kind kind;
  int32_t rank;
  int code;         /* exit code or signal */
  uint64_t step;    /* the furthest of any rank */
  uint64_t reached; /* the failing rank's own: ranks behind or ahead of it say nothing of a loop */
  tr_phase phase;
  bool suspended; /* stuck because its process is stopped */
  bool final;     /* trying again cannot help */
} control_cause;

typedef struct control_rank {
  bool alive;
  bool attached;  /* has joined the segment or spoken: a program of the SDK */
  bool suspended; /* its process is stopped (SIGSTOP) */
  bool seen;      /* a beacon was read */
  int exit_code;
  uint64_t step, progress_ns;
  uint64_t moved_ns; /* by the launcher's clock: when step or progress last changed */
  tr_phase phase;
  int32_t waits_for;
} control_rank;

typedef struct control_options {
  int32_t size;
  control_rank *ranks; /* `size` of them, the caller's memory */
  uint64_t max_restarts;
  uint64_t foreign_max_restarts; /* where no worker ever attached */
  uint64_t hang_timeout_ns;
  uint64_t stop_grace_ns;      /* from a stop to the kill */
  uint64_t terminate_grace_ns; /* of programs that are not of the SDK, from SIGTERM to SIGKILL after a failure */
} control_options;

typedef enum control_event_type {
  EVENT_STARTED,      /* all workers of an attempt; step: where it goes on, -1: from the beginning */
  EVENT_START_FAILED, /* rank, code */
  EVENT_EXITED,       /* rank, code, signal; final */
  EVENT_BEACON,       /* rank, step, progress_ns, phase, waits_for, attached, suspended */
  EVENT_STOP,         /* reason */
  EVENT_TICK
} control_event_type;

typedef struct control_event {
  control_event_type type;
  int32_t rank;
  int code, signal;
  bool final, attached, suspended;
  int64_t step;
  uint64_t progress_ns;
  tr_phase phase;
  int32_t waits_for;
  tr_stop_reason reason;
} control_event;

typedef enum control_action_type {
  ACTION_ASK_STOP, /* reason: onto the board; its signal to those who are not attached */
  ACTION_NAME,     /* say and record control->cause */
  ACTION_CLEAR,    /* abort the board; SIGKILL to attached workers, SIGTERM to others */
  ACTION_KILL,     /* SIGKILL to all */
  ACTION_RESTART,  /* claim the next attempt and start all workers, then EVENT_STARTED */
  ACTION_END       /* control->status, exit_code, cause */
} control_action_type;

typedef struct control_action {
  control_action_type type;
  tr_stop_reason reason;
} control_action;
enum { CONTROL_ACTIONS_MAX = 4 };

typedef struct tr_control {
  control_options options;
  control_state state;
  int32_t alive;
  uint64_t restarts, steps_lost;
  uint64_t deadline_ns; /* STOPPING: kill; CLEARING: SIGKILL after SIGTERM; WAITING: restart; 0: none */
  uint64_t delay_ns;    /* of the last back-off */
  tr_stop_reason stop;
  bool killed; /* the launcher killed what was left: codes say nothing any more */
  bool any_attached;
  uint64_t resumed_step;     /* where this attempt began */
  uint64_t failed_step;      /* furthest step that a failing rank had reached */
  control_cause cause;       /* of this attempt */
  control_cause first_cause; /* of a row of failures without progress */
  bool gave_up;              /* crash loop */
  const char *status;        /* done, stopped, preempted, failed */
  int exit_code;
} tr_control;

/* `ranks` are reset. The state is RUNNING with nobody alive: EVENT_STARTED comes first. */
void control_init(tr_control *control, const control_options *options);
/* Returns how many actions are to be done, in order. */
size_t control_step(tr_control *control, const control_event *event, uint64_t now_ns,
                    control_action actions[CONTROL_ACTIONS_MAX]);
/* When EVENT_TICK is needed at the latest; UINT64_MAX: not for its own sake. */
uint64_t control_deadline(const tr_control *control);
/* Who holds everybody up, or -1: the rank that all waiting ranks wait for. */
int32_t control_culprit(const tr_control *control);

#endif
