/* The rooms below the trainer, used alone: read a bucket, iterate batches, all-reduce, commit a checkpoint, resume from it.
 * The "model" is a mean of the pixels a class: one number for each of 256 labels, summed over all ranks.
 *
 *   trainrun --workers 2 examples/own_loop.toml      (data.train with fields image and label)
 *
 * Compiles as C and as C++. */
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <trainrun/trainrun.h>

enum { LABELS = 256 };

/* A step counter and two sums a label: all that this loop keeps. */
typedef struct state {
  double pixels[LABELS];
  double count[LABELS];
} state;

static tr_piece piece_of(const char *name, double *data, uint64_t count) {
  tr_piece piece;
  memset(&piece, 0, sizeof piece);
  piece.name = name;
  piece.dtype = TR_F64;
  piece.ndim = 1;
  piece.shape[0] = (int64_t)count;
  piece.count = count;
  piece.data = data;
  return piece;
}

static size_t field_named(const tr_field *fields, size_t count, const char *name) {
  size_t i = 0;
  while (i < count && strcmp(fields[i].name, name) != 0) i++;
  return i;
}

/* Adds this rank's share of one global batch, then everybody's. */
static tr_status add_batch(tr_session *session, tr_loader *loader, const tr_batch_info *batch, state *sums,
                           tr_error *error) {
  const tr_field *fields = NULL;
  const size_t field_count = tr_loader_fields(loader, &fields);
  const size_t image = field_named(fields, field_count, "image"), label = field_named(fields, field_count, "label");
  if (image == field_count || label == field_count)
    return tr_fail(error, TR_ERR_MISMATCH, "the data needs image and label");
  state share;
  memset(&share, 0, sizeof share);
  for (uint64_t leaf = batch->leaf_begin; leaf < batch->leaf_end; leaf++) {
    tr_micro_batch micro;
    TR_TRY(tr_loader_next(loader, &micro, NULL, error));
    for (uint32_t row = 0; row < micro.row_count; row++) {
      const uint8_t *pixels = (const uint8_t *)micro.fields[image] + row * fields[image].bytes;
      const uint8_t of = *((const uint8_t *)micro.fields[label] + row * fields[label].bytes);
      for (size_t i = 0; i < fields[image].bytes; i++) share.pixels[of] += pixels[i];
      share.count[of] += (double)fields[image].bytes;
    }
  }
  /* Integers in doubles: exact in any order. */
  TR_TRY(
      tr_comm_all_reduce(tr_session_comm(session), &share, sizeof share / sizeof(double), TR_F64, TR_SUM, NULL, error));
  for (int i = 0; i < LABELS; i++) {
    sums->pixels[i] += share.pixels[i];
    sums->count[i] += share.count[i];
  }
  tr_loader_commit(loader);
  return TR_OK;
}

static tr_status checkpoint(tr_session *session, tr_store *store, const char *prefix, const tr_cursor *cursor,
                            uint64_t step, state *sums, tr_error *error) {
  const int32_t rank = tr_session_rank(session);
  tr_ckpt_save_options options;
  memset(&options, 0, sizeof options);
  options.struct_bytes = sizeof options;
  options.store = store;
  options.prefix = prefix;
  options.step = step;
  options.rank = rank;
  options.size = tr_session_size(session);
  const tr_piece pieces[] = {piece_of("pixels", sums->pixels, LABELS), piece_of("count", sums->count, LABELS)};
  tr_ckpt_save *save = NULL;
  TR_TRY(
      tr_ckpt_save_begin(&options, pieces, rank == 0 ? 2 : 0, &save, error)); /* all ranks hold the same: one saves */
  tr_status status = tr_ckpt_save_wait(save, error);
  if (status == TR_OK && rank == 0) {
    tr_ckpt_meta meta;
    memset(&meta, 0, sizeof meta);
    meta.struct_bytes = sizeof meta;
    meta.step = step;
    meta.epoch = cursor->epoch;
    meta.batch = cursor->batch;
    meta.world_size = options.size;
    meta.run_id = "own-loop";
    meta.parent = -1;
    meta.metric = NAN;
    size_t bytes = 0;
    const char *record = tr_ckpt_save_record(save, &bytes);
    status = tr_ckpt_commit(&options, &meta, &record, 1, error);
  }
  tr_ckpt_save_destroy(save);
  return status == TR_OK ? tr_comm_barrier(tr_session_comm(session), NULL, error) : status;
}

