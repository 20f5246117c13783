/* The parser of AWS's configuration files. A line is a head, a comment, a key, or one of an indented block. */
#include "s3_ini.h"

#include <ctype.h>
#include <string.h>

typedef struct s3_ini_reader {
  s3_ini *ini;
  const char *section; /* of the current line; NULL before the first head */
  const char *block;   /* an open key: deeper lines lie in it */
  bool block_is_empty; /* it had no value of its own, so that it may have a block */
  size_t block_indent; /* of that key's line */
  uint32_t line;
  tr_error *error;
} s3_ini_reader;

static tr_status fail(const s3_ini_reader *reader, const char *what) {
  return tr_fail(reader->error, TR_ERR_CONFIG, "%s:%u: %s", reader->ini->name, reader->line, what);
}

/* Cuts blanks off both ends, in place. */
static char *trim(char *text) {
  while (isspace((unsigned char)*text)) text++;
  size_t length = strlen(text);
  while (length > 0 && isspace((unsigned char)text[length - 1])) length--;
  text[length] = '\0';
  return text;
}

static bool same(const char *a, const char *b) { return a == b || (a != NULL && b != NULL && strcmp(a, b) == 0); }

static tr_status add(s3_ini_reader *reader, const char *block, const char *key, const char *value) {
  s3_ini *ini = reader->ini;
  for (size_t i = ini->count; i > 0; i--) {
    const s3_ini_entry *other = &ini->entries[i - 1];
    if (key != NULL && other->section != reader->section) break; /* a section lies in one piece */
    if (!same(other->section, reader->section) || !same(other->block, block) || !same(other->key, key)) continue;
    return tr_fail(reader->error, TR_ERR_CONFIG, "%s:%u: %s '%.100s' was there in line %u already", ini->name,
                   reader->line, key != NULL ? "the key" : "the section", key != NULL ? key : reader->section,
                   other->line);
  }
  if (ini->count >= S3_INI_ENTRIES_MAX) return fail(reader, "too many keys in one file");
  TR_TRY(tr_reserve(ini->allocator, (void **)&ini->entries, &ini->capacity, ini->count + 1, sizeof *ini->entries,
                    reader->error));
  ini->entries[ini->count++] = (s3_ini_entry){
      .section = reader->section, .block = block, .key = key, .value = value, .line = reader->line};
  return TR_OK;
}

static tr_status read_head(s3_ini_reader *reader, char *text) {
  char *end = strchr(text, ']');
  if (end == NULL) return fail(reader, "a '[' without its ']'");
  *end = '\0';
  const char *rest = end + 1;
  while (isspace((unsigned char)*rest)) rest++;
  if (*rest != '\0' && *rest != '#' && *rest != ';') return fail(reader, "text behind a [section]");
  reader->section = trim(text + 1);
  if (reader->section[0] == '\0') return fail(reader, "a section without a name");
  reader->block = NULL;
  return add(reader, NULL, NULL, "");
}

static tr_status read_key(s3_ini_reader *reader, char *text, size_t indent) {
  if (reader->section == NULL) return fail(reader, "a key before the first [section]");
  const bool inside = reader->block != NULL && indent > reader->block_indent;
  if (inside && !reader->block_is_empty) return fail(reader, "a value goes on in an indented line: write it in one");
  char *mark = text + strcspn(text, inside ? "=" : "=:");
  if (*mark == '\0') return fail(reader, "neither a [section], nor key = value, nor a comment");
  *mark = '\0';
  char *key = trim(text), *value = trim(mark + 1);
  if (key[0] == '\0') return fail(reader, "a value without a key");
  for (char *c = key; *c != '\0'; c++) *c = (char)tolower((unsigned char)*c);
  if (inside) return add(reader, reader->block, key, value);
  reader->block = key;
  reader->block_is_empty = value[0] == '\0';
  reader->block_indent = indent;
  return add(reader, NULL, key, value);
}

static tr_status read_line(s3_ini_reader *reader, char *text) {
  size_t indent = 0;
  while (text[indent] == ' ' || text[indent] == '\t') indent++;
  char *begin = trim(text);
  if (begin[0] == '\0' || begin[0] == '#' || begin[0] == ';') return TR_OK;
  const bool inside = reader->block != NULL && indent > reader->block_indent;
  return begin[0] == '[' && !inside ? read_head(reader, begin) : read_key(reader, begin, indent);
}

tr_status s3_ini_parse(const tr_allocator *allocator, const char *name, const char *text, size_t bytes, s3_ini *out,
                       tr_error *error) {
  if (bytes > S3_INI_BYTES_MAX) {
    return tr_fail(error, TR_ERR_CONFIG, "%s: has %zu bytes, at most %d are read", name, bytes, S3_INI_BYTES_MAX);
  }
  if (memchr(text, '\0', bytes) != NULL) return tr_fail(error, TR_ERR_CONFIG, "%s: is not a text file", name);
  s3_ini ini = {.allocator = allocator, .name = name, .text_bytes = bytes};
  ini.text = tr_alloc(allocator, bytes + 1);
  if (ini.text == NULL) return tr_fail_memory(error, name, bytes + 1);
  memcpy(ini.text, text, bytes);
  ini.text[bytes] = '\0';
  s3_ini_reader reader = {.ini = &ini, .error = error};
  tr_status status = TR_OK;
  for (char *line = ini.text; status == TR_OK && line != NULL;) {
    char *end = strchr(line, '\n');
    if (end != NULL) *end = '\0';
    reader.line++;
    status = read_line(&reader, line);
    line = end != NULL ? end + 1 : NULL;
  }
  if (status != TR_OK) {
    s3_ini_fini(&ini);
    return status;
  }
  *out = ini;
  return TR_OK;
}

void s3_ini_fini(s3_ini *ini) {
  if (ini->text != NULL) explicit_bzero(ini->text, ini->text_bytes);
  tr_free(ini->allocator, ini->text);
  tr_free(ini->allocator, ini->entries);
  *ini = (s3_ini){0};
}

const s3_ini_entry *s3_ini_find(const s3_ini *ini, const char *section, const char *block, const char *key) {
  for (size_t i = 0; i < ini->count; i++) {
    const s3_ini_entry *entry = &ini->entries[i];
    if (entry->key != NULL && strcmp(entry->section, section) == 0 && same(entry->block, block) &&
        strcmp(entry->key, key) == 0) {
      return entry;
    }
  }
  return NULL;
}
