/* trainrun data bench: what a bucket can feed.
 *
 * First the store alone: ranged reads of the shards, many under way. Then the loader, as one worker of a job has it. The
 * first says what the bucket gives, the second what a worker makes of it on this machine; how many workers the bucket
 * carries follows from the first and from what one of them needs. */
#include "data_open.h"

#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

enum { RANGE_BYTES = 8 << 20, RANGES = 32, TIMES_MAX = 1 << 20, SECONDS_MAX = 3600 };

typedef struct bench_shard {
  tr_store *store;
  char *key, *etag;
  uint64_t bytes;
} bench_shard;

typedef struct bench_part {
  uint64_t bytes, samples;
  double seconds, cpu_seconds;
} bench_part;

typedef struct bench_call {
  tr_data data;
  uint64_t seconds_ns;
  double need_bytes, need_samples; /* a second; 0: not said */
  bench_shard *shards;
  size_t shard_count;
  uint64_t stored_bytes, samples;
  double open_seconds;

  bench_part raw, loader;
  double *first_byte_ms, *whole_ms;
  size_t times;
  double first_batch_seconds;
  uint64_t batches;
  tr_wait_account waits; /* of the loader, after the first batch */
} bench_call;

static double seconds_since(uint64_t begin_ns) { return (double)(tr_clock_now_ns(NULL) - begin_ns) * 1e-9; }

static double cpu_seconds(void) {
  struct rusage used;
  getrusage(RUSAGE_SELF, &used);
  return (double)(used.ru_utime.tv_sec + used.ru_stime.tv_sec) +
         (double)(used.ru_utime.tv_usec + used.ru_stime.tv_usec) * 1e-6;
}

/* ---- The shards -------------------------------------------------------------------------------------------------- */

static tr_status take_shard(bench_call *call, const json_t *shard, tr_error *error) {
  char key[TR_KEY_BYTES];
  bench_shard made = {.bytes = (uint64_t)json_integer_value(json_object_get(shard, "bytes"))};
  const char *url = json_string_value(json_object_get(shard, "url"));
  const char *etag = json_string_value(json_object_get(shard, "etag"));
  TR_TRY(tr_stores_resolve(call->data.remote.stores, url != NULL ? url : "", &made.store, key, error));
  made.key = tr_strdup(NULL, key);
  made.etag = tr_strdup(NULL, etag != NULL ? etag : "");
  call->shards[call->shard_count++] = made;
  call->stored_bytes += made.bytes;
  return made.key != NULL && made.etag != NULL ? TR_OK : tr_fail_memory(error, "the list of shards", sizeof made);
}

static tr_status take_shards(bench_call *call, tr_error *error) {
  tr_writer text;
  tr_writer_init(&text, NULL);
  tr_dataset_write_lock(call->data.dataset, &text);
  json_t *lock = text.failed ? NULL : json_loadb((const char *)text.data, text.bytes, 0, NULL);
  tr_writer_fini(&text);
  const json_t *shards = json_object_get(lock, "shards");
  const size_t count = json_array_size(shards);
  call->shards = tr_calloc(NULL, count > 0 ? count : 1, sizeof *call->shards);
  tr_status status = lock != NULL && call->shards != NULL ? TR_OK : tr_fail_memory(error, "the list of shards", count);
  for (size_t i = 0; status == TR_OK && i < count; i++) status = take_shard(call, json_array_get(shards, i), error);
  json_decref(lock);
  call->samples = tr_dataset_size(call->data.dataset);
  return status;
}

/* ---- The store alone --------------------------------------------------------------------------------------------- */

typedef struct raw_walk {
  size_t shard;
  uint64_t offset;
} raw_walk;

