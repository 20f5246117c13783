/* Trees of values: finding and placing by dotted path, the defaults of the table, and ${NAME} in strings.
 *
 * Trees live in the loader's arena and are changed only while they are loaded; item arrays are const for readers. */
#include "config_internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const tr_value *tr_value_get(const tr_value *table, const char *key) {
  if (table == NULL || table->type != TR_VALUE_TABLE) return NULL;
  for (size_t i = 0; i < table->count; i++) {
    if (strcmp(table->items[i].key, key) == 0) return &table->items[i];
  }
  return NULL;
}

bool tr_path_next(const char **path, char segment[TR_CONFIG_PATH_BYTES]) {
  const char *at = *path;
  size_t length = 0;
  if (*at == '"') {
    for (at++; *at != '\0' && *at != '"'; at++) {
      if (length + 1 >= TR_CONFIG_PATH_BYTES) return false;
      segment[length++] = *at;
    }
    if (*at != '"') return false;
    at++;
  } else {
    for (; *at != '\0' && *at != '.'; at++) {
      if (length + 1 >= TR_CONFIG_PATH_BYTES) return false;
      segment[length++] = *at;
    }
  }
  if (length == 0 || (*at != '\0' && *at != '.') || (*at == '.' && at[1] == '\0')) return false;
  segment[length] = '\0';
  *path = *at == '.' ? at + 1 : NULL;
  return true;
}

const tr_value *tr_tree_find(const tr_value *root, const char *path) {
  char segment[TR_CONFIG_PATH_BYTES];
  while (root != NULL && path != NULL) {
    if (!tr_path_next(&path, segment)) return NULL;
    root = tr_value_get(root, segment);
  }
  return root;
}

/* A tree under construction is ours to change. */
static tr_value *items_of(tr_value *value) { return (tr_value *)(uintptr_t)value->items; }

static tr_value *find_or_add(tr_arena *arena, tr_value *table, const char *key) {
  tr_value *found = (tr_value *)(uintptr_t)tr_value_get(table, key);
  if (found != NULL) return found;
  tr_value *grown = tr_arena_alloc(arena, (table->count + 1) * sizeof *grown);
  char *name = tr_arena_strdup(arena, key);
  if (grown == NULL || name == NULL) return NULL;
  if (table->count > 0) memcpy(grown, table->items, table->count * sizeof *grown);
  grown[table->count].key = name;
  grown[table->count].type = TR_VALUE_TABLE;
  table->items = grown;
  table->count++;
  return &grown[table->count - 1];
}

bool tr_tree_set(tr_arena *arena, tr_value *root, const char *path, const tr_value *value) {
  char segment[TR_CONFIG_PATH_BYTES];
  tr_value *at = root;
  while (path != NULL) {
    if (!tr_path_next(&path, segment)) return true; /* a malformed path is reported by who made it */
    if (at->type != TR_VALUE_TABLE) {
      at->type = TR_VALUE_TABLE;
      at->items = NULL;
      at->count = 0;
    }
    at = find_or_add(arena, at, segment);
    if (at == NULL) return false;
  }
  const char *key = at->key;
  *at = *value;
  at->key = key;
  return true;
}

void tr_tree_remove(tr_value *root, const char *path) {
  char segment[TR_CONFIG_PATH_BYTES];
  tr_value *at = root;
  while (tr_path_next(&path, segment)) {
    tr_value *next = (tr_value *)(uintptr_t)tr_value_get(at, segment);
    if (next == NULL) return;
    if (path == NULL) {
      const size_t after = (size_t)(items_of(at) + at->count - (next + 1));
      memmove(next, next + 1, after * sizeof *next);
      at->count--;
      return;
    }
    at = next;
  }
}

static const char *parse_default_scalar(tr_arena *arena, const char *text, tr_value *out) {
  if (*text == '"') {
    const size_t length = strcspn(text + 1, "\"");
    out->type = TR_VALUE_STRING;
    out->text = tr_arena_strndup(arena, text + 1, length);
    return out->text != NULL ? text + length + 2 : NULL;
  }
  const size_t length = strcspn(text, ",]");
  char number[64];
  if (length >= sizeof number) return NULL;
  memcpy(number, text, length);
  number[length] = '\0';
  if (strcmp(number, "true") == 0 || strcmp(number, "false") == 0) {
    out->type = TR_VALUE_BOOLEAN;
    out->integer = number[0] == 't';
  } else if (strpbrk(number, ".eE") != NULL) {
    out->type = TR_VALUE_REAL;
    if (!tr_parse_real(number, &out->real)) return NULL;
  } else {
    out->type = TR_VALUE_INTEGER;
    out->integer = strtoll(number, NULL, 10);
    out->real = (double)out->integer;
  }
  return text + length;
}

bool tr_tree_parse_default(tr_arena *arena, const char *text, tr_value *out) {
  memset(out, 0, sizeof *out);
  if (*text != '[') return parse_default_scalar(arena, text, out) != NULL;
  size_t count = 1;
  for (const char *c = text; *c != '\0'; c++) count += *c == ',';
  tr_value *items = tr_arena_alloc(arena, count * sizeof *items);
  out->type = TR_VALUE_ARRAY;
  out->items = items;
  for (text++; items != NULL && *text != ']';) {
    text = parse_default_scalar(arena, text, &items[out->count++]);
    if (text == NULL) return false;
    text += strspn(text, ", ");
  }
  return items != NULL;
}

/* ---- ${NAME} ---------------------------------------------------------------------------------------------------- */

