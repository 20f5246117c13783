/* The draws of random transforms: see transform_crop.h. */
#include "transform_crop.h"

#include <math.h>
#include <trainrun/rng.h>

enum { TRIES = 10, EPOCH_BITS = 40 };

static const double ln2_high = 0x1.62e42feep-1, ln2_low = 0x1.a39ef35793c76p-33;

/* Additions, multiplications and divisions in one fixed order. */
double dl_exp(double x) {
  const double k = rint(x * 1.4426950408889634);
  const double r = (x - k * ln2_high) - k * ln2_low;
  double sum = 1;
  for (int i = 14; i > 0; i--) sum = 1 + sum * r / i;
  return ldexp(sum, (int)k);
}

double dl_log(double x) {
  int k;
  double m = frexp(x, &k);
  if (m < 0.70710678118654752) {
    m *= 2;
    k--;
  }
  const double z = (m - 1) / (m + 1), square = z * z;
  double sum = 0;
  for (int i = 25; i > 0; i -= 2) sum = sum * square + 1.0 / i;
  return k * ln2_high + (2 * z * sum + k * ln2_low);
}

static tr_rng4 draw(const dl_op *op, uint32_t purpose, uint64_t seed, uint64_t epoch, uint64_t id, uint64_t attempt) {
  return tr_rng(seed, purpose, epoch | (op->number * (uint64_t)16 + attempt) << EPOCH_BITS, id);
}

/* [0, 1) */
static double unit(uint32_t word) { return word * 0x1p-32; }

/* [0, bound) */
static uint32_t below(uint32_t word, uint32_t bound) { return (uint32_t)((uint64_t)word * bound >> 32); }

static dl_crop middle(const dl_op *op, uint32_t height, uint32_t width) {
  const double ratio = (double)width / height;
  dl_crop crop = {.height = height, .width = width};
  if (ratio < op->ratio[0]) {
    crop.height = (uint32_t)rint(width / op->ratio[0]);
  } else if (ratio > op->ratio[1]) {
    crop.width = (uint32_t)rint(height * op->ratio[1]);
  }
  if (crop.height < 1) crop.height = 1;
  if (crop.width < 1) crop.width = 1;
  if (crop.height > height) crop.height = height;
  if (crop.width > width) crop.width = width;
  crop.top = (height - crop.height) / 2;
  crop.left = (width - crop.width) / 2;
  return crop;
}

dl_crop dl_crop_resized(const dl_op *op, uint64_t seed, uint64_t epoch, uint64_t id, uint32_t height, uint32_t width) {
  const double area = (double)height * width;
  const double low = dl_log(op->ratio[0]), high = dl_log(op->ratio[1]);
  for (uint64_t attempt = 0; attempt < TRIES; attempt++) {
    const tr_rng4 random = draw(op, TR_RNG_RESIZED_CROP, seed, epoch, id, attempt);
    const double target = area * (op->scale[0] + unit(random.v[0]) * (op->scale[1] - op->scale[0]));
    const double ratio = dl_exp(low + unit(random.v[1]) * (high - low));
    const double w = rint(sqrt(target * ratio)), h = rint(sqrt(target / ratio));
    if (w < 1 || h < 1 || w > width || h > height) continue;
    dl_crop crop = {.height = (uint32_t)h, .width = (uint32_t)w};
    crop.top = below(random.v[2], height - crop.height + 1);
    crop.left = below(random.v[3], width - crop.width + 1);
    return crop;
  }
  return middle(op, height, width);
}

dl_crop dl_crop_random(const dl_op *op, uint64_t seed, uint64_t epoch, uint64_t id, uint32_t height, uint32_t width) {
  const tr_rng4 random = draw(op, TR_RNG_CROP, seed, epoch, id, 0);
  return (dl_crop){.height = op->height,
                   .width = op->width,
                   .top = below(random.v[0], height - op->height + 1),
                   .left = below(random.v[1], width - op->width + 1)};
}

bool dl_crop_flips(const dl_op *op, uint64_t seed, uint64_t epoch, uint64_t id) {
  return unit(draw(op, TR_RNG_FLIP, seed, epoch, id, 0).v[0]) < op->probability;
}
