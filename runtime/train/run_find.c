/* Naming a checkpoint as a user does: RUN-URL[@latest|@best|@step-N], the URL of a step, or a job's name. */
#include "run_internal.h"

#include <dirent.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

/* The newest training run below a job's folder that has a folder `inside` (or any, when inside is ""). */
static bool newest_run(const tr_allocator *allocator, const char *job_folder, const char *inside, char *run_id,
                       size_t run_id_bytes) {
  DIR *folder = opendir(job_folder);
  if (folder == NULL) return false;
  int64_t newest = -1;
  for (struct dirent *entry; (entry = readdir(folder)) != NULL;) {
    char path[TR_KEY_BYTES], *text = NULL;
    size_t bytes = 0;
    struct stat info;
    if (entry->d_name[0] == '.') continue;
    if (snprintf(path, sizeof path, "%s/%s%s", job_folder, entry->d_name, inside) >= (int)sizeof path) continue;
    if (stat(path, &info) != 0 || !S_ISDIR(info.st_mode)) continue;
    if (snprintf(path, sizeof path, "%s/%s", job_folder, entry->d_name) >= (int)sizeof path) continue;
    if (tr_folder_read(allocator, path, "control.json", &text, &bytes, NULL) != TR_OK) continue;
    json_t *control = json_loadb(text, bytes, 0, NULL);
    tr_free(allocator, text);
    const char *kind = json_string_value(json_object_get(control, "kind"));
    const int64_t created = json_integer_value(json_object_get(control, "created_ns"));
    if (kind != NULL && strcmp(kind, "train") == 0 && created > newest &&
        snprintf(run_id, run_id_bytes, "%s", entry->d_name) < (int)run_id_bytes) {
      newest = created;
    }
    json_decref(control);
  }
  closedir(folder);
  return newest >= 0;
}

/* "name" or "name/run-id" -> the checkpoint root of that run. */
static tr_status root_of_job(const tr_allocator *allocator, const tr_config *config, const char *job, char *root,
                             tr_error *error) {
  const char *run_dir = config != NULL ? tr_config_text(config, "run-dir") : NULL;
  const char *base = config != NULL ? tr_config_text(config, "checkpoint.url") : NULL;
  char folder[TR_KEY_BYTES], run_id[256];
  if (run_dir == NULL) run_dir = "runs";
  const char *slash = strchr(job, '/');
  if (slash != NULL) {
    snprintf(run_id, sizeof run_id, "%s", slash + 1);
    snprintf(folder, sizeof folder, "%s/%.*s", run_dir, (int)(slash - job), job);
  } else {
    snprintf(folder, sizeof folder, "%s/%s", run_dir, job);
    if (!newest_run(allocator, folder, base == NULL ? "/checkpoints" : "", run_id, sizeof run_id)) {
      return tr_fail(error, TR_ERR_NOT_FOUND, "checkpoint '%s': no run of that name with a checkpoint in '%s'", job,
                     run_dir);
    }
  }
  int length;
  if (base == NULL) {
    length = snprintf(root, TR_KEY_BYTES, "%s/%s/checkpoints", folder, run_id);
  } else {
    char *url = tr_config_path(config, allocator, "checkpoint.url", base);
    if (url == NULL) return tr_fail_memory(error, "checkpoint.url", strlen(base));
    length = snprintf(root, TR_KEY_BYTES, "%s%s/%s", url, folder + strlen(run_dir), run_id);
    tr_free(allocator, url);
  }
  if (length >= TR_KEY_BYTES) return tr_fail(error, TR_ERR_CONFIG, "checkpoint '%s': the URL is too long", job);
  return TR_OK;
}

static bool is_folder(const char *path) {
  struct stat info;
  return stat(path, &info) == 0 && S_ISDIR(info.st_mode);
}

