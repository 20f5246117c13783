/* What a trainer tells: lines of metrics.jsonl, the log, and at the end the account of the whole. */
#include "trainer.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

static void write_member(tr_writer *writer, const char *key, double value) {
  tr_write_text(writer, ", \"%s\": ", key);
  tr_write_json_real(writer, value);
}

static bool log_due(const tr_trainer *trainer) {
  const uint64_t before = trainer->samples - (uint64_t)trainer->totals[trainer->output_count + TR_SCALAR_ROWS];
  return tr_every_due(&trainer->log_every, trainer->step, before, trainer->samples, trainer->batches,
                      trainer->elapsed_before_ns, trainer->elapsed_ns);
}

void tr_trainer_report_step(tr_trainer *trainer, double lr) {
  if (trainer->rank != 0 || !log_due(trainer)) return;
  const double seconds = (double)(trainer->training_ns - trainer->logged_ns) * 1e-9;
  const double rate = seconds > 0 ? (double)(trainer->samples - trainer->logged_samples) / seconds : 0;
  const double epoch = (double)trainer->step / (double)trainer->batches;
  trainer->logged_ns = trainer->training_ns;
  trainer->logged_samples = trainer->samples;
  tr_writer record;
  tr_writer_init(&record, trainer->allocator);
  tr_write_text(&record, "{\"step\": %llu, \"epoch\": %.4f, \"samples\": %llu", (unsigned long long)trainer->step,
                epoch, (unsigned long long)trainer->samples);
  write_member(&record, "loss", trainer->last_loss);
  for (int32_t i = 1; i < trainer->output_count; i++) {
    write_member(&record, tr_graph_output_name(trainer->graph, i),
                 trainer->totals[i] / trainer->totals[trainer->output_count + TR_SCALAR_WEIGHT]);
  }
  write_member(&record, "lr", lr);
  write_member(&record, "grad_norm", trainer->grad_norm / trainer->totals[trainer->output_count + TR_SCALAR_WEIGHT]);
  tr_write_text(&record, ", \"samples_per_s\": %.1f", rate);
  if (trainer->total_steps > 0)
    tr_write_text(&record, ", \"total_steps\": %llu", (unsigned long long)trainer->total_steps);
  tr_write_text(&record, "}");
  if (!record.failed) tr_session_send(trainer->session, "metrics", (const char *)record.data, record.bytes);
  tr_writer_fini(&record);
  if (trainer->session->world.origin == TR_ORIGIN_LAUNCHER) return; /* it shows the same */
  tr_logf(trainer->session->log, TR_LOG_INFO, "step %llu  epoch %.2f  loss %.4f  %.0f samples/s",
          (unsigned long long)trainer->step, epoch, trainer->last_loss, rate);
}

static void write_values(const tr_trainer *trainer, const tr_eval_set *set, bool prefixed, bool *first,
                         tr_writer *writer) {
  for (int32_t i = 0; i < trainer->output_count; i++) {
    char key[200];
    snprintf(key, sizeof key, "%s%s%s", prefixed ? set->label : "", prefixed && set->label[0] != '\0' ? "." : "",
             tr_graph_output_name(set->graph, i));
    tr_write_text(writer, "%s", *first ? "" : ", ");
    tr_write_json_string(writer, key);
    tr_write_text(writer, ": ");
    tr_write_json_real(writer, set->values[i]);
    *first = false;
  }
}

void tr_trainer_report_evaluation(tr_trainer *trainer, const tr_eval_set *set) {
  if (trainer->rank != 0) return;
  tr_writer record;
  bool first = true;
  tr_writer_init(&record, trainer->allocator);
  tr_write_text(&record, "{\"step\": %llu, \"set\": ", (unsigned long long)trainer->step);
  tr_write_json_string(&record, set->label[0] != '\0' ? set->label : "valid");
  tr_write_text(&record, ", \"metrics\": {");
  write_values(trainer, set, false, &first, &record);
  tr_write_text(&record, "}}");
  if (!record.failed) tr_session_send(trainer->session, "metrics", (const char *)record.data, record.bytes);
  tr_writer_fini(&record);
  char text[256] = "";
  for (int32_t i = 0; i < trainer->output_count; i++) {
    const size_t used = strlen(text);
    snprintf(text + used, sizeof text - used, "  %s %.4f", tr_graph_output_name(set->graph, i), set->values[i]);
  }
  tr_logf(trainer->session->log, TR_LOG_INFO, "evaluated %s at step %llu:%s",
          set->label[0] != '\0' ? set->label : "valid", (unsigned long long)trainer->step, text);
}

/* ---- The end ---- */

/* Mean over ranks of each cause, in seconds. */
static tr_status mean_ledger(tr_trainer *trainer, double seconds[TR_CAUSE_COUNT], tr_error *error) {
  for (int i = 0; i < TR_CAUSE_COUNT; i++) {
    seconds[i] = (double)trainer->session->ledger.total_ns[i] * 1e-9 / trainer->size;
  }
  return tr_comm_all_reduce(trainer->comm, seconds, TR_CAUSE_COUNT, TR_F64, TR_SUM, NULL, error);
}

