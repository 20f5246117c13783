/* trainrun data verify: reads and decodes every sample and names those that fail. */
#include "data_open.h"

#include "crew.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

enum { RUN_SAMPLES = 16, LOCK_BYTES_MAX = 1 << 30 };

typedef struct verify_call {
  tr_data data;
  uint64_t at, size;                 /* of the data set that is open */
  uint64_t samples, bad, bad_shards; /* of all */
  size_t sample_bytes, field_count;
  size_t offsets[TR_FIELDS_MAX];
  tr_progress progress;
  atomic_bool stop;
} verify_call;

/* A few samples in a row. */
typedef struct verify_piece {
  uint64_t first, count;
  tr_writer text; /* of the bad ones */
  uint64_t bad;
} verify_piece;

static tr_status next(void *self, void *to, bool *end, tr_error *error) {
  verify_call *call = self;
  verify_piece *piece = to;
  (void)error;
  const uint64_t left = call->size - call->at;
  *end = left == 0;
  piece->first = call->at;
  piece->count = left < RUN_SAMPLES ? left : RUN_SAMPLES;
  tr_writer_init(&piece->text, NULL);
  call->at += piece->count;
  return TR_OK;
}

static void describe(const verify_call *call, verify_piece *piece, uint64_t id, const tr_error *why) {
  char name[512];
  tr_writer *text = &piece->text;
  tr_dataset_sample_name(call->data.dataset, id, name, sizeof name);
  piece->bad++;
  if (!call->data.cli->json) {
    tr_write_text(text, "bad sample %" PRIu64 " (%s): %s\n", id, name, why->message);
    return;
  }
  tr_write_text(text, "{\"index\": %" PRIu64 ", \"sample\": ", id);
  tr_write_json_string(text, name);
  tr_write_text(text, ", \"status\": \"%s\", \"why\": ", tr_status_name(why->status));
  tr_write_json_string(text, why->message);
  tr_write_text(text, "}\n");
}

/* What is wrong with a sample's bytes is for the list; what is wrong with the store ends the command. */
static bool is_of_the_sample(tr_status status) {
  return status == TR_ERR_CORRUPT || status == TR_ERR_UNSUPPORTED || status == TR_ERR_CHANGED ||
         status == TR_ERR_NOT_FOUND;
}

static tr_status work(void *self, void *to, tr_error *error) {
  verify_call *call = self;
  verify_piece *piece = to;
  char *memory = tr_alloc_aligned(NULL, call->sample_bytes, 64);
  void *fields[TR_FIELDS_MAX];
  tr_status status = TR_OK;
  if (memory == NULL) return tr_fail_memory(error, "a sample", call->sample_bytes);
  for (size_t i = 0; i < call->field_count; i++) fields[i] = memory + call->offsets[i];
  for (uint64_t i = 0; i < piece->count && status == TR_OK && !atomic_load(&call->stop); i++) {
    status = tr_dataset_read(call->data.dataset, piece->first + i, fields, error);
    if (status != TR_OK && is_of_the_sample(status)) {
      describe(call, piece, piece->first + i, error);
      status = TR_OK;
    }
    progress_done(&call->progress);
  }
  tr_free_aligned(NULL, memory, call->sample_bytes);
  return status;
}

static tr_status take(void *self, void *to, tr_error *error) {
  verify_call *call = self;
  const verify_piece *piece = to;
  call->bad += piece->bad;
  return piece->bad > 0 ? data_print(&piece->text, error) : TR_OK;
}

static void drop(void *self, void *to) {
  (void)self;
  tr_writer_fini(&((verify_piece *)to)->text);
}

static tr_status check_lock(verify_call *call, const char *path, tr_error *error) {
  tr_store *store;
  char key[TR_KEY_BYTES];
  void *lock = NULL;
  size_t bytes = 0;
  TR_TRY(tr_stores_resolve(call->data.remote.stores, path, &store, key, error));
  TR_TRY(tr_store_get_all(store, NULL, key, LOCK_BYTES_MAX, &lock, &bytes, error));
  const tr_status status = tr_dataset_check_lock(call->data.dataset, lock, bytes, error);
  tr_free(NULL, lock);
  return status == TR_OK ? TR_OK : tr_error_context(error, status, "%s", path);
}

static void lay_out(verify_call *call) {
  const tr_field *fields;
  call->sample_bytes = 0;
  call->field_count = tr_dataset_fields(call->data.dataset, &fields);
  for (size_t i = 0; i < call->field_count; i++) {
    call->offsets[i] = call->sample_bytes;
    call->sample_bytes += (fields[i].bytes + 63) / 64 * 64;
  }
  call->sample_bytes += 64;
}

