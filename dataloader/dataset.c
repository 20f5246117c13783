/* A data set: opens it through its format, then maps sample ids to shards and reads. */
#include "dataset.h"

#include <stdio.h>
#include <string.h>

#include "agree.h"
#include "expand.h"
#include "files.h"
#include "tokens_index.h"
#include "transform.h"

enum {
  URLS_MAX = 1000000,
  PROBE_BYTES = 512,
  STREAMS_DEFAULT = 64,
  WINDOW_SAMPLES_MAX = 512,
  BLOCK_WINDOWS_MAX = 8,
  BLOCKS_OF_STREAM = 4
};
#define WINDOW_BYTES ((uint64_t)1 << 20)
/* Unpacked shards that all streams together keep in memory. */
#define PACKED_STREAM_BYTES ((uint64_t)128 << 20)

/* ---- Small services for the formats ------------------------------------------------------------------------------ */

const char *dl_url_name(const char *url) {
  const char *slash = strrchr(url, '/');
  return slash != NULL && slash[1] != '\0' ? slash + 1 : url;
}

void dl_scratch_init(dl_scratch *scratch, const tr_allocator *allocator, const tr_clock *clock) {
  *scratch = (dl_scratch){.allocator = allocator, .clock = clock};
}

void dl_scratch_fini(dl_scratch *scratch) {
  tr_free(scratch->allocator, scratch->stored.bytes);
  tr_free(scratch->allocator, scratch->decoded.bytes);
  for (size_t i = 0; i < DL_ROOMS; i++) tr_free(scratch->allocator, scratch->rooms[i].bytes);
  tr_free(scratch->allocator, scratch->unpacked.bytes);
  tr_free(scratch->allocator, scratch->bytes);
  dl_scratch_init(scratch, scratch->allocator, scratch->clock);
}

tr_status dl_buffer_reserve(const tr_allocator *allocator, dl_buffer *buffer, size_t bytes, tr_error *error) {
  if (bytes <= buffer->capacity) return TR_OK;
  tr_free(allocator, buffer->bytes);
  buffer->capacity = 0;
  const size_t rounded = bytes + bytes / 4 + 4096;
  buffer->bytes = tr_alloc(allocator, rounded);
  if (buffer->bytes == NULL) return tr_fail_memory(error, "a sample", rounded);
  buffer->capacity = rounded;
  return TR_OK;
}

tr_status dl_scratch_reserve(dl_scratch *scratch, size_t bytes, tr_error *error) {
  dl_buffer own = {.bytes = scratch->bytes, .capacity = scratch->capacity};
  const tr_status status = dl_buffer_reserve(scratch->allocator, &own, bytes, error);
  scratch->bytes = own.bytes;
  scratch->capacity = own.capacity;
  return status;
}

tr_status dl_scratch_room(dl_scratch *scratch, dl_room room, size_t bytes, void *out, tr_error *error) {
  TR_TRY(dl_buffer_reserve(scratch->allocator, &scratch->rooms[room], bytes, error));
  memcpy(out, &scratch->rooms[room].bytes, sizeof scratch->rooms[room].bytes);
  return TR_OK;
}

tr_status dl_dataset_add_field(tr_dataset *dataset, const char *name, const char *source, tr_error *error) {
  if (dataset->field_count == TR_FIELDS_MAX) {
    return tr_fail(error, TR_ERR_CONFIG,
                   "data: more than %d fields; name the ones that are wanted in data.fields and join columns as "
                   "\"a,b,c\"",
                   TR_FIELDS_MAX);
  }
  const size_t length = strlen(name);
  if (length == 0 || length >= TR_FIELD_NAME_BYTES) {
    return tr_fail(error, TR_ERR_CONFIG, "data: a field's name has 1 to %d characters, not '%.80s'",
                   TR_FIELD_NAME_BYTES - 1, name);
  }
  for (size_t i = 0; i < dataset->field_count; i++) {
    if (strcmp(dataset->fields[i].name, name) == 0) {
      return tr_fail(error, TR_ERR_CONFIG, "data: two fields are named '%s'", name);
    }
  }
  tr_field *field = &dataset->fields[dataset->field_count];
  *field = (tr_field){0};
  memcpy(field->name, name, length + 1);
  dataset->sources[dataset->field_count] = tr_arena_strdup(dataset->arena, source);
  if (dataset->sources[dataset->field_count] == NULL) return tr_fail_memory(error, "a field", strlen(source) + 1);
  dataset->field_count++;
  return TR_OK;
}

