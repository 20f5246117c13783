/* Batches: every sample exactly once, whatever the ranks, threads and buffers; resumable anywhere; held until
 * committed. */
#include "dataloader/data.h"

#include <stdatomic.h>

typedef struct world {
  tr_stores *stores;
  tr_device *device;
  tr_dataset *dataset;
} world;

static world make_world(uint32_t samples) {
  world w = {.stores = make_stores(NULL), .device = make_cpu(NULL)};
  put_numbered(w.stores, "memory://d/a", 0, samples);
  static const char *const urls[] = {"memory://d/a"};
  static const tr_field_source sources[] = {{"id", "-id"}, {"pixels", "-pixels"}};
  const tr_dataset_options options = {.struct_bytes = sizeof options,
                                      .stores = w.stores,
                                      .urls = urls,
                                      .url_count = 1,
                                      .format = "idx",
                                      .fields = sources,
                                      .field_count = 2};
  tr_error e = {0};
  EXPECT_OK(tr_dataset_open(&options, &w.dataset, &e));
  return w;
}

static void end_world(world *w) {
  tr_dataset_close(w->dataset);
  tr_device_close(w->device);
  tr_stores_destroy(w->stores);
}

static tr_loader_options defaults(const world *w) {
  return (tr_loader_options){.struct_bytes = sizeof(tr_loader_options),
                             .device = w->device,
                             .dataset = w->dataset,
                             .seed = 5,
                             .shuffle = TR_SHUFFLE_STREAMS,
                             .streams = 4,
                             .batch_size = 32,
                             .micro_batch = 4,
                             .size = 1,
                             .epochs = 1};
}

static tr_loader *open_loader(const tr_loader_options *options) {
  tr_loader *loader = NULL;
  tr_error e = {0};
  EXPECT_OK(tr_loader_open(options, &loader, &e));
  return loader;
}

/* The contents agree with the ids, missing rows are zero and weigh nothing. */
static void check_rows(const tr_micro_batch *m, uint64_t micro_batch) {
  const int32_t *ids = m->fields[0];
  const uint8_t *pixels = m->fields[1];
  for (uint64_t row = 0; row < micro_batch; row++) {
    const bool there = row < m->row_count;
    cr_assert_eq(m->row_weight[row], there ? 1.0f : 0.0f);
    cr_assert_eq((uint64_t)ids[row], there ? m->ids[row] : 0);
    for (uint64_t j = 0; j < 5; j++) cr_assert_eq(pixels[row * 5 + j], there ? (uint8_t)(m->ids[row] * 7 + j) : 0);
  }
}

/* The ids that one rank gets, each at its place in the order of the job. */
static void collect(const tr_loader_options *options, uint64_t samples, uint64_t *order, uint8_t *times) {
  tr_loader *loader = open_loader(options);
  tr_error e = {0};
  for (;;) {
    tr_batch_info info;
    bool end;
    EXPECT_OK(tr_loader_begin(loader, &info, &end, &e));
    if (end) break;
    for (uint64_t leaf = info.leaf_begin; leaf < info.leaf_end; leaf++) {
      tr_micro_batch m;
      EXPECT_OK(tr_loader_next(loader, &m, NULL, &e));
      cr_assert_eq(m.leaf, leaf);
      cr_assert_eq(m.row_offset, leaf * options->micro_batch);
      check_rows(&m, options->micro_batch);
      for (uint32_t row = 0; row < m.row_count; row++) {
        const uint64_t position = info.batch * options->batch_size + m.row_offset + row;
        cr_assert_lt(position, samples);
        order[(info.epoch * samples + position)] = m.ids[row];
        times[info.epoch * samples + position]++;
      }
    }
    tr_micro_batch m;
    EXPECT_FAIL(tr_loader_next(loader, &m, NULL, &e), TR_ERR_INVALID, "no more micro-batches");
    tr_loader_commit(loader);
  }
  tr_loader_close(loader);
}

