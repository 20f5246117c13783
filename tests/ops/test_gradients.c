/* Gradients against differences of the loss, for every op over awkward sizes, with reference and with optimized kernels.
 *
 * A difference is taken upwards and downwards. Where the two disagree the loss has a kink (ReLU, max-pool) and the
 * element is left out; most must remain. */
#include "ops_fixture.h"

typedef struct tally {
  int checked, skipped;
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

static void check_element(fx *f, const tr_param_info *info, uint64_t i, double loss, double scale, const char *what,
                          tally *t) {
  float *value = tr_params_values(f->params) + info->offset + i;
  const double gradient = (double)f->gradient[info->offset + i];
  const float above = *value + 4e-3f, below = *value - 4e-3f;
  const double up = (loss_at(f, value, above) - loss) / ((double)above - (double)*value);
  const double down = (loss - loss_at(f, value, below)) / ((double)*value - (double)below);
  const double middle = 0.5 * (up + down);
  const double tolerance = 1e-2 * fabs(middle) + 5e-3 * scale + 5e-4;
  if (fabs(up - down) > 2.0 * tolerance) {
    t->skipped++;
    return;
  }
  t->checked++;
  cr_assert_lt(fabs(middle - gradient), 2.0 * tolerance, "%s, size %d, rows %d: %s[%d] is %g, differences say %g", what,
               f->size, (int)f->rows, info->name, (int)i, gradient, middle);
}

static void check_parameter(fx *f, const tr_param_info *info, double loss, const char *what, tally *t) {
  double scale = 0.0;
  for (uint64_t i = 0; i < info->count; i++) scale = fmax(scale, fabs((double)f->gradient[info->offset + i]));
  const uint64_t step = info->count / 9 + 1;
  for (uint64_t i = 0; i < info->count; i += step) check_element(f, info, i, loss, scale, what, t);
}

static void check_model(const fx_model *model, bool reference, tally *t) {
  for (int s = 0; s < fx_size_count(); s++) {
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
