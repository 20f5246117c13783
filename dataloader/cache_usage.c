/* What is in the cache's folder, and what goes when it is full: see cache_disk.h.
 *
 * The count stands in `.trainrun-cache` (docs/formats.md), whose lock makes one process at a time change the folder. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <trainrun/bytes.h>
#include <trainrun/crc32c.h>
#include <unistd.h>

#include "cache_disk.h"

#define USAGE_MAGIC "trusage1"
enum { USAGE_BYTES = 24, VICTIMS_MAX = 4096 };
/* How long a folder with nothing to evict is not walked again: others may take something out meanwhile. */
static const uint64_t full_ns = 60ull * 1000000000;

typedef struct victim {
  char name[DL_CACHE_NAME_BYTES];
  int64_t used_ns;
  uint64_t bytes;
} victim;

typedef struct walk {
  dl_disk *disk;
  uint64_t bytes; /* of all entries */
  victim *victims;
  size_t count; /* up to twice VICTIMS_MAX while walking */
} walk;

/* ---- The walk ---------------------------------------------------------------------------------------------------- */

static int by_use(const void *a, const void *b) {
  const int64_t x = ((const victim *)a)->used_ns, y = ((const victim *)b)->used_ns;
  return x < y ? -1 : x > y;
}

static void keep_oldest(walk *w) {
  if (w->count > 0) qsort(w->victims, w->count, sizeof *w->victims, by_use);
  if (w->count > VICTIMS_MAX) w->count = VICTIMS_MAX;
}

static void visit_entry(walk *w, int folder, const char *folder_name, const char *name) {
  uint64_t hash[2];
  struct stat st;
  if (!dl_cache_file_parse(folder_name, name, hash) || fstatat(folder, name, &st, AT_SYMLINK_NOFOLLOW) != 0 ||
      !S_ISREG(st.st_mode)) {
    return;
  }
  w->bytes += (uint64_t)st.st_size;
  if (w->victims == NULL || w->disk->wanted(w->disk->self, hash)) return;
  victim *v = &w->victims[w->count++];
  *v = (victim){.used_ns = (int64_t)st.st_mtim.tv_sec * 1000000000 + st.st_mtim.tv_nsec, .bytes = (uint64_t)st.st_size};
  memcpy(v->name, folder_name, 2);
  v->name[2] = '/';
  strcpy(v->name + 3, name);
  if (w->count == 2 * VICTIMS_MAX) keep_oldest(w);
}

/* A file being written is locked by its writer; one that is not was left by a kill. */
static void visit_temporary(walk *w, int folder, const char *name) {
  struct stat st;
  const int fd = openat(folder, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
  if (fd < 0) return;
  if (flock(fd, LOCK_EX | LOCK_NB) == 0) {
    unlinkat(folder, name, 0);
  } else if (fstat(fd, &st) == 0) {
    w->bytes += (uint64_t)st.st_size;
  }
  close(fd);
}

static DIR *open_folder(int at, const char *name) {
  const int fd = openat(at, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
  DIR *folder = fd >= 0 ? fdopendir(fd) : NULL;
  if (folder == NULL && fd >= 0) close(fd);
  return folder;
}

static void walk_folder(walk *w, int at, const char *name) {
  DIR *folder = open_folder(at, name);
  if (folder == NULL) return;
  const struct dirent *entry;
  while ((entry = readdir(folder)) != NULL) visit_entry(w, dirfd(folder), name, entry->d_name);
  closedir(folder);
}

static void walk_all(walk *w) {
  DIR *folder = open_folder(w->disk->folder, ".");
  if (folder == NULL) return;
  const struct dirent *entry;
  while ((entry = readdir(folder)) != NULL) {
    if (strncmp(entry->d_name, ".tmp-", 5) == 0) {
      visit_temporary(w, dirfd(folder), entry->d_name);
    } else if (strlen(entry->d_name) == 2 && strspn(entry->d_name, "0123456789abcdef") == 2) {
      walk_folder(w, dirfd(folder), entry->d_name);
    }
  }
  closedir(folder);
  keep_oldest(w);
}

/* ---- The count --------------------------------------------------------------------------------------------------- */

static void store(dl_disk *disk, uint64_t bytes) {
  uint8_t record[USAGE_BYTES] = USAGE_MAGIC;
  for (int i = 0; i < 8; i++) record[8 + i] = (uint8_t)(bytes >> (8 * i));
  const uint32_t crc = tr_crc32c(0, record, 16);
  for (int i = 0; i < 4; i++) record[16 + i] = (uint8_t)(crc >> (8 * i));
  /* Where this fails the count is found to be damaged, or too high, and made anew. */
  if (pwrite(disk->usage, record, sizeof record, 0) != (ssize_t)sizeof record) (void)!ftruncate(disk->usage, 0);
}

uint64_t dl_usage_bytes(dl_disk *disk) {
  uint8_t record[USAGE_BYTES];
  if (pread(disk->usage, record, sizeof record, 0) == (ssize_t)sizeof record) {
    tr_reader reader = tr_reader_of(record + 8, sizeof record - 8);
    const uint64_t bytes = tr_read_u64le(&reader);
    if (memcmp(record, USAGE_MAGIC, 8) == 0 && tr_read_u32le(&reader) == tr_crc32c(0, record, 16)) return bytes;
  }
  walk w = {.disk = disk};
  walk_all(&w);
  store(disk, w.bytes);
  return w.bytes;
}

void dl_usage_remove(dl_disk *disk, uint64_t bytes) {
  const uint64_t used = dl_usage_bytes(disk);
  store(disk, bytes < used ? used - bytes : 0);
}

/* Takes entries out until `bytes` more fit, and a little beyond, so that the next ones do not walk again. */
static uint64_t evict(dl_disk *disk, uint64_t bytes) {
  walk w = {.disk = disk, .victims = tr_alloc(disk->allocator, 2 * VICTIMS_MAX * sizeof *w.victims)};
  walk_all(&w);
  const uint64_t spare = disk->limit_bytes / 64;
  uint64_t gone = 0;
  for (size_t i = 0; i < w.count && w.bytes - gone + bytes + spare > disk->limit_bytes; i++) {
    if (unlinkat(disk->folder, w.victims[i].name, 0) == 0) gone += w.victims[i].bytes;
  }
  tr_free(disk->allocator, w.victims);
  atomic_fetch_add_explicit(&disk->evicted_bytes, gone, memory_order_relaxed);
  store(disk, w.bytes - gone);
  return w.bytes - gone;
}

bool dl_usage_add(dl_disk *disk, uint64_t bytes) {
  uint64_t used = dl_usage_bytes(disk);
  if (bytes > disk->limit_bytes || used > disk->limit_bytes - bytes) used = evict(disk, bytes);
  if (bytes > disk->limit_bytes || used > disk->limit_bytes - bytes) {
    atomic_store(&disk->full_until, tr_clock_now_ns(disk->clock) + full_ns);
    return false;
  }
  store(disk, used + bytes);
  return true;
}

/* The lock of the file keeps other processes out, but not other threads of this one. */
void dl_usage_lock(dl_disk *disk) {
  pthread_mutex_lock(&disk->lock);
  while (flock(disk->usage, LOCK_EX) != 0 && errno == EINTR) continue;
}

void dl_usage_unlock(dl_disk *disk) {
  flock(disk->usage, LOCK_UN);
  pthread_mutex_unlock(&disk->lock);
}
