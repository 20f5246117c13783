/* Samples read ahead in large ranges: every sample exactly once and its own bytes, whatever the sizes, ranks, threads,
 * memory and moods of the store; waits charged to who made them. */
#include <stdio.h>
#include <zstd.h>

#include "dataloader/data.h"
#include "dataloader/mds_maker.h"
#include "dataloader/slow_store.h"

/* ---- A data set behind a slow store ------------------------------------------------------------------------------ */

typedef struct world {
  slow_settings settings;
  tr_stores *stores;
  tr_device *device;
  tr_dataset *dataset;
  char url[64];
} world;

static tr_store *g_slow;
static tr_status open_slow(void *self, const char *url, tr_store **store, char key[TR_KEY_BYTES], tr_error *error) {
  (void)self, (void)error;
  snprintf(key, TR_KEY_BYTES, "%s", url + strlen("slow://"));
  *store = g_slow;
  return TR_OK;
}

/* A sample: its number, and bytes that follow from it, as a member that fields take; another member between them is of an
 * awkward length. */
enum { VALUE = 40 };
static void add_sample(bytes *tar, uint64_t id, size_t other_bytes) {
  char name[40];
  uint8_t value[VALUE];
  for (int i = 0; i < VALUE; i++) value[i] = (uint8_t)(id * 31 + (uint64_t)i);
  memcpy(value, &id, sizeof id);
  snprintf(name, sizeof name, "%06llu.bin", (unsigned long long)id);
  tar_add(tar, name, value, sizeof value);
  uint8_t *other = calloc(1, other_bytes + 1);
  snprintf(name, sizeof name, "%06llu.other", (unsigned long long)id);
  tar_add(tar, name, other, other_bytes);
  free(other);
  snprintf(name, sizeof name, "%06llu.cls", (unsigned long long)id);
  char text[24];
  snprintf(text, sizeof text, "%llu", (unsigned long long)id);
  tar_add_text(tar, name, text);
}

static void open_world(world *w, const tr_field_source *fields, size_t field_count) {
  const char *url = w->url;
  const tr_dataset_options options = {.struct_bytes = sizeof options,
                                      .stores = w->stores,
                                      .urls = &url,
                                      .url_count = 1,
                                      .fields = fields,
                                      .field_count = field_count};
  tr_error e = {0};
  EXPECT_OK(tr_dataset_open(&options, &w->dataset, &e));
}

static world *empty_world(void) {
  world *w = calloc(1, sizeof *w);
  w->stores = make_stores(NULL);
  w->device = make_cpu(NULL);
  tr_store *inner;
  char key[TR_KEY_BYTES];
  tr_error e = {0};
  EXPECT_OK(tr_stores_resolve(w->stores, "memory://d/x", &inner, key, &e));
  g_slow = slow_store(inner, &w->settings);
  EXPECT_OK(tr_stores_add_scheme(w->stores, "slow", open_slow, NULL, &e));
  return w;
}

/* `samples` over `shards`, the members that nobody wants up to other_max bytes long. */
static world *make_world(uint64_t samples, int shards, size_t other_max) {
  static const tr_field_source fields[] = {{"value", "bin"}, {"label", "cls"}};
  world *w = empty_world();
  for (int s = 0; s < shards; s++) {
    bytes tar = {0};
    for (uint64_t id = tr_split_begin(samples, (uint64_t)shards, (uint64_t)s);
         id < tr_split_end(samples, (uint64_t)shards, (uint64_t)s); id++) {
      add_sample(&tar, id, other_max > 0 ? noise(1, id) % other_max : 0);
    }
    tar_end(&tar);
    char url[64];
    snprintf(url, sizeof url, "memory://d/%03d.tar", s);
    put_bytes(w->stores, url, tar);
    bytes_free(&tar);
  }
  snprintf(w->url, sizeof w->url, "slow://{000..%03d}.tar", shards - 1);
  open_world(w, fields, 2);
  return w;
}

