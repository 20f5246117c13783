/* The places where keys are looked for, one function each (s3_keys_*.c), and the order in which they are asked.
 *
 * A place that is not set up says so in the search's text and leaves `found` false; the next one is asked. One that is set
 * up and fails ends the search: keys that a person did not mean would be worse than none. No message holds a key. */
#ifndef TRAINRUN_STORE_S3_CHAIN_H
#define TRAINRUN_STORE_S3_CHAIN_H

#include <trainrun/s3.h>

#include "s3_settings.h"

typedef struct s3_chain {
  const tr_allocator *allocator;
  const tr_clock *clock;
  tr_log *log;
  const s3_settings *settings;
  const char *const *environment;
  uint32_t process_timeout_ms;
} s3_chain;

typedef struct s3_search {
  tr_s3_credentials *keys; /* written where found */
  bool found;
  char tried[360]; /* "AWS_ACCESS_KEY_ID (not set), …" */
  size_t tried_bytes;
} s3_search;

/* Finds keys now, whatever was found before. */
tr_status s3_chain_find(const s3_chain *chain, tr_s3_credentials *keys, tr_error *error);

/* ---- For the places ---- */

/* Adds to what the search has tried. */
void s3_search_tried(s3_search *search, const char *format, ...) TR_PRINTF(2, 3);

/* Keys as they came, with blanks at their ends taken off: checked, and copied into the search. `from` begins the
 * messages; session_token may be NULL. */
tr_status s3_search_take(s3_search *search, const char *from, const char *access_key, const char *secret_key,
                         const char *session_token, int64_t expires_ns, tr_error *error);

/* Keys as JSON: AccessKeyId, SecretAccessKey, `token_name`, Expiration. */
tr_status s3_search_take_json(s3_search *search, const char *from, const char *text, size_t bytes,
                              const char *token_name, bool versioned, tr_error *error);

/* "2026-11-26T01:30:00Z", also with a fraction or an offset; false for anything else. */
bool s3_time_parse(const char *text, int64_t *wall_ns);

/* A URL that may hand out keys: any with https; over http only this machine, or the addresses that AWS gives its
 * containers. */
bool s3_container_may_ask(const char *url);

tr_status s3_keys_table(const s3_chain *chain, s3_search *search, tr_error *error);
tr_status s3_keys_environment(const s3_chain *chain, s3_search *search, tr_error *error);
tr_status s3_keys_web_identity(const s3_chain *chain, s3_search *search, tr_error *error);
tr_status s3_keys_profile(const s3_chain *chain, s3_search *search, tr_error *error);
tr_status s3_keys_container(const s3_chain *chain, s3_search *search, tr_error *error);
tr_status s3_keys_instance(const s3_chain *chain, s3_search *search, tr_error *error);

#endif
