/* The answers of S3, member by member: see s3_answer.h. */
#include "s3_answer.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

#include "s3_text.h"
#include "s3_xml.h"

enum { ENCODED_KEY_BYTES = 3 * TR_KEY_BYTES + 1 };

static tr_status no_answer(const char *what, tr_error *error) {
  return tr_fail(error, TR_ERR_CORRUPT, "s3: the server's answer is no %s; is the endpoint a server of S3?", what);
}

bool s3_answer_etag(const char *text, size_t bytes, char etag[TR_ETAG_BYTES]) {
  if (bytes >= 2 && text[0] == '"' && text[bytes - 1] == '"') {
    text++;
    bytes -= 2;
  }
  if (bytes >= TR_ETAG_BYTES || memchr(text, '\0', bytes) != NULL) return false;
  memcpy(etag, text, bytes);
  etag[bytes] = '\0';
  return true;
}

int64_t s3_answer_time(const char *text) {
  struct tm utc = {0};
  int milliseconds = 0;
  const int read = sscanf(text, "%4d-%2d-%2dT%2d:%2d:%2d.%3d", &utc.tm_year, &utc.tm_mon, &utc.tm_mday, &utc.tm_hour,
                          &utc.tm_min, &utc.tm_sec, &milliseconds);
  /* Nanoseconds in 64 bits end in 2262. */
  if (read < 6 || utc.tm_year < 1970 || utc.tm_year > 2200 || milliseconds < 0) return 0;
  utc.tm_year -= 1900;
  utc.tm_mon -= 1;
  return (int64_t)timegm(&utc) * 1000000000 + (int64_t)milliseconds * 1000000;
}

bool s3_answer_error(const void *body, size_t bytes, s3_error_answer *out) {
  *out = (s3_error_answer){0};
  s3_xml xml = s3_xml_of(body, bytes);
  if (s3_xml_next(&xml) != S3_XML_OPEN || !s3_xml_is(&xml, "Error")) return false;
  for (s3_xml_event event; (event = s3_xml_next(&xml)) != S3_XML_END && event != S3_XML_BAD;) {
    if (event != S3_XML_CLOSE || xml.depth != 1) continue;
    if (s3_xml_is(&xml, "Code") && !s3_xml_text(&xml, out->code, sizeof out->code)) out->code[0] = '\0';
    if (s3_xml_is(&xml, "Message") && !s3_xml_text(&xml, out->message, sizeof out->message)) out->message[0] = '\0';
    if (s3_xml_is(&xml, "Region") && !s3_xml_text(&xml, out->region, sizeof out->region)) out->region[0] = '\0';
  }
  return true;
}

bool s3_answer_member(const void *body, size_t bytes, const char *root, const char *member, char *text,
                      size_t capacity) {
  s3_xml xml = s3_xml_of(body, bytes);
  if (s3_xml_next(&xml) != S3_XML_OPEN || !s3_xml_is(&xml, root)) return false;
  bool found = false;
  for (s3_xml_event event; (event = s3_xml_next(&xml)) != S3_XML_END;) {
    if (event == S3_XML_BAD) return false;
    if (event == S3_XML_CLOSE && xml.depth == 1 && s3_xml_is(&xml, member)) found = s3_xml_text(&xml, text, capacity);
  }
  return found;
}

/* Of one <Contents>. */
typedef struct object_in_reading {
  bool encoded; /* keys are, as was asked for; not every server does it */
  char key[TR_KEY_BYTES];
  bool has_key, bad;
  tr_object_info info;
} object_in_reading;

static bool read_key(const s3_xml *xml, bool encoded, char key[TR_KEY_BYTES]) {
  char text[ENCODED_KEY_BYTES];
  if (!encoded) return s3_xml_text(xml, key, TR_KEY_BYTES);
  return s3_xml_text(xml, text, sizeof text) && s3_text_decode(text, key, TR_KEY_BYTES);
}

/* It may stand behind the keys, so it is looked for first. */
static bool is_encoded(const void *body, size_t bytes, const char *root) {
  char type[16];
  return s3_answer_member(body, bytes, root, "EncodingType", type, sizeof type) && strcmp(type, "url") == 0;
}

