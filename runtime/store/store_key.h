/* What a key may look like; the same for every store. */
#ifndef TRAINRUN_STORE_KEY_H
#define TRAINRUN_STORE_KEY_H

#include <trainrun/store.h>

/* TR_ERR_INVALID for an empty key, one too long, a slash at either end, or a part that is empty, "." or "..". */
tr_status tr_store_key_check(const char *key, tr_error *error);

#endif
