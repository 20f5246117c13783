/* A worker's environment: the launcher's own, less what belongs to another launcher, plus what a worker must know. */
#ifndef TRAINRUN_LAUNCHER_ENVIRONMENT_H
#define TRAINRUN_LAUNCHER_ENVIRONMENT_H

#include <trainrun/base.h>

typedef struct tr_environment {
  char **items; /* NULL-terminated "NAME=value" */
  size_t count, capacity;
  bool failed; /* no memory */
} tr_environment;

/* Copies `base` without variables of an outer launcher (TRAINRUN_WORKER_*, OMPI_*, PMIX_*, PMI_*, SLURM_*). */
void environment_init(tr_environment *environment, char *const *base);
void environment_fini(tr_environment *environment);
void environment_set(tr_environment *environment, const char *name, const char *format, ...) TR_PRINTF(3, 4);
const char *environment_get(const tr_environment *environment, const char *name);

/* ---- torchrun's contract (torchrun_env.c) ---- */

typedef struct torchrun_place {
  int32_t rank, world_size, local_rank, local_world_size, group_rank, group_world_size;
  const char *master_address;
  uint16_t master_port;
  uint64_t restarts, max_restarts;
  const char *run_id;
  const char *error_file; /* where a script decorated with @record says what went wrong */
} torchrun_place;
/* Every variable that torchrun gives its workers. OMP_NUM_THREADS=1 only where there are several and it is unset. */
void torchrun_environment(tr_environment *environment, const torchrun_place *place);
/* A port that nothing listens on, 0 where there is none. */
uint16_t torchrun_free_port(void);

#endif
