/* A CSV table from outside. */
#include "dataset_fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  const fuzz_file file = {"memory://f/x.csv", data, size};
  static const tr_field_source fields[] = {{"x", "a,b"}, {"y", "c:i32"}};
  fuzz_dataset(&file, 1, file.url, "csv", fields, 2);
  fuzz_dataset(&file, 1, file.url, "csv", NULL, 0);
  return 0;
}

size_t fuzz_seed(unsigned number, uint8_t *out) {
  static const char *const tables[] = {"a,b,c\n1,2,3\n4.5,-6e3,7\n8,9,10\n",
                                       "a,\"b\",c\r\n\"1\",\"2\",3\r\n\"4\n\",5,6\r\n",
                                       "\xef\xbb\xbf\x61,b,c,d\n1,2,3,\"x \"\"y\"\" z\"\n,,,\n"};
  if (number >= sizeof tables / sizeof *tables) return 0;
  memcpy(out, tables[number], strlen(tables[number]));
  return strlen(tables[number]);
}
