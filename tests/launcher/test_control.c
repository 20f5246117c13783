/* The life of a job: stories told step by step, then thousands of random ones in which certain things never happen. */
#include <criterion/criterion.h>
#include <launcher/control.h>
#include <signal.h>
#include <string.h>
#include <trainrun/rng.h>

enum { RANKS = 4 };
#define SECOND 1000000000ULL

typedef struct told {
  tr_control control;
  control_rank ranks[RANKS];
  control_action actions[CONTROL_ACTIONS_MAX];
  size_t count;
  uint64_t now;
} told;

static void tell(told *story, control_event event) {
  story->count = control_step(&story->control, &event, story->now, story->actions);
}

static bool did(const told *story, control_action_type type) {
  for (size_t i = 0; i < story->count; i++) {
    if (story->actions[i].type == type) return true;
  }
  return false;
}

static void start(told *story, int64_t step) { tell(story, (control_event){.type = EVENT_STARTED, .step = step}); }

static void begin(told *story) {
  memset(story, 0, sizeof *story);
  const control_options options = {.size = RANKS,
                                   .ranks = story->ranks,
                                   .max_restarts = 3,
                                   .foreign_max_restarts = 1,
                                   .hang_timeout_ns = 60 * SECOND,
                                   .stop_grace_ns = 30 * SECOND,
                                   .terminate_grace_ns = 10 * SECOND};
  story->now = 1000 * SECOND;
  control_init(&story->control, &options);
  start(story, -1);
}

static void move(told *story, int32_t rank, int64_t step, tr_phase phase) {
  tell(story, (control_event){.type = EVENT_BEACON,
                              .rank = rank,
                              .step = step,
                              .progress_ns = story->now,
                              .phase = phase,
                              .waits_for = -1,
                              .attached = true});
}

static void move_all(told *story, int64_t step) {
  for (int32_t i = 0; i < RANKS; i++) move(story, i, step, TR_PHASE_COMPUTE);
}

static void leave(told *story, int32_t rank, int code, int number) {
  tell(
      story,
      (control_event){
          .type = EVENT_EXITED, .rank = rank, .code = code, .signal = number, .attached = story->ranks[rank].attached});
}

/* The launcher kills the rest. */
static void bury_rest(told *story) {
  for (int32_t i = 0; i < RANKS; i++) {
    if (story->ranks[i].alive) leave(story, i, 0, SIGKILL);
  }
}

static void expect_end(const told *story, const char *status, int code) {
  cr_assert_eq(story->control.state, CONTROL_ENDED);
  cr_assert_str_eq(story->control.status, status);
  cr_assert_eq(story->control.exit_code, code, "exit code %d, not %d", story->control.exit_code, code);
}

Test(control, ends_done_when_all_workers_do) {
  told story;
  begin(&story);
  move_all(&story, 5);
  for (int32_t i = 0; i < RANKS; i++) leave(&story, i, 0, 0);
  cr_assert(did(&story, ACTION_END));
  expect_end(&story, "done", 0);
}

Test(control, names_the_first_to_fail_and_clears_the_others) {
  told story;
  begin(&story);
  move_all(&story, 7);
  leave(&story, 2, 0, SIGSEGV);
  cr_assert(did(&story, ACTION_NAME) && did(&story, ACTION_CLEAR));
  cr_assert_eq(story.control.cause.rank, 2);
  cr_assert_eq(story.control.cause.kind, CAUSE_SIGNAL);
  cr_assert_eq(story.control.cause.step, 7);
  leave(&story, 0, 1, 0); /* followed it */
  cr_assert_eq(story.control.cause.rank, 2);
  bury_rest(&story);
  cr_assert(did(&story, ACTION_RESTART));
  cr_assert_eq(story.control.restarts, 1);
  start(&story, 5);
  cr_assert_eq(story.control.steps_lost, 2);
}

Test(control, restarts_nobody_before_all_are_reaped) {
  told story;
  begin(&story);
  move_all(&story, 7);
  leave(&story, 0, 1, 0);
  for (int32_t i = 1; i < RANKS; i++) {
    cr_assert(!did(&story, ACTION_RESTART));
    cr_assert_eq(story.control.state, CONTROL_CLEARING);
    leave(&story, i, 0, SIGKILL);
  }
  cr_assert(did(&story, ACTION_RESTART));
}

