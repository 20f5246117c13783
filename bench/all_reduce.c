/* All-reduce in place of registered memory: `trainrun --workers 2 all_reduce WINDOWS BYTES...` prints a line a size. */
#include <stdio.h>
#include <stdlib.h>
#include <trainrun/trainrun.h>

#include "lib/windows.h"

typedef struct bench {
  tr_comm *comm;
  float *buffer;
  size_t count;
  tr_status status; /* of the last sum */
  tr_error error;
} bench;

static int run(void *self) {
  bench *b = self;
  b->status = tr_comm_all_reduce(b->comm, b->buffer, b->count, TR_F32, TR_SUM, NULL, &b->error);
  return b->status != TR_OK;
}

static double largest(void *self, double value) {
  bench *b = self;
  b->status = tr_comm_all_reduce(b->comm, &value, 1, TR_F64, TR_MAX, NULL, &b->error);
  return b->status == TR_OK ? value : -1;
}

/* One sum with an answer that is known, then zeros, which stay as they are however often they are summed. */
static tr_status check_sum(bench *b, int32_t rank, int32_t size) {
  for (size_t i = 0; i < b->count; i++) b->buffer[i] = (float)((size_t)rank + 1 + i % 7);
  TR_TRY(tr_comm_all_reduce(b->comm, b->buffer, b->count, TR_F32, TR_SUM, NULL, &b->error));
  const size_t ranks = (size_t)size * ((size_t)size + 1) / 2;
  for (size_t i = 0; i < b->count; i++) {
    if (b->buffer[i] != (float)(ranks + (size_t)size * (i % 7))) {
      return tr_fail(&b->error, TR_ERR_CORRUPT, "element %zu of %zu is %g", i, b->count, (double)b->buffer[i]);
    }
    b->buffer[i] = 0;
  }
  return TR_OK;
}

static tr_status measure(bench *b, const bench_side *side, int32_t size, size_t windows, size_t bytes) {
  b->count = bytes / sizeof(float);
  void *memory = NULL;
  TR_TRY(tr_comm_alloc(b->comm, bytes, &memory, &b->error));
  b->buffer = memory;
  double seconds[BENCH_WINDOWS_MAX];
  tr_status status = check_sum(b, side->rank, size);
  const uint64_t count = status == TR_OK ? bench_count(side, 0.02) : 0;
  for (size_t i = 0; i < windows && count > 0; i++) seconds[i] = bench_window(side, count);
  if (status == TR_OK) status = b->status;
  if (status == TR_OK) bench_print(side, "all_reduce", bytes, seconds, windows);
  tr_comm_free(b->comm, memory);
  return status;
}

int main(int argc, char **argv) {
  tr_session *session = NULL;
  bench b = {.error = {.status = TR_OK}};
  tr_status status = tr_session_open(argc, argv, NULL, &session, &b.error);
  if (status == TR_OK) {
    b.comm = tr_session_comm(session);
    const bench_side side = {.self = &b, .rank = tr_session_rank(session), .run = run, .largest = largest};
    const size_t windows = argc > 1 ? strtoul(argv[1], NULL, 10) : 0;
    for (int i = 2; i < argc && status == TR_OK && windows <= BENCH_WINDOWS_MAX; i++) {
      status = measure(&b, &side, tr_session_size(session), windows, strtoul(argv[i], NULL, 10));
    }
  }
  if (status != TR_OK) fprintf(stderr, "all_reduce: %s\n", b.error.message);
  return tr_session_close(session, status, &b.error);
}
