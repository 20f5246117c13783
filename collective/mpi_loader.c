/* The `mpi` backend: opens the module, asks it who is where, makes the segments of the hosts, starts the engine.
 *
 * Under a bare mpirun nobody hands a segment down. The first rank of a host makes it and its neighbours open it through
 * /proc/<pid>/fd/<n>, which the kernel allows processes of one user: so nothing ever stands in /dev/shm. */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "engine.h"
#include "mpi_abi.h"

#define MODULE_NAME "libtrainrun_mpi.so"

/* What a transport is to the engine: the module's table and its communicator. */
typedef struct mpi_link {
  const tr_allocator *allocator;
  comm_mpi_table table;
  comm_mpi *mpi;
} mpi_link;

static void *host_alloc(void *self, size_t bytes) { return tr_alloc(self, bytes); }
static void host_free(void *self, void *p) { tr_free(self, p); }

static tr_status fail_module(tr_error *error, int code, const char *message) {
  const tr_status status = code == COMM_MPI_UNAVAILABLE ? TR_ERR_UNAVAILABLE
                           : code == COMM_MPI_NO_MEMORY ? TR_ERR_NO_MEMORY
                                                        : TR_ERR_PEER;
  return tr_fail(error, status, "MPI: %s", message);
}

/* The folder that this very code was loaded from: libtrainrun's, or a program's that has it built in. */
static tr_status module_path(const char *folder, char *path, size_t bytes, tr_error *error) {
  Dl_info info;
  int written;
  if (folder != NULL) {
    written = snprintf(path, bytes, "%s/" MODULE_NAME, folder);
  } else {
    if (dladdr((void *)(uintptr_t)&module_path, &info) == 0 || info.dli_fname == NULL)
      return tr_fail(error, TR_ERR_UNAVAILABLE, "MPI: cannot tell where libtrainrun lies");
    const char *slash = strrchr(info.dli_fname, '/');
    const int length = slash != NULL ? (int)(slash - info.dli_fname) : 1;
    written = snprintf(path, bytes, "%.*s/" MODULE_NAME, length, slash != NULL ? info.dli_fname : ".");
  }
  if (written < 0 || (size_t)written >= bytes)
    return tr_fail(error, TR_ERR_UNAVAILABLE, "MPI: the path of the module is too long");
  return TR_OK;
}

/* The module stays loaded: an MPI library cannot be unloaded safely. RTLD_GLOBAL, since Open MPI's plugins look for its
 * symbols there. */
static tr_status load(const char *folder, const comm_mpi_host *host, comm_mpi_table *table, tr_error *error) {
  char path[4096];
  TR_TRY(module_path(folder, path, sizeof path, error));
  if (access(path, R_OK) != 0)
    return tr_fail(error, TR_ERR_UNAVAILABLE, "MPI: no module %s: install Open MPI's headers and run `make mpi`", path);
  void *module = dlopen(path, RTLD_NOW | RTLD_GLOBAL);
  if (module == NULL) return tr_fail(error, TR_ERR_UNAVAILABLE, "MPI: %s", dlerror());
  comm_mpi_entry entry;
  void *symbol = dlsym(module, COMM_MPI_ENTRY);
  if (symbol == NULL) return tr_fail(error, TR_ERR_UNAVAILABLE, "MPI: %s is no module of trainrun", path);
  memcpy(&entry, &symbol, sizeof entry);
  *table = (comm_mpi_table){.version = COMM_MPI_VERSION, .struct_bytes = sizeof *table};
  if (entry(host, table) != 0)
    return tr_fail(error, TR_ERR_UNAVAILABLE, "MPI: %s was built for another version of trainrun: run `make mpi`",
                   path);
  return TR_OK;
}

static tr_status link_send(void *self, const void *bytes, size_t count, int32_t to, uint64_t *request,
                           tr_error *error) {
  mpi_link *link = self;
  char message[COMM_MPI_MESSAGE_BYTES] = "";
  const int code = link->table.send(link->mpi, bytes, count, to, request, message);
  return code == COMM_MPI_OK ? TR_OK : fail_module(error, code, message);
}

static tr_status link_receive(void *self, void *bytes, size_t count, int32_t from, uint64_t *request, tr_error *error) {
  mpi_link *link = self;
  char message[COMM_MPI_MESSAGE_BYTES] = "";
  const int code = link->table.receive(link->mpi, bytes, count, from, request, message);
  return code == COMM_MPI_OK ? TR_OK : fail_module(error, code, message);
}

static tr_status link_test(void *self, uint64_t *requests, int32_t count, bool *done, tr_error *error) {
  mpi_link *link = self;
  char message[COMM_MPI_MESSAGE_BYTES] = "";
  int all = 0;
  const int code = link->table.test(link->mpi, requests, count, &all, message);
  if (code != COMM_MPI_OK) return fail_module(error, code, message);
  *done = all != 0;
  return TR_OK;
}

static void link_close(void *self, bool aborted) {
  mpi_link *link = self;
  if (link->mpi != NULL) link->table.close(link->mpi, aborted);
  tr_free(link->allocator, link);
}

static tr_status gather(mpi_link *link, const void *in, size_t bytes, void *out, tr_error *error) {
  char message[COMM_MPI_MESSAGE_BYTES] = "";
  const int code = link->table.all_gather(link->mpi, in, (int32_t)bytes, out, message);
  return code == COMM_MPI_OK ? TR_OK : fail_module(error, code, message);
}

