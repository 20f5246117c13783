/* Merging what samples need into spans: see fetch_plan.h. */
#include "fetch_plan.h"

#include <string.h>

/* By file and offset, the longer first, so that what is inside another follows it. */
static bool goes_before(const dl_want *a, const dl_want *b) {
  if (a->file != b->file) return a->file < b->file;
  if (a->offset != b->offset) return a->offset < b->offset;
  return a->bytes > b->bytes;
}

/* A merge sort of numbers: stable, and without the memory that qsort may ask for. */
static void sort(const dl_want *wants, size_t count, uint32_t *order, uint32_t *other) {
  for (size_t i = 0; i < count; i++) order[i] = (uint32_t)i;
  uint32_t *from = order, *to = other;
  for (size_t width = 1; width < count; width *= 2) {
    for (size_t begin = 0; begin < count; begin += 2 * width) {
      const size_t middle = begin + width < count ? begin + width : count;
      const size_t end = middle + width < count ? middle + width : count;
      size_t a = begin, b = middle;
      for (size_t at = begin; at < end; at++) {
        const bool take_b = a == middle || (b < end && goes_before(&wants[from[b]], &wants[from[a]]));
        to[at] = take_b ? from[b++] : from[a++];
      }
    }
    uint32_t *swap = from;
    from = to;
    to = swap;
  }
  if (from != order) memcpy(order, from, count * sizeof *order);
}

/* Whether `want`, which does not begin before the span, goes into it; `held` is how much of it samples asked for. */
static bool joins(const dl_span *span, uint64_t held, bool read_over, const dl_want *want) {
  if (span->file != want->file) return false;
  const uint64_t end = span->offset + span->bytes, want_end = want->offset + want->bytes;
  if (want_end <= end) return true;
  if (want_end - span->offset > DL_SPAN_BYTES) return false;
  const uint64_t gap = want->offset > end ? want->offset - end : 0;
  return gap == 0 || (read_over && (gap <= DL_GAP_BYTES || gap <= held / DL_GAP_PART));
}

/* Puts spans in the order of their first need. `number` gives each its place and is used up. */
static void renumber(dl_want *wants, size_t count, dl_span *spans, size_t span_count, uint32_t *number) {
  uint32_t next = 0;
  for (size_t i = 0; i < count; i++) {
    if (spans[wants[i].span].first == i) number[wants[i].span] = next++;
  }
  for (size_t i = 0; i < count; i++) wants[i].span = number[wants[i].span];
  for (size_t i = 0; i < span_count; i++) {
    while (number[i] != i) {
      const uint32_t to = number[i];
      const dl_span span = spans[to];
      spans[to] = spans[i];
      spans[i] = span;
      number[i] = number[to];
      number[to] = to;
    }
  }
}

size_t dl_fetch_plan(dl_want *wants, size_t count, bool read_over, dl_span *spans, uint32_t *scratch) {
  sort(wants, count, scratch, scratch + count);
  size_t span_count = 0;
  uint64_t held = 0;
  for (size_t i = 0; i < count; i++) {
    dl_want *want = &wants[scratch[i]];
    if (span_count == 0 || !joins(&spans[span_count - 1], held, read_over, want)) {
      spans[span_count++] = (dl_span){
          .offset = want->offset, .bytes = want->bytes, .file = want->file, .first = scratch[i]};
      held = want->bytes;
    } else {
      dl_span *span = &spans[span_count - 1];
      const uint64_t end = span->offset + span->bytes, want_end = want->offset + want->bytes;
      if (want_end > end) {
        held += want_end - (want->offset > end ? want->offset : end);
        span->bytes = want_end - span->offset;
      }
      if (scratch[i] < span->first) span->first = scratch[i];
    }
    want->span = (uint32_t)(span_count - 1);
  }
  renumber(wants, count, spans, span_count, scratch);
  return span_count;
}
