/* The files of a run's folder: made whole through a temporary name, or appended a line at a time.
 *
 * A run's folder is on a local disk and has one writer (the lock of the run sees to that), so plain files serve. */
#include "run_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

tr_status tr_folder_make(const char *path, tr_error *error) {
  char partial[TR_KEY_BYTES];
  const size_t length = strlen(path);
  if (length >= sizeof partial)
    return tr_fail(error, TR_ERR_CONFIG, "run folder: the path is longer than %zu", sizeof partial);
  for (size_t i = 1; i <= length; i++) {
    if (path[i] != '/' && path[i] != '\0') continue;
    memcpy(partial, path, i);
    partial[i] = '\0';
    if (mkdir(partial, 0777) != 0 && errno != EEXIST) {
      return tr_fail_errno(error, tr_status_from_errno(errno), errno, "run folder: cannot make '%s'", partial);
    }
  }
  return TR_OK;
}

static tr_status write_whole(int descriptor, const char *name, const char *data, size_t bytes, tr_error *error) {
  while (bytes > 0) {
    const ssize_t written = write(descriptor, data, bytes);
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) {
      return tr_fail_errno(error, tr_status_from_errno(errno), errno, "run folder: cannot write '%s'", name);
    }
    data += written;
    bytes -= (size_t)written;
  }
  return TR_OK;
}

static void sync_folder(const char *folder) {
  const int descriptor = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (descriptor < 0) return;
  (void)fsync(descriptor);
  close(descriptor);
}

tr_status tr_folder_write(const char *folder, const char *name, const void *data, size_t bytes, unsigned mode,
                          bool durable, tr_error *error) {
  char path[TR_KEY_BYTES], temporary[TR_KEY_BYTES + 8];
  if (snprintf(path, sizeof path, "%s/%s", folder, name) >= (int)sizeof path) {
    return tr_fail(error, TR_ERR_CONFIG, "run folder: the path of '%s' is too long", name);
  }
  snprintf(temporary, sizeof temporary, "%s.tmp", path);
  const int descriptor = open(temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, mode);
  if (descriptor < 0) {
    return tr_fail_errno(error, tr_status_from_errno(errno), errno, "run folder: cannot make '%s'", temporary);
  }
  tr_status status = write_whole(descriptor, path, data, bytes, error);
  if (status == TR_OK && durable && fsync(descriptor) != 0) {
    status = tr_fail_errno(error, tr_status_from_errno(errno), errno, "run folder: cannot sync '%s'", path);
  }
  if (close(descriptor) != 0 && status == TR_OK) {
    status = tr_fail_errno(error, tr_status_from_errno(errno), errno, "run folder: cannot close '%s'", path);
  }
  if (status == TR_OK && rename(temporary, path) != 0) {
    status = tr_fail_errno(error, tr_status_from_errno(errno), errno, "run folder: cannot rename to '%s'", path);
  }
  if (status != TR_OK) {
    unlink(temporary);
    return status;
  }
  if (durable) sync_folder(folder);
  return TR_OK;
}

tr_status tr_folder_read(const tr_allocator *allocator, const char *folder, const char *name, char **text,
                         size_t *bytes, tr_error *error) {
  char path[TR_KEY_BYTES];
  if (snprintf(path, sizeof path, "%s/%s", folder, name) >= (int)sizeof path) {
    return tr_fail(error, TR_ERR_CONFIG, "run folder: the path of '%s' is too long", name);
  }
  const int descriptor = open(path, O_RDONLY | O_CLOEXEC);
  if (descriptor < 0) {
    return tr_fail_errno(error, tr_status_from_errno(errno), errno, "run folder: cannot open '%s'", path);
  }
  tr_status status = TR_OK;
  char *data = NULL;
  struct stat info;
  if (fstat(descriptor, &info) != 0 || !S_ISREG(info.st_mode)) {
    status = tr_fail(error, TR_ERR_IO, "run folder: '%s' is no file", path);
    goto done;
  }
  const size_t size = (size_t)info.st_size;
  data = tr_alloc(allocator, size + 1);
  if (data == NULL) {
    status = tr_fail_memory(error, path, size + 1);
    goto done;
  }
  size_t got = 0;
  while (got < size) {
    const ssize_t count = read(descriptor, data + got, size - got);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) {
      status = tr_fail_errno(error, TR_ERR_IO, errno, "run folder: cannot read '%s'", path);
      goto done;
    }
    if (count == 0) break;
    got += (size_t)count;
  }
  data[got] = '\0';
  *text = data;
  *bytes = got;
  data = NULL;
done:
  tr_free(allocator, data);
  close(descriptor);
  return status;
}

tr_status tr_folder_append_open(const char *folder, const char *name, int *descriptor, tr_error *error) {
  char path[TR_KEY_BYTES];
  if (snprintf(path, sizeof path, "%s/%s", folder, name) >= (int)sizeof path) {
    return tr_fail(error, TR_ERR_CONFIG, "run folder: the path of '%s' is too long", name);
  }
  const int opened = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
  if (opened < 0) return tr_fail_errno(error, tr_status_from_errno(errno), errno, "run folder: cannot open '%s'", path);
  *descriptor = opened;
  return TR_OK;
}

tr_status tr_folder_append(int descriptor, const char *name, const char *line, size_t bytes, tr_error *error) {
  return write_whole(descriptor, name, line, bytes, error);
}

static bool keep_line(const char *line, size_t bytes, int64_t step) {
  json_t *root = json_loadb(line, bytes, 0, NULL);
  const json_t *value = json_object_get(root, "step");
  const bool keep = root != NULL && (!json_is_integer(value) || json_integer_value(value) <= step);
  json_decref(root);
  return keep;
}

tr_status tr_folder_cut_steps(const tr_allocator *allocator, const char *folder, const char *name, int64_t step,
                              tr_error *error) {
  char *text = NULL;
  size_t bytes = 0;
  tr_error ignored;
  const tr_status found = tr_folder_read(allocator, folder, name, &text, &bytes, &ignored);
  if (found == TR_ERR_NOT_FOUND) return TR_OK;
  if (found != TR_OK) {
    if (error != NULL) *error = ignored;
    return found;
  }
  size_t kept = 0;
  for (size_t at = 0; at < bytes;) {
    const char *end = memchr(text + at, '\n', bytes - at);
    if (end == NULL) break; /* torn: the writer died in the middle */
    const size_t length = (size_t)(end - (text + at)) + 1;
    if (keep_line(text + at, length, step)) {
      memmove(text + kept, text + at, length);
      kept += length;
    }
    at += length;
  }
  tr_status status = TR_OK;
  if (kept != bytes) status = tr_folder_write(folder, name, text, kept, 0666, false, error);
  tr_free(allocator, text);
  return status;
}
