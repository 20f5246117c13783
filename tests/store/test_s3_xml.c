/* The XML that S3 answers: what is read from whole answers, and that nothing comes of broken, deep or hostile ones. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "s3_answer.h"
#include "s3_xml.h"

typedef struct seen {
  char keys[8][TR_KEY_BYTES];
  tr_object_info infos[8];
  char ids[8][S3_UPLOAD_ID_BYTES];
  size_t count;
} seen;

static tr_status see(void *self, const char *key, const tr_object_info *info, tr_error *error) {
  (void)error;
  seen *all = self;
  if (all->count == 8) return TR_ERR_STOPPED;
  snprintf(all->keys[all->count], TR_KEY_BYTES, "%s", key);
  all->infos[all->count++] = *info;
  return TR_OK;
}

static tr_status see_upload(void *self, const char *key, const char *id, tr_error *error) {
  (void)error;
  seen *all = self;
  if (all->count == 8) return TR_ERR_STOPPED;
  snprintf(all->keys[all->count], TR_KEY_BYTES, "%s", key);
  snprintf(all->ids[all->count++], S3_UPLOAD_ID_BYTES, "%s", id);
  return TR_OK;
}

static tr_status read_objects(const char *text, seen *all, bool *truncated) {
  return s3_answer_objects(text, strlen(text), see, all, truncated, NULL);
}

static const char listing[] =
    "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<!-- hello -->"
    "<ListBucketResult xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"><Name>b</Name><Prefix/>"
    "<KeyCount>2</KeyCount><IsTruncated>true</IsTruncated><Contents><Key>a+b/%C3%A4%2B%25</Key>"
    "<LastModified>2026-11-26T01:48:31.287Z</LastModified><ETag>&#34;5d41402abc4b2a76b9719d911017c592&quot;</ETag>"
    "<Size>5</Size><Owner><ID>x</ID><DisplayName>Key</DisplayName></Owner></Contents>\n"
    "<Contents><Size>18446744073709551615</Size><Key>z</Key></Contents><EncodingType>url</EncodingType>"
    "</ListBucketResult>\n";

Test(xml, reads_a_listing) {
  seen all = {.count = 0};
  bool truncated = false;
  cr_assert_eq(read_objects(listing, &all, &truncated), TR_OK);
  cr_expect(truncated);
  cr_assert_eq(all.count, 2);
  cr_expect_str_eq(all.keys[0], "a b/\xc3\xa4+%");
  cr_expect_str_eq(all.infos[0].etag, "5d41402abc4b2a76b9719d911017c592");
  cr_expect_eq(all.infos[0].bytes, 5);
  cr_expect_eq(all.infos[0].modified_ns, INT64_C(1795657711287000000));
  cr_expect_str_eq(all.keys[1], "z");
  cr_expect_eq(all.infos[1].bytes, UINT64_MAX);
}

Test(xml, leaves_keys_as_they_are_where_a_server_does_not_encode_them) {
  seen all = {.count = 0};
  bool truncated = true;
  cr_assert_eq(read_objects("<ListBucketResult><Contents><Key>a+b%20&amp;&lt;&#x41;</Key><Size>0</Size></Contents>"
                            "<EncodingType/></ListBucketResult>",
                            &all, &truncated),
               TR_OK);
  cr_expect_not(truncated);
  cr_expect_str_eq(all.keys[0], "a+b%20&<A");
}

Test(xml, refuses_a_listing_that_is_cut_anywhere) {
  for (size_t bytes = 0; bytes + 1 < sizeof listing - 1; bytes++) {
    seen all = {.count = 0};
    bool truncated = false;
    char *cut = malloc(bytes + 1); /* its own memory, so that a read past the end is seen */
    memcpy(cut, listing, bytes);
    cr_expect_neq(s3_answer_objects(cut, bytes, see, &all, &truncated, NULL), TR_OK, "%zu bytes", bytes);
    free(cut);
  }
}

