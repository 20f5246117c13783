/* The transitions of a job's life. See control.h. */
#include "control.h"

#include <signal.h>
#include <string.h>

#define SECOND 1000000000ULL

enum { CODE_STOPPED = 130, CODE_PREEMPTED = 75, CODE_TERMINATED = 128 + SIGTERM };

typedef struct control_output {
  control_action *actions;
  size_t count;
} control_output;

static void act(control_output *output, control_action_type type, tr_stop_reason reason) {
  output->actions[output->count++] = (control_action){.type = type, .reason = reason};
}

void control_init(tr_control *control, const control_options *options) {
  memset(control, 0, sizeof *control);
  control->options = *options;
  control->state = CONTROL_RUNNING;
  memset(options->ranks, 0, (size_t)options->size * sizeof *options->ranks);
}

static uint64_t highest_step(const tr_control *control) {
  uint64_t highest = 0;
  for (int32_t i = 0; i < control->options.size; i++) {
    if (control->options.ranks[i].step > highest) highest = control->options.ranks[i].step;
  }
  return highest;
}

static void end(tr_control *control, const char *status, int exit_code, control_output *output) {
  control->state = CONTROL_ENDED;
  control->deadline_ns = 0;
  control->status = status;
  control->exit_code = exit_code;
  act(output, ACTION_END, control->stop);
}

static int cause_code(const control_cause *cause) {
  switch (cause->kind) {
    case CAUSE_SIGNAL: return 128 + cause->code;
    case CAUSE_STUCK: return 128 + SIGKILL; /* that is how it was put out of the way */
    default: return cause->code != 0 ? cause->code : 1;
  }
}

/* ---- The end of an attempt that nobody failed, or that was stopped ---- */

static bool any_ended_with(const tr_control *control, int code) {
  for (int32_t i = 0; i < control->options.size; i++) {
    if (control->options.ranks[i].exit_code == code) return true;
  }
  return false;
}

static bool all_ended_with_zero(const tr_control *control) {
  for (int32_t i = 0; i < control->options.size; i++) {
    if (control->options.ranks[i].exit_code != 0) return false;
  }
  return true;
}

static void end_stopped(tr_control *control, control_output *output) {
  /* Workers of the SDK that were done before they saw the stop end with 0. */
  const bool done = control->any_attached && !control->killed && all_ended_with_zero(control);
  switch (control->stop) {
    case TR_STOP_PREEMPT:
      if (done) {
        end(control, "done", 0, output);
      } else {
        end(control, "preempted", control->killed ? CODE_TERMINATED : CODE_PREEMPTED, output);
      }
      return;
    case TR_STOP_REQUEST: end(control, "stopped", control->killed ? CODE_TERMINATED : 0, output); return;
    default:
      if (done) {
        end(control, "done", 0, output);
      } else {
        end(control, "stopped", CODE_STOPPED, output);
      }
      return;
  }
}

static void all_gone(tr_control *control, control_output *output) {
  if (control->stop != TR_STOP_NONE) {
    end_stopped(control, output);
  } else if (any_ended_with(control, CODE_PREEMPTED)) {
    end(control, "preempted", CODE_PREEMPTED, output);
  } else if (any_ended_with(control, CODE_STOPPED)) {
    end(control, "stopped", CODE_STOPPED, output);
  } else {
    end(control, "done", 0, output);
  }
}

/* ---- Failure ---- */

static bool same_failure(const control_cause *a, const control_cause *b) {
  return a->kind == b->kind && a->code == b->code && a->kind != CAUSE_NONE;
}

static bool is_end_signal(int number) {
  return number == SIGKILL || number == SIGTERM || number == SIGINT || number == SIGHUP;
}

/* A kill from outside says nothing about the program. */
static bool from_outside(const control_cause *cause) {
  return cause->kind == CAUSE_SIGNAL && is_end_signal(cause->code);
}

