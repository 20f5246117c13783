/* Making and reading the index of a file of tokens: see tokens_index.h. */
#include "tokens_index.h"

#include <trainrun/crc32c.h>

#include "window.h"

enum { VERSION_U16 = 1, VERSION_U32 = 7, BLOCK_BYTES_LEAST = 4096, BLOCK_BYTES_MOST = 1 << 20, PART_HEAD_BYTES = 16 };
/* CRCs of a data set, which every worker keeps in memory: 16 MiB of them. */
#define BLOCKS_MOST ((uint64_t)4 << 20)

/* A sample is read with the blocks that it touches, so small blocks are better, as long as they are not too many. */
static uint32_t block_bytes_of(const tr_dataset *dataset) {
  uint64_t total = 0;
  for (size_t i = 0; i < dataset->file_count; i++) {
    if (__builtin_add_overflow(total, dataset->files[i].bytes, &total)) total = UINT64_MAX;
  }
  uint32_t bytes = BLOCK_BYTES_LEAST;
  while (bytes < BLOCK_BYTES_MOST && total / bytes > BLOCKS_MOST) bytes *= 2;
  return bytes;
}

static uint64_t blocks_of(uint64_t bytes, uint32_t block_bytes) {
  return bytes / block_bytes + (bytes % block_bytes != 0);
}

static tr_status read_header(const dl_file *file, dl_window *window, dl_tokens_part *part, tr_error *error) {
  const uint8_t *data;
  size_t shown;
  if (file->bytes < DL_TOKENS_HEADER_BYTES) {
    return tr_fail(error, TR_ERR_CORRUPT, "%s: %llu bytes are no file of tokens: the header alone has %d", file->url,
                   (unsigned long long)file->bytes, DL_TOKENS_HEADER_BYTES);
  }
  TR_TRY(dl_window_show(window, 0, DL_TOKENS_HEADER_BYTES, &data, &shown, error));
  tr_reader reader = tr_reader_of(data, DL_TOKENS_HEADER_BYTES);
  const uint32_t magic = tr_read_u32le(&reader), version = tr_read_u32le(&reader), tokens = tr_read_u32le(&reader);
  if (magic != DL_TOKENS_MAGIC_U16 && magic != DL_TOKENS_MAGIC_U32) {
    return tr_fail(error, TR_ERR_CORRUPT, "%s: offset 0: %u is not the magic number of a file of tokens (%d or %d)",
                   file->url, magic, DL_TOKENS_MAGIC_U16, DL_TOKENS_MAGIC_U32);
  }
  const uint32_t wanted = magic == DL_TOKENS_MAGIC_U16 ? VERSION_U16 : VERSION_U32;
  if (version != wanted) {
    return tr_fail(error, TR_ERR_UNSUPPORTED, "%s: offset 4: version %u of a file of tokens; %u is read", file->url,
                   version, wanted);
  }
  part->width = magic == DL_TOKENS_MAGIC_U16 ? 2 : 4;
  part->tokens = tokens;
  if (tokens > INT32_MAX || file->bytes != DL_TOKENS_HEADER_BYTES + dl_tokens_bytes(part)) {
    return tr_fail(error, TR_ERR_CORRUPT, "%s: offset 8: %u tokens of %u bytes do not make a file of %llu bytes",
                   file->url, tokens, part->width, (unsigned long long)file->bytes);
  }
  return TR_OK;
}

static tr_status write_part(const tr_dataset *dataset, const dl_file *file, dl_window *window, tr_writer *to,
                            tr_error *error) {
  dl_tokens_part part = {.block_bytes = block_bytes_of(dataset)};
  TR_TRY(read_header(file, window, &part, error));
  tr_write_u32le(to, part.width);
  tr_write_u64le(to, part.tokens);
  tr_write_u32le(to, part.block_bytes);
  const uint64_t bytes = dl_tokens_bytes(&part);
  for (uint64_t at = 0; at < bytes; at += part.block_bytes) {
    const uint64_t left = bytes - at;
    uint32_t crc32c;
    TR_TRY(dl_window_crc(window, DL_TOKENS_HEADER_BYTES + at, left < part.block_bytes ? left : part.block_bytes,
                         &crc32c, error));
    tr_write_u32le(to, crc32c);
  }
  return TR_OK;
}

static tr_status build(const tr_dataset *dataset, size_t shard, tr_writer *part, tr_error *error) {
  const dl_file *file = &dataset->files[shard];
  dl_window window;
  dl_window_init(&window, file, dataset->allocator);
  const tr_status status = write_part(dataset, file, &window, part, error);
  dl_window_fini(&window);
  return status;
}

dl_tokens_part dl_tokens_part_of(dl_index_part part) {
  tr_reader reader = tr_reader_of(part.data, part.bytes);
  dl_tokens_part found = {.width = tr_read_u32le(&reader)};
  found.tokens = tr_read_u64le(&reader);
  found.block_bytes = tr_read_u32le(&reader);
  found.crcs = part.data + PART_HEAD_BYTES;
  return found;
}

uint64_t dl_tokens_bytes(const dl_tokens_part *part) { return part->tokens * part->width; }

uint32_t dl_tokens_crc(const dl_tokens_part *part, uint64_t block) {
  tr_reader reader = tr_reader_of(part->crcs + 4 * block, 4);
  return tr_read_u32le(&reader);
}

static tr_status check(const tr_dataset *dataset, size_t shard, dl_index_part bytes, tr_error *error) {
  const dl_file *file = &dataset->files[shard];
  if (bytes.bytes >= PART_HEAD_BYTES) {
    const dl_tokens_part part = dl_tokens_part_of(bytes);
    const bool power = part.block_bytes >= BLOCK_BYTES_LEAST && part.block_bytes <= BLOCK_BYTES_MOST &&
                       (part.block_bytes & (part.block_bytes - 1)) == 0;
    if (power && (part.width == 2 || part.width == 4) && part.tokens <= INT32_MAX &&
        file->bytes == DL_TOKENS_HEADER_BYTES + dl_tokens_bytes(&part) &&
        bytes.bytes == PART_HEAD_BYTES + 4 * blocks_of(dl_tokens_bytes(&part), part.block_bytes)) {
      return TR_OK;
    }
  }
  return tr_fail(error, TR_ERR_CORRUPT, "the index of %s is broken", file->url);
}

const dl_index_format dl_tokens_index_format = {.build = build, .check = check};
