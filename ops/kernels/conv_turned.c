/* The input's gradient through the Winograd kernels. Packed: [weights for Winograd][the turned weights they come from].
 * Scratch: [of Winograd][one image of the output's gradient behind ReLU][one image of dx, to be added]. */
#include "conv_turned.h"

static size_t round_up(size_t n) { return (n + 15) / 16 * 16; }
static size_t image_in(const conv_shape *turned) { return (size_t)turned->h * turned->w * turned->ic; }
static size_t image_out(const conv_shape *turned) { return (size_t)turned->out_h * turned->out_w * turned->oc; }
static size_t winograd_floats(const conv_kernels *kernels, const conv_shape *turned) {
  return round_up(kernels->winograd_packed_bytes(turned) / sizeof(float));
}
static size_t scratch_floats(const conv_kernels *kernels, const conv_shape *turned) {
  return round_up(kernels->winograd_scratch_bytes(turned) / sizeof(float));
}

bool conv_turned_shape(const conv_kernels *kernels, const conv_shape *s, conv_shape *turned) {
  if (!kernels || s->pool || s->kh != 3 || s->kw != 3 || s->stride_h != 1 || s->stride_w != 1) return false;
  if (s->ic % kernels->lanes != 0 || s->oc % kernels->lanes != 0) return false;
  *turned = (conv_shape){.rows = s->rows,
                         .h = s->conv_h,
                         .w = s->conv_w,
                         .ic = s->oc,
                         .oc = s->ic,
                         .kh = 3,
                         .kw = 3,
                         .stride_h = 1,
                         .stride_w = 1,
                         .pad_h = 2 - s->pad_h,
                         .pad_w = 2 - s->pad_w,
                         .conv_h = s->h,
                         .conv_w = s->w,
                         .out_h = s->h,
                         .out_w = s->w};
  return true;
}

size_t conv_turned_packed_bytes(const conv_kernels *kernels, const conv_shape *turned) {
  return (winograd_floats(kernels, turned) + (size_t)turned->oc * 9 * turned->ic) * sizeof(float);
}

size_t conv_turned_scratch_bytes(const conv_kernels *kernels, const conv_shape *turned) {
  return (scratch_floats(kernels, turned) + round_up(image_in(turned)) + round_up(image_out(turned))) * sizeof(float);
}

/* w: [ic of turned][3][3][oc of turned]. */
void conv_turned_pack(const conv_kernels *kernels, const conv_shape *turned, const float *w, void *packed) {
  const size_t ic = (size_t)turned->ic, oc = (size_t)turned->oc;
  float *to = (float *)packed + winograd_floats(kernels, turned);
  for (size_t o = 0; o < oc; o++)
    for (size_t tap = 0; tap < 9; tap++)
      for (size_t i = 0; i < ic; i++) to[(o * 9 + tap) * ic + i] = w[(i * 9 + (8 - tap)) * oc + o];
  kernels->winograd_pack(turned, to, packed);
}

void conv_turned_backward(const conv_kernels *kernels, const conv_shape *turned, bool relu, int32_t r0, int32_t r1,
                          const void *packed, const float *y, const float *dy, float *dx, bool add, void *scratch) {
  float *masked = (float *)scratch + scratch_floats(kernels, turned), *apart = masked + round_up(image_in(turned));
  for (int32_t r = r0; r < r1; r++) {
    const float *from = dy + (size_t)r * image_in(turned);
    const float *out = relu ? y + (size_t)r * image_in(turned) : NULL;
    float *to = dx + (size_t)r * image_out(turned);
    if (relu) {
      for (size_t i = 0; i < image_in(turned); i++) masked[i] = out[i] > 0 ? from[i] : 0;
      from = masked;
    }
    kernels->winograd_forward(turned, 0, 1, from, packed, NULL, add ? apart : to, NULL, scratch);
    if (!add) continue;
    for (size_t i = 0; i < image_out(turned); i++) to[i] += apart[i];
  }
}
