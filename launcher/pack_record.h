/* DEST.pack.json: what a pack has done so far, written anew after each shard, so that the next one goes on there. */
#ifndef TRAINRUN_LAUNCHER_PACK_RECORD_H
#define TRAINRUN_LAUNCHER_PACK_RECORD_H

#include <trainrun/store.h>

typedef struct tr_pack_shard {
  uint64_t samples, bytes;
  uint32_t crc32c;
} tr_pack_shard;

typedef struct tr_pack_record {
  tr_store *store;
  char name[TR_KEY_BYTES]; /* key of "DEST" */
  uint32_t fingerprint;    /* of the source and of all that decides what the shards hold */
  uint64_t samples;        /* of the source */
  bool complete;
  tr_pack_shard *shards;
  size_t count, capacity;
} tr_pack_record;

/* The key of shard `number`. */
void pack_shard_key(const tr_pack_record *record, size_t number, char key[TR_KEY_BYTES]);

/* What was done before with the same fingerprint: shards that are there, whole, up to the first that is not. *other: there
 * are shards of that name that are none of these. */
tr_status pack_record_find(tr_pack_record *record, bool *other, tr_error *error);
/* Takes all shards of the name away. */
tr_status pack_record_clear(tr_pack_record *record, tr_error *error);
tr_status pack_record_add(tr_pack_record *record, const tr_pack_shard *shard, tr_error *error);
tr_status pack_record_write(const tr_pack_record *record, tr_error *error);
void pack_record_fini(tr_pack_record *record);

#endif
