/* A file on its way to this machine: see part_file.h. */
#include "part_file.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

enum { STATE_BYTES_MAX = 64 << 20, READ_BYTES = 1 << 20, DIRECT_ALIGN = 4096 };

static tr_status fail(tr_error *error, const char *what, const char *path) {
  return tr_fail_errno(error, tr_status_from_errno(errno), errno, "%s %s", what, path);
}

static tr_status make_folders(const char *path, tr_error *error) {
  char folder[PATH_MAX];
  for (const char *slash = strchr(path + 1, '/'); slash != NULL; slash = strchr(slash + 1, '/')) {
    snprintf(folder, sizeof folder, "%.*s", (int)(slash - path), path);
    if (mkdir(folder, 0777) != 0 && errno != EEXIST) return fail(error, "making the folder", folder);
  }
  return TR_OK;
}

bool part_file_has(const tr_part_file *file, uint64_t range) { return (file->done[range / 8] >> (range % 8) & 1) != 0; }

static size_t bytes_of(const tr_part_file *file, uint64_t range) {
  const uint64_t left = file->bytes - range * file->chunk;
  return (size_t)(left < file->chunk ? left : file->chunk);
}

static bool read_back(const tr_part_file *file, uint64_t offset, size_t bytes, uint32_t *crc32c) {
  char *buffer = tr_alloc(NULL, READ_BYTES);
  *crc32c = 0;
  while (buffer != NULL && bytes > 0) {
    const ssize_t got = pread(file->descriptor, buffer, bytes < READ_BYTES ? bytes : READ_BYTES, (off_t)offset);
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) break;
    *crc32c = tr_crc32c(*crc32c, buffer, (size_t)got);
    offset += (uint64_t)got;
    bytes -= (size_t)got;
  }
  tr_free(NULL, buffer);
  return bytes == 0;
}

/* Believes the lines of a state whose first line is this object's. False: it is of another object, or none. */
static bool take_state(tr_part_file *file, char *text, const char *first) {
  char *line = strsep(&text, "\n");
  if (line == NULL || strcmp(line, first) != 0) return false;
  while ((line = strsep(&text, "\n")) != NULL) {
    uint64_t offset, bytes;
    uint32_t crc32c, found;
    if (sscanf(line, "%" SCNu64 " %" SCNu64 " %" SCNx32, &offset, &bytes, &crc32c) != 3) continue;
    const uint64_t range = offset / file->chunk;
    if (offset % file->chunk != 0 || range >= file->ranges || bytes != bytes_of(file, range)) continue;
    if (!read_back(file, offset, (size_t)bytes, &found) || found != crc32c) continue;
    file->done[range / 8] |= (uint8_t)(1u << (range % 8));
    file->crcs[range] = crc32c;
  }
  return true;
}