/* Shards of PACKED samples, each packed by zstd; every third lies there as it is. */
enum { PACKED = 20 };
static world *make_packed_world(uint32_t shards) {
  world *w = empty_world();
  char list[16384];
  size_t used = (size_t)snprintf(list, sizeof list, "{\"shards\": [");
  for (uint32_t s = 0; s < shards; s++) {
    uint8_t raw[4096], zip[4096];
    const size_t bytes = mds_shard(raw, s, PACKED), zip_bytes = ZSTD_compress(zip, sizeof zip, raw, bytes, 3);
    const bool packed = s % 3 != 2;
    char url[64];
    snprintf(url, sizeof url, "memory://d/p/shard.%05u.mds%s", s, packed ? ".zstd" : "");
    put(w->stores, url, packed ? zip : raw, packed ? zip_bytes : bytes);
    used += (size_t)snprintf(list + used, sizeof list - used, "%s", s > 0 ? ", " : "");
    used += mds_entry(list + used, sizeof list - used, s, PACKED, bytes, zip_bytes);
  }
  used += (size_t)snprintf(list + used, sizeof list - used, "], \"version\": 2}");
  put(w->stores, "memory://d/p/index.json", list, used);
  snprintf(w->url, sizeof w->url, "slow://p");
  open_world(w, NULL, 0);
  return w;
}

static void end_world(world *w) {
  tr_dataset_close(w->dataset);
  tr_device_close(w->device);
  tr_stores_destroy(w->stores);
  free(w);
}

static tr_loader_options defaults(const world *w) {
  return (tr_loader_options){.struct_bytes = sizeof(tr_loader_options),
                             .device = w->device,
                             .dataset = w->dataset,
                             .seed = 5,
                             .shuffle = TR_SHUFFLE_STREAMS,
                             .batch_size = 24,
                             .micro_batch = 5,
                             .size = 1,
                             .threads = 2,
                             .epochs = 1,
                             .prefetch_bytes = 1 << 20};
}

static tr_loader *open_loader(const tr_loader_options *options) {
  tr_loader *loader = NULL;
  tr_error e = {0};
  EXPECT_OK(tr_loader_open(options, &loader, &e));
  return loader;
}

static void check_packed_row(const tr_micro_batch *m, uint32_t row) {
  const int32_t id = ((const int32_t *)m->fields[0])[row], *x = (const int32_t *)m->fields[1] + 2 * (size_t)row;
  const int32_t number = (int32_t)(m->ids[row] / PACKED * 100 + m->ids[row] % PACKED);
  if (m->row_weight[row] == 0) {
    cr_assert(id == 0 && x[0] == 0 && x[1] == 0);
  } else {
    cr_assert(id == number && x[0] == number && x[1] == -number);
  }
}

static bool g_packed;
static void check_rows(const tr_micro_batch *m) {
  for (uint32_t row = 0; g_packed && row < m->row_count; row++) check_packed_row(m, row);
  if (g_packed) return;
  for (uint32_t row = 0; row < m->row_count; row++) {
    const uint8_t *value = (const uint8_t *)m->fields[0] + (size_t)row * VALUE;
    uint64_t id;
    memcpy(&id, value, sizeof id);
    if (m->row_weight[row] == 0) {
      cr_assert_eq(id, 0);
      continue;
    }
    cr_assert_eq(id, m->ids[row]);
    cr_assert_eq(((const int32_t *)m->fields[1])[row], (int32_t)id);
    for (uint64_t i = sizeof id; i < VALUE; i++) cr_assert_eq(value[i], (uint8_t)(id * 31 + i));
  }
}

/* Delivers up to `batches` batches; the ids go to their places in the order of the job, from the beginning of time. */
static void deliver(tr_loader *loader, const tr_loader_options *options, uint64_t samples, uint64_t batches,
                    uint64_t *order, uint8_t *times, tr_wait_account *account) {
  tr_error e = {0};
  for (uint64_t i = 0; i < batches; i++) {
    tr_batch_info info;
    bool end;
    EXPECT_OK(tr_loader_begin(loader, &info, &end, &e));
    if (end) break;
    for (uint64_t leaf = info.leaf_begin; leaf < info.leaf_end; leaf++) {
      tr_micro_batch m;
      EXPECT_OK(tr_loader_next(loader, &m, account, &e));
      check_rows(&m);
      for (uint32_t row = 0; row < m.row_count && order != NULL; row++) {
        const uint64_t place = info.epoch * samples + info.batch * options->batch_size + m.row_offset + row;
        order[place] = m.ids[row];
        times[place]++;
      }
    }
    tr_loader_commit(loader);
  }
}