tr_status dl_field_finish(tr_field *field, tr_error *error) {
  uint64_t bytes = tr_dtype_bytes(field->dtype);
  for (uint32_t i = 0; i < field->ndim; i++) {
    if (field->shape[i] < 1 || __builtin_mul_overflow(bytes, (uint64_t)field->shape[i], &bytes) ||
        bytes > DL_FIELD_BYTES_MAX) {
      return tr_fail(error, TR_ERR_CORRUPT, "field '%s': a sample of no or of more than 1 GiB", field->name);
    }
  }
  field->bytes = (size_t)bytes;
  return TR_OK;
}

uint64_t dl_window_samples(uint64_t stored_bytes, uint64_t samples) {
  const uint64_t mean = samples > 0 ? stored_bytes / samples : 0;
  const uint64_t wanted = WINDOW_BYTES / (mean > 0 ? mean : 1);
  uint64_t window = 1;
  while (window * 2 <= wanted && window < WINDOW_SAMPLES_MAX) window *= 2;
  return window;
}

uint64_t dl_block_samples(uint64_t window, uint64_t samples) {
  uint64_t windows = 1;
  while (windows < BLOCK_WINDOWS_MAX && windows * 2 <= samples / window / STREAMS_DEFAULT / BLOCKS_OF_STREAM)
    windows *= 2;
  return window * windows;
}

static tr_status add_blocks(tr_dataset *dataset, tr_error *error) {
  uint64_t count = 0, stored_bytes = 0;
  for (size_t i = 0; i < dataset->file_count; i++) stored_bytes += dataset->files[i].bytes;
  const uint64_t all = dataset->shard_first[dataset->shard_count];
  dataset->window = dataset->unpacked_bytes_max > 0 ? 0 : dl_window_samples(stored_bytes, all);
  const uint64_t block = dataset->window > 0 ? dl_block_samples(dataset->window, all) : UINT64_MAX;
  for (size_t i = 0; i < dataset->shard_count; i++) {
    const uint64_t samples = dataset->shard_first[i + 1] - dataset->shard_first[i];
    count += samples / block + (samples % block != 0);
  }
  dataset->block_samples = tr_arena_alloc(dataset->arena, count * sizeof(uint64_t));
  if (dataset->block_samples == NULL) return tr_fail_memory(error, "the list of blocks", count * sizeof(uint64_t));
  for (size_t i = 0; i < dataset->shard_count; i++) {
    uint64_t left = dataset->shard_first[i + 1] - dataset->shard_first[i];
    for (; left > 0; left -= dataset->block_samples[dataset->block_count++]) {
      dataset->block_samples[dataset->block_count] = left < block ? left : block;
    }
  }
  return TR_OK;
}

tr_status dl_dataset_set_shards(tr_dataset *dataset, tr_error *error) {
  dataset->shard_count = dataset->file_count / dataset->files_per_shard;
  const size_t bytes = (dataset->shard_count + 1) * sizeof(uint64_t);
  dataset->shard_first = tr_arena_alloc(dataset->arena, bytes);
  if (dataset->shard_first == NULL) return tr_fail_memory(error, "the list of shards", bytes);
  for (size_t i = 0; i < dataset->shard_count; i++) {
    const uint64_t samples = dataset->files[i * dataset->files_per_shard].samples;
    if (__builtin_add_overflow(dataset->shard_first[i], samples, &dataset->shard_first[i + 1]) ||
        dataset->shard_first[i + 1] > INT64_MAX) {
      return tr_fail(error, TR_ERR_CORRUPT, "data: more than 2^63 samples");
    }
  }
  return add_blocks(dataset, error);
}

/* ---- Opening ----------------------------------------------------------------------------------------------------- */

static tr_status add_url(tr_dataset *dataset, size_t *capacity, const char *url, tr_error *error) {
  const char *const *expanded;
  size_t count;
  TR_TRY(tr_url_expand(dataset->arena, url, &expanded, &count, error));
  if (count > URLS_MAX - dataset->url_count)
    return tr_fail(error, TR_ERR_CONFIG, "data: more than %d shards", URLS_MAX);
  TR_TRY(tr_reserve(dataset->allocator, (void **)&dataset->urls, capacity, dataset->url_count + count,
                    sizeof *dataset->urls, error));
  for (size_t i = 0; i < count; i++) dataset->urls[dataset->url_count++] = expanded[i];
  return TR_OK;
}

