/* Writing a file so that it is there whole and durable, or not at all.
 *
 * The bytes go to a file without a name (O_TMPFILE), which the kernel forgets when the process is killed; where that
 * cannot be had, to a temporary name. After fsync a link or rename makes it visible in one step, and fsync of the folder
 * makes that durable. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "file_private.h"

enum { NAME_ATTEMPTS = 1000, FOLDER_ATTEMPTS = 100, CALL_BYTES = 1 << 30, DIRECT_ALIGN = 4096, DIRECT_BYTES = 1 << 20 };

/* Whether a call may have failed because its folder was being removed: worth making the folder again. Overlay and network
 * file systems say it in other words than ENOENT. */
static bool folder_vanished(int code) { return code == ENOENT || code == ESTALE || code == EPERM; }

static tr_status fail(tr_error *error, int code, const char *what, const char *path) {
  return tr_fail_errno(error, tr_status_from_errno(code), code, "%s %s", what, path);
}

/* A folder that is gone holds nothing to be made durable: another process deleted what was in it. */
static tr_status sync_folder(const char *folder, tr_error *error) {
  const int fd = open(folder[0] != '\0' ? folder : "/", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0 && errno == ENOENT) return TR_OK;
  if (fd < 0) return fail(error, errno, "opening the folder", folder);
  /* Some file systems cannot sync a folder and say EINVAL; they have nothing more to promise. */
  const int code = fsync(fd) == 0 || errno == EINVAL ? 0 : errno;
  close(fd);
  return code == 0 ? TR_OK : fail(error, code, "fsync of the folder", folder);
}

/* The folder of path, "" for one in "/". */
static void parent_of(const char *path, char parent[PATH_MAX]) {
  const size_t length = (size_t)(strrchr(path, '/') - path);
  memcpy(parent, path, length);
  parent[length] = '\0';
}

static bool is_folder(const char *path) {
  struct stat found;
  return stat(path, &found) == 0 && S_ISDIR(found.st_mode);
}

/* mkdir -p of the target's folder. Nothing is synced yet: the commit does it, when the folders can no longer vanish. */
static tr_status make_folders(new_file *file, const char *folder, tr_error *error) {
  char prefix[PATH_MAX];
  for (const char *slash = strchr(folder + 1, '/');; slash = strchr(slash + 1, '/')) {
    const size_t length = slash != NULL ? (size_t)(slash - folder) : strlen(folder);
    memcpy(prefix, folder, length);
    prefix[length] = '\0';
    if (mkdir(prefix, 0777) == 0) {
      if (file->made_bytes == 0 || length < file->made_bytes) file->made_bytes = length;
    } else {
      const int code = errno;
      /* ENOENT: a folder above was removed meanwhile; the caller begins again. */
      if (code == ENOENT) return TR_OK;
      if (!is_folder(prefix)) {
        if (code == EEXIST && access(prefix, F_OK) != 0) return TR_OK; /* removed meanwhile */
        return fail(error, code == EEXIST ? ENOTDIR : code, "making the folder", prefix);
      }
    }
    if (slash == NULL) return TR_OK;
  }
}

/* The folder of the target, and the parents of those that were made for it. */
static tr_status sync_folders(const new_file *file, const char *folder, tr_error *error) {
  TR_TRY(sync_folder(folder, error));
  if (file->made_bytes == 0) return TR_OK;
  char path[PATH_MAX], parent[PATH_MAX];
  memcpy(path, folder, strlen(folder) + 1);
  while (strlen(path) >= file->made_bytes) {
    parent_of(path, parent);
    TR_TRY(sync_folder(parent, error));
    memcpy(path, parent, sizeof path);
  }
  return TR_OK;
}

/* Opens a new file under a temporary name; -1 and errno where it cannot. With `source` >= 0 gives that nameless file the
 * name instead and returns 0. */
