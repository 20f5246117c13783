/* Names of entries and checked reads of chunks: see cache_key.h. */
#include "cache_key.h"

#include <string.h>
#include <trainrun/crc32c.h>

/* ---- Names ------------------------------------------------------------------------------------------------------- */

/* A bijection in which each bit of the input moves each of the output (the finalizer of MurmurHash3). */
static uint64_t mix(uint64_t x) {
  x = (x ^ x >> 33) * 0xFF51AFD7ED558CCDull;
  x = (x ^ x >> 33) * 0xC4CEB9FE1A85EC53ull;
  return x ^ x >> 33;
}

/* The value is part of the names of files: it never changes, and is the same on every machine. */
void dl_cache_hash(const void *bytes, size_t count, uint64_t hash[2]) {
  const uint8_t *at = bytes;
  uint64_t a = 0x9E3779B97F4A7C15ull, b = 0xC2B2AE3D27D4EB4Full;
  for (size_t i = 0; i < count; i += 8) {
    uint64_t word = 0;
    for (size_t k = 0; k < 8 && i + k < count; k++) word |= (uint64_t)at[i + k] << (8 * k);
    a = mix(a ^ word);
    b = mix(b + word * 0x9E3779B97F4A7C15ull);
  }
  a = mix(a ^ count);
  b = mix(b + count);
  hash[0] = a + b;
  hash[1] = b + mix(a);
}

static bool add_text(dl_cache_object *object, const char *text, size_t room) {
  const size_t length = strnlen(text, room);
  if (length == room) return false;
  memcpy(object->text + object->text_bytes, text, length + 1);
  object->text_bytes += (uint32_t)length + 1;
  return true;
}

bool dl_cache_object_init(dl_cache_object *object, const char *identity, const char *key, const char *etag) {
  object->text_bytes = 0;
  if (!add_text(object, identity, DL_CACHE_IDENTITY_BYTES) || !add_text(object, key, TR_KEY_BYTES)) return false;
  uint64_t name[2];
  dl_cache_hash(object->text, object->text_bytes, name);
  object->name = name[0];
  if (!add_text(object, etag, TR_ETAG_BYTES)) return false;
  dl_cache_hash(object->text, object->text_bytes, object->hash);
  return true;
}

/* ---- Chunks ------------------------------------------------------------------------------------------------------ */

/* Read at once and then summed, while it is in a cache of the processor. */
enum { STRIDE_BYTES = 16 * DL_CACHE_BLOCK_BYTES };

static uint32_t block_bytes(const dl_cache_chunk *chunk, uint32_t block) {
  const uint32_t left = chunk->bytes - block * DL_CACHE_BLOCK_BYTES;
  return left < DL_CACHE_BLOCK_BYTES ? left : DL_CACHE_BLOCK_BYTES;
}

void dl_cache_chunk_sum(dl_cache_chunk *chunk, const uint8_t *data) {
  for (uint32_t block = 0; block * DL_CACHE_BLOCK_BYTES < chunk->bytes; block++) {
    chunk->crc32c[block] = tr_crc32c(0, data + block * DL_CACHE_BLOCK_BYTES, block_bytes(chunk, block));
  }
}

/* The whole blocks that [at, end) begins with, as many as are read at once; 0: it begins or ends within a block. */
static uint32_t whole_bytes(const dl_cache_chunk *chunk, uint32_t at, uint32_t end) {
  if (at % DL_CACHE_BLOCK_BYTES != 0) return 0;
  uint32_t bytes = end - at;
  if (end != chunk->bytes) bytes -= bytes % DL_CACHE_BLOCK_BYTES;
  return bytes < STRIDE_BYTES ? bytes : STRIDE_BYTES;
}

static bool check(const dl_cache_chunk *chunk, uint32_t at, const uint8_t *data, uint32_t bytes) {
  for (uint32_t done = 0; done < bytes; done += DL_CACHE_BLOCK_BYTES) {
    const uint32_t block = (at + done) / DL_CACHE_BLOCK_BYTES;
    if (tr_crc32c(0, data + done, block_bytes(chunk, block)) != chunk->crc32c[block]) return false;
  }
  return true;
}

bool dl_cache_chunk_take(const dl_cache_chunk *chunk, uint32_t begin, uint32_t bytes, uint8_t *to,
                         dl_cache_read_fn read, void *self) {
  uint8_t edge[DL_CACHE_BLOCK_BYTES];
  const uint32_t end = begin + bytes;
  for (uint32_t at = begin; at < end;) {
    uint32_t moved = whole_bytes(chunk, at, end);
    if (moved > 0) {
      if (!read(self, at, to, moved) || !check(chunk, at, to, moved)) return false;
    } else {
      const uint32_t block = at / DL_CACHE_BLOCK_BYTES, first = block * DL_CACHE_BLOCK_BYTES;
      const uint32_t count = block_bytes(chunk, block);
      if (!read(self, first, edge, count) || !check(chunk, first, edge, count)) return false;
      moved = (end < first + count ? end : first + count) - at;
      memcpy(to, edge + (at - first), moved);
    }
    at += moved;
    to += moved;
  }
  return true;
}
