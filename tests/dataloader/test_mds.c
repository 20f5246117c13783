/* MDS: samples of shards raw and packed, fields of columns, lists and shards that lie. What the real writer makes is read in
 * test_real_writers.py. */
#include "dataloader/mds_maker.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zstd.h>

#include "dataloader/data.h"

enum { SAMPLES = 20, SHARD_ROOM = 4096, LIST_ROOM = 8192 };

/* ---- Data -------------------------------------------------------------------------------------------------------- */

/* A data set of `shards` shards of SAMPLES samples, packed where asked for. */
static void put_mds(tr_stores *stores, const char *folder, uint32_t shards, bool packed) {
  char list[LIST_ROOM];
  size_t used = (size_t)snprintf(list, sizeof list, "{\"shards\": [");
  for (uint32_t s = 0; s < shards; s++) {
    uint8_t raw[SHARD_ROOM], zip[SHARD_ROOM];
    const size_t bytes = mds_shard(raw, s, SAMPLES);
    const size_t zip_bytes = packed ? ZSTD_compress(zip, sizeof zip, raw, bytes, 3) : 0;
    char *url = ts_format("%s/shard.%05u.mds%s", folder, s, packed ? ".zstd" : "");
    put(stores, url, packed ? zip : raw, packed ? zip_bytes : bytes);
    free(url);
    used += (size_t)snprintf(list + used, sizeof list - used, "%s", s > 0 ? ", " : "");
    used += mds_entry(list + used, sizeof list - used, s, SAMPLES, bytes, zip_bytes);
  }
  used += (size_t)snprintf(list + used, sizeof list - used, "], \"version\": 2}");
  char *url = ts_format("%s/index.json", folder);
  put(stores, url, list, used);
  free(url);
}

static tr_status open_mds(tr_stores *stores, const char *const *urls, size_t url_count, const char *format,
                          const tr_field_source *fields, size_t count, const tr_exchange *exchange, tr_dataset **out,
                          tr_error *e) {
  const tr_dataset_options options = {.struct_bytes = sizeof options,
                                      .stores = stores,
                                      .urls = urls,
                                      .url_count = url_count,
                                      .format = format,
                                      .fields = fields,
                                      .field_count = count,
                                      .exchange = exchange};
  return tr_dataset_open(&options, out, e);
}

static tr_status open_one(tr_stores *stores, const char *url, tr_dataset **out, tr_error *e) {
  return open_mds(stores, &url, 1, NULL, NULL, 0, NULL, out, e);
}

static void expect_sample(tr_dataset *dataset, uint64_t id, int32_t number) {
  int32_t label, x[2];
  void *const to[] = {&label, x};
  tr_error e = {0};
  EXPECT_OK(tr_dataset_read(dataset, id, to, &e));
  cr_assert(label == number && x[0] == number && x[1] == -number, "sample %d: %d, %d, %d", (int)id, label, x[0], x[1]);
}

static void expect_all(tr_dataset *dataset, uint32_t shards) {
  cr_assert_str_eq(tr_dataset_format(dataset), "mds");
  cr_assert_eq(tr_dataset_size(dataset), shards * SAMPLES);
  const tr_field *fields;
  cr_assert_eq(tr_dataset_fields(dataset, &fields), 2, "a column of text is no field");
  cr_assert_str_eq(fields[0].name, "id");
  cr_assert_str_eq(fields[1].name, "x");
  cr_assert(fields[0].dtype == TR_I32 && fields[0].ndim == 0);
  cr_assert(fields[1].dtype == TR_I32 && fields[1].ndim == 1 && fields[1].shape[0] == 2);
  for (uint64_t i = 0; i < shards * SAMPLES; i++) {
    const uint64_t id = i * 7 % (shards * SAMPLES);
    expect_sample(dataset, id, (int32_t)(id / SAMPLES * 100 + id % SAMPLES));
  }
}

/* ---- Reading ----------------------------------------------------------------------------------------------------- */

