/* Tables: quotes, joined columns, integers; mistakes named by file, line and column. */
#include "dataloader/data.h"

#include <stdio.h>

static tr_status open_csv(tr_stores *stores, const char *const *urls, size_t url_count, const tr_field_source *fields,
                          size_t count, tr_dataset **out, tr_error *error) {
  const tr_dataset_options options = {.struct_bytes = sizeof options,
                                      .stores = stores,
                                      .urls = urls,
                                      .url_count = url_count,
                                      .fields = fields,
                                      .field_count = count};
  return tr_dataset_open(&options, out, error);
}

static tr_dataset *open_text(tr_stores *stores, const char *text, const tr_field_source *fields, size_t count) {
  static const char *const url[] = {"memory://d/t.csv"};
  put(stores, url[0], text, strlen(text));
  tr_dataset *dataset = NULL;
  tr_error e = {0};
  EXPECT_OK(open_csv(stores, url, 1, fields, count, &dataset, &e));
  return dataset;
}

Test(csv, every_column_is_a_field_unless_named) {
  tr_stores *stores = make_stores(NULL);
  tr_dataset *dataset = open_text(stores, "x,y\n1,2\n-3.5,4e2\n", NULL, 0);
  const tr_field *fields;
  cr_assert_eq(tr_dataset_fields(dataset, &fields), 2);
  cr_assert_str_eq(fields[0].name, "x");
  cr_assert(fields[1].dtype == TR_F32 && fields[1].ndim == 0 && fields[1].bytes == 4);
  cr_assert_str_eq(tr_dataset_format(dataset), "csv");
  cr_assert_eq(tr_dataset_size(dataset), 2);
  float x, y;
  void *const to[] = {&x, &y};
  tr_error e = {0};
  EXPECT_OK(tr_dataset_read(dataset, 1, to, &e));
  cr_assert_eq(x, -3.5f);
  cr_assert_eq(y, 400.0f);
  char name[64];
  tr_dataset_sample_name(dataset, 1, name, sizeof name);
  cr_assert_str_eq(name, "t.csv: line 3");
  tr_dataset_close(dataset);
  tr_stores_destroy(stores);
}

Test(csv, joins_columns_and_reads_integers) {
  tr_stores *stores = make_stores(NULL);
  const tr_field_source fields[] = {{"rest", "*"}, {"point", "x2, x1"}, {"label", "class:i32"}};
  tr_dataset *dataset = open_text(stores, "x1,class,x2,w,v\n1,7,2,3,4\n5,-8,6,7,8\n", fields, 3);
  const tr_field *known;
  tr_dataset_fields(dataset, &known);
  cr_assert(known[0].ndim == 1 && known[0].shape[0] == 2);
  cr_assert(known[1].ndim == 1 && known[1].shape[0] == 2);
  cr_assert(known[2].ndim == 0 && known[2].dtype == TR_I32);
  float rest[2], point[2];
  int32_t label;
  void *const to[] = {rest, point, &label};
  tr_error e = {0};
  EXPECT_OK(tr_dataset_read(dataset, 1, to, &e));
  cr_assert(rest[0] == 7 && rest[1] == 8 && point[0] == 6 && point[1] == 5 && label == -8);
  tr_dataset_close(dataset);
  tr_stores_destroy(stores);
}

Test(csv, follows_the_rules_of_rfc_4180) {
  static const char *const tables[] = {
      "a,b\r\n1,2\r\n3,4\r\n",                  /* CR LF */
      "a,b\n1,2\n3,4",                          /* no end of the last line */
      "\357\273\277a,b\n1,2\n3,4\n",            /* a byte order mark */
      "\"a\",\"b\"\n\"1\",2\n3,\"4\"\n",        /* quotes that were not needed */
      "a,b\n\n1,2\n\r\n\n3,4\n\n\n",            /* empty lines */
      "a,b,\"c\nd,\"\"e\"\"\"\n1,2,0\n3,4,0\n", /* a column's name with everything in it */
      "a,b,c\n1,2,\"x\n,\"\n3,4,\"y\"\"\n\"\n", /* text with line ends in a column that is not read */
      "a,b\n 1 , 2\n\t3,4\t\n",                 /* blanks */
  };
  const tr_field_source fields[] = {{"a", "a"}, {"b", "b"}};
  for (size_t i = 0; i < sizeof tables / sizeof *tables; i++) {
    tr_stores *stores = make_stores(NULL);
    tr_dataset *dataset = open_text(stores, tables[i], fields, 2);
    cr_assert_eq(tr_dataset_size(dataset), 2, "table %zu", i);
    for (uint64_t id = 0; id < 2; id++) {
      float a, b;
      void *const to[] = {&a, &b};
      tr_error e = {0};
      EXPECT_OK(tr_dataset_read(dataset, id, to, &e));
      cr_assert(a == (float)(2 * id + 1) && b == (float)(2 * id + 2), "table %zu", i);
    }
    tr_dataset_close(dataset);
    tr_stores_destroy(stores);
  }
}

