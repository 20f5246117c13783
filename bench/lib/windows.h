/* Timing an operation that all ranks run together, alike on our side and on a peer's.
 *
 * An operation is repeated in windows long enough for the clock; a window's figure is seconds an operation, the slowest
 * rank's. The count of a window is found by doubling and agreed by all ranks, so that nobody waits for one more. */
#ifndef TRAINRUN_BENCH_WINDOWS_H
#define TRAINRUN_BENCH_WINDOWS_H

#include <stddef.h>
#include <stdint.h>

typedef struct bench_side {
  void *self;
  int rank;
  int (*run)(void *self);                      /* the operation once; 0: good */
  double (*largest)(void *self, double value); /* over all ranks; also brings them together; negative: failed */
} bench_side;

enum { BENCH_WINDOWS_MAX = 64 };

/* CLOCK_MONOTONIC, the same clock for every process of a machine. */
uint64_t bench_now_ns(void);
/* How often the operation runs in window_s. 0: it failed. */
uint64_t bench_count(const bench_side *side, double window_s);
/* Seconds an operation over one window. Negative: it failed. */
double bench_window(const bench_side *side, uint64_t count);
/* Rank 0 prints a line of JSON: {"name": name, "key": key, "seconds": [...]}. */
void bench_print(const bench_side *side, const char *name, uint64_t key, const double *seconds, size_t count);

#endif
