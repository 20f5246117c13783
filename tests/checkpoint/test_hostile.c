/* Checkpoints from the outside: whatever is flipped, cut or swapped, nothing wrong is loaded and nothing crashes. */
#include <time.h>

#include "model.h"
#include "support/support.h"

enum { STEPS = 2, SHARDS = 3 };

static const char *const objects[] = {"manifest.json", "shard-00000-of-00003.safetensors",
                                      "shard-00001-of-00003.safetensors", "shard-00002-of-00003.safetensors"};
enum { OBJECTS = 4 };

typedef struct original {
  uint8_t *data;
  size_t bytes;
} original;

static void object_key(char key[128], int step, int object) {
  snprintf(key, 128, "r/step-%d/%s", step + 1, objects[object]);
}

static uint64_t pick(uint64_t round, uint64_t what, uint64_t bound) {
  return tr_rng_below(20261123, TR_RNG_USER + 1, round, what, bound);
}

/* One mutation of one object; what is left is put in its place. */
static void mutate(tr_store *store, uint64_t round, original originals[STEPS][OBJECTS], char key[128]) {
  const int step = 0, object = (int)pick(round, 0, 2) == 0 ? 0 : (int)pick(round, 1, OBJECTS);
  const original *from = &originals[step][object];
  uint8_t *data = malloc(from->bytes + 64);
  size_t bytes = from->bytes;
  memcpy(data, from->data, bytes);
  object_key(key, step, object);
  switch (pick(round, 2, 6)) {
    case 0: /* one bit */
    case 1: {
      const size_t at = (size_t)pick(round, 3, bytes);
      data[at] ^= (uint8_t)(1u << pick(round, 4, 8));
      break;
    }
    case 2: bytes = (size_t)pick(round, 3, bytes); break; /* cut short */
    case 3: {                                             /* two runs change places */
      const size_t length = 1 + (size_t)pick(round, 3, bytes / 4);
      const size_t a = (size_t)pick(round, 4, bytes / 2 - length),
                   b = bytes / 2 + (size_t)pick(round, 5, bytes / 2 - length);
      for (size_t i = 0; i < length; i++) {
        const uint8_t kept = data[a + i];
        data[a + i] = data[b + i];
        data[b + i] = kept;
      }
      break;
    }
    case 4: /* the same object of another step */
      free(data);
      bytes = originals[1][object].bytes;
      data = malloc(bytes + 64);
      memcpy(data, originals[1][object].data, bytes);
      break;
    case 5: /* more at the end */
      memset(data + bytes, 'x', 13);
      bytes += 13;
      break;
  }
  cr_assert_eq(tr_store_put(store, key, data, bytes, false, NULL), TR_OK);
  free(data);
}

static void keep_originals(tr_store *store, original originals[STEPS][OBJECTS]) {
  for (int step = 0; step < STEPS; step++) {
    model_save(store, "r", (uint64_t)step + 1, SHARDS);
    for (int object = 0; object < OBJECTS; object++) {
      char key[128];
      void *data = NULL;
      object_key(key, step, object);
      cr_assert_eq(tr_store_get_all(store, NULL, key, 1 << 24, &data, &originals[step][object].bytes, NULL), TR_OK);
      originals[step][object].data = data;
    }
  }
}

/* Opens and reads; what loads must be right. Then verifies, which must find what reading does not see. */
static tr_status judge(tr_store *store, tr_error *error) {
  tr_status status = model_load(store, "r/step-1", 1, 0, 1, NULL, error);
  cr_assert_neq(status, TR_ERR_BUG, "wrong values were loaded");
  if (status != TR_OK) return status;
  tr_ckpt *ckpt = NULL;
  cr_assert_eq(tr_ckpt_open(NULL, store, "r/step-1", &ckpt, NULL), TR_OK);
  status = tr_ckpt_verify(ckpt, error);
  tr_ckpt_close(ckpt);
  return status;
}