Test(csv, numbers_are_read_as_strtod_reads_them) {
  tr_stores *stores = make_stores(NULL);
  char *text = ts_format("x\n");
  double expected[400];
  for (uint64_t i = 0; i < 400; i++) {
    char number[64];
    const double value = ((double)noise(3, i) / 1e19 - 0.9) * (i % 3 == 0 ? 1e-6 : i % 3 == 1 ? 1 : 1e12);
    snprintf(number, sizeof number, i % 2 ? "%.7g" : "%.17g", value);
    if (i % 5 == 0) snprintf(number, sizeof number, "%.3f", value);
    expected[i] = strtod(number, NULL);
    char *more = ts_format("%s%s\n", text, number);
    free(text);
    text = more;
  }
  tr_dataset *dataset = open_text(stores, text, NULL, 0);
  for (uint64_t id = 0; id < 400; id++) {
    float x;
    void *const to[] = {&x};
    tr_error e = {0};
    EXPECT_OK(tr_dataset_read(dataset, id, to, &e));
    cr_assert_eq(x, (float)expected[id]);
  }
  tr_dataset_close(dataset);
  free(text);
  tr_stores_destroy(stores);
}

Test(csv, a_bad_cell_is_named_by_line_and_column) {
  static const struct {
    const char *row, *says;
  } rows[] = {
      {"1,abc,3", "line 4, column 2 (b): 'abc' is not a number"},
      {"1,,3", "line 4, column 2 (b): '' is not a number"},
      {"1,nan,3", "column 2 (b): 'nan' is not a number"},
      {"1,1e39,3", "column 2 (b)"},
      {"1,2,3.5", "line 4, column 3 (c): '3.5' is not an integer"},
      {"1,2,2147483648", "column 3 (c)"},
      {"1,2", "line 4, column 3 (c): 2 columns, the header has 3"},
      {"1,2,3,4", "line 4, column 4: 4 columns, the header has 3"},
      {"1,2\"2\",3", "line 4, column 2 (b): a quote inside a cell"},
      {"1,\"2\"2,3", "line 4, column 2 (b): text behind a closing quote"},
      {"1,0x10,3", "column 2 (b): '0x10' is not a number"},
  };
  const tr_field_source fields[] = {{"a", "a,b"}, {"c", "c:i32"}};
  for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
    tr_stores *stores = make_stores(NULL);
    char *text = ts_format("a,b,c\n\n1,2,3\n%s\n", rows[i].row);
    tr_dataset *dataset = open_text(stores, text, fields, 2);
    float a[2];
    int32_t c;
    void *const to[] = {a, &c};
    tr_error e = {0};
    EXPECT_OK(tr_dataset_read(dataset, 0, to, &e));
    EXPECT_FAIL(tr_dataset_read(dataset, 1, to, &e), TR_ERR_CORRUPT, rows[i].says);
    cr_assert_not_null(strstr(e.message, "memory://d/t.csv"));
    tr_dataset_close(dataset);
    free(text);
    tr_stores_destroy(stores);
  }
}

Test(csv, refuses_tables_it_cannot_use) {
  static const struct {
    const char *text, *source;
    tr_status status;
    const char *says;
  } cases[] = {
      {"", "a", TR_ERR_CORRUPT, "it has no header line"},
      {"a,b\n", "a", TR_ERR_CORRUPT, "holds no samples"},
      {"a,b\n1,\"2\n3,4\n", "a", TR_ERR_CORRUPT, "line 2: a quote that is never closed"},
      {"a,b\n1,2\n", "c", TR_ERR_CONFIG, "has no column 'c'; it has a, b"},
      {"a,b\n1,2\n", "a,c", TR_ERR_CONFIG, "has no column 'c'"},
      {"a\"x,b\n1,2\n", "b", TR_ERR_CORRUPT, "the header, column 1: a quote inside"},
      {"\x1F\x8B\x08\0", "a", TR_ERR_UNSUPPORTED, "compressed CSV is not read"},
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    tr_stores *stores = make_stores(NULL);
    const char *url = "memory://d/t.csv";
    put(stores, url, cases[i].text, strlen(cases[i].text));
    const tr_field_source fields[] = {{"f", cases[i].source}};
    tr_dataset *dataset = NULL;
    tr_error e = {0};
    EXPECT_FAIL(open_csv(stores, &url, 1, fields, 1, &dataset, &e), cases[i].status, cases[i].says);
    tr_stores_destroy(stores);
  }
}

