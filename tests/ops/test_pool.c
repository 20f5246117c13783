/* Compute threads: each task once, everything visible afterwards, and no thread left behind. */
#include <criterion/criterion.h>
#include <stdatomic.h>
#include <string.h>
#include <trainrun/ops.h>

typedef struct job {
  atomic_uint *ran;
  uint32_t *written;
} job;

static void body(void *self, uint32_t task) {
  job *work = self;
  atomic_fetch_add(&work->ran[task], 1);
  work->written[task] = task + 1;
}

Test(pool, runs_each_task_exactly_once, .timeout = 60) {
  for (uint32_t threads = 1; threads <= 5; threads++) {
    tr_pool *pool = NULL;
    cr_assert_eq(tr_pool_create(NULL, threads, &pool, NULL), TR_OK);
    cr_expect_eq(tr_pool_threads(pool), threads);
    const uint32_t sizes[] = {0, 1, 2, 3, 7, 64, 1000};
    for (size_t s = 0; s < sizeof sizes / sizeof sizes[0]; s++) {
      for (int repeat = 0; repeat < 20; repeat++) {
        atomic_uint ran[1000];
        uint32_t written[1000];
        for (int i = 0; i < 1000; i++) atomic_init(&ran[i], 0);
        memset(written, 0, sizeof written);
        job work = {ran, written};
        tr_pool_run(pool, sizes[s], body, &work);
        for (uint32_t i = 0; i < 1000; i++) {
          cr_assert_eq(atomic_load(&ran[i]), i < sizes[s] ? 1u : 0u);
          cr_assert_eq(written[i], i < sizes[s] ? i + 1 : 0u);
        }
      }
    }
    tr_pool_destroy(pool);
  }
}

Test(pool, is_the_caller_alone_where_there_is_none) {
  atomic_uint ran[3] = {0};
  uint32_t written[3] = {0};
  job work = {ran, written};
  tr_pool_run(NULL, 3, body, &work);
  for (int i = 0; i < 3; i++) cr_expect_eq(atomic_load(&ran[i]), 1u);
  cr_expect_eq(tr_pool_threads(NULL), 1u);
  tr_pool_destroy(NULL);
}

Test(pool, refuses_no_threads_and_too_many) {
  tr_pool *pool = NULL;
  cr_expect_eq(tr_pool_create(NULL, 0, &pool, NULL), TR_ERR_INVALID);
  cr_expect_eq(tr_pool_create(NULL, 1000000, &pool, NULL), TR_ERR_INVALID);
  cr_expect_null(pool);
}

Test(pool, gives_all_memory_back_when_an_allocation_fails) {
  for (uint64_t fail_at = 1; fail_at <= 2; fail_at++) {
    tr_counting_allocator counting;
    tr_counting_allocator_init(&counting);
    counting.fail_at = fail_at;
    tr_pool *pool = NULL;
    cr_expect_eq(tr_pool_create(&counting.allocator, 3, &pool, NULL), TR_ERR_NO_MEMORY);
    cr_expect_eq(counting.live_blocks, 0);
  }
}
