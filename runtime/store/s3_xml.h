/* A pull parser for the small XML that S3 answers: elements and their text. A pure function of bytes that nobody vouches
 * for: it reads each byte once, goes no deeper than S3_XML_DEPTH, keeps no memory and knows no entity but the five of XML
 * and character numbers. A document type, CDATA or a tag that does not match is not of S3 and ends the reading. Attributes
 * are skipped, prefixes of name spaces dropped. */
#ifndef TRAINRUN_STORE_S3_XML_H
#define TRAINRUN_STORE_S3_XML_H

#include <trainrun/base.h>

enum { S3_XML_DEPTH = 16 };

typedef enum s3_xml_event {
  S3_XML_OPEN,  /* of element `name` */
  S3_XML_CLOSE, /* of element `name`; its text can be asked for where it has no elements inside */
  S3_XML_END,   /* the root was closed and nothing follows */
  S3_XML_BAD
} s3_xml_event;

typedef struct s3_xml_name {
  const char *at;
  size_t bytes;
} s3_xml_name;

typedef struct s3_xml {
  s3_xml_name name; /* of the last event */
  uint32_t depth;   /* of open elements; 1 inside the root */

  /* The parser's own. */
  const char *at, *end;
  s3_xml_name open[S3_XML_DEPTH];
  const char *text, *text_end; /* NULL: the closed element had elements inside */
  bool empty, started;         /* the last tag was <name/>; the root was seen */
} s3_xml;

s3_xml s3_xml_of(const void *data, size_t bytes);
s3_xml_event s3_xml_next(s3_xml *xml);
bool s3_xml_is(const s3_xml *xml, const char *name);
/* The text of the element just closed, its entities resolved; false where it does not fit, has an unknown entity or a NUL,
 * or the element had others inside. */
bool s3_xml_text(const s3_xml *xml, char *text, size_t capacity);

#endif
