/* The plan of buckets: whole blocks, from the end to the beginning, nothing left out. */
#include <criterion/criterion.h>
#include <trainrun/collective.h>

enum { MOST = 4096 };

static size_t plan(tr_bucket_options options, tr_bucket *buckets) {
  options.struct_bytes = sizeof options;
  size_t count = 0;
  tr_error error;
  const tr_status status = tr_bucket_plan(&options, buckets, MOST, &count, &error);
  cr_assert_eq(status, TR_OK, "%s", error.message);
  return count;
}

Test(buckets, cover_every_element_once_from_the_end) {
  static tr_bucket buckets[MOST];
  for (uint64_t block = 1; block <= 1024; block *= 32)
    for (uint64_t blocks = 0; blocks <= 130; blocks++)
      for (uint64_t kib = 0; kib <= 64; kib += 16) {
        const size_t n = plan((tr_bucket_options){.count = blocks * block,
                                                  .block = block,
                                                  .bucket_bytes = 32 << 10,
                                                  .first_bytes = kib << 10,
                                                  .last_bytes = kib << 9},
                              buckets);
        uint64_t end = blocks * block;
        for (size_t i = 0; i < n; i++) {
          cr_assert_eq(buckets[i].offset + buckets[i].count, end);
          cr_assert_gt(buckets[i].count, 0);
          cr_assert_eq(buckets[i].offset % block, 0);
          end = buckets[i].offset;
        }
        cr_assert_eq(end, 0);
      }
}

Test(buckets, have_the_sizes_that_were_asked_for) {
  tr_bucket buckets[MOST];
  const size_t n = plan(
      (tr_bucket_options){.count = 10 << 20, .block = 1 << 10, .first_bytes = 1 << 20, .last_bytes = 512 << 10},
      buckets);
  cr_assert_eq(buckets[0].count * 4, 1 << 20);
  cr_assert_eq(buckets[n - 1].count * 4, 512 << 10);
  for (size_t i = 1; i + 1 < n; i++) cr_assert_leq(buckets[i].count * 4, 4 << 20);
  cr_assert_eq(n, 12);
}

Test(buckets, one_block_larger_than_a_bucket_is_a_bucket) {
  tr_bucket buckets[MOST];
  cr_assert_eq(plan((tr_bucket_options){.count = 3 << 20, .block = 1 << 20, .bucket_bytes = 1}, buckets), 3);
}

Test(buckets, can_be_counted_first) {
  const tr_bucket_options options = {sizeof options, .count = 64 << 20, .block = 4096};
  size_t count = 0;
  cr_assert_eq(tr_bucket_plan(&options, NULL, 0, &count, NULL), TR_OK);
  cr_assert_eq(count, 64);
}

Test(buckets, refuse_what_does_not_fit) {
  tr_bucket buckets[4];
  size_t count = 77;
  tr_error error;
  tr_bucket_options options = {sizeof options, .count = 64 << 20, .block = 4096};
  cr_assert_eq(tr_bucket_plan(&options, buckets, 4, &count, &error), TR_ERR_INVALID);
  options.count = 4097;
  cr_assert_eq(tr_bucket_plan(&options, buckets, 4, &count, &error), TR_ERR_INVALID);
  options.block = 0;
  cr_assert_eq(tr_bucket_plan(&options, buckets, 4, &count, &error), TR_ERR_INVALID);
  cr_assert_eq(count, 77);
}