static const char *source_of(const tr_trainer *trainer) {
  const tr_value *train = tr_config_find(trainer->session->config, "data.train");
  const tr_value *first = train;
  while (first != NULL && first->type == TR_VALUE_ARRAY && first->count > 0) first = &first->items[0];
  if (first != NULL && first->type == TR_VALUE_TABLE) first = tr_value_get(first, "url");
  return first != NULL && first->type == TR_VALUE_STRING && strncmp(first->text, "s3://", 5) == 0 ? "S3" : "Disk";
}

static void write_profile(const tr_trainer *trainer) {
  const tr_op_profile *entries = NULL;
  const size_t count = trainer->graph != NULL ? tr_graph_profile(trainer->graph, &entries) : 0;
  double total = 0;
  for (size_t i = 0; i < count; i++) total += (double)entries[i].time_ns;
  if (count == 0 || total <= 0) return;
  tr_log *log = trainer->session->log;
  tr_logf(log, TR_LOG_INFO, "profile: %-36s %8s %10s %6s %9s %8s", "op", "calls", "ms/call", "%", "GFLOP/s", "GB/s");
  for (size_t i = 0; i < count; i++) {
    const tr_op_profile *op = &entries[i];
    if (op->calls == 0 || op->time_ns == 0) continue;
    tr_logf(log, TR_LOG_INFO, "profile: %-36s %8llu %10.4f %6.1f %9.1f %8.1f", op->name, (unsigned long long)op->calls,
            (double)op->time_ns * 1e-6 / (double)op->calls, 100 * (double)op->time_ns / total,
            op->flops / (double)op->time_ns, op->bytes / (double)op->time_ns);
  }
}

static void write_result(tr_trainer *trainer, const tr_train_result *result, const double ledger[TR_CAUSE_COUNT],
                         const char *verdict, tr_writer *record) {
  const tr_session *session = trainer->session;
  const double seconds = (double)trainer->training_ns * 1e-9;
  double time_s = 0;
  for (int i = 0; i < TR_CAUSE_COUNT; i++) time_s += ledger[i];
  tr_write_text(record, "{\"steps\": %llu, \"samples\": %llu, \"epochs\": %llu, \"micro_batch\": %llu",
                (unsigned long long)result->steps, (unsigned long long)result->samples,
                (unsigned long long)result->epochs, (unsigned long long)trainer->micro_batch);
  tr_write_text(record, ", \"samples_per_s\": %.1f",
                seconds > 0 ? (double)(trainer->samples - trainer->first_sample) / seconds : 0.0);
  write_member(record, "loss", result->loss);
  tr_write_text(record, ", \"metrics\": {");
  bool first = true;
  for (size_t i = 0; i < trainer->eval_count; i++) {
    if (!isnan(trainer->eval_sets[i].values[0])) write_values(trainer, &trainer->eval_sets[i], true, &first, record);
  }
  tr_write_text(record, "}, \"params_crc32c\": \"%08x\", \"order_crc32c\": \"%08x\", \"resumed_step\": %lld",
                result->params_crc32c, result->order_crc32c, (long long)session->facts.resume_step);
  tr_write_text(record, ", \"time_s\": %.6f, \"ledger\": {", time_s);
  for (int i = 0; i < TR_CAUSE_COUNT; i++) {
    tr_write_text(record, "%s\"%s\": %.6f", i > 0 ? ", " : "", tr_cause_name((tr_cause)i), ledger[i]);
  }
  tr_write_text(record, "}, \"verdict\": ");
  tr_write_json_string(record, verdict);
  tr_write_text(record, "}");
}

tr_status tr_trainer_report_end(tr_trainer *trainer, tr_train_result *result, tr_error *error) {
  tr_session *session = trainer->session;
  tr_session_phase(session, TR_PHASE_ENDING, TR_CAUSE_SHUTDOWN);
  tr_train_result made = {
      .steps = trainer->step,
      .samples = trainer->samples,
      .epochs = trainer->cursor.epoch,
      .loss = trainer->last_loss,
      .eval_loss = trainer->eval_count > 0 ? trainer->eval_sets[0].values[0] : NAN,
      .params_crc32c = tr_params_crc32c(trainer->params),
      .order_crc32c = trainer->order_crc32c,
      .stopped = session->stopped,
  };
  /* Threads end here, so that the account holds their joining. */
  tr_loader_close(trainer->loader);
  trainer->loader = NULL;
  tr_ledger_enter(&session->ledger, TR_CAUSE_SHUTDOWN);
  double ledger[TR_CAUSE_COUNT];
  TR_TRY(mean_ledger(trainer, ledger, error));
  tr_verdict verdict;
  tr_blame_verdict(&trainer->blame, source_of(trainer), &verdict);
  if (trainer->rank == 0) {
    if (session->facts.profile) write_profile(trainer);
    tr_writer record;
    tr_writer_init(&record, trainer->allocator);
    write_result(trainer, &made, ledger, verdict.sentence, &record);
    if (!record.failed) tr_session_send(session, "result", (const char *)record.data, record.bytes);
    tr_writer_fini(&record);
    if (session->world.origin != TR_ORIGIN_LAUNCHER) {
      tr_logf(session->log, TR_LOG_INFO, "params_crc32c %08x  order_crc32c %08x  %s", made.params_crc32c,
              made.order_crc32c, verdict.sentence);
    }
  }
  if (result != NULL) *result = made;
  return TR_OK;
}
