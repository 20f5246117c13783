/* NumPy's .npy: a magic number, a Python dict literal that names type, order and shape, then the data. Only plain
 * little-endian arrays in C order are read; the dict is parsed as text, nothing of it is evaluated. */
#include <string.h>

#include "decode.h"

enum { HEADER_BYTES_MAX = 64 << 10, SHAPE_MAX = 5 };

static const struct {
  const char *descr;
  tr_dtype dtype;
} dtypes[] = {{"<f4", TR_F32}, {"<f8", TR_F64}, {"<i4", TR_I32}, {"<i8", TR_I64},
              {"<u2", TR_U16}, {"|u1", TR_U8},  {"|b1", TR_U8}};

typedef struct cursor {
  const char *at, *end;
} cursor;

static bool is_space(char c) { return c == ' ' || c == '\n' || c == '\t'; }

static bool accept(cursor *c, char wanted) {
  while (c->at < c->end && is_space(*c->at)) c->at++;
  if (c->at == c->end || *c->at != wanted) return false;
  c->at++;
  return true;
}

/* A string in single or double quotes, without escapes. */
static bool accept_string(cursor *c, const char **text, size_t *length) {
  const char quote = accept(c, '\'') ? '\'' : accept(c, '"') ? '"' : '\0';
  if (quote == '\0') return false;
  *text = c->at;
  while (c->at < c->end && *c->at != quote && *c->at != '\\') c->at++;
  *length = (size_t)(c->at - *text);
  return c->at < c->end && *c->at++ == quote;
}

static bool accept_word(cursor *c, const char *word) {
  while (c->at < c->end && is_space(*c->at)) c->at++;
  const size_t length = strlen(word);
  if ((size_t)(c->end - c->at) < length || memcmp(c->at, word, length) != 0) return false;
  c->at += length;
  return true;
}

static bool accept_number(cursor *c, int64_t *number) {
  while (c->at < c->end && is_space(*c->at)) c->at++;
  const char *first = c->at;
  for (*number = 0; c->at < c->end && *c->at >= '0' && *c->at <= '9' && c->at - first < 12; c->at++) {
    *number = *number * 10 + (*c->at - '0');
  }
  return c->at > first;
}

static bool accept_shape(cursor *c, tr_field *found) {
  if (!accept(c, '(')) return false;
  for (found->ndim = 0; !accept(c, ')'); found->ndim++) {
    if (found->ndim == SHAPE_MAX || !accept_number(c, &found->shape[found->ndim])) return false;
    if (!accept(c, ',')) {
      found->ndim++;
      return found->ndim > 1 && accept(c, ')');
    }
  }
  return true;
}

static bool is(const char *text, size_t length, const char *word) {
  return length == strlen(word) && memcmp(text, word, length) == 0;
}

static tr_status parse_dict(cursor c, tr_field *found, tr_error *error) {
  bool has_descr = false, has_order = false, has_shape = false;
  const char *key, *descr;
  size_t length, descr_length;
  bool good = accept(&c, '{');
  while (good && !accept(&c, '}')) {
    good = accept_string(&c, &key, &length) && accept(&c, ':');
    if (good && is(key, length, "descr")) {
      good = accept_string(&c, &descr, &descr_length);
      for (size_t i = 0; good && i < sizeof dtypes / sizeof *dtypes; i++) {
        if (!is(descr, descr_length, dtypes[i].descr)) continue;
        found->dtype = dtypes[i].dtype;
        has_descr = true;
      }
      if (good && !has_descr) {
        return tr_fail(error, TR_ERR_UNSUPPORTED, "npy: type '%.*s' is not one of <f4 <f8 <i4 <i8 <u2 |u1 |b1",
                       (int)(descr_length < 40 ? descr_length : 40), descr);
      }
    } else if (good && is(key, length, "fortran_order")) {
      if (accept_word(&c, "True")) return tr_fail(error, TR_ERR_UNSUPPORTED, "npy: Fortran order is not read");
      good = has_order = accept_word(&c, "False");
    } else if (good && is(key, length, "shape")) {
      good = has_shape = accept_shape(&c, found);
    } else {
      good = false;
    }
    if (good && !accept(&c, ',') && !(c.at < c.end && *c.at == '}')) good = false;
  }
  if (good && has_descr && has_order && has_shape) return TR_OK;
  return tr_fail(error, TR_ERR_CORRUPT, "npy: its header is not one that NumPy writes");
}

tr_status dl_npy(dl_value value, tr_field *found, const uint8_t **data, tr_error *error) {
  tr_reader reader = tr_reader_of(value.bytes, value.count);
  const uint8_t *magic = tr_read_bytes(&reader, 6);
  const uint8_t major = tr_read_u8(&reader);
  tr_read_u8(&reader);
  const uint32_t header_bytes = major == 1 ? tr_read_u16le(&reader) : tr_read_u32le(&reader);
  const char *header = header_bytes <= HEADER_BYTES_MAX ? tr_read_bytes(&reader, header_bytes) : NULL;
  if (magic == NULL || memcmp(magic, "\x93NUMPY", 6) != 0 || major < 1 || major > 3 || header == NULL) {
    return tr_fail(error, TR_ERR_CORRUPT, "npy: not the beginning of a .npy file");
  }
  TR_TRY(parse_dict((cursor){header, header + header_bytes}, found, error));
  uint64_t bytes = tr_dtype_bytes(found->dtype);
  for (uint32_t i = 0; i < found->ndim; i++) {
    if (__builtin_mul_overflow(bytes, (uint64_t)found->shape[i], &bytes)) bytes = UINT64_MAX;
  }
  if (bytes != tr_reader_left(&reader)) {
    return tr_fail(error, TR_ERR_CORRUPT, "npy: %zu bytes of data, its shape asks for %llu", tr_reader_left(&reader),
                   (unsigned long long)bytes);
  }
  *data = value.bytes + reader.at;
  return TR_OK;
}
