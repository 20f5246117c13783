/* The verbs of store and data: their words, their help, and finding the one that was typed. */
#include "cli.h"

#include <stdio.h>
#include <string.h>

#define STORAGE_FLAGS                                                                                                  \
  "Where the bucket is: [storage.*] of -f JOB.toml, or AWS's variables and profiles, or --endpoint-url URL "           \
  "--profile\n"                                                                                                        \
  "NAME --region NAME --ca-bundle FILE --no-sign-request.\n"

static const tr_cli_verb store_verbs[] = {
    {"ls", store_ls, 1, 1, "list what is in a bucket or folder", "store ls [-r] [--human-readable] [--json] URL",
     "Objects with the time and size of each, folders as PRE. With --recursive every object below the URL; with --json "
     "a\nline an object.\n\n" STORAGE_FLAGS
     "\nExamples:\n  trainrun store ls s3://bucket/data/\n  trainrun store ls -r --human-readable s3://bucket\n"},
    {"get", store_get, 2, 2, "copy objects to this machine", "store get [-r] [--force] [-j N] URL DEST",
     "A URL that ends in '/' (or with -r, or that names no object) is a folder: all that is below it goes below DEST.\n"
     "Otherwise it is one object, copied to DEST, or into DEST where that is a folder or ends in '/'; '-' is standard\n"
     "output.\n"
     "Files of the object's size and time are left as they are, so an interrupted copy goes on where it stopped, "
     "inside\n"
     "a large file too (DEST.part); --force copies all again. A file has its name once it is whole.\n"
     "  -j N   objects under way at once (16)\n\n" STORAGE_FLAGS
     "\nExamples:\n  trainrun store get s3://bucket/train-000000.tar .\n  trainrun store get s3://bucket/data/ data\n"
     "  trainrun store get s3://bucket/job.log - | less\n"},
    {"put", store_put, 2, 2, "copy files to a bucket", "store put [-r] [--force] [-j N] SRC URL",
     "A folder (or with -r, or a SRC that ends in '/') is copied whole: all that is below it goes below URL. A file "
     "goes "
     "to\nURL, or into URL where that is a folder or ends in '/'; '-' is standard input. SRC may be a URL too.\n"
     "Objects that are there with the same size and content are left as they are, so an interrupted copy goes on;\n"
     "--force copies all again. Large files go in parts; nothing is there before all of it is.\n"
     "  -j N   objects under way at once (16)\n\n" STORAGE_FLAGS
     "\nExamples:\n  trainrun store put data s3://bucket/data/\n  trainrun store put model.bin s3://bucket/models/\n"
     "  tar c data | trainrun store put - s3://bucket/data.tar\n"},
    {"rm", store_rm, 1, 1, "remove an object, or with -r all below a folder", "store rm [-r] [--dry-run] URL",
     "Nothing is asked; what is removed is printed. --dry-run only prints.\n\n" STORAGE_FLAGS
     "\nExamples:\n  trainrun store rm s3://bucket/old.tar\n  trainrun store rm -r --dry-run s3://bucket/old/\n"},
    {"probe", store_probe, 1, 1, "what one wants to know of a bucket before a run", "store probe [--json] URL",
     "Whether it answers, with which credentials, what is allowed (list, get, put, delete), the time to the first "
     "byte, "
     "GET\nand PUT throughput with 1, 8 and 32 connections, whether conditional puts are honoured, and how far the "
     "clocks "
     "are\napart. Takes a few seconds; writes only below URL/.trainrun-probe-..., and removes it.\n\n" STORAGE_FLAGS
     "\nExample:\n  trainrun store probe s3://bucket\n"},
};

#define DATA_URLS                                                                                                      \
  "URL names shards: with braces (train-{000..015}.tar), a folder that ends in '/', an IDX prefix, or several of "     \
  "them.\n"
#define DATA_FLAGS                                                                                                     \
  "Format and fields are found out; --format F and --set data.fields.NAME=SOURCE say otherwise, as do -f "             \
  "JOB.toml's.\n"