Test(loader, gives_every_sample_once_and_the_same_order_to_any_number_of_ranks) {
  static const uint32_t sizes[] = {1, 3, 31, 32, 33, 100, 257};
  static const uint64_t batches[][2] = {{32, 4}, {7, 3}, {1, 1}, {64, 64}, {300, 32}};
  for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++) {
    world w = make_world(sizes[s]);
    for (size_t b = 0; b < sizeof batches / sizeof *batches; b++) {
      const uint64_t n = sizes[s];
      uint64_t first[2 * 257], order[2 * 257];
      for (int32_t size = 1; size <= 8; size += size < 4 ? 1 : 2) {
        uint8_t times[2 * 257] = {0};
        for (int32_t rank = 0; rank < size; rank++) {
          tr_loader_options options = defaults(&w);
          options.batch_size = batches[b][0];
          options.micro_batch = batches[b][1];
          options.epochs = 2;
          options.rank = rank;
          options.size = size;
          options.threads = (uint32_t)(rank % 3);
          options.prefetch_bytes = (uint64_t)rank << 10;
          options.shuffle = (tr_shuffle)(b % 3);
          collect(&options, n, size == 1 ? first : order, times);
        }
        for (uint64_t i = 0; i < 2 * n; i++) cr_assert_eq(times[i], 1);
        if (size > 1) cr_assert_eq(memcmp(first, order, 2 * n * sizeof *order), 0);
      }
      uint8_t seen[257] = {0};
      for (uint64_t i = 0; i < n; i++) seen[first[i]]++;
      for (uint64_t i = 0; i < n; i++) cr_assert_eq(seen[i], 1);
    }
    end_world(&w);
  }
}

Test(loader, resumes_at_any_cursor_with_the_same_tail) {
  const uint64_t n = 100;
  world w = make_world((uint32_t)n);
  tr_loader_options options = defaults(&w);
  options.epochs = 2;
  options.batch_size = 24;
  uint64_t whole[200], order[200];
  uint8_t times[200] = {0};
  collect(&options, n, whole, times);
  for (uint64_t at = 0; at <= 10; at++) {
    options.cursor = (tr_cursor){.epoch = at / 5, .batch = at % 5};
    memset(times, 0, sizeof times);
    collect(&options, n, order, times);
    const uint64_t from = at / 5 * n + at % 5 * 24;
    for (uint64_t i = 0; i < 200; i++) {
      cr_assert_eq(times[i], i >= from);
      if (i >= from) cr_assert_eq(order[i], whole[i]);
    }
  }
  /* The end of an epoch can be written in two ways. */
  options.cursor = (tr_cursor){.epoch = 0, .batch = 5};
  tr_loader *loader = open_loader(&options);
  cr_assert_eq(tr_loader_cursor(loader).epoch, 1);
  cr_assert_eq(tr_loader_cursor(loader).batch, 0);
  tr_loader_close(loader);
  tr_error e = {0};
  options.cursor.batch = 6;
  EXPECT_FAIL(tr_loader_open(&options, &loader, &e), TR_ERR_INVALID, "batch 6");
  end_world(&w);
}

Test(loader, a_batch_can_be_begun_again_until_it_is_committed) {
  world w = make_world(100);
  tr_loader_options options = defaults(&w);
  options.epochs = 0;
  tr_loader *loader = open_loader(&options);
  tr_error e = {0};
  tr_batch_info info;
  bool end;
  tr_micro_batch m;
  for (int batch = 0; batch < 9; batch++) {
    uint64_t ids[32];
    const float *weights[8];
    for (int attempt = 0; attempt < 3; attempt++) {
      EXPECT_OK(tr_loader_begin(loader, &info, &end, &e));
      cr_assert(!end);
      cr_assert_eq(info.epoch * 4 + info.batch, (uint64_t)batch);
      const uint64_t stop = attempt < 2 ? info.leaf_begin + (uint64_t)attempt * 3 % (info.leaf_end + 1) : info.leaf_end;
      for (uint64_t leaf = info.leaf_begin; leaf < stop && leaf < info.leaf_end; leaf++) {
        EXPECT_OK(tr_loader_next(loader, &m, NULL, &e));
        if (attempt == 1) {
          memcpy(ids + leaf * 4, m.ids, m.row_count * sizeof *ids);
          weights[leaf] = m.row_weight;
        } else if (attempt == 2 && leaf < 3) {
          cr_assert_eq(memcmp(ids + leaf * 4, m.ids, m.row_count * sizeof *ids), 0);
          cr_assert_eq(weights[leaf], m.row_weight);
        }
      }
      cr_assert_eq(tr_loader_cursor(loader).batch, info.batch);
    }
    tr_loader_commit(loader);
    tr_loader_commit(loader); /* a second one does nothing */
  }
  tr_loader_close(loader);
  end_world(&w);
}

