/* The canonical tree: parts cover a run, merging in leaf order ends at the parts, the count of buffers is exact. */
#include <criterion/criterion.h>
#include <trainrun/collective.h>
#include <trainrun/split.h>

/* [first, end) is a node of the tree over `leaf_count` leaves: some level's aligned range, cut off by leaf_count. */
static bool is_node(uint64_t leaf_count, uint64_t first, uint64_t end, uint32_t level) {
  const uint64_t width = 1ull << level;
  const uint64_t whole = first + width < leaf_count ? first + width : leaf_count;
  return first % width == 0 && end == whole;
}

Test(tree, parts_are_nodes_that_cover_the_run_in_order) {
  for (uint64_t leaves = 1; leaves <= 33; leaves++)
    for (uint64_t begin = 0; begin <= leaves; begin++)
      for (uint64_t end = begin; end <= leaves; end++) {
        tr_tree_part parts[TR_TREE_PARTS_MAX];
        const uint32_t n = tr_tree_parts(leaves, begin, end, parts);
        uint64_t at = begin;
        for (uint32_t i = 0; i < n; i++) {
          cr_assert_eq(parts[i].first_leaf, at);
          cr_assert(is_node(leaves, at, parts[i].leaf_end, parts[i].level));
          at = parts[i].leaf_end;
        }
        cr_assert_eq(at, end, "parts of [%lu, %lu) of %lu end at %lu", begin, end, leaves, at);
      }
}

Test(tree, parts_are_as_few_as_can_be) {
  for (uint64_t leaves = 1; leaves <= 33; leaves++)
    for (uint64_t begin = 0; begin < leaves; begin++)
      for (uint64_t end = begin + 1; end <= leaves; end++) {
        tr_tree_part parts[TR_TREE_PARTS_MAX];
        const uint32_t n = tr_tree_parts(leaves, begin, end, parts);
        for (uint32_t i = 0; i + 1 < n; i++)
          for (uint32_t level = 0; level < 7; level++)
            cr_assert(!is_node(leaves, parts[i].first_leaf, parts[i + 1].leaf_end, level));
      }
}

Test(tree, a_whole_run_of_a_power_of_two_is_one_part) {
  tr_tree_part parts[TR_TREE_PARTS_MAX];
  cr_assert_eq(tr_tree_parts(16, 8, 12, parts), 1);
  cr_assert_eq(tr_tree_parts(16, 0, 16, parts), 1);
  cr_assert_eq(parts[0].level, 4);
  cr_assert_eq(tr_tree_parts(16, 3, 3, parts), 0);
}

Test(tree, the_last_run_counts_cut_nodes_as_whole) {
  tr_tree_part parts[TR_TREE_PARTS_MAX];
  cr_assert_eq(tr_tree_parts(7, 4, 7, parts), 1);
  cr_assert_eq(parts[0].leaf_end, 7);
  cr_assert_eq(tr_tree_parts(8, 4, 7, parts), 2);
}

Test(tree, huge_leaf_counts_stay_within_the_limit_of_parts) {
  tr_tree_part parts[TR_TREE_PARTS_MAX];
  const uint64_t leaves = 1ull << 62;
  const uint32_t n = tr_tree_parts(leaves, 1, leaves - 1, parts);
  cr_assert_eq(n, 122);
  cr_assert_eq(parts[n - 1].leaf_end, leaves - 1);
  cr_assert_eq(tr_tree_buffers(leaves, 1, leaves), 123);
}

Test(tree, merging_as_told_ends_with_the_parts) {
  for (uint64_t leaves = 1; leaves <= 40; leaves++)
    for (uint64_t size = 1; size <= 9; size++)
      for (uint64_t rank = 0; rank < size; rank++) {
        const uint64_t begin = tr_split_begin(leaves, size, rank), end = tr_split_end(leaves, size, rank);
        uint64_t first[64], last[64];
        uint32_t alive = 0, most = 0;
        for (uint64_t leaf = begin; leaf < end; leaf++) {
          first[alive] = leaf;
          last[alive++] = leaf + 1;
          if (alive > most) most = alive;
          for (uint32_t merges = tr_tree_merges(leaves, begin, leaf); merges > 0; merges--) {
            cr_assert_gt(alive, 1);
            cr_assert_eq(last[alive - 2], first[alive - 1]);
            last[alive - 2] = last[alive - 1];
            alive--;
          }
        }
        tr_tree_part parts[TR_TREE_PARTS_MAX];
        cr_assert_eq(tr_tree_parts(leaves, begin, end, parts), alive);
        for (uint32_t i = 0; i < alive; i++) {
          cr_assert_eq(parts[i].first_leaf, first[i]);
          cr_assert_eq(parts[i].leaf_end, last[i]);
        }
        cr_assert_eq(tr_tree_buffers(leaves, begin, end), most);
      }
}

Test(tree, the_count_of_buffers_is_exact_for_every_run) {
  for (uint64_t leaves = 1; leaves <= 70; leaves++)
    for (uint64_t begin = 0; begin < leaves; begin++) {
      uint32_t alive = 0, most = 0;
      for (uint64_t leaf = begin; leaf < leaves; leaf++) {
        if (++alive > most) most = alive;
        alive -= tr_tree_merges(leaves, begin, leaf);
        /* With end == leaf + 1 the run has seen exactly these. */
        cr_assert_eq(tr_tree_buffers(leaves, begin, leaf + 1), most, "[%lu, %lu) of %lu", begin, leaf + 1, leaves);
      }
    }
}
