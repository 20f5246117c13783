/* Where settings and credentials come from: variables of an array like environ, and small files. */
#ifndef TRAINRUN_STORE_S3_INPUTS_H
#define TRAINRUN_STORE_S3_INPUTS_H

#include <trainrun/base.h>

/* A variable of an array like environ; NULL where it is not set or empty. */
const char *s3_environment(const char *const *environment, const char *name);

/* A whole small file in new memory with a 0 behind it (wipe it before tr_free where it holds a secret); *mode may be
 * NULL. TR_ERR_NOT_FOUND where it is not there; `what` begins the messages. */
tr_status s3_file_read(const tr_allocator *allocator, const char *what, const char *path, size_t max_bytes, char **text,
                       size_t *bytes, uint32_t *mode, tr_error *error);

#endif
