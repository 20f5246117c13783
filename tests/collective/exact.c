/* The naive tree and the comparisons of exact.h. */
#include "exact.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <trainrun/split.h>

static uint32_t mix(uint32_t x) {
  x ^= x >> 16;
  x *= 0x7feb352du;
  x ^= x >> 15;
  x *= 0x846ca68bu;
  return x ^ x >> 16;
}

/* Element i of a leaf: mostly numbers of many magnitudes, sometimes what sums stumble over. */
static float leaf_value(uint32_t seed, uint64_t leaf, size_t i) {
  const uint32_t x = mix(seed ^ mix((uint32_t)leaf * 2654435761u ^ mix((uint32_t)i)));
  if (x % 97 == 0) return -0.0f;
  if (x % 101 == 0) return 1e-42f; /* a denormal */
  if (x % 4001 == 0) return x & 0x10000 ? __builtin_inff() : -__builtin_inff();
  const float scale[4] = {1e-6f, 1.0f, 1e4f, 3e-39f};
  return ((float)(int32_t)x / 2147483648.0f) * scale[x >> 7 & 3];
}

static float naive_f32(uint32_t seed, uint64_t leaves, uint64_t first, uint64_t width, size_t i) {
  if (width == 1) return leaf_value(seed, first, i);
  const float left = naive_f32(seed, leaves, first, width / 2, i);
  if (first + width / 2 >= leaves) return left;
  return left + naive_f32(seed, leaves, first + width / 2, width / 2, i);
}

static double naive_f64(uint32_t seed, uint64_t leaves, uint64_t first, uint64_t width, size_t i) {
  if (width == 1) return leaf_value(seed, first, i);
  const double left = naive_f64(seed, leaves, first, width / 2, i);
  if (first + width / 2 >= leaves) return left;
  return left + naive_f64(seed, leaves, first + width / 2, width / 2, i);
}

static void *take(tr_comm *comm, const exact_options *options, size_t bytes) {
  void *p = NULL;
  tr_error error;
  if (!options->registered) return calloc(1, bytes > 0 ? bytes : 1);
  if (tr_comm_alloc(comm, bytes, &p, &error) != TR_OK) {
    fprintf(stderr, "exact: %s\n", error.message);
    exit(3);
  }
  return p;
}

static void give(tr_comm *comm, const exact_options *options, void *p) {
  if (options->registered)
    tr_comm_free(comm, p);
  else
    free(p);
}

static int complain(tr_comm *comm, const char *what, uint64_t leaves, size_t count, size_t i) {
  fprintf(stderr, "exact: rank %d of %d: %s, %lu leaves, %zu elements: element %zu differs\n",
          tr_comm_describe(comm).rank, tr_comm_describe(comm).size, what, (unsigned long)leaves, count, i);
  return 1;
}

static int complain_status(tr_comm *comm, const char *what, const tr_error *error) {
  fprintf(stderr, "exact: rank %d: %s: %s\n", tr_comm_describe(comm).rank, what, error->message);
  return 1;
}

static void put(void *buffer, bool wide, size_t i, float value) {
  if (wide)
    ((double *)buffer)[i] = value;
  else
    ((float *)buffer)[i] = value;
}

static void add(void *to, const void *from, bool wide, size_t count) {
  for (size_t i = 0; i < count; i++)
    if (wide)
      ((double *)to)[i] += ((const double *)from)[i];
    else
      ((float *)to)[i] += ((const float *)from)[i];
}

/* The run of this rank, summed leaf by leaf as tr_tree_merges says. Returns how many buffers are left: its parts. */
static uint32_t sum_run(tr_comm *comm, uint32_t seed, uint64_t leaves, bool wide, size_t count, char *buffers,
                        size_t stride) {
  const tr_comm_info info = tr_comm_describe(comm);
  const uint64_t begin = tr_split_begin(leaves, (uint64_t)info.size, (uint64_t)info.rank);
  const uint64_t end = tr_split_end(leaves, (uint64_t)info.size, (uint64_t)info.rank);
  uint32_t alive = 0;
  for (uint64_t leaf = begin; leaf < end; leaf++) {
    for (size_t i = 0; i < count; i++) put(buffers + alive * stride, wide, i, leaf_value(seed, leaf, i));
    alive++;
    for (uint32_t m = tr_tree_merges(leaves, begin, leaf); m > 0; m--, alive--)
      add(buffers + (alive - 2) * stride, buffers + (alive - 1) * stride, wide, count);
  }
  return alive;
}

