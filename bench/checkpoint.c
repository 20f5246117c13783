/* What a checkpoint of 1.5 GB costs a training step, and how soon it is on disk.
 *
 *   checkpoint FOLDER PARAMETERS STEP-MS STEPS        (fp32 values and two moments of so many parameters)
 *
 * All cores compute in every step, in the caches, and then AdamW goes over all arrays, a run at a time, as the trainer does
 * it. First the checkpoint is written with nothing beside it, twice: the first time touches all memory for the first time.
 * Then STEPS steps run undisturbed; a checkpoint is begun and steps run until it is committed; and STEPS more run
 * undisturbed. Lines of JSON say how long the writing took, what the step thread was blocked, and the times of the steps.
 * The upload is spread as the trainer spreads it. */
#include <inttypes.h>
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <trainrun/trainrun.h>
#include <unistd.h>

#include "lib/windows.h"

enum { RUN = 16 * TR_PARAM_BLOCK, ARRAYS = 3, STEPS_MAX = 4096, TENSOR = 7 << 20, WORK = 16 << 10 };

typedef struct bench {
  tr_pool *pool;
  tr_store *store;
  tr_ckpt_saver *saver;
  tr_ckpt_save *save;
  uint64_t count;
  float *arrays[ARRAYS], *gradient;
  uint32_t work_tasks; /* of about a millisecond */
  uint64_t step;
  float sink;
  double steps_s[STEPS_MAX];
  tr_error error;
} bench;

