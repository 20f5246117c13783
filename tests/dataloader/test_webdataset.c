/* WebDataset: samples out of tar files, by whatever index; hostile ones refused with shard, sample and offset. */
#include "dataloader/data.h"

#include <stdio.h>

#include "support/fault_store.h"

static tr_status open_with(tr_stores *stores, const char *url, const tr_field_source *fields, size_t count,
                           const char *index_folder, tr_log *log, tr_dataset **out, tr_error *error) {
  const tr_dataset_options options = {.struct_bytes = sizeof options,
                                      .stores = stores,
                                      .log = log,
                                      .urls = &url,
                                      .url_count = 1,
                                      .fields = fields,
                                      .field_count = count,
                                      .index_folder = index_folder};
  return tr_dataset_open(&options, out, error);
}

static tr_status open_plain(tr_stores *stores, const char *url, tr_dataset **out, tr_error *error) {
  return open_with(stores, url, NULL, 0, NULL, NULL, out, error);
}

static void add_numbered(bytes *tar, int number) {
  char name[64], text[64];
  uint8_t raw[16];
  for (int i = 0; i < 16; i++) raw[i] = (uint8_t)(number * 3 + i);
  snprintf(name, sizeof name, "train/%06d.bin", number);
  tar_add(tar, name, raw, sizeof raw);
  snprintf(name, sizeof name, "train/%06d.CLS", number);
  snprintf(text, sizeof text, " %d\n", number % 10);
  tar_add_text(tar, name, text);
  snprintf(name, sizeof name, "train/%06d.json", number);
  snprintf(text, sizeof text, "{\"box\": [%d, 2.5, -1e3], \"deep\": [{\"n\": %d}]}", number, number);
  tar_add_text(tar, name, text);
}

static void expect_numbered(tr_dataset *dataset, uint64_t first, uint64_t count) {
  tr_error e = {0};
  uint8_t raw[16];
  int32_t label;
  float box[3], deep;
  void *const to[] = {raw, &label, box, &deep};
  cr_assert_eq(tr_dataset_size(dataset), count);
  for (uint64_t id = 0; id < count; id++) {
    const uint64_t number = first + id;
    EXPECT_OK(tr_dataset_read(dataset, id, to, &e));
    for (uint64_t i = 0; i < 16; i++) cr_assert_eq(raw[i], (uint8_t)(number * 3 + i));
    cr_assert_eq(label, (int32_t)(number % 10));
    cr_assert_eq(box[0], (float)number);
    cr_assert_eq(box[1], 2.5f);
    cr_assert_eq(box[2], -1000.0f);
    cr_assert_eq(deep, (float)number);
  }
}

static const tr_field_source numbered_fields[] = {
    {"raw", "bin"}, {"label", "cls"}, {"box", "json.box"}, {"deep", "json.deep.0.n"}};

static void put_numbered_shards(tr_stores *stores, int shards, int samples) {
  for (int s = 0; s < shards; s++) {
    bytes tar = {0};
    for (int i = 0; i < samples; i++) add_numbered(&tar, s * samples + i);
    tar_end(&tar);
    char *url = ts_format("memory://d/s-%03d.tar", s);
    put_bytes(stores, url, tar);
    free(url);
    bytes_free(&tar);
  }
}

Test(webdataset, reads_samples_of_several_files_over_several_shards) {
  tr_stores *stores = make_stores(NULL);
  put_numbered_shards(stores, 3, 7);
  tr_error e = {0};
  tr_dataset *dataset = NULL;
  EXPECT_OK(open_with(stores, "memory://d/s-{000..002}.tar", numbered_fields, 4, NULL, NULL, &dataset, &e));
  cr_assert_str_eq(tr_dataset_format(dataset), "webdataset");
  const tr_field *fields;
  cr_assert_eq(tr_dataset_fields(dataset, &fields), 4);
  cr_assert(fields[0].dtype == TR_U8 && fields[0].ndim == 1 && fields[0].shape[0] == 16);
  cr_assert(fields[1].dtype == TR_I32 && fields[1].ndim == 0 && fields[1].bytes == 4);
  cr_assert(fields[2].dtype == TR_F32 && fields[2].ndim == 1 && fields[2].shape[0] == 3);
  cr_assert(fields[3].dtype == TR_F32 && fields[3].ndim == 0);
  expect_numbered(dataset, 0, 21);
  char name[64];
  tr_dataset_sample_name(dataset, 8, name, sizeof name);
  cr_assert_str_eq(name, "s-001.tar: train/000008");
  tr_dataset_close(dataset);
  tr_stores_destroy(stores);
}

