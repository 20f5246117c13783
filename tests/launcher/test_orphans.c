/* A launcher that is killed leaves nothing: no process, whenever it happens. */
#include "command.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/wait.h>
#include <trainrun/rng.h>
#include <unistd.h>

/* Processes whose environment carries the mark. */
static int marked(const char *mark) {
  DIR *open = opendir("/proc");
  int count = 0;
  for (struct dirent *entry; (entry = readdir(open)) != NULL;) {
    if (entry->d_name[0] < '0' || entry->d_name[0] > '9' || atoi(entry->d_name) == getpid()) continue;
    FILE *file = fopen(ts_format("/proc/%s/environ", entry->d_name), "re");
    if (file == NULL) continue;
    static char text[256 * 1024];
    const size_t got = fread(text, 1, sizeof text, file);
    fclose(file);
    count += memmem(text, got, mark, strlen(mark)) != NULL;
  }
  closedir(open);
  return count;
}

/* Starts a job, kills the launcher after `delay_s`, and waits until nothing of it is left. */
static void kill_launcher(const char *folder, const char *target, double delay_s, uint64_t number) {
  const char *mark = ts_format("TRAINRUN_TEST_MARK=%d-%llu", (int)getpid(), (unsigned long long)number);
  const pid_t launcher = fork();
  if (launcher == 0) {
    const int nowhere = open("/dev/null", O_RDWR);
    for (int standard = 0; standard < 3; standard++) dup2(nowhere, standard);
    putenv((char *)mark);
    if (chdir(folder) == 0)
      execl(ts_built("trainrun"), "trainrun", "--workers", "3", "--fresh", target, "steps=100000", NULL);
    _exit(127);
  }
  ts_sleep_s(delay_s);
  kill(launcher, SIGKILL);
  waitpid(launcher, NULL, 0);
  int left = 0;
  for (double end = ts_now_s() + 2; (left = marked(mark)) > 0 && ts_now_s() < end; ts_sleep_s(0.002)) continue;
  cr_assert_eq(left, 0, "%d processes left after a kill at %.4f s", left, delay_s);
}

/* Moments spread over the first milliseconds, where the workers are being started. */
static double moment(uint64_t seed) { return (double)tr_rng_below(7, 0, seed, 0, 30000) / 1e6; }

Test(orphans, never_outlive_a_launcher_that_is_killed_at_any_moment, .timeout = 120) {
  const char *folder = ts_folder();
  const uint64_t times = ts_long() ? 200 : 25;
  for (uint64_t i = 0; i < times; i++) kill_launcher(folder, ts_built("tests/fake_worker"), moment(i), i);
}

Test(orphans, take_their_own_children_with_them, .timeout = 120) {
  const char *folder = ts_folder();
  const char *program = script(folder, "p", "sleep 600 & sleep 600");
  const uint64_t times = ts_long() ? 50 : 8;
  for (uint64_t i = 0; i < times; i++) kill_launcher(folder, program, 0.03 + moment(i), 1000 + i);
}
