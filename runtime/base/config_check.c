/* What a value must look like beyond its type, and the rules between keys. */
#include "config_internal.h"

#include <stdio.h>
#include <string.h>

static bool is_name_character(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' || c == '_' || c == '.';
}

/* A job's name becomes a folder, a prefix in a bucket and a word on the command line. */
static bool is_job_name(const char *text) {
  const size_t length = strlen(text);
  if (length == 0 || length > 100 || text[0] == '.' || text[0] == '-') return false;
  for (size_t i = 0; i < length; i++) {
    if (!is_name_character(text[i])) return false;
  }
  return true;
}

static bool is_warmup(const char *text) {
  const size_t length = strlen(text);
  char number[32];
  double percent;
  if (length >= 2 && length < sizeof number && text[length - 1] == '%') {
    memcpy(number, text, length - 1);
    number[length - 1] = '\0';
    return tr_parse_real(number, &percent) && percent >= 0 && percent <= 100;
  }
  tr_every every;
  return tr_parse_every(text, &every) && every.time_ns == 0;
}

static bool is_best(const char *text) {
  if (strncmp(text, "max ", 4) != 0 && strncmp(text, "min ", 4) != 0) return false;
  return text[4] != '\0' && strchr(text + 4, ' ') == NULL;
}

static void check_text_map(tr_loader *loader, const char *path, const tr_value *value, bool scalars) {
  if (value->type != TR_VALUE_TABLE) {
    tr_loader_mistake(loader, path, value, false, scalars ? "write { NAME = \"value\" }" : "write { name = \"field\" }",
                      "'%s' must be a table", path);
    return;
  }
  for (size_t i = 0; i < value->count; i++) {
    const tr_value *item = &value->items[i];
    const bool scalar = item->type == TR_VALUE_INTEGER || item->type == TR_VALUE_REAL || item->type == TR_VALUE_BOOLEAN;
    if (item->type == TR_VALUE_STRING || (scalars && scalar)) continue;
    tr_loader_mistake(loader, path, item, false, scalar ? "put it in quotes" : NULL, "'%s' must be a string",
                      item->key);
  }
}

static void check_betas(tr_loader *loader, const char *path, const tr_value *value) {
  bool good = value->type == TR_VALUE_ARRAY && value->count == 2;
  for (size_t i = 0; good && i < 2; i++) {
    const tr_value *item = &value->items[i];
    good = (item->type == TR_VALUE_REAL || item->type == TR_VALUE_INTEGER) && item->real >= 0 && item->real < 1;
  }
  if (!good) {
    tr_loader_mistake(loader, path, value, false, "write [0.9, 0.999]",
                      "'betas' must be two numbers from 0 to 1, without 1 itself");
  }
}

static void check_secret(tr_loader *loader, const char *path, const tr_value *value) {
  const char *key = strrchr(path, '.') + 1;
  char hint[256];
  snprintf(hint, sizeof hint, "write %s = { env = \"NAME\" } or { file = \"PATH\" }", key);
  if (value->type != TR_VALUE_TABLE) {
    tr_loader_mistake(loader, path, value, true, hint, "'%s' must not stand in a job file, only where to find it", key);
    return;
  }
  const tr_value *item = value->count == 1 ? &value->items[0] : NULL;
  const bool known = item != NULL && (strcmp(item->key, "env") == 0 || strcmp(item->key, "file") == 0);
  if (!known || item->type != TR_VALUE_STRING || item->text[0] == '\0') {
    tr_loader_mistake(loader, path, value, true, hint, "'%s' must be { env = \"NAME\" } or { file = \"PATH\" }", key);
  }
}

/* ---- data.train and data.valid ---------------------------------------------------------------------------------- */

static bool is_url_list(const tr_value *value) {
  if (value->type != TR_VALUE_ARRAY || value->count == 0) return false;
  for (size_t i = 0; i < value->count; i++) {
    if (value->items[i].type != TR_VALUE_STRING || value->items[i].text[0] == '\0') return false;
  }
  return true;
}

static bool is_urls(const tr_value *value) {
  return (value->type == TR_VALUE_STRING && value->text[0] != '\0') || is_url_list(value);
}

static bool is_format(const char *text) {
  const char *choices = tr_knob_find("data.format")->choices;
  const size_t length = strlen(text);
  for (const char *c = choices; *c != '\0';) {
    const size_t word = strcspn(c, "|");
    if (word == length && memcmp(c, text, word) == 0) return true;
    c += word + (c[word] == '|');
  }
  return false;
}

