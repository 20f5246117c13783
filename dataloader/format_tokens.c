/* Files of tokens as llm.c writes them: a header of 256 words, then tokens of 16 or 32 bits. A sample is the tokens of a
 * sequence and the one behind them: "tokens" are the first data.sequence-length, "targets" the same number from the second
 * on. The last token of a sample is the first of the next; no sample lies in two files, and what is too short for one at a
 * file's end is left out. */
#include <stdio.h>
#include <string.h>
#include <trainrun/crc32c.h>

#include "agree.h"
#include "files.h"
#include "make.h"
#include "tokens_index.h"

typedef struct tokens {
  dl_index index;
  uint64_t length;              /* of a sequence */
  dl_tokens_part *parts;        /* [shard] */
  uint8_t begin[TR_FIELDS_MAX]; /* of each field in the sample: 0 tokens, 1 targets */
} tokens;

/* ---- Reading ----------------------------------------------------------------------------------------------------- */

/* The blocks under a sample: [begin, end) in the file's tokens, in bytes; `first` is where the sample begins. */
static void range_of(const tokens *self, size_t shard, uint64_t index, uint64_t *first, uint64_t *begin,
                     uint64_t *end) {
  const dl_tokens_part *part = &self->parts[shard];
  const uint64_t last = ((index + 1) * self->length + 1) * part->width, all = dl_tokens_bytes(part);
  *first = index * self->length * part->width;
  *begin = *first / part->block_bytes * part->block_bytes;
  *end = (last + part->block_bytes - 1) / part->block_bytes * part->block_bytes;
  if (*end > all) *end = all;
}

static bool tokens_place(const tr_dataset *dataset, size_t shard, uint64_t index, bool whole, dl_place *place) {
  (void)whole;
  uint64_t first, begin, end;
  range_of(dataset->self, shard, index, &first, &begin, &end);
  *place = (dl_place){.file = shard, .offset = DL_TOKENS_HEADER_BYTES + begin, .bytes = end - begin};
  return true;
}

static tr_status tokens_check(const tr_dataset *dataset, size_t shard, uint64_t index, bool whole, const uint8_t *bytes,
                              size_t count, tr_error *error) {
  (void)whole;
  const tokens *self = dataset->self;
  const dl_tokens_part *part = &self->parts[shard];
  uint64_t first, begin, end;
  range_of(self, shard, index, &first, &begin, &end);
  for (size_t at = 0; at < count; at += part->block_bytes) {
    const size_t block_bytes = count - at < part->block_bytes ? count - at : part->block_bytes;
    const uint64_t block = (begin + at) / part->block_bytes;
    if (tr_crc32c(0, bytes + at, block_bytes) == dl_tokens_crc(part, block)) continue;
    return tr_fail(error, TR_ERR_CORRUPT, "%s: offset %llu: sample %llu: its bytes are not those that were indexed",
                   dataset->files[shard].url, (unsigned long long)(DL_TOKENS_HEADER_BYTES + begin + at),
                   (unsigned long long)index);
  }
  return TR_OK;
}

static tr_status wrong_token(const tr_dataset *dataset, const dl_sample *sample, uint64_t at, tr_error *error) {
  return tr_fail(error, TR_ERR_CORRUPT, "%s: offset %llu: sample %llu: a token of more than 2^31 - 1",
                 dataset->files[sample->shard].url, (unsigned long long)(DL_TOKENS_HEADER_BYTES + at),
                 (unsigned long long)sample->index);
}

static tr_status tokens_decode(const tr_dataset *dataset, const dl_sample *sample, const uint8_t *bytes, size_t count,
                               void *const *to, dl_scratch *scratch, tr_error *error) {
  (void)count, (void)scratch;
  const tokens *self = dataset->self;
  const dl_tokens_part *part = &self->parts[sample->shard];
  uint64_t first, begin, end;
  range_of(self, sample->shard, sample->index, &first, &begin, &end);
  for (size_t f = 0; f < dataset->field_count; f++) {
    const uint8_t *at = bytes + (first - begin) + (size_t)self->begin[f] * part->width;
    int32_t *row = to[f];
    for (uint64_t i = 0; i < self->length; i++, at += part->width) {
      const uint32_t low = (uint32_t)at[0] | (uint32_t)at[1] << 8;
      row[i] = (int32_t)(part->width == 2 ? low : low | (uint32_t)at[2] << 16 | (uint32_t)at[3] << 24);
      if (row[i] < 0) return wrong_token(dataset, sample, begin + (uint64_t)(at - bytes), error);
    }
  }
  return TR_OK;
}

