/* Making images larger or smaller: bilinear, and over all pixels under a pixel of the result where it shrinks
 * (antialiasing), as Pillow's BILINEAR does it, within 1: weights in double, sums in integers, across before down. So the
 * result is the same on every machine. */
#ifndef TRAINRUN_DATALOADER_RESIZE_H
#define TRAINRUN_DATALOADER_RESIZE_H

#include "dataset.h"

enum { DL_CHANNELS_MAX = 4 };

/* u8 [height, width, channels], rows `stride` bytes apart. */
typedef struct dl_view {
  const uint8_t *at;
  size_t stride;
  uint32_t height, width, channels;
} dl_view;

/* A part of a view, in pixels and parts of pixels. */
typedef struct dl_box {
  double top, left, bottom, right;
} dl_box;

/* `to` is u8 [height, width, from->channels]. Uses DL_ROOM_ACROSS and DL_ROOM_AXES. */
tr_status dl_resize(const dl_view *from, const dl_box *box, uint32_t height, uint32_t width, uint8_t *to,
                    dl_scratch *scratch, tr_error *error);

#endif
