/* Which decoder a suffix means, and the small ones: raw bytes, class numbers, JSON. */
#include "decode.h"

#include <inttypes.h>
#include <jansson.h>
#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { JSON_BYTES_MAX = 16 << 20, SHAPE_TEXT = 160 };

dl_kind dl_kind_of(const char *suffix) {
  static const struct {
    const char *name;
    dl_kind kind;
  } kinds[] = {{"png", DL_KIND_PNG}, {"jpg", DL_KIND_JPEG}, {"jpeg", DL_KIND_JPEG}, {"cls", DL_KIND_CLS},
               {"npy", DL_KIND_NPY}, {"raw", DL_KIND_RAW},  {"bin", DL_KIND_RAW}};
  const char *dot = strrchr(suffix, '.');
  const char *last = dot != NULL ? dot + 1 : suffix;
  for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
    if (strcmp(kinds[i].name, last) == 0) return kinds[i].kind;
  }
  return DL_KIND_NONE;
}

void dl_image_shape(tr_field *field, uint32_t height, uint32_t width, uint32_t channels) {
  field->dtype = TR_U8;
  field->ndim = 3;
  field->shape[0] = height;
  field->shape[1] = width;
  field->shape[2] = channels;
}

static void format_shape(const tr_field *field, char text[SHAPE_TEXT]) {
  int used = snprintf(text, SHAPE_TEXT, "%s [", tr_dtype_name(field->dtype));
  for (uint32_t i = 0; i < field->ndim; i++) {
    used += snprintf(text + used, (size_t)(SHAPE_TEXT - used), "%s%" PRId64, i > 0 ? ", " : "", field->shape[i]);
  }
  snprintf(text + used, (size_t)(SHAPE_TEXT - used), "]");
}

tr_status dl_same_shape(const tr_field *expected, const tr_field *found, tr_error *error) {
  bool same = expected->dtype == found->dtype && expected->ndim == found->ndim;
  for (uint32_t i = 0; same && i < expected->ndim; i++) same = expected->shape[i] == found->shape[i];
  if (same) return TR_OK;
  char is[SHAPE_TEXT], should[SHAPE_TEXT];
  format_shape(found, is);
  format_shape(expected, should);
  const bool images = expected->dtype == TR_U8 && found->dtype == TR_U8 && expected->ndim == 3 && found->ndim == 3 &&
                      expected->shape[2] == found->shape[2];
  return tr_fail(
      error, TR_ERR_CORRUPT, "it is %s, the first sample of the data set is %s%s", is, should,
      images ? "; random-resized-crop N, or resize N and center-crop N, in its transforms make them alike" : "");
}

tr_status dl_image_believe(uint64_t pixel_bytes, uint64_t file_bytes, uint64_t most_a_byte, tr_error *error) {
  if (pixel_bytes <= DL_FIELD_BYTES_MAX && pixel_bytes / most_a_byte <= file_bytes) return TR_OK;
  return tr_fail(error, TR_ERR_CORRUPT,
                 "its header promises %" PRIu64 " bytes of pixels, more than its %" PRIu64 " bytes can hold",
                 pixel_bytes, file_bytes);
}

/* ---- cls --------------------------------------------------------------------------------------------------------- */

static bool is_blank(uint8_t c) { return c == ' ' || c == '\n' || c == '\r' || c == '\t'; }

static tr_status parse_class(dl_value value, int32_t *out, tr_error *error) {
  const uint8_t *at = value.bytes, *end = value.bytes + value.count;
  while (at < end && is_blank(*at)) at++;
  while (end > at && is_blank(end[-1])) end--;
  const bool negative = at < end && *at == '-';
  if (at < end && (*at == '-' || *at == '+')) at++;
  int64_t number = 0;
  bool good = at < end;
  for (; at < end && good; at++) {
    good = *at >= '0' && *at <= '9';
    number = number * 10 + (*at - '0');
    good = good && number <= (int64_t)INT32_MAX + negative;
  }
  if (!good) return tr_fail(error, TR_ERR_CORRUPT, "it is not an integer of 32 bits");
  *out = (int32_t)(negative ? -number : number);
  return TR_OK;
}

/* ---- JSON -------------------------------------------------------------------------------------------------------- */

/* Follows "a.b.0" through objects and arrays. */
static const json_t *follow(const json_t *value, const char *path) {
  while (value != NULL && *path != '\0') {
    const size_t length = strcspn(path, ".");
    char part[128];
    if (length >= sizeof part) return NULL;
    memcpy(part, path, length);
    part[length] = '\0';
    uint64_t index;
    if (json_is_array(value)) {
      value = tr_parse_u64(part, &index) ? json_array_get(value, (size_t)index) : NULL;
    } else {
      value = json_object_get(value, part);
    }
    path += length;
    if (*path == '.') path++;
  }
  return value;
}

static bool number_of(const json_t *value, float *number) {
  if (json_is_boolean(value)) {
    *number = json_is_true(value) ? 1.0f : 0.0f;
    return true;
  }
  if (!json_is_number(value)) return false;
  *number = (float)json_number_value(value);
  return isfinite(*number);
}

