/* An image on its way through the list of transforms, as a view: a crop moves it, a flip only notes that it is to be
 * mirrored, a resize or a pad makes a new image. The last step writes the batch's row, mirrored where noted, through the
 * list's table where it becomes f32. */
#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "transform_list.h"

/* An image on its way. */
typedef struct way {
  const dl_transforms *t;
  uint64_t epoch, id;
  dl_view view;
  bool mirrored; /* the image is the mirror of the view */
  size_t made;   /* images made so far: they lie in two rooms by turns */
  dl_scratch *scratch;
} way;

static tr_status new_image(way *w, size_t bytes, uint8_t **pixels, tr_error *error) {
  return dl_scratch_room(w->scratch, w->made++ % 2 == 0 ? DL_ROOM_EVEN : DL_ROOM_ODD, bytes, pixels, error);
}

static void show(way *w, const uint8_t *pixels, uint32_t height, uint32_t width) {
  w->view = (dl_view){pixels, (size_t)width * w->view.channels, height, width, w->view.channels};
}

static void mirror_row(const uint8_t *from, uint8_t *to, uint32_t width, uint32_t channels) {
  for (uint32_t x = 0; x < width; x++) {
    for (uint32_t c = 0; c < channels; c++) to[(size_t)x * channels + c] = from[(size_t)(width - 1 - x) * channels + c];
  }
}

static tr_status straighten(way *w, tr_error *error) {
  const dl_view v = w->view;
  uint8_t *pixels;
  if (!w->mirrored) return TR_OK;
  TR_TRY(new_image(w, (size_t)v.height * v.width * v.channels, &pixels, error));
  for (uint32_t y = 0; y < v.height; y++) {
    mirror_row(v.at + y * v.stride, pixels + (size_t)y * v.width * v.channels, v.width, v.channels);
  }
  show(w, pixels, v.height, v.width);
  w->mirrored = false;
  return TR_OK;
}

static tr_status resize(way *w, const dl_box *box, dl_size to, tr_error *error) {
  uint8_t *pixels;
  if (to.height < 1 || to.width < 1 || to.height > DL_SIDE_MAX || to.width > DL_SIDE_MAX) {
    return tr_fail(error, TR_ERR_CORRUPT,
                   "its %u x %u pixels would become %" PRIu64 " x %" PRIu64 "; a side has 1 to %d", w->view.height,
                   w->view.width, to.height, to.width, DL_SIDE_MAX);
  }
  TR_TRY(new_image(w, to.height * to.width * w->view.channels, &pixels, error));
  TR_TRY(dl_resize(&w->view, box, (uint32_t)to.height, (uint32_t)to.width, pixels, w->scratch, error));
  show(w, pixels, (uint32_t)to.height, (uint32_t)to.width);
  return TR_OK;
}

static dl_view cut(const dl_view *v, uint32_t top, uint32_t left, uint32_t height, uint32_t width) {
  return (dl_view){v->at + top * v->stride + (size_t)left * v->channels, v->stride, height, width, v->channels};
}

/* The window of the image, extended by zeros, that begins at (top, left): both may be negative. */
static tr_status crop_at(way *w, int64_t top, int64_t left, uint32_t height, uint32_t width, tr_error *error) {
  const dl_view v = w->view;
  if (top >= 0 && left >= 0 && top + height <= v.height && left + width <= v.width) {
    if (w->mirrored) left = (int64_t)v.width - left - width;
    w->view = cut(&v, (uint32_t)top, (uint32_t)left, height, width);
    return TR_OK;
  }
  TR_TRY(straighten(w, error));
  const dl_view s = w->view;
  const size_t row_bytes = (size_t)width * s.channels;
  const int64_t first = left < 0 ? 0 : left, last = left + width < s.width ? left + width : s.width;
  uint8_t *pixels;
  TR_TRY(new_image(w, height * row_bytes, &pixels, error));
  memset(pixels, 0, height * row_bytes);
  for (int64_t y = 0; y < height && last > first; y++) {
    if (top + y < 0 || top + y >= s.height) continue;
    memcpy(pixels + (size_t)y * row_bytes + (size_t)(first - left) * s.channels,
           s.at + (size_t)(top + y) * s.stride + (size_t)first * s.channels, (size_t)(last - first) * s.channels);
  }
  show(w, pixels, height, width);
  return TR_OK;
}

