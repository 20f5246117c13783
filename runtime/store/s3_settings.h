/* How a bucket is reached: from a job's [storage.*] tables, the environment and AWS's profiles to one set of settings.
 *
 * Pure: the same inputs give the same settings, nothing is opened. The table whose `buckets` match best serves a bucket:
 * an exact name before a pattern, the longest text before the first wildcard before a shorter one; a tie is an error. A
 * table without `buckets` serves the rest. For each setting: what the command line says, then the table, then AWS's
 * variables, then the profile. Settings hold no secret, only where the keys are. */
#ifndef TRAINRUN_STORE_S3_SETTINGS_H
#define TRAINRUN_STORE_S3_SETTINGS_H

#include <trainrun/arena.h>
#include <trainrun/store.h>

#include "s3_profiles.h"

/* Where the keys are looked for. */
typedef enum s3_keys {
  S3_KEYS_CHAIN,   /* AWS's order: variables, web identity, profile, container, instance */
  S3_KEYS_PROFILE, /* a profile that was asked for by name: the chain without the variables */
  S3_KEYS_TABLE,   /* the references of a [storage.*] table */
  S3_KEYS_NONE     /* nowhere: requests are not signed */
} s3_keys;

/* At most one is set. */
typedef struct s3_secret {
  const char *env;
  const char *file;
} s3_secret;

typedef struct s3_settings {
  tr_arena *arena; /* all text below */
  const char *bucket;
  const char *table;        /* of [storage.TABLE]; NULL: none serves the bucket */
  const char *endpoint;     /* without a slash at its end; NULL: Amazon's */
  const char *region;       /* never NULL */
  const char *ca_file;      /* NULL: the system's */
  const char *profile;      /* never NULL */
  const char *sts_endpoint; /* never NULL: where web identities become keys */
  bool path_style;
  uint32_t attempts; /* of a request; 0: not said */
  s3_keys keys;
  s3_secret access_key, secret_key, session_token; /* S3_KEYS_TABLE */
} s3_settings;

typedef struct s3_settings_source {
  const tr_allocator *allocator;
  const tr_config *config; /* NULL: no tables */
  const char *const *environment;
  const tr_s3_overrides *overrides; /* NULL: none */
  const s3_profiles *profiles;
  const char *bucket;
} s3_settings_source;

tr_status s3_settings_make(const s3_settings_source *source, s3_settings *settings, tr_error *error);
void s3_settings_fini(s3_settings *settings);

/* The [storage.*] table that serves a bucket, its key into *name; NULL where none does. TR_ERR_CONFIG for a tie. */
tr_status s3_settings_table(const tr_config *config, const char *bucket, const char **name, tr_error *error);

#endif
