/* A configuration as TOML that loads to the same configuration.
 *
 * Paths become absolute, so that the file can be read from anywhere; the table [as-written] keeps what the job file
 * said for the keys whose fingerprint is their text. Secrets are only ever references, so nothing here can leak. */
#include "config_internal.h"

#include "utf8.h"

#include <math.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* "${" is doubled to "$${", because what is written has been interpolated already. */
void tr_write_toml_string(tr_writer *writer, const char *text) {
  const unsigned char *at = (const unsigned char *)text;
  size_t left = strlen(text);
  tr_write_u8(writer, '"');
  while (left > 0) {
    const size_t length = tr_utf8_length(at, left);
    if (length == 0) {
      tr_write_bytes(writer, "\xEF\xBF\xBD", 3);
    } else if (*at == '"' || *at == '\\') {
      tr_write_text(writer, "\\%c", *at);
    } else if (*at < 0x20 || *at == 0x7F) {
      tr_write_text(writer, "\\u%04X", (unsigned)*at);
    } else if (at[0] == '$' && at[1] == '{') {
      tr_write_bytes(writer, "$$", 2);
    } else {
      tr_write_bytes(writer, at, length);
    }
    at += length > 0 ? length : 1;
    left -= length > 0 ? length : 1;
  }
  tr_write_u8(writer, '"');
}

