/* Reading a job: the file's text, the flags as overrides, then one call of the config reader. */
#include "job.h"

#include "describe.h"
#include "term.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { JOB_BYTES_MAX = 1024 * 1024 };

static int no_memory(void) {
  fprintf(stderr, "trainrun: out of memory\n");
  return EXIT_UNAVAILABLE;
}

/* Keeps `text` (from malloc) until the job is closed. */
static const char *keep(tr_job *job, char *text) {
  if (text == NULL) return NULL;
  if (tr_reserve(NULL, (void **)&job->owned, &job->owned_capacity, job->owned_count + 1, sizeof *job->owned, NULL) !=
      TR_OK) {
    free(text);
    return NULL;
  }
  return job->owned[job->owned_count++] = text;
}

static bool add(tr_job *job, const char *key, const char *value, const char *origin) {
  if (key == NULL || value == NULL) return false;
  if (tr_reserve(NULL, (void **)&job->overrides, &job->override_capacity, job->override_count + 1,
                 sizeof *job->overrides, NULL) != TR_OK) {
    return false;
  }
  job->overrides[job->override_count++] = (tr_override){.key = key, .value = value, .origin = origin};
  return true;
}

/* Any text as a TOML string. */
static void write_toml_string(FILE *out, const char *text) {
  fputc('"', out);
  for (const unsigned char *c = (const unsigned char *)text; *c != '\0'; c++) {
    if (*c == '"' || *c == '\\') {
      fprintf(out, "\\%c", *c);
    } else if (*c < 0x20 || *c == 0x7f) {
      fprintf(out, "\\u%04x", *c);
    } else if (*c == '$' && c[1] == '{') {
      fputs("$\\u007b", out); /* what was typed in a shell is not expanded once more */
      c++;
    } else {
      fputc(*c, out);
    }
  }
  fputc('"', out);
}

static const char *toml_list(tr_job *job, const char *first, const char *second, char *const *rest) {
  char *text = NULL;
  size_t bytes = 0;
  FILE *out = open_memstream(&text, &bytes);
  if (out == NULL) return NULL;
  fputc('[', out);
  write_toml_string(out, first);
  if (second != NULL) {
    fputs(", ", out);
    write_toml_string(out, second);
  }
  for (; rest != NULL && *rest != NULL; rest++) {
    fputs(", ", out);
    write_toml_string(out, *rest);
  }
  fputc(']', out);
  return fclose(out) == 0 ? keep(job, text) : NULL;
}

static const char *toml_string(tr_job *job, const char *value) {
  char *text = NULL;
  size_t bytes = 0;
  FILE *out = open_memstream(&text, &bytes);
  if (out == NULL) return NULL;
  write_toml_string(out, value);
  return fclose(out) == 0 ? keep(job, text) : NULL;
}

static bool in_environment(const tr_cli *cli, const char *name) {
  const size_t length = strlen(name);
  for (char *const *item = cli->environment; *item != NULL; item++) {
    if (strncmp(*item, name, length) == 0 && (*item)[length] == '=') return true;
  }
  return false;
}

/* "build/examples/hello_allreduce" -> "hello_allreduce": what its runs are called. */
static const char *name_of_program(tr_job *job, const char *program) {
  const char *base = strrchr(program, '/') != NULL ? strrchr(program, '/') + 1 : program;
  char *name = strdup(base);
  if (name == NULL) return NULL;
  const size_t length = strlen(name);
  if (length > 3 && strcmp(name + length - 3, ".py") == 0) name[length - 3] = '\0';
  for (char *c = name; *c != '\0'; c++) {
    const bool plain = (*c >= 'a' && *c <= 'z') || (*c >= 'A' && *c <= 'Z') || (*c >= '0' && *c <= '9') || *c == '-' ||
                       *c == '_' || (*c == '.' && c != name);
    if (!plain) *c = '-';
  }
  return toml_string(job, keep(job, name));
}

static bool add_program(tr_job *job, const tr_cli *cli, const char *program) {
  const char *origin = "command line";
  const size_t length = strlen(program);
  if (!in_environment(cli, "TRAINRUN_NAME") && !add(job, "name", name_of_program(job, program), origin)) return false;
  if (length > 3 && strcmp(program + length - 3, ".py") == 0) {
    return add(job, "command", toml_list(job, "python3", program, cli->arguments), origin);
  }
  return add(job, "program", toml_string(job, program), origin);
}

