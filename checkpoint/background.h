/* Threads that work beside a training step, and the memory they copy into. */
#ifndef TRAINRUN_CHECKPOINT_BACKGROUND_H
#define TRAINRUN_CHECKPOINT_BACKGROUND_H

#include <trainrun/checkpoint.h>

#include <pthread.h>

/* All signals blocked, as signals are the program's. False: none can be had. */
bool ckpt_thread_start(pthread_t *thread, void *(*body)(void *argument), void *argument);
/* The calling thread yields to every other from here on: where all cores compute it gets some hundredths of one, where one
 * idles all of it. A thread cannot undo this. */
void ckpt_thread_yield_to_others(void);

/* The saver's memory for one save: at least `bytes`, aligned to SAFETENSORS_ALIGN. */
tr_status ckpt_saver_take(tr_ckpt_saver *saver, size_t bytes, uint8_t **image, tr_error *error);
void ckpt_saver_give_back(tr_ckpt_saver *saver);

#endif
