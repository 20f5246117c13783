/* Making the list of transforms: see transform.h. All of to-float and normalize is a function of a byte, so it is computed
 * once for each byte, into a table a channel. */
#include "transform_list.h"

#include <inttypes.h>
#include <string.h>

bool dl_is_image(const tr_field *field) {
  return field->dtype == TR_U8 &&
         (field->ndim == 2 || (field->ndim == 3 && field->shape[2] >= 1 && field->shape[2] <= DL_CHANNELS_MAX));
}

uint32_t dl_image_channels(const tr_field *field) { return field->ndim == 3 ? (uint32_t)field->shape[2] : 1; }

/* ---- Sizes ------------------------------------------------------------------------------------------------------- */

dl_size dl_size_after(const dl_op *op, dl_size s) {
  if (op->kind == DL_OP_FLIP || op->kind == DL_OP_DECODE) return s;
  if (op->kind != DL_OP_RESIZE_SHORT) return (dl_size){op->height, op->width};
  return s.height <= s.width ? (dl_size){op->height, op->height * s.width / s.height}
                             : (dl_size){op->height * s.height / s.width, op->height};
}

bool dl_first_cut(const dl_transforms *t, uint64_t epoch, uint64_t id, dl_size s, dl_crop *crop, dl_size *result) {
  if (t->op_count == 0) return false;
  const dl_op *op = &t->ops[0];
  *crop = (dl_crop){.height = (uint32_t)s.height, .width = (uint32_t)s.width};
  *result = dl_size_after(op, s);
  if (op->kind == DL_OP_RESIZED_CROP) {
    *crop = dl_crop_resized(op, t->seed, epoch, id, (uint32_t)s.height, (uint32_t)s.width);
  }
  return op->kind == DL_OP_RESIZED_CROP || op->kind == DL_OP_RESIZE || op->kind == DL_OP_RESIZE_SHORT;
}

dl_part dl_part_whole(uint32_t height, uint32_t width) {
  return (dl_part){.shrink = 1, .height = height, .width = width};
}

dl_part dl_part_under(const dl_crop *crop, uint32_t shrink) {
  dl_part part = {.shrink = shrink, .top = crop->top / shrink, .left = crop->left / shrink};
  part.height = (crop->top + crop->height + shrink - 1) / shrink - part.top;
  part.width = (crop->left + crop->width + shrink - 1) / shrink - part.left;
  return part;
}

dl_part dl_transforms_part(const dl_transforms *t, size_t field, uint64_t epoch, uint64_t id, uint32_t height,
                           uint32_t width) {
  dl_crop crop;
  dl_size result;
  if (!t->touches[field] || !dl_first_cut(t, epoch, id, (dl_size){height, width}, &crop, &result)) {
    return dl_part_whole(height, width);
  }
  uint32_t shrink = 8;
  while (shrink > 1 && (crop.height < shrink * result.height || crop.width < shrink * result.width)) shrink /= 2;
  return dl_part_under(&crop, shrink);
}

/* ---- Making ------------------------------------------------------------------------------------------------------ */

/* (x / 255 - mean) / std, as often as it is asked for. */
static void add_to_table(dl_transforms *t, const dl_op *op) {
  for (size_t c = 0; c < DL_CHANNELS_MAX; c++) {
    for (size_t i = 0; i < 256; i++) {
      if (!t->to_float) t->table[c][i] = (float)i / 255.0f;
      if (op->kind == DL_OP_NORMALIZE) {
        const size_t at = op->value_count == 1 ? 0 : c < op->value_count ? c : op->value_count - 1;
        t->table[c][i] = (t->table[c][i] - op->mean[at]) / op->std[at];
      }
    }
  }
  t->to_float = true;
}

static tr_status add_op(dl_transforms *t, const char *spec, dl_op *op, tr_error *error) {
  if (op->kind == DL_OP_NORMALIZE || op->kind == DL_OP_TO_FLOAT) {
    if (op->kind == DL_OP_TO_FLOAT && t->to_float) {
      return tr_fail(error, TR_ERR_CONFIG, "transform \"%.80s\": the images are floats by then", spec);
    }
    add_to_table(t, op);
    return TR_OK;
  }
  if (t->to_float) {
    return tr_fail(error, TR_ERR_CONFIG, "transform \"%.80s\": put it before normalize and to-float: it works on bytes",
                   spec);
  }
  if (op->kind == DL_OP_DECODE) {
    if (op->channels != 0) t->channels = op->channels;
    return TR_OK;
  }
  for (size_t i = 0; i < t->op_count; i++) op->number += t->ops[i].kind == op->kind;
  if (op->kind != DL_OP_FLIP && op->kind != DL_OP_RESIZE_SHORT) t->decides_size = true;
  t->ops[t->op_count++] = *op;
  return TR_OK;
}