Test(control, gives_up_when_it_fails_twice_in_the_same_way_at_the_same_step) {
  told story;
  begin(&story);
  move_all(&story, 7);
  leave(&story, 1, 3, 0);
  bury_rest(&story);
  start(&story, 5);
  move_all(&story, 7);
  leave(&story, 1, 3, 0);
  bury_rest(&story);
  expect_end(&story, "failed", 3);
  cr_assert(story.control.gave_up);
  cr_assert_eq(story.control.restarts, 1);
}

Test(control, goes_on_after_kills_from_outside_up_to_the_limit) {
  told story;
  begin(&story);
  for (int i = 0; i <= 3; i++) {
    move_all(&story, 7);
    leave(&story, 1, 0, SIGKILL);
    bury_rest(&story);
    if (i == 3) break;
    if (story.control.state == CONTROL_WAITING && !did(&story, ACTION_RESTART)) { /* backs off without progress */
      cr_assert_gt(control_deadline(&story.control), story.now);
      story.now = control_deadline(&story.control);
      tell(&story, (control_event){.type = EVENT_TICK});
    }
    cr_assert(did(&story, ACTION_RESTART));
    start(&story, 0);
  }
  expect_end(&story, "failed", 128 + SIGKILL);
  cr_assert_eq(story.control.restarts, 3);
}

Test(control, does_not_retry_a_mistake_of_the_user) {
  told story;
  begin(&story);
  move_all(&story, 0);
  tell(&story, (control_event){.type = EVENT_EXITED, .rank = 3, .code = 78, .final = true, .attached = true});
  bury_rest(&story);
  expect_end(&story, "failed", 78);
}

Test(control, restarts_a_foreign_program_as_often_as_its_own_limit_says) {
  told story;
  begin(&story);
  leave(&story, 0, 9, 0);
  bury_rest(&story);
  cr_assert(did(&story, ACTION_RESTART));
  start(&story, -1);
  leave(&story, 0, 9, 0);
  bury_rest(&story);
  expect_end(&story, "failed", 9);
}

Test(control, stops_gracefully_on_the_first_signal_and_at_once_on_the_second) {
  told story;
  begin(&story);
  move_all(&story, 7);
  tell(&story, (control_event){.type = EVENT_STOP, .reason = TR_STOP_INTERRUPT});
  cr_assert(did(&story, ACTION_ASK_STOP) && !did(&story, ACTION_KILL));
  tell(&story, (control_event){.type = EVENT_STOP, .reason = TR_STOP_INTERRUPT});
  cr_assert(did(&story, ACTION_KILL));
  bury_rest(&story);
  expect_end(&story, "stopped", 130);
}

Test(control, is_preempted_with_75) {
  told story;
  begin(&story);
  move_all(&story, 7);
  tell(&story, (control_event){.type = EVENT_STOP, .reason = TR_STOP_PREEMPT});
  for (int32_t i = 0; i < RANKS; i++) leave(&story, i, 75, 0);
  expect_end(&story, "preempted", 75);
}

Test(control, clears_the_others_when_one_was_stopped_before_it_joined) {
  told story;
  begin(&story);
  for (int32_t i = 1; i < RANKS; i++) move(&story, i, 0, TR_PHASE_STARTING);
  tell(&story, (control_event){.type = EVENT_STOP, .reason = TR_STOP_PREEMPT});
  leave(&story, 0, 0, SIGTERM);
  cr_assert(did(&story, ACTION_KILL));
  bury_rest(&story);
  expect_end(&story, "preempted", 75);
}

Test(control, ends_workers_at_once_that_still_prepare) {
  told story;
  begin(&story);
  for (int32_t i = 0; i < RANKS; i++) move(&story, i, 0, i == 0 ? TR_PHASE_INDEXING : TR_PHASE_STARTING);
  tell(&story, (control_event){.type = EVENT_STOP, .reason = TR_STOP_PREEMPT});
  cr_assert(did(&story, ACTION_KILL));
  bury_rest(&story);
  expect_end(&story, "preempted", 75);
}

