/* From a stored value to a row of a batch: decoded, then transformed where the loader has transforms. */
#ifndef TRAINRUN_DATALOADER_MAKE_H
#define TRAINRUN_DATALOADER_MAKE_H

#include "decode.h"
#include "transform.h"

/* Field `field` of the sample out of its stored value. Errors say what is wrong with the bytes; the caller adds shard,
 * key and offset. */
tr_status dl_make(const tr_dataset *dataset, const dl_sample *sample, size_t field, dl_kind kind, const char *path,
                  dl_value value, void *to, dl_scratch *scratch, tr_error *error);
/* The same for a value that is decoded, to what `found` says; it may differ from the data set's field as far as the
 * transforms allow it. */
tr_status dl_make_decoded(const tr_dataset *dataset, const dl_sample *sample, size_t field, const tr_field *found,
                          const void *from, void *to, dl_scratch *scratch, tr_error *error);
/* The same for a value that is as the data set's field has it already. */
tr_status dl_make_plain(const tr_dataset *dataset, const dl_sample *sample, size_t field, const void *from, void *to,
                        dl_scratch *scratch, tr_error *error);

#endif
