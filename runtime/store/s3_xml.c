/* Reading XML without trusting it: see s3_xml.h. */
#include "s3_xml.h"

#include <string.h>

s3_xml s3_xml_of(const void *data, size_t bytes) {
  const char *start = data;
  return (s3_xml){.at = start, .end = start + bytes};
}

static bool is_blank(char letter) { return letter == ' ' || letter == '\t' || letter == '\r' || letter == '\n'; }

static bool is_name(char letter) {
  return (letter >= 'a' && letter <= 'z') || (letter >= 'A' && letter <= 'Z') || (letter >= '0' && letter <= '9') ||
         letter == '_' || letter == '-' || letter == '.' || letter == ':' || (unsigned char)letter >= 0x80;
}

static bool starts_with(const s3_xml *xml, const char *text) {
  const size_t length = strlen(text);
  return (size_t)(xml->end - xml->at) >= length && memcmp(xml->at, text, length) == 0;
}

/* Past the next `text`; false where there is none. */
static bool skip_past(s3_xml *xml, const char *text) {
  const size_t length = strlen(text);
  const char *found = memmem(xml->at, (size_t)(xml->end - xml->at), text, length);
  if (found == NULL) return false;
  xml->at = found + length;
  return true;
}

static s3_xml_name read_name(s3_xml *xml) {
  s3_xml_name name = {.at = xml->at};
  while (xml->at < xml->end && is_name(*xml->at)) {
    if (*xml->at == ':') name.at = xml->at + 1;
    xml->at++;
  }
  name.bytes = (size_t)(xml->at - name.at);
  return name;
}

static bool same(s3_xml_name a, s3_xml_name b) { return a.bytes == b.bytes && memcmp(a.at, b.at, a.bytes) == 0; }

/* Up to the '>' of an opening tag; quoted values may hold one. Sets *empty for "/>". */
static bool skip_attributes(s3_xml *xml, bool *empty) {
  *empty = false;
  for (; xml->at < xml->end; xml->at++) {
    const char letter = *xml->at;
    if (letter == '"' || letter == '\'') {
      const char *close = memchr(xml->at + 1, letter, (size_t)(xml->end - xml->at) - 1);
      if (close == NULL) return false;
      xml->at = close;
    } else if (letter == '>') {
      xml->at++;
      return true;
    } else if (letter == '<') {
      return false;
    }
    *empty = letter == '/';
  }
  return false;
}

static s3_xml_event close_element(s3_xml *xml) {
  xml->name = xml->open[--xml->depth];
  return S3_XML_CLOSE;
}

static s3_xml_event read_open(s3_xml *xml) {
  xml->at++;
  if (xml->depth == S3_XML_DEPTH || (xml->depth == 0 && xml->started)) return S3_XML_BAD;
  const s3_xml_name name = read_name(xml);
  if (name.bytes == 0 || !skip_attributes(xml, &xml->empty)) return S3_XML_BAD;
  xml->started = true;
  xml->open[xml->depth++] = name;
  xml->name = name;
  xml->text = xml->at;
  return S3_XML_OPEN;
}

static s3_xml_event read_close(s3_xml *xml, const char *text_end) {
  xml->at += 2;
  const s3_xml_name name = read_name(xml);
  while (xml->at < xml->end && is_blank(*xml->at)) xml->at++;
  if (xml->at == xml->end || *xml->at != '>') return S3_XML_BAD;
  xml->at++;
  if (xml->depth == 0 || !same(name, xml->open[xml->depth - 1])) return S3_XML_BAD;
  xml->text_end = text_end;
  return close_element(xml);
}