/* Of all threads: says what was spent where other programs disturb the times. */
static double cpu_s(void) {
  struct timespec now;
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
  return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

static double now_s(void) { return (double)bench_now_ns() * 1e-9; }

/* Sums in the caches. */
static void compute(void *self, uint32_t task) {
  float values[WORK / sizeof(float)];
  bench *b = self;
  for (size_t i = 0; i < sizeof values / sizeof *values; i++) values[i] = (float)(i + task);
  for (int round = 0; round < 1000; round++) {
    for (size_t i = 0; i < sizeof values / sizeof *values; i++) values[i] = values[i] * 0.999F + 0.5F;
  }
  if (values[task % 100] < 0) b->sink = values[0];
}

static void update(void *self, uint32_t task) {
  bench *b = self;
  const uint64_t begin = (uint64_t)task * RUN, left = b->count - begin, count = left < RUN ? left : RUN;
  const tr_adamw_args args = {.gradient_scale = 1, .lr = 1e-3F, .beta1 = 0.9F, .beta2 = 0.999F, .eps = 1e-8F};
  tr_adamw_args corrected = args;
  corrected.correction1 = corrected.correction2 = 1;
  for (size_t a = 0; a < ARRAYS && b->save != NULL; a++) {
    tr_ckpt_save_release(b->save, b->arrays[a] + begin, count * sizeof(float));
  }
  tr_flat_adamw(b->arrays[0] + begin, b->gradient + begin, b->arrays[1] + begin, b->arrays[2] + begin, count,
                &corrected);
}

static double run_step(bench *b) {
  const double begun = now_s();
  tr_pool_run(b->pool, b->work_tasks, compute, b);
  tr_pool_run(b->pool, (uint32_t)((b->count + RUN - 1) / RUN), update, b);
  b->step++;
  return now_s() - begun;
}

static void calibrate(bench *b, double step_s) {
  b->work_tasks = 0;
  const double update_s = (run_step(b), run_step(b));
  b->work_tasks = 200;
  const double work_s = run_step(b) - update_s;
  const double wanted_s = step_s > update_s ? step_s - update_s : 0;
  b->work_tasks = (uint32_t)(200 * wanted_s / (work_s > 0 ? work_s : 1e-3)) + 1;
}

/* Tensors of some MB, as a model has them. */
static size_t cut_pieces(const bench *b, tr_piece *pieces, char (*names)[32]) {
  static const char *const prefixes[ARRAYS] = {"", "optimizer.m/", "optimizer.v/"};
  size_t made = 0;
  for (size_t a = 0; a < ARRAYS; a++) {
    for (uint64_t at = 0; at < b->count; at += TENSOR) {
      const uint64_t left = b->count - at;
      snprintf(names[made], 32, "%sw%03" PRIu64, prefixes[a], at / TENSOR);
      tr_piece *piece = &pieces[made];
      *piece = (tr_piece){.name = names[made], .dtype = TR_F32, .ndim = 1, .data = b->arrays[a] + at};
      piece->count = left < TENSOR ? left : TENSOR;
      piece->shape[0] = (int64_t)piece->count;
      made++;
    }
  }
  return made;
}

static tr_ckpt_save_options options_of(const bench *b) {
  return (tr_ckpt_save_options){.struct_bytes = sizeof(tr_ckpt_save_options),
                                .store = b->store,
                                .prefix = "",
                                .step = b->step,
                                .size = 1,
                                .saver = b->saver};
}

static tr_status begin(bench *b, uint64_t spread_ns) {
  static tr_piece pieces[4096];
  static char names[4096][32];
  tr_ckpt_save_options options = options_of(b);
  options.spread_ns = spread_ns;
  return tr_ckpt_save_begin(&options, pieces, cut_pieces(b, pieces, names), &b->save, &b->error);
}

typedef struct committer {
  bench *b;
  uint64_t step;
  pthread_t thread;
  tr_status status;
  tr_error error;
} committer;

static void *commit(void *argument) {
  committer *c = argument;
  tr_ckpt_save_options options = options_of(c->b);
  options.step = c->step;
  const char *record = tr_ckpt_save_record(c->b->save, NULL);
  const tr_ckpt_meta meta = {
      .struct_bytes = sizeof meta, .step = c->step, .world_size = 1, .parent = -1, .metric = NAN};
  c->status = tr_ckpt_commit(&options, &meta, &record, 1, &c->error);
  return NULL;
}

static void print_list(const char *name, const double *seconds, size_t count) {
  printf(", \"%s\": [", name);
  for (size_t i = 0; i < count; i++) printf("%s%.6f", i > 0 ? ", " : "", seconds[i]);
  printf("]");
}

static tr_status beside_training(bench *b, size_t steps) {
  const double bytes = (double)b->count * ARRAYS * sizeof(float);
  const double cores = (double)tr_pool_threads(b->pool);
  committer c = {.b = b};
  size_t before = 0, during = 0;
  const double cpu_before = cpu_s();
  for (; before < steps; before++) b->steps_s[before] = run_step(b);
  const double begun = now_s(), cpu_begun = cpu_s();
  c.step = b->step;
  TR_TRY(begin(b, (uint64_t)(bytes * 0.6 / (0.015 * cores))));
  const double begin_s = now_s() - begun;
  bool done = false;
  while (!done && steps + during < STEPS_MAX) {
    b->steps_s[steps + during++] = run_step(b);
    TR_TRY(tr_ckpt_save_poll(b->save, &done, &b->error));
  }
  const double uploaded_s = now_s() - begun;
  TR_TRY(tr_ckpt_save_wait(b->save, &b->error));
  pthread_create(&c.thread, NULL, commit, &c);
  if (steps + during < STEPS_MAX) b->steps_s[steps + during++] = run_step(b);
  pthread_join(c.thread, NULL);
  const double cpu_ended = cpu_s();
  const double blocked_s = begin_s + (double)tr_ckpt_save_blocked_ns(b->save) * 1e-9 / cores;
  tr_ckpt_save_destroy(b->save);
  b->save = NULL;
  printf("{\"name\": \"beside training\", \"bytes\": %.0f, \"blocked_s\": %.6f, \"uploaded_s\": %.6f", bytes, blocked_s,
         uploaded_s);
  printf(", \"step_cpu_s\": %.6f, \"step_cpu_during_s\": %.6f", (cpu_begun - cpu_before) / (double)before,
         (cpu_ended - cpu_begun) / (double)during);
  print_list("before_s", b->steps_s, before);
  print_list("during_s", b->steps_s + steps, during);
  for (size_t i = 0; i < steps; i++) b->steps_s[i] = run_step(b);
  print_list("after_s", b->steps_s, steps);
  printf("}\n");
  if (c.status != TR_OK) b->error = c.error;
  return c.status;
}

static tr_status alone(bench *b) {
  committer c = {.b = b, .step = ++b->step};
  const double begun = now_s();
  TR_TRY(begin(b, 0));
  TR_TRY(tr_ckpt_save_wait(b->save, &b->error));
  commit(&c);
  printf("{\"name\": \"alone\", \"durable_s\": %.6f}\n", now_s() - begun);
  tr_ckpt_save_destroy(b->save);
  b->save = NULL;
  if (c.status != TR_OK) b->error = c.error;
  return c.status;
}

static tr_status open_bench(bench *b, const char *folder) {
  const tr_store_file_options store = {.struct_bytes = sizeof store, .root = folder};
  TR_TRY(tr_pool_create(NULL, (uint32_t)sysconf(_SC_NPROCESSORS_ONLN), &b->pool, &b->error));
  TR_TRY(tr_store_file_open(&store, &b->store, &b->error));
  TR_TRY(tr_ckpt_saver_create(NULL, b->count * ARRAYS * sizeof(float) + (4u << 20), &b->saver, &b->error));
  for (size_t a = 0; a <= ARRAYS; a++) {
    float *array = tr_alloc_aligned(NULL, b->count * sizeof(float), 64);
    if (array == NULL) return tr_fail_memory(&b->error, "the parameters", b->count * sizeof(float));
    for (uint64_t i = 0; i < b->count; i++) array[i] = (float)(i % 1000) * 1e-3F;
    if (a < ARRAYS) {
      b->arrays[a] = array;
    } else {
      b->gradient = array;
    }
  }
  return TR_OK;
}

static void close_bench(bench *b) {
  tr_ckpt_save_destroy(b->save);
  tr_ckpt_saver_destroy(b->saver);
  tr_store_destroy(b->store);
  for (size_t a = 0; a <= ARRAYS; a++) {
    float *array = a < ARRAYS ? b->arrays[a] : b->gradient;
    if (array != NULL) tr_free_aligned(NULL, array, b->count * sizeof(float));
  }
  tr_pool_destroy(b->pool);
}

int main(int argc, char **argv) {
  if (argc != 5) {
    fprintf(stderr, "usage: checkpoint FOLDER PARAMETERS STEP-MS STEPS\n");
    return 2;
  }
  const size_t steps = strtoul(argv[4], NULL, 10);
  static bench b;
  b.count = strtoul(argv[2], NULL, 10);
  tr_status status = steps == 0 || steps >= STEPS_MAX / 2 || b.count == 0
                         ? tr_fail(&b.error, TR_ERR_INVALID, "PARAMETERS or STEPS makes no sense")
                         : open_bench(&b, argv[1]);
  if (status == TR_OK) {
    calibrate(&b, strtod(argv[3], NULL) * 1e-3);
    status = alone(&b);
  }
  if (status == TR_OK) status = alone(&b);
  if (status == TR_OK) status = beside_training(&b, steps);
  if (status != TR_OK) fprintf(stderr, "checkpoint: %s\n", b.error.message);
  close_bench(&b);
  return status == TR_OK ? 0 : 1;
}
