/* A device module for tests: built several times, right and wrong, as libtrainrun_cuda.so in folders of their own.
 *
 * FAKE_VERSION, FAKE_STRUCT_BYTES, FAKE_ERROR_BYTES and FAKE_GPUS make it wrong; FAKE_NO_ENTRY leaves its function out.
 * The good one counts streams and copies through plain malloc, which is enough to see that calls arrive. */
#include "device_module.h"

#include <stdlib.h>
#include <string.h>

#ifndef FAKE_VERSION
#define FAKE_VERSION TR_DEVICE_MODULE_VERSION
#endif
#ifndef FAKE_STRUCT_BYTES
#define FAKE_STRUCT_BYTES sizeof(tr_device_module)
#endif
#ifndef FAKE_ERROR_BYTES
#define FAKE_ERROR_BYTES sizeof(tr_error)
#endif
#ifndef FAKE_GPUS
#define FAKE_GPUS 2
#endif

#ifndef FAKE_NO_ENTRY
static const tr_device_host *library;

typedef struct fake {
  const tr_allocator *allocator;
  int32_t index;
} fake;

static int32_t fake_gpu_count(void) { return FAKE_GPUS; }

static tr_status fake_open(const tr_allocator *allocator, int32_t index, void **self, tr_error *error) {
  if (index < 0 || index >= FAKE_GPUS)
    return library->fail(error, TR_ERR_UNAVAILABLE, "device cuda: no GPU %d", (int)index);
  fake *made = library->alloc(allocator, sizeof *made);
  if (made == NULL) return library->fail(error, TR_ERR_NO_MEMORY, "out of memory");
  made->allocator = allocator;
  made->index = index;
  *self = made;
  return TR_OK;
}

static void fake_close(void *self) { library->free(((fake *)self)->allocator, self); }
static const char *fake_describe(void *self) { return ((fake *)self)->index == 0 ? "fake 0" : "fake 1"; }

static void *fake_alloc(void *self, tr_space space, size_t bytes) {
  (void)self, (void)space;
  return malloc(bytes);
}
static void fake_free(void *self, tr_space space, void *p, size_t bytes) {
  (void)self, (void)space, (void)bytes;
  free(p);
}
static tr_status fake_stream_create(void *self, tr_stream **out, tr_error *error) {
  (void)self, (void)error;
  *out = malloc(1);
  return TR_OK;
}
static void fake_stream_destroy(void *self, tr_stream *stream) {
  (void)self;
  free(stream);
}
static tr_status fake_stream_sync(void *self, tr_stream *stream, tr_error *error) {
  (void)self, (void)stream;
  return library->fail(error, TR_ERR_TIMEOUT, "fake: a sync that fails");
}
static tr_status fake_event_create(void *self, tr_event **out, tr_error *error) {
  (void)self, (void)error;
  *out = malloc(1);
  return TR_OK;
}
static void fake_event_destroy(void *self, tr_event *event) {
  (void)self;
  free(event);
}
static tr_status fake_event_record(void *self, tr_event *event, tr_stream *stream, tr_error *error) {
  (void)self, (void)event, (void)stream, (void)error;
  return TR_OK;
}
static tr_status fake_stream_wait_event(void *self, tr_stream *stream, tr_event *event, tr_error *error) {
  (void)self, (void)event, (void)stream, (void)error;
  return TR_OK;
}
static tr_status fake_copy(void *self, void *to, const void *from, size_t bytes, tr_stream *stream, tr_error *error) {
  (void)self, (void)stream, (void)error;
  memcpy(to, from, bytes);
  return TR_OK;
}

static const tr_device_module module = {
    .struct_bytes = FAKE_STRUCT_BYTES,
    .version = FAKE_VERSION,
    .error_bytes = FAKE_ERROR_BYTES,
    .name = "cuda",
    .gpu_count = fake_gpu_count,
    .open = fake_open,
    .close = fake_close,
    .describe = fake_describe,
    .alloc = fake_alloc,
    .free = fake_free,
    .stream_create = fake_stream_create,
    .stream_destroy = fake_stream_destroy,
    .stream_sync = fake_stream_sync,
    .event_create = fake_event_create,
    .event_destroy = fake_event_destroy,
    .event_record = fake_event_record,
    .stream_wait_event = fake_stream_wait_event,
    .copy = fake_copy,
};

const tr_device_module *trainrun_device_module(const tr_device_host *host);
__attribute__((visibility("default"))) const tr_device_module *trainrun_device_module(const tr_device_host *host) {
  if (host == NULL || host->struct_bytes != sizeof *host || host->version != TR_DEVICE_MODULE_VERSION) return NULL;
  library = host;
  return &module;
}
#endif

/* A module without its entry still needs something to export. */
extern int trainrun_fake_cuda_present;
__attribute__((visibility("default"))) int trainrun_fake_cuda_present = 1;
