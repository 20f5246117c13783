/* The JSON Schema (draft 2020-12) of job.toml, made from the table of knobs: editors complete and check with it. */
#include "config_internal.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/* Any scalar may be given as text with ${NAME} in it. */
static const char interpolated[] = "{\"$ref\":\"#/$defs/interpolated\"}";

static void write_enum(tr_writer *writer, const char *choices) {
  tr_write_text(writer, "\"enum\":[");
  for (bool first = true; *choices != '\0'; first = false) {
    const size_t length = strcspn(choices, "|");
    const bool boolean = (length == 4 && memcmp(choices, "true", 4) == 0) ||
                         (length == 5 && memcmp(choices, "false", 5) == 0);
    tr_write_text(writer, "%s%s%.*s%s", first ? "" : ",", boolean ? "" : "\"", (int)length, choices,
                  boolean ? "" : "\"");
    if (boolean) tr_write_text(writer, ",\"%.*s\"", (int)length, choices);
    choices += length + (choices[length] == '|');
  }
  tr_write_text(writer, "]");
}

static void write_range(tr_writer *writer, const tr_knob_rule *rule) {
  if (isfinite(rule->min)) tr_write_text(writer, ",\"minimum\":%.15g", rule->min);
  /* A bound near 2^63 is the bound of TOML itself. */
  if (isfinite(rule->max) && rule->max < 9e18) tr_write_text(writer, ",\"maximum\":%.15g", rule->max);
}

static void write_source_table(tr_writer *writer, bool train) {
  tr_write_text(writer,
                "{\"type\":\"object\",\"required\":[\"url\"],\"additionalProperties\":false,\"properties\":{"
                "\"url\":{\"$ref\":\"#/$defs/urls\"},\"fields\":{\"type\":\"object\","
                "\"additionalProperties\":{\"type\":\"string\"}},\"format\":{");
  write_enum(writer, tr_knob_find("data.format")->choices);
  tr_write_text(writer, "}");
  if (train) {
    tr_write_text(writer, ",\"name\":{\"type\":\"string\"},\"weight\":{\"type\":\"number\",\"exclusiveMinimum\":0}");
  }
  tr_write_text(writer, "}}");
}

static void write_value_type(tr_writer *writer, tr_knob_shape shape) {
  switch (shape) {
    case TR_SHAPE_TRAIN:
      tr_write_text(writer, "\"anyOf\":[{\"$ref\":\"#/$defs/urls\"},{\"type\":\"array\",\"minItems\":1,\"items\":");
      write_source_table(writer, true);
      tr_write_text(writer, "}]");
      break;
    case TR_SHAPE_VALID:
      tr_write_text(writer,
                    "\"anyOf\":[{\"$ref\":\"#/$defs/urls\"},{\"type\":\"object\",\"minProperties\":1,"
                    "\"additionalProperties\":");
      write_source_table(writer, false);
      tr_write_text(writer, "}]");
      break;
    case TR_SHAPE_TEXT_MAP:
      tr_write_text(writer, "\"type\":\"object\",\"additionalProperties\":{\"type\":\"string\"}");
      break;
    case TR_SHAPE_SCALAR_MAP:
      tr_write_text(writer,
                    "\"type\":\"object\",\"additionalProperties\":{\"type\":[\"string\",\"number\",\"boolean\"]}");
      break;
    case TR_SHAPE_BETAS:
      tr_write_text(writer,
                    "\"type\":\"array\",\"minItems\":2,\"maxItems\":2,"
                    "\"items\":{\"type\":\"number\",\"minimum\":0,\"exclusiveMaximum\":1}");
      break;
    case TR_SHAPE_SECRET:
      tr_write_text(writer,
                    "\"type\":\"object\",\"minProperties\":1,\"maxProperties\":1,\"additionalProperties\":false,"
                    "\"properties\":{\"env\":{\"type\":\"string\"},\"file\":{\"type\":\"string\"}}");
      break;
    default: tr_write_text(writer, "\"type\":\"object\"");
  }
}

