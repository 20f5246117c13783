/* trainrun init: a commented job file, or the three files of an SDK program, to start from. */
#include "cli.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static const char job_template[] =
    "# A job for trainrun. `trainrun check` reports every mistake, `trainrun schema` prints the JSON Schema.\n"
    "name    = \"my-job\"\n"
    "program = \"fashion_mnist\"        # an SDK program: a path, or a name found beside trainrun\n"
    "# command = [\"python3\", \"train.py\"]  # or any program, with torchrun's environment\n"
    "seed    = 1\n"
    "run-dir = \"runs\"                 # relative to where trainrun is called\n"
    "\n"
    "[cluster]\n"
    "workers-per-node = \"auto\"        # or a number; the flag --workers wins\n"
    "\n"
    "[data]\n"
    "train = \"data/train-{000..003}.tar\"   # or a folder, a list, s3://bucket/folder/; relative to this file\n"
    "# valid = \"data/valid.tar\"\n"
    "# fields = { image = \"png\", label = \"cls\" }\n"
    "batch-size = 128                 # of the whole job, whatever the number of workers\n"
    "\n"
    "[train]\n"
    "epochs = 2                       # or steps, samples, time\n"
    "# eval-every = \"1 epoch\"\n"
    "\n"
    "[optimizer]\n"
    "name = \"adamw\"                   # or sgd\n"
    "lr   = 1e-3\n"
    "\n"
    "[checkpoint]\n"
    "every = \"200 steps\"              # an unfinished run goes on from the newest one\n"
    "keep  = { last = 2 }\n"
    "\n"
    "[failure]\n"
    "max-restarts = 3\n";

static const char sdk_job[] =
    "# `make`, then: trainrun --workers 2 job.toml   (or ./model job.toml, or mpirun -np 2 ./model job.toml)\n"
    "name    = \"my-model\"\n"
    "program = \"./model\"\n"
    "seed    = 1\n"
    "\n"
    "[data]\n"
    "train = \"data.csv\"               # columns: x0, x1, y\n"
    "fields = { x = \"x0,x1\", y = \"y\" }\n"
    "batch-size = 64\n"
    "\n"
    "[train]\n"
    "epochs = 10\n"
    "\n"
    "[optimizer]\n"
    "lr = 1e-2\n"
    "\n"
    "[params]                         # what main.c declares\n"
    "width = 32\n";

static const char sdk_main[] =
    "/* A model of two layers: open a session, build a graph, train. */\n"
    "#include <stdio.h>\n"
    "#include <trainrun/trainrun.h>\n"
    "\n"
    "static tr_status build(void *self, const tr_model *model, tr_error *error) {\n"
    "  (void)self, (void)error;\n"
    "  tr_graph *g = model->graph;\n"
    "  const int64_t width = tr_session_param_integer(model->session, \"width\");\n"
    "  tr_tensor x = tr_model_input(model, \"x\");\n"
    "  tr_tensor y = tr_model_input(model, \"y\");\n"
    "  tr_tensor hidden = tr_relu(g, tr_linear(g, \"hidden\", x, width, true));\n"
    "  tr_tensor out = tr_linear(g, \"out\", hidden, 1, true);\n"
    "  tr_graph_loss(g, tr_mean_squared_error(g, tr_reshape(g, out, 0, NULL), y));\n"
    "  return TR_OK;\n"
    "}\n"
    "\n"
    "int main(int argc, char **argv) {\n"
    "  static const tr_param_declaration params[] = {{\"width\", TR_PARAM_INTEGER, \"32\", \"units of the hidden "
    "layer\"}};\n"
    "  const tr_session_options options = {.struct_bytes = sizeof options, .params = params, .param_count = 1};\n"
    "  const tr_trainer_options trainer = {.struct_bytes = sizeof trainer, .build = build};\n"
    "  tr_session *session = NULL;\n"
    "  tr_train_result result;\n"
    "  tr_error error;\n"
    "  tr_status status = tr_session_open(argc, argv, &options, &session, &error);\n"
    "  if (status == TR_OK) status = tr_train(session, &trainer, &result, &error);\n"
    "  if (status != TR_OK && status != TR_ERR_STOPPED) fprintf(stderr, \"%s\\n\", error.message);\n"
    "  return tr_session_close(session, status, &error);\n"
    "}\n";

static const char sdk_makefile[] =
    "CFLAGS += -O2 $(shell pkg-config --cflags trainrun)\n"
    "LDLIBS += $(shell pkg-config --libs trainrun)\n"
    "\n"
    "model: main.c\n"
    "\t$(CC) -std=c17 $(CFLAGS) -o $@ $< $(LDLIBS)\n";

static int write_file(const tr_cli *cli, const char *folder, const char *name, const char *text) {
  char path[4096];
  snprintf(path, sizeof path, "%s/%s", folder, name);
  if (mkdir(folder, 0777) != 0 && errno != EEXIST) {
    fprintf(stderr, "trainrun: cannot make '%s': %s\n", folder, strerror(errno));
    return EXIT_UNAVAILABLE;
  }
  FILE *file = fopen(path, cli->force ? "we" : "wxe");
  if (file == NULL) {
    fprintf(stderr, "trainrun: cannot write '%s': %s%s\n", path, strerror(errno),
            errno == EEXIST ? " (--force overwrites it)" : "");
    return EXIT_UNAVAILABLE;
  }
  const bool good = fputs(text, file) >= 0;
  if (fclose(file) != 0 || !good) {
    fprintf(stderr, "trainrun: cannot write '%s': %s\n", path, strerror(errno));
    return EXIT_UNAVAILABLE;
  }
  if (!cli->quiet) printf("%s\n", path);
  return 0;
}

int cmd_init(const tr_cli *cli) {
  const char *template = cli->word_count > 0 ? cli->words[0] : "job";
  const char *folder = cli->word_count > 1 ? cli->words[1] : NULL;
  if (strcmp(template, "job") == 0) {
    if (folder != NULL) return write_file(cli, folder, "job.toml", job_template);
    return fputs(job_template, stdout) >= 0 ? 0 : EXIT_UNAVAILABLE;
  }
  if (strcmp(template, "sdk") != 0) {
    fprintf(stderr, "trainrun: no template '%s'; there are: job, sdk\n", template);
    return EXIT_USAGE;
  }
  if (folder == NULL) folder = ".";
  int code = write_file(cli, folder, "job.toml", sdk_job);
  if (code == 0) code = write_file(cli, folder, "main.c", sdk_main);
  if (code == 0) code = write_file(cli, folder, "Makefile", sdk_makefile);
  return code;
}
