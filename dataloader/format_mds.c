/* MosaicML's MDS: a folder with an index.json and shards of samples, each a row of columns. A URL is the folder or its
 * index.json; shards are read as they are, or whole where they are packed with zstd, and then kept unpacked as long as
 * samples of them are asked for. A field is a column, or "column.path" of a JSON column. */
#include <stdio.h>
#include <string.h>
#include <trainrun/crc32c.h>

#include "agree.h"
#include "files.h"
#include "make.h"
#include "mds_index.h"

enum { LIST_BYTES_MAX = 64 << 20 };

typedef struct mds {
  dl_mds base; /* first: what mds_index.c knows of it */
  struct {
    size_t column;
    const char *path; /* JSON's */
  } made[TR_FIELDS_MAX];
} mds;

/* ---- Reading ----------------------------------------------------------------------------------------------------- */

static dl_mds_part part_of(const tr_dataset *dataset, size_t shard) {
  return dl_mds_part_of(((const mds *)dataset->self)->base.index.parts[shard]);
}

static bool mds_place(const tr_dataset *dataset, size_t shard, uint64_t index, bool whole, dl_place *place) {
  (void)whole;
  const dl_mds_part part = part_of(dataset, shard);
  const uint64_t begin = dl_mds_word(part.offsets, index), bytes = dl_mds_word(part.offsets, index + 1) - begin;
  *place = part.packed ? (dl_place){.file = shard,
                                    .bytes = dataset->files[shard].bytes,
                                    .unpacked_bytes = part.raw_bytes,
                                    .inner_offset = begin,
                                    .inner_bytes = bytes}
                       : (dl_place){.file = shard, .offset = begin, .bytes = bytes};
  return true;
}

static tr_status mds_unpack(const tr_dataset *dataset, size_t file, const uint8_t *packed, size_t packed_bytes,
                            uint8_t *unpacked, size_t unpacked_bytes, tr_error *error) {
  const dl_file *of = &dataset->files[file];
  if (tr_crc32c(0, packed, packed_bytes) != part_of(dataset, file).packed_crc32c) {
    return tr_fail(error, TR_ERR_CORRUPT, "%s: its bytes are not those that were indexed", of->url);
  }
  return dl_mds_unpack(of, packed, packed_bytes, unpacked, unpacked_bytes, error);
}

static tr_status mds_check(const tr_dataset *dataset, size_t shard, uint64_t index, bool whole, const uint8_t *bytes,
                           size_t count, tr_error *error) {
  (void)whole;
  const dl_mds_part part = part_of(dataset, shard);
  if (part.packed || tr_crc32c(0, bytes, count) == dl_mds_word(part.crcs, index)) return TR_OK;
  return tr_fail(error, TR_ERR_CORRUPT, "%s: offset %u: sample %llu: its bytes are not those that were indexed",
                 dataset->files[shard].url, dl_mds_word(part.offsets, index), (unsigned long long)index);
}

/* The values of all columns: sizes of those that vary, then the values. */
static bool cut(const dl_mds_list *list, const uint8_t *bytes, size_t count, dl_value *values) {
  tr_reader sizes = tr_reader_of(bytes, count), reader = sizes;
  tr_read_bytes(&reader, 4 * list->variable_count);
  for (size_t c = 0; c < list->column_count; c++) {
    const uint64_t fixed = list->columns[c].as.size;
    const size_t bytes_of = fixed != 0 ? (size_t)fixed : tr_read_u32le(&sizes);
    values[c] = (dl_value){tr_read_bytes(&reader, bytes_of), bytes_of};
  }
  return !reader.failed && tr_reader_left(&reader) == 0;
}

/* In the scratch, which formats may use while they decode. */
static tr_status find_values(const tr_dataset *dataset, size_t shard, uint64_t index, const uint8_t *bytes,
                             size_t count, dl_scratch *scratch, dl_value **values, tr_error *error) {
  const dl_mds_list *list = &((const mds *)dataset->self)->base.list;
  TR_TRY(dl_scratch_reserve(scratch, list->column_count * sizeof **values, error));
  *values = (dl_value *)scratch->bytes;
  if (cut(list, bytes, count, *values)) return TR_OK;
  return tr_fail(error, TR_ERR_CORRUPT, "%s: sample %llu: its columns do not fill it", dataset->files[shard].url,
                 (unsigned long long)index);
}

