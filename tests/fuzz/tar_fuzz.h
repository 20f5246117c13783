/* A small tar shard of five samples, as the targets that need one share it. */
#ifndef TRAINRUN_TESTS_TAR_FUZZ_H
#define TRAINRUN_TESTS_TAR_FUZZ_H

#include "fuzz.h"

static inline size_t fuzz_tar_add(uint8_t *out, size_t at, char kind, const char *name, const void *body,
                                  size_t bytes) {
  uint8_t *head = out + at;
  memset(head, 0, 512);
  snprintf((char *)head, 100, "%s", name);
  memcpy(head + 100,
         "0000644\0"
         "0000000\0"
         "0000000\0",
         24);
  snprintf((char *)head + 124, 12, "%011o", (unsigned)bytes);
  memcpy(head + 136, "00000000000", 12);
  memset(head + 148, ' ', 8);
  head[156] = (uint8_t)kind;
  memcpy(head + 257,
         "ustar\0"
         "00",
         8);
  unsigned sum = 0;
  for (int i = 0; i < 512; i++) sum += head[i];
  snprintf((char *)head + 148, 8, "%06o", sum);
  memset(out + at + 512, 0, (bytes + 511) / 512 * 512);
  memcpy(out + at + 512, body, bytes);
  return at + 512 + (bytes + 511) / 512 * 512;
}

/* number 1: with long names of GNU and pax. */
static inline size_t fuzz_tar_make(unsigned number, uint8_t *out) {
  size_t at = 0;
  for (int i = 0; i < 5; i++) {
    char name[32], label[8];
    snprintf(name, sizeof name, "a/%03d.bin", i);
    if (number == 1 && i == 2) at = fuzz_tar_add(out, at, 'L', "././@LongLink", "a/002.bin", 10);
    if (number == 1 && i == 3) at = fuzz_tar_add(out, at, 'x', "pax", "18 path=a/003.bin\n", 18);
    at = fuzz_tar_add(out, at, '0', name, "0123456789abcdef", 16);
    snprintf(name, sizeof name, "a/%03d.cls", i);
    snprintf(label, sizeof label, "%d", i);
    at = fuzz_tar_add(out, at, '0', name, label, strlen(label));
  }
  memset(out + at, 0, 1024);
  return at + 1024;
}

#endif
