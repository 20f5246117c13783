/* The loop of a running job. */
#include "supervise.h"

#include "spawn.h"
#include "summary.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>

#define MILLISECOND 1000000ULL
#define SECOND      1000000000ULL

static const uint64_t look_every_ns = 200 * MILLISECOND, plain_every_ns = 10 * SECOND;
static const uint64_t stop_grace_ns = 30 * SECOND, terminate_grace_ns = 10 * SECOND;

static uint64_t now_ns(void) { return tr_clock_now_ns(NULL); }

static void dispatch(tr_supervisor *supervisor, const control_event *event);
static void end_lingering(tr_supervisor *supervisor);

/* ---- Actions ---- */

static int signal_of(tr_stop_reason reason) { return reason == TR_STOP_INTERRUPT ? SIGINT : SIGTERM; }

static void ask_stop(tr_supervisor *supervisor, tr_stop_reason reason) {
  static const char *const why[] = {"", "Ctrl-C", "SIGTERM", "asked"};
  term_note(supervisor->term, "%s: stopping at the next step%s", why[reason],
            reason == TR_STOP_INTERRUPT ? "; Ctrl-C again stops now" : "");
  char members[64];
  snprintf(members, sizeof members, "\"reason\": \"%s\"",
           reason == TR_STOP_INTERRUPT ? "interrupt"
           : reason == TR_STOP_PREEMPT ? "preempt"
                                       : "request");
  tr_run_event(supervisor->run, "stop", members);
  __atomic_store_n(supervisor->board.stop, (uint32_t)reason, __ATOMIC_RELEASE);
  for (int32_t i = 0; i < supervisor->size; i++) {
    const tr_worker *worker = &supervisor->workers[i];
    if (worker->running && !supervisor->ranks[i].attached) worker_signal(worker, signal_of(reason));
  }
}

static void clear_away(tr_supervisor *supervisor, bool kill_all) {
  const uint64_t epoch = tr_run_describe(supervisor->run)->attempt;
  __atomic_store_n(supervisor->board.abort, (uint32_t)epoch, __ATOMIC_RELEASE);
  for (int32_t i = 0; i < supervisor->size; i++) {
    const tr_worker *worker = &supervisor->workers[i];
    const bool attached = supervisor->ranks[i].attached;
    if (kill_all || attached) {
      worker_signal(worker, SIGKILL);
    } else {
      worker_signal(worker, SIGTERM);
      worker_signal(worker, SIGCONT); /* a stopped one would not hear it */
    }
  }
}

static void name_failure(tr_supervisor *supervisor) {
  const control_cause *cause = &supervisor->control.cause;
  tr_worker *worker = &supervisor->workers[cause->rank >= 0 ? cause->rank : 0];
  worker_describe_failure(worker, cause, supervisor->cause, sizeof supervisor->cause);
  term_error(supervisor->term, "%s", supervisor->cause);
  tr_writer members;
  tr_writer_init(&members, NULL);
  tr_write_text(&members, "\"rank\": %d, \"step\": %llu, \"code\": %d, \"signal\": %d, \"cause\": ", cause->rank,
                (unsigned long long)cause->step, cause->kind == CAUSE_EXIT ? cause->code : 0,
                cause->kind == CAUSE_SIGNAL ? cause->code : 0);
  tr_write_json_string(&members, supervisor->cause);
  tr_write_u8(&members, 0);
  tr_run_event(supervisor->run, "failure", members.failed ? NULL : (const char *)members.data);
  tr_writer_fini(&members);
  term_flush(supervisor->term);
}

static void tell_started(tr_supervisor *supervisor) {
  const control_event event = {.type = EVENT_STARTED, .step = tr_run_describe(supervisor->run)->resume_step};
  live_restart(&supervisor->live);
  dispatch(supervisor, &event);
}

