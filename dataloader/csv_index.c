/* Finding the records of a CSV file: one pass that knows quotes and line ends. */
#include "csv_index.h"

#include <string.h>

#include "window.h"

enum { RECORD_ENTRY = 16, HEAD = 12 };

/* ---- Making ------------------------------------------------------------------------------------------------------ */

typedef struct scanner {
  const dl_file *file;
  dl_window window;
  uint64_t at;
  uint32_t line;
  /* What was scanned since the record before ended: first what still belongs to that one (empty lines), then the record
   * at hand, up to `summed`. */
  uint64_t summed;
  uint32_t crc_before, crc;
  tr_writer *kept; /* gets the text of the record at hand; NULL: nobody */
} scanner;

static tr_status fail_at(const scanner *s, uint32_t line, const char *what, tr_error *error) {
  return tr_fail(error, TR_ERR_CORRUPT, "%s: line %u: %s", s->file->url, line, what);
}

typedef struct span {
  uint64_t begin;
  uint64_t length; /* without its line end */
  uint32_t line;
} span;

/* Takes the bytes of [summed, upto), which are shown at data, into the CRC of the record at hand. */
static void sum(scanner *s, const uint8_t *data, uint64_t upto) {
  const size_t bytes = (size_t)(upto - s->summed);
  s->crc = tr_crc32c(s->crc, data, bytes);
  if (s->kept != NULL && s->kept->bytes <= DL_WINDOW_BYTES) tr_write_bytes(s->kept, data, bytes);
  s->summed = upto;
}

/* What was summed was an empty line: it belongs to the record before. */
static void pass_empty(scanner *s, uint64_t bytes) {
  s->crc_before = tr_crc32c_combine(s->crc_before, s->crc, bytes);
  s->crc = 0;
  if (s->kept != NULL) s->kept->bytes = 0;
}

/* The next record that is not an empty line; *there false at the end. */
static tr_status next_record(scanner *s, span *record, bool *there, tr_error *error) {
  bool quoted = false, any = false, cell_begins = true, quoted_cell = false;
  *record = (span){.begin = s->at, .line = s->line};
  uint8_t last = 0;
  while (s->at < s->file->bytes) {
    const uint8_t *data;
    size_t shown;
    TR_TRY(dl_window_show(&s->window, s->at, 1, &data, &shown, error));
    const uint64_t from = s->at;
    for (size_t i = 0; i < shown; i++) {
      const uint8_t c = data[i];
      s->at++;
      if (c == '\n') {
        if (++s->line == 0) return fail_at(s, s->line, "more than 2^32 lines", error);
        const bool empty = !any || (last == '\r' && s->at - record->begin == 2);
        if (!quoted && empty) {
          sum(s, data + (s->summed - from), s->at);
          pass_empty(s, s->at - record->begin);
          *record = (span){.begin = s->at, .line = s->line};
          any = false;
          continue;
        }
        if (!quoted) {
          sum(s, data + (s->summed - from), s->at);
          record->length = s->at - 1 - record->begin - (last == '\r');
          *there = true;
          return TR_OK;
        }
      }
      any = true;
      /* A quote opens a cell only where the cell begins; in a quoted cell each one closes or opens again. */
      if (c == '"' && (cell_begins || quoted_cell)) {
        quoted = !quoted;
        quoted_cell = true;
      }
      cell_begins = !quoted && c == ',';
      if (cell_begins) quoted_cell = false;
      last = c;
      if (s->at - record->begin > DL_CSV_RECORD_BYTES_MAX) {
        return fail_at(s, record->line, quoted ? "a quote that is never closed" : "a record of more than 16 MiB",
                       error);
      }
    }
    sum(s, data + (s->summed - from), s->at);
  }
  if (quoted) return fail_at(s, record->line, "a quote that is never closed", error);
  record->length = s->at - record->begin;
  *there = any && record->length > 0;
  return TR_OK;
}

static tr_status begin_file(scanner *s, tr_error *error) {
  const uint8_t *data;
  size_t shown;
  const size_t least = s->file->bytes < 3 ? (size_t)s->file->bytes : 3;
  TR_TRY(dl_window_show(&s->window, 0, least, &data, &shown, error));
  if (shown >= 2 && data[0] == 0x1F && data[1] == 0x8B) {
    return tr_fail(error, TR_ERR_UNSUPPORTED, "%s: compressed CSV is not read; unpack it first", s->file->url);
  }
  if (shown >= 3 && memcmp(data, "\xEF\xBB\xBF", 3) == 0) s->at = 3;
  return TR_OK;
}