static tr_status take_options(tr_dataset *dataset, const tr_dataset_options *options, tr_error *error) {
  size_t capacity = 0;
  for (size_t i = 0; i < options->url_count; i++) TR_TRY(add_url(dataset, &capacity, options->urls[i], error));
  if (dataset->url_count == 0) return tr_fail(error, TR_ERR_CONFIG, "data: no URL");
  if (options->index_folder != NULL) {
    dataset->index_folder = tr_arena_strdup(dataset->arena, options->index_folder);
    if (dataset->index_folder == NULL) return tr_fail_memory(error, "a URL", strlen(options->index_folder));
  }
  for (size_t i = 0; i < options->field_count; i++) {
    const char *source = options->fields[i].source;
    TR_TRY(dl_dataset_add_field(dataset, options->fields[i].name, source != NULL ? source : "", error));
  }
  return TR_OK;
}

static bool ends_with(const char *text, const char *tail) {
  const size_t length = strlen(text), tail_length = strlen(tail);
  return length >= tail_length && strcmp(text + length - tail_length, tail) == 0;
}

/* Whether there is an index.json in the folder. */
static tr_status is_mds(tr_dataset *dataset, const char *url, bool *yes, tr_error *error) {
  tr_store *store;
  char key[TR_KEY_BYTES];
  tr_object_info info;
  const char *index = tr_url_join(dataset->arena, url, "index.json");
  if (index == NULL) return tr_fail_memory(error, "a URL", strlen(url));
  TR_TRY(tr_stores_resolve(dataset->stores, index, &store, key, error));
  const tr_status status = tr_store_head(store, key, &info, error);
  *yes = status == TR_OK;
  return *yes || status == TR_ERR_NOT_FOUND ? TR_OK : tr_error_context(error, status, "data %s", url);
}

/* What the bytes at the beginning say, where the name says nothing. */
static tr_status format_by_magic(tr_dataset *dataset, const char *url, const dl_format **format, tr_error *error) {
  tr_store *store;
  char key[TR_KEY_BYTES];
  uint8_t head[PROBE_BYTES] = {0};
  size_t bytes = 0;
  bool mds = false;
  TR_TRY(tr_stores_resolve(dataset->stores, url, &store, key, error));
  const tr_status status = tr_store_get(store, key, 0, head, sizeof head, &bytes, error);
  /* A local folder cannot be read, in a bucket there is nothing of that name. */
  if (status == TR_ERR_NOT_FOUND || status == TR_ERR_IO) TR_TRY(is_mds(dataset, url, &mds, error));
  if (mds) {
    *format = &dl_format_mds;
    return TR_OK;
  }
  if (status == TR_ERR_NOT_FOUND) {
    /* A prefix, as idx has: whether its files are there shows when they are opened. */
    *format = &dl_format_idx;
    return TR_OK;
  }
  if (status != TR_OK) return tr_error_context(error, status, "data %s", url);
  tr_reader reader = tr_reader_of(head, sizeof head);
  const uint32_t magic = tr_read_u32le(&reader);
  if (memcmp(head + 257, "ustar", 5) == 0) {
    *format = &dl_format_webdataset;
  } else if (magic == DL_TOKENS_MAGIC_U16 || magic == DL_TOKENS_MAGIC_U32) {
    *format = &dl_format_tokens;
  } else {
    return tr_fail(error, TR_ERR_CONFIG,
                   "data %s: cannot tell its format from its name or its first bytes; set data.format to one of "
                   "webdataset, mds, tokens, idx, csv",
                   url);
  }
  return TR_OK;
}

