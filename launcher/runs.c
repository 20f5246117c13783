/* Finding runs. A run is alive while its process holds the lock of its name open: a number alone may be another's by now. */
#include "runs.h"

#include "job.h"

#include <dirent.h>
#include <errno.h>
#include <jansson.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { FILE_BYTES_MAX = 64 * 1024 * 1024 };

static bool ends_with(const char *text, const char *end) {
  const size_t a = strlen(text), b = strlen(end);
  return a >= b && strcmp(text + a - b, end) == 0;
}

char *runs_read(const found_run *run, const char *file) {
  char path[PATH_MAX + 64];
  snprintf(path, sizeof path, "%s/%s", run->folder, file);
  FILE *in = fopen(path, "re");
  struct stat info;
  if (in == NULL) return NULL;
  char *text = fstat(fileno(in), &info) == 0 && info.st_size < FILE_BYTES_MAX ? malloc((size_t)info.st_size + 1) : NULL;
  if (text != NULL) text[fread(text, 1, (size_t)info.st_size, in)] = '\0';
  fclose(in);
  return text;
}

/* Calls visit(self, target) for what each descriptor of a process points to; false where it may not be read. */
static bool each_descriptor(pid_t pid, bool (*visit)(void *self, const char *target), void *self) {
  char folder[64], path[PATH_MAX], target[PATH_MAX];
  snprintf(folder, sizeof folder, "/proc/%d/fd", (int)pid);
  DIR *open = opendir(folder);
  if (open == NULL) return false;
  for (struct dirent *entry; (entry = readdir(open)) != NULL;) {
    snprintf(path, sizeof path, "%s/%.32s", folder, entry->d_name);
    const ssize_t length = readlink(path, target, sizeof target - 1);
    if (length <= 0) continue;
    target[length] = '\0';
    if (!visit(self, target)) break;
  }
  closedir(open);
  return true;
}

typedef struct wanted_target {
  const char *target;
  bool found;
} wanted_target;

static bool compare_target(void *self, const char *target) {
  wanted_target *wanted = self;
  wanted->found = wanted->found || strcmp(target, wanted->target) == 0;
  return !wanted->found;
}

bool runs_is_alive(const found_run *run) {
  char host[256] = "", path[PATH_MAX + 16], lock[PATH_MAX];
  gethostname(host, sizeof host - 1);
  if (strcmp(run->host, host) != 0 || run->pid <= 0 || (kill(run->pid, 0) != 0 && errno != EPERM)) return false;
  snprintf(path, sizeof path, "%s/../lock", run->folder);
  if (realpath(path, lock) == NULL) return false;
  wanted_target wanted = {.target = lock};
  return !each_descriptor(run->pid, compare_target, &wanted) || wanted.found;
}

static void copy(char *to, size_t bytes, const json_t *root, const char *key) {
  const char *text = json_string_value(json_object_get(root, key));
  snprintf(to, bytes, "%s", text != NULL ? text : "");
}

static bool read_run(const char *folder, found_run *run) {
  memset(run, 0, sizeof *run);
  if (realpath(folder, run->folder) == NULL) return false;
  char *text = runs_read(run, "control.json");
  json_t *root = text != NULL ? json_loads(text, 0, NULL) : NULL;
  free(text);
  if (!json_is_object(root)) {
    json_decref(root);
    return false;
  }
  char kind[16];
  copy(run->name, sizeof run->name, root, "name");
  copy(run->run_id, sizeof run->run_id, root, "run_id");
  copy(run->host, sizeof run->host, root, "host");
  copy(run->device, sizeof run->device, root, "device");
  copy(run->status, sizeof run->status, root, "status");
  copy(kind, sizeof kind, root, "kind");
  run->eval = strcmp(kind, "eval") == 0;
  run->pid = (pid_t)json_integer_value(json_object_get(root, "pid"));
  run->world_size = (int32_t)json_integer_value(json_object_get(root, "world_size"));
  run->attempt = (uint64_t)json_integer_value(json_object_get(root, "attempt"));
  run->created_ns = json_integer_value(json_object_get(root, "created_ns"));
  run->started_ns = json_integer_value(json_object_get(root, "started_ns"));
  json_decref(root);
  if (strcmp(run->status, "running") == 0) {
    run->alive = runs_is_alive(run);
    if (!run->alive) snprintf(run->status, sizeof run->status, "interrupted");
  }
  return run->name[0] != '\0' && run->run_id[0] != '\0';
}

static void add(found_runs *runs, const found_run *run) {
  for (size_t i = 0; i < runs->count; i++) {
    if (strcmp(runs->items[i].folder, run->folder) == 0) return;
  }
  if (tr_reserve(NULL, (void **)&runs->items, &runs->capacity, runs->count + 1, sizeof *runs->items, NULL) == TR_OK) {
    runs->items[runs->count++] = *run;
  }
}

