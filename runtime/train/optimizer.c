/* Fused flat updates over runs of equal weight decay, spread over the compute threads. */
#include "optimizer.h"

#include <fnmatch.h>
#include <math.h>
#include <string.h>

/* PyTorch's momentum of running statistics. */
static const float state_momentum = 0.1F;
/* Elements of one task: whole blocks, small enough to spread, large enough to hide the call. */
enum { TASK_ELEMENTS = 16 * TR_PARAM_BLOCK };

typedef struct span {
  uint64_t begin, end;
  float weight_decay;
} span;

struct tr_optimizer {
  const tr_allocator *allocator;
  tr_params *params;
  tr_pool *pool;
  bool adamw;
  double beta1, beta2, eps, momentum;
  uint64_t count; /* of TRAINED */
  float *states[2];
  size_t state_count;
  span *spans; /* in order, covering [0, count), cut at TASK_ELEMENTS */
  size_t span_count, span_capacity;
  /* Of the update under way. */
  const float *gradient;
  tr_update_args args;
};

static bool decays(const tr_config *config, const char *name) {
  const char *const *patterns = NULL;
  const size_t count = tr_config_strings(config, "optimizer.no-decay", &patterns);
  for (size_t i = 0; i < count; i++) {
    if (fnmatch(patterns[i], name, 0) == 0) return false;
  }
  return true;
}

static tr_status add_span(tr_optimizer *optimizer, uint64_t end, float weight_decay, tr_error *error) {
  uint64_t begin = optimizer->span_count > 0 ? optimizer->spans[optimizer->span_count - 1].end : 0;
  while (begin < end) {
    uint64_t cut = (begin / TASK_ELEMENTS + 1) * TASK_ELEMENTS;
    if (cut > end) cut = end;
    span *last = optimizer->span_count > 0 ? &optimizer->spans[optimizer->span_count - 1] : NULL;
    if (last != NULL && last->weight_decay == weight_decay && begin % TASK_ELEMENTS != 0) {
      last->end = cut;
    } else {
      TR_TRY(tr_reserve(optimizer->allocator, (void **)&optimizer->spans, &optimizer->span_capacity,
                        optimizer->span_count + 1, sizeof *optimizer->spans, error));
      optimizer->spans[optimizer->span_count++] = (span){begin, cut, weight_decay};
    }
    begin = cut;
  }
  return TR_OK;
}

/* Padding belongs to the parameter before it: its values and gradients are zero, so any decay leaves it zero. */
static tr_status cut_spans(tr_optimizer *optimizer, const tr_config *config, float weight_decay, tr_error *error) {
  const int32_t size = tr_params_size(optimizer->params);
  bool first = true;
  float pending = weight_decay;
  for (int32_t i = 0; i < size; i++) {
    const tr_param_info info = tr_params_info(optimizer->params, i);
    if (info.role != TR_PARAM_TRAINED) continue;
    if (!first) TR_TRY(add_span(optimizer, info.offset, pending, error));
    pending = decays(config, info.name) ? weight_decay : 0.0F;
    first = false;
  }
  return add_span(optimizer, optimizer->count, pending, error);
}

static double beta_of(const tr_config *config, size_t i) {
  const tr_value *betas = tr_config_find(config, "optimizer.betas");
  if (betas != NULL && betas->type == TR_VALUE_ARRAY && i < betas->count) return betas->items[i].real;
  return i == 0 ? 0.9 : 0.999;
}

tr_status tr_optimizer_create(const tr_allocator *allocator, const tr_config *config, tr_params *params, tr_pool *pool,
                              tr_optimizer **out, tr_error *error) {
  tr_optimizer *optimizer = tr_calloc(allocator, 1, sizeof *optimizer);
  if (optimizer == NULL) return tr_fail_memory(error, "the optimizer", sizeof *optimizer);
  optimizer->allocator = allocator;
  optimizer->params = params;
  optimizer->pool = pool;
  optimizer->count = tr_params_trained_count(params);
  optimizer->adamw = strcmp(tr_config_text(config, "optimizer.name"), "adamw") == 0;
  optimizer->beta1 = beta_of(config, 0);
  optimizer->beta2 = beta_of(config, 1);
  optimizer->eps = tr_config_real(config, "optimizer.eps");
  optimizer->momentum = tr_config_real(config, "optimizer.momentum");
  optimizer->state_count = optimizer->adamw ? 2 : optimizer->momentum > 0 ? 1 : 0;
  tr_status status = TR_OK;
  if (strcmp(tr_config_text(config, "optimizer.shard"), "true") == 0) {
    status = tr_fail(error, TR_ERR_UNSUPPORTED, "optimizer.shard = true: planned, not in this version");
    goto err_create;
  }
  for (size_t i = 0; i < optimizer->state_count; i++) {
    const size_t bytes = optimizer->count * sizeof(float);
    optimizer->states[i] = tr_alloc_aligned(allocator, bytes > 0 ? bytes : 64, 64);
    if (optimizer->states[i] == NULL) {
      status = tr_fail_memory(error, "the state of the optimizer", bytes);
      goto err_create;
    }
    memset(optimizer->states[i], 0, bytes);
  }
  const bool given = optimizer->adamw || tr_config_is_set(config, "optimizer.weight-decay");
  const double decay = given ? tr_config_real(config, "optimizer.weight-decay") : 0;
  status = cut_spans(optimizer, config, (float)decay, error);
  if (status != TR_OK) goto err_create;
  *out = optimizer;
  return TR_OK;
err_create:
  tr_optimizer_destroy(optimizer);
  return status;
}

