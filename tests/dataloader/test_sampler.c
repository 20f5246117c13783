/* The order of samples: a permutation whatever the sizes, the same on every machine for ever, and kind to shards. */
#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>
#include <trainrun/dataloader.h>

#include "support/support.h"

static tr_sampler *make(tr_sampler_options options) {
  options.struct_bytes = sizeof options;
  tr_sampler *sampler = NULL;
  tr_error error = {0};
  const tr_status status = tr_sampler_create(&options, &sampler, &error);
  cr_assert_eq(status, TR_OK, "%s", error.message);
  return sampler;
}

static void expect_permutation(tr_sampler *sampler, uint64_t epoch, const char *what) {
  const uint64_t n = tr_sampler_size(sampler);
  uint8_t *seen = calloc(n + 1, 1);
  for (uint64_t position = 0; position < n; position++) {
    const uint64_t id = tr_sampler_at(sampler, epoch, position);
    if (id >= n || seen[id]) {
      cr_assert_fail("%s: n %llu, epoch %llu, position %llu gives %llu %s", what, (unsigned long long)n,
                     (unsigned long long)epoch, (unsigned long long)position, (unsigned long long)id,
                     id < n ? "a second time" : "which is out of range");
    }
    seen[id] = 1;
  }
  free(seen);
}

/* Cuts n samples into blocks of awkward sizes, some of them empty. */
static size_t cut(uint64_t n, uint64_t seed, uint64_t blocks[64]) {
  size_t count = 0;
  while (n > 0 && count < 63) {
    const uint64_t size = tr_rng_below(seed, TR_RNG_USER, n, count, n / 3 + 2);
    blocks[count] = size < n ? size : n;
    n -= blocks[count++];
  }
  if (n > 0) blocks[count++] = n;
  return count;
}

Test(sampler, full_shuffle_is_a_permutation_of_any_size) {
  for (uint64_t n = 0; n <= 1100; n += n < 300 ? 1 : 37) {
    tr_sampler *sampler = make((tr_sampler_options){
        .seed = n, .shuffle = TR_SHUFFLE_FULL, .block_samples = &n, .block_count = 1, .batch_size = 7});
    for (uint64_t epoch = 0; epoch < 3; epoch++) expect_permutation(sampler, epoch, "full");
    tr_sampler_destroy(sampler);
  }
}

Test(sampler, streams_are_a_permutation_of_any_size_batch_and_number_of_streams) {
  static const uint64_t sizes[] = {1, 2, 3, 63, 64, 65, 127, 128, 129, 640, 997, 1000, 4096, 5003};
  static const uint64_t streams[] = {1, 2, 3, 7, 8, 64, 1000000};
  static const uint64_t batches[] = {1, 2, 5, 8, 63, 64, 100, 1024, 10000};
  for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
    for (size_t s = 0; s < sizeof streams / sizeof *streams; s++)
      for (size_t b = 0; b < sizeof batches / sizeof *batches; b++) {
        uint64_t blocks[64];
        const size_t count = cut(sizes[i], i * 100 + s, blocks);
        tr_sampler *sampler = make((tr_sampler_options){.seed = i,
                                                        .shuffle = TR_SHUFFLE_STREAMS,
                                                        .streams = streams[s],
                                                        .window = b % 2 ? 10 : 0,
                                                        .block_samples = blocks,
                                                        .block_count = count,
                                                        .batch_size = batches[b]});
        cr_assert_eq(tr_sampler_size(sampler), sizes[i]);
        cr_assert_eq(tr_sampler_batches(sampler), (sizes[i] + batches[b] - 1) / batches[b]);
        expect_permutation(sampler, s, "streams");
        tr_sampler_destroy(sampler);
      }
}

Test(sampler, without_shuffle_the_order_is_that_of_the_files) {
  const uint64_t blocks[] = {3, 0, 5};
  tr_sampler *sampler = make((tr_sampler_options){.block_samples = blocks, .block_count = 3, .batch_size = 4});
  for (uint64_t position = 0; position < 8; position++) cr_assert_eq(tr_sampler_at(sampler, 5, position), position);
  tr_sampler_destroy(sampler);
}