Test(control, is_done_when_the_work_ended_before_the_stop_was_seen) {
  told story;
  begin(&story);
  move_all(&story, 7);
  tell(&story, (control_event){.type = EVENT_STOP, .reason = TR_STOP_PREEMPT});
  for (int32_t i = 0; i < RANKS; i++) leave(&story, i, 0, 0);
  expect_end(&story, "done", 0);
}

Test(control, kills_those_that_do_not_answer_a_stop) {
  told story;
  begin(&story);
  move_all(&story, 7);
  tell(&story, (control_event){.type = EVENT_STOP, .reason = TR_STOP_PREEMPT});
  story.now += 29 * SECOND;
  tell(&story, (control_event){.type = EVENT_TICK});
  cr_assert(!did(&story, ACTION_KILL));
  story.now += 2 * SECOND;
  tell(&story, (control_event){.type = EVENT_TICK});
  cr_assert(did(&story, ACTION_KILL));
  bury_rest(&story);
  expect_end(&story, "preempted", 128 + SIGTERM);
}

Test(control, waits_longer_for_a_checkpoint_that_moves) {
  told story;
  begin(&story);
  move_all(&story, 7);
  tell(&story, (control_event){.type = EVENT_STOP, .reason = TR_STOP_INTERRUPT});
  story.now += 40 * SECOND;
  move(&story, 0, 7, TR_PHASE_CHECKPOINT);
  tell(&story, (control_event){.type = EVENT_TICK});
  cr_assert(!did(&story, ACTION_KILL));
}

Test(control, finds_the_rank_that_is_stuck_and_not_those_that_wait_for_it) {
  told story;
  begin(&story);
  move_all(&story, 7);
  story.now += SECOND;
  for (int32_t i = 0; i < RANKS; i++) {
    if (i != 2) move(&story, i, 7, TR_PHASE_COLLECTIVE);
  }
  story.now += 58 * SECOND;
  tell(&story, (control_event){.type = EVENT_TICK});
  cr_assert_eq(story.control.state, CONTROL_RUNNING);
  story.now += 2 * SECOND;
  tell(&story, (control_event){.type = EVENT_TICK});
  cr_assert(did(&story, ACTION_NAME) && did(&story, ACTION_CLEAR));
  cr_assert_eq(story.control.cause.kind, CAUSE_STUCK);
  cr_assert_eq(story.control.cause.rank, 2);
}

Test(control, leaves_a_rank_alone_whose_store_does_not_answer) {
  told story;
  begin(&story);
  for (int32_t i = 0; i < RANKS; i++) move(&story, i, 7, i == 1 ? TR_PHASE_DATA : TR_PHASE_COLLECTIVE);
  story.now += 600 * SECOND;
  tell(&story, (control_event){.type = EVENT_TICK});
  cr_assert_eq(story.control.state, CONTROL_RUNNING);
}

Test(control, has_more_patience_with_an_evaluation) {
  told story;
  begin(&story);
  for (int32_t i = 0; i < RANKS; i++) move(&story, i, 7, TR_PHASE_EVALUATION);
  story.now += 200 * SECOND;
  tell(&story, (control_event){.type = EVENT_TICK});
  cr_assert_eq(story.control.state, CONTROL_RUNNING);
  story.now += 200 * SECOND;
  tell(&story, (control_event){.type = EVENT_TICK});
  cr_assert_eq(story.control.cause.kind, CAUSE_STUCK);
}

Test(control, finds_a_suspended_rank_wherever_it_is) {
  told story;
  begin(&story);
  for (int32_t i = 0; i < RANKS; i++) move(&story, i, 7, i == 1 ? TR_PHASE_DATA : TR_PHASE_COLLECTIVE);
  story.now += 61 * SECOND;
  tell(&story, (control_event){.type = EVENT_BEACON,
                               .rank = 1,
                               .step = 7,
                               .progress_ns = 1000 * SECOND,
                               .phase = TR_PHASE_DATA,
                               .attached = true,
                               .suspended = true});
  tell(&story, (control_event){.type = EVENT_TICK});
  cr_assert_eq(story.control.cause.rank, 1);
}

Test(control, never_judges_a_program_that_does_not_attach) {
  told story;
  begin(&story);
  story.now += 100000 * SECOND;
  tell(&story, (control_event){.type = EVENT_TICK});
  cr_assert_eq(story.control.state, CONTROL_RUNNING);
}