static tr_status blame(const tr_dataset *dataset, size_t shard, uint64_t index, size_t field, tr_status status,
                       tr_error *error) {
  const mds *self = dataset->self;
  const dl_mds_column *column = &self->base.list.columns[self->made[field].column];
  return tr_error_context(error, status, "%s: offset %u: sample %llu, field '%s' (%.60s, %.60s)",
                          dataset->files[shard].url, dl_mds_word(part_of(dataset, shard).offsets, index),
                          (unsigned long long)index, dataset->fields[field].name, column->name, column->encoding);
}

static tr_status decode_field(const tr_dataset *dataset, const dl_sample *sample, size_t field, dl_value value,
                              void *to, dl_scratch *scratch, tr_error *error) {
  const mds *self = dataset->self;
  const dl_mds_encoding *as = &self->base.list.columns[self->made[field].column].as;
  const dl_kind kind = dl_mds_kind_of(as);
  if (kind != DL_KIND_NONE)
    return dl_make(dataset, sample, field, kind, self->made[field].path, value, to, scratch, error);
  tr_field found;
  const uint8_t *data;
  TR_TRY(dl_mds_decode(as, value, scratch->allocator, &scratch->decoded, &found, &data, error));
  return dl_make_decoded(dataset, sample, field, &found, data, to, scratch, error);
}

static tr_status mds_decode(const tr_dataset *dataset, const dl_sample *sample, const uint8_t *bytes, size_t count,
                            void *const *to, dl_scratch *scratch, tr_error *error) {
  const mds *self = dataset->self;
  dl_value *values;
  TR_TRY(find_values(dataset, sample->shard, sample->index, bytes, count, scratch, &values, error));
  for (size_t i = 0; i < dataset->field_count; i++) {
    const tr_status status = decode_field(dataset, sample, i, values[self->made[i].column], to[i], scratch, error);
    if (status != TR_OK) return blame(dataset, sample->shard, sample->index, i, status, error);
  }
  return TR_OK;
}

/* ---- As it is stored --------------------------------------------------------------------------------------------- */

static void show_values(const dl_mds_list *list, const dl_value *values, tr_writer *numbers, tr_raw_value *shown) {
  for (size_t c = 0; c < list->column_count; c++) {
    bool written;
    const size_t at = numbers->bytes;
    shown[c] = (tr_raw_value){.name = list->columns[c].name, .data = values[c].bytes, .bytes = values[c].count};
    shown[c].kind = dl_mds_show(&list->columns[c].as, values[c], numbers, &written);
    if (!written) continue;
    shown[c].data = NULL; /* in the writer, which may move until all are written */
    shown[c].bytes = numbers->bytes - at;
  }
  for (size_t c = 0, at = 0; !numbers->failed && c < list->column_count; c++) {
    if (shown[c].data != NULL) continue;
    shown[c].data = numbers->data + at;
    at += shown[c].bytes;
  }
}

static tr_status mds_raw(const tr_dataset *dataset, size_t shard, uint64_t index, const uint8_t *bytes, size_t count,
                         tr_raw_visit visit, void *visitor, tr_error *error) {
  const dl_mds_list *list = &((const mds *)dataset->self)->base.list;
  tr_writer numbers;
  tr_writer_init(&numbers, dataset->allocator);
  tr_raw_value *shown = tr_calloc(dataset->allocator, list->column_count, sizeof *shown + sizeof(dl_value));
  tr_status status = TR_OK;
  char key[24];
  snprintf(key, sizeof key, "%llu", (unsigned long long)index);
  if (shown == NULL) {
    status = tr_fail_memory(error, "a sample", list->column_count * sizeof *shown);
  } else {
    dl_value *values = (dl_value *)(shown + list->column_count);
    if (!cut(list, bytes, count, values)) {
      status = tr_fail(error, TR_ERR_CORRUPT, "%s: sample %llu: its columns do not fill it", dataset->files[shard].url,
                       (unsigned long long)index);
    } else {
      show_values(list, values, &numbers, shown);
      status = numbers.failed ? tr_fail_memory(error, "a sample", numbers.bytes)
                              : visit(visitor, key, shown, list->column_count, error);
    }
  }
  tr_free(dataset->allocator, shown);
  tr_writer_fini(&numbers);
  return status;
}

