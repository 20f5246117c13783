/* What is done to a decoded sample before it is a row of a batch: data.transforms.
 *
 * A list of specs ("random-resized-crop 224", "flip", "normalize imagenet") is parsed once against the data set's fields
 * and gives the fields as they come out. Random ones draw from rng(seed, purpose, epoch, sample id), never from thread,
 * rank or row. Pure functions of their arguments; any thread, each with scratch of its own. Images are u8 [h, w, c] until
 * normalize makes them f32; a resizing transform that comes first lets images of any size in. */
#ifndef TRAINRUN_DATALOADER_TRANSFORM_H
#define TRAINRUN_DATALOADER_TRANSFORM_H

#include "dataset.h"

/* `fields` are as decoded from the first sample. Errors are TR_ERR_CONFIG and name the spec and what it could be. */
tr_status dl_transforms_create(const tr_allocator *allocator, uint64_t seed, const char *const *specs, size_t count,
                               const tr_field *fields, size_t field_count, dl_transforms **out, tr_error *error);
void dl_transforms_destroy(dl_transforms *transforms);
/* [field_count of the data set] */
const tr_field *dl_transforms_fields(const dl_transforms *transforms);
/* Whether samples of field i may differ in height and width. */
bool dl_transforms_any_size(const dl_transforms *transforms, size_t field);
/* One value of field i: `from` is as decoded, of the shape in `found`; `to` is [bytes of dl_transforms_fields()[i]]. A
 * field that no transform touches is copied. */
tr_status dl_transforms_apply(const dl_transforms *transforms, size_t field, uint64_t epoch, uint64_t id,
                              const tr_field *found, const void *from, void *to, dl_scratch *scratch, tr_error *error);

#endif