static void read_object_member(const s3_xml *xml, object_in_reading *object) {
  char text[128];
  if (s3_xml_is(xml, "Key")) {
    object->has_key = read_key(xml, object->encoded, object->key);
    object->bad = object->bad || !object->has_key;
  } else if (s3_xml_is(xml, "Size")) {
    object->bad = object->bad || !s3_xml_text(xml, text, sizeof text) || !tr_parse_u64(text, &object->info.bytes);
  } else if (s3_xml_is(xml, "ETag")) {
    if (s3_xml_text(xml, text, sizeof text)) s3_answer_etag(text, strlen(text), object->info.etag);
  } else if (s3_xml_is(xml, "LastModified")) {
    if (s3_xml_text(xml, text, sizeof text)) object->info.modified_ns = s3_answer_time(text);
  }
}

/* An answer that was cut must not pass for a short one: false unless the text is exactly true or false. */
static bool read_flag(const s3_xml *xml, bool *flag) {
  char text[8];
  if (!s3_xml_text(xml, text, sizeof text)) return false;
  *flag = strcmp(text, "true") == 0;
  return *flag || strcmp(text, "false") == 0;
}

tr_status s3_answer_objects(const void *body, size_t bytes, s3_object_fn visit, void *self, bool *truncated,
                            tr_error *error) {
  s3_xml xml = s3_xml_of(body, bytes);
  const bool encoded = is_encoded(body, bytes, "ListBucketResult");
  object_in_reading object = {0};
  bool in_object = false, more = false;
  if (s3_xml_next(&xml) != S3_XML_OPEN || !s3_xml_is(&xml, "ListBucketResult")) return no_answer("listing", error);
  for (s3_xml_event event; (event = s3_xml_next(&xml)) != S3_XML_END;) {
    if (event == S3_XML_BAD) return no_answer("whole listing", error);
    if (event == S3_XML_OPEN && xml.depth == 2) {
      in_object = s3_xml_is(&xml, "Contents");
      object = (object_in_reading){.encoded = encoded};
    } else if (event == S3_XML_CLOSE && xml.depth == 2 && in_object) {
      read_object_member(&xml, &object);
    } else if (event == S3_XML_CLOSE && xml.depth == 1 && in_object) {
      if (!object.has_key || object.bad) {
        return tr_fail(error, TR_ERR_UNSUPPORTED,
                       "s3: a listed object has no size, or a key that is empty, longer than %d bytes or has a NUL",
                       TR_KEY_BYTES - 1);
      }
      TR_TRY(visit(self, object.key, &object.info, error));
    } else if (event == S3_XML_CLOSE && xml.depth == 1 && s3_xml_is(&xml, "IsTruncated")) {
      if (!read_flag(&xml, &more)) return no_answer("whole listing", error);
    }
  }
  *truncated = more;
  return TR_OK;
}

tr_status s3_answer_uploads(const void *body, size_t bytes, s3_upload_fn visit, void *self, s3_uploads_answer *out,
                            tr_error *error) {
  s3_xml xml = s3_xml_of(body, bytes);
  s3_uploads_answer made = {0};
  char key[TR_KEY_BYTES] = "", id[S3_UPLOAD_ID_BYTES] = "";
  const bool encoded = is_encoded(body, bytes, "ListMultipartUploadsResult");
  bool in_upload = false, good = true;
  if (s3_xml_next(&xml) != S3_XML_OPEN || !s3_xml_is(&xml, "ListMultipartUploadsResult")) {
    return no_answer("list of uploads", error);
  }
  for (s3_xml_event event; (event = s3_xml_next(&xml)) != S3_XML_END;) {
    if (event == S3_XML_BAD || !good) return no_answer("whole list of uploads", error);
    if (event == S3_XML_OPEN && xml.depth == 2) {
      in_upload = s3_xml_is(&xml, "Upload");
      key[0] = id[0] = '\0';
    } else if (event == S3_XML_CLOSE && xml.depth == 2 && in_upload) {
      if (s3_xml_is(&xml, "Key")) good = read_key(&xml, encoded, key);
      if (s3_xml_is(&xml, "UploadId")) good = s3_xml_text(&xml, id, sizeof id);
    } else if (event == S3_XML_CLOSE && xml.depth == 1) {
      if (in_upload && (key[0] == '\0' || id[0] == '\0')) return no_answer("whole list of uploads", error);
      if (in_upload) TR_TRY(visit(self, key, id, error));
      in_upload = false;
      if (s3_xml_is(&xml, "IsTruncated")) good = read_flag(&xml, &made.truncated);
      if (s3_xml_is(&xml, "NextKeyMarker")) good = read_key(&xml, encoded, made.key_marker);
      if (s3_xml_is(&xml, "NextUploadIdMarker")) {
        good = s3_xml_text(&xml, made.upload_marker, sizeof made.upload_marker);
      }
    }
  }
  if (!good) return no_answer("whole list of uploads", error);
  *out = made;
  return TR_OK;
}