Test(webdataset, fields_are_those_of_the_first_sample_unless_named) {
  tr_stores *stores = make_stores(NULL);
  put_numbered_shards(stores, 1, 2);
  tr_error e = {0};
  tr_dataset *dataset = NULL;
  EXPECT_OK(open_plain(stores, "memory://d/s-000.tar", &dataset, &e));
  const tr_field *fields;
  cr_assert_eq(tr_dataset_fields(dataset, &fields), 2);
  cr_assert_str_eq(fields[0].name, "bin");
  cr_assert_str_eq(fields[1].name, "cls");
  tr_dataset_close(dataset);
  const tr_field_source text[] = {{"caption", "txt"}}, absent[] = {{"image", "png"}}, whole[] = {{"j", "json"}};
  EXPECT_FAIL(open_with(stores, "memory://d/s-000.tar", text, 1, NULL, NULL, &dataset, &e), TR_ERR_CONFIG,
              "members .txt cannot be made into a batch");
  EXPECT_FAIL(open_with(stores, "memory://d/s-000.tar", whole, 1, NULL, NULL, &dataset, &e), TR_ERR_CONFIG,
              "json.PATH");
  EXPECT_FAIL(open_with(stores, "memory://d/s-000.tar", absent, 1, NULL, NULL, &dataset, &e), TR_ERR_CORRUPT,
              "sample 'train/000000' has no member .png");
  tr_stores_destroy(stores);
}

/* ---- Names and kinds of members ---------------------------------------------------------------------------------- */

Test(webdataset, knows_the_rule_of_names) {
  tr_stores *stores = make_stores(NULL);
  bytes tar = {0};
  tar_add_typed(&tar, '5', "dir.x/", NULL, 0, 0);
  tar_add_text(&tar, "__meta__/info.cls", "9");
  tar_add_text(&tar, "__key__", "x");
  tar_add_text(&tar, "README", "no dot, no sample");
  tar_add_text(&tar, "dir.x/._0.cls", "9");
  tar_add_text(&tar, "dir.x/0.seg.cls", "1");
  tar_add_text(&tar, "dir.x/0.cls", "2");
  tar_add_typed(&tar, '2', "dir.x/link.cls", NULL, 0, 77); /* a link's size means nothing */
  tar_add_typed(&tar, 'g', "global", "19 comment=nothing\n", 19, 19);
  tar_add_text(&tar, "./1.cls", "3");
  tar_add_text(&tar, "./1.seg.cls", "4");
  tar_add_text(&tar, "../../etc/2.cls", "5");
  tar_add_text(&tar, "../../etc/2.seg.cls", "6");
  tar_end(&tar);
  put_bytes(stores, "memory://d/n.tar", tar);
  tr_error e = {0};
  tr_dataset *dataset = NULL;
  EXPECT_OK(open_plain(stores, "memory://d/n.tar", &dataset, &e));
  cr_assert_eq(tr_dataset_size(dataset), 3);
  const tr_field *fields;
  cr_assert_eq(tr_dataset_fields(dataset, &fields), 2);
  cr_assert_str_eq(fields[0].name, "seg.cls");
  for (uint64_t id = 0; id < 3; id++) {
    int32_t seg, cls;
    void *const to[] = {&seg, &cls};
    EXPECT_OK(tr_dataset_read(dataset, id, to, &e));
    cr_assert_eq(seg, id == 0 ? 1 : (int)id * 2 + 2);
    cr_assert_eq(cls, id == 0 ? 2 : (int)id * 2 + 1);
  }
  tr_dataset_close(dataset);
  bytes_free(&tar);
  tr_stores_destroy(stores);
}

static void expect_refused(bytes tar, tr_status status, const char *text) {
  tr_stores *stores = make_stores(NULL);
  put_bytes(stores, "memory://d/bad.tar", tar);
  tr_error e = {0};
  tr_dataset *dataset = NULL;
  EXPECT_FAIL(open_plain(stores, "memory://d/bad.tar", &dataset, &e), status, text);
  cr_assert_not_null(strstr(e.message, "bad.tar"), "%s", e.message);
  tr_stores_destroy(stores);
  bytes_free(&tar);
}

Test(webdataset, says_what_is_wrong_and_where) {
  bytes tar = {0};
  tar_add_text(&tar, "a.cls", "1");
  tar_add_text(&tar, "a.CLS", "1");
  tar_end(&tar);
  expect_refused(tar, TR_ERR_CORRUPT, "sample 'a' has a second member .cls");

  tar = (bytes){0};
  tar_add_text(&tar, "a.cls", "1");
  expect_refused(tar, TR_ERR_CORRUPT, "offset 1024: truncated");

  tar = (bytes){0};
  tar_add_text(&tar, "a.cls", "1");
  tar_add_typed(&tar, '0', "b.cls", "1", 1, 0777777777);
  tar_end(&tar);
  expect_refused(tar, TR_ERR_CORRUPT, "offset 1024: truncated: a member reaches past the end");

  tar = (bytes){0};
  tar_add_text(&tar, "a.cls", "1");
  tar.data[3] ^= 1;
  tar_end(&tar);
  expect_refused(tar, TR_ERR_CORRUPT, "offset 0: not a tar header");

  tar = (bytes){0};
  tar_add_text(&tar, "a.cls", "1");
  tar_end(&tar);
  tar_add_text(&tar, "b.cls", "1");
  tar_end(&tar);
  expect_refused(tar, TR_ERR_CORRUPT, "data follows the end of the archive");

  tar = (bytes){0};
  tar_add_typed(&tar, 'S', "a.cls", "1", 1, 1);
  tar_end(&tar);
  expect_refused(tar, TR_ERR_CORRUPT, "sparse");

  tar = (bytes){0};
  tar_add_typed(&tar, 'x', "pax", "99 path=a.cls\n", 14, 14);
  tar_add_text(&tar, "b.cls", "1");
  tar_end(&tar);
  expect_refused(tar, TR_ERR_CORRUPT, "broken pax header");

  tar = (bytes){0};
  tar_add_typed(&tar, 'x', "pax", "30 size=99999999999999999999\n", 29, 29);
  tar_add_text(&tar, "b.cls", "1");
  tar_end(&tar);
  expect_refused(tar, TR_ERR_CORRUPT, "broken");

  tar = (bytes){0};
  tar_add_text(&tar, "a.cls", "1");
  for (int i = 0; i < 1000; i++) tar_add(&tar, "noise.bin", &(uint64_t){noise(1, (uint64_t)i)}, 8);
  bytes zipped = make_gzip(tar.data, tar.count);
  bytes_free(&tar);
  expect_refused(zipped, TR_ERR_UNSUPPORTED, "compressed tar is not read");

  tar = (bytes){0};
  tar_end(&tar);
  expect_refused(tar, TR_ERR_CORRUPT, "holds no samples");
}

