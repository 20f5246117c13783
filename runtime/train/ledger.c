/* The account of time of one rank. Pure but for the clock it is given. */
#include "ledger.h"

#include <string.h>

const char *tr_cause_name(tr_cause cause) {
  static const char *const names[TR_CAUSE_COUNT] = {
      "startup",    "indexing",   "first_byte", "bandwidth",       "throttled",  "retry",
      "decode",     "h2d",        "compute",    "collective_wait", "collective", "optimizer",
      "checkpoint", "evaluation", "recovery",   "shutdown",        "other"};
  return names[cause];
}

void tr_ledger_init(tr_ledger *ledger, const tr_clock *clock, uint64_t started_ns, tr_cause cause) {
  memset(ledger, 0, sizeof *ledger);
  ledger->clock = clock;
  ledger->started_ns = ledger->last_ns = started_ns;
  ledger->current = cause;
}

tr_cause tr_ledger_enter(tr_ledger *ledger, tr_cause cause) {
  const uint64_t now = tr_clock_now_ns(ledger->clock);
  const tr_cause before = ledger->current;
  if (now > ledger->last_ns) {
    ledger->total_ns[before] += now - ledger->last_ns;
    ledger->last_ns = now;
  }
  ledger->current = cause;
  return before;
}

void tr_ledger_move(tr_ledger *ledger, tr_cause from, tr_cause to, uint64_t ns) {
  if (ns > ledger->total_ns[from]) ns = ledger->total_ns[from];
  ledger->total_ns[from] -= ns;
  ledger->total_ns[to] += ns;
}

void tr_ledger_window(tr_ledger *ledger, uint64_t charged_ns[TR_CAUSE_COUNT]) {
  tr_ledger_enter(ledger, ledger->current);
  for (int i = 0; i < TR_CAUSE_COUNT; i++) {
    /* A move may take from a cause what was charged before the window. */
    const uint64_t before = ledger->window_ns[i], total = ledger->total_ns[i];
    charged_ns[i] = total > before ? total - before : 0;
    ledger->window_ns[i] = total;
  }
}

uint64_t tr_ledger_elapsed_ns(const tr_ledger *ledger) { return ledger->last_ns - ledger->started_ns; }
