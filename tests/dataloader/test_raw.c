/* Samples as they are stored: every member, whether or not a field asks for it. */
#include "dataloader/data.h"

#include <stdio.h>

static tr_dataset *open_plain(tr_stores *stores, const char *url, const tr_field_source *fields, size_t count) {
  const tr_dataset_options options = {.struct_bytes = sizeof options,
                                      .stores = stores,
                                      .urls = &url,
                                      .url_count = 1,
                                      .fields = fields,
                                      .field_count = count};
  tr_dataset *dataset = NULL;
  tr_error e = {0};
  EXPECT_OK(tr_dataset_open(&options, &dataset, &e));
  return dataset;
}

/* What was seen, as text: "key: name=kind:value ...". */
typedef struct seen {
  char text[512];
} seen;

static tr_status visit(void *self, const char *key, const tr_raw_value *values, size_t count, tr_error *error) {
  (void)error;
  static const char *const kinds[] = {"bytes", "text", "json"};
  seen *s = self;
  int used = snprintf(s->text, sizeof s->text, "%s:", key);
  for (size_t i = 0; i < count; i++) {
    used += snprintf(s->text + used, sizeof s->text - (size_t)used, " %s=%s:", values[i].name, kinds[values[i].kind]);
    for (size_t b = 0; b < values[i].bytes; b++) {
      const uint8_t c = ((const uint8_t *)values[i].data)[b];
      used += snprintf(s->text + used, sizeof s->text - (size_t)used, c < 0x20 || c > 0x7E ? "\\%02x" : "%c", c);
    }
  }
  return TR_OK;
}

static void expect_raw(tr_dataset *dataset, uint64_t id, const char *text) {
  seen s = {0};
  tr_error e = {0};
  EXPECT_OK(tr_dataset_raw(dataset, id, visit, &s, &e));
  cr_assert_str_eq(s.text, text);
}

Test(raw, webdataset_gives_every_member_of_a_sample) {
  tr_stores *stores = make_stores(NULL);
  bytes tar = {0};
  tar_add_text(&tar, "a/0.txt", "a cat");
  tar_add_text(&tar, "a/0.cls", "3");
  tar_add_text(&tar, "a/0.meta.json", "{\"n\": [1, 2]}");
  tar_add_text(&tar, "a/1.json", "{broken");
  tar_add(&tar, "a/1.bin", "\x01\x80", 2);
  tar_add_text(&tar, "a/1.cls", "4");
  tar_end(&tar);
  put_bytes(stores, "memory://d/a.tar", tar);
  const tr_field_source label = {"label", "cls"};
  tr_dataset *dataset = open_plain(stores, "memory://d/a.tar", &label, 1);
  expect_raw(dataset, 0, "a/0: txt=text:a cat cls=json:3 meta.json=json:{\"n\": [1, 2]}");
  expect_raw(dataset, 1, "a/1: json=bytes:{broken bin=bytes:\\01\\80 cls=json:4");
  tr_error e = {0};
  EXPECT_FAIL(tr_dataset_raw(dataset, 2, visit, NULL, &e), TR_ERR_INVALID, "no sample 2");
  tr_dataset_close(dataset);
  bytes_free(&tar);
  tr_stores_destroy(stores);
}

Test(raw, csv_gives_every_column_and_knows_numbers) {
  tr_stores *stores = make_stores(NULL);
  static const char text[] = "x,name,y\n1.5,7,2\n-3,\"8\",4\n 5,b,+6\n";
  put(stores, "memory://d/a.csv", text, sizeof text - 1);
  const tr_field_source x = {"x", "x"};
  tr_dataset *dataset = open_plain(stores, "memory://d/a.csv", &x, 1);
  expect_raw(dataset, 0, "0: x=json:1.5 name=json:7 y=json:2");
  expect_raw(dataset, 1, "1: x=json:-3 name=text:8 y=json:4");
  expect_raw(dataset, 2, "2: x=json: 5 name=text:b y=text:+6");
  tr_dataset_close(dataset);
  tr_stores_destroy(stores);
}

Test(raw, idx_gives_numbers_and_bytes) {
  tr_stores *stores = make_stores(NULL);
  put_numbered(stores, "memory://d/a", 0, 3);
  static const char *const url = "memory://d/a";
  static const tr_field_source sources[] = {{"id", "-id"}, {"pixels", "-pixels"}};
  const tr_dataset_options options = {.struct_bytes = sizeof options,
                                      .stores = stores,
                                      .urls = &url,
                                      .url_count = 1,
                                      .format = "idx",
                                      .fields = sources,
                                      .field_count = 2};
  tr_dataset *dataset = NULL;
  tr_error e = {0};
  EXPECT_OK(tr_dataset_open(&options, &dataset, &e));
  expect_raw(dataset, 2, "2: id=json:2 pixels=bytes:\\0e\\0f\\10\\11\\12");
  tr_dataset_close(dataset);
  tr_stores_destroy(stores);
}
