/* What test_mpi.c starts under mpirun: one rank that runs the checks of exact.h and says so by its exit status.
 * Arguments: module folder, ranks a host (0: ask MPI), what to do. */
#include <mpi.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "exact.h"

static int fail(const char *what, const tr_error *error) {
  fprintf(stderr, "mpi_ranks: %s: %s\n", what, error->message);
  return 1;
}

static int check_all(tr_comm *comm, bool whole) {
  const bool kinds[2] = {true, false};
  int wrong = 0;
  for (int k = 0; k < 2 && wrong == 0; k++) {
    const exact_options options = {.registered = kinds[k],
                                   .apart = !kinds[k],
                                   .few = !whole,
                                   .seed = 11 + (uint32_t)k,
                                   .most = whole ? 80000 : 1100,
                                   .stride = whole ? 0 : 29};
    wrong += exact_leaves(comm, &options);
    if (wrong == 0) wrong += exact_operations(comm, &options);
    if (wrong == 0) wrong += exact_operations_large(comm, &options);
    if (wrong == 0) wrong += exact_under_way(comm, &options);
  }
  return wrong;
}

int main(int argc, char **argv) {
  if (argc < 4) return 2;
  const bool guest = strcmp(argv[3], "guest") == 0; /* of a program that uses MPI itself */
  if (guest) MPI_Init(&argc, &argv);
  tr_comm *comm;
  tr_error error;
  tr_counting_allocator counting;
  tr_counting_allocator_init(&counting);
  const tr_comm_mpi_options options = {.struct_bytes = sizeof options,
                                       .allocator = &counting.allocator,
                                       .module_folder = argv[1],
                                       .ranks_per_host = atoi(argv[2]),
                                       .timeout_ns = 60000000000u};
  if (tr_comm_open_mpi(&options, &comm, &error) != TR_OK) return fail("open", &error);
  const tr_comm_info info = tr_comm_describe(comm);
  int wrong = 0;
  if (strcmp(argv[3], "exact") == 0) wrong = check_all(comm, false);
  if (strcmp(argv[3], "exact-whole") == 0) wrong = check_all(comm, true);
  if (strcmp(argv[3], "describe") == 0)
    printf("rank %d of %d, local %d of %d, host %d of %d, %s\n", info.rank, info.size, info.local_rank, info.local_size,
           info.host, info.host_count, info.backend);
  if (strcmp(argv[3], "abort") == 0) {
    float x = 1;
    /* The abort may overtake a rank that has not yet seen the others arrive. */
    if (tr_comm_barrier(comm, NULL, &error) != TR_OK && error.status != TR_ERR_ABORTED) return fail("barrier", &error);
    if (info.rank == 0) tr_comm_abort(comm);
    while (tr_comm_all_reduce(comm, &x, 1, TR_F32, TR_SUM, NULL, &error) == TR_OK) continue;
    wrong = error.status != TR_ERR_ABORTED;
    tr_comm_close(comm);
    return wrong != 0 ? 1 : 44;
  }
  tr_comm_close(comm);
  wrong += counting.live_blocks != 0;
  if (guest) {
    int finalized = 1;
    MPI_Finalized(&finalized);
    wrong += finalized;
    MPI_Finalize();
  } else if (tr_comm_open_mpi(&options, &comm, &error) != TR_ERR_UNAVAILABLE) {
    wrong += 1; /* MPI starts once a process */
  }
  wrong += counting.live_blocks != 0;
  return wrong != 0;
}