static void restart(tr_supervisor *supervisor) {
  const tr_control *control = &supervisor->control;
  end_lingering(supervisor);
  attempt_end(supervisor);
  tr_error error;
  supervisor->attempt_started_ns = now_ns();
  if (tr_run_next_attempt(supervisor->run, &error) != TR_OK) {
    term_error(supervisor->term, "%s", error.message);
    snprintf(supervisor->cause, sizeof supervisor->cause, "%s", error.message);
    dispatch(supervisor, &(control_event){.type = EVENT_START_FAILED, .code = tr_status_exit_code(error.status)});
    return;
  }
  const tr_run_info *info = tr_run_describe(supervisor->run);
  char from[64] = "the beginning";
  if (info->resume_step >= 0) snprintf(from, sizeof from, "step %lld", (long long)info->resume_step);
  const uint64_t limit = control->any_attached ? control->options.max_restarts : control->options.foreign_max_restarts;
  term_note(supervisor->term, "restart %llu of %llu: all workers from %s", (unsigned long long)control->restarts,
            (unsigned long long)limit, from);
  char members[128];
  snprintf(members, sizeof members, "\"restarts\": %llu, \"step\": %lld", (unsigned long long)control->restarts,
           (long long)info->resume_step);
  tr_run_event(supervisor->run, "restart", members);
  if (attempt_start(supervisor)) {
    tell_started(supervisor);
  } else {
    dispatch(supervisor, &(control_event){.type = EVENT_START_FAILED, .code = EXIT_UNAVAILABLE});
  }
}

static void dispatch(tr_supervisor *supervisor, const control_event *event) {
  control_action actions[CONTROL_ACTIONS_MAX];
  const size_t count = control_step(&supervisor->control, event, now_ns(), actions);
  for (size_t i = 0; i < count; i++) {
    switch (actions[i].type) {
      case ACTION_ASK_STOP: ask_stop(supervisor, actions[i].reason); break;
      case ACTION_NAME:
        if (event->type != EVENT_START_FAILED) name_failure(supervisor);
        break;
      case ACTION_CLEAR: clear_away(supervisor, false); break;
      case ACTION_KILL: clear_away(supervisor, true); break;
      case ACTION_RESTART: restart(supervisor); break;
      case ACTION_END: break;
    }
  }
  if (supervisor->control.state == CONTROL_WAITING && supervisor->control.delay_ns > 0 && count > 0) {
    term_note(supervisor->term, "no progress since the last start: waiting %llu s before the next",
              (unsigned long long)(supervisor->control.delay_ns / SECOND));
  }
}

/* ---- The board ---- */

/* The letter of /proc/PID/stat: T for a process that SIGSTOP holds. */
static bool is_suspended(pid_t pid) {
  char path[64], text[256];
  snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
  FILE *file = fopen(path, "re");
  if (file == NULL) return false;
  const size_t got = fread(text, 1, sizeof text - 1, file);
  fclose(file);
  text[got] = '\0';
  const char *name_end = strrchr(text, ')');
  return name_end != NULL && name_end[1] == ' ' && (name_end[2] == 'T' || name_end[2] == 't');
}

static void read_board(tr_supervisor *supervisor, uint64_t now) {
  for (int32_t i = 0; i < supervisor->size; i++) {
    const tr_worker *worker = &supervisor->workers[i];
    if (!worker->running || supervisor->board.beacons == NULL) continue;
    const tr_beacon *beacon = &supervisor->board.beacons[i];
    const control_rank *rank = &supervisor->ranks[i];
    /* /proc is asked only of a rank that has not moved for a while. */
    const bool still = rank->attached && now - rank->moved_ns > SECOND;
    const control_event event = {
        .type = EVENT_BEACON,
        .rank = i,
        .step = (int64_t)__atomic_load_n(&beacon->step, __ATOMIC_RELAXED),
        .progress_ns = __atomic_load_n(&beacon->progress_ns, __ATOMIC_RELAXED),
        .phase = (tr_phase)__atomic_load_n(&beacon->phase, __ATOMIC_RELAXED),
        .waits_for = __atomic_load_n(&beacon->waits_for, __ATOMIC_RELAXED),
        .attached = worker->spoke || __atomic_load_n(&beacon->pid, __ATOMIC_RELAXED) != 0,
        .suspended = still && is_suspended(worker->pid),
    };
    dispatch(supervisor, &event);
  }
  if (supervisor->board.beacons == NULL) return;
  live_board(&supervisor->live, supervisor->board.beacons, supervisor->size, now);
}