/* People's runs depend on the order: these numbers never change. */
Test(sampler, the_order_is_the_one_it_has_always_been) {
  static const uint64_t blocks[] = {1000, 10, 3000, 77, 1};
  static const struct {
    tr_shuffle shuffle;
    uint64_t epoch, first[8];
    uint32_t crc;
    uint64_t window;
  } golden[] = {
      {TR_SHUFFLE_STREAMS, 0, {92, 22, 77, 70, 29, 59, 40, 97}, 0x76c8ea45, 100},
      {TR_SHUFFLE_STREAMS, 1, {49, 44, 0, 57, 86, 29, 54, 8}, 0x0cb46921, 100},
      {TR_SHUFFLE_STREAMS, 2, {864, 178, 570, 87, 308, 499, 514, 682}, 0x5dae4949, 0},
      {TR_SHUFFLE_FULL, 0, {776, 1325, 2908, 2396, 2935, 3438, 151, 1755}, 0xd3ba4c2c, 0},
      {TR_SHUFFLE_FULL, 1, {501, 2179, 228, 2909, 2880, 1835, 1407, 1491}, 0xc058df7b, 0},
      {TR_SHUFFLE_FULL, 2, {361, 1131, 3202, 2502, 2375, 3230, 1614, 1309}, 0x9597fedd, 0},
  };
  for (size_t i = 0; i < sizeof golden / sizeof *golden; i++) {
    tr_sampler *sampler = make((tr_sampler_options){.seed = 7,
                                                    .shuffle = golden[i].shuffle,
                                                    .streams = 8,
                                                    .window = golden[i].window,
                                                    .block_samples = blocks,
                                                    .block_count = 5,
                                                    .batch_size = 64});
    uint32_t crc = 0;
    for (uint64_t position = 0; position < tr_sampler_size(sampler); position++) {
      const uint64_t id = tr_sampler_at(sampler, golden[i].epoch, position);
      if (position < 8) cr_assert_eq(id, golden[i].first[position]);
      crc = tr_crc32c(crc, &id, sizeof id);
    }
    cr_assert_eq(crc, golden[i].crc);
    tr_sampler_destroy(sampler);
  }
}

Test(sampler, the_way_it_is_asked_does_not_matter) {
  const uint64_t blocks[] = {500, 321};
  const tr_sampler_options options = {.seed = 3,
                                      .shuffle = TR_SHUFFLE_STREAMS,
                                      .streams = 4,
                                      .window = 32,
                                      .block_samples = blocks,
                                      .block_count = 2,
                                      .batch_size = 50};
  tr_sampler *forwards = make(options), *hopping = make(options);
  for (uint64_t i = 0; i < 821; i++) {
    const uint64_t position = i * 387 % 821, epoch = i % 3;
    const uint64_t id = tr_sampler_at(hopping, epoch, position);
    cr_assert_eq(id, tr_sampler_at(forwards, epoch, position));
    tr_sampler_at(forwards, epoch + 1, i);
  }
  tr_sampler_destroy(forwards);
  tr_sampler_destroy(hopping);
}

Test(sampler, epochs_and_seeds_differ) {
  const uint64_t n = 1000;
  for (int mode = TR_SHUFFLE_STREAMS; mode <= TR_SHUFFLE_FULL; mode++) {
    tr_sampler_options options = {
        .shuffle = (tr_shuffle)mode, .block_samples = &n, .block_count = 1, .batch_size = 100, .streams = 2};
    tr_sampler *a = make(options);
    options.seed = 1;
    tr_sampler *b = make(options);
    int same_epochs = 0, same_seeds = 0;
    for (uint64_t position = 0; position < n; position++) {
      same_epochs += tr_sampler_at(a, 0, position) == tr_sampler_at(a, 1, position);
      same_seeds += tr_sampler_at(a, 0, position) == tr_sampler_at(b, 0, position);
    }
    cr_assert_lt(same_epochs, 30);
    cr_assert_lt(same_seeds, 30);
    tr_sampler_destroy(a);
    tr_sampler_destroy(b);
  }
}

/* Each of n! orders of a few samples should come up equally often over many epochs. */
Test(sampler, small_permutations_are_fair) {
  static const struct {
    uint64_t n;
    int orders;
  } cases[] = {{2, 2}, {3, 6}, {4, 24}, {5, 120}};
  for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
    const uint64_t n = cases[c].n;
    tr_sampler *sampler = make((tr_sampler_options){
        .seed = 9, .shuffle = TR_SHUFFLE_FULL, .block_samples = &n, .block_count = 1, .batch_size = 1});
    int counts[120] = {0};
    const int rounds = 200 * cases[c].orders;
    for (int epoch = 0; epoch < rounds; epoch++) {
      int order = 0;
      for (uint64_t i = 0; i < n; i++) {
        int smaller = 0;
        for (uint64_t j = i + 1; j < n; j++) {
          smaller += tr_sampler_at(sampler, (uint64_t)epoch, j) < tr_sampler_at(sampler, (uint64_t)epoch, i);
        }
        order = order * (int)(n - i) + smaller;
      }
      counts[order]++;
    }
    for (int i = 0; i < cases[c].orders; i++) {
      cr_assert(counts[i] > 140 && counts[i] < 260, "n %d: order %d came up %d times, not about 200", (int)n, i,
                counts[i]);
    }
    tr_sampler_destroy(sampler);
  }
}