Test(webdataset, a_sample_of_another_shape_is_named) {
  tr_stores *stores = make_stores(NULL);
  bytes tar = {0};
  tar_add(&tar, "a.bin", "1234", 4);
  tar_add_text(&tar, "a.cls", "12");
  tar_add(&tar, "b.bin", "12345", 5);
  tar_add_text(&tar, "b.cls", "7");
  tar_add(&tar, "c.bin", "1234", 4);
  tar_add_text(&tar, "c.cls", "seven");
  tar_add(&tar, "d.bin", "1234", 4);
  tar_add(&tar, "e.bin", "1234", 4);
  tar_add_text(&tar, "e.cls", "2147483648");
  tar_end(&tar);
  put_bytes(stores, "memory://d/x.tar", tar);
  tr_error e = {0};
  tr_dataset *dataset = NULL;
  EXPECT_OK(open_plain(stores, "memory://d/x.tar", &dataset, &e));
  uint8_t raw[4];
  int32_t label;
  void *const to[] = {raw, &label};
  EXPECT_OK(tr_dataset_read(dataset, 0, to, &e));
  EXPECT_FAIL(tr_dataset_read(dataset, 1, to, &e), TR_ERR_CORRUPT,
              "it is u8 [5], the first sample of the data set is u8 [4]");
  cr_assert_not_null(strstr(e.message, "x.tar: offset 2560: sample 'b', field 'bin'"), "%s", e.message);
  EXPECT_FAIL(tr_dataset_read(dataset, 2, to, &e), TR_ERR_CORRUPT, "not an integer");
  EXPECT_FAIL(tr_dataset_read(dataset, 3, to, &e), TR_ERR_CORRUPT, "sample 'd' has no member .cls");
  EXPECT_FAIL(tr_dataset_read(dataset, 4, to, &e), TR_ERR_CORRUPT, "not an integer");
  tr_dataset_close(dataset);
  bytes_free(&tar);
  tr_stores_destroy(stores);
}

/* ---- Tars of other programs -------------------------------------------------------------------------------------- */

/* Names long enough that ustar needs its prefix, GNU its 'L' and pax its path. */
static void write_tree(const char *folder, const char *long_name) {
  for (int i = 0; i < 3; i++) {
    const char *path = kept(ts_format("%s/%s", folder, long_name));
    cr_assert_eq(run_program((const char *[]){"mkdir", "-p", path, NULL}), 0);
    ts_file_write(kept(ts_format("%s/%d.cls", path, i)), i == 0 ? "10" : i == 1 ? "11" : "12", 2);
    ts_file_write(kept(ts_format("%s/%d.bin", path, i)), "abcd", 4);
  }
}

static void expect_three(const char *tar) {
  tr_stores *stores = make_stores(NULL);
  tr_error e = {0};
  tr_dataset *dataset = NULL;
  const tr_field_source fields[] = {{"label", "cls"}, {"raw", "bin"}};
  EXPECT_OK(open_with(stores, tar, fields, 2, NULL, NULL, &dataset, &e));
  cr_assert_eq(tr_dataset_size(dataset), 3);
  for (uint64_t id = 0; id < 3; id++) {
    int32_t label;
    uint8_t raw[4];
    void *const to[] = {&label, raw};
    EXPECT_OK(tr_dataset_read(dataset, id, to, &e));
    cr_assert_eq(label, (int32_t)id + 10);
    cr_assert_eq(memcmp(raw, "abcd", 4), 0);
  }
  tr_dataset_close(dataset);
  tr_stores_destroy(stores);
}

