/* A tr_s3_credentials_source that finds keys as AWS's tools do (s3_chain) and keeps them until shortly before they end.
 *
 * Five to six minutes before the end (half of their life, where they live shorter) the next caller fetches new ones;
 * the others go on with the old ones meanwhile, and so does everybody where that fails, which is only logged. After
 * the end, or where the keys were refused (`renew`), callers wait for the one that fetches. Keys are wiped when they are
 * replaced. Thread rule: as tr_s3_credentials_source. */
#ifndef TRAINRUN_STORE_S3_KEYCHAIN_H
#define TRAINRUN_STORE_S3_KEYCHAIN_H

#include <trainrun/s3.h>

#include "s3_settings.h"

typedef struct s3_keychain_options {
  const tr_allocator *allocator;
  const tr_clock *clock;
  tr_log *log;
  const char *const *environment; /* lives as long as the source */
  uint32_t process_timeout_ms;    /* of a credential_process; 0: 60 s */
} s3_keychain_options;

/* Takes settings over; where it fails they stay the caller's. Nothing is asked before the first `get`. */
tr_status s3_keychain_create(const s3_keychain_options *options, s3_settings *settings,
                             tr_s3_credentials_source *source, tr_error *error);

#endif