Test(xml, refuses_what_is_no_listing) {
  const char *const bad[] = {
      "",
      "   ",
      "hello",
      "<html><body>no</body></html>",
      "<Error><Code>X</Code></Error>",
      "<ListBucketResult></ListBucketResul>",
      "<ListBucketResult></ListBucketResult><again/>",
      "<ListBucketResult></ListBucketResult>text",
      "<ListBucketResult><Contents></ListBucketResult></Contents>",
      "<ListBucketResult><Contents><Size>1</Size></Contents></ListBucketResult>",
      "<ListBucketResult><Contents><Key></Key><Key>a</Key><Size>-1</Size></Contents></ListBucketResult>",
      "<ListBucketResult><Contents><Key>a&unknown;</Key><Size>1</Size></Contents></ListBucketResult>",
      "<ListBucketResult><Contents><Key>a&#0;</Key><Size>1</Size></Contents></ListBucketResult>",
      "<ListBucketResult><Contents><Key>a&#xD800;</Key><Size>1</Size></Contents></ListBucketResult>",
      "<ListBucketResult><IsTruncated>perhaps</IsTruncated></ListBucketResult>",
      "<!DOCTYPE x [<!ENTITY a \"aaaa\">]><ListBucketResult></ListBucketResult>",
      "<ListBucketResult><![CDATA[x]]></ListBucketResult>",
      "<ListBucketResult a='></ListBucketResult>",
  };
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
    seen all = {.count = 0};
    bool truncated = false;
    tr_error error;
    cr_expect_neq(s3_answer_objects(bad[i], strlen(bad[i]), see, &all, &truncated, &error), TR_OK, "%s", bad[i]);
    cr_expect_not_null(strstr(error.message, "s3"));
  }
}

Test(xml, goes_no_deeper_than_it_says) {
  enum { DEEP = 100000 };
  char *text = malloc(2 * DEEP * 3 + 64), *at = text;
  at += sprintf(at, "<ListBucketResult>");
  for (int i = 0; i < DEEP; i++) at += sprintf(at, "<a>");
  seen all = {.count = 0};
  bool truncated = false;
  cr_expect_neq(read_objects(text, &all, &truncated), TR_OK);
  s3_xml xml = s3_xml_of(text, (size_t)(at - text));
  int opened = 0;
  while (s3_xml_next(&xml) == S3_XML_OPEN) opened++;
  cr_expect_eq(opened, S3_XML_DEPTH);
  free(text);
}

Test(xml, refuses_keys_that_are_too_long_or_hold_a_nul) {
  char *text = malloc(8192);
  for (int length = TR_KEY_BYTES - 2; length <= TR_KEY_BYTES + 1; length++) {
    char key[TR_KEY_BYTES + 8];
    memset(key, 'k', (size_t)length);
    key[length] = '\0';
    sprintf(text, "<ListBucketResult><Contents><Key>%s</Key><Size>1</Size></Contents></ListBucketResult>", key);
    seen all = {.count = 0};
    bool truncated = false;
    cr_expect_eq(read_objects(text, &all, &truncated) == TR_OK, length < TR_KEY_BYTES, "%d", length);
  }
  seen all = {.count = 0};
  bool truncated = false;
  cr_expect_neq(read_objects("<ListBucketResult><Contents><Key>a%00b</Key><Size>1</Size></Contents>"
                             "<EncodingType>url</EncodingType></ListBucketResult>",
                             &all, &truncated),
                TR_OK);
  free(text);
}

Test(xml, reads_an_error_whatever_stands_around_it) {
  s3_error_answer answer;
  const char text[] =
      " \n<?xml version='1.0'?><Error xmlns='x'><Code>NoSuchKey</Code><Message>a &lt;b&gt;</Message>"
      "<Details><Code>Inner</Code></Details><Region>eu-west-1</Region><HostId/></Error>";
  cr_assert(s3_answer_error(text, sizeof text - 1, &answer));
  cr_expect_str_eq(answer.code, "NoSuchKey");
  cr_expect_str_eq(answer.message, "a <b>");
  cr_expect_str_eq(answer.region, "eu-west-1");
  cr_expect_not(s3_answer_error("<Ok/>", 5, &answer));
  cr_expect_not(s3_answer_error("", 0, &answer));
  cr_assert(s3_answer_error("<Error><Code>Cut</Code><Mess", 27, &answer), "its beginning is enough");
  cr_expect_str_eq(answer.code, "Cut");
}

