/* Files of tokens: samples, what lies at a file's end, damage found by CRC, headers that are wrong. */
#include "dataloader/data.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

enum { HEADER = 1024 };

static void add_words(bytes *to, const uint32_t *words, size_t count) { bytes_add(to, words, 4 * count); }

/* Token i of file f: (1000 * f + 7 * i) % 50000. */
static uint32_t token_of(uint32_t file, uint32_t i) { return (1000 * file + 7 * i) % 50000; }

static bytes make_tokens(uint32_t file, uint32_t count, uint32_t width) {
  bytes b = {0};
  uint32_t header[256] = {width == 2 ? 20240520 : 20240801, width == 2 ? 1 : 7, count};
  add_words(&b, header, 256);
  uint8_t *tokens = malloc((size_t)count * width + 1);
  for (uint32_t i = 0; i < count; i++) {
    for (uint32_t j = 0; j < width; j++) tokens[i * width + j] = (uint8_t)(token_of(file, i) >> (8 * j));
  }
  bytes_add(&b, tokens, (size_t)count * width);
  free(tokens);
  return b;
}

static void put_tokens(tr_stores *stores, const char *url, uint32_t file, uint32_t count, uint32_t width) {
  bytes b = make_tokens(file, count, width);
  put_bytes(stores, url, b);
  bytes_free(&b);
}

static tr_status open_tokens(tr_stores *stores, const char *url, uint64_t length, const tr_field_source *fields,
                             size_t count, tr_dataset **out, tr_error *e) {
  const tr_dataset_options options = {.struct_bytes = sizeof options,
                                      .stores = stores,
                                      .urls = &url,
                                      .url_count = 1,
                                      .fields = fields,
                                      .field_count = count,
                                      .sequence_length = length};
  return tr_dataset_open(&options, out, e);
}

static void expect_sample(tr_dataset *dataset, uint64_t id, uint32_t file, uint32_t first, uint32_t length) {
  int32_t tokens[4096], targets[4096];
  void *const to[] = {tokens, targets};
  tr_error e = {0};
  EXPECT_OK(tr_dataset_read(dataset, id, to, &e));
  for (uint32_t i = 0; i < length; i++) {
    cr_assert_eq(tokens[i], (int32_t)token_of(file, first + i), "sample %d, token %u", (int)id, i);
    cr_assert_eq(targets[i], (int32_t)token_of(file, first + i + 1), "sample %d, target %u", (int)id, i);
  }
}

static void check_width(uint32_t width) {
  tr_stores *stores = make_stores(NULL);
  put_tokens(stores, "memory://d/a-0.bin", 0, 10001, width);
  put_tokens(stores, "memory://d/a-1.bin", 1, 10000, width);
  put_tokens(stores, "memory://d/a-2.bin", 2, 5, width);
  tr_error e = {0};
  tr_dataset *dataset = NULL;
  EXPECT_OK(open_tokens(stores, "memory://d/a-{0..2}.bin", 1000, NULL, 0, &dataset, &e));
  cr_assert_str_eq(tr_dataset_format(dataset), "tokens");
  const tr_field *fields;
  cr_assert_eq(tr_dataset_fields(dataset, &fields), 2);
  cr_assert_str_eq(fields[0].name, "tokens");
  cr_assert_str_eq(fields[1].name, "targets");
  cr_assert(fields[0].dtype == TR_I32 && fields[0].ndim == 1 && fields[0].shape[0] == 1000);
  /* The last target is the token behind the sequence: 10000 tokens hold nine such samples, not ten. */
  cr_assert_eq(tr_dataset_size(dataset), 19);
  for (uint32_t i = 0; i < 10; i++) expect_sample(dataset, i, 0, 1000 * i, 1000);
  for (uint32_t i = 0; i < 9; i++) expect_sample(dataset, 10 + i, 1, 1000 * i, 1000);
  char name[64];
  tr_dataset_sample_name(dataset, 12, name, sizeof name);
  cr_assert_str_eq(name, "a-1.bin: 2");
  tr_dataset_close(dataset);
  tr_stores_destroy(stores);
}

Test(tokens, of_16_bits_make_sequences_and_their_targets) { check_width(2); }
Test(tokens, of_32_bits_make_sequences_and_their_targets) { check_width(4); }

Test(tokens, sequences_of_any_length_use_one_index) {
  tr_stores *stores = make_stores(NULL);
  put_tokens(stores, "memory://d/b.bin", 0, 9000, 2);
  static const uint32_t lengths[] = {1, 2, 3, 511, 2048, 4096, 8999};
  tr_error e = {0};
  for (size_t l = 0; l < sizeof lengths / sizeof *lengths; l++) {
    tr_dataset *dataset = NULL;
    EXPECT_OK(open_tokens(stores, "memory://d/b.bin", lengths[l], NULL, 0, &dataset, &e));
    const uint64_t size = tr_dataset_size(dataset);
    cr_assert_eq(size, 8999 / lengths[l]);
    if (lengths[l] <= 4096) expect_sample(dataset, size - 1, 0, (uint32_t)(size - 1) * lengths[l], lengths[l]);
    tr_dataset_close(dataset);
  }
  tr_stores_destroy(stores);
}

