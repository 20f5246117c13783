/* What an entry of the cache is called: the store, the object's key, its ETag, and the number of a chunk of it.
 *
 * A chunk is a fixed, aligned range of an object: chunk n is [n * DL_CACHE_CHUNK_BYTES, ...), the last one ends where the
 * object does. A chunk is checked block by block, so that a small read of it does not have to read it whole.
 * The hash finds an entry; the text decides. It is no defence against somebody who looks for collisions: those only make
 * two objects take one entry from each other. */
#ifndef TRAINRUN_DATALOADER_CACHE_KEY_H
#define TRAINRUN_DATALOADER_CACHE_KEY_H

#include <trainrun/store.h>

enum {
  DL_CACHE_CHUNK_BYTES = 4 << 20,
  DL_CACHE_BLOCK_BYTES = 16 << 10,
  DL_CACHE_BLOCKS = DL_CACHE_CHUNK_BYTES / DL_CACHE_BLOCK_BYTES,
  DL_CACHE_IDENTITY_BYTES = 256,
  DL_CACHE_TEXT_BYTES = DL_CACHE_IDENTITY_BYTES + TR_KEY_BYTES + TR_ETAG_BYTES
};

/* One version of one object. */
typedef struct dl_cache_object {
  uint64_t hash[2]; /* of all of it */
  uint64_t name;    /* of store and key: the same for all versions */
  uint32_t text_bytes;
  char text[DL_CACHE_TEXT_BYTES]; /* store NUL key NUL ETag NUL */
} dl_cache_object;

/* False where one of the three is too long for an entry: such an object is not cached. */
bool dl_cache_object_init(dl_cache_object *object, const char *identity, const char *key, const char *etag);
void dl_cache_hash(const void *bytes, size_t count, uint64_t hash[2]);

/* What is known of the bytes of a chunk. */
typedef struct dl_cache_chunk {
  uint32_t bytes;        /* less than DL_CACHE_CHUNK_BYTES at the object's end only */
  uint64_t object_bytes; /* 0: the store did not say */
  int64_t modified_ns;
  uint32_t crc32c[DL_CACHE_BLOCKS]; /* of each block */
} dl_cache_chunk;

void dl_cache_chunk_sum(dl_cache_chunk *chunk, const uint8_t *data);

/* Reads whole blocks of a chunk, from where they are kept: [offset, offset + bytes) of it into `to`. */
typedef bool (*dl_cache_read_fn)(void *self, uint32_t offset, uint8_t *to, uint32_t bytes);
/* [begin, begin + bytes) of the chunk, which must be in it, into `to`, each block checked; false: it could not be read or
 * is not what it was. */
bool dl_cache_chunk_take(const dl_cache_chunk *chunk, uint32_t begin, uint32_t bytes, uint8_t *to,
                         dl_cache_read_fn read, void *self);

#endif
