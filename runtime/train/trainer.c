/* tr_train: from the start or a checkpoint, step by step, to the end of the job.
 *
 * step = next batch, micro-batches forward and backward with overlapped buckets, vote, update. Parameters, moments, running
 * statistics, cursor, order checksum and best metric change here, after the vote, and nowhere else. */
#include "trainer.h"

#include <math.h>
#include <string.h>

static tr_status diverged(const tr_trainer *trainer, tr_error *error) {
  const double loss = trainer->totals[0] / trainer->totals[trainer->output_count + TR_SCALAR_WEIGHT];
  return tr_fail(
      error, TR_ERR_DIVERGED,
      "step %llu: the %s is not finite (loss %g, gradient norm %g); parameters are as after step %llu. Lower "
      "optimizer.lr or set train.grad-clip",
      (unsigned long long)trainer->step + 1, isfinite(trainer->totals[0]) ? "gradient" : "loss", loss,
      trainer->grad_norm, (unsigned long long)trainer->step);
}

static void beacon(const tr_trainer *trainer) {
  const tr_session *session = trainer->session;
  if (session->board.beacons == NULL) return;
  tr_beacon *own = &session->board.beacons[session->comm_info.local_rank];
  __atomic_store_n(&own->step, trainer->step, __ATOMIC_RELAXED);
  __atomic_store_n(&own->samples, trainer->samples, __ATOMIC_RELAXED);
  __atomic_store(&own->loss, &trainer->last_loss, __ATOMIC_RELAXED);
}

/* All that persists changes here. */
static void commit_step(tr_trainer *trainer, double lr) {
  const double *behind = trainer->totals + trainer->output_count;
  const double weight = behind[TR_SCALAR_WEIGHT], leaves = behind[TR_SCALAR_LEAVES];
  double scale = weight > 0 ? 1 / weight : 0;
  if (trainer->grad_clip > 0 && trainer->grad_norm * scale > trainer->grad_clip) {
    scale *= trainer->grad_clip / (trainer->grad_norm * scale + 1e-6);
  }
  const tr_update_args args = {
      .step = trainer->step,
      .lr = lr,
      .gradient_scale = scale,
      .state_scale = leaves > 0 ? 1 / leaves : 0,
      .save = trainer->save,
  };
  tr_optimizer_update(trainer->optimizer, trainer->gradients[0], &args);
  tr_loader_commit(trainer->loader);
  trainer->cursor = tr_loader_cursor(trainer->loader);
  trainer->order_crc32c = tr_crc32c_combine(trainer->order_crc32c, trainer->batch_crc32c, trainer->batch_crc_bytes);
  trainer->step++;
  trainer->samples += (uint64_t)behind[TR_SCALAR_ROWS];
  trainer->last_loss = weight > 0 ? trainer->totals[0] / weight : NAN;
  beacon(trainer);
}

static tr_status run_step(tr_trainer *trainer, tr_decision *decision, tr_error *error) {
  tr_session *session = trainer->session;
  bool end = false;
  TR_TRY(tr_loader_begin(trainer->loader, &trainer->batch, &end, error));
  tr_session_phase(session, TR_PHASE_DATA, TR_CAUSE_OTHER);
  const uint64_t begun = session->ledger.last_ns;
  TR_TRY(tr_trainer_compute(trainer, error));
  TR_TRY(tr_trainer_vote(trainer, decision, error));
  if (!trainer->finite) return diverged(trainer, error);
  const double lr = tr_lr_at(&trainer->schedule, trainer->step);
  trainer->evaluated = trainer->evaluation_owed = false;
  commit_step(trainer, lr);
  tr_session_phase(session, TR_PHASE_UPDATE, TR_CAUSE_OTHER);
  tr_trainer_save_charge(trainer);
  trainer->training_ns += session->ledger.last_ns - begun;
  tr_trace_span(session->trace, TR_LANE_STEP, "step", begun, session->ledger.last_ns);
  tr_trainer_report_step(trainer, lr);
  return TR_OK;
}

static bool due(const tr_trainer *trainer, const tr_every *every) {
  const uint64_t before = trainer->samples - (uint64_t)trainer->totals[trainer->output_count + TR_SCALAR_ROWS];
  return tr_every_due(every, trainer->step, before, trainer->samples, trainer->batches, trainer->elapsed_before_ns,
                      trainer->elapsed_ns);
}

static bool at_end(const tr_trainer *trainer) {
  if (trainer->total_steps > 0) return trainer->step >= trainer->total_steps;
  return trainer->elapsed_ns >= trainer->length.time_ns;
}