Test(control, ends_when_a_stop_comes_during_the_back_off) {
  told story;
  begin(&story);
  move_all(&story, 7);
  leave(&story, 0, 1, 0);
  bury_rest(&story);
  start(&story, 0);
  move_all(&story, 3);
  leave(&story, 0, 2, 0);
  bury_rest(&story);
  cr_assert_eq(story.control.state, CONTROL_WAITING);
  tell(&story, (control_event){.type = EVENT_STOP, .reason = TR_STOP_INTERRUPT});
  expect_end(&story, "stopped", 130);
}

/* ---- Simulation ---- */

typedef struct throws {
  uint64_t seed, count;
} throws;

static uint32_t draw(throws *dice, uint32_t below) {
  return (uint32_t)tr_rng_below(dice->seed, 0, dice->count++, 0, below);
}

/* A world of workers that do what a seed says; the machine's promises are checked after each event. */
static void simulate(uint64_t seed) {
  told story;
  throws rng = {.seed = seed};
  int64_t steps[RANKS] = {0};
  bool killed = false, restarted = false;
  begin(&story);
  for (int turn = 0; turn < 400 && story.control.state != CONTROL_ENDED; turn++) {
    const uint64_t restarts = story.control.restarts;
    const int32_t rank = (int32_t)draw(&rng, RANKS);
    story.now += draw(&rng, 3) * SECOND;
    switch (draw(&rng, 12)) {
      case 0: tell(&story, (control_event){.type = EVENT_TICK}); break;
      case 1:
        if (draw(&rng, 6) == 0) {
          tell(&story, (control_event){.type = EVENT_STOP, .reason = (tr_stop_reason)(1 + draw(&rng, 3))});
        }
        break;
      case 2:
        if (draw(&rng, 4) == 0) leave(&story, rank, (int)draw(&rng, 4), 0);
        break;
      case 3:
        if (draw(&rng, 4) == 0) leave(&story, rank, 0, draw(&rng, 2) == 0 ? SIGKILL : SIGSEGV);
        break;
      default: move(&story, rank, ++steps[rank], draw(&rng, 3) == 0 ? TR_PHASE_COLLECTIVE : TR_PHASE_COMPUTE); break;
    }
    killed = killed || did(&story, ACTION_KILL) || did(&story, ACTION_CLEAR);
    restarted = did(&story, ACTION_RESTART);
    cr_assert(!restarted || story.control.alive == 0, "seed %llu: restarts over living workers",
              (unsigned long long)seed);
    cr_assert(!restarted || story.control.stop == TR_STOP_NONE, "seed %llu: restarts after a stop",
              (unsigned long long)seed);
    cr_assert_leq(story.control.restarts, 3);
    cr_assert_geq(story.control.restarts, restarts);
    if (restarted) {
      memset(steps, 0, sizeof steps);
      start(&story, 0);
    } else if (killed && story.control.state == CONTROL_CLEARING && draw(&rng, 2) == 0) {
      bury_rest(&story);
      if (did(&story, ACTION_RESTART)) start(&story, 0);
    }
  }
  /* Whatever happened: left alone, it comes to an end. */
  for (int turn = 0; turn < 100 && story.control.state != CONTROL_ENDED; turn++) {
    story.now += 120 * SECOND;
    if (story.control.state == CONTROL_CLEARING) {
      bury_rest(&story);
    } else {
      tell(&story, (control_event){.type = EVENT_STOP, .reason = TR_STOP_INTERRUPT});
    }
    if (did(&story, ACTION_RESTART)) start(&story, 0);
  }
  cr_assert_eq(story.control.state, CONTROL_ENDED, "seed %llu never ends", (unsigned long long)seed);
  const bool zero = story.control.exit_code == 0;
  const bool good = strcmp(story.control.status, "done") == 0 || strcmp(story.control.status, "stopped") == 0;
  cr_assert(!zero || good, "seed %llu: %s with exit code 0", (unsigned long long)seed, story.control.status);
}

Test(control, keeps_its_promises_through_random_stories) {
  for (uint64_t seed = 1; seed <= 3000; seed++) simulate(seed);
}
