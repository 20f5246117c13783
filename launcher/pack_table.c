/* A CSV or JSONL file: each row a sample. An image column names files relative to the table; a label column becomes the
 * class; what is left of the row becomes a JSON member. */
#include "pack.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "table.h"
#include "tar_out.h"

enum { IMAGE_BYTES_MAX = 1 << 30 };
#define TABLE_BYTES_MAX ((size_t)4 << 30)

typedef struct packed_table {
  tr_stores *stores;
  const char *url, *image_column, *label_column;
  char *text;
  size_t bytes;
  tr_table table;
  tr_arena *arena;
  tr_pack_classes classes; /* empty: labels are whole numbers */
} packed_table;

static void close_table(void *self) {
  packed_table *t = self;
  table_close(&t->table);
  tr_free(NULL, t->classes.names);
  tr_arena_destroy(t->arena);
  tr_free(NULL, t->text);
  tr_free(NULL, t);
}

/* ---- One sample -------------------------------------------------------------------------------------------------- */

static tr_status column_of(const packed_table *t, const tr_table_row *row, uint64_t index, const char *name,
                           const char **text, tr_error *error) {
  const struct tr_table_cell *cell = table_find(row, name);
  if (cell != NULL && cell->text != NULL) {
    *text = cell->text;
    return TR_OK;
  }
  return tr_fail(error, TR_ERR_CORRUPT, "%s: row %" PRIu64 " has no %s column '%s'", t->url, index + 1,
                 cell != NULL ? "text or number in the" : "such", name);
}

static tr_status add_image(const packed_table *t, const char *path, const char *key, tr_writer *tar, tr_error *error) {
  char url[2 * TR_KEY_BYTES], image_key[TR_KEY_BYTES];
  tr_store *store;
  void *data = NULL;
  size_t bytes = 0;
  const char *suffix = pack_image_suffix(path), *slash = strrchr(t->url, '/');
  if (suffix == NULL) {
    return tr_fail(error, TR_ERR_UNSUPPORTED, "%s: '%s' is no image that can be decoded (.png, .jpg, .jpeg)", t->url,
                   path);
  }
  const bool whole = path[0] == '/' || strstr(path, "://") != NULL || slash == NULL;
  snprintf(url, sizeof url, "%.*s%s", whole ? 0 : (int)(slash + 1 - t->url), t->url, path);
  TR_TRY(tr_stores_resolve(t->stores, url, &store, image_key, error));
  TR_TRY(tr_store_get_all(store, NULL, image_key, IMAGE_BYTES_MAX, &data, &bytes, error));
  tar_add(tar, key, suffix, data, bytes);
  tr_free(NULL, data);
  return TR_OK;
}

static void add_rest(const packed_table *t, const tr_table_row *row, const char *key, tr_writer *tar) {
  tr_writer json;
  bool any = false;
  tr_writer_init(&json, NULL);
  for (size_t i = 0; i < row->count; i++) {
    const struct tr_table_cell *cell = &row->cells[i];
    if (t->image_column != NULL && strcmp(cell->name, t->image_column) == 0) continue;
    if (t->label_column != NULL && strcmp(cell->name, t->label_column) == 0) continue;
    tr_write_text(&json, any ? ", " : "{");
    tr_write_json_string(&json, cell->name);
    tr_write_text(&json, ": ");
    tr_write_bytes(&json, cell->json, strlen(cell->json));
    any = true;
  }
  tr_write_text(&json, "}");
  if (json.failed) tar->failed = true;
  if (any && !json.failed) tar_add(tar, key, "json", json.data, json.bytes);
  tr_writer_fini(&json);
}

static tr_status make_members(const packed_table *t, const tr_table_row *row, uint64_t index, const char *key,
                              tr_writer *tar, tr_error *error) {
  const char *text = NULL;
  if (t->image_column != NULL) {
    TR_TRY(column_of(t, row, index, t->image_column, &text, error));
    TR_TRY(add_image(t, text, key, tar, error));
  }
  if (t->label_column != NULL) {
    char number[32];
    TR_TRY(column_of(t, row, index, t->label_column, &text, error));
    if (t->classes.count > 0) {
      snprintf(number, sizeof number, "%zu", pack_classes_find(&t->classes, text));
      text = number;
    }
    tar_add(tar, key, "cls", text, strlen(text));
  }
  add_rest(t, row, key, tar);
  return TR_OK;
}

static tr_status make(void *self, uint64_t index, const char *key, tr_writer *tar, tr_error *error) {
  const packed_table *t = self;
  tr_table_row row;
  TR_TRY(table_read(&t->table, (size_t)index, &row, error));
  const tr_status status = make_members(t, &row, index, key, tar, error);
  table_row_fini(&row);
  return status;
}

/* ---- Opening ----------------------------------------------------------------------------------------------------- */

/* Whole numbers from 0 on are labels already. */
static bool is_label(const char *text) {
  uint64_t value;
  return tr_parse_u64(text, &value) && value <= INT32_MAX;
}

/* Every row is read once, so that a broken one is known before anything is written. */
static tr_status look_through(packed_table *t, tr_error *error) {
  bool numbers = true;
  for (size_t i = 0; i < t->table.count; i++) {
    tr_table_row row;
    const char *text;
    tr_status status = table_read(&t->table, i, &row, error);
    if (status != TR_OK) return status;
    if (t->image_column != NULL) status = column_of(t, &row, i, t->image_column, &text, error);
    if (status == TR_OK && t->label_column != NULL) {
      status = column_of(t, &row, i, t->label_column, &text, error);
      if (status == TR_OK) {
        numbers = numbers && is_label(text);
        status = pack_classes_add(&t->classes, text, strlen(text), error);
      }
    }
    table_row_fini(&row);
    if (status != TR_OK) return status;
  }
  pack_classes_sort(&t->classes);
  if (numbers) t->classes.count = 0;
  return TR_OK;
}

static tr_status open_it(packed_table *t, tr_error *error) {
  tr_store *store;
  char key[TR_KEY_BYTES];
  const size_t length = strlen(t->url);
  void *text = NULL;
  TR_TRY(tr_stores_resolve(t->stores, t->url, &store, key, error));
  const tr_status status = tr_store_get_all(store, NULL, key, TABLE_BYTES_MAX, &text, &t->bytes, error);
  if (status != TR_OK) return tr_error_context(error, status, "%s", t->url);
  t->text = text;
  TR_TRY(tr_arena_create(NULL, 64 << 10, &t->arena, error));
  t->classes.arena = t->arena;
  TR_TRY(table_open(&t->table, t->url, t->text, t->bytes, strcmp(t->url + length - 4, ".csv") != 0, error));
  return look_through(t, error);
}

tr_status pack_open_table(tr_data *data, const char *url, tr_pack_source *source, tr_error *error) {
  packed_table *t = tr_calloc(NULL, 1, sizeof *t);
  if (t == NULL) return tr_fail_memory(error, "a table", sizeof *t);
  t->stores = data->remote.stores;
  t->url = url;
  t->image_column = data->cli->image_column;
  t->label_column = data->cli->label_column;
  const tr_status status = open_it(t, error);
  if (status != TR_OK) {
    close_table(t);
    return status;
  }
  *source = (tr_pack_source){.count = t->table.count,
                             .classes = t->classes.count > 0 ? t->classes.names : NULL,
                             .class_count = t->classes.count,
                             .fingerprint = tr_crc32c(0, t->text, t->bytes),
                             .self = t,
                             .make = make,
                             .close = close_table};
  return TR_OK;
}