/* The next range, from the first shard again after the last. */
static tr_store_request next_range(const bench_call *call, raw_walk *walk, void *buffer, tr_store **store) {
  while (walk->offset >= call->shards[walk->shard].bytes) {
    walk->shard = (walk->shard + 1) % call->shard_count;
    walk->offset = 0;
  }
  const bench_shard *shard = &call->shards[walk->shard];
  const uint64_t left = shard->bytes - walk->offset;
  const tr_store_request request = {.struct_bytes = sizeof request,
                                    .verb = TR_STORE_GET,
                                    .key = shard->key,
                                    .offset = walk->offset,
                                    .buffer = buffer,
                                    .buffer_bytes = (size_t)(left < RANGE_BYTES ? left : RANGE_BYTES),
                                    .if_match = shard->etag[0] != '\0' ? shard->etag : NULL};
  walk->offset += request.buffer_bytes;
  *store = shard->store;
  return request;
}

static void note_times(bench_call *call, const tr_store_request *request) {
  if (call->times == TIMES_MAX) return;
  const uint64_t first = request->first_byte_ns > 0 ? request->first_byte_ns : request->done_ns;
  call->first_byte_ms[call->times] = (double)(first - request->submitted_ns) * 1e-6;
  call->whole_ms[call->times++] = (double)(request->done_ns - request->submitted_ns) * 1e-6;
}

static tr_status read_raw(bench_call *call, uint8_t *memory, tr_error *error) {
  tr_store_request requests[RANGES];
  tr_store *stores[RANGES];
  raw_walk walk = {0};
  uint64_t sent = 0, ended = 0;
  tr_status status = TR_OK;
  const uint64_t begin = tr_clock_now_ns(NULL);
  const double cpu = cpu_seconds();
  for (;;) {
    const bool more = status == TR_OK && tr_clock_now_ns(NULL) - begin < call->seconds_ns;
    while (more && status == TR_OK && sent - ended < RANGES) {
      const size_t i = (size_t)(sent % RANGES);
      requests[i] = next_range(call, &walk, memory + i * RANGE_BYTES, &stores[i]);
      status = tr_store_submit(stores[i], &requests[i], error);
      sent += status == TR_OK;
    }
    if (ended == sent) break;
    const size_t i = (size_t)(ended++ % RANGES);
    const tr_status one = tr_store_wait(stores[i], &requests[i], status == TR_OK ? error : NULL);
    if (one == TR_OK) {
      call->raw.bytes += requests[i].bytes;
      note_times(call, &requests[i]);
    } else if (status == TR_OK) {
      status = one;
    }
  }
  call->raw.seconds = seconds_since(begin);
  call->raw.cpu_seconds = cpu_seconds() - cpu;
  return status;
}

static int by_value(const void *a, const void *b) {
  const double x = *(const double *)a, y = *(const double *)b;
  return x < y ? -1 : x > y;
}

static tr_status measure_raw(bench_call *call, tr_error *error) {
  uint8_t *memory = tr_alloc_aligned(NULL, (size_t)RANGES * RANGE_BYTES, 4096);
  call->first_byte_ms = tr_calloc(NULL, TIMES_MAX, sizeof(double));
  call->whole_ms = tr_calloc(NULL, TIMES_MAX, sizeof(double));
  tr_status status = TR_OK;
  if (memory == NULL || call->first_byte_ms == NULL || call->whole_ms == NULL) {
    status = tr_fail_memory(error, "the bench", (size_t)RANGES * RANGE_BYTES);
  }
  if (status == TR_OK) status = read_raw(call, memory, error);
  if (call->times > 0) {
    qsort(call->first_byte_ms, call->times, sizeof(double), by_value);
    qsort(call->whole_ms, call->times, sizeof(double), by_value);
  }
  tr_free_aligned(NULL, memory, (size_t)RANGES * RANGE_BYTES);
  return status;
}

/* ---- The loader -------------------------------------------------------------------------------------------------- */

