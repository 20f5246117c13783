/* Clocks and the text of times. */
#include <criterion/criterion.h>
#include <trainrun/clock.h>

Test(clock, the_systems_clock_goes_forward_and_sleeps) {
  const tr_clock *clocks[] = {NULL, tr_clock_system()};
  for (int i = 0; i < 2; i++) {
    const uint64_t before = tr_clock_now_ns(clocks[i]);
    tr_clock_sleep_ns(clocks[i], 2000000);
    cr_assert_geq(tr_clock_now_ns(clocks[i]) - before, 2000000);
    cr_assert_gt(tr_clock_wall_ns(clocks[i]), INT64_C(1600000000000000000));
  }
}

Test(clock, a_manual_clock_moves_only_when_told) {
  tr_manual_clock manual;
  tr_manual_clock_init(&manual, 500);
  cr_assert_eq(tr_clock_now_ns(&manual.clock), 500);
  cr_assert_eq(tr_clock_now_ns(&manual.clock), 500);
  tr_clock_sleep_ns(&manual.clock, UINT64_C(3600000000000));
  cr_assert_eq(tr_clock_now_ns(&manual.clock), UINT64_C(3600000000500));
  manual.wall_offset = 1000;
  manual.now = 7;
  cr_assert_eq(tr_clock_wall_ns(&manual.clock), 1007);
}

Test(clock, formats_times_as_iso_8601) {
  static const struct {
    int64_t wall_ns;
    const char *text;
  } cases[] = {
      {0, "1970-01-01T00:00:00.000Z"},
      {INT64_C(1795399200123456789), "2026-11-23T02:00:00.123Z"},
      {INT64_C(951782399999999999), "2000-02-28T23:59:59.999Z"},
      {-1, "1969-12-31T23:59:59.999Z"},
      {INT64_MAX, "2262-04-11T23:47:16.854Z"},
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    char text[32];
    tr_time_format(cases[i].wall_ns, text);
    cr_assert_str_eq(text, cases[i].text);
  }
}
