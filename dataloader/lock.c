/* data.lock.json: exactly which bytes a run is made of. A resume on data that changed is refused by name. */
#include <inttypes.h>
#include <jansson.h>
#include <string.h>

#include "dataset.h"

enum { LOCK_VERSION = 1, LOCK_BYTES_MAX = 1 << 30 };

static void write_field(const tr_dataset *dataset, size_t i, tr_writer *writer) {
  const tr_field *field = &dataset->fields[i];
  tr_write_text(writer, "    {\"name\": ");
  tr_write_json_string(writer, field->name);
  tr_write_text(writer, ", \"source\": ");
  tr_write_json_string(writer, dataset->sources[i]);
  tr_write_text(writer, ", \"dtype\": \"%s\", \"shape\": [", tr_dtype_name(field->dtype));
  for (uint32_t d = 0; d < field->ndim; d++) tr_write_text(writer, "%s%" PRId64, d > 0 ? ", " : "", field->shape[d]);
  tr_write_text(writer, "]}%s\n", i + 1 < dataset->field_count ? "," : "");
}

void tr_dataset_write_lock(const tr_dataset *dataset, tr_writer *writer) {
  tr_write_text(writer, "{\n  \"version\": %d,\n  \"format\": \"%s\",\n  \"fields\": [\n", LOCK_VERSION,
                dataset->format->name);
  for (size_t i = 0; i < dataset->field_count; i++) write_field(dataset, i, writer);
  tr_write_text(writer, "  ],\n  \"samples\": %" PRIu64 ",\n  \"shards\": [\n", tr_dataset_size(dataset));
  for (size_t i = 0; i < dataset->file_count; i++) {
    const dl_file *file = &dataset->files[i];
    tr_write_text(writer, "    {\"url\": ");
    tr_write_json_string(writer, file->url);
    tr_write_text(writer, ", \"bytes\": %" PRIu64 ", \"etag\": ", file->bytes);
    tr_write_json_string(writer, file->etag);
    tr_write_text(writer, ", \"samples\": %" PRIu64 "}%s\n", file->samples, i + 1 < dataset->file_count ? "," : "");
  }
  tr_write_text(writer, "  ]\n}\n");
}

static const char *text_of(const json_t *object, const char *key) {
  const char *text = json_string_value(json_object_get(object, key));
  return text != NULL ? text : "";
}

static bool same_number(const json_t *object, const char *key, uint64_t value) {
  const json_t *number = json_object_get(object, key);
  return json_is_integer(number) && (uint64_t)json_integer_value(number) == value;
}

static tr_status check_field(const tr_dataset *dataset, size_t i, const json_t *was, tr_error *error) {
  const tr_field *field = &dataset->fields[i];
  const json_t *shape = json_object_get(was, "shape");
  bool same = strcmp(text_of(was, "name"), field->name) == 0 &&
              strcmp(text_of(was, "source"), dataset->sources[i]) == 0;
  same = same && strcmp(text_of(was, "dtype"), tr_dtype_name(field->dtype)) == 0;
  same = same && json_is_array(shape) && json_array_size(shape) == field->ndim;
  for (uint32_t d = 0; same && d < field->ndim; d++) {
    same = json_integer_value(json_array_get(shape, d)) == field->shape[d];
  }
  if (same) return TR_OK;
  return tr_fail(error, TR_ERR_MISMATCH,
                 "the data changed since the run began: field '%s' was '%s' with other contents", field->name,
                 text_of(was, "name"));
}

static tr_status check_file(const dl_file *file, const json_t *was, tr_error *error) {
  const char *before = text_of(was, "url");
  const char *url = file->url;
  if (strcmp(before, url) != 0) {
    return tr_fail(error, TR_ERR_MISMATCH, "the data changed since the run began: shard %s was %s", url, before);
  }
  if (!same_number(was, "bytes", file->bytes)) {
    return tr_fail(error, TR_ERR_MISMATCH,
                   "the data changed since the run began: shard %s has %" PRIu64 " bytes, it had %" PRId64, url,
                   file->bytes, (int64_t)json_integer_value(json_object_get(was, "bytes")));
  }
  if (strcmp(text_of(was, "etag"), file->etag) != 0) {
    return tr_fail(error, TR_ERR_MISMATCH,
                   "the data changed since the run began: shard %s was written again (ETag %s, it was %s)", url,
                   file->etag, text_of(was, "etag"));
  }
  if (!same_number(was, "samples", file->samples)) {
    return tr_fail(error, TR_ERR_MISMATCH,
                   "the data changed since the run began: shard %s has %" PRIu64 " samples, it had %" PRId64, url,
                   file->samples, (int64_t)json_integer_value(json_object_get(was, "samples")));
  }
  return TR_OK;
}

static tr_status check(const tr_dataset *dataset, const json_t *lock, tr_error *error) {
  const json_t *fields = json_object_get(lock, "fields"), *shards = json_object_get(lock, "shards");
  if (!same_number(lock, "version", LOCK_VERSION) || !json_is_array(fields) || !json_is_array(shards)) {
    return tr_fail(error, TR_ERR_CORRUPT, "the data lock is not one of version %d", LOCK_VERSION);
  }
  if (strcmp(text_of(lock, "format"), dataset->format->name) != 0) {
    return tr_fail(error, TR_ERR_MISMATCH, "the data changed since the run began: format %s, it was %s",
                   dataset->format->name, text_of(lock, "format"));
  }
  for (size_t i = 0; i < dataset->file_count && i < json_array_size(shards); i++) {
    TR_TRY(check_file(&dataset->files[i], json_array_get(shards, i), error));
  }
  if (json_array_size(shards) != dataset->file_count) {
    const size_t were = json_array_size(shards);
    const char *first = were > dataset->file_count ? text_of(json_array_get(shards, dataset->file_count), "url")
                                                   : dataset->files[were].url;
    return tr_fail(error, TR_ERR_MISMATCH, "the data changed since the run began: %zu shards, there were %zu; %s is %s",
                   dataset->file_count, were, first, were > dataset->file_count ? "gone" : "new");
  }
  if (json_array_size(fields) != dataset->field_count) {
    return tr_fail(error, TR_ERR_MISMATCH, "the data changed since the run began: %zu fields, there were %zu",
                   dataset->field_count, json_array_size(fields));
  }
  for (size_t i = 0; i < dataset->field_count; i++) {
    TR_TRY(check_field(dataset, i, json_array_get(fields, i), error));
  }
  return TR_OK;
}

tr_status tr_dataset_check_lock(const tr_dataset *dataset, const char *lock, size_t lock_bytes, tr_error *error) {
  if (lock_bytes > LOCK_BYTES_MAX) return tr_fail(error, TR_ERR_CORRUPT, "the data lock has more than 1 GiB");
  json_error_t why;
  json_t *root = json_loadb(lock, lock_bytes, JSON_REJECT_DUPLICATES, &why);
  if (root == NULL) {
    return tr_fail(error, TR_ERR_CORRUPT, "the data lock is not JSON: line %d, column %d: %s", why.line, why.column,
                   why.text);
  }
  const tr_status status = check(dataset, root, error);
  json_decref(root);
  return status;
}
