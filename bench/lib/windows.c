/* See windows.h. */
#include "windows.h"

#include <stdio.h>
#include <time.h>

uint64_t bench_now_ns(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (uint64_t)now.tv_sec * 1000000000U + (uint64_t)now.tv_nsec;
}

double bench_window(const bench_side *side, uint64_t count) {
  if (side->largest(side->self, 0) < 0) return -1;
  const uint64_t begun = bench_now_ns();
  for (uint64_t i = 0; i < count; i++) {
    if (side->run(side->self) != 0) return -1;
  }
  const double mine = (double)(bench_now_ns() - begun) * 1e-9 / (double)count;
  return side->largest(side->self, mine);
}

uint64_t bench_count(const bench_side *side, double window_s) {
  for (uint64_t count = 1;; count *= 2) {
    const double seconds = bench_window(side, count);
    if (seconds < 0) return 0;
    if (seconds * (double)count >= window_s / 2 || count > (UINT64_C(1) << 30)) {
      const double wanted = window_s / seconds;
      return wanted < 1 ? 1 : (uint64_t)wanted;
    }
  }
}

void bench_print(const bench_side *side, const char *name, uint64_t key, const double *seconds, size_t count) {
  if (side->rank != 0) return;
  printf("{\"name\": \"%s\", \"key\": %llu, \"seconds\": [", name, (unsigned long long)key);
  for (size_t i = 0; i < count; i++) printf("%s%.9g", i > 0 ? ", " : "", seconds[i]);
  printf("]}\n");
  fflush(stdout);
}
