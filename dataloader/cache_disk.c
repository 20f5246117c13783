/* Reading and writing the files of the cache's folder: see cache_disk.h. */
#include "cache_disk.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

/* A file's time is its last use, to the hour: one system call an hour, not one a read. */
enum { TOUCH_S = 3600 };

/* ---- Opening ----------------------------------------------------------------------------------------------------- */

static tr_status make_folders(const char *dir, tr_error *error) {
  char path[PATH_MAX];
  const size_t length = strlen(dir);
  if (length == 0 || length >= sizeof path)
    return tr_fail(error, TR_ERR_CONFIG, "cache: the folder's path is empty or too long");
  memcpy(path, dir, length + 1);
  for (char *slash = strchr(path + 1, '/'); slash != NULL; slash = strchr(slash + 1, '/')) {
    *slash = '\0';
    mkdir(path, 0700);
    *slash = '/';
  }
  if (mkdir(path, 0700) != 0 && errno != EEXIST)
    return tr_fail_errno(error, tr_status_from_errno(errno), errno, "cache: making the folder %s", dir);
  return TR_OK;
}

static tr_status find_limit(dl_disk *disk, uint64_t limit_bytes, tr_error *error) {
  struct statvfs fs;
  disk->limit_bytes = limit_bytes;
  if (limit_bytes > 0) return TR_OK;
  if (fstatvfs(disk->folder, &fs) != 0)
    return tr_fail_errno(error, TR_ERR_IO, errno, "cache: asking how much is free in %s", disk->dir);
  const uint64_t free_bytes = (uint64_t)fs.f_bavail * fs.f_frsize;
  dl_usage_lock(disk);
  disk->limit_bytes = dl_usage_bytes(disk) + free_bytes / 10 * 9;
  dl_usage_unlock(disk);
  return TR_OK;
}

