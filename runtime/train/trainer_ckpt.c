/* Checkpoints of a trainer: which rank saves what, when a checkpoint counts, and how it is loaded.
 *
 * The flat arrays (values, and one a moment) are cut by blocks over the ranks, so that each saves its share; names and
 * element ranges in the manifest make any other number of ranks able to load. A save runs in the background from a copy; the
 * vote sees when all shards are durable, and rank 0 then commits. */
#include "trainer.h"

#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

typedef struct piece_list {
  tr_piece *items;
  size_t count, capacity;
  tr_arena *names;
} piece_list;

/* The elements of each parameter that lie in [begin, end) of a flat array, as pieces. prefix "" for the values. */
static tr_status add_pieces(tr_trainer *trainer, const char *prefix, float *flat, bool trained_only, uint64_t begin,
                            uint64_t end, piece_list *list, tr_error *error) {
  const int32_t size = tr_params_size(trainer->params);
  for (int32_t i = 0; i < size; i++) {
    const tr_param_info info = tr_params_info(trainer->params, i);
    if (trained_only && info.role != TR_PARAM_TRAINED) continue;
    const uint64_t from = info.offset > begin ? info.offset : begin;
    const uint64_t to = info.offset + info.count < end ? info.offset + info.count : end;
    if (from >= to) continue;
    TR_TRY(tr_reserve(trainer->allocator, (void **)&list->items, &list->capacity, list->count + 1, sizeof *list->items,
                      error));
    tr_piece *piece = &list->items[list->count];
    memset(piece, 0, sizeof *piece);
    piece->name = tr_arena_printf(list->names, "%s%s", prefix, info.name);
    if (piece->name == NULL) return tr_fail_memory(error, "the names of a checkpoint", 64);
    piece->dtype = TR_F32;
    piece->ndim = info.ndim;
    memcpy(piece->shape, info.shape, sizeof piece->shape);
    piece->begin = from - info.offset;
    piece->count = to - from;
    piece->data = flat + from;
    list->count++;
  }
  return TR_OK;
}

/* All arrays of the state, cut to part `part` of `parts`. */
static tr_status collect(tr_trainer *trainer, uint64_t part, uint64_t parts, piece_list *list, tr_error *error) {
  memset(list, 0, sizeof *list);
  TR_TRY(tr_arena_create(trainer->allocator, 8192, &list->names, error));
  const uint64_t blocks = tr_params_count(trainer->params) / TR_PARAM_BLOCK;
  TR_TRY(add_pieces(trainer, "", tr_params_values(trainer->params), false,
                    tr_split_begin(blocks, parts, part) * TR_PARAM_BLOCK,
                    tr_split_end(blocks, parts, part) * TR_PARAM_BLOCK, list, error));
  const uint64_t trained = tr_params_trained_count(trainer->params) / TR_PARAM_BLOCK;
  for (size_t i = 0; trainer->optimizer != NULL && i < tr_optimizer_states(trainer->optimizer); i++) {
    char prefix[64];
    snprintf(prefix, sizeof prefix, "optimizer.%s/", tr_optimizer_state_name(trainer->optimizer, i));
    TR_TRY(add_pieces(trainer, prefix, tr_optimizer_state(trainer->optimizer, i), true,
                      tr_split_begin(trained, parts, part) * TR_PARAM_BLOCK,
                      tr_split_end(trained, parts, part) * TR_PARAM_BLOCK, list, error));
  }
  return TR_OK;
}

static void free_pieces(tr_trainer *trainer, piece_list *list) {
  tr_free(trainer->allocator, list->items);
  tr_arena_destroy(list->names);
}

/* ---- Saving ---- */

static tr_ckpt_save_options save_options(const tr_trainer *trainer, uint64_t step) {
  return (tr_ckpt_save_options){
      .struct_bytes = sizeof(tr_ckpt_save_options),
      .allocator = trainer->allocator,
      .clock = trainer->session->clock,
      .store = trainer->ckpt_store,
      .prefix = trainer->ckpt_prefix,
      .step = step,
      .rank = trainer->rank,
      .size = trainer->size,
  };
}