/* Hosts numbered by their lowest rank, into host_of_rank. */
static tr_status find_hosts(mpi_link *link, int32_t ranks_per_host, int32_t size, int32_t *host_of_rank,
                            tr_error *error) {
  if (ranks_per_host != 0) {
    for (int32_t r = 0; r < size; r++) host_of_rank[r] = ranks_per_host > 0 ? r / ranks_per_host : r % -ranks_per_host;
    return TR_OK;
  }
  char message[COMM_MPI_MESSAGE_BYTES] = "";
  const int code = link->table.hosts(link->mpi, host_of_rank, message);
  if (code != COMM_MPI_OK) return fail_module(error, code, message);
  int32_t hosts = 0;
  for (int32_t r = 0; r < size; r++) {
    const int32_t leader = host_of_rank[r];
    if (leader < 0 || leader > r) return tr_fail(error, TR_ERR_BUG, "MPI: rank %d has leader %d", r, leader);
    host_of_rank[r] = leader == r ? hosts++ : host_of_rank[leader];
  }
  return TR_OK;
}

typedef struct segment_note {
  int32_t status, pid, descriptor;
} segment_note;

/* The descriptor of this host's segment. All ranks learn whether all could open theirs: none is left waiting. */
static tr_status share_segment(mpi_link *link, const engine_world *world, segment_note *notes, int *descriptor,
                               tr_error *error) {
  const int32_t host = world->host[world->rank];
  const int32_t first = world->order[world->host_begin[host]];
  const int32_t local_size = world->host_begin[host + 1] - world->host_begin[host];
  int fd = -1;
  tr_status status = TR_OK;
  if (first == world->rank) status = tr_comm_segment_create(local_size, &fd, error);
  segment_note note = {(int32_t)status, (int32_t)getpid(), fd};
  tr_status gathered = gather(link, &note, sizeof note, notes, error);
  if (gathered == TR_OK && first != world->rank && notes[first].descriptor >= 0) {
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/fd/%d", notes[first].pid, notes[first].descriptor);
    fd = open(path, O_RDWR | O_CLOEXEC);
    if (fd < 0)
      status = tr_fail_errno(error, TR_ERR_UNAVAILABLE, errno, "MPI: cannot open the segment of rank %d at %s", first,
                             path);
  }
  note.status = (int32_t)status;
  if (gathered == TR_OK) gathered = gather(link, &note, sizeof note, notes, error);
  if (status == TR_OK) status = gathered;
  for (int32_t r = 0; status == TR_OK && r < world->size; r++)
    if (notes[r].status != (int32_t)TR_OK) {
      status = tr_fail(error, TR_ERR_PEER, "MPI: rank %d cannot use its host's shared memory (%s)", r,
                       tr_status_name((tr_status)notes[r].status));
      if (error != NULL) error->rank = r;
    }
  if (status != TR_OK && fd >= 0) close(fd);
  if (status == TR_OK) *descriptor = fd;
  return status;
}

static tr_status start_engine(const tr_comm_mpi_options *options, mpi_link *link, const int32_t *host_of_rank,
                              int32_t rank, int32_t size, segment_note *notes, tr_comm **out, tr_error *error) {
  engine_world world;
  TR_TRY(engine_world_create(options->allocator, rank, size, host_of_rank, &world, error));
  int descriptor = -1;
  tr_status status = share_segment(link, &world, notes, &descriptor, error);
  if (status != TR_OK) {
    engine_world_fini(options->allocator, &world);
    return status;
  }
  engine_options inner = {.backend = "mpi",
                          .allocator = options->allocator,
                          .clock = options->clock,
                          .descriptor = descriptor,
                          .epoch = 1,
                          .timeout_ns = options->timeout_ns,
                          .cores = options->cores};
  inner.transport = (engine_transport){link, link_send, link_receive, link_test, link_close};
  status = engine_open(&inner, &world, out, error);
  close(descriptor);
  return status;
}

tr_status tr_comm_open_mpi(const tr_comm_mpi_options *options, tr_comm **out, tr_error *error) {
  if (options->struct_bytes != sizeof *options)
    return tr_fail(error, TR_ERR_INVALID, "tr_comm_mpi_options: wrong struct_bytes");
  const tr_allocator *allocator = options->allocator != NULL ? options->allocator : tr_allocator_system();
  const comm_mpi_host host = {COMM_MPI_VERSION, sizeof host, host_alloc, host_free, (void *)(uintptr_t)allocator};
  mpi_link *link = tr_calloc(allocator, 1, sizeof *link);
  if (link == NULL) return tr_fail_memory(error, "the MPI backend", sizeof *link);
  link->allocator = allocator;
  tr_status status = load(options->module_folder, &host, &link->table, error);
  int32_t rank = 0, size = 0, *host_of_rank = NULL;
  segment_note *notes = NULL;
  if (status == TR_OK) {
    char message[COMM_MPI_MESSAGE_BYTES] = "";
    const int code = link->table.open(&host, &link->mpi, &rank, &size, message);
    if (code != COMM_MPI_OK) status = fail_module(error, code, message);
  }
  if (status == TR_OK) {
    host_of_rank = tr_calloc(allocator, (size_t)size, sizeof *host_of_rank);
    notes = tr_calloc(allocator, (size_t)size, sizeof *notes);
    if (host_of_rank == NULL || notes == NULL) status = tr_fail_memory(error, "the table of ranks", sizeof *notes);
  }
  if (status == TR_OK) status = find_hosts(link, options->ranks_per_host, size, host_of_rank, error);
  if (status == TR_OK) status = start_engine(options, link, host_of_rank, rank, size, notes, out, error);
  tr_free(allocator, notes);
  tr_free(allocator, host_of_rank);
  if (status != TR_OK) link_close(link, true);
  return status;
}
