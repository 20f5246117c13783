/* What all formats share: the lock, ranks that open a data set together, stores and allocations that fail. */
#include "dataloader/mds_maker.h"

#include <zstd.h>

#include "dataloader/data.h"
#include "dataset.h"

#include <stdio.h>

#include "support/fault_store.h"

static const tr_field_source id_fields[] = {{"id", "-id"}, {"pixels", "-pixels"}};

static tr_status open_ids(tr_stores *stores, const char *url, tr_dataset **out, tr_error *error) {
  const tr_dataset_options options = {.struct_bytes = sizeof options,
                                      .stores = stores,
                                      .urls = &url,
                                      .url_count = 1,
                                      .format = "idx",
                                      .fields = id_fields,
                                      .field_count = 2};
  return tr_dataset_open(&options, out, error);
}

/* ---- The lock ---------------------------------------------------------------------------------------------------- */

Test(lock, says_which_shard_changed_and_how) {
  tr_stores *stores = make_stores(NULL);
  put_numbered(stores, "memory://d/a", 0, 10);
  put_numbered(stores, "memory://d/b", 10, 10);
  tr_error e = {0};
  tr_dataset *dataset = NULL;
  EXPECT_OK(open_ids(stores, "memory://d/{a,b}", &dataset, &e));
  tr_writer lock;
  tr_writer_init(&lock, NULL);
  tr_dataset_write_lock(dataset, &lock);
  cr_assert(!lock.failed);
  const char *text = (const char *)lock.data;
  EXPECT_OK(tr_dataset_check_lock(dataset, text, lock.bytes, &e));
  json_t *root = json_loadb(text, lock.bytes, 0, NULL);
  cr_assert_eq(json_array_size(json_object_get(root, "shards")), 4);
  cr_assert_eq(json_integer_value(json_object_get(root, "samples")), 20);
  json_decref(root);
  tr_dataset_close(dataset);

  put_numbered(stores, "memory://d/b", 10, 11);
  EXPECT_OK(open_ids(stores, "memory://d/{a,b}", &dataset, &e));
  EXPECT_FAIL(tr_dataset_check_lock(dataset, text, lock.bytes, &e), TR_ERR_MISMATCH,
              "memory://d/b-id has 52 bytes, it had 48");
  tr_dataset_close(dataset);
  put_numbered(stores, "memory://d/b", 11, 10);
  EXPECT_OK(open_ids(stores, "memory://d/{a,b}", &dataset, &e));
  EXPECT_FAIL(tr_dataset_check_lock(dataset, text, lock.bytes, &e), TR_ERR_MISMATCH,
              "memory://d/b-id was written again");
  tr_dataset_close(dataset);
  EXPECT_OK(open_ids(stores, "memory://d/a", &dataset, &e));
  EXPECT_FAIL(tr_dataset_check_lock(dataset, text, lock.bytes, &e), TR_ERR_MISMATCH, "memory://d/b-id is gone");
  tr_dataset_close(dataset);
  EXPECT_OK(open_ids(stores, "memory://d/{b,a}", &dataset, &e));
  EXPECT_FAIL(tr_dataset_check_lock(dataset, text, lock.bytes, &e), TR_ERR_MISMATCH,
              "memory://d/b-id was memory://d/a-id");
  EXPECT_FAIL(tr_dataset_check_lock(dataset, "{}", 2, &e), TR_ERR_CORRUPT, "not one of version");
  EXPECT_FAIL(tr_dataset_check_lock(dataset, "{", 1, &e), TR_ERR_CORRUPT, "not JSON");
  tr_dataset_close(dataset);
  tr_writer_fini(&lock);
  tr_stores_destroy(stores);
}