/* True when the metric of early-stop has not got better for `patience` evaluations. */
static bool enough(tr_trainer *trainer) {
  const tr_config *config = trainer->session->config;
  const char *name = tr_config_text(config, "train.early-stop.metric");
  if (name == NULL) return false;
  const double value = tr_trainer_metric(trainer, name);
  const char *leaf = strrchr(name, '.') != NULL ? strrchr(name, '.') + 1 : name;
  const bool smaller = strstr(leaf, "loss") != NULL || strstr(leaf, "error") != NULL;
  const bool better = isnan(trainer->best_metric) ||
                      (smaller ? value < trainer->best_metric : value > trainer->best_metric);
  if (better && !isnan(value)) {
    trainer->best_metric = value;
    trainer->bad_evaluations = 0;
    return false;
  }
  return ++trainer->bad_evaluations >= (uint64_t)tr_config_integer(config, "train.early-stop.patience");
}

/* What an attempt that resumes still has to evaluate: what a stop put off, or, where only the summary was left to write,
 * the end once more, whose record stands already. */
static tr_status catch_up(tr_trainer *trainer, bool *early, tr_error *error) {
  if (trainer->eval_count == 0 || trainer->step == 0) return TR_OK;
  if (trainer->evaluation_owed) {
    TR_TRY(tr_trainer_evaluate(trainer, true, error));
    *early = enough(trainer);
    return TR_OK;
  }
  return at_end(trainer) || *early ? tr_trainer_evaluate(trainer, false, error) : TR_OK;
}

static tr_status train_loop(tr_trainer *trainer, tr_error *error) {
  tr_session *session = trainer->session;
  bool early = trainer->bad_evaluations > 0 && tr_config_text(session->config, "train.early-stop.metric") != NULL &&
               trainer->bad_evaluations >= (uint64_t)tr_config_integer(session->config, "train.early-stop.patience");
  TR_TRY(catch_up(trainer, &early, error));
  while (!at_end(trainer) && !early && session->stopped == TR_STOP_NONE) {
    tr_decision decision;
    TR_TRY(run_step(trainer, &decision, error));
    if (decision.save_durable) TR_TRY(tr_trainer_save_commit(trainer, error));
    if (decision.save_committed || decision.save_failed) {
      TR_TRY(tr_trainer_save_finish(trainer, false, false, error));
    }
    session->stopped = decision.stop;
    const bool evaluate = trainer->eval_count > 0 && (due(trainer, &trainer->eval_every) || at_end(trainer));
    trainer->evaluation_owed = evaluate && session->stopped != TR_STOP_NONE;
    if (evaluate && !trainer->evaluation_owed) {
      TR_TRY(tr_trainer_evaluate(trainer, true, error));
      early = enough(trainer);
    }
    const bool last = early || at_end(trainer) || session->stopped != TR_STOP_NONE;
    if (last || due(trainer, &trainer->checkpoint_every)) TR_TRY(tr_trainer_save_begin(trainer, last, error));
  }
  return tr_trainer_save_finish(trainer, true, true, error);
}

static tr_status train(tr_trainer *trainer, tr_error *error) {
  tr_session *session = trainer->session;
  const char *init = tr_config_text(session->config, "model.init");
  if (session->facts.resume_url[0] != '\0') {
    TR_TRY(tr_trainer_restore(trainer, error));
    if (init != NULL && trainer->rank == 0)
      tr_logf(session->log, TR_LOG_INFO, "model.init is not used: the run is resumed");
  } else if (init != NULL) {
    TR_TRY(tr_trainer_load_init(trainer, init, error));
  }
  if (session->facts.eval) return tr_trainer_evaluate(trainer, true, error);
  trainer->first_step = trainer->step;
  trainer->first_sample = trainer->logged_samples = trainer->samples;
  tr_loader_options options = tr_session_loader_options(session, "train", trainer->dataset);
  options.cursor = trainer->cursor;
  options.map = trainer->options->map;
  options.map_self = trainer->options->map_self;
  TR_TRY(tr_loader_open(&options, &trainer->loader, error));
  TR_TRY(tr_trainer_save_prepare(trainer, error));
  if (session->facts.resume_url[0] != '\0') tr_trainer_retain(trainer);
  beacon(trainer);
  return train_loop(trainer, error);
}

tr_status tr_train(tr_session *session, const tr_trainer_options *options, tr_train_result *result, tr_error *error) {
  TR_TRY(tr_session_open_run(session, error));
  tr_trainer *trainer = tr_calloc(session->allocator, 1, sizeof *trainer);
  if (trainer == NULL) return tr_fail_memory(error, "the trainer", sizeof *trainer);
  tr_error failure = {.status = TR_OK, .rank = -1};
  trainer->session = session;
  trainer->options = options;
  tr_status status = tr_trainer_setup(trainer, &failure);
  if (status == TR_OK) status = train(trainer, &failure);
  if (status == TR_OK) status = tr_trainer_report_end(trainer, result, &failure);
  tr_trainer_fini(trainer);
  tr_free(session->allocator, trainer);
  if (status == TR_OK && session->stopped != TR_STOP_NONE) {
    return tr_fail(error, TR_ERR_STOPPED, "stopped as asked; the state is in a checkpoint");
  }
  if (status != TR_OK && error != NULL) *error = failure;
  return status;
}
