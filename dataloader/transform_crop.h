/* Which part of an image a random crop takes: pure, the same on every machine. */
#ifndef TRAINRUN_DATALOADER_TRANSFORM_CROP_H
#define TRAINRUN_DATALOADER_TRANSFORM_CROP_H

#include <stdint.h>

#include "transform_spec.h"

typedef struct dl_crop {
  uint32_t top, left, height, width;
} dl_crop;

/* torchvision's rule: ten tries of an area and an aspect ratio, then the middle, as near to the ratios as it can be. */
dl_crop dl_crop_resized(const dl_op *op, uint64_t seed, uint64_t epoch, uint64_t id, uint32_t height, uint32_t width);
/* Where the crop begins in an image of that size, padding included. The crop is not larger than it. */
dl_crop dl_crop_random(const dl_op *op, uint64_t seed, uint64_t epoch, uint64_t id, uint32_t height, uint32_t width);
bool dl_crop_flips(const dl_op *op, uint64_t seed, uint64_t epoch, uint64_t id);

/* libm's differ in the last bit between machines. */
double dl_exp(double x); /* |x| <= 100 */
double dl_log(double x); /* positive and normal */

#endif
