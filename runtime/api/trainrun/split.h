/* The one rule by which a line of things is cut among workers, threads or slices: contiguous, whole, as equal as can be.
 *
 * Part i of `parts` of n things is [n*i/parts, n*(i+1)/parts). Pure; used for micro-batches over ranks, slices of a
 * bucket over ranks, shards over indexers. */
#ifndef TRAINRUN_SPLIT_H
#define TRAINRUN_SPLIT_H

#include <trainrun/macros.h>

TR_BEGIN_C

static inline uint64_t tr_split_begin(uint64_t n, uint64_t parts, uint64_t i) {
  return (n / parts) * i + (n % parts) * i / parts;
}
static inline uint64_t tr_split_end(uint64_t n, uint64_t parts, uint64_t i) { return tr_split_begin(n, parts, i + 1); }

TR_END_C
#endif
