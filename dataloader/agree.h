/* How ranks that open a data set together stay together. All calls are collective and do nothing for one rank alone. */
#ifndef TRAINRUN_DATALOADER_AGREE_H
#define TRAINRUN_DATALOADER_AGREE_H

#include <trainrun/dataloader.h>

/* OK when `status` is OK on all ranks; otherwise, on every rank, the failure of the first that failed. */
tr_status dl_agree(const tr_exchange *exchange, tr_status status, tr_error *error);

/* Joins the ranks' bytes, in rank order: `mine` is replaced by all of them. `status` is as in dl_agree. */
tr_status dl_agree_join(const tr_exchange *exchange, const tr_allocator *allocator, tr_status status, tr_writer *mine,
                        tr_error *error);

static inline int32_t dl_rank(const tr_exchange *exchange) { return exchange != NULL ? exchange->rank : 0; }
static inline int32_t dl_ranks(const tr_exchange *exchange) { return exchange != NULL ? exchange->size : 1; }

#endif
