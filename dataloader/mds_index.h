/* The index of an MDS shard: where its samples are and what they are.
 *
 * A part (see index.h) holds: u32 samples; u32 1 where the shard is packed (zstd), else 0; u64 bytes of the shard, unpacked;
 * u32 CRC32C of the packed file, or 0; u32 offsets of the samples and of their end, unpacked; where it is not packed the u32
 * CRC32C of each sample; for each column of no fixed size u32 least and u32 most bytes of its values. */
#ifndef TRAINRUN_DATALOADER_MDS_INDEX_H
#define TRAINRUN_DATALOADER_MDS_INDEX_H

#include "index.h"
#include "mds_list.h"

extern const dl_index_format dl_mds_index_format;

/* The data set's `self` begins with it. */
typedef struct dl_mds {
  dl_mds_list list;
  dl_index index;
} dl_mds;

typedef struct dl_mds_part {
  uint32_t samples;
  bool packed;
  uint64_t raw_bytes;
  uint32_t packed_crc32c;
  const uint8_t *offsets, *crcs, *sizes; /* u32, little-endian */
} dl_mds_part;

/* Of a part that was checked. */
dl_mds_part dl_mds_part_of(dl_index_part part);
uint32_t dl_mds_word(const uint8_t *words, uint64_t index);
/* All of `raw`, raw_bytes of it, from a packed file. */
tr_status dl_mds_unpack(const dl_file *file, const uint8_t *packed, size_t packed_bytes, uint8_t *raw, size_t raw_bytes,
                        tr_error *error);

#endif