Test(csv, shards_share_one_header) {
  tr_stores *stores = make_stores(NULL);
  put(stores, "memory://d/0.csv", "a,b\n1,2\n3,4\n", 12);
  put(stores, "memory://d/1.csv", "a,b\n5,6\n", 8);
  const char *const urls[] = {"memory://d/{0,1}.csv"};
  tr_dataset *dataset = NULL;
  tr_error e = {0};
  EXPECT_OK(open_csv(stores, urls, 1, NULL, 0, &dataset, &e));
  cr_assert_eq(tr_dataset_size(dataset), 3);
  float a, b;
  void *const to[] = {&a, &b};
  EXPECT_OK(tr_dataset_read(dataset, 2, to, &e));
  cr_assert(a == 5 && b == 6);
  tr_dataset_close(dataset);
  put(stores, "memory://d/1.csv", "b,a\n5,6\n", 8);
  EXPECT_FAIL(open_csv(stores, urls, 1, NULL, 0, &dataset, &e), TR_ERR_CORRUPT, "1.csv: line 1: its header is another");
  tr_stores_destroy(stores);
}

/* Larger than what is kept in memory, so that samples are read by their offsets. */
Test(csv, large_tables_are_read_by_offset) {
  tr_stores *stores = make_stores(NULL);
  bytes b = {.data = malloc(80 << 20)};
  char *at = (char *)b.data;
  at += sprintf(at, "id,text\n");
  uint64_t count = 0;
  while ((uint8_t *)at - b.data < 66 << 20) {
    at += sprintf(at, "%llu,\"", (unsigned long long)count++);
    const size_t padding = 50000 + noise(1, count) % 100;
    memset(at, 'x', padding);
    at[7] = '\n';
    at += padding;
    at += sprintf(at, "\"\n");
  }
  b.count = (size_t)((uint8_t *)at - b.data);
  put_bytes(stores, "memory://d/big.csv", b);
  bytes_free(&b);
  const char *url = "memory://d/big.csv";
  const tr_field_source fields[] = {{"id", "id:i32"}};
  tr_dataset *dataset = NULL;
  tr_error e = {0};
  EXPECT_OK(open_csv(stores, &url, 1, fields, 1, &dataset, &e));
  cr_assert_eq(tr_dataset_size(dataset), count);
  for (uint64_t id = 0; id < count; id += 13) {
    int32_t read;
    void *const to[] = {&read};
    EXPECT_OK(tr_dataset_read(dataset, id, to, &e));
    cr_assert_eq((uint64_t)read, id);
  }
  tr_dataset_close(dataset);
  tr_stores_destroy(stores);
}

Test(csv, mutated_tables_never_crash) {
  tr_stores *stores = make_stores(NULL);
  const char *good = "a,\"b,1\",c\n1,2,3\n\"4\",5.5e3,\"6\"\n\n-7,8,9\r\n10,11,12";
  const tr_field_source fields[] = {{"x", "a,c"}, {"y", "b,1"}};
  const size_t length = strlen(good);
  const uint64_t rounds = ts_long() ? 20000 : 2000;
  for (uint64_t i = 0; i < rounds; i++) {
    char text[128];
    memcpy(text, good, length);
    static const char odd[] = "\",\n\r\0x1-.e ";
    for (uint64_t k = 0; k <= i % 4; k++) text[noise(i, k) % length] = odd[noise(i, 50 + k) % (sizeof odd - 1)];
    const char *url = "memory://d/t.csv";
    put(stores, url, text, i % 3 == 0 ? noise(i, 9) % length : length);
    tr_dataset *dataset = NULL;
    tr_error e = {0};
    if (open_csv(stores, &url, 1, fields, 2, &dataset, &e) != TR_OK) continue;
    for (uint64_t id = 0; id < tr_dataset_size(dataset); id++) {
      float x[2], y;
      void *const to[] = {x, &y};
      const tr_status status = tr_dataset_read(dataset, id, to, &e);
      cr_assert(status == TR_OK || status == TR_ERR_CORRUPT);
    }
    tr_dataset_close(dataset);
  }
  tr_stores_destroy(stores);
}