/* The runs of one name: the folders beside its lock. */
static void add_of_name(found_runs *runs, const char *folder, bool only_alive) {
  char path[PATH_MAX];
  DIR *open = opendir(folder);
  if (open == NULL) return;
  for (struct dirent *entry; (entry = readdir(open)) != NULL;) {
    static found_run run; /* large */
    if (entry->d_name[0] == '.') continue;
    if (snprintf(path, sizeof path, "%s/%s", folder, entry->d_name) >= (int)sizeof path) continue;
    if (read_run(path, &run) && (run.alive || !only_alive)) add(runs, &run);
  }
  closedir(open);
}

static void add_below(found_runs *runs, const char *run_dir) {
  char path[PATH_MAX];
  DIR *open = opendir(run_dir);
  if (open == NULL) return;
  for (struct dirent *entry; (entry = readdir(open)) != NULL;) {
    if (entry->d_name[0] == '.') continue;
    if (snprintf(path, sizeof path, "%s/%s", run_dir, entry->d_name) < (int)sizeof path) add_of_name(runs, path, false);
  }
  closedir(open);
}

static bool add_of_lock(void *self, const char *target) {
  char folder[PATH_MAX];
  if (!ends_with(target, "/lock")) return true;
  snprintf(folder, sizeof folder, "%.*s", (int)(strlen(target) - strlen("/lock")), target);
  add_of_name(self, folder, true);
  return true;
}

/* Other processes of this command, wherever their run-dir is. */
static void add_of_processes(found_runs *runs) {
  DIR *open = opendir("/proc");
  if (open == NULL) return;
  for (struct dirent *entry; (entry = readdir(open)) != NULL;) {
    char path[320], name[32] = "";
    const pid_t pid = (pid_t)atoi(entry->d_name);
    if (pid <= 0 || pid == getpid()) continue;
    snprintf(path, sizeof path, "/proc/%s/comm", entry->d_name);
    FILE *comm = fopen(path, "re");
    if (comm == NULL) continue;
    const bool ours = fgets(name, sizeof name, comm) != NULL && strcmp(name, "trainrun\n") == 0;
    fclose(comm);
    if (ours) each_descriptor(pid, add_of_lock, runs);
  }
  closedir(open);
}

static int newer_first(const void *a, const void *b) {
  const int64_t left = ((const found_run *)a)->created_ns, right = ((const found_run *)b)->created_ns;
  return left < right ? 1 : left > right ? -1 : 0;
}

int runs_find_all(const tr_cli *cli, found_runs *runs) {
  tr_job job;
  memset(runs, 0, sizeof *runs);
  const int code = job_open_settings(&job, cli);
  if (code == 0) {
    add_below(runs, tr_config_text(job.config, "run-dir"));
    runs->near = runs->count;
    add_of_processes(runs);
    if (runs->near > 0) qsort(runs->items, runs->near, sizeof *runs->items, newer_first);
  }
  job_close(&job);
  return code;
}

void runs_free(found_runs *runs) {
  tr_free(NULL, runs->items);
  memset(runs, 0, sizeof *runs);
}

static bool matches(const found_run *run, const char *name) {
  const char *slash = strchr(name, '/');
  if (slash == NULL) return strcmp(run->name, name) == 0;
  return strlen(run->name) == (size_t)(slash - name) && strncmp(run->name, name, (size_t)(slash - name)) == 0 &&
         strcmp(run->run_id, slash + 1) == 0;
}

int runs_find(const tr_cli *cli, found_run *run) {
  found_runs runs;
  const char *name = cli->word_count > 0 ? cli->words[0] : NULL;
  int code = runs_find_all(cli, &runs);
  if (code != 0) return code;
  size_t alive = 0;
  const found_run *chosen = NULL;
  for (size_t i = 0; i < runs.count; i++) {
    const found_run *one = &runs.items[i];
    if (name != NULL && !matches(one, name)) continue;
    if (i >= runs.near && chosen != NULL && (name != NULL || chosen->alive)) break; /* what is in the run-dir wins */
    if (one->alive) alive++;
    if (chosen == NULL || (one->alive && !chosen->alive)) chosen = one;
  }
  if (chosen == NULL) {
    fprintf(stderr,
            name != NULL ? "trainrun: no run of '%s' here; --run-dir says where runs are kept\n"
                         : "trainrun: no run here%s; --run-dir says where runs are kept\n",
            name != NULL ? name : "");
    code = EXIT_UNAVAILABLE;
  } else if (name == NULL && alive > 1) {
    fprintf(stderr, "trainrun: %zu jobs are running: say which one ('trainrun ps' lists them)\n", alive);
    code = EXIT_USAGE;
  } else {
    *run = *chosen;
  }
  runs_free(&runs);
  return code;
}
