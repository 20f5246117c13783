/* What a job comes to on this machine: how many workers, of which program, on what device. */
#ifndef TRAINRUN_LAUNCHER_PLAN_H
#define TRAINRUN_LAUNCHER_PLAN_H

#include "job.h"

#include <limits.h>

typedef struct tr_plan {
  int32_t workers;     /* on this machine, and of the job */
  const char *device;  /* "cpu", "cuda" */
  const char *backend; /* "self", "shm"; "" for a command, which brings its own */
  bool foreign;        /* `command` or a bare program: may know nothing of trainrun, so torchrun's contract too */
  bool bare;           /* no job file */
  char program[PATH_MAX];
  char **argv; /* of a worker */
} tr_plan;

/* 0, or an exit code after saying on stderr what is missing. Always plan_close. */
int plan_make(tr_plan *plan, const tr_cli *cli, const tr_job *job);
void plan_close(tr_plan *plan);

/* Where a job's `program` is: a path, or a name beside trainrun, in the folder of the job, in PATH. */
bool plan_find_program(char found[PATH_MAX], const tr_cli *cli, const tr_config *config, const char *folder,
                       const char *name);

/* "1 node x 2 = 2 workers, cpu, shm, launched locally" */
void plan_describe(const tr_plan *plan, char *text, size_t bytes);

#endif
