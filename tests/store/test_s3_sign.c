/* Signatures of S3 (SigV4): the examples that AWS publishes, awkward keys, what a session token changes. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

#include "s3_sign.h"
#include "s3_text.h"

static const tr_s3_credentials example = {.access_key = "AKIAIOSFODNN7EXAMPLE",
                                          .secret_key = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"};
static const char stamp[] = "20130524T000000Z";
static const char empty_hash[] = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

static s3_lib lib;

static void open_lib(void) {
  tr_error error;
  cr_assert_eq(s3_lib_open(&lib, &error), TR_OK, "%s", error.message);
}

static void close_lib(void) { s3_lib_close(&lib); }

static s3_sign_input input_of(const char *method, const char *path, const char *query, const s3_header *headers,
                              size_t count, const char *hash) {
  return (s3_sign_input){.method = method,
                         .path = path,
                         .query = query,
                         .headers = headers,
                         .header_count = count,
                         .payload_hash = hash,
                         .region = "us-east-1",
                         .credentials = &example,
                         .stamp = stamp};
}

static void expect_signature(const s3_sign_input *input, const char *signature) {
  char authorization[S3_AUTHORIZATION_BYTES];
  tr_error error;
  cr_assert_eq(s3_sign(&lib, input, authorization, &error), TR_OK, "%s", error.message);
  const char *found = strstr(authorization, "Signature=");
  cr_assert_not_null(found);
  cr_expect_str_eq(found + strlen("Signature="), signature);
}

Test(sign, agrees_with_the_published_get_of_a_range, .init = open_lib, .fini = close_lib) {
  const s3_header headers[] = {{"host", "examplebucket.s3.amazonaws.com"},
                               {"range", "bytes=0-9"},
                               {"x-amz-content-sha256", empty_hash},
                               {"x-amz-date", stamp}};
  const s3_sign_input input = input_of("GET", "/test.txt", "", headers, 4, empty_hash);
  expect_signature(&input, "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41");
  char authorization[S3_AUTHORIZATION_BYTES];
  cr_assert_eq(s3_sign(&lib, &input, authorization, NULL), TR_OK);
  cr_expect_str_eq(authorization,
                   "AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request, "
                   "SignedHeaders=host;range;x-amz-content-sha256;x-amz-date, "
                   "Signature=f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41");
}

Test(sign, agrees_with_the_published_put, .init = open_lib, .fini = close_lib) {
  char hash[S3_HASH_HEX_BYTES], path[64];
  cr_assert_eq(s3_sign_sha256(&lib, "Welcome to Amazon S3.", 21, hash, NULL), TR_OK);
  cr_expect_str_eq(hash, "44ce7dd67c959e0d3524ffac1771dfbba87d2b6b4b4e99e42034a8b803f8b072");
  s3_text text = s3_text_in(path, sizeof path);
  s3_text_encode(&text, "/test$file.text", true);
  const s3_header headers[] = {{"date", "Fri, 24 May 2013 00:00:00 GMT"},
                               {"host", "examplebucket.s3.amazonaws.com"},
                               {"x-amz-content-sha256", hash},
                               {"x-amz-date", stamp},
                               {"x-amz-storage-class", "REDUCED_REDUNDANCY"}};
  const s3_sign_input input = input_of("PUT", path, "", headers, 5, hash);
  expect_signature(&input, "98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd");
}

Test(sign, agrees_with_the_published_question_without_a_value, .init = open_lib, .fini = close_lib) {
  const s3_header headers[] = {
      {"host", "examplebucket.s3.amazonaws.com"}, {"x-amz-content-sha256", empty_hash}, {"x-amz-date", stamp}};
  const s3_sign_input input = input_of("GET", "/", "lifecycle=", headers, 3, empty_hash);
  expect_signature(&input, "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543");
}

Test(sign, agrees_with_the_published_listing, .init = open_lib, .fini = close_lib) {
  const s3_header headers[] = {
      {"host", "examplebucket.s3.amazonaws.com"}, {"x-amz-content-sha256", empty_hash}, {"x-amz-date", stamp}};
  const s3_sign_input input = input_of("GET", "/", "max-keys=2&prefix=J", headers, 3, empty_hash);
  expect_signature(&input, "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7");
}

Test(sign, agrees_with_the_published_presigned_url, .init = open_lib, .fini = close_lib) {
  char query[2048];
  const s3_header host = {"host", "examplebucket.s3.amazonaws.com"};
  const s3_sign_input input = input_of("GET", "/test.txt", "", &host, 1, S3_UNSIGNED_PAYLOAD);
  cr_assert_eq(s3_sign_query(&lib, &input, 86400, query, sizeof query, NULL), TR_OK);
  cr_expect_str_eq(query,
                   "X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=AKIAIOSFODNN7EXAMPLE%2F20130524%2Fus-east-1%2Fs3"
                   "%2Faws4_request&X-Amz-Date=20130524T000000Z&X-Amz-Expires=86400&X-Amz-SignedHeaders=host"
                   "&X-Amz-Signature=aeeed9bbccd4d02ee5c0109b86d86835f995330da4c265957d157751f604d404");
}

Test(sign, puts_a_session_token_into_a_url_and_signs_it, .init = open_lib, .fini = close_lib) {
  char with[4096], other[4096];
  tr_s3_credentials credentials = example;
  const s3_header host = {"host", "b.example"};
  s3_sign_input input = input_of("GET", "/k", "", &host, 1, S3_UNSIGNED_PAYLOAD);
  input.credentials = &credentials;
  strcpy(credentials.session_token, "a/b+c=");
  cr_assert_eq(s3_sign_query(&lib, &input, 60, with, sizeof with, NULL), TR_OK);
  cr_expect_not_null(strstr(with, "&X-Amz-Security-Token=a%2Fb%2Bc%3D&X-Amz-SignedHeaders=host&"), "%s", with);
  strcpy(credentials.session_token, "a/b+d=");
  cr_assert_eq(s3_sign_query(&lib, &input, 60, other, sizeof other, NULL), TR_OK);
  cr_expect_str_neq(strstr(with, "Signature="), strstr(other, "Signature="));
}

Test(sign, encodes_each_byte_once_and_normalises_nothing) {
  static const struct {
    const char *plain, *path, *query;
  } cases[] = {
      {"a b", "a%20b", "a%20b"},
      {"a+b", "a%2Bb", "a%2Bb"},
      {"a%20b", "a%2520b", "a%2520b"},
      {"\xc3\xa4/\xe6\x97\xa5", "%C3%A4/%E6%97%A5", "%C3%A4%2F%E6%97%A5"},
      {"a//b/../c/", "a//b/../c/", "a%2F%2Fb%2F..%2Fc%2F"},
      {"-._~", "-._~", "-._~"},
      {"&=?#:@$,;!*'()", "%26%3D%3F%23%3A%40%24%2C%3B%21%2A%27%28%29", "%26%3D%3F%23%3A%40%24%2C%3B%21%2A%27%28%29"},
      {"\x01\x7f\xff", "%01%7F%FF", "%01%7F%FF"}};
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    char path[256], query[256], back[256];
    s3_text text = s3_text_in(path, sizeof path);
    s3_text_encode(&text, cases[i].plain, true);
    cr_expect_str_eq(path, cases[i].path);
    text = s3_text_in(query, sizeof query);
    s3_text_encode(&text, cases[i].plain, false);
    cr_expect_str_eq(query, cases[i].query);
    cr_assert(s3_text_decode(query, back, sizeof back));
    cr_expect_str_eq(back, cases[i].plain);
  }
}

Test(sign, refuses_what_does_not_fit_instead_of_cutting_it, .init = open_lib, .fini = close_lib) {
  char small[64], authorization[S3_AUTHORIZATION_BYTES];
  static char path[S3_CANONICAL_BYTES + 1];
  const s3_header host = {"host", "b.example"};
  memset(path, 'k', sizeof path - 1);
  path[0] = '/';
  s3_sign_input input = input_of("GET", "/k", "", &host, 1, S3_UNSIGNED_PAYLOAD);
  cr_expect_eq(s3_sign_query(&lib, &input, 60, small, sizeof small, NULL), TR_ERR_INVALID);
  input.path = path;
  cr_expect_eq(s3_sign(&lib, &input, authorization, NULL), TR_ERR_INVALID);
}

Test(sign, writes_times_as_the_server_reads_them) {
  char text[S3_STAMP_BYTES];
  s3_sign_stamp(INT64_C(1369353600000000000), text);
  cr_expect_str_eq(text, stamp);
  s3_sign_stamp(INT64_C(1369353600999999999), text);
  cr_expect_str_eq(text, stamp);
  s3_sign_stamp(0, text);
  cr_expect_str_eq(text, "19700101T000000Z");
}

Test(sign, writes_and_reads_checksums_as_s3_does) {
  char text[9];
  uint32_t crc = 0;
  s3_text_crc(tr_crc32c(0, "123456789", 9), text);
  cr_expect_str_eq(text, "4waSgw==");
  cr_assert(s3_text_read_crc(text, 8, &crc));
  cr_expect_eq(crc, 0xE3069283u);
  for (uint32_t i = 0; i < 70000; i += 7) {
    const uint32_t value = i * 2654435761u;
    s3_text_crc(value, text);
    cr_assert(s3_text_read_crc(text, 8, &crc));
    cr_assert_eq(crc, value);
  }
  cr_expect_not(s3_text_read_crc("4waSgw==-3", 10, &crc), "of an object of parts");
  cr_expect_not(s3_text_read_crc("4wa?gw==", 8, &crc));
  cr_expect_not(s3_text_read_crc("", 0, &crc));
}
