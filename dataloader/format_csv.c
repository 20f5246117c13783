/* Tables as CSV: a header line, then a sample a record. A field is a column, several columns joined ("x1,x2"), or all
 * that no other field names ("*"); numbers become f32, or i32 where the source ends in ":i32".
 *
 * Small tables are kept in memory as they are; of large ones a sample is read by its offset. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agree.h"
#include "csv.h"
#include "csv_index.h"
#include "files.h"
#include "make.h"

enum { COLUMNS_MAX = 1 << 16, CELL_SHOWN = 40 };
#define KEPT_BYTES_MAX ((uint64_t)64 << 20)

typedef struct csv {
  dl_index index;
  size_t column_count;
  const char **columns; /* their names */
  struct {
    uint32_t *columns;
    size_t count;
  } made[TR_FIELDS_MAX];
  uint8_t **kept; /* [shard] the file, where small tables are kept */
} csv;

/* ---- Reading ----------------------------------------------------------------------------------------------------- */

static tr_status blame(const tr_dataset *dataset, size_t shard, uint32_t line, size_t column, const char *what,
                       tr_error *error) {
  const csv *self = dataset->self;
  const char *name = column < self->column_count ? self->columns[column] : "";
  return tr_fail(error, TR_ERR_CORRUPT, "%s: line %u, column %zu%s%.60s%s: %s", dataset->files[shard].url, line,
                 column + 1, *name != '\0' ? " (" : "", name, *name != '\0' ? ")" : "", what);
}

static tr_status blame_cell(const tr_dataset *dataset, size_t shard, uint32_t line, size_t column, const char *cell,
                            size_t length, tr_dtype dtype, tr_error *error) {
  char shown[CELL_SHOWN + 1], what[CELL_SHOWN + 80];
  const size_t kept = length < CELL_SHOWN ? length : CELL_SHOWN;
  for (size_t i = 0; i < kept; i++) shown[i] = (uint8_t)cell[i] < 0x20 ? '?' : cell[i];
  shown[kept] = '\0';
  snprintf(what, sizeof what, "'%s' is not %s", shown, dtype == TR_I32 ? "an integer of 32 bits" : "a number");
  return blame(dataset, shard, line, column, what, error);
}

static bool csv_place(const tr_dataset *dataset, size_t shard, uint64_t index, bool whole, dl_place *place) {
  (void)whole;
  const csv *self = dataset->self;
  if (self->kept[shard] != NULL) return false;
  const dl_csv_record record = dl_csv_index_record(self->index.parts[shard], &dataset->files[shard], index);
  *place = (dl_place){.file = shard, .offset = record.offset, .bytes = record.bytes};
  return true;
}

static tr_status csv_check(const tr_dataset *dataset, size_t shard, uint64_t index, bool whole, const uint8_t *bytes,
                           size_t count, tr_error *error) {
  (void)whole;
  const csv *self = dataset->self;
  const dl_csv_record record = dl_csv_index_record(self->index.parts[shard], &dataset->files[shard], index);
  if (tr_crc32c(0, bytes, count) == record.crc32c) return TR_OK;
  return tr_fail(error, TR_ERR_CORRUPT,
                 "%s: offset %llu: line %u: the bytes are not those that were indexed (their CRC32C is another)",
                 dataset->files[shard].url, (unsigned long long)record.offset, record.line);
}

/* Cuts the record into as many cells as there are columns. */
static tr_status cut(const tr_dataset *dataset, size_t shard, const dl_csv_record *record, const char *text,
                     dl_csv_cell *cells, tr_error *error) {
  const csv *self = dataset->self;
  size_t count;
  const char *wrong = dl_csv_cut(text, record->bytes, cells, self->column_count, &count);
  if (wrong != NULL) return blame(dataset, shard, record->line, count, wrong, error);
  if (count == self->column_count) return TR_OK;
  char what[80];
  snprintf(what, sizeof what, "%zu columns, the header has %zu", count, self->column_count);
  return blame(dataset, shard, record->line, count < self->column_count ? count : self->column_count, what, error);
}