static const char *environment_get(const char *const *environment, const char *name, size_t length) {
  for (; environment != NULL && *environment != NULL; environment++) {
    if (strncmp(*environment, name, length) == 0 && (*environment)[length] == '=') return *environment + length + 1;
  }
  return NULL;
}

static bool is_name(const char *text, size_t length) {
  if (length == 0 || (text[0] >= '0' && text[0] <= '9')) return false;
  for (size_t i = 0; i < length; i++) {
    const char c = text[i];
    if (!((c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '_')) return false;
  }
  return true;
}

/* Writes what "${...}" at `text` stands for and returns what follows it; NULL after a mistake has been reported. */
static const char *expand(tr_loader *loader, const char *path, const tr_value *value, const char *text,
                          tr_writer *out) {
  const char *name = text + 2;
  const char *end = strchr(name, '}');
  if (end == NULL) {
    tr_loader_mistake(loader, path, value, false, "write $${ for the text ${ itself", "'${' without its '}'");
    return NULL;
  }
  const char *fallback = NULL;
  size_t length = (size_t)(end - name);
  for (const char *c = name; c + 1 < end; c++) {
    if (c[0] == ':' && c[1] == '-') {
      length = (size_t)(c - name);
      fallback = c + 2;
      break;
    }
  }
  if (!is_name(name, length)) {
    tr_loader_mistake(loader, path, value, false, "write ${NAME} or ${NAME:-default}; $${ for the text ${ itself",
                      "'%.*s' is no name of an environment variable", (int)length, name);
    return NULL;
  }
  const char *found = environment_get(loader->source->environment, name, length);
  if (fallback != NULL && (found == NULL || *found == '\0')) {
    tr_write_bytes(out, fallback, (size_t)(end - fallback));
  } else if (found != NULL) {
    tr_write_bytes(out, found, strlen(found));
  } else {
    char hint[TR_CONFIG_PATH_BYTES + 64];
    snprintf(hint, sizeof hint, "set it, or give a default: ${%.*s:-default}", (int)length, name);
    tr_loader_mistake(loader, path, value, false, hint, "environment variable '%.*s' is not set", (int)length, name);
    return NULL;
  }
  return end + 1;
}

static const char *interpolate(tr_loader *loader, const char *path, const tr_value *value) {
  if (strstr(value->text, "${") == NULL) return value->text;
  tr_writer out;
  tr_writer_init(&out, loader->config->allocator);
  const char *at = value->text;
  while (at != NULL && *at != '\0') {
    if (at[0] == '$' && at[1] == '$' && at[2] == '{') {
      tr_write_bytes(&out, "${", 2);
      at += 3;
    } else if (at[0] == '$' && at[1] == '{') {
      at = expand(loader, path, value, at, &out);
    } else {
      const size_t plain = strcspn(at + 1, "$") + 1;
      tr_write_bytes(&out, at, plain);
      at += plain;
    }
  }
  const char *text = value->text;
  if (at != NULL && !out.failed) text = tr_arena_strndup(loader->arena, (const char *)out.data, out.bytes);
  if (out.failed || text == NULL) {
    loader->no_memory = true;
    text = value->text;
  }
  tr_writer_fini(&out);
  return text;
}

/* In [params] there is no knob whose type a string could be converted to: "${WIDTH:-32}" alone becomes what its text
 * would be in TOML. */
static void convert_param(tr_value *to, const char *raw) {
  const size_t length = strlen(raw);
  if (strncmp(raw, "${", 2) != 0 || strchr(raw, '}') != raw + length - 1) return;
  uint64_t integer;
  double real;
  const bool negative = to->text[0] == '-';
  if (strcmp(to->text, "true") == 0 || strcmp(to->text, "false") == 0) {
    to->type = TR_VALUE_BOOLEAN;
    to->integer = to->text[0] == 't';
  } else if (tr_parse_u64(to->text + negative, &integer) && integer <= INT64_MAX) {
    to->type = TR_VALUE_INTEGER;
    to->integer = negative ? -(int64_t)integer : (int64_t)integer;
    to->real = (double)to->integer;
  } else if (tr_parse_real(to->text, &real)) {
    to->type = TR_VALUE_REAL;
    to->real = real;
  }
}

static void resolve(tr_loader *loader, char path[TR_CONFIG_PATH_BYTES], size_t path_length, const tr_value *from,
                    tr_value *to) {
  *to = *from;
  if (from->type == TR_VALUE_STRING) {
    to->text = interpolate(loader, path, from);
    if (strncmp(path, "params.", 7) == 0) convert_param(to, from->text);
    return;
  }
  if (from->count == 0 || (from->type != TR_VALUE_ARRAY && from->type != TR_VALUE_TABLE)) return;
  tr_value *items = tr_loader_alloc(loader, from->count * sizeof *items);
  to->items = items;
  if (items == NULL) {
    to->count = 0;
    return;
  }
  for (size_t i = 0; i < from->count; i++) {
    size_t length = path_length;
    if (from->type == TR_VALUE_TABLE) {
      const int added = snprintf(path + path_length, TR_CONFIG_PATH_BYTES - path_length, "%s%s",
                                 path_length > 0 ? "." : "", from->items[i].key);
      length = path_length + (size_t)added < TR_CONFIG_PATH_BYTES ? path_length + (size_t)added
                                                                  : TR_CONFIG_PATH_BYTES - 1;
    }
    resolve(loader, path, length, &from->items[i], &items[i]);
    path[path_length] = '\0';
  }
}

void tr_loader_resolve(tr_loader *loader) {
  char path[TR_CONFIG_PATH_BYTES] = "";
  resolve(loader, path, 0, &loader->config->raw, &loader->config->root);
}
