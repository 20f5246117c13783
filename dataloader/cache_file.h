/* An entry of the cache's folder: one file a chunk. docs/formats.md has the layout; this reads and writes its header.
 *
 *     <dir>/<2 hex>/<30 hex>-<chunk, hex>.chunk     the hash of the object's version, and which chunk of it
 *
 * Pure: what a header says is believed only when its checksum is right and it names what was asked for. */
#ifndef TRAINRUN_DATALOADER_CACHE_FILE_H
#define TRAINRUN_DATALOADER_CACHE_FILE_H

#include "cache_key.h"

enum {
  DL_CACHE_HEADER_BYTES = 4096,
  DL_CACHE_NAME_BYTES = 64,
  DL_CACHE_FILE_BYTES_MAX = DL_CACHE_HEADER_BYTES + DL_CACHE_CHUNK_BYTES
};

void dl_cache_file_name(const uint64_t hash[2], uint64_t number, char name[DL_CACHE_NAME_BYTES]);
/* The other way; false: not a name of ours. `folder` is the two digits. */
bool dl_cache_file_parse(const char *folder, const char *name, uint64_t hash[2]);

void dl_cache_header_write(const dl_cache_object *object, uint64_t number, const dl_cache_chunk *chunk,
                           uint8_t header[DL_CACHE_HEADER_BYTES]);
/* False: no header of this version, damaged, or of another chunk. */
bool dl_cache_header_read(const uint8_t header[DL_CACHE_HEADER_BYTES], const dl_cache_object *object, uint64_t number,
                          dl_cache_chunk *chunk);

#endif