/* ---- Deaths ---- */

typedef struct worker_death {
  int32_t rank;
  int code, signal;
} worker_death;

/* The exit status without reaping: the group's number stays taken until its other members are dealt with. */
static bool look_for_death(tr_worker *worker, worker_death *death) {
  siginfo_t info = {0};
  if (!worker->running || waitid(P_PID, (id_t)worker->pid, &info, WEXITED | WNOHANG | WNOWAIT) != 0 ||
      info.si_pid == 0) {
    return false;
  }
  const bool exited = info.si_code == CLD_EXITED;
  death->rank = worker->rank;
  death->code = exited ? info.si_status : 0;
  death->signal = exited ? 0 : info.si_status;
  return true;
}

/* Codes that say the same the next time: 2, 69 and 78 of an SDK program; 126 and 127 where nothing could be run. */
static bool is_final_code(const tr_worker *worker, int code, bool attached) {
  const bool sdk = attached || !worker->supervisor->plan->foreign;
  if (sdk) return code == EXIT_USAGE || code == EXIT_UNAVAILABLE || code == EXIT_CONFIG || code == 126 || code == 127;
  return code == 126 || code == 127;
}

static void bury(tr_supervisor *supervisor, const worker_death *death) {
  tr_worker *worker = &supervisor->workers[death->rank];
  worker_drain(worker);
  read_board(supervisor, now_ns()); /* how far everybody had come, and who is of the SDK */
  worker->running = false;
  waitpid(worker->pid, NULL, 0);
  worker->lingers = kill(-worker->pid, 0) == 0;
  if (!worker->lingers) guard_forget(supervisor->guard, worker->pid);
  const bool attached = worker->spoke ||
                        __atomic_load_n(&supervisor->board.beacons[death->rank].pid, __ATOMIC_RELAXED) != 0;
  const control_event event = {
      .type = EVENT_EXITED,
      .rank = death->rank,
      .code = death->code,
      .signal = death->signal,
      .final = worker->final || (death->signal == 0 && is_final_code(worker, death->code, attached)),
      .attached = attached,
  };
  dispatch(supervisor, &event);
}

/* Those that died by a signal come first: where several fell within one look, the others followed. */
static void reap(tr_supervisor *supervisor) {
  for (int pass = 0; pass < 2; pass++) {
    for (int32_t i = 0; i < supervisor->size; i++) {
      worker_death death;
      if (look_for_death(&supervisor->workers[i], &death) && (pass == 1 || death.signal != 0)) bury(supervisor, &death);
    }
  }
}

/* Others of the workers' process groups get a moment to end by themselves (Python's resource tracker cleans up). */
static void end_lingering(tr_supervisor *supervisor) {
  for (int turn = 0; turn < 100; turn++) {
    bool any = false;
    for (int32_t i = 0; i < supervisor->size; i++) {
      tr_worker *worker = &supervisor->workers[i];
      if (!worker->lingers) continue;
      const bool gone = kill(-worker->pid, 0) != 0 && errno == ESRCH;
      if (!gone && turn == 50) kill(-worker->pid, SIGKILL);
      if (gone) {
        worker->lingers = false;
        guard_forget(supervisor->guard, worker->pid);
      }
      any = any || !gone;
    }
    if (!any) return;
    while (waitpid(-1, NULL, WNOHANG) > 0) continue;
    tr_clock_sleep_ns(NULL, 10 * MILLISECOND);
  }
}

/* ---- Signals ---- */

static void signals_of(sigset_t *set) {
  sigemptyset(set);
  sigaddset(set, SIGINT);
  sigaddset(set, SIGTERM);
  sigaddset(set, SIGUSR1);
  sigaddset(set, SIGCHLD);
  struct sigaction hangup;
  /* nohup stays what it is */
  if (sigaction(SIGHUP, NULL, &hangup) == 0 && hangup.sa_handler != SIG_IGN) sigaddset(set, SIGHUP);
}

