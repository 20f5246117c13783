/* Each allocation failing in turn, and files made to hurt: a clean error each time, in bounded time and memory. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <trainrun/clock.h>
#include <trainrun/config.h>
#include <trainrun/rng.h>

static const char good[] =
    "name = \"x\"\nprogram = \"p\"\n[cluster]\nhosts = [\"a\", \"b\"]\n[storage.lake]\nendpoint = \"http://h\"\n"
    "access-key = { env = \"X\" }\n[data]\ntrain = [\"${A:-x}\", \"y\"]\nfields = { image = \"png\" }\n[params]\nwidth "
    "= 3\n"
    "deep = { a = [1, 2, { b = \"c\" }] }\n";

static const char bad[] = "nme = 1\nseed = \"x\"\n[data]\nbatch-size = 0\n[train]\nsteps = 1\nepochs = 2\n";

/* Fails allocation after allocation until the load needs fewer; says how many it needs. */
static uint64_t fail_each(const char *text, bool collect, bool forever, tr_status expected) {
  static const char *const environment[] = {"TRAINRUN_SEED=4", "TRAINRUN_PARAMS_X=1", "TRAINRUN_NOTHING=1", NULL};
  const tr_override flags[] = {{"train.eval-every", "5 steps", NULL}, {"params.width", "[1, 2]", NULL}};
  for (uint64_t n = 1;; n++) {
    tr_counting_allocator counting;
    tr_counting_allocator_init(&counting);
    counting.fail_at = n;
    counting.fail_forever = forever;
    const tr_config_source source = {.struct_bytes = sizeof source,
                                     .allocator = &counting.allocator,
                                     .text = text,
                                     .text_bytes = strlen(text),
                                     .name = "j",
                                     .directory = "/d",
                                     .overrides = flags,
                                     .override_count = 2,
                                     .environment = environment};
    tr_diagnostics *diagnostics = NULL;
    tr_config *config = NULL;
    tr_error error = {.status = TR_OK};
    tr_status status = collect ? tr_diagnostics_create(&counting.allocator, &diagnostics, &error) : TR_OK;
    if (status == TR_OK) status = tr_config_load(&source, diagnostics, &config, &error);
    const bool hit = counting.allocations >= n;
    cr_assert_eq(status, hit ? TR_ERR_NO_MEMORY : expected, "allocation %llu: %s", (unsigned long long)n,
                 error.message);
    if (status != TR_OK) cr_assert(config == NULL && error.status == status && error.message[0] != '\0');
    tr_config_destroy(config);
    tr_diagnostics_destroy(diagnostics);
    cr_assert_eq(counting.live_blocks, 0, "allocation %llu leaks", (unsigned long long)n);
    if (!hit) return counting.allocations;
  }
}

Test(config_faults, every_allocation_of_a_load_may_fail) {
  for (int forever = 0; forever < 2; forever++) {
    cr_assert_gt(fail_each(good, false, forever != 0, TR_OK), 5);
    cr_assert_gt(fail_each(good, true, forever != 0, TR_OK), 5);
  }
}

Test(config_faults, every_allocation_of_a_refusal_may_fail) {
  for (int forever = 0; forever < 2; forever++) {
    cr_assert_gt(fail_each(bad, false, forever != 0, TR_ERR_CONFIG), 5);
    cr_assert_gt(fail_each(bad, true, forever != 0, TR_ERR_CONFIG), 5);
    cr_assert_gt(fail_each("x = ", true, forever != 0, TR_ERR_CONFIG), 3);
  }
}

Test(config_faults, a_source_of_another_size_is_refused) {
  const tr_config_source source = {.struct_bytes = 8};
  tr_config *config = NULL;
  cr_assert_eq(tr_config_load(&source, NULL, &config, NULL), TR_ERR_INVALID);
  cr_assert_null(config);
}

/* ---- Hostile files ---------------------------------------------------------------------------------------------- */

static uint64_t peak;

