/* trainrun stop: asks a job of this machine to write a checkpoint and end; --force ends it now. */
#include "runs.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

int cmd_stop(const tr_cli *cli) {
  static found_run run;
  const int code = runs_find(cli, &run);
  if (code != 0) return code;
  if (!run.alive) {
    printf("%s/%s is not running (%s)\n", run.name, run.run_id, run.status);
    return 0;
  }
  /* The launcher takes SIGUSR1 for a request to stop, and a second signal for "now". */
  bool sent = kill(run.pid, SIGUSR1) == 0;
  if (sent && cli->force) {
    tr_clock_sleep_ns(NULL, 50 * 1000000);
    sent = kill(run.pid, SIGUSR1) == 0 || errno == ESRCH;
  }
  if (!sent) {
    fprintf(stderr, "trainrun: cannot stop pid %d: %s\n", (int)run.pid, strerror(errno));
    return EXIT_UNAVAILABLE;
  }
  if (!cli->quiet) {
    printf("%s/%s %s\n", run.name, run.run_id,
           cli->force ? "is stopped" : "will write a checkpoint and stop; 'trainrun wait' waits for it");
  }
  return 0;
}
