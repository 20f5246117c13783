/* The public side of a device: chooses the table (cpu or the CUDA module's), checks arguments, passes on. */
#include "device_module.h"

struct tr_device {
  const tr_allocator *allocator;
  const tr_device_module *module;
  void *self; /* the module's */
  tr_device_kind kind;
};

static tr_status choose(const tr_device_options *options, const tr_allocator *allocator,
                        const tr_device_module **module, tr_device_kind *kind, tr_error *error) {
  switch (options->kind) {
    case TR_DEVICE_CPU:
      *module = tr_device_cpu_module();
      *kind = TR_DEVICE_CPU;
      return TR_OK;
    case TR_DEVICE_AUTO:
    case TR_DEVICE_CUDA: break;
    default: return tr_fail(error, TR_ERR_INVALID, "device: unknown kind %d", (int)options->kind);
  }
  tr_status status = tr_device_cuda_module(allocator, options->module_folder, module, error);
  if (status == TR_OK && (*module)->gpu_count() == 0) {
    status = tr_fail(error, TR_ERR_UNAVAILABLE,
                     "device cuda: this host shows no GPU (is the driver loaded?); set cluster.device = \"cpu\" to "
                     "train on the CPU");
  }
  *kind = TR_DEVICE_CUDA;
  /* Only what is not there lets auto go on without it: a module of another build is a mistake worth hearing of. */
  if (status == TR_ERR_UNAVAILABLE && options->kind == TR_DEVICE_AUTO) {
    *module = tr_device_cpu_module();
    *kind = TR_DEVICE_CPU;
    status = TR_OK;
  }
  return status;
}

tr_status tr_device_open(const tr_device_options *options, tr_device **out, tr_error *error) {
  if (options == NULL || options->struct_bytes != sizeof *options) {
    return tr_fail(error, TR_ERR_INVALID, "device: options are of another version of trainrun");
  }
  const tr_allocator *allocator = options->allocator != NULL ? options->allocator : tr_allocator_system();
  const tr_device_module *module = NULL;
  tr_device_kind kind = TR_DEVICE_CPU;
  TR_TRY(choose(options, allocator, &module, &kind, error));

  tr_device *device = tr_calloc(allocator, 1, sizeof *device);
  if (device == NULL) return tr_fail_memory(error, "a device", sizeof *device);
  device->allocator = allocator;
  device->module = module;
  device->kind = kind;
  /* The index counts GPUs; there is one cpu. */
  const int32_t index = kind == TR_DEVICE_CPU ? 0 : options->index;
  const tr_status status = module->open(allocator, index, &device->self, error);
  if (status != TR_OK) {
    tr_free(allocator, device);
    return status;
  }
  *out = device;
  return TR_OK;
}

void tr_device_close(tr_device *device) {
  if (device == NULL) return;
  device->module->close(device->self);
  tr_free(device->allocator, device);
}

tr_device_kind tr_device_kind_of(const tr_device *device) { return device->kind; }

const char *tr_device_name(const tr_device *device) { return device->module->describe(device->self); }

int32_t tr_device_gpu_count(const char *module_folder) {
  const tr_device_module *module = NULL;
  if (tr_device_cuda_module(tr_allocator_system(), module_folder, &module, NULL) != TR_OK) return 0;
  return module->gpu_count();
}

void *tr_device_alloc(tr_device *device, tr_space space, size_t bytes) {
  return device->module->alloc(device->self, space, bytes);
}

void tr_device_free(tr_device *device, tr_space space, void *p, size_t bytes) {
  if (p != NULL) device->module->free(device->self, space, p, bytes);
}

tr_status tr_stream_create(tr_device *device, tr_stream **out, tr_error *error) {
  return device->module->stream_create(device->self, out, error);
}

void tr_stream_destroy(tr_device *device, tr_stream *stream) {
  if (stream != NULL) device->module->stream_destroy(device->self, stream);
}

tr_status tr_stream_sync(tr_device *device, tr_stream *stream, tr_error *error) {
  return device->module->stream_sync(device->self, stream, error);
}

tr_status tr_event_create(tr_device *device, tr_event **out, tr_error *error) {
  return device->module->event_create(device->self, out, error);
}

void tr_event_destroy(tr_device *device, tr_event *event) {
  if (event != NULL) device->module->event_destroy(device->self, event);
}

tr_status tr_event_record(tr_device *device, tr_event *event, tr_stream *stream, tr_error *error) {
  return device->module->event_record(device->self, event, stream, error);
}

tr_status tr_stream_wait_event(tr_device *device, tr_stream *stream, tr_event *event, tr_error *error) {
  return device->module->stream_wait_event(device->self, stream, event, error);
}

tr_status tr_device_copy(tr_device *device, void *to, const void *from, size_t bytes, tr_stream *stream,
                         tr_error *error) {
  return device->module->copy(device->self, to, from, bytes, stream, error);
}
