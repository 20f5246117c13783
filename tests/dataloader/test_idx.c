/* IDX files, gzipped or not: the right arrays, or an error that names file and offset. */
#include "dataloader/data.h"

static tr_status open_at(tr_stores *stores, const char *url, const char *format, tr_dataset **out, tr_error *error) {
  const tr_dataset_options options = {
      .struct_bytes = sizeof options, .stores = stores, .urls = &url, .url_count = 1, .format = format};
  return tr_dataset_open(&options, out, error);
}

/* Ten 3 x 4 images and their labels under memory://d/t, zipped or not. */
static void put_pair(tr_stores *stores, bool zipped, uint8_t pixels[120], uint8_t labels[10]) {
  for (int i = 0; i < 120; i++) pixels[i] = (uint8_t)noise(1, (uint64_t)i);
  for (int i = 0; i < 10; i++) labels[i] = (uint8_t)(i % 3);
  const uint32_t dims[] = {10, 3, 4};
  bytes images = make_idx(0x08, dims, 3, pixels, 120), numbers = make_idx(0x08, dims, 1, labels, 10);
  if (zipped) {
    bytes a = make_gzip(images.data, images.count), b = make_gzip(numbers.data, numbers.count);
    put_bytes(stores, "memory://d/t-images-idx3-ubyte.gz", a);
    put_bytes(stores, "memory://d/t-labels-idx1-ubyte.gz", b);
    bytes_free(&a);
    bytes_free(&b);
  } else {
    put_bytes(stores, "memory://d/t-images-idx3-ubyte", images);
    put_bytes(stores, "memory://d/t-labels-idx1-ubyte", numbers);
  }
  bytes_free(&images);
  bytes_free(&numbers);
}

static void expect_pair(tr_stores *stores, const char *url) {
  tr_error e = {0};
  tr_dataset *dataset = NULL;
  uint8_t image[12], label;
  void *const to[] = {image, &label};
  EXPECT_OK(open_at(stores, url, NULL, &dataset, &e));
  const tr_field *fields;
  cr_assert_eq(tr_dataset_fields(dataset, &fields), 2);
  cr_assert_str_eq(fields[0].name, "image");
  cr_assert_eq(fields[0].ndim, 2);
  cr_assert_eq(fields[0].shape[0], 3);
  cr_assert_eq(fields[0].shape[1], 4);
  cr_assert_eq(fields[0].bytes, 12);
  cr_assert_eq(fields[1].ndim, 0);
  cr_assert_eq(fields[1].bytes, 1);
  cr_assert_str_eq(tr_dataset_format(dataset), "idx");
  cr_assert_eq(tr_dataset_size(dataset), 10);
  for (uint64_t id = 0; id < 10; id++) {
    EXPECT_OK(tr_dataset_read(dataset, id, to, &e));
    for (uint64_t i = 0; i < 12; i++) cr_assert_eq(image[i], (uint8_t)noise(1, id * 12 + i));
    cr_assert_eq(label, id % 3);
  }
  EXPECT_FAIL(tr_dataset_read(dataset, 10, to, &e), TR_ERR_INVALID, "no sample 10");
  char name[64];
  tr_dataset_sample_name(dataset, 7, name, sizeof name);
  cr_assert_not_null(strstr(name, "images-idx3-ubyte"));
  cr_assert_not_null(strstr(name, ": 7"));
  tr_dataset_close(dataset);
}

Test(idx, reads_images_and_labels_plain_and_gzipped) {
  for (int zipped = 0; zipped < 2; zipped++) {
    tr_stores *stores = make_stores(NULL);
    uint8_t pixels[120], labels[10];
    put_pair(stores, zipped, pixels, labels);
    expect_pair(stores, "memory://d/t");
    expect_pair(stores, zipped ? "memory://d/t-images-idx3-ubyte.gz" : "memory://d/t-labels-idx1-ubyte");
    tr_stores_destroy(stores);
  }
}

