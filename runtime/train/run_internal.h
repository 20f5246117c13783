/* Inside of run.h: the run object and the files of its folder. */
#ifndef TRAINRUN_RUN_INTERNAL_H
#define TRAINRUN_RUN_INTERNAL_H

#include <trainrun/checkpoint.h>
#include <trainrun/run.h>

struct tr_run {
  const tr_allocator *allocator;
  const tr_clock *clock;
  tr_log *log;
  tr_stores *stores;
  const tr_config *config;
  tr_arena *arena; /* every text below lives here */
  tr_run_info info;
  bool eval;
  int32_t world_size;
  const char *device;
  const char *job_folder; /* <run-dir>/<name> */
  int lock;               /* descriptor, -1: none */
  int metrics, events;    /* descriptors of the .jsonl files, -1: not open */
  int64_t started_wall_ns;
  char *result;  /* rank 0's result record: JSON object text */
  char *last;    /* the newest metrics record, for a run that ends without a result */
  char *summary; /* text of summary.json */
  tr_writer trace;
};

/* ---- run_folder.c: plain files of a folder on a local disk ---- */

/* mkdir -p. */
tr_status tr_folder_make(const char *path, tr_error *error);
/* Whole file through a temporary name; durable: fsync before and after the rename. */
tr_status tr_folder_write(const char *folder, const char *name, const void *data, size_t bytes, unsigned mode,
                          bool durable, tr_error *error);
/* NUL-terminated content in new memory, or TR_ERR_NOT_FOUND. */
tr_status tr_folder_read(const tr_allocator *allocator, const char *folder, const char *name, char **text,
                         size_t *bytes, tr_error *error);
tr_status tr_folder_append_open(const char *folder, const char *name, int *descriptor, tr_error *error);
tr_status tr_folder_append(int descriptor, const char *name, const char *line, size_t bytes, tr_error *error);
/* Drops the lines of a .jsonl file whose integer member "step" is greater than `step`, and a torn last line. */
tr_status tr_folder_cut_steps(const tr_allocator *allocator, const char *folder, const char *name, int64_t step,
                              tr_error *error);

/* ---- run_records.c ---- */
tr_status tr_run_write_control(const tr_run *run, const char *status, tr_error *error);

#endif