static tr_status choose_format(tr_dataset *dataset, const char *name, const dl_format **format, tr_error *error) {
  static const dl_format *const formats[] = {&dl_format_webdataset, &dl_format_mds, &dl_format_tokens, &dl_format_idx,
                                             &dl_format_csv};
  static const char *const planned[] = {"parquet"};
  const char *url = dataset->urls[0];
  if (name != NULL && strcmp(name, "auto") != 0) {
    for (size_t i = 0; i < sizeof formats / sizeof *formats; i++) {
      if (strcmp(formats[i]->name, name) != 0) continue;
      *format = formats[i];
      return TR_OK;
    }
    for (size_t i = 0; i < sizeof planned / sizeof *planned; i++) {
      if (strcmp(planned[i], name) == 0) {
        return tr_fail(error, TR_ERR_UNSUPPORTED, "data format '%s': planned, not in this version", name);
      }
    }
    return tr_fail(error, TR_ERR_CONFIG,
                   "data format '%s' is unknown; there are auto, webdataset, mds, tokens, idx, csv", name);
  }
  if (ends_with(url, ".tar") || ends_with(url, ".tar.gz") || ends_with(url, ".tgz")) {
    *format = &dl_format_webdataset;
  } else if (ends_with(url, ".csv") || ends_with(url, ".csv.gz")) {
    *format = &dl_format_csv;
  } else if (strcmp(dl_url_name(url), "index.json") == 0) {
    *format = &dl_format_mds;
  } else if (ends_with(url, "-ubyte") || ends_with(url, "-ubyte.gz")) {
    *format = &dl_format_idx;
  } else {
    return format_by_magic(dataset, url, format, error);
  }
  return TR_OK;
}

static tr_status prepare(tr_dataset *dataset, const tr_dataset_options *options, tr_error *error) {
  TR_TRY(tr_arena_create(dataset->allocator, 16 << 10, &dataset->arena, error));
  TR_TRY(dl_transforms_check(options->transforms, options->transform_count, error));
  return take_options(dataset, options, error);
}

static tr_status open_dataset(const tr_dataset_options *options, bool index_strict, tr_dataset **out, tr_error *error) {
  if (options->struct_bytes != sizeof *options || options->stores == NULL) {
    return tr_fail(error, TR_ERR_INVALID, "data set: the options are of another version of trainrun or incomplete");
  }
  tr_error local;
  if (error == NULL) error = &local;
  tr_status status = TR_OK;
  tr_dataset *dataset = tr_calloc(options->allocator, 1, sizeof *dataset);
  if (dataset == NULL) {
    status = tr_fail_memory(error, "a data set", sizeof *dataset);
  } else {
    pthread_mutex_init(&dataset->lock, NULL);
    dl_scratch_init(&dataset->scratch, options->allocator, options->clock);
    dataset->allocator = options->allocator;
    dataset->clock = options->clock;
    dataset->log = options->log;
    dataset->stores = options->stores;
    dataset->cache = options->cache;
    dataset->exchange = options->exchange;
    dataset->sequence_length = options->sequence_length;
    dataset->index_strict = index_strict;
    status = prepare(dataset, options, error);
  }
  status = dl_agree(options->exchange, status, error);
  if (status == TR_OK) status = dl_expand_folders(dataset, options->format, error);
  if (status == TR_OK) {
    status = dl_agree(options->exchange, choose_format(dataset, options->format, &dataset->format, error), error);
  }
  if (status == TR_OK) status = dataset->format->open(dataset, error);
  if (status == TR_OK && tr_dataset_size(dataset) == 0) {
    status = tr_fail(error, TR_ERR_CORRUPT, "data %s: holds no samples", dataset->urls[0]);
  }
  if (status == TR_OK && options->transform_count > 0) {
    status = dl_transforms_create(options->allocator, 0, options->transforms, options->transform_count, dataset->fields,
                                  dataset->field_count, &dataset->transforms, error);
  }
  if (status != TR_OK) {
    tr_dataset_close(dataset);
    return status;
  }
  dataset->exchange = NULL;
  *out = dataset;
  return TR_OK;
}

tr_status tr_dataset_open(const tr_dataset_options *options, tr_dataset **out, tr_error *error) {
  return open_dataset(options, false, out, error);
}

tr_status tr_dataset_index(const tr_dataset_options *options, const char *folder_url, tr_dataset_index_report *report,
                           tr_error *error) {
  if (report->struct_bytes != sizeof *report) {
    return tr_fail(error, TR_ERR_INVALID, "data set: the report is of another version of trainrun");
  }
  const uint64_t begin_ns = tr_clock_now_ns(options->clock);
  tr_dataset_options there = *options;
  there.index_folder = folder_url;
  tr_dataset *dataset = NULL;
  TR_TRY(open_dataset(&there, true, &dataset, error));
  tr_dataset_index_report made = {.struct_bytes = sizeof made,
                                  .format = dataset->format->name,
                                  .shards = dataset->shard_count,
                                  .samples = tr_dataset_size(dataset),
                                  .built = dataset->index_built};
  for (size_t i = 0; i < dataset->file_count; i++) made.bytes += dataset->files[i].bytes;
  if (dataset->index_url != NULL) snprintf(made.url, sizeof made.url, "%s", dataset->index_url);
  tr_dataset_close(dataset);
  made.seconds = (double)(tr_clock_now_ns(options->clock) - begin_ns) * 1e-9;
  *report = made;
  return TR_OK;
}

