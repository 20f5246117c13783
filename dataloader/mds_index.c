/* Making and reading the index of an MDS shard: see mds_index.h. The shard's own table of offsets is believed only after
 * every sample's sizes add up to what lies between two of them. */
#include "mds_index.h"

#include <string.h>
#include <trainrun/crc32c.h>
#include <zstd.h>

#include "window.h"

enum { PART_HEAD_BYTES = 20, TABLE_WORDS = 64 << 10 };

/* ---- Making ------------------------------------------------------------------------------------------------------ */

/* A shard as it is unpacked: in memory, or seen through a window. */
typedef struct shard {
  const dl_file *file;
  const dl_mds_list *list;
  const uint8_t *memory; /* NULL: the window */
  dl_window window;
  uint64_t bytes;
  uint32_t samples;
} shard;

static tr_status show(shard *s, uint64_t offset, size_t least, const uint8_t **data, tr_error *error) {
  size_t shown;
  if (s->memory == NULL) return dl_window_show(&s->window, offset, least, data, &shown, error);
  if (offset > s->bytes || least > s->bytes - offset) {
    return tr_fail(error, TR_ERR_CORRUPT, "%s: unpacked: %zu bytes are expected at offset %llu, there are %llu",
                   s->file->url, least, (unsigned long long)offset, (unsigned long long)s->bytes);
  }
  *data = s->memory + offset;
  return TR_OK;
}

static tr_status read_table(shard *s, uint64_t samples, tr_writer *part, tr_error *error) {
  const uint8_t *data;
  TR_TRY(show(s, 0, 4, &data, error));
  s->samples = dl_mds_word(data, 0);
  if (s->samples != samples) {
    return tr_fail(error, TR_ERR_CORRUPT, "%s: offset 0: %u samples, index.json says %llu", s->file->url, s->samples,
                   (unsigned long long)samples);
  }
  const uint64_t words = (uint64_t)s->samples + 1, first = 4 + 4 * words;
  uint64_t last = first;
  for (uint64_t i = 0; i < words; i += TABLE_WORDS) {
    const size_t count = words - i < TABLE_WORDS ? (size_t)(words - i) : TABLE_WORDS;
    TR_TRY(show(s, 4 + 4 * i, 4 * count, &data, error));
    for (size_t w = 0; w < count; w++) {
      const uint32_t offset = dl_mds_word(data, w);
      if (offset < last || offset > s->bytes) {
        return tr_fail(error, TR_ERR_CORRUPT, "%s: offset %llu: sample %llu begins at %u, which is not in its turn",
                       s->file->url, (unsigned long long)(4 + 4 * (i + w)), (unsigned long long)(i + w), offset);
      }
      last = offset;
    }
    tr_write_bytes(part, data, 4 * count);
  }
  if (last == s->bytes) return part->failed ? tr_fail_memory(error, "an index", part->bytes) : TR_OK;
  return tr_fail(error, TR_ERR_CORRUPT, "%s: its samples end at %llu, the shard has %llu bytes", s->file->url,
                 (unsigned long long)last, (unsigned long long)s->bytes);
}

/* The sizes at a sample's beginning must make up the whole of it. */
static tr_status check_sample(shard *s, uint64_t index, uint64_t begin, uint64_t end, uint32_t *least, uint32_t *most,
                              tr_error *error) {
  const dl_mds_list *list = s->list;
  const uint8_t *data = NULL;
  uint64_t sum = 4 * (uint64_t)list->variable_count;
  if (sum <= end - begin) TR_TRY(show(s, begin, (size_t)sum, &data, error));
  for (size_t c = 0, v = 0; data != NULL && c < list->column_count; c++) {
    uint64_t bytes = list->columns[c].as.size;
    if (bytes == 0) {
      const uint32_t word = dl_mds_word(data, v);
      least[v] = word < least[v] ? word : least[v];
      most[v] = word > most[v] ? word : most[v];
      bytes = word;
      v++;
    }
    sum += bytes;
  }
  if (sum == end - begin) return TR_OK;
  return tr_fail(error, TR_ERR_CORRUPT, "%s: offset %llu: sample %llu: its columns need %llu bytes, it has %llu",
                 s->file->url, (unsigned long long)begin, (unsigned long long)index, (unsigned long long)sum,
                 (unsigned long long)(end - begin));
}