static void check_source_key(tr_loader *loader, const char *path, const tr_value *item, bool train) {
  if (strcmp(item->key, "url") == 0) {
    if (!is_urls(item)) tr_loader_mistake(loader, path, item, false, NULL, "'url' must be a URL or a list of URLs");
  } else if (strcmp(item->key, "format") == 0) {
    char hint[256];
    const char *choices = tr_knob_find("data.format")->choices;
    if (item->type == TR_VALUE_STRING && is_format(item->text)) return;
    const bool near = item->type == TR_VALUE_STRING && tr_config_suggest_choice(choices, item->text, hint);
    tr_loader_mistake(loader, path, item, false, near ? hint : NULL, "'format' must be one of %s", choices);
  } else if (strcmp(item->key, "fields") == 0) {
    check_text_map(loader, path, item, false);
  } else if (train && strcmp(item->key, "name") == 0) {
    if (item->type != TR_VALUE_STRING || !is_job_name(item->text)) {
      tr_loader_mistake(loader, path, item, false, NULL, "'name' must be a word of letters, digits, '-', '_' and '.'");
    }
  } else if (train && strcmp(item->key, "weight") == 0) {
    const bool number = item->type == TR_VALUE_REAL || item->type == TR_VALUE_INTEGER;
    if (!number || !(item->real > 0) || item->real > 1e9) {
      tr_loader_mistake(loader, path, item, false, NULL, "'weight' must be a number above 0");
    }
  } else {
    char hint[256];
    const bool near = tr_config_suggest_choice(train ? "name|url|weight|format|fields" : "url|format|fields", item->key,
                                               hint);
    tr_loader_mistake(loader, path, item, true, near ? hint : NULL, "unknown key '%s'", item->key);
  }
}

static void check_source(tr_loader *loader, const char *path, const tr_value *source, bool train) {
  if (source->type != TR_VALUE_TABLE) {
    tr_loader_mistake(loader, path, source, false, NULL, "'%s' is either a list of URLs or of tables, not of both",
                      path);
    return;
  }
  for (size_t i = 0; i < source->count; i++) check_source_key(loader, path, &source->items[i], train);
  if (tr_value_get(source, "url") == NULL) {
    tr_loader_mistake(loader, path, source, false, "add url = \"...\"", "this table of '%s' has no 'url'", path);
  }
}

static void check_train(tr_loader *loader, const char *path, const tr_value *value) {
  if (is_urls(value)) return;
  if (value->type == TR_VALUE_TABLE) {
    tr_loader_mistake(loader, path, value, true, "write [[data.train]]", "'data.train' as tables is a list of them");
    return;
  }
  if (value->type != TR_VALUE_ARRAY || value->count == 0) {
    tr_loader_mistake(loader, path, value, false, NULL, "'train' must be %s", tr_knob_type_words(tr_knob_find(path)));
    return;
  }
  for (size_t i = 0; i < value->count; i++) check_source(loader, path, &value->items[i], true);
}

static void check_valid(tr_loader *loader, const char *path, const tr_value *value) {
  if (is_urls(value)) return;
  if (value->type != TR_VALUE_TABLE || value->count == 0) {
    tr_loader_mistake(loader, path, value, false, NULL, "'valid' must be %s", tr_knob_type_words(tr_knob_find(path)));
    return;
  }
  for (size_t i = 0; i < value->count; i++) {
    const tr_value *set = &value->items[i];
    if (!is_job_name(set->key)) {
      tr_loader_mistake(loader, path, set, true, NULL, "'%s' is no name for a validation set", set->key);
    } else if (set->type != TR_VALUE_TABLE) {
      char hint[256];
      snprintf(hint, sizeof hint, "write [data.valid.%.100s] with url = \"...\"", set->key);
      tr_loader_mistake(loader, path, set, true, hint, "'data.valid.%s' must be a table", set->key);
    } else {
      check_source(loader, path, set, false);
    }
  }
}

/* ---- All shapes ------------------------------------------------------------------------------------------------- */

static void check_text(tr_loader *loader, const char *path, const tr_value *value, tr_knob_shape shape,
                       const char *text) {
  if (shape == TR_SHAPE_NAME && !is_job_name(text)) {
    tr_loader_mistake(loader, path, value, false, "use letters, digits, '-', '_' and '.', at most 100",
                      "'%s' is no name for a job", text);
  } else if (shape == TR_SHAPE_WARMUP && !is_warmup(text)) {
    tr_loader_mistake(loader, path, value, false, "write \"100 steps\" or \"3%\"", "'%s' is no warm-up", text);
  } else if (shape == TR_SHAPE_BEST && !is_best(text)) {
    tr_loader_mistake(loader, path, value, false, "write \"max accuracy\" or \"min loss\"", "'%s' names no best", text);
  } else if ((shape == TR_SHAPE_PATH || shape == TR_SHAPE_CWD_PATH || shape == TR_SHAPE_PROGRAM) && text[0] == '\0') {
    tr_loader_mistake(loader, path, value, false, "leave the key out for its default", "'%s' must not be empty", path);
  }
}

void tr_loader_check_shape(tr_loader *loader, const char *path, const tr_value *value, const tr_setting *setting) {
  const tr_knob_shape shape = tr_knob_rule_of(setting->knob)->shape;
  switch (shape) {
    case TR_SHAPE_TRAIN: check_train(loader, path, value); break;
    case TR_SHAPE_VALID: check_valid(loader, path, value); break;
    case TR_SHAPE_TEXT_MAP: check_text_map(loader, path, value, false); break;
    case TR_SHAPE_SCALAR_MAP: check_text_map(loader, path, value, true); break;
    case TR_SHAPE_BETAS: check_betas(loader, path, value); break;
    case TR_SHAPE_SECRET: check_secret(loader, path, value); break;
    case TR_SHAPE_PARAMS:
      if (value->type != TR_VALUE_TABLE) {
        tr_loader_mistake(loader, path, value, false, NULL, "'%s' must be a table", path);
      }
      break;
    default:
      if (setting->knob->type == TR_KNOB_STRING) check_text(loader, path, value, shape, setting->text);
  }
}