static bool add_nodes(tr_job *job, const char *nodes) {
  const char *colon = strchr(nodes, ':');
  if (colon == NULL) return add(job, "cluster.nodes", nodes, "--nodes");
  const char *low = keep(job, strndup(nodes, (size_t)(colon - nodes)));
  return low != NULL && add(job, "cluster.min-nodes", low, "--nodes") &&
         add(job, "cluster.max-nodes", colon + 1, "--nodes");
}

static const char *split_hosts(tr_job *job, const char *hosts) {
  char *copy = strdup(hosts), *at = copy, *items[1024];
  size_t count = 0;
  if (copy == NULL || keep(job, copy) == NULL) return NULL;
  for (char *host; (host = strsep(&at, ",")) != NULL && count + 1 < 1024;) {
    if (*host != '\0') items[count++] = host;
  }
  items[count] = NULL;
  return count > 0 ? toml_list(job, items[0], NULL, items + 1) : keep(job, strdup("[]"));
}

/* What `data` says about the order and the format of samples has the job's own names. */
static bool add_data_flags(tr_job *job, const tr_cli *cli) {
  const struct {
    const char *value, *key, *origin;
  } flags[] = {{cli->seed, "seed", "--seed"},
               {cli->shuffle, "data.shuffle", "--shuffle"},
               {cli->streams, "data.streams", "--streams"},
               {cli->batch_size, "data.batch-size", "--batch-size"},
               {cli->micro_batch, "train.micro-batch", "--micro-batch"},
               {cli->format, "data.format", "--format"},
               {cli->sequence_length, "data.sequence-length", "--sequence-length"}};
  for (size_t i = 0; i < sizeof flags / sizeof *flags; i++) {
    if (flags[i].value != NULL && !add(job, flags[i].key, flags[i].value, flags[i].origin)) return false;
  }
  return true;
}

static bool add_flags(tr_job *job, const tr_cli *cli) {
  bool good = true;
  if (cli->nodes != NULL) good = good && add_nodes(job, cli->nodes);
  if (cli->gpus != NULL) {
    good = good && add(job, "cluster.workers-per-node", cli->gpus, "--gpus") &&
           add(job, "cluster.device", "\"cuda\"", "--gpus");
  }
  if (cli->workers != NULL) good = good && add(job, "cluster.workers-per-node", cli->workers, "--workers");
  if (cli->hosts != NULL) good = good && add(job, "cluster.hosts", split_hosts(job, cli->hosts), "--hosts");
  if (cli->run_dir != NULL) good = good && add(job, "run-dir", toml_string(job, cli->run_dir), "--run-dir");
  good = good && add_data_flags(job, cli);
  for (size_t i = 0; good && i < cli->set_count; i++) {
    const char *equals = strchr(cli->sets[i], '=');
    good = add(job, keep(job, strndup(cli->sets[i], (size_t)(equals - cli->sets[i]))), equals + 1, "--set");
  }
  return good;
}

static int read_file(tr_job *job) {
  const int descriptor = open(job->path, O_RDONLY | O_CLOEXEC);
  struct stat info;
  if (descriptor < 0 || fstat(descriptor, &info) != 0) {
    fprintf(stderr, "trainrun: cannot read the job file '%s': %s\n", job->path, strerror(errno));
    if (errno == ENOENT) fprintf(stderr, "  'trainrun init > %s' writes one to start from\n", job->path);
    if (descriptor >= 0) close(descriptor);
    return EXIT_UNAVAILABLE;
  }
  /* One byte more than may be read: the config reader refuses what is too long. */
  job->text = malloc(JOB_BYTES_MAX + 2);
  size_t got = 0;
  for (ssize_t n = 1; job->text != NULL && n > 0 && got < JOB_BYTES_MAX + 1;) {
    n = read(descriptor, job->text + got, JOB_BYTES_MAX + 1 - got);
    if (n < 0 && errno == EINTR) {
      n = 1;
      continue;
    }
    if (n < 0) {
      fprintf(stderr, "trainrun: cannot read the job file '%s': %s\n", job->path, strerror(errno));
      close(descriptor);
      return EXIT_UNAVAILABLE;
    }
    got += (size_t)n;
  }
  close(descriptor);
  if (job->text == NULL) return no_memory();
  job->text[got] = '\0';
  job->text_bytes = got;
  const char *slash = strrchr(job->path, '/');
  job->directory = slash == NULL ? strdup(".")
                                 : strndup(job->path, slash == job->path ? 1 : (size_t)(slash - job->path));
  return job->directory != NULL ? 0 : no_memory();
}