Test(mds, reads_samples_by_the_folder_or_its_list) {
  tr_stores *stores = make_stores(NULL);
  put_mds(stores, "memory://d/set", 3, false);
  static const char *const urls[] = {"memory://d/set", "memory://d/set/", "memory://d/set/index.json"};
  tr_error e = {0};
  for (size_t i = 0; i < 3; i++) {
    tr_dataset *dataset = NULL;
    EXPECT_OK(open_one(stores, urls[i], &dataset, &e));
    expect_all(dataset, 3);
    char name[64];
    tr_dataset_sample_name(dataset, 45, name, sizeof name);
    cr_assert_str_eq(name, "shard.00002.mds: 5");
    tr_dataset_close(dataset);
  }
  tr_stores_destroy(stores);
}

Test(mds, reads_packed_shards) {
  tr_stores *stores = make_stores(NULL);
  put_mds(stores, "memory://d/zip", 3, true);
  tr_error e = {0};
  tr_dataset *dataset = NULL;
  EXPECT_OK(open_one(stores, "memory://d/zip", &dataset, &e));
  expect_all(dataset, 3);
  tr_dataset_close(dataset);
  tr_stores_destroy(stores);
}

Test(mds, reads_shards_of_a_packed_set_that_lie_there_unpacked) {
  tr_stores *stores = make_stores(NULL);
  put_mds(stores, "memory://d/mixed", 2, true);
  uint8_t raw[SHARD_ROOM];
  put(stores, "memory://d/mixed/shard.00001.mds", raw, mds_shard(raw, 1, SAMPLES));
  tr_store *store;
  char key[TR_KEY_BYTES];
  tr_error e = {0};
  EXPECT_OK(tr_stores_resolve(stores, "memory://d/mixed/shard.00001.mds.zstd", &store, key, &e));
  EXPECT_OK(tr_store_delete(store, key, &e));
  tr_dataset *dataset = NULL;
  EXPECT_OK(open_one(stores, "memory://d/mixed", &dataset, &e));
  expect_all(dataset, 2);
  tr_dataset_close(dataset);
  tr_stores_destroy(stores);
}

Test(mds, reads_local_folders_and_several_of_them) {
  const char *folder = ts_folder();
  tr_stores *stores = make_stores(NULL);
  const char *urls[] = {kept(ts_format("%s/a", folder)), kept(ts_format("%s/b", folder))};
  put_mds(stores, urls[0], 1, false);
  put_mds(stores, urls[1], 2, true);
  tr_error e = {0};
  tr_dataset *dataset = NULL;
  EXPECT_OK(open_mds(stores, urls, 2, NULL, NULL, 0, NULL, &dataset, &e));
  cr_assert_eq(tr_dataset_size(dataset), 3 * SAMPLES);
  for (uint32_t i = 0; i < 3 * SAMPLES; i++) {
    expect_sample(dataset, i, (int32_t)((i / SAMPLES == 2) * 100 + i % SAMPLES));
  }
  tr_dataset_close(dataset);
  tr_stores_destroy(stores);
}

typedef struct shared {
  exchange_area *area;
  const char *url;
} shared;

static int open_as_rank(int rank, int ranks, void *context) {
  const shared *s = context;
  const tr_exchange exchange = exchange_of(s->area, rank, ranks);
  tr_stores *stores = make_stores(NULL);
  tr_error e = {0};
  tr_dataset *dataset = NULL;
  EXPECT_OK(open_mds(stores, &s->url, 1, NULL, NULL, 0, &exchange, &dataset, &e));
  expect_all(dataset, 5);
  tr_dataset_close(dataset);
  tr_stores_destroy(stores);
  return 0;
}

Test(mds, ranks_share_the_list_and_the_index) {
  tr_stores *stores = make_stores(NULL);
  shared s = {.area = exchange_area_make(3, 1 << 20), .url = kept(ts_format("%s/set", ts_folder()))};
  put_mds(stores, s.url, 5, true);
  tr_stores_destroy(stores);
  cr_assert(ts_ranks(3, 30, open_as_rank, &s));
}