static tr_status run_loader(bench_call *call, tr_loader *loader, uint64_t begin, tr_error *error) {
  double cpu = 0;
  uint64_t steady_ns = 0;
  bool end = false;
  while (!end && (steady_ns == 0 || tr_clock_now_ns(NULL) - steady_ns < call->seconds_ns)) {
    tr_batch_info info;
    TR_TRY(tr_loader_begin(loader, &info, &end, error));
    if (end) break;
    for (uint64_t leaf = info.leaf_begin; leaf < info.leaf_end; leaf++) {
      tr_micro_batch batch;
      TR_TRY(tr_loader_next(loader, &batch, steady_ns > 0 ? &call->waits : NULL, error));
    }
    tr_loader_commit(loader);
    if (steady_ns == 0) { /* what starts up is the first batch's, what follows is the rate */
      call->first_batch_seconds = seconds_since(begin);
      steady_ns = tr_clock_now_ns(NULL);
      cpu = cpu_seconds();
      continue;
    }
    call->loader.samples += info.rows;
    call->batches++;
  }
  call->loader.seconds = steady_ns > 0 ? seconds_since(steady_ns) : 0;
  call->loader.cpu_seconds = cpu_seconds() - cpu;
  call->loader.bytes = (uint64_t)((double)call->loader.samples * (double)call->stored_bytes /
                                  (double)(call->samples + !call->samples));
  return TR_OK;
}

static tr_status measure_loader(bench_call *call, tr_error *error) {
  const tr_config *config = call->data.remote.job.config;
  const tr_device_options device_options = {.struct_bytes = sizeof device_options, .kind = TR_DEVICE_CPU};
  tr_device *device = NULL;
  tr_loader *loader = NULL;
  const uint64_t begin = tr_clock_now_ns(NULL);
  TR_TRY(tr_device_open(&device_options, &device, error));
  tr_loader_options options = {.struct_bytes = sizeof options,
                               .log = call->data.remote.log,
                               .device = device,
                               .dataset = call->data.dataset,
                               .seed = (uint64_t)tr_config_integer(config, "seed"),
                               .shuffle = data_shuffle(&call->data),
                               .streams = (uint64_t)tr_config_integer(config, "data.streams"),
                               .batch_size = (uint64_t)tr_config_integer(config, "data.batch-size"),
                               .micro_batch = data_micro_batch(&call->data),
                               .size = 1,
                               .prefetch_bytes = tr_config_bytes(config, "data.prefetch"),
                               .transforms = call->data.options.transforms,
                               .transform_count = call->data.options.transform_count};
  tr_status status = tr_loader_open(&options, &loader, error);
  if (status == TR_OK) status = run_loader(call, loader, begin, error);
  tr_loader_close(loader);
  tr_device_close(device);
  return status;
}

/* ---- Telling ----------------------------------------------------------------------------------------------------- */

static double rate(uint64_t amount, double seconds) { return seconds > 0 ? (double)amount / seconds : 0; }

static double cpu_per_gb(const bench_part *part) {
  return part->bytes > 0 ? part->cpu_seconds / ((double)part->bytes * 1e-9) : 0;
}

static double at(const bench_call *call, const double *sorted, size_t percent) {
  return call->times > 0 ? sorted[(call->times - 1) * percent / 100] : 0;
}

/* Bytes a second that one worker needs; 0: not said. */
static double need_of(const bench_call *call) {
  if (call->need_bytes > 0 || call->samples == 0) return call->need_bytes;
  return call->need_samples * (double)call->stored_bytes / (double)call->samples;
}

static double workers_of(const bench_call *call) {
  const double need = need_of(call);
  return need > 0 ? rate(call->raw.bytes, call->raw.seconds) / need : 0;
}

/* What the loader waited for most. */
static const char *longest_wait(const tr_wait_account *waits) {
  const struct {
    uint64_t ns;
    const char *name;
  } causes[] = {{waits->decode_ns, "decoding"},
                {waits->first_byte_ns, "first bytes"},
                {waits->bandwidth_ns, "bandwidth"},
                {waits->throttled_ns, "a throttling store"},
                {waits->retry_ns, "requests asked again"},
                {waits->other_ns, "something else"}};
  size_t most = 0;
  for (size_t i = 1; i < sizeof causes / sizeof *causes; i++) {
    if (causes[i].ns > causes[most].ns) most = i;
  }
  return causes[most].name;
}

