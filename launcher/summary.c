/* The table at the end of a run. See summary.h. */
#include "summary.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define BOLD   "\033[1m"
#define DIM    "\033[2m"
#define GREEN  "\033[32m"
#define YELLOW "\033[33m"
#define RED    "\033[31m"
#define PLAIN  "\033[0m"

enum { BAR_WIDTH = 24, CAUSES_MAX = 32 };

typedef struct summary_table {
  const json_t *root;
  const tr_summary_style *style;
  tr_writer *writer;
} summary_table;

static const char *paint(const summary_table *table, const char *code) { return table->style->color ? code : ""; }

static const char *text_of(const summary_table *table, const char *key) {
  const char *text = json_string_value(json_object_get(table->root, key));
  return text != NULL ? text : "";
}

static double number_of(const summary_table *table, const char *key) {
  return json_number_value(json_object_get(table->root, key));
}

static bool has(const summary_table *table, const char *key) {
  return json_is_number(json_object_get(table->root, key));
}

static void label(const summary_table *table, const char *name) {
  tr_write_text(table->writer, "  %s%-11s%s ", paint(table, DIM), name, paint(table, PLAIN));
}

static void write_seconds(tr_writer *writer, double seconds) {
  if (seconds < 1) {
    tr_write_text(writer, "%.0f ms", seconds * 1000);
  } else if (seconds < 120) {
    tr_write_text(writer, "%.1f s", seconds);
  } else {
    const unsigned long long whole = (unsigned long long)(seconds + 0.5);
    if (whole >= 3600) tr_write_text(writer, "%llu h ", whole / 3600);
    tr_write_text(writer, "%llu min %llu s", whole / 60 % 60, whole % 60);
  }
}

static void write_head(const summary_table *table) {
  const char *status = text_of(table, "status");
  const char *color = strcmp(status, "done") == 0 ? GREEN : strcmp(status, "failed") == 0 ? RED : YELLOW;
  tr_write_text(table->writer, "\n%s%s/%s%s  %s%s%s", paint(table, BOLD), text_of(table, "name"),
                text_of(table, "run_id"), paint(table, PLAIN), paint(table, color), status, paint(table, PLAIN));
  if (has(table, "time_s")) {
    tr_write_text(table->writer, " after ");
    write_seconds(table->writer, number_of(table, "time_s"));
  }
  tr_write_text(table->writer, "\n");
  if (text_of(table, "cause")[0] != '\0') {
    label(table, "cause");
    tr_write_text(table->writer, "%s\n", text_of(table, "cause"));
  }
}

static void write_work(const summary_table *table) {
  if (!has(table, "steps")) return;
  if (strcmp(text_of(table, "kind"), "eval") == 0) {
    label(table, "checkpoint");
    tr_write_text(table->writer, "step %.0f\n", number_of(table, "steps"));
    return;
  }
  label(table, "trained");
  tr_write_text(table->writer, "%.0f steps", number_of(table, "steps"));
  if (has(table, "epochs")) tr_write_text(table->writer, ", %.4g epochs", number_of(table, "epochs"));
  if (has(table, "samples")) tr_write_text(table->writer, ", %.0f samples", number_of(table, "samples"));
  tr_write_text(table->writer, "\n");
  if (has(table, "samples_per_s")) {
    label(table, "speed");
    tr_write_text(table->writer, "%.0f samples/s on %.0f worker%s, %s\n", number_of(table, "samples_per_s"),
                  number_of(table, "world_size"), number_of(table, "world_size") == 1 ? "" : "s",
                  text_of(table, "device"));
  }
  if (has(table, "loss")) {
    label(table, "loss");
    tr_write_text(table->writer, "%.4f\n", number_of(table, "loss"));
  }
}

/* {"loss": 0.2, "accuracy": 0.91, "NAME.accuracy": ...} */
static void write_metrics(const summary_table *table) {
  const json_t *metrics = json_object_get(table->root, "metrics");
  const char *key;
  json_t *value;
  if (json_object_size(metrics) == 0) return;
  label(table, "evaluation");
  const char *between = "";
  json_object_foreach((json_t *)metrics, key, value) {
    if (!json_is_number(value)) continue;
    tr_write_text(table->writer, "%s%s %s%.4f%s", between, key, paint(table, BOLD), json_number_value(value),
                  paint(table, PLAIN));
    between = "  ";
  }
  tr_write_text(table->writer, "\n");
}

