/* AWS's configuration files, read as botocore reads them but stricter: what it would pass over in silence is an error
 * with file and line.
 *
 *   [profile lake]            ; a section; "default" and names in quotes are understood by s3_profiles
 *   region = eu-west-1        ; key = value or key: value; keys in lower case; no comments behind a value
 *   s3 =                      ; an empty value opens a block of indented lines
 *     endpoint_url = http://127.0.0.1:9000
 *
 * The text is cut up in place and the entries point into it, so that wiping it wipes every secret in it. */
#ifndef TRAINRUN_STORE_S3_INI_H
#define TRAINRUN_STORE_S3_INI_H

#include <trainrun/base.h>

enum { S3_INI_BYTES_MAX = 1 << 20, S3_INI_ENTRIES_MAX = 20000 };

typedef struct s3_ini_entry {
  const char *section;
  const char *block; /* the key whose indented block this lies in, or NULL */
  const char *key;   /* NULL: the head of a section */
  const char *value; /* never NULL; blanks at both ends taken off */
  uint32_t line;
} s3_ini_entry;

typedef struct s3_ini {
  const tr_allocator *allocator;
  const char *name; /* the file's, for messages; the caller's memory */
  char *text;
  size_t text_bytes;
  s3_ini_entry *entries;
  size_t count, capacity;
} s3_ini;

/* Copies text (at most S3_INI_BYTES_MAX). On failure nothing is left to free; TR_ERR_CONFIG says "FILE:LINE: …", never
 * a value. */
tr_status s3_ini_parse(const tr_allocator *allocator, const char *name, const char *text, size_t bytes, s3_ini *ini,
                       tr_error *error);
/* Wipes what it held; an ini of zeros is empty. */
void s3_ini_fini(s3_ini *ini);

/* The value of a key (in lower case) of a section, or of a block in it; NULL where there is none. */
const s3_ini_entry *s3_ini_find(const s3_ini *ini, const char *section, const char *block, const char *key);

#endif
