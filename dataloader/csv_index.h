/* Where each record of a CSV file begins, and what it is.
 *
 * A part (see index.h) holds: u64 records; u32 length and text of the header line; then for each record u64 offset, u32
 * line number and u32 CRC32C of its bytes. A record reaches to the next one or to the end of the file. */
#ifndef TRAINRUN_DATALOADER_CSV_INDEX_H
#define TRAINRUN_DATALOADER_CSV_INDEX_H

#include "index.h"

extern const dl_index_format dl_csv_index_format;

enum { DL_CSV_RECORD_BYTES_MAX = 16 << 20 };

typedef struct dl_csv_record {
  uint64_t offset;
  size_t bytes;
  uint32_t line;
  uint32_t crc32c;
} dl_csv_record;

uint64_t dl_csv_index_records(dl_index_part part);
dl_csv_record dl_csv_index_record(dl_index_part part, const dl_file *file, uint64_t index);
const char *dl_csv_index_header(dl_index_part part, size_t *bytes);

#endif
