/* A file on its way to this machine: NAME.part beside it, and NAME.part.state, which says what of it is there.
 *
 * The state is text: a first line "trainrun-part 1 BYTES ETAG", then a line "OFFSET BYTES CRC32C" for each range, written
 * after the range. Who comes after a kill reads each range back and believes it where the checksum is right, so the copy
 * goes on where it stopped. The final name appears by a rename, when everything is there. One process at a time has a
 * file (a lock on it). Thread rule: one thread. */
#ifndef TRAINRUN_LAUNCHER_PART_FILE_H
#define TRAINRUN_LAUNCHER_PART_FILE_H

#include <limits.h>
#include <trainrun/store.h>

typedef struct tr_part_file {
  const char *path; /* the final one */
  char part[PATH_MAX], state[PATH_MAX];
  int descriptor;
  int direct;            /* the same past the page cache; -1: it cannot be had */
  int state_descriptor;  /* -1: a file of one range has no state */
  uint64_t bytes, chunk; /* ranges are [i * chunk, (i + 1) * chunk) */
  uint64_t ranges;
  uint8_t *done;  /* a bit a range */
  uint32_t *crcs; /* of the ranges that are there */
} tr_part_file;

/* Makes the folders, opens the part and finds out which ranges are there. On failure nothing is open. */
tr_status part_file_open(tr_part_file *file, const char *path, const tr_object_info *info, uint64_t chunk,
                         tr_error *error);
bool part_file_has(const tr_part_file *file, uint64_t range);
tr_status part_file_write(tr_part_file *file, uint64_t range, const void *data, size_t bytes, tr_error *error);
/* Whether the ranges, all there, make up what a store says of the whole (tr_object_info.crc32c). What was written in other
 * parts than these ranges cannot be told: that is OK too. */
bool part_file_is(const tr_part_file *file, const char *crc32c);
/* Gives it the time of the object and its name. Ends it, like part_file_leave. */
tr_status part_file_finish(tr_part_file *file, int64_t modified_ns, tr_error *error);
/* Leaves the part for the next time, or takes it away. */
void part_file_leave(tr_part_file *file, bool remove);

#endif
