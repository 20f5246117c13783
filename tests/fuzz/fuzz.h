/* What a fuzz target gives: one input to try, and inputs that are right to start from.
 *
 * A target takes any bytes, hands them to the library as what comes from outside, and must neither crash nor leak nor take
 * much memory; whether the library accepts them is its business. In the test suite driver.c mutates the seeds, a fixed
 * number of times from a fixed seed; with clang and -DTRAINRUN_FUZZ=ON the same targets are libFuzzer's (scripts/fuzz). */
#ifndef TRAINRUN_TESTS_FUZZ_H
#define TRAINRUN_TESTS_FUZZ_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <trainrun/base.h>

enum { FUZZ_BYTES_MAX = 64 << 10 };

/* What an input may cost beyond its own size: goals.md's 64 MiB. */
#define FUZZ_MEMORY_MAX ((uint64_t)64 << 20)

/* libFuzzer's entry; returns 0. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
/* Right input number `number` into out[FUZZ_BYTES_MAX]; its size, 0 where there is none of that number. */
size_t fuzz_seed(unsigned number, uint8_t *out);

/* Ends the process with a message where a promise is broken, as libFuzzer and the driver want it. */
static inline void fuzz_promise(int kept, const char *what) {
  if (kept) return;
  fprintf(stderr, "broken promise: %s\n", what);
  abort();
}

/* Everything that was allocated is free again, and it was not too much. */
static inline void fuzz_memory(const tr_counting_allocator *counting) {
  fuzz_promise(counting->live_blocks == 0, "memory is left");
  fuzz_promise(counting->peak_bytes <= FUZZ_MEMORY_MAX, "more than 64 MiB were taken");
}

#endif
