/* A WebDataset shard from outside. */
#include "dataset_fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  const fuzz_file file = {"memory://f/x.tar", data, size};
  static const tr_field_source fields[] = {{"x", "bin"}, {"label", "cls"}};
  fuzz_dataset(&file, 1, file.url, "webdataset", fields, 2);
  fuzz_dataset(&file, 1, file.url, "webdataset", NULL, 0);
  return 0;
}

static size_t add_member(uint8_t *out, size_t at, char kind, const char *name, const void *body, size_t bytes) {
  uint8_t *head = out + at;
  memset(head, 0, 512);
  snprintf((char *)head, 100, "%s", name);
  memcpy(head + 100,
         "0000644\0"
         "0000000\0"
         "0000000\0",
         24);
  snprintf((char *)head + 124, 12, "%011o", (unsigned)bytes);
  memcpy(head + 136, "00000000000", 12);
  memset(head + 148, ' ', 8);
  head[156] = (uint8_t)kind;
  memcpy(head + 257,
         "ustar\0"
         "00",
         8);
  unsigned sum = 0;
  for (int i = 0; i < 512; i++) sum += head[i];
  snprintf((char *)head + 148, 8, "%06o", sum);
  memset(out + at + 512, 0, (bytes + 511) / 512 * 512);
  memcpy(out + at + 512, body, bytes);
  return at + 512 + (bytes + 511) / 512 * 512;
}

size_t fuzz_seed(unsigned number, uint8_t *out) {
  size_t at = 0;
  if (number > 1) return 0;
  for (int i = 0; i < 5; i++) {
    char name[32], label[8];
    snprintf(name, sizeof name, "a/%03d.bin", i);
    if (number == 1 && i == 2) at = add_member(out, at, 'L', "././@LongLink", "a/002.bin", 10);
    if (number == 1 && i == 3) at = add_member(out, at, 'x', "pax", "18 path=a/003.bin\n", 18);
    at = add_member(out, at, '0', name, "0123456789abcdef", 16);
    snprintf(name, sizeof name, "a/%03d.cls", i);
    snprintf(label, sizeof label, "%d", i);
    at = add_member(out, at, '0', name, label, strlen(label));
  }
  memset(out + at, 0, 1024);
  return at + 1024;
}
