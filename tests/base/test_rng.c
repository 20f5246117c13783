/* Philox against the known answers of Random123, and what users of it rely on. */
#include <criterion/criterion.h>
#include <trainrun/rng.h>

typedef struct known {
  uint32_t counter[4], key[2], answer[4];
} known;

static const known answers[] = {
    {{0, 0, 0, 0}, {0, 0}, {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}},
    {{0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff},
     {0xffffffff, 0xffffffff},
     {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}},
    {{0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344},
     {0xa4093822, 0x299f31d0},
     {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}},
};

Test(rng, gives_the_known_answers_of_random123) {
  for (size_t i = 0; i < sizeof answers / sizeof *answers; i++) {
    const known *k = &answers[i];
    const uint64_t seed = k->key[0] | (uint64_t)k->key[1] << 32;
    const uint64_t a = k->counter[2] | (uint64_t)(k->counter[3] & 0xFFFF) << 32;
    const uint64_t b = k->counter[0] | (uint64_t)k->counter[1] << 32;
    const tr_rng4 got = tr_rng(seed, k->counter[3] >> 16, a, b);
    for (int j = 0; j < 4; j++) cr_assert_eq(got.v[j], k->answer[j], "vector %zu word %d: %08x", i, j, got.v[j]);
  }
}

Test(rng, a_word_of_64_bits_is_the_first_two_words) {
  const tr_rng4 words = tr_rng(5, TR_RNG_SHUFFLE, 2, 9);
  cr_assert_eq(tr_rng_u64(5, TR_RNG_SHUFFLE, 2, 9), words.v[0] | (uint64_t)words.v[1] << 32);
}

Test(rng, every_argument_makes_a_difference) {
  const uint64_t base = tr_rng_u64(1, TR_RNG_INIT, 2, 3);
  for (int bit = 0; bit < 64; bit++) {
    cr_assert_neq(tr_rng_u64(1 ^ UINT64_C(1) << bit, TR_RNG_INIT, 2, 3), base);
    cr_assert_neq(tr_rng_u64(1, TR_RNG_INIT, 2, 3 ^ UINT64_C(1) << bit), base);
    if (bit < 48) cr_assert_neq(tr_rng_u64(1, TR_RNG_INIT, 2 ^ UINT64_C(1) << bit, 3), base);
    if (bit < 16) cr_assert_neq(tr_rng_u64(1, TR_RNG_INIT ^ 1u << bit, 2, 3), base);
  }
}

Test(rng, below_stays_below_and_is_even) {
  static const uint64_t bounds[] = {1, 2, 3, 7, 10, 1000, UINT64_C(1) << 40, UINT64_MAX};
  for (size_t i = 0; i < sizeof bounds / sizeof *bounds; i++) {
    for (uint64_t b = 0; b < 200; b++) cr_assert_lt(tr_rng_below(9, TR_RNG_SHUFFLE, i, b, bounds[i]), bounds[i]);
  }
  unsigned counts[10] = {0};
  for (uint64_t b = 0; b < 100000; b++) counts[tr_rng_below(3, TR_RNG_SHUFFLE, 0, b, 10)]++;
  for (int i = 0; i < 10; i++) cr_assert(counts[i] > 9600 && counts[i] < 10400, "%d: %u", i, counts[i]);
}

Test(rng, a_unit_float_is_below_one) {
  cr_assert_eq(tr_rng_unit(0), 0.0f);
  cr_assert_lt(tr_rng_unit(UINT32_MAX), 1.0f);
  double sum = 0;
  for (uint64_t b = 0; b < 10000; b++) sum += tr_rng_unit(tr_rng(1, TR_RNG_INIT, 0, b).v[2]);
  cr_assert(sum > 4900 && sum < 5100, "%f", sum);
}

Test(rng, names_hash_as_fnv_1a) {
  cr_assert_eq(tr_hash_name(""), UINT64_C(0xcbf29ce484222325));
  cr_assert_eq(tr_hash_name("a"), UINT64_C(0xaf63dc4c8601ec8c));
  cr_assert_eq(tr_hash_name("foobar"), UINT64_C(0x85944171f73967e8));
}
