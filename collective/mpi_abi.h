/* The border between libtrainrun and its MPI module: two tables, checked by version and size on both sides.
 *
 * The module is compiled against a site's own mpi.h, perhaps long after the library, and imports no symbol of it. Plain
 * C types only; every function returns 0 or a comm_mpi_error and then writes a message for a person. One thread. */
#ifndef TRAINRUN_COLLECTIVE_MPI_ABI_H
#define TRAINRUN_COLLECTIVE_MPI_ABI_H

#include <stddef.h>
#include <stdint.h>

enum { COMM_MPI_VERSION = 1, COMM_MPI_MESSAGE_BYTES = 400 };

typedef enum comm_mpi_error {
  COMM_MPI_OK = 0,
  COMM_MPI_UNAVAILABLE = 1, /* MPI cannot be used in this process */
  COMM_MPI_NO_MEMORY = 2,
  COMM_MPI_FAILED = 3 /* a call of MPI failed */
} comm_mpi_error;

/* What the library gives. */
typedef struct comm_mpi_host {
  uint32_t version, struct_bytes;
  void *(*alloc)(void *self, size_t bytes);
  void (*free)(void *self, void *p);
  void *self;
} comm_mpi_host;

typedef struct comm_mpi comm_mpi;

/* What the module gives. Requests are 8 bytes, the caller's. */
typedef struct comm_mpi_table {
  uint32_t version, struct_bytes;
  /* MPI_Init unless that was done; a communicator of our own over all ranks. */
  int (*open)(const comm_mpi_host *host, comm_mpi **out, int32_t *rank, int32_t *size, char *message);
  /* MPI_Finalize where open did MPI_Init, but not after an abort: it would wait for the dead. */
  void (*close)(comm_mpi *mpi, int aborted);
  /* For each rank, the lowest rank of its host. */
  int (*hosts)(comm_mpi *mpi, int32_t *leader_of_rank, char *message);
  int (*all_gather)(comm_mpi *mpi, const void *in, int32_t bytes, void *out, char *message);
  int (*send)(comm_mpi *mpi, const void *bytes, size_t count, int32_t to, uint64_t *request, char *message);
  int (*receive)(comm_mpi *mpi, void *bytes, size_t count, int32_t from, uint64_t *request, char *message);
  int (*test)(comm_mpi *mpi, uint64_t *requests, int32_t count, int *done, char *message);
} comm_mpi_table;

/* The only symbol of the module. Non-zero where versions or sizes differ. */
#define COMM_MPI_ENTRY "tr_module_mpi"
typedef int (*comm_mpi_entry)(const comm_mpi_host *host, comm_mpi_table *table);

#endif
