/* Parsing a transform's spec: a word, then numbers and named numbers. */
#include "transform_spec.h"

#include <math.h>
#include <string.h>
#include <trainrun/bytes.h>

enum { WORDS_MAX = 20, WORD_BYTES = 32, PAD_MAX = 1024 };

static const struct {
  const char *word;
  dl_op_kind kind;
  const char *takes;
} known[] = {
    {"decode", DL_OP_DECODE, "decode, decode rgb or decode grey"},
    {"resize", DL_OP_RESIZE, "resize N (of the shorter side) or resize HEIGHT WIDTH"},
    {"center-crop", DL_OP_CENTER_CROP, "center-crop N or center-crop HEIGHT WIDTH"},
    {"random-resized-crop", DL_OP_RESIZED_CROP,
     "random-resized-crop N or HEIGHT WIDTH, then scale LOW HIGH, ratio LOW HIGH"},
    {"random-crop", DL_OP_RANDOM_CROP, "random-crop N or HEIGHT WIDTH, then pad P"},
    {"flip", DL_OP_FLIP, "flip or flip PROBABILITY"},
    {"normalize", DL_OP_NORMALIZE,
     "normalize imagenet or normalize mean M... std S... (one of each, or one a channel)"},
    {"to-float", DL_OP_TO_FLOAT, "to-float"},
};
enum { KNOWN = sizeof known / sizeof *known };

/* The words of a spec, and how far they are read. */
typedef struct words {
  char text[WORDS_MAX][WORD_BYTES];
  size_t count, at;
} words;

static bool split(const char *spec, words *w) {
  w->count = w->at = 0;
  while (*(spec += strspn(spec, " ")) != '\0') {
    const size_t length = strcspn(spec, " ");
    if (w->count == WORDS_MAX || length >= WORD_BYTES) return false;
    memcpy(w->text[w->count], spec, length);
    w->text[w->count++][length] = '\0';
    spec += length;
  }
  return w->count > 0;
}

static bool accept(words *w, const char *word) {
  if (w->at == w->count || strcmp(w->text[w->at], word) != 0) return false;
  w->at++;
  return true;
}

static bool accept_real(words *w, double *value) {
  if (w->at == w->count || !tr_parse_real(w->text[w->at], value) || !isfinite(*value)) return false;
  w->at++;
  return true;
}

static bool accept_count(words *w, uint64_t least, uint64_t most, uint32_t *value) {
  uint64_t number;
  if (w->at == w->count || !tr_parse_u64(w->text[w->at], &number) || number < least || number > most) return false;
  *value = (uint32_t)number;
  w->at++;
  return true;
}

/* ---- What each word takes ---------------------------------------------------------------------------------------- */

static bool accept_size(words *w, dl_op *op) {
  if (!accept_count(w, 1, DL_SIDE_MAX, &op->height)) return false;
  if (!accept_count(w, 1, DL_SIDE_MAX, &op->width)) op->width = op->height;
  return true;
}

static bool accept_range(words *w, double range[2]) {
  return accept_real(w, &range[0]) && accept_real(w, &range[1]) && range[0] > 0 && range[0] <= range[1];
}

static bool parse_resized_crop(words *w, dl_op *op) {
  op->scale[0] = 0.08, op->scale[1] = 1;
  op->ratio[0] = 3.0 / 4, op->ratio[1] = 4.0 / 3;
  if (!accept_size(w, op)) return false;
  if (accept(w, "scale") && !(accept_range(w, op->scale) && op->scale[1] <= 1)) return false;
  return !accept(w, "ratio") || (accept_range(w, op->ratio) && op->ratio[0] >= 1e-3 && op->ratio[1] <= 1e3);
}

/* "mean" and "std" may be left out: then the first half of the numbers is the mean. */
static bool parse_normalize(words *w, dl_op *op) {
  static const float mean[] = {0.485f, 0.456f, 0.406f}, std[] = {0.229f, 0.224f, 0.225f};
  if (accept(w, "imagenet")) {
    op->value_count = 3;
    memcpy(op->mean, mean, sizeof mean);
    memcpy(op->std, std, sizeof std);
    return true;
  }
  double values[8];
  size_t count = 0, half = 0;
  accept(w, "mean");
  while (count < 8 && accept_real(w, &values[count])) {
    count++;
    if (half == 0 && accept(w, "std")) half = count;
  }
  if (half == 0) half = count / 2;
  if (half == 0 || count != 2 * half) return false;
  op->value_count = half;
  for (size_t i = 0; i < half; i++) {
    op->mean[i] = (float)values[i];
    op->std[i] = (float)values[half + i];
    if (op->std[i] == 0) return false;
  }
  return true;
}