/* An epoch as `size` ranks see it: every sample once, whole, and in the order that one rank has. */
static void expect_epoch(tr_dataset *dataset, int32_t size, uint64_t *order) {
  tr_device *device = make_cpu(NULL);
  const uint64_t samples = tr_dataset_size(dataset);
  uint64_t *found = calloc(samples, sizeof *found);
  tr_error e = {0};
  for (int32_t rank = 0; rank < size; rank++) {
    const tr_loader_options options = {.struct_bytes = sizeof options,
                                       .device = device,
                                       .dataset = dataset,
                                       .seed = 3,
                                       .shuffle = TR_SHUFFLE_STREAMS,
                                       .batch_size = 12,
                                       .micro_batch = 2,
                                       .rank = rank,
                                       .size = size,
                                       .epochs = 1,
                                       .prefetch_bytes = 1 << 20,
                                       .threads = 2};
    tr_loader *loader = NULL;
    EXPECT_OK(tr_loader_open(&options, &loader, &e));
    for (;;) {
      tr_batch_info info;
      bool end;
      EXPECT_OK(tr_loader_begin(loader, &info, &end, &e));
      if (end) break;
      for (uint64_t leaf = info.leaf_begin; leaf < info.leaf_end; leaf++) {
        tr_micro_batch m;
        EXPECT_OK(tr_loader_next(loader, &m, NULL, &e));
        const int32_t *labels = m.fields[0], *x = m.fields[1];
        for (uint32_t row = 0; row < m.row_count; row++) {
          const int32_t number = (int32_t)(m.ids[row] / SAMPLES * 100 + m.ids[row] % SAMPLES);
          cr_assert(labels[row] == number && x[2 * row] == number && x[2 * row + 1] == -number);
          found[info.batch * 12 + m.row_offset + row] += m.ids[row] + 1;
        }
      }
      tr_loader_commit(loader);
    }
    tr_loader_close(loader);
  }
  for (uint64_t i = 0; i < samples; i++) {
    if (size == 1) order[i] = found[i];
    cr_assert_eq(found[i], order[i], "%d ranks, position %d", (int)size, (int)i);
  }
  free(found);
  tr_device_close(device);
}

Test(mds, loaders_deliver_one_order_at_any_number_of_ranks) {
  tr_stores *stores = make_stores(NULL);
  tr_error e = {0};
  for (int packed = 0; packed < 2; packed++) {
    const char *url = packed ? "memory://d/zip" : "memory://d/raw";
    put_mds(stores, url, 7, packed);
    tr_dataset *dataset = NULL;
    EXPECT_OK(open_one(stores, url, &dataset, &e));
    uint64_t order[7 * SAMPLES];
    for (int32_t size = 1; size <= 4; size++) expect_epoch(dataset, size, order);
    tr_dataset_close(dataset);
  }
  tr_stores_destroy(stores);
}

/* ---- Fields ------------------------------------------------------------------------------------------------------ */

/* A set of one shard with one sample of one column. */
static void put_value(tr_stores *stores, const char *encoding, const char *size, const void *value, uint32_t bytes) {
  uint8_t raw[SHARD_ROOM];
  const bool fixed = strcmp(size, "null") != 0;
  size_t at = mds_word(raw, 0, 1);
  at = mds_word(raw, at, 12);
  at = mds_word(raw, at, 12 + (fixed ? 0 : 4) + bytes);
  if (!fixed) at = mds_word(raw, at, bytes);
  memcpy(raw + at, value, bytes);
  at += bytes;
  put(stores, "memory://d/v/shard.00000.mds", raw, at);
  char list[1024];
  const size_t used = (size_t)snprintf(
      list, sizeof list,
      "{\"version\": 2, \"shards\": [{\"column_encodings\": [\"%s\"], \"column_names\": [\"v\"], \"column_sizes\": "
      "[%s], "
      "\"compression\": null, \"format\": \"mds\", \"raw_data\": {\"basename\": \"shard.00000.mds\", \"bytes\": %zu}, "
      "\"samples\": 1, \"version\": 2, \"zip_data\": null}]}",
      encoding, size, at);
  put(stores, "memory://d/v/index.json", list, used);
}

