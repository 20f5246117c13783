/* The schema and the reference come from the table of knobs, and so does docs/configuration.md.
 *
 * With TRAINRUN_TEST_UPDATE=1 in the environment docs/configuration.md is written instead of compared. */
#include <criterion/criterion.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <trainrun/config.h>

static char *text_of(void (*write)(tr_writer *)) {
  tr_writer w;
  tr_writer_init(&w, NULL);
  write(&w);
  tr_write_u8(&w, 0);
  cr_assert(!w.failed);
  return (char *)w.data;
}

/* The schema of a knob, following "properties" and, for named tables, "additionalProperties". */
static json_t *schema_of(json_t *schema, const char *key) {
  while (schema != NULL && *key != '\0') {
    char segment[64];
    const size_t length = strcspn(key, ".");
    snprintf(segment, sizeof segment, "%.*s", (int)length, key);
    schema = strcmp(segment, "*") == 0 ? json_object_get(schema, "additionalProperties")
                                       : json_object_get(json_object_get(schema, "properties"), segment);
    key += length + (key[length] == '.');
  }
  return schema;
}

Test(config_reference, the_schema_has_every_knob_with_its_default) {
  char *text = text_of(tr_config_write_schema);
  json_error_t error;
  json_t *schema = json_loads(text, JSON_REJECT_DUPLICATES, &error);
  cr_assert_not_null(schema, "%d:%d %s", error.line, error.column, error.text);
  cr_assert_str_eq(json_string_value(json_object_get(schema, "$schema")),
                   "https://json-schema.org/draft/2020-12/schema");
  cr_assert(json_is_false(json_object_get(schema, "additionalProperties")));
  size_t count;
  const tr_knob *knobs = tr_config_knobs(&count);
  cr_assert_gt(count, 60);
  for (size_t i = 0; i < count; i++) {
    json_t *knob = schema_of(schema, knobs[i].key);
    cr_assert(json_is_object(knob), "%s", knobs[i].key);
    cr_assert_str_eq(json_string_value(json_object_get(knob, "description")), knobs[i].help);
    cr_assert_eq(json_object_get(knob, "default") != NULL, knobs[i].default_text[0] != '\0', "%s", knobs[i].key);
  }
  json_decref(schema);
  tr_free(NULL, text);
}

Test(config_reference, the_reference_names_every_knob_and_its_meaning) {
  char *text = text_of(tr_config_write_reference);
  size_t count;
  const tr_knob *knobs = tr_config_knobs(&count);
  for (size_t i = 0; i < count; i++) cr_assert_not_null(strstr(text, knobs[i].help), "%s", knobs[i].key);
  tr_free(NULL, text);
}

Test(config_reference, knobs_are_in_kebab_case_and_explained_in_a_sentence) {
  size_t count;
  const tr_knob *knobs = tr_config_knobs(&count);
  for (size_t i = 0; i < count; i++) {
    const char *key = knobs[i].key, *help = knobs[i].help;
    cr_assert_eq(strspn(key, "abcdefghijklmnopqrstuvwxyz-.*"), strlen(key), "%s", key);
    cr_assert_gt(strlen(help), 15, "%s", key);
    cr_assert_eq(knobs[i].choices != NULL, knobs[i].type == TR_KNOB_CHOICE, "%s", key);
    for (size_t j = 0; j < i; j++) cr_assert_str_neq(key, knobs[j].key);
  }
}

static char *read_file(const char *path) {
  FILE *file = fopen(path, "rb");
  if (file == NULL) return NULL;
  char *text = tr_calloc(NULL, 1, 1 << 20);
  cr_assert_lt(fread(text, 1, (1 << 20) - 1, file), (1 << 20) - 1);
  fclose(file);
  return text;
}

Test(config_reference, the_document_is_the_one_the_table_gives) {
  const char *path = TRAINRUN_SOURCE_DIR "/docs/configuration.md";
  char *expected = text_of(tr_config_write_reference);
  const char *update = getenv("TRAINRUN_TEST_UPDATE");
  if (update != NULL && strcmp(update, "1") == 0) {
    FILE *file = fopen(path, "wb");
    cr_assert_not_null(file);
    fputs(expected, file);
    cr_assert_eq(fclose(file), 0);
  }
  char *found = read_file(path);
  cr_assert_not_null(found, "%s is missing; TRAINRUN_TEST_UPDATE=1 writes it", path);
  cr_assert(strcmp(found, expected) == 0, "%s is not what the table gives; TRAINRUN_TEST_UPDATE=1 writes it", path);
  tr_free(NULL, found);
  tr_free(NULL, expected);
}