static bool parse(words *w, dl_op *op) {
  switch (op->kind) {
    case DL_OP_DECODE:
      if (accept(w, "rgb")) op->channels = 3;
      if (op->channels == 0 && accept(w, "grey")) op->channels = 1;
      return true;
    case DL_OP_RESIZE:
    case DL_OP_RESIZE_SHORT:
      if (w->count == 2) op->kind = DL_OP_RESIZE_SHORT;
      return accept_size(w, op);
    case DL_OP_CENTER_CROP: return accept_size(w, op);
    case DL_OP_RESIZED_CROP: return parse_resized_crop(w, op);
    case DL_OP_RANDOM_CROP: return accept_size(w, op) && (!accept(w, "pad") || accept_count(w, 0, PAD_MAX, &op->pad));
    case DL_OP_FLIP:
      op->probability = 0.5;
      return w->count == 1 || (accept_real(w, &op->probability) && op->probability >= 0 && op->probability <= 1);
    case DL_OP_NORMALIZE: return parse_normalize(w, op);
    case DL_OP_TO_FLOAT: return true;
  }
  return false;
}

/* ---- Words ------------------------------------------------------------------------------------------------------- */

/* Insertions, deletions and replacements from one word to another. */
static size_t distance(const char *a, const char *b) {
  size_t row[WORD_BYTES + 1];
  const size_t length = strlen(b);
  for (size_t j = 0; j <= length; j++) row[j] = j;
  for (size_t i = 0; a[i] != '\0'; i++) {
    size_t diagonal = row[0];
    row[0] = i + 1;
    for (size_t j = 0; j < length; j++) {
      const size_t replaced = diagonal + (a[i] != b[j]);
      diagonal = row[j + 1];
      size_t best = row[j] < row[j + 1] ? row[j] + 1 : row[j + 1] + 1;
      if (replaced < best) best = replaced;
      row[j + 1] = best;
    }
  }
  return row[length];
}

static tr_status unknown(const char *spec, const char *word, tr_error *error) {
  size_t nearest = 0, least = SIZE_MAX;
  for (size_t i = 0; i < KNOWN; i++) {
    const size_t d = distance(word, known[i].word);
    if (d < least) least = d, nearest = i;
  }
  if (least <= strlen(word) / 2) {
    return tr_fail(error, TR_ERR_CONFIG, "transform \"%.80s\": there is no '%s'; near it is '%s': %s", spec, word,
                   known[nearest].word, known[nearest].takes);
  }
  return tr_fail(error, TR_ERR_CONFIG,
                 "transform \"%.80s\": there is no '%s'; there are decode, resize, center-crop, random-resized-crop, "
                 "random-crop, flip, normalize and to-float",
                 spec, word);
}

tr_status dl_op_parse(const char *spec, dl_op *op, tr_error *error) {
  words w;
  if (!split(spec, &w)) {
    return tr_fail(error, TR_ERR_CONFIG, "transform \"%.80s\": not a word and up to %d numbers, as in \"resize 256\"",
                   spec, WORDS_MAX - 1);
  }
  size_t i = 0;
  while (i < KNOWN && strcmp(known[i].word, w.text[0]) != 0) i++;
  if (i == KNOWN) return unknown(spec, w.text[0], error);
  dl_op parsed = {.kind = known[i].kind};
  w.at = 1;
  if (!parse(&w, &parsed) || w.at != w.count) {
    const char *wrong = w.at < w.count ? w.text[w.at] : "its end";
    return tr_fail(error, TR_ERR_CONFIG, "transform \"%.80s\": wrong at %s; it is written: %s", spec, wrong,
                   known[i].takes);
  }
  *op = parsed;
  return TR_OK;
}
