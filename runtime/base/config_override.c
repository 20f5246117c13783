/* Flags and TRAINRUN_* variables, put into the raw tree over what the job file says. */
#include "config_internal.h"

#include <stdio.h>
#include <string.h>

const tr_override_origin *tr_loader_origin(const tr_loader *loader, const char *path) {
  /* The newest first, so a later flag is found before an earlier one of the same key. */
  for (const tr_override_origin *o = loader->overrides; o != NULL; o = o->next) {
    const size_t length = strlen(o->path);
    if (strncmp(o->path, path, length) == 0 && (path[length] == '\0' || path[length] == '.')) return o;
  }
  return NULL;
}

static void remember(tr_loader *loader, const char *path, tr_origin from, const char *word, const char *name) {
  tr_override_origin *origin = tr_loader_alloc(loader, sizeof *origin);
  char *path_copy = tr_arena_strdup(loader->arena, path);
  char *text = tr_arena_printf(loader->arena, "%s %s", word, name);
  if (origin == NULL || path_copy == NULL || text == NULL) {
    loader->no_memory = true;
    return;
  }
  *origin = (tr_override_origin){.next = loader->overrides, .path = path_copy, .origin = text, .from = from};
  loader->overrides = origin;
}

/* What comes from flags and the environment is not interpolated: "${" is kept as the text it is. */
static const char *escape(tr_loader *loader, const char *text) {
  size_t marks = 0;
  for (const char *c = text; (c = strstr(c, "${")) != NULL; c += 2) marks++;
  char *escaped = tr_loader_alloc(loader, strlen(text) + 2 * marks + 1);
  if (escaped == NULL) return text;
  char *to = escaped;
  for (const char *c = text; *c != '\0'; c++) {
    if (c[0] == '$' && c[1] == '{') *to++ = '$';
    *to++ = *c;
  }
  *to = '\0';
  return escaped;
}

/* A value that stands in no file. */
static void detach(tr_loader *loader, tr_value *value) {
  value->place = (tr_place){0, 0};
  value->key_place = (tr_place){0, 0};
  if (value->type == TR_VALUE_STRING) value->text = escape(loader, value->text);
  if (value->type != TR_VALUE_ARRAY && value->type != TR_VALUE_TABLE) return;
  for (size_t i = 0; i < value->count; i++) detach(loader, (tr_value *)(uintptr_t)&value->items[i]);
}

static bool parse_toml_value(tr_loader *loader, const char *text, tr_value *out) {
  if (strlen(text) > TR_CONFIG_MAX_BYTES) return false;
  char *line = tr_arena_printf(loader->arena, "v = %s\n", text);
  if (line == NULL) {
    loader->no_memory = true;
    return false;
  }
  tr_value root;
  tr_toml_mistake mistake;
  const tr_status status = tr_toml_parse(line, strlen(line), loader->arena, &root, &mistake, NULL);
  if (status == TR_ERR_NO_MEMORY) loader->no_memory = true;
  if (status != TR_OK || root.count != 1 || strcmp(root.items[0].key, "v") != 0) return false;
  *out = root.items[0];
  return true;
}

/* Text becomes a TOML value where the knob takes more than a scalar, or where nobody knows its type; a scalar stays
 * text, which converts to any type. */
static void make_value(tr_loader *loader, const tr_knob *knob, const char *text, tr_value *out) {
  const bool structured = knob == NULL || knob->type == TR_KNOB_VALUE || knob->type == TR_KNOB_STRINGS;
  const bool quoted = text[0] == '"' || text[0] == '\'';
  memset(out, 0, sizeof *out);
  if ((structured || quoted) && parse_toml_value(loader, text, out) && (structured || out->type == TR_VALUE_STRING)) {
    detach(loader, out);
    return;
  }
  memset(out, 0, sizeof *out);
  out->type = TR_VALUE_STRING;
  out->text = tr_arena_strdup(loader->arena, text);
  if (out->text == NULL) {
    loader->no_memory = true;
    out->text = "";
  }
  out->text = escape(loader, out->text);
}

static void put(tr_loader *loader, const char *path, const char *text) {
  tr_value value;
  make_value(loader, tr_knob_find(path), text, &value);
  if (!tr_tree_set(loader->arena, &loader->config->raw, path, &value)) loader->no_memory = true;
}

/* ---- Flags ------------------------------------------------------------------------------------------------------ */

static bool is_path(const char *path) {
  char segment[TR_CONFIG_PATH_BYTES];
  size_t depth = 0;
  if (strlen(path) >= TR_CONFIG_PATH_BYTES) return false;
  while (path != NULL) {
    if (!tr_path_next(&path, segment) || ++depth > TR_CONFIG_MAX_DEPTH) return false;
  }
  return true;
}

/* Underscores equal hyphens in the keys of knobs; the members of [params] keep theirs. */
static const char *spelled(const char *key, char spelling[TR_CONFIG_PATH_BYTES]) {
  if (tr_knob_find(key) != NULL || strncmp(key, "params.", 7) == 0) return key;
  size_t i = 0;
  for (; key[i] != '\0'; i++) spelling[i] = key[i] == '_' ? '-' : key[i];
  spelling[i] = '\0';
  return tr_knob_find(spelling) != NULL ? spelling : key;
}

void tr_loader_apply_flags(tr_loader *loader) {
  for (size_t i = 0; i < loader->source->override_count; i++) {
    const tr_override *override = &loader->source->overrides[i];
    const char *origin = override->origin != NULL ? override->origin : "--set";
    if (!is_path(override->key)) {
      tr_diagnostics_add(loader->diagnostics, (tr_place){0, 0}, 0, false, override->key, "write --set table.key=value",
                         "flag %s: '%s' is no key", origin, override->key);
      continue;
    }
    char spelling[TR_CONFIG_PATH_BYTES];
    const char *key = spelled(override->key, spelling);
    remember(loader, key, TR_FROM_FLAG, "flag", origin);
    put(loader, key, override->value);
  }
}

