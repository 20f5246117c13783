/* The command `trainrun`: reads the command line and hands it to its subcommand. */
#include "cli.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static int planned(const tr_cli_command *command) {
  fprintf(stderr, "trainrun %s: planned, not in this version\n", command->name);
  return EXIT_UNAVAILABLE;
}

int main(int argc, char **argv) {
  tr_cli cli = {.started_ns = tr_clock_now_ns(NULL), .environment = environ};
  const int code = cli_parse(&cli, argc, argv);
  if (code != 0) return code;
  if (cli.version) {
    printf("trainrun %s\n", TRAINRUN_VERSION);
    return 0;
  }
  if (cli.help) {
    const tr_cli_verb *verb = cli.word_count > 0 ? cli_verb_find(cli.command, cli.words[0]) : NULL;
    verb != NULL ? cli_verb_help(verb) : cli_help(cli.command);
    return 0;
  }
  if (cli.command == NULL) {
    cli_help(NULL);
    return EXIT_USAGE;
  }
  if (cli.command->run == NULL) return planned(cli.command);
  return cli.command->run(&cli);
}
