/* A worker that keeps the launcher's contract (worker.h) and trains nothing: it steps, shows its progress on the board,
 * sends records, honours a stop, and fails as told.
 *
 *   fake_worker [steps=N] [step-ms=M] [fail-rank=R] [fail-step=S] [fail-code=C | fail-signal=X] [fail-once=FILE]
 *               [error=STATUS] [hang=PHASE] [deaf=1] [silent=1]
 *
 * fail-once: fails only where FILE is not there yet, and makes it. error: sends a message before it fails. hang: in the
 * place of failing, stays for ever in that phase, the others in a collective. deaf: does not look at the stop word. silent:
 * never attaches. */
#include <trainrun/collective.h>
#include <trainrun/worker.h>

#include <fcntl.h>
#include <jansson.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef struct fake_worker {
  int argc;
  char **argv;
  long rank, size, control;
  tr_board board;
} fake_worker;

static const char *text_of(const fake_worker *fake, const char *name, const char *fallback) {
  const size_t length = strlen(name);
  for (int i = 1; i < fake->argc; i++) {
    if (strncmp(fake->argv[i], name, length) == 0 && fake->argv[i][length] == '=') return fake->argv[i] + length + 1;
  }
  return fallback;
}

static long number_of(const fake_worker *fake, const char *name, long fallback) {
  const char *text = text_of(fake, name, NULL);
  return text != NULL ? strtol(text, NULL, 10) : fallback;
}

static long environment_number(const char *name) {
  const char *text = getenv(name);
  if (text == NULL) {
    fprintf(stderr, "fake_worker: %s is missing\n", name);
    exit(78);
  }
  return strtol(text, NULL, 10);
}

static void attach(fake_worker *fake) {
  tr_error error;
  const int segment = (int)environment_number(TR_WORKER_SEGMENT_FD);
  fake->rank = environment_number(TR_WORKER_RANK);
  fake->size = environment_number(TR_WORKER_WORLD_SIZE);
  fake->control = environment_number(TR_WORKER_CONTROL_FD);
  if (tr_comm_segment_map(segment, (int32_t)fake->size, &fake->board, &error) != TR_OK) {
    fprintf(stderr, "fake_worker: %s\n", error.message);
    exit(78);
  }
}

static long resume_step(void) {
  char text[4096];
  const ssize_t got = pread((int)environment_number(TR_WORKER_RUN_FD), text, sizeof text, 0);
  json_t *root = got > 0 ? json_loadb(text, (size_t)got, 0, NULL) : NULL;
  if (!json_is_object(root)) exit(78);
  const long step = (long)json_integer_value(json_object_get(root, "resume"));
  json_decref(root);
  return step;
}

static void show(const fake_worker *fake, uint64_t step, tr_phase phase) {
  tr_beacon *beacon = &fake->board.beacons[fake->rank];
  __atomic_store_n(&beacon->step, step, __ATOMIC_RELAXED);
  __atomic_store_n(&beacon->samples, step * 8, __ATOMIC_RELAXED);
  __atomic_store_n(&beacon->phase, (uint32_t)phase, __ATOMIC_RELAXED);
  __atomic_store_n(&beacon->pid, (uint32_t)getpid(), __ATOMIC_RELAXED);
  __atomic_store_n(&beacon->progress_ns, tr_clock_now_ns(NULL), __ATOMIC_RELAXED);
}

static void say(const fake_worker *fake, const char *line) {
  if (write((int)fake->control, line, strlen(line)) < 0) exit(1);
}

static void report(const fake_worker *fake, uint64_t step) {
  char line[256];
  if (fake->rank != 0) return;
  snprintf(line, sizeof line,
           "{\"type\": \"metrics\", \"record\": {\"step\": %llu, \"epoch\": 0, \"samples\": %llu, \"loss\": %.3f}}\n",
           (unsigned long long)step, (unsigned long long)step * 8, 1.0 / (double)(step + 1));
  say(fake, line);
}

static int finish(const fake_worker *fake, uint64_t step, uint32_t stop) {
  char line[256];
  show(fake, step, TR_PHASE_ENDING);
  snprintf(line, sizeof line,
           "{\"type\": \"result\", \"record\": {\"steps\": %llu, \"samples\": %llu, \"loss\": 0.5}}\n",
           (unsigned long long)step, (unsigned long long)step * 8);
  if (fake->rank == 0) say(fake, line);
  return stop == TR_STOP_INTERRUPT ? 130 : stop == TR_STOP_PREEMPT ? 75 : 0;
}

static void fail(const fake_worker *fake, uint64_t step) {
  const char *status = text_of(fake, "error", NULL), *once = text_of(fake, "fail-once", NULL);
  const long number = number_of(fake, "fail-signal", 0), code = number_of(fake, "fail-code", 1);
  char line[256];
  const bool culprit = fake->rank == number_of(fake, "fail-rank", 0);
  if (!culprit && text_of(fake, "hang", NULL) == NULL) return;
  if (once != NULL && open(once, O_CREAT | O_EXCL | O_WRONLY, 0600) < 0) return;
  if (text_of(fake, "hang", NULL) != NULL) {
    show(fake, step, culprit ? (tr_phase)number_of(fake, "hang", TR_PHASE_COMPUTE) : TR_PHASE_COLLECTIVE);
    for (;;) pause();
  }
  if (status != NULL) {
    snprintf(line, sizeof line,
             "{\"type\": \"error\", \"rank\": %ld, \"status\": \"%s\", \"message\": \"shard 7 at byte 512\", "
             "\"exit_code\": %ld}\n",
             fake->rank, status, code);
    say(fake, line);
  }
  if (number > 0) raise((int)number);
  exit((int)code);
}

int main(int argc, char **argv) {
  fake_worker fake = {.argc = argc, .argv = argv};
  const long steps = number_of(&fake, "steps", 10), step_ms = number_of(&fake, "step-ms", 5);
  const long fail_step = number_of(&fake, "fail-step", -1);
  attach(&fake);
  if (number_of(&fake, "silent", 0) != 0) {
    tr_clock_sleep_ns(NULL, (uint64_t)(steps * step_ms) * 1000000);
    return 0;
  }
  const long resumed = resume_step();
  show(&fake, 0, TR_PHASE_COMPUTE); /* joined before it says so */
  printf("rank %ld of %ld from step %ld\n", fake.rank, fake.size, resumed);
  fflush(stdout);
  for (long step = 0; step < steps; step++) {
    show(&fake, (uint64_t)step, TR_PHASE_COMPUTE);
    if (step == fail_step) fail(&fake, (uint64_t)step);
    const uint32_t stop = __atomic_load_n(fake.board.stop, __ATOMIC_ACQUIRE);
    if (stop != 0 && number_of(&fake, "deaf", 0) == 0) return finish(&fake, (uint64_t)step, stop);
    tr_clock_sleep_ns(NULL, (uint64_t)step_ms * 1000000);
    report(&fake, (uint64_t)step + 1);
  }
  return finish(&fake, (uint64_t)steps, 0);
}
