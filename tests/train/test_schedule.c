/* When things happen: lengths, periods and learning rates. */
#include <criterion/criterion.h>
#include <math.h>
#include <string.h>

#include "schedule.h"

static tr_config *job(const char *text) {
  const tr_config_source source = {
      .struct_bytes = sizeof source, .text = text, .text_bytes = strlen(text), .name = "job.toml"};
  tr_config *config = NULL;
  tr_error error = {.status = TR_OK};
  cr_assert_eq(tr_config_load(&source, NULL, &config, &error), TR_OK, "%s", error.message);
  return config;
}

Test(length, is_one_epoch_when_the_job_says_nothing) {
  tr_config *config = job("program = 'p'\n");
  const tr_length length = tr_length_of(config);
  cr_expect_eq(length.epochs, 1);
  cr_expect_eq(tr_length_steps(&length, 469, 60000, 128, 1), 469);
  tr_config_destroy(config);
}

Test(length, counts_samples_over_short_last_batches) {
  /* 10 samples in batches of 4: 4 + 4 + 2 an epoch. */
  for (uint64_t wanted = 1; wanted <= 40; wanted++) {
    const tr_length length = {.samples = wanted};
    uint64_t steps = 0, delivered = 0;
    while (delivered < wanted) {
      delivered += steps % 3 == 2 ? 2 : 4;
      steps++;
    }
    cr_expect_eq(tr_length_steps(&length, 3, 10, 4, 1), steps, "%llu samples", (unsigned long long)wanted);
  }
}

Test(length, by_time_has_no_steps) {
  tr_config *config = job("program = 'p'\n[train]\ntime = '90s'\n");
  const tr_length length = tr_length_of(config);
  cr_expect_eq(length.time_ns, 90000000000ull);
  cr_expect_eq(tr_length_steps(&length, 3, 10, 4, 1), 0);
  tr_config_destroy(config);
}

static uint64_t count_due(const tr_every *every, uint64_t steps, uint64_t batches, uint64_t last[1]) {
  uint64_t due = 0;
  for (uint64_t step = 1; step <= steps; step++) {
    if (!tr_every_due(every, step, (step - 1) * 10, step * 10, batches, (step - 1) * 1000, step * 1000)) continue;
    due++;
    last[0] = step;
  }
  return due;
}

Test(every, comes_once_a_period_whatever_its_unit) {
  uint64_t last[1] = {0};
  cr_expect_eq(count_due(&(tr_every){.steps = 7}, 100, 25, last), 14);
  cr_expect_eq(last[0], 98);
  cr_expect_eq(count_due(&(tr_every){.samples = 35}, 100, 25, last), 28);
  cr_expect_eq(count_due(&(tr_every){.time_ns = 2500}, 100, 25, last), 40);
  cr_expect_eq(count_due(&(tr_every){.epochs = 1}, 100, 25, last), 4);
  cr_expect_eq(last[0], 100);
  cr_expect_eq(count_due(&(tr_every){.epochs = 0.5}, 100, 25, last), 8);
  cr_expect_eq(count_due(&(tr_every){0}, 100, 25, last), 0);
}

Test(lr, follows_warm_up_and_cosine) {
  tr_config *config = job(
      "program = 'p'\n[optimizer]\nlr = 0.5\nschedule = 'cosine'\nwarmup = '10 steps'\nmin-lr = 0.1\n");
  tr_lr_schedule schedule;
  cr_assert_eq(tr_lr_schedule_of(config, 110, &schedule, NULL), TR_OK);
  cr_expect_float_eq(tr_lr_at(&schedule, 0), 0.05, 1e-12);
  cr_expect_float_eq(tr_lr_at(&schedule, 9), 0.5, 1e-12);
  cr_expect_float_eq(tr_lr_at(&schedule, 10), 0.5, 1e-12);
  cr_expect_float_eq(tr_lr_at(&schedule, 60), 0.3, 1e-12);
  cr_expect_float_eq(tr_lr_at(&schedule, 110), 0.1, 1e-12);
  cr_expect_float_eq(tr_lr_at(&schedule, 1000), 0.1, 1e-12);
  for (uint64_t step = 11; step < 120; step++) cr_expect_leq(tr_lr_at(&schedule, step), tr_lr_at(&schedule, step - 1));
  tr_config_destroy(config);
}

Test(lr, takes_a_warm_up_in_percent_of_the_run) {
  tr_config *config = job("program = 'p'\n[optimizer]\nlr = 1.0\nschedule = 'linear'\nwarmup = '3%'\n");
  tr_lr_schedule schedule;
  cr_assert_eq(tr_lr_schedule_of(config, 1000, &schedule, NULL), TR_OK);
  cr_expect_eq(schedule.warmup_steps, 30);
  cr_expect_float_eq(tr_lr_at(&schedule, 515), 0.5, 1e-12);
  tr_config_destroy(config);
}

Test(lr, refuses_a_falling_schedule_without_an_end) {
  tr_config *config = job("program = 'p'\n[train]\ntime = '1m'\n[optimizer]\nschedule = 'linear'\n");
  tr_lr_schedule schedule;
  tr_error error = {.status = TR_OK};
  cr_expect_eq(tr_lr_schedule_of(config, 0, &schedule, &error), TR_ERR_CONFIG);
  cr_expect_not_null(strstr(error.message, "schedule-steps"), "%s", error.message);
  tr_config_destroy(config);
}