static tr_status resume(tr_session *session, tr_store *store, const char *prefix, int64_t step, tr_cursor *cursor,
                        state *sums, tr_error *error) {
  char folder[TR_KEY_BYTES];
  tr_ckpt *saved = NULL;
  if (step < 0) return TR_OK;
  snprintf(folder, sizeof folder, "%s%sstep-%lld", prefix, prefix[0] != '\0' ? "/" : "", (long long)step);
  TR_TRY(tr_ckpt_open(NULL, store, folder, &saved, error));
  const tr_piece pieces[] = {piece_of("pixels", sums->pixels, LABELS), piece_of("count", sums->count, LABELS)};
  const tr_ckpt_exchange exchange = tr_session_ckpt_exchange(session);
  const tr_status status = tr_ckpt_read(saved, pieces, 2, &exchange, error);
  cursor->epoch = tr_ckpt_describe(saved)->epoch;
  cursor->batch = tr_ckpt_describe(saved)->batch;
  tr_ckpt_close(saved);
  return status;
}

static tr_status loop(tr_session *session, tr_dataset *dataset, tr_store *store, const char *prefix, int64_t resumed,
                      tr_error *error) {
  tr_cursor cursor = {0, 0};
  state sums;
  memset(&sums, 0, sizeof sums);
  TR_TRY(resume(session, store, prefix, resumed, &cursor, &sums, error));
  tr_loader *loader = NULL;
  TR_TRY(tr_session_open_loader(session, "train", dataset, &cursor, &loader, error));
  const uint64_t batches = tr_loader_batches(loader);
  tr_status status = TR_OK;
  for (uint64_t step = resumed > 0 ? (uint64_t)resumed : 0; status == TR_OK && step < batches; step++) {
    tr_batch_info batch;
    bool end = false;
    status = tr_loader_begin(loader, &batch, &end, error);
    if (status == TR_OK) status = add_batch(session, loader, &batch, &sums, error);
    cursor = tr_loader_cursor(loader);
    if (status == TR_OK && (step + 1) % 100 == 0)
      status = checkpoint(session, store, prefix, &cursor, step + 1, &sums, error);
  }
  tr_loader_close(loader);
  for (int i = 0; status == TR_OK && tr_session_rank(session) == 0 && i < LABELS; i++) {
    if (sums.count[i] > 0) printf("label %d: mean pixel %.6f\n", i, sums.pixels[i] / sums.count[i]);
  }
  return status;
}

static tr_status run(tr_session *session, tr_error *error) {
  const char *url = NULL;
  int64_t resumed = -1;
  tr_store *store = NULL;
  char prefix[TR_KEY_BYTES];
  tr_dataset *dataset = NULL;
  TR_TRY(tr_session_checkpoint(session, &url, &resumed, error));
  TR_TRY(tr_stores_resolve(tr_session_stores(session), url, &store, prefix, error));
  TR_TRY(tr_session_open_dataset(session, "train", &dataset, error));
  const tr_status status = loop(session, dataset, store, prefix, resumed, error);
  tr_dataset_close(dataset);
  return status;
}

int main(int argc, char **argv) {
  tr_session *session = NULL;
  tr_error error;
  memset(&error, 0, sizeof error);
  tr_status status = tr_session_open(argc, argv, NULL, &session, &error);
  if (status == TR_OK) status = run(session, &error);
  if (status != TR_OK && status != TR_ERR_CANCELLED) fprintf(stderr, "bring_your_own_loop: %s\n", error.message);
  return tr_session_close(session, status, &error);
}