static tr_status random_crop(way *w, const dl_op *op, tr_error *error) {
  const uint32_t height = w->view.height + 2 * op->pad, width = w->view.width + 2 * op->pad;
  if (height < op->height || width < op->width) {
    return tr_fail(error, TR_ERR_CORRUPT,
                   "its %u x %u pixels are smaller than the random-crop of %u x %u; resize before it, or give it a pad",
                   w->view.height, w->view.width, op->height, op->width);
  }
  const dl_crop crop = dl_crop_random(op, w->t->seed, w->epoch, w->id, height, width);
  return crop_at(w, (int64_t)crop.top - op->pad, (int64_t)crop.left - op->pad, op->height, op->width, error);
}

/* As torchvision: the middle, rounded half to even, or zeros around what is too small, the odd one behind it. */
static int64_t centered(uint32_t whole, uint32_t part) {
  return part > whole ? -(int64_t)((part - whole) / 2) : (int64_t)rint((whole - part) / 2.0);
}

static tr_status do_op(way *w, const dl_op *op, tr_error *error) {
  const dl_size s = {w->view.height, w->view.width};
  dl_crop crop = {.height = w->view.height, .width = w->view.width};
  switch (op->kind) {
    case DL_OP_FLIP: w->mirrored ^= dl_crop_flips(op, w->t->seed, w->epoch, w->id); return TR_OK;
    case DL_OP_CENTER_CROP:
      return crop_at(w, centered(w->view.height, op->height), centered(w->view.width, op->width), op->height, op->width,
                     error);
    case DL_OP_RANDOM_CROP: return random_crop(w, op, error);
    case DL_OP_RESIZED_CROP:
      crop = dl_crop_resized(op, w->t->seed, w->epoch, w->id, w->view.height, w->view.width);
      break;
    default: break;
  }
  TR_TRY(straighten(w, error));
  w->view = cut(&w->view, crop.top, crop.left, crop.height, crop.width);
  const dl_box box = {.bottom = crop.height, .right = crop.width};
  return resize(w, &box, dl_size_after(op, s), error);
}

/* The first transform, on the part of the image that there is, made smaller: then the cut falls between pixels. */
static tr_status do_first_cut(way *w, const dl_part *part, const dl_crop *crop, dl_size to, tr_error *error) {
  const dl_part under = dl_part_under(crop, part->shrink);
  const double shrink = part->shrink;
  w->view = cut(&w->view, under.top - part->top, under.left - part->left, under.height, under.width);
  const dl_box box = {.top = crop->top / shrink - under.top,
                      .left = crop->left / shrink - under.left,
                      .bottom = (crop->top + crop->height) / shrink - under.top,
                      .right = (crop->left + crop->width) / shrink - under.left};
  return resize(w, &box, to, error);
}

/* Colours to grey as Pillow weighs them; more than three channels are not made into others. */
static tr_status to_grey(way *w, tr_error *error) {
  const dl_view s = w->view;
  uint8_t *pixels;
  TR_TRY(new_image(w, (size_t)s.height * s.width, &pixels, error));
  for (uint32_t y = 0; y < s.height; y++) {
    const uint8_t *from = s.at + y * s.stride;
    for (uint32_t x = 0; x < s.width; x++, from += 3) {
      pixels[(size_t)y * s.width + x] = (uint8_t)((from[0] * 19595u + from[1] * 38470u + from[2] * 7471u + 0x8000u) >>
                                                  16);
    }
  }
  w->view.channels = 1;
  show(w, pixels, s.height, s.width);
  return TR_OK;
}

static void write_bytes(const way *w, uint32_t channels, uint8_t *to) {
  const dl_view *v = &w->view;
  for (uint32_t y = 0; y < v->height; y++) {
    const uint8_t *from = v->at + y * v->stride;
    uint8_t *row = to + (size_t)y * v->width * channels;
    if (channels == 3 && v->channels == 1) {
      for (uint32_t x = 0; x < v->width; x++) {
        memset(row + 3 * (size_t)x, from[w->mirrored ? v->width - 1 - x : x], 3);
      }
    } else if (w->mirrored) {
      mirror_row(from, row, v->width, channels);
    } else {
      memcpy(row, from, (size_t)v->width * channels);
    }
  }
}