Test(webdataset, reads_what_gnu_tar_writes) {
  static const char *const formats[] = {"gnu", "pax", "ustar", "v7", "oldgnu", "posix"};
  const char *folder = ts_folder();
  char name[200] = "";
  for (int i = 0; i < 12; i++) snprintf(name + strlen(name), sizeof name - strlen(name), "part%04d/", i);
  for (size_t f = 0; f < sizeof formats / sizeof *formats; f++) {
    /* v7 has 99 bytes for a name, ustar 255. */
    const bool is_long = strcmp(formats[f], "v7") != 0;
    const char *tree = kept(ts_format("%s/%s", folder, formats[f]));
    const char *tar = kept(ts_format("%s/%s.tar", folder, formats[f]));
    const char *format = kept(ts_format("--format=%s", formats[f]));
    write_tree(tree, is_long ? name : "short");
    cr_assert_eq(run_program((const char *[]){"tar", "--sort=name", "-C", tree, format, "-cf", tar, ".", NULL}), 0);
    expect_three(tar);
  }
}

Test(webdataset, reads_what_pythons_tarfile_writes) {
  if (run_program((const char *[]){"python3", "-c", "pass", NULL}) != 0) cr_skip_test("python3 is not installed");
  static const char *const formats[] = {"GNU_FORMAT", "PAX_FORMAT", "USTAR_FORMAT"};
  const char *folder = ts_folder();
  for (size_t f = 0; f < 3; f++) {
    const char *tar = kept(ts_format("%s/%s.tar", folder, formats[f]));
    const char *script = kept(ts_format(
        "import tarfile, io\n"
        "t = tarfile.open('%s', 'w', format=tarfile.%s)\n"
        "for i in range(3):\n"
        "  for suffix, data in (('cls', str(10 + i).encode()), ('bin', b'abcd')):\n"
        "    m = tarfile.TarInfo('%s' + '/%%d.%%s' %% (i, suffix)); m.size = len(data); t.addfile(m, "
        "io.BytesIO(data))\n"
        "t.close()\n",
        tar, formats[f],
        f == 2 ? "ustar"
               : "\xC3\xA4 long/name/that/goes/on/and/on/and/on/and/on/and/on/and/on/and/on/and/on/and/on/and/on/so"));
    cr_assert_eq(run_program((const char *[]){"python3", "-c", script, NULL}), 0);
    expect_three(tar);
  }
}

Test(webdataset, reads_sizes_in_base_256) {
  tr_stores *stores = make_stores(NULL);
  bytes tar = {0};
  tar_add(&tar, "a.bin", "1234", 4);
  static const uint8_t size[12] = {0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 4};
  memcpy(tar.data + 124, size, 12);
  memset(tar.data + 148, ' ', 8);
  unsigned sum = 0;
  for (int i = 0; i < 512; i++) sum += tar.data[i];
  snprintf((char *)tar.data + 148, 8, "%06o", sum);
  tar_end(&tar);
  put_bytes(stores, "memory://d/b.tar", tar);
  tr_error e = {0};
  tr_dataset *dataset = NULL;
  EXPECT_OK(open_plain(stores, "memory://d/b.tar", &dataset, &e));
  uint8_t raw[4];
  void *const to[] = {raw};
  EXPECT_OK(tr_dataset_read(dataset, 0, to, &e));
  cr_assert_eq(memcmp(raw, "1234", 4), 0);
  tr_dataset_close(dataset);
  bytes_free(&tar);
  tr_stores_destroy(stores);
}

Test(webdataset, is_known_by_its_magic_number_too) {
  tr_stores *stores = make_stores(NULL);
  bytes tar = {0};
  add_numbered(&tar, 4);
  tar_end(&tar);
  put_bytes(stores, "memory://d/shard", tar);
  put(stores, "memory://d/other", "hello", 5);
  tr_error e = {0};
  tr_dataset *dataset = NULL;
  EXPECT_OK(open_with(stores, "memory://d/shard", numbered_fields, 4, NULL, NULL, &dataset, &e));
  expect_numbered(dataset, 4, 1);
  tr_dataset_close(dataset);
  EXPECT_FAIL(open_plain(stores, "memory://d/other", &dataset, &e), TR_ERR_CONFIG, "set data.format");
  bytes_free(&tar);
  tr_stores_destroy(stores);
}

/* ---- Images and arrays ------------------------------------------------------------------------------------------- */

static void gradient(uint8_t *pixels, uint32_t height, uint32_t width, uint32_t channels) {
  for (uint32_t y = 0; y < height; y++)
    for (uint32_t x = 0; x < width; x++)
      for (uint32_t c = 0; c < channels; c++)
        pixels[(y * width + x) * channels + c] = (uint8_t)(y * 8 + x * 4 + c * 40);
}

