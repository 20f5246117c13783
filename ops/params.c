/* Parameters: a list of named entries that sealing turns into one flat layout.
 *
 * Regions follow each other (trained, state, frozen), each on a whole block; inside a region entries stand in the order
 * of their making, each on 64 bytes. Nothing here depends on how many workers there are. */
#include <math.h>
#include <string.h>
#include <trainrun/crc32c.h>
#include <trainrun/params.h>
#include <trainrun/rng.h>

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "params_crc32c reads the values as they lie in memory");

enum { ALIGN_ELEMENTS = 16, REGION_COUNT = 3 };
/* Far above any model, far below where a product of two of them overflows. */
#define COUNT_MAX ((uint64_t)1 << 44)

struct tr_params {
  const tr_allocator *allocator;
  tr_param_info *entries; /* names are owned */
  size_t count, capacity;

  /* Since sealing. */
  bool sealed;
  tr_device *device;
  float *values;
  uint64_t region_end[REGION_COUNT]; /* elements */
  uint64_t version;
};

tr_status tr_params_create(const tr_allocator *allocator, tr_params **out, tr_error *error) {
  if (allocator == NULL) allocator = tr_allocator_system();
  tr_params *params = tr_calloc(allocator, 1, sizeof *params);
  if (params == NULL) return tr_fail_memory(error, "parameters", sizeof *params);
  params->allocator = allocator;
  *out = params;
  return TR_OK;
}

void tr_params_destroy(tr_params *params) {
  if (params == NULL) return;
  if (params->values != NULL)
    tr_device_free(params->device, TR_SPACE_HOST, params->values, tr_params_count(params) * sizeof(float));
  for (size_t i = 0; i < params->count; i++) tr_free(params->allocator, (char *)params->entries[i].name);
  tr_free(params->allocator, params->entries);
  tr_free(params->allocator, params);
}

static bool name_is_valid(const char *name) {
  if (name == NULL || name[0] == '\0') return false;
  size_t length = 0;
  for (; name[length] != '\0'; length++) {
    const char c = name[length];
    const bool ok = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.' ||
                    c == '_' || c == '/' || c == '-';
    if (!ok || length >= TR_NAME_BYTES - 1) return false;
  }
  return true;
}

static tr_status check_spec(const tr_param_spec *spec, uint64_t *count, tr_error *error) {
  if (!name_is_valid(spec->name))
    return tr_fail(error, TR_ERR_INVALID, "parameter name '%.40s': use 1 to %d of [a-zA-Z0-9._/-]",
                   spec->name == NULL ? "" : spec->name, TR_NAME_BYTES - 1);
  if (spec->ndim < 1 || spec->ndim > TR_NDIM_MAX)
    return tr_fail(error, TR_ERR_INVALID, "parameter '%s' has %u dimensions, not 1 to %d", spec->name, spec->ndim,
                   TR_NDIM_MAX);
  if ((unsigned)spec->role >= REGION_COUNT)
    return tr_fail(error, TR_ERR_INVALID, "parameter '%s' has an unknown role %d", spec->name, (int)spec->role);
  uint64_t product = 1;
  for (uint32_t d = 0; d < spec->ndim; d++) {
    if (spec->shape[d] < 1 || (uint64_t)spec->shape[d] > COUNT_MAX / product)
      return tr_fail(error, TR_ERR_INVALID, "parameter '%s': dimension %u is %lld", spec->name, d,
                     (long long)spec->shape[d]);
    product *= (uint64_t)spec->shape[d];
  }
  *count = product;
  return TR_OK;
}

static bool same_shape(const tr_param_info *info, const tr_param_spec *spec) {
  if (info->ndim != spec->ndim) return false;
  return memcmp(info->shape, spec->shape, spec->ndim * sizeof spec->shape[0]) == 0;
}

tr_param tr_params_find(const tr_params *params, const char *name) {
  for (size_t i = 0; i < params->count; i++)
    if (strcmp(params->entries[i].name, name) == 0) return (tr_param)i;
  return -1;
}

tr_status tr_params_add(tr_params *params, const tr_param_spec *spec, tr_param *out, tr_error *error) {
  uint64_t count = 0;
  TR_TRY(check_spec(spec, &count, error));
  const tr_param found = tr_params_find(params, spec->name);
  if (found >= 0) {
    const tr_param_info *info = &params->entries[found];
    if (!same_shape(info, spec))
      return tr_fail(error, TR_ERR_INVALID, "parameter '%s' is used with two shapes", spec->name);
    if (info->role != spec->role)
      return tr_fail(error, TR_ERR_INVALID, "parameter '%s' is used in two roles", spec->name);
    *out = found;
    return TR_OK;
  }
  if (params->sealed)
    return tr_fail(error, TR_ERR_INVALID, "parameter '%s' comes after the parameters were sealed", spec->name);
  TR_TRY(tr_reserve(params->allocator, (void **)&params->entries, &params->capacity, params->count + 1,
                    sizeof *params->entries, error));
  char *name = tr_strdup(params->allocator, spec->name);
  if (name == NULL) return tr_fail_memory(error, "a parameter's name", strlen(spec->name) + 1);
  tr_param_info *info = &params->entries[params->count];
  *info = (tr_param_info){.name = name, .ndim = spec->ndim, .role = spec->role, .count = count, .init = spec->init};
  memcpy(info->shape, spec->shape, spec->ndim * sizeof spec->shape[0]);
  *out = (tr_param)params->count++;
  return TR_OK;
}

