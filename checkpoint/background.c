/* Threads of low priority, and the saver: memory that is taken once and whose pages are touched before they are needed. */
#include "background.h"

#include <signal.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23
#endif

enum { PAGE_BYTES = 4096, LARGE_BYTES = 2 << 20, TOUCH_BYTES = 4 << 20, LOWEST_PRIORITY = 19 };

struct tr_ckpt_saver {
  const tr_allocator *allocator;
  uint8_t *image;
  size_t bytes;
  bool in_use;

  /* Touches the pages of `image`; changes nothing in them, so a save may write meanwhile. */
  pthread_t thread;
  bool thread_runs;
  atomic_bool stop;
};

bool ckpt_thread_start(pthread_t *thread, void *(*body)(void *argument), void *argument) {
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  const bool started = pthread_create(thread, NULL, body, argument) == 0;
  pthread_sigmask(SIG_SETMASK, &before, NULL);
  if (started) pthread_setname_np(*thread, "tr-ckpt");
  return started;
}

void ckpt_thread_yield_to_others(void) {
  /* Of the thread alone, as Linux has it. Where it is refused the thread works at the program's own priority. */
  (void)setpriority(PRIO_PROCESS, (id_t)syscall(SYS_gettid), LOWEST_PRIORITY);
}

static void *touch_pages(void *argument) {
  tr_ckpt_saver *saver = argument;
  ckpt_thread_yield_to_others();
  for (size_t at = 0; at < saver->bytes && !atomic_load_explicit(&saver->stop, memory_order_relaxed);) {
    const size_t left = saver->bytes - at;
    const size_t now = left < TOUCH_BYTES ? left : TOUCH_BYTES;
    /* A kernel that does not know how leaves the pages to the first save. */
    if (madvise(saver->image + at, now, MADV_POPULATE_WRITE) != 0) break;
    at += now;
  }
  return NULL;
}

static void drop(tr_ckpt_saver *saver) {
  atomic_store_explicit(&saver->stop, true, memory_order_relaxed);
  if (saver->thread_runs) pthread_join(saver->thread, NULL);
  saver->thread_runs = false;
  if (saver->image != NULL) tr_free_aligned(saver->allocator, saver->image, saver->bytes);
  saver->image = NULL;
  saver->bytes = 0;
}

/* Small memory in small pages, so that a small model stays small. */
static tr_status take_memory(tr_ckpt_saver *saver, size_t bytes, tr_error *error) {
  const size_t page = bytes >= LARGE_BYTES ? LARGE_BYTES : PAGE_BYTES;
  const size_t whole = (bytes + page - 1) / page * page;
  saver->image = whole >= bytes ? tr_alloc_aligned(saver->allocator, whole, page) : NULL;
  if (saver->image == NULL) return tr_fail_memory(error, "the snapshot of a checkpoint", bytes);
  saver->bytes = whole;
  if (page == LARGE_BYTES) (void)madvise(saver->image, whole, MADV_HUGEPAGE);
  return TR_OK;
}

tr_status tr_ckpt_saver_create(const tr_allocator *allocator, size_t bytes, tr_ckpt_saver **out, tr_error *error) {
  tr_ckpt_saver *saver = tr_calloc(allocator, 1, sizeof *saver);
  if (saver == NULL) return tr_fail_memory(error, "a checkpoint", sizeof *saver);
  saver->allocator = allocator;
  if (bytes > 0 && take_memory(saver, bytes, NULL) == TR_OK) {
    saver->thread_runs = ckpt_thread_start(&saver->thread, touch_pages, saver);
  }
  *out = saver;
  return TR_OK;
}

void tr_ckpt_saver_destroy(tr_ckpt_saver *saver) {
  if (saver == NULL) return;
  drop(saver);
  tr_free(saver->allocator, saver);
}

tr_status ckpt_saver_take(tr_ckpt_saver *saver, size_t bytes, uint8_t **image, tr_error *error) {
  if (saver->in_use) return tr_fail(error, TR_ERR_INVALID, "checkpoint: two saves at a time use one saver");
  if (saver->bytes < bytes) {
    drop(saver);
    TR_TRY(take_memory(saver, bytes, error));
  }
  saver->in_use = true;
  *image = saver->image;
  return TR_OK;
}

void ckpt_saver_give_back(tr_ckpt_saver *saver) { saver->in_use = false; }
