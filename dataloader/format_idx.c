/* IDX, the format of the MNIST family: one big-endian array a file, usually gzipped, first dimension = samples.
 *
 * A URL is a prefix and a field is a suffix to it, so a shard is as many files as there are fields. Arrays are read
 * (and inflated) whole when the data set is opened and stay in host memory: then a sample costs a memcpy a field. */
#include <endian.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

#include "agree.h"
#include "gunzip.h"
#include "make.h"

enum { DIMENSIONS_MAX = 6, HUGE_PAGE = 2 << 20, HUGE_FROM = 8 << 20 };

typedef struct idx_array {
  tr_dtype dtype;
  uint32_t ndim; /* of one sample */
  int64_t shape[DIMENSIONS_MAX];
  uint64_t samples;
  size_t sample_bytes;
  uint8_t *data; /* [samples][sample_bytes] */
  size_t data_bytes;
} idx_array;

typedef struct idx {
  size_t array_count;
  idx_array *arrays; /* files_per_shard of each shard */
} idx;

/* ---- One file ---------------------------------------------------------------------------------------------------- */

static bool dtype_of(uint8_t code, tr_dtype *dtype) {
  switch (code) {
    case 0x08: *dtype = TR_U8; return true;
    case 0x0C: *dtype = TR_I32; return true;
    case 0x0D: *dtype = TR_F32; return true;
    case 0x0E: *dtype = TR_F64; return true;
    default: return false;
  }
}

/* Deflate makes at most 1032 bytes of one: a header that promises more than the file can hold is a lie. */
static uint64_t most_bytes(const dl_stream *stream, uint64_t header_bytes) {
  uint64_t most;
  if (!stream->gzip) return stream->file->bytes - header_bytes;
  return __builtin_mul_overflow(stream->file->bytes, 1032u, &most) ? UINT64_MAX : most;
}

static tr_status read_header(dl_stream *stream, idx_array *array, tr_error *error) {
  const char *url = stream->file->url;
  uint8_t magic[4], sizes[4 * DIMENSIONS_MAX];
  TR_TRY(dl_stream_read(stream, magic, sizeof magic, error));
  if (magic[0] != 0 || magic[1] != 0 || magic[3] == 0 || magic[3] > DIMENSIONS_MAX) {
    return tr_fail(error, TR_ERR_CORRUPT, "%s: offset 0: %02x%02x%02x%02x is not the magic number of an IDX file", url,
                   magic[0], magic[1], magic[2], magic[3]);
  }
  if (!dtype_of(magic[2], &array->dtype)) {
    return tr_fail(error, magic[2] == 0x09 || magic[2] == 0x0B ? TR_ERR_UNSUPPORTED : TR_ERR_CORRUPT,
                   "%s: offset 2: element type 0x%02x is not one of 08 (u8), 0c (i32), 0d (f32), 0e (f64)", url,
                   magic[2]);
  }
  TR_TRY(dl_stream_read(stream, sizes, 4u * magic[3], error));
  tr_reader reader = tr_reader_of(sizes, 4u * magic[3]);
  array->samples = tr_read_u32be(&reader);
  array->ndim = magic[3] - 1u;
  uint64_t bytes = tr_dtype_bytes(array->dtype);
  for (uint32_t i = 0; i < array->ndim; i++) {
    array->shape[i] = tr_read_u32be(&reader);
    if (array->shape[i] == 0 || __builtin_mul_overflow(bytes, (uint64_t)array->shape[i], &bytes)) bytes = UINT64_MAX;
    if (bytes > DL_FIELD_BYTES_MAX) {
      return tr_fail(error, TR_ERR_CORRUPT, "%s: offset %u: a sample of no or of more than 1 GiB", url, 8 + 4 * i);
    }
  }
  array->sample_bytes = (size_t)bytes;
  if (__builtin_mul_overflow(bytes, array->samples, &bytes) || bytes > most_bytes(stream, 4 + 4u * magic[3])) {
    return tr_fail(error, TR_ERR_CORRUPT, "%s: offset 4: %llu samples of %zu bytes are more than the file can hold",
                   url, (unsigned long long)array->samples, array->sample_bytes);
  }
  array->data_bytes = (size_t)bytes;
  return TR_OK;
}

static void swap_bytes(idx_array *array) {
  const size_t size = tr_dtype_bytes(array->dtype);
  for (size_t i = 0; size == 4 && i < array->data_bytes; i += 4) {
    uint32_t word;
    memcpy(&word, array->data + i, 4);
    word = be32toh(word);
    memcpy(array->data + i, &word, 4);
  }
  for (size_t i = 0; size == 8 && i < array->data_bytes; i += 8) {
    uint64_t word;
    memcpy(&word, array->data + i, 8);
    word = be64toh(word);
    memcpy(array->data + i, &word, 8);
  }
}

