/* The stores of a job: from a URL to the store that holds it and the key in it.
 *
 * All local paths share one file store with the root "/", so that a path has one key however it was written. */
#include <errno.h>
#include <limits.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <trainrun/store.h>
#include <unistd.h>

#include "store_key.h"
#include "stores_s3.h"

typedef tr_status (*open_fn)(void *self, const char *url, tr_store **store, char key[TR_KEY_BYTES], tr_error *error);

typedef struct scheme {
  char *name;
  open_fn open;
  void *self;
} scheme;

typedef struct opened {
  char *name; /* "file", "memory://NAME", "s3://BUCKET"; NULL for one of a scheme of the user's own */
  tr_store *store;
} opened;

struct tr_stores {
  const tr_allocator *allocator;
  const tr_clock *clock;
  tr_log *log;
  stores_s3 *s3;

  /* Under `lock`. */
  pthread_mutex_t lock;
  scheme *schemes;
  size_t scheme_count, scheme_capacity;
  opened *stores;
  size_t store_count, store_capacity;
};

tr_status tr_stores_create(const tr_stores_options *options, tr_stores **out, tr_error *error) {
  if (options == NULL || options->struct_bytes != sizeof *options) {
    return tr_fail(error, TR_ERR_INVALID, "stores: options are of another version of trainrun");
  }
  tr_stores *stores = tr_calloc(options->allocator, 1, sizeof *stores);
  if (stores == NULL) return tr_fail_memory(error, "the stores of a job", sizeof *stores);
  stores->allocator = options->allocator;
  stores->clock = options->clock;
  stores->log = options->log;
  const tr_status status = stores_s3_create(options, &stores->s3, error);
  if (status != TR_OK) {
    tr_free(options->allocator, stores);
    return status;
  }
  pthread_mutex_init(&stores->lock, NULL);
  *out = stores;
  return TR_OK;
}

void tr_stores_destroy(tr_stores *stores) {
  if (stores == NULL) return;
  for (size_t i = 0; i < stores->store_count; i++) {
    tr_store_destroy(stores->stores[i].store);
    tr_free(stores->allocator, stores->stores[i].name);
  }
  for (size_t i = 0; i < stores->scheme_count; i++) tr_free(stores->allocator, stores->schemes[i].name);
  tr_free(stores->allocator, stores->stores);
  tr_free(stores->allocator, stores->schemes);
  stores_s3_destroy(stores->s3); /* after the stores, which look keys up in its environment */
  pthread_mutex_destroy(&stores->lock);
  tr_free(stores->allocator, stores);
}

tr_status tr_stores_add_scheme(tr_stores *stores, const char *name, open_fn open, void *self, tr_error *error) {
  if (name == NULL || name[0] == '\0' || strpbrk(name, ":/") != NULL || open == NULL) {
    return tr_fail(error, TR_ERR_INVALID, "stores: a scheme needs a name without ':' and a function");
  }
  char *copy = tr_strdup(stores->allocator, name);
  if (copy == NULL) return tr_fail_memory(error, "a scheme", strlen(name));
  pthread_mutex_lock(&stores->lock);
  const tr_status status = tr_reserve(stores->allocator, (void **)&stores->schemes, &stores->scheme_capacity,
                                      stores->scheme_count + 1, sizeof *stores->schemes, error);
  if (status == TR_OK) stores->schemes[stores->scheme_count++] = (scheme){.name = copy, .open = open, .self = self};
  pthread_mutex_unlock(&stores->lock);
  if (status != TR_OK) tr_free(stores->allocator, copy);
  return status;
}

/* From here on `lock` is held. */

static tr_store *find_store(const tr_stores *stores, const char *name) {
  for (size_t i = 0; i < stores->store_count; i++) {
    if (stores->stores[i].name != NULL && strcmp(stores->stores[i].name, name) == 0) return stores->stores[i].store;
  }
  return NULL;
}

