/* A file of tokens from outside. */
#include "dataset_fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  const fuzz_file file = {"memory://f/x.bin", data, size};
  fuzz_dataset(&file, 1, file.url, "tokens", NULL, 0);
  return 0;
}

size_t fuzz_seed(unsigned number, uint8_t *out) {
  static const uint32_t magic[] = {20240520, 20240801}, version[] = {1, 7};
  enum { TOKENS = 100, HEADER_BYTES = 1024 };
  if (number > 1) return 0;
  const uint32_t head[] = {magic[number], version[number], TOKENS};
  memset(out, 0, HEADER_BYTES);
  memcpy(out, head, sizeof head);
  const size_t bytes = TOKENS * (size_t)(number == 0 ? 2 : 4);
  for (size_t i = 0; i < bytes; i++) out[HEADER_BYTES + i] = (uint8_t)(i % (number == 0 ? 2 : 4) == 0 ? i : 0);
  return HEADER_BYTES + bytes;
}
