/* A bump arena: many small things with one lifetime, freed together.
 *
 * Grows by chunks from its allocator; tr_arena_reset keeps the largest chunk. One thread at a time.
 * Not the arena of activations: that one is planned (ops) and is a single block. */
#ifndef TRAINRUN_ARENA_H
#define TRAINRUN_ARENA_H

#include <trainrun/alloc.h>

TR_BEGIN_C

typedef struct tr_arena tr_arena;

TR_API TR_MUST_USE tr_status tr_arena_create(const tr_allocator *allocator, size_t chunk_bytes, tr_arena **out,
                                             tr_error *error);
TR_API void tr_arena_destroy(tr_arena *arena);
TR_API void tr_arena_reset(tr_arena *arena);
/* Zeroed memory, 16-byte aligned; NULL when there is none. */
TR_API void *tr_arena_alloc(tr_arena *arena, size_t bytes);
TR_API char *tr_arena_strdup(tr_arena *arena, const char *text);
TR_API char *tr_arena_strndup(tr_arena *arena, const char *text, size_t length);
TR_API char *tr_arena_printf(tr_arena *arena, const char *format, ...) TR_PRINTF(2, 3);

TR_END_C
#endif
