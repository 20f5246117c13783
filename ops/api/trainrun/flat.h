/* Vectorised passes over flat fp32 arrays in host memory: what gradients, norms and updates are made of.
 *
 * Every function is a pure function of its inputs: the bits depend on neither alignment, thread count nor cut, as long as
 * cuts fall on TR_PARAM_BLOCK. The elementwise ones are the same on every ISA (no reassociation). */
#ifndef TRAINRUN_FLAT_H
#define TRAINRUN_FLAT_H

#include <trainrun/params.h>

TR_BEGIN_C

/* to[i] += from[i] */
TR_API void tr_flat_add(float *to, const float *from, uint64_t count);
/* partials[b] = sum of squares of block b (the last may be short), in double, in one fixed order. */
TR_API void tr_flat_square_sums(const float *values, uint64_t count, double *partials);
/* The balanced tree of collective.h over `count` doubles (destroys them); 0 for none. */
TR_API double tr_flat_tree_sum(double *values, uint64_t count);
/* True when every value is finite. */
TR_API bool tr_flat_finite(const float *values, uint64_t count);

/* AdamW as torch.optim.AdamW (decoupled weight decay; Loshchilov & Hutter 2019), fused:
 *   g = gradient[i] * gradient_scale
 *   value *= 1 - lr * weight_decay;  m = beta1 m + (1 - beta1) g;  v = beta2 v + (1 - beta2) g^2
 *   value -= lr / correction1 * m / (sqrt(v) / sqrt(correction2) + eps),  correction_k = 1 - beta_k^step */
typedef struct tr_adamw_args {
  float gradient_scale, lr, beta1, beta2, eps, weight_decay, correction1, correction2;
} tr_adamw_args;
TR_API void tr_flat_adamw(float *values, const float *gradient, float *m, float *v, uint64_t count,
                          const tr_adamw_args *args);

/* SGD as torch.optim.SGD: g = gradient * scale + weight_decay * value; momentum: buf = momentum * buf + g (buf = g at
 * the first step), nesterov: g + momentum * buf. momentum_buffer may be NULL when momentum is 0. */
typedef struct tr_sgd_args {
  float gradient_scale, lr, momentum, weight_decay;
  bool nesterov, first;
} tr_sgd_args;
TR_API void tr_flat_sgd(float *values, const float *gradient, float *momentum_buffer, uint64_t count,
                        const tr_sgd_args *args);

/* value = (1 - momentum) * value + momentum * gradient * scale: running statistics in the STATE region. */
TR_API void tr_flat_average(float *values, const float *gradient, float momentum, float scale, uint64_t count);

TR_END_C
#endif