Test(idx, reads_gzip_members_laid_end_to_end) {
  tr_stores *stores = make_stores(NULL);
  uint8_t pixels[120], labels[10];
  put_pair(stores, true, pixels, labels);
  const uint32_t dims[] = {10, 3, 4};
  bytes images = make_idx(0x08, dims, 3, pixels, 120);
  bytes joined = make_gzip(images.data, 50), rest = make_gzip(images.data + 50, images.count - 50);
  bytes_add(&joined, rest.data, rest.count);
  put_bytes(stores, "memory://d/t-images-idx3-ubyte.gz", joined);
  expect_pair(stores, "memory://d/t");
  bytes_free(&images);
  bytes_free(&joined);
  bytes_free(&rest);
  tr_stores_destroy(stores);
}

Test(idx, several_prefixes_are_several_shards_and_types_are_kept) {
  tr_stores *stores = make_stores(NULL);
  put_numbered(stores, "memory://d/a", 0, 3);
  put_numbered(stores, "memory://d/b", 3, 5000);
  tr_error e = {0};
  tr_dataset *dataset = NULL;
  const char *urls[] = {"memory://d/{a,b}"};
  const tr_field_source sources[] = {{"id", "-id"}, {"pixels", "-pixels"}};
  tr_dataset_options options = {.struct_bytes = sizeof options,
                                .stores = stores,
                                .urls = urls,
                                .url_count = 1,
                                .format = "idx",
                                .fields = sources,
                                .field_count = 2};
  EXPECT_OK(tr_dataset_open(&options, &dataset, &e));
  const uint64_t *blocks;
  cr_assert_eq(tr_dataset_blocks(dataset, &blocks), 11);
  cr_assert_eq(blocks[0], 3);
  cr_assert_eq(blocks[1], 512);
  cr_assert_eq(blocks[10], 5000 - 9 * 512);
  for (uint64_t id = 0; id < 5003; id += 101) {
    int32_t number;
    uint8_t pixels[5];
    void *const to[] = {&number, pixels};
    EXPECT_OK(tr_dataset_read(dataset, id, to, &e));
    cr_assert_eq(number, (int32_t)id);
    cr_assert_eq(pixels[4], (uint8_t)(id * 7 + 4));
  }
  tr_dataset_close(dataset);
  tr_stores_destroy(stores);
}

/* Puts `images` for the images of a good pair; opening must fail. */
static void expect_refused(bytes images, bool zipped, tr_status status, const char *text) {
  tr_stores *stores = make_stores(NULL);
  uint8_t pixels[120], labels[10];
  put_pair(stores, zipped, pixels, labels);
  put_bytes(stores, zipped ? "memory://d/t-images-idx3-ubyte.gz" : "memory://d/t-images-idx3-ubyte", images);
  tr_error e = {0};
  tr_dataset *dataset = NULL;
  EXPECT_FAIL(open_at(stores, "memory://d/t", "idx", &dataset, &e), status, text);
  cr_assert_not_null(strstr(e.message, "t-images-idx3-ubyte"), "%s", e.message);
  cr_assert_null(dataset);
  tr_stores_destroy(stores);
}

