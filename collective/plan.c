/* Plans of additions: a stack machine run once at build time, its additions run chunk by chunk.
 *
 * A chunk is small enough that the temporaries of a whole tree stay in the first cache; every input is read once and
 * every target written once, which is all the memory traffic there is. */
#include "plan.h"

#include <string.h>

#include "tree.h"

/* Bytes of a temporary. */
enum { CHUNK_BYTES = 4096 };

typedef struct builder {
  comm_plan *plan;
  comm_output *stack; /* nodes not merged yet: at most input_count */
  uint32_t depth;
  uint32_t *spare; /* temporaries free again */
  uint32_t spare_count;
} builder;

static bool is_temp(const comm_plan *plan, uint32_t operand) { return operand >= plan->input_count; }

/* Merges the two nodes on top of the stack: into a temporary that one of them is, or else a free or a new one. */
static void merge_top(builder *b) {
  comm_plan *plan = b->plan;
  comm_output *left = &b->stack[b->depth - 2];
  const comm_output *right = &b->stack[b->depth - 1];
  uint32_t dst;
  if (is_temp(plan, left->operand)) {
    dst = left->operand;
    if (is_temp(plan, right->operand)) b->spare[b->spare_count++] = right->operand;
  } else if (is_temp(plan, right->operand)) {
    dst = right->operand;
  } else if (b->spare_count > 0) {
    dst = b->spare[--b->spare_count];
  } else {
    dst = plan->input_count + plan->temp_count++;
  }
  plan->adds[plan->add_count++] = (comm_add){dst, left->operand, right->operand};
  left->end = right->end;
  left->operand = dst;
  b->depth--;
}

static void build(builder *b) {
  comm_plan *plan = b->plan;
  for (uint32_t i = 0; i < plan->input_count; i++) {
    b->stack[b->depth++] = (comm_output){plan->inputs[i].first, plan->inputs[i].end, i};
    while (b->depth >= 2) {
      const comm_output *left = &b->stack[b->depth - 2], *right = &b->stack[b->depth - 1];
      if (left->end != right->first || !tr_tree_siblings(plan->leaf_count, left->first, left->end, right->end)) break;
      merge_top(b);
    }
  }
  plan->output_count = b->depth;
}

tr_status comm_plan_create(const tr_allocator *allocator, uint64_t leaf_count, const comm_node *inputs,
                           uint32_t input_count, comm_plan **out, tr_error *error) {
  const uint32_t room = input_count > 0 ? input_count : 1;
  comm_plan *plan = tr_calloc(allocator, 1, sizeof *plan);
  if (plan == NULL) return tr_fail_memory(error, "a plan of sums", sizeof *plan);
  plan->allocator = allocator;
  plan->leaf_count = leaf_count;
  plan->input_count = input_count;
  builder b = {.plan = plan};
  plan->inputs = tr_calloc(allocator, room, sizeof *plan->inputs);
  plan->adds = tr_calloc(allocator, room, sizeof *plan->adds);
  plan->outputs = tr_calloc(allocator, room, sizeof *plan->outputs);
  plan->sources = tr_calloc(allocator, room, sizeof *plan->sources);
  plan->targets = tr_calloc(allocator, room, sizeof *plan->targets);
  b.stack = plan->outputs;
  b.spare = tr_calloc(allocator, room, sizeof *b.spare);
  if (!plan->inputs || !plan->adds || !plan->outputs || !plan->sources || !plan->targets || !b.spare) goto err_memory;
  if (input_count > 0) memcpy(plan->inputs, inputs, input_count * sizeof *inputs);
  build(&b);
  if (plan->temp_count > 0) {
    plan->temps = tr_alloc_aligned(allocator, (size_t)plan->temp_count * CHUNK_BYTES, TR_CACHE_LINE);
    if (plan->temps == NULL) goto err_memory;
  }
  tr_free(allocator, b.spare);
  *out = plan;
  return TR_OK;

err_memory:
  tr_free(allocator, b.spare);
  comm_plan_destroy(plan);
  return tr_fail_memory(error, "a plan of sums", (size_t)room * sizeof *plan->inputs);
}

void comm_plan_destroy(comm_plan *plan) {
  if (plan == NULL) return;
  if (plan->temps != NULL) tr_free_aligned(plan->allocator, plan->temps, (size_t)plan->temp_count * CHUNK_BYTES);
  tr_free(plan->allocator, plan->targets);
  tr_free(plan->allocator, plan->sources);
  tr_free(plan->allocator, plan->outputs);
  tr_free(plan->allocator, plan->adds);
  tr_free(plan->allocator, plan->inputs);
  tr_free(plan->allocator, plan);
}

/* An operand's memory for the chunk that starts `offset` bytes into the sources. */
static void *operand_at(const comm_plan *plan, uint32_t operand, size_t offset) {
  if (!is_temp(plan, operand)) return (char *)plan->sources[operand] + offset;
  return plan->temps + (size_t)(operand - plan->input_count) * CHUNK_BYTES;
}

static void copy_to(void *to, const void *from, size_t bytes) {
  if (to != from && bytes > 0) memcpy(to, from, bytes);
}

/* The root of one chunk: the last addition goes straight to the targets. */
static void run_root(const comm_plan *plan, const comm_math *math, void *const *targets, uint32_t target_count,
                     size_t offset, size_t n) {
  if (plan->add_count == 0) {
    const void *from = operand_at(plan, plan->outputs[0].operand, offset);
    for (uint32_t t = 0; t < target_count; t++) copy_to((char *)targets[t] + offset, from, n * math->element_bytes);
    return;
  }
  const comm_add *last = &plan->adds[plan->add_count - 1];
  char *first = (char *)targets[0] + offset;
  char *second = target_count > 1 ? (char *)targets[1] + offset : NULL;
  math->combine(first, second, operand_at(plan, last->a, offset), operand_at(plan, last->b, offset), n);
  for (uint32_t t = 2; t < target_count; t++) memcpy((char *)targets[t] + offset, first, n * math->element_bytes);
}

void comm_plan_run(comm_plan *plan, const comm_math *math, void *const *targets, uint32_t target_count, size_t from,
                   size_t n) {
  const bool root = plan->output_count == 1;
  const uint32_t before_root = plan->add_count - (root && plan->add_count > 0);
  /* One addition to two targets needs no temporary and goes in one run. */
  const size_t chunk = before_root == 0 && target_count <= 2 ? n : CHUNK_BYTES / math->element_bytes;
  for (size_t at = 0; at < n; at += chunk) {
    const size_t now = n - at < chunk ? n - at : chunk;
    const size_t offset = (from + at) * math->element_bytes;
    for (uint32_t i = 0; i < before_root; i++) {
      const comm_add *add = &plan->adds[i];
      math->combine(operand_at(plan, add->dst, offset), NULL, operand_at(plan, add->a, offset),
                    operand_at(plan, add->b, offset), now);
    }
    if (root) {
      run_root(plan, math, targets, target_count, offset, now);
      continue;
    }
    for (uint32_t i = 0; i < plan->output_count; i++)
      copy_to((char *)targets[i] + offset, operand_at(plan, plan->outputs[i].operand, offset),
              now * math->element_bytes);
  }
}
