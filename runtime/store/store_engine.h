/* Threads that execute requests: two queues, training before background.
 *
 * Threads start one by one when requests wait for them, none before the first submit. With more than one thread,
 * background requests never hold them all, so that a long upload does not keep a read waiting. */
#ifndef TRAINRUN_STORE_ENGINE_H
#define TRAINRUN_STORE_ENGINE_H

#include <trainrun/store.h>

typedef struct tr_store_engine tr_store_engine;

/* Does the request: writes bytes, info and first_byte_ns, fills `error`, returns the status. */
typedef tr_status (*tr_store_execute_fn)(void *self, tr_store_request *request, tr_error *error);

typedef struct tr_store_engine_options {
  const tr_allocator *allocator;
  const tr_clock *clock;
  uint32_t threads; /* at most; >= 1 */
  tr_store_execute_fn execute;
  void *self;
} tr_store_engine_options;

tr_status tr_store_engine_create(const tr_store_engine_options *options, tr_store_engine **out, tr_error *error);
/* Executes what is queued, then ends the threads. */
void tr_store_engine_destroy(tr_store_engine *engine);
tr_status tr_store_engine_submit(tr_store_engine *engine, tr_store_request *request, tr_error *error);
/* In the calling thread, without `done`. */
void tr_store_engine_run(tr_store_engine *engine, tr_store_request *request);

#endif
