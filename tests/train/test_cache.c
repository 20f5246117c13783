/* A job's cache: opened for the session by its keys, used by its data sets. */
#include "train/job_fixture.h"

static ts_faults counts;

static tr_status open_counted(void *self, const char *url, tr_store **store, char key[TR_KEY_BYTES], tr_error *error) {
  const tr_store_memory_options options = {.struct_bytes = sizeof options};
  tr_store *inner;
  (void)self;
  snprintf(key, TR_KEY_BYTES, "%s", url + strlen("counted://d/"));
  if (*store != NULL) return TR_OK;
  TR_TRY(tr_store_memory_open(&options, &inner, error));
  *store = ts_fault_store(inner, true, &counts);
  return tr_store_put(*store, "t.csv", "x,y\n1,2\n3,4\n", 12, false, error);
}

static tr_session *open_session(const char *cache, tr_error *error) {
  FILE *file = fopen("job.toml", "w");
  fprintf(file, "name = \"c\"\nprogram = \"c\"\n[data]\ntrain = \"counted://d/t.csv\"\n%s\n", cache);
  fclose(file);
  char name[] = "c", path[] = "job.toml";
  char *argv[] = {name, path, NULL};
  const tr_session_options options = {.struct_bytes = sizeof options,
                                      .log_descriptor = open("log", O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600)};
  tr_session *session = NULL;
  cr_assert_eq(tr_session_open(2, argv, &options, &session, error), TR_OK, "%s", error->message);
  cr_assert_eq(tr_stores_add_scheme(tr_session_stores(session), "counted", open_counted, NULL, error), TR_OK);
  counts = (ts_faults){0};
  return session;
}

/* Opens the data set so many times, each of which reads the table; the gets that the store saw. */
static uint64_t read_times(tr_session *session, int times) {
  tr_error e = {0};
  for (int i = 0; i < times; i++) {
    tr_dataset *dataset = NULL;
    float x, y;
    void *const to[] = {&x, &y};
    cr_assert_eq(tr_session_open_dataset(session, "train", &dataset, &e), TR_OK, "%s", e.message);
    cr_assert_eq(tr_dataset_read(dataset, 1, to, &e), TR_OK, "%s", e.message);
    cr_assert(x == 3 && y == 4);
    tr_dataset_close(dataset);
  }
  return counts.gets;
}

Test(job_cache, keeps_what_was_read_in_memory_or_in_a_folder_beside_the_job_file) {
  cr_assert_eq(chdir(ts_folder()), 0);
  const char *const caches[] = {"cache = { memory = \"8MiB\" }", "cache = { dir = \"kept\" }",
                                "cache = { dir = \"kept\", size = \"1GiB\", memory = \"8MiB\" }"};
  tr_error e = {0};
  tr_session *session = open_session("", &e);
  const uint64_t gets = read_times(session, 3);
  cr_assert_geq(gets, 3, "without a cache the store is asked each time, not %d times", (int)gets);
  tr_session_close(session, TR_OK, NULL);
  for (int i = 0; i < 3; i++) {
    session = open_session(caches[i], &e);
    cr_assert_eq(read_times(session, 3), i < 2 ? 1 : 0, "the third job finds the folder of the second");
    tr_session_close(session, TR_OK, NULL);
    char *log = ts_file_read("log", NULL);
    cr_assert_not_null(strstr(log, "cache: "), "%s", log);
  }
  cr_assert(ts_exists("kept/.trainrun-cache"));
}

Test(job_cache, a_size_without_a_folder_is_a_mistake_that_is_named) {
  cr_assert_eq(chdir(ts_folder()), 0);
  tr_error e = {0};
  tr_dataset *dataset = NULL;
  tr_session *session = open_session("cache = { size = \"1GiB\" }", &e);
  cr_assert_eq(tr_session_open_dataset(session, "train", &dataset, &e), TR_ERR_CONFIG);
  cr_assert_not_null(strstr(e.message, "data.cache.dir"));
  tr_session_close(session, TR_OK, NULL);
}