static void free_originals(original originals[STEPS][OBJECTS]) {
  for (int step = 0; step < STEPS; step++) {
    for (int object = 0; object < OBJECTS; object++) tr_free(NULL, originals[step][object].data);
  }
}

/* A number of /proc/self/status; VmHWM is the most that VmRSS ever was. */
static uint64_t memory_kb(const char *name) {
  char line[256];
  unsigned long long found = 0;
  FILE *status = fopen("/proc/self/status", "r");
  while (status != NULL && fgets(line, sizeof line, status) != NULL) {
    if (strncmp(line, name, strlen(name)) == 0) found = strtoull(line + strlen(name), NULL, 10);
  }
  if (status != NULL) fclose(status);
  return found;
}

/* No more than 64 MiB above `before_kb` at any time. A sanitizer's own memory would count too. */
static void expect_little_memory(uint64_t before_kb) {
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  (void)before_kb;
#else
  cr_expect_leq(memory_kb("VmHWM:"), before_kb + (64 << 10));
#endif
}

Test(hostile, never_loads_what_was_changed, .timeout = 240) {
  tr_store *store = model_store();
  original originals[STEPS][OBJECTS];
  keep_originals(store, originals);
  const uint64_t rounds = ts_long() ? 20000 : 2000;
  const uint64_t before_kb = memory_kb("VmRSS:");
  for (uint64_t round = 0; round < rounds; round++) {
    char key[128];
    mutate(store, round, originals, key);
    tr_error error = {.status = TR_OK};
    const tr_status status = judge(store, &error);
    void *data = NULL;
    size_t bytes = 0;
    cr_assert_eq(tr_store_get_all(store, NULL, key, 1 << 24, &data, &bytes, NULL), TR_OK);
    const original *was = &originals[0][0];
    for (int object = 0; object < OBJECTS; object++) {
      char name[128];
      object_key(name, 0, object);
      if (strcmp(name, key) == 0) was = &originals[0][object];
    }
    const bool changed = bytes != was->bytes || memcmp(data, was->data, bytes) != 0;
    cr_assert_eq(status, changed ? TR_ERR_CORRUPT : TR_OK, "round %d, %s: %s", (int)round, key, error.message);
    if (changed) cr_assert_not_null(strstr(error.message, "r/step-1"), "%s", error.message);
    tr_free(NULL, data);
    cr_assert_eq(tr_store_put(store, key, was->data, was->bytes, false, NULL), TR_OK);
  }
  expect_little_memory(before_kb);
  free_originals(originals);
  tr_store_destroy(store);
}

/* Puts object `from` of one step in the place of object `to` of the other. */
static void put_original(tr_store *store, original originals[STEPS][OBJECTS], int from_step, int from, int step,
                         int to) {
  char key[128];
  object_key(key, step, to);
  cr_assert_eq(tr_store_put(store, key, originals[from_step][from].data, originals[from_step][from].bytes, false, NULL),
               TR_OK);
}

/* Objects that are whole, in wrong places: shards of a checkpoint among themselves, and any choice of two checkpoints'. */
Test(hostile, never_loads_whole_objects_from_wrong_places) {
  tr_store *store = model_store();
  original originals[STEPS][OBJECTS];
  keep_originals(store, originals);
  const uint64_t before_kb = memory_kb("VmRSS:");
  for (int a = 1; a < OBJECTS; a++) {
    for (int b = 1; b < OBJECTS; b++) {
      put_original(store, originals, 0, b, 0, a);
      put_original(store, originals, 0, a, 0, b);
      tr_error error = {.status = TR_OK};
      cr_expect_eq(judge(store, &error), a == b ? TR_OK : TR_ERR_CORRUPT, "%d and %d: %s", a, b, error.message);
      put_original(store, originals, 0, a, 0, a);
      put_original(store, originals, 0, b, 0, b);
    }
  }
  for (unsigned choice = 0; choice < 1u << OBJECTS; choice++) {
    for (int object = 0; object < OBJECTS; object++)
      put_original(store, originals, choice >> object & 1, object, 0, object);
    tr_error error = {.status = TR_OK};
    cr_expect_eq(judge(store, &error), choice == 0 ? TR_OK : TR_ERR_CORRUPT, "choice %u: %s", choice, error.message);
  }
  expect_little_memory(before_kb);
  free_originals(originals);
  tr_store_destroy(store);
}