/* Where a sample lands must be uniform: chi-squared over the halves, quarters... of a large set. */
Test(sampler, a_full_shuffle_spreads_samples_evenly) {
  const uint64_t n = 100000;
  tr_sampler *sampler = make((tr_sampler_options){
      .seed = 1, .shuffle = TR_SHUFFLE_FULL, .block_samples = &n, .block_count = 1, .batch_size = 1});
  double cells[16][16] = {{0}};
  for (uint64_t i = 0; i < n; i++) cells[i * 16 / n][tr_sampler_at(sampler, 0, i) * 16 / n]++;
  double chi = 0;
  for (int i = 0; i < 16; i++)
    for (int j = 0; j < 16; j++) chi += (cells[i][j] - 390.625) * (cells[i][j] - 390.625) / 390.625;
  cr_assert(chi > 140 && chi < 340, "chi-squared with 225 degrees of freedom is %.1f", chi);
  tr_sampler_destroy(sampler);
}

Test(sampler, rows_of_a_rank_touch_few_shards) {
  uint64_t blocks[256];
  for (int i = 0; i < 256; i++) blocks[i] = 1000;
  tr_sampler *sampler = make((tr_sampler_options){.seed = 1,
                                                  .shuffle = TR_SHUFFLE_STREAMS,
                                                  .streams = 64,
                                                  .block_samples = blocks,
                                                  .block_count = 256,
                                                  .batch_size = 1024});
  /* The first eighth of the rows of a hundred batches: eight streams, each within two blocks or so at a time. */
  uint8_t touched[256] = {0};
  for (uint64_t batch = 0; batch < 50; batch++)
    for (uint64_t row = 0; row < 128; row++) touched[tr_sampler_at(sampler, 0, batch * 1024 + row) / 1000] = 1;
  int count = 0;
  for (int i = 0; i < 256; i++) count += touched[i];
  cr_assert_leq(count, 40, "%d of 256 shards", count);
  tr_sampler_destroy(sampler);
}

Test(sampler, every_batch_draws_from_all_streams_alike) {
  const uint64_t n = 64 * 1000;
  tr_sampler *sampler = make((tr_sampler_options){.shuffle = TR_SHUFFLE_STREAMS,
                                                  .streams = 64,
                                                  .window = 1000,
                                                  .block_samples = &n,
                                                  .block_count = 1,
                                                  .batch_size = 128});
  for (uint64_t batch = 0; batch < 500; batch += 61)
    for (uint64_t row = 0; row < 128; row++) {
      cr_assert_eq(tr_sampler_at(sampler, 0, batch * 128 + row) / 1000, row / 2);
    }
  tr_sampler_destroy(sampler);
}

/* So that what is read ahead up to there is whole windows, each in one piece. */
Test(sampler, all_streams_end_their_windows_at_the_same_draw) {
  enum { N = 1024, WINDOW = 8, STREAMS = 4, BLOCK = 64 };
  uint64_t blocks[N / BLOCK];
  for (size_t i = 0; i < N / BLOCK; i++) blocks[i] = BLOCK;
  tr_sampler *sampler = make((tr_sampler_options){.seed = 11,
                                                  .shuffle = TR_SHUFFLE_STREAMS,
                                                  .streams = STREAMS,
                                                  .window = WINDOW,
                                                  .block_samples = blocks,
                                                  .block_count = N / BLOCK,
                                                  .batch_size = 16});
  for (uint64_t round = 0; round < N; round += WINDOW * STREAMS) {
    int touched[N / WINDOW] = {0};
    for (uint64_t i = 0; i < WINDOW * STREAMS; i++) touched[tr_sampler_at(sampler, 0, round + i) / WINDOW]++;
    for (int i = 0; i < N / WINDOW; i++) cr_assert(touched[i] == 0 || touched[i] == WINDOW);
  }
  tr_sampler_destroy(sampler);
}

