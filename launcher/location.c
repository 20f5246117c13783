/* URLs of the command line: see location.h. */
#include "location.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { PAGE_KEYS = 1000 };

/* ---- Stores of a command ----------------------------------------------------------------------------------------- */

static void write_log(void *self, tr_log_level level, const char *line, size_t bytes) {
  (void)self, (void)level;
  if (isatty(STDERR_FILENO) == 1) fputs("\r\033[K", stderr); /* a line of progress may stand there */
  fprintf(stderr, "%.*s", (int)bytes, line);
}

int remote_open(tr_remote *remote, const tr_cli *cli) {
  memset(remote, 0, sizeof *remote);
  const int code = job_open_settings(&remote->job, cli);
  if (code != 0) return code;
  tr_error error;
  const tr_log_options log = {.struct_bytes = sizeof log, .level = TR_LOG_WARNING, .rank = -1, .write = write_log};
  tr_status status = tr_log_create(&log, &remote->log, &error);
  if (status == TR_OK) {
    const tr_stores_options options = {.struct_bytes = sizeof options,
                                       .log = remote->log,
                                       .config = remote->job.config,
                                       .environment = (const char *const *)cli->environment,
                                       .s3 = {.endpoint = cli->endpoint_url,
                                              .region = cli->region,
                                              .profile = cli->aws_profile,
                                              .ca_file = cli->ca_bundle,
                                              .no_sign_request = cli->no_sign_request}};
    status = tr_stores_create(&options, &remote->stores, &error);
  }
  return status == TR_OK ? 0 : remote_failed(&error);
}

void remote_close(tr_remote *remote) {
  tr_stores_destroy(remote->stores);
  tr_log_destroy(remote->log);
  job_close(&remote->job);
}

int remote_failed(const tr_error *error) {
  fprintf(stderr, "trainrun: %s\n", error->message);
  return tr_status_exit_code(error->status);
}

/* ---- What a URL names -------------------------------------------------------------------------------------------- */

bool location_is_local(const char *url) { return strstr(url, "://") == NULL || strncmp(url, "file://", 7) == 0; }

const char *location_path(const char *url) {
  if (strncmp(url, "file://localhost/", 17) == 0) return url + 16;
  return strncmp(url, "file://", 7) == 0 ? url + 7 : url;
}

tr_status location_resolve(tr_stores *stores, const char *url, tr_location *location, tr_error *error) {
  tr_location made = {.url = url, .local = location_is_local(url)};
  TR_TRY(tr_stores_resolve(stores, url, &made.store, made.key, error));
  snprintf(made.prefix, sizeof made.prefix, made.key[0] != '\0' ? "%s/" : "%s", made.key);
  *location = made;
  return TR_OK;
}

static bool ends_in_slash(const char *url) { return url[0] != '\0' && url[strlen(url) - 1] == '/'; }

tr_status location_find(tr_stores *stores, const char *url, bool folder, tr_location *location, tr_error *error) {
  tr_location made;
  TR_TRY(location_resolve(stores, url, &made, error));
  if (!folder && !ends_in_slash(url) && made.key[0] != '\0') {
    const tr_status status = tr_store_head(made.store, made.key, &made.info, error);
    if (status != TR_OK && status != TR_ERR_NOT_FOUND) return status;
    if (status == TR_OK) made.kind = LOCATION_OBJECT;
  }
  if (made.kind == LOCATION_NOTHING) {
    tr_listing listing;
    const tr_list_entry *first = NULL;
    listing_begin(&listing, made.store, made.prefix);
    const tr_status status = listing_next(&listing, &first, error);
    if (status == TR_OK && (first != NULL || made.key[0] == '\0')) made.kind = LOCATION_FOLDER;
    listing_end(&listing);
    if (status != TR_OK) return status;
  }
  *location = made;
  return TR_OK;
}

tr_status location_missing(const tr_location *location, tr_error *error) {
  return tr_fail(error, TR_ERR_NOT_FOUND, "%s: there is no such object, and no folder of objects of that name",
                 location->url);
}

void location_url_of(const tr_location *location, const char *name, char *text, size_t text_bytes) {
  size_t length = strlen(location->url);
  while (length > 0 && location->url[length - 1] == '/') length--;
  /* "s3://" and "/" keep their slashes. */
  const bool bare = length == 0 || location->url[length - 1] == ':';
  snprintf(text, text_bytes, "%.*s/%s", bare ? (int)strlen(location->url) - 1 : (int)length, location->url, name);
}

/* ---- Listings ---------------------------------------------------------------------------------------------------- */

void listing_begin(tr_listing *listing, tr_store *store, const char *prefix) {
  *listing = (tr_listing){.store = store, .prefix = prefix};
}

static void page_free(tr_listing *listing) {
  void *self;
  const tr_store_ops *ops = tr_store_vtable(listing->store, &self);
  if (listing->page.memory != NULL) ops->list_free(self, &listing->page);
  listing->page = (tr_list_page){0};
  listing->at = 0;
}

tr_status listing_next(tr_listing *listing, const tr_list_entry **entry, tr_error *error) {
  void *self;
  const tr_store_ops *ops = tr_store_vtable(listing->store, &self);
  while (listing->at == listing->page.count && !listing->last) {
    page_free(listing);
    const char *after = listing->after[0] != '\0' ? listing->after : NULL;
    TR_TRY(ops->list(self, listing->prefix, after, PAGE_KEYS, &listing->page, error));
    listing->last = listing->page.next[0] == '\0';
    memcpy(listing->after, listing->page.next, sizeof listing->after);
  }
  *entry = listing->at < listing->page.count ? &listing->page.entries[listing->at++] : NULL;
  return TR_OK;
}

void listing_skip(tr_listing *listing, const char *folder) {
  const size_t length = strlen(folder);
  while (listing->at < listing->page.count && strncmp(listing->page.entries[listing->at].key, folder, length) == 0) {
    listing->at++;
  }
  /* The page ends inside the folder: the next one begins behind the last name that can be in it. */
  static const char last_name[] = "\xf4\x8f\xbf\xbd"; /* U+10FFFD */
  if (listing->at < listing->page.count || listing->last || length + sizeof last_name > sizeof listing->after) return;
  memcpy(listing->after, folder, length);
  memcpy(listing->after + length, last_name, sizeof last_name);
}

void listing_end(tr_listing *listing) {
  if (listing->store != NULL) page_free(listing);
}