/* +1: larger is better, -1: smaller, 0: not known. As the newest checkpoint's state says, else as the job says. */
static int better(const tr_allocator *allocator, tr_store *store, const char *prefix, uint64_t step,
                  const tr_config *config) {
  char folder[TR_KEY_BYTES];
  tr_ckpt *ckpt = NULL;
  int sign = 0;
  if (snprintf(folder, sizeof folder, "%s%sstep-%llu", prefix, prefix[0] != '\0' ? "/" : "", (unsigned long long)step) <
          (int)sizeof folder &&
      tr_ckpt_open(allocator, store, folder, &ckpt, NULL) == TR_OK) {
    const char *state = tr_ckpt_describe(ckpt)->state;
    json_t *root = state != NULL ? json_loads(state, 0, NULL) : NULL;
    const char *mode = json_string_value(json_object_get(root, "best"));
    if (mode != NULL) sign = strncmp(mode, "max", 3) == 0 ? 1 : strncmp(mode, "min", 3) == 0 ? -1 : 0;
    json_decref(root);
    tr_ckpt_close(ckpt);
  }
  const tr_value *best = config != NULL && sign == 0 ? tr_config_find(config, "checkpoint.keep.best") : NULL;
  if (best != NULL && best->text != NULL) sign = strncmp(best->text, "max", 3) == 0 ? 1 : -1;
  return sign;
}

static tr_status pick_step(const tr_allocator *allocator, tr_stores *stores, const tr_config *config, const char *root,
                           const char *which, uint64_t *step, tr_error *error) {
  tr_store *store = NULL;
  char prefix[TR_KEY_BYTES];
  TR_TRY(tr_stores_resolve(stores, root, &store, prefix, error));
  tr_ckpt_entry *entries = NULL;
  size_t count = 0, chosen = SIZE_MAX;
  TR_TRY(tr_ckpt_list(allocator, store, prefix, &entries, &count, error));
  uint64_t wanted = 0;
  if (count > 0 && strcmp(which, "latest") == 0) {
    chosen = count - 1;
  } else if (count > 0 && strcmp(which, "best") == 0) {
    const int sign = better(allocator, store, prefix, entries[count - 1].step, config);
    for (size_t i = 0; sign != 0 && i < count; i++) {
      if (isnan(entries[i].metric)) continue;
      if (chosen == SIZE_MAX || sign * entries[i].metric > sign * entries[chosen].metric) chosen = i;
    }
  } else if (strncmp(which, "step-", 5) == 0 && tr_parse_u64(which + 5, &wanted)) {
    for (size_t i = 0; i < count; i++) {
      if (entries[i].step == wanted) chosen = i;
    }
  }
  tr_status status = TR_OK;
  if (chosen == SIZE_MAX) {
    status = tr_fail(error, TR_ERR_NOT_FOUND, "checkpoint '%s@%s': there is none (%zu checkpoints are there)", root,
                     which, count);
  } else {
    *step = entries[chosen].step;
  }
  tr_free(allocator, entries);
  return status;
}

tr_status tr_run_find_checkpoint(const tr_allocator *allocator, tr_stores *stores, const tr_config *config,
                                 const char *spec, char *url, tr_error *error) {
  char root[TR_KEY_BYTES], given[TR_KEY_BYTES], which[64] = "latest";
  if (snprintf(given, sizeof given, "%s", spec) >= (int)sizeof given) {
    return tr_fail(error, TR_ERR_CONFIG, "checkpoint '%.80s…': the name is too long", spec);
  }
  char *at = strrchr(given, '@');
  if (at != NULL && strchr(at, '/') == NULL) {
    snprintf(which, sizeof which, "%s", at + 1);
    *at = '\0';
  }
  size_t length = strlen(given);
  while (length > 1 && given[length - 1] == '/') given[--length] = '\0';
  const char *last = strrchr(given, '/');
  if (last != NULL && strncmp(last, "/step-", 6) == 0) {
    snprintf(url, TR_KEY_BYTES, "%s", given);
    return TR_OK;
  }
  if (strstr(given, "://") == NULL && given[0] != '/' && !is_folder(given)) {
    TR_TRY(root_of_job(allocator, config, given, root, error));
  } else {
    char inside[TR_KEY_BYTES + 16];
    snprintf(inside, sizeof inside, "%s/checkpoints", given);
    snprintf(root, sizeof root, "%s", is_folder(inside) && strlen(inside) < sizeof root ? inside : given);
  }
  uint64_t step = 0;
  TR_TRY(pick_step(allocator, stores, config, root, which, &step, error));
  if (snprintf(url, TR_KEY_BYTES, "%s/step-%llu", root, (unsigned long long)step) >= TR_KEY_BYTES) {
    return tr_fail(error, TR_ERR_CONFIG, "checkpoint '%s': the URL is too long", spec);
  }
  return TR_OK;
}
