/* Names and headers of the cache's files: see cache_file.h. */
#include "cache_file.h"

#include <stdio.h>
#include <string.h>
#include <trainrun/bytes.h>
#include <trainrun/crc32c.h>

#define FILE_MAGIC "trchunk1"
enum { FILE_VERSION = 1, CRC_AT = DL_CACHE_HEADER_BYTES - 4, FIXED_BYTES = 72 };
_Static_assert(FIXED_BYTES + DL_CACHE_TEXT_BYTES + DL_CACHE_BLOCKS * 4 <= CRC_AT, "a header holds the longest key");

/* ---- Names ------------------------------------------------------------------------------------------------------- */

void dl_cache_file_name(const uint64_t hash[2], uint64_t number, char name[DL_CACHE_NAME_BYTES]) {
  char digits[33];
  snprintf(digits, sizeof digits, "%016llx%016llx", (unsigned long long)hash[0], (unsigned long long)hash[1]);
  snprintf(name, DL_CACHE_NAME_BYTES, "%.2s/%s-%llx.chunk", digits, digits + 2, (unsigned long long)number);
}

static bool read_digits(const char **at, size_t count, uint64_t *value) {
  for (size_t i = 0; i < count; i++, (*at)++) {
    const char c = **at;
    if (!((c >= '0' && c <= '9') || (c >= 'a' && c <= 'f'))) return false;
    *value = *value << 4 | (uint64_t)(c <= '9' ? c - '0' : c - 'a' + 10);
  }
  return true;
}

bool dl_cache_file_parse(const char *folder, const char *name, uint64_t hash[2]) {
  uint64_t number = 0;
  hash[0] = hash[1] = 0;
  if (!read_digits(&folder, 2, &hash[0]) || *folder != '\0') return false;
  if (!read_digits(&name, 14, &hash[0]) || !read_digits(&name, 16, &hash[1]) || *name++ != '-') return false;
  size_t count = strspn(name, "0123456789abcdef");
  return count >= 1 && count <= 16 && read_digits(&name, count, &number) && strcmp(name, ".chunk") == 0;
}

/* ---- Headers ----------------------------------------------------------------------------------------------------- */

static void put(uint8_t *at, uint64_t value, int bytes) {
  for (int i = 0; i < bytes; i++) at[i] = (uint8_t)(value >> (8 * i));
}

void dl_cache_header_write(const dl_cache_object *object, uint64_t number, const dl_cache_chunk *chunk,
                           uint8_t header[DL_CACHE_HEADER_BYTES]) {
  memset(header, 0, DL_CACHE_HEADER_BYTES);
  memcpy(header, FILE_MAGIC, 8);
  put(header + 8, FILE_VERSION, 4);
  put(header + 12, DL_CACHE_BLOCK_BYTES, 4);
  put(header + 16, DL_CACHE_CHUNK_BYTES, 4);
  put(header + 20, chunk->bytes, 4);
  put(header + 24, number, 8);
  put(header + 32, chunk->object_bytes, 8);
  put(header + 40, (uint64_t)chunk->modified_ns, 8);
  put(header + 48, object->text_bytes, 4);
  memcpy(header + FIXED_BYTES, object->text, object->text_bytes);
  uint8_t *at = header + FIXED_BYTES + object->text_bytes;
  for (uint32_t block = 0; block * DL_CACHE_BLOCK_BYTES < chunk->bytes; block++)
    put(at + 4 * block, chunk->crc32c[block], 4);
  put(header + CRC_AT, tr_crc32c(0, header, CRC_AT), 4);
}

bool dl_cache_header_read(const uint8_t header[DL_CACHE_HEADER_BYTES], const dl_cache_object *object, uint64_t number,
                          dl_cache_chunk *chunk) {
  tr_reader reader = tr_reader_of(header, DL_CACHE_HEADER_BYTES);
  tr_reader sum = tr_reader_of(header + CRC_AT, 4);
  const void *magic = tr_read_bytes(&reader, 8);
  if (memcmp(magic, FILE_MAGIC, 8) != 0 || tr_read_u32le(&sum) != tr_crc32c(0, header, CRC_AT)) return false;
  if (tr_read_u32le(&reader) != FILE_VERSION || tr_read_u32le(&reader) != DL_CACHE_BLOCK_BYTES ||
      tr_read_u32le(&reader) != DL_CACHE_CHUNK_BYTES) {
    return false;
  }
  chunk->bytes = tr_read_u32le(&reader);
  if (tr_read_u64le(&reader) != number || chunk->bytes > DL_CACHE_CHUNK_BYTES) return false;
  chunk->object_bytes = tr_read_u64le(&reader);
  chunk->modified_ns = (int64_t)tr_read_u64le(&reader);
  const uint32_t text_bytes = tr_read_u32le(&reader);
  tr_read_bytes(&reader, FIXED_BYTES - reader.at);
  if (text_bytes != object->text_bytes) return false;
  const void *text = tr_read_bytes(&reader, text_bytes);
  if (text == NULL || memcmp(text, object->text, text_bytes) != 0) return false;
  for (uint32_t block = 0; block * DL_CACHE_BLOCK_BYTES < chunk->bytes; block++)
    chunk->crc32c[block] = tr_read_u32le(&reader);
  return !reader.failed;
}
