/* The communicator of one rank. */
#include <criterion/criterion.h>
#include <string.h>
#include <trainrun/collective.h>

static tr_counting_allocator counting;

static tr_comm *open_self(void) {
  tr_counting_allocator_init(&counting);
  const tr_comm_self_options options = {sizeof options, .allocator = &counting.allocator};
  tr_comm *comm = NULL;
  cr_assert_eq(tr_comm_open_self(&options, &comm, NULL), TR_OK);
  return comm;
}

static void close_self(tr_comm *comm) {
  tr_comm_close(comm);
  cr_assert_eq(counting.live_blocks, 0);
}

Test(self, copies_the_only_part_into_the_result) {
  tr_comm *comm = open_self();
  float part[100], result[100] = {0};
  for (int i = 0; i < 100; i++) part[i] = (float)i;
  void *const parts[1] = {part};
  tr_reduce_leaves_args args = {sizeof args,      .leaf_count = 5, .parts = parts, .part_count = 1,
                                .result = result, .count = 100,    .dtype = TR_F32};
  tr_comm_wait_info info;
  cr_assert_eq(tr_comm_reduce_leaves(comm, &args, &info, NULL), TR_OK);
  cr_assert_eq(memcmp(part, result, sizeof part), 0);
  cr_assert_eq(info.last_rank, -1);
  args.part_count = 2;
  cr_assert_eq(tr_comm_reduce_leaves(comm, &args, NULL, NULL), TR_ERR_INVALID);
  args.part_count = 1;
  args.dtype = TR_BF16;
  cr_assert_eq(tr_comm_reduce_leaves(comm, &args, NULL, NULL), TR_ERR_INVALID);
  close_self(comm);
}

Test(self, runs_every_operation) {
  tr_comm *comm = open_self();
  int32_t value = 7, gathered = 0;
  tr_comm_handle handle = 0;
  cr_assert_eq(tr_comm_all_reduce(comm, &value, 1, TR_I32, TR_MAX, NULL, NULL), TR_OK);
  cr_assert_eq(tr_comm_reduce_scatter(comm, &value, 1, TR_I32, TR_SUM, NULL, NULL), TR_OK);
  cr_assert_eq(tr_comm_all_gather(comm, &value, sizeof value, &gathered, NULL, NULL), TR_OK);
  cr_assert_eq(gathered, 7);
  cr_assert_eq(tr_comm_broadcast(comm, &value, sizeof value, 0, NULL, NULL), TR_OK);
  cr_assert_eq(tr_comm_broadcast(comm, &value, sizeof value, 1, NULL, NULL), TR_ERR_INVALID);
  cr_assert_eq(tr_comm_barrier(comm, NULL, NULL), TR_OK);
  cr_assert_eq(tr_comm_all_reduce_begin(comm, &value, 1, TR_I32, TR_SUM, &handle, NULL), TR_OK);
  cr_assert_neq(handle, 0);
  cr_assert_eq(tr_comm_progress(comm, NULL), TR_OK);
  cr_assert_eq(tr_comm_wait(comm, handle, NULL, NULL), TR_OK);
  cr_assert_eq(tr_comm_wait(comm, handle + 1, NULL, NULL), TR_ERR_INVALID);
  cr_assert_eq(tr_comm_all_reduce(comm, &value, 1, TR_U8, TR_SUM, NULL, NULL), TR_ERR_INVALID);
  cr_assert_eq(value, 7);
  close_self(comm);
}

Test(self, gives_zeroed_aligned_memory_and_frees_what_is_left) {
  tr_comm *comm = open_self();
  void *a = NULL, *b = NULL;
  cr_assert_eq(tr_comm_alloc(comm, 1000, &a, NULL), TR_OK);
  cr_assert_eq(tr_comm_alloc(comm, 0, &b, NULL), TR_OK);
  cr_assert_eq((uintptr_t)a % 64, 0);
  for (int i = 0; i < 1000; i++) cr_assert_eq(((char *)a)[i], 0);
  tr_comm_free(comm, a);
  tr_comm_free(comm, NULL);
  close_self(comm);
}

Test(self, says_aborted_after_an_abort) {
  tr_comm *comm = open_self();
  float x = 1;
  tr_comm_abort(comm);
  cr_assert_eq(tr_comm_all_reduce(comm, &x, 1, TR_F32, TR_SUM, NULL, NULL), TR_ERR_ABORTED);
  cr_assert_eq(tr_comm_progress(comm, NULL), TR_ERR_ABORTED);
  cr_assert_eq(tr_comm_rebuild(comm, 0, 1, 2, NULL), TR_ERR_UNSUPPORTED);
  close_self(comm);
}

Test(self, has_a_board_of_its_own) {
  tr_comm *comm = open_self();
  const tr_board board = tr_comm_board(comm);
  cr_assert_eq(board.size, 1);
  cr_assert_eq(board.beacons[0].waits_for, -1);
  cr_assert_eq(*board.stop, 0);
  cr_assert_eq((uintptr_t)board.beacons % 64, 0);
  const tr_comm_info info = tr_comm_describe(comm);
  cr_assert_str_eq(info.backend, "self");
  cr_assert_eq(info.size, 1);
  close_self(comm);
}

Test(self, fails_cleanly_when_memory_is_short) {
  for (uint64_t nth = 1; nth <= 2; nth++) {
    tr_counting_allocator_init(&counting);
    counting.fail_at = nth;
    const tr_comm_self_options options = {sizeof options, .allocator = &counting.allocator};
    tr_comm *comm = NULL;
    cr_assert_eq(tr_comm_open_self(&options, &comm, NULL), TR_ERR_NO_MEMORY);
    cr_assert_null(comm);
    cr_assert_eq(counting.live_blocks, 0);
  }
}