static void expect_permutation(const uint64_t *order, uint64_t samples) {
  uint8_t *seen = calloc(samples, 1);
  for (uint64_t i = 0; i < samples; i++) {
    cr_assert_lt(order[i], samples);
    seen[order[i]]++;
  }
  for (uint64_t i = 0; i < samples; i++) cr_assert_eq(seen[i], 1);
  free(seen);
}

/* ---- Exactness --------------------------------------------------------------------------------------------------- */

static void expect_one_order(world *w, uint64_t samples, size_t variant) {
  static const uint64_t budgets[] = {0, 40000, 1 << 20, 64 << 20};
  enum { EPOCHS = 2 };
  uint64_t *first = calloc(EPOCHS * samples, sizeof *first), *order = calloc(EPOCHS * samples, sizeof *order);
  uint8_t *times = calloc(EPOCHS * samples, 1);
  for (int32_t size = 1; size <= 4; size++) {
    memset(times, 0, EPOCHS * samples);
    for (int32_t rank = 0; rank < size; rank++) {
      tr_loader_options options = defaults(w);
      options.shuffle = (tr_shuffle)(variant % 3);
      options.epochs = EPOCHS;
      options.rank = rank;
      options.size = size;
      options.threads = (uint32_t)(1 + (rank + (int32_t)variant) % 3);
      options.prefetch_bytes = budgets[((size_t)rank + (size_t)size + variant) % 4];
      tr_loader *loader = open_loader(&options);
      deliver(loader, &options, samples, UINT64_MAX, size == 1 ? first : order, times, NULL);
      tr_loader_close(loader);
    }
    for (uint64_t i = 0; i < EPOCHS * samples; i++) cr_assert_eq(times[i], 1);
    if (size > 1) cr_assert_eq(memcmp(first, order, EPOCHS * samples * sizeof *order), 0);
  }
  expect_permutation(first, samples);
  free(times);
  free(order);
  free(first);
}

Test(fetch, delivers_each_sample_once_in_one_order_on_any_number_of_ranks) {
  static const struct {
    uint64_t samples;
    int shards;
    size_t other_max;
  } sets[] = {{1, 1, 0}, {7, 3, 100}, {131, 5, 3000}, {260, 4, 60000}, {997, 13, 1}, {40, 2, 400000}};
  for (size_t s = 0; s < sizeof sets / sizeof *sets; s++) {
    world *w = make_world(sets[s].samples, sets[s].shards, sets[s].other_max);
    expect_one_order(w, sets[s].samples, s);
    end_world(w);
  }
}

Test(fetch, resumes_in_mid_epoch_on_another_number_of_ranks) {
  enum { N = 1000 };
  world *w = make_world(N, 7, 2000);
  uint64_t whole[2 * N], order[2 * N];
  uint8_t times[2 * N] = {0};
  tr_loader_options options = defaults(w);
  options.epochs = 2;
  tr_loader *loader = open_loader(&options);
  deliver(loader, &options, N, UINT64_MAX, whole, times, NULL);
  tr_loader_close(loader);
  for (uint64_t cut = 0; cut < 20; cut++) {
    memset(times, 0, sizeof times);
    tr_cursor at = {0};
    int32_t size = 1 + (int32_t)(cut % 4);
    /* Some batches on one number of ranks, the rest on another. */
    for (int part = 0; part < 2; part++) {
      tr_cursor reached = at;
      for (int32_t rank = 0; rank < size; rank++) {
        options.rank = rank;
        options.size = size;
        options.cursor = at;
        options.prefetch_bytes = noise(cut, (uint64_t)rank) % (1 << 19);
        loader = open_loader(&options);
        deliver(loader, &options, N, part == 0 ? 1 + noise(9, cut) % 80 : UINT64_MAX, order, times, NULL);
        reached = tr_loader_cursor(loader);
        tr_loader_close(loader);
      }
      at = reached;
      size = 1 + (int32_t)(noise(10, cut) % 4);
    }
    for (uint64_t i = 0; i < 2 * N; i++) cr_assert_eq(times[i], 1);
    cr_assert_eq(memcmp(whole, order, sizeof whole), 0);
  }
  end_world(w);
}

