/* s3_settings BUCKET [PROFILE]: the settings and the access key of a bucket as one line of JSON, from this process's
 * environment and the files it names; `{"error": …}` where they are none. For test_botocore.py. */
#include <stdio.h>
#include <string.h>
#include <trainrun/s3.h>

#include "s3_keychain.h"

extern char **environ;

static tr_status find(const char *bucket, const char *profile, s3_settings *settings, tr_s3_credentials *keys,
                      tr_error *error) {
  const char *const *environment = (const char *const *)environ;
  const tr_s3_overrides overrides = {.profile = profile};
  s3_profiles profiles;
  TR_TRY(s3_profiles_load(NULL, environment, &profiles, error));
  const s3_settings_source source = {
      .environment = environment, .overrides = &overrides, .profiles = &profiles, .bucket = bucket};
  const tr_status status = s3_settings_make(&source, settings, error);
  s3_profiles_fini(&profiles);
  if (status != TR_OK) return status;
  s3_settings for_keys;
  tr_s3_credentials_source from;
  TR_TRY(s3_profiles_load(NULL, environment, &profiles, error));
  tr_status made = s3_settings_make(&source, &for_keys, error);
  s3_profiles_fini(&profiles);
  const s3_keychain_options options = {.environment = environment};
  if (made == TR_OK) made = s3_keychain_create(&options, &for_keys, &from, error);
  if (made != TR_OK) return made;
  made = from.get(from.self, false, keys, error);
  from.destroy(from.self);
  /* That there are none is an answer too. */
  return made == TR_ERR_DENIED && strstr(error->message, "there are no keys") != NULL ? TR_OK : made;
}

int main(int argc, char **argv) {
  if (argc < 2) return 2;
  s3_settings settings = {0};
  tr_s3_credentials keys = {.access_key = ""};
  tr_error error = {.message = ""};
  tr_writer writer;
  tr_writer_init(&writer, NULL);
  if (find(argv[1], argc > 2 ? argv[2] : NULL, &settings, &keys, &error) != TR_OK) {
    tr_write_text(&writer, "{\"error\": ");
    tr_write_json_string(&writer, error.message);
  } else {
    tr_write_text(&writer, "{\"endpoint\": ");
    tr_write_json_string(&writer, settings.endpoint != NULL ? settings.endpoint : "");
    tr_write_text(&writer, ", \"region\": ");
    tr_write_json_string(&writer, settings.region);
    tr_write_text(&writer, ", \"ca_file\": ");
    tr_write_json_string(&writer, settings.ca_file != NULL ? settings.ca_file : "");
    tr_write_text(&writer, ", \"path_style\": %s, \"access_key\": ", settings.path_style ? "true" : "false");
    tr_write_json_string(&writer, keys.access_key);
    tr_write_text(&writer, ", \"token\": ");
    tr_write_json_string(&writer, keys.session_token);
  }
  printf("%.*s}\n", (int)writer.bytes, (const char *)writer.data);
  tr_writer_fini(&writer);
  s3_settings_fini(&settings);
  return 0;
}
