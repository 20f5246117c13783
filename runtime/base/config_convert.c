/* From a value to what its knob means: the type, the unit, the range, the choice.
 *
 * Text converts to any type where it came from a flag, the environment or ${NAME}; in a job file a number in quotes is a
 * mistake. */
#include "config_internal.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

static const char *value_words(const tr_value *value) {
  switch (value->type) {
    case TR_VALUE_STRING: return "a string";
    case TR_VALUE_INTEGER: return "an integer";
    case TR_VALUE_REAL: return "a number";
    case TR_VALUE_BOOLEAN: return "a boolean";
    case TR_VALUE_ARRAY: return "a list";
    case TR_VALUE_TABLE: return "a table";
  }
  return "something else";
}

typedef struct conversion {
  tr_loader *loader;
  const char *path;
  const tr_value *value;
  const tr_knob *knob;
  const tr_knob_rule *rule;
  bool from_text; /* strings convert */
} conversion;

static const char *last_segment(const char *path) {
  const char *dot = strrchr(path, '.');
  return dot != NULL ? dot + 1 : path;
}

static bool refuse_type(const conversion *c, const char *hint) {
  if (c->value->type == TR_VALUE_STRING && c->from_text) {
    tr_loader_mistake(c->loader, c->path, c->value, false, hint, "'%s' must be %s, not '%s'", last_segment(c->path),
                      tr_knob_type_words(c->knob), c->value->text);
  } else {
    tr_loader_mistake(c->loader, c->path, c->value, false, hint, "'%s' must be %s, not %s", last_segment(c->path),
                      tr_knob_type_words(c->knob), value_words(c->value));
  }
  return false;
}

static bool parse_integer(const char *text, int64_t *out) {
  const bool negative = *text == '-';
  uint64_t magnitude;
  if (!tr_parse_u64(text + (*text == '-' || *text == '+'), &magnitude) || magnitude > INT64_MAX) return false;
  *out = negative ? -(int64_t)magnitude : (int64_t)magnitude;
  return true;
}

static bool check_range(const conversion *c, double number, const char *shown) {
  if (number >= c->rule->min && number <= c->rule->max) return true;
  if (number < c->rule->min) {
    tr_loader_mistake(c->loader, c->path, c->value, false, NULL, "'%s' must be at least %.15g, not %s",
                      last_segment(c->path), c->rule->min, shown);
  } else {
    tr_loader_mistake(c->loader, c->path, c->value, false, NULL, "'%s' must be at most %.15g, not %s",
                      last_segment(c->path), c->rule->max, shown);
  }
  return false;
}

static bool convert_integer(const conversion *c, tr_setting *setting) {
  int64_t number;
  const bool is_text = c->value->type == TR_VALUE_STRING;
  if (c->knob->type == TR_KNOB_COUNT && is_text && strcmp(c->value->text, "auto") == 0) {
    setting->integer = 0;
    return true;
  }
  if (c->value->type == TR_VALUE_INTEGER) {
    number = c->value->integer;
  } else if (is_text && parse_integer(c->value->text, &number)) {
    if (!c->from_text) return refuse_type(c, "remove the quotes");
  } else if (c->value->type == TR_VALUE_REAL && fabs(c->value->real) < 1e18 && rint(c->value->real) == c->value->real) {
    return refuse_type(c, "write it without a point or exponent");
  } else {
    return refuse_type(c, NULL);
  }
  char shown[32];
  snprintf(shown, sizeof shown, "%lld", (long long)number);
  if (!check_range(c, (double)number, shown)) return false;
  setting->integer = number;
  setting->real = (double)number;
  return true;
}

static bool convert_real(const conversion *c, tr_setting *setting) {
  double number;
  if (c->value->type == TR_VALUE_INTEGER || c->value->type == TR_VALUE_REAL) {
    number = c->value->real;
  } else if (c->value->type == TR_VALUE_STRING && tr_parse_real(c->value->text, &number)) {
    if (!c->from_text) return refuse_type(c, "remove the quotes");
  } else {
    return refuse_type(c, NULL);
  }
  if (!isfinite(number)) {
    tr_loader_mistake(c->loader, c->path, c->value, false, NULL, "'%s' must be a finite number", last_segment(c->path));
    return false;
  }
  char shown[32];
  snprintf(shown, sizeof shown, "%.15g", number);
  if (!check_range(c, number, shown)) return false;
  setting->real = number;
  return true;
}