/* All rings go around many times, now and then as full as they get. */
Test(fetch, many_epochs_are_delivered_whole) {
  enum { N = 700, EPOCHS = 40 };
  world *w = make_world(N, 3, 1);
  uint64_t *order = calloc(N * EPOCHS, sizeof *order);
  uint8_t *times = calloc(N * EPOCHS, 1);
  for (uint32_t threads = 1; threads <= 3; threads++) {
    tr_loader_options options = defaults(w);
    options.epochs = EPOCHS;
    options.threads = threads;
    options.batch_size = 64;
    options.micro_batch = 8;
    options.prefetch_bytes = 8 << 20;
    tr_loader *loader = open_loader(&options);
    for (int pause = 0; pause < 20; pause++) {
      ts_sleep_s(0.01);
      deliver(loader, &options, N, 1 + (uint64_t)pause % 3 * 10, order, times, NULL);
    }
    deliver(loader, &options, N, UINT64_MAX, order, times, NULL);
    for (uint64_t i = 0; i < N * EPOCHS; i++) cr_assert_eq(times[i], threads);
    for (uint64_t e = 0; e < EPOCHS; e++) expect_permutation(order + e * N, N);
    tr_loader_close(loader);
  }
  free(order);
  free(times);
  end_world(w);
}

/* Samples that are larger than all the memory there is come one at a time. */
Test(fetch, samples_larger_than_the_budget_still_come) {
  world *w = make_world(9, 1, 3 << 20);
  tr_loader_options options = defaults(w);
  options.batch_size = options.micro_batch = 2;
  options.prefetch_bytes = 200000;
  tr_loader *loader = open_loader(&options);
  uint64_t order[9];
  uint8_t times[9] = {0};
  deliver(loader, &options, 9, UINT64_MAX, order, times, NULL);
  expect_permutation(order, 9);
  tr_loader_close(loader);
  end_world(w);
}

Test(fetch, a_store_that_answers_inside_the_call_is_fine) {
  world *w = make_world(300, 3, 500);
  w->settings.at_once = true;
  expect_one_order(w, 300, 1);
  end_world(w);
}

/* ---- Packed shards ----------------------------------------------------------------------------------------------- */

Test(fetch, packed_shards_are_delivered_like_others) {
  world *w = make_packed_world(14);
  g_packed = true;
  for (size_t variant = 0; variant < 6; variant++) expect_one_order(w, 14 * PACKED, variant);
  end_world(w);
}

/* In the order of streams each shard is asked for once an epoch, or little more where ranks or memory cut it. */
Test(fetch, a_packed_shard_is_read_once) {
  world *w = make_packed_world(14);
  g_packed = true;
  tr_loader_options options = defaults(w);
  options.epochs = 5;
  options.streams = 3;
  options.prefetch_bytes = 64 << 20;
  w->settings.gets = 0;
  tr_loader *loader = open_loader(&options);
  deliver(loader, &options, 14 * PACKED, UINT64_MAX, NULL, NULL, NULL);
  tr_loader_close(loader);
  cr_assert_leq(w->settings.gets, 5 * 20, "%llu", (unsigned long long)w->settings.gets);
  end_world(w);
}

