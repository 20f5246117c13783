/* One line on a terminal that says how far a copy is: bytes, items, rate, the time that is left. Off a terminal, with
 * --quiet and with --json it says nothing. Workers count from any thread; one thread draws. */
#ifndef TRAINRUN_LAUNCHER_PROGRESS_H
#define TRAINRUN_LAUNCHER_PROGRESS_H

#include "cli.h"

#include <stdatomic.h>

typedef struct tr_progress {
  bool live, shown;
  const char *verb, *items; /* "get", "objects" */
  uint64_t started_ns, drawn_ns;
  uint64_t total_bytes, total_items; /* 0: not known */
  _Atomic uint64_t bytes, done;

  /* The rate of the last seconds, of the thread that draws. */
  uint64_t marks_ns[32], marks_bytes[32], marks_done[32];
  size_t mark;
} tr_progress;

void progress_begin(tr_progress *progress, const tr_cli *cli, const char *verb, const char *items, uint64_t total_bytes,
                    uint64_t total_items);
static inline void progress_bytes(tr_progress *progress, uint64_t bytes) {
  atomic_fetch_add_explicit(&progress->bytes, bytes, memory_order_relaxed);
}
static inline void progress_add_done(tr_progress *progress, uint64_t items) {
  atomic_fetch_add_explicit(&progress->done, items, memory_order_relaxed);
}
static inline void progress_done(tr_progress *progress) { progress_add_done(progress, 1); }
/* At most ten times a second, however often it is called. */
void progress_draw(tr_progress *progress);
/* Takes the line away. */
void progress_end(tr_progress *progress);
/* Seconds since the beginning. */
double progress_seconds(const tr_progress *progress);
/* "1.2 GiB/s" */
void progress_rate(uint64_t bytes, double seconds, char text[48]);

#endif
