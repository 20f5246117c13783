/* The live line. See live.h. */
#include "live.h"

#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

/* A sample's weight halves after about fifteen newer ones: three seconds on a terminal. */
#define DECAY       0.955
#define SHOWN_SHARE 0.05

void live_init(tr_live *live, int32_t size) {
  memset(live, 0, sizeof *live);
  live->size = size;
  live->epoch = -1;
  live->rate = live->loss = live->metric = NAN;
}

void live_restart(tr_live *live) {
  live->first_step = live->first_ns = live->rate_samples = live->rate_ns = 0;
  live->step = live->samples = 0;
  live->phase = TR_PHASE_STARTING;
  live->rate = NAN;
  memset(live->share, 0, sizeof live->share);
  memset(live->blame, 0, sizeof live->blame);
}

/* ---- Records ---- */

static bool number(const json_t *object, const char *key, double *value) {
  const json_t *member = json_object_get(object, key);
  if (!json_is_number(member)) return false;
  *value = json_number_value(member);
  return true;
}

static void take_evaluation(tr_live *live, const json_t *metrics) {
  const char *name = "accuracy";
  double value = 0;
  if (!number(metrics, name, &value)) {
    name = "loss";
    if (!number(metrics, name, &value)) return;
  }
  snprintf(live->metric_name, sizeof live->metric_name, "%s", name);
  live->metric = value;
}

static void take_metrics(tr_live *live, const json_t *record) {
  double value = 0;
  const json_t *metrics = json_object_get(record, "metrics");
  if (json_is_object(metrics)) {
    take_evaluation(live, metrics);
    return;
  }
  if (number(record, "step", &value)) live->record_step = (uint64_t)value;
  if (number(record, "epoch", &value)) live->epoch = value;
  if (number(record, "loss", &value)) live->loss = value;
}

/* Any record of rank 0 may say how long the run is. */
static void take_length(tr_live *live, const json_t *record) {
  static const char *const keys[] = {"total_steps", "steps_total", "of_steps"};
  double value = 0;
  for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
    if (number(record, keys[i], &value) && value > 0) live->total_steps = (uint64_t)value;
  }
}

void live_record(tr_live *live, const char *type, const char *record, size_t bytes) {
  json_t *root = json_loadb(record, bytes, 0, NULL);
  if (json_is_object(root)) {
    take_length(live, root);
    if (strcmp(type, "metrics") == 0) take_metrics(live, root);
  }
  json_decref(root);
}

/* ---- The board ---- */

static void take_rate(tr_live *live, uint64_t now_ns) {
  if (live->rate_ns == 0 || live->samples < live->rate_samples) {
    live->rate_ns = now_ns;
    live->rate_samples = live->samples;
    return;
  }
  const double seconds = (double)(now_ns - live->rate_ns) / 1e9;
  if (seconds < 1 || live->samples == live->rate_samples) return;
  const double rate = (double)(live->samples - live->rate_samples) / seconds;
  live->rate = isnan(live->rate) ? rate : 0.7 * live->rate + 0.3 * rate;
  live->rate_ns = now_ns;
  live->rate_samples = live->samples;
}

void live_board(tr_live *live, const tr_beacon *beacons, int32_t size, uint64_t now_ns) {
  uint32_t slowest = TR_PHASE_ENDING;
  for (int32_t i = 0; i < LIVE_PHASES; i++) live->share[i] *= DECAY;
  for (int32_t i = 0; i < size && i < LIVE_RANKS_MAX; i++) live->blame[i] *= DECAY;
  for (int32_t i = 0; i < size; i++) {
    const uint64_t step = __atomic_load_n(&beacons[i].step, __ATOMIC_RELAXED);
    const uint64_t samples = __atomic_load_n(&beacons[i].samples, __ATOMIC_RELAXED);
    const uint32_t phase = __atomic_load_n(&beacons[i].phase, __ATOMIC_RELAXED);
    const int32_t waits_for = __atomic_load_n(&beacons[i].waits_for, __ATOMIC_RELAXED);
    if (step > live->step) live->step = step;
    if (samples > live->samples) live->samples = samples;
    if (phase < slowest) slowest = phase;
    if (phase < LIVE_PHASES) live->share[phase] += (1 - DECAY) / size;
    if (waits_for >= 0 && waits_for < size && waits_for < LIVE_RANKS_MAX) live->blame[waits_for] += (1 - DECAY) / size;
  }
  live->phase = slowest;
  if (live->first_ns == 0 && live->step > 0) {
    live->first_ns = now_ns;
    live->first_step = live->step;
  }
  if (live->step > 0) take_rate(live, now_ns);
}

/* ---- The text ---- */

typedef struct live_line {
  char *text;
  size_t bytes, used, columns;
  const char *between;
} live_line;

