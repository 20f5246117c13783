/* trainrun ps: the jobs that run on this machine. */
#include "runs.h"

#include <stdio.h>

static void write_age(int64_t started_ns, char text[32]) {
  const int64_t age = tr_clock_wall_ns(NULL) - started_ns;
  const long long seconds = age > 0 ? (long long)(age / 1000000000) : 0;
  if (seconds < 3600) {
    snprintf(text, 32, "%lld:%02lld", seconds / 60, seconds % 60);
  } else {
    snprintf(text, 32, "%lld:%02lld:%02lld", seconds / 3600, seconds / 60 % 60, seconds % 60);
  }
}

static void write_json(const found_runs *runs) {
  tr_writer writer;
  tr_writer_init(&writer, NULL);
  tr_write_text(&writer, "[");
  const char *between = "";
  for (size_t i = 0; i < runs->count; i++) {
    const found_run *run = &runs->items[i];
    if (!run->alive) continue;
    tr_write_text(&writer,
                  "%s\n  {\"name\": \"%s\", \"run_id\": \"%s\", \"pid\": %d, \"workers\": %d, \"attempt\": %llu, "
                  "\"kind\": \"%s\", ",
                  between, run->name, run->run_id, (int)run->pid, run->world_size, (unsigned long long)run->attempt,
                  run->eval ? "eval" : "train");
    tr_write_text(&writer, "\"device\": \"%s\", \"folder\": ", run->device);
    tr_write_json_string(&writer, run->folder);
    tr_write_text(&writer, "}");
    between = ",";
  }
  tr_write_text(&writer, "%s]\n", between[0] != '\0' ? "\n" : "");
  if (!writer.failed) fwrite(writer.data, 1, writer.bytes, stdout);
  tr_writer_fini(&writer);
}

int cmd_ps(const tr_cli *cli) {
  found_runs runs;
  const int code = runs_find_all(cli, &runs);
  if (code != 0) return code;
  if (cli->json) {
    write_json(&runs);
    runs_free(&runs);
    return 0;
  }
  bool any = false;
  for (size_t i = 0; i < runs.count; i++) {
    const found_run *run = &runs.items[i];
    char age[32], name[520];
    if (!run->alive) continue;
    if (!any) printf("%-44s %8s %8s %-6s %10s\n", "RUN", "PID", "WORKERS", "DEVICE", "SINCE");
    any = true;
    write_age(run->started_ns, age);
    snprintf(name, sizeof name, "%s/%s%s", run->name, run->run_id, run->eval ? " (eval)" : "");
    printf("%-44s %8d %8d %-6s %10s\n", name, (int)run->pid, run->world_size, run->device, age);
  }
  if (!any && !cli->quiet) printf("no job is running here\n");
  runs_free(&runs);
  return 0;
}
