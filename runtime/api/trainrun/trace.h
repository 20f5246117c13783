/* Spans of time, kept in a fixed ring and written as a Chrome trace (opens in Perfetto). pid = rank, tid = lane.
 *
 * tr_trace_span costs a store of 32 bytes and never allocates; when the ring is full the oldest spans go, and the file
 * says how many. Names must be string literals or live as long as the trace. Thread-safe. NULL swallows everything. */
#ifndef TRAINRUN_TRACE_H
#define TRAINRUN_TRACE_H

#include <trainrun/bytes.h>
#include <trainrun/clock.h>

TR_BEGIN_C

typedef struct tr_trace tr_trace;

typedef enum tr_trace_lane {
  TR_LANE_STEP = 0,
  TR_LANE_COMM = 1,
  TR_LANE_DATA = 2,
  TR_LANE_CHECKPOINT = 3,
  TR_LANE_DEVICE = 4
} tr_trace_lane;

TR_API TR_MUST_USE tr_status tr_trace_create(const tr_allocator *allocator, int32_t rank, size_t capacity_spans,
                                             tr_trace **out, tr_error *error);
TR_API void tr_trace_destroy(tr_trace *trace);
/* begin_ns and end_ns are tr_clock_now_ns times. */
TR_API void tr_trace_span(tr_trace *trace, tr_trace_lane lane, const char *name, uint64_t begin_ns, uint64_t end_ns);
/* Appends this rank's events as comma-separated JSON objects (no brackets): the writer of the file joins all ranks in
 * one {"traceEvents":[...]}. */
TR_API void tr_trace_write(const tr_trace *trace, tr_writer *writer);

TR_END_C
#endif
