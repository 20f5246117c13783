/* Variables and small files. */
#include "s3_inputs.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

const char *s3_environment(const char *const *environment, const char *name) {
  const size_t length = strlen(name);
  for (; environment != NULL && *environment != NULL; environment++) {
    if (strncmp(*environment, name, length) != 0 || (*environment)[length] != '=') continue;
    return (*environment)[length + 1] != '\0' ? *environment + length + 1 : NULL;
  }
  return NULL;
}

tr_status s3_file_read(const tr_allocator *allocator, const char *what, const char *path, size_t max_bytes, char **text,
                       size_t *bytes, uint32_t *mode, tr_error *error) {
  const int file = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
  if (file < 0) return tr_fail_errno(error, tr_status_from_errno(errno), errno, "%s %s", what, path);
  struct stat about;
  tr_status status = TR_OK;
  char *made = NULL;
  size_t length = 0;
  if (fstat(file, &about) != 0) {
    status = tr_fail_errno(error, TR_ERR_IO, errno, "%s %s", what, path);
  } else if (S_ISDIR(about.st_mode)) {
    status = tr_fail(error, TR_ERR_CONFIG, "%s %s is a folder", what, path);
  } else if ((made = tr_alloc(allocator, max_bytes + 2)) == NULL) {
    status = tr_fail_memory(error, what, max_bytes + 2);
  }
  while (status == TR_OK && length <= max_bytes) {
    const ssize_t got = read(file, made + length, max_bytes + 1 - length);
    if (got > 0) {
      length += (size_t)got;
    } else if (got == 0) {
      break;
    } else if (errno != EINTR) {
      status = tr_fail_errno(error, TR_ERR_IO, errno, "%s %s", what, path);
    }
  }
  close(file);
  if (status == TR_OK && length > max_bytes) {
    status = tr_fail(error, TR_ERR_CONFIG, "%s %s is larger than %zu bytes", what, path, max_bytes);
  }
  if (status != TR_OK) {
    if (made != NULL) explicit_bzero(made, length);
    tr_free(allocator, made);
    return status;
  }
  made[length] = '\0';
  *text = made;
  *bytes = length;
  if (mode != NULL) *mode = (uint32_t)about.st_mode;
  return TR_OK;
}