Test(fetch, a_flipped_bit_in_a_packed_shard_is_read_again) {
  world *w = make_packed_world(1);
  g_packed = true;
  w->settings.flip_at = 100;
  for (uint64_t flips = 1; flips <= 2; flips++) {
    w->settings.flips = flips;
    tr_loader_options options = defaults(w);
    tr_loader *loader = open_loader(&options);
    uint64_t order[PACKED];
    uint8_t times[PACKED] = {0};
    deliver(loader, &options, PACKED, UINT64_MAX, order, times, NULL);
    expect_permutation(order, PACKED);
    tr_loader_close(loader);
    cr_assert_eq(w->settings.flips, 0);
  }
  w->settings.flips = UINT64_MAX;
  tr_loader_options options = defaults(w);
  tr_loader *loader = open_loader(&options);
  tr_error e = {0};
  tr_batch_info info;
  bool end;
  tr_micro_batch m;
  EXPECT_OK(tr_loader_begin(loader, &info, &end, &e));
  EXPECT_FAIL(tr_loader_next(loader, &m, NULL, &e), TR_ERR_CORRUPT, "shard.00000.mds.zstd");
  tr_loader_close(loader);
  /* Skipped, it is a whole shard of rows without weight, and the rest goes on. */
  options.skip_corrupt = true;
  loader = open_loader(&options);
  deliver(loader, &options, PACKED, UINT64_MAX, NULL, NULL, NULL);
  uint64_t skipped[2 * PACKED];
  cr_assert_eq(tr_loader_skipped(loader, skipped, 2 * PACKED), PACKED);
  tr_loader_close(loader);
  end_world(w);
}

/* ---- Few requests, many under way -------------------------------------------------------------------------------- */

Test(fetch, neighbours_are_read_together) {
  world *w = make_world(4000, 4, 300);
  w->settings.gets = w->settings.bytes_read = 0;
  tr_loader_options options = defaults(w);
  options.batch_size = 200;
  options.micro_batch = 50;
  options.prefetch_bytes = 64 << 20;
  tr_loader *loader = open_loader(&options);
  deliver(loader, &options, 4000, UINT64_MAX, NULL, NULL, NULL);
  tr_loader_close(loader);
  cr_assert_lt(w->settings.gets, 400, "%llu requests", (unsigned long long)w->settings.gets);
  cr_assert_lt(w->settings.bytes_read, 5 * 4000 * 3072u);
  end_world(w);
}

/* What is read ahead goes by whole windows of the order, though rounds of them are never quite as long. */
Test(fetch, no_window_is_read_in_two_requests) {
  enum { SAMPLES = 8192, EPOCHS = 6, WINDOWS = SAMPLES / 128 };
  world *w = make_world(SAMPLES, 2, 3000);
  w->settings.gets = 0;
  tr_loader_options options = defaults(w);
  options.streams = 4;
  options.batch_size = options.micro_batch = 64;
  options.epochs = EPOCHS;
  options.prefetch_bytes = 15 << 20; /* half of it is three rounds and a little */
  tr_loader *loader = open_loader(&options);
  deliver(loader, &options, SAMPLES, UINT64_MAX, NULL, NULL, NULL);
  tr_loader_close(loader);
  /* And some for the first ones, which begin small. */
  cr_assert_lt(w->settings.gets, EPOCHS * WINDOWS + 40, "%llu requests", (unsigned long long)w->settings.gets);
  end_world(w);
}

/* A latency of 20 ms and 480 requests one after the other would be ten seconds. */
Test(fetch, more_requests_are_under_way_where_each_waits_long) {
  world *w = make_world(480, 2, 60000);
  w->settings.first_byte_ns = 20000000;
  w->settings.gets = 0;
  tr_loader_options options = defaults(w);
  options.shuffle = TR_SHUFFLE_FULL;
  options.prefetch_bytes = 256 << 20;
  tr_loader *loader = open_loader(&options);
  const double before_s = ts_now_s();
  deliver(loader, &options, 480, UINT64_MAX, NULL, NULL, NULL);
  cr_assert_lt(ts_now_s() - before_s, 4);
  cr_assert_gt(w->settings.under_way_most, 12);
  cr_assert_leq(w->settings.under_way_most, 64);
  tr_loader_close(loader);
  end_world(w);
}

/* On a slow wire the first batch must not wait for all that could be read ahead. */
Test(fetch, the_first_batch_is_not_kept_waiting_by_later_ones) {
  world *w = make_world(400, 2, 60000);
  w->settings.bytes_per_s = 4e6;
  tr_loader_options options = defaults(w);
  options.prefetch_bytes = 256 << 20;
  tr_loader *loader = open_loader(&options);
  const double before_s = ts_now_s();
  deliver(loader, &options, 400, 1, NULL, NULL, NULL);
  const double first_s = ts_now_s() - before_s;
  cr_assert_lt(first_s, 1.2, "%.2f s; the whole takes 3", first_s);
  tr_loader_close(loader);
  end_world(w);
}

