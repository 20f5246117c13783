/* Asking a program for its parameters, and comparing.
 *
 * The job may be too wrong to load. So a text is loaded in which only the lines of `program` and [params] are left, every
 * one in its place. */
#include "describe.h"

#include "plan.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

enum { ANSWER_BYTES_MAX = 256 * 1024, ANSWER_MS = 5000 };

/* ---- The program's answer ---- */

static char *read_answer(int descriptor) {
  char *text = malloc(ANSWER_BYTES_MAX + 1);
  size_t got = 0;
  const uint64_t end = tr_clock_now_ns(NULL) + (uint64_t)ANSWER_MS * 1000000;
  while (text != NULL && got < ANSWER_BYTES_MAX) {
    struct pollfd ready = {.fd = descriptor, .events = POLLIN};
    const uint64_t now = tr_clock_now_ns(NULL);
    if (now >= end || poll(&ready, 1, (int)((end - now) / 1000000) + 1) == 0) break;
    const ssize_t n = read(descriptor, text + got, ANSWER_BYTES_MAX - got);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) break;
    got += (size_t)n;
  }
  if (text != NULL) text[got] = '\0';
  return text;
}

/* Standard output of `program --describe`, malloc; NULL where it could not be run or did not answer in time. */
static char *ask(const char *program, char *const *environment) {
  int pair[2];
  if (pipe2(pair, O_CLOEXEC) != 0) return NULL;
  const pid_t pid = fork();
  if (pid == 0) {
    const int nowhere = open("/dev/null", O_RDWR);
    if (nowhere < 0 || dup2(nowhere, 0) < 0 || dup2(pair[1], 1) < 0 || dup2(nowhere, 2) < 0) _exit(127);
    execve(program, (char *const[]){(char *)program, (char *)"--describe", NULL}, environment);
    _exit(127);
  }
  close(pair[1]);
  char *text = pid > 0 ? read_answer(pair[0]) : NULL;
  close(pair[0]);
  if (pid > 0) {
    kill(pid, SIGKILL); /* it has said what it had to say */
    waitpid(pid, NULL, 0);
  }
  return text;
}

/* ---- The part of the job that matters ---- */

static bool starts(const char *line, const char *end, const char *word) {
  while (line < end && (*line == ' ' || *line == '\t')) line++;
  return (size_t)(end - line) >= strlen(word) && strncmp(line, word, strlen(word)) == 0;
}

/* A copy of the text with all other lines empty. */
static char *reduce(const char *text) {
  char *kept = malloc(strlen(text) + 1), *to = kept;
  bool top = true, params = false;
  if (kept == NULL) return NULL;
  for (const char *line = text; *line != '\0';) {
    const char *end = line + strcspn(line, "\n");
    if (starts(line, end, "[")) {
      params = starts(line, end, "[params]");
      top = false;
    }
    const size_t length = (size_t)(end - line) + (*end == '\n');
    if (params || (top && starts(line, end, "program"))) {
      memcpy(to, line, length);
      to += length;
    } else if (*end == '\n') {
      *to++ = '\n';
    }
    line += length;
  }
  *to = '\0';
  return kept;
}

static tr_config *load_reduced(const tr_describe_check *check) {
  char *text = reduce(check->text);
  tr_diagnostics *ignored = NULL;
  tr_config *config = NULL;
  if (text == NULL || tr_diagnostics_create(NULL, &ignored, NULL) != TR_OK) {
    free(text);
    return NULL;
  }
  const tr_config_source source = {.struct_bytes = sizeof source,
                                   .text = text,
                                   .text_bytes = strlen(text),
                                   .name = check->name,
                                   .directory = check->directory,
                                   .environment = (const char *const *)check->cli->environment};
  if (tr_config_load(&source, ignored, &config, NULL) != TR_OK) config = NULL;
  tr_diagnostics_destroy(ignored);
  free(text);
  return config;
}

/* ---- Comparing ---- */

static bool fits(const tr_value *value, const char *type) {
  if (strcmp(type, "integer") == 0) return value->type == TR_VALUE_INTEGER;
  if (strcmp(type, "real") == 0) return value->type == TR_VALUE_REAL || value->type == TR_VALUE_INTEGER;
  if (strcmp(type, "boolean") == 0) return value->type == TR_VALUE_BOOLEAN;
  return value->type == TR_VALUE_STRING;
}

static const char *name_at(const json_t *params, size_t i) {
  const char *name = json_string_value(json_object_get(json_array_get(params, i), "name"));
  return name != NULL ? name : "";
}

static void complain_unknown(const tr_describe_check *check, const tr_value *value, const json_t *params) {
  const size_t count = json_array_size(params);
  const char **names = calloc(count + 1, sizeof *names);
  char hint[256] = "the program takes no parameters";
  for (size_t i = 0; names != NULL && i < count; i++) names[i] = name_at(params, i);
  const char *near = names != NULL ? cli_nearest(value->key, names, count) : NULL;
  if (near != NULL) {
    snprintf(hint, sizeof hint, "did you mean '%s'?", near);
  } else if (count > 0) {
    snprintf(hint, sizeof hint, "the program takes:");
    for (size_t i = 0; names != NULL && i < count; i++) {
      const size_t length = strlen(hint);
      snprintf(hint + length, sizeof hint - length, "%s %s", i > 0 ? "," : "", names[i]);
    }
  }
  free(names);
  tr_diagnostics_add(check->diagnostics, value->key_place, (uint32_t)strlen(value->key), false, "params", hint,
                     "unknown parameter '%s'", value->key);
}

static size_t compare(const tr_describe_check *check, const tr_value *given, const json_t *params) {
  size_t mistakes = 0;
  for (size_t i = 0; i < given->count; i++) {
    const tr_value *value = &given->items[i];
    const json_t *declared = NULL;
    for (size_t j = 0; j < json_array_size(params); j++) {
      if (strcmp(name_at(params, j), value->key) == 0) declared = json_array_get(params, j);
    }
    const char *type = json_string_value(json_object_get(declared, "type"));
    const char *help = json_string_value(json_object_get(declared, "help"));
    if (declared == NULL) {
      complain_unknown(check, value, params);
    } else if (type == NULL || fits(value, type)) {
      continue;
    } else {
      tr_diagnostics_add(check->diagnostics, value->place, 1, false, "params", help, "parameter '%s' must be %s %s",
                         value->key, strcmp(type, "integer") == 0 ? "an" : "a", type);
    }
    mistakes++;
  }
  return mistakes;
}

size_t describe_check(const tr_describe_check *check) {
  if (check->text == NULL || strstr(check->text, "[params]") == NULL) return 0;
  tr_config *config = load_reduced(check);
  const tr_value *given = config != NULL ? tr_config_find(config, "params") : NULL;
  const char *program = config != NULL ? tr_config_text(config, "program") : NULL;
  char path[PATH_MAX];
  size_t mistakes = 0;
  if (given != NULL && program != NULL && plan_find_program(path, check->cli, config, check->directory, program)) {
    char *answer = ask(path, check->cli->environment);
    json_t *root = answer != NULL ? json_loads(answer, 0, NULL) : NULL;
    const json_t *params = json_object_get(root, "params");
    if (json_is_array(params)) mistakes = compare(check, given, params);
    json_decref(root);
    free(answer);
  }
  tr_config_destroy(config);
  return mistakes;
}