static void summarize(const verify_call *call, double seconds) {
  const uint64_t good = call->samples - call->bad;
  if (call->data.cli->json) {
    printf("{\"samples\": %" PRIu64 ", \"good\": %" PRIu64 ", \"bad\": %" PRIu64 ", \"bad_shards\": %" PRIu64
           ", \"time_s\": %.3f}\n",
           call->samples, good, call->bad, call->bad_shards, seconds);
  } else if (!call->data.cli->quiet) {
    fflush(stdout);
    fprintf(stderr, "%" PRIu64 " samples read in %.1f s: %" PRIu64 " good, %" PRIu64 " bad", call->samples, seconds,
            good, call->bad);
    if (call->bad_shards > 0) {
      fprintf(stderr, "; %" PRIu64 " shard%s cannot be opened", call->bad_shards, call->bad_shards == 1 ? "" : "s");
    }
    fprintf(stderr, "\n");
  }
}

/* Every sample of the data set that is open. */
static tr_status verify_open(verify_call *call, uint32_t threads, tr_error *error) {
  call->at = 0;
  call->size = tr_dataset_size(call->data.dataset);
  call->samples += call->size;
  lay_out(call);
  progress_begin(&call->progress, call->data.cli, "verify", "samples", 0, call->size);
  const tr_crew_job job = {.self = call,
                           .threads = threads,
                           .window = threads * 4,
                           .piece_bytes = sizeof(verify_piece),
                           .next = next,
                           .work = work,
                           .take = take,
                           .drop = drop,
                           .progress = &call->progress,
                           .stop = &call->stop};
  const tr_status status = crew_run(&job, error);
  progress_end(&call->progress);
  return status;
}

static tr_status print_bad_shard(verify_call *call, const char *url, const tr_error *why, tr_error *error) {
  tr_writer text;
  tr_writer_init(&text, NULL);
  call->bad_shards++;
  if (call->data.cli->json) {
    tr_write_text(&text, "{\"shard\": ");
    tr_write_json_string(&text, url);
    tr_write_text(&text, ", \"status\": \"%s\", \"why\": ", tr_status_name(why->status));
    tr_write_json_string(&text, why->message);
    tr_write_text(&text, "}\n");
  } else {
    tr_write_text(&text, "bad shard %s: %s\n", url, why->message);
  }
  const tr_status status = data_print(&text, error);
  tr_writer_fini(&text);
  return status;
}

/* One shard that cannot be opened must not hide what is in the others: each is looked at alone. */
static tr_status verify_alone(verify_call *call, const char *const *urls, size_t count, uint32_t threads,
                              tr_error *error) {
  tr_dataset_options options = call->data.options;
  for (size_t i = 0; i < count; i++) {
    tr_error why;
    options.urls = &urls[i];
    options.url_count = 1;
    tr_status status = tr_dataset_open(&options, &call->data.dataset, &why);
    if (status == TR_OK) {
      status = verify_open(call, threads, error);
      tr_dataset_close(call->data.dataset);
      call->data.dataset = NULL;
    } else if (is_of_the_sample(status)) {
      status = print_bad_shard(call, urls[i], &why, error);
    } else {
      *error = why;
    }
    if (status != TR_OK) return status;
  }
  return TR_OK;
}

static tr_status verify(verify_call *call, uint32_t threads, tr_error *error) {
  tr_data *data = &call->data;
  tr_error why;
  tr_status status = tr_dataset_open(&data->options, &data->dataset, &why);
  if (status == TR_OK) {
    if (data->cli->lock != NULL) TR_TRY(check_lock(call, data->cli->lock, error));
    return verify_open(call, threads, error);
  }
  if (status != TR_ERR_CORRUPT) {
    *error = why;
    return status;
  }
  tr_arena *arena = NULL;
  TR_TRY(tr_arena_create(NULL, 4096, &arena, error));
  for (size_t i = 0; i < data->options.url_count; i++) {
    const char *const *urls;
    size_t count;
    status = tr_url_expand(arena, data->options.urls[i], &urls, &count, error);
    if (status == TR_OK) status = verify_alone(call, urls, count, threads, error);
    if (status != TR_OK) break;
  }
  tr_arena_destroy(arena);
  return status;
}

int data_verify(const tr_cli *cli) {
  verify_call call = {0};
  tr_error error;
  const uint32_t threads = data_threads(cli, DATA_THREADS);
  if (threads == 0) return EXIT_USAGE;
  const uint64_t begin = tr_clock_now_ns(NULL);
  int code = data_prepare(&call.data, cli);
  if (code == 0) {
    const tr_status status = verify(&call, threads, &error);
    if (status == TR_OK) {
      summarize(&call, (double)(tr_clock_now_ns(NULL) - begin) * 1e-9);
      code = call.bad > 0 || call.bad_shards > 0 ? 1 : 0;
    } else {
      fprintf(stderr, "trainrun: %s\n", error.message);
      code = crew_exit_code(&error);
    }
  }
  data_close(&call.data);
  return code;
}
