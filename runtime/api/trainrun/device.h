/* Where tensors live and kernels run: memory, streams, events and copies behind one vtable.
 *
 * `cpu` is built in: its streams are the calling thread, host = pinned = device memory. `cuda` is a module
 * (libtrainrun_cuda.so beside the library, opened on use), so one binary runs with and without a GPU and says which it
 * uses. A device is used by the thread that owns it; memory may be freed from any. */
#ifndef TRAINRUN_DEVICE_H
#define TRAINRUN_DEVICE_H

#include <trainrun/base.h>

TR_BEGIN_C

typedef enum tr_dtype { TR_F32 = 0, TR_BF16 = 1, TR_I32 = 2, TR_U16 = 3, TR_U8 = 4, TR_I64 = 5, TR_F64 = 6 } tr_dtype;
TR_API size_t tr_dtype_bytes(tr_dtype dtype);
TR_API const char *tr_dtype_name(tr_dtype dtype); /* "f32", … */

typedef enum tr_device_kind { TR_DEVICE_AUTO = 0, TR_DEVICE_CPU = 1, TR_DEVICE_CUDA = 2 } tr_device_kind;
typedef enum tr_space { TR_SPACE_HOST = 0, TR_SPACE_PINNED = 1, TR_SPACE_DEVICE = 2 } tr_space;

typedef struct tr_device tr_device;
typedef struct tr_stream tr_stream; /* NULL: the device's default stream */
typedef struct tr_event tr_event;

typedef struct tr_device_options {
  size_t struct_bytes;
  const tr_allocator *allocator;
  tr_device_kind kind;
  int32_t index;             /* which GPU */
  const char *module_folder; /* where libtrainrun_cuda.so is looked for; NULL: beside libtrainrun */
} tr_device_options;

/* cuda: TR_ERR_UNAVAILABLE with what to do where the module or a GPU is missing. auto: cuda where it can, else cpu. */
TR_API TR_MUST_USE tr_status tr_device_open(const tr_device_options *options, tr_device **out, tr_error *error);
TR_API void tr_device_close(tr_device *device);
TR_API tr_device_kind tr_device_kind_of(const tr_device *device);
TR_API const char *tr_device_name(const tr_device *device); /* "cpu (avx512, 2 cores)" */
/* GPUs of this host; 0 without a module or driver. Never fails. */
TR_API int32_t tr_device_gpu_count(const char *module_folder);

/* 64-byte aligned (4 KiB from 4 KiB on). NULL when there is none. */
TR_API void *tr_device_alloc(tr_device *device, tr_space space, size_t bytes);
TR_API void tr_device_free(tr_device *device, tr_space space, void *p, size_t bytes);

TR_API TR_MUST_USE tr_status tr_stream_create(tr_device *device, tr_stream **out, tr_error *error);
TR_API void tr_stream_destroy(tr_device *device, tr_stream *stream);
TR_API TR_MUST_USE tr_status tr_stream_sync(tr_device *device, tr_stream *stream, tr_error *error);
TR_API TR_MUST_USE tr_status tr_event_create(tr_device *device, tr_event **out, tr_error *error);
TR_API void tr_event_destroy(tr_device *device, tr_event *event);
TR_API TR_MUST_USE tr_status tr_event_record(tr_device *device, tr_event *event, tr_stream *stream, tr_error *error);
TR_API TR_MUST_USE tr_status tr_stream_wait_event(tr_device *device, tr_stream *stream, tr_event *event,
                                                  tr_error *error);
/* Any space to any space; asynchronous on `stream` where one side is a GPU's and the other pinned. */
TR_API TR_MUST_USE tr_status tr_device_copy(tr_device *device, void *to, const void *from, size_t bytes,
                                            tr_stream *stream, tr_error *error);

TR_END_C
#endif
