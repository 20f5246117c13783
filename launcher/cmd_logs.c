/* trainrun logs: the workers' output of a run's last attempt, rank by rank, or as it comes with --follow. */
#include "lines.h"
#include "runs.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { FOLLOW_SLEEP_NS = 200 * 1000000 };

typedef struct followed {
  int32_t rank;
  int descriptor;
  tr_lines lines;
} followed;

static void print_line(void *self, const char *line, size_t bytes, bool passing) {
  const followed *log = self;
  (void)passing;
  printf("[0/%d] %.*s\n", log->rank, (int)bytes, line);
}

static void read_more(followed *log) {
  const tr_lines_sink sink = {.self = log, .line = print_line};
  if (log->descriptor >= 0) (void)lines_read(&log->lines, log->descriptor, SIZE_MAX, &sink);
}

static void read_all(followed *logs, int32_t count) {
  for (int32_t i = 0; i < count; i++) read_more(&logs[i]);
  fflush(stdout);
}

static int show(const tr_cli *cli, const found_run *run, int32_t first, int32_t count) {
  followed *logs = calloc((size_t)count, sizeof *logs);
  int32_t opened = 0;
  if (logs == NULL) return EXIT_UNAVAILABLE;
  for (int32_t i = 0; i < count; i++) {
    char path[PATH_MAX + 64];
    snprintf(path, sizeof path, "%s/logs/attempt_%llu/%d.log", run->folder, (unsigned long long)run->attempt,
             first + i);
    logs[i] = (followed){
        .rank = first + i, .descriptor = open(path, O_RDONLY | O_CLOEXEC), .lines = {.limit = 1 << 20}};
    if (logs[i].descriptor >= 0) opened++;
  }
  if (opened == 0) {
    fprintf(stderr, "trainrun: %s/%s has no logs of attempt %llu\n", run->name, run->run_id,
            (unsigned long long)run->attempt);
  }
  bool alive = opened > 0 && cli->follow;
  do {
    if (alive) alive = runs_is_alive(run);
    read_all(logs, count);
    if (alive) tr_clock_sleep_ns(NULL, FOLLOW_SLEEP_NS);
  } while (alive);
  for (int32_t i = 0; i < count; i++) {
    const tr_lines_sink sink = {.self = &logs[i], .line = print_line};
    lines_finish(&logs[i].lines, &sink);
    lines_free(&logs[i].lines);
    if (logs[i].descriptor >= 0) close(logs[i].descriptor);
  }
  free(logs);
  return opened > 0 ? 0 : EXIT_UNAVAILABLE;
}

int cmd_logs(const tr_cli *cli) {
  static found_run run;
  uint64_t rank = 0;
  const int code = runs_find(cli, &run);
  if (code != 0) return code;
  if (cli->rank == NULL) return show(cli, &run, 0, run.world_size);
  if (!tr_parse_u64(cli->rank, &rank) || rank >= (uint64_t)run.world_size) {
    fprintf(stderr, "trainrun: --rank %s: ranks are 0 to %d\n", cli->rank, run.world_size - 1);
    return EXIT_USAGE;
  }
  return show(cli, &run, (int32_t)rank, 1);
}