static int compare(tr_comm *comm, const exact_options *options, uint64_t leaves, bool wide, size_t count,
                   const void *result) {
  const uint32_t seed = options->seed;
  const size_t stride = options->stride > 0 && count > 1000 ? options->stride : 1;
  uint64_t width = 1;
  while (width < leaves) width *= 2;
  for (size_t i = (count - 1) % stride; i < count; i += stride) {
    const float narrow_want = wide ? 0 : naive_f32(seed, leaves, 0, width, i);
    const double wide_want = wide ? naive_f64(seed, leaves, 0, width, i) : 0;
    const bool same = wide ? memcmp((const double *)result + i, &wide_want, sizeof wide_want) == 0
                           : memcmp((const float *)result + i, &narrow_want, sizeof narrow_want) == 0;
    if (!same) return complain(comm, wide ? "leaves f64" : "leaves f32", leaves, count, i);
  }
  return 0;
}

static int check_leaves(tr_comm *comm, const exact_options *options, uint64_t leaves, size_t count, bool wide) {
  const tr_comm_info info = tr_comm_describe(comm);
  const uint64_t size = (uint64_t)info.size, rank = (uint64_t)info.rank;
  const uint32_t buffers = tr_tree_buffers(leaves, tr_split_begin(leaves, size, rank),
                                           tr_split_end(leaves, size, rank));
  const size_t stride = (count * (wide ? 8 : 4) + 63) / 64 * 64;
  char *memory = take(comm, options, (buffers + 1) * stride);
  const uint32_t parts_held = sum_run(comm, options->seed, leaves, wide, count, memory, stride);
  void *parts[TR_TREE_PARTS_MAX];
  for (uint32_t p = 0; p < parts_held; p++) parts[p] = memory + p * stride;
  const bool apart = options->apart || parts_held == 0;
  const tr_reduce_leaves_args args = {.struct_bytes = sizeof args,
                                      .leaf_count = leaves,
                                      .parts = parts,
                                      .part_count = parts_held,
                                      .result = apart ? memory + buffers * stride : parts[parts_held - 1],
                                      .count = count,
                                      .dtype = wide ? TR_F64 : TR_F32};
  tr_error error;
  tr_comm_wait_info waited;
  int wrong = 0;
  if (tr_comm_reduce_leaves(comm, &args, &waited, &error) != TR_OK)
    wrong = complain_status(comm, "reduce_leaves", &error);
  else
    wrong = compare(comm, options, leaves, wide, count, args.result);
  if (waited.done_ns < waited.all_arrived_ns || waited.all_arrived_ns < waited.begun_ns ||
      waited.blocked_for_peers_ns > waited.blocked_ns)
    wrong += complain(comm, "times of a wait", leaves, count, 0);
  give(comm, options, memory);
  return wrong;
}

int exact_leaves(tr_comm *comm, const exact_options *options) {
  static const size_t sizes[] = {1, 2, 15, 16, 17, 1023, 4096, 100003};
  int wrong = 0;
  for (size_t s = 0; s < sizeof sizes / sizeof *sizes && wrong == 0; s++) {
    if (sizes[s] > options->most) break;
    for (uint64_t leaves = 1; leaves <= 100 && wrong == 0; leaves++) {
      if (leaves > 17 && leaves != 31 && leaves != 64 && leaves != 100) continue;
      if (options->few && leaves % 5 != 3 && leaves != 1) continue;
      if (sizes[s] > 5000 && leaves != 3 && leaves != 8 && leaves != 13) continue;
      wrong += check_leaves(comm, options, leaves, sizes[s], false);
      if (sizes[s] < 5000) wrong += check_leaves(comm, options, leaves, sizes[s], true);
    }
  }
  return wrong;
}

