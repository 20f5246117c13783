/* A pool of buffers: see buffers.h. They are made when first asked for. */
#include "buffers.h"

enum { ALIGN = 4096 };

void buffers_init(tr_buffers *buffers, size_t bytes, uint32_t count) {
  *buffers = (tr_buffers){.bytes = bytes, .count = count < BUFFERS_MAX ? count : BUFFERS_MAX};
  pthread_mutex_init(&buffers->lock, NULL);
  pthread_cond_init(&buffers->freed, NULL);
}

void buffers_fini(tr_buffers *buffers) {
  for (uint32_t i = 0; i < buffers->idle_count; i++) tr_free_aligned(NULL, buffers->idle[i], buffers->bytes);
  pthread_cond_destroy(&buffers->freed);
  pthread_mutex_destroy(&buffers->lock);
}

void *buffers_take(tr_buffers *buffers, bool wait) {
  void *taken = NULL;
  pthread_mutex_lock(&buffers->lock);
  while (wait && buffers->idle_count == 0 && buffers->made == buffers->count) {
    pthread_cond_wait(&buffers->freed, &buffers->lock);
  }
  if (buffers->idle_count > 0) {
    taken = buffers->idle[--buffers->idle_count];
  } else if (buffers->made < buffers->count) {
    taken = tr_alloc_aligned(NULL, buffers->bytes, ALIGN);
    if (taken != NULL) buffers->made++;
  }
  pthread_mutex_unlock(&buffers->lock);
  return taken;
}

void buffers_give(tr_buffers *buffers, void *buffer) {
  pthread_mutex_lock(&buffers->lock);
  buffers->idle[buffers->idle_count++] = buffer;
  pthread_cond_signal(&buffers->freed);
  pthread_mutex_unlock(&buffers->lock);
}
