/* The line of a copy: see progress.h. */
#include "progress.h"

#include "term.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { DRAW_EVERY_MS = 100, BAR_CELLS = 20, LINE_BYTES = 256 };

void progress_begin(tr_progress *progress, const tr_cli *cli, const char *verb, const char *items, uint64_t total_bytes,
                    uint64_t total_items) {
  memset(progress, 0, sizeof *progress);
  progress->live = !cli->quiet && !cli->json && term_is_terminal(cli, STDERR_FILENO);
  progress->verb = verb;
  progress->items = items;
  progress->total_bytes = total_bytes;
  progress->total_items = total_items;
  progress->started_ns = tr_clock_now_ns(NULL);
}

double progress_seconds(const tr_progress *progress) {
  return (double)(tr_clock_now_ns(NULL) - progress->started_ns) * 1e-9;
}

void progress_rate(uint64_t bytes, double seconds, char text[48]) {
  char amount[32];
  tr_format_bytes(seconds > 0 ? (uint64_t)((double)bytes / seconds) : 0, amount);
  snprintf(text, 48, "%s/s", amount);
}

static void append(char line[LINE_BYTES], const char *format, ...) TR_PRINTF(2, 3);
static void append(char line[LINE_BYTES], const char *format, ...) {
  const size_t length = strlen(line);
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(line + length, LINE_BYTES - length, format, arguments);
  va_end(arguments);
}

static void append_bar(char line[LINE_BYTES], double share) {
  char bar[BAR_CELLS + 1];
  const int full = (int)(share * BAR_CELLS);
  for (int i = 0; i < BAR_CELLS; i++) bar[i] = i < full ? '=' : i == full ? '>' : ' ';
  bar[BAR_CELLS] = '\0';
  append(line, " [%s] %3d %%", bar, (int)(share * 100));
}

static void append_eta(char line[LINE_BYTES], double seconds) {
  if (seconds < 0 || seconds > 359999) return;
  const unsigned left = (unsigned)(seconds + 0.5);
  if (left >= 3600) {
    append(line, "  ETA %u:%02u:%02u", left / 3600, left / 60 % 60, left % 60);
  } else {
    append(line, "  ETA %u:%02u", left / 60, left % 60);
  }
}

/* What was done and how fast in the window of the marks, which reach back about three seconds. */
static void write_line(tr_progress *progress, char line[LINE_BYTES]) {
  const uint64_t now = tr_clock_now_ns(NULL), bytes = atomic_load(&progress->bytes),
                 done = atomic_load(&progress->done);
  const size_t oldest = progress->mark >= 32 ? progress->mark % 32 : 0;
  const bool fresh = progress->mark == 0;
  const uint64_t since = fresh ? progress->started_ns : progress->marks_ns[oldest];
  const double seconds = (double)(now - since) * 1e-9;
  const double bytes_rate = (double)(bytes - (fresh ? 0 : progress->marks_bytes[oldest])) / seconds;
  const double done_rate = (double)(done - (fresh ? 0 : progress->marks_done[oldest])) / seconds;
  progress->marks_ns[progress->mark % 32] = now;
  progress->marks_bytes[progress->mark % 32] = bytes;
  progress->marks_done[progress->mark % 32] = done;
  progress->mark++;
  char amount[32], whole[32];
  snprintf(line, LINE_BYTES, "%s", progress->verb);
  const bool by_bytes = progress->total_bytes > 0;
  const double total = by_bytes ? (double)progress->total_bytes : (double)progress->total_items;
  const double at = by_bytes ? (double)bytes : (double)done, rate = by_bytes ? bytes_rate : done_rate;
  if (total > 0) append_bar(line, at < total ? at / total : 1);
  tr_format_bytes(bytes, amount);
  tr_format_bytes(progress->total_bytes, whole);
  if (by_bytes) append(line, "  %s of %s", amount, whole);
  if (!by_bytes && bytes > 0) append(line, "  %s", amount);
  if (progress->total_items > 1) {
    append(line, "  %llu/%llu %s", (unsigned long long)done, (unsigned long long)progress->total_items,
           progress->items);
  } else if (progress->total_items == 0) {
    append(line, "  %llu %s", (unsigned long long)done, progress->items);
  }
  tr_format_bytes(bytes_rate > 0 ? (uint64_t)bytes_rate : 0, amount);
  if (bytes > 0) append(line, "  %s/s", amount);
  if (bytes == 0 && done_rate > 0) append(line, "  %.0f/s", done_rate);
  if (total > 0 && rate > 0) append_eta(line, (total - at) / rate);
}

void progress_draw(tr_progress *progress) {
  const uint64_t now = tr_clock_now_ns(NULL);
  if (!progress->live || now - progress->drawn_ns < DRAW_EVERY_MS * 1000000ull) return;
  char line[LINE_BYTES];
  write_line(progress, line);
  const int columns = term_columns() - 1;
  fprintf(stderr, "\r%.*s\033[K", columns > 0 ? columns : 1, line);
  progress->drawn_ns = now;
  progress->shown = true;
}

void progress_end(tr_progress *progress) {
  if (progress->shown) fprintf(stderr, "\r\033[K");
  progress->shown = false;
  progress->live = false;
}