Test(lock, mutated_ones_never_crash) {
  tr_stores *stores = make_stores(NULL);
  put_numbered(stores, "memory://d/a", 0, 3);
  tr_error e = {0};
  tr_dataset *dataset = NULL;
  EXPECT_OK(open_ids(stores, "memory://d/a", &dataset, &e));
  tr_writer lock;
  tr_writer_init(&lock, NULL);
  tr_dataset_write_lock(dataset, &lock);
  for (uint64_t i = 0; i < 2000; i++) {
    char *text = malloc(lock.bytes);
    memcpy(text, lock.data, lock.bytes);
    text[noise(i, 0) % lock.bytes] = (char)noise(i, 1);
    const tr_status status = tr_dataset_check_lock(dataset, text, i % 3 ? lock.bytes : noise(i, 2) % lock.bytes, &e);
    cr_assert(status == TR_OK || status == TR_ERR_CORRUPT || status == TR_ERR_MISMATCH);
    free(text);
  }
  tr_writer_fini(&lock);
  tr_dataset_close(dataset);
  tr_stores_destroy(stores);
}

/* ---- Blocks of the order ----------------------------------------------------------------------------------------- */

Test(dataset, a_block_of_a_small_set_is_one_window_of_about_a_mebibyte) {
  static const struct {
    size_t bytes, samples, block;
  } cases[] = {{1, 9000, 512}, {30000, 50, 32}, {112000, 21, 8}, {600000, 3, 1}, {2000000, 2, 1}};
  for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
    tr_stores *stores = make_stores(NULL);
    bytes tar = {0};
    uint8_t *value = calloc(1, cases[c].bytes);
    for (size_t i = 0; i < cases[c].samples; i++) {
      char name[32];
      snprintf(name, sizeof name, "%zu.bin", i);
      tar_add(&tar, name, value, cases[c].bytes);
    }
    tar_end(&tar);
    put_bytes(stores, "memory://d/a.tar", tar);
    put_bytes(stores, "memory://d/b.tar", tar);
    const char *url = "memory://d/{a,b}.tar";
    const tr_dataset_options options = {.struct_bytes = sizeof options, .stores = stores, .urls = &url, .url_count = 1};
    tr_dataset *dataset = NULL;
    tr_error e = {0};
    EXPECT_OK(tr_dataset_open(&options, &dataset, &e));
    const uint64_t *blocks;
    const size_t count = tr_dataset_blocks(dataset, &blocks);
    cr_assert_eq(count, 2 * ((cases[c].samples + cases[c].block - 1) / cases[c].block));
    uint64_t sum = 0;
    for (size_t i = 0; i < count / 2; i++) {
      cr_assert(blocks[i] == cases[c].block || i + 1 == count / 2);
      sum += blocks[i];
    }
    cr_assert_eq(sum, cases[c].samples, "no block spans two shards");
    tr_dataset_close(dataset);
    free(value);
    bytes_free(&tar);
    tr_stores_destroy(stores);
  }
}

Test(dataset, a_block_has_more_windows_the_more_there_are_for_64_streams) {
  static const struct {
    uint64_t window, samples, block;
  } cases[] = {{8, 100, 8},       {8, 8 * 511, 8},  {8, 8 * 512, 16}, {8, 8 * 1024, 32},
               {8, 8 * 2048, 64}, {8, 1 << 30, 64}, {1, 70000, 8}};
  for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
    cr_expect_eq(dl_block_samples(cases[c].window, cases[c].samples), cases[c].block, "case %zu", c);
  }
  cr_expect_eq(dl_window_samples(112000 * 1000, 1000), 8);
  cr_expect_eq(dl_window_samples(1000, 1000), 512);
  cr_expect_eq(dl_window_samples(0, 0), 512);
}

/* ---- Ranks together ---------------------------------------------------------------------------------------------- */

typedef struct together {
  exchange_area *area;
  const char *url, *index_folder;
  uint64_t samples;
  bool break_one; /* one rank cannot see the last shard */
} together;

static void write_shards(const char *folder, int shards, int samples) {
  for (int s = 0; s < shards; s++) {
    bytes tar = {0};
    for (int i = 0; i < samples; i++) {
      char name[32], text[16];
      snprintf(name, sizeof name, "%d.cls", s * samples + i);
      snprintf(text, sizeof text, "%d", s * samples + i);
      tar_add_text(&tar, name, text);
    }
    tar_end(&tar);
    char *path = ts_format("%s/%02d.tar", folder, s);
    ts_file_write(path, tar.data, tar.count);
    free(path);
    bytes_free(&tar);
  }
}

