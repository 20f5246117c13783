/* Loading a checkpoint: to go on with its run, or to begin another from its weights. */
#include "trainer.h"

#include <jansson.h>
#include <string.h>

static tr_status open_ckpt(tr_trainer *trainer, const char *url, tr_ckpt **out, tr_error *error) {
  tr_store *store = NULL;
  char folder[TR_KEY_BYTES];
  TR_TRY(tr_stores_resolve(trainer->session->stores, url, &store, folder, error));
  const tr_ckpt_exchange exchange = tr_session_ckpt_exchange(trainer->session);
  return tr_ckpt_open_together(trainer->allocator, store, folder, &exchange, out, error);
}

static void restore_counts(tr_trainer *trainer, const tr_ckpt_meta *meta) {
  trainer->step = meta->step;
  trainer->samples = meta->samples;
  trainer->order_crc32c = meta->order_crc32c;
  trainer->cursor = (tr_cursor){meta->epoch, meta->batch};
  trainer->last_checkpoint = (int64_t)meta->step;
  json_t *state = meta->state != NULL ? json_loads(meta->state, 0, NULL) : NULL;
  const json_t *best = json_object_get(state, "best_metric");
  const json_t *loss = json_object_get(state, "loss");
  if (json_is_number(best)) trainer->best_metric = json_number_value(best);
  if (json_is_number(loss)) trainer->last_loss = json_number_value(loss);
  trainer->bad_evaluations = (uint64_t)json_integer_value(json_object_get(state, "bad_evaluations"));
  trainer->evaluation_owed = json_is_true(json_object_get(state, "evaluation_owed"));
  json_decref(state);
}

static tr_status check_restored(const tr_trainer *trainer, const tr_ckpt_meta *meta, const char *url, tr_error *error) {
  const uint32_t found = tr_params_crc32c(trainer->params);
  if (found == meta->params_crc32c) return TR_OK;
  return tr_fail(error, TR_ERR_CORRUPT, "checkpoint '%s': parameters have CRC32C %08x, the manifest says %08x", url,
                 found, meta->params_crc32c);
}

tr_status tr_trainer_restore(tr_trainer *trainer, tr_error *error) {
  const char *url = trainer->session->facts.resume_url;
  if (url[0] == '\0') return TR_OK;
  tr_session_phase(trainer->session, TR_PHASE_LOADING, TR_CAUSE_RECOVERY);
  tr_ckpt *ckpt = NULL;
  tr_piece_list list = {0};
  TR_TRY(open_ckpt(trainer, url, &ckpt, error));
  const tr_ckpt_meta *meta = tr_ckpt_describe(ckpt);
  tr_status status = TR_OK;
  if (trainer->dataset != NULL && meta->data_lock != NULL) {
    status = tr_dataset_check_lock(trainer->dataset, meta->data_lock, strlen(meta->data_lock), error);
  }
  if (status == TR_OK) status = tr_trainer_collect(trainer, 0, 1, true, &list, error);
  if (status == TR_OK) {
    const tr_ckpt_exchange exchange = tr_session_ckpt_exchange(trainer->session);
    status = tr_ckpt_read(ckpt, list.items, list.count, &exchange, error);
  }
  tr_trainer_free_pieces(trainer, &list);
  if (status == TR_OK) status = check_restored(trainer, meta, url, error);
  if (status == TR_OK) {
    tr_params_touch(trainer->params);
    restore_counts(trainer, meta);
    /* Another run's checkpoint is a starting point, not one of ours. */
    const size_t own = strlen(trainer->session->facts.checkpoint_url);
    if (strncmp(url, trainer->session->facts.checkpoint_url, own) != 0) trainer->last_checkpoint = -1;
    if (trainer->rank == 0) {
      tr_logf(trainer->session->log, TR_LOG_INFO, "resumed from step %llu (%s)", (unsigned long long)meta->step, url);
      tr_session_event(trainer->session, "resume", "\"step\": %llu", (unsigned long long)meta->step);
    }
  } else if (status != TR_ERR_ABORTED) {
    status = tr_error_context(error, status, "resuming");
  }
  tr_ckpt_close(ckpt);
  tr_session_phase(trainer->session, TR_PHASE_STARTING, TR_CAUSE_STARTUP);
  return status;
}

tr_status tr_trainer_load_init(tr_trainer *trainer, const char *url, tr_error *error) {
  tr_session_phase(trainer->session, TR_PHASE_LOADING, TR_CAUSE_RECOVERY);
  char found[TR_KEY_BYTES];
  TR_TRY(tr_run_find_checkpoint(trainer->allocator, trainer->session->stores, trainer->session->config, url, found,
                                error));
  tr_ckpt *ckpt = NULL;
  TR_TRY(open_ckpt(trainer, found, &ckpt, error));
  tr_piece_list list;
  tr_status status = tr_trainer_collect(trainer, 0, 1, false, &list, error);
  if (status == TR_OK) {
    const tr_ckpt_exchange exchange = tr_session_ckpt_exchange(trainer->session);
    status = tr_ckpt_read(ckpt, list.items, list.count, &exchange, error);
  }
  tr_trainer_free_pieces(trainer, &list);
  tr_ckpt_close(ckpt);
  tr_params_touch(trainer->params);
  tr_session_phase(trainer->session, TR_PHASE_STARTING, TR_CAUSE_STARTUP);
  return status == TR_OK ? TR_OK : tr_error_context(error, status, "model.init");
}