/* What a job without a name is called: as its file. */
static bool add_default_name(tr_job *job) {
  const char *base = strrchr(job->path, '/') != NULL ? strrchr(job->path, '/') + 1 : job->path;
  const char *name = toml_string(job, keep(job, strndup(base, strlen(base) - strlen(".toml"))));
  return add(job, "name", name, "file name");
}

static tr_status load(tr_job *job, const tr_cli *cli, tr_error *error) {
  const tr_config_source source = {.struct_bytes = sizeof source,
                                   .text = job->text,
                                   .text_bytes = job->text_bytes,
                                   .name = job->path != NULL ? job->path : "command line",
                                   .directory = job->directory,
                                   .overrides = job->overrides,
                                   .override_count = job->override_count,
                                   .environment = (const char *const *)cli->environment};
  tr_diagnostics_destroy(job->diagnostics);
  job->diagnostics = NULL;
  TR_TRY(tr_diagnostics_create(NULL, &job->diagnostics, error));
  return tr_config_load(&source, job->diagnostics, &job->config, error);
}

int job_open(tr_job *job, const tr_cli *cli, job_kind kind, const char *target) {
  memset(job, 0, sizeof *job);
  if (kind == JOB_FILE || kind == JOB_SETTINGS) {
    job->path = target;
    const int code = read_file(job);
    if (code != 0) return code;
  }
  if (kind == JOB_PROGRAM && !add_program(job, cli, target)) return no_memory();
  if (kind == JOB_NONE && !add(job, "program", "\"true\"", "default")) return no_memory();
  if (!add_flags(job, cli)) return no_memory();
  tr_error error;
  tr_status status = load(job, cli, &error);
  if (status == TR_OK && job->path != NULL && tr_config_text(job->config, "name") == NULL) {
    tr_config_destroy(job->config);
    job->config = NULL;
    if (!add_default_name(job)) return no_memory();
    status = load(job, cli, &error);
  }
  if (kind == JOB_FILE && (status == TR_OK || status == TR_ERR_CONFIG)) {
    const tr_describe_check check = {
        .cli = cli, .name = job->path, .text = job->text, .directory = job->directory, .diagnostics = job->diagnostics};
    if (job->diagnostics != NULL && describe_check(&check) > 0) status = TR_ERR_CONFIG;
  }
  if (status == TR_OK) return 0;
  if (tr_diagnostics_errors(job->diagnostics) == 0) fprintf(stderr, "trainrun: %s\n", error.message);
  return status == TR_ERR_CONFIG ? EXIT_CONFIG : tr_status_exit_code(status);
}

void job_print_diagnostics(const tr_job *job, bool color) {
  if (job->diagnostics == NULL || tr_diagnostics_count(job->diagnostics) == 0) return;
  tr_writer writer;
  tr_writer_init(&writer, NULL);
  tr_diagnostics_write(job->diagnostics, job->path != NULL ? job->path : "command line",
                       job->text != NULL ? job->text : "", color, &writer);
  if (!writer.failed) fwrite(writer.data, 1, writer.bytes, stderr);
  tr_writer_fini(&writer);
}

int job_open_or_say(tr_job *job, const tr_cli *cli, job_kind kind, const char *target) {
  const int code = job_open(job, cli, kind, target);
  const size_t errors = job->diagnostics != NULL ? tr_diagnostics_errors(job->diagnostics) : 0;
  if (code == 0 && cli->quiet) return code;
  job_print_diagnostics(job, term_wants_color(cli, STDERR_FILENO));
  if (errors > 0) {
    fprintf(stderr, "trainrun: %zu mistake%s; nothing was started\n", errors, errors == 1 ? "" : "s");
  }
  return code;
}

int job_open_settings(tr_job *job, const tr_cli *cli) {
  return job_open_or_say(job, cli, cli->job != NULL ? JOB_SETTINGS : JOB_NONE, cli->job);
}

void job_close(tr_job *job) {
  tr_config_destroy(job->config);
  tr_diagnostics_destroy(job->diagnostics);
  for (size_t i = 0; i < job->owned_count; i++) free(job->owned[i]);
  tr_free(NULL, job->owned);
  tr_free(NULL, job->overrides);
  free(job->directory);
  free(job->text);
  memset(job, 0, sizeof *job);
}