/* Keeps a store that was just opened; destroys it where that fails. */
static tr_status keep(tr_stores *stores, const char *name, tr_store *store, tr_error *error) {
  char *copy = name != NULL ? tr_strdup(stores->allocator, name) : NULL;
  tr_status status = TR_OK;
  if (name != NULL && copy == NULL) status = tr_fail_memory(error, "a store's name", strlen(name));
  if (status == TR_OK) {
    status = tr_reserve(stores->allocator, (void **)&stores->stores, &stores->store_capacity, stores->store_count + 1,
                        sizeof *stores->stores, error);
  }
  if (status != TR_OK) {
    tr_free(stores->allocator, copy);
    tr_store_destroy(store);
    return status;
  }
  stores->stores[stores->store_count++] = (opened){.name = copy, .store = store};
  if (name != NULL) tr_logf(stores->log, TR_LOG_DEBUG, "opened the store %s", name);
  return TR_OK;
}

static bool add_part(char key[TR_KEY_BYTES], const char *part, size_t bytes) {
  const size_t length = strlen(key);
  const size_t slash = length > 0 ? 1 : 0;
  if (length + slash + bytes >= TR_KEY_BYTES) return false;
  if (slash > 0) key[length] = '/';
  memcpy(key + length + slash, part, bytes);
  key[length + slash + bytes] = '\0';
  return true;
}

/* Appends the parts of a path to a key: "." goes, ".." takes the last part away, slashes are single. */
static bool add_path(char key[TR_KEY_BYTES], const char *path) {
  while (*path != '\0') {
    const size_t bytes = strcspn(path, "/");
    if (bytes == 2 && path[0] == '.' && path[1] == '.') {
      char *slash = strrchr(key, '/');
      if (slash != NULL) {
        *slash = '\0';
      } else {
        key[0] = '\0';
      }
    } else if (bytes > 1 || (bytes == 1 && path[0] != '.')) {
      if (!add_part(key, path, bytes)) return false;
    }
    path += bytes;
    if (*path == '/') path++;
  }
  return true;
}

static tr_status resolve_path(tr_stores *stores, const char *path, tr_store **store, char key[TR_KEY_BYTES],
                              tr_error *error) {
  char made[TR_KEY_BYTES] = "", folder[PATH_MAX];
  bool fits = true;
  if (path[0] != '/') {
    if (getcwd(folder, sizeof folder) == NULL) {
      return tr_fail_errno(error, TR_ERR_IO, errno, "the working directory, which '%s' is relative to", path);
    }
    fits = add_path(made, folder);
  }
  if (!fits || !add_path(made, path)) {
    return tr_fail(error, TR_ERR_INVALID, "'%.60s…': the path is longer than %d bytes", path, TR_KEY_BYTES - 1);
  }
  tr_store *found = find_store(stores, "file");
  if (found == NULL) {
    const tr_store_file_options options = {
        .struct_bytes = sizeof options, .allocator = stores->allocator, .clock = stores->clock, .root = "/"};
    TR_TRY(tr_store_file_open(&options, &found, error));
    TR_TRY(keep(stores, "file", found, error));
  }
  *store = found;
  memcpy(key, made, sizeof made);
  return TR_OK;
}

static tr_status resolve_file_url(tr_stores *stores, const char *url, tr_store **store, char key[TR_KEY_BYTES],
                                  tr_error *error) {
  const char *rest = url + strlen("file://");
  if (strncmp(rest, "localhost/", 10) == 0) rest += strlen("localhost");
  if (rest[0] != '/') {
    return tr_fail(error, TR_ERR_CONFIG, "'%s' names a host; write file:///absolute/path, or the path alone", url);
  }
  return resolve_path(stores, rest, store, key, error);
}

