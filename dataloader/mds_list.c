/* Reading index.json: see mds_list.h. */
#include "mds_list.h"

#include <inttypes.h>
#include <jansson.h>
#include <string.h>

enum { BASENAME_MAX = 512 };
/* Offsets in a shard have 32 bits; this much less is asked of the memory of whoever unpacks one. */
#define PACKED_RAW_BYTES_MAX ((uint64_t)2 << 30)

/* What is being read, for messages. */
typedef struct reading {
  dl_mds_list *list;
  const tr_allocator *allocator;
  tr_arena *arena;
  const char *folder;
  size_t shard;
} reading;

static tr_status wrong(const reading *r, const char *what, tr_error *error) {
  return tr_fail(error, TR_ERR_CORRUPT, "%s/index.json: shard %zu: %s", r->folder, r->shard, what);
}

/* ---- Columns ----------------------------------------------------------------------------------------------------- */

static tr_status read_column(const reading *r, const json_t *name, const json_t *encoding, const json_t *size,
                             dl_mds_column *column, tr_error *error) {
  if (!json_is_string(name) || !json_is_string(encoding) || !(json_is_null(size) || json_is_integer(size))) {
    return wrong(r, "column_names, column_encodings and column_sizes are lists of names, names and sizes or null",
                 error);
  }
  const char *text = json_string_value(name), *how = json_string_value(encoding);
  const tr_status status = dl_mds_encoding_parse(how, &column->as, error);
  if (status != TR_OK) {
    return tr_error_context(error, status, "%s/index.json: column '%.80s'", r->folder, text);
  }
  const json_int_t bytes = json_is_null(size) ? 0 : json_integer_value(size);
  if (bytes < 0 || (uint64_t)bytes != column->as.size) {
    return tr_fail(error, TR_ERR_CORRUPT,
                   "%s/index.json: shard %zu: column '%.80s': %" JSON_INTEGER_FORMAT " bytes, %s has %" PRIu64
                   " (0: any number)",
                   r->folder, r->shard, text, bytes, how, column->as.size);
  }
  column->name = tr_arena_strdup(r->arena, text);
  column->encoding = tr_arena_strdup(r->arena, how);
  return column->name != NULL && column->encoding != NULL ? TR_OK : tr_fail_memory(error, "a column", strlen(text));
}

static tr_status same_column(const reading *r, const dl_mds_column *column, const json_t *name, const json_t *encoding,
                             const json_t *size, tr_error *error) {
  const char *text = json_string_value(name), *how = json_string_value(encoding);
  const json_int_t bytes = json_is_null(size) ? 0 : json_is_integer(size) ? json_integer_value(size) : -1;
  if (text != NULL && how != NULL && strcmp(text, column->name) == 0 && strcmp(how, column->encoding) == 0 &&
      bytes >= 0 && (uint64_t)bytes == column->as.size) {
    return TR_OK;
  }
  return tr_fail(
      error, TR_ERR_CORRUPT,
      "%s/index.json: shard %zu: its column '%.80s' (%.60s) stands where the first shard has '%.80s' (%.60s)",
      r->folder, r->shard, text != NULL ? text : "", how != NULL ? how : "", column->name, column->encoding);
}

static tr_status take_columns(const reading *r, const json_t *shard, tr_error *error) {
  dl_mds_list *list = r->list;
  const json_t *names = json_object_get(shard, "column_names");
  const json_t *encodings = json_object_get(shard, "column_encodings");
  const json_t *sizes = json_object_get(shard, "column_sizes");
  const size_t count = json_array_size(names);
  if (count == 0 || count > DL_MDS_COLUMNS_MAX || json_array_size(encodings) != count ||
      json_array_size(sizes) != count || (list->columns != NULL && list->column_count != count)) {
    return wrong(r, "its columns are not as many as those of the first shard, or not named, encoded and sized alike",
                 error);
  }
  const bool first = list->columns == NULL;
  if (first) {
    list->columns = tr_arena_alloc(r->arena, count * sizeof *list->columns);
    if (list->columns == NULL) return tr_fail_memory(error, "columns", count * sizeof *list->columns);
    list->column_count = count;
  }
  for (size_t i = 0; i < count; i++) {
    const json_t *name = json_array_get(names, i), *encoding = json_array_get(encodings, i);
    const json_t *size = json_array_get(sizes, i);
    if (!first) {
      TR_TRY(same_column(r, &list->columns[i], name, encoding, size, error));
      continue;
    }
    TR_TRY(read_column(r, name, encoding, size, &list->columns[i], error));
    list->variable_count += list->columns[i].as.size == 0;
  }
  return TR_OK;
}

/* ---- Shards ------------------------------------------------------------------------------------------------------ */

