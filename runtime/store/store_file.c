/* The file store: objects are regular files below a root folder. Reading, and the table of functions. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "file_private.h"
#include "store_key.h"

enum { DEFAULT_THREADS = 2, MAX_THREADS = 64, CALL_BYTES = 1 << 30 };

bool store_file_is_temporary(const char *name) { return strncmp(name, TMP_PREFIX, sizeof TMP_PREFIX - 1) == 0; }

tr_status store_file_path(const file_store *store, const char *key, char path[PATH_MAX], tr_error *error) {
  const int length = snprintf(path, PATH_MAX, "%s/%s", store->root, key);
  if (length < 0 || length >= PATH_MAX)
    return tr_fail(error, TR_ERR_INVALID, "store: the path of '%s' is too long", key);
  return TR_OK;
}

void store_file_info(const struct stat *stat, tr_object_info *info) {
  const uint64_t modified = (uint64_t)stat->st_mtim.tv_sec * 1000000000u + (uint64_t)stat->st_mtim.tv_nsec;
  info->bytes = (uint64_t)stat->st_size;
  info->modified_ns = (int64_t)modified;
  snprintf(info->etag, sizeof info->etag, "%llx-%llx-%llx", (unsigned long long)stat->st_size,
           (unsigned long long)modified, (unsigned long long)stat->st_ino);
}

/* An open regular file: anything else (a folder, a device, a pipe) is no object. */
static tr_status open_object(const file_store *store, const char *key, char path[PATH_MAX], int *fd, struct stat *found,
                             tr_error *error) {
  TR_TRY(store_file_path(store, key, path, error));
  /* O_NONBLOCK keeps the open of a named pipe from waiting for a writer; a regular file does not mind. */
  const int opened = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (opened < 0) return tr_fail_errno(error, tr_status_from_errno(errno), errno, "opening %s", path);
  tr_status status = TR_OK;
  if (fstat(opened, found) != 0) {
    status = tr_fail_errno(error, TR_ERR_IO, errno, "fstat of %s", path);
  } else if (!S_ISREG(found->st_mode)) {
    status = tr_fail(error, TR_ERR_NOT_FOUND, "%s is %s, not a file", path,
                     S_ISDIR(found->st_mode) ? "a folder" : "something else");
  }
  if (status != TR_OK) {
    close(opened);
    return status;
  }
  *fd = opened;
  return TR_OK;
}

static tr_status read_range(const file_store *store, int fd, const char *path, tr_store_request *request,
                            tr_error *error) {
  char *at = request->buffer;
  size_t left = request->buffer_bytes;
  uint64_t offset = request->offset;
  while (left > 0) {
    if (offset > INT64_MAX) break;
    const ssize_t got = pread(fd, at, left < CALL_BYTES ? left : CALL_BYTES, (off_t)offset);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) {
      return tr_fail_errno(error, tr_status_from_errno(errno), errno, "reading %s at byte %llu", path,
                           (unsigned long long)offset);
    }
    if (got == 0) break;
    if (request->first_byte_ns == 0) request->first_byte_ns = tr_clock_now_ns(store->clock);
    at += got;
    left -= (size_t)got;
    offset += (uint64_t)got;
  }
  request->bytes = request->buffer_bytes - left;
  return TR_OK;
}

static tr_status get(file_store *store, tr_store_request *request, tr_error *error) {
  char path[PATH_MAX];
  int fd = -1;
  struct stat before, after;
  TR_TRY(open_object(store, request->key, path, &fd, &before, error));
  tr_object_info info;
  store_file_info(&before, &info);
  tr_status status = TR_OK;
  if (request->if_match != NULL && strcmp(request->if_match, info.etag) != 0) {
    status = tr_fail(error, TR_ERR_CHANGED, "%s changed: it is no longer the version %s", path, request->if_match);
  } else {
    status = read_range(store, fd, path, request, error);
  }
  /* Someone may write into the file in place, which no atomic put of ours does: the bytes would be of two versions. */
  if (status == TR_OK &&
      (fstat(fd, &after) != 0 || after.st_size != before.st_size || after.st_mtim.tv_sec != before.st_mtim.tv_sec ||
       after.st_mtim.tv_nsec != before.st_mtim.tv_nsec)) {
    status = tr_fail(error, TR_ERR_CHANGED, "%s changed while it was read at byte %llu", path,
                     (unsigned long long)request->offset);
  }
  close(fd);
  if (status == TR_OK) request->info = info;
  return status;
}

static tr_status head(file_store *store, tr_store_request *request, tr_error *error) {
  char path[PATH_MAX];
  struct stat found;
  TR_TRY(store_file_path(store, request->key, path, error));
  if (stat(path, &found) != 0) return tr_fail_errno(error, tr_status_from_errno(errno), errno, "looking for %s", path);
  if (!S_ISREG(found.st_mode)) return tr_fail(error, TR_ERR_NOT_FOUND, "%s is not a file", path);
  store_file_info(&found, &request->info);
  return TR_OK;
}

