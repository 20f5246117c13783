/* Checkpoints of a trainer: which rank saves what, and when a checkpoint counts.
 *
 * The flat arrays (values, and one a moment) are cut by blocks over the ranks, so that each saves its share; names and
 * element ranges in the manifest make any other number of ranks able to load. A save copies and uploads in the background,
 * and what the next update writes over is copied before (optimizer.c). The vote sees when all shards are durable; rank 0
 * then commits, in the background too (trainer_commit.c); the vote sees that, and the checkpoint is there for all ranks.
 *
 * A save that fails for a reason that may pass (no memory, a full disk, a store that does not answer) does not end a healthy
 * run: it is logged, the next one is tried. Only the last one of an attempt has to succeed. */
#include "trainer.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/* The elements of each parameter that lie in [begin, end) of a flat array, as pieces. prefix "" for the values. */
static tr_status add_pieces(tr_trainer *trainer, const char *prefix, float *flat, bool trained_only, uint64_t begin,
                            uint64_t end, tr_piece_list *list, tr_error *error) {
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

tr_status tr_trainer_collect(tr_trainer *trainer, uint64_t part, uint64_t parts, bool moments, tr_piece_list *list,
                             tr_error *error) {
  memset(list, 0, sizeof *list);
  TR_TRY(tr_arena_create(trainer->allocator, 8192, &list->names, error));
  const uint64_t blocks = tr_params_count(trainer->params) / TR_PARAM_BLOCK;
  TR_TRY(add_pieces(trainer, "", tr_params_values(trainer->params), false,
                    tr_split_begin(blocks, parts, part) * TR_PARAM_BLOCK,
                    tr_split_end(blocks, parts, part) * TR_PARAM_BLOCK, list, error));
  const uint64_t trained = tr_params_trained_count(trainer->params) / TR_PARAM_BLOCK;
  const size_t states = moments && trainer->optimizer != NULL ? tr_optimizer_states(trainer->optimizer) : 0;
  for (size_t i = 0; i < states; i++) {
    char prefix[64];
    snprintf(prefix, sizeof prefix, TR_CKPT_OPTIMIZER "%s/", tr_optimizer_state_name(trainer->optimizer, i));
    TR_TRY(add_pieces(trainer, prefix, tr_optimizer_state(trainer->optimizer, i), true,
                      tr_split_begin(trained, parts, part) * TR_PARAM_BLOCK,
                      tr_split_end(trained, parts, part) * TR_PARAM_BLOCK, list, error));
  }
  return TR_OK;
}

void tr_trainer_free_pieces(tr_trainer *trainer, tr_piece_list *list) {
  tr_free(trainer->allocator, list->items);
  tr_arena_destroy(list->names);
}

/* ---- Saving ---- */

tr_ckpt_save_options tr_trainer_save_options(const tr_trainer *trainer, uint64_t step) {
  return (tr_ckpt_save_options){
      .struct_bytes = sizeof(tr_ckpt_save_options),
      .allocator = trainer->allocator,
      .clock = trainer->session->clock,
      .store = trainer->ckpt_store,
      .prefix = trainer->ckpt_prefix,
      .step = step,
      .rank = trainer->rank,
      .size = trainer->size,
      .saver = trainer->saver,
  };
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

/* What one rank failed with becomes everyone's `told`, in that rank's words. Returns only what a communicator failed with. */
static tr_status share(tr_trainer *trainer, tr_status own, const tr_error *own_error, tr_error *told, tr_error *error) {
  int64_t worst = own != TR_OK ? trainer->rank + 1 : 0;
  *told = (tr_error){.status = TR_OK, .rank = -1};
  TR_TRY(tr_comm_all_reduce(trainer->comm, &worst, 1, TR_I64, TR_MAX, NULL, error));
  if (worst == 0) return TR_OK;
  if (worst == trainer->rank + 1) *told = *own_error;
  TR_TRY(tr_comm_broadcast(trainer->comm, told, sizeof *told, (int32_t)(worst - 1), NULL, error));
  tr_error_context(told, told->status, "checkpoint of step %llu", (unsigned long long)trainer->save_meta.step);
  return TR_OK;
}

static bool may_pass(tr_status status) {
  switch (status) {
    case TR_ERR_NO_MEMORY:
    case TR_ERR_NO_SPACE:
    case TR_ERR_IO:
    case TR_ERR_UNAVAILABLE:
    case TR_ERR_STORE:
    case TR_ERR_THROTTLED:
    case TR_ERR_TIMEOUT: return true;
    default: return false;
  }
}

/* All ranks alike: the failure ends the run, or is only said. */
static tr_status judge(tr_trainer *trainer, const tr_error *told, bool required, tr_error *error) {
  if (told->status == TR_OK) return TR_OK;
  if (required || !may_pass(told->status)) {
    if (error != NULL) *error = *told;
    return told->status;
  }
  if (trainer->rank != 0) return TR_OK;
  tr_log_error(trainer->session->log, "training goes on, the next checkpoint is tried", told);
  tr_writer members;
  tr_writer_init(&members, trainer->allocator);
  tr_write_text(&members, "\"step\": %llu, \"message\": ", (unsigned long long)trainer->save_meta.step);
  tr_write_json_string(&members, told->message);
  tr_write_u8(&members, 0);
  /* An event is a line of limited length; the log has the whole message. */
  if (!members.failed && members.bytes < 1000) {
    tr_session_event(trainer->session, "checkpoint-failed", "%s", (const char *)members.data);
  }
  tr_writer_fini(&members);
  return TR_OK;
}

/* The upload may take up to half the time between two checkpoints, so that the cores lose little to it: a byte costs about
 * 0.6 ns of one (checksum, copies of a socket), and 1.5 % of the cores may be lost. */
static uint64_t spread_ns(const tr_trainer *trainer, uint64_t bytes) {
  const uint64_t since_ns = trainer->session->ledger.last_ns - trainer->save_begun_ns;
  const double node_bytes = (double)bytes * trainer->session->comm_info.local_size;
  const double wanted_ns = node_bytes * 0.6 / (0.015 * tr_world_cpus());
  return wanted_ns < (double)since_ns / 2 ? (uint64_t)wanted_ns : since_ns / 2;
}

static uint64_t bytes_of(const tr_piece_list *list) {
  uint64_t bytes = 0;
  for (size_t i = 0; i < list->count; i++) bytes += list->items[i].count * sizeof(float);
  return bytes;
}

static void describe(tr_trainer *trainer) {
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
      .world_size = trainer->size,
      .run_id = trainer->session->facts.run_id,
      .fingerprint = (const char *)trainer->fingerprint.data,
      .data_lock = (const char *)trainer->data_lock.data,
      .state = trainer->save_state_json,
      .parent = trainer->last_checkpoint,
      .metric = metric != NULL && trainer->evaluated ? tr_trainer_metric(trainer, metric + 1) : NAN,
  };
}

static tr_status begin_own(tr_trainer *trainer, tr_error *error) {
  tr_piece_list list;
  tr_status status = tr_trainer_collect(trainer, (uint64_t)trainer->rank, (uint64_t)trainer->size, true, &list, error);
  if (status == TR_OK) {
    tr_ckpt_save_options options = tr_trainer_save_options(trainer, trainer->step);
    options.spread_ns = spread_ns(trainer, bytes_of(&list));
    status = tr_ckpt_save_begin(&options, list.items, list.count, &trainer->save, error);
  }
  tr_trainer_free_pieces(trainer, &list);
  trainer->save_begun_ns = trainer->session->ledger.last_ns;
  trainer->save_blocked_ns = 0;
  return status;
}

static void drop_save(tr_trainer *trainer) {
  tr_trainer_commit_fini(trainer);
  tr_ckpt_save_destroy(trainer->save);
  trainer->save = NULL;
}

tr_status tr_trainer_save_prepare(tr_trainer *trainer, tr_error *error) {
  tr_session *session = trainer->session;
  TR_TRY(tr_stores_resolve(session->stores, session->facts.checkpoint_url, &trainer->ckpt_store, trainer->ckpt_prefix,
                           error));
  trainer->save_begun_ns = session->ledger.last_ns;
  const tr_every *every = &trainer->checkpoint_every;
  const bool often = every->epochs > 0 || every->steps > 0 || every->samples > 0 || every->tokens > 0 ||
                     every->time_ns > 0;
  tr_piece_list list;
  tr_status status = tr_trainer_collect(trainer, (uint64_t)trainer->rank, (uint64_t)trainer->size, true, &list, error);
  if (status == TR_OK) {
    const size_t bytes = (size_t)bytes_of(&list) + 4096 + list.count * 1024; /* a header too */
    status = tr_ckpt_saver_create(trainer->allocator, often ? bytes : 0, &trainer->saver, error);
  }
  tr_trainer_free_pieces(trainer, &list);
  TR_TRY(status);
  void *self = NULL;
  const tr_store_ops *ops = tr_store_vtable(trainer->ckpt_store, &self);
  if (trainer->rank != 0 || session->facts.attempt <= 1 || ops->upload_sweep == NULL) return TR_OK;
  /* What an attempt before this one left half written costs room, nothing else. */
  tr_error swept;
  if (ops->upload_sweep(self, trainer->ckpt_prefix, &swept) != TR_OK) {
    tr_log_error(session->log, "removing unfinished uploads", &swept);
  }
  return TR_OK;
}

tr_status tr_trainer_save_begin(tr_trainer *trainer, bool required, tr_error *error) {
  if (trainer->last_checkpoint == (int64_t)trainer->step) return TR_OK;
  TR_TRY(tr_trainer_save_finish(trainer, true, false, error));
  tr_session_phase(trainer->session, TR_PHASE_CHECKPOINT, TR_CAUSE_CHECKPOINT);
  const uint64_t begun = trainer->session->ledger.last_ns;
  tr_error own = {.status = TR_OK}, told;
  describe(trainer);
  own.status = begin_own(trainer, &own);
  TR_TRY(share(trainer, own.status, &own, &told, error));
  if (told.status != TR_OK) drop_save(trainer);
  const tr_status status = judge(trainer, &told, required, error);
  tr_session_phase(trainer->session, TR_PHASE_UPDATE, TR_CAUSE_OTHER);
  tr_trace_span(trainer->session->trace, TR_LANE_CHECKPOINT, "begin", begun, trainer->session->ledger.last_ns);
  return status;
}

void tr_trainer_save_charge(tr_trainer *trainer) {
  if (trainer->save == NULL) return;
  const uint64_t all_ns = tr_ckpt_save_blocked_ns(trainer->save);
  const uint64_t blocked_ns = (all_ns - trainer->save_blocked_ns) / tr_pool_threads(trainer->session->pool);
  trainer->save_blocked_ns = all_ns;
  tr_ledger_move(&trainer->session->ledger, TR_CAUSE_OPTIMIZER, TR_CAUSE_CHECKPOINT, blocked_ns);
}

tr_save_state tr_trainer_save_state(tr_trainer *trainer) {
  bool done = false;
  if (trainer->save == NULL) return TR_SAVE_NONE;
  if (trainer->commit.begun) return tr_trainer_commit_state(trainer);
  const tr_status status = tr_ckpt_save_poll(trainer->save, &done, NULL);
  if (!done) return TR_SAVE_RUNNING;
  return status == TR_OK ? TR_SAVE_DURABLE : TR_SAVE_FAILED;
}

tr_status tr_trainer_save_commit(tr_trainer *trainer, tr_error *error) {
  tr_session_phase(trainer->session, TR_PHASE_CHECKPOINT, TR_CAUSE_CHECKPOINT);
  const tr_status status = tr_trainer_commit_begin(trainer, error);
  tr_session_phase(trainer->session, TR_PHASE_UPDATE, TR_CAUSE_OTHER);
  return status;
}

/* To the end of the upload, and of the commit. A communicator's failure is returned, another's told. */
static tr_status finish(tr_trainer *trainer, bool wait, tr_error *told, tr_error *error) {
  tr_error own = {.status = TR_OK};
  bool done = true;
  if (!trainer->commit.begun) {
    own.status = wait ? tr_ckpt_save_wait(trainer->save, &own) : tr_ckpt_save_poll(trainer->save, &done, &own);
    TR_TRY(share(trainer, own.status, &own, told, error));
    if (told->status != TR_OK) return TR_OK;
    TR_TRY(tr_trainer_commit_begin(trainer, error));
  }
  own.status = tr_trainer_commit_wait(trainer, &own);
  TR_TRY(share(trainer, own.status, &own, told, error));
  if (told->status != TR_OK) return TR_OK;
  trainer->last_checkpoint = (int64_t)trainer->save_meta.step;
  if (trainer->rank == 0) {
    tr_session_event(trainer->session, "checkpoint", "\"step\": %llu", (unsigned long long)trainer->save_meta.step);
  }
  return TR_OK;
}

tr_status tr_trainer_save_finish(tr_trainer *trainer, bool wait, bool required, tr_error *error) {
  if (trainer->save == NULL) return TR_OK;
  tr_session_phase(trainer->session, TR_PHASE_CHECKPOINT, TR_CAUSE_CHECKPOINT);
  const uint64_t begun = trainer->session->ledger.last_ns;
  tr_error told = {.status = TR_OK};
  tr_status status = finish(trainer, wait, &told, error);
  drop_save(trainer);
  if (status == TR_OK) status = judge(trainer, &told, required, error);
  tr_session_phase(trainer->session, TR_PHASE_UPDATE, TR_CAUSE_OTHER);
  tr_trace_span(trainer->session->trace, TR_LANE_CHECKPOINT, "finish", begun, trainer->session->ledger.last_ns);
  return status;
}

void tr_trainer_save_fini(tr_trainer *trainer) {
  drop_save(trainer);
  tr_ckpt_saver_destroy(trainer->saver);
}
