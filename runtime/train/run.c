/* Opening a run: the lock of its name, the decision to resume, the claim of an attempt.
 *
 * The decision reads only what earlier runs left in <run-dir>/<name>/: control.json (kind, when it was made), summary.json (a
 * run whose status is not "done" is unfinished) and fingerprint.json. Checkpoints are asked of the store. */
#include "run_internal.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

static tr_status no_memory(tr_error *error) { return tr_fail_memory(error, "the run", 256); }

/* ---- The name and its lock ---- */

static tr_status check_name(const char *what, const char *name, tr_error *error) {
  const size_t length = strlen(name);
  bool good = length > 0 && length <= 200 && name[0] != '.';
  for (size_t i = 0; good && i < length; i++) {
    const char c = name[i];
    good = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.' || c == '-' ||
           c == '_';
  }
  if (good) return TR_OK;
  return tr_fail(error, TR_ERR_CONFIG, "%s '%s' must be of letters, digits, '.', '-' and '_', and not begin with '.'",
                 what, name);
}

static tr_status take_lock(tr_run *run, tr_error *error) {
  const char *path = tr_arena_printf(run->arena, "%s/lock", run->job_folder);
  if (path == NULL) return no_memory(error);
  run->lock = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
  if (run->lock < 0) {
    return tr_fail_errno(error, tr_status_from_errno(errno), errno, "run: cannot open the lock '%s'", path);
  }
  char holder[320] = "";
  if (flock(run->lock, LOCK_EX | LOCK_NB) != 0) {
    const ssize_t got = pread(run->lock, holder, sizeof holder - 1, 0);
    holder[got > 0 ? got : 0] = '\0';
    holder[strcspn(holder, "\n")] = '\0';
    return tr_fail(error, TR_ERR_EXISTS,
                   "job '%s' is running already (%s); wait for it, stop it with 'trainrun stop %s', or give this one "
                   "another name",
                   run->info.name, holder[0] != '\0' ? holder : "holder unknown", run->info.name);
  }
  char host[256] = "unknown host";
  (void)gethostname(host, sizeof host - 1);
  const int length = snprintf(holder, sizeof holder, "host %s, pid %d\n", host, (int)getpid());
  if (ftruncate(run->lock, 0) != 0 || pwrite(run->lock, holder, (size_t)length, 0) != length) {
    return tr_fail_errno(error, tr_status_from_errno(errno), errno, "run: cannot write the lock '%s'", path);
  }
  return TR_OK;
}

/* ---- Earlier runs ---- */

typedef struct past_run {
  const char *run_id;
  int64_t created_ns;
  bool done, eval;
} past_run;

static json_t *load_json(tr_run *run, const char *folder, const char *name) {
  char *text = NULL;
  size_t bytes = 0;
  if (tr_folder_read(run->allocator, folder, name, &text, &bytes, NULL) != TR_OK) return NULL;
  json_t *root = json_loadb(text, bytes, 0, NULL);
  tr_free(run->allocator, text);
  return root;
}

/* False where the folder holds no run. */
static bool read_past(tr_run *run, const char *run_id, past_run *past) {
  char folder[TR_KEY_BYTES];
  if (snprintf(folder, sizeof folder, "%s/%s", run->job_folder, run_id) >= (int)sizeof folder) return false;
  json_t *control = load_json(run, folder, "control.json");
  if (control == NULL) return false;
  json_t *summary = load_json(run, folder, "summary.json");
  const char *kind = json_string_value(json_object_get(control, "kind"));
  const char *status = json_string_value(json_object_get(summary, "status"));
  past->created_ns = json_integer_value(json_object_get(control, "created_ns"));
  past->eval = kind != NULL && strcmp(kind, "eval") == 0;
  past->done = status != NULL && strcmp(status, "done") == 0;
  past->run_id = tr_arena_strdup(run->arena, run_id);
  json_decref(summary);
  json_decref(control);
  return past->run_id != NULL;
}

/* The newest unfinished training run of this name, or false. */
static bool newest_unfinished(tr_run *run, past_run *newest) {
  DIR *folder = opendir(run->job_folder);
  if (folder == NULL) return false;
  bool found = false;
  for (struct dirent *entry; (entry = readdir(folder)) != NULL;) {
    past_run past;
    if (entry->d_name[0] == '.' || strcmp(entry->d_name, "lock") == 0) continue;
    if (!read_past(run, entry->d_name, &past) || past.eval || past.done) continue;
    if (found && past.created_ns <= newest->created_ns) continue;
    *newest = past;
    found = true;
  }
  closedir(folder);
  return found;
}

