/* IDX files, as Fashion-MNIST comes: images as PNG, labels as they are. */
#include "pack.h"

#include <inttypes.h>
#include <png.h>
#include <stdio.h>
#include <string.h>

#include "tar_out.h"

typedef struct idx {
  tr_data *data;
  tr_field image, label;
} idx;

static tr_status add_png(const idx *self, const uint8_t *pixels, const char *key, tr_writer *tar, tr_error *error) {
  png_image image = {.version = PNG_IMAGE_VERSION,
                     .height = (png_uint_32)self->image.shape[0],
                     .width = (png_uint_32)self->image.shape[1],
                     .format = self->image.ndim == 3 ? PNG_FORMAT_RGB : PNG_FORMAT_GRAY};
  png_alloc_size_t bytes = PNG_IMAGE_PNG_SIZE_MAX(image);
  void *memory = tr_alloc(NULL, bytes);
  if (memory == NULL) return tr_fail_memory(error, "an image", bytes);
  const bool good = png_image_write_to_memory(&image, memory, &bytes, 0, pixels, 0, NULL) != 0;
  if (good) tar_add(tar, key, "png", memory, bytes);
  png_image_free(&image);
  tr_free(NULL, memory);
  return good ? TR_OK : tr_fail(error, TR_ERR_IO, "an image cannot be written as PNG: %s", image.message);
}

static int64_t label_of(const idx *self, const void *label) {
  switch (self->label.dtype) {
    case TR_U8: return *(const uint8_t *)label;
    case TR_I32: return *(const int32_t *)label;
    default: return 0;
  }
}

static tr_status make(void *self, uint64_t index, const char *key, tr_writer *tar, tr_error *error) {
  const idx *i = self;
  char text[32];
  uint64_t label = 0;
  uint8_t *pixels = tr_alloc(NULL, i->image.bytes);
  if (pixels == NULL) return tr_fail_memory(error, "an image", i->image.bytes);
  void *const to[] = {pixels, &label};
  tr_status status = tr_dataset_read(i->data->dataset, index, to, error);
  if (status == TR_OK) status = add_png(i, pixels, key, tar, error);
  const int length = snprintf(text, sizeof text, "%" PRId64, label_of(i, &label));
  if (status == TR_OK) tar_add(tar, key, "cls", text, (size_t)length);
  tr_free(NULL, pixels);
  return status;
}

static void close_idx(void *self) { tr_free(NULL, self); }

static tr_status check(const tr_data *data, idx *i, tr_error *error) {
  const tr_field *fields;
  const size_t count = tr_dataset_fields(data->dataset, &fields);
  const bool good = count == 2 && fields[0].dtype == TR_U8 &&
                    (fields[0].ndim == 2 || (fields[0].ndim == 3 && fields[0].shape[2] == 3)) && fields[1].ndim == 0 &&
                    (fields[1].dtype == TR_U8 || fields[1].dtype == TR_I32);
  if (!good) {
    return tr_fail(
        error, TR_ERR_UNSUPPORTED,
        "%s: images of bytes [height, width] or [height, width, 3] and whole numbers as labels can be packed",
        data->options.urls[0]);
  }
  i->image = fields[0];
  i->label = fields[1];
  return TR_OK;
}

tr_status pack_open_idx(tr_data *data, tr_pack_source *source, tr_error *error) {
  tr_dataset_options options = data->options;
  tr_writer lock;
  options.format = "idx";
  options.url_count = 1;
  options.field_count = 0;
  TR_TRY(tr_dataset_open(&options, &data->dataset, error));
  idx *i = tr_calloc(NULL, 1, sizeof *i);
  if (i == NULL) return tr_fail_memory(error, "an IDX source", sizeof *i);
  i->data = data;
  const tr_status status = check(data, i, error);
  if (status != TR_OK) {
    tr_free(NULL, i);
    return status;
  }
  tr_writer_init(&lock, NULL);
  tr_dataset_write_lock(data->dataset, &lock);
  *source = (tr_pack_source){.count = tr_dataset_size(data->dataset),
                             .fingerprint = tr_crc32c(0, lock.data, lock.bytes),
                             .self = i,
                             .make = make,
                             .close = close_idx};
  tr_writer_fini(&lock);
  return TR_OK;
}
