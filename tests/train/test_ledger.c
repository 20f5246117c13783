/* The account of time and the verdict: every nanosecond charged once, and the right one blamed. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

#include "ledger.h"

static const uint64_t ms = 1000000;

static uint64_t sum_of(const uint64_t charged[TR_CAUSE_COUNT]) {
  uint64_t sum = 0;
  for (int i = 0; i < TR_CAUSE_COUNT; i++) sum += charged[i];
  return sum;
}

Test(ledger, charges_every_nanosecond_once) {
  tr_manual_clock clock;
  tr_manual_clock_init(&clock, 1000);
  tr_ledger ledger;
  tr_ledger_init(&ledger, &clock.clock, 400, TR_CAUSE_STARTUP);
  for (int i = 0; i < 1000; i++) {
    clock.now += (uint64_t)(i * 37 % 101);
    tr_ledger_enter(&ledger, (tr_cause)(i % TR_CAUSE_COUNT));
    tr_ledger_move(&ledger, (tr_cause)(i * 7 % TR_CAUSE_COUNT), (tr_cause)(i * 3 % TR_CAUSE_COUNT), (uint64_t)(i % 53));
  }
  tr_ledger_enter(&ledger, TR_CAUSE_OTHER);
  cr_expect_eq(sum_of(ledger.total_ns), clock.now - 400);
  cr_expect_eq(tr_ledger_elapsed_ns(&ledger), clock.now - 400);
}

Test(ledger, moves_no_more_than_there_is) {
  tr_manual_clock clock;
  tr_manual_clock_init(&clock, 0);
  tr_ledger ledger;
  tr_ledger_init(&ledger, &clock.clock, 0, TR_CAUSE_OTHER);
  clock.now = 5 * ms;
  tr_ledger_enter(&ledger, TR_CAUSE_COMPUTE);
  tr_ledger_move(&ledger, TR_CAUSE_OTHER, TR_CAUSE_DECODE, 9 * ms);
  cr_expect_eq(ledger.total_ns[TR_CAUSE_OTHER], 0);
  cr_expect_eq(ledger.total_ns[TR_CAUSE_DECODE], 5 * ms);
}

Test(ledger, a_window_holds_what_was_charged_since_the_last) {
  tr_manual_clock clock;
  tr_manual_clock_init(&clock, 0);
  tr_ledger ledger;
  uint64_t window[TR_CAUSE_COUNT];
  tr_ledger_init(&ledger, &clock.clock, 0, TR_CAUSE_COMPUTE);
  clock.now = 3 * ms;
  tr_ledger_window(&ledger, window);
  cr_expect_eq(window[TR_CAUSE_COMPUTE], 3 * ms);
  clock.now = 10 * ms;
  tr_ledger_enter(&ledger, TR_CAUSE_DECODE);
  clock.now = 11 * ms;
  tr_ledger_window(&ledger, window);
  cr_expect_eq(window[TR_CAUSE_COMPUTE], 7 * ms);
  cr_expect_eq(window[TR_CAUSE_DECODE], 1 * ms);
  cr_expect_eq(sum_of(window), 8 * ms);
}

/* ---- The verdict ---- */

/* `windows` alike windows of `size` ranks, filled by the test. */
static void judge(tr_window *windows, int32_t size, int count, tr_verdict *verdict) {
  tr_blame blame;
  cr_assert_eq(tr_blame_init(&blame, NULL, size, NULL), TR_OK);
  for (int i = 0; i < count; i++) tr_blame_add(&blame, windows, 5e6);
  tr_blame_verdict(&blame, "S3", verdict);
  tr_blame_fini(&blame);
}

static tr_window window(uint64_t compute_ms, tr_cause cause, uint64_t cause_ms) {
  tr_window made = {.waited_for = -1};
  made.charged_ns[TR_CAUSE_COMPUTE] = compute_ms * ms;
  made.charged_ns[cause] += cause_ms * ms;
  return made;
}

Test(verdict, a_healthy_job_starves_for_nothing) {
  for (int32_t size = 1; size <= 5; size++) {
    tr_window windows[5];
    for (int32_t r = 0; r < size; r++) windows[r] = window(100, TR_CAUSE_DECODE, 3);
    tr_verdict verdict;
    judge(windows, size, 10, &verdict);
    cr_expect_str_eq(verdict.sentence, "nothing starves");
    cr_expect_eq(verdict.cause, TR_CAUSE_COUNT);
  }
}

Test(verdict, nothing_was_seen_is_nothing_starves) {
  tr_window none[2] = {{.waited_for = -1}, {.waited_for = -1}};
  tr_verdict verdict;
  judge(none, 2, 0, &verdict);
  cr_expect_str_eq(verdict.sentence, "nothing starves");
}