void supervise_block_signals(void) {
  sigset_t set;
  signals_of(&set);
  signal(SIGPIPE, SIG_IGN);
  sigprocmask(SIG_BLOCK, &set, NULL);
}

static bool open_signals(tr_supervisor *supervisor) {
  sigset_t set;
  signals_of(&set);
  supervisor->signals = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
  return supervisor->signals >= 0;
}

static void read_signals(tr_supervisor *supervisor) {
  struct signalfd_siginfo info;
  bool children = false;
  while (read(supervisor->signals, &info, sizeof info) == (ssize_t)sizeof info) {
    tr_stop_reason reason = TR_STOP_NONE;
    switch (info.ssi_signo) {
      case SIGCHLD: children = true; break;
      case SIGINT: reason = TR_STOP_INTERRUPT; break;
      case SIGUSR1: reason = TR_STOP_REQUEST; break;
      default: reason = TR_STOP_PREEMPT; break;
    }
    if (reason == TR_STOP_NONE) continue;
    read_board(supervisor, now_ns());
    dispatch(supervisor, &(control_event){.type = EVENT_STOP, .reason = reason});
  }
  if (children) reap(supervisor);
}

/* ---- Time ---- */

static void show_live(tr_supervisor *supervisor, uint64_t now) {
  char text[TERM_LIVE_BYTES];
  if (supervisor->term->live) {
    live_text(&supervisor->live, now, false, term_columns(), text, sizeof text);
    term_live(supervisor->term, text);
  } else if (now >= supervisor->next_plain_ns) {
    live_text(&supervisor->live, now, true, 0, text, sizeof text);
    if (text[0] != '\0') term_note(supervisor->term, "%s", text);
    supervisor->next_plain_ns = now + plain_every_ns;
  }
}

static void look(tr_supervisor *supervisor) {
  const uint64_t now = now_ns();
  if (now >= supervisor->next_look_ns && supervisor->board.beacons != NULL) {
    read_board(supervisor, now);
    if (supervisor->board.beacons != NULL) show_live(supervisor, now);
    supervisor->next_look_ns = now + look_every_ns;
  }
  if (supervisor->control.state != CONTROL_ENDED) dispatch(supervisor, &(control_event){.type = EVENT_TICK});
}

/* ---- The loop ---- */

typedef enum source_kind { SOURCE_SIGNALS, SOURCE_OUT, SOURCE_ERR, SOURCE_CONTROL } source_kind;

static size_t gather(const tr_supervisor *supervisor, struct pollfd *polled) {
  size_t count = 0;
  polled[count++] = (struct pollfd){.fd = supervisor->signals, .events = POLLIN};
  for (int32_t i = 0; i < supervisor->size; i++) {
    const tr_worker *worker = &supervisor->workers[i];
    const int descriptors[] = {worker->out, worker->err, worker->control}; /* poll skips -1 */
    for (size_t j = 0; j < 3; j++) polled[count++] = (struct pollfd){.fd = descriptors[j], .events = POLLIN};
  }
  return count;
}

static int wait_ms(const tr_supervisor *supervisor) {
  const uint64_t now = now_ns();
  uint64_t until = supervisor->next_look_ns;
  const uint64_t deadline = control_deadline(&supervisor->control);
  if (deadline < until) until = deadline;
  return until <= now ? 0 : (int)((until - now) / MILLISECOND) + 1;
}

static void read_workers(tr_supervisor *supervisor, const struct pollfd *polled) {
  for (int32_t i = 0; i < supervisor->size; i++) {
    tr_worker *worker = &supervisor->workers[i];
    const struct pollfd *own = polled + 1 + 3 * (size_t)i;
    if (own[2].revents != 0) worker_read_control(worker);
    if (own[0].revents != 0) worker_read_output(worker, false);
    if (own[1].revents != 0) worker_read_output(worker, true);
  }
}

