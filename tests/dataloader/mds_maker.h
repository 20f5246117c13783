/* Makes MDS shards and their list by the layout, for tests and fuzzing: three columns, "id" (int), "text" (str) and "x"
 * (ndarray:int16). Sample i of shard s has number n = 100 * s + i: id n, text "sample n", x [2] n and -n. */
#ifndef TRAINRUN_TESTS_DATALOADER_MDS_MAKER_H
#define TRAINRUN_TESTS_DATALOADER_MDS_MAKER_H

#include <stdint.h>
#include <stdio.h>
#include <string.h>

static inline size_t mds_word(uint8_t *out, size_t at, uint32_t word) {
  for (int i = 0; i < 4; i++) out[at + i] = (uint8_t)(word >> (8 * i));
  return at + 4;
}

/* Into out; its bytes. */
static inline size_t mds_shard(uint8_t *out, uint32_t shard, uint32_t samples) {
  static const char config[] = "{\"format\": \"mds\"}";
  size_t at = mds_word(out, 0, samples), table = at;
  at += 4 * ((size_t)samples + 1);
  memcpy(out + at, config, sizeof config - 1);
  at += sizeof config - 1;
  for (uint32_t i = 0; i < samples; i++) {
    const uint32_t number = 100 * shard + i;
    char text[32];
    const uint32_t length = (uint32_t)snprintf(text, sizeof text, "sample %u", number);
    table = mds_word(out, table, (uint32_t)at);
    at = mds_word(out, at, length);
    at = mds_word(out, at, 6);
    at = mds_word(out, at, number);
    at = mds_word(out, at, 0);
    memcpy(out + at, text, length);
    at += length;
    const uint16_t x[] = {(uint16_t)number, (uint16_t) - (int32_t)number};
    out[at++] = 1 << 2; /* one dimension, its length in a byte */
    out[at++] = 2;
    for (int e = 0; e < 2; e++) {
      out[at++] = (uint8_t)x[e];
      out[at++] = (uint8_t)(x[e] >> 8);
    }
  }
  mds_word(out, table, (uint32_t)at);
  return at;
}

/* The entry of a shard in index.json; zip_bytes 0: it is not packed. */
static inline size_t mds_entry(char *out, size_t room, uint32_t shard, uint32_t samples, size_t raw_bytes,
                               size_t zip_bytes) {
  char zip[160] = "null";
  if (zip_bytes > 0) {
    snprintf(zip, sizeof zip, "{\"basename\": \"shard.%05u.mds.zstd\", \"bytes\": %zu, \"hashes\": {}}", shard,
             zip_bytes);
  }
  return (size_t)snprintf(
      out, room,
      "{\"column_encodings\": [\"int\", \"str\", \"ndarray:int16\"], \"column_names\": [\"id\", \"text\", \"x\"], "
      "\"column_sizes\": [8, null, null], \"compression\": %s, \"format\": \"mds\", \"hashes\": [], "
      "\"raw_data\": {\"basename\": \"shard.%05u.mds\", \"bytes\": %zu, \"hashes\": {}}, \"samples\": %u, "
      "\"size_limit\": 67108864, \"version\": 2, \"zip_data\": %s}",
      zip_bytes > 0 ? "\"zstd:3\"" : "null", shard, raw_bytes, samples, zip);
}

#endif
