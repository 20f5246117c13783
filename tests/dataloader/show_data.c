/* Prints a data set, a line of JSON a sample: what is stored (tr_dataset_raw), or with --fields what a batch gets.
 *
 *     show_data [--fields] [--format F] [--field NAME=SOURCE]... [--sequence-length N] [--seed S] [--epoch E]
 *               [--transform SPEC]... URL...
 *
 * Stored: {"index", "key", "fields": numbers, text and JSON as they are, bytes as {"bytes": n, "crc32c": "hex"}}. In a
 * batch: {"index", "fields": {name: {"dtype", "shape", "hex"}}}. A failure is {"error", "message"} and exit status 1. */
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <trainrun/crc32c.h>
#include <trainrun/dataloader.h>

enum { MANY = 64 };

typedef struct asked {
  tr_dataset_options options;
  tr_field_source fields[MANY];
  const char *transforms[MANY], *urls[MANY];
  uint64_t seed, epoch;
  bool as_fields;
} asked;

static json_t *error_of(const tr_error *error) {
  return json_pack("{s:s, s:s}", "error", tr_status_name(error->status), "message", error->message);
}

static void print(json_t *line) {
  json_dumpf(line, stdout, JSON_COMPACT | JSON_ENSURE_ASCII);
  putchar('\n');
  json_decref(line);
}

/* A JSON value goes through as it is, so that no number of it is changed on the way. */
static void print_value(const tr_raw_value *v) {
  json_t *value = v->kind == TR_RAW_TEXT ? json_stringn(v->data, v->bytes) : NULL;
  if (v->kind == TR_RAW_JSON) {
    fwrite(v->data, 1, v->bytes, stdout);
  } else if (value != NULL) {
    json_dumpf(value, stdout, JSON_COMPACT | JSON_ENSURE_ASCII | JSON_ENCODE_ANY);
  } else {
    printf("{\"bytes\": %zu, \"crc32c\": \"%08x\"}", v->bytes, tr_crc32c(0, v->data, v->bytes));
  }
  json_decref(value);
}

static tr_status show_raw(void *self, const char *key, const tr_raw_value *values, size_t count, tr_error *error) {
  (void)error;
  const tr_raw_value key_value = {.kind = TR_RAW_TEXT, .data = key, .bytes = strlen(key)};
  printf("{\"index\": %llu, \"key\": ", (unsigned long long)*(uint64_t *)self);
  print_value(&key_value);
  printf(", \"fields\": {");
  for (size_t i = 0; i < count; i++) {
    const tr_raw_value name = {.kind = TR_RAW_TEXT, .data = values[i].name, .bytes = strlen(values[i].name)};
    printf("%s", i > 0 ? ", " : "");
    print_value(&name);
    printf(": ");
    print_value(&values[i]);
  }
  printf("}}\n");
  return TR_OK;
}

static json_t *show_field(const tr_field *field, const uint8_t *data) {
  json_t *shape = json_array();
  for (uint32_t i = 0; i < field->ndim; i++) json_array_append_new(shape, json_integer(field->shape[i]));
  char *hex = malloc(2 * field->bytes + 1);
  for (size_t i = 0; i < field->bytes; i++) snprintf(hex + 2 * i, 3, "%02x", data[i]);
  hex[2 * field->bytes] = '\0';
  json_t *value = json_pack("{s:s, s:o, s:s}", "dtype", tr_dtype_name(field->dtype), "shape", shape, "hex", hex);
  free(hex);
  return value;
}

