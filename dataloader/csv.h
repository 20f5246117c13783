/* CSV as RFC 4180 has it: records of cells between commas, quotes around cells that need them. Pure: bytes in, places
 * out. Numbers only are taken from it, so a quoted cell is shown as the text between its quotes, undoubled quotes and
 * all. */
#ifndef TRAINRUN_DATALOADER_CSV_H
#define TRAINRUN_DATALOADER_CSV_H

#include <trainrun/base.h>

typedef struct dl_csv_cell {
  uint32_t at, length;
  bool quoted;
} dl_csv_cell;

/* Cuts the record at the beginning of `text` (up to a line end outside quotes, or all of it) into cells. *count is how
 * many there are, also beyond cells_max. NULL when it is well formed, else what is wrong, in cell *count. */
const char *dl_csv_cut(const char *text, size_t bytes, dl_csv_cell *cells, size_t cells_max, size_t *count);

/* Numbers, with blanks around them allowed; the whole cell must be one. */
bool dl_csv_real(const char *text, size_t length, float *value);
bool dl_csv_integer(const char *text, size_t length, int32_t *value);

#endif
