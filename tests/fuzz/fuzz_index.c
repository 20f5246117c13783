/* A kept index from outside, of tar shards and of CSV tables. Its length and CRC are put right, so that what stands behind
 * them is looked at too; where it is refused the index is built from the data again. */
#include "dataset_fuzz.h"
#include "tar_fuzz.h"

enum { SETS = 2, CRC_AT = 12, BYTES_AT = 16, HEAD_BYTES = 24 };

static const char *const urls[SETS] = {"memory://t/x.tar", "memory://c/x.csv"};
static const char *const formats[SETS] = {"webdataset", "csv"};
static const char table[] = "a,b,c\n1,2,3\n4.5,-6e3,7\n\"8\",9,10\n";

static tr_stores *stores;
static tr_store *store_of[SETS];
static char keys[SETS][TR_KEY_BYTES]; /* where the indexes of the sets are kept */
static uint8_t right[SETS][FUZZ_BYTES_MAX];
static size_t right_bytes[SETS];

static tr_status note_key(void *self, const tr_list_entry *entry, tr_error *error) {
  (void)error;
  if (strstr(entry->key, ".tridx") != NULL) snprintf(self, TR_KEY_BYTES, "%s", entry->key);
  return TR_OK;
}

static void make(void) {
  static uint8_t tar[FUZZ_BYTES_MAX];
  if (stores != NULL) return;
  const tr_stores_options options = {.struct_bytes = sizeof options};
  fuzz_promise(tr_stores_create(&options, &stores, NULL) == TR_OK, "stores open");
  const fuzz_file files[SETS] = {{urls[0], tar, fuzz_tar_make(0, tar)}, {urls[1], table, sizeof table - 1}};
  for (int i = 0; i < SETS; i++) {
    char key[TR_KEY_BYTES];
    fuzz_put(stores, &files[i]);
    fuzz_open(stores, urls[i], formats[i], NULL, 0);
    fuzz_promise(tr_stores_resolve(stores, urls[i], &store_of[i], key, NULL) == TR_OK, "the memory store opens");
    fuzz_promise(tr_store_walk(store_of[i], "", note_key, keys[i], NULL) == TR_OK && keys[i][0] != '\0', "an index");
    fuzz_promise(tr_store_get(store_of[i], keys[i], 0, right[i], FUZZ_BYTES_MAX, &right_bytes[i], NULL) == TR_OK,
                 "an index that can be read");
  }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  static uint8_t index[FUZZ_BYTES_MAX];
  make();
  if (size > sizeof index) return 0;
  memcpy(index, data, size);
  if (size >= HEAD_BYTES) {
    for (int i = 0; i < 8; i++) index[BYTES_AT + i] = (uint8_t)((uint64_t)size >> 8 * i);
    const uint32_t crc = tr_crc32c(0, index + BYTES_AT, size - BYTES_AT);
    for (int i = 0; i < 4; i++) index[CRC_AT + i] = (uint8_t)(crc >> 8 * i);
  }
  for (int i = 0; i < SETS; i++) {
    fuzz_promise(tr_store_put(store_of[i], keys[i], index, size, false, NULL) == TR_OK, "a put");
    fuzz_open(stores, urls[i], formats[i], NULL, 0);
  }
  return 0;
}

size_t fuzz_seed(unsigned number, uint8_t *out) {
  make();
  if (number >= SETS) return 0;
  memcpy(out, right[number], right_bytes[number]);
  return right_bytes[number];
}