static tr_status resolve_root(tr_trainer *trainer, tr_error *error) {
  if (trainer->ckpt_store != NULL) return TR_OK;
  return tr_stores_resolve(trainer->session->stores, trainer->session->facts.checkpoint_url, &trainer->ckpt_store,
                           trainer->ckpt_prefix, error);
}

static const char *best_rule(const tr_trainer *trainer) {
  return tr_config_text(trainer->session->config, "checkpoint.keep.best");
}

static void describe_state(tr_trainer *trainer) {
  const char *best = best_rule(trainer);
  char metric[40] = "null", loss[40] = "null";
  if (isfinite(trainer->best_metric)) snprintf(metric, sizeof metric, "%.17g", trainer->best_metric);
  if (isfinite(trainer->last_loss)) snprintf(loss, sizeof loss, "%.17g", trainer->last_loss);
  snprintf(trainer->save_state_json, sizeof trainer->save_state_json,
           "{\"best\": %s%s%s, \"best_metric\": %s, \"loss\": %s, \"bad_evaluations\": %llu, \"evaluation_owed\": %s, "
           "\"version\": \"%s\"}",
           best != NULL ? "\"" : "", best != NULL ? best : "null", best != NULL ? "\"" : "", metric, loss,
           (unsigned long long)trainer->bad_evaluations, trainer->evaluation_owed ? "true" : "false", TRAINRUN_VERSION);
}

/* One rank's failure becomes everyone's, with the failing rank's message. */
static tr_status share_status(tr_trainer *trainer, tr_status own, const tr_error *own_error, tr_error *error) {
  int64_t worst = own != TR_OK ? trainer->rank + 1 : 0;
  TR_TRY(tr_comm_all_reduce(trainer->comm, &worst, 1, TR_I64, TR_MAX, NULL, error));
  if (worst == 0) return TR_OK;
  tr_error told = {.status = TR_OK};
  if (worst == trainer->rank + 1) told = *own_error;
  TR_TRY(tr_comm_broadcast(trainer->comm, &told, sizeof told, (int32_t)(worst - 1), NULL, error));
  if (error != NULL) *error = told;
  return tr_error_context(error, told.status, "checkpoint of step %llu", (unsigned long long)trainer->save_meta.step);
}

tr_status tr_trainer_save_begin(tr_trainer *trainer, tr_error *error) {
  if (trainer->last_checkpoint == (int64_t)trainer->step) return TR_OK;
  if (trainer->save != NULL) TR_TRY(tr_trainer_save_finish(trainer, true, error));
  tr_session_phase(trainer->session, TR_PHASE_CHECKPOINT, TR_CAUSE_CHECKPOINT);
  const uint64_t begun = trainer->session->ledger.last_ns;
  TR_TRY(resolve_root(trainer, error));
  const char *best = best_rule(trainer);
  const char *metric = best != NULL ? strchr(best, ' ') : NULL;
  describe_state(trainer);
  trainer->save_meta = (tr_ckpt_meta){
      .struct_bytes = sizeof(tr_ckpt_meta),
      .step = trainer->step,
      .epoch = trainer->cursor.epoch,
      .batch = trainer->cursor.batch,
      .samples = trainer->samples,
      .order_crc32c = trainer->order_crc32c,
      .params_crc32c = tr_params_crc32c(trainer->params),
      .world_size = trainer->size,
      .run_id = trainer->session->facts.run_id,
      .fingerprint = (const char *)trainer->fingerprint.data,
      .data_lock = (const char *)trainer->data_lock.data,
      .state = trainer->save_state_json,
      .parent = trainer->last_checkpoint,
      .metric = metric != NULL && trainer->evaluated ? tr_trainer_metric(trainer, metric + 1) : NAN,
  };
  piece_list list;
  tr_error own_error = {.status = TR_OK};
  tr_status status = collect(trainer, (uint64_t)trainer->rank, (uint64_t)trainer->size, &list, &own_error);
  if (status == TR_OK) {
    const tr_ckpt_save_options options = save_options(trainer, trainer->step);
    status = tr_ckpt_save_begin(&options, list.items, list.count, &trainer->save, &own_error);
  }
  free_pieces(trainer, &list);
  status = share_status(trainer, status, &own_error, error);
  tr_session_phase(trainer->session, TR_PHASE_UPDATE, TR_CAUSE_OTHER);
  tr_trace_span(trainer->session->trace, TR_LANE_CHECKPOINT, "snapshot", begun, trainer->session->ledger.last_ns);
  return status;
}