static void mds_name(const tr_dataset *dataset, size_t shard, uint64_t index, char *text, size_t text_bytes) {
  snprintf(text, text_bytes, "%s: %llu", dl_url_name(dataset->files[shard].url), (unsigned long long)index);
}

/* ---- Fields ------------------------------------------------------------------------------------------------------ */

/* Bytes are a field of their own accord only where all samples have as many. */
static bool has_one_size(const tr_dataset *dataset, size_t column) {
  const mds *self = dataset->self;
  const dl_mds_list *list = &self->base.list;
  size_t v = 0;
  uint32_t least = UINT32_MAX, most = 0;
  for (size_t c = 0; c < column; c++) v += list->columns[c].as.size == 0;
  for (size_t i = 0; i < dataset->file_count; i++) {
    const dl_mds_part part = part_of(dataset, i);
    if (part.samples == 0) continue;
    const uint32_t low = dl_mds_word(part.sizes, 2 * v), high = dl_mds_word(part.sizes, 2 * v + 1);
    least = low < least ? low : least;
    most = high > most ? high : most;
  }
  return least == most && most > 0;
}

static tr_status add_default_fields(tr_dataset *dataset, tr_error *error) {
  const dl_mds_list *list = &((const mds *)dataset->self)->base.list;
  for (size_t c = 0; c < list->column_count; c++) {
    const dl_mds_column *column = &list->columns[c];
    const dl_mds_kind kind = column->as.kind;
    if (dataset->field_count == TR_FIELDS_MAX) {
      tr_logf(dataset->log, TR_LOG_WARNING,
              "data: there are more columns than the %d that are read unless they are named: '%.80s' is not",
              TR_FIELDS_MAX, column->name);
    } else if (!dl_mds_batchable(&column->as) || kind == DL_MDS_JSON ||
               (kind == DL_MDS_BYTES && !has_one_size(dataset, c))) {
      tr_logf(dataset->log, TR_LOG_INFO, "data: column '%.80s' (%.60s) is not read: it cannot be batched as it is",
              column->name, column->encoding);
    } else {
      TR_TRY(dl_dataset_add_field(dataset, column->name, column->name, error));
    }
  }
  if (dataset->field_count > 0) return TR_OK;
  return tr_fail(error, TR_ERR_CONFIG,
                 "data %s: no column can be batched as it is; name fields in data.fields, of a JSON column as "
                 "\"column.path\"",
                 dataset->urls[0]);
}

static tr_status unknown_column(const tr_dataset *dataset, size_t i, tr_error *error) {
  const dl_mds_list *list = &((const mds *)dataset->self)->base.list;
  char names[240];
  size_t used = 0;
  names[0] = '\0';
  for (size_t c = 0; c < list->column_count && used < sizeof names - 1; c++) {
    used += (size_t)snprintf(names + used, sizeof names - used, "%s%s", c > 0 ? ", " : "", list->columns[c].name);
  }
  return tr_fail(error, TR_ERR_CONFIG, "data field '%s': there is no column '%.80s' in %.100s; there are %s",
                 dataset->fields[i].name, dataset->sources[i], dataset->urls[0], names);
}

