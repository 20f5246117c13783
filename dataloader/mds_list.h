/* The list of an MDS data set: its folder's index.json, which says what columns there are and which shards.
 *
 * What it says is untrusted: sizes and counts are checked against the shards when those are indexed, names of shards stay
 * inside the folder. Hashes in it are not looked at: every sample is checked by the index's CRC32C. */
#ifndef TRAINRUN_DATALOADER_MDS_LIST_H
#define TRAINRUN_DATALOADER_MDS_LIST_H

#include "mds_value.h"

enum { DL_MDS_COLUMNS_MAX = 1024 };

typedef struct dl_mds_column {
  const char *name;
  const char *encoding; /* as it is written */
  dl_mds_encoding as;
} dl_mds_column;

typedef struct dl_mds_shard {
  const char *url;
  const char *raw_url; /* of a packed shard that may lie beside it unpacked; else NULL */
  bool packed;         /* zstd */
  uint64_t raw_bytes;  /* unpacked */
  uint64_t samples;
} dl_mds_shard;

typedef struct dl_mds_list {
  dl_mds_column *columns;
  size_t column_count, variable_count; /* variable: of no fixed size */
  dl_mds_shard *shards;                /* owned by the allocator: tr_free */
  size_t shard_count, shard_capacity;
} dl_mds_list;

/* The index.json in `folder` (a URL, without a slash at its end), appended to the list. All that is kept lies in `arena` but
 * the array of shards. The columns must be those that are in the list already, where there are any. */
tr_status dl_mds_list_add(dl_mds_list *list, const tr_allocator *allocator, tr_arena *arena, const char *folder,
                          const char *text, size_t bytes, tr_error *error);

#endif