tr_save_state tr_trainer_save_state(tr_trainer *trainer) {
  bool done = false;
  if (trainer->save == NULL) return TR_SAVE_NONE;
  const tr_status status = tr_ckpt_save_poll(trainer->save, &done, NULL);
  if (!done) return TR_SAVE_RUNNING;
  return status == TR_OK ? TR_SAVE_DURABLE : TR_SAVE_FAILED;
}

/* All ranks' texts on every rank: lengths, then the longest length of each. texts[r] points into *memory. */
static tr_status gather_texts(tr_trainer *trainer, const char *own, size_t own_bytes, const char **texts, char **memory,
                              tr_error *error) {
  int64_t longest = (int64_t)own_bytes + 1;
  TR_TRY(tr_comm_all_reduce(trainer->comm, &longest, 1, TR_I64, TR_MAX, NULL, error));
  const size_t each = (size_t)longest;
  char *all = tr_calloc(trainer->allocator, (size_t)trainer->size + 1, each);
  if (all == NULL) return tr_fail_memory(error, "the records of a checkpoint", ((size_t)trainer->size + 1) * each);
  char *mine = all + (size_t)trainer->size * each;
  memcpy(mine, own, own_bytes);
  const tr_status status = tr_comm_all_gather(trainer->comm, mine, each, all, NULL, error);
  if (status != TR_OK) {
    tr_free(trainer->allocator, all);
    return status;
  }
  for (int32_t r = 0; r < trainer->size; r++) texts[r] = all + (size_t)r * each;
  *memory = all;
  return TR_OK;
}

void tr_trainer_retain(tr_trainer *trainer) {
  tr_error kept = {.status = TR_OK};
  if (trainer->rank != 0) return;
  if (resolve_root(trainer, &kept) != TR_OK) {
    tr_log_error(trainer->session->log, "removing old checkpoints", &kept);
    return;
  }
  const char *best = best_rule(trainer);
  const tr_retain_options retain = {
      .struct_bytes = sizeof retain,
      .last = (uint64_t)tr_config_integer(trainer->session->config, "checkpoint.keep.last"),
      .best = best == NULL                   ? TR_BEST_NONE
              : strncmp(best, "max", 3) == 0 ? TR_BEST_MAX
                                             : TR_BEST_MIN,
  };
  /* What could not be removed costs room, not the checkpoint. */
  if (tr_ckpt_retain(trainer->allocator, trainer->ckpt_store, trainer->ckpt_prefix, &retain, UINT64_MAX, &kept) !=
      TR_OK) {
    tr_log_error(trainer->session->log, "removing old checkpoints", &kept);
  }
}

static tr_status commit_on_zero(tr_trainer *trainer, const char *const *records, tr_error *error) {
  if (trainer->rank != 0) return TR_OK;
  const tr_ckpt_save_options options = save_options(trainer, trainer->save_meta.step);
  /* A checkpoint promises that the records up to its step are written. */
  tr_session_drain(trainer->session);
  TR_TRY(tr_ckpt_commit(&options, &trainer->save_meta, records, (size_t)trainer->size, error));
  tr_trainer_retain(trainer);
  tr_session_event(trainer->session, "checkpoint", "\"step\": %llu", (unsigned long long)trainer->save_meta.step);
  return TR_OK;
}

