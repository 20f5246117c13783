/* First fit over a list of blocks: there are few of them, and they live long. */
#include "heap.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23
#endif
#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25
#endif

/* Where a gap of `bytes` begins, and the place of the new block in the list. */
static bool find_gap(const comm_heap *heap, uint64_t bytes, uint64_t align, uint64_t *offset, size_t *place) {
  uint64_t at = 0;
  size_t i = 0;
  for (; i < heap->count; i++) {
    if (heap->blocks[i].offset >= at && heap->blocks[i].offset - at >= bytes) break;
    at = heap->blocks[i].offset + heap->blocks[i].bytes;
    at = (at + align - 1) / align * align;
  }
  if (i == heap->count && (bytes > SEG_HEAP_ROOM || at > SEG_HEAP_ROOM - bytes)) return false;
  *offset = at;
  *place = i;
  return true;
}

/* Asks for large pages: sums run over several buffers at once, more small pages than a core can find quickly. One small
 * page in each is enough for the kernel to make a large one of it, zeroed in one go: eight times as fast as fault after
 * fault. A kernel that does not know this leaves the rest to what follows. */
static void plant_large_pages(const comm_heap *heap, uint64_t at, char *p, uint64_t bytes) {
  const uint64_t large = bytes / SEG_HUGE * SEG_HUGE;
  for (uint64_t first = 0; first < large; first += SEG_HUGE)
    if (fallocate(heap->descriptor, 0, (off_t)(at + first), SEG_PAGE) != 0) return;
  if (large > 0) (void)madvise(p, large, MADV_COLLAPSE);
}

tr_status comm_heap_alloc(comm_heap *heap, size_t bytes, void **out, tr_error *error) {
  uint64_t offset;
  size_t place;
  const uint64_t whole = ((uint64_t)bytes + SEG_PAGE - 1) / SEG_PAGE * SEG_PAGE;
  const uint64_t align = whole >= SEG_HUGE ? SEG_HUGE : SEG_PAGE;
  if (whole < bytes || !find_gap(heap, whole, align, &offset, &place))
    return tr_fail(error, TR_ERR_NO_MEMORY, "shared memory: a heap has no room for %zu bytes", bytes);
  TR_TRY(tr_reserve(heap->allocator, (void **)&heap->blocks, &heap->capacity, heap->count + 1, sizeof *heap->blocks,
                    error));
  const uint64_t at = seg_heap_offset(heap->home) + offset;
  TR_TRY(seg_pages_check(whole, error));
  char *p = seg_map_aligned(heap->descriptor, at, whole);
  if (p == NULL) return tr_fail_errno(error, TR_ERR_NO_MEMORY, errno, "mapping %zu bytes of shared memory", bytes);
  plant_large_pages(heap, at, p, whole);
  const tr_status status = seg_pages_allocate(heap->descriptor, at, whole, error);
  if (status != TR_OK) goto err_unmap;
  /* Faulted in now rather than in the first step; a kernel that cannot leaves it to the first use. */
  (void)madvise(p, whole, MADV_POPULATE_WRITE);
  memmove(&heap->blocks[place + 1], &heap->blocks[place], (heap->count - place) * sizeof *heap->blocks);
  heap->blocks[place] = (heap_block){p, offset, whole};
  heap->count++;
  *out = p;
  return TR_OK;

err_unmap:
  munmap(p, whole);
  (void)fallocate(heap->descriptor, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)at, (off_t)whole);
  return status;
}

void comm_heap_free(comm_heap *heap, void *p) {
  for (size_t i = 0; i < heap->count; i++) {
    const heap_block *block = &heap->blocks[i];
    if (block->memory != p) continue;
    munmap(block->memory, block->bytes);
    /* The hole makes the pages zero again for the next block here. */
    (void)fallocate(heap->descriptor, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                    (off_t)(seg_heap_offset(heap->home) + block->offset), (off_t)block->bytes);
    heap->count--;
    memmove(&heap->blocks[i], &heap->blocks[i + 1], (heap->count - i) * sizeof *heap->blocks);
    return;
  }
}

void comm_heap_fini(comm_heap *heap) {
  for (size_t i = 0; i < heap->count; i++) munmap(heap->blocks[i].memory, heap->blocks[i].bytes);
  tr_free(heap->allocator, heap->blocks);
  *heap = (comm_heap){.allocator = heap->allocator, .descriptor = -1, .home = -1};
}

bool comm_heap_find(comm_heap *heap, const void *p, size_t bytes, uint64_t *offset) {
  const uintptr_t from = (uintptr_t)p;
  for (size_t n = 0, i = heap->last_hit; n < heap->count; n++, i++) {
    if (i >= heap->count) i = 0;
    const heap_block *block = &heap->blocks[i];
    const uintptr_t base = (uintptr_t)block->memory;
    if (from < base || from - base > block->bytes || bytes > block->bytes - (from - base)) continue;
    heap->last_hit = i;
    *offset = block->offset + (from - base);
    return true;
  }
  return false;
}
