/* Tables: see table.h. */
#include "table.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

/* ---- Finding rows ------------------------------------------------------------------------------------------------ */

/* Where the row that begins at `at` ends: behind its newline; quotes hide newlines in CSV. */
static size_t row_end(const tr_table *table, size_t at) {
  bool quoted = false;
  for (; at < table->bytes; at++) {
    if (!table->json && table->text[at] == '"') quoted = !quoted;
    if (table->text[at] == '\n' && !quoted) return at + 1;
  }
  return at;
}

static bool is_blank(const tr_table *table, size_t begin, size_t end) {
  for (; begin < end; begin++) {
    if (strchr(" \t\r\n", table->text[begin]) == NULL) return false;
  }
  return true;
}

static tr_status find_rows(tr_table *table, size_t at, tr_error *error) {
  while (at < table->bytes) {
    const size_t end = row_end(table, at);
    if (!is_blank(table, at, end)) {
      TR_TRY(tr_reserve(NULL, (void **)&table->rows, &table->capacity, table->count + 2, sizeof *table->rows, error));
      table->rows[table->count++] = at;
    }
    at = end;
  }
  if (table->count == 0) return tr_fail(error, TR_ERR_CORRUPT, "%s holds no rows", table->name);
  table->rows[table->count] = table->bytes;
  return TR_OK;
}

static size_t line_of(const tr_table *table, size_t at) {
  size_t line = 1;
  for (size_t i = 0; i < at; i++) line += table->text[i] == '\n';
  return line;
}

/* ---- CSV --------------------------------------------------------------------------------------------------------- */

/* The next value of a row into `cell` (unquoted); *at moves behind its comma. False: a quote is out of place. */
static bool next_value(const tr_table *table, size_t *at, size_t end, tr_writer *cell) {
  const char *text = table->text;
  cell->bytes = 0;
  if (*at < end && text[*at] == '"') {
    for (++*at;; ++*at) {
      if (*at >= end) return false;
      if (text[*at] == '"' && (*at + 1 >= end || text[*at + 1] != '"')) break;
      if (text[*at] == '"') ++*at;
      tr_write_u8(cell, (uint8_t)text[*at]);
    }
    ++*at;
    if (*at < end && text[*at] != ',') return false;
  } else {
    for (; *at < end && text[*at] != ','; ++*at) {
      if (text[*at] == '"') return false;
      tr_write_u8(cell, (uint8_t)text[*at]);
    }
  }
  tr_write_u8(cell, 0);
  return true;
}

static size_t without_newline(const tr_table *table, size_t begin, size_t end) {
  while (end > begin && (table->text[end - 1] == '\n' || table->text[end - 1] == '\r')) end--;
  return end;
}

/* A number as JSON has it, so that it can stand there unquoted. */
static bool is_number(const char *text) {
  const char *at = text + (*text == '-');
  if (*at == '0' ? at[1] >= '0' && at[1] <= '9' : *at < '1' || *at > '9') return false;
  at += strspn(at, "0123456789");
  if (*at == '.') {
    const size_t digits = strspn(at + 1, "0123456789");
    if (digits == 0) return false;
    at += 1 + digits;
  }
  if (*at == 'e' || *at == 'E') {
    at++;
    if (*at == '+' || *at == '-') at++;
    const size_t digits = strspn(at, "0123456789");
    if (digits == 0) return false;
    at += digits;
  }
  return *at == '\0';
}

static tr_status add_cell(tr_table_row *row, const char *name, char *text, char *json, tr_error *error) {
  char *copy = tr_strdup(NULL, name);
  if (copy == NULL || json == NULL ||
      tr_reserve(NULL, (void **)&row->cells, &row->capacity, row->count + 1, sizeof *row->cells, NULL) != TR_OK) {
    tr_free(NULL, copy);
    tr_free(NULL, text);
    tr_free(NULL, json);
    return tr_fail_memory(error, "a row", strlen(name));
  }
  row->cells[row->count++] = (struct tr_table_cell){.name = copy, .text = text, .json = json};
  return TR_OK;
}

static char *quoted(const char *text) {
  tr_writer json;
  tr_writer_init(&json, NULL);
  tr_write_json_string(&json, text);
  tr_write_u8(&json, 0);
  char *made = json.failed ? NULL : tr_strdup(NULL, (const char *)json.data);
  tr_writer_fini(&json);
  return made;
}