/* All workers are reaped after a failure: again, or give up. */
static void after_failure(tr_control *control, uint64_t now, control_output *output) {
  const control_cause cause = control->cause;
  const uint64_t limit = control->any_attached ? control->options.max_restarts : control->options.foreign_max_restarts;
  if (control->stop != TR_STOP_NONE) {
    end(control, "failed", cause_code(&cause), output);
    return;
  }
  const bool progress = control->restarts == 0 || cause.reached > control->failed_step;
  const bool again = !progress && same_failure(&cause, &control->first_cause) && !from_outside(&cause);
  if (progress || !same_failure(&cause, &control->first_cause)) control->first_cause = cause;
  control->gave_up = again && control->any_attached;
  if (cause.final || control->gave_up || control->restarts >= limit) {
    if (control->gave_up) control->cause = control->first_cause;
    end(control, "failed", cause_code(&control->cause), output);
    return;
  }
  if (progress) {
    control->delay_ns = 0;
  } else {
    control->delay_ns = control->delay_ns == 0            ? SECOND
                        : control->delay_ns < 16 * SECOND ? 2 * control->delay_ns
                                                          : 30 * SECOND;
  }
  control->failed_step = cause.reached > control->failed_step ? cause.reached : control->failed_step;
  control->state = CONTROL_WAITING;
  control->deadline_ns = now + control->delay_ns;
  if (control->delay_ns == 0) {
    control->restarts++;
    act(output, ACTION_RESTART, TR_STOP_NONE);
  }
}

static void reaped(tr_control *control, uint64_t now, control_output *output) {
  if (control->alive > 0) return;
  if (control->cause.kind != CAUSE_NONE) {
    after_failure(control, now, output);
  } else {
    all_gone(control, output);
  }
}

static void fail(tr_control *control, const control_cause *cause, uint64_t now, control_output *output) {
  control->cause = *cause;
  control->cause.step = highest_step(control);
  control->cause.reached = cause->rank >= 0 ? control->options.ranks[cause->rank].step : control->cause.step;
  act(output, ACTION_NAME, control->stop);
  if (control->alive > 0) {
    act(output, ACTION_CLEAR, control->stop);
    control->deadline_ns = now + control->options.terminate_grace_ns;
  }
  control->state = CONTROL_CLEARING;
  reaped(control, now, output);
}

/* ---- Events ---- */

static void started(tr_control *control, const control_event *event, uint64_t now) {
  const uint64_t resumed = event->step > 0 ? (uint64_t)event->step : 0;
  if (control->restarts > 0 && control->cause.step > resumed) control->steps_lost += control->cause.step - resumed;
  control->state = CONTROL_RUNNING;
  control->resumed_step = resumed;
  control->alive = control->options.size;
  control->deadline_ns = 0;
  control->killed = false;
  control->cause = (control_cause){.kind = CAUSE_NONE, .rank = -1};
  for (int32_t i = 0; i < control->options.size; i++) {
    control->options.ranks[i] = (control_rank){.alive = true, .step = resumed, .moved_ns = now, .waits_for = -1};
  }
}

static bool is_failure(const control_event *event) {
  if (event->signal != 0) return true;
  if (event->code == 0) return false;
  return !(event->attached && (event->code == CODE_STOPPED || event->code == CODE_PREEMPTED));
}

static bool any_alive_attached(const tr_control *control) {
  for (int32_t i = 0; i < control->options.size; i++) {
    if (control->options.ranks[i].alive && control->options.ranks[i].attached) return true;
  }
  return false;
}

static void exited(tr_control *control, const control_event *event, uint64_t now, control_output *output) {
  control_rank *rank = &control->options.ranks[event->rank];
  if (!rank->alive) return;
  rank->alive = false;
  rank->attached = rank->attached || event->attached;
  rank->exit_code = event->signal != 0 ? 128 + event->signal : event->code;
  control->any_attached = control->any_attached || rank->attached;
  control->alive--;
  /* A program that is not of the SDK may answer a stop as it likes. */
  const bool answer = control->state == CONTROL_STOPPING && !rank->attached;
  const bool matters = (control->state == CONTROL_RUNNING || control->state == CONTROL_STOPPING) && !answer;
  if (control->state == CONTROL_STOPPING && !rank->attached && any_alive_attached(control)) {
    /* It was told to stop before it had joined: the others wait for it in vain, and nothing is there to be saved. */
    control->state = CONTROL_CLEARING;
    control->deadline_ns = 0;
    act(output, ACTION_KILL, control->stop);
  } else if (control->state == CONTROL_STOPPING && rank->attached && event->signal != 0 &&
             is_end_signal(event->signal)) {
    /* Somebody else's signal ended what we had asked to stop: no checkpoint, but nothing failed either. */
    control->killed = true;
    control->state = CONTROL_CLEARING;
    control->deadline_ns = 0;
    if (control->alive > 0) act(output, ACTION_KILL, control->stop);
  } else if (matters && is_failure(event)) {
    const control_cause cause = {.kind = event->signal != 0 ? CAUSE_SIGNAL : CAUSE_EXIT,
                                 .rank = event->rank,
                                 .code = event->signal != 0 ? event->signal : event->code,
                                 .phase = rank->phase,
                                 .final = event->final};
    fail(control, &cause, now, output);
    return;
  }
  reaped(control, now, output);
}

