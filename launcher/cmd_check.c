/* trainrun check: all mistakes of a job file; with --explain every value and where it came from. */
#include "cli.h"
#include "job.h"
#include "term.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* ---- --explain ---- */

static void write_value(tr_writer *writer, const tr_value *value) {
  switch (value->type) {
    case TR_VALUE_STRING: tr_write_json_string(writer, value->text); return;
    case TR_VALUE_INTEGER: tr_write_text(writer, "%lld", (long long)value->integer); return;
    case TR_VALUE_REAL: tr_write_json_real(writer, value->real); return;
    case TR_VALUE_BOOLEAN: tr_write_text(writer, "%s", value->integer != 0 ? "true" : "false"); return;
    case TR_VALUE_ARRAY:
    case TR_VALUE_TABLE: break;
  }
  const bool table = value->type == TR_VALUE_TABLE;
  tr_write_text(writer, "%s", table ? "{ " : "[");
  for (size_t i = 0; i < value->count; i++) {
    if (i > 0) tr_write_text(writer, ", ");
    if (table) tr_write_text(writer, "%s = ", value->items[i].key);
    write_value(writer, &value->items[i]);
  }
  tr_write_text(writer, "%s", table ? " }" : "]");
}

/* The value of one key as TOML; its default where nobody gave it. */
static void write_setting(tr_writer *writer, const tr_config *config, const tr_knob *knob, const char *key) {
  const tr_value *value = tr_config_find(config, key);
  if (value != NULL) {
    write_value(writer, value);
  } else {
    tr_write_text(writer, "%s", knob->default_text[0] != '\0' ? knob->default_text : "(unset)");
  }
}

static void explain_key(const tr_config *config, const tr_knob *knob, const char *key, bool json, bool *first) {
  tr_writer value;
  tr_writer_init(&value, NULL);
  write_setting(&value, config, knob, key);
  tr_write_u8(&value, 0);
  if (!value.failed && json) {
    tr_writer line;
    tr_writer_init(&line, NULL);
    tr_write_text(&line, "%s\n  {\"key\": \"%s\", \"value\": ", *first ? "" : ",", key);
    tr_write_json_string(&line, (const char *)value.data);
    tr_write_text(&line, ", \"origin\": ");
    tr_write_json_string(&line, tr_config_origin(config, key));
    tr_write_text(&line, "}");
    if (!line.failed) fwrite(line.data, 1, line.bytes, stdout);
    tr_writer_fini(&line);
  } else if (!value.failed) {
    printf("%-32s %-28s # %s\n", key, (const char *)value.data, tr_config_origin(config, key));
  }
  *first = false;
  tr_writer_fini(&value);
}

/* "storage.*.endpoint": once a table of that job. */
static void explain_tables(const tr_config *config, const tr_knob *knob, bool json, bool *first) {
  const char *star = strstr(knob->key, ".*.");
  char parent[128], key[256];
  snprintf(parent, sizeof parent, "%.*s", (int)(star - knob->key), knob->key);
  const tr_value *tables = tr_config_find(config, parent);
  for (size_t i = 0; tables != NULL && tables->type == TR_VALUE_TABLE && i < tables->count; i++) {
    snprintf(key, sizeof key, "%s.%s.%s", parent, tables->items[i].key, star + 3);
    if (tr_config_find(config, key) != NULL) explain_key(config, knob, key, json, first);
  }
}

static void explain(const tr_config *config, bool json) {
  size_t count = 0;
  const tr_knob *knobs = tr_config_knobs(&count);
  bool first = true;
  if (json) printf("[");
  for (size_t i = 0; i < count; i++) {
    if (strstr(knobs[i].key, ".*.") != NULL) {
      explain_tables(config, &knobs[i], json, &first);
    } else if (!knobs[i].planned || tr_config_find(config, knobs[i].key) != NULL) {
      explain_key(config, &knobs[i], knobs[i].key, json, &first);
    }
  }
  if (json) printf("\n]\n");
}

/* ---- The mistakes ---- */

static void write_diagnostics_json(const tr_diagnostics *diagnostics) {
  tr_writer writer;
  tr_writer_init(&writer, NULL);
  tr_write_text(&writer, "[");
  for (size_t i = 0; i < tr_diagnostics_count(diagnostics); i++) {
    const tr_diagnostic *one = tr_diagnostics_at(diagnostics, i);
    tr_write_text(&writer, "%s\n  {\"line\": %u, \"column\": %u, \"severity\": \"%s\", \"key\": ", i > 0 ? "," : "",
                  one->place.line, one->place.column, one->warning ? "warning" : "error");
    tr_write_json_string(&writer, one->key != NULL ? one->key : "");
    tr_write_text(&writer, ", \"message\": ");
    tr_write_json_string(&writer, one->message);
    tr_write_text(&writer, ", \"hint\": ");
    tr_write_json_string(&writer, one->hint != NULL ? one->hint : "");
    tr_write_text(&writer, "}");
  }
  tr_write_text(&writer, "%s]\n", tr_diagnostics_count(diagnostics) > 0 ? "\n" : "");
  if (!writer.failed) fwrite(writer.data, 1, writer.bytes, stdout);
  tr_writer_fini(&writer);
}

int cmd_check(const tr_cli *cli) {
  if (cli->word_count != 1) {
    fprintf(stderr, "trainrun: which job?\n  usage: trainrun %s\n", cli->command->usage);
    return EXIT_USAGE;
  }
  tr_job job;
  const int code = job_open(&job, cli, JOB_FILE, cli->words[0]);
  if (job.diagnostics == NULL) {
    job_close(&job);
    return code;
  }
  const size_t mistakes = tr_diagnostics_errors(job.diagnostics), all = tr_diagnostics_count(job.diagnostics);
  if (cli->json && !(cli->explain && code == 0)) {
    write_diagnostics_json(job.diagnostics);
  } else {
    job_print_diagnostics(&job, term_wants_color(cli, STDERR_FILENO));
  }
  if (code == 0 && cli->explain) explain(job.config, cli->json);
  if (mistakes > 0 && !cli->json) {
    fprintf(stderr, "trainrun: %zu mistake%s in %s\n", mistakes, mistakes == 1 ? "" : "s", job.path);
  } else if (code == 0 && !cli->explain && !cli->json && !cli->quiet) {
    printf("%s: no mistakes%s\n", job.path, all > mistakes ? ", some warnings" : "");
  }
  job_close(&job);
  return code;
}
