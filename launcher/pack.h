/* What `data pack` packs: samples that can be made in any order, by any thread, each as the tar members of its own.
 *
 * A source is opened once, knows how many samples it has and what their classes are called, and has a fingerprint: the
 * same one means that an interrupted pack may go on. */
#ifndef TRAINRUN_LAUNCHER_PACK_H
#define TRAINRUN_LAUNCHER_PACK_H

#include "data_open.h"

typedef struct tr_pack_source {
  uint64_t count;
  const char *const *classes; /* names of the labels 0, 1, ...; NULL: labels are numbers already, or there are none */
  size_t class_count;
  uint32_t fingerprint; /* CRC32C over what was found */
  uint64_t passed_over; /* files that are no images */
  void *self;
  /* Appends the members of sample `index`, named KEY.SUFFIX. Any thread. */
  tr_status (*make)(void *self, uint64_t index, const char *key, tr_writer *tar, tr_error *error);
  void (*close)(void *self);
} tr_pack_source;

tr_status pack_open_folder(const tr_location *folder, tr_pack_source *source, tr_error *error);
tr_status pack_open_table(tr_data *data, const char *url, tr_pack_source *source, tr_error *error);
tr_status pack_open_idx(tr_data *data, tr_pack_source *source, tr_error *error);

/* The suffix of an image's name in lower case, "jpg" for "x.JPG"; NULL: it is none that can be decoded. */
const char *pack_image_suffix(const char *name);

/* Names of labels, in the order of their bytes, each once. */
typedef struct tr_pack_classes {
  tr_arena *arena;
  const char **names;
  size_t count, capacity;
} tr_pack_classes;
/* Adds a name if it is not the one added last; call pack_classes_sort before asking. */
tr_status pack_classes_add(tr_pack_classes *classes, const char *name, size_t length, tr_error *error);
void pack_classes_sort(tr_pack_classes *classes);
/* SIZE_MAX: there is no such class. */
size_t pack_classes_find(const tr_pack_classes *classes, const char *name);

#endif
