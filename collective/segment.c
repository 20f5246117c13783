/* The memfd of a host: made, opened, mapped, its homes claimed and freed. */
#include "segment.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#define SEG_MAGIC 0x3167657372747274ull /* "trtrseg1" */
enum { SEG_VERSION = 1 };

static size_t round_up(size_t bytes, size_t step) { return (bytes + step - 1) / step * step; }

static size_t homes_offset(void) { return round_up(sizeof(seg_head), TR_CACHE_LINE); }
static size_t ranks_offset(int32_t capacity) {
  return homes_offset() + round_up((size_t)seg_home_count(capacity) * sizeof(uint64_t), TR_CACHE_LINE);
}
static size_t beacons_offset(int32_t capacity) {
  return ranks_offset(capacity) + round_up((size_t)capacity * sizeof(uint64_t), TR_CACHE_LINE);
}

size_t seg_head_bytes(int32_t capacity) {
  return round_up(beacons_offset(capacity) + (size_t)capacity * sizeof(tr_beacon), SEG_PAGE);
}

_Atomic uint64_t *seg_homes(seg_head *head) { return (_Atomic uint64_t *)((char *)head + homes_offset()); }
_Atomic uint64_t *seg_ranks(seg_head *head) {
  return (_Atomic uint64_t *)((char *)head + ranks_offset(head->capacity));
}
tr_beacon *seg_beacons(seg_head *head) { return (tr_beacon *)((char *)head + beacons_offset(head->capacity)); }

/* Bytes the host could still give without killing anybody; UINT64_MAX where it does not say. */
static uint64_t memory_available(void) {
  const int fd = open("/proc/meminfo", O_RDONLY | O_CLOEXEC);
  if (fd < 0) return UINT64_MAX;
  char text[1024];
  const ssize_t n = read(fd, text, sizeof text - 1);
  close(fd);
  if (n <= 0) return UINT64_MAX;
  text[n] = '\0';
  const char *line = strstr(text, "MemAvailable:");
  return line != NULL ? strtoull(line + strlen("MemAvailable:"), NULL, 10) * 1024 : UINT64_MAX;
}

/* A memfd has no size limit of its own: the kernel would rather kill a process than fail. So ask first. */
tr_status seg_pages_check(uint64_t bytes, tr_error *error) {
  const uint64_t available = memory_available();
  if (bytes > available)
    return tr_fail(error, TR_ERR_NO_MEMORY, "shared memory: %llu MiB wanted, the host has %llu MiB left",
                   (unsigned long long)(bytes >> 20), (unsigned long long)(available >> 20));
  return TR_OK;
}

tr_status seg_pages_allocate(int descriptor, uint64_t offset, uint64_t bytes, tr_error *error) {
  int failed;
  do failed = fallocate(descriptor, 0, (off_t)offset, (off_t)bytes) != 0 ? errno : 0;
  while (failed == EINTR);
  if (failed != 0)
    return tr_fail_errno(error, TR_ERR_NO_MEMORY, failed, "shared memory: no pages for %llu bytes",
                         (unsigned long long)bytes);
  return TR_OK;
}