static const tr_cli_verb data_verbs[] = {
    {"ls", data_ls, 1, 1000, "shards, samples and fields of a data set", "data ls [--json] URL...",
     DATA_URLS DATA_FLAGS "\n" STORAGE_FLAGS "\nExample:\n  trainrun data ls 's3://bucket/train-{000..015}.tar'\n"},
    {"cat", data_cat, 1, 1000, "samples as lines of JSON",
     "data cat [--limit N] [--index I] [--raw FIELD] [--order [--epoch E] [--seed S] ...] URL...",
     "A line a sample: its number, its key, each field as it is stored (numbers and text as they are, bytes as their "
     "count\nand CRC32C).\n"
     "  --limit N        the first N\n"
     "  --index I        sample I alone\n"
     "  --raw FIELD      the bytes of that field, nothing else\n"
     "  --order          in the order of training, of epoch --epoch E (0) with --seed S, --shuffle[=full|false],\n"
     "                   --streams N, --batch-size N; what is not given is the job's (-f) or the default\n"
     "  -j N             samples read at once (16)\n\n" DATA_URLS DATA_FLAGS "\n" STORAGE_FLAGS
     "\nExamples:\n  trainrun data cat --limit 5 s3://bucket/train/\n"
     "  trainrun data cat --index 7 --raw png s3://bucket/train-000000.tar > 7.png\n"
     "  trainrun data cat --order --seed 1 --epoch 2 -f job.toml 's3://bucket/train-{000..015}.tar'\n"},
    {"index", data_index, 1, 1000, "build the index of a data set and store it beside it",
     "data index [--to FOLDER] URL...",
     "Says where each sample is, so that training starts at once. Runs build a missing one themselves.\n"
     "  --to FOLDER      another place for it\n\n" DATA_URLS DATA_FLAGS "\n" STORAGE_FLAGS
     "\nExample:\n  trainrun data index s3://bucket/train/\n"},
    {"lock", data_lock, 1, 1000, "print data.lock.json: exactly which bytes a data set is",
     "data lock [-o FILE] URL...",
     "URL, size, ETag and samples of each shard. 'data verify --lock FILE' compares.\n\n" DATA_URLS DATA_FLAGS
     "\n" STORAGE_FLAGS "\nExample:\n  trainrun data lock -o data.lock.json s3://bucket/train/\n"},
    {"verify", data_verify, 1, 1000, "read every sample and name the bad ones",
     "data verify [--lock FILE] [--json] URL...",
     "Reads and decodes every sample and prints those that fail: shard, key, offset, why. Exit code 1 where there is "
     "one.\n"
     "  --lock FILE      the shards must also be those of a data.lock.json\n"
     "  -j N             threads that decode (one a core)\n\n" DATA_URLS DATA_FLAGS "\n" STORAGE_FLAGS
     "\nExample:\n  trainrun data verify --lock data.lock.json s3://bucket/train/\n"},
    {"pack", data_pack, 2, 2, "make WebDataset shards of images, a table or IDX files", "data pack [flags] SRC DEST",
     "SRC is a folder of images (.png, .jpg; the folder an image is in is its label), a .csv or .jsonl file (a row is "
     "a\n"
     "sample), or an IDX prefix (Fashion-MNIST's train-images and train-labels). DEST-000000.tar and so on are "
     "written, "
     "to a\nbucket too; DEST-classes.json where labels have names; DEST.pack.json, by which an interrupted pack goes "
     "on "
     "after\nits last whole shard. The same input gives the same bytes.\n"
     "  --shard-size S        of a shard, at most (128MiB)\n"
     "  --shard-samples N     of a shard, at most\n"
     "  --image-column NAME   of a table: paths of images, relative to the table\n"
     "  --label-column NAME   of a table: the label\n"
     "  --shuffle --seed S    in a random order\n"
     "  --no-index            without the index beside the shards\n"
     "  --force               write over what is there\n"
     "  -j N                  samples made at once\n\n" STORAGE_FLAGS
     "\nExamples:\n  trainrun data pack photos s3://bucket/photos/train\n"
     "  trainrun data pack --label-column species --shuffle iris.csv data/iris\n"
     "  trainrun data pack fashion/train s3://bucket/fashion/train\n"},
    {"tokenize", NULL, 0, 1000, "make token files of text", "data tokenize", ""},
    {"bench", data_bench, 1, 1000, "measure what a bucket can feed", "data bench [flags] URL...",
     "Ranged reads of the shards, then the loader as a job has it: bytes and samples a second, the first batch, the "
     "times "
     "to\nthe first byte and to the last, CPU seconds a GB, and how many workers of a given need that carries.\n"
     "  --seconds S           for each of the two (5)\n"
     "  --need \"3.2 GB/s\"     what a worker needs; or --need-samples N a second\n"
     "  --batch-size N, --micro-batch N, --shuffle[=full|false], --streams N, --seed S as in the job\n\n" DATA_URLS
         DATA_FLAGS "\n" STORAGE_FLAGS "\nExample:\n  trainrun data bench --need '250 MB/s' s3://bucket/train/\n"},
};

