/* Plans by leaf count, kept: a job has one for its steps, one for all-reduce, now and then another for a last step. */
#include <trainrun/split.h>

#include "engine.h"

static void entry_clear(engine *e, engine_plans *entry) {
  comm_plan_destroy(entry->root);
  comm_plan_destroy(entry->host);
  tr_free(e->base.allocator, entry->host_nodes);
  if (entry->messages != NULL) tr_free_aligned(e->base.allocator, entry->messages, entry->message_bytes);
  *entry = (engine_plans){0};
}

void engine_plans_clear(engine *e) {
  for (int i = 0; i < ENGINE_PLANS; i++) entry_clear(e, &e->plans[i]);
}

/* The parts that `rank` holds, appended to nodes (which may be NULL: only counted). */
static uint32_t parts_of_rank(const engine *e, uint64_t leaf_count, int32_t rank, comm_node *nodes) {
  tr_tree_part parts[TR_TREE_PARTS_MAX];
  const uint64_t size = (uint64_t)e->world.size;
  const uint32_t n = tr_tree_parts(leaf_count, tr_split_begin(leaf_count, size, (uint64_t)rank),
                                   tr_split_end(leaf_count, size, (uint64_t)rank), parts);
  for (uint32_t p = 0; nodes != NULL && p < n; p++)
    nodes[p] = (comm_node){parts[p].first_leaf, parts[p].leaf_end, rank, e->world.host[rank], p};
  return n;
}

/* All parts of one host (or, with host -1, of all) in leaf order, which is the order of ranks. */
static uint32_t parts_of_host(const engine *e, uint64_t leaf_count, int32_t host, comm_node *nodes) {
  uint32_t count = 0;
  for (int32_t r = 0; r < e->world.size; r++)
    if (host < 0 || e->world.host[r] == host)
      count += parts_of_rank(e, leaf_count, r, nodes != NULL ? nodes + count : NULL);
  return count;
}

/* Sorts by first leaf. Runs of few hosts arrive nearly sorted, and this is done once a leaf count. */
static void sort_nodes(comm_node *nodes, uint32_t count) {
  for (uint32_t i = 1; i < count; i++) {
    const comm_node node = nodes[i];
    uint32_t at = i;
    for (; at > 0 && nodes[at - 1].first > node.first; at--) nodes[at] = nodes[at - 1];
    nodes[at] = node;
  }
}

/* Between hosts: what each host sends after its own additions, and with it the root's inputs. */
static tr_status build_hosts(engine *e, engine_plans *entry, comm_node *scratch, comm_node *inputs, uint32_t *count,
                             tr_error *error) {
  const tr_allocator *allocator = e->base.allocator;
  const int32_t here = e->world.host[e->world.rank];
  entry->host_nodes = tr_calloc(allocator, (size_t)e->world.host_count, sizeof *entry->host_nodes);
  if (entry->host_nodes == NULL) return tr_fail_memory(error, "a plan of sums", sizeof *entry->host_nodes);
  for (int32_t h = 0; h < e->world.host_count; h++) {
    const uint32_t n = parts_of_host(e, entry->leaf_count, h, scratch);
    comm_plan *plan;
    TR_TRY(comm_plan_create(allocator, entry->leaf_count, scratch, n, &plan, error));
    entry->host_nodes[h] = plan->output_count;
    if (h == here) {
      entry->host = plan;
      for (uint32_t i = 0; i < n; i++) inputs[(*count)++] = scratch[i];
      continue;
    }
    for (uint32_t i = 0; i < plan->output_count; i++)
      inputs[(*count)++] = (comm_node){plan->outputs[i].first, plan->outputs[i].end, -1, h, i};
    comm_plan_destroy(plan);
  }
  sort_nodes(inputs, *count);
  return TR_OK;
}

static tr_status build(engine *e, engine_plans *entry, tr_error *error) {
  const tr_allocator *allocator = e->base.allocator;
  const uint32_t all = parts_of_host(e, entry->leaf_count, -1, NULL);
  for (int32_t r = 0; r < e->world.size; r++) {
    const uint32_t n = parts_of_rank(e, entry->leaf_count, r, NULL);
    if (n > entry->most_parts) entry->most_parts = n;
  }
  comm_node *nodes = tr_calloc(allocator, 2 * (size_t)all, sizeof *nodes);
  if (nodes == NULL) return tr_fail_memory(error, "a plan of sums", 2 * (size_t)all * sizeof *nodes);
  uint32_t count = 0;
  tr_status status = TR_OK;
  if (!engine_spans_hosts(e))
    count = parts_of_host(e, entry->leaf_count, -1, nodes);
  else
    status = build_hosts(e, entry, nodes + all, nodes, &count, error);
  if (status == TR_OK) status = comm_plan_create(allocator, entry->leaf_count, nodes, count, &entry->root, error);
  tr_free(allocator, nodes);
  if (status == TR_OK && engine_spans_hosts(e)) status = engine_remote_reserve(e, entry, error);
  return status;
}

tr_status engine_plans_get(engine *e, uint64_t leaf_count, engine_plans **out, tr_error *error) {
  engine_plans *oldest = NULL;
  for (int i = 0; i < ENGINE_PLANS; i++) {
    engine_plans *entry = &e->plans[i];
    if (entry->leaf_count == leaf_count) {
      *out = entry;
      return TR_OK;
    }
    const bool idle = entry->leaf_count == 0 || entry->last_used <= e->completed;
    if (idle && (oldest == NULL || entry->last_used < oldest->last_used)) oldest = entry;
  }
  if (oldest == NULL)
    return tr_fail(error, TR_ERR_INVALID, "collective: more than %d leaf counts under way at once", ENGINE_PLANS);
  entry_clear(e, oldest);
  oldest->leaf_count = leaf_count;
  const tr_status status = build(e, oldest, error);
  if (status != TR_OK) {
    entry_clear(e, oldest);
    return status;
  }
  *out = oldest;
  return TR_OK;
}
