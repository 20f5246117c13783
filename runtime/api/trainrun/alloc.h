/* The allocator, always an argument.
 *
 * An object remembers the allocator it was created with and frees through it. Thread rule: an allocator must be usable
 * from several threads at once. A NULL allocator means tr_allocator_system(). Memory is host memory; pinned and device
 * memory come from <trainrun/device.h>, memory that peers can read from <trainrun/collective.h>.
 * Not for the step: a steady step allocates nothing. */
#ifndef TRAINRUN_ALLOC_H
#define TRAINRUN_ALLOC_H

#include <trainrun/status.h>

TR_BEGIN_C

typedef struct tr_allocator {
  /* `bytes` > 0 at `align` (a power of two); NULL when there is none. Contents are undefined. */
  void *(*alloc)(void *self, size_t bytes, size_t align);
  /* p is never NULL; `bytes` is what alloc was given. */
  void (*free)(void *self, void *p, size_t bytes);
  void *self;
} tr_allocator;

/* malloc and free. */
TR_API const tr_allocator *tr_allocator_system(void);

/* Memory for any type (16-byte aligned). Each block carries its size, so tr_free needs only the pointer and the same
 * allocator. bytes == 0 gives a valid pointer. NULL on failure, also when count * size overflows. */
TR_API void *tr_alloc(const tr_allocator *allocator, size_t bytes);
TR_API void *tr_calloc(const tr_allocator *allocator, size_t count, size_t size);
TR_API void *tr_realloc(const tr_allocator *allocator, void *p, size_t bytes);
TR_API void tr_free(const tr_allocator *allocator, void *p);
TR_API char *tr_strdup(const tr_allocator *allocator, const char *text);
TR_API char *tr_strndup(const tr_allocator *allocator, const char *text, size_t length);
/* printf into new memory; NULL when there is none. */
TR_API char *tr_asprintf(const tr_allocator *allocator, const char *format, ...) TR_PRINTF(2, 3);

/* Large aligned blocks: `align` is a power of two >= 16; freed with tr_free_aligned and the same bytes. */
TR_API void *tr_alloc_aligned(const tr_allocator *allocator, size_t bytes, size_t align);
TR_API void tr_free_aligned(const tr_allocator *allocator, void *p, size_t bytes);

/* Makes room for at least `needed` elements in a growing array; *capacity and *items change only on success.
 * Use: TR_TRY(tr_reserve(a, (void **)&list->items, &list->capacity, list->count + 1, sizeof *list->items, error)); */
TR_API TR_MUST_USE tr_status tr_reserve(const tr_allocator *allocator, void **items, size_t *capacity, size_t needed,
                                        size_t item_bytes, tr_error *error);

/* tr_fail(error, TR_ERR_NO_MEMORY, "out of memory: <what> needs <bytes> bytes"). */
TR_API tr_status tr_fail_memory(tr_error *error, const char *what, size_t bytes);

/* A counting allocator for tests: counts live blocks and bytes, and fails the nth allocation (1-based; 0: none) and,
 * when `fail_forever`, every one after it. All fields may be read at any time; thread-safe. */
typedef struct tr_counting_allocator {
  tr_allocator allocator; /* hand &counting.allocator on */
  uint64_t allocations;   /* so far */
  uint64_t live_blocks;
  uint64_t live_bytes;
  uint64_t peak_bytes;
  uint64_t fail_at;
  bool fail_forever;
} tr_counting_allocator;

TR_API void tr_counting_allocator_init(tr_counting_allocator *counting);

TR_END_C
#endif
