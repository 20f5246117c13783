/* The bounds-checked reader and writer. */
#include <criterion/criterion.h>
#include <jansson.h>
#include <locale.h>
#include <math.h>
#include <string.h>
#include <trainrun/bytes.h>
#include <trainrun/rng.h>

Test(bytes, reads_both_byte_orders) {
  static const uint8_t data[] = {1,  2,  3,  4,  5,  6,  7,  8,  9,  10, 11, 12, 13, 14, 15,
                                 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29};
  tr_reader r = tr_reader_of(data, sizeof data);
  cr_assert_eq(tr_read_u8(&r), 1);
  cr_assert_eq(tr_read_u16le(&r), 0x0302);
  cr_assert_eq(tr_read_u16be(&r), 0x0405);
  cr_assert_eq(tr_read_u32le(&r), 0x09080706u);
  cr_assert_eq(tr_read_u32be(&r), 0x0a0b0c0du);
  cr_assert_eq(tr_read_u64le(&r), UINT64_C(0x1514131211100f0e));
  cr_assert_eq(tr_read_u64be(&r), UINT64_C(0x161718191a1b1c1d));
  cr_assert_eq(tr_reader_left(&r), 0);
  cr_assert(!r.failed);
}

Test(bytes, a_read_past_the_end_fails_for_good) {
  static const uint8_t data[3] = {1, 2, 3};
  tr_reader r = tr_reader_of(data, sizeof data);
  cr_assert_eq(tr_read_u32le(&r), 0);
  cr_assert(r.failed);
  cr_assert_eq(tr_read_u8(&r), 0, "a reader that failed gives zeros");
  cr_assert_null(tr_read_bytes(&r, 0));
  cr_assert_eq(tr_reader_left(&r), 0);
  r = tr_reader_of(data, sizeof data);
  cr_assert_null(tr_read_bytes(&r, SIZE_MAX));
  r = tr_reader_of(NULL, 0);
  cr_assert_eq(tr_read_u8(&r), 0);
  cr_assert(r.failed);
}

Test(bytes, what_is_written_reads_back) {
  tr_writer w;
  tr_writer_init(&w, NULL);
  for (uint64_t i = 0; i < 500; i++) {
    const uint64_t v = tr_rng_u64(1, TR_RNG_USER, 0, i);
    tr_write_u8(&w, (uint8_t)v);
    tr_write_u16le(&w, (uint16_t)v);
    tr_write_u32le(&w, (uint32_t)v);
    tr_write_u64le(&w, v);
    tr_write_bytes(&w, &v, (size_t)(i % 9));
  }
  tr_reader r = tr_reader_of(w.data, w.bytes);
  for (uint64_t i = 0; i < 500; i++) {
    const uint64_t v = tr_rng_u64(1, TR_RNG_USER, 0, i);
    cr_assert_eq(tr_read_u8(&r), (uint8_t)v);
    cr_assert_eq(tr_read_u16le(&r), (uint16_t)v);
    cr_assert_eq(tr_read_u32le(&r), (uint32_t)v);
    cr_assert_eq(tr_read_u64le(&r), v);
    const void *bytes = tr_read_bytes(&r, (size_t)(i % 9));
    cr_assert(i % 9 == 0 || memcmp(bytes, &v, (size_t)(i % 9)) == 0);
  }
  cr_assert(!r.failed && tr_reader_left(&r) == 0);
  tr_writer_fini(&w);
}

Test(bytes, text_of_any_length_is_formatted_whole) {
  for (int length = 0; length < 1200; length += 7) {
    tr_writer w;
    tr_writer_init(&w, NULL);
    tr_write_text(&w, "%*d|", length, 5);
    cr_assert_eq(w.bytes, (size_t)(length < 1 ? 1 : length) + 1);
    cr_assert_eq(w.data[w.bytes - 1], '|');
    tr_writer_fini(&w);
  }
}

