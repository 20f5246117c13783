/* Reading the command line by the table of flags. */
#include "cli.h"

#include <stdio.h>
#include <string.h>

/* OPTIONAL: alone it is "true", a value comes after '=' only. */
typedef enum flag_kind { FLAG_SWITCH, FLAG_VALUE, FLAG_LIST, FLAG_OPTIONAL } flag_kind;

typedef struct flag_row {
  const char *name;
  const char *aliases; /* "a|b", or NULL */
  char letter;         /* -x, or 0 */
  flag_kind kind;
  size_t offset;        /* of the member of cli */
  const char *commands; /* " run eval store.get " (a subcommand, or one verb of it), or NULL: every one */
} flag_row;

#define AT(member) offsetof(tr_cli, member)
#define STARTS     " run eval "
#define READS_JOB  " run eval check "
#define BUCKETS    " ckpt store data "
#define ORDERED    " data.cat data.bench "
#define OPENS_DATA " data.ls data.cat data.index data.lock data.verify data.bench "

static const flag_row flags[] = {
    {"nodes", "nnodes", 0, FLAG_VALUE, AT(nodes), READS_JOB},
    {"gpus", "gpus-per-node", 0, FLAG_VALUE, AT(gpus), READS_JOB},
    {"workers", "workers-per-node|nproc-per-node", 0, FLAG_VALUE, AT(workers), READS_JOB},
    {"hosts", NULL, 0, FLAG_VALUE, AT(hosts), READS_JOB},
    {"hostfile", NULL, 0, FLAG_VALUE, AT(hostfile), READS_JOB},
    {"set", NULL, 0, FLAG_LIST, AT(sets), " run eval check ckpt ps status logs wait stop store data "},
    {"run-id", NULL, 0, FLAG_VALUE, AT(run_id), STARTS},
    {"run-dir", NULL, 0, FLAG_VALUE, AT(run_dir), " run eval check ckpt ps status logs wait stop "},
    {"fresh", NULL, 0, FLAG_SWITCH, AT(fresh), STARTS},
    {"dry-run", NULL, 'n', FLAG_SWITCH, AT(dry_run), " run eval store.rm "},
    {"quiet", NULL, 'q', FLAG_SWITCH, AT(quiet), NULL},
    {"json", NULL, 0, FLAG_SWITCH, AT(json), NULL},
    {"no-color", "no-colour", 0, FLAG_SWITCH, AT(no_color), NULL},
    {"profile", NULL, 0, FLAG_SWITCH, AT(profile), STARTS},
    {"trace", NULL, 0, FLAG_SWITCH, AT(trace), STARTS},
    {"offline", NULL, 0, FLAG_SWITCH, AT(offline), NULL},
    {"explain", NULL, 0, FLAG_SWITCH, AT(explain), " check "},
    {"follow", NULL, 0, FLAG_SWITCH, AT(follow), " logs "},
    {"rank", NULL, 0, FLAG_VALUE, AT(rank), " logs "},
    {"timeout", NULL, 0, FLAG_VALUE, AT(timeout), " wait "},
    {"force", NULL, 0, FLAG_SWITCH, AT(force), " stop init ckpt store.get store.put data.pack "},
    {"job", NULL, 'f', FLAG_VALUE, AT(job), BUCKETS},
    {"endpoint-url", NULL, 0, FLAG_VALUE, AT(endpoint_url), BUCKETS},
    {"profile", NULL, 0, FLAG_VALUE, AT(aws_profile), BUCKETS},
    {"region", NULL, 0, FLAG_VALUE, AT(region), BUCKETS},
    {"ca-bundle", NULL, 0, FLAG_VALUE, AT(ca_bundle), BUCKETS},
    {"no-sign-request", NULL, 0, FLAG_SWITCH, AT(no_sign_request), BUCKETS},
    {"recursive", NULL, 'r', FLAG_SWITCH, AT(recursive), " store.ls store.rm store.get store.put "},
    {"human-readable", "human", 0, FLAG_SWITCH, AT(human), " store.ls "},
    {"jobs", NULL, 'j', FLAG_VALUE, AT(jobs), " store.get store.put store.rm data.cat data.verify data.pack "},
    {"format", NULL, 0, FLAG_VALUE, AT(format), OPENS_DATA},
    {"format", NULL, 0, FLAG_VALUE, AT(export_format), " ckpt.export "},
    {"sequence-length", NULL, 0, FLAG_VALUE, AT(sequence_length), OPENS_DATA},
    {"to", NULL, 0, FLAG_VALUE, AT(to), " data.index "},
    {"output", NULL, 'o', FLAG_VALUE, AT(output), " data.lock "},
    {"lock", NULL, 0, FLAG_VALUE, AT(lock), " data.verify "},
    {"limit", NULL, 0, FLAG_VALUE, AT(limit), " data.cat "},
    {"index", NULL, 0, FLAG_VALUE, AT(index), " data.cat "},
    {"raw", NULL, 0, FLAG_VALUE, AT(raw), " data.cat "},
    {"order", NULL, 0, FLAG_SWITCH, AT(order), " data.cat "},
    {"seed", NULL, 0, FLAG_VALUE, AT(seed), ORDERED "data.pack "},
    {"epoch", NULL, 0, FLAG_VALUE, AT(epoch), " data.cat "},
    {"shuffle", NULL, 0, FLAG_OPTIONAL, AT(shuffle), ORDERED "data.pack "},
    {"streams", NULL, 0, FLAG_VALUE, AT(streams), ORDERED},
    {"batch-size", NULL, 0, FLAG_VALUE, AT(batch_size), ORDERED},
    {"micro-batch", NULL, 0, FLAG_VALUE, AT(micro_batch), " data.bench "},
    {"shard-size", NULL, 0, FLAG_VALUE, AT(shard_size), " data.pack "},
    {"shard-samples", NULL, 0, FLAG_VALUE, AT(shard_samples), " data.pack "},
    {"image-column", NULL, 0, FLAG_VALUE, AT(image_column), " data.pack "},
    {"label-column", NULL, 0, FLAG_VALUE, AT(label_column), " data.pack "},
    {"no-index", NULL, 0, FLAG_SWITCH, AT(no_index), " data.pack "},
    {"seconds", NULL, 0, FLAG_VALUE, AT(seconds), " data.bench "},
    {"need", NULL, 0, FLAG_VALUE, AT(need), " data.bench "},
    {"need-samples", NULL, 0, FLAG_VALUE, AT(need_samples), " data.bench "},
    {"help", NULL, 'h', FLAG_SWITCH, AT(help), NULL},
    {"version", NULL, 'V', FLAG_SWITCH, AT(version), NULL},
};
enum { FLAG_COUNT = sizeof flags / sizeof *flags };