void tr_dataset_close(tr_dataset *dataset) {
  if (dataset == NULL) return;
  if (dataset->format != NULL) dataset->format->close(dataset);
  dl_transforms_destroy(dataset->transforms);
  dl_scratch_fini(&dataset->scratch);
  pthread_mutex_destroy(&dataset->lock);
  tr_free(dataset->allocator, dataset->urls);
  tr_arena_destroy(dataset->arena);
  tr_free(dataset->allocator, dataset);
}

/* ---- Asking ------------------------------------------------------------------------------------------------------ */

uint64_t tr_dataset_stored_bytes(const tr_dataset *dataset) {
  uint64_t bytes = 0;
  for (size_t i = 0; i < dataset->file_count; i++) bytes += dataset->files[i].bytes;
  return bytes;
}

uint64_t tr_dataset_size(const tr_dataset *dataset) {
  return dataset->shard_first != NULL ? dataset->shard_first[dataset->shard_count] : 0;
}

size_t tr_dataset_fields(const tr_dataset *dataset, const tr_field **fields) {
  *fields = dataset->transforms != NULL ? dl_transforms_fields(dataset->transforms) : dataset->fields;
  return dataset->field_count;
}

const char *tr_dataset_format(const tr_dataset *dataset) { return dataset->format->name; }

size_t tr_dataset_blocks(const tr_dataset *dataset, const uint64_t **block_samples) {
  *block_samples = dataset->block_samples;
  return dataset->block_count;
}

void tr_dataset_order(const tr_dataset *dataset, tr_sampler_options *options) {
  options->block_count = tr_dataset_blocks(dataset, &options->block_samples);
  options->window = dataset->window;
  if (dataset->unpacked_bytes_max == 0) return;
  const uint64_t most = PACKED_STREAM_BYTES / dataset->unpacked_bytes_max;
  if (options->streams == 0) options->streams = STREAMS_DEFAULT;
  if (options->streams > most) options->streams = most > 0 ? most : 1;
}

/* The last shard that begins at or before id. */
static size_t shard_of(const tr_dataset *dataset, uint64_t id) {
  size_t low = 0, high = dataset->shard_count;
  while (high - low > 1) {
    const size_t middle = low + (high - low) / 2;
    if (dataset->shard_first[middle] <= id) {
      low = middle;
    } else {
      high = middle;
    }
  }
  return low;
}

void tr_dataset_sample_name(const tr_dataset *dataset, uint64_t id, char *text, size_t text_bytes) {
  if (text_bytes == 0) return;
  if (id >= tr_dataset_size(dataset)) {
    snprintf(text, text_bytes, "no sample %llu", (unsigned long long)id);
    return;
  }
  const size_t shard = shard_of(dataset, id);
  dataset->format->name_sample(dataset, shard, id - dataset->shard_first[shard], text, text_bytes);
}

/* ---- Reading ----------------------------------------------------------------------------------------------------- */

/* Times that bytes found wrong are read, the first included. */
enum { READS = 3 };

dl_sample dl_dataset_sample(const tr_dataset *dataset, uint64_t epoch, uint64_t id, const dl_transforms *transforms) {
  const size_t shard = shard_of(dataset, id);
  return (dl_sample){
      .id = id, .epoch = epoch, .shard = shard, .index = id - dataset->shard_first[shard], .transforms = transforms};
}

static tr_status read_place(const tr_dataset *dataset, const dl_place *place, bool fresh, dl_scratch *scratch,
                            tr_error *error) {
  const dl_file *file = &dataset->files[place->file];
  TR_TRY(dl_buffer_reserve(scratch->allocator, &scratch->stored, (size_t)place->bytes, error));
  return (fresh ? dl_file_read_again : dl_file_read)(file, scratch->clock, place->offset, scratch->stored.bytes,
                                                     (size_t)place->bytes, &scratch->account, error);
}

