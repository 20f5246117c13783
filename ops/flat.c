/* Flat passes: elementwise loops that a compiler vectorises, each element computed in one fixed order of operations. */
#include <math.h>
#include <string.h>
#include <trainrun/flat.h>

enum { LANES = 16 };

void tr_flat_add(float *restrict to, const float *restrict from, uint64_t count) {
  for (uint64_t i = 0; i < count; i++) to[i] += from[i];
}

/* The square of a float is exact in double, so only the order of the additions matters: sixteen lanes side by side, then
 * the lanes in pairs. */
static double block_square_sum(const float *values, uint64_t count) {
  double lanes[LANES] = {0};
  uint64_t i = 0;
  for (; i + LANES <= count; i += LANES)
    for (int lane = 0; lane < LANES; lane++) lanes[lane] += (double)values[i + lane] * (double)values[i + lane];
  for (int lane = 0; i < count; i++, lane++) lanes[lane] += (double)values[i] * (double)values[i];
  for (int half = LANES / 2; half > 0; half /= 2)
    for (int lane = 0; lane < half; lane++) lanes[lane] += lanes[lane + half];
  return lanes[0];
}

void tr_flat_square_sums(const float *values, uint64_t count, double *partials) {
  for (uint64_t at = 0, block = 0; at < count; at += TR_PARAM_BLOCK, block++) {
    const uint64_t left = count - at;
    partials[block] = block_square_sum(values + at, left < TR_PARAM_BLOCK ? left : TR_PARAM_BLOCK);
  }
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
bool tr_flat_finite(const float *values, uint64_t count) {
  for (uint64_t at = 0; at < count; at += TR_PARAM_BLOCK) {
    const uint64_t end = count - at < TR_PARAM_BLOCK ? count : at + TR_PARAM_BLOCK;
    uint32_t bad = 0;
    for (uint64_t i = at; i < end; i++) {
      uint32_t bits;
      memcpy(&bits, &values[i], sizeof bits);
      bad |= (bits & 0x7F800000u) == 0x7F800000u;
    }
    if (bad) return false;
  }
  return true;
}

void tr_flat_adamw(float *restrict values, const float *restrict gradient, float *restrict m, float *restrict v,
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

static void sgd_plain(float *restrict values, const float *restrict gradient, uint64_t count,
                      const tr_sgd_args *args) {
  const float scale = args->gradient_scale, decay = args->weight_decay, lr = args->lr;
  for (uint64_t i = 0; i < count; i++) values[i] -= lr * (gradient[i] * scale + decay * values[i]);
}

void tr_flat_sgd(float *restrict values, const float *restrict gradient, float *restrict momentum_buffer,
                 uint64_t count, const tr_sgd_args *args) {
  if (args->momentum == 0.0f || momentum_buffer == NULL) {
    sgd_plain(values, gradient, count, args);
    return;
  }
  const float scale = args->gradient_scale, decay = args->weight_decay, lr = args->lr;
  const float momentum = args->momentum;
  for (uint64_t i = 0; i < count; i++) {
    const float g = gradient[i] * scale + decay * values[i];
    const float buffer = args->first ? g : momentum * momentum_buffer[i] + g;
    momentum_buffer[i] = buffer;
    values[i] -= lr * (args->nesterov ? g + momentum * buffer : buffer);
  }
}

void tr_flat_average(float *restrict values, const float *restrict gradient, float momentum, float scale,
                     uint64_t count) {
  const float keep = 1.0f - momentum, weight = momentum * scale;
  for (uint64_t i = 0; i < count; i++) values[i] = keep * values[i] + weight * gradient[i];
}
