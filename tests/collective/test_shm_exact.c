/* Sums over shared memory are those of the naive tree, whatever the number of ranks. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <unistd.h>

#include "exact.h"
#include "support/support.h"

typedef struct scene {
  int descriptor;
  exact_options options;
  int (*check)(tr_comm *comm, const exact_options *options);
  int32_t cores;
} scene;

static int rank_body(int rank, int size, void *context) {
  const scene *plan = context;
  const tr_comm_shm_options options = {.struct_bytes = sizeof options,
                                       .rank = rank,
                                       .size = size,
                                       .descriptor = plan->descriptor,
                                       .epoch = 1,
                                       .timeout_ns = 60000000000u,
                                       .cores = plan->cores};
  tr_comm *comm;
  tr_error error;
  if (tr_comm_open_shm(&options, &comm, &error) != TR_OK) {
    fprintf(stderr, "%s\n", error.message);
    return 1;
  }
  const int wrong = plan->check(comm, &plan->options);
  tr_comm_close(comm);
  return wrong != 0;
}

static void run(int size, scene plan) {
  tr_error error;
  cr_assert_eq(tr_comm_segment_create(size, &plan.descriptor, &error), TR_OK, "%s", error.message);
  cr_assert(ts_ranks(size, 120, rank_body, &plan), "%d ranks", size);
  close(plan.descriptor);
}

/* On few cores ranks take turns, and large sizes cost most: the short suite has fewer of them. */
static size_t most_for(int size) { return ts_long() ? 1000000 : size == 2 || size == 3 ? 100003 : 1023; }

static exact_options with(exact_options options) {
  options.stride = ts_long() ? 0 : 41;
  return options;
}

Test(shm_exact, registered_leaves, .timeout = 300) {
  for (int size = 1; size <= 8; size++)
    run(size, (scene){.check = exact_leaves,
                      .options = with((exact_options){.registered = true, .most = most_for(size), .seed = 1})});
}

Test(shm_exact, unregistered_leaves, .timeout = 300) {
  for (int size = 2; size <= 8; size += ts_long() ? 1 : 3)
    run(size, (scene){.check = exact_leaves,
                      .options = with((exact_options){.apart = true, .most = most_for(size), .seed = 2})});
}

Test(shm_exact, leaves_with_the_result_elsewhere, .timeout = 300) {
  for (int size = 2; size <= 5; size++)
    run(size, (scene){.check = exact_leaves,
                      .options = with((exact_options){.registered = true, .apart = true, .most = 100, .seed = 3})});
}

Test(shm_exact, every_operation_and_type, .timeout = 300) {
  for (int size = 1; size <= (ts_long() ? 5 : 3); size++)
    run(size, (scene){.check = exact_operations,
                      .options = with((exact_options){.registered = true, .most = 80000, .seed = 4})});
}

Test(shm_exact, every_operation_in_memory_of_the_caller, .timeout = 300) {
  for (int size = 2; size <= 3; size++)
    run(size, (scene){.check = exact_operations,
                      .options = with((exact_options){.apart = true, .most = ts_long() ? 1000000 : 80000, .seed = 5})});
}

Test(shm_exact, buffers_of_several_staging_rounds, .timeout = 300) {
  for (int size = 2; size <= (ts_long() ? 5 : 2); size++)
    run(size, (scene){.check = exact_operations_large, .options = {.apart = true, .stride = 41, .seed = 10}});
}

Test(shm_exact, many_operations_under_way, .timeout = 300) {
  for (int size = 2; size <= (ts_long() ? 5 : 3); size++) {
    run(size, (scene){.check = exact_under_way, .options = {.registered = true, .seed = 6}});
    run(size, (scene){.check = exact_under_way, .options = {.seed = 7}});
  }
}

Test(shm_exact, more_ranks_than_cores_sleep_at_once, .timeout = 300) {
  run(5, (scene){.check = exact_under_way, .options = {.registered = true, .seed = 8}, .cores = 1});
  run(4, (scene){.check = exact_operations,
                 .options = with((exact_options){.registered = true, .most = 300, .seed = 9}),
                 .cores = 1});
}