/* Puts a manifest with a CRC that fits, as one who tampers would. */
static void put_manifest(tr_store *store, const char *rest, size_t rest_bytes) {
  char *text = malloc(rest_bytes + 32);
  snprintf(text, 32, "{\"crc32c\":\"%08x\",", tr_crc32c(0, rest, rest_bytes));
  memcpy(text + 21, rest, rest_bytes);
  cr_assert_eq(tr_store_put(store, "r/step-1/manifest.json", text, rest_bytes + 21, false, NULL), TR_OK);
  free(text);
}

/* One bit of a manifest changed by one who makes the CRC fit: it is refused, or what it loads is right all the same. */
Test(hostile, loads_nothing_wrong_from_a_manifest_with_a_flipped_bit_whose_crc_fits, .timeout = 240) {
  tr_store *store = model_store();
  model_save(store, "r", 1, SHARDS);
  void *text = NULL;
  size_t bytes = 0, refused = 0;
  cr_assert_eq(tr_store_get_all(store, NULL, "r/step-1/manifest.json", 1 << 24, &text, &bytes, NULL), TR_OK);
  char *rest = (char *)text + 21;
  const size_t rest_bytes = bytes - 21;
  const uint64_t rounds = ts_long() ? 20000 : 1500;
  const uint64_t before_kb = memory_kb("VmRSS:");
  for (uint64_t round = 0; round < rounds; round++) {
    const size_t at = (size_t)pick(round, 10, rest_bytes);
    const char bit = (char)(1u << pick(round, 11, 8));
    rest[at] ^= bit;
    put_manifest(store, rest, rest_bytes);
    tr_error error = {.status = TR_OK};
    const tr_status status = model_load(store, "r/step-1", 1, 0, 1, NULL, &error);
    cr_assert_neq(status, TR_ERR_BUG, "round %d: wrong values were loaded", (int)round);
    if (status != TR_OK) refused++;
    rest[at] ^= bit;
  }
  cr_expect_gt(refused, rounds / 4);
  expect_little_memory(before_kb);
  tr_free(NULL, text);
  tr_store_destroy(store);
}

/* The text behind the CRC, with one part replaced. */
static char *replaced(const char *text, const char *what, const char *by) {
  const char *at = strstr(text, what);
  cr_assert_not_null(at, "'%s' is not in the manifest", what);
  char *made = malloc(strlen(text) + strlen(by) + 1);
  sprintf(made, "%.*s%s%s", (int)(at - text), text, by, at + strlen(what));
  return made;
}

