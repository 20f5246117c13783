/* A store that fails on order: it wraps another and lets the nth request of a kind fail, come short or come wrong.
 *
 * Numbers count from 1 over the life of the store; 0 means never. The struct stays the caller's and may be changed
 * between requests; the counters say how many requests there were, so that a test can fail each one in turn. Thread-safe
 * as far as the counters go. */
#ifndef TRAINRUN_TESTS_FAULT_STORE_H
#define TRAINRUN_TESTS_FAULT_STORE_H

#include <trainrun/store.h>

typedef struct ts_faults {
  tr_status status; /* of what fails; TR_OK: TR_ERR_IO */
  bool forever;     /* every one from the nth on, not the nth alone */
  uint64_t fail_get, fail_put, fail_head, fail_delete, fail_list, fail_commit; /* parts count as puts */
  uint64_t fail_any;   /* counts requests, listings and commits together */
  uint64_t short_get;  /* this get gives half the bytes it should */
  uint64_t flip_get;   /* this get gives one wrong bit, in the middle */
  uint64_t lose_put;   /* this put says OK and does nothing */
  uint64_t repeat_put; /* this put is done twice, as by one who did not hear the first answer; not for submitted ones */
  uint64_t delay_ns;   /* before every request */
  uint64_t hold_ns;    /* how long a submitted one is under way at least, so that those beside it are seen */

  /* Counted by the store (relaxed atomics). */
  uint64_t gets, puts, heads, deletes, lists, commits, sweeps, any;
  uint64_t bytes_read;
  uint64_t in_flight, most_in_flight; /* submitted and not done */
} ts_faults;

/* Takes `inner` over when own_inner; `faults` must outlive the store. Ends the process where it cannot be made. */
tr_store *ts_fault_store(tr_store *inner, bool own_inner, ts_faults *faults);

#endif
