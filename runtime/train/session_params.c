/* [params]: what a program declares of its own, checked against what the job gives. */
#include "session.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

static const char *type_name(tr_param_type type) {
  switch (type) {
    case TR_PARAM_INTEGER: return "integer";
    case TR_PARAM_REAL: return "real";
    case TR_PARAM_BOOLEAN: return "boolean";
    case TR_PARAM_TEXT: break;
  }
  return "text";
}

void tr_session_describe(const tr_param_declaration *params, size_t count, const char *program, tr_writer *writer) {
  tr_write_text(writer, "{\"program\": ");
  tr_write_json_string(writer, program);
  tr_write_text(writer, ", \"params\": [");
  for (size_t i = 0; i < count; i++) {
    tr_write_text(writer, "%s\n  {\"name\": ", i > 0 ? "," : "");
    tr_write_json_string(writer, params[i].name);
    tr_write_text(writer, ", \"type\": \"%s\", \"default\": ", type_name(params[i].type));
    tr_write_json_string(writer, params[i].default_text != NULL ? params[i].default_text : "");
    tr_write_text(writer, ", \"help\": ");
    tr_write_json_string(writer, params[i].help != NULL ? params[i].help : "");
    tr_write_text(writer, "}");
  }
  tr_write_text(writer, "%s]}\n", count > 0 ? "\n" : "");
}

static bool fits(const tr_value *value, tr_param_type type) {
  switch (type) {
    case TR_PARAM_INTEGER: return value->type == TR_VALUE_INTEGER;
    case TR_PARAM_REAL: return value->type == TR_VALUE_REAL || value->type == TR_VALUE_INTEGER;
    case TR_PARAM_BOOLEAN: return value->type == TR_VALUE_BOOLEAN;
    case TR_PARAM_TEXT: return value->type == TR_VALUE_STRING;
  }
  return false;
}

/* Characters that differ, position by position and in length: enough to find a slip among a few names. */
static size_t distance(const char *a, const char *b) {
  size_t i = 0, j = 0, wrong = 0;
  while (a[i] != '\0' && b[j] != '\0') {
    if (a[i] == b[j]) {
      i++, j++;
    } else {
      wrong++;
      if (a[i + 1] == b[j]) {
        i++;
      } else if (b[j + 1] == a[i]) {
        j++;
      } else {
        i++, j++;
      }
    }
  }
  return wrong + strlen(a + i) + strlen(b + j);
}

static const tr_param_declaration *find(const tr_session *session, const char *name) {
  for (size_t i = 0; i < session->declaration_count; i++) {
    if (strcmp(session->declarations[i].name, name) == 0) return &session->declarations[i];
  }
  return NULL;
}

static void complain(tr_session *session, const tr_value *value, tr_diagnostics *diagnostics) {
  const char *best = NULL;
  size_t least = 4;
  for (size_t i = 0; i < session->declaration_count; i++) {
    const size_t wrong = distance(value->key, session->declarations[i].name);
    if (wrong < least) {
      least = wrong;
      best = session->declarations[i].name;
    }
  }
  char hint[128] = "the program declares no such parameter; its --describe lists them";
  if (best != NULL) {
    strcpy(hint, "did you mean '");
    strncat(hint, best, 64);
    strcat(hint, "'?");
  }
  tr_diagnostics_add(diagnostics, value->key_place, (uint32_t)strlen(value->key), false, "params", hint,
                     "unknown parameter '%s'", value->key);
}

tr_status tr_session_check_params(tr_session *session, const char *job_text, const char *job_name, tr_error *error) {
  const tr_value *params = tr_config_find(session->config, "params");
  if (params == NULL || session->declarations == NULL) return TR_OK;
  tr_diagnostics *diagnostics = NULL;
  TR_TRY(tr_diagnostics_create(session->allocator, &diagnostics, error));
  for (size_t i = 0; i < params->count; i++) {
    const tr_value *value = &params->items[i];
    const tr_param_declaration *declared = find(session, value->key);
    if (declared == NULL) {
      complain(session, value, diagnostics);
    } else if (!fits(value, declared->type)) {
      tr_diagnostics_add(diagnostics, value->place, 1, false, "params", declared->help, "parameter '%s' must be %s %s",
                         value->key, declared->type == TR_PARAM_INTEGER ? "an" : "a", type_name(declared->type));
    }
  }
  tr_status status = TR_OK;
  if (tr_diagnostics_errors(diagnostics) > 0) {
    const tr_diagnostic *first = tr_diagnostics_at(diagnostics, 0);
    status = tr_fail(error, TR_ERR_CONFIG, "%s:%u:%u: %s%s%s", job_name, first->place.line, first->place.column,
                     first->message, first->hint != NULL ? "; " : "", first->hint != NULL ? first->hint : "");
    tr_writer all;
    tr_writer_init(&all, session->allocator);
    tr_diagnostics_write(diagnostics, job_name, job_text, false, &all);
    tr_write_u8(&all, 0);
    if (!all.failed && session->world.rank == 0) tr_logf(session->log, TR_LOG_ERROR, "%s", (const char *)all.data);
    tr_writer_fini(&all);
  }
  tr_diagnostics_destroy(diagnostics);
  return status;
}

static const tr_value *given(const tr_session *session, const char *name, const tr_param_declaration **declared) {
  *declared = find(session, name);
  assert(*declared != NULL && "the parameter was not declared");
  return tr_value_get(tr_config_find(session->config, "params"), name);
}

int64_t tr_session_param_integer(const tr_session *session, const char *name) {
  const tr_param_declaration *declared;
  const tr_value *value = given(session, name, &declared);
  return value != NULL ? value->integer : strtoll(declared->default_text, NULL, 10);
}

double tr_session_param_real(const tr_session *session, const char *name) {
  const tr_param_declaration *declared;
  const tr_value *value = given(session, name, &declared);
  double number = 0;
  if (value != NULL) return value->real;
  return tr_parse_real(declared->default_text, &number) ? number : 0;
}

bool tr_session_param_boolean(const tr_session *session, const char *name) {
  const tr_param_declaration *declared;
  const tr_value *value = given(session, name, &declared);
  return value != NULL ? value->integer != 0 : strcmp(declared->default_text, "true") == 0;
}

const char *tr_session_param_text(const tr_session *session, const char *name) {
  const tr_param_declaration *declared;
  const tr_value *value = given(session, name, &declared);
  return value != NULL ? value->text : declared->default_text;
}