/* A part that does not fit any more is left out whole. */
static void add(live_line *line, const char *format, ...) TR_PRINTF(2, 3);
static void add(live_line *line, const char *format, ...) {
  char part[128];
  va_list arguments;
  va_start(arguments, format);
  const int length = vsnprintf(part, sizeof part, format, arguments);
  va_end(arguments);
  const size_t gap = line->used > 0 ? strlen(line->between) : 0;
  if (length < 0 || line->used + gap + (size_t)length >= line->bytes) return;
  if (line->used + gap + (size_t)length >= line->columns) return;
  line->used += (size_t)snprintf(line->text + line->used, line->bytes - line->used, "%s%s",
                                 gap > 0 ? line->between : "", part);
}

static void add_rate(live_line *line, double rate) {
  if (isnan(rate)) return;
  if (rate >= 10000) {
    add(line, "%.1fk samples/s", rate / 1000);
  } else {
    add(line, "%.*f samples/s", rate < 100 ? 1 : 0, rate);
  }
}

static void add_time_left(live_line *line, const tr_live *live, uint64_t now_ns) {
  if (live->total_steps == 0 || live->first_ns == 0 || live->step <= live->first_step ||
      live->step >= live->total_steps) {
    return;
  }
  const double a_step = (double)(now_ns - live->first_ns) / (double)(live->step - live->first_step);
  const uint64_t left = (uint64_t)(a_step * (double)(live->total_steps - live->step) / 1e9 + 0.5);
  if (left >= 3600) {
    add(line, "ETA %llu:%02llu:%02llu", (unsigned long long)(left / 3600), (unsigned long long)(left / 60 % 60),
        (unsigned long long)(left % 60));
  } else {
    add(line, "ETA %llu:%02llu", (unsigned long long)(left / 60), (unsigned long long)(left % 60));
  }
}

static void add_stall(live_line *line, const tr_live *live) {
  static const struct {
    tr_phase phase;
    const char *words;
  } stalls[] = {{TR_PHASE_DATA, "data"}, {TR_PHASE_COLLECTIVE, "all-reduce"}, {TR_PHASE_CHECKPOINT, "the checkpoint"}};
  size_t worst = 0;
  for (size_t i = 1; i < sizeof stalls / sizeof *stalls; i++) {
    if (live->share[stalls[i].phase] > live->share[stalls[worst].phase]) worst = i;
  }
  double all = 0;
  for (int32_t i = 0; i < LIVE_PHASES; i++) all += live->share[i];
  const double share = all > 0 ? live->share[stalls[worst].phase] / all : 0;
  if (share < SHOWN_SHARE) return;
  if (stalls[worst].phase != TR_PHASE_COLLECTIVE) {
    add(line, "%.0f%% on %s", 100 * share, stalls[worst].words);
    return;
  }
  int32_t blamed = 0;
  for (int32_t i = 1; i < live->size && i < LIVE_RANKS_MAX; i++) {
    if (live->blame[i] > live->blame[blamed]) blamed = i;
  }
  if (live->blame[blamed] > 0.01) {
    add(line, "%.0f%% on rank %d", 100 * share, blamed);
  } else {
    add(line, "%.0f%% on all-reduce", 100 * share);
  }
}

static bool is_before_steps(const tr_live *live) {
  return live->phase <= TR_PHASE_LOADING || (live->step == 0 && live->record_step == 0);
}

void live_text(const tr_live *live, uint64_t now_ns, bool plain, int columns, char *text, size_t bytes) {
  live_line line = {
      .text = text, .bytes = bytes, .columns = columns > 0 ? (size_t)columns : bytes, .between = plain ? ", " : "  "};
  text[0] = '\0';
  if (is_before_steps(live)) {
    static const char *const words[] = {"starting", "indexing the data", "loading the checkpoint"};
    if (live->phase <= TR_PHASE_LOADING && !(plain && live->phase == TR_PHASE_STARTING))
      add(&line, "%s", words[live->phase]);
    return;
  }
  const uint64_t step = live->step > live->record_step ? live->step : live->record_step;
  if (live->total_steps > 0) {
    add(&line, "step %llu/%llu", (unsigned long long)step, (unsigned long long)live->total_steps);
  } else {
    add(&line, "step %llu", (unsigned long long)step);
  }
  if (live->epoch >= 0) add(&line, "epoch %.2f", live->epoch);
  if (!isnan(live->loss)) add(&line, "loss %.4f", live->loss);
  if (!isnan(live->metric)) add(&line, "eval %s %.4f", live->metric_name, live->metric);
  if (live->phase == TR_PHASE_EVALUATION) {
    add(&line, "evaluating");
  } else if (live->phase == TR_PHASE_ENDING) {
    add(&line, "ending");
  } else {
    add_rate(&line, live->rate);
    add_time_left(&line, live, now_ns);
    add_stall(&line, live);
  }
}