/* What lies side by side in the files, and is alike more often than not, must not be delivered side by side. */
Test(sampler, neighbours_in_the_files_are_not_neighbours_in_the_order) {
  enum { N = 20000, BLOCK = 8, BATCH = 128 };
  uint64_t blocks[N / BLOCK], place[N];
  for (size_t i = 0; i < N / BLOCK; i++) blocks[i] = BLOCK;
  tr_sampler *sampler = make((tr_sampler_options){.seed = 3,
                                                  .shuffle = TR_SHUFFLE_STREAMS,
                                                  .block_samples = blocks,
                                                  .block_count = N / BLOCK,
                                                  .batch_size = BATCH});
  for (uint64_t position = 0; position < N; position++) place[tr_sampler_at(sampler, 0, position)] = position;
  /* Blocks: the distance in the order of samples of two blocks that follow each other is that of random ones, N / 3 on
   * the average. */
  double apart = 0;
  for (size_t i = 0; i + 1 < N / BLOCK; i++) {
    const uint64_t a = place[i * BLOCK], b = place[(i + 1) * BLOCK];
    apart += (double)(a > b ? a - b : b - a) / (N / BLOCK - 1);
  }
  cr_assert_float_eq(apart / N, 1.0 / 3, 0.02);
  /* Batches: of the rows of one, few are of one block (two draws of a stream), and file order is not kept in it. */
  int same_block = 0, rising = 0, pairs = 0;
  for (uint64_t batch = 0; batch + 1 < N / BATCH; batch++)
    for (uint64_t row = 0; row + 1 < BATCH; row++, pairs++) {
      const uint64_t a = tr_sampler_at(sampler, 0, batch * BATCH + row),
                     b = tr_sampler_at(sampler, 0, batch * BATCH + row + 1);
      same_block += a / BLOCK == b / BLOCK;
      rising += a < b;
    }
  cr_assert_lt(same_block, pairs / 2);
  cr_assert(rising > pairs * 0.45 && rising < pairs * 0.55, "%d of %d", rising, pairs);
  /* Inside a block every order comes up. */
  int in_order = 0;
  for (size_t i = 0; i < N / BLOCK; i++) {
    int steps = 0;
    for (size_t j = 0; j + 1 < BLOCK; j++) steps += place[i * BLOCK + j] < place[i * BLOCK + j + 1];
    in_order += steps == BLOCK - 1 || steps == 0;
  }
  cr_assert_lt(in_order, 5);
  tr_sampler_destroy(sampler);
}

Test(sampler, a_million_blocks_cost_little) {
  const size_t count = 1000000;
  uint64_t *blocks = malloc(count * sizeof *blocks);
  for (size_t i = 0; i < count; i++) blocks[i] = 4096;
  tr_sampler *sampler = make((tr_sampler_options){.shuffle = TR_SHUFFLE_STREAMS,
                                                  .streams = 512,
                                                  .block_samples = blocks,
                                                  .block_count = count,
                                                  .batch_size = 4096});
  const double before_s = ts_now_s();
  uint64_t sum = 0;
  for (uint64_t i = 0; i < 10000; i++) sum += tr_sampler_at(sampler, 0, i * 409599);
  cr_assert_lt(ts_now_s() - before_s, 3.0);
  cr_assert_neq(sum, 0);
  tr_sampler_destroy(sampler);
  free(blocks);
}

Test(sampler, refuses_what_makes_no_sense) {
  const uint64_t n = 10, huge[] = {UINT64_MAX, 2};
  tr_sampler *sampler = NULL;
  tr_error error;
  tr_sampler_options options = {sizeof options, .block_samples = &n, .block_count = 1};
  cr_assert_eq(tr_sampler_create(&options, &sampler, &error), TR_ERR_INVALID);
  options.batch_size = 1;
  options.shuffle = (tr_shuffle)9;
  cr_assert_eq(tr_sampler_create(&options, &sampler, &error), TR_ERR_INVALID);
  options.shuffle = TR_SHUFFLE_NONE;
  options.block_samples = huge;
  options.block_count = 2;
  cr_assert_eq(tr_sampler_create(&options, &sampler, &error), TR_ERR_INVALID);
  options.struct_bytes = 1;
  cr_assert_eq(tr_sampler_create(&options, &sampler, &error), TR_ERR_INVALID);
  cr_assert_null(sampler);
}

Test(sampler, survives_each_allocation_failing) {
  const uint64_t blocks[] = {100, 200};
  for (uint64_t fail_at = 1;; fail_at++) {
    tr_counting_allocator counting;
    tr_counting_allocator_init(&counting);
    counting.fail_at = fail_at;
    const tr_sampler_options options = {sizeof options,          .allocator = &counting.allocator,
                                        .batch_size = 10,        .shuffle = TR_SHUFFLE_STREAMS,
                                        .block_samples = blocks, .block_count = 2};
    tr_sampler *sampler = NULL;
    const tr_status status = tr_sampler_create(&options, &sampler, NULL);
    tr_sampler_destroy(sampler);
    cr_assert_eq(counting.live_blocks, 0);
    if (status == TR_OK) break;
    cr_assert_eq(status, TR_ERR_NO_MEMORY);
  }
}
