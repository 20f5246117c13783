/* The end of a run for people: what came out, where the time went, what to do next. From the text of summary.json. */
#ifndef TRAINRUN_LAUNCHER_SUMMARY_H
#define TRAINRUN_LAUNCHER_SUMMARY_H

#include <trainrun/base.h>

typedef struct tr_summary_style {
  bool color;
  bool blocks;        /* block characters for bars; else '#' */
  const char *folder; /* of the run */
  const char *job;    /* JOB.toml as typed, NULL: a bare program */
} tr_summary_style;

/* Nothing is written where the text is no summary. */
void summary_write(const char *summary, const tr_summary_style *style, tr_writer *writer);

#endif