static tr_status read_samples(shard *s, size_t offsets_at, uint32_t *least, uint32_t *most, tr_writer *part,
                              tr_error *error) {
  for (uint64_t i = 0; i < s->samples; i++) {
    const uint8_t *offsets = part->data + offsets_at;
    const uint64_t begin = dl_mds_word(offsets, i), end = dl_mds_word(offsets, i + 1);
    uint32_t crc32c = 0;
    TR_TRY(check_sample(s, i, begin, end, least, most, error));
    if (s->memory != NULL) continue;
    TR_TRY(dl_window_crc(&s->window, begin, end - begin, &crc32c, error));
    tr_write_u32le(part, crc32c);
    if (part->failed) return tr_fail_memory(error, "an index", part->bytes);
  }
  return TR_OK;
}

static tr_status write_part(shard *s, const tr_allocator *allocator, uint64_t samples, uint32_t packed_crc32c,
                            tr_writer *part, tr_error *error) {
  const size_t variable = s->list->variable_count;
  uint32_t *least = tr_calloc(allocator, variable + 1, 2 * sizeof *least), *most = least + variable;
  if (least == NULL) return tr_fail_memory(error, "an index", variable * 2 * sizeof *least);
  for (size_t v = 0; v < variable; v++) least[v] = UINT32_MAX;
  tr_write_u32le(part, (uint32_t)samples);
  tr_write_u32le(part, s->memory != NULL);
  tr_write_u64le(part, s->bytes);
  tr_write_u32le(part, packed_crc32c);
  const size_t offsets_at = part->bytes;
  tr_status status = read_table(s, samples, part, error);
  if (status == TR_OK) status = read_samples(s, offsets_at, least, most, part, error);
  for (size_t v = 0; status == TR_OK && v < variable; v++) {
    tr_write_u32le(part, least[v]);
    tr_write_u32le(part, most[v]);
  }
  tr_free(allocator, least);
  return status;
}

tr_status dl_mds_unpack(const dl_file *file, const uint8_t *packed, size_t packed_bytes, uint8_t *raw, size_t raw_bytes,
                        tr_error *error) {
  const size_t made = ZSTD_decompress(raw, raw_bytes, packed, packed_bytes);
  if (ZSTD_isError(made)) return tr_fail(error, TR_ERR_CORRUPT, "%s: zstd: %s", file->url, ZSTD_getErrorName(made));
  if (made == raw_bytes) return TR_OK;
  return tr_fail(error, TR_ERR_CORRUPT, "%s: it unpacks to %zu bytes, index.json says %zu", file->url, made, raw_bytes);
}

static tr_status build_packed(const tr_dataset *dataset, shard *s, uint64_t samples, tr_writer *part, tr_error *error) {
  const dl_file *file = s->file;
  uint8_t *packed = tr_alloc(dataset->allocator, (size_t)file->bytes + 1), *raw = NULL;
  tr_status status = packed != NULL ? TR_OK : tr_fail_memory(error, file->url, (size_t)file->bytes);
  if (status == TR_OK) status = dl_file_read(file, dataset->clock, 0, packed, (size_t)file->bytes, NULL, error);
  if (status == TR_OK) {
    /* What the frame says before so much memory is asked for. */
    const unsigned long long promised = ZSTD_getFrameContentSize(packed, (size_t)file->bytes);
    if (promised == ZSTD_CONTENTSIZE_ERROR || (promised != ZSTD_CONTENTSIZE_UNKNOWN && promised > s->bytes)) {
      status = tr_fail(error, TR_ERR_CORRUPT, "%s: it is not zstd of the %llu bytes that index.json says", file->url,
                       (unsigned long long)s->bytes);
    }
  }
  if (status == TR_OK) {
    raw = tr_alloc(dataset->allocator, (size_t)s->bytes + 1);
    status = raw != NULL ? TR_OK : tr_fail_memory(error, file->url, (size_t)s->bytes);
  }
  if (status == TR_OK) status = dl_mds_unpack(file, packed, (size_t)file->bytes, raw, (size_t)s->bytes, error);
  if (status == TR_OK) {
    s->memory = raw;
    status = write_part(s, dataset->allocator, samples, tr_crc32c(0, packed, (size_t)file->bytes), part, error);
  }
  tr_free(dataset->allocator, packed);
  tr_free(dataset->allocator, raw);
  return status;
}

