/* trainrun completion: scripts for bash, zsh and fish, made from the tables of subcommands and flags. */
#include "cli.h"

#include <stdio.h>
#include <string.h>

static void write_names(const char *between) {
  size_t count = 0;
  const tr_cli_command *commands = cli_commands(&count);
  for (size_t i = 0; i < count; i++) {
    if (commands[i].run != NULL) printf("%s%s", i > 0 ? between : "", commands[i].name);
  }
}

static void write_flags(const tr_cli_command *command) {
  const char *flag;
  for (size_t i = 0; (flag = cli_flag_at(command, i, NULL)) != NULL; i++) printf("%s--%s", i > 0 ? " " : "", flag);
}

static void write_verbs(const tr_cli_verb *verbs, size_t count) {
  for (size_t i = 0; i < count; i++) {
    if (verbs[i].run != NULL) printf("%s%s", i > 0 ? " " : "", verbs[i].name);
  }
}

static void write_bash(void) {
  size_t count = 0;
  const tr_cli_command *commands = cli_commands(&count);
  printf(
      "# bash completion of trainrun: source <(trainrun completion bash)\n"
      "_trainrun() {\n"
      "  local word=${COMP_WORDS[COMP_CWORD]} command=run i\n"
      "  for ((i = 1; i < COMP_CWORD; i++)); do\n"
      "    case ${COMP_WORDS[i]} in\n      ");
  write_names("|");
  printf(
      ") command=${COMP_WORDS[i]}; break;;\n"
      "    esac\n"
      "  done\n"
      "  case $word in\n"
      "    -*)\n"
      "      case $command in\n");
  for (size_t i = 0; i < count; i++) {
    if (commands[i].run == NULL) continue;
    printf("        %s) COMPREPLY=($(compgen -W '", commands[i].name);
    write_flags(&commands[i]);
    printf("' -- \"$word\"));;\n");
  }
  printf(
      "      esac;;\n"
      "    *)\n"
      "      COMPREPLY=($(compgen -f -- \"$word\"))\n"
      "      if [ \"$COMP_CWORD\" = 1 ]; then COMPREPLY+=($(compgen -W '");
  write_names(" ");
  printf(
      "' -- \"$word\")); fi\n"
      "      case $command in\n"
      "        ckpt) COMPREPLY+=($(compgen -W 'ls show verify cp rm' -- \"$word\"));;\n");
  for (size_t i = 0; i < count; i++) {
    size_t verb_count = 0;
    const tr_cli_verb *verbs = cli_verbs(&commands[i], &verb_count);
    if (verb_count == 0) continue;
    printf("        %s) COMPREPLY+=($(compgen -W '", commands[i].name);
    write_verbs(verbs, verb_count);
    printf("' -- \"$word\"));;\n");
  }
  printf(
      "        init) COMPREPLY+=($(compgen -W 'job sdk' -- \"$word\"));;\n"
      "        completion) COMPREPLY=($(compgen -W 'bash zsh fish' -- \"$word\"));;\n"
      "      esac;;\n"
      "  esac\n"
      "}\n"
      "complete -o filenames -F _trainrun trainrun\n");
}

static void write_zsh(void) {
  printf(
      "#compdef trainrun\n"
      "# zsh completion of trainrun: source <(trainrun completion zsh)\n"
      "autoload -U +X bashcompinit && bashcompinit\n");
  write_bash();
}

static void write_fish(void) {
  size_t count = 0;
  const tr_cli_command *commands = cli_commands(&count);
  printf("# fish completion of trainrun\n");
  for (size_t i = 0; i < count; i++) {
    const tr_cli_command *command = &commands[i];
    const char *flag;
    bool takes_value = false;
    if (command->run == NULL) continue;
    printf("complete -c trainrun -n __fish_use_subcommand -a %s -d '%s'\n", command->name, command->summary);
    for (size_t j = 0; (flag = cli_flag_at(command, j, &takes_value)) != NULL; j++) {
      const bool run = strcmp(command->name, "run") == 0;
      printf("complete -c trainrun -n '%s__fish_seen_subcommand_from %s' -l %s%s\n",
             run ? "__fish_use_subcommand; or " : "", command->name, flag, takes_value ? " -r" : "");
    }
  }
  for (size_t i = 0; i < count; i++) {
    size_t verb_count = 0;
    const tr_cli_verb *verbs = cli_verbs(&commands[i], &verb_count);
    if (verb_count == 0) continue;
    printf("complete -c trainrun -n '__fish_seen_subcommand_from %s' -a '", commands[i].name);
    write_verbs(verbs, verb_count);
    printf("'\n");
  }
  printf(
      "complete -c trainrun -n '__fish_seen_subcommand_from ckpt' -a 'ls show verify cp rm'\n"
      "complete -c trainrun -n '__fish_seen_subcommand_from completion' -a 'bash zsh fish'\n");
}

int cmd_completion(const tr_cli *cli) {
  const char *shell = cli->word_count == 1 ? cli->words[0] : "";
  if (strcmp(shell, "bash") == 0) {
    write_bash();
  } else if (strcmp(shell, "zsh") == 0) {
    write_zsh();
  } else if (strcmp(shell, "fish") == 0) {
    write_fish();
  } else {
    fprintf(stderr, "trainrun: completion of which shell?\n  usage: trainrun %s\n", cli->command->usage);
    return EXIT_USAGE;
  }
  return 0;
}