int32_t tr_params_size(const tr_params *params) { return (int32_t)params->count; }

tr_param_info tr_params_info(const tr_params *params, tr_param param) {
  if (param < 0 || (size_t)param >= params->count) return (tr_param_info){.name = ""};
  return params->entries[param];
}

static uint64_t round_up(uint64_t n, uint64_t to) { return (n + to - 1) / to * to; }

tr_status tr_params_seal(tr_params *params, tr_device *device, tr_error *error) {
  if (params->sealed) return tr_fail(error, TR_ERR_INVALID, "the parameters are sealed already");
  uint64_t at = 0, region_end[REGION_COUNT];
  for (int region = 0; region < REGION_COUNT; region++) {
    for (size_t i = 0; i < params->count; i++) {
      tr_param_info *info = &params->entries[i];
      if ((int)info->role != region) continue;
      at = round_up(at, ALIGN_ELEMENTS);
      info->offset = at;
      at += info->count;
      if (at > COUNT_MAX) return tr_fail(error, TR_ERR_INVALID, "the parameters are too many to lay out");
    }
    at = round_up(at, TR_PARAM_BLOCK);
    region_end[region] = at;
  }
  float *values = NULL;
  if (at > 0) {
    values = tr_device_alloc(device, TR_SPACE_HOST, at * sizeof(float));
    if (values == NULL) return tr_fail_memory(error, "the parameters' values", at * sizeof(float));
    memset(values, 0, at * sizeof(float));
  }
  memcpy(params->region_end, region_end, sizeof region_end);
  params->values = values;
  params->device = device;
  params->sealed = true;
  params->version = 1;
  return TR_OK;
}

/* Box-Muller: two normals from two words. The first word is moved off zero, where the logarithm has no value. */
static void normal_pair(uint32_t word_a, uint32_t word_b, double *first, double *second) {
  const double radius = sqrt(-2.0 * log(((double)word_a + 1.0) * (1.0 / 4294967297.0)));
  const double angle = 6.283185307179586477 * ((double)word_b * (1.0 / 4294967296.0));
  *first = radius * cos(angle);
  *second = radius * sin(angle);
}

static void fill_quad(const tr_init *init, const tr_rng4 *words, float quad[4]) {
  if (init->kind == TR_INIT_NORMAL) {
    double z[4];
    normal_pair(words->v[0], words->v[1], &z[0], &z[1]);
    normal_pair(words->v[2], words->v[3], &z[2], &z[3]);
    for (int i = 0; i < 4; i++) quad[i] = (float)((double)init->a + (double)init->b * z[i]);
    return;
  }
  const float below_b = nextafterf(init->b, init->a); /* the sum may round up to b, which is outside [a, b) */
  for (int i = 0; i < 4; i++) {
    const double unit = (double)tr_rng_unit(words->v[i]);
    const float value = (float)((double)init->a + ((double)init->b - (double)init->a) * unit);
    quad[i] = value < init->b ? value : below_b;
  }
}

static void fill(float *values, const tr_param_info *info, uint64_t seed) {
  const tr_init *init = &info->init;
  if (init->kind == TR_INIT_ZEROS || init->kind == TR_INIT_CONSTANT) {
    const float value = init->kind == TR_INIT_ZEROS ? 0.0f : init->a;
    for (uint64_t i = 0; i < info->count; i++) values[i] = value;
    return;
  }
  const uint64_t name = tr_hash_name(info->name);
  for (uint64_t i = 0; i < info->count; i += 4) {
    const tr_rng4 words = tr_rng(seed, TR_RNG_INIT, name, i / 4);
    float quad[4];
    fill_quad(init, &words, quad);
    const uint64_t left = info->count - i;
    memcpy(values + i, quad, (left < 4 ? left : 4) * sizeof(float));
  }
}

void tr_params_initialize(tr_params *params, uint64_t seed) {
  if (!params->sealed) return;
  for (size_t i = 0; i < params->count; i++)
    fill(params->values + params->entries[i].offset, &params->entries[i], seed);
  tr_params_touch(params);
}

float *tr_params_values(tr_params *params) { return params->values; }
uint64_t tr_params_count(const tr_params *params) { return params->region_end[TR_PARAM_FROZEN]; }
uint64_t tr_params_gradient_count(const tr_params *params) { return params->region_end[TR_PARAM_STATE]; }
uint64_t tr_params_trained_count(const tr_params *params) { return params->region_end[TR_PARAM_TRAINED]; }

void tr_params_touch(tr_params *params) { __atomic_add_fetch(&params->version, 1, __ATOMIC_RELEASE); }
uint64_t tr_params_version(const tr_params *params) { return __atomic_load_n(&params->version, __ATOMIC_ACQUIRE); }

/* Parameters are few, so the next name in order is looked for instead of sorting into new memory. */
static const tr_param_info *next_by_name(const tr_params *params, const char *after) {
  const tr_param_info *best = NULL;
  for (size_t i = 0; i < params->count; i++) {
    const tr_param_info *info = &params->entries[i];
    if (after != NULL && strcmp(info->name, after) <= 0) continue;
    if (best == NULL || strcmp(info->name, best->name) < 0) best = info;
  }
  return best;
}

uint32_t tr_params_crc32c(const tr_params *params) {
  uint32_t crc = 0;
  if (!params->sealed) return crc;
  for (const tr_param_info *info = next_by_name(params, NULL); info != NULL; info = next_by_name(params, info->name))
    crc = tr_crc32c(crc, params->values + info->offset, info->count * sizeof(float));
  return crc;
}