/* Whether the run in that folder has this job's fingerprint; else the differing key goes to info.differs. */
static tr_status same_fingerprint(tr_run *run, const char *run_id, const char *fingerprint, bool *same,
                                  tr_error *error) {
  char folder[TR_KEY_BYTES], key[128] = "fingerprint.json";
  char *text = NULL;
  size_t bytes = 0;
  snprintf(folder, sizeof folder, "%s/%s", run->job_folder, run_id);
  bool differs = true;
  if (tr_folder_read(run->allocator, folder, "fingerprint.json", &text, &bytes, NULL) == TR_OK) {
    differs = tr_config_fingerprint_differs(text, fingerprint, key);
    tr_free(run->allocator, text);
  }
  *same = !differs;
  if (differs) run->info.differs = tr_arena_strdup(run->arena, key);
  return run->info.differs != NULL ? TR_OK : no_memory(error);
}

/* ---- Which run this is ---- */

static const char *new_run_id(tr_run *run) {
  static const char letters[] = "abcdefghijkmnpqrstuvwxyz23456789";
  unsigned char noise[4] = {0};
  if (getrandom(noise, sizeof noise, GRND_NONBLOCK) != (ssize_t)sizeof noise) {
    const uint64_t now = tr_clock_now_ns(NULL);
    memcpy(noise, &now, sizeof noise);
  }
  const time_t seconds = (time_t)(tr_clock_wall_ns(run->clock) / 1000000000);
  struct tm utc;
  char stamp[32];
  gmtime_r(&seconds, &utc);
  strftime(stamp, sizeof stamp, "%Y%m%d-%H%M%S", &utc);
  return tr_arena_printf(run->arena, "%s-%c%c%c%c", stamp, letters[noise[0] % 32], letters[noise[1] % 32],
                         letters[noise[2] % 32], letters[noise[3] % 32]);
}

static tr_status choose_named(tr_run *run, const char *run_id, bool fresh, const char *fingerprint, bool *resume,
                              tr_error *error) {
  TR_TRY(check_name("run-id", run_id, error));
  run->info.run_id = tr_arena_strdup(run->arena, run_id);
  if (run->info.run_id == NULL) return no_memory(error);
  past_run past;
  if (!read_past(run, run_id, &past)) return TR_OK;
  if (fresh) {
    return tr_fail(error, TR_ERR_CONFIG, "--fresh: run '%s/%s' exists already; leave --run-id out or choose another",
                   run->info.name, run_id);
  }
  if (past.eval != run->eval) {
    return tr_fail(error, TR_ERR_CONFIG, "run '%s/%s' is %s", run->info.name, run_id,
                   past.eval ? "an evaluation" : "a training run");
  }
  run->info.done = past.done;
  if (past.done) return TR_OK;
  TR_TRY(same_fingerprint(run, run_id, fingerprint, resume, error));
  if (*resume) return TR_OK;
  return tr_fail(error, TR_ERR_MISMATCH,
                 "run '%s/%s' was started with another '%s'; use another --run-id, or give the job "
                 "its old value",
                 run->info.name, run_id, run->info.differs);
}

static tr_status choose_run(tr_run *run, const tr_run_options *options, const char *fingerprint, bool *resume,
                            tr_error *error) {
  const char *wanted = tr_config_text(run->config, "checkpoint.resume");
  const bool automatic = wanted == NULL || strcmp(wanted, "auto") == 0;
  *resume = false;
  if (options->run_id != NULL) return choose_named(run, options->run_id, options->fresh, fingerprint, resume, error);
  past_run past;
  if (automatic && !options->fresh && !options->eval && newest_unfinished(run, &past)) {
    TR_TRY(same_fingerprint(run, past.run_id, fingerprint, resume, error));
    if (*resume) {
      run->info.run_id = past.run_id;
      return TR_OK;
    }
  }
  run->info.run_id = new_run_id(run);
  return run->info.run_id != NULL ? TR_OK : no_memory(error);
}

/* ---- Checkpoints ---- */

/* "…/step-<n>" of the newest committed checkpoint below `root_url`, or resume_step -1. */
static tr_status find_newest(tr_run *run, const char *root_url, tr_error *error) {
  tr_store *store = NULL;
  char prefix[TR_KEY_BYTES];
  TR_TRY(tr_stores_resolve(run->stores, root_url, &store, prefix, error));
  tr_ckpt_entry *entries = NULL;
  size_t count = 0;
  TR_TRY(tr_ckpt_list(run->allocator, store, prefix, &entries, &count, error));
  run->info.resume_step = count > 0 ? (int64_t)entries[count - 1].step : -1;
  tr_free(run->allocator, entries);
  run->info.resume_url = "";
  if (run->info.resume_step < 0) return TR_OK;
  run->info.resume_url = tr_arena_printf(run->arena, "%s/step-%lld", root_url, (long long)run->info.resume_step);
  return run->info.resume_url != NULL ? TR_OK : no_memory(error);
}

