/* First fit over a list of blocks: there are few of them, and they live long. */
#include "heap.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23
#endif

/* Where a gap of `bytes` begins, and the place of the new block in the list. */
static bool find_gap(const comm_heap *heap, uint64_t bytes, uint64_t *offset, size_t *place) {
  uint64_t at = 0;
  size_t i = 0;
  for (; i < heap->count; i++) {
    if (heap->blocks[i].offset - at >= bytes) break;
    at = heap->blocks[i].offset + heap->blocks[i].bytes;
  }
  const uint64_t room = (1ull << SEG_HOME_SHIFT) - SEG_CONTROL_BYTES;
  if (i == heap->count && (bytes > room || at > room - bytes)) return false;
  *offset = at;
  *place = i;
  return true;
}

tr_status comm_heap_alloc(comm_heap *heap, size_t bytes, void **out, tr_error *error) {
  uint64_t offset;
  size_t place;
  const uint64_t whole = ((uint64_t)bytes + SEG_PAGE - 1) / SEG_PAGE * SEG_PAGE;
  if (whole < bytes || !find_gap(heap, whole, &offset, &place))
    return tr_fail(error, TR_ERR_NO_MEMORY, "shared memory: a heap has no room for %zu bytes", bytes);
  TR_TRY(tr_reserve(heap->allocator, (void **)&heap->blocks, &heap->capacity, heap->count + 1, sizeof *heap->blocks,
                    error));
  const uint64_t at = seg_heap_offset(heap->home) + offset;
  tr_status status = seg_pages_allocate(heap->descriptor, at, whole, error);
  if (status != TR_OK) goto err_punch;
  char *p = mmap(NULL, whole, PROT_READ | PROT_WRITE, MAP_SHARED, heap->descriptor, (off_t)at);
  if (p == MAP_FAILED) {
    status = tr_fail_errno(error, TR_ERR_NO_MEMORY, errno, "mapping %zu bytes of shared memory", bytes);
    goto err_punch;
  }
  /* Fault the pages in now rather than in the first step; a kernel that cannot leaves it to the first use. */
  (void)madvise(p, whole, MADV_POPULATE_WRITE);
  memmove(&heap->blocks[place + 1], &heap->blocks[place], (heap->count - place) * sizeof *heap->blocks);
  heap->blocks[place] = (heap_block){p, offset, whole};
  heap->count++;
  *out = p;
  return TR_OK;

err_punch:
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
