/* Runs a fuzz target over its seeds and mutations of them, from a fixed seed: a test, in the place of libFuzzer.
 *
 *   test_NAME [--tap=FILE ...]          a thousand inputs; ten thousand where the long tests run
 *   test_NAME --write-corpus FOLDER     the seeds as files, for libFuzzer to start from */
#include "fuzz.h"

#include <trainrun/rng.h>

enum { SEEDS_MAX = 64, SHORT_ROUNDS = 1000, LONG_ROUNDS = 10000 };

static uint8_t seeds[SEEDS_MAX][FUZZ_BYTES_MAX];
static size_t sizes[SEEDS_MAX];
static unsigned seed_count;

static uint64_t pick(uint64_t round, uint64_t what, uint64_t bound) {
  return bound == 0 ? 0 : tr_rng_below(20261126, TR_RNG_USER + 7, round, what, bound);
}

static void swap_runs(uint8_t *data, size_t size, uint64_t round, uint64_t what) {
  const size_t length = 1 + (size_t)pick(round, what, size / 4);
  const size_t a = (size_t)pick(round, what + 1, size - length), b = (size_t)pick(round, what + 2, size - length);
  for (size_t i = 0; i < length; i++) {
    const uint8_t kept = data[a + i];
    data[a + i] = data[b + i];
    data[b + i] = kept;
  }
}

/* One change of data[size]; the new size. */
static size_t mutate(uint8_t *data, size_t size, uint64_t round, uint64_t what) {
  static const uint8_t telling[] = {0,   1,   0x7f, 0x80, 0xff, '0', '9', '-', '"',
                                    '{', '[', '<',  '&',  '/',  '.', ',', '\n'};
  if (size == 0) return 0;
  const size_t at = (size_t)pick(round, what + 1, size);
  switch (pick(round, what, 7)) {
    case 0: data[at] ^= (uint8_t)(1u << pick(round, what + 2, 8)); return size;
    case 1: data[at] = (uint8_t)pick(round, what + 2, 256); return size;
    case 2: data[at] = telling[pick(round, what + 2, sizeof telling)]; return size;
    case 3: return at;
    case 4:
      if (size >= 8) swap_runs(data, size, round, what + 2);
      return size;
    case 5: { /* a run is taken out */
      const size_t length = 1 + (size_t)pick(round, what + 2, size - at < 64 ? size - at : 64);
      const size_t taken = length < size - at ? length : size - at;
      memmove(data + at, data + at + taken, size - at - taken);
      return size - taken;
    }
    default: { /* a run comes twice */
      const size_t length = (size_t)pick(round, what + 2, size - at) / 4 + 1;
      if (size + length > FUZZ_BYTES_MAX || at + length > size) return size;
      memmove(data + at + length, data + at, size - at);
      return size + length;
    }
  }
}

static int write_corpus(const char *folder) {
  for (unsigned i = 0; i < seed_count; i++) {
    char path[4096];
    snprintf(path, sizeof path, "%s/seed-%02u", folder, i);
    FILE *file = fopen(path, "wb");
    const int good = file != NULL && fwrite(seeds[i], 1, sizes[i], file) == sizes[i];
    if (file == NULL || fclose(file) != 0 || !good) {
      fprintf(stderr, "cannot write %s\n", path);
      return 1;
    }
  }
  return 0;
}

/* As the runner of the tests asks for it, --tap=FILE among Criterion's options; without it on standard output. */
static int report(int argc, char **argv, uint64_t rounds) {
  FILE *file = stdout;
  for (int i = 1; i < argc; i++) {
    if (strncmp(argv[i], "--tap=", 6) == 0) file = fopen(argv[i] + 6, "w");
  }
  if (file == NULL) return 1;
  fprintf(file,
          "TAP version 13\n1..1\nok 1 - %llu mutations of %u inputs neither crash nor leak nor take much memory\n",
          (unsigned long long)rounds, seed_count);
  return fclose(file) == 0 ? 0 : 1;
}

int main(int argc, char **argv) {
  static uint8_t input[FUZZ_BYTES_MAX];
  while (seed_count < SEEDS_MAX && (sizes[seed_count] = fuzz_seed(seed_count, seeds[seed_count])) > 0) seed_count++;
  if (argc == 3 && strcmp(argv[1], "--write-corpus") == 0) return write_corpus(argv[2]);
  const char *long_form = getenv("TRAINRUN_TEST_LONG");
  const uint64_t rounds = long_form != NULL && long_form[0] != '\0' ? LONG_ROUNDS : SHORT_ROUNDS;
  for (unsigned i = 0; i < seed_count; i++) LLVMFuzzerTestOneInput(seeds[i], sizes[i]);
  for (uint64_t round = 0; round < rounds; round++) {
    const unsigned seed = (unsigned)pick(round, 0, seed_count);
    size_t size = sizes[seed];
    memcpy(input, seeds[seed], size);
    const uint64_t changes = 1 + pick(round, 1, 4);
    for (uint64_t i = 0; i < changes; i++) size = mutate(input, size, round, 10 * (i + 1));
    /* A copy of the exact size, so that a sanitizer sees a read past its end. */
    uint8_t *exact = malloc(size > 0 ? size : 1);
    if (exact == NULL) return 1;
    memcpy(exact, input, size);
    LLVMFuzzerTestOneInput(exact, size);
    free(exact);
  }
  return report(argc, argv, rounds);
}
