/* The index of a file of tokens: what its header says and the CRC32C of its blocks.
 *
 * A part (see index.h) holds: u32 bytes of a token (2, 4); u64 tokens; u32 bytes of a block; then for each block of the
 * tokens (not of the header) the u32 CRC32C of its bytes, the last block shorter. Blocks and not samples, so that the index
 * is good for any length of sequence; their size is that at which all of a data set stay few. */
#ifndef TRAINRUN_DATALOADER_TOKENS_INDEX_H
#define TRAINRUN_DATALOADER_TOKENS_INDEX_H

#include "index.h"

enum { DL_TOKENS_HEADER_BYTES = 1024, DL_TOKENS_MAGIC_U16 = 20240520, DL_TOKENS_MAGIC_U32 = 20240801 };

extern const dl_index_format dl_tokens_index_format;

typedef struct dl_tokens_part {
  uint32_t width; /* bytes of a token */
  uint64_t tokens;
  uint32_t block_bytes;
  const uint8_t *crcs; /* u32, little-endian */
} dl_tokens_part;

/* Of a part that was checked. */
dl_tokens_part dl_tokens_part_of(dl_index_part part);
uint64_t dl_tokens_bytes(const dl_tokens_part *part);
uint32_t dl_tokens_crc(const dl_tokens_part *part, uint64_t block);

#endif
