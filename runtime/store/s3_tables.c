/* Which [storage.*] table serves a bucket. */
#include <fnmatch.h>
#include <stdio.h>
#include <string.h>

#include "s3_settings.h"

enum { PATH_BYTES = 256, EXACT = INT32_MAX };

/* 0: the pattern does not match; else the better, the larger. */
static int32_t score(const char *pattern, const char *bucket) {
  const size_t literal = strcspn(pattern, "*?[\\");
  if (pattern[literal] == '\0') return strcmp(pattern, bucket) == 0 ? EXACT : 0;
  return fnmatch(pattern, bucket, 0) == 0 ? (int32_t)literal + 1 : 0;
}

static int32_t best_score(const char *const *patterns, size_t count, const char *bucket) {
  int32_t best = 0;
  for (size_t i = 0; i < count; i++) {
    const int32_t one = score(patterns[i], bucket);
    if (one > best) best = one;
  }
  return best;
}

static tr_status tie(const char *a, const char *b, const char *bucket, bool defaults, tr_error *error) {
  if (defaults) {
    return tr_fail(error, TR_ERR_CONFIG,
                   "[storage.%s] and [storage.%s] are both without buckets: only one table can be the default; give "
                   "one of them buckets = [\"%s\"], say",
                   a, b, bucket);
  }
  return tr_fail(error, TR_ERR_CONFIG,
                 "the buckets of [storage.%s] and [storage.%s] match bucket '%s' alike; name it in one of them", a, b,
                 bucket);
}

tr_status s3_settings_table(const tr_config *config, const char *bucket, const char **name, tr_error *error) {
  const tr_value *tables = config != NULL ? tr_value_get(tr_config_root(config), "storage") : NULL;
  const char *matching = NULL, *equal = NULL, *fallback = NULL, *second = NULL;
  int32_t best = 0;
  for (size_t i = 0; tables != NULL && tables->type == TR_VALUE_TABLE && i < tables->count; i++) {
    const char *table = tables->items[i].key;
    char path[PATH_BYTES];
    if (snprintf(path, sizeof path, "storage.%s.buckets", table) >= (int)sizeof path) {
      return tr_fail(error, TR_ERR_CONFIG, "[storage.%.40s…]: the name is too long", table);
    }
    const char *const *patterns = NULL;
    const size_t count = tr_config_strings(config, path, &patterns);
    if (count == 0) {
      second = fallback;
      fallback = table;
      if (second != NULL) return tie(second, fallback, bucket, true, error);
      continue;
    }
    const int32_t found = best_score(patterns, count, bucket);
    if (found == 0 || found < best) continue;
    equal = found == best ? matching : NULL;
    matching = table;
    best = found;
  }
  if (equal != NULL) return tie(equal, matching, bucket, false, error);
  *name = matching != NULL ? matching : fallback;
  return TR_OK;
}
