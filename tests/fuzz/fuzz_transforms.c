/* A list of transforms from outside (it is a job's, but jobs are passed about): specs, a line each, over a small image. */
#include "dataset_fuzz.h"

enum { SPECS_MAX = 20, IMAGE_BYTES = 16 + 6 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  /* An IDX file of one image of 6 pixels. */
  static const uint8_t image[IMAGE_BYTES] = {0, 0, 8, 3, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 3, 1, 2, 3, 4, 5, 6};
  static char text[FUZZ_BYTES_MAX + 1];
  const char *specs[SPECS_MAX];
  size_t count = 0;
  if (size > FUZZ_BYTES_MAX) return 0;
  memcpy(text, data, size);
  text[size] = '\0';
  for (char *at = text; count < SPECS_MAX && *at != '\0';) {
    specs[count++] = at;
    at += strcspn(at, "\n");
    if (*at != '\0') *at++ = '\0';
  }
  /* Large ones are right, and take the memory that they ask for. */
  for (size_t i = 0; i < count; i++) {
    for (const char *c = specs[i]; *c != '\0'; c++) {
      if (strspn(c, "0123456789") > 3) return 0;
    }
  }
  tr_counting_allocator counting;
  tr_counting_allocator_init(&counting);
  const tr_stores_options stores_options = {.struct_bytes = sizeof stores_options};
  tr_stores *stores = NULL;
  fuzz_promise(tr_stores_create(&stores_options, &stores, NULL) == TR_OK, "stores open");
  const fuzz_file file = {"memory://f/x-image", image, sizeof image};
  fuzz_put(stores, &file);
  static const tr_field_source field = {"image", "-image"};
  static const char *const url = "memory://f/x";
  const tr_dataset_options options = {.struct_bytes = sizeof options,
                                      .allocator = &counting.allocator,
                                      .stores = stores,
                                      .urls = &url,
                                      .url_count = 1,
                                      .format = "idx",
                                      .fields = &field,
                                      .field_count = 1,
                                      .transforms = specs,
                                      .transform_count = count};
  tr_dataset *dataset = NULL;
  tr_error error = {.status = TR_OK};
  if (tr_dataset_open(&options, &dataset, &error) == TR_OK) {
    fuzz_read_all(dataset, &counting.allocator);
    tr_dataset_close(dataset);
  } else {
    fuzz_promise(error.message[0] != '\0', "an error says why");
  }
  tr_stores_destroy(stores);
  fuzz_memory(&counting);
  return 0;
}

size_t fuzz_seed(unsigned number, uint8_t *out) {
  static const char *const lists[] = {"random-resized-crop 5 scale 0.2 1 ratio 0.5 2\nflip 0.5\nnormalize 0.5 0.25",
                                      "decode rgb\nresize 7\ncenter-crop 4 9\nnormalize imagenet",
                                      "random-crop 3 4 pad 2\nflip\nflip 1\nto-float",
                                      "resize 1 9\nrandom-crop 1\ndecode"};
  if (number >= sizeof lists / sizeof *lists) return 0;
  memcpy(out, lists[number], strlen(lists[number]));
  return strlen(lists[number]);
}
