/* Batches streamed to an emulated accelerator, as MLPerf Storage does it: what the loader feeds, and how busy a consumer is
 * kept that needs COMPUTE-MS for a batch.
 *
 *   trainrun --workers N --set data.train=... JOB.toml      [params] steps, compute-ms
 *
 * A worker is one accelerator: it takes its part of the global batch, sleeps, and meets the others at a barrier. Each rank
 * prints a line of JSON: when its first batch was there (CLOCK_MONOTONIC), seconds from then to the end, seconds slept,
 * samples and bytes after the first batch, CPU seconds of the process, and what the waits were for. */
#include <stdio.h>
#include <sys/resource.h>
#include <time.h>
#include <trainrun/trainrun.h>

#include "lib/windows.h"

static const tr_param_declaration declared[] = {
    {"steps", TR_PARAM_INTEGER, "100", "Batches to take."},
    {"compute-ms", TR_PARAM_REAL, "0", "Milliseconds that a batch keeps the accelerator busy."},
};

typedef struct tally {
  uint64_t first_ns, ended_ns, samples, bytes;
  double compute_s, cpu_s;
  tr_wait_account waits;
} tally;

static double cpu_s(void) {
  struct rusage used;
  getrusage(RUSAGE_SELF, &used);
  return (double)(used.ru_utime.tv_sec + used.ru_stime.tv_sec) +
         1e-6 * (double)(used.ru_utime.tv_usec + used.ru_stime.tv_usec);
}

/* Returns the seconds that it took, which are the accelerator's. */
static double compute(double milliseconds) {
  if (milliseconds <= 0) return 0;
  const uint64_t begun_ns = bench_now_ns();
  const struct timespec time = {.tv_sec = (time_t)(milliseconds / 1e3),
                                .tv_nsec = (long)(1e6 * (milliseconds - 1e3 * (double)(time_t)(milliseconds / 1e3)))};
  nanosleep(&time, NULL);
  return 1e-9 * (double)(bench_now_ns() - begun_ns);
}

static tr_status take(tr_loader *loader, size_t sample_bytes, bool counted, tally *t, tr_error *error) {
  tr_batch_info batch;
  bool end = false;
  TR_TRY(tr_loader_begin(loader, &batch, &end, error));
  for (uint64_t leaf = batch.leaf_begin; leaf < batch.leaf_end; leaf++) {
    tr_micro_batch micro;
    TR_TRY(tr_loader_next(loader, &micro, counted ? &t->waits : NULL, error));
    if (!counted) continue;
    t->samples += micro.row_count;
    t->bytes += micro.row_count * sample_bytes;
  }
  return TR_OK;
}

static tr_status loop(tr_session *session, tr_loader *loader, tally *t, tr_error *error) {
  const tr_field *fields = NULL;
  size_t sample_bytes = 0;
  for (size_t i = tr_loader_fields(loader, &fields); i > 0; i--) sample_bytes += fields[i - 1].bytes;
  const int64_t steps = tr_session_param_integer(session, "steps");
  const double compute_ms = tr_session_param_real(session, "compute-ms");
  double begun_cpu_s = 0;
  for (int64_t step = 0; step < steps; step++) {
    TR_TRY(take(loader, sample_bytes, step > 0, t, error));
    if (step == 0) {
      t->first_ns = bench_now_ns();
      begun_cpu_s = cpu_s();
    }
    t->compute_s += compute(compute_ms);
    tr_loader_commit(loader);
    TR_TRY(tr_comm_barrier(tr_session_comm(session), NULL, error));
  }
  t->ended_ns = bench_now_ns();
  t->cpu_s = cpu_s() - begun_cpu_s;
  return TR_OK;
}

static tr_status run(tr_session *session, tr_error *error) {
  tr_dataset *dataset = NULL;
  tr_loader *loader = NULL;
  tally t = {0};
  TR_TRY(tr_session_open_dataset(session, "train", &dataset, error));
  tr_status status = tr_session_open_loader(session, "train", dataset, NULL, &loader, error);
  if (status == TR_OK) status = loop(session, loader, &t, error);
  tr_loader_close(loader);
  tr_dataset_close(dataset);
  if (status != TR_OK) return status;
  printf(
      "{\"rank\": %d, \"first_ns\": %llu, \"seconds\": %.6f, \"compute_s\": %.6f, \"samples\": %llu, \"bytes\": %llu, "
      "\"cpu_s\": %.6f, \"first_byte_s\": %.6f, \"bandwidth_s\": %.6f, \"decode_s\": %.6f}\n",
      (int)tr_session_rank(session), (unsigned long long)t.first_ns, 1e-9 * (double)(t.ended_ns - t.first_ns),
      t.compute_s, (unsigned long long)t.samples, (unsigned long long)t.bytes, t.cpu_s,
      1e-9 * (double)t.waits.first_byte_ns, 1e-9 * (double)t.waits.bandwidth_ns, 1e-9 * (double)t.waits.decode_ns);
  return TR_OK;
}

int main(int argc, char **argv) {
  tr_session *session = NULL;
  tr_error error = {.status = TR_OK};
  const tr_session_options options = {.struct_bytes = sizeof options, .params = declared, .param_count = 2};
  tr_status status = tr_session_open(argc, argv, &options, &session, &error);
  if (status == TR_OK) status = run(session, &error);
  if (status != TR_OK && status != TR_ERR_CANCELLED) fprintf(stderr, "stream: %s\n", error.message);
  return tr_session_close(session, status, &error);
}
