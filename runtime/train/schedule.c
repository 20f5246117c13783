/* When things happen. Pure functions of the job and of counts. */
#include "schedule.h"

#include <math.h>
#include <string.h>

tr_length tr_length_of(const tr_config *config) {
  tr_length length = {0};
  if (tr_config_is_set(config, "train.steps")) {
    length.steps = (uint64_t)tr_config_integer(config, "train.steps");
  } else if (tr_config_is_set(config, "train.samples")) {
    length.samples = (uint64_t)tr_config_integer(config, "train.samples");
  } else if (tr_config_is_set(config, "train.tokens")) {
    length.tokens = (uint64_t)tr_config_integer(config, "train.tokens");
  } else if (tr_config_is_set(config, "train.time")) {
    length.time_ns = tr_config_duration_ns(config, "train.time");
  } else if (tr_config_is_set(config, "train.epochs")) {
    length.epochs = (uint64_t)tr_config_integer(config, "train.epochs");
  } else {
    length.epochs = 1;
  }
  return length;
}

/* Steps until `samples` have been delivered: the last batch of an epoch may be short. */
static uint64_t steps_for(uint64_t wanted, uint64_t batches, uint64_t samples, uint64_t batch_size) {
  const uint64_t epochs = wanted / samples, rest = wanted % samples;
  return epochs * batches + (rest + batch_size - 1) / batch_size;
}

uint64_t tr_length_steps(const tr_length *length, uint64_t batches, uint64_t samples, uint64_t batch_size,
                         uint64_t tokens_per_sample) {
  if (length->steps > 0) return length->steps;
  if (length->epochs > 0) return length->epochs * batches;
  if (length->samples > 0) return steps_for(length->samples, batches, samples, batch_size);
  if (length->tokens > 0) {
    const uint64_t each = tokens_per_sample > 0 ? tokens_per_sample : 1;
    return steps_for((length->tokens + each - 1) / each, batches, samples, batch_size);
  }
  return 0;
}

static bool crossed(uint64_t before, uint64_t now, uint64_t every) { return every > 0 && now / every > before / every; }

bool tr_every_due(const tr_every *every, uint64_t step, uint64_t samples_before, uint64_t samples, uint64_t batches,
                  uint64_t elapsed_before_ns, uint64_t elapsed_ns) {
  if (step == 0) return false;
  if (crossed(step - 1, step, every->steps)) return true;
  if (crossed(samples_before, samples, every->samples)) return true;
  if (crossed(elapsed_before_ns, elapsed_ns, every->time_ns)) return true;
  if (every->epochs > 0 && batches > 0) {
    /* Whole steps: the first whose end lies at or past a multiple of the period. */
    const double period = every->epochs * (double)batches;
    return floor((double)step / period + 1e-9) > floor((double)(step - 1) / period + 1e-9);
  }
  return false;
}

static tr_status warmup_steps(const char *text, uint64_t total, uint64_t *steps, tr_error *error) {
  char number[64];
  const size_t digits = strspn(text, "0123456789.");
  double value = 0;
  if (digits == 0 || digits >= sizeof number) return tr_fail(error, TR_ERR_CONFIG, "optimizer.warmup '%s'", text);
  memcpy(number, text, digits);
  number[digits] = '\0';
  if (!tr_parse_real(number, &value)) return tr_fail(error, TR_ERR_CONFIG, "optimizer.warmup '%s'", text);
  if (text[digits] != '%') {
    *steps = (uint64_t)value;
    return TR_OK;
  }
  if (total == 0) {
    return tr_fail(error, TR_ERR_CONFIG,
                   "optimizer.warmup '%s' is a part of a run whose steps are not known; give steps", text);
  }
  *steps = (uint64_t)(value / 100 * (double)total + 0.5);
  return TR_OK;
}

tr_status tr_lr_schedule_of(const tr_config *config, uint64_t run_steps, tr_lr_schedule *schedule, tr_error *error) {
  const char *kind = tr_config_text(config, "optimizer.schedule");
  const char *warmup = tr_config_text(config, "optimizer.warmup");
  tr_lr_schedule made = {0};
  made.lr = tr_config_real(config, "optimizer.lr");
  made.min_lr = tr_config_real(config, "optimizer.min-lr");
  made.kind = strcmp(kind, "linear") == 0 ? 1 : strcmp(kind, "cosine") == 0 ? 2 : 0;
  made.total_steps = tr_config_is_set(config, "optimizer.schedule-steps")
                         ? (uint64_t)tr_config_integer(config, "optimizer.schedule-steps")
                         : run_steps;
  if (made.kind != 0 && made.total_steps == 0) {
    return tr_fail(error, TR_ERR_CONFIG,
                   "optimizer.schedule '%s' needs optimizer.schedule-steps in a run limited by time", kind);
  }
  if (warmup != NULL) TR_TRY(warmup_steps(warmup, made.total_steps, &made.warmup_steps, error));
  *schedule = made;
  return TR_OK;
}

double tr_lr_at(const tr_lr_schedule *schedule, uint64_t step) {
  if (step < schedule->warmup_steps) return schedule->lr * (double)(step + 1) / (double)schedule->warmup_steps;
  if (schedule->kind == 0) return schedule->lr;
  if (step >= schedule->total_steps) return schedule->min_lr;
  const double done = (double)(step - schedule->warmup_steps) /
                      (double)(schedule->total_steps - schedule->warmup_steps);
  const double left = schedule->kind == 1 ? 1 - done : 0.5 * (1 + cos(3.14159265358979323846 * done));
  return schedule->min_lr + (schedule->lr - schedule->min_lr) * left;
}
