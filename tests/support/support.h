/* What tests of several rooms share: folders that go away, files, programs run with a time limit, ranks as processes,
 * JSON. A helper that cannot do its work ends the test process with a message: a test has nothing better to do.
 *
 * Memory that is handed out comes from malloc and is the caller's; a test may leave it to the end of its process. */
#ifndef TRAINRUN_TESTS_SUPPORT_H
#define TRAINRUN_TESTS_SUPPORT_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

/* True where the long variants are wanted (make test-long, TRAINRUN_TEST_LONG=1). */
bool ts_long(void);

/* A new empty folder under $TMPDIR (or /tmp), removed with all that is in it when this process ends normally. */
const char *ts_folder(void);
void ts_remove_tree(const char *path);

/* printf into a new string: paths, mostly. */
char *ts_format(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* A path below the build folder ("trainrun", "examples/hello_allreduce") or the source folder. */
char *ts_built(const char *path);
char *ts_source(const char *path);

void ts_file_write(const char *path, const void *bytes, size_t count);
/* The whole file with a NUL after it, or NULL where there is none. count may be NULL. */
char *ts_file_read(const char *path, size_t *count);
bool ts_exists(const char *path);

/* A program that was started: its output goes to files, so that nothing blocks on a full pipe. */
typedef struct ts_process {
  pid_t pid; /* also its process group */
  char *out_path, *err_path;
  double started_s;
} ts_process;

typedef struct ts_result {
  int exit_code; /* 128 + n for signal n */
  bool timed_out;
  double seconds;
  char *out, *err; /* NUL-terminated */
} ts_result;

typedef struct ts_options {
  const char *folder;             /* where it runs; NULL: here */
  const char *const *environment; /* NULL-terminated "NAME=value" added to this process's; "NAME" takes it out */
  double timeout_s;               /* 0: 60 */
} ts_options;

/* arguments[0] is the program (searched in PATH); NULL-terminated. options may be NULL. */
ts_process ts_start(const char *const *arguments, const ts_options *options);
/* Waits; after the time limit kills the whole group and says so in the result. */
ts_result ts_finish(ts_process *process, double timeout_s);
ts_result ts_run(const char *const *arguments, const ts_options *options);
void ts_result_free(ts_result *result);

/* Runs body(rank, rank_count, context) in rank_count child processes and waits for all; true when each returned 0 within
 * the time limit. What fails is said on stderr; after the limit the children are killed. */
bool ts_ranks(int rank_count, double timeout_s, int (*body)(int rank, int rank_count, void *context), void *context);

/* A monotonic clock in seconds. */
double ts_now_s(void);
void ts_sleep_s(double seconds);

/* A JSON file, and members by dotted path ("ledger.compute"). Missing ones end the test. */
json_t *ts_json(const char *path);
double ts_json_number(const json_t *object, const char *path);
const char *ts_json_text(const json_t *object, const char *path);

#endif
