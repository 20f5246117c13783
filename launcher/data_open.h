/* The data set that a `data` command names, with the format, the fields and the order of the job (-f) or the flags. */
#ifndef TRAINRUN_LAUNCHER_DATA_OPEN_H
#define TRAINRUN_LAUNCHER_DATA_OPEN_H

#include "location.h"

#include <trainrun/dataloader.h>

enum { DATA_THREADS = 16, DATA_THREADS_MAX = 64 };

typedef struct tr_data {
  const tr_cli *cli;
  tr_remote remote;
  tr_dataset_options options; /* of cli->words[1...] */
  tr_dataset *dataset;
  tr_cache *cache; /* of the options; may be NULL */
  tr_field_source fields[TR_FIELDS_MAX];
} tr_data;

/* Settings and options, the data set not opened; 0 or an exit code after saying what is wrong. Always data_close. */
int data_prepare(tr_data *data, const tr_cli *cli);
/* The same, opened. */
int data_open(tr_data *data, const tr_cli *cli);
void data_close(tr_data *data);

/* The order of training's samples, as the job has it. */
tr_status data_sampler(const tr_data *data, tr_sampler **out, tr_error *error);
tr_shuffle data_shuffle(const tr_data *data);
uint64_t data_micro_batch(const tr_data *data);

/* A flag that is a whole number; false after saying that it is none. *value keeps its default where it is not given. */
bool data_number(const char *flag, const char *text, uint64_t *value);
/* --jobs, or the default; 0 after saying what is wrong. */
uint32_t data_threads(const tr_cli *cli, uint32_t otherwise);

/* What was done about an index, unless quiet. */
void data_print_index(const tr_cli *cli, const tr_dataset_index_report *report);

/* Whole lines to standard output. */
tr_status data_print(const tr_writer *text, tr_error *error);

#endif