/* Underscores equal hyphens. */
static bool same_name(const char *name, const char *typed, size_t length) {
  for (size_t i = 0; i < length; i++) {
    const char c = typed[i] == '_' ? '-' : typed[i];
    if (name[i] != c) return false;
  }
  return name[length] == '\0' || name[length] == '|';
}

static bool has_name(const flag_row *flag, const char *typed, size_t length) {
  if (same_name(flag->name, typed, length)) return true;
  for (const char *alias = flag->aliases; alias != NULL; alias = strchr(alias, '|')) {
    if (*alias == '|') alias++;
    if (same_name(alias, typed, length)) return true;
  }
  return false;
}

/* Without a verb: whether any verb takes it. */
static bool fits(const flag_row *flag, const tr_cli_command *command, const tr_cli_verb *verb) {
  char word[64];
  if (flag->commands == NULL) return true;
  snprintf(word, sizeof word, " %s ", command->name);
  if (strstr(flag->commands, word) != NULL) return true;
  if (verb == NULL) {
    snprintf(word, sizeof word, " %s.", command->name);
  } else {
    snprintf(word, sizeof word, " %s.%s ", command->name, verb->name);
  }
  return strstr(flag->commands, word) != NULL;
}

const char *cli_flag_at(const tr_cli_command *command, size_t index, bool *takes_value) {
  for (size_t i = 0; i < FLAG_COUNT; i++) {
    if (!fits(&flags[i], command, NULL)) continue;
    if (index-- > 0) continue;
    if (takes_value != NULL) *takes_value = flags[i].kind == FLAG_VALUE || flags[i].kind == FLAG_LIST;
    return flags[i].name;
  }
  return NULL;
}

