/* JSON from outside: parsed within limits, and read with one check at the end.
 *
 * A ckpt_json remembers the first thing that is wrong and says it with the object's name; later reads give zeros. */
#ifndef TRAINRUN_CHECKPOINT_JSON_H
#define TRAINRUN_CHECKPOINT_JSON_H

#include <jansson.h>
#include <trainrun/base.h>

enum { CKPT_JSON_DEPTH_MAX = 32, CKPT_JSON_VALUES_MAX = 1000000 };

typedef struct ckpt_json {
  const char *object; /* whose text it is, for messages */
  tr_status failure;  /* the status of what is wrong */
  tr_status status;   /* TR_OK so far */
  tr_error *error;
} ckpt_json;

/* NULL and a failed source where text is no JSON object, too deep, too large, or has a key twice. */
json_t *ckpt_json_parse(ckpt_json *source, const char *text, size_t bytes);

/* Says what is wrong, unless something was before. */
void ckpt_json_fail(ckpt_json *source, const char *format, ...) TR_PRINTF(2, 3);

/* Members that must be there, with the right type. */
uint64_t ckpt_json_get_u64(ckpt_json *source, const json_t *object, const char *key);
uint32_t ckpt_json_get_hex32(ckpt_json *source, const json_t *object, const char *key);
const char *ckpt_json_get_text(ckpt_json *source, const json_t *object, const char *key);
/* NULL where the member is null. */
const char *ckpt_json_get_text_or_null(ckpt_json *source, const json_t *object, const char *key);
/* An array (its size 0 where it is none). */
json_t *ckpt_json_get_array(ckpt_json *source, const json_t *object, const char *key);
json_t *ckpt_json_get_object(ckpt_json *source, const json_t *object, const char *key);

/* Items of arrays. */
uint64_t ckpt_json_item_u64(ckpt_json *source, const json_t *array, size_t i);
uint32_t ckpt_json_item_hex32(ckpt_json *source, const json_t *array, size_t i);

#endif