Test(bytes, a_writer_without_memory_fails_for_good_and_leaks_nothing) {
  for (uint64_t fail_at = 1; fail_at < 8; fail_at++) {
    tr_counting_allocator counting;
    tr_counting_allocator_init(&counting);
    counting.fail_at = fail_at;
    tr_writer w;
    tr_writer_init(&w, &counting.allocator);
    for (int i = 0; i < 1000; i++) tr_write_text(&w, "%d", i);
    cr_assert(w.failed);
    tr_writer_fini(&w);
    cr_assert_eq(counting.live_blocks, 0);
  }
}

static void check_json(const char *text, const char *expected) {
  tr_writer w;
  tr_writer_init(&w, NULL);
  tr_write_json_string(&w, text);
  tr_write_u8(&w, 0);
  cr_assert_str_eq((char *)w.data, expected);
  json_t *parsed = json_loads((char *)w.data, JSON_DECODE_ANY, NULL);
  cr_assert(json_is_string(parsed));
  json_decref(parsed);
  tr_writer_fini(&w);
}

Test(bytes, json_strings_are_escaped) {
  check_json("", "\"\"");
  check_json("a\"b\\c", "\"a\\\"b\\\\c\"");
  check_json("\n\t\r\b\f\x01\x7f", "\"\\n\\t\\r\\b\\f\\u0001\\u007f\"");
  check_json("\xC3\xA4 \xF0\x9F\x98\x80", "\"\xC3\xA4 \xF0\x9F\x98\x80\"");
}

Test(bytes, json_strings_replace_what_is_not_utf8) {
  check_json("\xFF", "\"\xEF\xBF\xBD\"");
  check_json("a\xC3", "\"a\xEF\xBF\xBD\"");
  check_json("\xC0\xAF", "\"\xEF\xBF\xBD\xEF\xBF\xBD\"");                   /* overlong */
  check_json("\xED\xA0\x80x", "\"\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBDx\""); /* a surrogate */
}

Test(bytes, json_reals_read_back_the_same) {
  static const double values[] = {0, 1, -1, 0.1, 1e-3, 1e300, 5e-324, 3.0000000000000004, -2.5e-8, 1.0 / 3};
  for (size_t i = 0; i < sizeof values / sizeof *values; i++) {
    tr_writer w;
    tr_writer_init(&w, NULL);
    tr_write_json_real(&w, values[i]);
    tr_write_u8(&w, 0);
    double back;
    cr_assert(tr_parse_real((char *)w.data, &back));
    cr_assert_eq(back, values[i], "%s", (char *)w.data);
    tr_writer_fini(&w);
  }
  tr_writer w;
  tr_writer_init(&w, NULL);
  tr_write_json_real(&w, 0.1);
  tr_write_json_real(&w, NAN);
  tr_write_json_real(&w, INFINITY);
  tr_write_u8(&w, 0);
  cr_assert_str_eq((char *)w.data, "0.1nullnull");
  tr_writer_fini(&w);
}

Test(bytes, parses_sizes) {
  static const struct {
    const char *text;
    uint64_t bytes;
  } good[] = {{"512", 512},
              {"0", 0},
              {"1B", 1},
              {"64MiB", UINT64_C(64) << 20},
              {"64 MiB", UINT64_C(64) << 20},
              {"1.5GB", 1500000000},
              {"1.5KiB", 1536},
              {"2TiB", UINT64_C(2) << 40},
              {"3KB", 3000},
              {"3kB", 3000},
              {"7GiB", UINT64_C(7) << 30},
              {"1TB", UINT64_C(1000000000000)},
              {"18446744073709551615", UINT64_MAX}};
  for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
    uint64_t bytes = 42;
    cr_assert(tr_parse_bytes(good[i].text, &bytes), "%s", good[i].text);
    cr_assert_eq(bytes, good[i].bytes, "%s", good[i].text);
  }
  static const char *const bad[] = {
      "",       "MiB",  "-1",   "+1",  "1.",   ".5KiB", "1e3",         "64Mib",
      "64MiBx", " 64B", "64B ", "64 ", "0x10", "1 2",   "16777216TiB", "18446744073709551616"};
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
    uint64_t bytes = 42;
    cr_assert(!tr_parse_bytes(bad[i], &bytes), "%s", bad[i]);
    cr_assert_eq(bytes, 42);
  }
}