/* Edits (insert, remove, replace, swap of neighbours) from a to b; large where a word is long. */
static size_t distance(const char *a, const char *b) {
  enum { LONGEST = 40 };
  const size_t n = strlen(a), m = strlen(b);
  size_t rows[3][LONGEST + 1];
  if (n > LONGEST || m > LONGEST) return LONGEST;
  for (size_t j = 0; j <= m; j++) rows[0][j] = j;
  for (size_t i = 1; i <= n; i++) {
    size_t *row = rows[i % 3], *above = rows[(i + 2) % 3], *before = rows[(i + 1) % 3];
    row[0] = i;
    for (size_t j = 1; j <= m; j++) {
      size_t best = above[j - 1] + (a[i - 1] != b[j - 1]);
      if (above[j] + 1 < best) best = above[j] + 1;
      if (row[j - 1] + 1 < best) best = row[j - 1] + 1;
      if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] && before[j - 2] + 1 < best) {
        best = before[j - 2] + 1;
      }
      row[j] = best;
    }
  }
  return rows[n % 3][m];
}

const char *cli_nearest(const char *word, const char *const *names, size_t count) {
  const char *nearest = NULL;
  size_t best = strlen(word) / 3 + 2; /* further away than this is another word */
  for (size_t i = 0; i < count; i++) {
    const size_t edits = distance(word, names[i]);
    if (edits < best) {
      best = edits;
      nearest = names[i];
    }
  }
  return nearest;
}

static int usage_error(const tr_cli_command *command) {
  if (command != NULL) {
    fprintf(stderr, "  'trainrun %s --help' lists what it takes\n", command->name);
  } else {
    fprintf(stderr, "  'trainrun --help' lists what there is\n");
  }
  return EXIT_USAGE;
}

static int unknown_flag(const tr_cli *cli, const char *typed, size_t length) {
  const char *names[FLAG_COUNT];
  char word[64];
  for (size_t i = 0; i < FLAG_COUNT; i++) names[i] = flags[i].name;
  snprintf(word, sizeof word, "%.*s", (int)(length < 60 ? length : 60), typed);
  for (char *c = word; *c != '\0'; c++) {
    if (*c == '_') *c = '-';
  }
  const char *near = cli_nearest(word, names, FLAG_COUNT);
  fprintf(stderr, "trainrun: unknown flag --%s\n", word);
  if (near != NULL) fprintf(stderr, "  did you mean --%s?\n", near);
  return usage_error(cli->command);
}

static int store_value(tr_cli *cli, const flag_row *flag, const char *value) {
  char *base = (char *)cli;
  if (flag->kind != FLAG_LIST) {
    memcpy(base + flag->offset, &value, sizeof value);
    return 0;
  }
  if (strchr(value, '=') == NULL || value[0] == '=') {
    fprintf(stderr, "trainrun: --set %s: it takes key=value, as in --set optimizer.lr=3e-4\n", value);
    return EXIT_USAGE;
  }
  if (cli->set_count == CLI_SETS_MAX) {
    fprintf(stderr, "trainrun: more than %d --set\n", CLI_SETS_MAX);
    return EXIT_USAGE;
  }
  cli->sets[cli->set_count++] = value;
  return 0;
}

/* Of two flags with one name (--profile) the one that the subcommand takes. */
static const flag_row *find_flag(const tr_cli *cli, const char *typed, size_t length, bool letter) {
  const flag_row *found = NULL;
  for (size_t i = 0; i < FLAG_COUNT; i++) {
    if (!(letter ? flags[i].letter == *typed : has_name(&flags[i], typed, length))) continue;
    if (cli->command != NULL && fits(&flags[i], cli->command, NULL)) return &flags[i];
    if (found == NULL) found = &flags[i];
  }
  return found;
}

