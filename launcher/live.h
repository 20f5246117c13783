/* What is going on, in one line: step, epoch, loss, rate, time left, the largest stall and its cause.
 *
 * Made of the board (sampled a few times a second) and of the records of rank 0. Pure: fed and asked, it reads nothing
 * itself. */
#ifndef TRAINRUN_LAUNCHER_LIVE_H
#define TRAINRUN_LAUNCHER_LIVE_H

#include <trainrun/collective.h>
#include <trainrun/worker.h>

enum { LIVE_PHASES = TR_PHASE_ENDING + 1, LIVE_RANKS_MAX = 256 };

typedef struct tr_live {
  int32_t size;
  /* From records; negative or NAN where unknown. */
  double epoch, loss, rate, metric;
  char metric_name[32];
  uint64_t record_step;
  /* From the job. */
  uint64_t total_steps, total_samples;
  /* From the board. */
  uint64_t step, samples;
  uint64_t first_step, first_ns;  /* where this attempt's stepping began */
  uint64_t rate_samples, rate_ns; /* the last point the rate was measured from */
  uint32_t phase;                 /* of the last rank to come */
  double share[LIVE_PHASES];      /* decaying share of time spent in each phase, mean over ranks */
  double blame[LIVE_RANKS_MAX];   /* decaying: how often others waited for this rank */
} tr_live;

void live_init(tr_live *live, int32_t size);
/* A new attempt: steps and rates begin anew. */
void live_restart(tr_live *live);
/* A record of type "metrics", "event" or "lock", as JSON text. */
void live_record(tr_live *live, const char *type, const char *record, size_t bytes);
void live_board(tr_live *live, const tr_beacon *beacons, int32_t size, uint64_t now_ns);
/* `columns` wide at most; plain: "step 12 of 938, ...", for a log. Empty when there is nothing to say yet. */
void live_text(const tr_live *live, uint64_t now_ns, bool plain, int columns, char *text, size_t bytes);

#endif
