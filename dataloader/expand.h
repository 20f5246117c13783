/* A folder as the name of the shards in it. */
#ifndef TRAINRUN_DATALOADER_EXPAND_H
#define TRAINRUN_DATALOADER_EXPAND_H

#include "dataset.h"

/* Collective: each URL that ends in '/', and each without a dot in its last part that names no object, becomes the URLs of
 * the shards directly in that folder, sorted; sub-folders and hidden names are not looked at. A folder of MDS (it has an
 * index.json) stays as it is. With `format` only shards of that format count; without, shards of two formats are an
 * error. Rank 0 looks, so that all ranks see the same. */
tr_status dl_expand_folders(tr_dataset *dataset, const char *format, tr_error *error);

#endif
