/* Encodings that S3 uses: see s3_text.h. */
#include "s3_text.h"

#include <stdio.h>
#include <string.h>

static const char base64[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

s3_text s3_text_in(char *memory, size_t capacity) {
  memory[0] = '\0';
  return (s3_text){.at = memory, .capacity = capacity};
}

void s3_text_add(s3_text *text, const char *bytes, size_t count) {
  if (text->cut || count >= text->capacity - text->bytes) {
    text->cut = true;
    return;
  }
  memcpy(text->at + text->bytes, bytes, count);
  text->bytes += count;
  text->at[text->bytes] = '\0';
}

void s3_text_addf(s3_text *text, const char *format, ...) {
  if (text->cut) return;
  va_list arguments;
  va_start(arguments, format);
  const size_t room = text->capacity - text->bytes;
  const int length = vsnprintf(text->at + text->bytes, room, format, arguments);
  va_end(arguments);
  if (length < 0 || (size_t)length >= room) {
    text->at[text->bytes] = '\0';
    text->cut = true;
    return;
  }
  text->bytes += (size_t)length;
}

static bool is_plain(unsigned char byte, bool keep_slash) {
  return (byte >= 'A' && byte <= 'Z') || (byte >= 'a' && byte <= 'z') || (byte >= '0' && byte <= '9') || byte == '-' ||
         byte == '.' || byte == '_' || byte == '~' || (byte == '/' && keep_slash);
}

void s3_text_encode(s3_text *text, const char *plain, bool keep_slash) {
  static const char digits[] = "0123456789ABCDEF";
  for (; *plain != '\0'; plain++) {
    const unsigned char byte = (unsigned char)*plain;
    if (is_plain(byte, keep_slash)) {
      s3_text_add(text, plain, 1);
    } else {
      const char encoded[3] = {'%', digits[byte >> 4], digits[byte & 15]};
      s3_text_add(text, encoded, sizeof encoded);
    }
  }
}

static int digit_of(char letter) {
  if (letter >= '0' && letter <= '9') return letter - '0';
  if (letter >= 'A' && letter <= 'F') return letter - 'A' + 10;
  if (letter >= 'a' && letter <= 'f') return letter - 'a' + 10;
  return -1;
}

bool s3_text_decode(const char *encoded, char *plain, size_t capacity) {
  size_t bytes = 0;
  for (; *encoded != '\0'; encoded++) {
    char byte = *encoded == '+' ? ' ' : *encoded;
    if (byte == '%') {
      const int high = digit_of(encoded[1]);
      const int low = high < 0 ? -1 : digit_of(encoded[2]);
      if (low < 0) return false;
      byte = (char)(high << 4 | low);
      encoded += 2;
    }
    if (byte == '\0' || bytes + 1 >= capacity) return false;
    plain[bytes++] = byte;
  }
  plain[bytes] = '\0';
  return true;
}

void s3_text_hex(const unsigned char *bytes, size_t count, char *hex) {
  static const char digits[] = "0123456789abcdef";
  for (size_t i = 0; i < count; i++) {
    hex[2 * i] = digits[bytes[i] >> 4];
    hex[2 * i + 1] = digits[bytes[i] & 15];
  }
  hex[2 * count] = '\0';
}

void s3_text_crc(uint32_t crc, char text[9]) {
  const uint64_t bits = (uint64_t)crc << 4; /* 36 bits: six letters, then "==" */
  for (int i = 0; i < 6; i++) text[i] = base64[bits >> (30 - 6 * i) & 63];
  memcpy(text + 6, "==", 3);
}

bool s3_text_read_crc(const char *text, size_t bytes, uint32_t *crc) {
  if (bytes != 8 || memcmp(text + 6, "==", 2) != 0) return false;
  uint64_t bits = 0;
  for (int i = 0; i < 6; i++) {
    const char *found = text[i] != '\0' ? strchr(base64, text[i]) : NULL;
    if (found == NULL) return false;
    bits = bits << 6 | (uint64_t)(found - base64);
  }
  *crc = (uint32_t)(bits >> 4);
  return true;
}
