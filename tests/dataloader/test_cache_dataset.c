/* A data set that is read through the cache of its node. */
#include <stdio.h>

#include "dataloader/cache_world.h"

enum { SAMPLES = 300 };

static tr_status open_counted(void *self, const char *url, tr_store **store, char key[TR_KEY_BYTES], tr_error *error) {
  cache_world *w = self;
  (void)error;
  *store = w->inner;
  snprintf(key, TR_KEY_BYTES, "%s", url + strlen("counted://d/"));
  return TR_OK;
}

static void put_shard(cache_world *w, int first) {
  bytes tar = {0};
  char name[32], label[16];
  for (int i = 0; i < SAMPLES; i++) {
    snprintf(name, sizeof name, "%06d.cls", i);
    snprintf(label, sizeof label, "%d", first + i);
    tar_add_text(&tar, name, label);
  }
  tar_end(&tar);
  tr_error e = {0};
  EXPECT_OK(tr_store_put(w->inner, "a.tar", tar.data, tar.count, false, &e));
  bytes_free(&tar);
}

static tr_dataset *open_shard(tr_stores *stores, tr_cache *cache) {
  static const char *const urls[] = {"counted://d/a.tar"};
  static const tr_field_source label = {"label", "cls"};
  const tr_dataset_options options = {.struct_bytes = sizeof options,
                                      .stores = stores,
                                      .urls = urls,
                                      .url_count = 1,
                                      .fields = &label,
                                      .field_count = 1,
                                      .cache = cache};
  tr_dataset *dataset = NULL;
  tr_error e = {0};
  EXPECT_OK(tr_dataset_open(&options, &dataset, &e));
  cr_assert_eq(tr_dataset_size(dataset), SAMPLES);
  return dataset;
}

static void expect_labels(tr_dataset *dataset, int first) {
  for (int i = 0; i < SAMPLES; i += 10) {
    int32_t label = -1;
    void *const to[] = {&label};
    tr_error e = {0};
    EXPECT_OK(tr_dataset_read(dataset, (uint64_t)i, to, &e));
    cr_assert_eq(label, first + i);
  }
}

Test(cache_dataset, is_read_from_the_store_once_and_a_new_version_once_more) {
  cache_world *w = world_make(NULL);
  tr_stores *stores = make_stores(NULL);
  tr_error e = {0};
  EXPECT_OK(tr_stores_add_scheme(stores, "counted", open_counted, w, &e));
  EXPECT_OK(world_cache(w, ts_folder(), 0, 16 * MIB, NULL, &e));
  put_shard(w, 0);
  tr_dataset *dataset = open_shard(stores, NULL);
  expect_labels(dataset, 0);
  tr_dataset_close(dataset);
  cr_assert_gt(world_gets(w), SAMPLES / 10, "without a cache each sample is asked for");
  for (int version = 1; version < 3; version++) {
    put_shard(w, 1000 * version);
    w->faults->gets = 0;
    dataset = open_shard(stores, w->cache);
    for (int epoch = 0; epoch < 2; epoch++) expect_labels(dataset, 1000 * version);
    tr_dataset_close(dataset);
    cr_assert_eq(world_gets(w), 1, "%d", (int)world_gets(w));
  }
  tr_cache_close(w->cache);
  w->cache = NULL;
  w->inner = NULL; /* the set of stores owns it now */
  tr_stores_destroy(stores);
  world_end(w);
}