Test(idx, says_what_is_wrong_and_where) {
  uint8_t pixels[120] = {1, 2, 3};
  const uint32_t dims[] = {10, 3, 4}, huge[] = {0xFFFFFFFF, 0xFFFF, 0xFFFF}, none[] = {10, 0, 4};
  bytes good = make_idx(0x08, dims, 3, pixels, 120);
  bytes b = good;
  b.count = 119 + 16;
  expect_refused(b, false, TR_ERR_CORRUPT, "offset 4: 10 samples of 12 bytes are more than the file can hold");
  b = (bytes){0};
  bytes_add(&b, good.data, good.count);
  bytes_add(&b, "xy", 2);
  expect_refused(b, false, TR_ERR_CORRUPT, "2 bytes too many: its header ends the data at offset 136");
  b.data[0] = 1;
  expect_refused(b, false, TR_ERR_CORRUPT, "offset 0: 01000803 is not the magic number");
  b.data[0] = 0;
  b.data[2] = 0x0B;
  expect_refused(b, false, TR_ERR_UNSUPPORTED, "offset 2: element type 0x0b");
  b.count = 3;
  expect_refused(b, false, TR_ERR_CORRUPT, "truncated");
  b.count = 0;
  expect_refused(b, false, TR_ERR_CORRUPT, "truncated");
  bytes_free(&b);
  b = make_idx(0x08, huge, 3, pixels, 108);
  expect_refused(b, false, TR_ERR_CORRUPT, "more than");
  bytes_free(&b);
  b = make_idx(0x08, none, 3, pixels, 108);
  expect_refused(b, false, TR_ERR_CORRUPT, "a sample of no");
  bytes_free(&b);
  bytes_free(&good);
}

Test(idx, a_gzip_that_lies_is_refused) {
  uint8_t pixels[120];
  for (int i = 0; i < 120; i++) pixels[i] = (uint8_t)noise(1, (uint64_t)i);
  const uint32_t dims[] = {10, 3, 4}, promised[] = {4000000000u, 1000, 1000};
  bytes good = make_idx(0x08, dims, 3, pixels, 120), zipped = make_gzip(good.data, good.count);
  bytes b = {0};
  bytes_add(&b, zipped.data, zipped.count);
  b.data[b.count - 8] ^= 1;
  expect_refused(b, true, TR_ERR_CORRUPT, "wrong gzip CRC or length");
  b.data[b.count - 8] ^= 1;
  b.data[b.count - 1] ^= 1;
  expect_refused(b, true, TR_ERR_CORRUPT, "wrong gzip CRC or length");
  b.data[b.count - 1] ^= 1;
  bytes_add(&b, "junk", 4);
  expect_refused(b, true, TR_ERR_CORRUPT, "not gzip");
  b.count -= 5;
  expect_refused(b, true, TR_ERR_CORRUPT, "truncated");
  bytes_free(&b);
  bytes longer = {0};
  bytes_add(&longer, good.data, good.count);
  bytes_add(&longer, "zz", 2);
  b = make_gzip(longer.data, longer.count);
  expect_refused(b, true, TR_ERR_CORRUPT, "more data than its header says");
  bytes_free(&b);
  b = make_gzip(good.data, good.count - 1);
  expect_refused(b, true, TR_ERR_CORRUPT, "truncated");
  bytes_free(&b);
  /* A header that promises terabytes must not be believed. */
  bytes bomb = make_idx(0x08, promised, 3, pixels, 120);
  b = make_gzip(bomb.data, bomb.count);
  expect_refused(b, true, TR_ERR_CORRUPT, "more than the file can hold");
  bytes_free(&b);
  bytes_free(&bomb);
  bytes_free(&longer);
  bytes_free(&zipped);
  bytes_free(&good);
}

Test(idx, files_that_do_not_belong_together_are_refused) {
  tr_stores *stores = make_stores(NULL);
  uint8_t pixels[120], labels[10];
  put_pair(stores, false, pixels, labels);
  const uint32_t dims[] = {9};
  bytes b = make_idx(0x08, dims, 1, labels, 9);
  put_bytes(stores, "memory://d/t-labels-idx1-ubyte", b);
  tr_error e = {0};
  tr_dataset *dataset = NULL;
  EXPECT_FAIL(open_at(stores, "memory://d/t", "idx", &dataset, &e), TR_ERR_CORRUPT, "it has 9 samples");
  EXPECT_FAIL(open_at(stores, "memory://d/u", "idx", &dataset, &e), TR_ERR_NOT_FOUND, "u-images-idx3-ubyte");
  EXPECT_FAIL(open_at(stores, "memory://d/u", NULL, &dataset, &e), TR_ERR_NOT_FOUND, "u-images-idx3-ubyte");
  EXPECT_FAIL(open_at(stores, "memory://d/u", "parquet", &dataset, &e), TR_ERR_UNSUPPORTED,
              "planned, not in this version");
  EXPECT_FAIL(open_at(stores, "memory://d/u", "mds", &dataset, &e), TR_ERR_NOT_FOUND, "u/index.json");
  EXPECT_FAIL(open_at(stores, "memory://d/u", "idxx", &dataset, &e), TR_ERR_CONFIG, "unknown");
  bytes_free(&b);
  tr_stores_destroy(stores);
}

