/* Whom a wait is charged to: split when the last bytes arrive, by what the request went through meanwhile. */
#include "account.h"

#include <criterion/criterion.h>
#include <trainrun/rng.h>

static const tr_wait_account nothing;

static uint64_t sum(const tr_wait_account *a) {
  return a->first_byte_ns + a->bandwidth_ns + a->throttled_ns + a->retry_ns + a->decode_ns + a->other_ns;
}

/* Asked for at 1000, held off until 1100, tried again until 1300, first byte at 1700, there at 2000. */
static const dl_arrival arrival = {
    .submitted_ns = 1000, .throttled_ns = 100, .retry_ns = 200, .first_byte_ns = 1700, .done_ns = 2000};

static tr_wait_account wait_of(uint64_t begin, uint64_t end) {
  tr_wait_account a = {0};
  dl_account_wait(&a, &arrival, &nothing, begin, end);
  cr_assert_eq(sum(&a), end - begin);
  return a;
}

Test(account, the_whole_life_of_a_request_in_its_parts_then_decoding) {
  const tr_wait_account a = wait_of(1000, 2500);
  cr_assert(a.throttled_ns == 100 && a.retry_ns == 200 && a.first_byte_ns == 400 && a.bandwidth_ns == 300 &&
            a.decode_ns == 500 && a.other_ns == 0);
}

Test(account, only_what_overlaps_the_wait_counts) {
  tr_wait_account a = wait_of(1600, 1900);
  cr_assert(a.first_byte_ns == 100 && a.bandwidth_ns == 200);
  a = wait_of(1950, 2050);
  cr_assert(a.bandwidth_ns == 50 && a.decode_ns == 50);
  a = wait_of(2000, 2100);
  cr_assert_eq(a.decode_ns, 100);
  a = wait_of(5000, 5001);
  cr_assert_eq(a.decode_ns, 1);
}

Test(account, time_before_it_was_asked_for_is_charged_alike) {
  const tr_wait_account a = wait_of(0, 2000);
  cr_assert(a.throttled_ns == 200 && a.retry_ns == 400 && a.first_byte_ns == 800 && a.bandwidth_ns == 600);
}

Test(account, without_reads_it_is_decoding_and_reads_of_the_decoder_are_their_own) {
  tr_wait_account a = {0};
  const dl_arrival none = {0};
  dl_account_wait(&a, &none, &nothing, 10, 110);
  cr_assert_eq(a.decode_ns, 100);
  a = nothing;
  const tr_wait_account spent = {.retry_ns = 60};
  dl_account_wait(&a, &none, &spent, 10, 110);
  cr_assert(a.retry_ns == 60 && a.decode_ns == 40);
  a = nothing;
  dl_account_wait(&a, &none, &spent, 10, 20);
  cr_assert_eq(a.retry_ns, 10);
}

Test(account, every_nanosecond_is_charged_once_whatever_a_store_reports) {
  for (uint64_t i = 0; i < 20000; i++) {
    uint64_t v[7];
    for (uint64_t j = 0; j < 7; j++) v[j] = tr_rng_below(i, TR_RNG_USER, 0, j, 50);
    const dl_arrival odd = {
        .submitted_ns = v[0], .throttled_ns = v[1], .retry_ns = v[2], .first_byte_ns = v[3], .done_ns = v[4]};
    const tr_wait_account spent = {.retry_ns = v[1] % 3, .bandwidth_ns = v[2] % 5};
    tr_wait_account a = {0};
    dl_account_wait(&a, &odd, &spent, v[5], v[5] + v[6]);
    cr_assert_eq(sum(&a), v[6]);
  }
}
