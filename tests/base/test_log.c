/* Log lines as text and JSON. */
#include <criterion/criterion.h>
#include <fcntl.h>
#include <jansson.h>
#include <pthread.h>
#include <string.h>
#include <trainrun/log.h>
#include <unistd.h>

typedef struct sink {
  char text[20000];
  size_t bytes, lines;
  bool torn;
} sink;

static void take(void *self, tr_log_level level, const char *line, size_t bytes) {
  sink *s = self;
  (void)level;
  s->lines++;
  s->torn |= bytes == 0 || line[bytes - 1] != '\n' || memchr(line, '\n', bytes) != line + bytes - 1;
  if (s->bytes + bytes < sizeof s->text) {
    memcpy(s->text + s->bytes, line, bytes);
    s->bytes += bytes;
    s->text[s->bytes] = '\0';
  }
}

static sink caught;
static tr_manual_clock manual;

static tr_log *make(bool json, tr_log_level level, int32_t rank) {
  memset(&caught, 0, sizeof caught);
  tr_manual_clock_init(&manual, 0);
  const tr_log_options options = {.struct_bytes = sizeof options,
                                  .clock = &manual.clock,
                                  .level = level,
                                  .json = json,
                                  .rank = rank,
                                  .write = take,
                                  .write_self = &caught};
  tr_log *log = NULL;
  cr_assert_eq(tr_log_create(&options, &log, NULL), TR_OK);
  return log;
}

Test(log, a_line_says_time_level_rank_and_step) {
  tr_log *log = make(false, TR_LOG_INFO, 3);
  tr_logf(log, TR_LOG_INFO, "hello %d", 5);
  tr_log_set_step(log, 0);
  tr_logf(log, TR_LOG_WARNING, "slow");
  cr_assert_str_eq(caught.text,
                   "1970-01-01T00:00:00.000Z info rank 3: hello 5\n"
                   "1970-01-01T00:00:00.000Z warning rank 3 step 0: slow\n");
  tr_log_destroy(log);
}

Test(log, no_rank_is_said_where_there_is_none) {
  tr_log *log = make(false, TR_LOG_INFO, -1);
  tr_logf(log, TR_LOG_ERROR, "x");
  cr_assert_str_eq(caught.text, "1970-01-01T00:00:00.000Z error: x\n");
  tr_log_destroy(log);
}

Test(log, what_is_more_verbose_than_the_level_is_not_written) {
  tr_log *log = make(false, TR_LOG_WARNING, 0);
  tr_logf(log, TR_LOG_INFO, "no");
  tr_logf(log, TR_LOG_DEBUG, "no");
  cr_assert_eq(caught.lines, 0);
  cr_assert(!tr_log_enabled(log, TR_LOG_INFO) && tr_log_enabled(log, TR_LOG_ERROR));
  tr_log_destroy(log);
}

Test(log, json_lines_parse) {
  tr_log *log = make(true, TR_LOG_INFO, 2);
  tr_log_set_step(log, 41);
  tr_logf(log, TR_LOG_INFO, "a \"quote\",\na line, a \\ and \x01 \xFF");
  json_t *line = json_loads(caught.text, 0, NULL);
  cr_assert_not_null(line, "%s", caught.text);
  cr_assert_str_eq(json_string_value(json_object_get(line, "message")),
                   "a \"quote\",\na line, a \\ and \x01 \xEF\xBF\xBD");
  cr_assert_str_eq(json_string_value(json_object_get(line, "level")), "info");
  cr_assert_eq(json_integer_value(json_object_get(line, "rank")), 2);
  cr_assert_eq(json_integer_value(json_object_get(line, "step")), 41);
  json_decref(line);
  tr_log_destroy(log);
}

