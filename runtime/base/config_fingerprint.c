/* The fingerprint: what decides whether one run may go on where another stopped, as compact JSON with sorted keys. */
#include "config_internal.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Keys that are compared as the user wrote them, so that the same job in another folder is the same job. */
static bool is_as_written(const tr_knob *knob) {
  const tr_knob_shape shape = tr_knob_rule_of(knob)->shape;
  return knob->fingerprint && (shape == TR_SHAPE_PROGRAM || shape == TR_SHAPE_PATH || shape == TR_SHAPE_TRAIN ||
                               shape == TR_SHAPE_VALID || strcmp(knob->key, "command") == 0);
}

const tr_value *tr_config_as_written(const tr_config *config, const tr_setting *setting) {
  if (!setting->set || !is_as_written(setting->knob)) return NULL;
  if (setting->from == TR_FROM_FILE) {
    const tr_value *kept = tr_value_get(tr_value_get(&config->root, "as-written"), setting->key);
    if (kept != NULL) return kept;
  }
  return tr_tree_find(&config->raw, setting->key);
}

static int compare_keys(const void *a, const void *b) {
  return strcmp((*(const tr_value *const *)a)->key, (*(const tr_value *const *)b)->key);
}

static void write_value(tr_writer *writer, const tr_value *value);

static void write_table(tr_writer *writer, const tr_value *table) {
  const tr_value **sorted = tr_calloc(writer->allocator, table->count + 1, sizeof *sorted);
  if (sorted == NULL) {
    writer->failed = true;
    return;
  }
  for (size_t i = 0; i < table->count; i++) sorted[i] = &table->items[i];
  qsort(sorted, table->count, sizeof *sorted, compare_keys);
  tr_write_text(writer, "{");
  for (size_t i = 0; i < table->count; i++) {
    if (i > 0) tr_write_text(writer, ",");
    tr_write_json_string(writer, sorted[i]->key);
    tr_write_text(writer, ":");
    write_value(writer, sorted[i]);
  }
  tr_write_text(writer, "}");
  tr_free(writer->allocator, sorted);
}

static void write_value(tr_writer *writer, const tr_value *value) {
  switch (value->type) {
    case TR_VALUE_STRING: tr_write_json_string(writer, value->text); break;
    case TR_VALUE_INTEGER: tr_write_text(writer, "%lld", (long long)value->integer); break;
    case TR_VALUE_REAL: tr_write_json_real(writer, value->real); break;
    case TR_VALUE_BOOLEAN: tr_write_text(writer, value->integer != 0 ? "true" : "false"); break;
    case TR_VALUE_ARRAY:
      tr_write_text(writer, "[");
      for (size_t i = 0; i < value->count; i++) {
        if (i > 0) tr_write_text(writer, ",");
        write_value(writer, &value->items[i]);
      }
      tr_write_text(writer, "]");
      break;
    case TR_VALUE_TABLE: write_table(writer, value); break;
  }
}

static void write_setting(tr_writer *writer, const tr_config *config, const tr_setting *s) {
  const tr_value *written = tr_config_as_written(config, s);
  if (written != NULL) {
    write_value(writer, written);
    return;
  }
  switch (s->knob->type) {
    case TR_KNOB_INTEGER:
    case TR_KNOB_COUNT: tr_write_text(writer, "%lld", (long long)s->integer); break;
    case TR_KNOB_REAL: tr_write_json_real(writer, s->real); break;
    case TR_KNOB_BOOLEAN: tr_write_text(writer, s->integer != 0 ? "true" : "false"); break;
    case TR_KNOB_STRINGS:
      tr_write_text(writer, "[");
      for (size_t i = 0; i < s->count; i++) {
        if (i > 0) tr_write_text(writer, ",");
        tr_write_json_string(writer, s->items[i]);
      }
      tr_write_text(writer, "]");
      break;
    case TR_KNOB_VALUE: write_value(writer, s->value); break;
    default: tr_write_json_string(writer, s->text);
  }
}

/* A fingerprint written by a version without a knob must equal one of a version in which it is unset, so what has no
 * value is left out; betas given as integers are the same numbers. */
void tr_config_write_fingerprint(const tr_config *config, tr_writer *writer) {
  size_t count;
  const tr_knob *knobs = tr_config_knobs(&count);
  const char *last = "";
  bool first = true;
  tr_write_text(writer, "{");
  for (;;) {
    const tr_setting *next = NULL;
    for (size_t i = 0; i < count; i++) {
      const tr_setting *s = &config->settings[i];
      const bool empty = s->value != NULL && s->value->type == TR_VALUE_TABLE && s->value->count == 0;
      if (!knobs[i].fingerprint || (!s->set && s->value == NULL) || empty || strcmp(knobs[i].key, last) <= 0) continue;
      if (next == NULL || strcmp(s->key, next->key) < 0) next = s;
    }
    if (next == NULL) break;
    if (!first) tr_write_text(writer, ",");
    tr_write_json_string(writer, next->key);
    tr_write_text(writer, ":");
    write_setting(writer, config, next);
    last = next->key;
    first = false;
  }
  tr_write_text(writer, "}");
}

static bool numbers_differ(const json_t *a, const json_t *b) {
  if (json_is_integer(a) && json_is_integer(b)) return json_integer_value(a) != json_integer_value(b);
  return json_number_value(a) != json_number_value(b);
}

enum { KEY_BYTES = 128 };

/* Follows equal keys down, so that what is named is "params.width" and not "params". */
static bool find_difference(json_t *a, json_t *b, char key[KEY_BYTES]) {
  key[0] = '\0';
  if (json_is_number(a) && json_is_number(b)) return numbers_differ(a, b);
  if (!json_is_object(a) || !json_is_object(b)) return !json_equal(a, b);
  const char *first = NULL, *name;
  char below[KEY_BYTES] = "";
  json_t *value;
  json_object_foreach(a, name, value) {
    char rest[KEY_BYTES] = "";
    json_t *other = json_object_get(b, name);
    if (other != NULL && !find_difference(value, other, rest)) continue;
    if (first != NULL && strcmp(name, first) > 0) continue;
    first = name;
    memcpy(below, rest, sizeof below);
  }
  json_object_foreach(b, name, value) {
    if (json_object_get(a, name) != NULL || (first != NULL && strcmp(name, first) > 0)) continue;
    first = name;
    below[0] = '\0';
  }
  if (first == NULL) return false;
  snprintf(key, KEY_BYTES, "%.60s%s%.60s", first, below[0] != '\0' ? "." : "", below);
  return true;
}

bool tr_config_fingerprint_differs(const char *a, const char *b, char key[128]) {
  key[0] = '\0';
  if (strcmp(a, b) == 0) return false;
  json_t *x = json_loads(a, JSON_REJECT_DUPLICATES, NULL), *y = json_loads(b, JSON_REJECT_DUPLICATES, NULL);
  bool differs = true;
  if (json_is_object(x) && json_is_object(y)) {
    differs = find_difference(x, y, key);
  } else {
    snprintf(key, 128, "fingerprint"); /* one of them is no fingerprint at all */
  }
  json_decref(x);
  json_decref(y);
  return differs;
}
