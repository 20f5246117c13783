/* A URL of the command line, seen as commands see it: an object, or a folder of objects; and the objects of a folder.
 *
 * One rule for all verbs: a URL that ends in '/' is a folder; any other is an object where there is one of that name, and
 * otherwise the folder of the keys below it. Local paths are URLs too. */
#ifndef TRAINRUN_LAUNCHER_LOCATION_H
#define TRAINRUN_LAUNCHER_LOCATION_H

#include "job.h"

#include <trainrun/store.h>

/* Settings, log and stores of a command that ends by itself: -f JOB.toml, AWS's flags, the environment, profiles. */
typedef struct tr_remote {
  tr_job job;
  tr_log *log;
  tr_stores *stores;
} tr_remote;

/* 0, or an exit code after saying on stderr what is wrong. Always remote_close. */
int remote_open(tr_remote *remote, const tr_cli *cli);
void remote_close(tr_remote *remote);

/* "trainrun: message" on stderr; the exit code that fits. */
int remote_failed(const tr_error *error);

typedef enum location_kind { LOCATION_NOTHING, LOCATION_OBJECT, LOCATION_FOLDER } location_kind;

typedef struct tr_location {
  const char *url; /* as typed */
  bool local;
  tr_store *store;
  char key[TR_KEY_BYTES];
  char prefix[TR_KEY_BYTES + 1]; /* of the keys below it: the key and a '/', or "" for the root */
  location_kind kind;
  tr_object_info info; /* of an OBJECT */
} tr_location;

/* Whether a path is on this machine, and the path itself. */
bool location_is_local(const char *url);
const char *location_path(const char *url);

/* Store and key; `kind` is not asked for. */
tr_status location_resolve(tr_stores *stores, const char *url, tr_location *location, tr_error *error);
/* The same, and what is there. `folder`: it is one, whatever objects there are. */
tr_status location_find(tr_stores *stores, const char *url, bool folder, tr_location *location, tr_error *error);
/* TR_ERR_NOT_FOUND in words. */
tr_status location_missing(const tr_location *location, tr_error *error);
/* The URL of a key below the folder: what was typed and `name`, with one '/' between. */
void location_url_of(const tr_location *location, const char *name, char *text, size_t text_bytes);

/* The keys below a prefix, in order, a page at a time. */
typedef struct tr_listing {
  tr_store *store;
  const char *prefix;
  char after[TR_KEY_BYTES];
  tr_list_page page;
  size_t at;
  bool last;
} tr_listing;

void listing_begin(tr_listing *listing, tr_store *store, const char *prefix);
/* *entry: valid until the next call; NULL after the last. */
tr_status listing_next(tr_listing *listing, const tr_list_entry **entry, tr_error *error);
/* Passes over all that is left of a folder: `folder` begins with the prefix and ends in '/'. */
void listing_skip(tr_listing *listing, const char *folder);
/* Of one that was never begun (all zero) too. */
void listing_end(tr_listing *listing);

#endif