static int open_together(int rank, int ranks, void *context) {
  const together *t = context;
  tr_stores *stores = make_stores(NULL);
  const tr_exchange exchange = exchange_of(t->area, rank, ranks);
  const tr_dataset_options options = {.struct_bytes = sizeof options,
                                      .stores = stores,
                                      .urls = &t->url,
                                      .url_count = 1,
                                      .index_folder = t->index_folder,
                                      .exchange = &exchange};
  tr_error e = {0};
  tr_dataset *dataset = NULL;
  const tr_status status = tr_dataset_open(&options, &dataset, &e);
  int code = 0;
  if (t->break_one) {
    code = status == TR_ERR_CORRUPT && strstr(e.message, "06.tar: offset 0: not a tar header") != NULL ? 0 : 1;
    if (code != 0) fprintf(stderr, "rank %d: %s\n", rank, e.message);
  } else if (status != TR_OK) {
    fprintf(stderr, "rank %d: %s\n", rank, e.message);
    code = 1;
  } else {
    for (uint64_t id = 0; id < t->samples && code == 0; id++) {
      int32_t label = -1;
      void *const to[] = {&label};
      if (tr_dataset_read(dataset, id, to, &e) != TR_OK || (uint64_t)label != id) code = 2;
    }
    if (tr_dataset_size(dataset) != t->samples) code = 3;
  }
  tr_dataset_close(dataset);
  tr_stores_destroy(stores);
  return code;
}

Test(ranks, build_one_index_together) {
  for (int ranks = 1; ranks <= 5; ranks++) {
    const char *folder = ts_folder();
    write_shards(folder, 7, 30);
    char *url = ts_format("%s/{00..06}.tar", folder), *index = ts_format("%s/index", folder);
    together t = {.area = exchange_area_make(ranks, 1 << 20), .url = url, .index_folder = index, .samples = 210};
    cr_assert(ts_ranks(ranks, 20, open_together, &t));
    cr_assert(ts_ranks(ranks, 20, open_together, &t), "from the kept index");
    free(url);
    free(index);
  }
}

Test(ranks, all_fail_alike_where_one_cannot_go_on) {
  const char *folder = ts_folder();
  write_shards(folder, 7, 3);
  char *bad = ts_format("%s/06.tar", folder), *url = ts_format("%s/{00..06}.tar", folder);
  size_t count;
  char *tar = ts_file_read(bad, &count);
  tar[0] ^= 1;
  ts_file_write(bad, tar, count);
  together t = {.area = exchange_area_make(3, 1 << 20), .url = url, .break_one = true};
  cr_assert(ts_ranks(3, 20, open_together, &t));
  free(tar);
  free(bad);
  free(url);
}

/* ---- What fails in turn ------------------------------------------------------------------------------------------ */

static tr_status run_epoch(tr_dataset *dataset, tr_device *device, const tr_allocator *allocator, tr_error *error) {
  const tr_loader_options options = {.struct_bytes = sizeof options,
                                     .allocator = allocator,
                                     .device = device,
                                     .dataset = dataset,
                                     .shuffle = TR_SHUFFLE_STREAMS,
                                     .batch_size = 4,
                                     .micro_batch = 2,
                                     .size = 1,
                                     .epochs = 1,
                                     .threads = 2};
  tr_loader *loader = NULL;
  TR_TRY(tr_loader_open(&options, &loader, error));
  tr_status status = TR_OK;
  for (;;) {
    tr_batch_info info;
    bool end = false;
    status = tr_loader_begin(loader, &info, &end, error);
    if (status != TR_OK || end) break;
    for (uint64_t i = info.leaf_begin; i < info.leaf_end && status == TR_OK; i++) {
      tr_micro_batch m;
      status = tr_loader_next(loader, &m, NULL, error);
    }
    if (status != TR_OK) break;
    tr_loader_commit(loader);
  }
  tr_loader_close(loader);
  return status;
}