static void write_floats(const way *w, uint32_t channels, float *to) {
  const dl_view *v = &w->view;
  const ptrdiff_t step = w->mirrored ? -(ptrdiff_t)v->channels : (ptrdiff_t)v->channels;
  const size_t spread = v->channels == channels ? 1 : 0; /* 0: one channel is read for all */
  for (uint32_t y = 0; y < v->height; y++) {
    const uint8_t *from = v->at + y * v->stride + (w->mirrored ? (size_t)(v->width - 1) * v->channels : 0);
    float *row = to + (size_t)y * v->width * channels;
    if (channels == 3) {
      for (uint32_t x = 0; x < v->width; x++, from += step, row += 3) {
        row[0] = w->t->table[0][from[0]];
        row[1] = w->t->table[1][from[spread]];
        row[2] = w->t->table[2][from[2 * spread]];
      }
    } else {
      for (uint32_t x = 0; x < v->width; x++, from += step, row += channels) {
        for (uint32_t c = 0; c < channels; c++) row[c] = w->t->table[c][from[c * spread]];
      }
    }
  }
}

tr_status dl_transforms_image(const dl_transforms *t, size_t field, uint64_t epoch, uint64_t id, const dl_image *image,
                              void *to, dl_scratch *scratch, tr_error *error) {
  const tr_field *wanted = &t->to[field];
  const uint32_t channels = dl_image_channels(wanted);
  way w = {.t = t, .epoch = epoch, .id = id, .scratch = scratch};
  w.view.channels = image->channels;
  show(&w, image->pixels, image->part.height, image->part.width);
  if (channels == 1 && w.view.channels == 3 && t->channels == 1) TR_TRY(to_grey(&w, error));
  if (w.view.channels != channels && !(w.view.channels == 1 && channels == 3 && t->channels == 3)) {
    return tr_fail(error, TR_ERR_CORRUPT, "it has %u channels, the first sample has %u%s", image->channels,
                   dl_image_channels(&t->from[field]),
                   t->channels == 0 ? "; \"decode rgb\" in data.transforms makes three of one" : "");
  }
  dl_crop crop;
  dl_size result;
  size_t i = 0;
  if (dl_first_cut(t, epoch, id, (dl_size){image->height, image->width}, &crop, &result)) {
    TR_TRY(do_first_cut(&w, &image->part, &crop, result, error));
    i = 1;
  }
  for (; i < t->op_count; i++) TR_TRY(do_op(&w, &t->ops[i], error));
  if (w.view.height != wanted->shape[0] || w.view.width != wanted->shape[1]) {
    return tr_fail(error, TR_ERR_CORRUPT,
                   "it is %u x %u pixels after its transforms, the first sample of the data set is %" PRId64
                   " x %" PRId64 "; end in a random-resized-crop or a center-crop where images differ in size",
                   w.view.height, w.view.width, wanted->shape[0], wanted->shape[1]);
  }
  if (t->to_float) {
    write_floats(&w, channels, to);
  } else {
    write_bytes(&w, channels, to);
  }
  return TR_OK;
}

tr_status dl_transforms_apply(const dl_transforms *t, size_t field, uint64_t epoch, uint64_t id, const tr_field *found,
                              const void *from, void *to, dl_scratch *scratch, tr_error *error) {
  if (!t->touches[field]) {
    memcpy(to, from, t->to[field].bytes);
    return TR_OK;
  }
  if (!dl_is_image(found) || found->ndim != t->from[field].ndim || found->shape[0] < 1 || found->shape[1] < 1 ||
      found->shape[0] > UINT32_MAX || found->shape[1] > UINT32_MAX) {
    return tr_fail(error, TR_ERR_CORRUPT, "it is not an image as that of the first sample is");
  }
  const dl_image image = {.pixels = from,
                          .height = (uint32_t)found->shape[0],
                          .width = (uint32_t)found->shape[1],
                          .channels = dl_image_channels(found),
                          .part = dl_part_whole((uint32_t)found->shape[0], (uint32_t)found->shape[1])};
  return dl_transforms_image(t, field, epoch, id, &image, to, scratch, error);
}