static void print_need(const bench_call *call) {
  const double need = need_of(call), workers = workers_of(call);
  char each[64];
  if (need <= 0) return;
  if (call->need_bytes > 0) {
    snprintf(each, sizeof each, "%.4g MB/s", need * 1e-6);
  } else {
    snprintf(each, sizeof each, "%.6g samples/s", call->need_samples);
  }
  if (workers >= 1) {
    printf("this bucket feeds %.0f worker%s that need%s %s each\n", (double)(uint64_t)workers, workers < 2 ? "" : "s",
           workers < 2 ? "s" : "", each);
  } else {
    printf("this bucket does not feed a worker that needs %s: it gives %.0f %% of that\n", each, workers * 100);
  }
  if (call->loader.seconds > 0 && rate(call->loader.bytes, call->loader.seconds) < need) {
    printf("one loader on this machine makes %.4g MB/s (%.6g samples/s), which is less: it waits for %s most\n",
           rate(call->loader.bytes, call->loader.seconds) * 1e-6, rate(call->loader.samples, call->loader.seconds),
           longest_wait(&call->waits));
  }
}

static void print_text(const bench_call *call) {
  const bench_part *raw = &call->raw, *loader = &call->loader;
  printf("%-12s %.3f GB/s, %.4g samples/s, %.2f CPU seconds a GB\n", "store", rate(raw->bytes, raw->seconds) * 1e-9,
         rate(raw->bytes, raw->seconds) * (double)call->samples / (double)(call->stored_bytes + !call->stored_bytes),
         cpu_per_gb(raw));
  printf("%-12s %.2f ms median, %.2f ms p90, %.2f ms p99\n", "  first byte", at(call, call->first_byte_ms, 50),
         at(call, call->first_byte_ms, 90), at(call, call->first_byte_ms, 99));
  printf("%-12s %.2f ms median, %.2f ms p90, %.2f ms p99 (ranges of 8 MiB, %d under way)\n", "  whole",
         at(call, call->whole_ms, 50), at(call, call->whole_ms, 90), at(call, call->whole_ms, 99), RANGES);
  printf("%-12s %.3f GB/s, %.4g samples/s, %.2f CPU seconds a GB, one worker\n", "loader",
         rate(loader->bytes, loader->seconds) * 1e-9, rate(loader->samples, loader->seconds), cpu_per_gb(loader));
  printf("%-12s %.0f ms (and %.0f ms to open the data set)\n", "first batch", call->first_batch_seconds * 1e3,
         call->open_seconds * 1e3);
  print_need(call);
}

static void print_json(const bench_call *call) {
  const bench_part *raw = &call->raw, *loader = &call->loader;
  printf(
      "{\"store\": {\"bytes_per_s\": %.0f, \"samples_per_s\": %.3f, \"cpu_s_per_gb\": %.4f, \"requests\": %zu, "
      "\"first_byte_ms\": {\"p50\": %.3f, \"p90\": %.3f, \"p99\": %.3f}, \"whole_ms\": {\"p50\": %.3f, \"p90\": %.3f, "
      "\"p99\": %.3f}}, ",
      rate(raw->bytes, raw->seconds),
      rate(raw->bytes, raw->seconds) * (double)call->samples / (double)(call->stored_bytes + !call->stored_bytes),
      cpu_per_gb(raw), call->times, at(call, call->first_byte_ms, 50), at(call, call->first_byte_ms, 90),
      at(call, call->first_byte_ms, 99), at(call, call->whole_ms, 50), at(call, call->whole_ms, 90),
      at(call, call->whole_ms, 99));
  printf("\"loader\": {\"bytes_per_s\": %.0f, \"samples_per_s\": %.3f, \"cpu_s_per_gb\": %.4f, \"batches\": %" PRIu64
         ", \"first_batch_s\": %.6f, \"open_s\": %.6f, \"waits_for\": \"%s\"}, ",
         rate(loader->bytes, loader->seconds), rate(loader->samples, loader->seconds), cpu_per_gb(loader),
         call->batches, call->first_batch_seconds, call->open_seconds, longest_wait(&call->waits));
  printf("\"samples\": %" PRIu64 ", \"bytes\": %" PRIu64, call->samples, call->stored_bytes);
  if (need_of(call) > 0) {
    printf(", \"need_bytes_per_s\": %.0f, \"workers\": %" PRIu64, need_of(call), (uint64_t)workers_of(call));
  }
  printf("}\n");
}