/* A gzipped file with any bit flipped or cut anywhere is refused, or gives the very same samples. */
Test(idx, mutated_gzip_gives_an_error_or_the_right_bytes) {
  tr_stores *stores = make_stores(NULL);
  uint8_t pixels[120], labels[10], expected[120];
  put_pair(stores, true, pixels, labels);
  const uint32_t dims[] = {10, 3, 4};
  bytes raw = make_idx(0x08, dims, 3, pixels, 120), good = make_gzip(raw.data, raw.count);
  memcpy(expected, pixels, 120);
  int opened = 0;
  const uint64_t rounds = ts_long() ? 20000 : 2000;
  for (uint64_t i = 0; i < rounds; i++) {
    bytes b = {0};
    bytes_add(&b, good.data, good.count);
    const uint64_t where = noise(i, 1) % (good.count * 8);
    if (i % 4 == 3) {
      b.count = where / 8;
    } else {
      b.data[where / 8] ^= (uint8_t)(1u << (where % 8));
      if (i % 4 == 2) b.data[noise(i, 2) % good.count] = (uint8_t)noise(i, 3);
    }
    put_bytes(stores, "memory://d/t-images-idx3-ubyte.gz", b);
    tr_error e = {0};
    tr_dataset *dataset = NULL;
    if (open_at(stores, "memory://d/t", "idx", &dataset, &e) == TR_OK) {
      opened++;
      for (uint64_t id = 0; id < 10; id++) {
        uint8_t image[12], label;
        void *const to[] = {image, &label};
        EXPECT_OK(tr_dataset_read(dataset, id, to, &e));
        cr_assert_eq(memcmp(image, expected + id * 12, 12), 0);
      }
      tr_dataset_close(dataset);
    }
    bytes_free(&b);
  }
  cr_assert_lt(opened, (int)rounds / 3, "%d", opened);
  bytes_free(&raw);
  bytes_free(&good);
  tr_stores_destroy(stores);
}

Test(idx, reads_fashion_mnist) {
  if (!ts_exists("/usr/share/datasets/fashion-mnist/train-images-idx3-ubyte.gz")) {
    cr_skip_test("Fashion-MNIST is not installed (apt-get install dataset-fashion-mnist)");
  }
  tr_stores *stores = make_stores(NULL);
  tr_error e = {0};
  tr_dataset *dataset = NULL;
  EXPECT_OK(open_at(stores, "/usr/share/datasets/fashion-mnist/train", NULL, &dataset, &e));
  cr_assert_eq(tr_dataset_size(dataset), 60000);
  uint32_t crc = 0;
  int counts[10] = {0};
  for (uint64_t id = 0; id < 60000; id++) {
    uint8_t image[784], label;
    void *const to[] = {image, &label};
    EXPECT_OK(tr_dataset_read(dataset, id, to, &e));
    crc = tr_crc32c(crc, image, sizeof image);
    counts[label]++;
  }
  for (int i = 0; i < 10; i++) cr_assert_eq(counts[i], 6000);
  /* The CRC32C of the pixels as gunzip gives them. */
  cr_assert_eq(crc, 0x29f8d94au, "%08x", crc);
  tr_dataset_close(dataset);
  tr_stores_destroy(stores);
}
