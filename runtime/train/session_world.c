/* Who am I: the launcher's environment, MPI's, or nobody's. The one place of the room that looks at environment entries; the
 * list is handed in. */
#include "session.h"

#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

const char *tr_environment_find(const char *const *environment, const char *name) {
  const size_t length = strlen(name);
  for (; environment != NULL && *environment != NULL; environment++) {
    if (strncmp(*environment, name, length) == 0 && (*environment)[length] == '=') return *environment + length + 1;
  }
  return NULL;
}

/* A decimal number of the launcher's; `least` where it is not there and not required. */
static tr_status number_of(const char *const *environment, const char *name, bool required, uint64_t fallback,
                           uint64_t *value, tr_error *error) {
  const char *text = tr_environment_find(environment, name);
  if (text == NULL && !required) {
    *value = fallback;
    return TR_OK;
  }
  if (text == NULL || !tr_parse_u64(text, value)) {
    return tr_fail(error, TR_ERR_CONFIG,
                   "environment: %s is %s; these variables are set by trainrun alone, all of them or none", name,
                   text == NULL ? "missing" : "not a number");
  }
  return TR_OK;
}

static tr_status launcher_world(const char *const *environment, tr_world *world, tr_error *error) {
  uint64_t rank, size, local_rank, local_size, node, segment, job, run, control;
  TR_TRY(number_of(environment, TR_WORKER_RANK, true, 0, &rank, error));
  TR_TRY(number_of(environment, TR_WORKER_WORLD_SIZE, true, 1, &size, error));
  TR_TRY(number_of(environment, TR_WORKER_LOCAL_RANK, true, 0, &local_rank, error));
  TR_TRY(number_of(environment, TR_WORKER_LOCAL_WORLD_SIZE, true, 1, &local_size, error));
  TR_TRY(number_of(environment, TR_WORKER_NODE_RANK, false, 0, &node, error));
  TR_TRY(number_of(environment, TR_WORKER_SEGMENT_FD, true, 0, &segment, error));
  TR_TRY(number_of(environment, TR_WORKER_JOB_FD, true, 0, &job, error));
  TR_TRY(number_of(environment, TR_WORKER_RUN_FD, true, 0, &run, error));
  TR_TRY(number_of(environment, TR_WORKER_CONTROL_FD, true, 0, &control, error));
  TR_TRY(number_of(environment, TR_WORKER_EPOCH, false, 1, &world->epoch, error));
  TR_TRY(number_of(environment, TR_WORKER_STARTED_NS, false, 0, &world->started_ns, error));
  const uint64_t most_descriptor = 1 << 20, most_ranks = 1 << 24;
  if (size < 1 || size > most_ranks || rank >= size || local_size < 1 || local_rank >= local_size ||
      node > most_ranks || segment > most_descriptor || job > most_descriptor || run > most_descriptor ||
      control > most_descriptor) {
    return tr_fail(error, TR_ERR_CONFIG, "environment: rank %llu of %llu (local %llu of %llu) makes no sense",
                   (unsigned long long)rank, (unsigned long long)size, (unsigned long long)local_rank,
                   (unsigned long long)local_size);
  }
  world->origin = TR_ORIGIN_LAUNCHER;
  world->rank = (int32_t)rank;
  world->size = (int32_t)size;
  world->local_rank = (int32_t)local_rank;
  world->local_size = (int32_t)local_size;
  world->node_rank = (int32_t)node;
  world->segment = (int)segment;
  world->job = (int)job;
  world->run = (int)run;
  world->control = (int)control;
  return TR_OK;
}

tr_status tr_world_find(const char *const *environment, tr_world *world, tr_error *error) {
  memset(world, 0, sizeof *world);
  world->size = world->local_size = 1;
  world->segment = world->job = world->run = world->control = -1;
  world->epoch = 1;
  if (tr_environment_find(environment, TR_WORKER_RANK) != NULL) return launcher_world(environment, world, error);
  uint64_t tasks = 0;
  const char *text = tr_environment_find(environment, "SLURM_STEP_NUM_TASKS");
  if (text != NULL && tr_environment_find(environment, "SLURM_PROCID") != NULL && tr_parse_u64(text, &tasks)) {
    world->slurm_tasks = (int64_t)tasks;
  }
  static const char *const marks[] = {"OMPI_COMM_WORLD_SIZE", "PMIX_RANK", "PMI_RANK", "PMI_SIZE"};
  for (size_t i = 0; i < sizeof marks / sizeof *marks; i++) {
    if (tr_environment_find(environment, marks[i]) != NULL) world->origin = TR_ORIGIN_MPI;
  }
  if (world->slurm_tasks > 1 && world->origin != TR_ORIGIN_MPI) {
    return tr_fail(error, TR_ERR_CONFIG, "srun started %lld tasks that do not know of each other: use srun --mpi=pmix",
                   (long long)world->slurm_tasks);
  }
  return TR_OK;
}

/* CPUs of the cgroup's quota ("max 100000" or "200000 100000"), rounded up; 0: no limit. */
static uint32_t quota_cpus(void) {
  FILE *file = fopen("/sys/fs/cgroup/cpu.max", "re");
  char quota[32];
  long period = 0;
  uint32_t cpus = 0;
  if (file == NULL) return 0;
  if (fscanf(file, "%31s %ld", quota, &period) == 2 && period > 0) {
    const long value = strtol(quota, NULL, 10);
    if (value > 0) cpus = (uint32_t)((value + period - 1) / period);
  }
  fclose(file);
  return cpus;
}

uint32_t tr_world_cpus(void) {
  cpu_set_t set;
  uint32_t cpus = 1;
  if (sched_getaffinity(0, sizeof set, &set) == 0) {
    cpus = (uint32_t)CPU_COUNT(&set);
  } else {
    const long online = sysconf(_SC_NPROCESSORS_ONLN);
    if (online > 0) cpus = (uint32_t)online;
  }
  const uint32_t quota = quota_cpus();
  if (quota > 0 && quota < cpus) cpus = quota;
  return cpus > 0 ? cpus : 1;
}

tr_status tr_read_descriptor(const tr_allocator *allocator, int descriptor, const char *what, char **text,
                             size_t *bytes, tr_error *error) {
  enum { MOST = 16 * 1024 * 1024 };
  size_t capacity = 16 * 1024, used = 0;
  char *data = tr_alloc(allocator, capacity);
  if (data == NULL) return tr_fail_memory(error, what, capacity);
  for (;;) {
    if (used + 1 >= capacity) {
      if (capacity >= MOST) {
        tr_free(allocator, data);
        return tr_fail(error, TR_ERR_CONFIG, "%s is larger than 16 MiB", what);
      }
      char *larger = tr_realloc(allocator, data, capacity * 4);
      if (larger == NULL) {
        tr_free(allocator, data);
        return tr_fail_memory(error, what, capacity * 4);
      }
      data = larger;
      capacity *= 4;
    }
    const ssize_t got = pread(descriptor, data + used, capacity - used - 1, (off_t)used);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) {
      const int reason = errno;
      tr_free(allocator, data);
      return tr_fail_errno(error, tr_status_from_errno(reason), reason, "cannot read %s", what);
    }
    if (got == 0) break;
    used += (size_t)got;
  }
  data[used] = '\0';
  *text = data;
  *bytes = used;
  return TR_OK;
}
