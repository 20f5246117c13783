/* The index of a WebDataset shard: which members make up each sample, where their bytes are and what they are.
 *
 * A part (see index.h) holds: u64 samples; u8 1 where contents have CRCs (the tar was read), 0 where they have not (it is
 * DALI's); u32 suffixes, each u8 length and text; then for each sample u16 length and text of its key, u16 members, and
 * for each member u16 suffix, u64 offset and u64 bytes of its contents and their u32 CRC32C (0 where there are none). */
#ifndef TRAINRUN_DATALOADER_WDS_INDEX_H
#define TRAINRUN_DATALOADER_WDS_INDEX_H

#include "index.h"

extern const dl_index_format dl_wds_index_format;

enum { DL_WDS_SUFFIXES_MAX = 1024 };

/* Walks a part. The format's check walks every part to its end once, so later walks cannot fail. */
typedef struct dl_wds_walk {
  tr_reader reader;
  uint64_t samples, walked;
  bool has_crc;
  uint32_t suffix_count;
  struct {
    const char *text;
    uint8_t length;
  } suffixes[DL_WDS_SUFFIXES_MAX];

  /* The sample at hand. */
  const char *key; /* not ended by a NUL */
  uint16_t key_length;
  uint16_t member_count;
} dl_wds_walk;

typedef struct dl_wds_member {
  uint16_t suffix;
  uint64_t offset, bytes;
  uint32_t crc32c;
} dl_wds_member;

bool dl_wds_walk_begin(dl_wds_walk *walk, dl_index_part part);
/* The members of a sample are read, all of them, before the next sample. False: there is none, or the part is
 * broken. */
bool dl_wds_walk_sample(dl_wds_walk *walk);
bool dl_wds_walk_member(dl_wds_walk *walk, dl_wds_member *member);

/* The members of one sample of a part that was checked; `sample` is where its entry begins (the length of its key). */
typedef struct dl_wds_members {
  const uint8_t *at;
  uint16_t left;
} dl_wds_members;
dl_wds_members dl_wds_members_of(const uint8_t *sample);
bool dl_wds_members_next(dl_wds_members *members, dl_wds_member *member);

#endif