Test(loader, buffers_stay_until_the_commit) {
  world w = make_world(200);
  tr_loader_options options = defaults(&w);
  options.threads = 3;
  tr_loader *loader = open_loader(&options);
  tr_error e = {0};
  for (;;) {
    tr_batch_info info;
    bool end;
    tr_micro_batch m[8];
    EXPECT_OK(tr_loader_begin(loader, &info, &end, &e));
    if (end) break;
    for (uint64_t i = info.leaf_begin; i < info.leaf_end; i++) EXPECT_OK(tr_loader_next(loader, &m[i], NULL, &e));
    ts_sleep_s(0.002);
    for (uint64_t i = info.leaf_begin; i < info.leaf_end; i++) {
      check_rows(&m[i], 4);
      cr_assert_eq((uintptr_t)m[i].fields[0] % 64, 0);
      cr_assert_eq((uintptr_t)m[i].fields[1] % 64, 0);
    }
    tr_loader_commit(loader);
  }
  tr_loader_close(loader);
  end_world(&w);
}

Test(loader, a_batch_committed_unread_is_passed_over) {
  world w = make_world(100);
  tr_loader_options options = defaults(&w);
  options.threads = 2;
  options.prefetch_bytes = 1;
  tr_loader *loader = open_loader(&options);
  tr_error e = {0};
  tr_batch_info info;
  bool end;
  tr_micro_batch m;
  for (int batch = 0; batch < 4; batch++) {
    EXPECT_OK(tr_loader_begin(loader, &info, &end, &e));
    for (uint64_t i = info.leaf_begin; batch == 3 && i < info.leaf_end; i++) {
      EXPECT_OK(tr_loader_next(loader, &m, NULL, &e));
      check_rows(&m, 4);
    }
    tr_loader_commit(loader);
  }
  EXPECT_OK(tr_loader_begin(loader, &info, &end, &e));
  cr_assert(end);
  tr_loader_close(loader);
  end_world(&w);
}

Test(loader, a_rank_without_micro_batches_still_walks_the_epochs) {
  world w = make_world(10);
  tr_loader_options options = defaults(&w);
  options.batch_size = 4;
  options.micro_batch = 4;
  options.size = 3;
  options.epochs = 2;
  int batches = 0;
  for (int32_t rank = 0; rank < 3; rank++) {
    options.rank = rank;
    tr_loader *loader = open_loader(&options);
    tr_error e = {0};
    for (;;) {
      tr_batch_info info;
      bool end;
      EXPECT_OK(tr_loader_begin(loader, &info, &end, &e));
      if (end) break;
      cr_assert_eq(info.last_of_epoch, info.batch == 2);
      cr_assert_eq(info.rows, info.batch == 2 ? 2 : 4);
      batches++;
      for (uint64_t i = info.leaf_begin; i < info.leaf_end; i++) {
        tr_micro_batch m;
        EXPECT_OK(tr_loader_next(loader, &m, NULL, &e));
        check_rows(&m, 4);
      }
      tr_loader_commit(loader);
    }
    tr_loader_close(loader);
  }
  cr_assert_eq(batches, 18);
  end_world(&w);
}

/* ---- Transforms, failures, skipping ------------------------------------------------------------------------------ */

typedef struct mapper {
  uint64_t bad_id;
  double delay_s;
  atomic_int calls;
} mapper;

static tr_status transform(void *self, uint64_t epoch, uint64_t id, void *const *fields, tr_error *error) {
  mapper *m = self;
  atomic_fetch_add(&m->calls, 1);
  if (m->delay_s > 0) ts_sleep_s(m->delay_s);
  if (id == m->bad_id) return tr_fail(error, TR_ERR_CORRUPT, "it is upside down");
  ((uint8_t *)fields[1])[0] = (uint8_t)(100 + epoch);
  return TR_OK;
}

