/* Reading and writing bytes: each read checks its bounds, each write grows the buffer, and both remember a failure. */
#include <trainrun/bytes.h>

#include "c_locale.h"
#include "utf8.h"

#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

tr_reader tr_reader_of(const void *data, size_t bytes) { return (tr_reader){.data = data, .bytes = bytes}; }

size_t tr_reader_left(const tr_reader *reader) { return reader->failed ? 0 : reader->bytes - reader->at; }

const void *tr_read_bytes(tr_reader *reader, size_t bytes) {
  if (reader->failed || bytes > reader->bytes - reader->at || reader->data == NULL) {
    reader->failed = true;
    return NULL;
  }
  const void *p = reader->data + reader->at;
  reader->at += bytes;
  return p;
}

static uint64_t read_little(tr_reader *reader, size_t bytes) {
  const uint8_t *p = tr_read_bytes(reader, bytes);
  uint64_t value = 0;
  for (size_t i = bytes; p != NULL && i > 0; i--) value = value << 8 | p[i - 1];
  return value;
}

static uint64_t read_big(tr_reader *reader, size_t bytes) {
  const uint8_t *p = tr_read_bytes(reader, bytes);
  uint64_t value = 0;
  for (size_t i = 0; p != NULL && i < bytes; i++) value = value << 8 | p[i];
  return value;
}

uint8_t tr_read_u8(tr_reader *reader) { return (uint8_t)read_little(reader, 1); }
uint16_t tr_read_u16le(tr_reader *reader) { return (uint16_t)read_little(reader, 2); }
uint32_t tr_read_u32le(tr_reader *reader) { return (uint32_t)read_little(reader, 4); }
uint64_t tr_read_u64le(tr_reader *reader) { return read_little(reader, 8); }
uint16_t tr_read_u16be(tr_reader *reader) { return (uint16_t)read_big(reader, 2); }
uint32_t tr_read_u32be(tr_reader *reader) { return (uint32_t)read_big(reader, 4); }
uint64_t tr_read_u64be(tr_reader *reader) { return read_big(reader, 8); }

void tr_writer_init(tr_writer *writer, const tr_allocator *allocator) { *writer = (tr_writer){.allocator = allocator}; }

void tr_writer_fini(tr_writer *writer) {
  tr_free(writer->allocator, writer->data);
  *writer = (tr_writer){.allocator = writer->allocator};
}

/* Room for `bytes` more, or NULL and failed. What is returned is counted as written. */
static uint8_t *extend(tr_writer *writer, size_t bytes) {
  size_t needed;
  if (writer->failed || __builtin_add_overflow(writer->bytes, bytes, &needed) ||
      tr_reserve(writer->allocator, (void **)&writer->data, &writer->capacity, needed, 1, NULL) != TR_OK) {
    writer->failed = true;
    return NULL;
  }
  uint8_t *p = writer->data + writer->bytes;
  writer->bytes = needed;
  return p;
}

void tr_write_bytes(tr_writer *writer, const void *data, size_t bytes) {
  if (bytes == 0) return;
  uint8_t *p = extend(writer, bytes);
  if (p != NULL) memcpy(p, data, bytes);
}

static void write_little(tr_writer *writer, uint64_t value, size_t bytes) {
  uint8_t *p = extend(writer, bytes);
  for (size_t i = 0; p != NULL && i < bytes; i++) p[i] = (uint8_t)(value >> (8 * i));
}

void tr_write_u8(tr_writer *writer, uint8_t value) { write_little(writer, value, 1); }
void tr_write_u16le(tr_writer *writer, uint16_t value) { write_little(writer, value, 2); }
void tr_write_u32le(tr_writer *writer, uint32_t value) { write_little(writer, value, 4); }
void tr_write_u64le(tr_writer *writer, uint64_t value) { write_little(writer, value, 8); }

void tr_write_text(tr_writer *writer, const char *format, ...) {
  if (writer->failed) return;
  char small[256];
  va_list arguments, again;
  va_start(arguments, format);
  va_copy(again, arguments);
  const locale_t before = tr_c_locale_enter();
  const int length = vsnprintf(small, sizeof small, format, arguments);
  if (length < 0) {
    writer->failed = true;
  } else if ((size_t)length < sizeof small) {
    tr_write_bytes(writer, small, (size_t)length);
  } else {
    /* vsnprintf ends with a NUL, which has a place in the buffer but is not counted. */
    char *p = (char *)extend(writer, (size_t)length + 1);
    if (p != NULL) {
      vsnprintf(p, (size_t)length + 1, format, again);
      writer->bytes--;
    }
  }
  tr_c_locale_leave(before);
  va_end(again);
  va_end(arguments);
}

static void write_json_escape(tr_writer *writer, unsigned char c) {
  static const char letters[] = "\bb\ff\nn\rr\tt\"\"\\\\";
  for (size_t i = 0; letters[i] != '\0'; i += 2) {
    if ((unsigned char)letters[i] == c) {
      tr_write_text(writer, "\\%c", letters[i + 1]);
      return;
    }
  }
  tr_write_text(writer, "\\u%04x", (unsigned)c);
}

void tr_write_json_string(tr_writer *writer, const char *text) {
  const unsigned char *at = (const unsigned char *)text;
  size_t left = strlen(text);
  tr_write_u8(writer, '"');
  while (left > 0) {
    size_t plain = 0;
    for (size_t length; plain < left && at[plain] >= 0x20 && at[plain] != 0x7F && at[plain] != '"' && at[plain] != '\\';
         plain += length) {
      length = tr_utf8_length(at + plain, left - plain);
      if (length == 0) break;
    }
    tr_write_bytes(writer, at, plain);
    at += plain;
    left -= plain;
    if (left == 0) break;
    if (*at >= 0x80) {
      tr_write_bytes(writer, "\xEF\xBF\xBD", 3);
    } else {
      write_json_escape(writer, *at);
    }
    at++;
    left--;
  }
  tr_write_u8(writer, '"');
}

void tr_write_json_real(tr_writer *writer, double value) {
  if (!isfinite(value)) {
    tr_write_text(writer, "null");
    return;
  }
  char text[40] = "";
  const locale_t before = tr_c_locale_enter();
  for (int digits = 15; digits <= 17; digits++) {
    snprintf(text, sizeof text, "%.*g", digits, value);
    if (strtod(text, NULL) == value) break;
  }
  tr_c_locale_leave(before);
  tr_write_text(writer, "%s", text);
}