static tr_status read_value(tr_stores *stores, const char *source, tr_field *field, void *to, tr_error *e) {
  const tr_field_source fields[] = {{"f", source}};
  const char *url = "memory://d/v";
  void *const list[] = {to};
  const tr_field *found;
  tr_dataset *dataset = NULL;
  TR_TRY(open_mds(stores, &url, 1, NULL, fields, source != NULL ? 1 : 0, NULL, &dataset, e));
  tr_dataset_fields(dataset, &found);
  *field = found[0];
  const tr_status status = tr_dataset_read(dataset, 0, list, e);
  tr_dataset_close(dataset);
  return status;
}

static void expect_number(const char *encoding, const char *size, const void *value, uint32_t bytes, double wanted) {
  tr_stores *stores = make_stores(NULL);
  tr_field field;
  union {
    int32_t integer;
    float real;
  } to;
  tr_error e = {0};
  put_value(stores, encoding, size, value, bytes);
  EXPECT_OK(read_value(stores, NULL, &field, &to, &e));
  cr_assert(field.ndim == 0 && (field.dtype == TR_I32 || field.dtype == TR_F32));
  const double found = field.dtype == TR_I32 ? to.integer : (double)to.real;
  cr_assert_eq(found, wanted, "%s: %.17g, not %.17g", encoding, found, wanted);
  tr_stores_destroy(stores);
}

Test(mds, numbers_become_i32_and_f32) {
  const int64_t wide = -7;
  const uint8_t byte = 200;
  const int8_t small = -100;
  const uint16_t word = 65535;
  const int16_t half = -300;
  const uint32_t large = 2147483647;
  const int32_t least = INT32_MIN;
  const uint64_t huge = 5;
  const float single = 0.1f;
  const double twice = 0.1;
  static const uint16_t halves[] = {0x3C00, 0xC000, 0x3555, 0x0001, 0x8400, 0x7BFF};
  static const double are[] = {1, -2, 0.333251953125, 5.9604644775390625e-08, -6.103515625e-05, 65504};
  expect_number("int", "8", &wide, 8, -7);
  expect_number("int64", "8", &wide, 8, -7);
  expect_number("uint8", "1", &byte, 1, 200);
  expect_number("int8", "1", &small, 1, -100);
  expect_number("uint16", "2", &word, 2, 65535);
  expect_number("int16", "2", &half, 2, -300);
  expect_number("uint32", "4", &large, 4, 2147483647);
  expect_number("int32", "4", &least, 4, -2147483648.0);
  expect_number("uint64", "8", &huge, 8, 5);
  expect_number("float32", "4", &single, 4, (double)0.1f);
  expect_number("float64", "8", &twice, 8, (double)0.1f);
  for (size_t i = 0; i < 6; i++) expect_number("float16", "2", &halves[i], 2, are[i]);
  expect_number("str_int", "null", "-12", 3, -12);
  expect_number("str_float", "null", "1.5e3", 5, 1500);
  expect_number("str_decimal", "null", "2.50", 4, 2.5);
}

Test(mds, numbers_that_do_not_fit_are_refused) {
  static const struct {
    const char *encoding, *size;
    uint64_t value;
    uint32_t bytes;
  } wrong[] = {{"int", "8", 1ull << 31, 8},
               {"uint32", "4", 1ull << 31, 4},
               {"uint64", "8", UINT64_MAX, 8},
               {"int64", "8", (uint64_t)INT64_MIN, 8}};
  tr_field field;
  int64_t to;
  tr_error e = {0};
  tr_stores *stores = make_stores(NULL);
  for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
    put_value(stores, wrong[i].encoding, wrong[i].size, &wrong[i].value, wrong[i].bytes);
    EXPECT_FAIL(read_value(stores, NULL, &field, &to, &e), TR_ERR_CORRUPT, "an integer of more than");
    cr_assert_not_null(strstr(e.message, "shard.00000.mds: offset 12: sample 0, field 'v'"), "%s", e.message);
  }
  put_value(stores, "str_int", "null", "12x", 3);
  EXPECT_FAIL(read_value(stores, NULL, &field, &to, &e), TR_ERR_CORRUPT, "not an integer");
  put_value(stores, "str_float", "null", "1.2.3", 5);
  EXPECT_FAIL(read_value(stores, NULL, &field, &to, &e), TR_ERR_CORRUPT, "not a number");
  tr_stores_destroy(stores);
}

