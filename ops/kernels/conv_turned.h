/* The gradient of a 3x3 convolution's input as a convolution itself: of the output's gradient with the weights turned by
 * half a circle and their channels exchanged. So it can go through Winograd, where columns would multiply 2.25 times as
 * often. For convolutions without a pool. */
#ifndef TRAINRUN_OPS_CONV_TURNED_H
#define TRAINRUN_OPS_CONV_TURNED_H

#include "conv_shape.h"

/* False where the shape is none for it. */
bool conv_turned_shape(const conv_kernels *kernels, const conv_shape *s, conv_shape *turned);
size_t conv_turned_packed_bytes(const conv_kernels *kernels, const conv_shape *turned);
size_t conv_turned_scratch_bytes(const conv_kernels *kernels, const conv_shape *turned);
void conv_turned_pack(const conv_kernels *kernels, const conv_shape *turned, const float *w, void *packed);
/* dx (+)= for images [r0, r1). y: the output, where `relu` stands behind it. */
void conv_turned_backward(const conv_kernels *kernels, const conv_shape *turned, bool relu, int32_t r0, int32_t r1,
                          const void *packed, const float *y, const float *dy, float *dx, bool add, void *scratch);

#endif
