/* Writing tar members: see tar_out.h. */
#include "tar_out.h"

#include <stdio.h>
#include <string.h>

enum { SIZE_AT = 124, SUM_AT = 148, SUM_BYTES = 8, OCTAL_BYTES_MAX = 12 };

/* Beyond 8 GiB - 1 the number stands in binary, as GNU tar and pax readers know it. */
static void put_size(uint8_t *field, uint64_t bytes) {
  if (bytes >> 33 == 0) {
    snprintf((char *)field, OCTAL_BYTES_MAX, "%011llo", (unsigned long long)bytes);
    return;
  }
  memset(field, 0, OCTAL_BYTES_MAX);
  field[0] = 0x80;
  for (int i = 0; i < 8; i++) field[OCTAL_BYTES_MAX - 1 - i] = (uint8_t)(bytes >> (8 * i));
}

void tar_add(tr_writer *tar, const char *key, const char *suffix, const void *data, size_t bytes) {
  uint8_t header[TAR_BLOCK] = {0};
  char name[101];
  static const uint8_t zeros[TAR_BLOCK];
  if ((size_t)snprintf(name, sizeof name, "%s.%s", key, suffix) >= sizeof name) {
    tar->failed = true;
    return;
  }
  memcpy(header, name, strlen(name));
  memcpy(header + 100, "0000644", 8);
  memcpy(header + 108, "0000000", 8);
  memcpy(header + 116, "0000000", 8);
  put_size(header + SIZE_AT, bytes);
  memcpy(header + 136, "00000000000", 12);
  header[156] = '0';
  memcpy(header + 257, "ustar\00000", 8);
  memset(header + SUM_AT, ' ', SUM_BYTES);
  unsigned sum = 0;
  for (size_t i = 0; i < sizeof header; i++) sum += header[i];
  snprintf((char *)header + SUM_AT, SUM_BYTES, "%06o", sum);
  header[SUM_AT + 7] = ' ';
  tr_write_bytes(tar, header, sizeof header);
  tr_write_bytes(tar, data, bytes);
  if (bytes % TAR_BLOCK != 0) tr_write_bytes(tar, zeros, TAR_BLOCK - bytes % TAR_BLOCK);
}

void tar_end(tr_writer *tar) {
  static const uint8_t zeros[TAR_END_BYTES];
  tr_write_bytes(tar, zeros, sizeof zeros);
}
