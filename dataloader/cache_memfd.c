/* The memfd of a node's cache: made, sealed, mapped, its pages allocated; see cache_table.h. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cache_process.h"
#include "cache_table.h"

#define TABLE_MAGIC 0x3165686361637274ull /* "trcache1" */
enum { TABLE_VERSION = 1, SLOTS_MAX = 1 << 24, ALIGNMENT = 2 << 20 };

/* Left to the host when slots get their pages: beyond it the kernel would rather kill a process than fail. */
static const uint64_t host_reserve_bytes = 256ull << 20;

typedef struct layout {
  uint32_t slots, buckets;
  size_t buckets_at, entries_at, slots_at, bytes;
} layout;

static layout layout_of(uint32_t kept, uint32_t transit) {
  layout l = {.slots = kept + transit, .buckets = 16};
  while (l.buckets < l.slots) l.buckets *= 2;
  l.buckets_at = sizeof(dl_table_head);
  l.entries_at = (l.buckets_at + l.buckets * sizeof(uint32_t) + TR_CACHE_LINE - 1) / TR_CACHE_LINE * TR_CACHE_LINE;
  l.slots_at = (l.entries_at + l.slots * sizeof(dl_entry) + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
  l.bytes = l.slots_at + (size_t)l.slots * DL_CACHE_CHUNK_BYTES;
  return l;
}

static bool allocate_pages(int descriptor, uint64_t offset, uint64_t bytes, int *failed) {
  do *failed = fallocate(descriptor, 0, (off_t)offset, (off_t)bytes) != 0 ? errno : 0;
  while (*failed == EINTR);
  return *failed == 0;
}

static tr_status init_lock(pthread_mutex_t *lock, tr_error *error) {
  pthread_mutexattr_t attributes;
  int code = pthread_mutexattr_init(&attributes);
  if (code == 0) code = pthread_mutexattr_setpshared(&attributes, PTHREAD_PROCESS_SHARED);
  if (code == 0) code = pthread_mutexattr_setrobust(&attributes, PTHREAD_MUTEX_ROBUST);
  if (code == 0) code = pthread_mutex_init(lock, &attributes);
  if (code != 0) return tr_fail_errno(error, TR_ERR_UNAVAILABLE, code, "cache: a lock that processes share");
  return TR_OK;
}

static tr_status fill_head(int descriptor, uint32_t kept, uint32_t transit, uint64_t *nonce, tr_error *error) {
  const layout l = layout_of(kept, transit);
  char *base = mmap(NULL, l.slots_at, PROT_READ | PROT_WRITE, MAP_SHARED, descriptor, 0);
  if (base == MAP_FAILED) return tr_fail_errno(error, TR_ERR_NO_MEMORY, errno, "cache: mapping the shared table");
  dl_table_head *head = (dl_table_head *)base;
  *head = (dl_table_head){.version = TABLE_VERSION,
                          .slot_bytes = DL_CACHE_CHUNK_BYTES,
                          .kept = kept,
                          .transit = transit,
                          .bucket_count = l.buckets};
  tr_status status = init_lock(&head->lock, error);
  if (status == TR_OK && getrandom(&head->nonce, sizeof head->nonce, 0) != (ssize_t)sizeof head->nonce)
    status = tr_fail_errno(error, TR_ERR_UNAVAILABLE, errno, "cache: random bytes");
  /* Slots with the lowest numbers are used first. */
  dl_entry *entries = (dl_entry *)(base + l.entries_at);
  for (uint32_t slot = kept; slot > 0; slot--) {
    entries[slot - 1].next = head->free_kept;
    head->free_kept = slot;
  }
  *nonce = head->nonce;
  head->magic = TABLE_MAGIC;
  munmap(base, l.slots_at);
  return status;
}

tr_status dl_table_create(uint32_t kept, uint32_t transit, int *descriptor, uint64_t *nonce, tr_error *error) {
  if (kept > SLOTS_MAX || transit > SLOTS_MAX || kept + transit == 0)
    return tr_fail(error, TR_ERR_INVALID, "cache: a table of %u and %u slots", kept, transit);
  const layout l = layout_of(kept, transit);
  struct rlimit limit;
  /* Beyond this limit the kernel sends a signal instead of an error. */
  if (getrlimit(RLIMIT_FSIZE, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY && limit.rlim_cur < l.bytes)
    return tr_fail(error, TR_ERR_UNAVAILABLE,
                   "cache: the file size limit (ulimit -f) forbids shared memory: remove it");
  const int fd = memfd_create("trainrun-cache", MFD_CLOEXEC | MFD_ALLOW_SEALING);
  if (fd < 0) return tr_fail_errno(error, TR_ERR_UNAVAILABLE, errno, "cache: memfd_create");
  tr_status status = TR_OK;
  int failed;
  if (ftruncate(fd, (off_t)l.bytes) != 0 || fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) != 0) {
    status = tr_fail_errno(error, TR_ERR_NO_MEMORY, errno, "cache: a shared file of %zu MiB", l.bytes >> 20);
  } else if (!allocate_pages(fd, 0, l.slots_at, &failed)) {
    status = tr_fail_errno(error, TR_ERR_NO_MEMORY, failed, "cache: no pages for the shared table");
  } else {
    status = fill_head(fd, kept, transit, nonce, error);
  }
  if (status != TR_OK) {
    close(fd);
    return status;
  }
  *descriptor = fd;
  return TR_OK;
}

/* Checks that it is a table, and as large as it says. */
static tr_status check_head(int descriptor, uint64_t nonce, layout *l, tr_error *error) {
  struct stat st;
  if (fstat(descriptor, &st) != 0 || st.st_size < (off_t)sizeof(dl_table_head))
    return tr_fail(error, TR_ERR_INVALID, "cache: descriptor %d is no shared table", descriptor);
  const dl_table_head *head = mmap(NULL, sizeof *head, PROT_READ, MAP_SHARED, descriptor, 0);
  if (head == MAP_FAILED) return tr_fail_errno(error, TR_ERR_NO_MEMORY, errno, "cache: mapping the shared table");
  const uint32_t kept = head->kept, transit = head->transit;
  bool good = head->magic == TABLE_MAGIC && head->version == TABLE_VERSION && head->nonce == nonce &&
              head->slot_bytes == DL_CACHE_CHUNK_BYTES && kept <= SLOTS_MAX && transit <= SLOTS_MAX;
  if (good) {
    *l = layout_of(kept, transit);
    good = head->bucket_count == l->buckets && (uint64_t)st.st_size == l->bytes;
  }
  munmap((void *)(uintptr_t)head, sizeof *head);
  return good ? TR_OK
              : tr_fail(error, TR_ERR_INVALID, "cache: descriptor %d is no shared table of this version", descriptor);
}

tr_status dl_table_open(dl_table *table, const tr_allocator *allocator, int descriptor, uint64_t nonce,
                        tr_error *error) {
  layout l;
  TR_TRY(check_head(descriptor, nonce, &l, error));
  *table = (dl_table){.allocator = allocator, .slot_count = l.slots, .descriptor = -1, .pid = (int32_t)getpid()};
  table->start = dl_process_start(table->pid);
  table->descriptor = fcntl(descriptor, F_DUPFD_CLOEXEC, 0);
  table->pins = tr_calloc(allocator, l.slots, sizeof *table->pins);
  char *base = mmap(NULL, l.bytes, PROT_READ | PROT_WRITE, MAP_SHARED, descriptor, 0);
  const int failed = errno;
  if (base != MAP_FAILED) {
    table->mapped_bytes = l.bytes;
    table->head = (dl_table_head *)base;
    table->buckets = (uint32_t *)(base + l.buckets_at);
    table->entries = (dl_entry *)(base + l.entries_at);
    table->slots = (uint8_t *)base + l.slots_at;
  }
  if (base != MAP_FAILED && table->pins != NULL && table->descriptor >= 0) return TR_OK;
  const tr_status status = table->pins == NULL
                               ? tr_fail_memory(error, "the cache's pins", l.slots * sizeof *table->pins)
                               : tr_fail_errno(error, TR_ERR_NO_MEMORY, failed, "cache: mapping %zu MiB",
                                               l.bytes >> 20);
  dl_table_close(table);
  return status;
}

void dl_table_close(dl_table *table) {
  if (table->head != NULL) munmap(table->head, table->mapped_bytes);
  if (table->descriptor >= 0) close(table->descriptor);
  tr_free(table->allocator, table->pins);
  *table = (dl_table){.descriptor = -1};
}

/* ---- Pages ------------------------------------------------------------------------------------------------------- */

uint64_t dl_table_host_bytes(void) {
  const int fd = open("/proc/meminfo", O_RDONLY | O_CLOEXEC);
  if (fd < 0) return UINT64_MAX;
  char text[1024];
  const ssize_t n = read(fd, text, sizeof text - 1);
  close(fd);
  if (n <= 0) return UINT64_MAX;
  text[n] = '\0';
  const char *line = strstr(text, "MemAvailable:");
  if (line == NULL) return UINT64_MAX;
  const uint64_t bytes = strtoull(line + strlen("MemAvailable:"), NULL, 10) * 1024;
  return bytes > host_reserve_bytes ? bytes - host_reserve_bytes : 0;
}

bool dl_table_back(dl_table *table, uint32_t slot) {
  /* Only the owner of a claim reads or writes this. */
  dl_entry *entry = &table->entries[slot];
  if (entry->has_pages) return true;
  const uint64_t offset = (uint64_t)(dl_table_slot(table, slot) - (uint8_t *)table->head);
  int failed;
  if (dl_table_host_bytes() < DL_CACHE_CHUNK_BYTES ||
      !allocate_pages(table->descriptor, offset, DL_CACHE_CHUNK_BYTES, &failed)) {
    return false;
  }
  entry->has_pages = true;
  /* All page faults at once cost less; where the kernel does not know how, they come one by one. */
  (void)madvise(dl_table_slot(table, slot), DL_CACHE_CHUNK_BYTES, MADV_POPULATE_WRITE);
  return true;
}