Test(loader, runs_the_transform_once_a_sample) {
  world w = make_world(50);
  mapper map = {.bad_id = UINT64_MAX};
  tr_loader_options options = defaults(&w);
  options.map = transform;
  options.map_self = &map;
  options.threads = 2;
  tr_loader *loader = open_loader(&options);
  tr_error e = {0};
  for (;;) {
    tr_batch_info info;
    bool end;
    EXPECT_OK(tr_loader_begin(loader, &info, &end, &e));
    if (end) break;
    for (uint64_t i = info.leaf_begin; i < info.leaf_end; i++) {
      tr_micro_batch m;
      EXPECT_OK(tr_loader_next(loader, &m, NULL, &e));
      for (uint32_t row = 0; row < m.row_count; row++) cr_assert_eq(((const uint8_t *)m.fields[1])[row * 5], 100);
    }
    tr_loader_commit(loader);
  }
  tr_loader_close(loader);
  cr_assert_eq(map.calls, 50);
  end_world(&w);
}

Test(loader, a_bad_sample_stops_with_its_name) {
  world w = make_world(50);
  mapper map = {.bad_id = 17};
  tr_loader_options options = defaults(&w);
  options.map = transform;
  options.map_self = &map;
  options.shuffle = TR_SHUFFLE_NONE;
  tr_loader *loader = open_loader(&options);
  tr_error e = {0};
  tr_batch_info info;
  bool end;
  tr_micro_batch m;
  for (int attempt = 0; attempt < 2; attempt++) {
    EXPECT_OK(tr_loader_begin(loader, &info, &end, &e));
    for (int i = 0; i < 4; i++) EXPECT_OK(tr_loader_next(loader, &m, NULL, &e));
    EXPECT_FAIL(tr_loader_next(loader, &m, NULL, &e), TR_ERR_CORRUPT, "it is upside down");
    cr_assert_not_null(strstr(e.message, "a-id: 17"), "%s", e.message);
  }
  tr_loader_close(loader);
  end_world(&w);
}

Test(loader, a_skipped_sample_keeps_its_place_with_no_weight) {
  world w = make_world(50);
  mapper map = {.bad_id = 17};
  tr_loader_options options = defaults(&w);
  options.map = transform;
  options.map_self = &map;
  options.skip_corrupt = true;
  tr_loader *loader = open_loader(&options);
  tr_error e = {0};
  uint64_t rows = 0, skipped[4];
  for (;;) {
    tr_batch_info info;
    bool end;
    EXPECT_OK(tr_loader_begin(loader, &info, &end, &e));
    if (end) break;
    for (uint64_t i = info.leaf_begin; i < info.leaf_end; i++) {
      tr_micro_batch m;
      EXPECT_OK(tr_loader_next(loader, &m, NULL, &e));
      for (uint32_t row = 0; row < m.row_count; row++, rows++) {
        const uint8_t *pixels = (const uint8_t *)m.fields[1] + row * 5;
        cr_assert_eq(m.row_weight[row], m.ids[row] == 17 ? 0.0f : 1.0f);
        for (int j = 1; m.ids[row] == 17 && j < 5; j++) cr_assert_eq(pixels[j], 0);
      }
    }
    cr_assert_eq(tr_loader_skipped(loader, skipped, 0), 0);
    tr_loader_commit(loader);
  }
  cr_assert_eq(rows, 50);
  cr_assert_eq(tr_loader_skipped(loader, skipped, 4), 1);
  cr_assert_eq(skipped[0], 17);
  cr_assert_eq(tr_loader_skipped(loader, skipped, 4), 0);
  tr_loader_close(loader);
  end_world(&w);
}

/* ---- The account of waiting -------------------------------------------------------------------------------------- */

static tr_wait_account run_with_delay(double decode_s, double compute_s, double *blocked_s) {
  world w = make_world(40);
  mapper map = {.bad_id = UINT64_MAX, .delay_s = decode_s};
  tr_loader_options options = defaults(&w);
  options.map = transform;
  options.map_self = &map;
  options.batch_size = options.micro_batch = 2;
  tr_loader *loader = open_loader(&options);
  tr_error e = {0};
  tr_wait_account account = {0};
  *blocked_s = 0;
  for (;;) {
    tr_batch_info info;
    bool end;
    EXPECT_OK(tr_loader_begin(loader, &info, &end, &e));
    if (end) break;
    tr_micro_batch m;
    const double before_s = ts_now_s();
    EXPECT_OK(tr_loader_next(loader, &m, &account, &e));
    *blocked_s += ts_now_s() - before_s;
    if (info.batch > 0 && compute_s > 0) ts_sleep_s(compute_s);
    if (info.batch == 0) account = (tr_wait_account){0}, *blocked_s = 0;
    tr_loader_commit(loader);
  }
  tr_loader_close(loader);
  end_world(&w);
  return account;
}

