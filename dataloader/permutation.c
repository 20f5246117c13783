/* A keyed permutation of [0, n) in O(1) memory: see permutation.h. */
#include "permutation.h"

#include <math.h>
#include <trainrun/rng.h>

__extension__ typedef unsigned __int128 u128;

/* Four rounds for each side of the grid; small grids mix more slowly and get more. */
enum { ROUNDS = 8, ROUNDS_OF_SMALL = 32, SMALL = 256 };

static uint64_t square_root_up(uint64_t n) {
  uint64_t root = (uint64_t)sqrt((double)n);
  while ((u128)root * root < n) root++;
  while (root > 1 && (u128)(root - 1) * (root - 1) >= n) root--;
  return root;
}

dl_permutation dl_permutation_of(uint64_t seed, uint64_t epoch, dl_shuffled what, uint64_t number, uint64_t n) {
  const tr_rng4 words = tr_rng(seed, TR_RNG_SHUFFLE, epoch, (uint64_t)what << 56 | number);
  dl_permutation made = {.n = n, .columns = square_root_up(n)};
  made.rows = n / made.columns + (n % made.columns != 0);
  made.key[0] = (uint64_t)words.v[0] | (uint64_t)words.v[1] << 32;
  made.key[1] = (uint64_t)words.v[2] | (uint64_t)words.v[3] << 32;
  return made;
}

/* The finalizer of SplitMix64: every bit of the input changes about half of the output's. */
static uint64_t mix(uint64_t x) {
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9u;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EBu;
  return x ^ (x >> 31);
}

/* A number below `bound` that depends on the key, the round and x. */
static uint64_t round_value(const dl_permutation *p, uint64_t round, uint64_t x, uint64_t bound) {
  const uint64_t hash = mix(mix((x ^ p->key[0]) + round * 0x9E3779B97F4A7C15u) + p->key[1]);
  return (uint64_t)(((u128)hash * bound) >> 64);
}

static uint64_t add_below(uint64_t x, uint64_t y, uint64_t bound) { return x >= bound - y ? x - (bound - y) : x + y; }

uint64_t dl_permute(const dl_permutation *p, uint64_t x) {
  const uint64_t rounds = p->n < SMALL ? ROUNDS_OF_SMALL : ROUNDS;
  do {
    uint64_t row = x / p->columns, column = x % p->columns;
    for (uint64_t round = 0; round < rounds; round += 2) {
      column = add_below(column, round_value(p, round, row, p->columns), p->columns);
      row = add_below(row, round_value(p, round + 1, column, p->rows), p->rows);
    }
    x = row * p->columns + column;
  } while (x >= p->n);
  return x;
}