/* ---- What goes wrong --------------------------------------------------------------------------------------------- */

Test(fetch, flipped_bits_are_read_again) {
  world *w = make_world(200, 1, 0);
  w->settings.flip_at = 100 * 2560 + 512 + 20; /* in a value */
  w->settings.flips = 1;
  tr_loader_options options = defaults(w);
  options.shuffle = TR_SHUFFLE_NONE; /* so that it is not read over on the way to others */
  tr_loader *loader = open_loader(&options);
  uint64_t order[200];
  uint8_t times[200] = {0};
  deliver(loader, &options, 200, UINT64_MAX, order, times, NULL);
  expect_permutation(order, 200);
  tr_loader_close(loader);
  cr_assert_eq(w->settings.flips, 0);
  cr_assert_eq(w->settings.fresh, 1);
  end_world(w);
}

Test(fetch, a_sample_that_stays_wrong_is_named_or_skipped) {
  world *w = make_world(200, 1, 0);
  w->settings.flip_at = 100 * 2560 + 512 + 20;
  w->settings.flips = UINT64_MAX;
  tr_loader_options options = defaults(w);
  options.shuffle = TR_SHUFFLE_NONE;
  tr_loader *loader = open_loader(&options);
  deliver(loader, &options, 200, 4, NULL, NULL, NULL);
  tr_error e = {0};
  tr_batch_info info;
  bool end;
  tr_micro_batch m;
  EXPECT_OK(tr_loader_begin(loader, &info, &end, &e));
  EXPECT_FAIL(tr_loader_next(loader, &m, NULL, &e), TR_ERR_CORRUPT, "000.tar: offset 256512: sample '000100'");
  tr_loader_close(loader);
  options.skip_corrupt = true;
  loader = open_loader(&options);
  uint64_t order[200], skipped[4];
  uint8_t times[200] = {0};
  deliver(loader, &options, 200, UINT64_MAX, order, times, NULL);
  expect_permutation(order, 200);
  cr_assert_eq(tr_loader_skipped(loader, skipped, 4), 1);
  cr_assert_eq(skipped[0], 100);
  tr_loader_close(loader);
  end_world(w);
}

Test(fetch, ranges_that_come_short_or_not_at_all_are_read_sample_by_sample) {
  world *w = make_world(300, 2, 100);
  w->settings.short_gets = 3;
  expect_one_order(w, 300, 2);
  w->settings.fail_gets = 1;
  expect_one_order(w, 300, 1);
  cr_assert_eq(w->settings.short_gets + w->settings.fail_gets, 0);
  /* Where the store fails for good, so does the batch, and not the program. */
  w->settings.fail_gets = UINT64_MAX;
  tr_loader_options options = defaults(w);
  tr_loader *loader = open_loader(&options);
  tr_error e = {0};
  tr_batch_info info;
  bool end;
  tr_micro_batch m;
  EXPECT_OK(tr_loader_begin(loader, &info, &end, &e));
  EXPECT_FAIL(tr_loader_next(loader, &m, NULL, &e), TR_ERR_STORE, ".tar: offset");
  tr_loader_close(loader);
  end_world(w);
}

Test(fetch, closing_waits_for_requests_under_way) {
  world *w = make_world(400, 2, 20000);
  w->settings.first_byte_ns = 30000000;
  for (int i = 0; i < 6; i++) {
    tr_loader_options options = defaults(w);
    options.prefetch_bytes = 8 << 20;
    tr_loader *loader = open_loader(&options);
    ts_sleep_s(0.008 * i);
    if (i > 3) deliver(loader, &options, 400, 1, NULL, NULL, NULL);
    tr_loader_close(loader);
    cr_assert_eq(w->settings.under_way, 0);
  }
  end_world(w);
}

/* ---- Memory ------------------------------------------------------------------------------------------------------ */

