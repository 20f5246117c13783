/* The table of subcommands and their help. */
#include "cli.h"

#include <stdio.h>
#include <string.h>

#define RUN_FLAGS                                                                                                      \
  "  --workers N           workers on this machine (--nproc-per-node is the same); \"auto\" by default\n"              \
  "  --gpus N              the same with device = cuda (--gpus-per-node)\n"                                            \
  "  --nodes N|MIN:MAX     machines (--nnodes); also --hosts a,b:4 and --hostfile F\n"                                 \
  "  --set KEY=VALUE       any key of the job file, as often as wanted: --set optimizer.lr=3e-4\n"                     \
  "  --run-id ID           name the run; a finished one is left as it is\n"                                            \
  "  --run-dir DIR         where runs are kept (default: runs)\n"                                                      \
  "  --fresh               start a new run even where an unfinished one could go on\n"                                 \
  "  --dry-run, -n         say what would be started, start nothing\n"                                                 \
  "  --profile             time, GFLOP/s and GB/s of each operation\n"                                                 \
  "  --trace               write trace.json (opens in Perfetto)\n"                                                     \
  "  --quiet, -q           nothing but the workers' own lines and errors\n"                                            \
  "  --json                one JSON object a line on standard output\n"                                                \
  "  --no-color            no colors, even on a terminal\n"                                                            \
  "  --offline             use nothing that is not on this machine\n"

static const tr_cli_command commands[] = {
    {"run", cmd_run, "train: start the workers of a job or a program", "[run] [flags] JOB.toml | PROGRAM [arguments]",
     "Starts the workers, shows what they do, restarts them from the last checkpoint when one dies, and ends with a\n"
     "summary. A job is a file that ends in .toml; anything else is a program with an all-default job (.py runs under\n"
     "python3 with torchrun's environment). What follows the job or program belongs to the program.\n\n"
     "Flags:\n" RUN_FLAGS "\nExit codes: 0 done; 2 usage; 69 something needed is not there; 75 pre-empted, requeue me; "
     "78 the job file is wrong;\n"
     "130 stopped by Ctrl-C; otherwise the code of the worker that failed first (128+n for a signal).\n"
     "Signals: Ctrl-C or SIGTERM once: checkpoint and stop; twice: stop now.\n\n"
     "Examples:\n"
     "  trainrun --workers 2 job.toml\n"
     "  trainrun --workers 2 --set train.epochs=4 --fresh job.toml\n"
     "  trainrun --workers 2 build/examples/hello_allreduce\n"
     "  trainrun --nproc-per-node 2 train.py --lr 0.1\n"},
    {"eval", cmd_run, "evaluate data.valid from the job's newest checkpoint", "eval [flags] JOB.toml",
     "Evaluates data.valid from the newest checkpoint of the job (without one from [model] init) and writes a run of "
     "its\n"
     "own, which resume never picks up.\n\nFlags: as 'trainrun run --help'.\n\n"
     "Example:\n  trainrun eval --workers 2 job.toml\n"},
    {"check", cmd_check, "report every mistake of a job file", "check [--explain] [--json] [flags] JOB.toml",
     "Reports all mistakes with line, column and the nearest right key; exit 78 where there is one. --explain lists "
     "every\n"
     "value and where it came from: flag, environment, job file or default.\n\n"
     "Example:\n  trainrun check --explain --set train.epochs=3 job.toml\n"},
    {"schema", cmd_schema, "print the JSON Schema of job.toml", "schema",
     "For editors that complete and check job files.\n\nExample:\n  trainrun schema > job.schema.json\n"},
    {"init", cmd_init, "write a commented job file to start from", "init [job|sdk] [DIR] [--force]",
     "job (the default) prints a commented job.toml, or writes it into DIR. sdk writes job.toml, main.c and a "
     "Makefile\n"
     "for a program of your own into DIR (default: the current folder).\n\n"
     "Examples:\n  trainrun init > job.toml\n  trainrun init sdk my-model\n"},
    {"ps", cmd_ps, "list the jobs that run on this machine", "ps [--json] [--run-dir DIR]",
     "Lists the jobs below the run directory and those of your other trainrun processes.\n\nExample:\n  trainrun ps\n"},
    {"status", cmd_status, "what a job's workers are doing", "status [NAME[/RUN-ID]] [--json]",
     "Step, phase and last sign of life of each worker of a job on this machine. Without a name: the only one that "
     "runs,\n"
     "or the newest run.\n\nExample:\n  trainrun status fashion-mnist --json\n"},
    {"logs", cmd_logs, "print the workers' output", "logs [NAME[/RUN-ID]] [--rank R] [--follow]",
     "Prints logs/attempt_<k>/<rank>.log of the last attempt, each line with its rank.\n\n"
     "Example:\n  trainrun logs fashion-mnist --rank 0 --follow\n"},
    {"wait", cmd_wait, "wait for a job's end and return its exit code", "wait [NAME[/RUN-ID]] [--timeout 10m]",
     "Exit code: the job's own; 69 where the time limit passes first.\n\nExample:\n  trainrun wait fashion-mnist\n"},
    {"stop", cmd_stop, "ask a job to checkpoint and stop", "stop [NAME[/RUN-ID]] [--force]",
     "The job writes a checkpoint and ends with status stopped; the same command goes on with it later. --force: at "
     "once,\n"
     "without a checkpoint.\n\nExample:\n  trainrun stop fashion-mnist\n"},
    {"ckpt", cmd_ckpt, "list, show, verify, copy, export and remove checkpoints",
     "ckpt ls|show|verify|rm CKPT | ckpt cp|export CKPT DEST",
     "CKPT is RUN-URL[@latest|@best|@step-N], the URL of a step, or the name of a job.\n"
     "  ls      the checkpoints of a run\n"
     "  show    step, cursor, tensors\n"
     "  verify  reads every byte and checks every checksum\n"
     "  rm      removes one (needs @...; --force removes all of a run)\n"
     "  cp      copies one to DEST/step-<n>, verified as it passes\n"
     "  export  writes the weights to DEST/model.safetensors, or in several files with an index, for other programs\n"
     "  -f JOB.toml gives run-dir and storage where they are not the defaults.\n\n"
     "Examples:\n  trainrun ckpt ls fashion-mnist\n  trainrun ckpt verify fashion-mnist@best\n"
     "  trainrun ckpt cp fashion-mnist@latest /backup\n"
     "  trainrun ckpt export fashion-mnist@best s3://models/fashion\n"},
    {"store", cmd_store, "list, copy and remove what is in a bucket; probe one",
     "store ls|rm|probe URL | store get URL DEST | store put SRC URL",
     "Buckets (s3://bucket/key) and folders of this machine alike.\n\n"
     "Examples:\n  trainrun store ls s3://bucket/data/\n  trainrun store put data s3://bucket/data/\n"
     "  trainrun store probe s3://bucket\n"},
    {"data", cmd_data, "look at a data set, check it, make one, measure it",
     "data ls|cat|index|lock|verify|bench URL... | data pack SRC DEST",
     "Shards in buckets or folders: WebDataset tar, MDS, tokens, IDX, CSV.\n\n"
     "Examples:\n  trainrun data ls s3://bucket/train/\n  trainrun data pack photos s3://bucket/photos/train\n"
     "  trainrun data bench --need '250 MB/s' s3://bucket/train/\n"},
    {"completion", cmd_completion, "print a shell's completion script", "completion bash|zsh|fish",
     "Examples:\n  source <(trainrun completion bash)\n  trainrun completion fish > "
     "~/.config/fish/completions/trainrun.fish\n"},
    {"help", cmd_help, "help for a subcommand", "help [SUBCOMMAND]", "Example:\n  trainrun help run\n"},
    {"plan", NULL, NULL, NULL, NULL},
    {"doctor", NULL, NULL, NULL, NULL},
    {"agent", NULL, NULL, NULL, NULL},
    {"render", NULL, NULL, NULL, NULL},
    {"bench", NULL, NULL, NULL, NULL},
};
enum { COMMAND_COUNT = sizeof commands / sizeof *commands };

