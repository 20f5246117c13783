/* The commit of a checkpoint: all ranks' records to rank 0, whose thread writes the manifest and then clears what is old.
 *
 * Talking to a store takes milliseconds that no step has to wait for. The thread touches the trainer's commit alone, and what
 * does not change while there is one: store, prefix, allocator, log. */
#include "trainer.h"

#include <pthread.h>
#include <signal.h>
#include <string.h>

static tr_retain_options retain_options(const tr_trainer *trainer) {
  const char *best = tr_config_text(trainer->session->config, "checkpoint.keep.best");
  return (tr_retain_options){
      .struct_bytes = sizeof(tr_retain_options),
      .last = (uint64_t)tr_config_integer(trainer->session->config, "checkpoint.keep.last"),
      .best = best == NULL                   ? TR_BEST_NONE
              : strncmp(best, "max", 3) == 0 ? TR_BEST_MAX
                                             : TR_BEST_MIN,
  };
}

void tr_trainer_retain(tr_trainer *trainer) {
  tr_error kept = {.status = TR_OK};
  if (trainer->rank != 0) return;
  const tr_retain_options retain = retain_options(trainer);
  /* What could not be removed costs room, not the checkpoint. */
  if (tr_ckpt_retain(trainer->allocator, trainer->ckpt_store, trainer->ckpt_prefix, &retain, UINT64_MAX, &kept) !=
      TR_OK) {
    tr_log_error(trainer->session->log, "removing old checkpoints", &kept);
  }
}

/* All ranks' texts on every rank: lengths, then the longest length of each, one after the other in *memory. */
static tr_status gather_texts(tr_trainer *trainer, const char *own, size_t own_bytes, char **memory, size_t *each,
                              tr_error *error) {
  int64_t longest = (int64_t)own_bytes + 1;
  TR_TRY(tr_comm_all_reduce(trainer->comm, &longest, 1, TR_I64, TR_MAX, NULL, error));
  const size_t bytes = (size_t)longest;
  char *all = tr_calloc(trainer->allocator, (size_t)trainer->size + 1, bytes);
  if (all == NULL) return tr_fail_memory(error, "the records of a checkpoint", ((size_t)trainer->size + 1) * bytes);
  char *mine = all + (size_t)trainer->size * bytes;
  memcpy(mine, own, own_bytes);
  const tr_status status = tr_comm_all_gather(trainer->comm, mine, bytes, all, NULL, error);
  if (status != TR_OK) {
    tr_free(trainer->allocator, all);
    return status;
  }
  *memory = all;
  *each = bytes;
  return TR_OK;
}

static tr_status commit(tr_trainer *trainer, tr_error *error) {
  const tr_commit *own = &trainer->commit;
  const tr_ckpt_save_options options = tr_trainer_save_options(trainer, own->meta.step);
  tr_ckpt_meta meta = own->meta;
  /* A checkpoint promises that the records up to its step are written. */
  tr_session_drain(trainer->session);
  TR_TRY(tr_ckpt_records_crc32c(trainer->allocator, own->records, (size_t)trainer->size, TR_CKPT_OPTIMIZER,
                                &meta.params_crc32c, error));
  TR_TRY(tr_ckpt_commit(&options, &meta, own->records, (size_t)trainer->size, error));
  tr_trainer_retain(trainer);
  return TR_OK;
}

static void *thread_main(void *argument) {
  tr_trainer *trainer = argument;
  tr_commit *own = &trainer->commit;
  own->error = (tr_error){.status = TR_OK, .rank = -1};
  own->error.status = commit(trainer, &own->error);
  /* Releases the error to whoever sees `done`. */
  atomic_store_explicit(&own->done, true, memory_order_release);
  return NULL;
}

static void start(tr_trainer *trainer) {
  tr_commit *own = &trainer->commit;
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  own->thread_runs = pthread_create(&own->thread, NULL, thread_main, trainer) == 0;
  pthread_sigmask(SIG_SETMASK, &before, NULL);
  if (!own->thread_runs) thread_main(trainer);
}

tr_status tr_trainer_commit_begin(tr_trainer *trainer, tr_error *error) {
  tr_commit *own = &trainer->commit;
  size_t bytes = 0, each = 0;
  const char *record = tr_ckpt_save_record(trainer->save, &bytes);
  TR_TRY(gather_texts(trainer, record, bytes, &own->memory, &each, error));
  own->begun = true;
  if (trainer->rank != 0) return TR_OK;
  own->records = tr_calloc(trainer->allocator, (size_t)trainer->size, sizeof *own->records);
  if (own->records == NULL) return tr_fail_memory(error, "a checkpoint", (size_t)trainer->size * sizeof *own->records);
  for (int32_t r = 0; r < trainer->size; r++) own->records[r] = own->memory + (size_t)r * each;
  own->meta = trainer->save_meta;
  start(trainer);
  return TR_OK;
}

tr_save_state tr_trainer_commit_state(const tr_trainer *trainer) {
  const tr_commit *own = &trainer->commit;
  if (trainer->rank != 0 || !atomic_load_explicit(&own->done, memory_order_acquire)) return TR_SAVE_COMMITTING;
  return own->error.status == TR_OK ? TR_SAVE_COMMITTED : TR_SAVE_FAILED;
}

static void join(tr_commit *own) {
  if (own->thread_runs) pthread_join(own->thread, NULL);
  own->thread_runs = false;
}

tr_status tr_trainer_commit_wait(tr_trainer *trainer, tr_error *error) {
  tr_commit *own = &trainer->commit;
  if (trainer->rank != 0) return TR_OK;
  join(own);
  if (own->error.status != TR_OK) *error = own->error;
  return own->error.status;
}

void tr_trainer_commit_fini(tr_trainer *trainer) {
  tr_commit *own = &trainer->commit;
  join(own);
  tr_free(trainer->allocator, own->records);
  tr_free(trainer->allocator, own->memory);
  memset(own, 0, sizeof *own);
}