Test(webdataset, decodes_png_exactly_and_jpeg_closely) {
  static const struct { uint32_t height, width, channels; } cases[] = {{28, 28, 1}, {17, 31, 3}, {1, 1, 3}, {5, 64, 1}};
  for (size_t i = 0; i < 4; i++) {
    const uint32_t h = cases[i].height, w = cases[i].width, c = cases[i].channels;
    tr_stores *stores = make_stores(NULL);
    uint8_t pixels[4096], png[4096], jpeg[4096];
    gradient(pixels, h, w, c);
    bytes p = make_png(h, w, c, pixels), j = make_jpeg(h, w, c, pixels), tar = {0};
    tar_add(&tar, "0.png", p.data, p.count);
    tar_add(&tar, "0.jpg", j.data, j.count);
    tar_end(&tar);
    put_bytes(stores, "memory://d/i.tar", tar);
    tr_error e = {0};
    tr_dataset *dataset = NULL;
    EXPECT_OK(open_plain(stores, "memory://d/i.tar", &dataset, &e));
    const tr_field *fields;
    cr_assert_eq(tr_dataset_fields(dataset, &fields), 2);
    for (int f = 0; f < 2; f++) {
      cr_assert_eq(fields[f].ndim, 3);
      cr_assert(fields[f].shape[0] == h && fields[f].shape[1] == w && fields[f].shape[2] == c);
    }
    void *const to[] = {png, jpeg};
    EXPECT_OK(tr_dataset_read(dataset, 0, to, &e));
    cr_assert_eq(memcmp(png, pixels, h * w * c), 0);
    long difference = 0;
    for (uint32_t k = 0; k < h * w * c; k++) difference += labs((long)jpeg[k] - (long)pixels[k]);
    cr_assert_lt(difference, (long)(h * w * c * 8));
    tr_dataset_close(dataset);
    bytes_free(&p);
    bytes_free(&j);
    bytes_free(&tar);
    tr_stores_destroy(stores);
  }
}

Test(webdataset, drops_the_alpha_of_a_png) {
  tr_stores *stores = make_stores(NULL);
  uint8_t pixels[6 * 5 * 4], out[6 * 5 * 3];
  gradient(pixels, 6, 5, 4);
  bytes p = make_png(6, 5, 4, pixels), tar = {0};
  tar_add(&tar, "0.png", p.data, p.count);
  tar_end(&tar);
  put_bytes(stores, "memory://d/i.tar", tar);
  tr_error e = {0};
  tr_dataset *dataset = NULL;
  EXPECT_OK(open_plain(stores, "memory://d/i.tar", &dataset, &e));
  void *const to[] = {out};
  EXPECT_OK(tr_dataset_read(dataset, 0, to, &e));
  for (int i = 0; i < 30; i++) cr_assert_eq(memcmp(out + i * 3, pixels + i * 4, 3), 0);
  tr_dataset_close(dataset);
  bytes_free(&p);
  bytes_free(&tar);
  tr_stores_destroy(stores);
}

static bytes make_npy(const char *dict, const void *data, size_t count) {
  bytes b = {0};
  const uint16_t length = 118;
  char header[118];
  memset(header, ' ', sizeof header);
  memcpy(header, dict, strlen(dict));
  header[117] = '\n';
  bytes_add(&b, "\x93NUMPY\1\0", 8);
  const uint8_t size[] = {(uint8_t)length, 0};
  bytes_add(&b, size, 2);
  bytes_add(&b, header, sizeof header);
  bytes_add(&b, data, count);
  return b;
}

Test(webdataset, reads_numpy_arrays) {
  const float values[] = {1, 2, 3, 4, 5, 6};
  static const struct {
    const char *dict;
    tr_status status;
    const char *text;
  } cases[] = {
      {"{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }", TR_OK, ""},
      {"{'descr': '<f4', 'fortran_order': True, 'shape': (2, 3), }", TR_ERR_UNSUPPORTED, "Fortran"},
      {"{'descr': '>f4', 'fortran_order': False, 'shape': (2, 3), }", TR_ERR_UNSUPPORTED, "type '>f4'"},
      {"{'descr': '|O', 'fortran_order': False, 'shape': (2, 3), }", TR_ERR_UNSUPPORTED, "type '|O'"},
      {"{'descr': '<f4', 'fortran_order': False, 'shape': (2, 4), }", TR_ERR_CORRUPT, "24 bytes of data"},
      {"{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3) ", TR_ERR_CORRUPT, "header"},
      {"__import__('os').system('true')", TR_ERR_CORRUPT, "header"},
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    tr_stores *stores = make_stores(NULL);
    bytes npy = make_npy(cases[i].dict, values, sizeof values), tar = {0};
    tar_add(&tar, "0.npy", npy.data, npy.count);
    tar_end(&tar);
    put_bytes(stores, "memory://d/n.tar", tar);
    tr_error e = {0};
    tr_dataset *dataset = NULL;
    const tr_status status = open_plain(stores, "memory://d/n.tar", &dataset, &e);
    cr_assert_eq(status, cases[i].status, "%s: %s", cases[i].dict, e.message);
    if (status == TR_OK) {
      const tr_field *fields;
      cr_assert_eq(tr_dataset_fields(dataset, &fields), 1);
      cr_assert(fields[0].dtype == TR_F32 && fields[0].ndim == 2 && fields[0].shape[1] == 3);
      float out[6];
      void *const to[] = {out};
      EXPECT_OK(tr_dataset_read(dataset, 0, to, &e));
      cr_assert_eq(memcmp(out, values, sizeof values), 0);
      tr_dataset_close(dataset);
    } else {
      cr_assert_not_null(strstr(e.message, cases[i].text), "%s", e.message);
    }
    bytes_free(&npy);
    bytes_free(&tar);
    tr_stores_destroy(stores);
  }
}

