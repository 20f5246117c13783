/* The system's clock, a clock that a test moves, and the text of a time. */
#include <trainrun/clock.h>

#include <errno.h>
#include <stdio.h>
#include <time.h>

static const uint64_t ns_per_s = 1000000000u;

static uint64_t system_now(void *self) {
  (void)self;
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (uint64_t)t.tv_sec * ns_per_s + (uint64_t)t.tv_nsec;
}

static int64_t system_wall(void *self) {
  (void)self;
  struct timespec t;
  clock_gettime(CLOCK_REALTIME, &t);
  return (int64_t)t.tv_sec * (int64_t)ns_per_s + (int64_t)t.tv_nsec;
}

/* Sleeps to an absolute time, so that signals neither shorten nor stretch it. */
static void system_sleep(void *self, uint64_t duration_ns) {
  const uint64_t end = system_now(self) + duration_ns;
  const struct timespec t = {.tv_sec = (time_t)(end / ns_per_s), .tv_nsec = (long)(end % ns_per_s)};
  while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, NULL) == EINTR) {
  }
}

static const tr_clock system_clock = {.now_ns = system_now, .wall_ns = system_wall, .sleep_ns = system_sleep};

const tr_clock *tr_clock_system(void) { return &system_clock; }

uint64_t tr_clock_now_ns(const tr_clock *clock) {
  return clock != NULL ? clock->now_ns(clock->self) : system_now(NULL);
}

int64_t tr_clock_wall_ns(const tr_clock *clock) {
  return clock != NULL ? clock->wall_ns(clock->self) : system_wall(NULL);
}

void tr_clock_sleep_ns(const tr_clock *clock, uint64_t duration_ns) {
  if (clock != NULL) {
    clock->sleep_ns(clock->self, duration_ns);
  } else {
    system_sleep(NULL, duration_ns);
  }
}

/* Relaxed: the time orders nothing; it only has to be whole when several threads sleep and read at once. */
static uint64_t manual_now(void *self) {
  tr_manual_clock *manual = self;
  return __atomic_load_n(&manual->now, __ATOMIC_RELAXED);
}

static int64_t manual_wall(void *self) {
  tr_manual_clock *manual = self;
  return (int64_t)manual_now(self) + __atomic_load_n(&manual->wall_offset, __ATOMIC_RELAXED);
}

static void manual_sleep(void *self, uint64_t duration_ns) {
  tr_manual_clock *manual = self;
  __atomic_add_fetch(&manual->now, duration_ns, __ATOMIC_RELAXED);
}

void tr_manual_clock_init(tr_manual_clock *manual, uint64_t now_ns) {
  *manual = (tr_manual_clock){
      .clock = {.now_ns = manual_now, .wall_ns = manual_wall, .sleep_ns = manual_sleep, .self = manual},
      .now = now_ns,
      .wall_offset = 0,
  };
}

void tr_time_format(int64_t wall_ns, char text[32]) {
  int64_t seconds = wall_ns / (int64_t)ns_per_s;
  int64_t rest = wall_ns % (int64_t)ns_per_s;
  if (rest < 0) {
    rest += (int64_t)ns_per_s;
    seconds--;
  }
  const time_t t = (time_t)seconds;
  struct tm tm;
  gmtime_r(&t, &tm);
  char date[24];
  strftime(date, sizeof date, "%Y-%m-%dT%H:%M:%S", &tm);
  snprintf(text, 32, "%s.%03uZ", date, (unsigned)(rest / 1000000) % 1000u);
}
