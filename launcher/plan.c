/* From a config to a plan: counts workers, looks at the machine, finds the program. */
#include "plan.h"

#include <trainrun/device.h>

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* Entries of a folder whose name begins with `prefix` and goes on with digits only. */
static int32_t count_numbered(const char *folder, const char *prefix) {
  DIR *open = opendir(folder);
  int32_t count = 0;
  if (open == NULL) return 0;
  for (struct dirent *entry; (entry = readdir(open)) != NULL;) {
    const size_t length = strlen(prefix);
    const char *rest = entry->d_name + length;
    if (strncmp(entry->d_name, prefix, length) == 0 && *rest != '\0' && rest[strspn(rest, "0123456789")] == '\0')
      count++;
  }
  closedir(open);
  return count;
}

static const char *environment_value(const tr_cli *cli, const char *name) {
  const size_t length = strlen(name);
  for (char *const *item = cli->environment; *item != NULL; item++) {
    if (strncmp(*item, name, length) == 0 && (*item)[length] == '=') return *item + length + 1;
  }
  return NULL;
}

/* `mpirun trainrun job.toml` would start the job once a task. */
static int check_tasks(const tr_cli *cli) {
  const char *mpi = environment_value(cli, "OMPI_COMM_WORLD_SIZE");
  const char *slurm = environment_value(cli, "SLURM_STEP_ID") != NULL ? environment_value(cli, "SLURM_STEP_NUM_TASKS")
                                                                      : NULL;
  const char *tasks = mpi != NULL ? mpi : slurm;
  if (tasks == NULL || atoi(tasks) <= 1) return 0;
  fprintf(stderr,
          "trainrun: %s started %s of me: one job over several tasks is planned, not in this version\n"
          "  start the program itself: %s PROGRAM JOB.toml\n",
          mpi != NULL ? "mpirun" : "srun", tasks, mpi != NULL ? "mpirun -np N" : "srun -n N --mpi=pmix");
  return EXIT_UNAVAILABLE;
}

static int check_nodes(const tr_cli *cli, const tr_config *config) {
  const char *const *hosts = NULL;
  const int64_t nodes = tr_config_is_set(config, "cluster.max-nodes") ? tr_config_integer(config, "cluster.max-nodes")
                                                                      : tr_config_integer(config, "cluster.nodes");
  if (cli->hostfile != NULL || tr_config_strings(config, "cluster.hosts", &hosts) > 0) {
    fprintf(stderr, "trainrun: workers on other hosts: planned, not in this version\n");
    return EXIT_UNAVAILABLE;
  }
  if (nodes > 1) {
    fprintf(stderr,
            "trainrun: job asks for %lld nodes, and nothing says which; there are three ways to give them\n"
            "  in an allocation:   salloc -N %lld trainrun ... (or sbatch)\n"
            "  under mpirun:       mpirun -np %lld --map-by node trainrun ...\n"
            "  by name:            trainrun --hosts a,b:4 ... (or --hostfile F)\n"
            "  (more than one node: planned, not in this version)\n",
            (long long)nodes, (long long)nodes, (long long)nodes);
    return EXIT_UNAVAILABLE;
  }
  const char *launcher = tr_config_text(config, "cluster.launcher");
  if (launcher != NULL && strcmp(launcher, "auto") != 0 && strcmp(launcher, "local") != 0) {
    fprintf(stderr, "trainrun: cluster.launcher = \"%s\": planned, not in this version\n", launcher);
    return EXIT_UNAVAILABLE;
  }
  return 0;
}

