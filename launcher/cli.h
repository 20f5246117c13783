/* The command line: what was typed, as data.
 *
 * A first word that ends in .toml is a job, a known word a subcommand, anything else a program to run; what follows a
 * job or a program belongs to the program. One table holds the flags, one the subcommands, one the verbs of store and data:
 * parsing, help, suggestions and shell completion all come from them. All text points into argv. */
#ifndef TRAINRUN_LAUNCHER_CLI_H
#define TRAINRUN_LAUNCHER_CLI_H

#include <trainrun/base.h>

/* Exit codes of the command itself (interface: 0, 2, 69, 75, 78, 128 + n, or the root-cause worker's own). */
enum { EXIT_USAGE = 2, EXIT_UNAVAILABLE = 69, EXIT_PREEMPTED = 75, EXIT_CONFIG = 78, EXIT_INTERRUPTED = 130 };

enum { CLI_WORDS_MAX = 1024, CLI_SETS_MAX = 256 };

typedef struct tr_cli tr_cli;

typedef struct tr_cli_command {
  const char *name;
  int (*run)(const tr_cli *cli); /* NULL: planned, not in this version */
  const char *summary;           /* one line */
  const char *usage;             /* after "trainrun " */
  const char *text;              /* the rest of --help, with an example */
} tr_cli_command;

/* What store and data do: the word after the subcommand. */
typedef struct tr_cli_verb {
  const char *name;
  int (*run)(const tr_cli *cli); /* NULL: planned, not in this version */
  size_t words_min, words_max;   /* after the verb */
  const char *summary;           /* one line */
  const char *usage;             /* after "trainrun " */
  const char *text;              /* the rest of --help, with an example */
} tr_cli_verb;

struct tr_cli {
  const tr_cli_command *command;
  uint64_t started_ns;
  char *const *environment;

  const char *nodes, *gpus, *workers, *hosts, *hostfile, *run_id, *run_dir, *job, *timeout, *rank;
  const char *sets[CLI_SETS_MAX]; /* "key=value" */
  size_t set_count;
  bool fresh, dry_run, quiet, json, no_color, profile, trace, offline, explain, follow, force;
  bool help, version;

  /* Of the subcommands that read and write buckets. */
  const char *endpoint_url, *aws_profile, *region, *ca_bundle, *jobs;
  bool no_sign_request, recursive, human;
  /* Of data. */
  const char *to, *output, *lock, *limit, *index, *raw, *epoch, *shard_size, *shard_samples, *image_column,
      *label_column, *seconds, *need, *need_samples;
  const char *seed, *shuffle, *streams, *batch_size, *micro_batch, *format, *sequence_length; /* keys of the job */
  bool order, no_index;
  const char *export_format; /* of ckpt export */

  const char *target;               /* of run and eval: JOB.toml or PROGRAM */
  char *const *arguments;           /* of the program, NULL-terminated */
  const char *words[CLI_WORDS_MAX]; /* of the other subcommands */
  size_t word_count;
};

const tr_cli_command *cli_commands(size_t *count);
const tr_cli_command *cli_command_find(const char *name);

/* 0, or EXIT_USAGE after saying on stderr what is wrong. */
int cli_parse(tr_cli *cli, int argc, char **argv);

/* "--workers" and so on of one subcommand, for completion; NULL after the last. `takes_value` may be NULL. */
const char *cli_flag_at(const tr_cli_command *command, size_t index, bool *takes_value);

/* The nearest of `count` names, or NULL where nothing is near. */
const char *cli_nearest(const char *word, const char *const *names, size_t count);

void cli_help(const tr_cli_command *command);

/* The verbs of a subcommand, NULL and 0 where it has none. */
const tr_cli_verb *cli_verbs(const tr_cli_command *command, size_t *count);
const tr_cli_verb *cli_verb_find(const tr_cli_command *command, const char *name);
void cli_verb_help(const tr_cli_verb *verb);
/* Runs the verb that cli->words[0] names; EXIT_USAGE after saying what is wrong. */
int cli_verb_run(const tr_cli *cli);
bool cli_is_job(const char *word); /* ends in .toml */

/* The subcommands, one file each. */
int cmd_run(const tr_cli *cli);
int cmd_check(const tr_cli *cli);
int cmd_schema(const tr_cli *cli);
int cmd_init(const tr_cli *cli);
int cmd_ps(const tr_cli *cli);
int cmd_status(const tr_cli *cli);
int cmd_logs(const tr_cli *cli);
int cmd_wait(const tr_cli *cli);
int cmd_stop(const tr_cli *cli);
int cmd_ckpt(const tr_cli *cli);
int cmd_store(const tr_cli *cli);
int cmd_data(const tr_cli *cli);
int cmd_completion(const tr_cli *cli);
int cmd_help(const tr_cli *cli);

/* The verbs of store and data. */
int store_ls(const tr_cli *cli);
int store_get(const tr_cli *cli);
int store_put(const tr_cli *cli);
int store_rm(const tr_cli *cli);
int store_probe(const tr_cli *cli);
int data_ls(const tr_cli *cli);
int data_cat(const tr_cli *cli);
int data_index(const tr_cli *cli);
int data_lock(const tr_cli *cli);
int data_verify(const tr_cli *cli);
int data_pack(const tr_cli *cli);
int data_bench(const tr_cli *cli);

#endif