static void beacon(tr_control *control, const control_event *event, uint64_t now) {
  control_rank *rank = &control->options.ranks[event->rank];
  if (!rank->alive) return;
  const uint64_t step = event->step > 0 ? (uint64_t)event->step : 0;
  const bool moved = !rank->seen || rank->progress_ns != event->progress_ns || rank->step < step;
  if (moved) rank->moved_ns = now;
  rank->seen = true;
  if (step > rank->step) rank->step = step;
  rank->progress_ns = event->progress_ns;
  rank->phase = event->phase;
  rank->waits_for = event->waits_for;
  rank->suspended = event->suspended;
  rank->attached = rank->attached || event->attached;
  control->any_attached = control->any_attached || rank->attached;
}

/* No step of this attempt has been made yet, and the workers, busy with the data or a checkpoint, would not look up. */
static bool only_prepares(const tr_control *control) {
  bool prepares = false;
  for (int32_t i = 0; i < control->options.size; i++) {
    const control_rank *rank = &control->options.ranks[i];
    if (!rank->alive) continue;
    if (!rank->attached || rank->phase > TR_PHASE_LOADING || rank->step > control->resumed_step) return false;
    prepares = prepares || rank->phase != TR_PHASE_STARTING;
  }
  return prepares;
}

static void stop(tr_control *control, tr_stop_reason reason, uint64_t now, control_output *output) {
  switch (control->state) {
    case CONTROL_RUNNING:
      control->stop = reason;
      if (only_prepares(control)) {
        control->state = CONTROL_CLEARING;
        control->deadline_ns = 0;
        act(output, ACTION_KILL, reason);
        return;
      }
      control->state = CONTROL_STOPPING;
      control->deadline_ns = now + control->options.stop_grace_ns;
      act(output, ACTION_ASK_STOP, reason);
      return;
    case CONTROL_STOPPING: /* the second time: now */
      control->killed = true;
      control->state = CONTROL_CLEARING;
      control->deadline_ns = 0;
      act(output, ACTION_KILL, control->stop);
      return;
    case CONTROL_CLEARING:
      if (control->stop == TR_STOP_NONE) control->stop = reason;
      act(output, ACTION_KILL, control->stop);
      return;
    case CONTROL_WAITING:
      control->stop = reason;
      control->killed = true; /* nothing is written: the last checkpoint stands */
      end_stopped(control, output);
      return;
    case CONTROL_ENDED: return;
  }
}

/* ---- Time ---- */

/* Where a rank that stands still is stuck. Elsewhere it waits for a store, which may answer later: it is left alone. */
static bool may_hang(const control_rank *rank) {
  if (rank->suspended) return true;
  switch (rank->phase) {
    case TR_PHASE_COMPUTE:
    case TR_PHASE_COLLECTIVE:
    case TR_PHASE_UPDATE:
    case TR_PHASE_EVALUATION: return true;
    default: return false;
  }
}

/* An evaluation reads, computes and sums in one phase, so it may wait for a store too: it gets more time. */
static uint64_t patience(const tr_control *control, const control_rank *rank) {
  const uint64_t time = control->options.hang_timeout_ns;
  return rank->phase == TR_PHASE_EVALUATION && !rank->suspended ? 5 * time : time;
}

static bool waits_for_others(const control_rank *rank) {
  return !rank->suspended && (rank->phase == TR_PHASE_COLLECTIVE || rank->waits_for >= 0);
}

int32_t control_culprit(const tr_control *control) {
  const control_rank *ranks = control->options.ranks;
  int32_t oldest = -1;
  for (int32_t i = 0; i < control->options.size; i++) {
    if (!ranks[i].alive || !ranks[i].attached) continue;
    /* One that waits for others is to blame only where all do. */
    const bool waits = waits_for_others(&ranks[i]);
    const bool oldest_waits = oldest >= 0 && waits_for_others(&ranks[oldest]);
    if (oldest < 0 || (oldest_waits && !waits) ||
        (oldest_waits == waits && ranks[i].moved_ns < ranks[oldest].moved_ns)) {
      oldest = i;
    }
  }
  return oldest;
}