static tr_status load(const char *text, size_t bytes, tr_error *error) {
  tr_counting_allocator counting;
  tr_counting_allocator_init(&counting);
  const tr_config_source source = {
      .struct_bytes = sizeof source, .allocator = &counting.allocator, .text = text, .text_bytes = bytes, .name = "j"};
  tr_diagnostics *diagnostics = NULL;
  tr_config *config = NULL;
  cr_assert_eq(tr_diagnostics_create(&counting.allocator, &diagnostics, NULL), TR_OK);
  const tr_status status = tr_config_load(&source, diagnostics, &config, error);
  tr_writer w;
  tr_writer_init(&w, &counting.allocator);
  tr_diagnostics_write(diagnostics, "j", bytes == strlen(text) ? text : NULL, false, &w);
  if (config != NULL) tr_config_write_toml(config, &w);
  if (config != NULL) tr_config_write_fingerprint(config, &w);
  tr_writer_fini(&w);
  tr_config_destroy(config);
  tr_diagnostics_destroy(diagnostics);
  cr_assert_eq(counting.live_blocks, 0);
  peak = counting.peak_bytes;
  return status;
}

/* Repeats a piece up to just below 1 MiB. */
static char *repeat(const char *before, const char *piece, const char *after) {
  const size_t limit = (1 << 20) - strlen(after) - 1, step = strlen(piece);
  char *text = tr_calloc(NULL, 1, 1 << 20);
  size_t at = strlen(before);
  memcpy(text, before, at);
  for (; at + step < limit; at += step) memcpy(text + at, piece, step);
  memcpy(text + at, after, strlen(after));
  return text;
}

typedef struct hostile {
  const char *what, *before, *piece, *after;
} hostile;

static const hostile huge[] = {
    {"nested lists", "x = ", "[", ""},
    {"nested tables", "x = ", "{a=", ""},
    {"dotted keys", "", "a.", "a = 1"},
    {"dotted header", "[", "a.", "a]"},
    {"quoted dots", "", "'a'.", "a = 1"},
    {"numbers", "params.x = [", "1,", "1]"},
    {"empty lists", "params.x = [", "[],", "[]]"},
    {"tables in a list", "", "[[params.x]]\n", ""},
    {"strings", "command = [", "\"a\",", "\"b\"]"},
    {"unknown keys", "", "\nabcdefgh = 1", ""},
    {"headers", "", "[a]\n", ""},
    {"one long string", "name = \"", "a", "\""},
    {"one long key", "", "a", " = 1"},
    {"one long name", "program = \"${", "A", "}\""},
    {"many names", "program = \"", "${A:-x}", "\""},
    {"escaped names", "program = \"", "$${A", "\""},
    {"open names", "program = \"", "${", "\""},
    {"one long comment", "# ", "a", "\nseed = 1"},
    {"blank lines", "", "\n", "seed = 1"},
    {"quotes", "", "\"", ""},
    {"backslashes", "name = \"", "\\", ""},
    {"braces", "", "{", "}"},
    {"digits", "seed = ", "9", ""},
    {"exponent", "optimizer.lr = 1e", "9", ""},
    {"letters outside ASCII", "", "\xC3\xA4", " = 1"},
    {"broken UTF-8", "name = \"", "\xFF", "\""},
    {"carriage returns", "", "\r", ""},
    {"inline tables", "params.x = [", "{},", "{}]"},
    {"inline keys", "params = {", "a.b.c.d=1,", "z=1}"},
};

Test(config_faults, huge_files_are_refused_or_read_in_bounded_time_and_memory) {
  for (size_t i = 0; i < sizeof huge / sizeof *huge; i++) {
    char *text = repeat(huge[i].before, huge[i].piece, huge[i].after);
    tr_error error = {.message = ""};
    const uint64_t begin = tr_clock_now_ns(NULL);
    load(text, strlen(text), &error);
    const uint64_t took = tr_clock_now_ns(NULL) - begin;
    /* A sanitizer makes this ten times slower. */
    cr_assert_lt(took, UINT64_C(8000000000), "%s: %llu ms", huge[i].what, (unsigned long long)(took / 1000000));
    cr_assert_lt(peak, UINT64_C(48) << 20, "%s: %llu bytes", huge[i].what, (unsigned long long)peak);
    tr_free(NULL, text);
  }
}

