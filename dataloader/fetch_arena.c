/* A ring of bytes: see fetch_arena.h. */
#include "fetch_arena.h"

#include <sys/mman.h>

enum { HUGE_PAGE = 2 << 20, HUGE_FROM = 8 << 20 };

static size_t align_of(size_t bytes) { return bytes >= HUGE_FROM ? HUGE_PAGE : DL_FETCH_ALIGN; }

tr_status dl_fetch_arena_init(dl_fetch_arena *arena, const tr_allocator *allocator, uint64_t capacity,
                              tr_error *error) {
  *arena = (dl_fetch_arena){.allocator = allocator};
  return dl_fetch_arena_grow(arena, capacity, error);
}

void dl_fetch_arena_fini(dl_fetch_arena *arena) {
  tr_free_aligned(arena->allocator, arena->bytes, arena->capacity);
  arena->bytes = NULL;
  arena->capacity = 0;
}

tr_status dl_fetch_arena_grow(dl_fetch_arena *arena, uint64_t capacity, tr_error *error) {
  const size_t bytes = (size_t)dl_fetch_rounded(capacity);
  dl_fetch_arena_fini(arena);
  arena->head = arena->tail = 0;
  arena->bytes = tr_alloc_aligned(arena->allocator, bytes, align_of(bytes));
  if (arena->bytes == NULL) return tr_fail_memory(error, "reading ahead (data.prefetch)", bytes);
  arena->capacity = bytes;
  /* Advice only: what arrives is copied here, and large pages make that cheaper. */
  if (bytes >= HUGE_FROM) madvise(arena->bytes, bytes / HUGE_PAGE * HUGE_PAGE, MADV_HUGEPAGE);
  return TR_OK;
}

/* What is free behind what is taken, and before it where that goes on to the end of the block. */
static void free_parts(const dl_fetch_arena *arena, uint64_t *behind, uint64_t *before) {
  const bool wrapped = arena->pieces > 0 && arena->head <= arena->tail;
  const size_t head = arena->pieces > 0 ? arena->head : 0;
  *behind = (wrapped ? arena->tail : arena->capacity) - head;
  *before = wrapped || arena->pieces == 0 ? 0 : arena->tail;
}

uint64_t dl_fetch_arena_room(const dl_fetch_arena *arena) {
  uint64_t behind, before;
  free_parts(arena, &behind, &before);
  return behind > before ? behind : before;
}

/* Where a piece of this length begins. What is longer than a quarter begins at a half where that is free: the groups of a
 * steady job are never quite as long as each other, and none should find a place that is a little too short. */
static size_t place(const dl_fetch_arena *arena, size_t bytes) {
  const size_t head = arena->pieces > 0 ? arena->head : 0, half = arena->capacity / 2 / DL_FETCH_ALIGN * DL_FETCH_ALIGN;
  uint64_t behind, before;
  free_parts(arena, &behind, &before);
  if (bytes > half / 2 && bytes <= half) {
    if (head <= half && half - head + bytes <= behind) return half;
    if (before >= half) return 0;
  }
  return bytes > behind ? 0 : head;
}

size_t dl_fetch_arena_take(dl_fetch_arena *arena, uint64_t bytes) {
  const size_t rounded = (size_t)dl_fetch_rounded(bytes), begin = place(arena, rounded);
  if (arena->pieces == 0) arena->tail = begin;
  arena->pieces++;
  arena->head = begin + rounded;
  return begin;
}

void dl_fetch_arena_give_back(dl_fetch_arena *arena, size_t next) {
  arena->pieces--;
  arena->tail = next;
}