static void write_key(tr_writer *writer, const char *key) {
  const size_t bare = strspn(key, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_");
  if (bare > 0 && key[bare] == '\0') {
    tr_write_text(writer, "%s", key);
    return;
  }
  /* A key is not interpolated, so only TOML's own escapes apply. */
  tr_write_u8(writer, '"');
  for (const char *c = key; *c != '\0'; c++) {
    if (*c == '"' || *c == '\\') {
      tr_write_text(writer, "\\%c", *c);
    } else if ((unsigned char)*c < 0x20 || *c == 0x7F) {
      tr_write_text(writer, "\\u%04X", (unsigned)(unsigned char)*c);
    } else {
      tr_write_u8(writer, (uint8_t)*c);
    }
  }
  tr_write_u8(writer, '"');
}

static void write_real(tr_writer *writer, double value) {
  if (isnan(value)) {
    tr_write_text(writer, "nan");
    return;
  }
  if (isinf(value)) {
    tr_write_text(writer, value > 0 ? "inf" : "-inf");
    return;
  }
  const size_t before = writer->bytes;
  tr_write_json_real(writer, value);
  if (writer->failed) return;
  /* An integer's text would read back as an integer. */
  if (memchr(writer->data + before, '.', writer->bytes - before) == NULL &&
      memchr(writer->data + before, 'e', writer->bytes - before) == NULL) {
    tr_write_text(writer, ".0");
  }
}

typedef struct output {
  const tr_config *config;
  tr_writer *writer;
  const tr_setting *setting;
  const char *path_key; /* in tables of this setting, the strings under this key are paths */
} output;

/* A path as it can be read from anywhere. */
static void write_path(const output *o, const char *path) {
  char *joined = tr_config_path(o->config, o->writer->allocator, o->setting->key, path);
  char directory[4096];
  const bool from_file = o->setting->from == TR_FROM_FILE || o->setting->from == TR_FROM_DEFAULT;
  const bool run_dir = tr_knob_rule_of(o->setting->knob)->shape == TR_SHAPE_CWD_PATH;
  const bool resolved = !from_file || run_dir || o->config->directory != NULL;
  if (joined == NULL) {
    o->writer->failed = true;
  } else if (resolved && joined[0] != '/' && strstr(joined, "://") == NULL &&
             getcwd(directory, sizeof directory) != NULL) {
    char *absolute = tr_asprintf(o->writer->allocator, "%s/%s", directory, joined);
    if (absolute != NULL) {
      tr_write_toml_string(o->writer, absolute);
    } else {
      o->writer->failed = true;
    }
    tr_free(o->writer->allocator, absolute);
  } else {
    tr_write_toml_string(o->writer, joined);
  }
  tr_free(o->writer->allocator, joined);
}

static void write_value(const output *o, const tr_value *value, bool is_path) {
  tr_writer *writer = o->writer;
  switch (value->type) {
    case TR_VALUE_STRING:
      if (is_path) {
        write_path(o, value->text);
      } else {
        tr_write_toml_string(writer, value->text);
      }
      break;
    case TR_VALUE_INTEGER: tr_write_text(writer, "%lld", (long long)value->integer); break;
    case TR_VALUE_REAL: write_real(writer, value->real); break;
    case TR_VALUE_BOOLEAN: tr_write_text(writer, value->integer != 0 ? "true" : "false"); break;
    case TR_VALUE_ARRAY:
      tr_write_text(writer, "[");
      for (size_t i = 0; i < value->count; i++) {
        tr_write_text(writer, i > 0 ? ", " : "");
        write_value(o, &value->items[i], is_path);
      }
      tr_write_text(writer, "]");
      break;
    case TR_VALUE_TABLE:
      tr_write_text(writer, value->count > 0 ? "{ " : "{");
      for (size_t i = 0; i < value->count; i++) {
        tr_write_text(writer, i > 0 ? ", " : "");
        write_key(writer, value->items[i].key);
        tr_write_text(writer, " = ");
        write_value(o, &value->items[i], o->path_key != NULL && strcmp(value->items[i].key, o->path_key) == 0);
      }
      tr_write_text(writer, value->count > 0 ? " }" : "}");
      break;
  }
}

static bool is_path_text(const tr_setting *setting) {
  switch (tr_knob_rule_of(setting->knob)->shape) {
    case TR_SHAPE_PATH:
    case TR_SHAPE_CWD_PATH: return true;
    case TR_SHAPE_PROGRAM:
    case TR_SHAPE_RESUME: return strchr(setting->text, '/') != NULL;
    default: return false;
  }
}

static void write_text_setting(const output *o) {
  const char *text = o->setting->text;
  if (o->setting->knob->type == TR_KNOB_STRING && is_path_text(o->setting)) {
    write_path(o, text);
  } else if (o->setting->knob->type == TR_KNOB_CHOICE && (strcmp(text, "true") == 0 || strcmp(text, "false") == 0)) {
    tr_write_text(o->writer, "%s", text);
  } else {
    tr_write_toml_string(o->writer, text);
  }
}

static void write_setting_value(const output *o) {
  const tr_setting *s = o->setting;
  const tr_knob_shape shape = tr_knob_rule_of(s->knob)->shape;
  switch (s->knob->type) {
    case TR_KNOB_INTEGER: tr_write_text(o->writer, "%lld", (long long)s->integer); break;
    case TR_KNOB_COUNT:
      if (s->integer == 0) {
        tr_write_text(o->writer, "\"auto\"");
      } else {
        tr_write_text(o->writer, "%lld", (long long)s->integer);
      }
      break;
    case TR_KNOB_REAL: write_real(o->writer, s->real); break;
    case TR_KNOB_BOOLEAN: tr_write_text(o->writer, s->integer != 0 ? "true" : "false"); break;
    case TR_KNOB_STRINGS:
      tr_write_text(o->writer, "[");
      for (size_t i = 0; i < s->count; i++) {
        tr_write_text(o->writer, i > 0 ? ", " : "");
        tr_write_toml_string(o->writer, s->items[i]);
      }
      tr_write_text(o->writer, "]");
      break;
    case TR_KNOB_VALUE: write_value(o, s->value, shape == TR_SHAPE_TRAIN || shape == TR_SHAPE_VALID); break;
    default: write_text_setting(o);
  }
}

static bool has_value(const tr_setting *s) {
  if (s->set || s->value != NULL) return true;
  /* The one default that is made by a rule: a run of one epoch where no length is given. */
  return strcmp(s->knob->key, "train.epochs") == 0 && s->integer > 0;
}

static void write_line(const tr_config *config, tr_writer *writer, const tr_setting *setting, const char *name) {
  const tr_knob_shape shape = tr_knob_rule_of(setting->knob)->shape;
  const output o = {
      .config = config,
      .writer = writer,
      .setting = setting,
      .path_key = shape == TR_SHAPE_SECRET                             ? "file"
                  : shape == TR_SHAPE_TRAIN || shape == TR_SHAPE_VALID ? "url"
                                                                       : NULL,
  };
  tr_write_text(writer, "%s = ", name);
  write_setting_value(&o);
  tr_write_text(writer, "\n");
}

/* The tables whose defaults have no meaning beside a command. */
static bool is_training_table(const char *key) {
  return strncmp(key, "data.", 5) == 0 || strncmp(key, "train.", 6) == 0 || strncmp(key, "optimizer.", 10) == 0;
}

static void write_tables(const tr_config *config, tr_writer *writer) {
  size_t count;
  const tr_knob *knobs = tr_config_knobs(&count);
  const bool command = tr_config_is_set(config, "command");
  const char *open = "";
  size_t open_length = 0;
  for (size_t i = 0; i < count; i++) {
    const tr_setting *s = &config->settings[i];
    const char *dot = strchr(knobs[i].key, '.');
    if (dot == NULL || strchr(knobs[i].key, '*') != NULL || !has_value(s)) continue;
    if (command && is_training_table(knobs[i].key)) continue;
    const size_t length = (size_t)(dot - knobs[i].key);
    if (length != open_length || strncmp(open, knobs[i].key, length) != 0) {
      open = knobs[i].key;
      open_length = length;
      tr_write_text(writer, "\n[%.*s]\n", (int)length, open);
    }
    write_line(config, writer, s, dot + 1);
  }
}

static void write_storage(const tr_config *config, tr_writer *writer) {
  const tr_value *storage = tr_value_get(&config->root, "storage");
  for (size_t i = 0; storage != NULL && i < storage->count; i++) {
    const tr_value *table = &storage->items[i];
    tr_write_text(writer, "\n[storage.");
    write_key(writer, table->key);
    tr_write_text(writer, "]\n");
    for (size_t j = 0; j < table->count; j++) {
      char path[TR_CONFIG_PATH_BYTES];
      snprintf(path, sizeof path, "storage.%s.%s", table->key, table->items[j].key);
      const tr_setting *s = tr_config_setting(config, path);
      if (s != NULL && s->set) write_line(config, writer, s, table->items[j].key);
    }
  }
}

static void write_params(const tr_config *config, tr_writer *writer) {
  const tr_value *params = tr_value_get(&config->root, "params");
  if (params == NULL || params->count == 0) return;
  const output o = {.config = config, .writer = writer};
  tr_write_text(writer, "\n[params]\n");
  for (size_t i = 0; i < params->count; i++) {
    write_key(writer, params->items[i].key);
    tr_write_text(writer, " = ");
    write_value(&o, &params->items[i], false);
    tr_write_text(writer, "\n");
  }
}

static void write_as_written(const tr_config *config, tr_writer *writer) {
  bool open = false;
  const output o = {.config = config, .writer = writer};
  size_t count;
  tr_config_knobs(&count);
  for (size_t i = 0; i < count; i++) {
    const tr_value *value = tr_config_as_written(config, &config->settings[i]);
    if (value == NULL) continue;
    if (!open) tr_write_text(writer, "\n# Keys of the fingerprint as the job file had them.\n[as-written]\n");
    open = true;
    write_key(writer, config->settings[i].key);
    tr_write_text(writer, " = ");
    write_value(&o, value, false);
    tr_write_text(writer, "\n");
  }
}

void tr_config_write_toml(const tr_config *config, tr_writer *writer) {
  size_t count;
  const tr_knob *knobs = tr_config_knobs(&count);
  tr_write_text(writer, "# The whole job as it was run, every key with its value.\n");
  for (size_t i = 0; i < count; i++) {
    const bool table = knobs[i].type == TR_KNOB_VALUE || strchr(knobs[i].key, '.') != NULL;
    if (!table && has_value(&config->settings[i])) write_line(config, writer, &config->settings[i], knobs[i].key);
  }
  write_tables(config, writer);
  write_storage(config, writer);
  write_params(config, writer);
  write_as_written(config, writer);
}