/* ---- Rules between keys ----------------------------------------------------------------------------------------- */

static tr_setting *setting_of(tr_loader *loader, const char *key) {
  return &loader->config->settings[tr_knob_index(tr_knob_find(key))];
}

static const char *const lengths[] = {"train.epochs", "train.steps", "train.samples", "train.tokens", "train.time"};
enum { LENGTH_COUNT = sizeof lengths / sizeof *lengths };

static tr_origin origin_of(const tr_loader *loader, const char *path) {
  const tr_override_origin *origin = tr_loader_origin(loader, path);
  return origin != NULL ? origin->from : TR_FROM_FILE;
}

void tr_loader_drop_weaker_lengths(tr_loader *loader) {
  tr_value *raw = &loader->config->raw;
  tr_origin strongest = TR_FROM_DEFAULT;
  for (size_t i = 0; i < LENGTH_COUNT; i++) {
    if (tr_tree_find(raw, lengths[i]) == NULL) continue;
    const tr_origin from = origin_of(loader, lengths[i]);
    if (from > strongest) strongest = from;
  }
  for (size_t i = 0; i < LENGTH_COUNT; i++) {
    if (tr_tree_find(raw, lengths[i]) != NULL && origin_of(loader, lengths[i]) < strongest) {
      tr_tree_remove(raw, lengths[i]);
    }
  }
}

static void check_length(tr_loader *loader) {
  const tr_setting *first = NULL;
  for (size_t i = 0; i < LENGTH_COUNT; i++) {
    const tr_setting *s = setting_of(loader, lengths[i]);
    if (!s->set) continue;
    if (first != NULL) {
      tr_loader_mistake(loader, lengths[i], s->value, true, "keep one of epochs, steps, samples, tokens and time",
                        "'%s' and '%s' both give the length of the run", strchr(first->key, '.') + 1,
                        strchr(s->key, '.') + 1);
    } else {
      first = s;
    }
  }
  if (first == NULL && !setting_of(loader, "command")->set) {
    tr_setting *epochs = setting_of(loader, "train.epochs");
    epochs->integer = 1;
    epochs->real = 1;
  }
}

static void check_command(tr_loader *loader) {
  static const char *const tables[] = {"data", "train", "optimizer"};
  const tr_setting *command = setting_of(loader, "command"), *program = setting_of(loader, "program");
  if (!command->set) return;
  if (command->count == 0 || command->items[0][0] == '\0') {
    tr_loader_mistake(loader, "command", command->value, false, NULL, "'command' must name a program");
  }
  if (program->set) {
    tr_loader_mistake(loader, "command", command->value, true, "keep one of the two",
                      "'program' and 'command' are both given");
  }
  for (size_t i = 0; i < sizeof tables / sizeof *tables; i++) {
    const tr_value *table = tr_value_get(&loader->config->root, tables[i]);
    if (table == NULL || (table->type == TR_VALUE_TABLE && table->count == 0)) continue;
    tr_loader_mistake(loader, tables[i], table, true, "a command does its own training; keep program or this table",
                      "'%s' has no meaning with 'command'", tables[i]);
  }
}

static void check_nodes(tr_loader *loader) {
  const tr_setting *low = setting_of(loader, "cluster.min-nodes"), *high = setting_of(loader, "cluster.max-nodes");
  if (low->set && high->set && low->integer > high->integer) {
    tr_loader_mistake(loader, "cluster.min-nodes", low->value, false, NULL, "'min-nodes' is above 'max-nodes' (%lld)",
                      (long long)high->integer);
  }
  if (low->set != high->set) {
    const tr_setting *one = low->set ? low : high;
    tr_loader_mistake(loader, one->key, one->value, true, low->set ? "add max-nodes" : "add min-nodes",
                      "'min-nodes' and 'max-nodes' belong together");
  }
}

void tr_loader_check_rules(tr_loader *loader) {
  check_length(loader);
  check_command(loader);
  check_nodes(loader);
  const tr_setting *lr = setting_of(loader, "optimizer.lr"), *min_lr = setting_of(loader, "optimizer.min-lr");
  if (min_lr->set && min_lr->real > lr->real) {
    tr_loader_mistake(loader, min_lr->key, min_lr->value, false, NULL, "'min-lr' is above 'lr' (%.15g)", lr->real);
  }
  /* As in torch: decay is a part of AdamW and has to be asked for with SGD. */
  tr_setting *decay = setting_of(loader, "optimizer.weight-decay");
  if (!decay->set && strcmp(setting_of(loader, "optimizer.name")->text, "sgd") == 0) decay->real = 0;
}