Test(mds, arrays_keep_their_type_and_shape) {
  tr_stores *stores = make_stores(NULL);
  tr_field field;
  int64_t wide[4];
  float real[6];
  uint8_t small[6];
  tr_error e = {0};
  /* dtype 34 (float32); two dimensions of a byte each, 2 and 3 */
  const float values[] = {1, 2, 3, 4, 5, 6};
  uint8_t whole[28] = {34, 2 << 2, 2, 3};
  memcpy(whole + 4, values, sizeof values);
  put_value(stores, "ndarray", "null", whole, 28);
  EXPECT_OK(read_value(stores, "v", &field, real, &e));
  cr_assert(field.dtype == TR_F32 && field.ndim == 2 && field.shape[0] == 2 && field.shape[1] == 3);
  cr_assert_eq(memcmp(real, values, sizeof values), 0);
  /* one dimension, its length in 16 bits */
  static const uint8_t words[] = {1 << 2 | 1, 3, 0, 255, 0, 7};
  put_value(stores, "ndarray:uint8", "null", words, 6);
  EXPECT_OK(read_value(stores, "v", &field, small, &e));
  cr_assert(field.dtype == TR_U8 && field.shape[0] == 3 && small[0] == 255 && small[2] == 7);
  const uint32_t large[] = {1, UINT32_MAX, 3, 4};
  put_value(stores, "ndarray:uint32:2,2", "16", large, 16);
  EXPECT_OK(read_value(stores, "v", &field, wide, &e));
  cr_assert(field.dtype == TR_I64 && field.ndim == 2 && wide[1] == UINT32_MAX && wide[3] == 4);
  static const uint8_t cut[] = {1 << 2 | 1, 4, 0, 255, 0, 7}, deep[] = {63 << 2, 1};
  put_value(stores, "ndarray:uint8", "null", cut, 6);
  EXPECT_FAIL(read_value(stores, "v", &field, small, &e), TR_ERR_CORRUPT, "its shape does not make 3 bytes");
  put_value(stores, "ndarray:uint8", "null", deep, 2);
  EXPECT_FAIL(read_value(stores, "v", &field, small, &e), TR_ERR_UNSUPPORTED, "63 dimensions");
  tr_stores_destroy(stores);
}

Test(mds, images_of_pil_are_fields) {
  tr_stores *stores = make_stores(NULL);
  tr_field field;
  uint8_t pixels[12];
  tr_error e = {0};
  static const uint8_t rgba[] = {2, 0, 0, 0, 1, 0, 0, 0, 4, 0, 0, 0, 'R', 'G', 'B', 'A', 1, 2, 3, 9, 4, 5, 6, 9};
  static const uint8_t grey[] = {2, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 'L', 7, 8};
  static const uint8_t palette[] = {2, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 'P', 7, 8};
  put_value(stores, "pil", "null", rgba, sizeof rgba);
  EXPECT_OK(read_value(stores, "v", &field, pixels, &e));
  cr_assert(field.ndim == 3 && field.shape[0] == 1 && field.shape[1] == 2 && field.shape[2] == 3);
  for (int i = 0; i < 6; i++) cr_assert_eq(pixels[i], i + 1);
  put_value(stores, "pil", "null", grey, sizeof grey);
  EXPECT_OK(read_value(stores, "v", &field, pixels, &e));
  cr_assert(field.shape[2] == 1 && pixels[0] == 7 && pixels[1] == 8);
  put_value(stores, "pil", "null", palette, sizeof palette);
  EXPECT_FAIL(read_value(stores, "v", &field, pixels, &e), TR_ERR_UNSUPPORTED, "mode 'P'");
  put_value(stores, "pil", "null", grey, sizeof grey - 1);
  EXPECT_FAIL(read_value(stores, "v", &field, pixels, &e), TR_ERR_CORRUPT, "do not make 1 bytes");
  tr_stores_destroy(stores);
}

