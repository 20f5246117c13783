/* Keys: '/'-separated parts, none of them empty, "." or "..". */
#include "store_key.h"

#include <string.h>

static bool part_is_bad(const char *part, size_t length) {
  return length == 0 || (length == 1 && part[0] == '.') || (length == 2 && part[0] == '.' && part[1] == '.');
}

tr_status tr_store_key_check(const char *key, tr_error *error) {
  if (key == NULL || key[0] == '\0') return tr_fail(error, TR_ERR_INVALID, "store: a key is empty");
  if (strlen(key) >= TR_KEY_BYTES) {
    return tr_fail(error, TR_ERR_INVALID, "store: key '%.60s…' is longer than %d bytes", key, TR_KEY_BYTES - 1);
  }
  const char *part = key;
  for (;;) {
    const size_t length = strcspn(part, "/");
    if (part_is_bad(part, length)) {
      return tr_fail(error, TR_ERR_INVALID, "store: key '%s' has an empty part, '.' or '..'", key);
    }
    if (part[length] == '\0') return TR_OK;
    part += length + 1;
  }
}
