/* IDX files from outside: the input is the images' file, the labels' is right. */
#include "dataset_fuzz.h"

static const uint8_t labels[] = {0, 0, 8, 1, 0, 0, 0, 3, 7, 8, 9};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  const fuzz_file files[] = {{"memory://f/x-images-idx3-ubyte", data, size},
                             {"memory://f/x-labels-idx1-ubyte", labels, sizeof labels}};
  fuzz_dataset(files, 2, "memory://f/x", "idx", NULL, 0);
  return 0;
}

size_t fuzz_seed(unsigned number, uint8_t *out) {
  static const uint8_t head[] = {0, 0, 8, 3, 0, 0, 0, 3, 0, 0, 0, 4, 0, 0, 0, 5};
  if (number > 0) return 0;
  memcpy(out, head, sizeof head);
  for (int i = 0; i < 3 * 4 * 5; i++) out[sizeof head + (size_t)i] = (uint8_t)i;
  return sizeof head + 60;
}