const tr_cli_command *cli_commands(size_t *count) {
  *count = COMMAND_COUNT;
  return commands;
}

const tr_cli_command *cli_command_find(const char *name) {
  for (size_t i = 0; i < COMMAND_COUNT; i++) {
    if (strcmp(commands[i].name, name) == 0) return &commands[i];
  }
  return NULL;
}

static void help_all(void) {
  printf(
      "trainrun: train on several workers, exactly, and say where the time goes\n\n"
      "Usage: trainrun [run] [flags] JOB.toml | PROGRAM [program arguments]\n"
      "       trainrun SUBCOMMAND ...\n\nSubcommands:\n");
  for (size_t i = 0; i < COMMAND_COUNT; i++) {
    if (commands[i].run != NULL) printf("  %-11s %s\n", commands[i].name, commands[i].summary);
  }
  printf("\nFlags of a run:\n" RUN_FLAGS
         "  --help, -h            of any subcommand, with an example\n"
         "  --version, -V\n\n"
         "Example:\n"
         "  trainrun init > job.toml && trainrun check job.toml && trainrun --workers 2 job.toml\n");
}

void cli_help(const tr_cli_command *command) {
  if (command == NULL) {
    help_all();
  } else if (command->run == NULL) {
    printf("trainrun %s: planned, not in this version\n\nExample of what there is:\n  trainrun --help\n",
           command->name);
  } else {
    size_t count = 0;
    const tr_cli_verb *verbs = cli_verbs(command, &count);
    printf("trainrun %s: %s\n\nUsage: trainrun %s\n\n", command->name, command->summary, command->usage);
    for (size_t i = 0; i < count; i++) {
      if (verbs[i].run != NULL) printf("  %-8s %s\n", verbs[i].name, verbs[i].summary);
    }
    if (count > 0) printf("\n'trainrun %s VERB --help' has more of each.\n", command->name);
    printf("%s", command->text);
  }
}

int cmd_help(const tr_cli *cli) {
  const tr_cli_command *command = cli->word_count > 0 ? cli_command_find(cli->words[0]) : NULL;
  const tr_cli_verb *verb = cli->word_count > 1 ? cli_verb_find(command, cli->words[1]) : NULL;
  if (verb != NULL) {
    cli_verb_help(verb);
    return 0;
  }
  if (cli->word_count > 0 && command == NULL) {
    const char *names[COMMAND_COUNT];
    for (size_t i = 0; i < COMMAND_COUNT; i++) names[i] = commands[i].name;
    const char *near = cli_nearest(cli->words[0], names, COMMAND_COUNT);
    fprintf(stderr, "trainrun: no subcommand '%s'\n", cli->words[0]);
    if (near != NULL) fprintf(stderr, "  did you mean '%s'?\n", near);
    return EXIT_USAGE;
  }
  cli_help(command);
  return 0;
}
