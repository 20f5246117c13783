/* [params] checked against what the program itself declares (PROGRAM --describe). */
#ifndef TRAINRUN_LAUNCHER_DESCRIBE_H
#define TRAINRUN_LAUNCHER_DESCRIBE_H

#include "cli.h"

typedef struct tr_describe_check {
  const tr_cli *cli;
  const char *name, *text, *directory; /* of the job file */
  tr_diagnostics *diagnostics;
} tr_describe_check;

/* Adds a diagnostic for each key of [params] that the program does not declare or declares otherwise, also where the rest
 * of the job is wrong. A program that is not there or does not describe itself is left to the run. Returns how many. */
size_t describe_check(const tr_describe_check *check);

#endif