Test(tokens, loaders_deliver_sequences_whose_blocks_overlap) {
  tr_stores *stores = make_stores(NULL);
  put_tokens(stores, "memory://d/o-0.bin", 0, 30001, 2);
  put_tokens(stores, "memory://d/o-1.bin", 1, 20001, 2);
  tr_error e = {0};
  tr_dataset *dataset = NULL;
  tr_device *device = make_cpu(NULL);
  tr_loader *loader = NULL;
  EXPECT_OK(open_tokens(stores, "memory://d/o-{0,1}.bin", 100, NULL, 0, &dataset, &e));
  const tr_loader_options options = {.struct_bytes = sizeof options,
                                     .device = device,
                                     .dataset = dataset,
                                     .shuffle = TR_SHUFFLE_FULL,
                                     .batch_size = 16,
                                     .micro_batch = 4,
                                     .size = 1,
                                     .epochs = 2,
                                     .prefetch_bytes = 1 << 20,
                                     .threads = 2};
  EXPECT_OK(tr_loader_open(&options, &loader, &e));
  uint64_t delivered = 0;
  for (;;) {
    tr_batch_info info;
    bool end;
    EXPECT_OK(tr_loader_begin(loader, &info, &end, &e));
    if (end) break;
    for (uint64_t leaf = info.leaf_begin; leaf < info.leaf_end; leaf++) {
      tr_micro_batch m;
      EXPECT_OK(tr_loader_next(loader, &m, NULL, &e));
      for (uint32_t row = 0; row < m.row_count; row++, delivered++) {
        const uint32_t file = m.ids[row] >= 300, first = 100 * ((uint32_t)m.ids[row] - 300 * file);
        const int32_t *tokens = (const int32_t *)m.fields[0] + 100 * row,
                      *targets = (const int32_t *)m.fields[1] + 100 * row;
        for (uint32_t i = 0; i < 100; i++) {
          cr_assert_eq(tokens[i], (int32_t)token_of(file, first + i));
          cr_assert_eq(targets[i], (int32_t)token_of(file, first + i + 1));
        }
      }
    }
    tr_loader_commit(loader);
  }
  cr_assert_eq(delivered, 1000);
  tr_loader_close(loader);
  tr_dataset_close(dataset);
  tr_device_close(device);
  tr_stores_destroy(stores);
}

Test(tokens, fields_have_the_names_that_the_job_gives) {
  tr_stores *stores = make_stores(NULL);
  put_tokens(stores, "memory://d/c.bin", 0, 100, 2);
  const tr_field_source fields[] = {{"y", "targets"}}, wrong[] = {{"y", "labels"}};
  int32_t y[10];
  void *const to[] = {y};
  tr_error e = {0};
  tr_dataset *dataset = NULL;
  EXPECT_OK(open_tokens(stores, "memory://d/c.bin", 10, fields, 1, &dataset, &e));
  EXPECT_OK(tr_dataset_read(dataset, 3, to, &e));
  for (uint32_t i = 0; i < 10; i++) cr_assert_eq(y[i], (int32_t)token_of(0, 31 + i));
  tr_dataset_close(dataset);
  EXPECT_FAIL(open_tokens(stores, "memory://d/c.bin", 10, wrong, 1, &dataset, &e), TR_ERR_CONFIG, "tokens and targets");
  tr_stores_destroy(stores);
}

static tr_status keep(void *self, const char *key, const tr_raw_value *values, size_t count, tr_error *error) {
  (void)error;
  cr_assert_str_eq(key, "2");
  cr_assert_eq(count, 1);
  cr_assert_str_eq(values[0].name, "tokens");
  cr_assert_eq(values[0].kind, TR_RAW_BYTES);
  bytes_add(self, values[0].data, values[0].bytes);
  return TR_OK;
}

Test(tokens, raw_samples_are_the_bytes_of_the_sequence_and_one_token) {
  tr_stores *stores = make_stores(NULL);
  bytes b = make_tokens(0, 5000, 2), raw = {0};
  put_bytes(stores, "memory://d/r.bin", b);
  tr_error e = {0};
  tr_dataset *dataset = NULL;
  EXPECT_OK(open_tokens(stores, "memory://d/r.bin", 1024, NULL, 0, &dataset, &e));
  EXPECT_OK(tr_dataset_raw(dataset, 2, keep, &raw, &e));
  cr_assert_eq(raw.count, 1025 * 2);
  cr_assert_eq(memcmp(raw.data, b.data + HEADER + 2 * 2048, raw.count), 0);
  tr_dataset_close(dataset);
  bytes_free(&raw);
  bytes_free(&b);
  tr_stores_destroy(stores);
}

/* Changes a byte of a file and nothing that its ETag is made of, as a bad disk would. */
static void damage(const char *path, size_t at, uint8_t with) {
  struct stat was;
  const int file = open(path, O_RDWR);
  cr_assert(file >= 0 && fstat(file, &was) == 0);
  cr_assert_eq(pwrite(file, &with, 1, (off_t)at), 1);
  const struct timespec times[] = {was.st_atim, was.st_mtim};
  cr_assert_eq(futimens(file, times), 0);
  close(file);
}

