/* A shard from outside, under a manifest that is right: whatever was done to it, reading finds it or gives the right
 * values. */
#include <trainrun/checkpoint.h>

#include "fuzz.h"

static uint8_t manifest[FUZZ_BYTES_MAX];
static size_t manifest_bytes;

static const float weight[] = {1, -2, 3.5F, 4, 5, 6, 7, 8, 9, 10, 11, 12};

static size_t make(uint8_t *shard) {
  const tr_store_memory_options options = {.struct_bytes = sizeof options};
  tr_store *store = NULL;
  tr_ckpt_save *save = NULL;
  float values[12];
  size_t bytes = 0;
  memcpy(values, weight, sizeof values);
  const tr_piece piece = {.name = "w", .dtype = TR_F32, .ndim = 2, .shape = {3, 4}, .count = 12, .data = values};
  fuzz_promise(tr_store_memory_open(&options, &store, NULL) == TR_OK, "the memory store opens");
  const tr_ckpt_save_options of = {.struct_bytes = sizeof of, .store = store, .prefix = "r", .step = 1, .size = 1};
  fuzz_promise(tr_ckpt_save_begin(&of, &piece, 1, &save, NULL) == TR_OK, "a save begins");
  fuzz_promise(tr_ckpt_save_wait(save, NULL) == TR_OK, "a save ends");
  const char *record = tr_ckpt_save_record(save, NULL);
  const tr_ckpt_meta meta = {.struct_bytes = sizeof meta, .step = 1, .world_size = 1, .parent = -1};
  fuzz_promise(tr_ckpt_commit(&of, &meta, &record, 1, NULL) == TR_OK, "a commit");
  tr_ckpt_save_destroy(save);
  fuzz_promise(
      tr_store_get(store, "r/step-1/manifest.json", 0, manifest, sizeof manifest, &manifest_bytes, NULL) == TR_OK,
      "a manifest");
  fuzz_promise(
      tr_store_get(store, "r/step-1/shard-00000-of-00001.safetensors", 0, shard, FUZZ_BYTES_MAX, &bytes, NULL) == TR_OK,
      "a shard");
  tr_store_destroy(store);
  return bytes;
}

static void load(const tr_allocator *allocator, tr_store *store) {
  tr_ckpt *ckpt = NULL;
  tr_error error = {.status = TR_OK};
  float values[12];
  const tr_piece piece = {.name = "w", .dtype = TR_F32, .ndim = 2, .shape = {3, 4}, .count = 12, .data = values};
  fuzz_promise(tr_ckpt_open(allocator, store, "r/step-1", &ckpt, &error) == TR_OK, "the manifest is right");
  if (tr_ckpt_read(ckpt, &piece, 1, NULL, &error) == TR_OK) {
    fuzz_promise(memcmp(values, weight, sizeof values) == 0, "what is loaded is what was saved");
  }
  if (tr_ckpt_verify(ckpt, &error) != TR_OK) fuzz_promise(error.message[0] != '\0', "an error says why");
  tr_ckpt_close(ckpt);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  static uint8_t unused[FUZZ_BYTES_MAX];
  if (manifest_bytes == 0) make(unused);
  tr_counting_allocator counting;
  tr_counting_allocator_init(&counting);
  const tr_store_memory_options options = {.struct_bytes = sizeof options};
  tr_store *store = NULL;
  fuzz_promise(tr_store_memory_open(&options, &store, NULL) == TR_OK, "the memory store opens");
  fuzz_promise(tr_store_put(store, "r/step-1/manifest.json", manifest, manifest_bytes, false, NULL) == TR_OK, "a put");
  fuzz_promise(tr_store_put(store, "r/step-1/shard-00000-of-00001.safetensors", data, size, false, NULL) == TR_OK,
               "a put");
  load(&counting.allocator, store);
  tr_store_destroy(store);
  fuzz_memory(&counting);
  return 0;
}

size_t fuzz_seed(unsigned number, uint8_t *out) { return number > 0 ? 0 : make(out); }
