/* Loading: text, environment and flags in, an immutable tr_config or a list of mistakes out. */
#include "config_internal.h"

#include <stdio.h>
#include <string.h>

void *tr_loader_alloc(tr_loader *loader, size_t bytes) {
  void *p = tr_arena_alloc(loader->arena, bytes);
  if (p == NULL) loader->no_memory = true;
  return p;
}

void tr_loader_mistake(tr_loader *loader, const char *path, const tr_value *value, bool at_key, const char *hint,
                       const char *format, ...) {
  if (loader->diagnostics == NULL) return;
  char message[512];
  va_list arguments;
  va_start(arguments, format);
  if (vsnprintf(message, sizeof message, format, arguments) < 0) message[0] = '\0';
  va_end(arguments);
  const bool on_key = at_key && value->key_place.line > 0;
  const tr_place place = on_key ? value->key_place : value->place;
  if (place.line > 0) {
    const uint32_t length = tr_diagnostics_full(loader->diagnostics)
                                ? 1
                                : tr_source_token_length(loader->source->text, loader->source->text_bytes, place,
                                                         on_key);
    tr_diagnostics_add(loader->diagnostics, place, length, false, path, hint, "%s", message);
    return;
  }
  const tr_override_origin *origin = tr_loader_origin(loader, path);
  tr_diagnostics_add(loader->diagnostics, place, 0, false, path, hint, "%s%s%s", origin != NULL ? origin->origin : "",
                     origin != NULL ? ": " : "", message);
}

/* ---- From text to the raw tree ---------------------------------------------------------------------------------- */

/* "device = cpu": the parser's message speaks of types, the user forgot quotes. */
static const char *syntax_hint(const tr_config_source *source, tr_place place, char hint[256]) {
  const char *at = source->text, *end = source->text + source->text_bytes;
  for (uint32_t line = 1; line < place.line && at != NULL; line++) {
    at = memchr(at, '\n', (size_t)(end - at));
    if (at != NULL) at++;
  }
  if (at == NULL || at >= end) return NULL;
  const char *newline = memchr(at, '\n', (size_t)(end - at));
  const char *stop = newline != NULL ? newline : end;
  const char *equals = memchr(at, '=', (size_t)(stop - at));
  if (equals == NULL) return NULL;
  for (at = equals + 1; at < stop && (*at == ' ' || *at == '\t'); at++) {
  }
  const char *word = at;
  while (at < stop && strchr(" \t\r#,", *at) == NULL) at++;
  const size_t length = (size_t)(at - word);
  const bool letter = length > 0 && ((*word >= 'a' && *word <= 'z') || (*word >= 'A' && *word <= 'Z') || *word == '/');
  const bool unit = length > 0 && *word >= '0' && *word <= '9' && at[-1] >= 'A' && at[-1] <= 'z';
  if ((!letter && !unit) || length > 100 || memchr(word, '"', length) != NULL) return NULL;
  if (strncmp(word, "true", length) == 0 || strncmp(word, "false", length) == 0) return NULL;
  if (tr_config_is_secret_at(source->text, (size_t)(word - source->text))) return "text needs quotes";
  snprintf(hint, 256, "text needs quotes: \"%.*s\"", (int)length, word);
  return hint;
}

static tr_status parse_text(tr_loader *loader, tr_error *error) {
  const tr_config_source *source = loader->source;
  tr_value *raw = &loader->config->raw;
  *raw = (tr_value){.type = TR_VALUE_TABLE};
  if (source->text == NULL || source->text_bytes == 0) return TR_OK;
  if (source->text_bytes > TR_CONFIG_MAX_BYTES) {
    tr_diagnostics_add(loader->diagnostics, (tr_place){0, 0}, 0, false, NULL, NULL,
                       "%s is larger than a job file may be (1 MiB)", loader->config->name);
    return TR_OK;
  }
  tr_toml_mistake mistake;
  const tr_status status = tr_toml_parse(source->text, source->text_bytes, loader->arena, raw, &mistake, error);
  if (status != TR_ERR_CONFIG) return status;
  /* The parser notices a second definition at its end. */
  if (strstr(mistake.message, "redefine") != NULL) mistake.place.column = 1;
  char hint[256];
  tr_diagnostics_add(loader->diagnostics, mistake.place, 1, false, NULL, syntax_hint(source, mistake.place, hint), "%s",
                     mistake.message);
  return TR_OK;
}

/* ---- From the resolved tree to settings ------------------------------------------------------------------------- */

/* A table that stands in no file was made for one of its members. */
static const tr_override_origin *member_origin(const tr_loader *loader, const char *path) {
  const size_t length = strlen(path);
  for (const tr_override_origin *o = loader->overrides; o != NULL; o = o->next) {
    if (strncmp(o->path, path, length) == 0 && o->path[length] == '.') return o;
  }
  return NULL;
}

