/* Decoding into a row where no transform touches the field, else into a room of the thread's and through the transforms:
 * see make.h. */
#include "make.h"

#include <string.h>

/* Takes an image of any size, as small as its transforms can use. */
typedef struct room_sink {
  dl_image_sink sink;
  const dl_sample *sample;
  size_t field;
  dl_scratch *scratch;
  dl_image image;
} room_sink;

static tr_status place_in_room(dl_image_sink *sink, const tr_field *found, bool parts, dl_part *part, uint8_t **to,
                               tr_error *error) {
  room_sink *self = (room_sink *)sink;
  const dl_sample *sample = self->sample;
  const uint32_t height = (uint32_t)found->shape[0], width = (uint32_t)found->shape[1];
  const uint32_t channels = (uint32_t)found->shape[2];
  *part = parts ? dl_transforms_part(sample->transforms, self->field, sample->epoch, sample->id, height, width)
                : dl_part_whole(height, width);
  TR_TRY(dl_scratch_room(self->scratch, DL_ROOM_DECODED, (size_t)part->height * part->width * channels, to, error));
  self->image = (dl_image){*to, height, width, channels, *part};
  return TR_OK;
}

static tr_status make_image(const dl_sample *sample, size_t i, dl_kind kind, dl_value value, void *to,
                            dl_scratch *scratch, tr_error *error) {
  room_sink sink = {.sink = {place_in_room}, .sample = sample, .field = i, .scratch = scratch};
  tr_field found;
  if (kind == DL_KIND_PNG) {
    TR_TRY(dl_png(value, scratch->allocator, &found, &sink.sink, error));
  } else {
    TR_TRY(dl_jpeg(value, &found, &sink.sink, error));
  }
  return dl_transforms_image(sample->transforms, i, sample->epoch, sample->id, &sink.image, to, scratch, error);
}

static bool touched(const dl_sample *sample, size_t field) {
  return sample->transforms != NULL && dl_transforms_touch(sample->transforms, field);
}

tr_status dl_make_decoded(const tr_dataset *dataset, const dl_sample *sample, size_t field, const tr_field *found,
                          const void *from, void *to, dl_scratch *scratch, tr_error *error) {
  if (touched(sample, field)) {
    return dl_transforms_apply(sample->transforms, field, sample->epoch, sample->id, found, from, to, scratch, error);
  }
  TR_TRY(dl_same_shape(&dataset->fields[field], found, error));
  memcpy(to, from, dataset->fields[field].bytes);
  return TR_OK;
}

tr_status dl_make_plain(const tr_dataset *dataset, const dl_sample *sample, size_t field, const void *from, void *to,
                        dl_scratch *scratch, tr_error *error) {
  return dl_make_decoded(dataset, sample, field, &dataset->fields[field], from, to, scratch, error);
}

tr_status dl_make(const tr_dataset *dataset, const dl_sample *sample, size_t field, dl_kind kind, const char *path,
                  dl_value value, void *to, dl_scratch *scratch, tr_error *error) {
  if (!touched(sample, field)) {
    return dl_decode(kind, path, &dataset->fields[field], value, scratch->allocator, to, error);
  }
  if (kind == DL_KIND_PNG || kind == DL_KIND_JPEG) return make_image(sample, field, kind, value, to, scratch, error);
  tr_field found = {0};
  const uint8_t *data;
  TR_TRY(dl_npy(value, &found, &data, error)); /* of the rest only arrays are images */
  return dl_make_decoded(dataset, sample, field, &found, data, to, scratch, error);
}
