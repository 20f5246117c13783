/* A manifest from outside. Its CRC is put right, so that what stands behind it is looked at too; then the checkpoint is
 * opened, listed and verified. */
#include <trainrun/checkpoint.h>

#include "fuzz.h"

static const char prefix[] = "{\"crc32c\":\"";
enum { CRC_AT = sizeof prefix - 1, COVERED_FROM = 21 };

static uint8_t shard[FUZZ_BYTES_MAX];
static size_t shard_bytes;

/* A real checkpoint of two tensors, made once; its shard is kept beside whatever manifest is tried. */
static size_t make(uint8_t *manifest) {
  const tr_store_memory_options options = {.struct_bytes = sizeof options};
  tr_store *store = NULL;
  tr_ckpt_save *save = NULL;
  float weight[12] = {1, 2, 3}, bias[4] = {4};
  tr_piece pieces[] = {
      {.name = "w", .dtype = TR_F32, .ndim = 2, .shape = {3, 4}, .count = 12, .data = weight},
      {.name = "b", .dtype = TR_F32, .ndim = 1, .shape = {4}, .count = 4, .data = bias},
  };
  fuzz_promise(tr_store_memory_open(&options, &store, NULL) == TR_OK, "the memory store opens");
  const tr_ckpt_save_options of = {.struct_bytes = sizeof of, .store = store, .prefix = "r", .step = 1, .size = 1};
  fuzz_promise(tr_ckpt_save_begin(&of, pieces, 2, &save, NULL) == TR_OK, "a save begins");
  fuzz_promise(tr_ckpt_save_wait(save, NULL) == TR_OK, "a save ends");
  const char *record = tr_ckpt_save_record(save, NULL);
  const tr_ckpt_meta meta = {.struct_bytes = sizeof meta,
                             .step = 1,
                             .world_size = 1,
                             .run_id = "r",
                             .fingerprint = "{}",
                             .state = "{}",
                             .parent = -1,
                             .metric = 0.5};
  fuzz_promise(tr_ckpt_commit(&of, &meta, &record, 1, NULL) == TR_OK, "a commit");
  tr_ckpt_save_destroy(save);
  void *data = NULL;
  size_t bytes = 0;
  fuzz_promise(tr_store_get_all(store, NULL, "r/step-1/manifest.json", FUZZ_BYTES_MAX, &data, &bytes, NULL) == TR_OK,
               "a manifest");
  memcpy(manifest, data, bytes);
  tr_free(NULL, data);
  fuzz_promise(tr_store_get(store, "r/step-1/shard-00000-of-00001.safetensors", 0, shard, sizeof shard, &shard_bytes,
                            NULL) == TR_OK,
               "a shard");
  tr_store_destroy(store);
  return bytes;
}

static void put_crc(uint8_t *manifest, size_t size) {
  char crc[9];
  if (size < COVERED_FROM || memcmp(manifest, prefix, CRC_AT) != 0) return;
  snprintf(crc, sizeof crc, "%08x", tr_crc32c(0, manifest + COVERED_FROM, size - COVERED_FROM));
  memcpy(manifest + CRC_AT, crc, 8);
}

static void look(const tr_allocator *allocator, tr_store *store) {
  tr_ckpt *ckpt = NULL;
  tr_ckpt_entry *entries = NULL;
  size_t count = 0;
  tr_error error = {.status = TR_OK};
  if (tr_ckpt_list(allocator, store, "r", &entries, &count, &error) == TR_OK) tr_free(allocator, entries);
  if (tr_ckpt_open(allocator, store, "r/step-1", &ckpt, &error) == TR_OK) {
    if (tr_ckpt_verify(ckpt, &error) != TR_OK) fuzz_promise(error.message[0] != '\0', "an error says why");
    tr_ckpt_close(ckpt);
  }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  static uint8_t manifest[FUZZ_BYTES_MAX];
  static bool made;
  if (!made) made = make(manifest) > 0;
  if (size > sizeof manifest) return 0;
  memcpy(manifest, data, size);
  put_crc(manifest, size);
  tr_counting_allocator counting;
  tr_counting_allocator_init(&counting);
  const tr_store_memory_options options = {.struct_bytes = sizeof options};
  tr_store *store = NULL;
  fuzz_promise(tr_store_memory_open(&options, &store, NULL) == TR_OK, "the memory store opens");
  fuzz_promise(tr_store_put(store, "r/step-1/manifest.json", manifest, size, false, NULL) == TR_OK, "a put");
  fuzz_promise(
      tr_store_put(store, "r/step-1/shard-00000-of-00001.safetensors", shard, shard_bytes, false, NULL) == TR_OK,
      "a put");
  look(&counting.allocator, store);
  tr_store_destroy(store);
  fuzz_memory(&counting);
  return 0;
}

size_t fuzz_seed(unsigned number, uint8_t *out) { return number > 0 ? 0 : make(out); }