static bool loop(tr_supervisor *supervisor) {
  struct pollfd *polled = calloc(1 + 3 * (size_t)supervisor->size, sizeof *polled);
  if (polled == NULL) return false;
  while (supervisor->control.state != CONTROL_ENDED) {
    term_flush(supervisor->term);
    const size_t count = gather(supervisor, polled);
    if (poll(polled, (nfds_t)count, wait_ms(supervisor)) > 0) {
      read_workers(supervisor, polled);
      if (polled[0].revents != 0) read_signals(supervisor);
    }
    if (supervisor->control.state != CONTROL_ENDED) look(supervisor);
  }
  free(polled);
  return true;
}

/* ---- Beginning and end ---- */

static void make_control(tr_supervisor *supervisor) {
  const tr_config *config = supervisor->job->config;
  const uint64_t restarts = (uint64_t)tr_config_integer(config, "failure.max-restarts");
  const uint64_t hang = tr_config_duration_ns(config, "failure.hang-timeout");
  const bool asked = tr_config_is_set(config, "failure.max-restarts");
  const control_options options = {
      .size = supervisor->size,
      .ranks = supervisor->ranks,
      .max_restarts = restarts,
      /* A bare program that nothing is known of is not run again unless somebody wants it: as torchrun does. */
      .foreign_max_restarts = supervisor->plan->bare && !asked ? 0 : restarts,
      .hang_timeout_ns = hang,
      .stop_grace_ns = hang > stop_grace_ns ? hang : stop_grace_ns,
      .terminate_grace_ns = terminate_grace_ns,
  };
  control_init(&supervisor->control, &options);
}

static void make_live(tr_supervisor *supervisor) {
  const tr_config *config = supervisor->job->config;
  live_init(&supervisor->live, supervisor->size);
  if (tr_config_is_set(config, "train.steps"))
    supervisor->live.total_steps = (uint64_t)tr_config_integer(config, "train.steps");
}

static void finish(tr_supervisor *supervisor) {
  const tr_control *control = &supervisor->control;
  const bool failed = strcmp(control->status, "failed") == 0;
  if (control->gave_up) {
    const size_t length = strlen(supervisor->cause);
    snprintf(supervisor->cause + length, sizeof supervisor->cause - length,
             "; it failed twice at the same step: gave up");
  }
  const tr_run_outcome outcome = {.struct_bytes = sizeof outcome,
                                  .status = control->status,
                                  .cause = failed ? supervisor->cause : NULL,
                                  .exit_code = control->exit_code,
                                  .restarts = control->restarts,
                                  .steps_lost = control->steps_lost};
  char members[96];
  tr_error error;
  snprintf(members, sizeof members, "\"status\": \"%s\", \"exit_code\": %d", control->status, control->exit_code);
  tr_run_event(supervisor->run, "end", members);
  if (tr_run_finish(supervisor->run, &outcome, &error) != TR_OK) term_error(supervisor->term, "%s", error.message);
}

int supervise(const tr_cli *cli, const tr_job *job, const tr_plan *plan, tr_run *run, tr_term *term) {
  tr_supervisor supervisor = {.cli = cli, .job = job, .plan = plan, .run = run, .term = term, .size = plan->workers};
  supervisor.signals = supervisor.null = supervisor.job_memory = supervisor.run_memory = supervisor.segment = -1;
  supervisor.guard = -1;
  supervisor.attempt_started_ns = cli->started_ns;
  int code = EXIT_UNAVAILABLE;
  if (!open_signals(&supervisor) || !attempt_prepare(&supervisor)) goto done;
  make_control(&supervisor);
  make_live(&supervisor);
  supervisor.next_plain_ns = now_ns() + plain_every_ns;
  if (attempt_start(&supervisor)) {
    tell_started(&supervisor);
  } else {
    snprintf(supervisor.cause, sizeof supervisor.cause, "the workers could not be started");
    dispatch(&supervisor, &(control_event){.type = EVENT_START_FAILED, .code = EXIT_UNAVAILABLE});
  }
  if (!loop(&supervisor)) goto done;
  term_live(term, "");
  end_lingering(&supervisor);
  finish(&supervisor);
  code = supervisor.control.exit_code;
done:
  attempt_release(&supervisor);
  if (plan->foreign) reap_strays();
  if (supervisor.signals >= 0) close(supervisor.signals);
  return code;
}
