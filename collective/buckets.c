/* The plan of buckets: runs of whole blocks from the end of the flat gradient to its beginning. Pure.
 *
 * Between the first bucket and the last, whose sizes have reasons of their own, all are as equal as can be. */
#include <trainrun/collective.h>
#include <trainrun/split.h>

enum { BUCKET_BYTES = 4 << 20 };

/* A wanted size in whole blocks, at least one. */
static uint64_t blocks_of(uint64_t bytes, uint64_t block_bytes) {
  const uint64_t blocks = bytes / block_bytes;
  return blocks > 0 ? blocks : 1;
}

tr_status tr_bucket_plan(const tr_bucket_options *options, tr_bucket *buckets, size_t capacity, size_t *count,
                         tr_error *error) {
  if (options->struct_bytes != sizeof *options || options->block == 0)
    return tr_fail(error, TR_ERR_INVALID, "bucket plan: wrong struct_bytes or a block of 0 elements");
  if (options->count % options->block != 0)
    return tr_fail(error, TR_ERR_INVALID, "bucket plan: %llu elements are not a multiple of the block of %llu",
                   (unsigned long long)options->count, (unsigned long long)options->block);
  const uint64_t block_bytes = options->block * (options->element_bytes ? options->element_bytes : 4);
  const uint64_t middle_bytes = options->bucket_bytes ? options->bucket_bytes : BUCKET_BYTES;
  const uint64_t blocks = options->count / options->block;

  uint64_t first = options->first_bytes ? blocks_of(options->first_bytes, block_bytes) : 0;
  if (first > blocks) first = blocks;
  uint64_t last = options->last_bytes ? blocks_of(options->last_bytes, block_bytes) : 0;
  if (last > blocks - first) last = blocks - first;
  const uint64_t middle = blocks - first - last;
  const uint64_t wanted = blocks_of(middle_bytes, block_bytes);
  const uint64_t middle_count = middle / wanted + (middle % wanted != 0);
  const uint64_t total = middle_count + (first > 0) + (last > 0);

  if (buckets != NULL) {
    if (total > capacity)
      return tr_fail(error, TR_ERR_INVALID, "bucket plan: %llu buckets, room for %zu", (unsigned long long)total,
                     capacity);
    size_t n = 0;
    uint64_t end = blocks;
    if (first > 0) {
      buckets[n++] = (tr_bucket){(end - first) * options->block, first * options->block};
      end -= first;
    }
    for (uint64_t i = middle_count; i > 0; i--) {
      const uint64_t from = last + tr_split_begin(middle, middle_count, i - 1);
      buckets[n++] = (tr_bucket){from * options->block, (end - from) * options->block};
      end = from;
    }
    if (last > 0) buckets[n++] = (tr_bucket){0, last * options->block};
  }
  *count = (size_t)total;
  return TR_OK;
}