/* columns == NULL: the first row, whose values are the names. */
static tr_status read_csv(const tr_table *table, size_t begin, size_t end, char **columns, tr_table_row *row,
                          tr_error *error) {
  tr_writer cell;
  tr_status status = TR_OK;
  size_t at = begin, column = 0;
  end = without_newline(table, begin, end);
  tr_writer_init(&cell, NULL);
  /* A comma at the end begins one more value, which is empty. */
  for (bool more = true; more && status == TR_OK; column++) {
    if (!next_value(table, &at, end, &cell)) {
      status = tr_fail(error, TR_ERR_CORRUPT, "%s:%zu: a quote is out of place in column %zu", table->name,
                       line_of(table, begin), column + 1);
    } else if (cell.failed) {
      status = tr_fail_memory(error, "a row", cell.bytes);
    } else if (column >= (columns != NULL ? table->column_count : TABLE_COLUMNS_MAX)) {
      status = tr_fail(error, TR_ERR_CORRUPT, "%s:%zu: more than %zu columns", table->name, line_of(table, begin),
                       columns != NULL ? table->column_count : (size_t)TABLE_COLUMNS_MAX);
    } else {
      const char *text = (const char *)cell.data;
      status = add_cell(row, columns != NULL ? columns[column] : text, tr_strdup(NULL, text),
                        is_number(text) ? tr_strdup(NULL, text) : quoted(text), error);
    }
    more = at < end;
    at += more;
  }
  tr_writer_fini(&cell);
  if (status == TR_OK && columns != NULL && row->count != table->column_count) {
    status = tr_fail(error, TR_ERR_CORRUPT, "%s:%zu: %zu columns, the first row has %zu", table->name,
                     line_of(table, begin), row->count, table->column_count);
  }
  return status;
}

/* ---- JSONL ------------------------------------------------------------------------------------------------------- */

static tr_status read_json(const tr_table *table, size_t begin, size_t end, tr_table_row *row, tr_error *error) {
  json_error_t why;
  json_t *object = json_loadb(table->text + begin, end - begin, JSON_REJECT_DUPLICATES, &why);
  const char *name;
  json_t *value;
  tr_status status = TR_OK;
  if (!json_is_object(object)) {
    json_decref(object);
    return tr_fail(error, TR_ERR_CORRUPT, "%s:%zu: a row is one JSON object on a line: %s", table->name,
                   line_of(table, begin), object == NULL ? why.text : "this is none");
  }
  json_object_foreach(object, name, value) {
    char *json = json_dumps(value, JSON_COMPACT | JSON_ENCODE_ANY);
    const bool plain = json_is_string(value) || json_is_number(value);
    char *text = plain && json != NULL ? tr_strdup(NULL, json_is_string(value) ? json_string_value(value) : json)
                                       : NULL;
    status = add_cell(row, name, text, json != NULL ? tr_strdup(NULL, json) : NULL, error);
    free(json);
    if (status != TR_OK) break;
  }
  json_decref(object);
  return status;
}

/* ---- The table --------------------------------------------------------------------------------------------------- */

void table_row_fini(tr_table_row *row) {
  for (size_t i = 0; i < row->count; i++) {
    tr_free(NULL, row->cells[i].name);
    tr_free(NULL, row->cells[i].json);
    tr_free(NULL, row->cells[i].text);
  }
  tr_free(NULL, row->cells);
  *row = (tr_table_row){0};
}

tr_status table_read(const tr_table *table, size_t row, tr_table_row *to, tr_error *error) {
  tr_table_row made = {0};
  const size_t begin = table->rows[row], end = row_end(table, begin);
  const tr_status status = table->json ? read_json(table, begin, end, &made, error)
                                       : read_csv(table, begin, end, table->columns, &made, error);
  if (status != TR_OK) {
    table_row_fini(&made);
    return status;
  }
  *to = made;
  return TR_OK;
}

const struct tr_table_cell *table_find(const tr_table_row *row, const char *name) {
  for (size_t i = 0; i < row->count; i++) {
    if (strcmp(row->cells[i].name, name) == 0) return &row->cells[i];
  }
  return NULL;
}

static tr_status read_columns(tr_table *table, size_t end, tr_error *error) {
  tr_table_row row = {0};
  tr_status status = read_csv(table, 0, end, NULL, &row, error);
  if (status == TR_OK) {
    table->columns = tr_calloc(NULL, row.count, sizeof *table->columns);
    if (table->columns == NULL) status = tr_fail_memory(error, "columns", row.count);
  }
  for (size_t i = 0; status == TR_OK && i < row.count; i++) {
    table->columns[table->column_count++] = row.cells[i].name;
    row.cells[i].name = NULL;
    for (size_t j = 0; j < i && status == TR_OK; j++) {
      if (strcmp(table->columns[i], table->columns[j]) == 0) {
        status = tr_fail(error, TR_ERR_CORRUPT, "%s:1: two columns are named '%s'", table->name, table->columns[i]);
      }
    }
  }
  table_row_fini(&row);
  return status;
}

tr_status table_open(tr_table *table, const char *name, const char *text, size_t bytes, bool json, tr_error *error) {
  *table = (tr_table){.name = name, .text = text, .bytes = bytes, .json = json};
  /* A byte order mark, as spreadsheets write it. */
  const size_t mark = bytes >= 3 && memcmp(text, "\xef\xbb\xbf", 3) == 0 ? 3 : 0;
  table->text += mark;
  table->bytes -= mark;
  tr_status status = TR_OK;
  size_t at = 0;
  if (!json) {
    at = row_end(table, 0);
    status = read_columns(table, at, error);
  }
  if (status == TR_OK) status = find_rows(table, at, error);
  if (status != TR_OK) table_close(table);
  return status;
}

void table_close(tr_table *table) {
  for (size_t i = 0; i < table->column_count; i++) tr_free(NULL, table->columns[i]);
  tr_free(NULL, table->columns);
  tr_free(NULL, table->rows);
  *table = (tr_table){0};
}
