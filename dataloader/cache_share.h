/* How the workers of a node come to one memfd: the first of them makes it, the others open it through /proc/PID/fd/N, as
 * the kernel allows processes of one user; there is no name at any time (decision 0002). */
#ifndef TRAINRUN_DATALOADER_CACHE_SHARE_H
#define TRAINRUN_DATALOADER_CACHE_SHARE_H

#include <trainrun/dataloader.h>

/* Collective. Numbers of the slots for so many workers of a node are asked of `plan`. */
typedef struct dl_share {
  int descriptor; /* the caller's */
  uint64_t nonce;
  int32_t node_rank, node_size;
} dl_share;

typedef tr_status (*dl_share_make)(void *self, int32_t node_size, int *descriptor, uint64_t *nonce, tr_error *error);
tr_status dl_share_open(const tr_exchange *exchange, const tr_allocator *allocator, dl_share_make make, void *self,
                        dl_share *out, tr_error *error);

#endif
