/* The names of labels: see pack.h. */
#include "pack.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

enum { CLASSES_MAX = 1000000 };

const char *pack_image_suffix(const char *name) {
  static const char *const suffixes[] = {"png", "jpg", "jpeg"};
  const char *dot = strrchr(name, '.');
  for (size_t i = 0; dot != NULL && i < sizeof suffixes / sizeof *suffixes; i++) {
    if (strcasecmp(dot + 1, suffixes[i]) == 0) return suffixes[i];
  }
  return NULL;
}

static int by_name(const void *a, const void *b) { return strcmp(*(const char *const *)a, *(const char *const *)b); }

void pack_classes_sort(tr_pack_classes *classes) {
  size_t kept = 0;
  if (classes->count > 0) qsort(classes->names, classes->count, sizeof *classes->names, by_name);
  for (size_t i = 0; i < classes->count; i++) {
    if (kept == 0 || strcmp(classes->names[kept - 1], classes->names[i]) != 0)
      classes->names[kept++] = classes->names[i];
  }
  classes->count = kept;
}

tr_status pack_classes_add(tr_pack_classes *classes, const char *name, size_t length, tr_error *error) {
  const char *last = classes->count > 0 ? classes->names[classes->count - 1] : NULL;
  if (last != NULL && strlen(last) == length && memcmp(last, name, length) == 0) return TR_OK;
  /* The same few names again and again: what came twice goes before the list grows. */
  if (classes->count == classes->capacity && classes->count > 0) pack_classes_sort(classes);
  if (classes->count == CLASSES_MAX) {
    return tr_fail(error, TR_ERR_INVALID, "more than %d labels; a column of numbers is taken as it is", CLASSES_MAX);
  }
  if (classes->capacity == 0 || classes->count > classes->capacity / 2) {
    TR_TRY(tr_reserve(NULL, (void **)&classes->names, &classes->capacity, 2 * classes->count + 1024,
                      sizeof *classes->names, error));
  }
  const char *copy = tr_arena_strndup(classes->arena, name, length);
  if (copy == NULL) return tr_fail_memory(error, "a label", length);
  classes->names[classes->count++] = copy;
  return TR_OK;
}

size_t pack_classes_find(const tr_pack_classes *classes, const char *name) {
  const char **found = classes->count > 0
                           ? bsearch(&name, classes->names, classes->count, sizeof *classes->names, by_name)
                           : NULL;
  return found != NULL ? (size_t)(found - classes->names) : SIZE_MAX;
}