/* Parses the columns of field f. */
static tr_status parse(const tr_dataset *dataset, size_t shard, const dl_csv_record *record, const char *text,
                       const dl_csv_cell *cells, size_t f, uint8_t *to, tr_error *error) {
  const csv *self = dataset->self;
  const tr_dtype dtype = dataset->fields[f].dtype;
  for (size_t i = 0; i < self->made[f].count; i++) {
    const uint32_t column = self->made[f].columns[i];
    const char *cell = text + cells[column].at;
    const size_t length = cells[column].length;
    float real;
    int32_t integer;
    if (dtype == TR_I32 && dl_csv_integer(cell, length, &integer)) {
      memcpy(to + i * 4, &integer, sizeof integer);
    } else if (dtype == TR_F32 && dl_csv_real(cell, length, &real)) {
      memcpy(to + i * 4, &real, sizeof real);
    } else {
      return blame_cell(dataset, shard, record->line, column, cell, length, dtype, error);
    }
  }
  return TR_OK;
}

static const char *text_of(const csv *self, size_t shard, const dl_csv_record *record, const uint8_t *bytes) {
  return (const char *)(self->kept[shard] != NULL ? self->kept[shard] + record->offset : bytes);
}

static tr_status csv_decode(const tr_dataset *dataset, const dl_sample *sample, const uint8_t *bytes, size_t count,
                            void *const *to, dl_scratch *scratch, tr_error *error) {
  (void)count;
  const csv *self = dataset->self;
  const size_t shard = sample->shard;
  const dl_csv_record record = dl_csv_index_record(self->index.parts[shard], &dataset->files[shard], sample->index);
  const char *text = text_of(self, shard, &record, bytes);
  if (self->kept[shard] != NULL) {
    TR_TRY(csv_check(dataset, shard, sample->index, false, (const uint8_t *)text, record.bytes, error));
  }
  /* Transforms take the scratch's own memory, so the cells lie before what they are made from. */
  const size_t cells_bytes = (self->column_count * sizeof(dl_csv_cell) + 15) / 16 * 16;
  TR_TRY(dl_buffer_reserve(scratch->allocator, &scratch->decoded, cells_bytes + self->column_count * 4, error));
  dl_csv_cell *cells = (dl_csv_cell *)scratch->decoded.bytes;
  uint8_t *parsed = scratch->decoded.bytes + cells_bytes;
  TR_TRY(cut(dataset, shard, &record, text, cells, error));
  for (size_t f = 0; f < dataset->field_count; f++) {
    const bool plain = sample->transforms == NULL;
    TR_TRY(parse(dataset, shard, &record, text, cells, f, plain ? to[f] : parsed, error));
    if (!plain) TR_TRY(dl_make_plain(dataset, sample, f, parsed, to[f], scratch, error));
  }
  return TR_OK;
}

static tr_status csv_raw(const tr_dataset *dataset, size_t shard, uint64_t index, const uint8_t *bytes, size_t count,
                         tr_raw_visit visit, void *visitor, tr_error *error) {
  (void)count;
  const csv *self = dataset->self;
  const dl_csv_record record = dl_csv_index_record(self->index.parts[shard], &dataset->files[shard], index);
  const char *text = text_of(self, shard, &record, bytes);
  dl_csv_cell *cells = tr_calloc(dataset->allocator, self->column_count, sizeof *cells);
  tr_raw_value *values = tr_calloc(dataset->allocator, self->column_count, sizeof *values);
  char key[24];
  snprintf(key, sizeof key, "%llu", (unsigned long long)index);
  tr_status status = TR_OK;
  if (cells == NULL || values == NULL) status = tr_fail_memory(error, "a record", self->column_count * sizeof *values);
  if (status == TR_OK) status = cut(dataset, shard, &record, text, cells, error);
  if (status == TR_OK) {
    for (size_t i = 0; i < self->column_count; i++) {
      const char *cell = text + cells[i].at;
      float real;
      values[i] = (tr_raw_value){.name = self->columns[i], .kind = TR_RAW_TEXT, .data = cell, .bytes = cells[i].length};
      const bool number = !cells[i].quoted && dl_csv_real(cell, cells[i].length, &real);
      if (number && dl_is_json((const uint8_t *)cell, cells[i].length)) {
        values[i].kind = TR_RAW_JSON;
      }
    }
    status = visit(visitor, key, values, self->column_count, error);
  }
  tr_free(dataset->allocator, values);
  tr_free(dataset->allocator, cells);
  return status;
}