Test(hostile, refuses_a_tampered_manifest_whose_crc_fits) {
  tr_store *store = model_store();
  model_save(store, "r", 1, 1);
  void *text = NULL;
  size_t bytes = 0;
  cr_assert_eq(tr_store_get_all(store, NULL, "r/step-1/manifest.json", 1 << 24, &text, &bytes, NULL), TR_OK);
  const char *rest = (const char *)text + 21;
  const char *const cases[][2] = {
      {"\"step\":1", "\"step\":2"},
      {"\"step\":1", "\"step\":-1"},
      {"\"step\":1", "\"step\":1,\"step\":1"},
      {"\"step\":1", "\"step\":1e30"},
      {"\"step\":1", "\"step\":99999999999999999999"},
      {"\"version\":1", "\"version\":\"1\""},
      {"trainrun-checkpoint", "something-else"},
      {"\"world_size\":1", "\"world_size\":4294967296"},
      {"\"metric\":0.75", "\"metric\":[]"},
      {"shard-00000-of-00001.safetensors", "../shard-00000-of-00001.safetensors"},
      {"shard-00000-of-00001.safetensors", "manifest.json"},
      {"shard-00000-of-00001.safetensors", ""},
      {"\"shape\":[8]", "\"shape\":[9]"},
      {"\"shape\":[8]", "\"shape\":[-8]"},
      {"\"shape\":[8]", "\"shape\":[8,4611686018427387904,4]"},
      {"\"shape\":[8]", "\"shape\":[1,1,1,1,1,1,8]"},
      {"\"shape\":[8]", "\"shape\":{}"},
      {"\"dtype\":\"f32\"", "\"dtype\":\"f64\""},
      {"\"dtype\":\"f32\"", "\"dtype\":\"f31\""},
      {"conv1.bias", "conv1.weight"},
      {"conv1.bias", ""},
      {"\"pieces\":[[0,", "\"pieces\":[[1,"},
      {"\"pieces\":[[0,", "\"pieces\":[[0,1"},
      {"\"pieces\":[[0,", "\"pieces\":[[0],[0,"},
      {"\"shards\":[", "\"shards\":[{},"},
      {"\"tensors\":[", "\"tensors\":[7,"},
      {"\"header_bytes\":", "\"header_bytes\":1"},
      {"\"bytes\":", "\"bytes\":1"},
      {"]}\n", "]}]"},
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    char *changed = replaced(rest, cases[i][0], cases[i][1]);
    put_manifest(store, changed, strlen(changed));
    tr_ckpt *ckpt = NULL;
    tr_error error = {.status = TR_OK};
    cr_expect_eq(tr_ckpt_open(NULL, store, "r/step-1", &ckpt, &error), TR_ERR_CORRUPT, "%s -> %s: %s", cases[i][0],
                 cases[i][1], error.message);
    cr_expect_not_null(strstr(error.message, "r/step-1/manifest.json"), "%s", error.message);
    tr_ckpt_close(ckpt);
    free(changed);
  }
  char *newer = replaced(rest, "\"version\":1", "\"version\":2");
  put_manifest(store, newer, strlen(newer));
  tr_ckpt *ckpt = NULL;
  cr_expect_eq(tr_ckpt_open(NULL, store, "r/step-1", &ckpt, NULL), TR_ERR_UNSUPPORTED);
  free(newer);
  put_manifest(store, rest, bytes - 21);
  cr_expect_eq(model_load(store, "r/step-1", 1, 0, 1, NULL, NULL), TR_OK, "the untampered one still loads");
  tr_free(NULL, text);
  tr_store_destroy(store);
}

/* Of this process: what else the machine does is not counted. */
static double cpu_seconds(void) {
  struct timespec now;
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
  return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

Test(hostile, refuses_deep_and_huge_manifests_at_once, .timeout = 120) {
  tr_store *store = model_store();
  const size_t bytes = (ts_long() ? 60u : 8u) << 20;
  char *text = malloc(bytes + 1);
  const char *const patterns[] = {"[", "[0,", "{\"a\":", "\"a\\", "1", " "};
  for (size_t p = 0; p < sizeof patterns / sizeof *patterns; p++) {
    const size_t length = strlen(patterns[p]);
    memcpy(text, "\"x\":[", 5);
    for (size_t i = 5; i < bytes; i++) text[i] = patterns[p][i % length];
    put_manifest(store, text, bytes);
    tr_ckpt *ckpt = NULL;
    tr_error error;
    const double begin = cpu_seconds();
    cr_expect_eq(tr_ckpt_open(NULL, store, "r/step-1", &ckpt, &error), TR_ERR_CORRUPT, "%s", error.message);
    cr_expect_lt(cpu_seconds() - begin, 5.0);
  }
  free(text);
  tr_store_destroy(store);
}