static int name_file(file_store *store, const char *folder, int source, char name[PATH_MAX]) {
  for (int attempt = 0; attempt < NAME_ATTEMPTS; attempt++) {
    const unsigned long long number = atomic_fetch_add_explicit(&store->temporaries, 1, memory_order_relaxed);
    const int length = snprintf(name, PATH_MAX, "%s/" TMP_PREFIX "%ld-%llu", folder, (long)getpid(), number);
    if (length < 0 || length >= PATH_MAX) {
      errno = ENAMETOOLONG;
      return -1;
    }
    int result;
    if (source >= 0) {
      char link[64];
      snprintf(link, sizeof link, "/proc/self/fd/%d", source);
      result = linkat(AT_FDCWD, link, AT_FDCWD, name, AT_SYMLINK_FOLLOW);
    } else {
      result = open(name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    }
    /* A name that a killed process left is passed over. */
    if (result >= 0 || errno != EEXIST) return result;
  }
  errno = EEXIST;
  return -1;
}

/* -1 and errno: ENOENT when the folder is not there. */
static int open_new(file_store *store, const char *folder, new_file *file) {
  file->name[0] = '\0';
  const int fd = open(folder[0] != '\0' ? folder : "/", O_WRONLY | O_TMPFILE | O_CLOEXEC, 0666);
  /* Without /proc a nameless file could never get its name. */
  if (fd >= 0) {
    if (access("/proc/self/fd", F_OK) == 0) return fd;
    close(fd);
  } else if (errno != EOPNOTSUPP && errno != EISDIR && errno != EINVAL) {
    return -1;
  }
  return name_file(store, folder, -1, file->name);
}

tr_status store_file_begin(file_store *store, const char *key, new_file *file, tr_error *error) {
  TR_TRY(store_file_path(store, key, file->path, error));
  char folder[PATH_MAX];
  parent_of(file->path, folder);
  file->made_bytes = 0;
  file->direct = -1;
  int code = ENOENT;
  /* A folder may be emptied and removed by someone else between its making and the opening of a file in it. */
  for (int attempt = 0; attempt < FOLDER_ATTEMPTS && folder_vanished(code); attempt++) {
    if (attempt > 0) TR_TRY(make_folders(file, folder, error));
    file->fd = open_new(store, folder, file);
    if (file->fd >= 0) return TR_OK;
    code = errno;
  }
  return fail(error, code, "creating", file->path);
}

void store_file_open_direct(new_file *file) {
  char link[64];
  snprintf(link, sizeof link, "/proc/self/fd/%d", file->fd);
  file->direct = open(link, O_WRONLY | O_DIRECT | O_CLOEXEC);
}

/* Writes until all is written or a call fails; the number of bytes written, and errno in *code (0: none). */
static size_t write_all(int fd, const char *data, size_t bytes, uint64_t offset, int *code) {
  size_t done = 0;
  *code = 0;
  while (done < bytes && *code == 0) {
    const size_t left = bytes - done;
    const ssize_t written = pwrite(fd, data + done, left < CALL_BYTES ? left : CALL_BYTES, (off_t)(offset + done));
    if (written > 0) {
      done += (size_t)written;
    } else if (written == 0 || errno != EINTR) {
      *code = written < 0 ? errno : EIO;
    }
  }
  return done;
}

tr_status store_file_write(new_file *file, const void *data, size_t bytes, uint64_t offset, tr_error *error) {
  const char *at = data;
  int code = 0;
  size_t done = 0;
  if (file->direct >= 0 && bytes >= DIRECT_BYTES && (uintptr_t)at % DIRECT_ALIGN == 0 && offset % DIRECT_ALIGN == 0) {
    done = write_all(file->direct, at, bytes / DIRECT_ALIGN * DIRECT_ALIGN, offset, &code);
    /* A file system that takes the flag and then not the write: the ordinary way is left. */
    if (code == EINVAL) code = 0;
  }
  if (code == 0) done += write_all(file->fd, at + done, bytes - done, offset + done, &code);
  if (code == 0) return TR_OK;
  return tr_fail_errno(error, tr_status_from_errno(code), code, "writing %s at byte %llu", file->path,
                       (unsigned long long)(offset + done));
}

/* 0 or errno. */
static int publish_if_absent(new_file *file) {
  if (file->name[0] == '\0') {
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", file->fd);
    return linkat(AT_FDCWD, link, AT_FDCWD, file->path, AT_SYMLINK_FOLLOW) == 0 ? 0 : errno;
  }
  if (renameat2(AT_FDCWD, file->name, AT_FDCWD, file->path, RENAME_NOREPLACE) == 0) {
    file->name[0] = '\0';
    return 0;
  }
  if (errno != EINVAL && errno != ENOSYS) return errno;
  /* Not every file system knows RENAME_NOREPLACE; a hard link never replaces either. */
  return link(file->name, file->path) == 0 ? 0 : errno;
}

/* 0 or errno. */
static int publish_over(file_store *store, const char *folder, new_file *file) {
  if (file->name[0] == '\0' && name_file(store, folder, file->fd, file->name) < 0) {
    const int code = errno;
    file->name[0] = '\0';
    return code;
  }
  if (rename(file->name, file->path) != 0) return errno;
  file->name[0] = '\0';
  return 0;
}

static tr_status publish(file_store *store, const char *folder, new_file *file, bool if_absent, tr_error *error) {
  int code = ENOENT;
  /* A nameless file does not keep its folder from being removed by a delete: then the folder is made again. */
  for (int attempt = 0; attempt < FOLDER_ATTEMPTS && folder_vanished(code); attempt++) {
    if (attempt > 0) TR_TRY(make_folders(file, folder, error));
    code = if_absent ? publish_if_absent(file) : publish_over(store, folder, file);
  }
  if (code == EEXIST) return tr_fail(error, TR_ERR_EXISTS, "%s is already there", file->path);
  if (code != 0) return fail(error, code, "giving the new file its name,", file->path);
  return TR_OK;
}

tr_status store_file_commit(file_store *store, new_file *file, bool if_absent, tr_object_info *info, tr_error *error) {
  char folder[PATH_MAX];
  parent_of(file->path, folder);
  tr_status status = TR_OK;
  struct stat written;
  if (fsync(file->fd) != 0) {
    status = fail(error, errno, "fsync of", file->path);
  } else if (fstat(file->fd, &written) != 0) {
    status = fail(error, errno, "fstat of", file->path);
  }
  if (status == TR_OK) status = publish(store, folder, file, if_absent, error);
  if (status == TR_OK) status = sync_folders(file, folder, error);
  store_file_abort(file);
  if (status == TR_OK && info != NULL) store_file_info(&written, info);
  return status;
}

void store_file_abort(new_file *file) {
  if (file->name[0] != '\0') unlink(file->name);
  if (file->direct >= 0) close(file->direct);
  close(file->fd);
}

tr_status store_file_delete(const file_store *store, const char *key, tr_error *error) {
  char path[PATH_MAX], folder[PATH_MAX];
  TR_TRY(store_file_path(store, key, path, error));
  parent_of(path, folder);
  if (unlink(path) != 0) {
    if (errno == ENOENT || errno == ENOTDIR) return TR_OK;
    return fail(error, errno, "deleting", path);
  }
  /* An object store has no folders: one that is left empty goes, like the last key below a prefix. Never the root. */
  if (strlen(folder) > store->root_bytes && rmdir(folder) == 0) return TR_OK;
  return sync_folder(folder, error);
}
