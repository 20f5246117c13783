/* A store that takes its time, says so in its requests' times, and may flip bits: it wraps another. Many requests wait at
 * once, as on a network: each for its first byte, then for its turn on one wire. Settings may be changed between requests. */
#ifndef TRAINRUN_TESTS_SLOW_STORE_H
#define TRAINRUN_TESTS_SLOW_STORE_H

#include <trainrun/store.h>

typedef struct slow_settings {
  uint64_t first_byte_ns;
  uint64_t throttled_ns, retry_ns; /* before it, of every request */
  double bytes_per_s;              /* of the wire; 0: no end */
  bool at_once;                    /* gets end inside their submit */
  /* A bit of this byte of every object is wrong, in so many gets that hold it. */
  uint64_t flip_at;
  uint64_t flips;
  uint64_t short_gets; /* so many gets come short, the next ones */
  uint64_t fail_gets;  /* so many fail */

  /* Counted (relaxed atomics). */
  uint64_t gets, bytes_read, under_way, under_way_most, fresh;
} slow_settings;

/* `inner` and `settings` outlive it. */
tr_store *slow_store(tr_store *inner, slow_settings *settings);

#endif