static tr_status open_state(tr_part_file *file, const tr_object_info *info, tr_error *error) {
  char first[256];
  struct stat found;
  snprintf(first, sizeof first, "trainrun-part 1 %" PRIu64 " %s", info->bytes, info->etag);
  file->state_descriptor = open(file->state, O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
  if (file->state_descriptor < 0 || fstat(file->state_descriptor, &found) != 0) {
    return fail(error, "opening", file->state);
  }
  const size_t bytes = found.st_size <= STATE_BYTES_MAX ? (size_t)found.st_size : 0;
  char *text = tr_alloc(NULL, bytes + 1);
  if (text == NULL) return tr_fail_memory(error, file->state, bytes);
  const ssize_t got = pread(file->state_descriptor, text, bytes, 0);
  text[got > 0 ? got : 0] = '\0';
  const bool ours = take_state(file, text, first);
  tr_free(NULL, text);
  if (ours) return TR_OK;
  if (ftruncate(file->descriptor, 0) != 0 || ftruncate(file->state_descriptor, 0) != 0 ||
      dprintf(file->state_descriptor, "%s\n", first) < 0) {
    return fail(error, "writing", file->state);
  }
  return TR_OK;
}

static tr_status open_part(tr_part_file *file, const tr_object_info *info, tr_error *error) {
  TR_TRY(make_folders(file->path, error));
  file->descriptor = open(file->part, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
  if (file->descriptor < 0) return fail(error, "creating", file->part);
  if (flock(file->descriptor, LOCK_EX | LOCK_NB) != 0) {
    return tr_fail(error, TR_ERR_UNAVAILABLE, "%s: another process is copying to it", file->path);
  }
  file->done = tr_calloc(NULL, (size_t)(file->ranges / 8 + 1), 1);
  file->crcs = tr_calloc(NULL, (size_t)file->ranges + 1, sizeof *file->crcs);
  if (file->done == NULL || file->crcs == NULL) return tr_fail_memory(error, file->part, (size_t)file->ranges * 4);
  if (file->ranges > 1) {
    TR_TRY(open_state(file, info, error));
    /* Room first: a disk that is too small is known now, and ranges do not wait for each other to make the file longer. */
    if (fallocate(file->descriptor, 0, 0, (off_t)file->bytes) != 0 && errno == ENOSPC) {
      return fail(error, "making room for", file->part);
    }
    file->direct = open(file->part, O_WRONLY | O_DIRECT | O_CLOEXEC);
    return TR_OK;
  }
  if (ftruncate(file->descriptor, 0) != 0) return fail(error, "writing", file->part);
  return TR_OK;
}

tr_status part_file_open(tr_part_file *file, const char *path, const tr_object_info *info, uint64_t chunk,
                         tr_error *error) {
  *file = (tr_part_file){
      .path = path, .descriptor = -1, .state_descriptor = -1, .direct = -1, .bytes = info->bytes, .chunk = chunk};
  file->ranges = (info->bytes + chunk - 1) / chunk;
  if ((size_t)snprintf(file->part, sizeof file->part, "%s.part", path) >= sizeof file->part ||
      (size_t)snprintf(file->state, sizeof file->state, "%s.part.state", path) >= sizeof file->state) {
    return tr_fail(error, TR_ERR_INVALID, "%.80s...: the path is too long", path);
  }
  const tr_status status = open_part(file, info, error);
  if (status != TR_OK) part_file_leave(file, false);
  return status;
}

/* Large ranges go past the page cache, which would copy each byte once more only to write it out later; where the file
 * system does not do that, or what is left is not whole blocks, through it. */
static ssize_t write_some(tr_part_file *file, const char *data, size_t bytes, uint64_t offset) {
  if (file->direct >= 0 && bytes >= DIRECT_ALIGN && (uintptr_t)data % DIRECT_ALIGN == 0 && offset % DIRECT_ALIGN == 0) {
    const ssize_t written = pwrite(file->direct, data, bytes / DIRECT_ALIGN * DIRECT_ALIGN, (off_t)offset);
    if (written > 0 || errno == EINTR || errno == ENOSPC) return written;
    close(file->direct);
    file->direct = -1;
  }
  return pwrite(file->descriptor, data, bytes, (off_t)offset);
}

tr_status part_file_write(tr_part_file *file, uint64_t range, const void *data, size_t bytes, tr_error *error) {
  const char *at = data;
  uint64_t offset = range * file->chunk;
  for (size_t left = bytes; left > 0;) {
    const ssize_t written = write_some(file, at, left, offset);
    if (written < 0 && errno == EINTR) continue;
    if (written <= 0) return fail(error, "writing", file->part);
    at += written;
    offset += (uint64_t)written;
    left -= (size_t)written;
  }
  file->done[range / 8] |= (uint8_t)(1u << (range % 8));
  file->crcs[range] = tr_crc32c(0, data, bytes);
  if (file->state_descriptor < 0) return TR_OK;
  if (dprintf(file->state_descriptor, "%" PRIu64 " %zu %08x\n", range * file->chunk, bytes, file->crcs[range]) < 0) {
    return fail(error, "writing", file->state);
  }
  return TR_OK;
}

bool part_file_is(const tr_part_file *file, const char *crc32c) {
  uint32_t wanted, found = 0;
  uint64_t parts = 0;
  const int words = sscanf(crc32c, "%8" SCNx32 "-%" SCNu64, &wanted, &parts);
  if (words < 1 || (words == 2 && parts != file->ranges)) return true;
  for (uint64_t i = 0; i < file->ranges; i++) {
    const uint32_t crc = file->crcs[i];
    const uint8_t bytes[] = {(uint8_t)(crc >> 24), (uint8_t)(crc >> 16), (uint8_t)(crc >> 8), (uint8_t)crc};
    found = words == 2 ? tr_crc32c(found, bytes, sizeof bytes) : tr_crc32c_combine(found, crc, bytes_of(file, i));
  }
  return found == wanted;
}

tr_status part_file_finish(tr_part_file *file, int64_t modified_ns, tr_error *error) {
  const struct timespec times[2] = {{.tv_nsec = UTIME_NOW}, {modified_ns / 1000000000, modified_ns % 1000000000}};
  tr_status status = TR_OK;
  if (ftruncate(file->descriptor, (off_t)file->bytes) != 0 || futimens(file->descriptor, times) != 0 ||
      rename(file->part, file->path) != 0) {
    status = fail(error, "giving its name to", file->part);
  }
  if (status == TR_OK && file->state_descriptor >= 0) unlink(file->state);
  part_file_leave(file, false);
  return status;
}

void part_file_leave(tr_part_file *file, bool remove) {
  if (remove) {
    unlink(file->part);
    unlink(file->state);
  }
  if (file->state_descriptor >= 0) close(file->state_descriptor);
  if (file->descriptor >= 0) close(file->descriptor);
  if (file->direct >= 0) close(file->direct);
  tr_free(NULL, file->done);
  tr_free(NULL, file->crcs);
  file->done = NULL;
  file->crcs = NULL;
  file->descriptor = file->state_descriptor = file->direct = -1;
}