static tr_status run_all(tr_stores *stores, const char *url, const tr_allocator *allocator, tr_error *error) {
  const tr_device_options cpu = {.struct_bytes = sizeof cpu, .allocator = allocator, .kind = TR_DEVICE_CPU};
  const tr_dataset_options options = {.struct_bytes = sizeof options,
                                      .allocator = allocator,
                                      .stores = stores,
                                      .urls = &url,
                                      .url_count = 1,
                                      .index_folder = "memory://i/index",
                                      .sequence_length = 10};
  tr_dataset *dataset = NULL;
  tr_device *device = NULL;
  TR_TRY(tr_device_open(&cpu, &device, error));
  tr_status status = tr_dataset_open(&options, &dataset, error);
  if (status == TR_OK) status = run_epoch(dataset, device, allocator, error);
  tr_dataset_close(dataset);
  tr_device_close(device);
  return status;
}

/* An MDS set of one shard, and a file of 100 tokens. */
static void put_mds_and_tokens(tr_stores *stores, const char *folder, bool packed) {
  uint8_t raw[4096], zip[4096];
  char list[2048];
  const size_t bytes = mds_shard(raw, 0, 5), zip_bytes = packed ? ZSTD_compress(zip, sizeof zip, raw, bytes, 3) : 0;
  size_t used = (size_t)snprintf(list, sizeof list, "{\"version\": 2, \"shards\": [");
  used += mds_entry(list + used, sizeof list - used, 0, 5, bytes, zip_bytes);
  used += (size_t)snprintf(list + used, sizeof list - used, "]}");
  char *index = ts_format("%s/index.json", folder),
       *shard = ts_format("%s/shard.00000.mds%s", folder, packed ? ".zstd" : "");
  put(stores, index, list, used);
  put(stores, shard, packed ? zip : raw, packed ? zip_bytes : bytes);
  free(index);
  free(shard);
  const uint32_t tokens[256 + 100] = {20240801, 7, 100};
  put(stores, "memory://d/t.bin", tokens, sizeof tokens);
}

static void put_one_of_each(tr_stores *stores) {
  put_mds_and_tokens(stores, "memory://d/t-raw", false);
  put_mds_and_tokens(stores, "memory://d/t-zip", true);
  uint8_t pixels[2 * 12] = {0}, labels[2] = {0, 1};
  const uint32_t dims[] = {2, 3, 4};
  bytes images = make_idx(0x08, dims, 3, pixels, 24), numbers = make_idx(0x08, dims, 1, labels, 2);
  bytes zipped = make_gzip(images.data, images.count);
  put_bytes(stores, "memory://d/t-images-idx3-ubyte.gz", zipped);
  put_bytes(stores, "memory://d/t-labels-idx1-ubyte", numbers);
  put(stores, "memory://d/t.csv", "a,b\n1,2\n3,4\n5,6\n", 16);
  bytes tar = {0};
  for (int i = 0; i < 5; i++) {
    bytes png = make_png(3, 4, 1, pixels);
    char name[16];
    snprintf(name, sizeof name, "%d.png", i);
    tar_add(&tar, name, png.data, png.count);
    snprintf(name, sizeof name, "%d.cls", i);
    tar_add_text(&tar, name, "4");
    bytes_free(&png);
  }
  tar_end(&tar);
  put_bytes(stores, "memory://d/t.tar", tar);
  bytes_free(&tar);
  bytes_free(&zipped);
  bytes_free(&images);
  bytes_free(&numbers);
}

Test(faults, each_allocation_fails_cleanly) {
  static const char *const urls[] = {"memory://d/t",     "memory://d/t.csv", "memory://d/t.tar",
                                     "memory://d/t-raw", "memory://d/t-zip", "memory://d/t.bin"};
  for (size_t u = 0; u < sizeof urls / sizeof *urls; u++) {
    tr_stores *stores = make_stores(NULL);
    put_one_of_each(stores);
    uint64_t fail_at = 1;
    for (tr_status status = TR_ERR_NO_MEMORY; status != TR_OK; fail_at++) {
      tr_counting_allocator counting;
      tr_counting_allocator_init(&counting);
      counting.fail_at = fail_at;
      counting.fail_forever = fail_at % 2 == 0;
      tr_error e = {0};
      status = run_all(stores, urls[u], &counting.allocator, &e);
      cr_assert_eq(counting.live_blocks, 0, "%s: allocation %llu: %s", urls[u], (unsigned long long)fail_at, e.message);
      if (status != TR_OK) cr_assert_eq(status, TR_ERR_NO_MEMORY, "%s", e.message);
      if (status == TR_OK && counting.allocations >= fail_at) status = TR_ERR_NO_MEMORY; /* it was done without */
    }
    cr_assert_gt(fail_at, 15, "%s", urls[u]);
    tr_stores_destroy(stores);
  }
}

