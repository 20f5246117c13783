/* A WebDataset shard from outside. */
#include "dataset_fuzz.h"
#include "tar_fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  const fuzz_file file = {"memory://f/x.tar", data, size};
  static const tr_field_source fields[] = {{"x", "bin"}, {"label", "cls"}};
  fuzz_dataset(&file, 1, file.url, "webdataset", fields, 2);
  fuzz_dataset(&file, 1, file.url, "webdataset", NULL, 0);
  return 0;
}

size_t fuzz_seed(unsigned number, uint8_t *out) { return number > 1 ? 0 : fuzz_tar_make(number, out); }
