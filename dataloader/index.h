/* Where the samples of each shard are: found out once by all ranks together, kept as one file for the next time.
 *
 * What stands in a shard's part is its format's business (bytes that the format builds and checks). The file, little
 * endian, is named by the hash of its key and holds
 *     8  "TRINDEX" and a zero
 *     4  version, 2
 *     4  CRC32C of all that follows
 *     8  bytes of the whole file
 *     4  bytes of the key, 4 reserved zeros
 *     the key: the format, then "bytes ETag name" of every shard, a line each; the whole URL where there is no ETag
 *     for each shard 8 bytes of length and its part
 * A file of another key, another version or with a wrong checksum is as good as none: the index is built and written
 * again. It stands in the folder ".trainrun" beside the first shard, where a store lets us write there, and in the job's
 * index folder. */
#ifndef TRAINRUN_DATALOADER_INDEX_H
#define TRAINRUN_DATALOADER_INDEX_H

#include "dataset.h"

typedef struct dl_index_part {
  const uint8_t *data;
  size_t bytes;
} dl_index_part;

typedef struct dl_index {
  const tr_allocator *allocator;
  uint8_t *memory;
  dl_index_part *parts; /* [shard_count] */
} dl_index;

typedef struct dl_index_format {
  /* Appends the part of a shard. */
  tr_status (*build)(const tr_dataset *dataset, size_t shard, tr_writer *part, tr_error *error);
  /* Every offset and size in it is inside the shard, and so on. */
  tr_status (*check)(const tr_dataset *dataset, size_t shard, dl_index_part part, tr_error *error);
} dl_index_format;

/* Collective: the files of the data set are known, one a shard. */
tr_status dl_index_open(tr_dataset *dataset, const dl_index_format *format, dl_index *index, tr_error *error);
void dl_index_fini(dl_index *index);

#endif
