/* One memfd for the workers of a node: see cache_share.h. */
#include "cache_share.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agree.h"
#include "cache_key.h"

/* What a worker tells the others. */
typedef struct note {
  uint64_t node[2]; /* equal where /proc/PID/fd can be shared: one boot, one space of process numbers, one user */
  uint64_t nonce;
  int32_t pid, descriptor; /* -1: not the first of its node */
} note;

static void find_node(uint64_t node[2]) {
  char text[128] = "";
  struct stat st = {0};
  const int fd = open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC);
  const ssize_t got = fd >= 0 ? read(fd, text, 64) : 0;
  if (fd >= 0) close(fd);
  size_t length = got > 0 ? (size_t)got : 0;
  (void)!stat("/proc/self/ns/pid", &st);
  length += (size_t)snprintf(text + length, sizeof text - length, "%llu %u", (unsigned long long)st.st_ino,
                             (unsigned)geteuid());
  dl_cache_hash(text, length, node);
}

static bool is_near(const note *a, const note *b) { return a->node[0] == b->node[0] && a->node[1] == b->node[1]; }

static int32_t first_near(const note *notes, int32_t rank) {
  int32_t first = 0;
  while (!is_near(&notes[first], &notes[rank])) first++;
  return first;
}

static tr_status open_of(const note *first, int32_t rank, int *descriptor, tr_error *error) {
  char path[64];
  snprintf(path, sizeof path, "/proc/%d/fd/%d", (int)first->pid, (int)first->descriptor);
  *descriptor = open(path, O_RDWR | O_CLOEXEC);
  if (*descriptor >= 0) return TR_OK;
  return tr_fail_errno(error, TR_ERR_UNAVAILABLE, errno,
                       "cache: the memory of rank %d's cache cannot be opened at %s (is /proc hidden?)", rank, path);
}

static tr_status share(const tr_exchange *exchange, note *notes, dl_share_make make, void *self, dl_share *out,
                       tr_error *error) {
  const int32_t rank = exchange->rank;
  note mine = {.pid = (int32_t)getpid(), .descriptor = -1};
  find_node(mine.node);
  TR_TRY(exchange->all_gather(exchange->self, &mine, sizeof mine, notes, error));
  const int32_t first = first_near(notes, rank);
  *out = (dl_share){.descriptor = -1};
  for (int32_t r = 0; r < exchange->size; r++) {
    if (!is_near(&notes[r], &notes[rank])) continue;
    if (r < rank) out->node_rank++;
    out->node_size++;
  }
  tr_status status = TR_OK;
  if (first == rank) status = make(self, out->node_size, &out->descriptor, &out->nonce, error);
  TR_TRY(dl_agree(exchange, status, error));
  mine.descriptor = out->descriptor;
  mine.nonce = out->nonce;
  TR_TRY(exchange->all_gather(exchange->self, &mine, sizeof mine, notes, error));
  if (first != rank) {
    out->nonce = notes[first].nonce;
    status = open_of(&notes[first], first, &out->descriptor, error);
  }
  return dl_agree(exchange, status, error);
}

tr_status dl_share_open(const tr_exchange *exchange, const tr_allocator *allocator, dl_share_make make, void *self,
                        dl_share *out, tr_error *error) {
  *out = (dl_share){.descriptor = -1, .node_size = 1};
  if (exchange == NULL || exchange->size <= 1) return make(self, 1, &out->descriptor, &out->nonce, error);
  note *notes = tr_calloc(allocator, (size_t)exchange->size, sizeof *notes);
  tr_status status = notes == NULL
                         ? tr_fail_memory(error, "the workers of a node", (size_t)exchange->size * sizeof *notes)
                         : TR_OK;
  status = dl_agree(exchange, status, error);
  if (status == TR_OK) status = share(exchange, notes, make, self, out, error);
  if (status != TR_OK && out->descriptor >= 0) close(out->descriptor);
  tr_free(allocator, notes);
  return status;
}
