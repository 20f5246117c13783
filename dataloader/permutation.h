/* A keyed permutation of [0, n) that needs no table: a generalised Feistel network on an a x b grid of at least n cells
 * (Black and Rogaway, "Ciphers with arbitrary finite domains"), walked again where it leaves [0, n).
 *
 * Pure: the same (seed, epoch, what, number, n) is the same permutation on every machine, for ever. Runs depend on
 * it. */
#ifndef TRAINRUN_DATALOADER_PERMUTATION_H
#define TRAINRUN_DATALOADER_PERMUTATION_H

#include <trainrun/macros.h>

/* What is permuted: two of them never share a key. */
typedef enum dl_shuffled { DL_SHUFFLED_ALL = 0, DL_SHUFFLED_BLOCKS = 1, DL_SHUFFLED_WINDOW = 2 } dl_shuffled;

typedef struct dl_permutation {
  uint64_t n;
  uint64_t rows, columns; /* of the grid; rows * columns >= n, by less than a column */
  uint64_t key[2];
} dl_permutation;

/* `number` tells permutations of one kind and epoch apart; it is below 2^56. n > 0. */
dl_permutation dl_permutation_of(uint64_t seed, uint64_t epoch, dl_shuffled what, uint64_t number, uint64_t n);
/* x < n; about 50 ns. */
uint64_t dl_permute(const dl_permutation *permutation, uint64_t x);

#endif