/* A small whole number for rank r and element i, so that sums are exact in every type. */
static int small_value(uint32_t seed, int32_t rank, size_t i) {
  return (int)(mix(seed ^ mix((uint32_t)rank * 977u + (uint32_t)i)) % 201) - 100;
}

static double read_number(const void *buffer, tr_dtype dtype, size_t i) {
  switch (dtype) {
    case TR_F32: return ((const float *)buffer)[i];
    case TR_F64: return ((const double *)buffer)[i];
    case TR_I32: return ((const int32_t *)buffer)[i];
    default: return (double)((const int64_t *)buffer)[i];
  }
}

static void write_number(void *buffer, tr_dtype dtype, size_t i, int value) {
  switch (dtype) {
    case TR_F32: ((float *)buffer)[i] = (float)value; break;
    case TR_F64: ((double *)buffer)[i] = value; break;
    case TR_I32: ((int32_t *)buffer)[i] = value; break;
    default: ((int64_t *)buffer)[i] = value; break;
  }
}

static int wanted_number(uint32_t seed, int32_t size, tr_reduce_op op, size_t i) {
  int value = small_value(seed, 0, i);
  for (int32_t r = 1; r < size; r++) {
    const int other = small_value(seed, r, i);
    if (op == TR_SUM) value += other;
    if (op == TR_MAX && other > value) value = other;
    if (op == TR_MIN && other < value) value = other;
  }
  return value;
}

static int check_reduction(tr_comm *comm, const exact_options *options, tr_dtype dtype, tr_reduce_op op, size_t count,
                           bool scatter) {
  const tr_comm_info info = tr_comm_describe(comm);
  const uint32_t seed = options->seed + (uint32_t)count;
  char *buffer = take(comm, options, count * 8);
  for (size_t i = 0; i < count; i++) write_number(buffer, dtype, i, small_value(seed, info.rank, i));
  tr_error error;
  const tr_status status = scatter ? tr_comm_reduce_scatter(comm, buffer, count, dtype, op, NULL, &error)
                                   : tr_comm_all_reduce(comm, buffer, count, dtype, op, NULL, &error);
  int wrong = status == TR_OK ? 0 : complain_status(comm, "all_reduce", &error);
  const size_t begin = scatter ? tr_split_begin(count, (uint64_t)info.size, (uint64_t)info.rank) : 0;
  const size_t end = scatter ? tr_split_end(count, (uint64_t)info.size, (uint64_t)info.rank) : count;
  const size_t stride = options->stride > 0 && count > 1000 ? options->stride : 1;
  for (size_t i = begin; i < end && wrong == 0; i += stride)
    if (read_number(buffer, dtype, i) != wanted_number(seed, info.size, op, i))
      wrong += complain(comm, scatter ? "reduce_scatter" : "all_reduce", 0, count, i);
  give(comm, options, buffer);
  return wrong;
}

static int check_bytes(tr_comm *comm, const exact_options *options, size_t bytes, bool in_place) {
  const tr_comm_info info = tr_comm_describe(comm);
  unsigned char *all = take(comm, options, bytes * (size_t)info.size), *own = take(comm, options, bytes);
  unsigned char *in = in_place ? all + bytes * (size_t)info.rank : own;
  for (size_t i = 0; i < bytes; i++) in[i] = (unsigned char)small_value(options->seed, info.rank, i);
  tr_error error;
  int wrong = 0;
  if (tr_comm_all_gather(comm, in, bytes, all, NULL, &error) != TR_OK)
    wrong += complain_status(comm, "all_gather", &error);
  for (int32_t r = 0; r < info.size; r++)
    for (size_t i = 0; i < bytes && wrong == 0; i++)
      if (all[(size_t)r * bytes + i] != (unsigned char)small_value(options->seed, r, i))
        wrong += complain(comm, "all_gather", 0, bytes, i);
  const int32_t root = (int32_t)(bytes % (size_t)info.size);
  if (in_place)
    for (size_t i = 0; i < bytes; i++) own[i] = (unsigned char)small_value(options->seed, info.rank, i);
  if (wrong == 0 && tr_comm_broadcast(comm, own, bytes, root, NULL, &error) != TR_OK)
    wrong += complain_status(comm, "broadcast", &error);
  for (size_t i = 0; i < bytes && wrong == 0; i++)
    if (own[i] != (unsigned char)small_value(options->seed, root, i)) wrong += complain(comm, "broadcast", 0, bytes, i);
  give(comm, options, own);
  give(comm, options, all);
  return wrong;
}

