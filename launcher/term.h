/* What people (or programs, with --json) see: notes, workers' lines with their prefix, and one live line.
 *
 * Launcher's notes, workers' standard error and the live line go to standard error; workers' standard output and the
 * summary to standard output. Text is gathered and written once a turn of the loop. A reader that goes away ends nothing:
 * what cannot be written is dropped. */
#ifndef TRAINRUN_LAUNCHER_TERM_H
#define TRAINRUN_LAUNCHER_TERM_H

#include "cli.h"

enum { TERM_BUFFER_BYTES = 64 * 1024, TERM_LIVE_BYTES = 512 };

typedef struct tr_term_stream {
  int descriptor;
  bool color;
  size_t bytes;
  char data[TERM_BUFFER_BYTES];
} tr_term_stream;

typedef struct tr_term {
  bool quiet, json;
  bool live;         /* standard error is a terminal that can hold a live line */
  size_t live_shown; /* bytes of the line that stands there */
  char live_text[TERM_LIVE_BYTES];
  tr_term_stream out, err;
} tr_term;

bool term_is_terminal(const tr_cli *cli, int descriptor);
bool term_wants_color(const tr_cli *cli, int descriptor);
void term_init(tr_term *term, const tr_cli *cli);

/* "trainrun: ..." on standard error, unless quiet; with --json an object {"type": "note"}. */
void term_note(tr_term *term, const char *format, ...) TR_PRINTF(2, 3);
/* The same in red, also when quiet. */
void term_error(tr_term *term, const char *format, ...) TR_PRINTF(2, 3);
/* A line without its newline. */
void term_worker(tr_term *term, bool standard_error, int32_t node, int32_t rank, const char *line, size_t bytes);
/* {"type": TYPE, "record": RECORD} with --json; nothing otherwise. */
void term_record(tr_term *term, const char *type, const char *record, size_t bytes);
/* Raw text for standard output (the summary). */
void term_text(tr_term *term, const char *text, size_t bytes);
/* The live line; "" takes it away. */
void term_live(tr_term *term, const char *text);
void term_flush(tr_term *term);
/* Columns of standard error, 80 where it is no terminal. */
int term_columns(void);

#endif
