/* What the library and a device module say to each other: one host table in, one table of functions out.
 *
 * A module (libtrainrun_cuda.so) imports no symbol of libtrainrun: the host table holds all it may call. It exports one
 * function, TR_DEVICE_MODULE_ENTRY. Both sides were compiled from this header, so the version and the sizes of the
 * structs must be exactly equal; a module of another build is refused by name and never called. The cpu device fills the
 * same table, so that device.c knows one way only. */
#ifndef TRAINRUN_DEVICE_MODULE_H
#define TRAINRUN_DEVICE_MODULE_H

#include <trainrun/device.h>

enum { TR_DEVICE_MODULE_VERSION = 1 };

#define TR_DEVICE_MODULE_ENTRY "trainrun_device_module"

/* Functions of the library that a module may call; valid as long as the process. */
typedef struct tr_device_host {
  size_t struct_bytes;
  uint32_t version;
  uint32_t reserved; /* 0 */
  void *(*alloc)(const tr_allocator *allocator, size_t bytes);
  void (*free)(const tr_allocator *allocator, void *p);
  tr_status (*fail)(tr_error *error, tr_status status, const char *format, ...) TR_PRINTF(3, 4);
} tr_device_host;

/* `self` is what open gave. Rules of each function as in <trainrun/device.h>; NULL is a valid stream everywhere. */
typedef struct tr_device_module {
  size_t struct_bytes;
  uint32_t version;
  uint32_t error_bytes; /* sizeof(tr_error): it crosses the border too */
  const char *name;     /* "cuda" */
  int32_t (*gpu_count)(void);
  tr_status (*open)(const tr_allocator *allocator, int32_t index, void **self, tr_error *error);
  void (*close)(void *self);
  const char *(*describe)(void *self); /* "cuda 0 (NVIDIA H200, 139 GiB)", lives as long as self */
  void *(*alloc)(void *self, tr_space space, size_t bytes);
  void (*free)(void *self, tr_space space, void *p, size_t bytes);
  tr_status (*stream_create)(void *self, tr_stream **out, tr_error *error);
  void (*stream_destroy)(void *self, tr_stream *stream);
  tr_status (*stream_sync)(void *self, tr_stream *stream, tr_error *error);
  tr_status (*event_create)(void *self, tr_event **out, tr_error *error);
  void (*event_destroy)(void *self, tr_event *event);
  tr_status (*event_record)(void *self, tr_event *event, tr_stream *stream, tr_error *error);
  tr_status (*stream_wait_event)(void *self, tr_stream *stream, tr_event *event, tr_error *error);
  tr_status (*copy)(void *self, void *to, const void *from, size_t bytes, tr_stream *stream, tr_error *error);
} tr_device_module;

_Static_assert(sizeof(tr_device_host) == 40, "a change of the host table is a change of the version");
_Static_assert(sizeof(tr_device_module) == 136, "a change of the module's table is a change of the version");

/* TR_DEVICE_MODULE_ENTRY: the module's table, or NULL where `host` is not what it was compiled for. */
typedef const tr_device_module *(*tr_device_module_entry_fn)(const tr_device_host *host);

/* Built in. */
const tr_device_module *tr_device_cpu_module(void);

/* Opens libtrainrun_cuda.so in `folder` (NULL: where this library lies). TR_ERR_UNAVAILABLE: it is not there, or cannot be
 * loaded here; TR_ERR_MISMATCH: it is of another build. A loaded module stays for the life of the process. */
tr_status tr_device_cuda_module(const tr_allocator *allocator, const char *folder, const tr_device_module **out,
                                tr_error *error);

#endif
