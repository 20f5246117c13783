/* The peer of all_reduce.c: MPI_Allreduce in place, `mpirun -np 2 mpi_all_reduce WINDOWS BYTES...`. */
#include <mpi.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../lib/windows.h"

typedef struct bench {
  float *buffer;
  int count;
} bench;

static int run(void *self) {
  bench *b = self;
  return MPI_Allreduce(MPI_IN_PLACE, b->buffer, b->count, MPI_FLOAT, MPI_SUM, MPI_COMM_WORLD) != MPI_SUCCESS;
}

static double largest(void *self, double value) {
  (void)self;
  return MPI_Allreduce(MPI_IN_PLACE, &value, 1, MPI_DOUBLE, MPI_MAX, MPI_COMM_WORLD) == MPI_SUCCESS ? value : -1;
}

int main(int argc, char **argv) {
  if (MPI_Init(&argc, &argv) != MPI_SUCCESS) return 1;
  bench b = {NULL, 0};
  bench_side side = {.self = &b, .run = run, .largest = largest};
  MPI_Comm_rank(MPI_COMM_WORLD, &side.rank);
  const size_t windows = argc > 1 ? strtoul(argv[1], NULL, 10) : 0;
  int bad = windows > BENCH_WINDOWS_MAX;
  for (int i = 2; i < argc && !bad; i++) {
    const size_t bytes = strtoul(argv[i], NULL, 10);
    double seconds[BENCH_WINDOWS_MAX];
    b.count = (int)(bytes / sizeof(float));
    b.buffer = aligned_alloc(4096, (bytes + 4095) / 4096 * 4096);
    bad = b.buffer == NULL;
    if (bad) break;
    memset(b.buffer, 0, bytes);
    const uint64_t count = bench_count(&side, 0.02);
    for (size_t w = 0; w < windows; w++) seconds[w] = bench_window(&side, count);
    bench_print(&side, "all_reduce", bytes, seconds, windows);
    free(b.buffer);
  }
  MPI_Finalize();
  return bad;
}
