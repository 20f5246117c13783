/* The objects behind a data set: found once, then read in exact ranges of the version that was found. */
#ifndef TRAINRUN_DATALOADER_FILES_H
#define TRAINRUN_DATALOADER_FILES_H

#include "dataset.h"

/* A file to be found under one of two URLs. */
typedef struct dl_candidate {
  const char *url;
  const char *otherwise; /* where `url` is not there; NULL: nowhere else */
} dl_candidate;

/* Collective: fills dataset->files from `count` candidates; ranks share the questions. */
tr_status dl_files_find(tr_dataset *dataset, const dl_candidate *candidates, size_t count, tr_error *error);

/* Exactly `bytes` bytes at `offset`, of the version that was found; a file that ends before is TR_ERR_CORRUPT, one that
 * was replaced TR_ERR_CHANGED. Adds the time to *account where it is given. */
tr_status dl_file_read(const dl_file *file, const tr_clock *clock, uint64_t offset, void *buffer, size_t bytes,
                       tr_wait_account *account, tr_error *error);
/* The same where the bytes of before were wrong: past every cache, and charged to retry. */
tr_status dl_file_read_again(const dl_file *file, const tr_clock *clock, uint64_t offset, void *buffer, size_t bytes,
                             tr_wait_account *account, tr_error *error);

/* A file seen through a buffer that moves forward: for scanning. It reads much where it is read through, and little
 * where most of it is skipped. */
typedef struct dl_window {
  const dl_file *file;
  const tr_clock *clock;
  const tr_allocator *allocator;
  uint8_t *bytes;
  uint64_t offset;
  size_t filled;
  size_t chunk;
} dl_window;

enum { DL_WINDOW_BYTES = 1 << 20 };

tr_status dl_window_init(dl_window *window, const dl_file *file, const tr_allocator *allocator, const tr_clock *clock,
                         tr_error *error);
void dl_window_fini(dl_window *window);
/* Shows [offset, offset + *bytes): at least `least` bytes (<= DL_WINDOW_BYTES), which must be in the file; *bytes is
 * all that is at hand. Valid until the next call. */
tr_status dl_window_show(dl_window *window, uint64_t offset, size_t least, const uint8_t **data, size_t *bytes,
                         tr_error *error);

#endif
