/* How an op's work is cut for the compute threads: by ranges of elements or by tiles, at limits that come from the shape
 * alone, so that the number of threads changes no bit. */
#include <stdatomic.h>

#include "graph_private.h"

typedef struct split_job {
  tr_op_run *run;
  size_t n, grain;
  void (*fn)(tr_op_run *run, size_t begin, size_t end);
} split_job;

static void split_task(void *self, uint32_t task) {
  const split_job *job = self;
  const size_t begin = (size_t)task * job->grain;
  const size_t end = job->n - begin < job->grain ? job->n : begin + job->grain;
  job->fn(job->run, begin, end);
}

/* What is cut this way gives the same bits for any cut, so one thread takes the whole in one call. */
void tr_ops_split(tr_op_run *run, size_t n, size_t grain, void (*fn)(tr_op_run *run, size_t begin, size_t end)) {
  if (tr_pool_threads(run->pool) == 1 || n <= grain) {
    if (n > 0) fn(run, 0, n);
    return;
  }
  split_job job = {run, n, grain, fn};
  tr_pool_run(run->pool, (uint32_t)((n + grain - 1) / grain), split_task, &job);
}

typedef struct tile_job {
  tr_op_run *run;
  int32_t tiles;
  atomic_int next;
  char *scratch;
  size_t scratch_bytes;
  void (*fn)(tr_op_run *run, int32_t tile, void *scratch);
} tile_job;

/* A task is a lane with a scratch of its own; lanes draw tiles until there are none. */
static void tile_lane(void *self, uint32_t lane) {
  tile_job *job = self;
  void *scratch = job->scratch + lane * job->scratch_bytes;
  for (;;) {
    const int32_t tile = atomic_fetch_add_explicit(&job->next, 1, memory_order_relaxed);
    if (tile >= job->tiles) return;
    job->fn(job->run, tile, scratch);
  }
}

static uint32_t lanes_of(const tr_pool *pool, int32_t tiles) {
  const uint32_t threads = tr_pool_threads(pool);
  return tiles < 1 ? 1 : threads < (uint32_t)tiles ? threads : (uint32_t)tiles;
}

size_t tr_ops_tiles_scratch(const tr_graph *graph, int32_t tiles, size_t scratch_bytes) {
  return lanes_of(graph->options.pool, tiles) * tr_ops_round64(scratch_bytes);
}

void tr_ops_tiles(tr_op_run *run, int32_t tiles, size_t scratch_offset, size_t scratch_bytes,
                  void (*fn)(tr_op_run *run, int32_t tile, void *scratch)) {
  char *scratch = run->scratch != NULL ? (char *)run->scratch + scratch_offset : NULL;
  const uint32_t lanes = lanes_of(run->pool, tiles);
  if (lanes == 1) {
    for (int32_t tile = 0; tile < tiles; tile++) fn(run, tile, scratch);
    return;
  }
  tile_job job = {
      .run = run, .tiles = tiles, .scratch = scratch, .scratch_bytes = tr_ops_round64(scratch_bytes), .fn = fn};
  atomic_init(&job.next, 0);
  tr_pool_run(run->pool, lanes, tile_lane, &job);
}