/* `to` NULL: only the shape. */
static tr_status take_numbers(const json_t *value, const char *path, const tr_field *expected, tr_field *found,
                              void *to, tr_error *error) {
  float number;
  if (value == NULL) return tr_fail(error, TR_ERR_CORRUPT, "it has no member '%s'", path);
  found->dtype = TR_F32;
  if (json_is_array(value)) {
    found->ndim = 1;
    found->shape[0] = (int64_t)json_array_size(value);
  } else {
    found->ndim = 0;
  }
  if (to != NULL) TR_TRY(dl_same_shape(expected, found, error));
  const size_t count = found->ndim == 1 ? json_array_size(value) : 1;
  for (size_t i = 0; i < count; i++) {
    if (!number_of(found->ndim == 1 ? json_array_get(value, i) : value, &number)) {
      return tr_fail(error, TR_ERR_CORRUPT, "its member '%s' is not a number or a list of numbers", path);
    }
    if (to != NULL) memcpy((uint8_t *)to + i * sizeof number, &number, sizeof number);
  }
  return TR_OK;
}

static tr_status decode_json(dl_value value, const char *path, const tr_field *expected, tr_field *found, void *to,
                             tr_error *error) {
  json_error_t why;
  if (value.count > JSON_BYTES_MAX) return tr_fail(error, TR_ERR_CORRUPT, "it has more than 16 MiB of JSON");
  json_t *root = json_loadb((const char *)value.bytes, value.count, JSON_DECODE_ANY, &why);
  if (root == NULL) {
    return tr_fail(error, TR_ERR_CORRUPT, "it is not JSON: line %d, column %d: %s", why.line, why.column, why.text);
  }
  const tr_status status = take_numbers(follow(root, path), path, expected, found, to, error);
  json_decref(root);
  return status;
}

bool dl_is_json(const uint8_t *bytes, size_t count) {
  json_t *root = count <= JSON_BYTES_MAX ? json_loadb((const char *)bytes, count, JSON_DECODE_ANY, NULL) : NULL;
  json_decref(root);
  return root != NULL;
}

/* ---- All of them ------------------------------------------------------------------------------------------------- */

/* An image of the one shape that is expected, straight to its place. */
typedef struct exact_sink {
  dl_image_sink sink;
  const tr_field *expected;
  uint8_t *to;
} exact_sink;

static tr_status place_exactly(dl_image_sink *sink, const tr_field *found, bool parts, dl_part *part, uint8_t **to,
                               tr_error *error) {
  const exact_sink *self = (exact_sink *)sink;
  (void)parts;
  *part = dl_part_whole((uint32_t)found->shape[0], (uint32_t)found->shape[1]);
  TR_TRY(dl_same_shape(self->expected, found, error));
  *to = self->to;
  return TR_OK;
}

/* `to` NULL: only what the value is. */
static tr_status decode(dl_kind kind, const char *path, const tr_field *expected, tr_field *found, dl_value value,
                        const tr_allocator *allocator, void *to, tr_error *error) {
  const uint8_t *data = value.bytes;
  int32_t number;
  exact_sink sink = {.sink = {place_exactly}, .expected = expected, .to = to};
  *found = (tr_field){0};
  switch (kind) {
    case DL_KIND_PNG: return dl_png(value, allocator, found, to != NULL ? &sink.sink : NULL, error);
    case DL_KIND_JPEG: return dl_jpeg(value, found, to != NULL ? &sink.sink : NULL, error);
    case DL_KIND_JSON: return decode_json(value, path, expected, found, to, error);
    case DL_KIND_CLS:
      found->dtype = TR_I32;
      TR_TRY(parse_class(value, &number, error));
      data = (const uint8_t *)&number;
      break;
    case DL_KIND_NPY: TR_TRY(dl_npy(value, found, &data, error)); break;
    case DL_KIND_RAW:
      found->dtype = TR_U8;
      found->ndim = 1;
      found->shape[0] = (int64_t)value.count;
      break;
    default: return tr_fail(error, TR_ERR_UNSUPPORTED, "it cannot be made into a batch");
  }
  if (to == NULL) return TR_OK;
  TR_TRY(dl_same_shape(expected, found, error));
  memcpy(to, data, expected->bytes);
  return TR_OK;
}

tr_status dl_decode_probe(dl_kind kind, const char *path, dl_value value, const tr_allocator *allocator,
                          tr_field *field, tr_error *error) {
  tr_field found;
  TR_TRY(decode(kind, path, NULL, &found, value, allocator, NULL, error));
  field->dtype = found.dtype;
  field->ndim = found.ndim;
  memcpy(field->shape, found.shape, sizeof field->shape);
  return TR_OK;
}

tr_status dl_decode(dl_kind kind, const char *path, const tr_field *field, dl_value value,
                    const tr_allocator *allocator, void *to, tr_error *error) {
  tr_field found;
  return decode(kind, path, field, &found, value, allocator, to, error);
}
