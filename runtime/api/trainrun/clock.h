/* Time behind a vtable, so that a test can own it. Monotonic nanoseconds measure; wall nanoseconds only label. */
#ifndef TRAINRUN_CLOCK_H
#define TRAINRUN_CLOCK_H

#include <trainrun/status.h>

TR_BEGIN_C

typedef struct tr_clock {
  uint64_t (*now_ns)(void *self); /* monotonic (CLOCK_MONOTONIC: one clock for all processes of a host) */
  int64_t (*wall_ns)(void *self); /* since 1970-01-01 UTC */
  void (*sleep_ns)(void *self, uint64_t duration_ns);
  void *self;
} tr_clock;

TR_API const tr_clock *tr_clock_system(void);

/* NULL means the system's clock in all three. */
TR_API uint64_t tr_clock_now_ns(const tr_clock *clock);
TR_API int64_t tr_clock_wall_ns(const tr_clock *clock);
TR_API void tr_clock_sleep_ns(const tr_clock *clock, uint64_t duration_ns);

/* A clock that moves only when told (or by its own sleep). */
typedef struct tr_manual_clock {
  tr_clock clock;
  uint64_t now;
  int64_t wall_offset;
} tr_manual_clock;
TR_API void tr_manual_clock_init(tr_manual_clock *manual, uint64_t now_ns);

/* "2026-11-23T02:00:00.123Z" into text[32]. */
TR_API void tr_time_format(int64_t wall_ns, char text[32]);

TR_END_C
#endif