/* ---- Environment ------------------------------------------------------------------------------------------------ */

static bool starts_with(const char *text, const char *prefix) { return strncmp(text, prefix, strlen(prefix)) == 0; }

/* Variables of our own that set no knob: the launcher's, the tests', and what the build and test scripts pass. */
static bool is_reserved(const char *name) {
  static const char *const names[] = {"TRAINRUN_JOB=", "TRAINRUN_SOURCE_DIR=", "TRAINRUN_BUILD_DIR="};
  if (starts_with(name, "TRAINRUN_WORKER_") || starts_with(name, "TRAINRUN_TEST_")) return true;
  for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
    if (starts_with(name, names[i])) return true;
  }
  return false;
}

/* The member of a table whose key reads as NAME in an environment variable, else NAME in small letters and hyphens. */
static void member_name(const tr_value *table, const char *name, char key[TR_CONFIG_PATH_BYTES]) {
  for (size_t i = 0; table != NULL && table->type == TR_VALUE_TABLE && i < table->count; i++) {
    char candidate[TR_CONFIG_PATH_BYTES];
    tr_config_environment_name(table->items[i].key, candidate);
    if (strcmp(candidate + strlen("TRAINRUN_"), name) == 0) {
      snprintf(key, TR_CONFIG_PATH_BYTES, "%s", table->items[i].key);
      return;
    }
  }
  size_t at = 0;
  for (; name[at] != '\0' && at + 1 < TR_CONFIG_PATH_BYTES; at++) {
    const char c = name[at];
    key[at] = c == '_' ? '-' : c >= 'A' && c <= 'Z' ? (char)(c - 'A' + 'a') : c;
  }
  key[at] = '\0';
}

/* storage.*.endpoint and TRAINRUN_STORAGE_LAKE_ENDPOINT -> storage.lake.endpoint */
static bool match_starred(tr_loader *loader, const tr_knob *knob, const char *name, char path[TR_CONFIG_PATH_BYTES]) {
  const char *star = strchr(knob->key, '*');
  if (star == NULL) return false;
  char pattern[TR_CONFIG_PATH_BYTES];
  tr_config_environment_name(knob->key, pattern);
  const size_t before = strcspn(pattern, "*"), after = strlen(pattern + before + 1), length = strlen(name);
  if (length <= before + after || strncmp(name, pattern, before) != 0) return false;
  if (strcmp(name + length - after, pattern + before + 1) != 0) return false;
  char middle[TR_CONFIG_PATH_BYTES], table[TR_CONFIG_PATH_BYTES], key[TR_CONFIG_PATH_BYTES];
  snprintf(middle, sizeof middle, "%.*s", (int)(length - before - after), name + before);
  snprintf(table, sizeof table, "%.*s", (int)(star - knob->key) - 1, knob->key);
  member_name(tr_tree_find(&loader->config->raw, table), middle, key);
  const int written = snprintf(path, TR_CONFIG_PATH_BYTES, "%.*s%.100s%s", (int)(star - knob->key), knob->key, key,
                               star + 1);
  return written < TR_CONFIG_PATH_BYTES;
}

static bool match_variable(tr_loader *loader, const char *name, char path[TR_CONFIG_PATH_BYTES]) {
  size_t count;
  const tr_knob *knobs = tr_config_knobs(&count);
  for (size_t i = 0; i < count; i++) {
    char candidate[TR_CONFIG_PATH_BYTES];
    if (strcmp(knobs[i].key, "as-written") == 0) continue;
    if (match_starred(loader, &knobs[i], name, path)) return true;
    tr_config_environment_name(knobs[i].key, candidate);
    if (strcmp(candidate, name) != 0) continue;
    snprintf(path, TR_CONFIG_PATH_BYTES, "%s", knobs[i].key);
    return true;
  }
  if (starts_with(name, "TRAINRUN_PARAMS_") && name[strlen("TRAINRUN_PARAMS_")] != '\0') {
    char key[TR_CONFIG_PATH_BYTES];
    member_name(tr_value_get(&loader->config->raw, "params"), name + strlen("TRAINRUN_PARAMS_"), key);
    snprintf(path, TR_CONFIG_PATH_BYTES, "params.%.200s", key);
    return true;
  }
  return false;
}

static void apply_variable(tr_loader *loader, const char *variable, size_t length) {
  char name[TR_CONFIG_PATH_BYTES], path[TR_CONFIG_PATH_BYTES];
  snprintf(name, sizeof name, "%.*s", (int)length, variable);
  if (match_variable(loader, name, path) && is_path(path)) {
    if (variable[length + 1] == '\0') return; /* an empty variable counts as unset */
    remember(loader, path, TR_FROM_ENVIRONMENT, "environment", name);
    put(loader, path, variable + length + 1);
    return;
  }
  char hint[256];
  const bool near = tr_config_suggest_environment(name, hint);
  tr_diagnostics_add(loader->diagnostics, (tr_place){0, 0}, 0, true, NULL, near ? hint : NULL,
                     "environment variable '%s' sets no key", name);
}

void tr_loader_apply_environment(tr_loader *loader) {
  const char *const *environment = loader->source->environment;
  for (; environment != NULL && *environment != NULL; environment++) {
    if (!starts_with(*environment, "TRAINRUN_")) continue;
    const char *equals = strchr(*environment, '=');
    if (equals == NULL) continue;
    const size_t length = (size_t)(equals - *environment);
    if (length < TR_CONFIG_PATH_BYTES && !is_reserved(*environment)) apply_variable(loader, *environment, length);
  }
}
