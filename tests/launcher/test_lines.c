/* Cutting streams into lines, however the bytes arrive. */
#include <criterion/criterion.h>
#include <fcntl.h>
#include <launcher/lines.h>
#include <stdlib.h>
#include <string.h>
#include <trainrun/rng.h>
#include <unistd.h>

typedef struct seen {
  char text[8192]; /* each line and its mark: '|' or '~' for a passing one */
  size_t raw_bytes;
} seen;

static void take_line(void *self, const char *line, size_t bytes, bool passing) {
  seen *s = self;
  strncat(s->text, line, bytes);
  strcat(s->text, passing ? "~" : "|");
}

static void take_raw(void *self, const char *data, size_t bytes) {
  (void)data;
  ((seen *)self)->raw_bytes += bytes;
}

/* Sends `text` in pieces of the given sizes and reads after each. */
static seen cut(const char *text, const size_t *pieces, size_t piece_count, size_t limit) {
  seen s = {0};
  int pair[2];
  tr_lines lines = {.limit = limit, .carriage = true};
  const tr_lines_sink sink = {.self = &s, .raw = take_raw, .line = take_line};
  cr_assert_eq(pipe2(pair, O_NONBLOCK), 0);
  size_t at = 0, left = strlen(text);
  for (size_t i = 0; left > 0; i++) {
    size_t part = piece_count > 0 ? pieces[i % piece_count] : left;
    if (part > left) part = left;
    cr_assert_eq(write(pair[1], text + at, part), (ssize_t)part);
    cr_assert(lines_read(&lines, pair[0], SIZE_MAX, &sink));
    at += part;
    left -= part;
  }
  close(pair[1]);
  cr_assert_not(lines_read(&lines, pair[0], SIZE_MAX, &sink));
  lines_finish(&lines, &sink);
  lines_free(&lines);
  close(pair[0]);
  cr_assert_eq(s.raw_bytes, strlen(text));
  return s;
}

Test(lines, hands_on_whole_lines_and_a_last_one_without_an_end) {
  cr_assert_str_eq(cut("one\n\ntwo\nthree", NULL, 0, 1000).text, "one||two|three|");
}

Test(lines, takes_a_carriage_return_for_a_line_that_passes) {
  cr_assert_str_eq(cut("10%\r20%\r\nend\r\n", NULL, 0, 1000).text, "10%~20%|end|");
}

Test(lines, cuts_a_line_that_is_too_long) {
  cr_assert_str_eq(cut("aaaaaaaaaa\nb\n", (size_t[]){4}, 1, 8).text, "aaaaaaaa|aa|b|");
}

Test(lines, gives_the_same_lines_however_the_bytes_arrive) {
  const char *text = "alpha\nbeta\r\n\ngamma delta\nepsilon\n\n\nzeta";
  for (uint64_t seed = 1; seed <= 200; seed++) {
    size_t pieces[16];
    for (size_t i = 0; i < 16; i++) pieces[i] = 1 + tr_rng_below(seed, 0, i, 0, 7);
    char got[8192];
    strcpy(got, cut(text, pieces, 16, 1000).text);
    /* A "\r\n" cut in two ends a passing line first; the text is the same. */
    for (char *c = got; *c != '\0'; c++) {
      if (*c == '~') *c = '|';
    }
    cr_assert_str_eq(got, "alpha|beta||gamma delta|epsilon|||zeta|", "seed %llu: %s", (unsigned long long)seed, got);
  }
}