static tr_status put(file_store *store, tr_store_request *request, tr_error *error) {
  new_file file;
  if (request->if_absent) {
    /* Spares the writing when the answer is known already; the commit decides for good. */
    struct stat found;
    TR_TRY(store_file_path(store, request->key, file.path, error));
    if (lstat(file.path, &found) == 0) return tr_fail(error, TR_ERR_EXISTS, "%s is already there", file.path);
  }
  TR_TRY(store_file_begin(store, request->key, &file, error));
  const tr_status status = store_file_write(&file, request->data, request->data_bytes, 0, error);
  if (status != TR_OK) {
    store_file_abort(&file);
    return status;
  }
  TR_TRY(store_file_commit(store, &file, request->if_absent, &request->info, error));
  request->bytes = request->data_bytes;
  return TR_OK;
}

static tr_status refuse_temporary(const char *key, tr_error *error) {
  for (const char *part = key; part != NULL; part = strchr(part, '/')) {
    if (*part == '/') part++;
    if (store_file_is_temporary(part)) {
      return tr_fail(error, TR_ERR_INVALID, "store: key '%s': names that begin with " TMP_PREFIX " are the store's",
                     key);
    }
  }
  return TR_OK;
}

static tr_status execute(void *self, tr_store_request *request, tr_error *error) {
  file_store *store = self;
  if (request->verb != TR_STORE_PART) TR_TRY(refuse_temporary(request->key, error));
  switch (request->verb) {
    case TR_STORE_GET: return get(store, request, error);
    case TR_STORE_PUT: return put(store, request, error);
    case TR_STORE_HEAD: return head(store, request, error);
    case TR_STORE_DELETE: return store_file_delete(store, request->key, error);
    case TR_STORE_PART: return store_file_upload_part(store, request, error);
  }
  return tr_fail(error, TR_ERR_INVALID, "store: verb %d is unknown", (int)request->verb);
}

static tr_status submit(void *self, tr_store_request *request, tr_error *error) {
  return tr_store_engine_submit(((file_store *)self)->engine, request, error);
}

static void run(void *self, tr_store_request *request) { tr_store_engine_run(((file_store *)self)->engine, request); }

static tr_status upload_begin(void *self, const char *key, void **upload, tr_error *error) {
  TR_TRY(tr_store_key_check(key, error));
  TR_TRY(refuse_temporary(key, error));
  return store_file_upload_begin(self, key, upload, error);
}

static void destroy(void *self) {
  file_store *store = self;
  tr_store_engine_destroy(store->engine);
  tr_free(store->allocator, store->root);
  tr_free(store->allocator, store);
}

static const tr_store_ops ops = {
    .struct_bytes = sizeof ops,
    .name = "file",
    .submit = submit,
    .run = run,
    .list = store_file_list,
    .list_free = store_file_list_free,
    .upload_begin = upload_begin,
    .upload_commit = store_file_upload_commit,
    .upload_abort = store_file_upload_abort,
    .upload_sweep = store_file_upload_sweep,
    .part_bytes_min = 1,
    .destroy = destroy,
};

/* The root as an absolute path, so that a later chdir of the program moves nothing. */
static tr_status make_root(const tr_allocator *allocator, const char *root, char **out, tr_error *error) {
  char folder[PATH_MAX] = "";
  if (root[0] != '/' && getcwd(folder, sizeof folder) == NULL) {
    return tr_fail_errno(error, TR_ERR_IO, errno, "store: the working directory");
  }
  size_t length = strlen(root);
  while (length > 0 && root[length - 1] == '/') length--;
  char *made = root[0] == '/' ? tr_strndup(allocator, root, length)
                              : tr_asprintf(allocator, "%s/%.*s", folder, (int)length, root);
  if (made == NULL) return tr_fail_memory(error, "a store's root", length);
  *out = made;
  return TR_OK;
}

tr_status tr_store_file_open(const tr_store_file_options *options, tr_store **out, tr_error *error) {
  if (options == NULL || options->struct_bytes != sizeof *options || options->root == NULL ||
      options->root[0] == '\0' || strlen(options->root) >= PATH_MAX) {
    return tr_fail(error, TR_ERR_INVALID, "store: the file store's options are of another version or lack a root");
  }
  const tr_allocator *allocator = options->allocator;
  file_store *store = tr_calloc(allocator, 1, sizeof *store);
  if (store == NULL) return tr_fail_memory(error, "a file store", sizeof *store);
  store->allocator = allocator;
  store->clock = options->clock;
  const uint32_t threads = options->threads == 0 ? DEFAULT_THREADS : options->threads;
  const tr_store_engine_options engine = {.allocator = allocator,
                                          .clock = options->clock,
                                          .threads = threads < MAX_THREADS ? threads : MAX_THREADS,
                                          .execute = execute,
                                          .self = store};
  tr_status status = make_root(allocator, options->root, &store->root, error);
  if (status != TR_OK) goto err_root;
  store->root_bytes = strlen(store->root);
  status = tr_store_engine_create(&engine, &store->engine, error);
  if (status != TR_OK) goto err_engine;
  status = tr_store_create(allocator, &ops, store, out, error);
  if (status != TR_OK) goto err_store;
  return TR_OK;

err_store:
  tr_store_engine_destroy(store->engine);
err_engine:
  tr_free(allocator, store->root);
err_root:
  tr_free(allocator, store);
  return status;
}
