/* A bump arena: a list of chunks, of which the first is the one that is being filled. */
#include <trainrun/arena.h>

#include <stdint.h>
#include <stdio.h>
#include <string.h>

typedef struct chunk {
  struct chunk *next;
  size_t capacity;
  size_t used;
} chunk;

enum { ALIGN = 16, CHUNK_HEADER = (sizeof(chunk) + ALIGN - 1) / ALIGN * ALIGN, DEFAULT_CHUNK = 4096 };

struct tr_arena {
  const tr_allocator *allocator;
  size_t chunk_bytes;
  chunk *chunks;
};

tr_status tr_arena_create(const tr_allocator *allocator, size_t chunk_bytes, tr_arena **out, tr_error *error) {
  tr_arena *arena = tr_calloc(allocator, 1, sizeof *arena);
  if (arena == NULL) return tr_fail_memory(error, "an arena", sizeof *arena);
  arena->allocator = allocator;
  arena->chunk_bytes = chunk_bytes > 0 ? chunk_bytes : DEFAULT_CHUNK;
  *out = arena;
  return TR_OK;
}

static void free_chunks(tr_arena *arena, const chunk *except) {
  for (chunk *c = arena->chunks, *next; c != NULL; c = next) {
    next = c->next;
    if (c != except) tr_free(arena->allocator, c);
  }
}

void tr_arena_destroy(tr_arena *arena) {
  if (arena == NULL) return;
  free_chunks(arena, NULL);
  tr_free(arena->allocator, arena);
}

void tr_arena_reset(tr_arena *arena) {
  chunk *largest = arena->chunks;
  for (chunk *c = arena->chunks; c != NULL; c = c->next) {
    if (c->capacity > largest->capacity) largest = c;
  }
  free_chunks(arena, largest);
  arena->chunks = largest;
  if (largest != NULL) {
    largest->next = NULL;
    largest->used = 0;
  }
}

static chunk *add_chunk(tr_arena *arena, size_t bytes) {
  const size_t capacity = bytes > arena->chunk_bytes ? bytes : arena->chunk_bytes;
  chunk *added = capacity <= SIZE_MAX / 2 ? tr_alloc(arena->allocator, CHUNK_HEADER + capacity) : NULL;
  if (added == NULL) return NULL;
  added->capacity = capacity;
  added->used = 0;
  chunk *current = arena->chunks;
  if (current != NULL && current->capacity - current->used > capacity - bytes) {
    /* The current chunk will have more room left than this one, so it stays the one that is filled. */
    added->next = current->next;
    current->next = added;
  } else {
    added->next = current;
    arena->chunks = added;
  }
  return added;
}

void *tr_arena_alloc(tr_arena *arena, size_t bytes) {
  if (bytes > SIZE_MAX / 2) return NULL;
  const size_t rounded = (bytes + ALIGN - 1) / ALIGN * ALIGN;
  chunk *c = arena->chunks;
  if (c == NULL || c->capacity - c->used < rounded) c = add_chunk(arena, rounded);
  if (c == NULL) return NULL;
  void *p = (char *)c + CHUNK_HEADER + c->used;
  c->used += rounded;
  memset(p, 0, rounded);
  return p;
}

char *tr_arena_strndup(tr_arena *arena, const char *text, size_t length) {
  char *copy = length < SIZE_MAX ? tr_arena_alloc(arena, length + 1) : NULL;
  if (copy != NULL && length > 0) memcpy(copy, text, length);
  return copy;
}

char *tr_arena_strdup(tr_arena *arena, const char *text) { return tr_arena_strndup(arena, text, strlen(text)); }

char *tr_arena_printf(tr_arena *arena, const char *format, ...) {
  va_list arguments, again;
  va_start(arguments, format);
  va_copy(again, arguments);
  const int length = vsnprintf(NULL, 0, format, arguments);
  va_end(arguments);
  char *text = length >= 0 ? tr_arena_alloc(arena, (size_t)length + 1) : NULL;
  if (text != NULL) vsnprintf(text, (size_t)length + 1, format, again);
  va_end(again);
  return text;
}
