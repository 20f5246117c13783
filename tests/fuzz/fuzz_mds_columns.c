/* Values of MDS columns from outside: a byte that chooses the encoding, then the value, as the only sample of a set. */
#include "dataset_fuzz.h"

static const char *const encodings[] = {"ndarray",   "ndarray:uint8", "ndarray:int16:2,3", "pil",       "png",
                                        "jpeg",      "json",          "str_int",           "str_float", "bytes",
                                        "list[png]", "float16"};
enum { ENCODINGS = sizeof encodings / sizeof *encodings, HEAD_BYTES = 16 };

static void put_word(uint8_t *out, size_t word) {
  for (int i = 0; i < 4; i++) out[i] = (uint8_t)(word >> (8 * i));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  static uint8_t shard[HEAD_BYTES + FUZZ_BYTES_MAX];
  if (size < 1 || size > FUZZ_BYTES_MAX) return 0;
  const char *encoding = encodings[data[0] % ENCODINGS];
  const size_t fixed = strcmp(encoding, "ndarray:int16:2,3") == 0 ? 12 : strcmp(encoding, "float16") == 0 ? 2 : 0;
  const size_t at = fixed > 0 ? 12 : HEAD_BYTES, bytes = fixed > 0 && size - 1 > fixed ? fixed : size - 1;
  put_word(shard, 1);
  put_word(shard + 4, 12);
  put_word(shard + 8, at + bytes);
  put_word(shard + 12, bytes);
  memcpy(shard + at, data + 1, bytes);
  char list[512], size_text[24] = "null";
  if (fixed > 0) snprintf(size_text, sizeof size_text, "%zu", fixed);
  const size_t used = (size_t)snprintf(
      list, sizeof list,
      "{\"version\": 2, \"shards\": [{\"column_encodings\": [\"%s\"], \"column_names\": [\"v\"], \"column_sizes\": "
      "[%s], "
      "\"compression\": null, \"format\": \"mds\", \"raw_data\": {\"basename\": \"s.mds\", \"bytes\": %zu}, "
      "\"samples\": 1, \"version\": 2, \"zip_data\": null}]}",
      encoding, size_text, at + bytes);
  const fuzz_file files[] = {{"memory://f/m/index.json", list, used}, {"memory://f/m/s.mds", shard, at + bytes}};
  static const tr_field_source path = {"x", "v.a"};
  fuzz_dataset(files, 2, "memory://f/m", "mds", &path, strcmp(encoding, "json") == 0);
  return 0;
}

size_t fuzz_seed(unsigned number, uint8_t *out) {
  static const uint8_t array[] = {34, 2 << 2, 1, 2, 0, 0, 0, 0, 1, 1, 1, 1}, bytes[] = {1 << 2 | 1, 3, 0, 9, 8, 7};
  static const uint8_t pil[] = {2, 0, 0, 0, 1, 0, 0, 0, 3, 0, 0, 0, 'R', 'G', 'B', 1, 2, 3, 4, 5, 6};
  static const uint8_t png[] = {0x89, 'P',  'N',  'G',  0x0d, 0x0a, 0x1a, 0x0a, 0,    0,    0,    0x0d, 'I',  'H',
                                'D',  'R',  0,    0,    0,    1,    0,    0,    0,    1,    8,    0,    0,    0,
                                0,    0x3a, 0x7e, 0x9b, 0x55, 0,    0,    0,    0x0a, 'I',  'D',  'A',  'T',  0x78,
                                0x9c, 0x63, 0x60, 0,    0,    0,    2,    0,    1,    0x48, 0xaf, 0xa4, 0x71, 0,
                                0,    0,    0,    'I',  'E',  'N',  'D',  0xae, 0x42, 0x60, 0x82};
  static const struct {
    const void *value;
    size_t size;
  } values[ENCODINGS] = {{array, sizeof array}, {bytes, sizeof bytes}, {"123456789abc", 12},    {pil, sizeof pil},
                         {png, sizeof png},     {"\xff\xd8\xff", 3},   {"{\"a\": [1, 2]}", 13}, {"-12", 3},
                         {"1.5e3", 5},          {"abcd", 4},           {"\0\0\0\0\0\0\0\0", 8}, {"\0\x3c", 2}};
  if (number >= ENCODINGS) return 0;
  out[0] = (uint8_t)number;
  memcpy(out + 1, values[number].value, values[number].size);
  return 1 + values[number].size;
}
