/* The cpu device: its streams are the calling thread, so everything is finished when a call returns; host, pinned and
 * device memory are one. */
#include "device_module.h"

#include <sched.h>
#include <stdio.h>
#include <string.h>

enum { SMALL_ALIGN = 64, PAGE_BYTES = 4096 };

typedef struct cpu {
  const tr_allocator *allocator;
  char name[64];
} cpu;

/* A stream or an event of the cpu holds nothing, but two of them are two addresses. */
struct tr_stream {
  char unused;
};
struct tr_event {
  char unused;
};

static const char *isa_name(void) {
#if defined(__x86_64__)
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw")) return "avx512";
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return "avx2";
  return "sse2";
#elif defined(__aarch64__)
  return "neon";
#else
  return "generic";
#endif
}

static int core_count(void) {
  cpu_set_t set;
  CPU_ZERO(&set);
  if (sched_getaffinity(0, sizeof set, &set) != 0) return 1;
  const int count = CPU_COUNT(&set);
  return count > 0 ? count : 1;
}

static int32_t cpu_gpu_count(void) { return 0; }

static tr_status cpu_open(const tr_allocator *allocator, int32_t index, void **self, tr_error *error) {
  if (index != 0) return tr_fail(error, TR_ERR_INVALID, "device cpu: there is no cpu %d, only 0", (int)index);
  cpu *made = tr_calloc(allocator, 1, sizeof *made);
  if (made == NULL) return tr_fail_memory(error, "the cpu device", sizeof *made);
  made->allocator = allocator;
  const int cores = core_count();
  snprintf(made->name, sizeof made->name, "cpu (%s, %d core%s)", isa_name(), cores, cores == 1 ? "" : "s");
  *self = made;
  return TR_OK;
}

static void cpu_close(void *self) {
  cpu *device = self;
  tr_free(device->allocator, device);
}

static const char *cpu_describe(void *self) { return ((cpu *)self)->name; }

/* No advice for huge pages: on a virtual machine filling one for the first time took four times as long as filling its
 * small pages, and starting is what users wait for. */
static size_t align_of(size_t bytes) { return bytes >= PAGE_BYTES ? PAGE_BYTES : SMALL_ALIGN; }

static void *cpu_alloc(void *self, tr_space space, size_t bytes) {
  (void)space;
  const cpu *device = self;
  if (bytes > SIZE_MAX / 2) return NULL; /* no object is larger than PTRDIFF_MAX */
  return tr_alloc_aligned(device->allocator, bytes == 0 ? 1 : bytes, align_of(bytes));
}

static void cpu_free(void *self, tr_space space, void *p, size_t bytes) {
  (void)space;
  const cpu *device = self;
  if (p != NULL) tr_free_aligned(device->allocator, p, bytes == 0 ? 1 : bytes);
}

static tr_status cpu_stream_create(void *self, tr_stream **out, tr_error *error) {
  tr_stream *stream = tr_calloc(((cpu *)self)->allocator, 1, sizeof *stream);
  if (stream == NULL) return tr_fail_memory(error, "a stream", sizeof *stream);
  *out = stream;
  return TR_OK;
}

static void cpu_stream_destroy(void *self, tr_stream *stream) { tr_free(((cpu *)self)->allocator, stream); }

static tr_status cpu_stream_sync(void *self, tr_stream *stream, tr_error *error) {
  (void)self, (void)stream, (void)error;
  return TR_OK;
}

static tr_status cpu_event_create(void *self, tr_event **out, tr_error *error) {
  tr_event *event = tr_calloc(((cpu *)self)->allocator, 1, sizeof *event);
  if (event == NULL) return tr_fail_memory(error, "an event", sizeof *event);
  *out = event;
  return TR_OK;
}

static void cpu_event_destroy(void *self, tr_event *event) { tr_free(((cpu *)self)->allocator, event); }

static tr_status cpu_event_record(void *self, tr_event *event, tr_stream *stream, tr_error *error) {
  (void)self, (void)event, (void)stream, (void)error;
  return TR_OK;
}

static tr_status cpu_stream_wait_event(void *self, tr_stream *stream, tr_event *event, tr_error *error) {
  (void)self, (void)stream, (void)event, (void)error;
  return TR_OK;
}

static tr_status cpu_copy(void *self, void *to, const void *from, size_t bytes, tr_stream *stream, tr_error *error) {
  (void)self, (void)stream, (void)error;
  if (bytes > 0) memmove(to, from, bytes);
  return TR_OK;
}

const tr_device_module *tr_device_cpu_module(void) {
  static const tr_device_module module = {
      .struct_bytes = sizeof module,
      .version = TR_DEVICE_MODULE_VERSION,
      .error_bytes = sizeof(tr_error),
      .name = "cpu",
      .gpu_count = cpu_gpu_count,
      .open = cpu_open,
      .close = cpu_close,
      .describe = cpu_describe,
      .alloc = cpu_alloc,
      .free = cpu_free,
      .stream_create = cpu_stream_create,
      .stream_destroy = cpu_stream_destroy,
      .stream_sync = cpu_stream_sync,
      .event_create = cpu_event_create,
      .event_destroy = cpu_event_destroy,
      .event_record = cpu_event_record,
      .stream_wait_event = cpu_stream_wait_event,
      .copy = cpu_copy,
  };
  return &module;
}
