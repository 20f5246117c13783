/* A folder as a data set: the shards directly in it, sorted, the same on all ranks; and what cannot be one. */
#include "dataloader/data.h"

#include <stdio.h>
#include <unistd.h>

static void put_shard(tr_stores *stores, const char *url, int label) {
  bytes tar = {0};
  char text[16];
  snprintf(text, sizeof text, "%d", label);
  tar_add_text(&tar, "s.cls", text);
  tar_end(&tar);
  put_bytes(stores, url, tar);
  bytes_free(&tar);
}

static tr_status open_one(tr_stores *stores, const char *url, const char *format, const tr_exchange *exchange,
                          tr_dataset **out, tr_error *error) {
  const tr_dataset_options options = {.struct_bytes = sizeof options,
                                      .stores = stores,
                                      .urls = &url,
                                      .url_count = 1,
                                      .format = format,
                                      .exchange = exchange};
  return tr_dataset_open(&options, out, error);
}

/* The labels of its samples as digits. */
static void expect_labels(tr_stores *stores, const char *url, const char *labels) {
  tr_dataset *dataset = NULL;
  tr_error e = {0};
  EXPECT_OK(open_one(stores, url, NULL, NULL, &dataset, &e));
  cr_assert_eq(tr_dataset_size(dataset), strlen(labels), "%s", url);
  for (uint64_t id = 0; labels[id] != '\0'; id++) {
    int32_t label = -1;
    void *const to[] = {&label};
    EXPECT_OK(tr_dataset_read(dataset, id, to, &e));
    cr_assert_eq(label, labels[id] - '0', "%s: sample %d", url, (int)id);
  }
  tr_dataset_close(dataset);
}

static void put_folder(tr_stores *stores, const char *folder) {
  char url[512];
  static const struct {
    const char *name;
    int label;
  } shards[] = {{"b.tar", 2}, {"a+ b{1}.tar", 1}, {"c%20.tar", 3}, {".hidden.tar", 9}, {"sub/z.tar", 8}};
  for (size_t i = 0; i < sizeof shards / sizeof *shards; i++) {
    snprintf(url, sizeof url, "%s/%s", folder, shards[i].name);
    put_shard(stores, url, shards[i].label);
  }
  snprintf(url, sizeof url, "%s/README.md", folder);
  put(stores, url, "text", 4);
}

Test(folders, are_the_shards_in_them_sorted) {
  tr_stores *stores = make_stores(NULL);
  put_folder(stores, "memory://d/train");
  expect_labels(stores, "memory://d/train/", "123");
  expect_labels(stores, "memory://d/train", "123");
  expect_labels(stores, "memory://d/train/sub/", "8");
  tr_stores_destroy(stores);
}

Test(folders, of_many_keys_below_sub_folders_are_paged_over) {
  tr_stores *stores = make_stores(NULL);
  char url[128];
  for (int i = 0; i < 2500; i++) {
    snprintf(url, sizeof url, "memory://d/many/m-%d/%04d", i % 2, i);
    put(stores, url, "x", 1);
  }
  put_shard(stores, "memory://d/many/a.tar", 1);
  put_shard(stores, "memory://d/many/m-0.tar", 2);
  put_shard(stores, "memory://d/many/n.tar", 3);
  expect_labels(stores, "memory://d/many/", "123");
  tr_stores_destroy(stores);
}

Test(folders, of_two_formats_or_none_are_refused_with_the_way_out) {
  tr_stores *stores = make_stores(NULL);
  tr_dataset *dataset = NULL;
  tr_error e = {0};
  put_folder(stores, "memory://d/mixed");
  put(stores, "memory://d/mixed/t.csv", "x\n1\n2\n", 6);
  EXPECT_FAIL(open_one(stores, "memory://d/mixed/", NULL, NULL, &dataset, &e), TR_ERR_CONFIG, "set data.format");
  EXPECT_OK(open_one(stores, "memory://d/mixed/", "csv", NULL, &dataset, &e));
  cr_assert_eq(tr_dataset_size(dataset), 2);
  tr_dataset_close(dataset);
  EXPECT_FAIL(open_one(stores, "memory://d/nothing/", NULL, NULL, &dataset, &e), TR_ERR_NOT_FOUND,
              "no shards directly in this folder");
  put(stores, "memory://d/idx/train-images-idx3-ubyte.gz", "x", 1);
  EXPECT_FAIL(open_one(stores, "memory://d/idx/", NULL, NULL, &dataset, &e), TR_ERR_CONFIG,
              "name their prefix, as memory://d/idx/train");
  tr_stores_destroy(stores);
}

typedef struct ranks_context {
  exchange_area *area;
  char folder[256];
} ranks_context;

static int open_on_rank(int rank, int ranks, void *argument) {
  const ranks_context *context = argument;
  const tr_exchange exchange = exchange_of(context->area, rank, ranks);
  tr_stores *stores = make_stores(NULL);
  tr_dataset *dataset = NULL;
  tr_error e = {0};
  tr_status status = open_one(stores, context->folder, NULL, &exchange, &dataset, &e);
  if (status != TR_OK) fprintf(stderr, "rank %d: %s\n", rank, e.message);
  const bool good = status == TR_OK && tr_dataset_size(dataset) == 3;
  tr_dataset_close(dataset);
  tr_stores_destroy(stores);
  return good ? 0 : 1;
}

Test(folders, are_the_same_on_all_ranks) {
  ranks_context context = {.area = exchange_area_make(3, 1 << 20)};
  tr_stores *stores = make_stores(NULL);
  snprintf(context.folder, sizeof context.folder, "%s/train", ts_folder());
  put_folder(stores, context.folder);
  tr_stores_destroy(stores);
  snprintf(context.folder + strlen(context.folder), 2, "/");
  cr_assert(ts_ranks(3, 30, open_on_rank, &context));
}
