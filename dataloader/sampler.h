/* What the loader wants to know of an order beyond the public header. */
#ifndef TRAINRUN_DATALOADER_SAMPLER_H
#define TRAINRUN_DATALOADER_SAMPLER_H

#include <trainrun/dataloader.h>

/* Draws after which every stream is at the end of a window, again and again: what is read ahead up to there leaves no
 * window half read. 0: there are no windows. */
uint64_t dl_sampler_round(const tr_sampler *sampler);

#endif
