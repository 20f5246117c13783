/* The bump arena. */
#include <criterion/criterion.h>
#include <stdint.h>
#include <string.h>
#include <trainrun/arena.h>

Test(arena, gives_zeroed_aligned_memory_of_any_size) {
  tr_arena *arena;
  cr_assert_eq(tr_arena_create(NULL, 256, &arena, NULL), TR_OK);
  for (int round = 0; round < 3; round++) {
    for (size_t bytes = 0; bytes < 700; bytes += 13) {
      unsigned char *p = tr_arena_alloc(arena, bytes);
      cr_assert_not_null(p);
      cr_assert_eq((uintptr_t)p % 16, 0);
      for (size_t i = 0; i < bytes; i++) cr_assert_eq(p[i], 0);
      memset(p, 0xEE, bytes);
    }
    tr_arena_reset(arena);
  }
  tr_arena_destroy(arena);
}

Test(arena, blocks_do_not_overlap) {
  tr_arena *arena;
  cr_assert_eq(tr_arena_create(NULL, 128, &arena, NULL), TR_OK);
  enum { COUNT = 200 };
  unsigned char *blocks[COUNT];
  for (size_t i = 0; i < COUNT; i++) {
    blocks[i] = tr_arena_alloc(arena, i % 37 + (i % 11 == 0 ? 300 : 0));
    memset(blocks[i], (int)i, i % 37 + (i % 11 == 0 ? 300 : 0));
  }
  for (size_t i = 0; i < COUNT; i++) {
    for (size_t j = 0; j < i % 37 + (i % 11 == 0 ? 300 : 0); j++) cr_assert_eq(blocks[i][j], (unsigned char)i);
  }
  tr_arena_destroy(arena);
}

Test(arena, keeps_copies_of_text) {
  tr_arena *arena;
  cr_assert_eq(tr_arena_create(NULL, 0, &arena, NULL), TR_OK);
  cr_assert_str_eq(tr_arena_strdup(arena, "abc"), "abc");
  cr_assert_str_eq(tr_arena_strndup(arena, "abc", 1), "a");
  cr_assert_str_eq(tr_arena_printf(arena, "%05d", 42), "00042");
  tr_arena_destroy(arena);
}

Test(arena, reset_keeps_the_largest_chunk_and_frees_the_rest) {
  tr_counting_allocator counting;
  tr_counting_allocator_init(&counting);
  tr_arena *arena;
  cr_assert_eq(tr_arena_create(&counting.allocator, 100, &arena, NULL), TR_OK);
  for (int i = 0; i < 20; i++) tr_arena_alloc(arena, 90);
  tr_arena_alloc(arena, 10000);
  tr_arena_reset(arena);
  cr_assert_eq(counting.live_blocks, 2); /* the arena and one chunk */
  const uint64_t before = counting.allocations;
  cr_assert_not_null(tr_arena_alloc(arena, 9000));
  cr_assert_eq(counting.allocations, before);
  tr_arena_destroy(arena);
  cr_assert_eq(counting.live_blocks, 0);
}

Test(arena, a_failed_chunk_leaves_the_arena_usable) {
  tr_counting_allocator counting;
  tr_counting_allocator_init(&counting);
  tr_arena *arena;
  tr_error error;
  counting.fail_at = 1;
  cr_assert_eq(tr_arena_create(&counting.allocator, 100, &arena, &error), TR_ERR_NO_MEMORY);
  cr_assert_eq(tr_arena_create(&counting.allocator, 100, &arena, &error), TR_OK);
  counting.fail_at = counting.allocations + 1;
  cr_assert_null(tr_arena_alloc(arena, 1000));
  cr_assert_not_null(tr_arena_alloc(arena, 1000));
  cr_assert_null(tr_arena_alloc(arena, SIZE_MAX - 3));
  tr_arena_destroy(arena);
  tr_arena_destroy(NULL);
  cr_assert_eq(counting.live_blocks, 0);
}
