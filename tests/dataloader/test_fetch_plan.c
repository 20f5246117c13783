/* Which ranges are read for a run of samples: whatever they are, each lies whole in one span, and nothing is read in vain
 * beyond what the rules allow. */
#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>
#include <trainrun/rng.h>

#include "fetch_plan.h"

enum { MOST = 600 };

typedef struct planned {
  dl_want wants[MOST];
  dl_span spans[MOST];
  uint32_t scratch[2 * MOST];
  size_t want_count, span_count;
} planned;

static void plan(planned *p, bool read_over) {
  p->span_count = dl_fetch_plan(p->wants, p->want_count, read_over, p->spans, p->scratch);
}

static void add(planned *p, uint32_t file, uint64_t offset, uint64_t bytes) {
  p->wants[p->want_count++] = (dl_want){.file = file, .offset = offset, .bytes = bytes};
}

static void expect_whole(const planned *p, bool read_over) {
  uint64_t wanted = 0, read = 0;
  for (size_t i = 0; i < p->want_count; i++) {
    const dl_want *want = &p->wants[i];
    cr_assert_lt(want->span, p->span_count);
    const dl_span *span = &p->spans[want->span];
    cr_assert(span->file == want->file && span->offset <= want->offset &&
                  want->offset + want->bytes <= span->offset + span->bytes,
              "want %zu is not in its span", i);
    cr_assert_leq(span->first, i);
    wanted += want->bytes;
  }
  for (size_t i = 0; i < p->span_count; i++) {
    const dl_span *span = &p->spans[i];
    cr_assert_eq(p->wants[span->first].span, i, "a span is first needed by one of its own");
    cr_assert(i == 0 || p->spans[i - 1].first < span->first, "spans are in the order of need");
    uint64_t longest = 0;
    for (size_t w = 0; w < p->want_count; w++) {
      if (p->wants[w].span == i && p->wants[w].bytes > longest) longest = p->wants[w].bytes;
    }
    cr_assert(span->bytes <= DL_SPAN_BYTES || span->bytes == longest, "only one sample may be longer");
    read += span->bytes;
  }
  if (!read_over) cr_assert_leq(read, wanted);
}

static planned *fresh(void) { return calloc(1, sizeof(planned)); }

Test(fetch_plan, neighbours_become_one_span_in_whatever_order) {
  planned *p = fresh();
  static const uint64_t order[] = {3, 0, 2, 1};
  for (int i = 0; i < 4; i++) add(p, 7, 1000 + order[i] * 100, 100);
  plan(p, false);
  cr_assert_eq(p->span_count, 1);
  cr_assert(p->spans[0].offset == 1000 && p->spans[0].bytes == 400 && p->spans[0].file == 7);
  free(p);
}

Test(fetch_plan, gaps_are_read_over_up_to_a_limit) {
  planned *p = fresh();
  add(p, 0, 0, 100);
  add(p, 0, 100 + DL_GAP_BYTES, 100);
  add(p, 0, 200 + 2 * DL_GAP_BYTES + 1, 100);
  plan(p, true);
  cr_assert_eq(p->span_count, 2);
  cr_assert_eq(p->wants[1].span, 0);
  plan(p, false);
  cr_assert_eq(p->span_count, 3);
  /* What is there already makes a longer one worth it. */
  p->want_count = 0;
  add(p, 0, 0, 1 << 20);
  add(p, 0, (1 << 20) + (256 << 10), 10);
  add(p, 0, (1 << 20) + (256 << 10) + 10 + (300 << 10), 10);
  plan(p, true);
  cr_assert_eq(p->span_count, 2);
  free(p);
}

Test(fetch_plan, spans_are_in_the_order_of_need_and_files_stay_apart) {
  planned *p = fresh();
  add(p, 1, 5 << 20, 10);
  add(p, 0, 0, 10);
  add(p, 1, 0, 10);
  add(p, 1, 20, 10);
  add(p, 0, 5, 10);
  plan(p, true);
  cr_assert_eq(p->span_count, 3);
  cr_assert(p->wants[0].span == 0 && p->wants[1].span == 1 && p->wants[2].span == 2 && p->wants[3].span == 2 &&
            p->wants[4].span == 1);
  cr_assert_eq(p->spans[1].bytes, 15);
  free(p);
}

Test(fetch_plan, what_is_wanted_twice_is_read_once) {
  planned *p = fresh();
  for (int i = 0; i < 50; i++) add(p, 0, 4096, 20 << 20);
  add(p, 0, 5000, 3);
  plan(p, false);
  cr_assert_eq(p->span_count, 1);
  cr_assert_eq(p->spans[0].bytes, 20 << 20);
  free(p);
}

/* Sequences that share a token with the next: a chain must not become one endless span. */
Test(fetch_plan, overlapping_neighbours_end_a_span_in_time) {
  planned *p = fresh();
  for (int i = 0; i < 100; i++) add(p, 0, (uint64_t)i << 20, (1 << 20) + 2);
  plan(p, true);
  expect_whole(p, true);
  cr_assert_geq(p->span_count, 12);
  cr_assert_leq(p->span_count, 17);
  free(p);
}

Test(fetch_plan, every_sample_is_in_a_span_whatever_the_sizes) {
  planned *p = fresh();
  for (uint64_t seed = 0; seed < 300; seed++)
    for (int read_over = 0; read_over < 2; read_over++) {
      const uint64_t file_bytes = (uint64_t)1 << (8 + seed % 28), most = (uint64_t)1 << (1 + seed % 25);
      const size_t count = tr_rng_below(seed, TR_RNG_USER, 0, 0, MOST) + 1;
      p->want_count = 0;
      for (size_t i = 0; i < count; i++) {
        add(p, (uint32_t)tr_rng_below(seed, TR_RNG_USER, 1, i, 3), tr_rng_below(seed, TR_RNG_USER, 2, i, file_bytes),
            tr_rng_below(seed, TR_RNG_USER, 3, i, most) + 1);
      }
      plan(p, read_over != 0);
      expect_whole(p, read_over != 0);
    }
  free(p);
}
