/* Members of a tar file into memory: ustar, with every field that could differ from run to run fixed (time 0, owner 0,
 * mode 0644), so that the same contents are the same bytes. */
#ifndef TRAINRUN_LAUNCHER_TAR_OUT_H
#define TRAINRUN_LAUNCHER_TAR_OUT_H

#include <trainrun/base.h>

enum { TAR_BLOCK = 512, TAR_END_BYTES = 2 * TAR_BLOCK };

/* KEY.SUFFIX, at most 100 bytes together. */
void tar_add(tr_writer *tar, const char *key, const char *suffix, const void *data, size_t bytes);
/* What stands behind the last member. */
void tar_end(tr_writer *tar);

#endif
