/* What the plan needs of the canonical tree beyond the public functions. Pure. */
#ifndef TRAINRUN_COLLECTIVE_TREE_H
#define TRAINRUN_COLLECTIVE_TREE_H

#include <trainrun/macros.h>

/* Whether [first, middle) and [middle, end) are the two children of one node of the tree. */
bool tr_tree_siblings(uint64_t leaf_count, uint64_t first, uint64_t middle, uint64_t end);

#endif