/* All samples in the order of the data, as a loader with these transforms delivers them. */
static tr_status show_batches(const asked *a, tr_dataset *dataset, tr_error *error) {
  const tr_device_options cpu = {.struct_bytes = sizeof cpu, .kind = TR_DEVICE_CPU};
  tr_loader_options options = {.struct_bytes = sizeof options, .dataset = dataset, .seed = a->seed};
  tr_loader *loader = NULL;
  tr_device *device = NULL;
  tr_status status = tr_device_open(&cpu, &device, error);
  options.device = device;
  options.batch_size = options.micro_batch = 1;
  options.size = 1;
  options.epochs = a->epoch + 1;
  options.cursor.epoch = a->epoch;
  options.transforms = a->options.transforms;
  options.transform_count = a->options.transform_count;
  if (status == TR_OK) status = tr_loader_open(&options, &loader, error);
  tr_batch_info info;
  bool end = false;
  while (status == TR_OK) {
    tr_micro_batch batch;
    const tr_field *fields;
    status = tr_loader_begin(loader, &info, &end, error);
    if (status != TR_OK || end) break;
    status = tr_loader_next(loader, &batch, NULL, error);
    if (status != TR_OK) break;
    json_t *line = json_pack("{s:I}", "index", (json_int_t)batch.ids[0]), *shown = json_object();
    const size_t count = tr_loader_fields(loader, &fields);
    for (size_t i = 0; i < count; i++) {
      json_object_set_new(shown, fields[i].name, show_field(&fields[i], batch.fields[i]));
    }
    json_object_set_new(line, "fields", shown);
    print(line);
    tr_loader_commit(loader);
  }
  tr_loader_close(loader);
  tr_device_close(device);
  return status;
}

static bool take(asked *a, int argc, char **argv) {
  tr_dataset_options *o = &a->options;
  for (int i = 1; i < argc; i++) {
    const char *word = argv[i];
    if (strcmp(word, "--fields") == 0) {
      a->as_fields = true;
      continue;
    }
    if (strncmp(word, "--", 2) != 0) {
      if (o->url_count == MANY) return false;
      a->urls[o->url_count++] = word;
      continue;
    }
    if (++i == argc) return false;
    if (strcmp(word, "--format") == 0) {
      o->format = argv[i];
    } else if (strcmp(word, "--sequence-length") == 0) {
      o->sequence_length = strtoull(argv[i], NULL, 10);
    } else if (strcmp(word, "--seed") == 0) {
      a->seed = strtoull(argv[i], NULL, 10);
    } else if (strcmp(word, "--epoch") == 0) {
      a->epoch = strtoull(argv[i], NULL, 10);
    } else if (strcmp(word, "--transform") == 0 && o->transform_count < MANY) {
      a->transforms[o->transform_count++] = argv[i];
    } else if (strcmp(word, "--field") == 0 && o->field_count < MANY && strchr(argv[i], '=') != NULL) {
      char *equals = strchr(argv[i], '=');
      *equals = '\0';
      a->fields[o->field_count++] = (tr_field_source){.name = argv[i], .source = equals + 1};
    } else {
      return false;
    }
  }
  o->urls = a->urls;
  o->fields = a->fields;
  o->transforms = a->transforms;
  return o->url_count > 0;
}

int main(int argc, char **argv) {
  static asked a = {.options.struct_bytes = sizeof a.options};
  if (!take(&a, argc, argv)) {
    fprintf(stderr, "usage: show_data [--fields] [--format F] [--field NAME=SOURCE] [--sequence-length N] URL...\n");
    return 2;
  }
  const tr_stores_options stores = {.struct_bytes = sizeof stores};
  tr_dataset *dataset = NULL;
  tr_error error = {0};
  tr_status status = tr_stores_create(&stores, &a.options.stores, &error);
  if (status == TR_OK) status = tr_dataset_open(&a.options, &dataset, &error);
  if (status == TR_OK && a.as_fields) {
    status = show_batches(&a, dataset, &error);
  } else {
    const uint64_t size = status == TR_OK ? tr_dataset_size(dataset) : 0;
    for (uint64_t i = 0; status == TR_OK && i < size; i++) {
      status = tr_dataset_raw(dataset, i, show_raw, &i, &error);
    }
  }
  if (status != TR_OK) print(error_of(&error));
  tr_dataset_close(dataset);
  tr_stores_destroy(a.options.stores);
  return status == TR_OK ? 0 : 1;
}