static bool names_checkpoint(const char *wanted) {
  return wanted != NULL && strcmp(wanted, "auto") != 0 && strcmp(wanted, "never") != 0;
}

/* The checkpoint that the job names itself (checkpoint.resume = "…", or eval's newest of the job). */
static tr_status find_named(tr_run *run, const char *spec, tr_error *error) {
  char url[TR_KEY_BYTES];
  TR_TRY(tr_run_find_checkpoint(run->allocator, run->stores, run->config, spec, url, error));
  const char *step = strrchr(url, '/');
  uint64_t number = 0;
  if (step == NULL || strncmp(step, "/step-", 6) != 0 || !tr_parse_u64(step + 6, &number)) {
    return tr_fail(error, TR_ERR_CONFIG, "checkpoint '%s' is no folder named step-<n>", url);
  }
  run->info.resume_step = (int64_t)number;
  run->info.resume_url = tr_arena_strdup(run->arena, url);
  return run->info.resume_url != NULL ? TR_OK : no_memory(error);
}

static tr_status find_resume(tr_run *run, bool resume, tr_error *error) {
  const char *wanted = tr_config_text(run->config, "checkpoint.resume");
  if (resume) TR_TRY(find_newest(run, run->info.checkpoint_url, error));
  if (run->info.resume_step >= 0) return TR_OK;
  if (names_checkpoint(wanted)) return find_named(run, wanted, error);
  if (!run->eval) return TR_OK;
  tr_error missing;
  const tr_status status = find_named(run, run->info.name, &missing);
  if (status == TR_OK || status == TR_ERR_NOT_FOUND) return TR_OK; /* evaluates [model] init */
  if (error != NULL) *error = missing;
  return status;
}

static tr_status claim_epoch(tr_run *run, tr_error *error) {
  tr_store *store = NULL;
  char prefix[TR_KEY_BYTES], host[256] = "unknown";
  (void)gethostname(host, sizeof host - 1);
  TR_TRY(tr_stores_resolve(run->stores, run->info.checkpoint_url, &store, prefix, error));
  uint64_t epoch = 0;
  TR_TRY(tr_ckpt_last_epoch(store, prefix, &epoch, error));
  const char *claim = tr_arena_printf(run->arena, "{\"host\": \"%s\", \"pid\": %d, \"wall_ns\": %lld}\n", host,
                                      (int)getpid(), (long long)tr_clock_wall_ns(run->clock));
  if (claim == NULL) return no_memory(error);
  TR_TRY(tr_ckpt_claim_epoch(store, prefix, epoch + 1, claim, error));
  run->info.attempt = epoch + 1;
  return TR_OK;
}

/* ---- Opening ---- */

static tr_status make_files(tr_run *run, const char *fingerprint, size_t fingerprint_bytes, tr_error *error) {
  TR_TRY(tr_folder_make(run->info.folder, error));
  tr_writer job;
  tr_writer_init(&job, run->allocator);
  tr_config_write_toml(run->config, &job);
  tr_status status = job.failed ? tr_fail_memory(error, "job.resolved.toml", job.bytes) : TR_OK;
  if (status == TR_OK) {
    status = tr_folder_write(run->info.folder, "job.resolved.toml", job.data, job.bytes, 0666, false, error);
  }
  tr_writer_fini(&job);
  TR_TRY(status);
  TR_TRY(tr_folder_write(run->info.folder, "fingerprint.json", fingerprint, fingerprint_bytes, 0666, false, error));
  TR_TRY(tr_folder_cut_steps(run->allocator, run->info.folder, "metrics.jsonl",
                             run->info.resume_step > 0 ? run->info.resume_step : 0, error));
  if (tr_config_boolean(run->config, "metrics.jsonl")) {
    TR_TRY(tr_folder_append_open(run->info.folder, "metrics.jsonl", &run->metrics, error));
  }
  TR_TRY(tr_folder_append_open(run->info.folder, "events.jsonl", &run->events, error));
  return tr_run_write_control(run, "running", error);
}

static tr_status place(tr_run *run, tr_error *error) {
  run->info.folder = tr_arena_printf(run->arena, "%s/%s", run->job_folder, run->info.run_id);
  if (run->info.folder == NULL) return no_memory(error);
  const char *root = tr_config_text(run->config, "checkpoint.url");
  if (root == NULL) {
    run->info.checkpoint_url = tr_arena_printf(run->arena, "%s/checkpoints", run->info.folder);
  } else {
    char *url = tr_config_path(run->config, run->allocator, "checkpoint.url", root);
    if (url == NULL) return no_memory(error);
    run->info.checkpoint_url = tr_arena_printf(run->arena, "%s/%s/%s", url, run->info.name, run->info.run_id);
    tr_free(run->allocator, url);
  }
  return run->info.checkpoint_url != NULL ? TR_OK : no_memory(error);
}