/* ---- Indexes ----------------------------------------------------------------------------------------------------- */

typedef struct lines {
  char text[8192];
  size_t used;
} lines;

static void keep_line(void *self, tr_log_level level, const char *line, size_t count) {
  lines *l = self;
  (void)level;
  if (l->used + count < sizeof l->text) memcpy(l->text + l->used, line, count), l->used += count;
  l->text[l->used] = '\0';
}

static tr_log *make_log(lines *l) {
  const tr_log_options options = {
      .struct_bytes = sizeof options, .level = TR_LOG_INFO, .rank = -1, .write = keep_line, .write_self = l};
  tr_log *log = NULL;
  tr_error e = {0};
  EXPECT_OK(tr_log_create(&options, &log, &e));
  return log;
}

/* What wds2idx would write for put_numbered_shards(1, n): a header, then three members a sample. */
static char *idx_text(int samples, int wrong_offset) {
  char *text = ts_format("v1.2 %d\n", samples);
  int offset = 512;
  for (int i = 0; i < samples; i++) {
    const size_t json = (size_t)snprintf(NULL, 0, "{\"box\": [%d, 2.5, -1e3], \"deep\": [{\"n\": %d}]}", i, i);
    char *more = ts_format("%sbin %d 16 train/%06d.bin cls %d 3 train/%06d.CLS json %d %zu train/%06d.json\n", text,
                           offset, i, offset + 1024 + wrong_offset, i, offset + 2048, json, i);
    free(text);
    text = more;
    offset += 3072;
  }
  return text;
}

Test(webdataset, uses_the_index_that_dali_put_beside_the_shard) {
  lines said = {0};
  tr_log *log = make_log(&said);
  tr_stores *stores = make_stores(NULL);
  put_numbered_shards(stores, 1, 5);
  char *idx = idx_text(5, 0);
  put(stores, "memory://d/s-000.idx", idx, strlen(idx));
  tr_error e = {0};
  tr_dataset *dataset = NULL;
  EXPECT_OK(open_with(stores, "memory://d/s-000.tar", numbered_fields, 4, NULL, log, &dataset, &e));
  expect_numbered(dataset, 0, 5);
  cr_assert_str_eq(said.text, "");
  tr_dataset_close(dataset);
  free(idx);
  /* Ones that are of another tar, or none at all, are not believed. */
  char *const wrong[] = {idx_text(4, 0),
                         idx_text(5, 7),
                         idx_text(5, 512),
                         ts_format("v1.1 5\n"),
                         ts_format("v1.2 5\n"),
                         ts_format("v1.2 1\nbin 512 16"),
                         ts_format("v1.2 1\nbin 512 99999999 train/000000.bin\n")};
  for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
    said.used = 0;
    put(stores, "memory://d/s-000.idx", wrong[i], strlen(wrong[i]));
    cr_assert_eq(forget_indexes(stores, "memory://d/x"), 1);
    EXPECT_OK(open_with(stores, "memory://d/s-000.tar", numbered_fields, 4, NULL, log, &dataset, &e));
    expect_numbered(dataset, 0, 5);
    cr_assert_not_null(strstr(said.text, "is not of this file"), "case %zu: %s", i, said.text);
    tr_dataset_close(dataset);
    free(wrong[i]);
  }
  tr_log_destroy(log);
  tr_stores_destroy(stores);
}

static tr_status find_index(void *self, const tr_list_entry *entry, tr_error *error) {
  (void)error;
  snprintf(self, TR_KEY_BYTES, "%s", entry->key);
  return TR_OK;
}