Test(bytes, parses_times) {
  static const struct {
    const char *text;
    uint64_t ns;
  } good[] = {{"500ms", 500000000},
              {"2s", 2000000000},
              {"5m", UINT64_C(300000000000)},
              {"1h", UINT64_C(3600000000000)},
              {"1d", UINT64_C(86400000000000)},
              {"7us", 7000},
              {"7ns", 7},
              {"0.25s", 250000000},
              {"1.5 h", UINT64_C(5400000000000)},
              {"0", 0}};
  for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
    uint64_t ns;
    cr_assert(tr_parse_duration(good[i].text, &ns), "%s", good[i].text);
    cr_assert_eq(ns, good[i].ns, "%s", good[i].text);
  }
  static const char *const bad[] = {"", "5", "s", "-1s", "5 steps", "1h30m", "5M", "300000000d"};
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
    uint64_t ns;
    cr_assert(!tr_parse_duration(bad[i], &ns), "%s", bad[i]);
  }
}

Test(bytes, parses_plain_numbers) {
  uint64_t u;
  double d;
  cr_assert(tr_parse_u64("18446744073709551615", &u) && u == UINT64_MAX);
  cr_assert(!tr_parse_u64("18446744073709551616", &u));
  cr_assert(!tr_parse_u64("", &u) && !tr_parse_u64("-1", &u) && !tr_parse_u64("1 ", &u));
  cr_assert(tr_parse_real("1e-3", &d) && d == 1e-3);
  cr_assert(tr_parse_real("-2.5", &d) && d == -2.5);
  cr_assert(!tr_parse_real("", &d) && !tr_parse_real("x", &d) && !tr_parse_real("1.0x", &d));
  cr_assert(!tr_parse_real("inf", &d) && !tr_parse_real("nan", &d) && !tr_parse_real("0x10", &d));
  cr_assert(!tr_parse_real("1e999", &d) && !tr_parse_real(" 1", &d) && !tr_parse_real("-", &d));
}

Test(bytes, formats_for_people) {
  char text[32];
  static const struct {
    uint64_t bytes;
    const char *text;
  } sizes[] = {{0, "0 B"},
               {1023, "1023 B"},
               {1024, "1 KiB"},
               {1610612736, "1.5 GiB"},
               {UINT64_C(64) << 20, "64 MiB"},
               {UINT64_MAX, "16 EiB"}};
  for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
    tr_format_bytes(sizes[i].bytes, text);
    cr_assert_str_eq(text, sizes[i].text);
  }
  static const struct {
    uint64_t ns;
    const char *text;
  } times[] = {{0, "0 ns"},
               {340000000, "340 ms"},
               {1500, "1.5 us"},
               {UINT64_C(12300000000), "12.3 s"},
               {UINT64_C(125000000000), "2 m 05 s"},
               {UINT64_C(3720000000000), "1 h 02 m"},
               {UINT64_C(180000000000000), "2 d 02 h"}};
  for (size_t i = 0; i < sizeof times / sizeof *times; i++) {
    tr_format_duration(times[i].ns, text);
    cr_assert_str_eq(text, times[i].text);
  }
}

Test(bytes, numbers_keep_their_point_in_a_locale_with_a_comma) {
  if (setlocale(LC_ALL, "de_DE.UTF-8") == NULL) cr_skip_test("the locale de_DE.UTF-8 is not installed");
  tr_writer w;
  tr_writer_init(&w, NULL);
  tr_write_text(&w, "%.2f %g", 1.5, 0.25);
  tr_write_u8(&w, 0);
  cr_assert_str_eq((char *)w.data, "1.50 0.25");
  double d;
  cr_assert(tr_parse_real("1.5", &d) && d == 1.5);
  tr_writer_fini(&w);
}