/* ---- The command ------------------------------------------------------------------------------------------------- */

/* "3.2 GB/s", "250MB", "1GiB/s". */
static bool parse_need(const char *text, double *bytes) {
  char plain[64];
  size_t length = 0;
  uint64_t value;
  for (const char *c = text; *c != '\0' && length + 1 < sizeof plain; c++) {
    if (*c != ' ') plain[length++] = *c;
  }
  if (length > 2 && plain[length - 2] == '/' && plain[length - 1] == 's') length -= 2;
  plain[length] = '\0';
  if (!tr_parse_bytes(plain, &value) || value == 0) return false;
  *bytes = (double)value;
  return true;
}

static bool read_flags(bench_call *call, const tr_cli *cli) {
  uint64_t plain = 5;
  call->seconds_ns = 5000000000ull;
  if (cli->seconds != NULL && tr_parse_u64(cli->seconds, &plain)) {
    call->seconds_ns = plain * 1000000000ull;
  } else if (cli->seconds != NULL && !tr_parse_duration(cli->seconds, &call->seconds_ns)) {
    plain = 0;
  }
  if (plain == 0 || plain > SECONDS_MAX || call->seconds_ns == 0) {
    fprintf(stderr, "trainrun: --seconds %s: it takes 1 to %d\n", cli->seconds, SECONDS_MAX);
    return false;
  }
  if (cli->need != NULL && !parse_need(cli->need, &call->need_bytes)) {
    fprintf(stderr, "trainrun: --need '%s': it takes bytes a second, as '250 MB/s'\n", cli->need);
    return false;
  }
  if (cli->need_samples != NULL &&
      (!tr_parse_real(cli->need_samples, &call->need_samples) || call->need_samples <= 0)) {
    fprintf(stderr, "trainrun: --need-samples %s: it takes samples a second\n", cli->need_samples);
    return false;
  }
  return true;
}

static void free_shards(bench_call *call) {
  for (size_t i = 0; i < call->shard_count; i++) {
    tr_free(NULL, call->shards[i].key);
    tr_free(NULL, call->shards[i].etag);
  }
  tr_free(NULL, call->shards);
  tr_free(NULL, call->first_byte_ms);
  tr_free(NULL, call->whole_ms);
}

int data_bench(const tr_cli *cli) {
  bench_call call = {0};
  tr_error error;
  if (!read_flags(&call, cli)) return EXIT_USAGE;
  const uint64_t begin = tr_clock_now_ns(NULL);
  int code = data_open(&call.data, cli);
  call.open_seconds = seconds_since(begin);
  if (code == 0) {
    tr_status status = take_shards(&call, &error);
    if (status == TR_OK && call.stored_bytes == 0) {
      status = tr_fail(&error, TR_ERR_INVALID, "%s: the shards hold nothing", cli->words[1]);
    }
    if (status == TR_OK) status = measure_raw(&call, &error);
    if (status == TR_OK) status = measure_loader(&call, &error);
    if (status == TR_OK) {
      cli->json ? print_json(&call) : print_text(&call);
    } else {
      code = remote_failed(&error);
    }
  }
  free_shards(&call);
  data_close(&call.data);
  return code;
}