static tr_status build(const tr_dataset *dataset, size_t number, tr_writer *part, tr_error *error) {
  const dl_mds *self = dataset->self;
  const dl_mds_shard *listed = &self->list.shards[number];
  shard s = {.file = &dataset->files[number], .list = &self->list, .bytes = listed->raw_bytes};
  if (listed->packed && s.file->url != listed->raw_url) return build_packed(dataset, &s, listed->samples, part, error);
  if (s.file->bytes != s.bytes) {
    return tr_fail(error, TR_ERR_CORRUPT, "%s: %llu bytes, index.json says %llu", s.file->url,
                   (unsigned long long)s.file->bytes, (unsigned long long)s.bytes);
  }
  dl_window_init(&s.window, s.file, dataset->allocator);
  const tr_status status = write_part(&s, dataset->allocator, listed->samples, 0, part, error);
  dl_window_fini(&s.window);
  return status;
}

/* ---- Reading ----------------------------------------------------------------------------------------------------- */

uint32_t dl_mds_word(const uint8_t *words, uint64_t index) {
  const uint8_t *at = words + 4 * index;
  return (uint32_t)at[0] | (uint32_t)at[1] << 8 | (uint32_t)at[2] << 16 | (uint32_t)at[3] << 24;
}

dl_mds_part dl_mds_part_of(dl_index_part part) {
  tr_reader reader = tr_reader_of(part.data, part.bytes);
  dl_mds_part found = {.samples = tr_read_u32le(&reader)};
  found.packed = tr_read_u32le(&reader) != 0;
  found.raw_bytes = tr_read_u64le(&reader);
  found.packed_crc32c = tr_read_u32le(&reader);
  found.offsets = part.data + PART_HEAD_BYTES;
  found.crcs = found.offsets + 4 * ((size_t)found.samples + 1);
  found.sizes = found.crcs + (found.packed ? 0 : 4 * (size_t)found.samples);
  return found;
}

static bool is_whole(const tr_dataset *dataset, size_t number, dl_index_part bytes) {
  const dl_mds *self = dataset->self;
  const dl_mds_shard *listed = &self->list.shards[number];
  const dl_file *file = &dataset->files[number];
  if (bytes.bytes < PART_HEAD_BYTES) return false;
  const dl_mds_part part = dl_mds_part_of(bytes);
  const uint64_t words = (uint64_t)part.samples + 1 + (part.packed ? 0 : part.samples) + 2 * self->list.variable_count;
  if (bytes.bytes != PART_HEAD_BYTES + 4 * words || part.samples != listed->samples) return false;
  if (part.raw_bytes != listed->raw_bytes || part.packed != (listed->packed && file->url != listed->raw_url))
    return false;
  if (!part.packed && part.raw_bytes != file->bytes) return false;
  for (uint32_t i = 0; i < part.samples; i++) {
    if (dl_mds_word(part.offsets, i) > dl_mds_word(part.offsets, i + 1)) return false;
  }
  return dl_mds_word(part.offsets, part.samples) == part.raw_bytes;
}

static tr_status check(const tr_dataset *dataset, size_t number, dl_index_part part, tr_error *error) {
  if (is_whole(dataset, number, part)) return TR_OK;
  return tr_fail(error, TR_ERR_CORRUPT, "the index of %s is broken", dataset->files[number].url);
}

const dl_index_format dl_mds_index_format = {.build = build, .check = check};