void tr_optimizer_destroy(tr_optimizer *optimizer) {
  if (optimizer == NULL) return;
  const size_t bytes = optimizer->count * sizeof(float);
  for (size_t i = 0; i < optimizer->state_count; i++) {
    if (optimizer->states[i] != NULL)
      tr_free_aligned(optimizer->allocator, optimizer->states[i], bytes > 0 ? bytes : 64);
  }
  tr_free(optimizer->allocator, optimizer->spans);
  tr_free(optimizer->allocator, optimizer);
}

/* The snapshot reads what the update is about to read anyway, so its copy finds it in the caches or brings it there. */
static void release_span(const tr_optimizer *optimizer, const span *cut) {
  tr_ckpt_save *save = optimizer->args.save;
  const size_t bytes = (cut->end - cut->begin) * sizeof(float);
  tr_ckpt_save_release(save, tr_params_values(optimizer->params) + cut->begin, bytes);
  for (size_t i = 0; i < optimizer->state_count; i++) {
    tr_ckpt_save_release(save, optimizer->states[i] + cut->begin, bytes);
  }
}

static void update_span(void *self, uint32_t task) {
  tr_optimizer *optimizer = self;
  const span *cut = &optimizer->spans[task];
  const tr_update_args *args = &optimizer->args;
  if (args->save != NULL) release_span(optimizer, cut);
  float *values = tr_params_values(optimizer->params) + cut->begin;
  const float *gradient = optimizer->gradient + cut->begin;
  const uint64_t count = cut->end - cut->begin;
  if (optimizer->adamw) {
    const double step = (double)(args->step + 1);
    const tr_adamw_args adamw = {
        .gradient_scale = (float)args->gradient_scale,
        .lr = (float)args->lr,
        .beta1 = (float)optimizer->beta1,
        .beta2 = (float)optimizer->beta2,
        .eps = (float)optimizer->eps,
        .weight_decay = cut->weight_decay,
        .correction1 = (float)(1 - pow(optimizer->beta1, step)),
        .correction2 = (float)(1 - pow(optimizer->beta2, step)),
    };
    tr_flat_adamw(values, gradient, optimizer->states[0] + cut->begin, optimizer->states[1] + cut->begin, count,
                  &adamw);
    return;
  }
  const tr_sgd_args sgd = {
      .gradient_scale = (float)args->gradient_scale,
      .lr = (float)args->lr,
      .momentum = (float)optimizer->momentum,
      .weight_decay = cut->weight_decay,
      .first = args->step == 0,
  };
  tr_flat_sgd(values, gradient, optimizer->state_count > 0 ? optimizer->states[0] + cut->begin : NULL, count, &sgd);
}

void tr_optimizer_update(tr_optimizer *optimizer, const float *gradient, const tr_update_args *args) {
  optimizer->gradient = gradient;
  optimizer->args = *args;
  tr_pool_run(optimizer->pool, (uint32_t)optimizer->span_count, update_span, optimizer);
  const uint64_t end = tr_params_gradient_count(optimizer->params);
  if (end > optimizer->count && args->state_scale > 0) {
    float *state = tr_params_values(optimizer->params) + optimizer->count;
    if (args->save != NULL) tr_ckpt_save_release(args->save, state, (end - optimizer->count) * sizeof(float));
    tr_flat_average(state, gradient + optimizer->count, end - optimizer->count, state_momentum,
                    (float)args->state_scale);
  }
  tr_params_touch(optimizer->params);
}

size_t tr_optimizer_states(const tr_optimizer *optimizer) { return optimizer->state_count; }

const char *tr_optimizer_state_name(const tr_optimizer *optimizer, size_t i) {
  if (!optimizer->adamw) return "momentum";
  return i == 0 ? "m" : "v";
}

float *tr_optimizer_state(tr_optimizer *optimizer, size_t i) { return optimizer->states[i]; }
