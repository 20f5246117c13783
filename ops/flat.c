/* Flat passes: elementwise loops that a compiler vectorises, each element computed in one fixed order of operations.
 *
 * Each loop is written once and compiled twice on x86-64, for any processor and for AVX2 (memory is the limit, so wider
 * vectors bring nothing). Neither may contract a multiplication and an addition into one, so both give the same bits. */
#include <math.h>
#include <string.h>
#include <trainrun/flat.h>

#if defined(__x86_64__)
#define WIDE __attribute__((target("avx2")))
static bool wide(void) { return __builtin_cpu_supports("avx2"); }
#else
#define WIDE
static bool wide(void) { return false; }
#endif
#define LOOP static inline __attribute__((always_inline)) void

enum { LANES = 16 };

LOOP add_loop(float *restrict to, const float *restrict from, uint64_t count) {
  for (uint64_t i = 0; i < count; i++) to[i] += from[i];
}
WIDE static void add_wide(float *to, const float *from, uint64_t count) { add_loop(to, from, count); }

void tr_flat_add(float *to, const float *from, uint64_t count) {
  if (wide())
    add_wide(to, from, count);
  else
    add_loop(to, from, count);
}

/* The square of a float is exact in double, so only the order of the additions matters: sixteen lanes side by side, then
 * the lanes in pairs. */
static inline __attribute__((always_inline)) double block_square_sum(const float *values, uint64_t count) {
  double lanes[LANES] = {0};
  uint64_t i = 0;
  for (; i + LANES <= count; i += LANES)
    for (int lane = 0; lane < LANES; lane++) lanes[lane] += (double)values[i + lane] * (double)values[i + lane];
  for (int lane = 0; i < count; i++, lane++) lanes[lane] += (double)values[i] * (double)values[i];
  for (int half = LANES / 2; half > 0; half /= 2)
    for (int lane = 0; lane < half; lane++) lanes[lane] += lanes[lane + half];
  return lanes[0];
}

LOOP square_sums_loop(const float *values, uint64_t count, double *partials) {
  for (uint64_t at = 0, block = 0; at < count; at += TR_PARAM_BLOCK, block++) {
    const uint64_t left = count - at;
    partials[block] = block_square_sum(values + at, left < TR_PARAM_BLOCK ? left : TR_PARAM_BLOCK);
  }
}
WIDE static void square_sums_wide(const float *values, uint64_t count, double *partials) {
  square_sums_loop(values, count, partials);
}

void tr_flat_square_sums(const float *values, uint64_t count, double *partials) {
  if (wide())
    square_sums_wide(values, count, partials);
  else
    square_sums_loop(values, count, partials);
}

double tr_flat_tree_sum(double *values, uint64_t count) {
  if (count == 0) return 0.0;
  for (uint64_t left = count; left > 1; left = (left + 1) / 2) {
    for (uint64_t i = 0; i < left / 2; i++) values[i] = values[2 * i] + values[2 * i + 1];
    if (left % 2 == 1) values[left / 2] = values[left - 1];
  }
  return values[0];
}

/* An exponent of all ones is what infinities and NaNs have in common; found without a branch an element. */
static inline __attribute__((always_inline)) bool finite_block(const float *values, uint64_t count) {
  uint32_t bad = 0;
  for (uint64_t i = 0; i < count; i++) {
    uint32_t bits;
    memcpy(&bits, &values[i], sizeof bits);
    bad |= (bits & 0x7F800000u) == 0x7F800000u;
  }
  return bad == 0;
}
WIDE static bool finite_block_wide(const float *values, uint64_t count) { return finite_block(values, count); }

bool tr_flat_finite(const float *values, uint64_t count) {
  const bool is_wide = wide();
  for (uint64_t at = 0; at < count; at += TR_PARAM_BLOCK) {
    const uint64_t block = count - at < TR_PARAM_BLOCK ? count - at : TR_PARAM_BLOCK;
    if (!(is_wide ? finite_block_wide(values + at, block) : finite_block(values + at, block))) return false;
  }
  return true;
}

