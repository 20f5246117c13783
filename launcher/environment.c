/* Lists of "NAME=value", in memory of their own. */
#include "environment.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const foreign[] = {"TRAINRUN_WORKER_", "OMPI_", "PMIX_", "PMI_", "SLURM_"};

static bool is_foreign(const char *item) {
  for (size_t i = 0; i < sizeof foreign / sizeof *foreign; i++) {
    if (strncmp(item, foreign[i], strlen(foreign[i])) == 0) return true;
  }
  return false;
}

static void append(tr_environment *environment, char *item) {
  if (item == NULL || tr_reserve(NULL, (void **)&environment->items, &environment->capacity, environment->count + 2,
                                 sizeof *environment->items, NULL) != TR_OK) {
    free(item);
    environment->failed = true;
    return;
  }
  environment->items[environment->count++] = item;
  environment->items[environment->count] = NULL;
}

void environment_init(tr_environment *environment, char *const *base) {
  memset(environment, 0, sizeof *environment);
  for (; *base != NULL; base++) {
    if (!is_foreign(*base)) append(environment, strdup(*base));
  }
}

void environment_fini(tr_environment *environment) {
  for (size_t i = 0; i < environment->count; i++) free(environment->items[i]);
  tr_free(NULL, environment->items);
  memset(environment, 0, sizeof *environment);
}

static char **find(const tr_environment *environment, const char *name) {
  const size_t length = strlen(name);
  for (size_t i = 0; i < environment->count; i++) {
    if (strncmp(environment->items[i], name, length) == 0 && environment->items[i][length] == '=') {
      return &environment->items[i];
    }
  }
  return NULL;
}

const char *environment_get(const tr_environment *environment, const char *name) {
  char **item = find(environment, name);
  return item != NULL ? *item + strlen(name) + 1 : NULL;
}

void environment_set(tr_environment *environment, const char *name, const char *format, ...) {
  char *value = NULL, *item = NULL;
  va_list arguments;
  va_start(arguments, format);
  const int length = vasprintf(&value, format, arguments);
  va_end(arguments);
  if (length < 0 || asprintf(&item, "%s=%s", name, value) < 0) {
    environment->failed = true;
    if (length >= 0) free(value);
    return;
  }
  free(value);
  char **old = find(environment, name);
  if (old == NULL) {
    append(environment, item);
    return;
  }
  free(*old);
  *old = item;
}
