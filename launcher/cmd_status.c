/* trainrun status: what the workers of a job are doing, read off the board of their segment; of an ended run its summary. */
#include "runs.h"
#include "summary.h"
#include "term.h"

#include <trainrun/collective.h>
#include <trainrun/worker.h>

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* The segment, as the launcher holds it open. -1: not to be had. */
static int open_segment(pid_t launcher) {
  char folder[64], path[PATH_MAX], target[128];
  snprintf(folder, sizeof folder, "/proc/%d/fd", (int)launcher);
  DIR *open_folder = opendir(folder);
  int found = -1;
  if (open_folder == NULL) return -1;
  for (struct dirent *entry; found < 0 && (entry = readdir(open_folder)) != NULL;) {
    snprintf(path, sizeof path, "%s/%.32s", folder, entry->d_name);
    const ssize_t length = readlink(path, target, sizeof target - 1);
    if (length <= 0) continue;
    target[length] = '\0';
    if (strncmp(target, "/memfd:trainrun-segment", strlen("/memfd:trainrun-segment")) == 0) {
      found = open(path, O_RDWR | O_CLOEXEC);
    }
  }
  closedir(open_folder);
  return found;
}

static void write_workers_json(tr_writer *writer, const tr_board *board) {
  const uint64_t now = tr_clock_now_ns(NULL);
  for (int32_t i = 0; i < board->size; i++) {
    const tr_beacon *beacon = &board->beacons[i];
    const uint64_t progress = __atomic_load_n(&beacon->progress_ns, __ATOMIC_RELAXED);
    tr_write_text(
        writer,
        "%s\n    {\"rank\": %d, \"node\": 0, \"pid\": %u, \"step\": %llu, \"phase\": \"%s\", \"last_progress_s\": ",
        i > 0 ? "," : "", i, __atomic_load_n(&beacon->pid, __ATOMIC_RELAXED),
        (unsigned long long)__atomic_load_n(&beacon->step, __ATOMIC_RELAXED),
        tr_phase_name((tr_phase)__atomic_load_n(&beacon->phase, __ATOMIC_RELAXED)));
    if (progress > 0) {
      tr_write_text(writer, "%.3f}", progress < now ? (double)(now - progress) / 1e9 : 0);
    } else {
      tr_write_text(writer, "null}");
    }
  }
}

static void write_json(const found_run *run, const tr_board *board) {
  tr_writer writer;
  tr_writer_init(&writer, NULL);
  tr_write_text(
      &writer,
      "{\"name\": \"%s\", \"run_id\": \"%s\", \"status\": \"%s\", \"alive\": %s, \"pid\": %d, \"attempt\": %llu, ",
      run->name, run->run_id, run->status, run->alive ? "true" : "false", (int)run->pid,
      (unsigned long long)run->attempt);
  tr_write_text(&writer, "\"world_size\": %d, \"device\": \"%s\", \"folder\": ", run->world_size, run->device);
  tr_write_json_string(&writer, run->folder);
  tr_write_text(&writer, ", \"workers\": [");
  write_workers_json(&writer, board);
  tr_write_text(&writer, "%s]}\n", board->size > 0 ? "\n  " : "");
  if (!writer.failed) fwrite(writer.data, 1, writer.bytes, stdout);
  tr_writer_fini(&writer);
}

static void write_table(const found_run *run, const tr_board *board) {
  printf("%s/%s  %s, attempt %llu, %d worker%s, %s, pid %d\n", run->name, run->run_id, run->status,
         (unsigned long long)run->attempt, run->world_size, run->world_size == 1 ? "" : "s", run->device,
         (int)run->pid);
  const uint64_t now = tr_clock_now_ns(NULL);
  for (int32_t i = 0; i < board->size; i++) {
    const tr_beacon *beacon = &board->beacons[i];
    const uint64_t progress = __atomic_load_n(&beacon->progress_ns, __ATOMIC_RELAXED);
    if (i == 0) printf("%6s %8s %10s  %-12s %s\n", "RANK", "PID", "STEP", "PHASE", "LAST PROGRESS");
    printf("%6d %8u %10llu  %-12s ", i, __atomic_load_n(&beacon->pid, __ATOMIC_RELAXED),
           (unsigned long long)__atomic_load_n(&beacon->step, __ATOMIC_RELAXED),
           tr_phase_name((tr_phase)__atomic_load_n(&beacon->phase, __ATOMIC_RELAXED)));
    if (progress > 0) {
      printf("%.1f s ago\n", progress < now ? (double)(now - progress) / 1e9 : 0);
    } else {
      printf("none yet\n");
    }
  }
}

static void write_ended(const tr_cli *cli, const found_run *run) {
  char *summary = runs_read(run, "summary.json");
  const tr_summary_style style = {.color = term_wants_color(cli, STDOUT_FILENO), .folder = run->folder};
  tr_writer writer;
  tr_writer_init(&writer, NULL);
  if (summary != NULL) summary_write(summary, &style, &writer);
  if (writer.bytes > 0 && !writer.failed) {
    fwrite(writer.data, 1, writer.bytes, stdout);
  } else {
    printf("%s/%s  %s\n", run->name, run->run_id, run->status);
  }
  tr_writer_fini(&writer);
  free(summary);
}

int cmd_status(const tr_cli *cli) {
  static found_run run;
  const int code = runs_find(cli, &run);
  if (code != 0) return code;
  tr_board board = {0};
  const int segment = run.alive ? open_segment(run.pid) : -1;
  const bool mapped = segment >= 0 && tr_comm_segment_map(segment, run.world_size, &board, NULL) == TR_OK;
  if (!mapped) board = (tr_board){0};
  if (cli->json) {
    write_json(&run, &board);
  } else if (run.alive) {
    write_table(&run, &board);
  } else {
    write_ended(cli, &run);
  }
  tr_comm_segment_unmap(&board);
  if (segment >= 0) close(segment);
  return 0;
}