Test(webdataset, keeps_its_index_and_builds_it_again_where_it_is_damaged_or_stale) {
  lines said = {0};
  tr_log *log = make_log(&said);
  tr_stores *stores = make_stores(NULL);
  put_numbered_shards(stores, 2, 5);
  tr_error e = {0};
  tr_dataset *dataset = NULL;
  const char *url = "memory://d/s-{000..001}.tar", *folder = "memory://i/cache";
  EXPECT_OK(open_with(stores, url, numbered_fields, 4, folder, log, &dataset, &e));
  tr_dataset_close(dataset);
  tr_store *store;
  char key[TR_KEY_BYTES], name[TR_KEY_BYTES] = "";
  EXPECT_OK(tr_stores_resolve(stores, "memory://i/cache", &store, key, &e));
  EXPECT_OK(tr_store_walk(store, "", find_index, name, &e));
  cr_assert_not_null(strstr(name, ".tridx"));
  void *good;
  size_t count;
  EXPECT_OK(tr_store_get_all(store, NULL, name, 1 << 20, &good, &count, &e));
  /* It is what is used: without the tars' headers the samples are still found. */
  said.used = 0;
  cr_assert_eq(forget_indexes(stores, "memory://d/x"), 1, "it stands beside the data too");
  EXPECT_OK(open_with(stores, url, numbered_fields, 4, folder, log, &dataset, &e));
  expect_numbered(dataset, 0, 10);
  cr_assert_eq(said.used, 0, "%s", said.text);
  tr_dataset_close(dataset);
  for (size_t at = 0; at < count; at += 1 + count / 97) {
    uint8_t *bad = malloc(count);
    memcpy(bad, good, count);
    bad[at] ^= 0x10;
    said.used = 0;
    EXPECT_OK(tr_store_put(store, name, bad, at % 2 ? at : count, false, &e));
    forget_indexes(stores, "memory://d/x");
    EXPECT_OK(open_with(stores, url, numbered_fields, 4, folder, log, &dataset, &e));
    expect_numbered(dataset, 0, 10);
    cr_assert_not_null(strstr(said.text, "built again"), "byte %zu", at);
    tr_dataset_close(dataset);
    free(bad);
  }
  /* Another tar of the same name is another key. */
  bytes tar = {0};
  for (int i = 0; i < 3; i++) add_numbered(&tar, i);
  tar_end(&tar);
  put_bytes(stores, "memory://d/s-000.tar", tar);
  EXPECT_OK(open_with(stores, "memory://d/s-000.tar", numbered_fields, 4, folder, log, &dataset, &e));
  expect_numbered(dataset, 0, 3);
  tr_dataset_close(dataset);
  bytes_free(&tar);
  tr_free(NULL, good);
  tr_log_destroy(log);
  tr_stores_destroy(stores);
}

/* ---- Mutations --------------------------------------------------------------------------------------------------- */

/* Flips and cuts of a tar of PNGs: an error, or the right pixels, for PNG has checksums; labels may be other labels. */
Test(webdataset, mutated_tars_give_an_error_or_the_right_pixels) {
  tr_stores *stores = make_stores(NULL);
  uint8_t pixels[3][48];
  bytes good = {0};
  for (int i = 0; i < 3; i++) {
    gradient(pixels[i], 4, 4, 3);
    pixels[i][0] = (uint8_t)i;
    bytes p = make_png(4, 4, 3, pixels[i]);
    char name[16];
    snprintf(name, sizeof name, "%d.png", i);
    tar_add(&good, name, p.data, p.count);
    snprintf(name, sizeof name, "%d.cls", i);
    tar_add_text(&good, name, "3");
    bytes_free(&p);
  }
  tar_end(&good);
  const tr_field_source fields[] = {{"image", "png"}, {"label", "cls"}};
  const uint64_t rounds = ts_long() ? 20000 : 2000;
  int opened = 0;
  for (uint64_t i = 0; i < rounds; i++) {
    bytes b = {0};
    bytes_add(&b, good.data, good.count);
    const uint64_t where = noise(i, 11) % (good.count * 8);
    if (i % 8 == 7) {
      b.count = where / 8;
    } else {
      b.data[where / 8] ^= (uint8_t)(1u << (where % 8));
    }
    put_bytes(stores, "memory://d/m.tar", b);
    tr_error e = {0};
    tr_dataset *dataset = NULL;
    if (open_with(stores, "memory://d/m.tar", fields, 2, NULL, NULL, &dataset, &e) == TR_OK) {
      opened++;
      for (uint64_t id = 0; id < tr_dataset_size(dataset); id++) {
        uint8_t image[48];
        int32_t label;
        void *const to[] = {image, &label};
        if (tr_dataset_read(dataset, id, to, &e) != TR_OK) continue;
        bool right = false;
        for (int k = 0; k < 3; k++) right |= memcmp(image, pixels[k], 48) == 0;
        cr_assert(right, "bit %llu gave other pixels", (unsigned long long)where);
      }
      tr_dataset_close(dataset);
    }
    bytes_free(&b);
  }
  cr_assert(opened > (int)rounds / 10 && opened < (int)rounds, "%d", opened);
  bytes_free(&good);
  tr_stores_destroy(stores);
}

