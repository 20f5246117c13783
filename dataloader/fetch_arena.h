/* The memory that ranges are read into: one block, handed out front to back in pieces that come back in the order in which
 * they were taken, and around again. Nothing grows, nothing is searched. Pure but for its one block. */
#ifndef TRAINRUN_DATALOADER_FETCH_ARENA_H
#define TRAINRUN_DATALOADER_FETCH_ARENA_H

#include <trainrun/base.h>

typedef struct dl_fetch_arena {
  const tr_allocator *allocator;
  uint8_t *bytes;
  size_t capacity;
  size_t head, tail; /* taken: [tail, head), or [tail, capacity) and [0, head) */
  size_t pieces;     /* that are taken */
} dl_fetch_arena;

/* Pieces begin at multiples of this and are as long. */
enum { DL_FETCH_ALIGN = 64 };
static inline uint64_t dl_fetch_rounded(uint64_t bytes) {
  return (bytes + DL_FETCH_ALIGN - 1) / DL_FETCH_ALIGN * DL_FETCH_ALIGN;
}

tr_status dl_fetch_arena_init(dl_fetch_arena *arena, const tr_allocator *allocator, uint64_t capacity, tr_error *error);
void dl_fetch_arena_fini(dl_fetch_arena *arena);
/* The longest piece that could be taken now. */
uint64_t dl_fetch_arena_room(const dl_fetch_arena *arena);
/* There must be room. Where the piece begins in the block. */
size_t dl_fetch_arena_take(dl_fetch_arena *arena, uint64_t bytes);
/* The piece that was taken first of those that are; the one after it, if there is one, begins at `next`. */
void dl_fetch_arena_give_back(dl_fetch_arena *arena, size_t next);
/* A larger block, for a sample that fits in no other way; nothing may be taken. */
tr_status dl_fetch_arena_grow(dl_fetch_arena *arena, uint64_t capacity, tr_error *error);

#endif
