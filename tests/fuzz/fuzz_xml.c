/* What S3 servers answer, from outside: listings, errors, ids of uploads, pages of uploads. */
#include "fuzz.h"
#include "s3_answer.h"

/* Whatever is handed out fits and ends. */
static tr_status take_object(void *self, const char *key, const tr_object_info *info, tr_error *error) {
  (void)error;
  size_t *count = self;
  fuzz_promise(strlen(key) < TR_KEY_BYTES && strlen(info->etag) < TR_ETAG_BYTES, "a listed object fits");
  ++*count;
  return TR_OK;
}

static tr_status take_upload(void *self, const char *key, const char *id, tr_error *error) {
  (void)error;
  size_t *count = self;
  fuzz_promise(key[0] != '\0' && strlen(key) < TR_KEY_BYTES, "an upload has a key");
  fuzz_promise(id[0] != '\0' && strlen(id) < S3_UPLOAD_ID_BYTES, "an upload has an id");
  ++*count;
  return TR_OK;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  s3_error_answer refusal;
  s3_uploads_answer page;
  char id[S3_UPLOAD_ID_BYTES];
  bool truncated = false;
  size_t count = 0;
  if (s3_answer_objects(data, size, take_object, &count, &truncated, NULL) == TR_OK) {
    fuzz_promise(count <= size / sizeof "<Contents>", "no more objects than there is text for");
  }
  (void)!s3_answer_uploads(data, size, take_upload, &count, &page, NULL);
  s3_answer_error(data, size, &refusal);
  s3_answer_member(data, size, "InitiateMultipartUploadResult", "UploadId", id, sizeof id);
  return 0;
}

size_t fuzz_seed(unsigned number, uint8_t *out) {
  static const char *const seeds[] = {
      "<?xml version=\"1.0\"?>\n<ListBucketResult xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"><Prefix/>"
      "<IsTruncated>true</IsTruncated><Contents><Key>a+b/%C3%A4</Key><LastModified>2026-11-26T01:48:31.287Z"
      "</LastModified><ETag>&#34;5d41402abc4b2a76b9719d911017c592&quot;</ETag><Size>5</Size></Contents>"
      "<Contents><Size>7</Size><Key>z&amp;</Key></Contents><EncodingType>url</EncodingType></ListBucketResult>",
      "<Error><Code>SlowDown</Code><Message>a &lt;b&gt;</Message><Region>eu-west-1</Region></Error>",
      "<s:InitiateMultipartUploadResult xmlns:s='x'><s:UploadId>a&#x41;==</s:UploadId>"
      "</s:InitiateMultipartUploadResult>",
      "<ListMultipartUploadsResult><NextKeyMarker>z</NextKeyMarker><IsTruncated>false</IsTruncated><Upload><Key>a</Key>"
      "<UploadId>1</UploadId></Upload><!-- x --><Upload><UploadId>2</UploadId><Key>b</Key></Upload>"
      "</ListMultipartUploadsResult>"};
  if (number >= sizeof seeds / sizeof *seeds) return 0;
  memcpy(out, seeds[number], strlen(seeds[number]));
  return strlen(seeds[number]);
}
