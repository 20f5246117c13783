/* Which ranges of which files are read for a run of samples: pure.
 *
 * Samples that lie together become one span; a gap between two is read over where that costs less than another request;
 * what two samples share is read once. Spans are numbered in the order in which they are first needed. */
#ifndef TRAINRUN_DATALOADER_FETCH_PLAN_H
#define TRAINRUN_DATALOADER_FETCH_PLAN_H

#include <trainrun/base.h>

enum {
  /* A span is one request, so it ends here; only a single sample may be longer. */
  DL_SPAN_BYTES = 8 << 20,
  /* A gap is read over up to this, or up to this part of what the span holds already. */
  DL_GAP_BYTES = 64 << 10,
  DL_GAP_PART = 4
};

/* What one sample needs, in the order of need. bytes > 0, and offset + bytes does not overflow. */
typedef struct dl_want {
  uint64_t offset, bytes;
  uint32_t file;
  uint32_t span; /* out: the one that holds it, whole */
} dl_want;

typedef struct dl_span {
  uint64_t offset, bytes;
  uint32_t file;
  uint32_t first; /* the want that needs it first */
} dl_span;

/* Fills wants[].span and spans[count]; returns how many spans there are. Without read_over no gap is read, so that spans
 * together are not longer than wants. scratch is [2 * count]. */
size_t dl_fetch_plan(dl_want *wants, size_t count, bool read_over, dl_span *spans, uint32_t *scratch);

#endif