static void csv_name(const tr_dataset *dataset, size_t shard, uint64_t index, char *text, size_t text_bytes) {
  const csv *self = dataset->self;
  const dl_csv_record record = dl_csv_index_record(self->index.parts[shard], &dataset->files[shard], index);
  snprintf(text, text_bytes, "%s: line %u", dl_url_name(dataset->files[shard].url), record.line);
}

/* ---- Columns and fields ------------------------------------------------------------------------------------------ */

/* A name as it is between quotes, its doubled quotes undone. */
static const char *column_name(tr_dataset *dataset, const char *header, const dl_csv_cell *cell) {
  char *name = tr_arena_strndup(dataset->arena, header + cell->at, cell->length);
  size_t used = 0;
  for (size_t i = 0; name != NULL && i < cell->length; i++) {
    name[used++] = name[i];
    if (cell->quoted && name[i] == '"') i++;
  }
  if (name != NULL) name[used] = '\0';
  return name;
}

static tr_status take_header(tr_dataset *dataset, tr_error *error) {
  csv *self = dataset->self;
  size_t bytes, count;
  const char *url = dataset->files[0].url;
  const char *header = dl_csv_index_header(self->index.parts[0], &bytes);
  const char *wrong = dl_csv_cut(header, bytes, NULL, 0, &count);
  if (wrong != NULL) return tr_fail(error, TR_ERR_CORRUPT, "%s: the header, column %zu: %s", url, count + 1, wrong);
  if (count > COLUMNS_MAX) return tr_fail(error, TR_ERR_CORRUPT, "%s: more than %d columns", url, COLUMNS_MAX);
  dl_csv_cell *cells = tr_arena_alloc(dataset->arena, count * sizeof *cells);
  self->columns = tr_arena_alloc(dataset->arena, count * sizeof *self->columns);
  if (cells == NULL || self->columns == NULL) return tr_fail_memory(error, "columns", count * sizeof *cells);
  dl_csv_cut(header, bytes, cells, count, &count);
  for (size_t i = 0; i < count; i++) {
    self->columns[i] = column_name(dataset, header, &cells[i]);
    if (self->columns[i] == NULL) return tr_fail_memory(error, "columns", count * sizeof *cells);
  }
  self->column_count = count;
  for (size_t shard = 1; shard < dataset->file_count; shard++) {
    size_t other_bytes;
    const char *other = dl_csv_index_header(self->index.parts[shard], &other_bytes);
    if (other_bytes != bytes || memcmp(other, header, bytes) != 0) {
      return tr_fail(error, TR_ERR_CORRUPT, "%s: line 1: its header is another than that of %s",
                     dataset->files[shard].url, url);
    }
  }
  return TR_OK;
}

static bool find_column(const csv *self, const char *name, size_t length, uint32_t *column) {
  for (size_t i = 0; i < self->column_count; i++) {
    if (strlen(self->columns[i]) != length || memcmp(self->columns[i], name, length) != 0) continue;
    *column = (uint32_t)i;
    return true;
  }
  return false;
}

static tr_status unknown_column(const tr_dataset *dataset, size_t field, const char *name, size_t length,
                                tr_error *error) {
  const csv *self = dataset->self;
  char known[200] = "";
  size_t used = 0;
  for (size_t i = 0; i < self->column_count && used + 70 < sizeof known; i++) {
    used += (size_t)snprintf(known + used, sizeof known - used, "%s%.60s", i > 0 ? ", " : "", self->columns[i]);
  }
  return tr_fail(error, TR_ERR_CONFIG, "data field '%s': %s has no column '%.*s'; it has %s",
                 dataset->fields[field].name, dataset->files[0].url, (int)(length < 60 ? length : 60), name, known);
}

