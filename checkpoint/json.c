/* Bounded JSON; see json.h. */
#include "json.h"

#include <stdio.h>
#include <string.h>

void ckpt_json_fail(ckpt_json *source, const char *format, ...) {
  if (source->status != TR_OK) return;
  char message[256];
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(message, sizeof message, format, arguments);
  va_end(arguments);
  source->status = tr_fail(source->error, source->failure, "%s: %s", source->object, message);
}

/* Depth and number of values, before memory is spent on them. Strings are passed over; what else is wrong, the parser
 * finds. */
static bool within_limits(const char *text, size_t bytes) {
  size_t depth = 0, values = 1;
  bool quoted = false;
  for (size_t i = 0; i < bytes; i++) {
    const char c = text[i];
    if (quoted) {
      if (c == '\\') i++;
      if (c == '"') quoted = false;
    } else if (c == '"') {
      quoted = true;
    } else if (c == '{' || c == '[') {
      if (++depth > CKPT_JSON_DEPTH_MAX) return false;
      values++;
    } else if (c == '}' || c == ']') {
      if (depth > 0) depth--;
    } else if (c == ',') {
      values++;
    }
  }
  return values <= CKPT_JSON_VALUES_MAX;
}

json_t *ckpt_json_parse(ckpt_json *source, const char *text, size_t bytes) {
  if (!within_limits(text, bytes)) {
    ckpt_json_fail(source, "deeper than %d levels or more than %d values", CKPT_JSON_DEPTH_MAX, CKPT_JSON_VALUES_MAX);
    return NULL;
  }
  json_error_t error;
  json_t *root = json_loadb(text, bytes, JSON_REJECT_DUPLICATES, &error);
  if (root == NULL) {
    if (json_error_code(&error) == json_error_out_of_memory) source->failure = TR_ERR_NO_MEMORY;
    ckpt_json_fail(source, "no JSON at byte %d: %s", error.position, error.text);
  } else if (!json_is_object(root)) {
    json_decref(root);
    root = NULL;
    ckpt_json_fail(source, "not a JSON object");
  }
  return root;
}

static uint64_t as_u64(ckpt_json *source, const json_t *value, const char *what) {
  if (!json_is_integer(value) || json_integer_value(value) < 0) {
    ckpt_json_fail(source, "'%s' is not a whole number", what);
    return 0;
  }
  return (uint64_t)json_integer_value(value);
}

/* Exactly eight lower-case digits, so that one value has one text. */
static uint32_t as_hex32(ckpt_json *source, const json_t *value, const char *what) {
  const char *text = json_string_value(value);
  uint32_t number = 0;
  bool good = text != NULL && strlen(text) == 8 && strspn(text, "0123456789abcdef") == 8;
  for (size_t i = 0; good && i < 8; i++) {
    const char c = text[i];
    number = number << 4 | (uint32_t)(c <= '9' ? c - '0' : c - 'a' + 10);
  }
  if (!good) ckpt_json_fail(source, "'%s' is not a CRC of eight hex digits", what);
  return number;
}

uint64_t ckpt_json_get_u64(ckpt_json *source, const json_t *object, const char *key) {
  return as_u64(source, json_object_get(object, key), key);
}

uint32_t ckpt_json_get_hex32(ckpt_json *source, const json_t *object, const char *key) {
  return as_hex32(source, json_object_get(object, key), key);
}

const char *ckpt_json_get_text(ckpt_json *source, const json_t *object, const char *key) {
  const char *text = json_string_value(json_object_get(object, key));
  if (text == NULL) ckpt_json_fail(source, "'%s' is not a string", key);
  return text != NULL ? text : "";
}

const char *ckpt_json_get_text_or_null(ckpt_json *source, const json_t *object, const char *key) {
  const json_t *value = json_object_get(object, key);
  if (json_is_null(value)) return NULL;
  return ckpt_json_get_text(source, object, key);
}

json_t *ckpt_json_get_array(ckpt_json *source, const json_t *object, const char *key) {
  json_t *value = json_object_get(object, key);
  if (!json_is_array(value)) ckpt_json_fail(source, "'%s' is not a list", key);
  return json_is_array(value) ? value : NULL;
}

json_t *ckpt_json_get_object(ckpt_json *source, const json_t *object, const char *key) {
  json_t *value = json_object_get(object, key);
  if (!json_is_object(value)) ckpt_json_fail(source, "'%s' is not an object", key);
  return json_is_object(value) ? value : NULL;
}

uint64_t ckpt_json_item_u64(ckpt_json *source, const json_t *array, size_t i) {
  return as_u64(source, json_array_get(array, i), "item of a list");
}

uint32_t ckpt_json_item_hex32(ckpt_json *source, const json_t *array, size_t i) {
  return as_hex32(source, json_array_get(array, i), "item of a list");
}