static const char *origin_text(tr_loader *loader, const char *path, const tr_value *value, tr_origin *from) {
  const tr_override_origin *origin = tr_loader_origin(loader, path);
  if (origin == NULL && value->place.line == 0) origin = member_origin(loader, path);
  *from = origin != NULL ? origin->from : TR_FROM_FILE;
  if (origin != NULL) return origin->origin;
  const tr_place place = value->key_place.line > 0 ? value->key_place : value->place;
  const char *text = tr_arena_printf(loader->arena, "%s:%u:%u", loader->config->name, (unsigned)place.line,
                                     (unsigned)place.column);
  if (text == NULL) loader->no_memory = true;
  return text != NULL ? text : "";
}

/* The place of a concrete key: the knob's own, or a new one for a '*' knob. */
static tr_setting *setting_for(tr_loader *loader, const tr_knob *knob, const char *path) {
  tr_config *config = loader->config;
  if (knob != NULL && strchr(knob->key, '*') == NULL && strcmp(knob->key, path) == 0) {
    return &config->settings[tr_knob_index(knob)];
  }
  tr_setting *setting = &config->settings[config->setting_count];
  const char *key = tr_arena_strdup(loader->arena, path);
  if (key == NULL) {
    loader->no_memory = true;
    return NULL;
  }
  *setting = (tr_setting){.knob = knob, .key = key, .origin = "default"};
  config->setting_count++;
  return setting;
}

static void take_knob(tr_loader *loader, const tr_knob *knob, const char *path, const tr_value *value,
                      const tr_value *raw) {
  tr_setting *setting = setting_for(loader, knob, path);
  if (setting == NULL || !tr_loader_convert(loader, path, value, raw, setting)) return;
  setting->set = true;
  setting->origin = origin_text(loader, path, value, &setting->from);
  tr_loader_check_shape(loader, path, value, setting);
}

static void refuse_unknown(tr_loader *loader, const char *path, const tr_value *value) {
  char hint[256];
  bool near = !tr_diagnostics_full(loader->diagnostics) && tr_config_suggest(path, hint);
  if (strchr(value->key, '.') != NULL) {
    near = tr_knob_find(path) != NULL;
    snprintf(hint, sizeof hint, "write %.200s without the quotes", path);
  }
  const char *shown = value->key_place.line > 0 ? value->key : path;
  tr_loader_mistake(loader, path, value, true, near ? hint : NULL, "unknown key '%s'", shown);
}

static void walk(tr_loader *loader, char path[TR_CONFIG_PATH_BYTES], size_t length, const tr_value *table,
                 const tr_value *raw) {
  for (size_t i = 0; i < table->count && !loader->no_memory && !tr_diagnostics_full(loader->diagnostics); i++) {
    const tr_value *value = &table->items[i];
    const int added = snprintf(path + length, TR_CONFIG_PATH_BYTES - length, "%s%s", length > 0 ? "." : "", value->key);
    const size_t next = length + (size_t)added;
    const bool plain = next < TR_CONFIG_PATH_BYTES && strchr(value->key, '.') == NULL && value->key[0] != '\0';
    const tr_knob *knob = plain ? tr_knob_find(path) : NULL;
    if (knob != NULL) {
      take_knob(loader, knob, path, value, &raw->items[i]);
    } else if (!plain || !tr_knob_is_table(path)) {
      refuse_unknown(loader, path, value);
    } else if (value->type == TR_VALUE_TABLE) {
      walk(loader, path, next, value, &raw->items[i]);
    } else {
      char hint[TR_CONFIG_PATH_BYTES + 16];
      snprintf(hint, sizeof hint, "write [%s] on a line of its own, its keys below", path);
      tr_loader_mistake(loader, path, value, true, hint, "'%s' must be a table", path);
    }
    path[length] = '\0';
  }
}

/* Members of [params] are no knobs; they have settings only so that their origin can be told. */
static void take_params(tr_loader *loader) {
  const tr_value *params = tr_value_get(&loader->config->root, "params");
  if (params == NULL || params->type != TR_VALUE_TABLE) return;
  for (size_t i = 0; i < params->count && !loader->no_memory; i++) {
    char path[TR_CONFIG_PATH_BYTES];
    snprintf(path, sizeof path, "params.%s", params->items[i].key);
    tr_setting *setting = setting_for(loader, NULL, path);
    if (setting == NULL) return;
    setting->set = true;
    setting->value = &params->items[i];
    setting->origin = origin_text(loader, path, setting->value, &setting->from);
  }
}

