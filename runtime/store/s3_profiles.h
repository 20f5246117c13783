/* The profiles of ~/.aws/config and ~/.aws/credentials: what a key of a profile is, whichever file has it.
 *
 * Where both files have a key of a profile, the credentials file's goes before. Values may be secrets: they stay in the
 * files' text, which s3_profiles_fini wipes. */
#ifndef TRAINRUN_STORE_S3_PROFILES_H
#define TRAINRUN_STORE_S3_PROFILES_H

#include "s3_ini.h"

typedef struct s3_profiles {
  const tr_allocator *allocator;
  char *config_path, *credentials_path; /* NULL: not known, since HOME is not */
  s3_ini config, credentials;
} s3_profiles;

/* Pure: from the text of both files (NULL: there is none). Paths are for messages and may be NULL. */
tr_status s3_profiles_parse(const tr_allocator *allocator, const char *config_path, const char *config,
                            const char *credentials_path, const char *credentials, s3_profiles *profiles,
                            tr_error *error);
/* Reads the files that AWS_CONFIG_FILE and AWS_SHARED_CREDENTIALS_FILE name, or those below HOME; one that is not there
 * is empty. */
tr_status s3_profiles_load(const tr_allocator *allocator, const char *const *environment, s3_profiles *profiles,
                           tr_error *error);
void s3_profiles_fini(s3_profiles *profiles);

bool s3_profiles_has(const s3_profiles *profiles, const char *profile);
/* NULL where the profile has no such key, or an empty one. */
const char *s3_profiles_get(const s3_profiles *profiles, const char *profile, const char *key);
/* Of one of the two files: an access key, its secret and its token are of one file. */
const char *s3_profiles_in_credentials(const s3_profiles *profiles, const char *profile, const char *key);
const char *s3_profiles_in_config(const s3_profiles *profiles, const char *profile, const char *key);
/* Of an indented block: get_in(p, "lake", "s3", "addressing_style"). */
const char *s3_profiles_get_in(const s3_profiles *profiles, const char *profile, const char *block, const char *key);
/* Of the block `service` in the [services NAME] that the profile names: get_service(p, "lake", "s3", "endpoint_url"). */
const char *s3_profiles_get_service(const s3_profiles *profiles, const char *profile, const char *service,
                                    const char *key);

#endif
