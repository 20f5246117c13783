/* Embedding: rows of a table picked by ids. An id outside the table reads row 0 and is counted. */
#include <string.h>

#include "graph_private.h"

static tr_status embedding_prepare(tr_graph *graph, tr_graph_node *node, tr_error *error) {
  (void)graph;
  (void)error;
  const tr_embedding_attributes *a = node->attributes;
  node->saved_bytes = (size_t)a->n * sizeof(int32_t);
  return TR_OK;
}

static int32_t take_id(tr_op_run *run, int64_t id, int64_t count) {
  if (id >= 0 && id < count) return (int32_t)id;
  ++*run->bad_ids;
  return 0;
}

/* Ids are checked once, by the calling thread, and kept for backward. */
static void take_ids(tr_op_run *run) {
  const tr_embedding_attributes *a = run->call.attributes;
  int32_t *ids = run->saved;
  if (run->call.input_info[0].dtype == TR_I32)
    for (int64_t i = 0; i < a->n; i++) ids[i] = take_id(run, ((const int32_t *)run->call.inputs[0])[i], a->count);
  else
    for (int64_t i = 0; i < a->n; i++) ids[i] = take_id(run, ((const uint16_t *)run->call.inputs[0])[i], a->count);
}

static void embedding_range(tr_op_run *run, size_t begin, size_t end) {
  const tr_embedding_attributes *a = run->call.attributes;
  run->kernels->embedding_forward((const int32_t *)run->saved + begin, run->call.inputs[1],
                                  (float *)run->call.output + begin * (size_t)a->width, end - begin, (size_t)a->width,
                                  (size_t)a->count);
}

static void embedding_forward(tr_op_run *run) {
  const tr_embedding_attributes *a = run->call.attributes;
  take_ids(run);
  tr_ops_split(run, (size_t)a->n, 64, embedding_range);
}

/* Cut by rows of the table: each thread goes through all ids and adds, in their order, those that are its own. */
static void embedding_backward_range(tr_op_run *run, size_t begin, size_t end) {
  const tr_embedding_attributes *a = run->call.attributes;
  float *table = run->call.input_gradients[1];
  if (!run->call.input_gradient_add[1])
    memset(table + begin * (size_t)a->width, 0, (end - begin) * (size_t)a->width * sizeof *table);
  run->kernels->embedding_backward(run->saved, run->output_gradient, table, (size_t)a->n, (size_t)a->width, begin, end);
}

static void embedding_backward(tr_op_run *run) {
  const tr_embedding_attributes *a = run->call.attributes;
  if (run->call.input_gradients[1] == NULL) return;
  const size_t grain = ((size_t)a->count + 15) / 16;
  tr_ops_split(run, (size_t)a->count, grain, embedding_backward_range);
}

const tr_op_class tr_op_embedding = {
    .name = "embedding", .prepare = embedding_prepare, .forward = embedding_forward, .backward = embedding_backward};