static bool all_stand_still(const tr_control *control, uint64_t now) {
  bool any = false;
  for (int32_t i = 0; i < control->options.size; i++) {
    const control_rank *rank = &control->options.ranks[i];
    if (!rank->alive) continue;
    if (!rank->attached || now - rank->moved_ns < patience(control, rank)) return false;
    any = true;
  }
  return any;
}

static void look_for_hang(tr_control *control, uint64_t now, control_output *output) {
  int32_t stuck = -1;
  for (int32_t i = 0; i < control->options.size; i++) {
    const control_rank *rank = &control->options.ranks[i];
    if (!rank->alive || !rank->attached || now - rank->moved_ns < patience(control, rank)) continue;
    const bool waits = waits_for_others(rank);
    if (may_hang(rank) && !waits && (stuck < 0 || rank->moved_ns < control->options.ranks[stuck].moved_ns)) stuck = i;
  }
  /* Everybody waits in a collective and nobody comes: the longest waiting one goes. */
  if (stuck < 0 && all_stand_still(control, now)) {
    const int32_t culprit = control_culprit(control);
    if (culprit >= 0 && may_hang(&control->options.ranks[culprit])) stuck = culprit;
  }
  if (stuck < 0) return;
  const control_cause cause = {.kind = CAUSE_STUCK,
                               .rank = stuck,
                               .phase = control->options.ranks[stuck].phase,
                               .suspended = control->options.ranks[stuck].suspended};
  fail(control, &cause, now, output);
}

/* A worker that is writing its checkpoint gets the time it needs, as long as it moves. */
static bool saves(const tr_control *control, uint64_t now) {
  for (int32_t i = 0; i < control->options.size; i++) {
    const control_rank *rank = &control->options.ranks[i];
    if (!rank->alive || !rank->attached) continue;
    const bool saving = rank->phase == TR_PHASE_CHECKPOINT || rank->phase == TR_PHASE_ENDING;
    if (saving && now - rank->moved_ns < control->options.hang_timeout_ns) return true;
  }
  return false;
}

static void tick(tr_control *control, uint64_t now, control_output *output) {
  const bool due = control->deadline_ns != 0 && now >= control->deadline_ns;
  switch (control->state) {
    case CONTROL_RUNNING: look_for_hang(control, now, output); return;
    case CONTROL_STOPPING:
      if (!due || saves(control, now)) return;
      control->killed = true;
      control->state = CONTROL_CLEARING;
      control->deadline_ns = 0;
      act(output, ACTION_KILL, control->stop);
      return;
    case CONTROL_CLEARING:
      if (!due) return;
      control->deadline_ns = 0;
      act(output, ACTION_KILL, control->stop);
      return;
    case CONTROL_WAITING:
      if (!due) return;
      control->deadline_ns = 0;
      control->restarts++;
      act(output, ACTION_RESTART, TR_STOP_NONE);
      return;
    case CONTROL_ENDED: return;
  }
}

static void start_failed(tr_control *control, const control_event *event, uint64_t now, control_output *output) {
  control->alive = 0;
  for (int32_t i = 0; i < control->options.size; i++) control->options.ranks[i].alive = false;
  const control_cause cause = {.kind = CAUSE_START, .rank = event->rank, .code = event->code, .final = true};
  fail(control, &cause, now, output);
}

size_t control_step(tr_control *control, const control_event *event, uint64_t now_ns,
                    control_action actions[CONTROL_ACTIONS_MAX]) {
  control_output output = {.actions = actions};
  if (control->state == CONTROL_ENDED) return 0;
  switch (event->type) {
    case EVENT_STARTED: started(control, event, now_ns); break;
    case EVENT_START_FAILED: start_failed(control, event, now_ns, &output); break;
    case EVENT_EXITED: exited(control, event, now_ns, &output); break;
    case EVENT_BEACON: beacon(control, event, now_ns); break;
    case EVENT_STOP: stop(control, event->reason, now_ns, &output); break;
    case EVENT_TICK: tick(control, now_ns, &output); break;
  }
  return output.count;
}

uint64_t control_deadline(const tr_control *control) {
  return control->deadline_ns != 0 ? control->deadline_ns : UINT64_MAX;
}