static bool convert_boolean(const conversion *c, tr_setting *setting) {
  if (c->value->type == TR_VALUE_BOOLEAN) {
    setting->integer = c->value->integer;
    return true;
  }
  const char *text = c->value->type == TR_VALUE_STRING ? c->value->text : "";
  const bool yes = strcmp(text, "true") == 0 || (c->from_text && strcmp(text, "1") == 0);
  const bool no = strcmp(text, "false") == 0 || (c->from_text && strcmp(text, "0") == 0);
  if ((yes || no) && !c->from_text) return refuse_type(c, "remove the quotes");
  if (!yes && !no) return refuse_type(c, NULL);
  setting->integer = yes;
  return true;
}

static bool convert_amount(const conversion *c, tr_setting *setting) {
  const bool is_bytes = c->knob->type == TR_KNOB_BYTES;
  if (c->value->type != TR_VALUE_STRING) {
    char hint[96] = "";
    if (c->value->type == TR_VALUE_INTEGER && c->value->integer >= 0) {
      snprintf(hint, sizeof hint,
               is_bytes ? "add a unit: \"%lldMiB\" (B, KiB, MiB, GiB, TiB)" : "add a unit: \"%llds\" (ms, s, m, h, d)",
               (long long)c->value->integer);
    }
    return refuse_type(c, hint[0] != '\0' ? hint : NULL);
  }
  uint64_t amount;
  if (!(is_bytes ? tr_parse_bytes : tr_parse_duration)(c->value->text, &amount)) {
    tr_loader_mistake(c->loader, c->path, c->value, false,
                      is_bytes ? "sizes are a number and B, KiB, MiB, GiB, TiB, KB, MB, GB or TB: \"64MiB\""
                               : "times are a number and ns, us, ms, s, m, h or d: \"500ms\"",
                      "'%s' is no %s", c->value->text, is_bytes ? "size" : "time");
    return false;
  }
  if ((double)amount < c->rule->min) {
    tr_loader_mistake(c->loader, c->path, c->value, false, NULL, "'%s' is too small for '%s'", c->value->text,
                      last_segment(c->path));
    return false;
  }
  setting->amount = amount;
  setting->text = c->value->text;
  return true;
}

bool tr_parse_every(const char *text, tr_every *every) {
  *every = (tr_every){0};
  if (strcmp(text, "never") == 0) return true;
  if (tr_parse_duration(text, &every->time_ns)) return every->time_ns > 0;
  every->time_ns = 0;
  char number[40];
  const size_t length = strcspn(text, " ");
  if (text[length] != ' ' || length >= sizeof number) return false;
  memcpy(number, text, length);
  number[length] = '\0';
  const char *unit = text + length + 1;
  if (strcmp(unit, "epoch") == 0 || strcmp(unit, "epochs") == 0) {
    return tr_parse_real(number, &every->epochs) && every->epochs > 0;
  }
  uint64_t *count = strcmp(unit, "step") == 0 || strcmp(unit, "steps") == 0       ? &every->steps
                    : strcmp(unit, "sample") == 0 || strcmp(unit, "samples") == 0 ? &every->samples
                    : strcmp(unit, "token") == 0 || strcmp(unit, "tokens") == 0   ? &every->tokens
                                                                                  : NULL;
  return count != NULL && tr_parse_u64(number, count) && *count > 0;
}

static bool convert_every(const conversion *c, tr_setting *setting) {
  char hint[96] = "";
  if (c->value->type != TR_VALUE_STRING) {
    if (c->value->type == TR_VALUE_INTEGER && c->value->integer > 0) {
      snprintf(hint, sizeof hint, "say of what: \"%lld steps\"", (long long)c->value->integer);
    }
    return refuse_type(c, hint[0] != '\0' ? hint : NULL);
  }
  tr_every every;
  if (!tr_parse_every(c->value->text, &every)) {
    tr_loader_mistake(c->loader, c->path, c->value, false,
                      "write \"200 steps\", \"1 epoch\", \"50000 samples\", \"1000000 tokens\", \"10m\" or \"never\"",
                      "'%s' is no length", c->value->text);
    return false;
  }
  setting->every = every;
  setting->text = c->value->text;
  return true;
}

static bool is_choice(const char *choices, const char *text) {
  const size_t wanted = strlen(text);
  while (*choices != '\0') {
    const size_t length = strcspn(choices, "|");
    if (length == wanted && memcmp(choices, text, length) == 0) return true;
    choices += length + (choices[length] == '|');
  }
  return false;
}

/* "auto, cpu or cuda" */
static void list_choices(const char *choices, char text[192]) {
  size_t at = 0;
  while (*choices != '\0' && at < 192) {
    const size_t length = strcspn(choices, "|");
    const bool last = choices[length] == '\0';
    const int added = snprintf(text + at, 192 - at, "%s%.*s",
                               at == 0 ? ""
                               : last  ? " or "
                                       : ", ",
                               (int)length, choices);
    at += (size_t)added;
    choices += length + !last;
  }
}