/* The column of that name, or the JSON column whose name and a dot it begins with. */
static tr_status resolve_field(tr_dataset *dataset, size_t i, tr_error *error) {
  mds *self = dataset->self;
  const dl_mds_list *list = &self->base.list;
  const char *source = dataset->sources[i];
  size_t found = list->column_count;
  const char *path = NULL;
  for (size_t c = 0; c < list->column_count; c++) {
    const char *name = list->columns[c].name;
    const size_t length = strlen(name);
    if (strncmp(name, source, length) != 0) continue;
    if (source[length] == '\0') {
      found = c;
      path = NULL;
      break;
    }
    if (list->columns[c].as.kind != DL_MDS_JSON || source[length] != '.') continue;
    found = c;
    path = source + length + 1;
  }
  if (found == list->column_count) return unknown_column(dataset, i, error);
  const dl_mds_column *column = &list->columns[found];
  self->made[i].column = found;
  self->made[i].path = column->as.kind == DL_MDS_JSON && path == NULL ? "" : path;
  if (dl_mds_batchable(&column->as)) return TR_OK;
  return tr_fail(error, TR_ERR_CONFIG, "data field '%s': column '%.80s' (%.60s) cannot be made into a batch",
                 dataset->fields[i].name, column->name, column->encoding);
}

static tr_status probe_field(tr_dataset *dataset, size_t i, dl_value value, tr_error *error) {
  const mds *self = dataset->self;
  const dl_mds_encoding *as = &self->base.list.columns[self->made[i].column].as;
  const dl_kind kind = dl_mds_kind_of(as);
  tr_field found, *field = &dataset->fields[i];
  if (kind != DL_KIND_NONE) {
    TR_TRY(dl_decode_probe(kind, self->made[i].path, value, dataset->allocator, field, error));
  } else {
    TR_TRY(dl_mds_decode(as, value, dataset->allocator, NULL, &found, NULL, error));
    field->dtype = found.dtype;
    field->ndim = found.ndim;
    memcpy(field->shape, found.shape, sizeof field->shape);
  }
  return dl_field_finish(field, error);
}

/* Types and shapes are those of the first sample. */
static tr_status probe(tr_dataset *dataset, tr_error *error) {
  const mds *self = dataset->self;
  if (tr_dataset_size(dataset) == 0) return TR_OK;
  const dl_sample first = dl_dataset_sample(dataset, 0, 0, NULL);
  const uint8_t *bytes;
  size_t count;
  dl_value *values;
  TR_TRY(dl_dataset_bring(dataset, &first, false, false, &dataset->scratch, &bytes, &count, error));
  TR_TRY(find_values(dataset, first.shard, first.index, bytes, count, &dataset->scratch, &values, error));
  for (size_t i = 0; i < dataset->field_count; i++) {
    const tr_status status = probe_field(dataset, i, values[self->made[i].column], error);
    if (status != TR_OK) return blame(dataset, first.shard, first.index, i, status, error);
  }
  return TR_OK;
}

/* ---- Opening ----------------------------------------------------------------------------------------------------- */

/* The folder of a URL that may name its index.json. */
static const char *folder_of(tr_dataset *dataset, const char *url) {
  const char *name = dl_url_name(url);
  size_t length = strcmp(name, "index.json") == 0 ? (size_t)(name - url) : strlen(url);
  while (length > 1 && url[length - 1] == '/') length--;
  return tr_arena_strndup(dataset->arena, url, length);
}

static tr_status load_list(tr_dataset *dataset, const char *folder, void **text, size_t *bytes, tr_error *error) {
  tr_store *store;
  char key[TR_KEY_BYTES];
  const char *url = tr_url_join(dataset->arena, folder, "index.json");
  if (url == NULL) return tr_fail_memory(error, "a URL", strlen(folder));
  TR_TRY(tr_stores_resolve(dataset->stores, url, &store, key, error));
  const tr_status status = tr_store_get_all(store, dataset->allocator, key, LIST_BYTES_MAX, text, bytes, error);
  return status == TR_OK ? TR_OK : tr_error_context(error, status, "data %s", url);
}

/* One rank reads it and hands it on, so that all work on the same list. */
static tr_status share_list(tr_dataset *dataset, const char *folder, void **text, size_t *bytes, tr_error *error) {
  const tr_exchange *exchange = dataset->exchange;
  tr_status status = TR_OK;
  if (folder == NULL) status = tr_fail_memory(error, "a URL", TR_KEY_BYTES);
  if (status == TR_OK && dl_rank(exchange) == 0) status = load_list(dataset, folder, text, bytes, error);
  status = dl_agree(exchange, status, error);
  if (status != TR_OK || dl_ranks(exchange) == 1) return status;
  uint64_t size = *bytes;
  TR_TRY(exchange->broadcast(exchange->self, &size, sizeof size, 0, error));
  if (dl_rank(exchange) != 0) *text = tr_alloc(dataset->allocator, (size_t)size + 1);
  *bytes = (size_t)size;
  status = *text != NULL ? TR_OK : tr_fail_memory(error, folder, (size_t)size);
  TR_TRY(dl_agree(exchange, status, error));
  return exchange->broadcast(exchange->self, *text, (size_t)size, 0, error);
}

