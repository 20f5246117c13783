/* The peer of first_all_reduce.c, under mpirun. */
#include <mpi.h>
#include <stdio.h>

#include "../lib/windows.h"

int main(int argc, char **argv) {
  if (MPI_Init(&argc, &argv) != MPI_SUCCESS) return 1;
  int rank = 0;
  float sum = 1;
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  MPI_Allreduce(MPI_IN_PLACE, &sum, 1, MPI_FLOAT, MPI_SUM, MPI_COMM_WORLD);
  printf("{\"rank\": %d, \"sum\": %g, \"finished_ns\": %llu}\n", rank, (double)sum, (unsigned long long)bench_now_ns());
  fflush(stdout);
  MPI_Finalize();
  return 0;
}