/* One flag at argv[*at]; moves *at to its last word. */
static int take_flag(tr_cli *cli, int argc, char **argv, int *at, const flag_row *used[FLAG_COUNT],
                     size_t *used_count) {
  const char *word = argv[*at];
  const bool letter = word[1] != '-';
  const char *typed = word + (letter ? 1 : 2);
  const size_t length = strcspn(typed, "=");
  const char *value = typed[length] == '=' ? typed + length + 1 : NULL;
  const flag_row *flag = letter && length != 1 ? NULL : find_flag(cli, typed, length, letter);
  if (flag == NULL && letter) {
    fprintf(stderr, "trainrun: unknown flag %s\n", word);
    return usage_error(cli->command);
  }
  if (flag == NULL) return unknown_flag(cli, typed, length);
  if (*used_count < FLAG_COUNT) used[(*used_count)++] = flag;
  if (flag->kind == FLAG_SWITCH) {
    if (value != NULL) {
      fprintf(stderr, "trainrun: --%s takes no value\n", flag->name);
      return usage_error(cli->command);
    }
    const bool on = true;
    memcpy((char *)cli + flag->offset, &on, sizeof on);
    return 0;
  }
  if (flag->kind == FLAG_OPTIONAL && value == NULL) value = "true";
  if (value == NULL && *at + 1 < argc) value = argv[++*at];
  if (value == NULL || value[0] == '\0') {
    fprintf(stderr, "trainrun: --%s needs a value\n", flag->name);
    return usage_error(cli->command);
  }
  return store_value(cli, flag, value);
}

bool cli_is_job(const char *word) {
  const size_t length = strlen(word);
  return length > 5 && strcmp(word + length - 5, ".toml") == 0;
}

static void take_target(tr_cli *cli, char **argv, int at) {
  cli->target = argv[at];
  if (argv[at + 1] != NULL && strcmp(argv[at + 1], "--") == 0) at++;
  cli->arguments = argv + at + 1;
}

/* A word that is no flag; true when all that follows belongs to the program (or to a command that is not there). */
static bool take_word(tr_cli *cli, char **argv, int at, int *code) {
  const char *word = argv[at];
  if (cli->command == NULL) {
    cli->command = cli_command_find(word);
    if (cli->command != NULL && cli->command->run == NULL) { /* its flags are not known; only help is there */
      for (at++; argv[at] != NULL; at++) cli->help = cli->help || strcmp(argv[at], "--help") == 0;
      return true;
    }
    if (cli->command != NULL) return false;
    cli->command = cli_command_find("run");
  }
  if (cli->command->run == cmd_run) {
    take_target(cli, argv, at);
    return true;
  }
  if (cli->word_count == CLI_WORDS_MAX) {
    fprintf(stderr, "trainrun: too many words\n");
    *code = EXIT_USAGE;
    return true;
  }
  cli->words[cli->word_count++] = word;
  return false;
}

int cli_parse(tr_cli *cli, int argc, char **argv) {
  const flag_row *used[FLAG_COUNT];
  size_t used_count = 0;
  int code = 0;
  cli->arguments = argv + argc;
  for (int at = 1; at < argc && code == 0; at++) {
    if (strcmp(argv[at], "--") == 0) {
      if (cli->command == NULL) cli->command = cli_command_find("run");
      if (cli->command->run == cmd_run && at + 1 < argc) {
        take_target(cli, argv, at + 1);
        break;
      }
      continue;
    }
    if (argv[at][0] == '-' && argv[at][1] != '\0') {
      code = take_flag(cli, argc, argv, &at, used, &used_count);
    } else if (take_word(cli, argv, at, &code)) {
      break;
    }
  }
  if (code != 0 || cli->command == NULL || cli->command->run == NULL || cli->help || cli->version) return code;
  const tr_cli_verb *verb = cli->word_count > 0 ? cli_verb_find(cli->command, cli->words[0]) : NULL;
  for (size_t i = 0; i < used_count; i++) {
    if (fits(used[i], cli->command, verb)) continue;
    fprintf(stderr, "trainrun: '%s%s%s' takes no --%s\n", cli->command->name, verb != NULL ? " " : "",
            verb != NULL ? verb->name : "", used[i]->name);
    return usage_error(cli->command);
  }
  return 0;
}
