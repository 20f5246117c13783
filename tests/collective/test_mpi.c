/* The mpi backend under a real mpirun: exact on one host and between hosts (consecutive ranks taken for hosts of their
 * own), who is where, the end of MPI, and what is said when the module is not there. */
#include <criterion/criterion.h>
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "exact.h"
#include "support/support.h"

static ts_result run(int ranks, int ranks_per_host, const char *what) {
  char *program = ts_built("tests/collective/mpi_ranks"), *folder = ts_built("");
  char *n = ts_format("%d", ranks), *h = ts_format("%d", ranks_per_host);
  const char *const arguments[] = {"mpirun", "--oversubscribe", "-np", n, program, folder, h, what, NULL};
  /* Open MPI leaks in plugins that it has unloaded, and locks in orders that ThreadSanitizer dislikes. Our own blocks
   * are counted by the program, and it has one thread. */
  const char *const environment[] = {"OMPI_ALLOW_RUN_AS_ROOT=1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1",
                                     "ASAN_OPTIONS=detect_leaks=0", "TSAN_OPTIONS=exitcode=0", NULL};
  const ts_options options = {.environment = environment, .timeout_s = 120};
  const ts_result result = ts_run(arguments, &options);
  free(program), free(folder), free(n), free(h);
  return result;
}

static void skip_without_mpi(void) {
  char *program = ts_built("tests/collective/mpi_ranks");
  const bool there = ts_exists(program);
  free(program);
  if (!there) cr_skip_test("no MPI was found when this was built");
}

Test(mpi, sums_exactly_however_ranks_lie_on_hosts, .timeout = 600) {
  skip_without_mpi();
  static const int layouts[][2] = {{2, 0}, {3, 2}, {4, -2}, {2, 1}, {1, 0}, {4, 2},
                                   {4, 1}, {3, 1}, {4, 3},  {5, 2}, {6, 2}, {5, -3}};
  const size_t count = ts_long() ? sizeof layouts / sizeof *layouts : 3;
  for (size_t i = 0; i < count; i++) {
    ts_result result = run(layouts[i][0], layouts[i][1], ts_long() ? "exact-whole" : "exact");
    cr_assert_eq(result.exit_code, 0, "%d ranks, %d a host: exit %d\n%s", layouts[i][0], layouts[i][1],
                 result.exit_code, result.err);
    ts_result_free(&result);
  }
}

Test(mpi, says_who_is_where, .timeout = 120) {
  skip_without_mpi();
  ts_result result = run(3, 2, "describe");
  cr_assert_eq(result.exit_code, 0, "%s", result.err);
  cr_assert_not_null(strstr(result.out, "rank 0 of 3, local 0 of 2, host 0 of 2, mpi"), "%s", result.out);
  cr_assert_not_null(strstr(result.out, "rank 1 of 3, local 1 of 2, host 0 of 2, mpi"), "%s", result.out);
  cr_assert_not_null(strstr(result.out, "rank 2 of 3, local 0 of 1, host 1 of 2, mpi"), "%s", result.out);
  ts_result_free(&result);
}

Test(mpi, leaves_mpi_to_a_program_that_started_it, .timeout = 120) {
  skip_without_mpi();
  ts_result result = run(2, 0, "guest");
  cr_assert_eq(result.exit_code, 0, "%s", result.err);
  ts_result_free(&result);
}

Test(mpi, an_abort_ends_every_rank_of_the_host, .timeout = 120) {
  skip_without_mpi();
  ts_result result = run(2, 0, "abort");
  cr_assert(!result.timed_out);
  cr_assert_eq(result.exit_code, 44, "exit %d: %s", result.exit_code, result.err);
  ts_result_free(&result);
}

Test(mpi, nothing_of_ours_stands_in_dev_shm, .timeout = 120) {
  skip_without_mpi();
  ts_result result = run(2, 0, "describe");
  ts_result_free(&result);
  DIR *folder = opendir("/dev/shm");
  cr_assert_not_null(folder);
  for (const struct dirent *entry; (entry = readdir(folder)) != NULL;)
    cr_assert_null(strstr(entry->d_name, "trainrun"), "%s", entry->d_name);
  closedir(folder);
}

Test(mpi, says_what_is_missing_without_the_module) {
  tr_comm *comm = NULL;
  tr_error error;
  const tr_comm_mpi_options options = {.struct_bytes = sizeof options, .module_folder = "/nonexistent"};
  cr_assert_eq(tr_comm_open_mpi(&options, &comm, &error), TR_ERR_UNAVAILABLE);
  cr_assert_not_null(strstr(error.message, "/nonexistent/libtrainrun_mpi.so"), "%s", error.message);
  cr_assert_not_null(strstr(error.message, "make mpi"), "%s", error.message);
}
