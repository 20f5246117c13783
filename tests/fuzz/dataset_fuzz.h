/* A data set of one file in memory that is opened and read whole: what the targets of the formats share. */
#ifndef TRAINRUN_TESTS_DATASET_FUZZ_H
#define TRAINRUN_TESTS_DATASET_FUZZ_H

#include <trainrun/dataloader.h>

#include "fuzz.h"

/* A file of the data set. */
typedef struct fuzz_file {
  const char *url; /* memory://f/... */
  const void *data;
  size_t bytes;
} fuzz_file;

enum { FUZZ_SAMPLES_READ = 64 };

static inline void fuzz_put(tr_stores *stores, const fuzz_file *file) {
  tr_store *store = NULL;
  char key[TR_KEY_BYTES];
  fuzz_promise(tr_stores_resolve(stores, file->url, &store, key, NULL) == TR_OK, "the memory store opens");
  fuzz_promise(tr_store_put(store, key, file->data, file->bytes, false, NULL) == TR_OK, "the memory store keeps");
}

/* Every sample that there is (the first ones), each field. */
static inline void fuzz_read_all(tr_dataset *dataset, const tr_allocator *allocator) {
  const tr_field *fields = NULL;
  const size_t count = tr_dataset_fields(dataset, &fields);
  void *to[TR_FIELDS_MAX];
  for (size_t i = 0; i < count; i++) {
    to[i] = tr_alloc(allocator, fields[i].bytes);
    fuzz_promise(to[i] != NULL, "a field that was accepted can be held");
  }
  const uint64_t size = tr_dataset_size(dataset);
  for (uint64_t id = 0; id < size && id < FUZZ_SAMPLES_READ; id++) {
    tr_error error = {.status = TR_OK};
    char name[64];
    tr_dataset_sample_name(dataset, id, name, sizeof name);
    if (tr_dataset_read(dataset, id, to, &error) != TR_OK) fuzz_promise(error.message[0] != '\0', "an error says why");
  }
  for (size_t i = 0; i < count; i++) tr_free(allocator, to[i]);
}

/* What is in the stores already. */
static inline void fuzz_open(tr_stores *stores, const char *url, const char *format, const tr_field_source *fields,
                             size_t field_count) {
  tr_counting_allocator counting;
  tr_counting_allocator_init(&counting);
  const tr_dataset_options of = {.struct_bytes = sizeof of,
                                 .allocator = &counting.allocator,
                                 .stores = stores,
                                 .urls = &url,
                                 .url_count = 1,
                                 .format = format,
                                 .fields = fields,
                                 .field_count = field_count,
                                 .sequence_length = 16};
  tr_dataset *dataset = NULL;
  tr_error error = {.status = TR_OK};
  if (tr_dataset_open(&of, &dataset, &error) == TR_OK) {
    fuzz_read_all(dataset, &counting.allocator);
    tr_dataset_close(dataset);
  } else {
    fuzz_promise(error.message[0] != '\0', "an error says why");
  }
  fuzz_memory(&counting);
}

static inline void fuzz_dataset(const fuzz_file *files, size_t file_count, const char *url, const char *format,
                                const tr_field_source *fields, size_t field_count) {
  const tr_stores_options options = {.struct_bytes = sizeof options};
  tr_stores *stores = NULL;
  fuzz_promise(tr_stores_create(&options, &stores, NULL) == TR_OK, "stores open");
  for (size_t i = 0; i < file_count; i++) fuzz_put(stores, &files[i]);
  fuzz_open(stores, url, format, fields, field_count);
  tr_stores_destroy(stores);
}

#endif
