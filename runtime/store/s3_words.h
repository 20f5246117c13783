/* A command as words, as Python's shlex and a POSIX shell cut it; nothing is expanded. Pure. */
#ifndef TRAINRUN_STORE_S3_WORDS_H
#define TRAINRUN_STORE_S3_WORDS_H

#include <trainrun/base.h>

enum { S3_WORDS_MAX = 64, S3_WORDS_BYTES = 4096 };

typedef struct s3_words {
  char text[S3_WORDS_BYTES];
  char *items[S3_WORDS_MAX + 1]; /* NULL-terminated; into text */
  size_t count;
} s3_words;

/* False, with what is wrong, for a quote that does not end or more than fits. */
bool s3_words_split(const char *command, s3_words *words, const char **wrong);

#endif