/* Neighbours in a packed range are read one after the other more often than not: the last one is kept. */
static tr_status read_packed(const tr_dataset *dataset, const dl_place *place, bool fresh, dl_scratch *scratch,
                             tr_error *error) {
  const bool kept = scratch->packed_bytes == place->bytes && scratch->packed_file == place->file &&
                    scratch->packed_offset == place->offset;
  if (kept && !fresh) return TR_OK;
  scratch->packed_bytes = 0;
  TR_TRY(read_place(dataset, place, fresh, scratch, error));
  TR_TRY(dl_buffer_reserve(scratch->allocator, &scratch->unpacked, (size_t)place->unpacked_bytes, error));
  TR_TRY(dataset->format->unpack(dataset, place->file, scratch->stored.bytes, (size_t)place->bytes,
                                 scratch->unpacked.bytes, (size_t)place->unpacked_bytes, error));
  scratch->packed_file = place->file;
  scratch->packed_offset = place->offset;
  scratch->packed_bytes = place->bytes;
  return TR_OK;
}

tr_status dl_dataset_bring(const tr_dataset *dataset, const dl_sample *sample, bool whole, bool fresh,
                           dl_scratch *scratch, const uint8_t **bytes, size_t *count, tr_error *error) {
  const dl_format *format = dataset->format;
  dl_place place = {0};
  *bytes = NULL;
  *count = 0;
  if (!format->place(dataset, sample->shard, sample->index, whole, &place)) return TR_OK;
  const bool packed = place.unpacked_bytes > 0;
  tr_status status = TR_ERR_CORRUPT;
  for (int attempt = fresh; attempt < READS && status == TR_ERR_CORRUPT; attempt++) {
    status = (packed ? read_packed : read_place)(dataset, &place, attempt > 0, scratch, error);
    *bytes = packed ? scratch->unpacked.bytes + place.inner_offset : scratch->stored.bytes;
    *count = (size_t)(packed ? place.inner_bytes : place.bytes);
    if (status != TR_OK || format->check == NULL) continue;
    status = format->check(dataset, sample->shard, sample->index, whole, *bytes, *count, error);
  }
  return status;
}

tr_status dl_dataset_read(const tr_dataset *dataset, const dl_sample *sample, bool fresh, void *const *to,
                          dl_scratch *scratch, tr_error *error) {
  const uint8_t *bytes;
  size_t count;
  TR_TRY(dl_dataset_bring(dataset, sample, false, fresh, scratch, &bytes, &count, error));
  return dataset->format->decode(dataset, sample, bytes, count, to, scratch, error);
}

static tr_status check_id(const tr_dataset *dataset, uint64_t id, tr_error *error) {
  if (id < tr_dataset_size(dataset)) return TR_OK;
  return tr_fail(error, TR_ERR_INVALID, "data set: there is no sample %llu, only %llu", (unsigned long long)id,
                 (unsigned long long)tr_dataset_size(dataset));
}

/* The data set's scratch, or where another thread has it, `own`. */
static dl_scratch *borrow(tr_dataset *dataset, dl_scratch *own) {
  if (pthread_mutex_trylock(&dataset->lock) == 0) return &dataset->scratch;
  dl_scratch_init(own, dataset->allocator, dataset->clock);
  return own;
}

static void give_back(tr_dataset *dataset, dl_scratch *borrowed) {
  if (borrowed == &dataset->scratch) {
    pthread_mutex_unlock(&dataset->lock);
  } else {
    dl_scratch_fini(borrowed);
  }
}

tr_status tr_dataset_read(tr_dataset *dataset, uint64_t id, void *const *to, tr_error *error) {
  TR_TRY(check_id(dataset, id, error));
  const dl_sample sample = dl_dataset_sample(dataset, 0, id, dataset->transforms);
  dl_scratch own, *scratch = borrow(dataset, &own);
  const tr_status status = dl_dataset_read(dataset, &sample, false, to, scratch, error);
  give_back(dataset, scratch);
  return status;
}

tr_status tr_dataset_raw(tr_dataset *dataset, uint64_t id, tr_raw_visit visit, void *self, tr_error *error) {
  TR_TRY(check_id(dataset, id, error));
  const dl_sample sample = dl_dataset_sample(dataset, 0, id, NULL);
  dl_scratch own, *scratch = borrow(dataset, &own);
  const uint8_t *bytes;
  size_t count;
  tr_status status = dl_dataset_bring(dataset, &sample, true, false, scratch, &bytes, &count, error);
  if (status == TR_OK) {
    status = dataset->format->raw(dataset, sample.shard, sample.index, bytes, count, visit, self, error);
  }
  give_back(dataset, scratch);
  return status;
}
