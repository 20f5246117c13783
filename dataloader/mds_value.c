/* Encodings and values of MDS: see mds_value.h. Everything is little-endian. */
#include "mds_value.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

enum { SIGNED = 1, FLOATING = 2, ENCODING_SHOWN = 60, PIL_HEAD_BYTES = 12 };

static const struct {
  const char *name;
  uint8_t type;
  tr_dtype dtype; /* of an array's elements in a batch */
} types[] = {{"uint8", 8, TR_U8},     {"int8", 9, TR_I32},    {"uint16", 16, TR_U16}, {"int16", 17, TR_I32},
             {"float16", 18, TR_F32}, {"uint32", 32, TR_I64}, {"int32", 33, TR_I32},  {"float32", 34, TR_F32},
             {"uint64", 64, TR_I64},  {"int64", 65, TR_I64},  {"float64", 66, TR_F64}};
enum { TYPES = sizeof types / sizeof *types };

static size_t width_of(uint8_t type) { return type / 8; }

static bool find_dtype(uint8_t type, tr_dtype *dtype) {
  for (size_t i = 0; i < TYPES; i++) {
    if (types[i].type != type) continue;
    *dtype = types[i].dtype;
    return true;
  }
  return false;
}

/* ---- How an encoding is written ---------------------------------------------------------------------------------- */

static bool find_type(const char *name, size_t length, uint8_t *type) {
  for (size_t i = 0; i < TYPES; i++) {
    if (strlen(types[i].name) != length || memcmp(types[i].name, name, length) != 0) continue;
    *type = types[i].type;
    return true;
  }
  return false;
}

/* "ndarray", "ndarray:int32", "ndarray:int32:3,224,224" */
static bool parse_array(const char *text, dl_mds_encoding *as) {
  as->kind = DL_MDS_ARRAY;
  text += strlen("ndarray");
  if (*text == '\0') return true;
  if (*text++ != ':') return false;
  const size_t length = strcspn(text, ":");
  if (!find_type(text, length, &as->type)) return false;
  text += length;
  uint64_t bytes = width_of(as->type);
  while (*text != '\0') {
    char number[24];
    uint64_t side;
    const size_t digits = strcspn(++text, ",");
    if (digits >= sizeof number || as->ndim == DL_MDS_DIMENSIONS_MAX) return false;
    memcpy(number, text, digits);
    number[digits] = '\0';
    if (!tr_parse_u64(number, &side) || side == 0 || side > DL_FIELD_BYTES_MAX) return false;
    if (__builtin_mul_overflow(bytes, side, &bytes) || bytes > DL_FIELD_BYTES_MAX) return false;
    as->shape[as->ndim++] = (int64_t)side;
    text += digits;
  }
  as->size = as->ndim > 0 ? bytes : 0;
  return true;
}

static bool is_array(const char *text) {
  const size_t length = strlen("ndarray");
  return strncmp(text, "ndarray", length) == 0 && (text[length] == '\0' || text[length] == ':');
}

tr_status dl_mds_encoding_parse(const char *text, dl_mds_encoding *as, tr_error *error) {
  static const struct {
    const char *name;
    dl_mds_kind kind;
  } kinds[] = {{"bytes", DL_MDS_BYTES},         {"str", DL_MDS_TEXT},       {"str_int", DL_MDS_TEXT_INTEGER},
               {"str_float", DL_MDS_TEXT_REAL}, {"pil", DL_MDS_PIL},        {"str_decimal", DL_MDS_TEXT_REAL},
               {"jpeg", DL_MDS_JPEG},           {"png", DL_MDS_PNG},        {"json", DL_MDS_JSON},
               {"jpeg_array", DL_MDS_LIST},     {"jpegarray", DL_MDS_LIST}, {"list[pil]", DL_MDS_LIST},
               {"list[jpeg]", DL_MDS_LIST},     {"list[png]", DL_MDS_LIST}};
  *as = (dl_mds_encoding){0};
  if (strcmp(text, "pkl") == 0) {
    return tr_fail(
        error, TR_ERR_UNSUPPORTED,
        "encoding 'pkl' is not read: pickled values can run programs when they are; write the column again as "
        "json, ndarray or bytes");
  }
  for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
    if (strcmp(kinds[i].name, text) != 0) continue;
    as->kind = kinds[i].kind;
    return TR_OK;
  }
  as->kind = DL_MDS_NUMBER;
  if (strcmp(text, "int") == 0) as->type = 65;
  if (as->type != 0 || find_type(text, strlen(text), &as->type)) {
    as->size = width_of(as->type);
    return TR_OK;
  }
  if (is_array(text) && parse_array(text, as)) return TR_OK;
  return tr_fail(error, TR_ERR_UNSUPPORTED, "encoding '%.*s' is not known", ENCODING_SHOWN, text);
}

