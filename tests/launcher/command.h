/* What the tests of the command share: running it in a folder of its own, scripts as programs. */
#ifndef TRAINRUN_TESTS_LAUNCHER_COMMAND_H
#define TRAINRUN_TESTS_LAUNCHER_COMMAND_H

#include "support/support.h"

#include <criterion/criterion.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

typedef struct command {
  const char *words[32];
  size_t count;
  ts_options options;
} command;

/* `trainrun` in a new folder; then add() its words. */
static inline command command_in(const char *folder) {
  static const char *const environment[] = {"NO_COLOR", "LANG=C.UTF-8", NULL};
  command made = {.words = {ts_built("trainrun")}, .count = 1};
  made.options = (ts_options){.folder = folder, .environment = environment, .timeout_s = 60};
  return made;
}

static inline void add(command *command, const char *word) { command->words[command->count++] = word; }

#define WITH(command, ...)                                                                                             \
  do {                                                                                                                 \
    const char *const with_words[] = {__VA_ARGS__};                                                                    \
    for (size_t with_i = 0; with_i < sizeof with_words / sizeof *with_words; with_i++) {                               \
      add(command, with_words[with_i]);                                                                                \
    }                                                                                                                  \
  } while (0)

static inline ts_result run(command *command) {
  command->words[command->count] = NULL;
  return ts_run(command->words, &command->options);
}

static inline ts_process start(command *command) {
  command->words[command->count] = NULL;
  return ts_start(command->words, &command->options);
}

/* An executable shell script in the folder; its path, "./name". */
static inline const char *script(const char *folder, const char *name, const char *body) {
  char *path = ts_format("%s/%s", folder, name), *text = ts_format("#!/bin/sh\n%s\n", body);
  ts_file_write(path, text, strlen(text));
  cr_assert_eq(chmod(path, 0755), 0);
  return ts_format("./%s", name);
}

#define HAS(text, part)     cr_assert(strstr(text, part) != NULL, "no '%s' in:\n%s", part, text)
#define HAS_NOT(text, part) cr_assert(strstr(text, part) == NULL, "'%s' in:\n%s", part, text)
#define EXITS(result, code)                                                                                            \
  cr_assert_eq((result).exit_code, code, "exit code %d, not %d\n%s\n%s", (result).exit_code, code, (result).out,       \
               (result).err)

/* The folder of the only run of a job, or of the only job. */
static inline char *only_run(const char *folder, const char *name) {
  char *list = ts_format("ls -d %s/runs/%s/2*", folder, name);
  FILE *out = popen(list, "r");
  char path[4096] = "";
  cr_assert(fgets(path, sizeof path, out) != NULL, "no run of %s", name);
  cr_assert_null(fgets((char[4096]){0}, 4096, out), "more than one run of %s", name);
  pclose(out);
  path[strcspn(path, "\n")] = '\0';
  return ts_format("%s", path);
}

/* Waits until the file has the text. */
static inline void wait_for(const char *path, const char *text) {
  for (double end = ts_now_s() + 20; ts_now_s() < end; ts_sleep_s(0.005)) {
    char *have = ts_file_read(path, NULL);
    const bool found = have != NULL && strstr(have, text) != NULL;
    free(have);
    if (found) return;
  }
  cr_assert_fail("'%s' never came in %s", text, path);
}

#endif