Test(fetch, a_steady_step_allocates_nothing_and_the_budget_bounds_all) {
  world *w = make_world(1200, 3, 20000);
  tr_counting_allocator counting;
  tr_counting_allocator_init(&counting);
  tr_loader_options options = defaults(w);
  options.allocator = &counting.allocator;
  options.epochs = 3;
  options.prefetch_bytes = 4 << 20;
  tr_loader *loader = open_loader(&options);
  deliver(loader, &options, 1200, 50, NULL, NULL, NULL);
  const uint64_t before = counting.allocations;
  deliver(loader, &options, 1200, UINT64_MAX, NULL, NULL, NULL);
  cr_assert_eq(counting.allocations, before);
  cr_assert_lt(counting.peak_bytes, (4 << 20) + (1 << 20), "%llu", (unsigned long long)counting.peak_bytes);
  tr_loader_close(loader);
  cr_assert_eq(counting.live_blocks, 0);
  end_world(w);
}

/* ---- The account of waiting -------------------------------------------------------------------------------------- */

static tr_status slow_map(void *self, uint64_t epoch, uint64_t id, void *const *fields, tr_error *error) {
  (void)self, (void)epoch, (void)id, (void)fields, (void)error;
  ts_sleep_s(0.003);
  return TR_OK;
}

static tr_wait_account account_of(world *w, bool slow_decode, double compute_s, double *blocked_s) {
  tr_loader_options options = defaults(w);
  if (compute_s > 0) options.prefetch_bytes = 8 << 20;
  options.map = slow_decode ? slow_map : NULL;
  options.threads = 1;
  tr_loader *loader = open_loader(&options);
  tr_wait_account account = {0};
  *blocked_s = 0;
  if (compute_s > 0) deliver(loader, &options, 400, 1, NULL, NULL, NULL);
  for (int i = 0; i < (compute_s > 0 ? 10 : 4); i++) {
    const double before_s = ts_now_s();
    deliver(loader, &options, 400, 1, NULL, NULL, &account);
    *blocked_s += ts_now_s() - before_s;
    if (compute_s > 0) ts_sleep_s(compute_s);
  }
  tr_loader_close(loader);
  return account;
}

static uint64_t sum(const tr_wait_account *a) {
  return a->first_byte_ns + a->bandwidth_ns + a->throttled_ns + a->retry_ns + a->decode_ns + a->other_ns;
}

static void expect_cause(world *w, bool slow_decode, size_t offset, const char *what) {
  double blocked_s;
  const tr_wait_account a = account_of(w, slow_decode, 0, &blocked_s);
  uint64_t cause;
  memcpy(&cause, (const char *)&a + offset, sizeof cause);
  cr_assert_gt(sum(&a), 100000000u, "%s", what);
  cr_assert_gt((double)cause, 0.9 * (double)sum(&a), "%s: %.3f of %.3f s", what, (double)cause * 1e-9,
               (double)sum(&a) * 1e-9);
  cr_assert_float_eq((double)sum(&a) * 1e-9, blocked_s, 0.05 * blocked_s + 0.02, "%s", what);
}

Test(fetch, waits_are_charged_to_who_made_them) {
  world *w = make_world(400, 2, 30000);
  w->settings.first_byte_ns = 200000000;
  expect_cause(w, false, offsetof(tr_wait_account, first_byte_ns), "first byte");
  w->settings.first_byte_ns = 0;
  w->settings.bytes_per_s = 10e6;
  expect_cause(w, false, offsetof(tr_wait_account, bandwidth_ns), "bandwidth");
  w->settings.bytes_per_s = 0;
  w->settings.throttled_ns = 200000000;
  expect_cause(w, false, offsetof(tr_wait_account, throttled_ns), "throttled");
  w->settings.throttled_ns = 0;
  w->settings.retry_ns = 200000000;
  expect_cause(w, false, offsetof(tr_wait_account, retry_ns), "retry");
  w->settings.retry_ns = 0;
  expect_cause(w, true, offsetof(tr_wait_account, decode_ns), "decode");
  end_world(w);
}

Test(fetch, what_is_hidden_behind_the_step_is_free) {
  world *w = make_world(400, 2, 30000);
  w->settings.first_byte_ns = 20000000;
  double blocked_s;
  const tr_wait_account a = account_of(w, false, 0.06, &blocked_s);
  cr_assert_lt(sum(&a), 120000000u, "%.3f s", (double)sum(&a) * 1e-9);
  end_world(w);
}