tr_status tr_comm_segment_create(int32_t size, int *descriptor, tr_error *error) {
  if (size < 1 || size > SEG_CAPACITY_MAX)
    return tr_fail(error, TR_ERR_INVALID, "a segment is for 1 to %d ranks, not %d", SEG_CAPACITY_MAX, size);
  const uint64_t length = ((uint64_t)seg_home_count(size) + 1) << SEG_HOME_SHIFT;
  struct rlimit limit;
  /* Beyond this limit the kernel sends a signal instead of an error. */
  if (getrlimit(RLIMIT_FSIZE, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY && limit.rlim_cur < length)
    return tr_fail(error, TR_ERR_UNAVAILABLE, "the file size limit (ulimit -f) forbids shared memory: remove it");
  const int fd = memfd_create("trainrun-segment", MFD_CLOEXEC);
  if (fd < 0) return tr_fail_errno(error, TR_ERR_UNAVAILABLE, errno, "shared memory: memfd_create");
  tr_status status = TR_OK;
  const size_t head_bytes = seg_head_bytes(size);
  if (ftruncate(fd, (off_t)length) != 0)
    status = tr_fail_errno(error, TR_ERR_NO_MEMORY, errno, "shared memory: a sparse file of %d ranks", size);
  if (status == TR_OK) status = seg_pages_allocate(fd, 0, head_bytes, error);
  if (status != TR_OK) goto err_close;
  seg_head *head = mmap(NULL, head_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  if (head == MAP_FAILED) {
    status = tr_fail_errno(error, TR_ERR_NO_MEMORY, errno, "shared memory: mapping the head of a segment");
    goto err_close;
  }
  head->magic = SEG_MAGIC;
  head->version = SEG_VERSION;
  head->capacity = size;
  for (int32_t r = 0; r < size; r++) seg_beacons(head)[r].waits_for = -1;
  munmap(head, head_bytes);
  *descriptor = fd;
  return TR_OK;

err_close:
  close(fd);
  return status;
}

/* Maps the head of a segment that somebody else made; checks that it is one, and large enough for what it says. */
static tr_status map_head(int descriptor, seg_head **out, tr_error *error) {
  struct stat st;
  if (fstat(descriptor, &st) != 0)
    return tr_fail_errno(error, TR_ERR_INVALID, errno, "descriptor %d is no segment", descriptor);
  if (st.st_size < SEG_PAGE) return tr_fail(error, TR_ERR_INVALID, "descriptor %d is no segment", descriptor);
  seg_head *head = mmap(NULL, SEG_PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, descriptor, 0);
  if (head == MAP_FAILED) return tr_fail_errno(error, TR_ERR_INVALID, errno, "descriptor %d is no segment", descriptor);
  const int32_t capacity = head->capacity;
  const bool good = head->magic == SEG_MAGIC && head->version == SEG_VERSION && capacity >= 1 &&
                    capacity <= SEG_CAPACITY_MAX &&
                    (uint64_t)st.st_size >= ((uint64_t)seg_home_count(capacity) + 1) << SEG_HOME_SHIFT;
  munmap(head, SEG_PAGE);
  if (!good) return tr_fail(error, TR_ERR_INVALID, "descriptor %d is no segment of this version", descriptor);
  head = mmap(NULL, seg_head_bytes(capacity), PROT_READ | PROT_WRITE, MAP_SHARED, descriptor, 0);
  if (head == MAP_FAILED) return tr_fail_errno(error, TR_ERR_NO_MEMORY, errno, "mapping the head of a segment");
  *out = head;
  return TR_OK;
}

tr_status tr_comm_segment_map(int descriptor, int32_t size, tr_board *board, tr_error *error) {
  seg_head *head = NULL;
  TR_TRY(map_head(descriptor, &head, error));
  if (size < 1 || size > head->capacity) {
    const int32_t capacity = head->capacity;
    munmap(head, seg_head_bytes(capacity));
    return tr_fail(error, TR_ERR_INVALID, "a segment for %d ranks has no board of %d", capacity, size);
  }
  *board = (tr_board){seg_beacons(head), (uint32_t *)&head->stop, (uint32_t *)&head->abort, size};
  return TR_OK;
}

void tr_comm_segment_unmap(tr_board *board) {
  if (board->stop == NULL) return;
  seg_head *head = (seg_head *)((char *)board->stop - offsetof(seg_head, stop));
  munmap(head, seg_head_bytes(head->capacity));
  *board = (tr_board){0};
}

tr_status seg_view_open(seg_view *view, const tr_allocator *allocator, int descriptor, tr_error *error) {
  *view = (seg_view){.allocator = allocator, .descriptor = -1, .home = -1};
  const int fd = fcntl(descriptor, F_DUPFD_CLOEXEC, 0);
  if (fd < 0) return tr_fail_errno(error, TR_ERR_INVALID, errno, "descriptor %d of a segment", descriptor);
  view->descriptor = fd;
  tr_status status = map_head(fd, &view->head, error);
  if (status != TR_OK) goto err_close;
  view->capacity = view->head->capacity;
  const size_t homes = (size_t)seg_home_count(view->capacity);
  view->controls = tr_calloc(allocator, homes, sizeof *view->controls);
  view->heaps = tr_calloc(allocator, homes, sizeof *view->heaps);
  if (view->controls == NULL || view->heaps == NULL) {
    status = tr_fail_memory(error, "the view of a segment", homes * sizeof *view->heaps);
    goto err_close;
  }
  return TR_OK;

err_close:
  seg_view_close(view);
  return status;
}

void seg_view_close(seg_view *view) {
  const int32_t homes = view->head != NULL ? seg_home_count(view->capacity) : 0;
  for (int32_t h = 0; h < homes; h++) {
    if (view->controls != NULL && view->controls[h] != NULL) munmap(view->controls[h], SEG_CONTROL_BYTES);
    if (view->heaps != NULL && view->heaps[h].base != NULL) munmap(view->heaps[h].base, view->heaps[h].bytes);
  }
  tr_free(view->allocator, view->controls);
  tr_free(view->allocator, view->heaps);
  if (view->head != NULL) munmap(view->head, seg_head_bytes(view->capacity));
  if (view->descriptor >= 0) close(view->descriptor);
  *view = (seg_view){.descriptor = -1, .home = -1};
}

tr_status seg_control_map(seg_view *view, int32_t home, seg_control **out, tr_error *error) {
  if (view->controls[home] == NULL) {
    void *p = mmap(NULL, SEG_CONTROL_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, view->descriptor,
                   (off_t)(((uint64_t)home + 1) << SEG_HOME_SHIFT));
    if (p == MAP_FAILED) return tr_fail_errno(error, TR_ERR_NO_MEMORY, errno, "mapping the control words of a peer");
    view->controls[home] = p;
  }
  *out = view->controls[home];
  return TR_OK;
}

/* Hands the pages of a whole home back to the host. */
static void punch_home(const seg_view *view, int32_t home) {
  (void)fallocate(view->descriptor, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                  (off_t)(((uint64_t)home + 1) << SEG_HOME_SHIFT), (off_t)(1ull << SEG_HOME_SHIFT));
}

tr_status seg_home_claim(seg_view *view, uint64_t epoch, tr_error *error) {
  _Atomic uint64_t *homes = seg_homes(view->head);
  const int32_t count = seg_home_count(view->capacity);
  int32_t home = -1;
  for (int32_t h = 0; h < count && home < 0; h++) {
    uint64_t free_home = 0;
    if (atomic_compare_exchange_strong(&homes[h], &free_home, seg_tag(epoch, 1))) home = h;
  }
  if (home < 0) return tr_fail(error, TR_ERR_NO_MEMORY, "the segment has no place for another process");
  tr_status status = seg_pages_allocate(view->descriptor, ((uint64_t)home + 1) << SEG_HOME_SHIFT, SEG_CONTROL_BYTES,
                                        error);
  seg_control *control = NULL;
  if (status == TR_OK) status = seg_control_map(view, home, &control, error);
  if (status != TR_OK) {
    atomic_store(&homes[home], 0);
    return status;
  }
  view->home = home;
  view->control = control;
  return TR_OK;
}

void seg_home_unclaim(seg_view *view) {
  if (view->home < 0) return;
  punch_home(view, view->home);
  atomic_store(&seg_homes(view->head)[view->home], 0);
  view->home = -1;
}

void seg_heap_release(seg_view *view) {
  if (view->home < 0) return;
  (void)fallocate(view->descriptor, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)seg_heap_offset(view->home),
                  (off_t)SEG_HEAP_ROOM);
}

/* Whether the owner's epoch is before ours; epochs are compared on a circle of 20 bits. */
static bool is_older(uint64_t owner, uint64_t epoch) {
  const uint64_t behind = (epoch - (owner >> 44)) & 0xfffff;
  return behind != 0 && behind < 0x80000;
}

void seg_homes_sweep(seg_view *view, uint64_t epoch) {
  _Atomic uint64_t *homes = seg_homes(view->head);
  for (int32_t h = 0; h < seg_home_count(view->capacity); h++) {
    uint64_t owner = atomic_load(&homes[h]);
    if (owner == 0 || owner == UINT64_MAX || !is_older(owner, epoch)) continue;
    if (!atomic_compare_exchange_strong(&homes[h], &owner, UINT64_MAX)) continue;
    punch_home(view, h);
    atomic_store(&homes[h], 0);
  }
}

void *seg_map_aligned(int descriptor, uint64_t offset, size_t bytes) {
  const size_t room = bytes + SEG_HUGE;
  char *space = mmap(NULL, room, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (space == MAP_FAILED) return NULL;
  char *at = space + (SEG_HUGE - (uintptr_t)space % SEG_HUGE) % SEG_HUGE;
  void *p = mmap(at, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, descriptor, (off_t)offset);
  const int failed = errno;
  if (p == MAP_FAILED) {
    munmap(space, room);
    errno = failed;
    return NULL;
  }
  if (at > space) munmap(space, (size_t)(at - space));
  char *end = at + round_up(bytes, SEG_PAGE);
  if (end < space + room) munmap(end, (size_t)(space + room - end));
  return p;
}

tr_status seg_heap_map_grow(seg_view *view, int32_t home, uint64_t end, tr_error *error) {
  struct seg_heap_map *map = &view->heaps[home];
  if (end <= map->bytes) return TR_OK;
  if (end > SEG_HEAP_ROOM) return tr_fail(error, TR_ERR_PEER, "a peer names memory outside its heap");
  size_t bytes = round_up((size_t)end, SEG_HUGE);
  if (bytes < 2 * map->bytes) bytes = 2 * map->bytes;
  if (bytes > SEG_HEAP_ROOM) bytes = SEG_HEAP_ROOM;
  void *p = seg_map_aligned(view->descriptor, seg_heap_offset(home), bytes);
  if (p == NULL) return tr_fail_errno(error, TR_ERR_NO_MEMORY, errno, "mapping %zu bytes of a peer", bytes);
  if (map->base != NULL) munmap(map->base, map->bytes);
  map->base = p;
  map->bytes = bytes;
  return TR_OK;
}
