/* Copying what arrives to where it is wanted. */
#ifndef TRAINRUN_STORE_S3_COPY_H
#define TRAINRUN_STORE_S3_COPY_H

#include <stddef.h>

/* As memcpy, past the caches: for megabytes that nobody reads before they are all there. An ordinary store first reads the
 * line that it is about to overwrite; over loopback this halves what the copy of a large object costs. */
void s3_copy_past_cache(void *to, const void *from, size_t bytes);

#endif
