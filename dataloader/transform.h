/* What is done to a decoded sample before it is a row of a batch: data.transforms.
 *
 * A list of specs ("random-resized-crop 224", "flip", "normalize imagenet") is parsed once against the data set's fields
 * and gives the fields as they come out. Every field that is an image takes them: u8 [h, w], or [h, w, c] with one to four
 * channels; the images of a sample are cut and flipped alike. Random ones draw from rng(seed, purpose, epoch, sample id),
 * never from thread, rank or row. Pure functions of their arguments; any thread, each with scratch of its own. Images are
 * u8 [h, w, c] until normalize or to-float, which end the list, make them f32; where a transform decides the size, images
 * of any size may come in. */
#ifndef TRAINRUN_DATALOADER_TRANSFORM_H
#define TRAINRUN_DATALOADER_TRANSFORM_H

#include "dataset.h"

/* `fields` are as decoded from the first sample. Errors are TR_ERR_CONFIG and name the spec and what it could be. */
tr_status dl_transforms_create(const tr_allocator *allocator, uint64_t seed, const char *const *specs, size_t count,
                               const tr_field *fields, size_t field_count, dl_transforms **out, tr_error *error);
/* Only how they are written. */
tr_status dl_transforms_check(const char *const *specs, size_t count, tr_error *error);
void dl_transforms_destroy(dl_transforms *transforms);
/* [field_count of the data set] */
const tr_field *dl_transforms_fields(const dl_transforms *transforms);
/* Whether any transform changes field i. */
bool dl_transforms_touch(const dl_transforms *transforms, size_t field);
/* Whether samples of field i may differ in height and width. */
bool dl_transforms_any_size(const dl_transforms *transforms, size_t field);

/* A part of an image whose sides were divided by shrink (1, 2, 4 or 8; rounded up), in pixels of that. */
typedef struct dl_part {
  uint32_t shrink, top, left, height, width;
} dl_part;
dl_part dl_part_whole(uint32_t height, uint32_t width);
/* What a decoder need not leave out of an image of that size. Where the transforms begin by shrinking (a part of) it to
 * half, a quarter or an eighth at least, an image that much smaller is enough. A rule of sizes and of the sample alone. */
dl_part dl_transforms_part(const dl_transforms *transforms, size_t field, uint64_t epoch, uint64_t id, uint32_t height,
                           uint32_t width);

/* An image as decoded: u8 [part.height, part.width, channels] of one of height x width. */
typedef struct dl_image {
  const uint8_t *pixels;
  uint32_t height, width, channels;
  dl_part part;
} dl_image;
/* One image of field i; `to` is [bytes of dl_transforms_fields()[i]]. */
tr_status dl_transforms_image(const dl_transforms *transforms, size_t field, uint64_t epoch, uint64_t id,
                              const dl_image *image, void *to, dl_scratch *scratch, tr_error *error);
/* One value of field i: `from` is as decoded, of the shape in `found`. A field that no transform touches is copied. */
tr_status dl_transforms_apply(const dl_transforms *transforms, size_t field, uint64_t epoch, uint64_t id,
                              const tr_field *found, const void *from, void *to, dl_scratch *scratch, tr_error *error);

#endif
