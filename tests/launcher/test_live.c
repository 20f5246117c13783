/* The live line, from beacons and records made up. */
#include <criterion/criterion.h>
#include <launcher/live.h>
#include <string.h>

#define SECOND 1000000000ULL

static void record(tr_live *live, const char *type, const char *text) { live_record(live, type, text, strlen(text)); }

static const char *text_at(const tr_live *live, uint64_t now, bool plain) {
  static char text[256];
  live_text(live, now, plain, 200, text, sizeof text);
  return text;
}

static void step_on(tr_live *live, tr_beacon beacons[2], uint64_t step, uint64_t now, tr_phase second) {
  beacons[0].step = beacons[1].step = step;
  beacons[0].samples = beacons[1].samples = step * 100;
  beacons[0].phase = TR_PHASE_COMPUTE;
  beacons[1].phase = (uint32_t)second;
  live_board(live, beacons, 2, now);
}

Test(live, says_what_goes_on_before_the_first_step) {
  tr_live live;
  tr_beacon beacons[2] = {{.phase = TR_PHASE_INDEXING, .waits_for = -1}, {.phase = TR_PHASE_INDEXING, .waits_for = -1}};
  live_init(&live, 2);
  live_board(&live, beacons, 2, SECOND);
  cr_assert_str_eq(text_at(&live, SECOND, false), "indexing the data");
}

Test(live, shows_step_epoch_loss_rate_and_time_left) {
  tr_live live;
  tr_beacon beacons[2] = {{.waits_for = -1}, {.waits_for = -1}};
  live_init(&live, 2);
  live.total_steps = 100;
  for (uint64_t i = 1; i <= 50; i++) step_on(&live, beacons, i, i * SECOND, TR_PHASE_COMPUTE);
  record(&live, "metrics", "{\"step\": 50, \"epoch\": 1, \"loss\": 0.25, \"samples\": 5000}");
  cr_assert_str_eq(text_at(&live, 50 * SECOND, false), "step 50/100  epoch 1.00  loss 0.2500  100 samples/s  ETA 0:50");
}

Test(live, names_the_largest_stall) {
  tr_live live;
  tr_beacon beacons[2] = {{.waits_for = -1}, {.waits_for = -1}};
  live_init(&live, 2);
  for (uint64_t i = 1; i <= 100; i++) step_on(&live, beacons, i, i * SECOND, TR_PHASE_DATA);
  cr_assert(strstr(text_at(&live, 100 * SECOND, true), "50% on data") != NULL, "%s",
            text_at(&live, 100 * SECOND, true));
  beacons[1].waits_for = 0;
  for (uint64_t i = 100; i <= 300; i++) step_on(&live, beacons, i, i * SECOND, TR_PHASE_COLLECTIVE);
  cr_assert(strstr(text_at(&live, 300 * SECOND, true), "50% on rank 0") != NULL, "%s",
            text_at(&live, 300 * SECOND, true));
}

Test(live, takes_the_length_of_the_run_from_a_record) {
  tr_live live;
  tr_beacon beacons[2] = {{.waits_for = -1}, {.waits_for = -1}};
  live_init(&live, 2);
  record(&live, "event", "{\"event\": \"start\", \"total_steps\": 938}");
  step_on(&live, beacons, 1, SECOND, TR_PHASE_COMPUTE);
  cr_assert(strstr(text_at(&live, SECOND, false), "step 1/938") != NULL);
}

Test(live, fits_into_a_narrow_terminal) {
  tr_live live;
  tr_beacon beacons[2] = {{.waits_for = -1}, {.waits_for = -1}};
  char text[256];
  live_init(&live, 2);
  step_on(&live, beacons, 12345, SECOND, TR_PHASE_COMPUTE);
  record(&live, "metrics", "{\"step\": 12345, \"epoch\": 1, \"loss\": 0.25}");
  live_text(&live, SECOND, false, 20, text, sizeof text);
  cr_assert_lt(strlen(text), 20);
}

Test(live, survives_records_that_make_no_sense) {
  tr_live live;
  live_init(&live, 2);
  record(&live, "metrics", "{\"step\": \"x\", \"loss\": null, \"metrics\": []}");
  record(&live, "metrics", "[1, 2");
  record(&live, "event", "3");
  cr_assert_str_eq(text_at(&live, SECOND, false), "starting");
}
