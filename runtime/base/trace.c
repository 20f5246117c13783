/* Spans in a ring of 32-byte slots.
 *
 * A writer takes a number, whose slot it claims by making the slot's version odd; should another writer still be in
 * that slot (it slept while the ring went round once), the span is dropped rather than torn. A reader copies a slot and
 * keeps the copy only if the version was even and unchanged. All fields are atomics, so readers and writers never race. */
#include <trainrun/trace.h>

#include <stdatomic.h>
#include <stdint.h>

typedef struct slot {
  _Atomic(const char *) name;
  _Atomic uint64_t begin_ns;
  _Atomic uint64_t end_ns;
  _Atomic uint32_t version; /* 0: never written; odd: being written */
  _Atomic uint32_t lane;
} slot;

_Static_assert(sizeof(slot) == 32, "two slots a cache line");

struct tr_trace {
  const tr_allocator *allocator;
  slot *slots;
  size_t capacity;
  int32_t rank;
  _Atomic uint64_t dropped;
  _Alignas(TR_CACHE_LINE) _Atomic uint64_t next;
};

tr_status tr_trace_create(const tr_allocator *allocator, int32_t rank, size_t capacity_spans, tr_trace **out,
                          tr_error *error) {
  if (capacity_spans == 0) return tr_fail(error, TR_ERR_INVALID, "tr_trace_create: a trace needs room for a span");
  tr_trace *trace = tr_alloc_aligned(allocator, sizeof *trace, TR_CACHE_LINE);
  if (trace == NULL) return tr_fail_memory(error, "a trace", sizeof *trace);
  slot *slots = tr_calloc(allocator, capacity_spans, sizeof *slots);
  if (slots == NULL) {
    tr_free_aligned(allocator, trace, sizeof *trace);
    return tr_fail_memory(error, "a trace", capacity_spans * sizeof *slots);
  }
  trace->allocator = allocator;
  trace->slots = slots;
  trace->capacity = capacity_spans;
  trace->rank = rank;
  atomic_init(&trace->dropped, 0);
  atomic_init(&trace->next, 0);
  *out = trace;
  return TR_OK;
}

void tr_trace_destroy(tr_trace *trace) {
  if (trace == NULL) return;
  tr_free(trace->allocator, trace->slots);
  tr_free_aligned(trace->allocator, trace, sizeof *trace);
}

void tr_trace_span(tr_trace *trace, tr_trace_lane lane, const char *name, uint64_t begin_ns, uint64_t end_ns) {
  if (trace == NULL) return;
  const uint64_t number = atomic_fetch_add_explicit(&trace->next, 1, memory_order_relaxed);
  slot *s = &trace->slots[number % trace->capacity];
  uint32_t version = atomic_load_explicit(&s->version, memory_order_relaxed);
  /* Acquire keeps the stores below after the claim; the release at the end publishes them. */
  if ((version & 1u) != 0 || !atomic_compare_exchange_strong_explicit(&s->version, &version, version + 1,
                                                                      memory_order_acq_rel, memory_order_relaxed)) {
    atomic_fetch_add_explicit(&trace->dropped, 1, memory_order_relaxed);
    return;
  }
  atomic_thread_fence(memory_order_release);
  atomic_store_explicit(&s->name, name, memory_order_relaxed);
  atomic_store_explicit(&s->begin_ns, begin_ns, memory_order_relaxed);
  atomic_store_explicit(&s->end_ns, end_ns, memory_order_relaxed);
  atomic_store_explicit(&s->lane, (uint32_t)lane, memory_order_relaxed);
  atomic_store_explicit(&s->version, version + 2, memory_order_release);
}

typedef struct span {
  const char *name;
  uint64_t begin_ns, end_ns;
  uint32_t lane;
} span;

static bool read_slot(slot *s, span *out) {
  const uint32_t version = atomic_load_explicit(&s->version, memory_order_acquire);
  if (version == 0 || (version & 1u) != 0) return false;
  out->name = atomic_load_explicit(&s->name, memory_order_relaxed);
  out->begin_ns = atomic_load_explicit(&s->begin_ns, memory_order_relaxed);
  out->end_ns = atomic_load_explicit(&s->end_ns, memory_order_relaxed);
  out->lane = atomic_load_explicit(&s->lane, memory_order_relaxed);
  atomic_thread_fence(memory_order_acquire);
  return atomic_load_explicit(&s->version, memory_order_relaxed) == version;
}

static void write_metadata(const tr_trace *trace, uint64_t lost, tr_writer *writer) {
  static const char *const lanes[] = {"step", "communication", "data", "checkpoint", "device"};
  tr_write_text(writer, "{\"name\":\"process_name\",\"ph\":\"M\",\"pid\":%d,\"args\":{\"name\":\"rank %d\"}}",
                (int)trace->rank, (int)trace->rank);
  for (size_t i = 0; i < sizeof lanes / sizeof *lanes; i++) {
    tr_write_text(writer,
                  ",\n{\"name\":\"thread_name\",\"ph\":\"M\",\"pid\":%d,\"tid\":%zu,\"args\":{\"name\":\"%s\"}}",
                  (int)trace->rank, i, lanes[i]);
  }
  if (lost > 0) {
    tr_write_text(writer,
                  ",\n{\"name\":\"process_labels\",\"ph\":\"M\",\"pid\":%d,"
                  "\"args\":{\"labels\":\"%llu older spans were dropped\"}}",
                  (int)trace->rank, (unsigned long long)lost);
  }
}

static void write_span(const tr_trace *trace, const span *s, tr_writer *writer) {
  const uint64_t duration = s->end_ns > s->begin_ns ? s->end_ns - s->begin_ns : 0;
  tr_write_text(writer, ",\n{\"name\":");
  tr_write_json_string(writer, s->name);
  tr_write_text(writer, ",\"ph\":\"X\",\"pid\":%d,\"tid\":%u,\"ts\":%llu.%03u,\"dur\":%llu.%03u}", (int)trace->rank,
                (unsigned)s->lane, (unsigned long long)(s->begin_ns / 1000), (unsigned)(s->begin_ns % 1000),
                (unsigned long long)(duration / 1000), (unsigned)(duration % 1000));
}

void tr_trace_write(const tr_trace *trace, tr_writer *writer) {
  if (trace == NULL) return;
  const uint64_t next = atomic_load_explicit(&trace->next, memory_order_relaxed);
  const uint64_t first = next > trace->capacity ? next - trace->capacity : 0;
  write_metadata(trace, first + atomic_load_explicit(&trace->dropped, memory_order_relaxed), writer);
  for (uint64_t number = first; number < next; number++) {
    span s;
    if (read_slot(&trace->slots[number % trace->capacity], &s)) write_span(trace, &s, writer);
  }
}
