/* Runs as their folders tell: found by name below run-dir, or by the processes that hold them. */
#ifndef TRAINRUN_LAUNCHER_RUNS_H
#define TRAINRUN_LAUNCHER_RUNS_H

#include "cli.h"

#include <limits.h>
#include <sys/types.h>

typedef struct found_run {
  char folder[PATH_MAX];
  char name[256], run_id[256], host[256], device[16];
  char status[16]; /* of control.json; a "running" whose process is gone reads "interrupted" */
  bool eval;
  bool alive; /* its launcher runs on this machine */
  pid_t pid;
  int32_t world_size;
  uint64_t attempt;
  int64_t created_ns, started_ns;
} found_run;

typedef struct found_runs {
  found_run *items; /* those below run-dir, newest first, then those of other folders */
  size_t near;      /* how many are below run-dir */
  size_t count, capacity;
} found_runs;

/* All runs below the run-dir of the flags, and those of one's other processes of this machine that are alive. */
int runs_find_all(const tr_cli *cli, found_runs *runs);
void runs_free(found_runs *runs);
/* "NAME[/RUN-ID]"; without a word the only one alive, or else the newest. 0, or an exit code with the reason said. */
int runs_find(const tr_cli *cli, found_run *run);
/* summary.json as text (malloc), NULL where there is none. */
char *runs_read(const found_run *run, const char *file);
/* Looks again whether it is alive. */
bool runs_is_alive(const found_run *run);

#endif