Test(xml, reads_the_id_of_an_upload) {
  char id[S3_UPLOAD_ID_BYTES] = "";
  const char text[] =
      "<s3:InitiateMultipartUploadResult xmlns:s3=\"x\"><s3:Bucket>b</s3:Bucket>"
      "<s3:UploadId>a&amp;b==</s3:UploadId></s3:InitiateMultipartUploadResult>";
  cr_assert(s3_answer_member(text, sizeof text - 1, "InitiateMultipartUploadResult", "UploadId", id, sizeof id));
  cr_expect_str_eq(id, "a&b==");
  cr_expect_not(s3_answer_member(text, sizeof text - 1, "InitiateMultipartUploadResult", "UploadId", id, 5));
  cr_expect_not(s3_answer_member(text, sizeof text - 1, "Other", "UploadId", id, sizeof id));
  cr_expect_not(s3_answer_member(text, sizeof text - 30, "InitiateMultipartUploadResult", "UploadId", id, sizeof id));
}

Test(xml, reads_a_page_of_uploads) {
  seen all = {.count = 0};
  s3_uploads_answer page;
  const char text[] =
      "<ListMultipartUploadsResult><NextKeyMarker>z%2B</NextKeyMarker><NextUploadIdMarker>9"
      "</NextUploadIdMarker><EncodingType>url</EncodingType><IsTruncated>true</IsTruncated>"
      "<Upload><Key>a%2Fb</Key><UploadId>1</UploadId><Initiator><ID>2</ID></Initiator></Upload>"
      "<Upload><UploadId>3</UploadId><Key>c</Key></Upload></ListMultipartUploadsResult>";
  cr_assert_eq(s3_answer_uploads(text, sizeof text - 1, see_upload, &all, &page, NULL), TR_OK);
  cr_assert_eq(all.count, 2);
  cr_expect_str_eq(all.keys[0], "a/b");
  cr_expect_str_eq(all.ids[0], "1");
  cr_expect_str_eq(all.keys[1], "c");
  cr_expect_str_eq(all.ids[1], "3");
  cr_expect(page.truncated);
  cr_expect_str_eq(page.key_marker, "z+");
  cr_expect_str_eq(page.upload_marker, "9");
}

/* Bits and bytes changed by a rule: nothing may be read outside, hang or crash. */
Test(xml, survives_ten_thousand_mutations) {
  uint64_t state = 12345;
  for (int round = 0; round < 10000; round++) {
    char *text = malloc(sizeof listing - 1);
    memcpy(text, listing, sizeof listing - 1);
    for (int change = 0; change <= round % 4; change++) {
      state = state * UINT64_C(6364136223846793005) + 1442695040888963407u;
      text[(state >> 33) % (sizeof listing - 1)] = "<>&;/\"' %\0a"[(state >> 20) % 11];
    }
    seen all = {.count = 0};
    bool truncated = false;
    const tr_status status = s3_answer_objects(text, sizeof listing - 1, see, &all, &truncated, NULL);
    cr_assert(status == TR_OK || status == TR_ERR_CORRUPT || status == TR_ERR_UNSUPPORTED || status == TR_ERR_STOPPED);
    free(text);
  }
}

Test(xml, reads_times_and_etags) {
  char etag[TR_ETAG_BYTES];
  cr_expect_eq(s3_answer_time("1970-01-01T00:00:01Z"), INT64_C(1000000000));
  cr_expect_eq(s3_answer_time("9999-12-31T23:59:59Z"), 0, "it does not fit");
  cr_expect_eq(s3_answer_time("yesterday"), 0);
  cr_expect_eq(s3_answer_time(""), 0);
  cr_assert(s3_answer_etag("\"abc-2\"", 7, etag));
  cr_expect_str_eq(etag, "abc-2");
  cr_assert(s3_answer_etag("W/\"abc\"", 7, etag));
  cr_expect_str_eq(etag, "W/\"abc\"");
  cr_expect_not(
      s3_answer_etag("\"0123456789012345678901234567890123456789012345678901234567890123456789012\"", 75, etag));
}
