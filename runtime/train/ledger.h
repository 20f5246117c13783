/* The account of time: every nanosecond of the step thread is charged to one cause.
 *
 * A ledger is a switch: ledger_enter charges the time since the last switch to the cause that was on, so the sum of all
 * causes is the time that passed, whatever happens in between. Waits that turn out to have other causes are moved.
 *
 * A window is the time between two moments at which all ranks are in step. After each, the ranks exchange what they were
 * charged in it, and the blame adds up who held up whom: waiting for rank r counts as r's own cause in that window. The
 * verdict is one sentence made from the blame. All of this is pure: clocks and exchange are the caller's. */
#ifndef TRAINRUN_LEDGER_H
#define TRAINRUN_LEDGER_H

#include <trainrun/base.h>

typedef enum tr_cause {
  TR_CAUSE_STARTUP,
  TR_CAUSE_INDEXING,
  TR_CAUSE_FIRST_BYTE,
  TR_CAUSE_BANDWIDTH,
  TR_CAUSE_THROTTLED,
  TR_CAUSE_RETRY,
  TR_CAUSE_DECODE,
  TR_CAUSE_H2D,
  TR_CAUSE_COMPUTE,
  TR_CAUSE_COLLECTIVE_WAIT,
  TR_CAUSE_COLLECTIVE,
  TR_CAUSE_OPTIMIZER,
  TR_CAUSE_CHECKPOINT,
  TR_CAUSE_EVALUATION,
  TR_CAUSE_RECOVERY,
  TR_CAUSE_SHUTDOWN,
  TR_CAUSE_OTHER,
  TR_CAUSE_COUNT
} tr_cause;

/* The key of summary.json's ledger: "first_byte". */
const char *tr_cause_name(tr_cause cause);

typedef struct tr_ledger {
  const tr_clock *clock;
  uint64_t started_ns, last_ns;
  tr_cause current;
  uint64_t total_ns[TR_CAUSE_COUNT];
  uint64_t window_ns[TR_CAUSE_COUNT]; /* totals at the beginning of the window */
} tr_ledger;

/* Time since started_ns is charged to `cause` from the start. */
void tr_ledger_init(tr_ledger *ledger, const tr_clock *clock, uint64_t started_ns, tr_cause cause);
/* Charges what has passed and switches; returns the cause that was on. */
tr_cause tr_ledger_enter(tr_ledger *ledger, tr_cause cause);
/* Moves up to `ns` from one cause to another. */
void tr_ledger_move(tr_ledger *ledger, tr_cause from, tr_cause to, uint64_t ns);
/* What was charged since the last call, in nanoseconds. */
void tr_ledger_window(tr_ledger *ledger, uint64_t charged_ns[TR_CAUSE_COUNT]);
uint64_t tr_ledger_elapsed_ns(const tr_ledger *ledger);

/* One rank's window, as ranks exchange it. */
typedef struct tr_window {
  uint64_t charged_ns[TR_CAUSE_COUNT];
  int32_t waited_for; /* the rank that came last in this rank's longest wait, -1: nobody */
  int32_t reserved;
} tr_window;

typedef struct tr_blame {
  const tr_allocator *allocator;
  int32_t size;
  double *seconds; /* [rank][cause]: mean over all ranks of the time that rank's cause cost */
  double *own;     /* [rank][cause]: what the rank was charged itself */
  double window_s; /* mean length of all windows together */
  double bytes;    /* of the data that all ranks together took in the windows, as they are stored */
  uint64_t windows;
} tr_blame;

tr_status tr_blame_init(tr_blame *blame, const tr_allocator *allocator, int32_t size, tr_error *error);
void tr_blame_fini(tr_blame *blame);
/* The same window of all ranks, in rank order, and the stored bytes of the samples that were taken in it (0: not known). */
void tr_blame_add(tr_blame *blame, const tr_window *windows, double bytes);

typedef struct tr_verdict {
  tr_cause cause; /* TR_CAUSE_COUNT: nothing starves */
  int32_t rank;   /* to blame alone, or -1 */
  double share;   /* of the time of a step */
  char sentence[240];
} tr_verdict;
/* `source` is how the data's store is called in the sentence: "S3", "Disk". What it gave is bytes by time; what was needed
 * is bytes by the time that the steps would have taken without waiting for it. */
void tr_blame_verdict(const tr_blame *blame, const char *source, tr_verdict *verdict);

#endif