static tr_status read_array(const tr_dataset *dataset, dl_stream *stream, idx_array *array, tr_error *error) {
  TR_TRY(read_header(stream, array, error));
  const size_t align = array->data_bytes >= HUGE_FROM ? HUGE_PAGE : TR_CACHE_LINE;
  array->data = tr_alloc_aligned(dataset->allocator, array->data_bytes, align);
  if (array->data == NULL) return tr_fail_memory(error, stream->file->url, array->data_bytes);
  /* Advice only: fewer page faults while it is filled, fewer TLB misses while rows are picked from all over it. */
  if (align == HUGE_PAGE) madvise(array->data, array->data_bytes / HUGE_PAGE * HUGE_PAGE, MADV_HUGEPAGE);
  if (array->data_bytes > 0) TR_TRY(dl_stream_read(stream, array->data, array->data_bytes, error));
  TR_TRY(dl_stream_end(stream, error));
  swap_bytes(array);
  return TR_OK;
}

static tr_status load_file(const tr_dataset *dataset, const dl_file *file, idx_array *array, tr_error *error) {
  dl_stream stream;
  TR_TRY(dl_stream_open(&stream, file, dataset->allocator, dataset->clock, error));
  const tr_status status = read_array(dataset, &stream, array, error);
  dl_stream_close(&stream);
  return status;
}

/* ---- The data set ------------------------------------------------------------------------------------------------ */

static const char *const image_suffix = "-images-idx3-ubyte";
static const char *const label_suffix = "-labels-idx1-ubyte";

/* A URL that names one file of the pair stands for its prefix. */
static const char *prefix_of(tr_dataset *dataset, const char *url) {
  static const char *const gz[] = {"", ".gz"};
  const char *const suffixes[] = {image_suffix, label_suffix};
  const size_t length = strlen(url);
  for (size_t i = 0; i < 2; i++) {
    for (size_t j = 0; j < 2; j++) {
      const size_t tail = strlen(suffixes[i]) + strlen(gz[j]);
      if (length < tail) continue;
      if (strncmp(url + length - tail, suffixes[i], strlen(suffixes[i])) != 0) continue;
      if (strcmp(url + length - strlen(gz[j]), gz[j]) == 0) {
        return tr_arena_strndup(dataset->arena, url, length - tail);
      }
    }
  }
  return url;
}

static tr_status list_files(tr_dataset *dataset, dl_candidate **out, tr_error *error) {
  if (dataset->field_count == 0) {
    TR_TRY(dl_dataset_add_field(dataset, "image", image_suffix, error));
    TR_TRY(dl_dataset_add_field(dataset, "label", label_suffix, error));
  }
  dataset->files_per_shard = dataset->field_count;
  const size_t count = dataset->url_count * dataset->field_count;
  dl_candidate *list = tr_arena_alloc(dataset->arena, count * sizeof *list);
  if (list == NULL) return tr_fail_memory(error, "the list of files", count * sizeof *list);
  for (size_t i = 0; i < count; i++) {
    const char *prefix = prefix_of(dataset, dataset->urls[i / dataset->field_count]);
    if (prefix == NULL) return tr_fail_memory(error, "a URL", TR_KEY_BYTES);
    const char *source = dataset->sources[i % dataset->field_count];
    list[i].url = tr_arena_printf(dataset->arena, "%s%s", prefix, source);
    list[i].otherwise = tr_arena_printf(dataset->arena, "%s%s.gz", prefix, source);
    if (list[i].url == NULL || list[i].otherwise == NULL) return tr_fail_memory(error, "a URL", TR_KEY_BYTES);
  }
  *out = list;
  return TR_OK;
}

/* The arrays of a shard have as many samples each; arrays of a field have one shape in all shards. */
static tr_status check_array(tr_dataset *dataset, const idx *self, size_t i, tr_error *error) {
  const idx_array *array = &self->arrays[i];
  const size_t column = i % dataset->field_count;
  tr_field *field = &dataset->fields[column];
  const char *url = dataset->files[i].url;
  if (i < dataset->field_count) {
    field->dtype = array->dtype;
    field->ndim = array->ndim;
    memcpy(field->shape, array->shape, sizeof field->shape);
    TR_TRY(dl_field_finish(field, error));
  }
  if (array->dtype != field->dtype || array->ndim != field->ndim ||
      memcmp(array->shape, field->shape, sizeof field->shape) != 0) {
    return tr_fail(error, TR_ERR_CORRUPT, "%s: offset 0: its samples have another shape or type than those of %s", url,
                   dataset->files[column].url);
  }
  if (array->samples != self->arrays[i - column].samples) {
    return tr_fail(error, TR_ERR_CORRUPT, "%s: offset 4: it has %llu samples, %s has %llu", url,
                   (unsigned long long)array->samples, dataset->files[i - column].url,
                   (unsigned long long)self->arrays[i - column].samples);
  }
  dataset->files[i].samples = array->samples;
  return TR_OK;
}