static tr_status open_run(tr_run *run, const tr_run_options *options, const char *fingerprint, size_t fingerprint_bytes,
                          tr_error *error) {
  const char *run_dir = tr_config_text(run->config, "run-dir");
  if (run_dir == NULL) run_dir = "runs";
  if (strncmp(run_dir, "file://", 7) == 0) run_dir += 7;
  if (strstr(run_dir, "://") != NULL) {
    return tr_fail(error, TR_ERR_UNSUPPORTED, "run-dir '%s': a run folder in a bucket is planned, not in this version",
                   run_dir);
  }
  run->job_folder = tr_arena_printf(run->arena, "%s/%s", run_dir, run->info.name);
  if (run->job_folder == NULL) return no_memory(error);
  TR_TRY(tr_folder_make(run->job_folder, error));
  TR_TRY(take_lock(run, error));
  bool resume = false;
  TR_TRY(choose_run(run, options, fingerprint, &resume, error));
  TR_TRY(place(run, error));
  if (run->info.done) {
    size_t bytes = 0;
    return tr_folder_read(run->allocator, run->info.folder, "summary.json", &run->summary, &bytes, error);
  }
  TR_TRY(find_resume(run, resume, error));
  TR_TRY(claim_epoch(run, error));
  return make_files(run, fingerprint, fingerprint_bytes, error);
}

tr_status tr_run_open(const tr_run_options *options, tr_run **out, tr_error *error) {
  const char *name = tr_config_text(options->config, "name");
  if (name == NULL) name = "job";
  TR_TRY(check_name("name", name, error));
  tr_run *run = tr_calloc(options->allocator, 1, sizeof *run);
  if (run == NULL) return no_memory(error);
  run->allocator = options->allocator;
  run->clock = options->clock;
  run->log = options->log;
  run->stores = options->stores;
  run->config = options->config;
  run->eval = options->eval;
  run->world_size = options->world_size;
  run->lock = run->metrics = run->events = -1;
  run->started_wall_ns = tr_clock_wall_ns(options->clock);
  run->info.resume_step = -1;
  run->info.resume_url = run->info.differs = "";
  tr_writer fingerprint;
  tr_writer_init(&fingerprint, options->allocator);
  tr_writer_init(&run->trace, options->allocator);
  tr_status status = tr_arena_create(options->allocator, 4096, &run->arena, error);
  if (status != TR_OK) goto err_open;
  run->info.name = tr_arena_strdup(run->arena, name);
  run->device = tr_arena_strdup(run->arena, options->device != NULL ? options->device : "cpu");
  tr_config_write_fingerprint(options->config, &fingerprint);
  tr_write_u8(&fingerprint, 0);
  if (run->info.name == NULL || run->device == NULL || fingerprint.failed) {
    status = no_memory(error);
    goto err_open;
  }
  status = open_run(run, options, (const char *)fingerprint.data, fingerprint.bytes - 1, error);
  if (status != TR_OK) goto err_open;
  tr_writer_fini(&fingerprint);
  *out = run;
  return TR_OK;
err_open:
  tr_writer_fini(&fingerprint);
  tr_run_close(run);
  return status;
}

tr_status tr_run_next_attempt(tr_run *run, tr_error *error) {
  run->info.resume_step = -1;
  run->info.resume_url = "";
  TR_TRY(find_resume(run, true, error));
  TR_TRY(claim_epoch(run, error));
  tr_free(run->allocator, run->result);
  run->result = NULL;
  if (run->metrics >= 0) {
    close(run->metrics);
    run->metrics = -1;
    TR_TRY(tr_folder_cut_steps(run->allocator, run->info.folder, "metrics.jsonl",
                               run->info.resume_step > 0 ? run->info.resume_step : 0, error));
    TR_TRY(tr_folder_append_open(run->info.folder, "metrics.jsonl", &run->metrics, error));
  }
  return tr_run_write_control(run, "running", error);
}

void tr_run_close(tr_run *run) {
  if (run == NULL) return;
  const tr_allocator *allocator = run->allocator;
  if (run->metrics >= 0) close(run->metrics);
  if (run->events >= 0) close(run->events);
  if (run->lock >= 0) close(run->lock); /* releases the lock */
  tr_writer_fini(&run->trace);
  tr_free(allocator, run->result);
  tr_free(allocator, run->last);
  tr_free(allocator, run->summary);
  tr_arena_destroy(run->arena);
  tr_free(allocator, run);
}

const tr_run_info *tr_run_describe(const tr_run *run) { return &run->info; }

const char *tr_run_summary(const tr_run *run) { return run->summary; }