Test(mds, json_is_read_by_its_path_and_bytes_of_one_size_are_a_field) {
  tr_stores *stores = make_stores(NULL);
  tr_field field;
  float real[3];
  uint8_t raw[8];
  tr_error e = {0};
  static const char json[] = "{\"box\": [1, 2.5, -3], \"deep\": [{\"n\": 4}]}";
  put_value(stores, "json", "null", json, sizeof json - 1);
  EXPECT_OK(read_value(stores, "v.box", &field, real, &e));
  cr_assert(field.shape[0] == 3 && real[1] == 2.5f);
  EXPECT_OK(read_value(stores, "v.deep.0.n", &field, real, &e));
  cr_assert(field.ndim == 0 && real[0] == 4);
  EXPECT_FAIL(read_value(stores, NULL, &field, real, &e), TR_ERR_CONFIG, "no column can be batched");
  EXPECT_FAIL(read_value(stores, "w", &field, real, &e), TR_ERR_CONFIG, "there is no column 'w'");
  put_value(stores, "bytes", "null", "abcd", 4);
  EXPECT_OK(read_value(stores, NULL, &field, raw, &e));
  cr_assert(field.dtype == TR_U8 && field.shape[0] == 4 && memcmp(raw, "abcd", 4) == 0);
  put_value(stores, "str", "null", "abcd", 4);
  EXPECT_FAIL(read_value(stores, "v", &field, raw, &e), TR_ERR_CONFIG, "cannot be made into a batch");
  tr_stores_destroy(stores);
}

Test(mds, what_cannot_be_read_is_refused_by_name) {
  static const struct {
    const char *encoding, *size, *says;
    tr_status status;
  } wrong[] = {{"pkl", "null", "encoding 'pkl' is not read: pickled values can run programs", TR_ERR_UNSUPPORTED},
               {"tensor", "null", "encoding 'tensor' is not known", TR_ERR_UNSUPPORTED},
               {"ndarray:complex64", "null", "is not known", TR_ERR_UNSUPPORTED},
               {"ndarray:int32:0", "0", "is not known", TR_ERR_UNSUPPORTED},
               {"ndarray:int32:1,2,3,4,5,6", "2880", "is not known", TR_ERR_UNSUPPORTED},
               {"ndarray:int32:999999999999", "8", "is not known", TR_ERR_UNSUPPORTED},
               {"int", "4", "4 bytes, int has 8", TR_ERR_CORRUPT},
               {"str", "4", "4 bytes, str has 0", TR_ERR_CORRUPT}};
  tr_stores *stores = make_stores(NULL);
  tr_error e = {0};
  for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
    tr_dataset *dataset = NULL;
    put_value(stores, wrong[i].encoding, wrong[i].size, "12345678", 8);
    EXPECT_FAIL(open_one(stores, "memory://d/v", &dataset, &e), wrong[i].status, wrong[i].says);
    cr_assert_not_null(strstr(e.message, "'v'"), "%s", e.message);
  }
  tr_stores_destroy(stores);
}

/* ---- Lists and shards that lie ------------------------------------------------------------------------------------ */

/* The list of a raw set of one shard with `from` replaced by `to`. */
static void expect_list(const char *from, const char *to, tr_status status, const char *says) {
  tr_stores *stores = make_stores(NULL);
  uint8_t raw[SHARD_ROOM];
  char list[2048], changed[4096];
  const size_t bytes = mds_shard(raw, 0, SAMPLES);
  put(stores, "memory://d/l/shard.00000.mds", raw, bytes);
  size_t used = (size_t)snprintf(list, sizeof list, "{\"shards\": [");
  used += mds_entry(list + used, sizeof list - used, 0, SAMPLES, bytes, 0);
  snprintf(list + used, sizeof list - used, "], \"version\": 2}");
  const char *at = strstr(list, from);
  cr_assert_not_null(at);
  snprintf(changed, sizeof changed, "%.*s%s%s", (int)(at - list), list, to, at + strlen(from));
  put(stores, "memory://d/l/index.json", changed, strlen(changed));
  tr_error e = {0};
  tr_dataset *dataset = NULL;
  EXPECT_FAIL(open_one(stores, "memory://d/l", &dataset, &e), status, says);
  cr_assert_not_null(strstr(e.message, "memory://d/l"), "%s", e.message);
  tr_stores_destroy(stores);
}

