/* The allocator argument: the system's allocator, sized blocks on top of any allocator, and one that counts.
 *
 * A sized block is a 16-byte header that holds the size of the user's part, then that part. */
#include <trainrun/alloc.h>

#include <stdalign.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { HEADER_BYTES = 16, BLOCK_ALIGN = 16 };

static void *system_alloc(void *self, size_t bytes, size_t align) {
  (void)self;
  if (align <= alignof(max_align_t)) return malloc(bytes);
  void *p = NULL;
  return posix_memalign(&p, align, bytes) == 0 ? p : NULL;
}

static void system_free(void *self, void *p, size_t bytes) {
  (void)self;
  (void)bytes;
  free(p);
}

static const tr_allocator system_allocator = {.alloc = system_alloc, .free = system_free, .self = NULL};

const tr_allocator *tr_allocator_system(void) { return &system_allocator; }

static const tr_allocator *or_system(const tr_allocator *allocator) {
  return allocator != NULL ? allocator : &system_allocator;
}

static uint64_t block_bytes(const void *p) {
  uint64_t bytes;
  memcpy(&bytes, (const char *)p - HEADER_BYTES, sizeof bytes);
  return bytes;
}

void *tr_alloc(const tr_allocator *allocator, size_t bytes) {
  if (bytes > SIZE_MAX / 2) return NULL;
  allocator = or_system(allocator);
  char *block = allocator->alloc(allocator->self, bytes + HEADER_BYTES, BLOCK_ALIGN);
  if (block == NULL) return NULL;
  const uint64_t size = bytes;
  memcpy(block, &size, sizeof size);
  return block + HEADER_BYTES;
}

void *tr_calloc(const tr_allocator *allocator, size_t count, size_t size) {
  size_t bytes;
  if (__builtin_mul_overflow(count, size, &bytes)) return NULL;
  void *p = tr_alloc(allocator, bytes);
  if (p != NULL) memset(p, 0, bytes);
  return p;
}

void *tr_realloc(const tr_allocator *allocator, void *p, size_t bytes) {
  void *moved = tr_alloc(allocator, bytes);
  if (moved == NULL || p == NULL) return moved;
  const size_t old_bytes = (size_t)block_bytes(p);
  memcpy(moved, p, old_bytes < bytes ? old_bytes : bytes);
  tr_free(allocator, p);
  return moved;
}

void tr_free(const tr_allocator *allocator, void *p) {
  if (p == NULL) return;
  allocator = or_system(allocator);
  allocator->free(allocator->self, (char *)p - HEADER_BYTES, (size_t)block_bytes(p) + HEADER_BYTES);
}

char *tr_strndup(const tr_allocator *allocator, const char *text, size_t length) {
  char *copy = length < SIZE_MAX ? tr_alloc(allocator, length + 1) : NULL;
  if (copy == NULL) return NULL;
  if (length > 0) memcpy(copy, text, length);
  copy[length] = '\0';
  return copy;
}

char *tr_strdup(const tr_allocator *allocator, const char *text) { return tr_strndup(allocator, text, strlen(text)); }

char *tr_asprintf(const tr_allocator *allocator, const char *format, ...) {
  va_list arguments, again;
  va_start(arguments, format);
  va_copy(again, arguments);
  const int length = vsnprintf(NULL, 0, format, arguments);
  va_end(arguments);
  char *text = length >= 0 ? tr_alloc(allocator, (size_t)length + 1) : NULL;
  if (text != NULL) vsnprintf(text, (size_t)length + 1, format, again);
  va_end(again);
  return text;
}

void *tr_alloc_aligned(const tr_allocator *allocator, size_t bytes, size_t align) {
  allocator = or_system(allocator);
  return allocator->alloc(allocator->self, bytes > 0 ? bytes : 1, align);
}

void tr_free_aligned(const tr_allocator *allocator, void *p, size_t bytes) {
  if (p == NULL) return;
  allocator = or_system(allocator);
  allocator->free(allocator->self, p, bytes > 0 ? bytes : 1);
}

tr_status tr_reserve(const tr_allocator *allocator, void **items, size_t *capacity, size_t needed, size_t item_bytes,
                     tr_error *error) {
  if (needed <= *capacity) return TR_OK;
  size_t wanted = *capacity < 4 ? 8 : *capacity <= SIZE_MAX / 2 ? *capacity * 2 : SIZE_MAX;
  if (wanted < needed) wanted = needed;
  size_t bytes;
  if (__builtin_mul_overflow(wanted, item_bytes, &bytes)) return tr_fail_memory(error, "a growing list", SIZE_MAX);
  void *grown = tr_realloc(allocator, *items, bytes);
  if (grown == NULL) return tr_fail_memory(error, "a growing list", bytes);
  *items = grown;
  *capacity = wanted;
  return TR_OK;
}

tr_status tr_fail_memory(tr_error *error, const char *what, size_t bytes) {
  return tr_fail(error, TR_ERR_NO_MEMORY, "out of memory: %s needs %zu bytes", what, bytes);
}

/* The counters are independent of each other and order nothing else, so relaxed operations are enough. */
static void *counting_alloc(void *self, size_t bytes, size_t align) {
  tr_counting_allocator *counting = self;
  const uint64_t number = __atomic_add_fetch(&counting->allocations, 1, __ATOMIC_RELAXED);
  const uint64_t fail_at = __atomic_load_n(&counting->fail_at, __ATOMIC_RELAXED);
  if (fail_at != 0 && (number == fail_at || (counting->fail_forever && number > fail_at))) return NULL;
  void *p = system_alloc(NULL, bytes, align);
  if (p == NULL) return NULL;
  __atomic_add_fetch(&counting->live_blocks, 1, __ATOMIC_RELAXED);
  const uint64_t live = __atomic_add_fetch(&counting->live_bytes, bytes, __ATOMIC_RELAXED);
  uint64_t peak = __atomic_load_n(&counting->peak_bytes, __ATOMIC_RELAXED);
  while (live > peak &&
         !__atomic_compare_exchange_n(&counting->peak_bytes, &peak, live, true, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {
  }
  return p;
}

static void counting_free(void *self, void *p, size_t bytes) {
  tr_counting_allocator *counting = self;
  __atomic_sub_fetch(&counting->live_blocks, 1, __ATOMIC_RELAXED);
  __atomic_sub_fetch(&counting->live_bytes, bytes, __ATOMIC_RELAXED);
  free(p);
}

void tr_counting_allocator_init(tr_counting_allocator *counting) {
  memset(counting, 0, sizeof *counting);
  counting->allocator = (tr_allocator){.alloc = counting_alloc, .free = counting_free, .self = counting};
}
