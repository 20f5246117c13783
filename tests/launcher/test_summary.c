/* The table at the end. */
#include <criterion/criterion.h>
#include <launcher/summary.h>
#include <stdlib.h>
#include <string.h>

static char *table_of(const char *summary, bool color) {
  const tr_summary_style style = {.color = color, .folder = "runs/x/1", .job = "job.toml"};
  tr_writer writer;
  tr_writer_init(&writer, NULL);
  summary_write(summary, &style, &writer);
  tr_write_u8(&writer, 0);
  cr_assert_not(writer.failed);
  char *text = strdup((const char *)writer.data);
  tr_writer_fini(&writer);
  return text;
}

static const char done[] =
    "{\"schema\": 1, \"kind\": \"train\", \"name\": \"x\", \"run_id\": \"1\", \"status\": \"done\", \"steps\": 938, "
    "\"epochs\": 2, \"samples\": 120000, \"samples_per_s\": 3510.4, \"world_size\": 2, \"device\": \"cpu\", \"loss\": "
    "0.21, "
    "\"metrics\": {\"loss\": 0.24, \"accuracy\": 0.9132}, \"time_s\": 34.2, \"verdict\": \"nothing starves\", "
    "\"restarts\": 1, "
    "\"steps_lost\": 7, \"ledger\": {\"startup\": 0.1, \"compute\": 30, \"collective_wait\": 4.1, \"h2d\": 0}, "
    "\"checkpoint_url\": \"runs/x/1/checkpoints\"}";

Test(summary, shows_what_came_out_and_where_the_time_went) {
  char *text = table_of(done, false);
  static const char *const wanted[] = {"x/1  done after 34.2 s",
                                       "938 steps, 2 epochs, 120000 samples",
                                       "3510 samples/s on 2 workers, cpu",
                                       "accuracy 0.9132",
                                       "nothing starves",
                                       "1, 7 steps done again",
                                       "trainrun eval job.toml",
                                       "runs/x/1/checkpoints"};
  for (size_t i = 0; i < sizeof wanted / sizeof *wanted; i++) {
    cr_assert(strstr(text, wanted[i]) != NULL, "no '%s' in:\n%s", wanted[i], text);
  }
  cr_assert_lt(strstr(text, "compute "), strstr(text, "collective_wait"), "the largest share comes first");
  cr_assert_null(strstr(text, "h2d"), "what took no time is left out");
  cr_assert_null(strchr(text, '\033'), "no colors off a terminal");
  free(text);
}

Test(summary, colors_on_request) {
  char *text = table_of(done, true);
  cr_assert_not_null(strchr(text, '\033'));
  free(text);
}

Test(summary, names_the_cause_of_a_failure_and_where_to_look) {
  char *text = table_of(
      "{\"name\": \"x\", \"run_id\": \"1\", \"status\": \"failed\", \"cause\": \"rank 1 was killed\"}", false);
  cr_assert(strstr(text, "rank 1 was killed") != NULL && strstr(text, "trainrun logs x/1") != NULL, "%s", text);
  free(text);
}

Test(summary, writes_nothing_for_what_is_no_summary) {
  char *text = table_of("[]", false);
  cr_assert_str_eq(text, "");
  free(text);
  text = table_of(NULL, false);
  cr_assert_str_eq(text, "");
  free(text);
}