Test(verdict, names_each_cause_that_stalls_all_ranks_with_its_key) {
  static const tr_cause causes[] = {TR_CAUSE_FIRST_BYTE, TR_CAUSE_BANDWIDTH, TR_CAUSE_THROTTLED,  TR_CAUSE_RETRY,
                                    TR_CAUSE_DECODE,     TR_CAUSE_H2D,       TR_CAUSE_COLLECTIVE, TR_CAUSE_CHECKPOINT};
  for (size_t i = 0; i < sizeof causes / sizeof *causes; i++) {
    tr_window windows[3];
    for (int32_t r = 0; r < 3; r++) windows[r] = window(30, causes[i], 90);
    tr_verdict verdict;
    char key[40];
    snprintf(key, sizeof key, "(%s)", tr_cause_name(causes[i]));
    judge(windows, 3, 4, &verdict);
    cr_expect_eq(verdict.cause, causes[i]);
    cr_expect_eq(verdict.rank, -1);
    cr_expect_not_null(strstr(verdict.sentence, key), "%s", verdict.sentence);
    cr_expect_not_null(strstr(verdict.sentence, "75 %"), "%s", verdict.sentence);
  }
}

Test(verdict, says_what_a_store_gives_and_what_is_needed) {
  tr_window windows[1] = {window(24, TR_CAUSE_BANDWIDTH, 76)};
  tr_verdict verdict;
  judge(windows, 1, 4, &verdict);
  cr_expect_str_eq(verdict.sentence,
                   "S3-bound (bandwidth): needs 208 MB/s, got 50 MB/s; 76 % of each step waits for bandwidth");
}

Test(verdict, a_rank_that_others_wait_for_makes_all_need_less_time) {
  tr_window windows[2] = {window(25, TR_CAUSE_COLLECTIVE_WAIT, 75), window(25, TR_CAUSE_BANDWIDTH, 75)};
  windows[0].waited_for = 1;
  tr_verdict verdict;
  judge(windows, 2, 4, &verdict);
  cr_expect_str_eq(verdict.sentence,
                   "S3-bound (bandwidth): rank 1, needs 200 MB/s, got 50 MB/s; 75 % of each step waits for bandwidth");
}

Test(verdict, says_no_rates_where_the_bytes_are_not_known) {
  tr_window windows[1] = {window(25, TR_CAUSE_FIRST_BYTE, 75)};
  tr_blame blame;
  tr_verdict verdict;
  cr_assert_eq(tr_blame_init(&blame, NULL, 1, NULL), TR_OK);
  tr_blame_add(&blame, windows, 0);
  tr_blame_verdict(&blame, "Disk", &verdict);
  cr_expect_str_eq(verdict.sentence, "Disk-bound (first_byte): 75 % of each step waits for the first byte");
  tr_blame_fini(&blame);
}

Test(verdict, waiting_for_a_rank_that_decodes_is_that_ranks_decoding) {
  tr_window windows[4];
  for (int32_t r = 0; r < 4; r++) {
    windows[r] = window(50, TR_CAUSE_COLLECTIVE_WAIT, 100);
    windows[r].waited_for = 2;
  }
  windows[2] = window(50, TR_CAUSE_DECODE, 100);
  tr_verdict verdict;
  judge(windows, 4, 5, &verdict);
  cr_expect_eq(verdict.cause, TR_CAUSE_DECODE);
  cr_expect_eq(verdict.rank, 2);
  cr_expect_not_null(strstr(verdict.sentence, "rank 2"), "%s", verdict.sentence);
}

Test(verdict, names_a_rank_that_computes_slowly) {
  tr_window windows[2] = {window(50, TR_CAUSE_COLLECTIVE_WAIT, 100), window(150, TR_CAUSE_COLLECTIVE_WAIT, 0)};
  windows[0].waited_for = 1;
  tr_verdict verdict;
  judge(windows, 2, 5, &verdict);
  cr_expect_eq(verdict.cause, TR_CAUSE_COMPUTE);
  cr_expect_eq(verdict.rank, 1);
  cr_expect_not_null(strstr(verdict.sentence, "rank 1"), "%s", verdict.sentence);
  cr_expect_not_null(strstr(verdict.sentence, "(compute)"), "%s", verdict.sentence);
  cr_expect_not_null(strstr(verdict.sentence, "3.0x"), "%s", verdict.sentence);
}

Test(verdict, jitter_that_hits_ranks_in_turn_blames_nobody) {
  tr_blame blame;
  tr_verdict verdict;
  cr_assert_eq(tr_blame_init(&blame, NULL, 2, NULL), TR_OK);
  for (int i = 0; i < 20; i++) {
    tr_window windows[2] = {window(100, TR_CAUSE_COLLECTIVE_WAIT, 0), window(100, TR_CAUSE_COLLECTIVE_WAIT, 0)};
    windows[i % 2] = window(70, TR_CAUSE_COLLECTIVE_WAIT, 30);
    windows[i % 2].waited_for = 1 - i % 2;
    tr_blame_add(&blame, windows, 0);
  }
  tr_blame_verdict(&blame, "Disk", &verdict);
  cr_expect_str_eq(verdict.sentence, "nothing starves");
  tr_blame_fini(&blame);
}

Test(verdict, ignores_a_rank_that_does_not_exist) {
  tr_window windows[2] = {window(100, TR_CAUSE_COLLECTIVE_WAIT, 900), window(100, TR_CAUSE_COLLECTIVE_WAIT, 0)};
  windows[0].waited_for = 7;
  tr_verdict verdict;
  judge(windows, 2, 3, &verdict);
  cr_expect_str_eq(verdict.sentence, "nothing starves");
}