bool dl_mds_batchable(const dl_mds_encoding *as) { return as->kind != DL_MDS_TEXT && as->kind != DL_MDS_LIST; }

dl_kind dl_mds_kind_of(const dl_mds_encoding *as) {
  switch (as->kind) {
    case DL_MDS_BYTES: return DL_KIND_RAW;
    case DL_MDS_JPEG: return DL_KIND_JPEG;
    case DL_MDS_PNG: return DL_KIND_PNG;
    case DL_MDS_JSON: return DL_KIND_JSON;
    default: return DL_KIND_NONE;
  }
}

/* ---- Elements ---------------------------------------------------------------------------------------------------- */

static uint64_t little(const uint8_t *at, size_t bytes) {
  uint64_t value = 0;
  for (size_t i = 0; i < bytes; i++) value |= (uint64_t)at[i] << (8 * i);
  return value;
}

static int64_t integer_of(uint8_t type, const uint8_t *at) {
  const size_t width = width_of(type);
  const uint64_t value = little(at, width);
  const uint32_t spare = 64 - 8 * (uint32_t)width;
  return type % 8 == SIGNED ? (int64_t)(value << spare) >> spare : (int64_t)value;
}

static double real_of(uint8_t type, const uint8_t *at) {
  float single;
  double wide;
  const uint64_t bits = little(at, width_of(type));
  const uint32_t low = (uint32_t)bits;
  switch (width_of(type)) {
    case 4: memcpy(&single, &low, sizeof single); return (double)single;
    case 8: memcpy(&wide, &bits, sizeof wide); return wide;
    default: break;
  }
  const int exponent = (int)(bits >> 10 & 31);
  const double fraction = (double)(bits & 1023);
  double value = exponent == 31 ? (fraction == 0 ? INFINITY : NAN)
                                : ldexp(fraction + (exponent > 0 ? 1024 : 0), (exponent > 0 ? exponent : 1) - 25);
  return bits >> 15 != 0 ? -value : value;
}

static bool fits_i32(uint8_t type, int64_t value) {
  const bool huge = type == 64 && value < 0; /* of uint64, beyond 2^63 */
  return !huge && value >= INT32_MIN && value <= INT32_MAX;
}

static tr_status too_large(const char *what, tr_error *error) {
  return tr_fail(error, TR_ERR_CORRUPT, "it is an integer of more than %s", what);
}

static bool same_layout(uint8_t type, tr_dtype dtype) { return tr_dtype_bytes(dtype) == width_of(type) && type != 64; }

/* Elements of `type` as `dtype`, which is wider or the same. */
static tr_status convert(uint8_t type, const uint8_t *from, size_t count, tr_dtype dtype, uint8_t *to,
                         tr_error *error) {
  const size_t width = width_of(type), step = tr_dtype_bytes(dtype);
  for (size_t i = 0; i < count; i++, from += width, to += step) {
    const int64_t integer = type % 8 == FLOATING ? 0 : integer_of(type, from);
    const int32_t narrow = (int32_t)integer;
    const float real = type % 8 == FLOATING ? (float)real_of(type, from) : 0;
    if (dtype == TR_F32) {
      memcpy(to, &real, sizeof real);
    } else if (dtype == TR_I32) {
      if (!fits_i32(type, integer)) return too_large("32 bits", error);
      memcpy(to, &narrow, sizeof narrow);
    } else {
      if (type == 64 && integer < 0) return too_large("63 bits", error);
      memcpy(to, &integer, sizeof integer);
    }
  }
  return TR_OK;
}

/* ---- Values ------------------------------------------------------------------------------------------------------ */

