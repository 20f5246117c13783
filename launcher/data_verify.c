/* trainrun data verify: reads and decodes every sample and names those that fail.
 *
 * The loader reads, as for training: in large pieces, many under way, with a row that is bad passed over. Those rows are
 * then read alone, for what is wrong with them. */
#include "data_open.h"

#include "crew.h"

#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { BATCH_SAMPLES = 256, MICRO_SAMPLES = 32, SKIPPED_MAX = 512, LOCK_BYTES_MAX = 1 << 30 };

typedef struct verify_call {
  tr_data data;
  uint64_t size;                     /* of the data set that is open */
  uint64_t samples, bad, bad_shards; /* of all */
  tr_progress progress;
} verify_call;

static tr_status print_bad(verify_call *call, uint64_t id, const tr_error *why, tr_error *error) {
  char name[512];
  tr_writer text;
  tr_writer_init(&text, NULL);
  tr_dataset_sample_name(call->data.dataset, id, name, sizeof name);
  call->bad++;
  if (!call->data.cli->json) {
    tr_write_text(&text, "bad sample %" PRIu64 " (%s): %s\n", id, name, why->message);
  } else {
    tr_write_text(&text, "{\"index\": %" PRIu64 ", \"sample\": ", id);
    tr_write_json_string(&text, name);
    tr_write_text(&text, ", \"status\": \"%s\", \"why\": ", tr_status_name(why->status));
    tr_write_json_string(&text, why->message);
    tr_write_text(&text, "}\n");
  }
  const tr_status status = data_print(&text, error);
  tr_writer_fini(&text);
  return status;
}

/* What is wrong with a sample's bytes is for the list; what is wrong with the store ends the command. */
static bool is_of_the_sample(tr_status status) {
  return status == TR_ERR_CORRUPT || status == TR_ERR_UNSUPPORTED || status == TR_ERR_CHANGED ||
         status == TR_ERR_NOT_FOUND;
}

/* Memory for one sample: each field begins at a multiple of 64 bytes. */
static char *make_sample(const tr_dataset *dataset, void *to[TR_FIELDS_MAX], size_t *bytes) {
  const tr_field *fields;
  const size_t count = tr_dataset_fields(dataset, &fields);
  size_t offsets[TR_FIELDS_MAX], used = 0;
  for (size_t i = 0; i < count; i++) {
    offsets[i] = used;
    used += (fields[i].bytes + 63) / 64 * 64;
  }
  *bytes = used + 64;
  char *memory = tr_alloc_aligned(NULL, *bytes, 64);
  for (size_t i = 0; memory != NULL && i < count; i++) to[i] = memory + offsets[i];
  return memory;
}