static tr_store *g_faulty;
static tr_status open_faulty(void *self, const char *url, tr_store **store, char key[TR_KEY_BYTES], tr_error *error) {
  (void)self, (void)error;
  snprintf(key, TR_KEY_BYTES, "%s", url + strlen("faulty://"));
  *store = g_faulty;
  return TR_OK;
}

/* The data sets of put_one_of_each behind a store that fails on order. */
static tr_stores *make_faulty(ts_faults *faults) {
  tr_stores *stores = make_stores(NULL);
  put_one_of_each(stores);
  tr_store *inner;
  char key[TR_KEY_BYTES];
  tr_error e = {0};
  EXPECT_OK(tr_stores_resolve(stores, "memory://d/x", &inner, key, &e));
  g_faulty = ts_fault_store(inner, false, faults);
  EXPECT_OK(tr_stores_add_scheme(stores, "faulty", open_faulty, NULL, &e));
  return stores;
}

Test(faults, each_request_fails_cleanly_or_is_done_without) {
  static const char *const urls[] = {"faulty://t",     "faulty://t.csv", "faulty://t.tar",
                                     "faulty://t-raw", "faulty://t-zip", "faulty://t.bin"};
  for (size_t u = 0; u < sizeof urls / sizeof *urls; u++)
    for (int kind = 0; kind < 3; kind++) {
      bool more = true;
      for (uint64_t nth = 1; more; nth++) {
        ts_faults faults = {0};
        faults.status = TR_ERR_STORE;
        *(kind == 0 ? &faults.fail_get : kind == 1 ? &faults.fail_head : &faults.short_get) = nth;
        tr_stores *stores = make_faulty(&faults);
        tr_error e = {0};
        const tr_status status = run_all(stores, urls[u], NULL, &e);
        more = (kind == 1 ? faults.heads : faults.gets) >= nth;
        cr_assert(status == TR_OK || status == TR_ERR_STORE || status == TR_ERR_CORRUPT, "%s", e.message);
        if (status != TR_OK) cr_assert_not_null(strstr(e.message, "faulty://t"), "%s", e.message);
        if (!more) cr_assert_eq(status, TR_OK, "%s", e.message);
        tr_stores_destroy(stores);
      }
    }
}

/* What was replaced between the opening and the reading is not mixed in. */
Test(faults, a_shard_that_is_replaced_is_noticed) {
  tr_stores *stores = make_stores(NULL);
  put_one_of_each(stores);
  const char *url = "memory://d/t.tar";
  const tr_dataset_options options = {.struct_bytes = sizeof options, .stores = stores, .urls = &url, .url_count = 1};
  tr_error e = {0};
  tr_dataset *dataset = NULL;
  EXPECT_OK(tr_dataset_open(&options, &dataset, &e));
  tr_store *store;
  char key[TR_KEY_BYTES];
  void *data;
  size_t count;
  EXPECT_OK(tr_stores_resolve(stores, url, &store, key, &e));
  EXPECT_OK(tr_store_get_all(store, NULL, key, 1 << 20, &data, &count, &e));
  ((uint8_t *)data)[0] = 'x';
  EXPECT_OK(tr_store_put(store, key, data, count, false, &e));
  uint8_t image[12];
  int32_t label;
  void *const to[] = {image, &label};
  EXPECT_FAIL(tr_dataset_read(dataset, 1, to, &e), TR_ERR_CHANGED, "t.tar");
  tr_free(NULL, data);
  tr_dataset_close(dataset);
  tr_stores_destroy(stores);
}