static uint64_t sum(const tr_wait_account *a) {
  return a->first_byte_ns + a->bandwidth_ns + a->throttled_ns + a->retry_ns + a->decode_ns + a->other_ns;
}

Test(loader, waiting_for_a_slow_transform_is_charged_to_decode) {
  double blocked_s;
  const tr_wait_account account = run_with_delay(0.004, 0, &blocked_s);
  cr_assert_gt(account.decode_ns, 100000000u);
  cr_assert_gt((double)account.decode_ns, 0.95 * (double)sum(&account));
  cr_assert_float_eq((double)sum(&account) * 1e-9, blocked_s, 0.05 * blocked_s + 0.005);
}

Test(loader, a_transform_that_prefetch_hides_costs_nothing) {
  double blocked_s;
  const tr_wait_account account = run_with_delay(0.001, 0.010, &blocked_s);
  cr_assert_lt(sum(&account), 50000000u);
}

Test(loader, refuses_what_makes_no_sense) {
  world w = make_world(10);
  tr_loader *loader = NULL;
  tr_error e = {0};
  tr_loader_options options = defaults(&w);
  options.batch_size = 0;
  EXPECT_FAIL(tr_loader_open(&options, &loader, &e), TR_ERR_INVALID, "batch size 0");
  options = defaults(&w);
  options.micro_batch = 0;
  EXPECT_FAIL(tr_loader_open(&options, &loader, &e), TR_ERR_INVALID, "micro-batch 0");
  options = defaults(&w);
  options.rank = 1;
  EXPECT_FAIL(tr_loader_open(&options, &loader, &e), TR_ERR_INVALID, "rank 1 of 1");
  options.struct_bytes = 3;
  EXPECT_FAIL(tr_loader_open(&options, &loader, &e), TR_ERR_INVALID, "version");
  cr_assert_null(loader);
  end_world(&w);
}

/* ---- Memory ------------------------------------------------------------------------------------------------------ */

Test(loader, a_steady_step_allocates_nothing) {
  tr_counting_allocator counting;
  tr_counting_allocator_init(&counting);
  world w = make_world(500);
  tr_loader_options options = defaults(&w);
  options.allocator = &counting.allocator;
  options.epochs = 3;
  tr_loader *loader = open_loader(&options);
  const uint64_t before = counting.allocations;
  tr_error e = {0};
  for (;;) {
    tr_batch_info info;
    bool end;
    EXPECT_OK(tr_loader_begin(loader, &info, &end, &e));
    if (end) break;
    for (uint64_t i = info.leaf_begin; i < info.leaf_end; i++) {
      tr_micro_batch m;
      EXPECT_OK(tr_loader_next(loader, &m, NULL, &e));
    }
    tr_loader_commit(loader);
  }
  cr_assert_eq(counting.allocations, before);
  tr_loader_close(loader);
  cr_assert_eq(counting.live_blocks, 0);
  end_world(&w);
}

Test(loader, the_budget_bounds_the_buffers) {
  world w = make_world(4000);
  tr_counting_allocator counting;
  tr_counting_allocator_init(&counting);
  tr_device *device = make_cpu(&counting.allocator);
  tr_loader_options options = defaults(&w);
  options.device = device;
  options.batch_size = 400;
  options.micro_batch = 100;
  const uint64_t idle = counting.live_bytes, slot = 448 + 512;
  options.prefetch_bytes = 100;
  tr_loader *loader = open_loader(&options);
  cr_assert_eq(counting.live_bytes - idle, 8 * slot, "two steps at least");
  tr_loader_close(loader);
  options.prefetch_bytes = 10 * slot;
  loader = open_loader(&options);
  cr_assert_eq(counting.live_bytes - idle, 10 * slot);
  tr_loader_close(loader);
  tr_device_close(device);
  cr_assert_eq(counting.live_blocks, 0);
  end_world(&w);
}