static int choose_device(tr_plan *plan, const tr_config *config, bool command) {
  const char *device = tr_config_text(config, "cluster.device");
  const int64_t wanted = tr_config_integer(config, "cluster.workers-per-node");
  const int32_t gpus = count_numbered("/dev", "nvidia");
  plan->device = "cpu";
  if (strcmp(device, "cuda") == 0) {
    const int64_t asked = wanted > 0 ? wanted : 1;
    if (gpus < asked) {
      fprintf(stderr,
              "trainrun: job asks for %lld GPU%s a node, this node has %d; use --workers %lld to train on the CPU\n",
              (long long)asked, asked == 1 ? "" : "s", gpus, (long long)asked);
      return EXIT_UNAVAILABLE;
    }
    if (!command && tr_device_gpu_count(NULL) < asked) {
      fprintf(stderr, "trainrun: device cuda: planned, not in this version; use --workers %lld to train on the CPU\n",
              (long long)asked);
      return EXIT_UNAVAILABLE;
    }
    plan->device = "cuda";
  } else if (strcmp(device, "auto") == 0 && gpus > 0 && (command || tr_device_gpu_count(NULL) > 0)) {
    plan->device = "cuda";
  }
  int32_t workers = (int32_t)wanted;
  if (workers == 0) {
    workers = strcmp(plan->device, "cuda") == 0 ? gpus : count_numbered("/sys/devices/system/node", "node");
  }
  plan->workers = workers > 0 ? workers : 1;
  return 0;
}

static int choose_backend(tr_plan *plan, const tr_config *config, bool command) {
  const char *backend = tr_config_text(config, "cluster.backend");
  plan->backend = command ? "" : plan->workers > 1 ? "shm" : "self";
  if (strcmp(backend, "auto") == 0 || strcmp(backend, "shm") == 0) return 0;
  if (strcmp(backend, "mpi") == 0) {
    fprintf(stderr,
            "trainrun: cluster.backend = \"mpi\" is for programs that mpirun started: mpirun -np %d PROGRAM JOB.toml\n",
            plan->workers);
  } else {
    fprintf(stderr, "trainrun: cluster.backend = \"%s\": planned, not in this version\n", backend);
  }
  return EXIT_UNAVAILABLE;
}

/* ---- The program ---- */

static bool is_program(const char *path) {
  struct stat info;
  return stat(path, &info) == 0 && S_ISREG(info.st_mode) && access(path, X_OK) == 0;
}

static bool try_path(char found[PATH_MAX], const char *folder, size_t folder_bytes, const char *name) {
  if (snprintf(found, PATH_MAX, "%.*s/%s", (int)folder_bytes, folder, name) >= PATH_MAX) return false;
  return is_program(found);
}

/* Beside trainrun (and where a build puts the examples). */
static bool beside(char found[PATH_MAX], const char *name) {
  static const char *const folders[] = {"", "/examples", "/../examples"};
  char self[PATH_MAX], folder[PATH_MAX + 32];
  const ssize_t length = readlink("/proc/self/exe", self, sizeof self - 1);
  if (length <= 0) return false;
  self[length] = '\0';
  *strrchr(self, '/') = '\0';
  for (size_t i = 0; i < sizeof folders / sizeof *folders; i++) {
    snprintf(folder, sizeof folder, "%s%s", self, folders[i]);
    if (try_path(found, folder, strlen(folder), name)) return true;
  }
  return false;
}

static bool on_path(char found[PATH_MAX], const tr_cli *cli, const char *name) {
  const char *path = environment_value(cli, "PATH");
  for (const char *at = path; at != NULL; at = strchr(at, ':')) {
    if (*at == ':') at++;
    const size_t length = strcspn(at, ":");
    if (length > 0 && try_path(found, at, length, name)) return true;
  }
  return false;
}

bool plan_find_program(char found[PATH_MAX], const tr_cli *cli, const tr_config *config, const char *folder,
                       const char *name) {
  if (strchr(name, '/') != NULL) {
    char *path = tr_config_path(config, NULL, "program", name);
    const bool good = path != NULL && snprintf(found, PATH_MAX, "%s", path) < PATH_MAX && is_program(found);
    tr_free(NULL, path);
    return good;
  }
  if (beside(found, name)) return true;
  if (folder == NULL) folder = ".";
  return try_path(found, folder, strlen(folder), name) || on_path(found, cli, name);
}