static tr_status load_all(tr_dataset *dataset, tr_error *error) {
  idx *self = tr_arena_alloc(dataset->arena, sizeof *self);
  if (self == NULL) return tr_fail_memory(error, "an IDX data set", sizeof *self);
  self->arrays = tr_arena_alloc(dataset->arena, dataset->file_count * sizeof *self->arrays);
  if (self->arrays == NULL) return tr_fail_memory(error, "arrays", dataset->file_count * sizeof *self->arrays);
  dataset->self = self;
  for (self->array_count = 0; self->array_count < dataset->file_count;) {
    const size_t i = self->array_count++;
    TR_TRY(load_file(dataset, &dataset->files[i], &self->arrays[i], error));
    TR_TRY(check_array(dataset, self, i, error));
  }
  return dl_dataset_set_shards(dataset, error);
}

static tr_status idx_open(tr_dataset *dataset, tr_error *error) {
  dl_candidate *list = NULL;
  tr_status status = dl_agree(dataset->exchange, list_files(dataset, &list, error), error);
  if (status != TR_OK) return status;
  status = dl_files_find(dataset, list, dataset->url_count * dataset->field_count, error);
  if (status != TR_OK) return status;
  dataset->in_memory = true;
  /* Each rank inflates for itself: that is faster than moving the result about. */
  return dl_agree(dataset->exchange, load_all(dataset, error), error);
}

static void idx_close(tr_dataset *dataset) {
  idx *self = dataset->self;
  if (self == NULL) return;
  for (size_t i = 0; i < self->array_count; i++) {
    tr_free_aligned(dataset->allocator, self->arrays[i].data, self->arrays[i].data_bytes);
  }
}

/* What one element is as text; its length. */
static size_t number_text(tr_dtype dtype, const uint8_t *at, char text[32]) {
  int32_t integer;
  float real;
  double wide;
  switch (dtype) {
    case TR_U8: return (size_t)snprintf(text, 32, "%u", at[0]);
    case TR_I32: memcpy(&integer, at, sizeof integer); return (size_t)snprintf(text, 32, "%d", (int)integer);
    case TR_F32: memcpy(&real, at, sizeof real); return (size_t)snprintf(text, 32, "%.9g", (double)real);
    default: memcpy(&wide, at, sizeof wide); return (size_t)snprintf(text, 32, "%.17g", wide);
  }
}

static bool idx_place(const tr_dataset *dataset, size_t shard, uint64_t index, bool whole, dl_place *place) {
  (void)dataset, (void)shard, (void)index, (void)whole, (void)place;
  return false;
}

static const uint8_t *row_of(const tr_dataset *dataset, size_t shard, uint64_t index, size_t field) {
  const idx *self = dataset->self;
  const idx_array *array = &self->arrays[shard * dataset->field_count + field];
  return array->data + index * array->sample_bytes;
}

static tr_status idx_decode(const tr_dataset *dataset, const dl_sample *sample, const uint8_t *bytes, size_t count,
                            void *const *to, dl_scratch *scratch, tr_error *error) {
  (void)bytes, (void)count;
  for (size_t i = 0; i < dataset->field_count; i++) {
    TR_TRY(dl_make_plain(dataset, sample, i, row_of(dataset, sample->shard, sample->index, i), to[i], scratch, error));
  }
  return TR_OK;
}

/* A field under its name: a single number as a number, all else as the bytes of the array, which is the host's. */
static tr_status idx_raw(const tr_dataset *dataset, size_t shard, uint64_t index, const uint8_t *bytes, size_t count,
                         tr_raw_visit visit, void *self, tr_error *error) {
  (void)bytes, (void)count;
  char key[24], numbers[TR_FIELDS_MAX][32];
  tr_raw_value values[TR_FIELDS_MAX];
  for (size_t i = 0; i < dataset->field_count; i++) {
    const tr_field *field = &dataset->fields[i];
    const uint8_t *row = row_of(dataset, shard, index, i);
    values[i] = (tr_raw_value){.name = field->name, .kind = TR_RAW_BYTES, .data = row, .bytes = field->bytes};
    if (field->ndim > 0) continue;
    values[i].kind = TR_RAW_JSON;
    values[i].data = numbers[i];
    values[i].bytes = number_text(field->dtype, row, numbers[i]);
  }
  snprintf(key, sizeof key, "%llu", (unsigned long long)index);
  return visit(self, key, values, dataset->field_count, error);
}

static void idx_name(const tr_dataset *dataset, size_t shard, uint64_t index, char *text, size_t text_bytes) {
  snprintf(text, text_bytes, "%s: %llu", dl_url_name(dataset->files[shard * dataset->files_per_shard].url),
           (unsigned long long)index);
}

const dl_format dl_format_idx = {.name = "idx",
                                 .open = idx_open,
                                 .close = idx_close,
                                 .place = idx_place,
                                 .decode = idx_decode,
                                 .raw = idx_raw,
                                 .name_sample = idx_name};