Test(mds, lists_that_make_no_sense_are_refused) {
  expect_list("{\"shards\"", "[\"shards\"", TR_ERR_CORRUPT, "index.json: line 1");
  expect_list("\"version\": 2}", "\"version\": 3}", TR_ERR_CORRUPT, "it is not {\"version\": 2");
  expect_list("\"version\": 2,", "\"version\": 1,", TR_ERR_CORRUPT, "its version is not 2");
  expect_list("\"format\": \"mds\"", "\"format\": \"csv\"", TR_ERR_UNSUPPORTED, "format 'csv' is not read");
  expect_list("\"compression\": null", "\"compression\": \"gz\"", TR_ERR_UNSUPPORTED,
              "compression 'gz' is not read; write the data set with zstd or none");
  expect_list("\"samples\": 20", "\"samples\": 19", TR_ERR_CORRUPT, "20 samples, index.json says 19");
  expect_list("\"samples\": 20", "\"samples\": -1", TR_ERR_CORRUPT, "no number of samples");
  expect_list("shard.00000.mds", "../shard.00000.mds", TR_ERR_CORRUPT, "not a path inside the folder");
  expect_list("shard.00000.mds", "/etc/passwd", TR_ERR_CORRUPT, "not a path inside the folder");
  expect_list("shard.00000.mds", "a//b", TR_ERR_CORRUPT, "not a path inside the folder");
  expect_list("shard.00000.mds", "other", TR_ERR_NOT_FOUND, "other");
  expect_list("\"column_sizes\": [8, null, null]", "\"column_sizes\": [8, null]", TR_ERR_CORRUPT, "its columns");
  expect_list("[\"id\", \"text\", \"x\"]", "[\"id\", 7, \"x\"]", TR_ERR_CORRUPT, "lists of names");
  expect_list("\"bytes\": ", "\"bytes\": 1", TR_ERR_CORRUPT, "bytes, index.json says");
  expect_list("\"bytes\": ", "\"bytes\": 99999999999", TR_ERR_CORRUPT, "more bytes than a shard can have");
  expect_list("\"shards\": [{", "\"shards\": [], \"x\": [{", TR_ERR_CORRUPT, "names no shards");
}

Test(mds, a_list_of_other_columns_is_another_data_set) {
  tr_stores *stores = make_stores(NULL);
  put_mds(stores, "memory://d/set", 1, false);
  put_value(stores, "int", "8", "12345678", 8);
  static const char *const urls[] = {"memory://d/set", "memory://d/v"};
  tr_error e = {0};
  tr_dataset *dataset = NULL;
  EXPECT_FAIL(open_mds(stores, urls, 2, "mds", NULL, 0, NULL, &dataset, &e), TR_ERR_CORRUPT, "memory://d/v/index.json");
  tr_stores_destroy(stores);
}

static void expect_shard(size_t word, uint32_t value, const char *says) {
  tr_stores *stores = make_stores(NULL);
  uint8_t raw[SHARD_ROOM];
  put_mds(stores, "memory://d/w", 1, false);
  const size_t bytes = mds_shard(raw, 0, SAMPLES);
  mds_word(raw, 4 * word, value);
  put(stores, "memory://d/w/shard.00000.mds", raw, bytes);
  tr_error e = {0};
  tr_dataset *dataset = NULL;
  EXPECT_FAIL(open_one(stores, "memory://d/w", &dataset, &e), TR_ERR_CORRUPT, says);
  tr_stores_destroy(stores);
}

Test(mds, shards_whose_tables_make_no_sense_are_refused) {
  expect_shard(0, 21, "21 samples");
  expect_shard(0, UINT32_MAX, "samples");
  expect_shard(1, 3, "sample 0 begins at 3");
  expect_shard(5, 1u << 30, "not in its turn");
  expect_shard(21, 400, "not in its turn");
  expect_shard(2, 110, "its columns need");
}

