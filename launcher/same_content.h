/* Whether an object holds what another does, before it is copied again. A store that says a CRC32C, or an MD5 (as
 * S3's ETag is for most objects, also of parts), is taken at its word; any other is read. */
#ifndef TRAINRUN_LAUNCHER_SAME_CONTENT_H
#define TRAINRUN_LAUNCHER_SAME_CONTENT_H

#include <trainrun/store.h>

/* The sizes are equal; `part_bytes` is how this command would cut it. `buffer` has that many bytes. *same is set on
 * success. */
tr_status same_content(tr_store *from, const char *from_key, tr_store *to, const char *to_key,
                       const tr_object_info *info, void *buffer, size_t part_bytes, bool *same, tr_error *error);

#endif