static bool convert_choice(const conversion *c, tr_setting *setting) {
  const char *text = c->value->type == TR_VALUE_STRING    ? c->value->text
                     : c->value->type != TR_VALUE_BOOLEAN ? NULL
                     : c->value->integer != 0             ? "true"
                                                          : "false";
  if (text != NULL && is_choice(c->knob->choices, text)) {
    setting->text = text;
    return true;
  }
  char listed[192] = "", hint[256];
  list_choices(c->knob->choices, listed);
  const bool near = text != NULL && tr_config_suggest_choice(c->knob->choices, text, hint);
  if (text != NULL && c->value->type == TR_VALUE_STRING) {
    tr_loader_mistake(c->loader, c->path, c->value, false, near ? hint : NULL, "'%s' must be %s, not '%s'",
                      last_segment(c->path), listed, text);
  } else {
    tr_loader_mistake(c->loader, c->path, c->value, false, NULL, "'%s' must be %s, not %s", last_segment(c->path),
                      listed, value_words(c->value));
  }
  return false;
}

static bool convert_strings(const conversion *c, tr_setting *setting) {
  const tr_value *value = c->value;
  const bool single = value->type == TR_VALUE_STRING;
  if (!single && value->type != TR_VALUE_ARRAY) return refuse_type(c, NULL);
  const size_t count = single ? 1 : value->count;
  const char **items = tr_loader_alloc(c->loader, (count + 1) * sizeof *items);
  if (items == NULL) return false;
  for (size_t i = 0; i < count; i++) {
    const tr_value *item = single ? value : &value->items[i];
    if (item->type != TR_VALUE_STRING) {
      tr_loader_mistake(c->loader, c->path, item, false, "put it in quotes",
                        "'%s' must be a list of strings, not of %s", last_segment(c->path), value_words(item));
      return false;
    }
    items[i] = item->text;
  }
  setting->items = items;
  setting->count = count;
  return true;
}

static bool convert(const conversion *c, tr_setting *setting) {
  switch (c->knob->type) {
    case TR_KNOB_STRING:
      if (c->value->type != TR_VALUE_STRING) {
        return refuse_type(c, c->value->type == TR_VALUE_INTEGER || c->value->type == TR_VALUE_REAL ||
                                      c->value->type == TR_VALUE_BOOLEAN
                                  ? "put it in quotes"
                                  : NULL);
      }
      setting->text = c->value->text;
      return true;
    case TR_KNOB_INTEGER:
    case TR_KNOB_COUNT: return convert_integer(c, setting);
    case TR_KNOB_REAL: return convert_real(c, setting);
    case TR_KNOB_BOOLEAN: return convert_boolean(c, setting);
    case TR_KNOB_BYTES:
    case TR_KNOB_DURATION: return convert_amount(c, setting);
    case TR_KNOB_EVERY: return convert_every(c, setting);
    case TR_KNOB_CHOICE: return convert_choice(c, setting);
    case TR_KNOB_STRINGS: return convert_strings(c, setting);
    case TR_KNOB_VALUE: return true; /* its shape is checked by tr_loader_check_shape */
  }
  return false;
}

bool tr_loader_convert(tr_loader *loader, const char *path, const tr_value *value, const tr_value *raw,
                       tr_setting *setting) {
  const conversion c = {
      .loader = loader,
      .path = path,
      .value = value,
      .knob = setting->knob,
      .rule = tr_knob_rule_of(setting->knob),
      .from_text = tr_loader_origin(loader, path) != NULL ||
                   (raw->type == TR_VALUE_STRING && strstr(raw->text, "${") != NULL),
  };
  if (c.knob->planned) {
    tr_loader_mistake(loader, path, value, true, "remove it", "'%s' is planned, not in this version", path);
    return false;
  }
  setting->value = value;
  return convert(&c, setting);
}

bool tr_setting_default(tr_arena *arena, const tr_knob *knob, tr_setting *setting) {
  *setting = (tr_setting){.knob = knob, .key = knob->key, .origin = "default"};
  if (knob->default_text[0] == '\0') return true;
  tr_value *value = tr_arena_alloc(arena, sizeof *value);
  if (value == NULL || !tr_tree_parse_default(arena, knob->default_text, value)) return false;
  tr_loader quiet = {.arena = arena};
  const conversion c = {
      .loader = &quiet, .value = value, .knob = knob, .rule = tr_knob_rule_of(knob), .path = knob->key};
  setting->value = value;
  return convert(&c, setting);
}