Test(tokens, a_flipped_bit_is_found_where_it_is_and_nowhere_else) {
  tr_stores *stores = make_stores(NULL);
  bytes b = make_tokens(0, 50001, 2);
  char *path = kept(ts_format("%s/f.bin", ts_folder()));
  ts_file_write(path, b.data, b.count);
  tr_error e = {0};
  tr_dataset *dataset = NULL;
  int32_t tokens[100], targets[100];
  void *const to[] = {tokens, targets};
  EXPECT_OK(open_tokens(stores, path, 100, NULL, 0, &dataset, &e));
  for (uint64_t i = 0; i < 20; i++) {
    const size_t at = HEADER + noise(i, 0) % (b.count - HEADER);
    const uint64_t hit = (at - HEADER) / 200 < 500 ? (at - HEADER) / 200 : 499;
    damage(path, at, b.data[at] ^ (uint8_t)(1u << noise(i, 1) % 8));
    EXPECT_FAIL(tr_dataset_read(dataset, hit, to, &e), TR_ERR_CORRUPT, "not those that were indexed");
    /* What is checked together is small: samples 64 KiB away are whole. */
    EXPECT_OK(tr_dataset_read(dataset, hit < 250 ? hit + 240 : hit - 240, to, &e));
    damage(path, at, b.data[at]);
    EXPECT_OK(tr_dataset_read(dataset, hit, to, &e));
  }
  tr_dataset_close(dataset);
  bytes_free(&b);
  tr_stores_destroy(stores);
}

Test(tokens, a_token_that_no_i32_holds_is_named) {
  tr_stores *stores = make_stores(NULL);
  bytes b = make_tokens(0, 100, 4);
  b.data[HEADER + 4 * 25 + 3] = 0x80;
  put_bytes(stores, "memory://d/n.bin", b);
  tr_error e = {0};
  tr_dataset *dataset = NULL;
  int32_t tokens[10], targets[10];
  void *const to[] = {tokens, targets};
  EXPECT_OK(open_tokens(stores, "memory://d/n.bin", 10, NULL, 0, &dataset, &e));
  EXPECT_OK(tr_dataset_read(dataset, 1, to, &e));
  EXPECT_FAIL(tr_dataset_read(dataset, 2, to, &e), TR_ERR_CORRUPT, "offset 1124");
  tr_dataset_close(dataset);
  bytes_free(&b);
  tr_stores_destroy(stores);
}

static void expect_refused(uint32_t word, uint32_t value, size_t cut, tr_status status, const char *says) {
  tr_stores *stores = make_stores(NULL);
  bytes b = make_tokens(0, 100, 2);
  if (word < 256) memcpy(b.data + 4 * word, &value, 4);
  put(stores, "memory://d/x.bin", b.data, b.count - cut);
  const char *url = "memory://d/x.bin";
  const tr_dataset_options options = {.struct_bytes = sizeof options,
                                      .stores = stores,
                                      .urls = &url,
                                      .url_count = 1,
                                      .format = "tokens",
                                      .sequence_length = 10};
  tr_error e = {0};
  tr_dataset *dataset = NULL;
  EXPECT_FAIL(tr_dataset_open(&options, &dataset, &e), status, says);
  bytes_free(&b);
  tr_stores_destroy(stores);
}

Test(tokens, files_that_are_not_what_they_say_are_refused) {
  expect_refused(0, 1234, 0, TR_ERR_CORRUPT, "1234 is not the magic number");
  expect_refused(1, 2, 0, TR_ERR_UNSUPPORTED, "version 2");
  expect_refused(2, 101, 0, TR_ERR_CORRUPT, "101 tokens of 2 bytes do not make a file of 1224 bytes");
  expect_refused(2, 99, 0, TR_ERR_CORRUPT, "99 tokens");
  expect_refused(2, 0x80000064u, 0, TR_ERR_CORRUPT, "tokens of 2 bytes");
  expect_refused(256, 0, 1, TR_ERR_CORRUPT, "do not make a file");
  expect_refused(256, 0, 201, TR_ERR_CORRUPT, "the header alone");
}

Test(tokens, a_length_is_needed_and_must_fit) {
  tr_stores *stores = make_stores(NULL);
  put_tokens(stores, "memory://d/l.bin", 0, 100, 2);
  tr_error e = {0};
  tr_dataset *dataset = NULL;
  EXPECT_FAIL(open_tokens(stores, "memory://d/l.bin", 0, NULL, 0, &dataset, &e), TR_ERR_CONFIG, "data.sequence-length");
  EXPECT_FAIL(open_tokens(stores, "memory://d/l.bin", 100, NULL, 0, &dataset, &e), TR_ERR_CONFIG,
              "the longest has 100");
  EXPECT_FAIL(open_tokens(stores, "memory://d/l.bin", UINT64_MAX, NULL, 0, &dataset, &e), TR_ERR_CORRUPT, "1 GiB");
  tr_stores_destroy(stores);
}