static void write_type(tr_writer *writer, const tr_knob *knob) {
  const tr_knob_rule *rule = tr_knob_rule_of(knob);
  switch (knob->type) {
    case TR_KNOB_STRING: tr_write_text(writer, "\"type\":\"string\""); break;
    case TR_KNOB_INTEGER:
    case TR_KNOB_COUNT:
    case TR_KNOB_REAL:
      tr_write_text(writer, "\"anyOf\":[{\"type\":\"%s\"", knob->type == TR_KNOB_REAL ? "number" : "integer");
      write_range(writer, rule);
      tr_write_text(writer, "},%s%s]", knob->type == TR_KNOB_COUNT ? "{\"const\":\"auto\"}," : "", interpolated);
      break;
    case TR_KNOB_BOOLEAN: tr_write_text(writer, "\"anyOf\":[{\"type\":\"boolean\"},%s]", interpolated); break;
    case TR_KNOB_BYTES:
      tr_write_text(writer, "\"type\":\"string\",\"pattern\":\"^[0-9]+([.][0-9]+)? ?([KMGT]iB|[kKMGT]?B)?$|[$][{]\"");
      break;
    case TR_KNOB_DURATION:
      tr_write_text(writer, "\"type\":\"string\",\"pattern\":\"^0$|^[0-9]+([.][0-9]+)? ?(ns|us|ms|s|m|h|d)$|[$][{]\"");
      break;
    case TR_KNOB_EVERY:
      tr_write_text(writer,
                    "\"type\":\"string\",\"pattern\":\"^never$|^[0-9]+([.][0-9]+)? "
                    "?(epochs?|steps?|samples?|tokens?|ns|us|ms|s|m|h|d)$|[$][{]\"");
      break;
    case TR_KNOB_CHOICE:
      tr_write_text(writer, "\"anyOf\":[{");
      write_enum(writer, knob->choices);
      tr_write_text(writer, "},%s]", interpolated);
      break;
    case TR_KNOB_STRINGS: tr_write_text(writer, "\"$ref\":\"#/$defs/strings\""); break;
    case TR_KNOB_VALUE: write_value_type(writer, rule->shape); break;
  }
}

static void write_knob(tr_writer *writer, const tr_knob *knob) {
  tr_write_text(writer, "{\"description\":");
  tr_write_json_string(writer, knob->help);
  tr_write_text(writer, ",");
  if (knob->planned) tr_write_text(writer, "\"deprecated\":true,\"$comment\":\"planned, not in this version\",");
  write_type(writer, knob);
  if (knob->default_text[0] != '\0') tr_write_text(writer, ",\"default\":%s", knob->default_text);
  tr_write_text(writer, "}");
}

/* The object of all knobs whose keys begin with the `prefix` bytes of the first one. Rows of one table stand together. */
static void write_object(tr_writer *writer, size_t begin, size_t end, size_t prefix) {
  const tr_knob *knobs = tr_config_knobs(NULL);
  const bool starred = knobs[begin].key[prefix] == '*';
  tr_write_text(writer, starred ? "\"type\":\"object\",\"additionalProperties\":"
                                : "\"type\":\"object\",\"additionalProperties\":false,\"properties\":{");
  for (size_t i = begin; i < end;) {
    const char *name = knobs[i].key + prefix;
    const size_t length = strcspn(name, ".");
    if (i > begin) tr_write_text(writer, ",");
    if (!starred) tr_write_text(writer, "\n\"%.*s\":", (int)length, name);
    size_t next = i + 1;
    if (name[length] == '\0') {
      write_knob(writer, &knobs[i]);
    } else {
      while (next < end && strncmp(knobs[next].key, knobs[i].key, prefix + length + 1) == 0) next++;
      tr_write_text(writer, "{");
      write_object(writer, i, next, prefix + length + 1);
      tr_write_text(writer, "}");
    }
    i = next;
  }
  if (!starred) tr_write_text(writer, "}");
}

void tr_config_write_schema(tr_writer *writer) {
  size_t count;
  tr_config_knobs(&count);
  tr_write_text(writer,
                "{\"$schema\":\"https://json-schema.org/draft/2020-12/schema\",\"title\":\"job.toml of trainrun\","
                "\n\"$defs\":{"
                "\"interpolated\":{\"type\":\"string\",\"pattern\":\"[$][{]\"},"
                "\"strings\":{\"anyOf\":[{\"type\":\"string\"},{\"type\":\"array\",\"items\":{\"type\":\"string\"}}]},"
                "\"urls\":{\"anyOf\":[{\"type\":\"string\",\"minLength\":1},{\"type\":\"array\",\"minItems\":1,"
                "\"items\":{\"type\":\"string\",\"minLength\":1}}]}},\n");
  write_object(writer, 0, count, 0);
  tr_write_text(writer, "}\n");
}
