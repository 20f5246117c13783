/* What exact sums cost: a step's gradients summed along the tree over micro-batches, against a plain sum over ranks.
 *
 *   trainrun --workers 2 exactness WINDOWS FLOATS MICRO-BATCHES...      (micro-batches of the whole job)
 *
 * Tree: each rank merges the gradients of its micro-batches into the parts that the tree asks for, then hands them over.
 * Plain: each rank adds its micro-batches up in the order they come, then one all-reduce. Both work on registered memory
 * and take turns, window by window; what backward writes is the same in both and is left out. */
#include <stdio.h>
#include <stdlib.h>
#include <trainrun/trainrun.h>

#include "lib/windows.h"

enum { BUFFERS_MAX = 64 };

typedef struct bench {
  tr_comm *comm;
  int32_t rank, size;
  size_t count;
  uint64_t leaf_count;
  float *buffers[BUFFERS_MAX];
  tr_status status; /* of the last sum */
  tr_error error;
} bench;

static int run_tree(void *self) {
  bench *b = self;
  const uint64_t begin = tr_split_begin(b->leaf_count, (uint64_t)b->size, (uint64_t)b->rank);
  const uint64_t end = tr_split_end(b->leaf_count, (uint64_t)b->size, (uint64_t)b->rank);
  uint32_t depth = 0;
  for (uint64_t leaf = begin; leaf < end; leaf++) {
    depth++;
    for (uint32_t merges = tr_tree_merges(b->leaf_count, begin, leaf); merges > 0; merges--, depth--) {
      tr_flat_add(b->buffers[depth - 2], b->buffers[depth - 1], b->count);
    }
  }
  void *parts[BUFFERS_MAX];
  for (uint32_t i = 0; i < depth; i++) parts[i] = b->buffers[i];
  const tr_reduce_leaves_args args = {.struct_bytes = sizeof args,
                                      .leaf_count = b->leaf_count,
                                      .parts = parts,
                                      .part_count = depth,
                                      .result = b->buffers[0],
                                      .count = b->count,
                                      .dtype = TR_F32};
  b->status = tr_comm_reduce_leaves(b->comm, &args, NULL, &b->error);
  return b->status != TR_OK;
}

static int run_plain(void *self) {
  bench *b = self;
  const uint64_t begin = tr_split_begin(b->leaf_count, (uint64_t)b->size, (uint64_t)b->rank);
  const uint64_t end = tr_split_end(b->leaf_count, (uint64_t)b->size, (uint64_t)b->rank);
  for (uint64_t leaf = begin + 1; leaf < end; leaf++) tr_flat_add(b->buffers[0], b->buffers[1], b->count);
  b->status = tr_comm_all_reduce(b->comm, b->buffers[0], b->count, TR_F32, TR_SUM, NULL, &b->error);
  return b->status != TR_OK;
}

static double largest(void *self, double value) {
  bench *b = self;
  b->status = tr_comm_all_reduce(b->comm, &value, 1, TR_F64, TR_MAX, NULL, &b->error);
  return b->status == TR_OK ? value : -1;
}

static tr_status open_buffers(bench *b, uint32_t *opened) {
  const uint64_t begin = tr_split_begin(b->leaf_count, (uint64_t)b->size, (uint64_t)b->rank);
  const uint64_t end = tr_split_end(b->leaf_count, (uint64_t)b->size, (uint64_t)b->rank);
  uint32_t wanted = tr_tree_buffers(b->leaf_count, begin, end);
  wanted = wanted < 2 ? 2 : wanted;
  if (wanted > BUFFERS_MAX) return tr_fail(&b->error, TR_ERR_INVALID, "%u buffers are too many", wanted);
  for (; *opened < wanted; ++*opened) {
    void *memory = NULL;
    TR_TRY(tr_comm_alloc(b->comm, b->count * sizeof(float), &memory, &b->error));
    b->buffers[*opened] = memory;
  }
  return TR_OK;
}

static tr_status measure(bench *b, size_t windows) {
  const bench_side tree = {.self = b, .rank = b->rank, .run = run_tree, .largest = largest};
  const bench_side plain = {.self = b, .rank = b->rank, .run = run_plain, .largest = largest};
  double seconds[2][BENCH_WINDOWS_MAX];
  uint32_t opened = 0;
  tr_status status = open_buffers(b, &opened);
  const uint64_t tree_count = status == TR_OK ? bench_count(&tree, 0.05) : 0;
  const uint64_t plain_count = status == TR_OK ? bench_count(&plain, 0.05) : 0;
  for (size_t i = 0; i < windows && tree_count > 0 && plain_count > 0; i++) {
    seconds[0][i] = bench_window(&tree, tree_count);
    seconds[1][i] = bench_window(&plain, plain_count);
  }
  if (status == TR_OK) status = b->status;
  if (status == TR_OK) {
    bench_print(&tree, "tree", b->leaf_count, seconds[0], windows);
    bench_print(&plain, "plain", b->leaf_count, seconds[1], windows);
  }
  while (opened > 0) tr_comm_free(b->comm, b->buffers[--opened]);
  return status;
}

int main(int argc, char **argv) {
  tr_session *session = NULL;
  bench b = {.error = {.status = TR_OK}};
  tr_status status = tr_session_open(argc, argv, NULL, &session, &b.error);
  if (status == TR_OK) {
    b.comm = tr_session_comm(session);
    b.rank = tr_session_rank(session);
    b.size = tr_session_size(session);
    const size_t windows = argc > 1 ? strtoul(argv[1], NULL, 10) : 0;
    b.count = argc > 2 ? strtoul(argv[2], NULL, 10) : 0;
    for (int i = 3; i < argc && status == TR_OK && windows <= BENCH_WINDOWS_MAX; i++) {
      b.leaf_count = strtoul(argv[i], NULL, 10);
      status = measure(&b, windows);
    }
  }
  if (status != TR_OK) fprintf(stderr, "exactness: %s\n", b.error.message);
  return tr_session_close(session, status, &b.error);
}
