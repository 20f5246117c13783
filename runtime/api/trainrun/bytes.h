/* Bounds-checked reading and writing of bytes from and for the outside.
 *
 * A reader never reads past its end: the first failing read sets `failed`, later reads give zeros, and the caller checks
 * once at the end. Little- and big-endian are explicit. A writer grows an owned buffer through its allocator and keeps
 * a sticky failure likewise. */
#ifndef TRAINRUN_BYTES_H
#define TRAINRUN_BYTES_H

#include <trainrun/alloc.h>

TR_BEGIN_C

typedef struct tr_reader {
  const uint8_t *data;
  size_t bytes;
  size_t at;
  bool failed;
} tr_reader;

TR_API tr_reader tr_reader_of(const void *data, size_t bytes);
TR_API uint8_t tr_read_u8(tr_reader *reader);
TR_API uint16_t tr_read_u16le(tr_reader *reader);
TR_API uint32_t tr_read_u32le(tr_reader *reader);
TR_API uint64_t tr_read_u64le(tr_reader *reader);
TR_API uint16_t tr_read_u16be(tr_reader *reader);
TR_API uint32_t tr_read_u32be(tr_reader *reader);
TR_API uint64_t tr_read_u64be(tr_reader *reader);
/* A pointer to `bytes` bytes inside the data, or NULL (and failed). */
TR_API const void *tr_read_bytes(tr_reader *reader, size_t bytes);
TR_API size_t tr_reader_left(const tr_reader *reader);

typedef struct tr_writer {
  const tr_allocator *allocator;
  uint8_t *data; /* owned; tr_writer_fini frees it */
  size_t bytes;
  size_t capacity;
  bool failed;
} tr_writer;

TR_API void tr_writer_init(tr_writer *writer, const tr_allocator *allocator);
TR_API void tr_writer_fini(tr_writer *writer);
TR_API void tr_write_u8(tr_writer *writer, uint8_t value);
TR_API void tr_write_u16le(tr_writer *writer, uint16_t value);
TR_API void tr_write_u32le(tr_writer *writer, uint32_t value);
TR_API void tr_write_u64le(tr_writer *writer, uint64_t value);
TR_API void tr_write_bytes(tr_writer *writer, const void *data, size_t bytes);
/* printf, always with a decimal point whatever the locale. */
TR_API void tr_write_text(tr_writer *writer, const char *format, ...) TR_PRINTF(2, 3);
/* A JSON string with its quotes; what is not UTF-8 becomes U+FFFD. */
TR_API void tr_write_json_string(tr_writer *writer, const char *text);
/* A JSON number that reads back as the same double, as short as can be; null where it is not finite. */
TR_API void tr_write_json_real(tr_writer *writer, double value);

/* Numbers as people write them in job files. Whole text must match; false otherwise.
 * "64MiB", "1.5GB", "512" -> bytes (KiB MiB GiB TiB KB MB GB TB B). "500ms", "2s", "5m", "1h" (us, ns, d) -> ns. */
TR_API bool tr_parse_bytes(const char *text, uint64_t *bytes);
TR_API bool tr_parse_duration(const char *text, uint64_t *duration_ns);
TR_API bool tr_parse_u64(const char *text, uint64_t *value);
TR_API bool tr_parse_real(const char *text, double *value);
/* The other way, for people: "1.5 GiB", "340 ms" into text[32]. */
TR_API void tr_format_bytes(uint64_t bytes, char text[32]);
TR_API void tr_format_duration(uint64_t duration_ns, char text[32]);

TR_END_C
#endif