/* Changes bytes of a file and nothing that its ETag is made of. */
static void damage(const char *path, size_t at, uint8_t with) {
  struct stat was;
  const int file = open(path, O_RDWR);
  cr_assert(file >= 0 && fstat(file, &was) == 0);
  cr_assert_eq(pwrite(file, &with, 1, (off_t)at), 1);
  const struct timespec times[] = {was.st_atim, was.st_mtim};
  cr_assert_eq(futimens(file, times), 0);
  close(file);
}

Test(mds, a_flipped_bit_is_found) {
  const char *folder = ts_folder();
  tr_stores *stores = make_stores(NULL);
  tr_error e = {0};
  for (int packed = 0; packed < 2; packed++) {
    char *set = ts_format("%s/%d", folder, packed),
         *path = ts_format("%s/shard.00000.mds%s", set, packed ? ".zstd" : "");
    put_mds(stores, set, 1, packed);
    tr_dataset *dataset = NULL;
    EXPECT_OK(open_one(stores, set, &dataset, &e));
    bytes b = bytes_of_file(path);
    /* Of a raw shard the bytes of a sample, of a packed one any. */
    for (size_t at = packed ? 0 : 4 + 4 * 21 + 17; at < b.count; at += 11) {
      uint32_t wrong = 0;
      damage(path, at, b.data[at] ^ (uint8_t)(1u << at % 8));
      for (uint64_t id = 0; id < SAMPLES; id++) {
        int32_t label, x[2];
        void *const to[] = {&label, x};
        const tr_status status = tr_dataset_read(dataset, id, to, &e);
        if (status == TR_OK) {
          cr_assert(label == (int32_t)id && x[0] == label && x[1] == -label);
        } else {
          cr_assert_eq(status, TR_ERR_CORRUPT);
          wrong++;
        }
      }
      /* A packed shard may still be here unpacked, and is right then. */
      if (!packed) cr_assert_eq(wrong, 1, "byte %zu", at);
      damage(path, at, b.data[at]);
    }
    tr_dataset_close(dataset);
    bytes_free(&b);
    free(set);
    free(path);
  }
  tr_stores_destroy(stores);
}

Test(mds, a_flipped_bit_of_a_packed_shard_is_found_when_it_is_unpacked) {
  tr_stores *stores = make_stores(NULL);
  char *set = kept(ts_format("%s/z", ts_folder()));
  put_mds(stores, set, 2, true);
  tr_error e = {0};
  tr_dataset *dataset = NULL;
  EXPECT_OK(open_one(stores, set, &dataset, &e));
  char *path = kept(ts_format("%s/shard.00001.mds.zstd", set));
  bytes b = bytes_of_file(path);
  for (size_t at = 0; at < b.count; at += 7) {
    int32_t label, x[2];
    void *const to[] = {&label, x};
    expect_sample(dataset, 3, 3); /* so that the other shard is not the one that is unpacked */
    damage(path, at, b.data[at] ^ 4);
    EXPECT_FAIL(tr_dataset_read(dataset, SAMPLES + 3, to, &e), TR_ERR_CORRUPT, "shard.00001.mds.zstd");
    damage(path, at, b.data[at]);
    expect_sample(dataset, SAMPLES + 3, 103);
  }
  tr_dataset_close(dataset);
  bytes_free(&b);
  tr_stores_destroy(stores);
}

Test(mds, a_shard_that_is_not_what_it_unpacks_to_is_refused) {
  tr_stores *stores = make_stores(NULL);
  uint8_t raw[SHARD_ROOM], zip[SHARD_ROOM];
  tr_error e = {0};
  tr_dataset *dataset = NULL;
  put_mds(stores, "memory://d/z", 1, true);
  put(stores, "memory://d/z/shard.00000.mds.zstd", "no zstd", 7);
  EXPECT_FAIL(open_one(stores, "memory://d/z", &dataset, &e), TR_ERR_CORRUPT, "it is not zstd");
  const size_t bytes = mds_shard(raw, 0, SAMPLES - 1);
  put(stores, "memory://d/z/shard.00000.mds.zstd", zip, ZSTD_compress(zip, sizeof zip, raw, bytes, 3));
  EXPECT_FAIL(open_one(stores, "memory://d/z", &dataset, &e), TR_ERR_CORRUPT, "index.json says");
  tr_stores_destroy(stores);
}