/* Why a sample was passed over. Where it is good now, it was the wire. */
static tr_status explain(verify_call *call, uint64_t id, tr_error *error) {
  void *to[TR_FIELDS_MAX];
  size_t bytes;
  tr_error why;
  char *memory = make_sample(call->data.dataset, to, &bytes);
  if (memory == NULL) return tr_fail_memory(error, "a sample", bytes);
  const tr_status status = tr_dataset_read(call->data.dataset, id, to, &why);
  tr_free_aligned(NULL, memory, bytes);
  if (status == TR_OK) return TR_OK;
  if (is_of_the_sample(status)) return print_bad(call, id, &why, error);
  *error = why;
  return status;
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

static tr_status run_loader(verify_call *call, tr_loader *loader, const sigset_t *signals, tr_error *error) {
  bool end = false;
  for (;;) {
    const struct timespec now = {0};
    const int number = sigtimedwait(signals, NULL, &now);
    tr_batch_info info;
    uint64_t ids[SKIPPED_MAX];
    if (number > 0) return crew_stopped(number, error);
    TR_TRY(tr_loader_begin(loader, &info, &end, error));
    if (end) return TR_OK;
    for (uint64_t leaf = info.leaf_begin; leaf < info.leaf_end; leaf++) {
      tr_micro_batch batch;
      TR_TRY(tr_loader_next(loader, &batch, NULL, error));
      progress_add_done(&call->progress, batch.row_count);
      progress_draw(&call->progress);
    }
    tr_loader_commit(loader);
    const size_t count = tr_loader_skipped(loader, ids, SKIPPED_MAX);
    for (size_t i = 0; i < count; i++) TR_TRY(explain(call, ids[i], error));
  }
}

/* Every sample of the data set that is open. */
static tr_status verify_open(verify_call *call, uint32_t threads, tr_error *error) {
  tr_device *device = NULL;
  tr_loader *loader = NULL;
  sigset_t signals, before;
  const tr_device_options device_options = {.struct_bytes = sizeof device_options, .kind = TR_DEVICE_CPU};
  TR_TRY(tr_device_open(&device_options, &device, error));
  call->size = tr_dataset_size(call->data.dataset);
  call->samples += call->size;
  progress_begin(&call->progress, call->data.cli, "verify", "samples", 0, call->size);
  tr_loader_options options = {.struct_bytes = sizeof options,
                               .log = call->data.remote.log,
                               .device = device,
                               .dataset = call->data.dataset,
                               .shuffle = TR_SHUFFLE_NONE,
                               .batch_size = BATCH_SAMPLES,
                               .micro_batch = MICRO_SAMPLES,
                               .size = 1,
                               .epochs = 1,
                               .prefetch_bytes = tr_config_bytes(call->data.remote.job.config, "data.prefetch"),
                               .threads = threads,
                               .skip_corrupt = true};
  crew_block_signals(&signals, &before);
  tr_status status = tr_loader_open(&options, &loader, error);
  if (status == TR_OK) status = run_loader(call, loader, &signals, error);
  tr_loader_close(loader);
  sigprocmask(SIG_SETMASK, &before, NULL);
  tr_device_close(device);
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

static tr_status verify_alone(verify_call *call, const char *url, uint32_t threads, tr_error *error) {
  tr_dataset_options options = call->data.options;
  tr_error why;
  options.urls = &url;
  options.url_count = 1;
  tr_status status = tr_dataset_open(&options, &call->data.dataset, &why);
  if (status == TR_OK) {
    status = verify_open(call, threads, error);
    tr_dataset_close(call->data.dataset);
    call->data.dataset = NULL;
  } else if (is_of_the_sample(status)) {
    status = print_bad_shard(call, url, &why, error);
  } else {
    *error = why;
  }
  return status;
}

static bool is_shard(const char *name) {
  static const char *const tails[] = {".tar", ".tar.gz", ".tgz", ".csv", ".csv.gz", ".bin"};
  const size_t length = strlen(name);
  for (size_t i = 0; i < sizeof tails / sizeof *tails; i++) {
    const size_t tail = strlen(tails[i]);
    if (length > tail && name[0] != '.' && strcmp(name + length - tail, tails[i]) == 0) return true;
  }
  return false;
}

/* The shards of a folder one after the other, or the shard itself. */
static tr_status verify_place(verify_call *call, const char *url, uint32_t threads, tr_error *error) {
  tr_location at;
  tr_listing listing;
  const tr_list_entry *entry = NULL;
  TR_TRY(location_find(call->data.remote.stores, url, false, &at, error));
  if (at.kind != LOCATION_FOLDER) return verify_alone(call, url, threads, error);
  tr_status status;
  listing_begin(&listing, at.store, at.prefix);
  while ((status = listing_next(&listing, &entry, error)) == TR_OK && entry != NULL) {
    const char *name = entry->key + strlen(at.prefix);
    char shard[2 * TR_KEY_BYTES];
    if (strchr(name, '/') != NULL || !is_shard(name)) continue;
    location_url_of(&at, name, shard, sizeof shard);
    status = verify_alone(call, shard, threads, error);
    if (status != TR_OK) break;
  }
  listing_end(&listing);
  return status;
}

/* One shard that cannot be opened must not hide what is in the others: then each is looked at alone. */
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
    for (size_t j = 0; status == TR_OK && j < count; j++) status = verify_place(call, urls[j], threads, error);
    if (status != TR_OK) break;
  }
  tr_arena_destroy(arena);
  return status;
}

int data_verify(const tr_cli *cli) {
  verify_call call = {0};
  tr_error error;
  const long cores = sysconf(_SC_NPROCESSORS_ONLN);
  const uint32_t threads = data_threads(cli, cores > 0 && cores < DATA_THREADS_MAX ? (uint32_t)cores : DATA_THREADS);
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
