/* Graphs made by seed: many readers of one tensor, views, ties, dead ends. A graph with every plan and fusion on and its
 * dead memory poisoned gives the bits of one that keeps every tensor. */
#include "ops_fixture.h"

enum { POOL_MAX = 24 };

typedef struct maker {
  tr_graph *graph;
  uint64_t seed, draws;
  tr_tensor tensors[POOL_MAX];
  int count;
  int named;
} maker;

static uint64_t draw(maker *m, uint64_t below) { return tr_rng_below(m->seed, TR_RNG_USER, 1, m->draws++, below); }

static void keep(maker *m, tr_tensor made) {
  if (m->count < POOL_MAX)
    m->tensors[m->count++] = made;
  else
    m->tensors[draw(m, POOL_MAX)] = made;
}

static tr_tensor any(maker *m) { return m->tensors[draw(m, (uint64_t)m->count)]; }

static tr_tensor of_shape_as(maker *m, tr_tensor a) {
  const tr_tensor_info want = tr_tensor_describe(m->graph, a);
  for (int tries = 0; tries < 8; tries++) {
    const tr_tensor b = any(m);
    const tr_tensor_info info = tr_tensor_describe(m->graph, b);
    if (info.ndim == want.ndim && memcmp(info.shape, want.shape, sizeof info.shape) == 0) return b;
  }
  return a;
}

static tr_tensor view_of(maker *m, tr_tensor x) {
  const tr_tensor_info info = tr_tensor_describe(m->graph, x);
  const int64_t last = info.shape[info.ndim - 1];
  if (info.ndim > 2 || last % 2 != 0) return tr_flatten(m->graph, x);
  const int64_t shape[] = {2, last / 2};
  return tr_reshape(m->graph, x, 2, shape);
}

static void add_op(maker *m) {
  tr_graph *g = m->graph;
  const tr_tensor x = any(m);
  char name[32];
  /* Sometimes the name of an earlier layer, which ties them where the shapes allow it. */
  snprintf(name, sizeof name, "layer%d", m->named++);
  switch (draw(m, 10)) {
    case 0:
    case 1: keep(m, tr_linear(g, name, x, 2 * (1 + (int64_t)draw(m, 9)), draw(m, 2) == 0)); break;
    case 2: keep(m, tr_relu(g, tr_linear(g, name, x, 6, true))); break;
    case 3: keep(m, tr_relu(g, x)); break;
    case 4: keep(m, tr_gelu(g, x)); break;
    case 5: keep(m, tr_add(g, x, of_shape_as(m, x))); break;
    case 6: keep(m, tr_layer_norm(g, name, x, 1e-2f)); break;
    case 7: keep(m, view_of(m, x)); break;
    case 8: keep(m, tr_dropout(g, x, 0.25f)); break;
    default: {
      const tr_tensor_info info = tr_tensor_describe(g, x);
      snprintf(name, sizeof name, "tied%d", (int)info.shape[info.ndim - 1]);
      keep(m, tr_linear(g, name, x, info.shape[info.ndim - 1], true));
    }
  }
}

/* A part of the tensors that are left goes into the loss; the others are dead ends. */
static void random_graph(fx *f, tr_graph *g, int size) {
  (void)f;
  maker m = {.graph = g, .seed = (uint64_t)size};
  const int64_t widths[] = {6, 8};
  for (int i = 0; i < 2; i++) {
    char name[8];
    snprintf(name, sizeof name, "x%d", i);
    keep(&m, tr_linear(g, name, fx_input(g, name, widths[i]), widths[i], true));
  }
  const int ops = 5 + size % 30;
  for (int i = 0; i < ops; i++) add_op(&m);
  tr_tensor loss = TR_TENSOR_INVALID;
  for (int i = 0; i < m.count; i++) {
    if (draw(&m, 3) == 0 && loss != TR_TENSOR_INVALID) continue;
    const tr_tensor part = tr_mean_squared_error(g, m.tensors[i], of_shape_as(&m, m.tensors[i]));
    loss = loss == TR_TENSOR_INVALID ? part : tr_add(g, loss, part);
  }
  tr_graph_loss(g, loss);
}

static void compare(int seed, uint32_t threads) {
  tr_pool *pool = NULL;
  cr_assert_eq(tr_pool_create(NULL, threads, &pool, NULL), TR_OK);
  fx kept = {.rows = 1 + seed % 7, .size = seed, .compile = {.no_fusion = true}};
  fx planned = {.rows = kept.rows, .size = seed, .compile = {.poison = true, .pool = pool}};
  fx_open(&kept, random_graph);
  fx_open(&planned, random_graph);
  const double a = fx_step(&kept);
  for (int repeat = 0; repeat < 2; repeat++) {
    cr_assert_eq(fx_step(&planned), a, "seed %d", seed);
    cr_assert(fx_same_gradient(&kept, &planned), "seed %d", seed);
  }
  cr_assert_leq(tr_graph_arena_bytes(planned.graph), tr_graph_arena_bytes(kept.graph) * threads);
  fx_close(&kept);
  fx_close(&planned);
  tr_pool_destroy(pool);
}

Test(random_graphs, give_the_same_bits_planned_and_unplanned, .timeout = 300) {
  const int graphs = ts_long() ? 2000 : 100;
  for (int seed = 1; seed <= graphs; seed++) compare(seed, 1 + (uint32_t)seed % 3);
}
