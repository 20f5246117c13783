/* Objects written in parts: each part goes straight to its place in one new file, which the commit makes visible. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "file_private.h"

typedef struct part {
  uint32_t number;
  uint64_t offset, bytes;
} part;

typedef struct file_upload {
  new_file file;

  /* Under `lock`: parts may be written by several threads at once. */
  pthread_mutex_t lock;
  part *parts;
  size_t count, capacity;
} file_upload;

tr_status store_file_upload_begin(void *self, const char *key, void **out, tr_error *error) {
  file_store *store = self;
  file_upload *made = tr_calloc(store->allocator, 1, sizeof *made);
  if (made == NULL) return tr_fail_memory(error, "an upload", sizeof *made);
  const tr_status status = store_file_begin(store, key, &made->file, error);
  if (status != TR_OK) {
    tr_free(store->allocator, made);
    return status;
  }
  store_file_open_direct(&made->file);
  pthread_mutex_init(&made->lock, NULL);
  *out = made;
  return TR_OK;
}

static void upload_free(file_store *store, file_upload *upload) {
  pthread_mutex_destroy(&upload->lock);
  tr_free(store->allocator, upload->parts);
  tr_free(store->allocator, upload);
}

/* A part that is sent again takes the place of the first. */
static tr_status remember(file_store *store, file_upload *upload, const part *added, tr_error *error) {
  pthread_mutex_lock(&upload->lock);
  size_t i = 0;
  while (i < upload->count && upload->parts[i].number != added->number) i++;
  tr_status status = TR_OK;
  if (i == upload->count) {
    status = tr_reserve(store->allocator, (void **)&upload->parts, &upload->capacity, i + 1, sizeof *added, error);
  }
  if (status == TR_OK) {
    upload->parts[i] = *added;
    if (i == upload->count) upload->count++;
  }
  pthread_mutex_unlock(&upload->lock);
  return status;
}

tr_status store_file_upload_part(file_store *store, tr_store_request *request, tr_error *error) {
  file_upload *upload = request->upload;
  TR_TRY(store_file_write(&upload->file, request->data, request->data_bytes, request->offset, error));
  const part added = {.number = request->part, .offset = request->offset, .bytes = request->data_bytes};
  TR_TRY(remember(store, upload, &added, error));
  request->bytes = request->data_bytes;
  return TR_OK;
}

static int by_number(const void *a, const void *b) {
  const uint32_t x = ((const part *)a)->number, y = ((const part *)b)->number;
  return x < y ? -1 : x > y;
}

/* Parts 1, 2, 3, … must lie back to back: a hole would be bytes that nobody wrote. */
static tr_status check_parts(file_upload *upload, tr_error *error) {
  if (upload->count > 0) qsort(upload->parts, upload->count, sizeof *upload->parts, by_number);
  uint64_t end = 0;
  for (size_t i = 0; i < upload->count; i++) {
    const part *found = &upload->parts[i];
    if (found->number != i + 1 || found->offset != end) {
      return tr_fail(error, TR_ERR_INVALID, "upload of %s: part %zu is missing or does not begin at byte %llu",
                     upload->file.path, i + 1, (unsigned long long)end);
    }
    end += found->bytes;
  }
  return TR_OK;
}

tr_status store_file_upload_commit(void *self, void *handle, bool if_absent, tr_error *error) {
  file_store *store = self;
  file_upload *upload = handle;
  tr_status status = check_parts(upload, error);
  if (status == TR_OK) {
    status = store_file_commit(store, &upload->file, if_absent, NULL, error);
  } else {
    store_file_abort(&upload->file);
  }
  upload_free(store, upload);
  return status;
}

void store_file_upload_abort(void *self, void *handle) {
  if (handle == NULL) return;
  file_upload *upload = handle;
  store_file_abort(&upload->file);
  upload_free(self, upload);
}

/* ---- What was left ---- */

enum { SWEEP_DEPTH_MAX = 64 };

/* Takes `folder` over. What vanishes meanwhile was somebody else's to remove. */
static tr_status sweep_folder(int folder, const char *path, int depth, tr_error *error) {
  DIR *entries = fdopendir(folder);
  if (entries == NULL) {
    close(folder);
    return tr_fail_errno(error, TR_ERR_IO, errno, "listing %s", path);
  }
  tr_status status = TR_OK;
  for (struct dirent *entry; status == TR_OK && (entry = readdir(entries)) != NULL;) {
    const char *name = entry->d_name;
    if (store_file_is_temporary(name)) {
      if (unlinkat(folder, name, 0) != 0 && errno != ENOENT) {
        status = tr_fail_errno(error, tr_status_from_errno(errno), errno, "deleting %s/%s", path, name);
      }
    } else if (entry->d_type == DT_DIR && strcmp(name, ".") != 0 && strcmp(name, "..") != 0 && depth > 0) {
      const int inner = openat(folder, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
      if (inner >= 0) status = sweep_folder(inner, path, depth - 1, error);
    }
  }
  closedir(entries);
  return status;
}

/* Nameless files die with their process; this is for file systems that know only names. */
tr_status store_file_upload_sweep(void *self, const char *prefix, tr_error *error) {
  char path[PATH_MAX];
  TR_TRY(store_file_path(self, prefix, path, error));
  const int folder = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (folder < 0 && (errno == ENOENT || errno == ENOTDIR)) return TR_OK;
  if (folder < 0) return tr_fail_errno(error, tr_status_from_errno(errno), errno, "opening the folder %s", path);
  return sweep_folder(folder, path, SWEEP_DEPTH_MAX, error);
}