const tr_cli_verb *cli_verbs(const tr_cli_command *command, size_t *count) {
  *count = 0;
  if (command == NULL) return NULL;
  if (command->run == cmd_store) {
    *count = sizeof store_verbs / sizeof *store_verbs;
    return store_verbs;
  }
  if (command->run == cmd_data) {
    *count = sizeof data_verbs / sizeof *data_verbs;
    return data_verbs;
  }
  return NULL;
}

const tr_cli_verb *cli_verb_find(const tr_cli_command *command, const char *name) {
  size_t count = 0;
  const tr_cli_verb *verbs = cli_verbs(command, &count);
  for (size_t i = 0; i < count; i++) {
    if (strcmp(verbs[i].name, name) == 0) return &verbs[i];
  }
  return NULL;
}

void cli_verb_help(const tr_cli_verb *verb) {
  if (verb->run == NULL) {
    printf("trainrun %s: planned, not in this version\n\nExample of what there is:\n  trainrun data --help\n",
           verb->usage);
    return;
  }
  const int command = (int)strcspn(verb->usage, " ");
  printf("trainrun %.*s %s: %s\n\nUsage: trainrun %s\n\n%s", command, verb->usage, verb->name, verb->summary,
         verb->usage, verb->text);
}

static int unknown_verb(const tr_cli *cli, const tr_cli_verb *verbs, size_t count) {
  const char *names[16];
  if (cli->word_count == 0) {
    fprintf(stderr, "trainrun: usage: trainrun %s\n", cli->command->usage);
  } else {
    for (size_t i = 0; i < count; i++) names[i] = verbs[i].name;
    const char *near = cli_nearest(cli->words[0], names, count);
    fprintf(stderr, "trainrun: '%s' has no '%s'\n", cli->command->name, cli->words[0]);
    if (near != NULL) fprintf(stderr, "  did you mean '%s %s'?\n", cli->command->name, near);
  }
  fprintf(stderr, "  'trainrun %s --help' lists what there is\n", cli->command->name);
  return EXIT_USAGE;
}

int cli_verb_run(const tr_cli *cli) {
  size_t count = 0;
  const tr_cli_verb *verbs = cli_verbs(cli->command, &count);
  const tr_cli_verb *verb = cli->word_count > 0 ? cli_verb_find(cli->command, cli->words[0]) : NULL;
  if (verb == NULL) return unknown_verb(cli, verbs, count);
  if (verb->run == NULL) {
    fprintf(stderr, "trainrun %s: planned, not in this version\n", verb->usage);
    return EXIT_UNAVAILABLE;
  }
  if (cli->word_count - 1 < verb->words_min || cli->word_count - 1 > verb->words_max) {
    fprintf(stderr, "trainrun: usage: trainrun %s\n", verb->usage);
    return EXIT_USAGE;
  }
  return verb->run(cli);
}
