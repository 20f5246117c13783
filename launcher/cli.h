/* The command line: what was typed, as data.
 *
 * A first word that ends in .toml is a job, a known word a subcommand, anything else a program to run; what follows a
 * job or a program belongs to the program. One table holds the flags, one the subcommands: parsing, help, suggestions and
 * shell completion all come from them. All text points into argv. */
#ifndef TRAINRUN_LAUNCHER_CLI_H
#define TRAINRUN_LAUNCHER_CLI_H

#include <trainrun/base.h>

/* Exit codes of the command itself (interface: 0, 2, 69, 75, 78, 128 + n, or the root-cause worker's own). */
enum { EXIT_USAGE = 2, EXIT_UNAVAILABLE = 69, EXIT_PREEMPTED = 75, EXIT_CONFIG = 78, EXIT_INTERRUPTED = 130 };

enum { CLI_WORDS_MAX = 16, CLI_SETS_MAX = 256 };

typedef struct tr_cli tr_cli;

typedef struct tr_cli_command {
  const char *name;
  int (*run)(const tr_cli *cli); /* NULL: planned, not in this version */
  const char *summary;           /* one line */
  const char *usage;             /* after "trainrun " */
  const char *text;              /* the rest of --help, with an example */
} tr_cli_command;

struct tr_cli {
  const tr_cli_command *command;
  uint64_t started_ns;
  char *const *environment;

  const char *nodes, *gpus, *workers, *hosts, *hostfile, *run_id, *run_dir, *job, *timeout, *rank;
  const char *sets[CLI_SETS_MAX]; /* "key=value" */
  size_t set_count;
  bool fresh, dry_run, quiet, json, no_color, profile, trace, offline, explain, follow, force;
  bool help, version;

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
int cmd_completion(const tr_cli *cli);
int cmd_help(const tr_cli *cli);

#endif