LOOP adamw_loop(float *restrict values, const float *restrict gradient, float *restrict m, float *restrict v,
                uint64_t count, const tr_adamw_args *args) {
  const float scale = args->gradient_scale, eps = args->eps;
  const float keep = 1.0f - args->lr * args->weight_decay;
  const float beta1 = args->beta1, beta2 = args->beta2;
  const float rest1 = 1.0f - beta1, rest2 = 1.0f - beta2;
  const float step = args->lr / args->correction1;
  const float root2 = sqrtf(args->correction2);
  for (uint64_t i = 0; i < count; i++) {
    const float g = gradient[i] * scale;
    const float mean = beta1 * m[i] + rest1 * g;
    const float square = beta2 * v[i] + rest2 * g * g;
    m[i] = mean;
    v[i] = square;
    values[i] = values[i] * keep - step * mean / (sqrtf(square) / root2 + eps);
  }
}

WIDE static void adamw_wide(float *values, const float *gradient, float *m, float *v, uint64_t count,
                            const tr_adamw_args *args) {
  adamw_loop(values, gradient, m, v, count, args);
}

void tr_flat_adamw(float *values, const float *gradient, float *m, float *v, uint64_t count,
                   const tr_adamw_args *args) {
  if (wide())
    adamw_wide(values, gradient, m, v, count, args);
  else
    adamw_loop(values, gradient, m, v, count, args);
}

LOOP sgd_loop(float *restrict values, const float *restrict gradient, uint64_t count, const tr_sgd_args *args) {
  const float scale = args->gradient_scale, decay = args->weight_decay, lr = args->lr;
  for (uint64_t i = 0; i < count; i++) values[i] -= lr * (gradient[i] * scale + decay * values[i]);
}

/* first and nesterov are constants where this is inlined, so the loop has no branch. */
LOOP momentum_loop(float *restrict values, const float *restrict gradient, float *restrict buffer, uint64_t count,
                   const tr_sgd_args *args, bool first, bool nesterov) {
  const float scale = args->gradient_scale, decay = args->weight_decay, lr = args->lr, momentum = args->momentum;
  for (uint64_t i = 0; i < count; i++) {
    const float g = gradient[i] * scale + decay * values[i];
    const float b = first ? g : momentum * buffer[i] + g;
    buffer[i] = b;
    values[i] -= lr * (nesterov ? g + momentum * b : b);
  }
}

LOOP sgd_kinds(float *values, const float *gradient, float *buffer, uint64_t count, const tr_sgd_args *args) {
  if (args->momentum == 0.0f || buffer == NULL)
    sgd_loop(values, gradient, count, args);
  else if (args->first)
    args->nesterov ? momentum_loop(values, gradient, buffer, count, args, true, true)
                   : momentum_loop(values, gradient, buffer, count, args, true, false);
  else
    args->nesterov ? momentum_loop(values, gradient, buffer, count, args, false, true)
                   : momentum_loop(values, gradient, buffer, count, args, false, false);
}
WIDE static void sgd_wide(float *values, const float *gradient, float *buffer, uint64_t count,
                          const tr_sgd_args *args) {
  sgd_kinds(values, gradient, buffer, count, args);
}

void tr_flat_sgd(float *values, const float *gradient, float *momentum_buffer, uint64_t count,
                 const tr_sgd_args *args) {
  if (wide())
    sgd_wide(values, gradient, momentum_buffer, count, args);
  else
    sgd_kinds(values, gradient, momentum_buffer, count, args);
}

void tr_flat_average(float *restrict values, const float *restrict gradient, float momentum, float scale,
                     uint64_t count) {
  const float keep = 1.0f - momentum, weight = momentum * scale;
  for (uint64_t i = 0; i < count; i++) values[i] = keep * values[i] + weight * gradient[i];
}
