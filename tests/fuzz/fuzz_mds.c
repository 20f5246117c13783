/* An MDS data set from outside: u16 bytes of index.json, that, and the rest is its only shard. */
#include "dataloader/mds_maker.h"

#include <zstd.h>

#include "dataset_fuzz.h"

enum { SAMPLES = 6, HEAD_BYTES = 2 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  if (size < HEAD_BYTES) return 0;
  size_t list = (size_t)data[0] | (size_t)data[1] << 8;
  if (list > size - HEAD_BYTES) list = size - HEAD_BYTES;
  const uint8_t *shard = data + HEAD_BYTES + list;
  const size_t shard_bytes = size - HEAD_BYTES - list;
  const fuzz_file files[] = {{"memory://f/m/index.json", data + HEAD_BYTES, list},
                             {"memory://f/m/shard.00000.mds", shard, shard_bytes},
                             {"memory://f/m/shard.00000.mds.zstd", shard, shard_bytes}};
  static const tr_field_source fields[] = {{"id", "id"}, {"x", "x"}};
  fuzz_dataset(files, 3, "memory://f/m", "mds", fields, 2);
  fuzz_dataset(files, 3, "memory://f/m", "mds", NULL, 0);
  return 0;
}

size_t fuzz_seed(unsigned number, uint8_t *out) {
  uint8_t raw[4096], zip[4096];
  char list[2048];
  if (number > 1) return 0;
  const size_t bytes = mds_shard(raw, 0, SAMPLES);
  const size_t zip_bytes = number == 1 ? ZSTD_compress(zip, sizeof zip, raw, bytes, 3) : 0;
  size_t used = (size_t)snprintf(list, sizeof list, "{\"shards\": [");
  used += mds_entry(list + used, sizeof list - used, 0, SAMPLES, bytes, zip_bytes);
  used += (size_t)snprintf(list + used, sizeof list - used, "], \"version\": 2}");
  out[0] = (uint8_t)used;
  out[1] = (uint8_t)(used >> 8);
  memcpy(out + HEAD_BYTES, list, used);
  memcpy(out + HEAD_BYTES + used, number == 1 ? zip : raw, number == 1 ? zip_bytes : bytes);
  return HEAD_BYTES + used + (number == 1 ? zip_bytes : bytes);
}