tr_status tr_trainer_save_finish(tr_trainer *trainer, bool wait, tr_error *error) {
  if (trainer->save == NULL) return TR_OK;
  tr_session_phase(trainer->session, TR_PHASE_CHECKPOINT, TR_CAUSE_CHECKPOINT);
  const uint64_t begun = trainer->session->ledger.last_ns;
  tr_error own_error = {.status = TR_OK};
  bool done = true;
  const tr_status own = wait ? tr_ckpt_save_wait(trainer->save, &own_error)
                             : tr_ckpt_save_poll(trainer->save, &done, &own_error);
  const char **texts = NULL;
  char *memory = NULL;
  tr_status status = share_status(trainer, own, &own_error, error);
  if (status != TR_OK) goto done;
  texts = tr_calloc(trainer->allocator, (size_t)trainer->size, sizeof *texts);
  own_error.status = texts == NULL ? tr_fail_memory(&own_error, "a checkpoint", 64) : TR_OK;
  status = share_status(trainer, own_error.status, &own_error, error);
  if (status != TR_OK) goto done;
  size_t bytes = 0;
  const char *record = tr_ckpt_save_record(trainer->save, &bytes);
  status = gather_texts(trainer, record, bytes, texts, &memory, error);
  if (status != TR_OK) goto done;
  const tr_status committed = commit_on_zero(trainer, texts, &own_error);
  status = share_status(trainer, committed, &own_error, error);
  if (status == TR_OK) trainer->last_checkpoint = (int64_t)trainer->save_meta.step;
done:
  tr_free(trainer->allocator, memory);
  tr_free(trainer->allocator, texts);
  tr_ckpt_save_destroy(trainer->save);
  trainer->save = NULL;
  tr_session_phase(trainer->session, TR_PHASE_UPDATE, TR_CAUSE_OTHER);
  tr_trace_span(trainer->session->trace, TR_LANE_CHECKPOINT, "commit", begun, trainer->session->ledger.last_ns);
  return status;
}

/* ---- Loading ---- */

static tr_status open_ckpt(tr_trainer *trainer, const char *url, tr_ckpt **out, tr_error *error) {
  tr_store *store = NULL;
  char folder[TR_KEY_BYTES];
  TR_TRY(tr_stores_resolve(trainer->session->stores, url, &store, folder, error));
  return tr_ckpt_open(trainer->allocator, store, folder, out, error);
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
  piece_list list = {0};
  TR_TRY(open_ckpt(trainer, url, &ckpt, error));
  const tr_ckpt_meta *meta = tr_ckpt_describe(ckpt);
  tr_status status = TR_OK;
  if (trainer->dataset != NULL && meta->data_lock != NULL) {
    status = tr_dataset_check_lock(trainer->dataset, meta->data_lock, strlen(meta->data_lock), error);
  }
  if (status == TR_OK) status = collect(trainer, 0, 1, &list, error);
  if (status == TR_OK) {
    const tr_ckpt_exchange exchange = tr_session_ckpt_exchange(trainer->session);
    status = tr_ckpt_read(ckpt, list.items, list.count, &exchange, error);
  }
  free_pieces(trainer, &list);
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
  piece_list list = {0};
  tr_status status = tr_arena_create(trainer->allocator, 8192, &list.names, error);
  if (status == TR_OK) {
    status = add_pieces(trainer, "", tr_params_values(trainer->params), false, 0, tr_params_count(trainer->params),
                        &list, error);
  }
  if (status == TR_OK) {
    const tr_ckpt_exchange exchange = tr_session_ckpt_exchange(trainer->session);
    status = tr_ckpt_read(ckpt, list.items, list.count, &exchange, error);
  }
  free_pieces(trainer, &list);
  tr_ckpt_close(ckpt);
  tr_params_touch(trainer->params);
  tr_session_phase(trainer->session, TR_PHASE_STARTING, TR_CAUSE_STARTUP);
  return status == TR_OK ? TR_OK : tr_error_context(error, status, "model.init");
}
