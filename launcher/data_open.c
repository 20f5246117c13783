/* Opening the data set of a command: see data_open.h. */
#include "data_open.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

static int take_fields(tr_data *data) {
  const tr_value *fields = tr_config_find(data->remote.job.config, "data.fields");
  for (size_t i = 0; fields != NULL && i < fields->count; i++) {
    if (i == TR_FIELDS_MAX) {
      fprintf(stderr, "trainrun: data.fields: more than %d fields\n", TR_FIELDS_MAX);
      return EXIT_CONFIG;
    }
    data->fields[i] = (tr_field_source){fields->items[i].key, fields->items[i].text};
    data->options.field_count = i + 1;
  }
  return 0;
}

int data_prepare(tr_data *data, const tr_cli *cli) {
  memset(data, 0, sizeof *data);
  data->cli = cli;
  const int code = remote_open(&data->remote, cli);
  if (code != 0) return code;
  const tr_config *config = data->remote.job.config;
  data->options = (tr_dataset_options){.struct_bytes = sizeof data->options,
                                       .log = data->remote.log,
                                       .stores = data->remote.stores,
                                       .urls = cli->words + 1,
                                       .url_count = cli->word_count - 1,
                                       .format = tr_config_text(config, "data.format"),
                                       .fields = data->fields,
                                       .sequence_length = (uint64_t)tr_config_integer(config, "data.sequence-length")};
  data->options.transform_count = tr_config_strings(config, "data.transforms", &data->options.transforms);
  return take_fields(data);
}

int data_open(tr_data *data, const tr_cli *cli) {
  tr_error error;
  const int code = data_prepare(data, cli);
  if (code != 0) return code;
  return tr_dataset_open(&data->options, &data->dataset, &error) == TR_OK ? 0 : remote_failed(&error);
}

void data_close(tr_data *data) {
  tr_dataset_close(data->dataset);
  tr_cache_close(data->cache);
  remote_close(&data->remote);
}

tr_shuffle data_shuffle(const tr_data *data) {
  const char *text = tr_config_text(data->remote.job.config, "data.shuffle");
  return strcmp(text, "full") == 0    ? TR_SHUFFLE_FULL
         : strcmp(text, "false") == 0 ? TR_SHUFFLE_NONE
                                      : TR_SHUFFLE_STREAMS;
}

uint64_t data_micro_batch(const tr_data *data) {
  const tr_config *config = data->remote.job.config;
  const uint64_t batch = (uint64_t)tr_config_integer(config, "data.batch-size");
  uint64_t rows = (uint64_t)tr_config_integer(config, "train.micro-batch");
  if (rows == 0) rows = (batch + 7) / 8;
  return rows < batch ? rows : batch;
}

tr_status data_sampler(const tr_data *data, tr_sampler **out, tr_error *error) {
  const tr_config *config = data->remote.job.config;
  tr_sampler_options options = {.struct_bytes = sizeof options,
                                .seed = (uint64_t)tr_config_integer(config, "seed"),
                                .shuffle = data_shuffle(data),
                                .streams = (uint64_t)tr_config_integer(config, "data.streams"),
                                .batch_size = (uint64_t)tr_config_integer(config, "data.batch-size")};
  tr_dataset_order(data->dataset, &options);
  return tr_sampler_create(&options, out, error);
}

bool data_number(const char *flag, const char *text, uint64_t *value) {
  if (text == NULL || tr_parse_u64(text, value)) return true;
  fprintf(stderr, "trainrun: %s %s: it takes a whole number\n", flag, text);
  return false;
}

uint32_t data_threads(const tr_cli *cli, uint32_t otherwise) {
  uint64_t threads = otherwise;
  if (!data_number("--jobs", cli->jobs, &threads)) return 0;
  if (threads == 0 || threads > DATA_THREADS_MAX) {
    fprintf(stderr, "trainrun: --jobs takes 1 to %d\n", DATA_THREADS_MAX);
    return 0;
  }
  return (uint32_t)threads;
}

void data_print_index(const tr_cli *cli, const tr_dataset_index_report *report) {
  char size[32];
  tr_writer url;
  if (cli->json) {
    tr_writer_init(&url, NULL);
    tr_write_json_string(&url, report->url);
    printf("{\"format\": \"%s\", \"shards\": %" PRIu64 ", \"samples\": %" PRIu64 ", \"bytes\": %" PRIu64
           ", \"built\": %s, \"url\": %.*s, \"time_s\": %.3f}\n",
           report->format, report->shards, report->samples, report->bytes, report->built ? "true" : "false",
           url.failed ? 2 : (int)url.bytes, url.failed ? "\"\"" : (const char *)url.data, report->seconds);
    tr_writer_fini(&url);
    return;
  }
  if (cli->quiet) return;
  tr_format_bytes(report->bytes, size);
  if (report->url[0] == '\0') {
    fprintf(stderr, "%s needs no index: %" PRIu64 " samples in %s\n", report->format, report->samples, size);
  } else {
    fprintf(stderr, "%s %s: %" PRIu64 " samples in %" PRIu64 " shard%s, %s, %.1f s\n",
            report->built ? "wrote" : "already there:", report->url, report->samples, report->shards,
            report->shards == 1 ? "" : "s", size, report->seconds);
  }
}

tr_status data_print(const tr_writer *text, tr_error *error) {
  if (text->failed) return tr_fail_memory(error, "a line", text->bytes);
  if (fwrite(text->data, 1, text->bytes, stdout) == text->bytes) return TR_OK;
  return tr_fail_errno(error, TR_ERR_IO, errno, "writing to standard output");
}