/* Adds the columns that `list` names, between commas. */
static tr_status add_columns(tr_dataset *dataset, size_t field, const char *list, size_t length, bool *used,
                             tr_error *error) {
  csv *self = dataset->self;
  uint32_t column;
  self->made[field].columns = tr_arena_alloc(dataset->arena, (self->column_count + length + 1) * sizeof column);
  if (self->made[field].columns == NULL) return tr_fail_memory(error, "columns", length * sizeof column);
  /* A column whose own name has commas in it goes before a list. */
  if (find_column(self, list, length, &column)) {
    self->made[field].columns[self->made[field].count++] = column;
    used[column] = true;
    return TR_OK;
  }
  for (const char *at = list, *end = list + length; at <= end;) {
    const char *comma = memchr(at, ',', (size_t)(end - at));
    const char *stop = comma != NULL ? comma : end;
    const char *first = at, *last = stop;
    while (first < last && *first == ' ') first++;
    while (last > first && last[-1] == ' ') last--;
    if (!find_column(self, first, (size_t)(last - first), &column)) {
      return unknown_column(dataset, field, first, (size_t)(last - first), error);
    }
    self->made[field].columns[self->made[field].count++] = column;
    used[column] = true;
    at = stop + 1;
  }
  return TR_OK;
}

static tr_status add_rest(tr_dataset *dataset, size_t field, const bool *used, tr_error *error) {
  csv *self = dataset->self;
  self->made[field].columns = tr_arena_alloc(dataset->arena, self->column_count * sizeof(uint32_t));
  if (self->made[field].columns == NULL) return tr_fail_memory(error, "columns", self->column_count * sizeof(uint32_t));
  for (size_t i = 0; i < self->column_count; i++) {
    if (!used[i]) self->made[field].columns[self->made[field].count++] = (uint32_t)i;
  }
  if (self->made[field].count > 0) return TR_OK;
  return tr_fail(error, TR_ERR_CONFIG,
                 "data field '%s': \"*\" is every column that no other field names, and there is none left",
                 dataset->fields[field].name);
}

/* "x1,x2:i32" -> the list's length and the type. */
static size_t split_type(const csv *self, const char *source, tr_dtype *dtype) {
  const size_t length = strlen(source);
  uint32_t column;
  *dtype = TR_F32;
  if (find_column(self, source, length, &column)) return length;
  if (length > 4 && strcmp(source + length - 4, ":i32") == 0) {
    *dtype = TR_I32;
    return length - 4;
  }
  return length > 4 && strcmp(source + length - 4, ":f32") == 0 ? length - 4 : length;
}

static tr_status resolve_fields(tr_dataset *dataset, bool *used, tr_error *error) {
  csv *self = dataset->self;
  for (int pass = 0; pass < 2; pass++) { /* "*" last: it takes what is left */
    for (size_t f = 0; f < dataset->field_count; f++) {
      tr_field *field = &dataset->fields[f];
      const size_t length = split_type(self, dataset->sources[f], &field->dtype);
      const bool rest = length == 1 && dataset->sources[f][0] == '*';
      if (rest == (pass == 0)) continue;
      TR_TRY(rest ? add_rest(dataset, f, used, error)
                  : add_columns(dataset, f, dataset->sources[f], length, used, error));
      field->ndim = rest || self->made[f].count > 1 ? 1 : 0;
      field->shape[0] = field->ndim > 0 ? (int64_t)self->made[f].count : 0;
      TR_TRY(dl_field_finish(field, error));
    }
  }
  return TR_OK;
}

static tr_status take_fields(tr_dataset *dataset, tr_error *error) {
  const csv *self = dataset->self;
  const size_t by_default = dataset->field_count == 0 ? self->column_count : 0;
  for (size_t i = 0; i < by_default; i++) {
    TR_TRY(dl_dataset_add_field(dataset, self->columns[i], self->columns[i], error));
  }
  bool *used = tr_calloc(dataset->allocator, self->column_count, sizeof *used);
  if (used == NULL) return tr_fail_memory(error, "columns", self->column_count);
  const tr_status status = resolve_fields(dataset, used, error);
  tr_free(dataset->allocator, used);
  return status;
}

/* ---- Opening ----------------------------------------------------------------------------------------------------- */