/* A relative path that stays where it is. */
static bool is_inside(const char *name) {
  if (name == NULL || *name == '\0' || *name == '/' || strlen(name) > BASENAME_MAX) return false;
  for (const char *part = name; part != NULL; part = strchr(part, '/')) {
    if (*part == '/') part++;
    const size_t length = strcspn(part, "/");
    if (length == 0 || (length <= 2 && strncmp(part, "..", length) == 0)) return false;
  }
  for (const char *c = name; *c != '\0'; c++) {
    if ((uint8_t)*c < 0x20 || *c == '\\') return false;
  }
  return true;
}

static tr_status take_file(const reading *r, const json_t *file, const char **url, uint64_t *bytes, tr_error *error) {
  const char *name = json_string_value(json_object_get(file, "basename"));
  const json_t *size = json_object_get(file, "bytes");
  if (!is_inside(name)) return wrong(r, "the basename of a file is not a path inside the folder", error);
  if (!json_is_integer(size) || json_integer_value(size) < 0) return wrong(r, "a file has no size in bytes", error);
  *bytes = (uint64_t)json_integer_value(size);
  *url = tr_url_join(r->arena, r->folder, name);
  return *url != NULL ? TR_OK : tr_fail_memory(error, "a URL", strlen(name));
}

static tr_status check_compression(const reading *r, const json_t *how, tr_error *error) {
  const char *text = json_string_value(how);
  if (json_is_null(how) || how == NULL) return TR_OK;
  if (text != NULL && (strcmp(text, "zstd") == 0 || strncmp(text, "zstd:", 5) == 0)) return TR_OK;
  return tr_fail(error, TR_ERR_UNSUPPORTED,
                 "%s/index.json: shard %zu: compression '%.40s' is not read; write the data set with zstd or none",
                 r->folder, r->shard, text != NULL ? text : "");
}

static tr_status take_shard(const reading *r, const json_t *shard, tr_error *error) {
  dl_mds_list *list = r->list;
  const json_t *samples = json_object_get(shard, "samples"), *packed = json_object_get(shard, "zip_data");
  const char *format = json_string_value(json_object_get(shard, "format"));
  if (format == NULL || strcmp(format, "mds") != 0) {
    return tr_fail(error, TR_ERR_UNSUPPORTED, "%s/index.json: shard %zu: format '%.40s' is not read; mds is", r->folder,
                   r->shard, format != NULL ? format : "");
  }
  if (json_integer_value(json_object_get(shard, "version")) != 2) return wrong(r, "its version is not 2", error);
  if (!json_is_integer(samples) || json_integer_value(samples) < 0 || json_integer_value(samples) > UINT32_MAX) {
    return wrong(r, "it has no number of samples", error);
  }
  TR_TRY(check_compression(r, json_object_get(shard, "compression"), error));
  TR_TRY(take_columns(r, shard, error));
  dl_mds_shard found = {.samples = (uint64_t)json_integer_value(samples)};
  uint64_t packed_bytes;
  TR_TRY(take_file(r, json_object_get(shard, "raw_data"), &found.url, &found.raw_bytes, error));
  if (json_is_object(packed)) {
    found.packed = true;
    found.raw_url = found.url;
    TR_TRY(take_file(r, packed, &found.url, &packed_bytes, error));
  }
  if (found.raw_bytes > (found.packed ? PACKED_RAW_BYTES_MAX : UINT32_MAX)) {
    return wrong(r, "more bytes than a shard can have", error);
  }
  TR_TRY(tr_reserve(r->allocator, (void **)&list->shards, &list->shard_capacity, list->shard_count + 1,
                    sizeof *list->shards, error));
  list->shards[list->shard_count++] = found;
  return TR_OK;
}

static tr_status take_root(reading *r, const json_t *root, tr_error *error) {
  const json_t *shards = json_object_get(root, "shards");
  if (json_integer_value(json_object_get(root, "version")) != 2 || !json_is_array(shards)) {
    return tr_fail(error, TR_ERR_CORRUPT, "%s/index.json: it is not {\"version\": 2, \"shards\": [...]}", r->folder);
  }
  for (r->shard = 0; r->shard < json_array_size(shards); r->shard++) {
    TR_TRY(take_shard(r, json_array_get(shards, r->shard), error));
  }
  return TR_OK;
}

tr_status dl_mds_list_add(dl_mds_list *list, const tr_allocator *allocator, tr_arena *arena, const char *folder,
                          const char *text, size_t bytes, tr_error *error) {
  json_error_t why;
  reading r = {.list = list, .allocator = allocator, .arena = arena, .folder = folder};
  json_t *root = json_loadb(text, bytes, JSON_REJECT_DUPLICATES, &why);
  if (root == NULL) {
    return tr_fail(error, TR_ERR_CORRUPT, "%s/index.json: line %d, column %d: %s", folder, why.line, why.column,
                   why.text);
  }
  const tr_status status = take_root(&r, root, error);
  json_decref(root);
  return status;
}