static bool find_command(char found[PATH_MAX], const tr_cli *cli, const tr_job *job, const char *name) {
  if (strchr(name, '/') == NULL) return on_path(found, cli, name);
  char *path = tr_config_path(job->config, NULL, "command", name);
  const bool good = path != NULL && snprintf(found, PATH_MAX, "%s", path) < PATH_MAX && is_program(found);
  tr_free(NULL, path);
  return good;
}

static int missing_program(const char *name, bool command) {
  fprintf(stderr, "trainrun: cannot find the program '%s'\n", name);
  if (strchr(name, '/') != NULL) {
    struct stat info;
    const bool there = stat(name, &info) == 0;
    fprintf(stderr, "  %s\n",
            there && S_ISDIR(info.st_mode) ? "it is a folder"
            : there                        ? "it is not executable (chmod +x)"
                                           : "there is no such file");
  } else {
    fprintf(stderr, "  looked %sin PATH; a path needs a slash: ./%s\n",
            command ? "" : "beside trainrun, in its examples, in the folder of the job and ", name);
  }
  return EXIT_UNAVAILABLE;
}

/* argv of a worker: `first` words of the job, then what was typed after the job or program. */
static bool make_argv(tr_plan *plan, const char *const *words, size_t count, char *const *rest) {
  size_t more = 0;
  while (rest[more] != NULL) more++;
  plan->argv = calloc(count + more + 1, sizeof *plan->argv);
  if (plan->argv == NULL) return false;
  for (size_t i = 0; i < count; i++) plan->argv[i] = (char *)words[i];
  for (size_t i = 0; i < more; i++) plan->argv[count + i] = rest[i];
  return true;
}

static int choose_program(tr_plan *plan, const tr_cli *cli, const tr_job *job) {
  const char *const *command = NULL;
  const size_t words = tr_config_strings(job->config, "command", &command);
  const char *name = words > 0 ? command[0] : tr_config_text(job->config, "program");
  if (name == NULL) {
    fprintf(stderr, "trainrun: the job names no program\n");
    return EXIT_CONFIG;
  }
  plan->bare = job->path == NULL;
  plan->foreign = words > 0 || plan->bare;
  const bool found = words > 0 ? find_command(plan->program, cli, job, name)
                               : plan_find_program(plan->program, cli, job->config, job->directory, name);
  if (!found) return missing_program(name, words > 0);
  /* A bare script's arguments are in its command already. */
  char *const *rest = words > 0 && plan->bare ? (char *const[]){NULL} : cli->arguments;
  if (!make_argv(plan, words > 0 ? command : &name, words > 0 ? words : 1, rest)) {
    fprintf(stderr, "trainrun: out of memory\n");
    return EXIT_UNAVAILABLE;
  }
  return 0;
}

int plan_make(tr_plan *plan, const tr_cli *cli, const tr_job *job) {
  memset(plan, 0, sizeof *plan);
  const char *const *command = NULL;
  const bool is_command = tr_config_strings(job->config, "command", &command) > 0;
  int code = check_tasks(cli);
  if (code == 0) code = check_nodes(cli, job->config);
  if (code == 0) code = choose_device(plan, job->config, is_command);
  if (code == 0) code = choose_backend(plan, job->config, is_command);
  if (code == 0) code = choose_program(plan, cli, job);
  return code;
}

void plan_close(tr_plan *plan) {
  free(plan->argv);
  plan->argv = NULL;
}

void plan_describe(const tr_plan *plan, char *text, size_t bytes) {
  snprintf(text, bytes, "1 node x %d = %d worker%s, %s, %s%slaunched locally", plan->workers, plan->workers,
           plan->workers == 1 ? "" : "s", plan->device, plan->backend, plan->backend[0] != '\0' ? ", " : "");
}