s3_xml_event s3_xml_next(s3_xml *xml) {
  if (xml->empty) {
    xml->empty = false;
    xml->text_end = xml->text;
    return close_element(xml);
  }
  /* After a close what follows is the inside of the parent, which thus has elements. */
  if (xml->text_end != NULL) xml->text = xml->text_end = NULL;
  for (;;) {
    const char *tag = xml->at < xml->end ? memchr(xml->at, '<', (size_t)(xml->end - xml->at)) : NULL;
    if (xml->depth == 0) {
      for (const char *at = xml->at; at < (tag != NULL ? tag : xml->end); at++) {
        /* Some servers send blanks first, to keep a connection alive; some a byte order mark. */
        if (!is_blank(*at) && (xml->started || (unsigned char)*at < 0x80)) return S3_XML_BAD;
      }
      if (tag == NULL) return xml->started ? S3_XML_END : S3_XML_BAD;
    }
    if (tag == NULL) return S3_XML_BAD;
    xml->at = tag;
    if (starts_with(xml, "</")) return read_close(xml, tag);
    if (starts_with(xml, "<?")) {
      if (!skip_past(xml, "?>")) return S3_XML_BAD;
    } else if (starts_with(xml, "<!--")) {
      if (!skip_past(xml, "-->")) return S3_XML_BAD;
    } else if (starts_with(xml, "<!")) {
      return S3_XML_BAD;
    } else {
      return read_open(xml);
    }
  }
}

bool s3_xml_is(const s3_xml *xml, const char *name) {
  return xml->name.bytes == strlen(name) && memcmp(xml->name.at, name, xml->name.bytes) == 0;
}

static size_t write_utf8(uint32_t code, char out[4]) {
  if (code < 0x80) {
    out[0] = (char)code;
    return 1;
  }
  if (code < 0x800) {
    out[0] = (char)(0xC0 | code >> 6);
    out[1] = (char)(0x80 | (code & 63));
    return 2;
  }
  if (code < 0x10000) {
    out[0] = (char)(0xE0 | code >> 12);
    out[1] = (char)(0x80 | (code >> 6 & 63));
    out[2] = (char)(0x80 | (code & 63));
    return 3;
  }
  out[0] = (char)(0xF0 | code >> 18);
  out[1] = (char)(0x80 | (code >> 12 & 63));
  out[2] = (char)(0x80 | (code >> 6 & 63));
  out[3] = (char)(0x80 | (code & 63));
  return 4;
}

/* "#10" and "#xA"; 0 where it is no character. */
static uint32_t read_number(const char *at, size_t bytes) {
  const bool hex = bytes > 1 && at[1] == 'x';
  uint32_t code = 0;
  for (size_t i = hex ? 2 : 1; i < bytes; i++) {
    const char letter = at[i];
    uint32_t digit = 99;
    if (letter >= '0' && letter <= '9') digit = (uint32_t)(letter - '0');
    if (letter >= 'a' && letter <= 'f') digit = (uint32_t)(letter - 'a' + 10);
    if (letter >= 'A' && letter <= 'F') digit = (uint32_t)(letter - 'A' + 10);
    if (digit >= (hex ? 16u : 10u)) return 0;
    code = code * (hex ? 16u : 10u) + digit;
    if (code > 0x10FFFF) return 0;
  }
  return code >= 0xD800 && code < 0xE000 ? 0 : code;
}

static uint32_t read_entity(const char *at, size_t bytes) {
  static const struct {
    char name[5];
    char code;
  } known[] = {{"amp", '&'}, {"lt", '<'}, {"gt", '>'}, {"quot", '"'}, {"apos", '\''}};
  if (bytes > 1 && at[0] == '#') return read_number(at, bytes);
  for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
    if (strlen(known[i].name) == bytes && memcmp(known[i].name, at, bytes) == 0) return (uint32_t)known[i].code;
  }
  return 0;
}

bool s3_xml_text(const s3_xml *xml, char *text, size_t capacity) {
  if (xml->text == NULL || xml->text_end == NULL) return false;
  size_t bytes = 0;
  for (const char *at = xml->text; at < xml->text_end; at++) {
    char out[4] = {*at};
    size_t count = 1;
    if (*at == '&') {
      const char *end = memchr(at, ';', (size_t)(xml->text_end - at));
      const uint32_t code = end != NULL && end - at <= 10 ? read_entity(at + 1, (size_t)(end - at) - 1) : 0;
      if (code == 0) return false;
      count = write_utf8(code, out);
      at = end;
    }
    if (out[0] == '\0' || count >= capacity - bytes) return false;
    memcpy(text + bytes, out, count);
    bytes += count;
  }
  if (bytes >= capacity) return false;
  text[bytes] = '\0';
  return true;
}
