/* trainrun data pack: samples of a folder, a table or IDX files into WebDataset shards.
 *
 * Threads make the members of each sample; one thread appends them, in order, to the shard that is being written, which
 * streams to the store as it grows. A shard is there when it is whole, and then the record says so. */
#include "pack.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "crew.h"
#include "object_out.h"
#include "pack_record.h"
#include "tar_out.h"

enum { PART_BYTES = 8 << 20, PARTS = 6, THREADS = 8 };
#define SHARD_BYTES_DEFAULT ((uint64_t)128 << 20)

typedef struct pack_call {
  tr_data data;
  tr_location destination;
  tr_pack_source source;
  tr_pack_record record;
  tr_sampler *order; /* NULL: as they come */
  uint64_t shard_bytes, shard_samples;
  uint64_t at; /* the next sample to hand out */
  tr_progress progress;
  atomic_bool stop;
  tr_buffers buffers;

  /* The shard that is being written. */
  bool writing;
  char key[TR_KEY_BYTES];
  tr_pack_shard shard;
  tr_object_out out;
} pack_call;

typedef struct pack_piece {
  uint64_t position, index;
  tr_writer tar;
} pack_piece;

static tr_status next(void *self, void *to, bool *end, tr_error *error) {
  pack_call *call = self;
  pack_piece *piece = to;
  (void)error;
  *end = call->at == call->source.count;
  if (*end) return TR_OK;
  piece->position = call->at;
  piece->index = call->order != NULL ? tr_sampler_at(call->order, 0, call->at) : call->at;
  tr_writer_init(&piece->tar, NULL);
  call->at++;
  return TR_OK;
}

static tr_status work(void *self, void *to, tr_error *error) {
  pack_call *call = self;
  pack_piece *piece = to;
  char key[32];
  snprintf(key, sizeof key, "%08" PRIu64, piece->position);
  TR_TRY(call->source.make(call->source.self, piece->index, key, &piece->tar, error));
  return piece->tar.failed ? tr_fail_memory(error, "a sample", piece->tar.bytes) : TR_OK;
}

static tr_status end_shard(pack_call *call, tr_error *error) {
  static const uint8_t zeros[TAR_END_BYTES];
  TR_TRY(object_out_write(&call->out, zeros, sizeof zeros, error));
  call->writing = false;
  TR_TRY(object_out_commit(&call->out, &call->shard.bytes, &call->shard.crc32c, error));
  TR_TRY(pack_record_add(&call->record, &call->shard, error));
  return pack_record_write(&call->record, error);
}

static tr_status take(void *self, void *to, tr_error *error) {
  pack_call *call = self;
  const pack_piece *piece = to;
  const uint64_t with = call->shard.bytes + piece->tar.bytes + TAR_END_BYTES;
  const bool full = with > call->shard_bytes || (call->shard_samples > 0 && call->shard.samples == call->shard_samples);
  if (call->writing && full) TR_TRY(end_shard(call, error));
  if (!call->writing) {
    pack_shard_key(&call->record, call->record.count, call->key);
    call->shard = (tr_pack_shard){0};
    object_out_begin(&call->out, call->record.store, call->key, &call->buffers);
    call->writing = true;
  }
  TR_TRY(object_out_write(&call->out, piece->tar.data, piece->tar.bytes, error));
  call->shard.bytes += piece->tar.bytes;
  call->shard.samples++;
  progress_bytes(&call->progress, piece->tar.bytes);
  progress_done(&call->progress);
  return TR_OK;
}

static void drop(void *self, void *to) {
  (void)self;
  tr_writer_fini(&((pack_piece *)to)->tar);
}

/* ---- Before and after -------------------------------------------------------------------------------------------- */

static bool ends_with(const char *text, const char *tail) {
  const size_t length = strlen(text), tail_length = strlen(tail);
  return length >= tail_length && strcmp(text + length - tail_length, tail) == 0;
}

static tr_status open_source(pack_call *call, tr_error *error) {
  const tr_cli *cli = call->data.cli;
  const char *url = cli->words[1];
  tr_location at;
  if (ends_with(url, ".csv") || ends_with(url, ".jsonl") || ends_with(url, ".ndjson")) {
    return pack_open_table(&call->data, url, &call->source, error);
  }
  if (cli->image_column != NULL || cli->label_column != NULL) {
    return tr_fail(error, TR_ERR_CONFIG, "%s: columns are of tables: .csv, .jsonl", url);
  }
  TR_TRY(location_find(call->data.remote.stores, url, false, &at, error));
  if (at.kind == LOCATION_FOLDER) return pack_open_folder(&at, &call->source, error);
  return pack_open_idx(&call->data, &call->source, error);
}

