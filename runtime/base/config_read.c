/* Reading an immutable configuration. */
#include "config_internal.h"

#include <assert.h>
#include <string.h>

static const tr_setting unset = {.origin = "default"};

const tr_setting *tr_config_setting(const tr_config *config, const char *key) {
  size_t knob_count;
  tr_config_knobs(&knob_count);
  for (size_t i = knob_count; i < config->setting_count; i++) {
    if (strcmp(config->settings[i].key, key) == 0) return &config->settings[i];
  }
  const tr_knob *knob = tr_knob_find(key);
  return knob != NULL ? &config->settings[tr_knob_index(knob)] : NULL;
}

/* The setting of a key or of the knob it lies in: "data.valid.test.url" -> data.valid. */
static const tr_setting *enclosing_setting(const tr_config *config, const char *key) {
  char path[TR_CONFIG_PATH_BYTES];
  const size_t length = strlen(key);
  if (length >= sizeof path) return NULL;
  memcpy(path, key, length + 1);
  for (;;) {
    const tr_setting *setting = tr_config_setting(config, path);
    if (setting != NULL) return setting;
    char *dot = strrchr(path, '.');
    if (dot == NULL) return NULL;
    *dot = '\0';
  }
}

bool tr_config_is_set(const tr_config *config, const char *key) {
  const tr_setting *setting = tr_config_setting(config, key);
  return setting != NULL ? setting->set : tr_tree_find(&config->root, key) != NULL;
}

const char *tr_config_origin(const tr_config *config, const char *key) {
  const tr_setting *setting = enclosing_setting(config, key);
  return setting != NULL ? setting->origin : "default";
}

/* The setting of a key that must be a knob of one of two types. */
static const tr_setting *typed(const tr_config *config, const char *key, tr_knob_type type, tr_knob_type other) {
  const tr_setting *setting = tr_config_setting(config, key);
  const bool right = setting != NULL && setting->knob != NULL &&
                     (setting->knob->type == type || setting->knob->type == other);
  assert(right);
  return right ? setting : &unset;
}

const char *tr_config_text(const tr_config *config, const char *key) {
  return typed(config, key, TR_KNOB_STRING, TR_KNOB_CHOICE)->text;
}

int64_t tr_config_integer(const tr_config *config, const char *key) {
  return typed(config, key, TR_KNOB_INTEGER, TR_KNOB_COUNT)->integer;
}

double tr_config_real(const tr_config *config, const char *key) {
  return typed(config, key, TR_KNOB_REAL, TR_KNOB_INTEGER)->real;
}

bool tr_config_boolean(const tr_config *config, const char *key) {
  return typed(config, key, TR_KNOB_BOOLEAN, TR_KNOB_BOOLEAN)->integer != 0;
}

uint64_t tr_config_bytes(const tr_config *config, const char *key) {
  return typed(config, key, TR_KNOB_BYTES, TR_KNOB_BYTES)->amount;
}

uint64_t tr_config_duration_ns(const tr_config *config, const char *key) {
  return typed(config, key, TR_KNOB_DURATION, TR_KNOB_DURATION)->amount;
}

size_t tr_config_strings(const tr_config *config, const char *key, const char *const **items) {
  const tr_setting *setting = typed(config, key, TR_KNOB_STRINGS, TR_KNOB_STRINGS);
  if (items != NULL) *items = setting->items;
  return setting->count;
}

tr_every tr_config_every(const tr_config *config, const char *key) {
  return typed(config, key, TR_KNOB_EVERY, TR_KNOB_EVERY)->every;
}

const tr_value *tr_config_find(const tr_config *config, const char *path) {
  const tr_value *found = tr_tree_find(&config->root, path);
  if (found != NULL) return found;
  const tr_setting *setting = tr_config_setting(config, path);
  return setting != NULL && setting->knob != NULL && setting->knob->type == TR_KNOB_VALUE ? setting->value : NULL;
}

const tr_value *tr_config_root(const tr_config *config) { return &config->root; }

char *tr_config_path(const tr_config *config, const tr_allocator *allocator, const char *key, const char *path) {
  const tr_setting *setting = enclosing_setting(config, key);
  const bool from_file = setting == NULL || setting->from == TR_FROM_FILE;
  const bool run_dir = setting != NULL && setting->knob != NULL &&
                       tr_knob_rule_of(setting->knob)->shape == TR_SHAPE_CWD_PATH;
  const char *directory = config->directory;
  if (!from_file || run_dir || directory == NULL || directory[0] == '\0' || strcmp(directory, ".") == 0 ||
      path[0] == '/' || strstr(path, "://") != NULL) {
    return tr_strdup(allocator, path);
  }
  while (path[0] == '.' && path[1] == '/') path += 2;
  const size_t length = strlen(directory);
  return tr_asprintf(allocator, "%s%s%s", directory, directory[length - 1] == '/' ? "" : "/", path);
}
