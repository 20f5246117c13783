/* A CSV (RFC 4180, first row names the columns) or JSONL text as rows of named values, any row at any time.
 *
 * The text is the caller's and stays as it is. Rows are found once; any number of threads may then read them. Errors name
 * the line. */
#ifndef TRAINRUN_LAUNCHER_TABLE_H
#define TRAINRUN_LAUNCHER_TABLE_H

#include <trainrun/base.h>

enum { TABLE_COLUMNS_MAX = 4096 };

typedef struct tr_table {
  const char *name; /* for messages */
  const char *text;
  size_t bytes;
  bool json;
  size_t *rows; /* [count + 1] where each begins, and the end */
  size_t count, capacity;
  char **columns; /* of CSV */
  size_t column_count;
} tr_table;

/* One row: names and values, in the row's order; a value is JSON ("12", "\"text\"", "null", "{...}"). */
typedef struct tr_table_row {
  size_t count, capacity;
  struct tr_table_cell {
    char *name, *json;
    char *text; /* a value that is a string or a number as plain text; NULL: it is neither */
  } * cells;
} tr_table_row;

tr_status table_open(tr_table *table, const char *name, const char *text, size_t bytes, bool json, tr_error *error);
void table_close(tr_table *table);
tr_status table_read(const tr_table *table, size_t row, tr_table_row *to, tr_error *error);
void table_row_fini(tr_table_row *row);
/* NULL: the row has no such column. */
const struct tr_table_cell *table_find(const tr_table_row *row, const char *name);

#endif
