/* The one rule by which things are cut. */
#include <criterion/criterion.h>
#include <trainrun/split.h>

Test(split, parts_cover_everything_in_order_and_differ_by_at_most_one) {
  static const uint64_t counts[] = {0, 1, 2, 3, 7, 8, 63, 64, 1000, 60000, UINT64_C(1) << 40, (UINT64_C(1) << 50) + 7};
  for (size_t i = 0; i < sizeof counts / sizeof *counts; i++) {
    for (uint64_t parts = 1; parts < 70; parts++) {
      const uint64_t n = counts[i];
      cr_assert_eq(tr_split_begin(n, parts, 0), 0);
      cr_assert_eq(tr_split_end(n, parts, parts - 1), n);
      for (uint64_t p = 0; p < parts; p++) {
        const uint64_t size = tr_split_end(n, parts, p) - tr_split_begin(n, parts, p);
        cr_assert(size == n / parts || size == n / parts + 1);
      }
    }
  }
}