Test(log, a_message_cannot_forge_a_second_line) {
  tr_log *log = make(false, TR_LOG_INFO, -1);
  tr_logf(log, TR_LOG_INFO, "a\nb\033[31mc");
  cr_assert_eq(caught.lines, 1);
  cr_assert(!caught.torn);
  cr_assert_str_eq(caught.text, "1970-01-01T00:00:00.000Z info: a\\nb\\x1b[31mc\n");
  tr_log_destroy(log);
}

Test(log, the_longest_message_is_cut_and_stays_a_line) {
  static char text[10000];
  for (int json = 0; json < 2; json++) {
    memset(text, '\x01', sizeof text - 1);
    tr_log *log = make(json != 0, TR_LOG_INFO, 0);
    tr_logf(log, TR_LOG_INFO, "%s", text);
    cr_assert_eq(caught.lines, 1);
    cr_assert(!caught.torn);
    tr_log_destroy(log);
  }
}

Test(log, an_error_is_written_with_its_status) {
  tr_log *log = make(false, TR_LOG_INFO, -1);
  tr_error error;
  tr_fail(&error, TR_ERR_NOT_FOUND, "no such shard");
  tr_log_error(log, "loader", &error);
  cr_assert_str_eq(caught.text, "1970-01-01T00:00:00.000Z error: loader: no such shard (not-found)\n");
  tr_log_destroy(log);
}

Test(log, a_missing_log_swallows_everything) {
  tr_logf(NULL, TR_LOG_ERROR, "x");
  tr_log_set_step(NULL, 1);
  tr_log_error(NULL, "x", NULL);
  cr_assert(!tr_log_enabled(NULL, TR_LOG_ERROR));
  tr_log_destroy(NULL);
}

Test(log, options_of_another_size_are_refused) {
  const tr_log_options options = {.struct_bytes = 4, .write = take};
  tr_log *log = NULL;
  tr_error error;
  cr_assert_eq(tr_log_create(&options, &log, &error), TR_ERR_INVALID);
}

Test(log, running_out_of_memory_is_an_error) {
  tr_counting_allocator counting;
  tr_counting_allocator_init(&counting);
  counting.fail_at = 1;
  const tr_log_options options = {
      .struct_bytes = sizeof options, .allocator = &counting.allocator, .write = take, .write_self = &caught};
  tr_log *log = NULL;
  tr_error error;
  cr_assert_eq(tr_log_create(&options, &log, &error), TR_ERR_NO_MEMORY);
  cr_assert_eq(tr_log_create(&options, &log, &error), TR_OK);
  const uint64_t before = counting.allocations;
  tr_logf(log, TR_LOG_ERROR, "%d", 1);
  cr_assert_eq(counting.allocations, before, "a line allocates nothing");
  tr_log_destroy(log);
  cr_assert_eq(counting.live_blocks, 0);
}

static void *write_lines(void *self) {
  for (int i = 0; i < 500; i++) {
    tr_log_set_step(self, (uint64_t)i);
    tr_logf(self, TR_LOG_INFO, "line %d of a thread", i);
  }
  return NULL;
}

Test(log, lines_of_several_threads_stay_whole) {
  tr_log *log = make(false, TR_LOG_INFO, 0);
  pthread_t threads[4];
  for (int i = 0; i < 4; i++) pthread_create(&threads[i], NULL, write_lines, log);
  for (int i = 0; i < 4; i++) pthread_join(threads[i], NULL);
  cr_assert_eq(caught.lines, 2000);
  cr_assert(!caught.torn);
  tr_log_destroy(log);
}

Test(log, a_file_descriptor_gets_whole_lines) {
  int ends[2];
  cr_assert_eq(pipe(ends), 0);
  tr_log_write_fd(&ends[1], TR_LOG_INFO, "abc\n", 4);
  char text[8] = "";
  cr_assert_eq(read(ends[0], text, sizeof text), 4);
  cr_assert_str_eq(text, "abc\n");
  close(ends[0]);
  close(ends[1]);
  const int closed = -1;
  tr_log_write_fd((void *)&closed, TR_LOG_INFO, "abc\n", 4); /* an error is ignored */
}
