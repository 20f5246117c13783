/* A small whole job in this process: 37 rows of a table, a two-layer model, checkpoints to a store that can fail. */
#ifndef TRAINRUN_TESTS_JOB_FIXTURE_H
#define TRAINRUN_TESTS_JOB_FIXTURE_H

#include <criterion/criterion.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <trainrun/trainrun.h>
#include <unistd.h>

#include "support/fault_store.h"
#include "support/support.h"

typedef struct small_job {
  const tr_allocator *allocator;
  ts_faults faults;  /* of the checkpoint store */
  tr_store *kept;    /* where checkpoints go, under the faults; NULL: a new memory store, gone at the end */
  const char *extra; /* lines added to the job file */
  const char *every; /* checkpoint; NULL: 3 steps */
  tr_sample_map map;
  void *map_self;
  tr_train_result result;
  tr_error error;
  int exit_code;
} small_job;

static tr_status small_build(void *self, const tr_model *model, tr_error *error) {
  (void)self;
  (void)error;
  tr_graph *g = model->graph;
  tr_tensor x = tr_relu(g, tr_linear(g, "hidden", tr_model_input(model, "x"), 5, true));
  x = tr_linear(g, "out", tr_dropout(g, x, 0.2F), 1, true);
  tr_graph_loss(g, tr_mean_squared_error(g, tr_reshape(g, x, 0, NULL), tr_model_input(model, "y")));
  return TR_OK;
}

static tr_status small_open_store(void *self, const char *url, tr_store **store, char key[TR_KEY_BYTES],
                                  tr_error *error) {
  small_job *job = self;
  if (*store == NULL) {
    tr_store *inner = job->kept;
    if (inner == NULL) {
      const tr_store_memory_options options = {.struct_bytes = sizeof options};
      TR_TRY(tr_store_memory_open(&options, &inner, error));
    }
    *store = ts_fault_store(inner, job->kept == NULL, &job->faults);
  }
  snprintf(key, TR_KEY_BYTES, "%s", url + strlen("fault://"));
  return TR_OK;
}

/* The folder of the job, made once a process; it becomes the working directory. */
static inline void small_prepare(const char *extra, const char *every) {
  static const char *folder;
  if (folder == NULL) {
    folder = ts_folder();
    cr_assert_eq(chdir(folder), 0);
    FILE *table = fopen("table.csv", "w");
    fprintf(table, "a,b,y\n");
    for (int i = 0; i < 37; i++) fprintf(table, "%d.5,%d,%d\n", i % 7, i % 5, i % 3);
    fclose(table);
  }
  FILE *job = fopen("job.toml", "w");
  fprintf(job,
          "name = \"small\"\nprogram = \"small\"\nseed = 3\n"
          "[data]\ntrain = \"table.csv\"\nvalid = \"table.csv\"\nformat = \"csv\"\nfields = { x = \"a,b\", y = "
          "\"y:f32\" }\n"
          "batch-size = 8\n[train]\nepochs = 2\n[checkpoint]\nurl = \"fault://ckpt\"\nevery = \"%s\"\n"
          "[metrics]\nlog-every = \"1 step\"\n%s",
          every != NULL ? every : "3 steps", extra != NULL ? extra : "");
  fclose(job);
}

static inline tr_status small_run(small_job *job) {
  char name[] = "small", path[] = "job.toml";
  char *argv[] = {name, path, NULL};
  const int sink = open("/dev/null", O_WRONLY | O_CLOEXEC);
  const tr_session_options options = {
      .struct_bytes = sizeof options, .allocator = job->allocator, .log_descriptor = sink};
  const tr_trainer_options trainer = {
      .struct_bytes = sizeof trainer, .build = small_build, .map = job->map, .map_self = job->map_self};
  tr_session *session = NULL;
  small_prepare(job->extra, job->every);
  memset(&job->error, 0, sizeof job->error);
  tr_status status = tr_session_open(2, argv, &options, &session, &job->error);
  if (status == TR_OK) {
    status = tr_stores_add_scheme(tr_session_stores(session), "fault", small_open_store, job, &job->error);
  }
  if (status == TR_OK) status = tr_train(session, &trainer, &job->result, &job->error);
  job->exit_code = tr_session_close(session, status, &job->error);
  close(sink);
  return status;
}

#endif