static tr_status list_files(tr_dataset *dataset, dl_candidate **out, tr_error *error) {
  csv *self = tr_arena_alloc(dataset->arena, sizeof *self);
  dl_candidate *list = tr_arena_alloc(dataset->arena, dataset->url_count * sizeof *list);
  if (self == NULL || list == NULL)
    return tr_fail_memory(error, "the list of shards", dataset->url_count * sizeof *list);
  self->kept = tr_arena_alloc(dataset->arena, dataset->url_count * sizeof *self->kept);
  if (self->kept == NULL) return tr_fail_memory(error, "the list of shards", dataset->url_count * sizeof *self->kept);
  for (size_t i = 0; i < dataset->url_count; i++) list[i].url = dataset->urls[i];
  self->index.allocator = dataset->allocator;
  dataset->self = self;
  dataset->files_per_shard = 1;
  *out = list;
  return TR_OK;
}

static bool kept_is_right(const tr_dataset *dataset, size_t shard) {
  const csv *self = dataset->self;
  const uint64_t count = dl_csv_index_records(self->index.parts[shard]);
  for (uint64_t i = 0; i < count; i++) {
    const dl_csv_record record = dl_csv_index_record(self->index.parts[shard], &dataset->files[shard], i);
    if (tr_crc32c(0, self->kept[shard] + record.offset, record.bytes) != record.crc32c) return false;
  }
  return true;
}

/* A record that is still wrong after the last reading fails when it is decoded, by its name. */
static tr_status keep_file(const tr_dataset *dataset, size_t shard, tr_error *error) {
  const csv *self = dataset->self;
  const dl_file *file = &dataset->files[shard];
  const size_t bytes = (size_t)file->bytes;
  TR_TRY(dl_file_read(file, dataset->clock, 0, self->kept[shard], bytes, NULL, error));
  for (int again = 0; again < 2 && !kept_is_right(dataset, shard); again++) {
    TR_TRY(dl_file_read_again(file, dataset->clock, 0, self->kept[shard], bytes, NULL, error));
  }
  return TR_OK;
}

static tr_status keep_small(tr_dataset *dataset, tr_error *error) {
  csv *self = dataset->self;
  uint64_t sum = 0;
  for (size_t i = 0; i < dataset->file_count && sum <= KEPT_BYTES_MAX; i++) sum += dataset->files[i].bytes;
  if (sum > KEPT_BYTES_MAX) return TR_OK;
  dataset->in_memory = true;
  for (size_t i = 0; i < dataset->file_count; i++) {
    const dl_file *file = &dataset->files[i];
    self->kept[i] = tr_alloc(dataset->allocator, (size_t)file->bytes);
    if (self->kept[i] == NULL) return tr_fail_memory(error, file->url, (size_t)file->bytes);
    TR_TRY(keep_file(dataset, i, error));
  }
  return TR_OK;
}

static tr_status take_index(tr_dataset *dataset, tr_error *error) {
  const csv *self = dataset->self;
  for (size_t i = 0; i < dataset->file_count; i++) {
    dataset->files[i].samples = dl_csv_index_records(self->index.parts[i]);
  }
  TR_TRY(dl_dataset_set_shards(dataset, error));
  TR_TRY(take_header(dataset, error));
  TR_TRY(take_fields(dataset, error));
  return keep_small(dataset, error);
}

static tr_status csv_open(tr_dataset *dataset, tr_error *error) {
  dl_candidate *list = NULL;
  tr_status status = dl_agree(dataset->exchange, list_files(dataset, &list, error), error);
  if (status == TR_OK) status = dl_files_find(dataset, list, dataset->url_count, error);
  if (status != TR_OK) return status;
  csv *self = dataset->self;
  status = dl_index_open(dataset, &dl_csv_index_format, &self->index, error);
  if (status != TR_OK) return status;
  return dl_agree(dataset->exchange, take_index(dataset, error), error);
}

static void csv_close(tr_dataset *dataset) {
  csv *self = dataset->self;
  if (self == NULL) return;
  for (size_t i = 0; i < dataset->url_count; i++) tr_free(dataset->allocator, self->kept[i]);
  dl_index_fini(&self->index);
}

const dl_format dl_format_csv = {.name = "csv",
                                 .open = csv_open,
                                 .close = csv_close,
                                 .place = csv_place,
                                 .check = csv_check,
                                 .decode = csv_decode,
                                 .raw = csv_raw,
                                 .name_sample = csv_name};
