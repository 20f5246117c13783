/* libtrainrun_mpi.so: moves bytes between ranks by MPI, and nothing else.
 *
 * No MPI_Op and no collective of MPI takes part in a sum: the order of additions is the library's own. Collectives are
 * used once, at the opening, to learn who is where. */
#include <limits.h>
#include <mpi.h>
#include <stdio.h>
#include <string.h>

#include "../mpi_abi.h"

enum { TAG = 7 };
_Static_assert(sizeof(MPI_Request) <= sizeof(uint64_t), "a request fits into 8 bytes");

struct comm_mpi {
  comm_mpi_host host;
  MPI_Comm comm;
  int rank, size;
  int we_began; /* MPI_Init was ours */
};

static int fail_mpi(int code, const char *what, char *message) {
  char text[MPI_MAX_ERROR_STRING] = "";
  int length = 0;
  MPI_Error_string(code, text, &length);
  snprintf(message, COMM_MPI_MESSAGE_BYTES, "%s: %s", what, text);
  return COMM_MPI_FAILED;
}

static int start_mpi(comm_mpi *mpi, char *message) {
  int initialized = 0, finalized = 0;
  MPI_Finalized(&finalized);
  if (finalized) {
    snprintf(message, COMM_MPI_MESSAGE_BYTES, "MPI was already finalized in this process and cannot start again");
    return COMM_MPI_UNAVAILABLE;
  }
  MPI_Initialized(&initialized);
  if (!initialized) {
    int provided = 0;
    const int code = MPI_Init_thread(NULL, NULL, MPI_THREAD_FUNNELED, &provided);
    if (code != MPI_SUCCESS) return fail_mpi(code, "MPI_Init_thread", message);
    mpi->we_began = 1;
  }
  int code = MPI_Comm_dup(MPI_COMM_WORLD, &mpi->comm);
  if (code != MPI_SUCCESS) return fail_mpi(code, "MPI_Comm_dup", message);
  MPI_Comm_set_errhandler(mpi->comm, MPI_ERRORS_RETURN);
  MPI_Comm_rank(mpi->comm, &mpi->rank);
  MPI_Comm_size(mpi->comm, &mpi->size);
  return COMM_MPI_OK;
}

static void mpi_close(comm_mpi *mpi, int aborted) {
  const comm_mpi_host host = mpi->host;
  if (!aborted) {
    if (mpi->comm != MPI_COMM_NULL) MPI_Comm_free(&mpi->comm);
    if (mpi->we_began) MPI_Finalize();
  }
  host.free(host.self, mpi);
}

static int mpi_open(const comm_mpi_host *host, comm_mpi **out, int32_t *rank, int32_t *size, char *message) {
  comm_mpi *mpi = host->alloc(host->self, sizeof *mpi);
  if (mpi == NULL) {
    snprintf(message, COMM_MPI_MESSAGE_BYTES, "out of memory: %zu bytes", sizeof *mpi);
    return COMM_MPI_NO_MEMORY;
  }
  memset(mpi, 0, sizeof *mpi);
  mpi->host = *host;
  mpi->comm = MPI_COMM_NULL;
  const int status = start_mpi(mpi, message);
  if (status != COMM_MPI_OK) {
    mpi_close(mpi, 1);
    return status;
  }
  *rank = mpi->rank;
  *size = mpi->size;
  *out = mpi;
  return COMM_MPI_OK;
}

static int mpi_hosts(comm_mpi *mpi, int32_t *leader_of_rank, char *message) {
  MPI_Comm near = MPI_COMM_NULL;
  int code = MPI_Comm_split_type(mpi->comm, MPI_COMM_TYPE_SHARED, mpi->rank, MPI_INFO_NULL, &near);
  if (code != MPI_SUCCESS) return fail_mpi(code, "MPI_Comm_split_type", message);
  int32_t leader = mpi->rank; /* ranks of `near` are in the order of the world: its first is the lowest */
  code = MPI_Bcast(&leader, 1, MPI_INT32_T, 0, near);
  MPI_Comm_free(&near);
  if (code == MPI_SUCCESS) code = MPI_Allgather(&leader, 1, MPI_INT32_T, leader_of_rank, 1, MPI_INT32_T, mpi->comm);
  return code == MPI_SUCCESS ? COMM_MPI_OK : fail_mpi(code, "finding the ranks of a host", message);
}

static int mpi_all_gather(comm_mpi *mpi, const void *in, int32_t bytes, void *out, char *message) {
  const int code = MPI_Allgather(in, bytes, MPI_BYTE, out, bytes, MPI_BYTE, mpi->comm);
  return code == MPI_SUCCESS ? COMM_MPI_OK : fail_mpi(code, "MPI_Allgather", message);
}

static int mpi_send(comm_mpi *mpi, const void *bytes, size_t count, int32_t to, uint64_t *request, char *message) {
  if (count > INT_MAX) {
    snprintf(message, COMM_MPI_MESSAGE_BYTES, "a message of %zu bytes is too long", count);
    return COMM_MPI_FAILED;
  }
  MPI_Request made = MPI_REQUEST_NULL;
  const int code = MPI_Isend(bytes, (int)count, MPI_BYTE, to, TAG, mpi->comm, &made);
  if (code != MPI_SUCCESS) return fail_mpi(code, "MPI_Isend", message);
  memcpy(request, &made, sizeof made);
  return COMM_MPI_OK;
}

static int mpi_receive(comm_mpi *mpi, void *bytes, size_t count, int32_t from, uint64_t *request, char *message) {
  if (count > INT_MAX) {
    snprintf(message, COMM_MPI_MESSAGE_BYTES, "a message of %zu bytes is too long", count);
    return COMM_MPI_FAILED;
  }
  MPI_Request made = MPI_REQUEST_NULL;
  const int code = MPI_Irecv(bytes, (int)count, MPI_BYTE, from, TAG, mpi->comm, &made);
  if (code != MPI_SUCCESS) return fail_mpi(code, "MPI_Irecv", message);
  memcpy(request, &made, sizeof made);
  return COMM_MPI_OK;
}

/* Each on its own, so that the array of the caller may have any layout; what is done becomes MPI_REQUEST_NULL. */
static int mpi_test(comm_mpi *mpi, uint64_t *requests, int32_t count, int *done, char *message) {
  (void)mpi;
  int all = 1;
  for (int32_t i = 0; i < count; i++) {
    MPI_Request request;
    memcpy(&request, &requests[i], sizeof request);
    int one = 1;
    const int code = MPI_Test(&request, &one, MPI_STATUS_IGNORE);
    if (code != MPI_SUCCESS) return fail_mpi(code, "a message between ranks", message);
    memcpy(&requests[i], &request, sizeof request);
    all &= one;
  }
  *done = all;
  return COMM_MPI_OK;
}

__attribute__((visibility("default"))) int tr_module_mpi(const comm_mpi_host *host, comm_mpi_table *table);

int tr_module_mpi(const comm_mpi_host *host, comm_mpi_table *table) {
  if (host->version != COMM_MPI_VERSION || host->struct_bytes != sizeof *host) return 1;
  if (table->version != COMM_MPI_VERSION || table->struct_bytes != sizeof *table) return 1;
  table->open = mpi_open;
  table->close = mpi_close;
  table->hosts = mpi_hosts;
  table->all_gather = mpi_all_gather;
  table->send = mpi_send;
  table->receive = mpi_receive;
  table->test = mpi_test;
  return 0;
}