static tr_status read_sizes(pack_call *call, tr_error *error) {
  const tr_cli *cli = call->data.cli;
  call->shard_bytes = SHARD_BYTES_DEFAULT;
  if (cli->shard_size != NULL && (!tr_parse_bytes(cli->shard_size, &call->shard_bytes) || call->shard_bytes == 0)) {
    return tr_fail(error, TR_ERR_CONFIG, "--shard-size %s: it takes a size, as 128MiB", cli->shard_size);
  }
  if (cli->shard_samples != NULL &&
      (!tr_parse_u64(cli->shard_samples, &call->shard_samples) || call->shard_samples == 0)) {
    return tr_fail(error, TR_ERR_CONFIG, "--shard-samples %s: it takes a whole number", cli->shard_samples);
  }
  /* Where only the number of samples is given, it decides alone. */
  if (cli->shard_size == NULL && cli->shard_samples != NULL) call->shard_bytes = UINT64_MAX;
  return TR_OK;
}

static tr_status make_order(pack_call *call, tr_error *error) {
  const char *shuffle = call->data.cli->shuffle;
  if (shuffle == NULL || strcmp(shuffle, "false") == 0) return TR_OK;
  const tr_sampler_options options = {.struct_bytes = sizeof options,
                                      .seed = (uint64_t)tr_config_integer(call->data.remote.job.config, "seed"),
                                      .shuffle = TR_SHUFFLE_FULL,
                                      .block_samples = &call->source.count,
                                      .block_count = 1,
                                      .batch_size = 1};
  return tr_sampler_create(&options, &call->order, error);
}

/* All that decides which bytes the shards have, besides the source. */
static uint32_t fingerprint(const pack_call *call) {
  char text[256];
  const tr_cli *cli = call->data.cli;
  const int length = snprintf(
      text, sizeof text, "%" PRIu64 " %" PRIu64 " %" PRId64 " %.80s %.80s", call->shard_bytes, call->shard_samples,
      call->order != NULL ? tr_config_integer(call->data.remote.job.config, "seed") : -1,
      cli->image_column != NULL ? cli->image_column : "", cli->label_column != NULL ? cli->label_column : "");
  return tr_crc32c(call->source.fingerprint, text, (size_t)length);
}

/* DEST is a name: "s3://bucket/train" of s3://bucket/train-000000.tar; a folder gets shards called "shard". */
static tr_status open_destination(pack_call *call, tr_error *error) {
  const char *url = call->data.cli->words[2];
  tr_location *to = &call->destination;
  TR_TRY(location_resolve(call->data.remote.stores, url, to, error));
  const bool folder = ends_with(url, "/") || to->key[0] == '\0';
  const int length = folder ? snprintf(call->record.name, TR_KEY_BYTES, "%sshard", to->prefix)
                            : snprintf(call->record.name, TR_KEY_BYTES, "%.*s",
                                       (int)(strlen(to->key) - (ends_with(to->key, ".tar") ? 4 : 0)), to->key);
  if (length >= TR_KEY_BYTES - 32) return tr_fail(error, TR_ERR_INVALID, "%s: the name is too long", url);
  call->record.store = to->store;
  call->record.samples = call->source.count;
  call->record.fingerprint = fingerprint(call);
  bool other;
  TR_TRY(pack_record_find(&call->record, &other, error));
  if (call->data.cli->force) return pack_record_clear(&call->record, error);
  if (!other) return TR_OK;
  return tr_fail(error, TR_ERR_EXISTS,
                 "%s: shards of that name are there, of other data or other flags; --force removes them and packs anew",
                 url);
}

static tr_status write_classes(const pack_call *call, tr_error *error) {
  char key[TR_KEY_BYTES];
  tr_writer text;
  if (call->source.class_count == 0) return TR_OK;
  snprintf(key, sizeof key, "%.*s-classes.json", TR_KEY_BYTES - 32, call->record.name);
  tr_writer_init(&text, NULL);
  tr_write_text(&text, "{\"classes\": [");
  for (size_t i = 0; i < call->source.class_count; i++) {
    tr_write_text(&text, i > 0 ? ", " : "");
    tr_write_json_string(&text, call->source.classes[i]);
  }
  tr_write_text(&text, "]}\n");
  const tr_status status = text.failed ? tr_fail_memory(error, "the classes", text.bytes)
                                       : tr_store_put(call->record.store, key, text.data, text.bytes, false, error);
  tr_writer_fini(&text);
  return status;
}

static tr_status prepare(pack_call *call, tr_error *error) {
  TR_TRY(read_sizes(call, error));
  TR_TRY(open_source(call, error));
  TR_TRY(make_order(call, error));
  TR_TRY(open_destination(call, error));
  return call->record.complete ? TR_OK : write_classes(call, error);
}

