/* Gradients against differences of the loss, for every op over awkward sizes, with reference and with optimized kernels.
 *
 * A difference is taken upwards and downwards. Where the two disagree the loss has a kink (ReLU, max-pool) and the
 * element is left out; most must remain. */
#include "ops_fixture.h"

typedef struct tally {
  int checked, skipped;
  double error, size; /* sums of squares, of one parameter */
} tally;

static double loss_at(fx *f, float *value, float at) {
  const float kept = *value;
  *value = at;
  tr_params_touch(f->params);
  const double loss = fx_forward(f);
  *value = kept;
  tr_params_touch(f->params);
  return loss;
}

static void check_element(fx *f, const tr_param_info *info, uint64_t i, double loss, double scale, tally *t) {
  float *value = tr_params_values(f->params) + info->offset + i;
  const double gradient = (double)f->gradient[info->offset + i];
  const float above = *value + 5e-4f, below = *value - 5e-4f;
  const double up = (loss_at(f, value, above) - loss) / ((double)above - (double)*value);
  const double down = (loss - loss_at(f, value, below)) / ((double)*value - (double)below);
  const double middle = 0.5 * (up + down);
  if (fabs(up - down) > 2e-2 * fabs(middle) + 1e-2 * scale + 4e-3) {
    t->skipped++;
    return;
  }
  t->checked++;
  t->error += (middle - gradient) * (middle - gradient);
  t->size += gradient * gradient;
}

/* Kinks on both sides at once are not seen, so single elements may be off; the parameter as a whole may not. */
static void check_parameter(fx *f, const tr_param_info *info, double loss, const char *what, tally *t) {
  double scale = 0.0;
  for (uint64_t i = 0; i < info->count; i++) scale = fmax(scale, fabs((double)f->gradient[info->offset + i]));
  const uint64_t step = info->count / (ts_long() ? 19 : 4) + 1;
  t->error = t->size = 0.0;
  for (uint64_t i = 0; i < info->count; i += step) check_element(f, info, i, loss, scale, t);
  cr_assert_lt(sqrt(t->error), 0.05 * sqrt(t->size) + 0.01 * scale + 4e-3,
               "%s, size %d, rows %d: the gradient of %s is off by %g of %g", what, f->size, (int)f->rows, info->name,
               sqrt(t->error), sqrt(t->size));
}

static void check_model(const fx_model *model, bool reference, tally *t) {
  const int sizes = reference && !ts_long() ? 3 : fx_size_count() - 1;
  for (int s = 0; s < sizes; s++) {
    fx f = {.rows = fx_rows[s], .size = fx_sizes[s], .compile = {.reference = reference}};
    fx_open(&f, model->build);
    const double loss = fx_step(&f);
    cr_assert(isfinite(loss), "%s", model->name);
    for (tr_param p = 0; p < tr_params_size(f.params); p++) {
      const tr_param_info info = tr_params_info(f.params, p);
      if (info.role == TR_PARAM_TRAINED) check_parameter(&f, &info, loss, model->name, t);
    }
    fx_close(&f);
  }
}

Test(gradients, of_the_reference_kernels_are_those_of_the_loss, .timeout = 120) {
  for (int m = 0; m < FX_MODELS; m++) {
    tally t = {0};
    check_model(&fx_models[m], true, &t);
    cr_assert_gt(t.checked, 4 * t.skipped, "%s: %d of %d differences are of use", fx_models[m].name, t.checked,
                 t.checked + t.skipped);
  }
}

Test(gradients, of_the_optimized_kernels_are_those_of_the_loss, .timeout = 120) {
  for (int m = 0; m < FX_MODELS; m++) {
    tally t = {0};
    check_model(&fx_models[m], false, &t);
    cr_assert_gt(t.checked, 4 * t.skipped, "%s: %d of %d differences are of use", fx_models[m].name, t.checked,
                 t.checked + t.skipped);
  }
}
