/* docs/configuration.md, made from the table of knobs. */
#include "config_internal.h"

#include <stdio.h>
#include <string.h>

static const char head[] =
    "# Configuration\n"
    "\n"
    "Made from the table of knobs in `runtime/base/config_knobs.c`; a test keeps the two the same.\n"
    "\n"
    "A job is a TOML file. A key can also be given on the command line, `--set train.epochs=3`, or in the "
    "environment,\n"
    "`TRAINRUN_TRAIN_EPOCHS=3` (capitals, with `_` for `.` and `-`). A flag wins over the environment, that over the "
    "file,\n"
    "that over the default; `trainrun check --explain` says where each value came from.\n"
    "\n"
    "- Sizes are `\"64MiB\"` (B, KiB, MiB, GiB, TiB, KB, MB, GB, TB), times `\"500ms\"` (ns, us, ms, s, m, h, d).\n"
    "- An interval is `\"200 steps\"`, `\"1 epoch\"`, `\"50000 samples\"`, `\"1000000 tokens\"`, a time, or "
    "`\"never\"`.\n"
    "- `\"${NAME}\"` and `\"${NAME:-default}\"` in strings of the file come from the environment and are then "
    "converted;\n"
    "  `$${` is the text `${`.\n"
    "- Relative paths of the file are relative to it, except `run-dir`; paths from flags and the environment are "
    "relative\n"
    "  to the working directory.\n"
    "- An unknown key is a mistake.\n"
    "- Exactly one of `epochs`, `steps`, `samples`, `tokens` and `time` in `[train]` is the length of a run; one from "
    "a flag\n"
    "  replaces the file's.\n"
    "- Keys marked with * are part of the fingerprint: a run goes on only where they are the same.\n";

static void write_cell(tr_writer *writer, const char *text) {
  for (; *text != '\0'; text++) {
    if (*text == '|') tr_write_u8(writer, '\\');
    tr_write_u8(writer, (uint8_t)*text);
  }
}

static void write_type(tr_writer *writer, const tr_knob *knob) {
  static const char *const words[] = {
      [TR_KNOB_STRING] = "string",   [TR_KNOB_INTEGER] = "integer", [TR_KNOB_REAL] = "number",
      [TR_KNOB_BOOLEAN] = "boolean", [TR_KNOB_BYTES] = "size",      [TR_KNOB_DURATION] = "time",
      [TR_KNOB_COUNT] = "integer",   [TR_KNOB_EVERY] = "interval",  [TR_KNOB_CHOICE] = "",
      [TR_KNOB_STRINGS] = "strings", [TR_KNOB_VALUE] = "table",
  };
  const tr_knob_shape shape = tr_knob_rule_of(knob)->shape;
  if (knob->type == TR_KNOB_CHOICE) {
    for (const char *c = knob->choices; *c != '\0';) {
      const size_t length = strcspn(c, "|");
      tr_write_text(writer, "%s`%.*s`", c == knob->choices ? "" : ", ", (int)length, c);
      c += length + (c[length] == '|');
    }
  } else if (shape == TR_SHAPE_TRAIN || shape == TR_SHAPE_VALID) {
    tr_write_text(writer, "URLs or tables");
  } else if (shape == TR_SHAPE_BETAS) {
    tr_write_text(writer, "two numbers");
  } else if (shape == TR_SHAPE_PATH || shape == TR_SHAPE_CWD_PATH) {
    tr_write_text(writer, "path or URL");
  } else {
    tr_write_text(writer, "%s%s", words[knob->type], knob->type == TR_KNOB_COUNT ? " or `auto`" : "");
  }
  const bool counted = knob->type == TR_KNOB_INTEGER || knob->type == TR_KNOB_COUNT;
  if (counted && knob->unit[0] != '\0') tr_write_text(writer, " (%s)", knob->unit);
}

static void write_row(tr_writer *writer, const tr_knob *knob, const char *name) {
  tr_write_text(writer, "| `%s`%s | ", name, knob->fingerprint ? " *" : "");
  write_type(writer, knob);
  tr_write_text(writer, " | ");
  if (knob->default_text[0] != '\0') tr_write_text(writer, "`%s`", knob->default_text);
  tr_write_text(writer, " | ");
  write_cell(writer, knob->help);
  tr_write_text(writer, "%s |\n", knob->planned ? " (planned, not in this version)" : "");
}

/* The table a key is shown under: everything before its first dot, with the '*' of named tables. */
static size_t heading_length(const char *key) {
  const char *star = strstr(key, ".*.");
  if (star != NULL) return (size_t)(star - key) + 2;
  const size_t length = strcspn(key, ".");
  return key[length] == '.' ? length : 0;
}

void tr_config_write_reference(tr_writer *writer) {
  size_t count;
  const tr_knob *knobs = tr_config_knobs(&count);
  const char *open = NULL;
  size_t open_length = 0;
  tr_write_text(writer, "%s", head);
  for (size_t i = 0; i < count; i++) {
    const char *key = knobs[i].key;
    /* [params] and [as-written] are tables without knobs of their own. */
    const bool bare_table = knobs[i].type == TR_KNOB_VALUE && strchr(key, '.') == NULL;
    const size_t length = bare_table ? strlen(key) : heading_length(key);
    if (open == NULL || length != open_length || strncmp(open, key, length) != 0) {
      if (length == 0) {
        tr_write_text(writer, "\n## The job\n\n");
      } else if (strncmp(key, "storage.*", length) == 0) {
        tr_write_text(writer, "\n## [storage.NAME]\n\n");
      } else {
        tr_write_text(writer, "\n## [%.*s]\n\n", (int)length, key);
      }
      if (bare_table) {
        tr_write_text(writer, "%s%s\n", knobs[i].help, knobs[i].fingerprint ? " *" : "");
      } else {
        tr_write_text(writer, "| key | type | default | meaning |\n|---|---|---|---|\n");
      }
      open = key;
      open_length = length;
    }
    if (!bare_table) write_row(writer, &knobs[i], key + length + (length > 0));
  }
}