typedef struct summary_cause {
  const char *name;
  double seconds;
} summary_cause;

static int longer_first(const void *a, const void *b) {
  const double left = ((const summary_cause *)a)->seconds, right = ((const summary_cause *)b)->seconds;
  return left < right ? 1 : left > right ? -1 : 0;
}

static void write_bar(const summary_table *table, double share) {
  int filled = (int)(share * BAR_WIDTH + 0.5);
  if (filled > BAR_WIDTH) filled = BAR_WIDTH;
  for (int i = 0; i < filled; i++) tr_write_text(table->writer, "%s", table->style->blocks ? "█" : "#");
  tr_write_text(table->writer, "%*s", BAR_WIDTH - filled, "");
}

static void write_ledger(const summary_table *table) {
  const json_t *ledger = json_object_get(table->root, "ledger");
  summary_cause causes[CAUSES_MAX];
  size_t count = 0;
  double total = 0;
  const char *key;
  json_t *value;
  json_object_foreach((json_t *)ledger, key, value) {
    if (count == CAUSES_MAX || !json_is_number(value)) continue;
    causes[count++] = (summary_cause){key, json_number_value(value)};
    total += json_number_value(value);
  }
  if (count == 0 || total <= 0) return;
  qsort(causes, count, sizeof *causes, longer_first);
  for (size_t i = 0; i < count; i++) {
    const double share = causes[i].seconds / total;
    if (share < 0.005) break; /* the rest is in summary.json */
    label(table, i == 0 ? "time" : "");
    tr_write_text(table->writer, "%-16s ", causes[i].name);
    write_bar(table, share);
    tr_write_text(table->writer, " %5.1f %%  ", 100 * share);
    write_seconds(table->writer, causes[i].seconds);
    tr_write_text(table->writer, "\n");
  }
}

static void write_verdict(const summary_table *table) {
  if (text_of(table, "verdict")[0] != '\0') {
    label(table, "verdict");
    tr_write_text(table->writer, "%s%s%s\n", paint(table, BOLD), text_of(table, "verdict"), paint(table, PLAIN));
  }
  if (number_of(table, "restarts") > 0) {
    label(table, "restarts");
    tr_write_text(table->writer, "%.0f, %.0f steps done again\n", number_of(table, "restarts"),
                  number_of(table, "steps_lost"));
  }
}

static void write_places(const summary_table *table) {
  const char *status = text_of(table, "status"), *name = text_of(table, "name"), *job = table->style->job;
  label(table, "run");
  tr_write_text(table->writer, "%s\n", table->style->folder);
  const bool trained = has(table, "steps");
  if (trained && strcmp(text_of(table, "kind"), "eval") != 0) {
    label(table, "checkpoints");
    tr_write_text(table->writer, "%s\n", text_of(table, "checkpoint_url"));
  }
  label(table, "next");
  if (strcmp(status, "failed") == 0) {
    tr_write_text(table->writer, "trainrun logs %s/%s\n", name, text_of(table, "run_id"));
  } else if (strcmp(status, "done") != 0) {
    tr_write_text(table->writer, "the same command goes on where this run stopped; --fresh starts anew\n");
  } else if (job != NULL && strcmp(text_of(table, "kind"), "eval") != 0) {
    tr_write_text(table->writer, "trainrun eval %s   or   trainrun ckpt ls %s\n", job, name);
  } else {
    tr_write_text(table->writer, "trainrun logs %s/%s\n", name, text_of(table, "run_id"));
  }
}

void summary_write(const char *summary, const tr_summary_style *style, tr_writer *writer) {
  json_t *root = summary != NULL ? json_loads(summary, 0, NULL) : NULL;
  if (json_is_object(root)) {
    const summary_table table = {root, style, writer};
    write_head(&table);
    write_work(&table);
    write_metrics(&table);
    write_ledger(&table);
    write_verdict(&table);
    write_places(&table);
  }
  json_decref(root);
}