static tr_status write_header(scanner *s, tr_writer *part, tr_error *error) {
  span header = {0};
  bool there = false;
  tr_writer text;
  tr_writer_init(&text, part->allocator);
  tr_status status = begin_file(s, error);
  s->summed = s->at;
  s->kept = &text;
  if (status == TR_OK) status = next_record(s, &header, &there, error);
  s->kept = NULL;
  if (status == TR_OK && !there) status = tr_fail(error, TR_ERR_CORRUPT, "%s: it has no header line", s->file->url);
  if (status == TR_OK && header.length > DL_WINDOW_BYTES) {
    status = fail_at(s, header.line, "a header of more than 1 MiB", error);
  }
  if (status == TR_OK && text.failed) status = tr_fail_memory(error, "a header", (size_t)header.length);
  if (status == TR_OK) {
    tr_write_u32le(part, (uint32_t)header.length);
    tr_write_bytes(part, text.data, (size_t)header.length);
  }
  tr_writer_fini(&text);
  return status;
}

static void patch(tr_writer *part, size_t at, uint64_t value, size_t bytes) {
  for (size_t i = 0; i < bytes && !part->failed; i++) part->data[at + i] = (uint8_t)(value >> (8 * i));
}

static tr_status write_records(scanner *s, tr_writer *part, tr_error *error) {
  const size_t count_at = part->bytes;
  uint64_t count = 0, previous = s->at;
  tr_write_u64le(part, 0);
  TR_TRY(write_header(s, part, error));
  for (;; count++) {
    span record;
    bool there;
    s->crc_before = s->crc;
    s->crc = 0;
    TR_TRY(next_record(s, &record, &there, error));
    /* Only now it is known where the record before ends. */
    if (count > 0) patch(part, part->bytes - 4, s->crc_before, 4);
    if (!there) break;
    if (count > 0 && record.begin - previous > DL_CSV_RECORD_BYTES_MAX) {
      return fail_at(s, record.line, "more than 16 MiB of empty lines", error);
    }
    previous = record.begin;
    tr_write_u64le(part, record.begin);
    tr_write_u32le(part, record.line);
    tr_write_u32le(part, 0);
    if (part->failed) return tr_fail_memory(error, "an index", part->bytes);
  }
  if (count > 0 && s->file->bytes - previous > DL_CSV_RECORD_BYTES_MAX) {
    return fail_at(s, s->line, "more than 16 MiB of empty lines", error);
  }
  patch(part, count_at, count, 8);
  return TR_OK;
}

static tr_status build(const tr_dataset *dataset, size_t shard, tr_writer *part, tr_error *error) {
  scanner s = {.file = &dataset->files[shard], .line = 1};
  dl_window_init(&s.window, s.file, dataset->allocator);
  const tr_status status = write_records(&s, part, error);
  dl_window_fini(&s.window);
  return status;
}

/* ---- Asking ------------------------------------------------------------------------------------------------------ */

static uint64_t little(const uint8_t *at, size_t bytes) {
  uint64_t value = 0;
  for (size_t i = bytes; i > 0; i--) value = value << 8 | at[i - 1];
  return value;
}

uint64_t dl_csv_index_records(dl_index_part part) { return little(part.data, 8); }

const char *dl_csv_index_header(dl_index_part part, size_t *bytes) {
  *bytes = (size_t)little(part.data + 8, 4);
  return (const char *)part.data + HEAD;
}

dl_csv_record dl_csv_index_record(dl_index_part part, const dl_file *file, uint64_t index) {
  const uint8_t *entry = part.data + HEAD + little(part.data + 8, 4) + index * RECORD_ENTRY;
  const bool last = index + 1 == dl_csv_index_records(part);
  dl_csv_record record = {
      .offset = little(entry, 8), .line = (uint32_t)little(entry + 8, 4), .crc32c = (uint32_t)little(entry + 12, 4)};
  record.bytes = (size_t)((last ? file->bytes : little(entry + RECORD_ENTRY, 8)) - record.offset);
  return record;
}

static tr_status check(const tr_dataset *dataset, size_t shard, dl_index_part part, tr_error *error) {
  const dl_file *file = &dataset->files[shard];
  tr_reader reader = tr_reader_of(part.data, part.bytes);
  const uint64_t count = tr_read_u64le(&reader);
  tr_read_bytes(&reader, tr_read_u32le(&reader));
  bool good = !reader.failed && tr_reader_left(&reader) % RECORD_ENTRY == 0 &&
              tr_reader_left(&reader) / RECORD_ENTRY == count;
  uint64_t previous = 0;
  for (uint64_t i = 0; good && i < count; i++) {
    const uint64_t offset = tr_read_u64le(&reader);
    tr_read_u64le(&reader);
    good = offset < file->bytes && (i == 0 || (offset > previous && offset - previous <= DL_CSV_RECORD_BYTES_MAX));
    previous = offset;
  }
  good = good && (count == 0 || file->bytes - previous <= DL_CSV_RECORD_BYTES_MAX);
  return good ? TR_OK : tr_fail(error, TR_ERR_CORRUPT, "the index of %s is broken", file->url);
}

const dl_index_format dl_csv_index_format = {.build = build, .check = check};