static tr_status decode_text(const dl_mds_encoding *as, dl_value value, dl_buffer *room, tr_error *error) {
  char text[64];
  double real;
  if (as->kind == DL_MDS_TEXT_INTEGER) {
    const tr_field number = {.dtype = TR_I32, .bytes = 4};
    return dl_decode(DL_KIND_CLS, NULL, &number, value, NULL, room->bytes, error);
  }
  if (value.count >= sizeof text) return tr_fail(error, TR_ERR_CORRUPT, "it has %zu digits; 63 are read", value.count);
  memcpy(text, value.bytes, value.count);
  text[value.count] = '\0';
  if (strlen(text) != value.count || !tr_parse_real(text, &real)) {
    return tr_fail(error, TR_ERR_CORRUPT, "it is not a number");
  }
  const float single = (float)real;
  memcpy(room->bytes, &single, sizeof single);
  return TR_OK;
}

/* The type and the shape where they stand in the value, and what is left of it. */
static tr_status open_array(const dl_mds_encoding *as, dl_value *value, uint8_t *type, tr_field *found,
                            tr_error *error) {
  tr_reader reader = tr_reader_of(value->bytes, value->count);
  *type = as->type != 0 ? as->type : tr_read_u8(&reader);
  found->ndim = as->ndim;
  memcpy(found->shape, as->shape, sizeof as->shape);
  if (as->ndim == 0) {
    const uint8_t head = tr_read_u8(&reader);
    found->ndim = head >> 2;
    const size_t width = (size_t)1 << (head & 3);
    if (found->ndim > DL_MDS_DIMENSIONS_MAX) {
      return tr_fail(error, TR_ERR_UNSUPPORTED, "it is an array of %u dimensions; %d are read", found->ndim,
                     DL_MDS_DIMENSIONS_MAX);
    }
    for (uint32_t i = 0; i < found->ndim; i++) {
      const uint8_t *side = tr_read_bytes(&reader, width);
      const uint64_t length = side != NULL ? little(side, width) : 0;
      found->shape[i] = length <= DL_FIELD_BYTES_MAX ? (int64_t)length : -1;
    }
  }
  if (reader.failed || !find_dtype(*type, &found->dtype)) {
    return tr_fail(error, TR_ERR_CORRUPT, "it does not begin as an array does");
  }
  *value = (dl_value){value->bytes + reader.at, tr_reader_left(&reader)};
  return TR_OK;
}

static tr_status decode_array(const dl_mds_encoding *as, dl_value value, const tr_allocator *allocator, dl_buffer *room,
                              tr_field *found, const uint8_t **data, tr_error *error) {
  uint8_t type;
  TR_TRY(open_array(as, &value, &type, found, error));
  uint64_t count = 1;
  for (uint32_t i = 0; i < found->ndim; i++) {
    if (found->shape[i] < 0 || __builtin_mul_overflow(count, (uint64_t)found->shape[i], &count)) count = SIZE_MAX;
  }
  if (count > DL_FIELD_BYTES_MAX || count * width_of(type) != value.count) {
    return tr_fail(error, TR_ERR_CORRUPT, "its shape does not make %zu bytes", value.count);
  }
  if (data == NULL) return TR_OK;
  *data = value.bytes;
  if (same_layout(type, found->dtype)) return TR_OK;
  TR_TRY(dl_buffer_reserve(allocator, room, (size_t)count * tr_dtype_bytes(found->dtype) + 1, error));
  *data = room->bytes;
  return convert(type, value.bytes, (size_t)count, found->dtype, room->bytes, error);
}

