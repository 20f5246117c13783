/* The job as this command understands it: the file (or a bare program), flags and environment read into a config. */
#ifndef TRAINRUN_LAUNCHER_JOB_H
#define TRAINRUN_LAUNCHER_JOB_H

#include "cli.h"

typedef struct tr_job {
  const char *path; /* of the file, as typed; NULL: a bare program, or no job at all */
  char *text;
  size_t text_bytes;
  char *directory; /* of the file */
  tr_diagnostics *diagnostics;
  tr_config *config; /* NULL where the job is wrong */
  tr_override *overrides;
  size_t override_count, override_capacity;
  char **owned; /* texts of the overrides */
  size_t owned_count, owned_capacity;
} tr_job;

typedef enum job_kind {
  JOB_FILE,     /* target is JOB.toml */
  JOB_SETTINGS, /* the same, for its settings only: [params] are not looked at */
  JOB_PROGRAM,  /* target is a program; cli->arguments are its own */
  JOB_NONE      /* no program: only run-dir, storage and the like are asked for */
} job_kind;

/* 0 with job->config; or an exit code. Mistakes are in job->diagnostics and were not printed. Always job_close. */
int job_open(tr_job *job, const tr_cli *cli, job_kind kind, const char *target);
void job_close(tr_job *job);

/* The diagnostics as compilers print them, on stderr. */
void job_print_diagnostics(const tr_job *job, bool color);

/* job_open, and print what is wrong with it. */
int job_open_or_say(tr_job *job, const tr_cli *cli, job_kind kind, const char *target);

/* The config of subcommands that only look things up: -f JOB.toml, or defaults with --run-dir and --set. */
int job_open_settings(tr_job *job, const tr_cli *cli);

#endif
