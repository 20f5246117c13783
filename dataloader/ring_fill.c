/* Decoding rows into a slot, in the thread that took them: see ring.h. */
#include <string.h>

#include "ring.h"

enum { SKIPS_LOGGED_MAX = 20 };

/* From the bytes that were read ahead; where they are wrong, or there are none, the sample is read here. */
static tr_status decode_row(dl_ring *ring, const dl_sample *sample, const dl_row *row, void *const *to,
                            dl_scratch *scratch, tr_error *error) {
  const tr_dataset *dataset = ring->dataset;
  const uint8_t *bytes;
  size_t count;
  tr_status status = TR_OK;
  if (row == NULL || !dl_fetch_bytes(&ring->fetch, row, &bytes, &count, &status, error)) {
    return status != TR_OK ? status : dl_dataset_read(dataset, sample, false, to, scratch, error);
  }
  if (dataset->format->check != NULL &&
      dataset->format->check(dataset, sample->shard, sample->index, false, bytes, count, error) != TR_OK) {
    return dl_dataset_read(dataset, sample, true, to, scratch, error);
  }
  return dataset->format->decode(dataset, sample, bytes, count, to, scratch, error);
}

static tr_status make_row(dl_ring *ring, const dl_slot *slot, uint32_t number, const dl_row *row, dl_scratch *scratch,
                          bool *of_sample, tr_error *error) {
  const tr_dataset *dataset = ring->dataset;
  void *to[TR_FIELDS_MAX];
  for (size_t i = 0; i < dataset->field_count; i++) {
    to[i] = (uint8_t *)slot->fields[i] + number * ring->fields[i].bytes;
  }
  const dl_sample sample = dl_dataset_sample(dataset, slot->epoch, slot->ids[number], ring->transforms);
  tr_status status = decode_row(ring, &sample, row, to, scratch, error);
  *of_sample = status == TR_ERR_CORRUPT;
  if (status == TR_OK && ring->map != NULL) {
    status = ring->map(ring->map_self, slot->epoch, slot->ids[number], to, error);
    *of_sample = status != TR_OK;
    if (status != TR_OK) {
      char name[256];
      tr_dataset_sample_name(dataset, slot->ids[number], name, sizeof name);
      status = tr_error_context(error, status, "sample %s: its transform", name);
    }
  }
  return status;
}

static void clear_rows(const dl_ring *ring, dl_slot *slot, uint64_t begin, uint64_t end) {
  if (begin == end) return;
  for (size_t i = 0; i < ring->dataset->field_count; i++) {
    const size_t bytes = ring->fields[i].bytes;
    memset((uint8_t *)slot->fields[i] + begin * bytes, 0, (end - begin) * bytes);
  }
  for (uint64_t row = begin; row < end; row++) slot->row_weight[row] = 0;
}

void dl_ring_clear_rest(const dl_ring *ring, dl_slot *slot) {
  clear_rows(ring, slot, slot->row_count, ring->plan.micro_batch);
}

static void note_skip(dl_ring *ring, const tr_error *error) {
  pthread_mutex_lock(&ring->lock);
  const uint64_t number = ++ring->skips_logged;
  pthread_mutex_unlock(&ring->lock);
  if (number < SKIPS_LOGGED_MAX) tr_logf(ring->log, TR_LOG_WARNING, "skipped: %s", error->message);
  if (number == SKIPS_LOGGED_MAX) {
    tr_logf(ring->log, TR_LOG_WARNING, "skipped: %s; further ones are not logged, only recorded", error->message);
  }
}

void dl_ring_fill(dl_ring *ring, dl_fill *fill, dl_scratch *scratch, tr_error *error) {
  dl_slot *slot = fill->slot;
  fill->status = TR_OK;
  fill->skipped = 0;
  for (uint32_t i = 0; i < fill->count && fill->status == TR_OK; i++) {
    const uint32_t number = fill->begin + i;
    const dl_row *row = ring->fetches ? dl_fetch_row(&ring->fetch, fill->first + i) : NULL;
    bool of_sample = false;
    if (row != NULL) slot->ids[number] = row->id;
    slot->row_weight[number] = 1;
    const tr_status status = make_row(ring, slot, number, row, scratch, &of_sample, error);
    if (status == TR_OK) continue;
    if (of_sample && ring->skip_corrupt) {
      clear_rows(ring, slot, number, number + 1);
      fill->skipped++;
      note_skip(ring, error);
    } else {
      fill->status = status;
      fill->failed_row = number;
    }
  }
}
