/* The list of transforms as transform.c makes it and transform_image.c follows it. */
#ifndef TRAINRUN_DATALOADER_TRANSFORM_LIST_H
#define TRAINRUN_DATALOADER_TRANSFORM_LIST_H

#include "resize.h"
#include "transform.h"
#include "transform_crop.h"

struct dl_transforms {
  const tr_allocator *allocator;
  uint64_t seed;
  dl_op ops[DL_OPS_MAX]; /* those that move pixels */
  size_t op_count;
  uint32_t channels; /* that images are made to have; 0: as they are */
  bool decides_size, to_float;
  float table[DL_CHANNELS_MAX][256];
  size_t field_count;
  tr_field from[TR_FIELDS_MAX], to[TR_FIELDS_MAX];
  bool touches[TR_FIELDS_MAX];
};

typedef struct dl_size {
  uint64_t height, width;
} dl_size;

bool dl_is_image(const tr_field *field);
uint32_t dl_image_channels(const tr_field *field);
dl_size dl_size_after(const dl_op *op, dl_size size);
/* Whether the list begins by resizing: then what of an image of that size becomes which size. */
bool dl_first_cut(const dl_transforms *t, uint64_t epoch, uint64_t id, dl_size size, dl_crop *crop, dl_size *result);
/* The pixels of the shrunk image under a cut. */
dl_part dl_part_under(const dl_crop *crop, uint32_t shrink);

#endif
