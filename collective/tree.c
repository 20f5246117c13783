/* The canonical tree of sums: which leaves make a node, into which nodes a rank's run falls, when two buffers merge.
 *
 * Everything here is pure arithmetic. A node is known by its leaves [first, end) alone: a node that leaf_count cuts off
 * may have several levels, and all of them have the same value. */
#include "tree.h"

#include <trainrun/collective.h>

/* The smallest level whose first node covers all leaves. */
static uint32_t root_level(uint64_t leaf_count) {
  uint32_t level = 0;
  while (level < 63 && (1ull << level) < leaf_count) level++;
  return level;
}

static uint64_t node_end(uint64_t leaf_count, uint64_t first, uint32_t level) {
  const uint64_t width = 1ull << level;
  return width >= leaf_count - first ? leaf_count : first + width;
}

/* The largest node that starts at `first` and ends at or before `end`. */
static uint32_t widest_level(uint64_t leaf_count, uint64_t first, uint64_t end) {
  uint32_t level = root_level(leaf_count);
  if (first > 0) {
    const uint32_t aligned = (uint32_t)__builtin_ctzll(first);
    if (aligned < level) level = aligned;
  }
  while (level > 0 && node_end(leaf_count, first, level) > end) level--;
  return level;
}

static uint32_t count_parts(uint64_t leaf_count, uint64_t begin, uint64_t end) {
  uint32_t count = 0;
  while (begin < end) {
    begin = node_end(leaf_count, begin, widest_level(leaf_count, begin, end));
    count++;
  }
  return count;
}

uint32_t tr_tree_parts(uint64_t leaf_count, uint64_t begin, uint64_t end, tr_tree_part parts[TR_TREE_PARTS_MAX]) {
  uint32_t count = 0;
  if (end > leaf_count) end = leaf_count;
  while (begin < end && count < TR_TREE_PARTS_MAX) {
    tr_tree_part *part = &parts[count++];
    part->level = widest_level(leaf_count, begin, end);
    part->first_leaf = begin;
    part->leaf_end = node_end(leaf_count, begin, part->level);
    begin = part->leaf_end;
  }
  return count;
}

uint32_t tr_tree_merges(uint64_t leaf_count, uint64_t begin, uint64_t leaf) {
  if (leaf < begin || leaf >= leaf_count) return 0;
  return count_parts(leaf_count, begin, leaf) + 1 - count_parts(leaf_count, begin, leaf + 1);
}

uint32_t tr_tree_buffers(uint64_t leaf_count, uint64_t begin, uint64_t end) {
  if (end > leaf_count) end = leaf_count;
  if (begin >= end) return 0;
  /* Before leaf e there are as many buffers as [begin, e) has parts, and e is one more. The fullest e is the last one,
   * or it leaves the last one's bits at a set bit: that bit clear, all below it set. */
  const uint64_t last = end - 1;
  uint32_t most = count_parts(leaf_count, begin, last);
  for (uint32_t bit = 0; bit < 63 && (last >> bit) != 0; bit++) {
    if ((last >> bit & 1) == 0) continue;
    const uint64_t e = (last & ~((1ull << bit) - 1)) - 1;
    if (e < begin) break;
    const uint32_t parts = count_parts(leaf_count, begin, e);
    if (parts > most) most = parts;
  }
  return most + 1;
}

bool tr_tree_siblings(uint64_t leaf_count, uint64_t first, uint64_t middle, uint64_t end) {
  const uint64_t width = middle - first;
  if (width == 0 || end <= middle || (width & (width - 1)) != 0) return false;
  if ((first & (2 * width - 1)) != 0) return false;
  const uint64_t rest = leaf_count - middle;
  return end - middle == (rest < width ? rest : width);
}