Test(config_faults, a_file_of_mistakes_only_is_refused_quickly) {
  char *text = tr_calloc(NULL, 1, 1 << 20);
  size_t at = 0;
  for (int i = 0; at + 20 < 1 << 20 && i < 90000; i++) at += (size_t)snprintf(text + at, 20, "abc%d=1\n", i);
  tr_error error;
  const uint64_t begin = tr_clock_now_ns(NULL);
  cr_assert_eq(load(text, at, &error), TR_ERR_CONFIG);
  cr_assert_lt(tr_clock_now_ns(NULL) - begin, UINT64_C(8000000000));
  tr_free(NULL, text);
}

Test(config_faults, a_file_above_one_mebibyte_is_refused) {
  static char text[(1 << 20) + 2];
  memset(text, '\n', sizeof text - 1);
  tr_error error;
  cr_assert_eq(load(text, sizeof text - 1, &error), TR_ERR_CONFIG);
  cr_assert_not_null(strstr(error.message, "1 MiB"));
  cr_assert_eq(load(text, 1 << 20, &error), TR_OK);
}

Test(config_faults, nesting_has_a_limit_that_people_never_meet) {
  tr_error error;
  for (int depth = 1; depth < 90; depth++) {
    char text[1000] = "params.x = ";
    for (int i = 0; i < depth; i++) strcat(text, "[");
    for (int i = 0; i < depth; i++) strcat(text, "]");
    const tr_status status = load(text, strlen(text), &error);
    if (depth < 60) cr_assert_eq(status, TR_OK, "%d: %s", depth, error.message);
    if (depth > 70) cr_assert_eq(status, TR_ERR_CONFIG, "%d", depth);
  }
}

Test(config_faults, text_with_nul_bytes_is_refused) {
  tr_error error;
  cr_assert_eq(load("seed = 1\n\0name = 3", 18, &error), TR_ERR_CONFIG);
  cr_assert_eq(load("name = \"a\\u0000b\"", 17, &error), TR_ERR_CONFIG);
  cr_assert_eq(load("\"a\\u0000b\" = 1", 14, &error), TR_ERR_CONFIG);
}

/* Random damage: never a crash, never a leak; sanitizers see the rest. */
Test(config_faults, damaged_files_never_crash) {
  const char *update = getenv("TRAINRUN_TEST_LONG");
  const uint64_t rounds = update != NULL && strcmp(update, "1") == 0 ? 300000 : 3000;
  static const char alphabet[] = "\"'[]{}=.,#\\\n\t $:-_0aA9eZ\xC3\xA4\xFF\x01u";
  for (uint64_t round = 0; round < rounds; round++) {
    char text[1024];
    const char *base = round % 2 == 0 ? good : bad;
    size_t length = strlen(base);
    memcpy(text, base, length + 1);
    const uint64_t edits = 1 + tr_rng_below(1, TR_RNG_USER, round, 0, 6);
    for (uint64_t e = 1; e <= edits; e++) {
      const tr_rng4 r = tr_rng(1, TR_RNG_USER, round, e);
      const size_t at = r.v[0] % length;
      if (r.v[1] % 3 == 0) {
        text[at] = alphabet[r.v[2] % (sizeof alphabet - 1)];
      } else if (r.v[1] % 3 == 1 && length > 2) {
        memmove(text + at, text + at + 1, length - at);
        length--;
      } else if (length + 40 < sizeof text) {
        const size_t piece = 1 + r.v[3] % 30, from = r.v[2] % length;
        const size_t copied = piece < length - from ? piece : length - from;
        char part[32];
        memcpy(part, text + from, copied);
        memmove(text + at + copied, text + at, length - at + 1);
        memcpy(text + at, part, copied);
        length += copied;
      }
    }
    tr_error error = {.message = ""};
    load(text, length, &error);
  }
}