static bool make_settings(tr_loader *loader) {
  tr_config *config = loader->config;
  size_t knob_count;
  const tr_knob *knobs = tr_config_knobs(&knob_count);
  size_t room = knob_count;
  const tr_value *params = tr_value_get(&config->root, "params"), *storage = tr_value_get(&config->root, "storage");
  if (params != NULL && params->type == TR_VALUE_TABLE) room += params->count;
  for (size_t i = 0; storage != NULL && storage->type == TR_VALUE_TABLE && i < storage->count; i++) {
    if (storage->items[i].type == TR_VALUE_TABLE) room += storage->items[i].count;
  }
  config->settings = tr_loader_alloc(loader, room * sizeof *config->settings);
  if (config->settings == NULL) return false;
  config->setting_count = knob_count;
  for (size_t i = 0; i < knob_count; i++) {
    if (!tr_setting_default(loader->arena, &knobs[i], &config->settings[i])) {
      loader->no_memory = true;
      return false;
    }
  }
  return true;
}

/* ---- The whole -------------------------------------------------------------------------------------------------- */

static tr_status load(tr_loader *loader, tr_error *error) {
  const size_t errors_before = tr_diagnostics_errors(loader->diagnostics);
  TR_TRY(parse_text(loader, error));
  if (tr_diagnostics_errors(loader->diagnostics) > errors_before) return TR_OK;
  tr_loader_apply_environment(loader);
  tr_loader_apply_flags(loader);
  if (loader->no_memory) return TR_OK;
  tr_loader_drop_weaker_lengths(loader);
  tr_loader_resolve(loader);
  if (loader->no_memory || !make_settings(loader)) return TR_OK;
  char path[TR_CONFIG_PATH_BYTES] = "";
  walk(loader, path, 0, &loader->config->root, &loader->config->raw);
  take_params(loader);
  if (!loader->no_memory) tr_loader_check_rules(loader);
  return TR_OK;
}

/* The first mistake as an error's message; all of them are in the diagnostics. */
static tr_status fail_config(const tr_loader *loader, size_t errors, tr_error *error) {
  const tr_diagnostic *first = NULL;
  for (size_t i = 0; i < tr_diagnostics_count(loader->diagnostics); i++) {
    first = tr_diagnostics_at(loader->diagnostics, i);
    if (!first->warning) break;
  }
  char place[64] = "", more[48] = "";
  if (first->place.line > 0) {
    snprintf(place, sizeof place, ":%u:%u", (unsigned)first->place.line, (unsigned)first->place.column);
  }
  if (errors > 1) snprintf(more, sizeof more, " (and %zu more)", errors - 1);
  return tr_fail(error, TR_ERR_CONFIG, "%s%s: %s%s%s%s%s", loader->config->name, place, first->message,
                 first->hint != NULL ? " (" : "", first->hint != NULL ? first->hint : "",
                 first->hint != NULL ? ")" : "", more);
}

static tr_status create(const tr_config_source *source, tr_config **out, tr_error *error) {
  tr_config *config = tr_calloc(source->allocator, 1, sizeof *config);
  if (config == NULL) return tr_fail_memory(error, "the configuration", sizeof *config);
  config->allocator = source->allocator;
  tr_status status = tr_arena_create(source->allocator, 16384, &config->arena, error);
  if (status != TR_OK) goto err_config;
  config->name = tr_arena_strdup(config->arena, source->name != NULL ? source->name : "job.toml");
  config->directory = source->directory != NULL ? tr_arena_strdup(config->arena, source->directory) : NULL;
  if (config->name == NULL || (source->directory != NULL && config->directory == NULL)) {
    status = tr_fail_memory(error, "the configuration", 0);
    goto err_config;
  }
  *out = config;
  return TR_OK;

err_config:
  tr_config_destroy(config);
  return status;
}

tr_status tr_config_load(const tr_config_source *source, tr_diagnostics *diagnostics, tr_config **out,
                         tr_error *error) {
  if (source == NULL || source->struct_bytes != sizeof *source) {
    return tr_fail(error, TR_ERR_INVALID, "tr_config_load: struct_bytes is wrong");
  }
  tr_loader loader = {.source = source, .diagnostics = diagnostics};
  TR_TRY(create(source, &loader.config, error));
  loader.arena = loader.config->arena;
  tr_status status = TR_OK;
  if (diagnostics == NULL) status = tr_diagnostics_create(source->allocator, &loader.diagnostics, error);
  if (status == TR_OK) {
    const size_t errors_before = tr_diagnostics_errors(loader.diagnostics);
    status = load(&loader, error);
    const size_t errors = tr_diagnostics_errors(loader.diagnostics) - errors_before;
    if (status == TR_OK && (loader.no_memory || tr_diagnostics_failed(loader.diagnostics))) {
      status = tr_fail_memory(error, "the configuration", source->text_bytes);
    } else if (status == TR_OK && errors > 0) {
      status = fail_config(&loader, errors, error);
    }
  }
  if (diagnostics == NULL) tr_diagnostics_destroy(loader.diagnostics);
  if (status == TR_OK) {
    *out = loader.config;
  } else {
    tr_config_destroy(loader.config);
  }
  return status;
}

void tr_config_destroy(tr_config *config) {
  if (config == NULL) return;
  tr_arena_destroy(config->arena);
  tr_free(config->allocator, config);
}
