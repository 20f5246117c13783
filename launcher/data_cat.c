/* trainrun data cat: samples as lines of JSON, or the bytes of one field.
 *
 * Samples are read by several threads and printed in order. A sample that cannot be read ends the command: `data verify`
 * names all of them. */
#include "data_open.h"

#include "crew.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

enum { CACHE_BYTES = 256 << 20 };

typedef struct cat_call {
  tr_data data;
  tr_sampler *sampler; /* NULL: in the order of the shards; under the crew's one-at-a-time */
  uint64_t epoch, at, end;
  atomic_bool stop;
} cat_call;

typedef struct cat_piece {
  uint64_t id;
  tr_writer text;
  bool found;
  const char *raw; /* the field wanted */
} cat_piece;

static void write_value(tr_writer *text, const tr_raw_value *value) {
  if (value->kind == TR_RAW_JSON) {
    tr_write_bytes(text, value->data, value->bytes);
    return;
  }
  /* Text with a NUL in it is none. */
  char *copy = value->kind == TR_RAW_TEXT && memchr(value->data, '\0', value->bytes) == NULL
                   ? tr_strndup(NULL, value->data, value->bytes)
                   : NULL;
  if (copy != NULL) {
    tr_write_json_string(text, copy);
  } else {
    tr_write_text(text, "{\"bytes\": %zu, \"crc32c\": \"%08x\"}", value->bytes,
                  tr_crc32c(0, value->data, value->bytes));
  }
  tr_free(NULL, copy);
}

static tr_status visit(void *self, const char *key, const tr_raw_value *values, size_t count, tr_error *error) {
  cat_piece *piece = self;
  tr_writer *text = &piece->text;
  if (piece->raw != NULL) {
    for (size_t i = 0; i < count && !piece->found; i++) {
      if (strcmp(values[i].name, piece->raw) != 0) continue;
      tr_write_bytes(text, values[i].data, values[i].bytes);
      piece->found = true;
    }
    return piece->found ? TR_OK : tr_fail(error, TR_ERR_NOT_FOUND, "sample '%s' has no field '%s'", key, piece->raw);
  }
  tr_write_text(text, "{\"index\": %" PRIu64 ", \"key\": ", piece->id);
  tr_write_json_string(text, key);
  for (size_t i = 0; i < count; i++) {
    /* A field of one of these two names would hide what stands there. */
    const bool taken = strcmp(values[i].name, "index") == 0 || strcmp(values[i].name, "key") == 0;
    tr_write_text(text, taken ? ", \"field." : ", \"");
    tr_writer name;
    tr_writer_init(&name, NULL);
    tr_write_json_string(&name, values[i].name);
    if (!name.failed) tr_write_bytes(text, name.data + 1, name.bytes - 1);
    tr_writer_fini(&name);
    tr_write_text(text, ": ");
    write_value(text, &values[i]);
  }
  tr_write_text(text, "}\n");
  return TR_OK;
}

static tr_status next(void *self, void *to, bool *end, tr_error *error) {
  cat_call *call = self;
  cat_piece *piece = to;
  (void)error;
  *end = call->at == call->end;
  if (*end) return TR_OK;
  piece->raw = call->data.cli->raw;
  piece->id = call->sampler != NULL ? tr_sampler_at(call->sampler, call->epoch, call->at) : call->at;
  tr_writer_init(&piece->text, NULL);
  call->at++;
  return TR_OK;
}

static tr_status work(void *self, void *to, tr_error *error) {
  cat_call *call = self;
  cat_piece *piece = to;
  return tr_dataset_raw(call->data.dataset, piece->id, visit, piece, error);
}

static tr_status take(void *self, void *to, tr_error *error) {
  (void)self;
  return data_print(&((cat_piece *)to)->text, error);
}

static void drop(void *self, void *to) {
  (void)self;
  tr_writer_fini(&((cat_piece *)to)->text);
}

/* Which samples; false after saying what is wrong. */
static bool choose(cat_call *call) {
  const tr_cli *cli = call->data.cli;
  const uint64_t size = tr_dataset_size(call->data.dataset);
  uint64_t limit = size, index = 0;
  if (!data_number("--limit", cli->limit, &limit) || !data_number("--index", cli->index, &index) ||
      !data_number("--epoch", cli->epoch, &call->epoch)) {
    return false;
  }
  call->end = limit < size ? limit : size;
  if (cli->index == NULL) return true;
  if (index >= size) {
    fprintf(stderr, "trainrun: there is no sample %" PRIu64 ", only 0 to %" PRIu64 "\n", index, size - 1);
    return false;
  }
  call->at = index;
  call->end = index + 1;
  return true;
}

static int run(cat_call *call, uint32_t threads) {
  tr_error error;
  tr_status status = TR_OK;
  if (!choose(call)) return EXIT_USAGE;
  if (call->data.cli->order && call->data.cli->index == NULL)
    status = data_sampler(&call->data, &call->sampler, &error);
  const tr_crew_job job = {.self = call,
                           .threads = threads,
                           .window = threads * 8,
                           .piece_bytes = sizeof(cat_piece),
                           .next = next,
                           .work = work,
                           .take = take,
                           .drop = drop,
                           .stop = &call->stop};
  if (status == TR_OK) status = crew_run(&job, &error);
  tr_sampler_destroy(call->sampler);
  if (status == TR_OK && fflush(stdout) != 0) status = tr_fail(&error, TR_ERR_IO, "writing to standard output");
  if (status == TR_OK) return 0;
  fprintf(stderr, "trainrun: %s\n", error.message);
  return crew_exit_code(&error);
}

/* Samples in the order of the shards lie side by side: what is read is read in large pieces and kept for a while. */
static int open_it(cat_call *call, const tr_cli *cli) {
  const tr_cache_options options = {.struct_bytes = sizeof options, .memory_bytes = CACHE_BYTES};
  tr_error error;
  const int code = data_prepare(&call->data, cli);
  if (code != 0) return code;
  tr_status status = TR_OK;
  if (!cli->order && cli->index == NULL) status = tr_cache_open(&options, &call->data.cache, &error);
  call->data.options.cache = call->data.cache;
  if (status == TR_OK) status = tr_dataset_open(&call->data.options, &call->data.dataset, &error);
  return status == TR_OK ? 0 : remote_failed(&error);
}

int data_cat(const tr_cli *cli) {
  cat_call call = {0};
  const uint32_t threads = data_threads(cli, DATA_THREADS);
  if (threads == 0) return EXIT_USAGE;
  int code = open_it(&call, cli);
  if (code == 0) code = run(&call, threads);
  data_close(&call.data);
  return code;
}