/* JPEG, JSON and NPY have no checksums: whatever comes, no crash and nothing written beyond the field. */
Test(webdataset, mutated_members_never_write_beyond_their_field) {
  tr_stores *stores = make_stores(NULL);
  uint8_t pixels[12 * 9 * 3];
  gradient(pixels, 12, 9, 3);
  bytes jpeg = make_jpeg(12, 9, 3, pixels);
  const float values[] = {1, 2, 3};
  bytes npy = make_npy("{'descr': '<f4', 'fortran_order': False, 'shape': (3,), }", values, sizeof values);
  const char *json = "{\"a\": [1, 2, {\"b\": [3.5, 4e1]}]}";
  const tr_field_source fields[] = {{"image", "jpg"}, {"array", "npy"}, {"numbers", "json.a.2.b"}};
  const uint64_t rounds = ts_long() ? 20000 : 2000;
  for (uint64_t i = 0; i < rounds; i++) {
    bytes tar = {0};
    for (int sample = 0; sample < 2; sample++) {
      bytes parts[3] = {{0}};
      bytes_add(&parts[0], jpeg.data, jpeg.count);
      bytes_add(&parts[1], npy.data, npy.count);
      bytes_add(&parts[2], json, strlen(json));
      bytes *target = &parts[i % 3];
      for (uint64_t flips = 0; sample == 1 && flips <= i % 5; flips++) {
        const uint64_t where = noise(i, flips) % (target->count * 8);
        target->data[where / 8] ^= (uint8_t)(1u << (where % 8));
      }
      if (sample == 1 && i % 7 == 0) target->count = noise(i, 99) % target->count;
      const char *const names[2][3] = {{"0.jpg", "0.npy", "0.json"}, {"1.jpg", "1.npy", "1.json"}};
      for (int k = 0; k < 3; k++) {
        tar_add(&tar, names[sample][k], parts[k].data, parts[k].count);
        bytes_free(&parts[k]);
      }
    }
    tar_end(&tar);
    put_bytes(stores, "memory://d/m.tar", tar);
    tr_error e = {0};
    tr_dataset *dataset = NULL;
    EXPECT_OK(open_with(stores, "memory://d/m.tar", fields, 3, NULL, NULL, &dataset, &e));
    uint8_t *image = malloc(sizeof pixels);
    float *array = malloc(sizeof values), *numbers = malloc(8);
    void *const to[] = {image, array, numbers};
    const tr_status status = tr_dataset_read(dataset, 1, to, &e);
    cr_assert(status == TR_OK || status == TR_ERR_CORRUPT || status == TR_ERR_UNSUPPORTED, "%s", e.message);
    free(image);
    free(array);
    free(numbers);
    tr_dataset_close(dataset);
    bytes_free(&tar);
  }
  bytes_free(&jpeg);
  bytes_free(&npy);
  tr_stores_destroy(stores);
}

/* ---- Bytes that are not those that were indexed ------------------------------------------------------------------ */

static tr_store *g_faulty;
static tr_status open_faulty(void *self, const char *url, tr_store **store, char key[TR_KEY_BYTES], tr_error *error) {
  (void)self, (void)error;
  snprintf(key, TR_KEY_BYTES, "%s", url + strlen("faulty://"));
  *store = g_faulty;
  return TR_OK;
}

Test(webdataset, flipped_bytes_are_read_again_and_named_where_they_stay_wrong) {
  ts_faults faults = {0};
  tr_stores *stores = make_stores(NULL);
  put_numbered_shards(stores, 1, 5);
  tr_store *inner;
  char key[TR_KEY_BYTES];
  tr_error e = {0};
  EXPECT_OK(tr_stores_resolve(stores, "memory://d/x", &inner, key, &e));
  g_faulty = ts_fault_store(inner, false, &faults);
  EXPECT_OK(tr_stores_add_scheme(stores, "faulty", open_faulty, NULL, &e));
  tr_dataset *dataset = NULL;
  const tr_field_source raw = {"raw", "bin"};
  EXPECT_OK(open_with(stores, "faulty://s-000.tar", &raw, 1, NULL, NULL, &dataset, &e));
  uint8_t data[16];
  void *const to[] = {data};
  const uint64_t before = faults.gets;
  faults.flip_get = before + 1;
  EXPECT_OK(tr_dataset_read(dataset, 3, to, &e));
  for (int i = 0; i < 16; i++) cr_assert_eq(data[i], (uint8_t)(3 * 3 + i));
  cr_assert_eq(faults.gets, before + 2);
  faults.flip_get = 1;
  faults.forever = true;
  EXPECT_FAIL(tr_dataset_read(dataset, 3, to, &e), TR_ERR_CORRUPT, "s-000.tar: offset 9728: sample 'train/000003'");
  cr_assert_eq(faults.gets, before + 5, "three times, no more");
  tr_dataset_close(dataset);
  tr_stores_destroy(stores);
}

Test(webdataset, an_index_made_beforehand_is_found_beside_the_data_or_in_a_folder) {
  tr_stores *stores = make_stores(NULL);
  put_numbered_shards(stores, 3, 5);
  const char *url = "memory://d/s-{000..002}.tar";
  const tr_dataset_options options = {.struct_bytes = sizeof options, .stores = stores, .urls = &url, .url_count = 1};
  tr_dataset_index_report report = {.struct_bytes = sizeof report};
  tr_error e = {0};
  EXPECT_OK(tr_dataset_index(&options, NULL, &report, &e));
  cr_assert(report.built && report.shards == 3 && report.samples == 15 && report.bytes >= 15 * 1024 * 3);
  cr_assert_str_eq(report.format, "webdataset");
  cr_assert_not_null(strstr(report.url, "memory://d/.trainrun/"), "%s", report.url);
  EXPECT_OK(tr_dataset_index(&options, NULL, &report, &e));
  cr_assert(!report.built, "it was there");
  EXPECT_OK(tr_dataset_index(&options, "memory://i/kept", &report, &e));
  cr_assert(report.built, "not in that folder");
  cr_assert_not_null(strstr(report.url, "memory://i/kept/"), "%s", report.url);
  cr_assert_eq(forget_indexes(stores, "memory://d/x"), 1);
  tr_stores_destroy(stores);
}