static tr_status fields_after(dl_transforms *t, size_t i, tr_error *error) {
  tr_field *field = &t->to[i];
  dl_size s = {(uint64_t)field->shape[0], (uint64_t)field->shape[1]};
  for (size_t o = 0; o < t->op_count; o++) {
    s = dl_size_after(&t->ops[o], s);
    if (s.height < 1 || s.width < 1 || s.height > DL_SIDE_MAX || s.width > DL_SIDE_MAX) {
      return tr_fail(error, TR_ERR_CONFIG,
                     "transforms: field '%s' would become %" PRIu64 " x %" PRIu64 " pixels; a side has 1 to %d",
                     field->name, s.height, s.width, DL_SIDE_MAX);
    }
  }
  field->shape[0] = (int64_t)s.height;
  field->shape[1] = (int64_t)s.width;
  if (t->channels != 0) {
    field->ndim = 3;
    field->shape[2] = t->channels;
  }
  field->dtype = t->to_float ? TR_F32 : TR_U8;
  return dl_field_finish(field, error);
}

static tr_status take_fields(dl_transforms *t, const tr_field *fields, size_t count, tr_error *error) {
  size_t images = 0;
  t->field_count = count;
  for (size_t i = 0; i < count; i++) {
    t->from[i] = t->to[i] = fields[i];
    t->touches[i] = dl_is_image(&fields[i]);
    if (!t->touches[i]) continue;
    images++;
    TR_TRY(fields_after(t, i, error));
  }
  if (images > 0) return TR_OK;
  return tr_fail(error, TR_ERR_CONFIG,
                 "transforms: no field is an image, u8 of [height, width] or [height, width, channels]; the first is "
                 "'%s', %s of %u dimensions",
                 count > 0 ? fields[0].name : "", count > 0 ? tr_dtype_name(fields[0].dtype) : "none",
                 count > 0 ? fields[0].ndim : 0);
}

/* As many means as the images have channels. */
static tr_status check_values(const dl_transforms *t, const char *spec, const dl_op *op, tr_error *error) {
  if (op->kind != DL_OP_NORMALIZE || op->value_count == 1) return TR_OK;
  for (size_t i = 0; i < t->field_count; i++) {
    if (!t->touches[i] || dl_image_channels(&t->to[i]) == op->value_count) continue;
    return tr_fail(error, TR_ERR_CONFIG,
                   "transform \"%.80s\": it has values for %zu channels, the images of field '%s' have %u%s", spec,
                   op->value_count, t->to[i].name, dl_image_channels(&t->to[i]),
                   dl_image_channels(&t->to[i]) == 1 ? " (\"decode rgb\" makes three of it)" : "");
  }
  return TR_OK;
}

tr_status dl_transforms_check(const char *const *specs, size_t count, tr_error *error) {
  dl_op op;
  if (count > DL_OPS_MAX) return tr_fail(error, TR_ERR_CONFIG, "transforms: more than %d", DL_OPS_MAX);
  for (size_t i = 0; i < count; i++) TR_TRY(dl_op_parse(specs[i], &op, error));
  return TR_OK;
}

static tr_status make(dl_transforms *t, const char *const *specs, size_t count, const tr_field *fields,
                      size_t field_count, tr_error *error) {
  dl_op op;
  TR_TRY(dl_transforms_check(specs, count, error));
  for (size_t i = 0; i < count; i++) {
    TR_TRY(dl_op_parse(specs[i], &op, error));
    TR_TRY(add_op(t, specs[i], &op, error));
  }
  TR_TRY(take_fields(t, fields, field_count, error));
  for (size_t i = 0; i < count; i++) {
    TR_TRY(dl_op_parse(specs[i], &op, error));
    TR_TRY(check_values(t, specs[i], &op, error));
  }
  return TR_OK;
}

tr_status dl_transforms_create(const tr_allocator *allocator, uint64_t seed, const char *const *specs, size_t count,
                               const tr_field *fields, size_t field_count, dl_transforms **out, tr_error *error) {
  dl_transforms *t = tr_calloc(allocator, 1, sizeof *t);
  if (t == NULL) return tr_fail_memory(error, "transforms", sizeof *t);
  t->allocator = allocator;
  t->seed = seed;
  const tr_status status = make(t, specs, count, fields, field_count, error);
  if (status == TR_OK) {
    *out = t;
  } else {
    tr_free(allocator, t);
  }
  return status;
}

void dl_transforms_destroy(dl_transforms *t) {
  if (t != NULL) tr_free(t->allocator, t);
}

const tr_field *dl_transforms_fields(const dl_transforms *t) { return t->to; }

bool dl_transforms_touch(const dl_transforms *t, size_t field) { return t->touches[field]; }

bool dl_transforms_any_size(const dl_transforms *t, size_t field) { return t->touches[field] && t->decides_size; }