tr_status dl_disk_open(dl_disk *disk, const dl_disk_options *options, tr_error *error) {
  *disk = (dl_disk){.allocator = options->allocator,
                    .clock = options->clock,
                    .log = options->log,
                    .dir = options->dir,
                    .wanted = options->wanted,
                    .self = options->self,
                    .folder = -1,
                    .usage = -1};
  pthread_mutex_init(&disk->lock, NULL);
  tr_status status = make_folders(options->dir, error);
  if (status == TR_OK && getrandom(&disk->nonce, sizeof disk->nonce, 0) != (ssize_t)sizeof disk->nonce)
    status = tr_fail_errno(error, TR_ERR_UNAVAILABLE, errno, "cache: random bytes");
  if (status == TR_OK) {
    disk->folder = open(options->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (disk->folder >= 0)
      disk->usage = openat(disk->folder, ".trainrun-cache", O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (disk->usage < 0)
      status = tr_fail_errno(error, tr_status_from_errno(errno), errno, "cache: the folder %s cannot be written to",
                             options->dir);
  }
  if (status == TR_OK) status = find_limit(disk, options->limit_bytes, error);
  if (status != TR_OK) dl_disk_close(disk);
  return status;
}

void dl_disk_close(dl_disk *disk) {
  if (disk->usage >= 0) close(disk->usage);
  if (disk->folder >= 0) close(disk->folder);
  disk->usage = disk->folder = -1;
  pthread_mutex_destroy(&disk->lock);
}

bool dl_disk_takes(dl_disk *disk) {
  if (atomic_load_explicit(&disk->write_off, memory_order_relaxed)) return false;
  const uint64_t full_until = atomic_load_explicit(&disk->full_until, memory_order_relaxed);
  return full_until == 0 || tr_clock_now_ns(disk->clock) >= full_until;
}

void dl_disk_reconsider(dl_disk *disk) { atomic_store(&disk->full_until, 0); }

/* ---- Reading ----------------------------------------------------------------------------------------------------- */

static bool read_all(int fd, uint64_t offset, uint8_t *to, size_t bytes) {
  while (bytes > 0) {
    const ssize_t got = pread(fd, to, bytes, (off_t)offset);
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) return false;
    to += got;
    offset += (uint64_t)got;
    bytes -= (size_t)got;
  }
  return true;
}

static bool read_blocks(void *self, uint32_t offset, uint8_t *to, uint32_t bytes) {
  return read_all(*(const int *)self, DL_CACHE_HEADER_BYTES + (uint64_t)offset, to, bytes);
}

static bool read_file(int fd, const struct stat *st, const dl_cache_object *object, uint64_t number, uint32_t begin,
                      uint32_t bytes, uint8_t *to, dl_cache_chunk *chunk) {
  uint8_t header[DL_CACHE_HEADER_BYTES];
  if (!S_ISREG(st->st_mode) || !read_all(fd, 0, header, sizeof header) ||
      !dl_cache_header_read(header, object, number, chunk) ||
      (uint64_t)st->st_size != DL_CACHE_HEADER_BYTES + (uint64_t)chunk->bytes) {
    return false;
  }
  if (begin >= chunk->bytes) return true;
  const uint32_t there = chunk->bytes - begin;
  return dl_cache_chunk_take(chunk, begin, bytes < there ? bytes : there, to, read_blocks, &fd);
}

dl_disk_result dl_disk_read(dl_disk *disk, const dl_cache_object *object, uint64_t number, uint32_t begin,
                            uint32_t bytes, uint8_t *to, dl_cache_chunk *chunk) {
  char name[DL_CACHE_NAME_BYTES];
  struct stat st;
  dl_cache_file_name(object->hash, number, name);
  const int fd = openat(disk->folder, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
  if (fd < 0) return DL_DISK_MISS;
  const bool good = fstat(fd, &st) == 0 && read_file(fd, &st, object, number, begin, bytes, to, chunk);
  if (good && tr_clock_wall_ns(disk->clock) / 1000000000 - st.st_mtim.tv_sec > TOUCH_S) futimens(fd, NULL);
  close(fd);
  if (good) return DL_DISK_HIT;
  tr_logf(disk->log, TR_LOG_WARNING, "cache: %s/%s is damaged: removed, and fetched again", disk->dir, name);
  dl_disk_drop(disk, object, number);
  return DL_DISK_DAMAGED;
}

void dl_disk_drop(dl_disk *disk, const dl_cache_object *object, uint64_t number) {
  char name[DL_CACHE_NAME_BYTES];
  struct stat st;
  dl_cache_file_name(object->hash, number, name);
  dl_usage_lock(disk);
  if (fstatat(disk->folder, name, &st, AT_SYMLINK_NOFOLLOW) == 0 && unlinkat(disk->folder, name, 0) == 0)
    dl_usage_remove(disk, (uint64_t)st.st_size);
  dl_usage_unlock(disk);
}

/* ---- Writing ----------------------------------------------------------------------------------------------------- */

typedef struct temporary {
  int fd;
  int failed; /* errno */
  uint64_t bytes;
  char name[DL_CACHE_NAME_BYTES];
} temporary;

/* Counted, then made in its full length and locked, all before anybody else may walk over the folder. False: no room, or
 * failed. */
static bool begin_file(dl_disk *disk, uint64_t bytes, temporary *made) {
  *made = (temporary){.fd = -1, .bytes = bytes};
  dl_usage_lock(disk);
  const bool room = dl_usage_add(disk, bytes);
  if (room) {
    snprintf(made->name, sizeof made->name, ".tmp-%016llx-%llu", (unsigned long long)disk->nonce,
             (unsigned long long)disk->temporary_count++);
    made->fd = openat(disk->folder, made->name, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (made->fd < 0 || flock(made->fd, LOCK_EX | LOCK_NB) != 0 || ftruncate(made->fd, (off_t)bytes) != 0) {
      made->failed = errno;
      if (made->fd >= 0) unlinkat(disk->folder, made->name, 0);
      if (made->fd >= 0) close(made->fd);
      made->fd = -1;
      dl_usage_remove(disk, bytes);
    }
  }
  dl_usage_unlock(disk);
  return made->fd >= 0;
}

static bool write_all(temporary *file, uint64_t offset, const uint8_t *from, size_t bytes) {
  while (bytes > 0) {
    const ssize_t put = pwrite(file->fd, from, bytes, (off_t)offset);
    if (put < 0 && errno == EINTR) continue;
    if (put <= 0) {
      file->failed = put < 0 ? errno : EIO;
      return false;
    }
    from += put;
    offset += (uint64_t)put;
    bytes -= (size_t)put;
  }
  return true;
}

/* Gives the file its name, where nobody else has put the same meanwhile. */
static void end_file(dl_disk *disk, temporary *file, const char *name, bool good) {
  char folder[3] = {name[0], name[1], '\0'};
  dl_usage_lock(disk);
  bool kept = false;
  if (good && faccessat(disk->folder, name, F_OK, AT_SYMLINK_NOFOLLOW) != 0) {
    mkdirat(disk->folder, folder, 0700);
    kept = renameat(disk->folder, file->name, disk->folder, name) == 0;
    if (!kept) file->failed = errno;
  }
  if (!kept) {
    unlinkat(disk->folder, file->name, 0);
    dl_usage_remove(disk, file->bytes);
  }
  dl_usage_unlock(disk);
  close(file->fd);
}

void dl_disk_write(dl_disk *disk, const dl_cache_object *object, uint64_t number, const dl_cache_chunk *chunk,
                   const uint8_t *data) {
  char name[DL_CACHE_NAME_BYTES];
  uint8_t header[DL_CACHE_HEADER_BYTES];
  temporary file;
  if (!dl_disk_takes(disk)) return;
  dl_cache_file_name(object->hash, number, name);
  if (begin_file(disk, DL_CACHE_HEADER_BYTES + (uint64_t)chunk->bytes, &file)) {
    dl_cache_header_write(object, number, chunk, header);
    const bool good = write_all(&file, 0, header, sizeof header) &&
                      write_all(&file, DL_CACHE_HEADER_BYTES, data, chunk->bytes);
    end_file(disk, &file, name, good);
  }
  if (file.failed == 0 || atomic_exchange(&disk->write_off, true)) return;
  tr_error error;
  tr_fail_errno(&error, TR_ERR_NO_SPACE, file.failed, "cache: writing to %s failed", disk->dir);
  tr_logf(disk->log, TR_LOG_WARNING, "%s; what is in it is used, nothing more is put into it", error.message);
}