static tr_status resolve_memory(tr_stores *stores, const char *url, tr_store **store, char key[TR_KEY_BYTES],
                                tr_error *error) {
  const char *name = url + strlen("memory://");
  const size_t name_bytes = strcspn(name, "/");
  char full[256], made[TR_KEY_BYTES] = "";
  const size_t full_bytes = strlen("memory://") + name_bytes;
  if (name_bytes == 0 || full_bytes >= sizeof full) {
    return tr_fail(error, TR_ERR_CONFIG, "'%.300s': write memory://NAME/key", url);
  }
  memcpy(full, url, full_bytes);
  full[full_bytes] = '\0';
  const char *rest = name + name_bytes + (name[name_bytes] == '/');
  size_t rest_bytes = strlen(rest);
  while (rest_bytes > 0 && rest[rest_bytes - 1] == '/') rest_bytes--;
  if (rest_bytes >= sizeof made) return tr_fail(error, TR_ERR_INVALID, "'%.60s…': the key is too long", url);
  memcpy(made, rest, rest_bytes);
  if (rest_bytes > 0) TR_TRY(tr_store_key_check(made, error));
  tr_store *found = find_store(stores, full);
  if (found == NULL) {
    const tr_store_memory_options options = {
        .struct_bytes = sizeof options, .allocator = stores->allocator, .clock = stores->clock};
    TR_TRY(tr_store_memory_open(&options, &found, error));
    TR_TRY(keep(stores, full, found, error));
  }
  *store = found;
  memcpy(key, made, sizeof made);
  return TR_OK;
}

static tr_status resolve_s3(tr_stores *stores, const char *url, tr_store **store, char key[TR_KEY_BYTES],
                            tr_error *error) {
  char bucket[S3_BUCKET_BYTES], name[S3_BUCKET_BYTES + 8], made[TR_KEY_BYTES];
  TR_TRY(stores_s3_parse(url, bucket, made, error));
  snprintf(name, sizeof name, "s3://%s", bucket);
  tr_store *found = find_store(stores, name);
  if (found == NULL) {
    TR_TRY(stores_s3_open(stores->s3, bucket, &found, error));
    TR_TRY(keep(stores, name, found, error));
  }
  *store = found;
  memcpy(key, made, sizeof made);
  return TR_OK;
}

static tr_status resolve_own(tr_stores *stores, const scheme *own, const char *url, tr_store **store,
                             char key[TR_KEY_BYTES], tr_error *error) {
  tr_store *made = NULL;
  char made_key[TR_KEY_BYTES] = "";
  TR_TRY(own->open(own->self, url, &made, made_key, error));
  bool known = false;
  for (size_t i = 0; i < stores->store_count; i++) known = known || stores->stores[i].store == made;
  if (!known) TR_TRY(keep(stores, NULL, made, error));
  *store = made;
  memcpy(key, made_key, sizeof made_key);
  return TR_OK;
}

static tr_status resolve_locked(tr_stores *stores, const char *url, tr_store **store, char key[TR_KEY_BYTES],
                                tr_error *error) {
  const char *mark = strstr(url, "://");
  if (mark == NULL) return resolve_path(stores, url, store, key, error);
  const size_t name_bytes = (size_t)(mark - url);
  for (size_t i = stores->scheme_count; i > 0; i--) {
    const scheme *own = &stores->schemes[i - 1];
    if (strlen(own->name) == name_bytes && strncmp(own->name, url, name_bytes) == 0) {
      return resolve_own(stores, own, url, store, key, error);
    }
  }
  if (strncmp(url, "file://", 7) == 0) return resolve_file_url(stores, url, store, key, error);
  if (strncmp(url, "memory://", 9) == 0) return resolve_memory(stores, url, store, key, error);
  if (strncmp(url, "s3://", 5) == 0) return resolve_s3(stores, url, store, key, error);
  return tr_fail(error, TR_ERR_CONFIG, "'%s': no store answers to %.*s://; there are file://, s3:// and memory://", url,
                 (int)name_bytes, url);
}

tr_status tr_stores_resolve(tr_stores *stores, const char *url, tr_store **store, char key[TR_KEY_BYTES],
                            tr_error *error) {
  if (url == NULL || url[0] == '\0') return tr_fail(error, TR_ERR_CONFIG, "a URL is empty");
  pthread_mutex_lock(&stores->lock);
  const tr_status status = resolve_locked(stores, url, store, key, error);
  pthread_mutex_unlock(&stores->lock);
  return status;
}