/* Collective. */
static tr_status read_lists(tr_dataset *dataset, dl_candidate **out, tr_error *error) {
  mds *self = dataset->self;
  dl_mds_list *list = &self->base.list;
  for (size_t i = 0; i < dataset->url_count; i++) {
    const char *folder = folder_of(dataset, dataset->urls[i]);
    void *text = NULL;
    size_t bytes = 0;
    tr_status status = share_list(dataset, folder, &text, &bytes, error);
    if (status == TR_OK) {
      status = dl_mds_list_add(list, dataset->allocator, dataset->arena, folder, text, bytes, error);
      status = dl_agree(dataset->exchange, status, error);
    }
    tr_free(dataset->allocator, text);
    if (status != TR_OK) return status;
  }
  tr_status status = TR_OK;
  *out = tr_arena_alloc(dataset->arena, (list->shard_count + 1) * sizeof **out);
  if (*out == NULL) status = tr_fail_memory(error, "the list of shards", list->shard_count * sizeof **out);
  for (size_t i = 0; status == TR_OK && i < list->shard_count; i++) {
    (*out)[i] = (dl_candidate){list->shards[i].url, list->shards[i].raw_url};
  }
  if (status == TR_OK && list->shard_count == 0) {
    status = tr_fail(error, TR_ERR_CORRUPT, "data %s: its index.json names no shards", dataset->urls[0]);
  }
  return dl_agree(dataset->exchange, status, error);
}

static tr_status take_index(tr_dataset *dataset, tr_error *error) {
  for (size_t i = 0; i < dataset->file_count; i++) {
    const dl_mds_part part = part_of(dataset, i);
    dataset->files[i].samples = part.samples;
    if (part.packed && part.raw_bytes > dataset->unpacked_bytes_max) dataset->unpacked_bytes_max = part.raw_bytes;
  }
  TR_TRY(dl_dataset_set_shards(dataset, error));
  if (dataset->field_count == 0) TR_TRY(add_default_fields(dataset, error));
  for (size_t i = 0; i < dataset->field_count; i++) TR_TRY(resolve_field(dataset, i, error));
  return probe(dataset, error);
}

static tr_status mds_open(tr_dataset *dataset, tr_error *error) {
  mds *self = tr_arena_alloc(dataset->arena, sizeof *self);
  dataset->self = self;
  dataset->files_per_shard = 1;
  tr_status status = self != NULL ? TR_OK : tr_fail_memory(error, "an MDS data set", sizeof *self);
  if (self != NULL) self->base.index.allocator = dataset->allocator;
  dl_candidate *list = NULL;
  status = dl_agree(dataset->exchange, status, error);
  if (status == TR_OK) status = read_lists(dataset, &list, error);
  if (status == TR_OK) status = dl_files_find(dataset, list, self->base.list.shard_count, error);
  if (status == TR_OK) status = dl_index_open(dataset, &dl_mds_index_format, &self->base.index, error);
  if (status != TR_OK) return status;
  return dl_agree(dataset->exchange, take_index(dataset, error), error);
}

static void mds_close(tr_dataset *dataset) {
  mds *self = dataset->self;
  if (self == NULL) return;
  tr_free(dataset->allocator, self->base.list.shards);
  dl_index_fini(&self->base.index);
}

const dl_format dl_format_mds = {.name = "mds",
                                 .open = mds_open,
                                 .close = mds_close,
                                 .place = mds_place,
                                 .unpack = mds_unpack,
                                 .check = mds_check,
                                 .decode = mds_decode,
                                 .raw = mds_raw,
                                 .name_sample = mds_name};