int exact_operations(tr_comm *comm, const exact_options *options) {
  static const size_t sizes[] = {0, 1, 3, 16, 255, 1021, 5000, 70001};
  static const tr_dtype types[] = {TR_F32, TR_F64, TR_I32, TR_I64};
  static const tr_reduce_op ops[] = {TR_SUM, TR_MAX, TR_MIN};
  int wrong = 0;
  for (size_t s = 0; s < sizeof sizes / sizeof *sizes && wrong == 0; s++) {
    if (sizes[s] > options->most) break;
    for (size_t t = 0; t < 4 && wrong == 0; t++)
      for (size_t o = 0; o < 3 && wrong == 0; o++)
        for (int scatter = 0; scatter < 2 && wrong == 0; scatter++)
          wrong += check_reduction(comm, options, types[t], ops[o], sizes[s], scatter != 0);
    wrong += check_bytes(comm, options, sizes[s], options->apart);
    if (tr_comm_barrier(comm, NULL, NULL) != TR_OK) wrong++;
  }
  return wrong;
}

int exact_operations_large(tr_comm *comm, const exact_options *options) {
  const size_t count = 700001;
  int wrong = check_reduction(comm, options, TR_F32, TR_SUM, count, false);
  if (wrong == 0) wrong += check_reduction(comm, options, TR_F64, TR_SUM, count, true);
  if (wrong == 0) wrong += check_bytes(comm, options, 2 * count, true);
  return wrong;
}

enum { UNDER_WAY = 150, UNDER_WAY_MOST = 8000 };

int exact_under_way(tr_comm *comm, const exact_options *options) {
  const tr_comm_info info = tr_comm_describe(comm);
  static tr_comm_handle handles[UNDER_WAY];
  static float *buffers[UNDER_WAY];
  tr_error error;
  int wrong = 0;
  for (size_t k = 0; k < UNDER_WAY; k++) buffers[k] = take(comm, options, UNDER_WAY_MOST * sizeof(float));
  for (size_t k = 0; k < UNDER_WAY && wrong == 0; k++) {
    const size_t count = mix(options->seed + (uint32_t)k) % 5 == 0 ? 1 + k : 1 + mix((uint32_t)k) % UNDER_WAY_MOST;
    for (size_t i = 0; i < count; i++) buffers[k][i] = (float)small_value(options->seed, info.rank, i);
    if (tr_comm_all_reduce_begin(comm, buffers[k], count, TR_F32, TR_SUM, &handles[k], &error) != TR_OK)
      wrong += complain_status(comm, "begin", &error);
    if (mix((uint32_t)k + (uint32_t)info.rank) % 3 == 0 && tr_comm_progress(comm, &error) != TR_OK)
      wrong += complain_status(comm, "progress", &error);
  }
  for (size_t k = 0; k < UNDER_WAY && wrong == 0; k++) {
    const size_t count = mix(options->seed + (uint32_t)k) % 5 == 0 ? 1 + k : 1 + mix((uint32_t)k) % UNDER_WAY_MOST;
    /* In any order: waiting for a later one completes those before it. */
    const size_t which = k % 7 == 3 && k + 2 < UNDER_WAY ? k + 2 : k;
    if (tr_comm_wait(comm, handles[which], NULL, &error) != TR_OK) wrong += complain_status(comm, "wait", &error);
    for (size_t i = 0; i < count && wrong == 0; i++)
      if (buffers[k][i] != (float)wanted_number(options->seed, info.size, TR_SUM, i))
        wrong += complain(comm, "under way", 0, count, i);
  }
  for (size_t k = 0; k < UNDER_WAY; k++) give(comm, options, buffers[k]);
  return wrong;
}
