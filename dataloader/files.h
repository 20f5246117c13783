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

/* Exactly `bytes` bytes at `offset`, of the version that was found, large ones by several requests at once; a file that
 * ends before is TR_ERR_CORRUPT, one that was replaced TR_ERR_CHANGED. Adds the time to *account where it is given. */
tr_status dl_file_read(const dl_file *file, const tr_clock *clock, uint64_t offset, void *buffer, size_t bytes,
                       tr_wait_account *account, tr_error *error);
/* The same where the bytes of before were wrong: past every cache, and charged to retry. */
tr_status dl_file_read_again(const dl_file *file, const tr_clock *clock, uint64_t offset, void *buffer, size_t bytes,
                             tr_wait_account *account, tr_error *error);

#endif