/* The sequence and the token behind it, as they are stored. */
static tr_status tokens_raw(const tr_dataset *dataset, size_t shard, uint64_t index, const uint8_t *bytes, size_t count,
                            tr_raw_visit visit, void *visitor, tr_error *error) {
  (void)count;
  const tokens *self = dataset->self;
  uint64_t first, begin, end;
  char key[24];
  range_of(self, shard, index, &first, &begin, &end);
  const tr_raw_value value = {.name = "tokens",
                              .kind = TR_RAW_BYTES,
                              .data = bytes + (first - begin),
                              .bytes = (size_t)(self->length + 1) * self->parts[shard].width};
  snprintf(key, sizeof key, "%llu", (unsigned long long)index);
  return visit(visitor, key, &value, 1, error);
}

static void tokens_name(const tr_dataset *dataset, size_t shard, uint64_t index, char *text, size_t text_bytes) {
  snprintf(text, text_bytes, "%s: %llu", dl_url_name(dataset->files[shard].url), (unsigned long long)index);
}

/* ---- Opening ----------------------------------------------------------------------------------------------------- */

static tr_status take_fields(tr_dataset *dataset, tr_error *error) {
  tokens *self = dataset->self;
  if (dataset->field_count == 0) {
    TR_TRY(dl_dataset_add_field(dataset, "tokens", "tokens", error));
    TR_TRY(dl_dataset_add_field(dataset, "targets", "targets", error));
  }
  for (size_t i = 0; i < dataset->field_count; i++) {
    tr_field *field = &dataset->fields[i];
    self->begin[i] = strcmp(dataset->sources[i], "targets") == 0;
    if (self->begin[i] == 0 && strcmp(dataset->sources[i], "tokens") != 0) {
      return tr_fail(error, TR_ERR_CONFIG,
                     "data field '%s': there is no '%.80s' in files of tokens; there are tokens and targets (the same, "
                     "one later)",
                     field->name, dataset->sources[i]);
    }
    field->dtype = TR_I32;
    field->ndim = 1;
    field->shape[0] = (int64_t)self->length;
    TR_TRY(dl_field_finish(field, error));
  }
  return TR_OK;
}

static tr_status prepare(tr_dataset *dataset, dl_candidate **out, tr_error *error) {
  if (dataset->sequence_length == 0) {
    return tr_fail(error, TR_ERR_CONFIG,
                   "data %s: files of tokens need data.sequence-length, the tokens of a sample (1024, say)",
                   dataset->urls[0]);
  }
  tokens *self = tr_arena_alloc(dataset->arena, sizeof *self);
  dl_candidate *list = tr_arena_alloc(dataset->arena, dataset->url_count * sizeof *list);
  if (self == NULL || list == NULL)
    return tr_fail_memory(error, "the list of shards", dataset->url_count * sizeof *list);
  self->parts = tr_arena_alloc(dataset->arena, dataset->url_count * sizeof *self->parts);
  if (self->parts == NULL) return tr_fail_memory(error, "the list of shards", dataset->url_count * sizeof *self->parts);
  for (size_t i = 0; i < dataset->url_count; i++) list[i].url = dataset->urls[i];
  self->index.allocator = dataset->allocator;
  self->length = dataset->sequence_length;
  dataset->self = self;
  dataset->files_per_shard = 1;
  TR_TRY(take_fields(dataset, error));
  *out = list;
  return TR_OK;
}

static tr_status take_index(tr_dataset *dataset, tr_error *error) {
  tokens *self = dataset->self;
  uint64_t most = 0, samples = 0;
  for (size_t i = 0; i < dataset->file_count; i++) {
    self->parts[i] = dl_tokens_part_of(self->index.parts[i]);
    const uint64_t count = self->parts[i].tokens;
    dataset->files[i].samples = count > 0 ? (count - 1) / self->length : 0;
    samples += dataset->files[i].samples;
    most = count > most ? count : most;
  }
  if (samples == 0) {
    return tr_fail(error, TR_ERR_CONFIG,
                   "data %s: no file has the %llu tokens of a sample (data.sequence-length and one more); the longest "
                   "has %llu",
                   dataset->urls[0], (unsigned long long)self->length + 1, (unsigned long long)most);
  }
  return dl_dataset_set_shards(dataset, error);
}

static tr_status tokens_open(tr_dataset *dataset, tr_error *error) {
  dl_candidate *list = NULL;
  tr_status status = dl_agree(dataset->exchange, prepare(dataset, &list, error), error);
  if (status == TR_OK) status = dl_files_find(dataset, list, dataset->url_count, error);
  if (status != TR_OK) return status;
  tokens *self = dataset->self;
  status = dl_index_open(dataset, &dl_tokens_index_format, &self->index, error);
  if (status != TR_OK) return status;
  return dl_agree(dataset->exchange, take_index(dataset, error), error);
}

static void tokens_close(tr_dataset *dataset) {
  tokens *self = dataset->self;
  if (self != NULL) dl_index_fini(&self->index);
}

const dl_format dl_format_tokens = {.name = "tokens",
                                    .open = tokens_open,
                                    .close = tokens_close,
                                    .place = tokens_place,
                                    .check = tokens_check,
                                    .decode = tokens_decode,
                                    .raw = tokens_raw,
                                    .name_sample = tokens_name};