static void summarize(const pack_call *call, uint64_t before) {
  char amount[32], rate[48];
  uint64_t bytes = 0;
  const tr_cli *cli = call->data.cli;
  const double seconds = progress_seconds(&call->progress);
  for (size_t i = 0; i < call->record.count; i++) bytes += call->record.shards[i].bytes;
  tr_format_bytes(bytes, amount);
  progress_rate(atomic_load(&call->progress.bytes), seconds, rate);
  if (cli->json) {
    printf("{\"samples\": %" PRIu64 ", \"shards\": %zu, \"bytes\": %" PRIu64
           ", \"classes\": %zu, \"new_samples\": %" PRIu64 ", \"time_s\": %.3f}\n",
           call->source.count, call->record.count, bytes, call->source.class_count, call->source.count - before,
           seconds);
    return;
  }
  if (cli->quiet) return;
  if (call->source.passed_over > 0) {
    fprintf(stderr, "%" PRIu64 " file%s that are no images were passed over\n", call->source.passed_over,
            call->source.passed_over == 1 ? "" : "s");
  }
  if (before == call->source.count) {
    fprintf(stderr, "nothing to do: %zu shard%s there already (--force packs again)\n", call->record.count,
            call->record.count == 1 ? " is" : "s are");
    return;
  }
  fprintf(stderr, "packed %" PRIu64 " samples into %zu shard%s, %s in %.1f s (%s)%s\n", call->source.count,
          call->record.count, call->record.count == 1 ? "" : "s", amount, seconds, rate,
          before > 0 ? ", going on from an earlier try" : "");
}

static tr_status write_shards(pack_call *call, uint32_t threads, tr_error *error) {
  const tr_crew_job job = {.self = call,
                           .threads = threads,
                           .window = threads * 8,
                           .piece_bytes = sizeof(pack_piece),
                           .next = next,
                           .work = work,
                           .take = take,
                           .drop = drop,
                           .progress = &call->progress,
                           .stop = &call->stop};
  buffers_init(&call->buffers, PART_BYTES, PARTS);
  tr_status status = crew_run(&job, error);
  if (status == TR_OK && call->writing) status = end_shard(call, error);
  if (call->writing) object_out_abort(&call->out);
  buffers_fini(&call->buffers);
  if (status == TR_OK) {
    call->record.complete = true;
    status = pack_record_write(&call->record, error);
  }
  return status;
}

/* The shards as a user would write them, with braces. */
static tr_status index_shards(pack_call *call, tr_error *error) {
  char url[2 * TR_KEY_BYTES];
  const char *typed = call->data.cli->words[2];
  const size_t length = strlen(typed) - (ends_with(typed, ".tar") ? 4 : 0);
  const char *name = call->record.name + strlen(call->record.name) - 5; /* "shard", where a folder was typed */
  const bool folder = ends_with(typed, "/") || call->destination.key[0] == '\0';
  snprintf(url, sizeof url, "%.*s%s%s-{%06d..%06zu}.tar", (int)length, typed,
           folder && !ends_with(typed, "/") ? "/" : "", folder ? name : "", 0, call->record.count - 1);
  const char *const urls[] = {url};
  tr_dataset_options options = call->data.options;
  options.urls = urls;
  options.url_count = 1;
  options.format = "webdataset";
  options.field_count = 0;
  tr_dataset_index_report report = {.struct_bytes = sizeof report};
  TR_TRY(tr_dataset_index(&options, NULL, &report, error));
  if (!call->data.cli->json) data_print_index(call->data.cli, &report);
  return TR_OK;
}

static int run(pack_call *call, uint32_t threads) {
  tr_error error;
  tr_status status = prepare(call, &error);
  if (status != TR_OK) return remote_failed(&error);
  for (size_t i = 0; i < call->record.count; i++) call->at += call->record.shards[i].samples;
  const uint64_t before = call->at;
  progress_begin(&call->progress, call->data.cli, "pack", "samples", 0, call->source.count - before);
  if (!call->record.complete) status = write_shards(call, threads, &error);
  progress_end(&call->progress);
  if (status != TR_OK) {
    fprintf(stderr, "trainrun: %s\n  the same command goes on after the last whole shard\n", error.message);
    return crew_exit_code(&error);
  }
  summarize(call, before);
  if (call->data.cli->no_index) return 0;
  return index_shards(call, &error) == TR_OK ? 0 : remote_failed(&error);
}

int data_pack(const tr_cli *cli) {
  const uint32_t threads = data_threads(cli, THREADS);
  pack_call *call = tr_calloc(NULL, 1, sizeof *call);
  if (threads == 0 || call == NULL) {
    tr_free(NULL, call);
    return EXIT_USAGE;
  }
  int code = data_prepare(&call->data, cli);
  if (code == 0) code = run(call, threads);
  if (call->source.close != NULL) call->source.close(call->source.self);
  tr_sampler_destroy(call->order);
  pack_record_fini(&call->record);
  data_close(&call->data);
  tr_free(NULL, call);
  return code;
}