/* u32 width, height and length of the mode's name; its name; the pixels as they are. */
static tr_status decode_pil(dl_value value, const tr_allocator *allocator, dl_buffer *room, tr_field *found,
                            const uint8_t **data, tr_error *error) {
  static const struct {
    const char *name;
    uint32_t stored, channels;
  } modes[] = {{"RGB", 3, 3}, {"L", 1, 1}, {"RGBA", 4, 3}, {"LA", 2, 1}};
  tr_reader reader = tr_reader_of(value.bytes, value.count);
  const uint32_t width = tr_read_u32le(&reader), height = tr_read_u32le(&reader), length = tr_read_u32le(&reader);
  const char *mode = tr_read_bytes(&reader, length);
  if (mode == NULL) return tr_fail(error, TR_ERR_CORRUPT, "pil: not the beginning of an image");
  size_t i = 0;
  const size_t count = sizeof modes / sizeof *modes;
  while (i < count && !(strlen(modes[i].name) == length && memcmp(modes[i].name, mode, length) == 0)) i++;
  if (i == count) {
    return tr_fail(error, TR_ERR_UNSUPPORTED, "pil: an image of mode '%.*s'; RGB, L, RGBA and LA are read",
                   length < 8 ? (int)length : 8, mode);
  }
  const uint64_t pixels = (uint64_t)width * height;
  if (pixels > DL_FIELD_BYTES_MAX || pixels * modes[i].stored != tr_reader_left(&reader)) {
    return tr_fail(error, TR_ERR_CORRUPT, "pil: %u x %u pixels of %s do not make %zu bytes", height, width,
                   modes[i].name, tr_reader_left(&reader));
  }
  dl_image_shape(found, height, width, modes[i].channels);
  if (data == NULL) return TR_OK;
  *data = value.bytes + reader.at;
  if (modes[i].stored == modes[i].channels) return TR_OK;
  TR_TRY(dl_buffer_reserve(allocator, room, (size_t)pixels * modes[i].channels + 1, error));
  for (uint64_t at = 0; at < pixels; at++) {
    memcpy(room->bytes + at * modes[i].channels, *data + at * modes[i].stored, modes[i].channels);
  }
  *data = room->bytes;
  return TR_OK;
}

tr_status dl_mds_decode(const dl_mds_encoding *as, dl_value value, const tr_allocator *allocator, dl_buffer *room,
                        tr_field *found, const uint8_t **data, tr_error *error) {
  *found = (tr_field){0};
  switch (as->kind) {
    case DL_MDS_NUMBER:
    case DL_MDS_TEXT_INTEGER:
    case DL_MDS_TEXT_REAL:
      found->dtype = as->kind == DL_MDS_TEXT_REAL || as->type % 8 == FLOATING ? TR_F32 : TR_I32;
      if (data == NULL) return TR_OK;
      TR_TRY(dl_buffer_reserve(allocator, room, sizeof(double), error));
      *data = room->bytes;
      if (as->kind != DL_MDS_NUMBER) return decode_text(as, value, room, error);
      return convert(as->type, value.bytes, 1, found->dtype, room->bytes, error);
    case DL_MDS_ARRAY: return decode_array(as, value, allocator, room, found, data, error);
    case DL_MDS_PIL: return decode_pil(value, allocator, room, found, data, error);
    default: break;
  }
  return tr_fail(error, TR_ERR_UNSUPPORTED, "it cannot be made into a batch");
}

/* ---- As it is stored --------------------------------------------------------------------------------------------- */

static bool is_text(dl_value value) { return memchr(value.bytes, 0, value.count) == NULL; }

tr_raw_kind dl_mds_show(const dl_mds_encoding *as, dl_value value, tr_writer *numbers, bool *written) {
  *written = false;
  switch (as->kind) {
    case DL_MDS_TEXT: return is_text(value) ? TR_RAW_TEXT : TR_RAW_BYTES;
    case DL_MDS_JSON: return dl_is_json(value.bytes, value.count) ? TR_RAW_JSON : TR_RAW_BYTES;
    case DL_MDS_TEXT_INTEGER:
    case DL_MDS_TEXT_REAL:
      if (dl_is_json(value.bytes, value.count)) return TR_RAW_JSON;
      return is_text(value) ? TR_RAW_TEXT : TR_RAW_BYTES;
    case DL_MDS_NUMBER: break;
    default: return TR_RAW_BYTES;
  }
  if (value.count != as->size) return TR_RAW_BYTES;
  *written = true;
  if (as->type % 8 == FLOATING) {
    tr_write_json_real(numbers, real_of(as->type, value.bytes));
  } else if (as->type % 8 == SIGNED) {
    tr_write_text(numbers, "%" PRId64, integer_of(as->type, value.bytes));
  } else {
    tr_write_text(numbers, "%" PRIu64, (uint64_t)integer_of(as->type, value.bytes));
  }
  return TR_RAW_JSON;
}
