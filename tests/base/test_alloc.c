/* The allocator argument and the allocator that counts and fails. */
#include <criterion/criterion.h>
#include <pthread.h>
#include <stdint.h>
#include <string.h>
#include <trainrun/alloc.h>

Test(alloc, gives_aligned_memory_for_any_size) {
  static const size_t sizes[] = {0, 1, 15, 16, 17, 4095, 4096, 1000003};
  for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
    unsigned char *p = tr_alloc(NULL, sizes[i]);
    cr_assert_not_null(p);
    cr_assert_eq((uintptr_t)p % 16, 0);
    memset(p, 0xAB, sizes[i]);
    tr_free(NULL, p);
  }
  tr_free(NULL, NULL);
}

Test(alloc, refuses_sizes_that_overflow) {
  cr_assert_null(tr_alloc(NULL, SIZE_MAX));
  cr_assert_null(tr_alloc(NULL, SIZE_MAX - 8));
  cr_assert_null(tr_calloc(NULL, SIZE_MAX / 2, 3));
  cr_assert_null(tr_strndup(NULL, "x", SIZE_MAX));
}

Test(alloc, calloc_gives_zeros) {
  unsigned char *p = tr_calloc(NULL, 33, 7);
  for (size_t i = 0; i < 33 * 7; i++) cr_assert_eq(p[i], 0);
  tr_free(NULL, p);
}

Test(alloc, realloc_keeps_what_fits) {
  unsigned char *p = tr_alloc(NULL, 100);
  for (size_t i = 0; i < 100; i++) p[i] = (unsigned char)i;
  p = tr_realloc(NULL, p, 5000);
  for (size_t i = 0; i < 100; i++) cr_assert_eq(p[i], i);
  p = tr_realloc(NULL, p, 10);
  for (size_t i = 0; i < 10; i++) cr_assert_eq(p[i], i);
  tr_free(NULL, p);
  p = tr_realloc(NULL, NULL, 4);
  cr_assert_not_null(p);
  tr_free(NULL, p);
}

Test(alloc, copies_and_formats_text) {
  char *a = tr_strdup(NULL, "hello"), *b = tr_strndup(NULL, "hello", 2), *c = tr_asprintf(NULL, "%d-%s", 7, "x");
  cr_assert_str_eq(a, "hello");
  cr_assert_str_eq(b, "he");
  cr_assert_str_eq(c, "7-x");
  tr_free(NULL, a);
  tr_free(NULL, b);
  tr_free(NULL, c);
}

Test(alloc, gives_large_alignments) {
  for (size_t align = 16; align <= 65536; align *= 2) {
    for (size_t bytes = 0; bytes < 3; bytes++) {
      void *p = tr_alloc_aligned(NULL, bytes * 1000, align);
      cr_assert_not_null(p);
      cr_assert_eq((uintptr_t)p % align, 0);
      tr_free_aligned(NULL, p, bytes * 1000);
    }
  }
}

Test(alloc, reserve_grows_and_keeps_items) {
  int *items = NULL;
  size_t capacity = 0;
  for (int i = 0; i < 1000; i++) {
    cr_assert_eq(tr_reserve(NULL, (void **)&items, &capacity, (size_t)i + 1, sizeof *items, NULL), TR_OK);
    items[i] = i;
  }
  for (int i = 0; i < 1000; i++) cr_assert_eq(items[i], i);
  tr_error error;
  const size_t before = capacity;
  int *const same = items;
  cr_assert_eq(tr_reserve(NULL, (void **)&items, &capacity, SIZE_MAX, sizeof *items, &error), TR_ERR_NO_MEMORY);
  cr_assert_eq(capacity, before);
  cr_assert_eq(items, same);
  tr_free(NULL, items);
}

Test(alloc, a_counting_allocator_sees_leaks_and_peaks) {
  tr_counting_allocator counting;
  tr_counting_allocator_init(&counting);
  void *a = tr_alloc(&counting.allocator, 100), *b = tr_alloc_aligned(&counting.allocator, 1000, 4096);
  cr_assert_eq(counting.allocations, 2);
  cr_assert_eq(counting.live_blocks, 2);
  cr_assert_geq(counting.live_bytes, 1100);
  tr_free(&counting.allocator, a);
  tr_free_aligned(&counting.allocator, b, 1000);
  cr_assert_eq(counting.live_blocks, 0);
  cr_assert_eq(counting.live_bytes, 0);
  cr_assert_geq(counting.peak_bytes, 1100);
}

Test(alloc, a_counting_allocator_fails_the_nth) {
  tr_counting_allocator counting;
  tr_counting_allocator_init(&counting);
  counting.fail_at = 2;
  void *a = tr_alloc(&counting.allocator, 1);
  cr_assert_not_null(a);
  cr_assert_null(tr_alloc(&counting.allocator, 1));
  void *c = tr_alloc(&counting.allocator, 1);
  cr_assert_not_null(c);
  counting.fail_at = counting.allocations + 1;
  counting.fail_forever = true;
  cr_assert_null(tr_alloc(&counting.allocator, 1));
  cr_assert_null(tr_realloc(&counting.allocator, a, 100));
  tr_free(&counting.allocator, a);
  tr_free(&counting.allocator, c);
  cr_assert_eq(counting.live_blocks, 0);
}

static void *allocate_much(void *self) {
  tr_counting_allocator *counting = self;
  for (int i = 0; i < 2000; i++) tr_free(&counting->allocator, tr_alloc(&counting->allocator, (size_t)i));
  return NULL;
}

Test(alloc, a_counting_allocator_serves_several_threads) {
  tr_counting_allocator counting;
  tr_counting_allocator_init(&counting);
  pthread_t threads[4];
  for (int i = 0; i < 4; i++) pthread_create(&threads[i], NULL, allocate_much, &counting);
  for (int i = 0; i < 4; i++) pthread_join(threads[i], NULL);
  cr_assert_eq(counting.allocations, 8000);
  cr_assert_eq(counting.live_blocks, 0);
  cr_assert_eq(counting.live_bytes, 0);
}

Test(alloc, running_out_says_for_what) {
  tr_error error;
  cr_assert_eq(tr_fail_memory(&error, "the arena", 4096), TR_ERR_NO_MEMORY);
  cr_assert_str_eq(error.message, "out of memory: the arena needs 4096 bytes");
}
