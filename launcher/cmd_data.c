/* trainrun data: what a data set is made of, its index and its lock. Reading, packing and measuring have files of their
 * own. */
#include "data_open.h"

#include "progress.h"

#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>

int cmd_data(const tr_cli *cli) { return cli_verb_run(cli); }

/* The lock is what a data set says of itself, shard by shard. */
static tr_status read_lock(const tr_data *data, tr_writer *text, json_t **lock, tr_error *error) {
  tr_writer_init(text, NULL);
  tr_dataset_write_lock(data->dataset, text);
  *lock = text->failed ? NULL : json_loadb((const char *)text->data, text->bytes, 0, NULL);
  if (*lock != NULL) return TR_OK;
  tr_writer_fini(text);
  return tr_fail_memory(error, "the list of shards", 0);
}

/* ---- ls ---------------------------------------------------------------------------------------------------------- */

static const char *text_of(const json_t *object, const char *key) {
  const char *text = json_string_value(json_object_get(object, key));
  return text != NULL ? text : "";
}

static uint64_t number_of(const json_t *object, const char *key) {
  return (uint64_t)json_integer_value(json_object_get(object, key));
}

static void print_fields(const json_t *fields) {
  for (size_t i = 0; i < json_array_size(fields); i++) {
    const json_t *field = json_array_get(fields, i), *shape = json_object_get(field, "shape");
    printf("%-10s %s %s [", i == 0 ? "fields" : "", text_of(field, "name"), text_of(field, "dtype"));
    for (size_t d = 0; d < json_array_size(shape); d++) {
      printf("%s%" PRId64, d > 0 ? ", " : "", (int64_t)json_integer_value(json_array_get(shape, d)));
    }
    printf("] from '%s'\n", text_of(field, "source"));
  }
}

static void print_lock(const json_t *lock) {
  const json_t *shards = json_object_get(lock, "shards");
  uint64_t bytes = 0;
  char size[32];
  printf("%12s %12s  %s\n", "SAMPLES", "SIZE", "SHARD");
  for (size_t i = 0; i < json_array_size(shards); i++) {
    const json_t *shard = json_array_get(shards, i);
    bytes += number_of(shard, "bytes");
    tr_format_bytes(number_of(shard, "bytes"), size);
    printf("%12" PRIu64 " %12s  %s\n", number_of(shard, "samples"), size, text_of(shard, "url"));
  }
  tr_format_bytes(bytes, size);
  printf("\n%-10s %s\n%-10s %" PRIu64 "\n%-10s %s in %zu file%s\n", "format", text_of(lock, "format"), "samples",
         number_of(lock, "samples"), "size", size, json_array_size(shards), json_array_size(shards) == 1 ? "" : "s");
  print_fields(json_object_get(lock, "fields"));
}

int data_ls(const tr_cli *cli) {
  tr_data data;
  tr_writer text;
  tr_error error;
  json_t *lock = NULL;
  int code = data_open(&data, cli);
  if (code == 0 && read_lock(&data, &text, &lock, &error) != TR_OK) code = remote_failed(&error);
  if (lock != NULL) {
    /* As one line, like all JSON of these commands. */
    cli->json ? (void)(json_dumpf(lock, stdout, JSON_COMPACT), putchar('\n')) : print_lock(lock);
    json_decref(lock);
    tr_writer_fini(&text);
  }
  data_close(&data);
  return code;
}

/* ---- lock -------------------------------------------------------------------------------------------------------- */

static tr_status write_lock(const tr_data *data, const char *output, const tr_writer *text, tr_error *error) {
  tr_store *store;
  char key[TR_KEY_BYTES];
  if (output == NULL || strcmp(output, "-") == 0) return data_print(text, error);
  TR_TRY(tr_stores_resolve(data->remote.stores, output, &store, key, error));
  return tr_store_put(store, key, text->data, text->bytes, false, error);
}

int data_lock(const tr_cli *cli) {
  tr_data data;
  tr_writer text;
  tr_error error;
  tr_writer_init(&text, NULL);
  int code = data_open(&data, cli);
  if (code == 0) {
    tr_dataset_write_lock(data.dataset, &text);
    tr_status status = text.failed ? tr_fail_memory(&error, "the lock", text.bytes) : TR_OK;
    if (status == TR_OK) status = write_lock(&data, cli->output, &text, &error);
    if (status != TR_OK) code = remote_failed(&error);
  }
  tr_writer_fini(&text);
  data_close(&data);
  return code;
}

/* ---- index ------------------------------------------------------------------------------------------------------- */

int data_index(const tr_cli *cli) {
  tr_data data;
  tr_error error;
  tr_dataset_index_report report = {.struct_bytes = sizeof report};
  int code = data_prepare(&data, cli);
  if (code == 0 && tr_dataset_index(&data.options, cli->to, &report, &error) != TR_OK) {
    code = remote_failed(&error);
  } else if (code == 0) {
    data_print_index(cli, &report);
  }
  data_close(&data);
  return code;
}
