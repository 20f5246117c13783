/* Looking up keys of profiles, and reading the files they are in. */
#include "s3_profiles.h"

#include <ctype.h>
#include <string.h>

#include "s3_inputs.h"

/* ---- Sections ---- */

/* Whether a head is `kind NAME`, the name perhaps in quotes. */
static bool is_named(const char *section, const char *kind, const char *name) {
  const size_t kind_bytes = strlen(kind), name_bytes = strlen(name);
  if (strncmp(section, kind, kind_bytes) != 0 || !isspace((unsigned char)section[kind_bytes])) return false;
  const char *rest = section + kind_bytes;
  while (isspace((unsigned char)*rest)) rest++;
  const bool quoted = *rest == '"' || *rest == '\'';
  const char quote[2] = {*rest, '\0'};
  if (quoted) rest++;
  return strncmp(rest, name, name_bytes) == 0 && strcmp(rest + name_bytes, quoted ? quote : "") == 0;
}

/* The text of the head of a section in the config file, NULL where there is none. */
static const char *find_section(const s3_ini *ini, const char *kind, const char *name) {
  for (size_t i = 0; i < ini->count; i++) {
    if (ini->entries[i].key == NULL && is_named(ini->entries[i].section, kind, name)) return ini->entries[i].section;
  }
  return NULL;
}

static const char *config_section(const s3_profiles *profiles, const char *profile) {
  const char *section = find_section(&profiles->config, "profile", profile);
  return section == NULL && strcmp(profile, "default") == 0 ? "default" : section;
}

static bool has_section(const s3_ini *ini, const char *section) {
  for (size_t i = 0; section != NULL && i < ini->count; i++) {
    if (ini->entries[i].key == NULL && strcmp(ini->entries[i].section, section) == 0) return true;
  }
  return false;
}

bool s3_profiles_has(const s3_profiles *profiles, const char *profile) {
  return has_section(&profiles->credentials, profile) ||
         has_section(&profiles->config, config_section(profiles, profile));
}

static const char *value_of(const s3_ini *ini, const char *section, const char *block, const char *key) {
  const s3_ini_entry *entry = section != NULL ? s3_ini_find(ini, section, block, key) : NULL;
  return entry != NULL && entry->value[0] != '\0' ? entry->value : NULL;
}

const char *s3_profiles_in_credentials(const s3_profiles *profiles, const char *profile, const char *key) {
  return value_of(&profiles->credentials, profile, NULL, key);
}

const char *s3_profiles_in_config(const s3_profiles *profiles, const char *profile, const char *key) {
  return value_of(&profiles->config, config_section(profiles, profile), NULL, key);
}

const char *s3_profiles_get_in(const s3_profiles *profiles, const char *profile, const char *block, const char *key) {
  const char *value = value_of(&profiles->credentials, profile, block, key);
  return value != NULL ? value : value_of(&profiles->config, config_section(profiles, profile), block, key);
}

const char *s3_profiles_get(const s3_profiles *profiles, const char *profile, const char *key) {
  return s3_profiles_get_in(profiles, profile, NULL, key);
}

const char *s3_profiles_get_service(const s3_profiles *profiles, const char *profile, const char *service,
                                    const char *key) {
  const char *name = s3_profiles_get(profiles, profile, "services");
  if (name == NULL) return NULL;
  return value_of(&profiles->config, find_section(&profiles->config, "services", name), service, key);
}

/* ---- Files ---- */

static tr_status parse_text(const tr_allocator *allocator, const char *path, const char *text, size_t bytes,
                            s3_ini *ini, tr_error *error) {
  return text != NULL ? s3_ini_parse(allocator, path != NULL ? path : "the file", text, bytes, ini, error) : TR_OK;
}

static tr_status copy_path(const tr_allocator *allocator, const char *path, char **copy, tr_error *error) {
  if (path == NULL) return TR_OK;
  *copy = tr_strdup(allocator, path);
  return *copy != NULL ? TR_OK : tr_fail_memory(error, "a path", strlen(path));
}

tr_status s3_profiles_parse(const tr_allocator *allocator, const char *config_path, const char *config,
                            const char *credentials_path, const char *credentials, s3_profiles *out, tr_error *error) {
  s3_profiles made = {.allocator = allocator};
  tr_status status = copy_path(allocator, config_path, &made.config_path, error);
  if (status == TR_OK) status = copy_path(allocator, credentials_path, &made.credentials_path, error);
  if (status == TR_OK) {
    status = parse_text(allocator, made.config_path, config, config != NULL ? strlen(config) : 0, &made.config, error);
  }
  if (status == TR_OK) {
    status = parse_text(allocator, made.credentials_path, credentials, credentials != NULL ? strlen(credentials) : 0,
                        &made.credentials, error);
  }
  if (status != TR_OK) {
    s3_profiles_fini(&made);
    return status;
  }
  *out = made;
  return TR_OK;
}

/* What a variable names, with ~ as HOME, or ~/.aws/NAME; NULL and TR_OK where HOME is not known. */
static tr_status file_path(const tr_allocator *allocator, const char *const *environment, const char *variable,
                           const char *name, char **path, tr_error *error) {
  const char *given = s3_environment(environment, variable), *home = s3_environment(environment, "HOME");
  if (given == NULL && home == NULL) return TR_OK;
  if (given != NULL) {
    *path = given[0] == '~' && given[1] == '/' && home != NULL ? tr_asprintf(allocator, "%s%s", home, given + 1)
                                                               : tr_strdup(allocator, given);
  } else {
    *path = tr_asprintf(allocator, "%s/.aws/%s", home, name);
  }
  return *path != NULL ? TR_OK : tr_fail_memory(error, variable, 0);
}

static tr_status load_file(const tr_allocator *allocator, const char *path, s3_ini *ini, tr_error *error) {
  if (path == NULL) return TR_OK;
  char *text = NULL;
  size_t bytes = 0;
  const tr_status status = s3_file_read(allocator, "the AWS configuration file", path, S3_INI_BYTES_MAX, &text, &bytes,
                                        NULL, error);
  if (status == TR_ERR_NOT_FOUND) return TR_OK;
  if (status != TR_OK) return status;
  const tr_status parsed = parse_text(allocator, path, text, bytes, ini, error);
  explicit_bzero(text, bytes);
  tr_free(allocator, text);
  return parsed;
}

tr_status s3_profiles_load(const tr_allocator *allocator, const char *const *environment, s3_profiles *out,
                           tr_error *error) {
  s3_profiles made = {.allocator = allocator};
  tr_status status = file_path(allocator, environment, "AWS_CONFIG_FILE", "config", &made.config_path, error);
  if (status == TR_OK) {
    status = file_path(allocator, environment, "AWS_SHARED_CREDENTIALS_FILE", "credentials", &made.credentials_path,
                       error);
  }
  if (status == TR_OK) status = load_file(allocator, made.config_path, &made.config, error);
  if (status == TR_OK) status = load_file(allocator, made.credentials_path, &made.credentials, error);
  if (status != TR_OK) {
    s3_profiles_fini(&made);
    return status;
  }
  *out = made;
  return TR_OK;
}

void s3_profiles_fini(s3_profiles *profiles) {
  s3_ini_fini(&profiles->config);
  s3_ini_fini(&profiles->credentials);
  tr_free(profiles->allocator, profiles->config_path);
  tr_free(profiles->allocator, profiles->credentials_path);
  *profiles = (s3_profiles){0};
}
