/* Equal buffers, a bounded number of them, shared by threads that each have some under way.
 *
 * Nobody waits for a buffer while holding one whose work is over: a thread that holds some takes another only where one
 * is free, and otherwise ends the oldest of its own. So there is always a thread that goes on. */
#ifndef TRAINRUN_LAUNCHER_BUFFERS_H
#define TRAINRUN_LAUNCHER_BUFFERS_H

#include <pthread.h>
#include <trainrun/base.h>

enum { BUFFERS_MAX = 32 };

typedef struct tr_buffers {
  size_t bytes; /* of each */
  uint32_t count;

  /* Under `lock`. */
  pthread_mutex_t lock;
  pthread_cond_t freed;
  void *idle[BUFFERS_MAX];
  uint32_t idle_count, made;
} tr_buffers;

void buffers_init(tr_buffers *buffers, size_t bytes, uint32_t count);
/* After all are given back. */
void buffers_fini(tr_buffers *buffers);
/* NULL: none is free (where `wait` is false), or there is no memory. */
void *buffers_take(tr_buffers *buffers, bool wait);
void buffers_give(tr_buffers *buffers, void *buffer);

#endif
