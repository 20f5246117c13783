/* Text built in memory of a fixed size: what does not fit sets `cut` and is left out; the builder checks once. */
#ifndef TRAINRUN_STORE_S3_TEXT_H
#define TRAINRUN_STORE_S3_TEXT_H

#include <trainrun/base.h>

typedef struct s3_text {
  char *at; /* always ends in a NUL */
  size_t bytes, capacity;
  bool cut;
} s3_text;

s3_text s3_text_in(char *memory, size_t capacity);
void s3_text_add(s3_text *text, const char *bytes, size_t count);
void s3_text_addf(s3_text *text, const char *format, ...) TR_PRINTF(2, 3);
/* Percent-encoded as S3 signs it: each byte once, A-Z a-z 0-9 - . _ ~ as they are, and '/' where keep_slash. */
void s3_text_encode(s3_text *text, const char *plain, bool keep_slash);

/* The other way, as encoding-type=url has it ('+' is a space); false where it does not fit or is no such text. */
bool s3_text_decode(const char *encoded, char *plain, size_t capacity);

/* Bytes as lower-case hexadecimal; hex has room for 2 * count + 1. */
void s3_text_hex(const unsigned char *bytes, size_t count, char *hex);

/* A CRC32C as S3 writes it: base64 of four bytes, most significant first. */
void s3_text_crc(uint32_t crc, char text[9]);
bool s3_text_read_crc(const char *text, size_t bytes, uint32_t *crc);

#endif
