/* A folder of images: the folder that an image is in, directly below the source, is its label. */
#include "pack.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "tar_out.h"

enum { IMAGE_BYTES_MAX = 1 << 30 };

typedef struct image {
  const char *key;
  size_t label; /* SIZE_MAX: none */
} image;

typedef struct folder {
  tr_store *store;
  tr_arena *arena;
  image *images;
  size_t count, capacity;
  tr_pack_classes classes;
} folder;

static void close_folder(void *self) {
  folder *f = self;
  tr_free(NULL, f->classes.names);
  tr_free(NULL, f->images);
  tr_arena_destroy(f->arena);
  tr_free(NULL, f);
}

/* Copied as it is: what is in it shows when it is decoded. */
static tr_status make(void *self, uint64_t index, const char *key, tr_writer *tar, tr_error *error) {
  const folder *f = self;
  const image *one = &f->images[index];
  void *data = NULL;
  size_t bytes = 0;
  TR_TRY(tr_store_get_all(f->store, NULL, one->key, IMAGE_BYTES_MAX, &data, &bytes, error));
  tar_add(tar, key, pack_image_suffix(one->key), data, bytes);
  tr_free(NULL, data);
  if (one->label != SIZE_MAX) {
    char text[32];
    const int length = snprintf(text, sizeof text, "%zu", one->label);
    tar_add(tar, key, "cls", text, (size_t)length);
  }
  return TR_OK;
}

static tr_status add(folder *f, const tr_location *at, const tr_list_entry *entry, tr_pack_source *source,
                     tr_error *error) {
  const char *name = entry->key + strlen(at->prefix), *slash = strchr(name, '/');
  char line[64];
  /* What is hidden (".thumbnails/") was not meant. */
  if (pack_image_suffix(name) == NULL || name[0] == '.' || strstr(name, "/.") != NULL) {
    source->passed_over++;
    return TR_OK;
  }
  TR_TRY(tr_reserve(NULL, (void **)&f->images, &f->capacity, f->count + 1, sizeof *f->images, error));
  const char *key = tr_arena_strdup(f->arena, entry->key);
  if (key == NULL) return tr_fail_memory(error, "the list of images", strlen(entry->key));
  f->images[f->count++] = (image){.key = key, .label = SIZE_MAX};
  if (slash != NULL) TR_TRY(pack_classes_add(&f->classes, name, (size_t)(slash - name), error));
  const int length = snprintf(line, sizeof line, " %" PRIu64 " %" PRId64 "\n", entry->info.bytes,
                              entry->info.modified_ns / 1000000000);
  source->fingerprint = tr_crc32c(tr_crc32c(source->fingerprint, name, strlen(name)), line, (size_t)length);
  return TR_OK;
}

static tr_status label_all(folder *f, const tr_location *at, tr_error *error) {
  pack_classes_sort(&f->classes);
  for (size_t i = 0; f->classes.count > 0 && i < f->count; i++) {
    const char *name = f->images[i].key + strlen(at->prefix), *slash = strchr(name, '/');
    char label[TR_KEY_BYTES];
    if (slash == NULL) {
      return tr_fail(error, TR_ERR_INVALID,
                     "%s: '%s' is in no folder, others are: the folder of an image is its label, so put it into one",
                     at->url, name);
    }
    snprintf(label, sizeof label, "%.*s", (int)(slash - name), name);
    f->images[i].label = pack_classes_find(&f->classes, label);
  }
  return TR_OK;
}

static tr_status list(folder *f, const tr_location *at, tr_pack_source *source, tr_error *error) {
  tr_listing listing;
  const tr_list_entry *entry = NULL;
  tr_status status;
  listing_begin(&listing, at->store, at->prefix);
  while ((status = listing_next(&listing, &entry, error)) == TR_OK && entry != NULL) {
    status = add(f, at, entry, source, error);
    if (status != TR_OK) break;
  }
  listing_end(&listing);
  if (status == TR_OK && f->count == 0) {
    status = tr_fail(error, TR_ERR_NOT_FOUND,
                     "%s: there is no image (.png, .jpg, .jpeg) in this folder; of IDX files name the prefix, as "
                     "FOLDER/train",
                     at->url);
  }
  return status == TR_OK ? label_all(f, at, error) : status;
}

tr_status pack_open_folder(const tr_location *at, tr_pack_source *source, tr_error *error) {
  folder *f = tr_calloc(NULL, 1, sizeof *f);
  if (f == NULL) return tr_fail_memory(error, "a folder", sizeof *f);
  tr_pack_source made = {.self = f, .make = make, .close = close_folder};
  f->store = at->store;
  tr_status status = tr_arena_create(NULL, 64 << 10, &f->arena, error);
  f->classes.arena = f->arena;
  if (status == TR_OK) status = list(f, at, &made, error);
  if (status != TR_OK) {
    close_folder(f);
    return status;
  }
  made.count = f->count;
  made.classes = f->classes.names;
  made.class_count = f->classes.count;
  *source = made;
  return TR_OK;
}
