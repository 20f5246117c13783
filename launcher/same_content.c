/* Comparing two objects: see same_content.h. */
#include "same_content.h"

#include <openssl/evp.h>
#include <stdio.h>
#include <string.h>

enum { MIB = 1 << 20, DIGEST_BYTES = 16 };

/* "<32 hex>" or "<32 hex>-<parts>". */
static bool is_md5(const char *etag, uint64_t *parts) {
  *parts = 0;
  return strspn(etag, "0123456789abcdef") == 2 * DIGEST_BYTES &&
         (etag[2 * DIGEST_BYTES] == '\0' ||
          (etag[2 * DIGEST_BYTES] == '-' && tr_parse_u64(etag + 2 * DIGEST_BYTES + 1, parts)));
}

/* How large the parts were: this command's own, or what other tools take, whichever makes so many. */
static uint64_t guess_part(uint64_t bytes, uint64_t parts, size_t own) {
  const uint64_t sizes[] = {own, 8 * MIB, 16 * MIB, 5 * MIB, 10 * MIB, 15 * MIB, 50 * MIB, 64 * MIB, 100 * MIB};
  for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
    if ((bytes + sizes[i] - 1) / sizes[i] == parts) return sizes[i];
  }
  return 0;
}

typedef struct sums {
  EVP_MD_CTX *part, *whole; /* whole: of the parts' digests */
  uint64_t part_bytes;      /* 0: one part */
} sums;

/* Bytes into the part at hand; ends it where it is full. */
static void add(sums *s, uint64_t offset, const uint8_t *data, size_t bytes) {
  while (bytes > 0) {
    const uint64_t left = s->part_bytes > 0 ? s->part_bytes - offset % s->part_bytes : bytes;
    const size_t now = bytes < left ? bytes : (size_t)left;
    EVP_DigestUpdate(s->part, data, now);
    offset += now;
    data += now;
    bytes -= now;
    if (s->part_bytes > 0 && offset % s->part_bytes == 0) {
      uint8_t digest[EVP_MAX_MD_SIZE];
      EVP_DigestFinal_ex(s->part, digest, NULL);
      EVP_DigestUpdate(s->whole, digest, DIGEST_BYTES);
      EVP_DigestInit_ex(s->part, EVP_md5(), NULL);
    }
  }
}

static void finish(sums *s, uint64_t bytes, char text[2 * DIGEST_BYTES + 1]) {
  uint8_t digest[EVP_MAX_MD_SIZE];
  EVP_DigestFinal_ex(s->part, digest, NULL);
  if (s->part_bytes > 0) {
    if (bytes % s->part_bytes != 0) EVP_DigestUpdate(s->whole, digest, DIGEST_BYTES);
    EVP_DigestFinal_ex(s->whole, digest, NULL);
  }
  for (size_t i = 0; i < DIGEST_BYTES; i++) snprintf(text + 2 * i, 3, "%02x", digest[i]);
}

static tr_status digest_of(tr_store *store, const char *key, uint64_t bytes, uint64_t part_bytes, void *buffer,
                           size_t buffer_bytes, char text[2 * DIGEST_BYTES + 1], tr_error *error) {
  sums s = {.part = EVP_MD_CTX_new(), .whole = EVP_MD_CTX_new(), .part_bytes = part_bytes};
  tr_status status = TR_OK;
  if (s.part == NULL || s.whole == NULL || EVP_DigestInit_ex(s.part, EVP_md5(), NULL) != 1 ||
      EVP_DigestInit_ex(s.whole, EVP_md5(), NULL) != 1) {
    status = tr_fail(error, TR_ERR_UNAVAILABLE, "OpenSSL computes no MD5 here; --force copies without comparing");
  }
  for (uint64_t offset = 0; status == TR_OK && offset < bytes;) {
    size_t got = 0;
    status = tr_store_get(store, key, offset, buffer, buffer_bytes, &got, error);
    if (status == TR_OK && got == 0) status = tr_fail(error, TR_ERR_CHANGED, "%s became shorter", key);
    if (status == TR_OK) add(&s, offset, buffer, got);
    offset += got;
  }
  if (status == TR_OK) finish(&s, bytes, text);
  EVP_MD_CTX_free(s.part);
  EVP_MD_CTX_free(s.whole);
  return status;
}

static tr_status crc_of(tr_store *store, const char *key, uint64_t bytes, void *buffer, size_t buffer_bytes,
                        uint32_t *crc32c, tr_error *error) {
  *crc32c = 0;
  for (uint64_t offset = 0; offset < bytes;) {
    size_t got = 0;
    TR_TRY(tr_store_get(store, key, offset, buffer, buffer_bytes, &got, error));
    if (got == 0) return tr_fail(error, TR_ERR_CHANGED, "%s became shorter", key);
    *crc32c = tr_crc32c(*crc32c, buffer, got);
    offset += got;
  }
  return TR_OK;
}

/* What tr_object_info.crc32c would be of the source. */
static tr_status crc_text_of(tr_store *from, const char *key, uint64_t bytes, uint64_t part_bytes, void *buffer,
                             size_t buffer_bytes, char text[32], tr_error *error) {
  uint32_t part = 0, whole = 0;
  uint64_t parts = 0;
  for (uint64_t offset = 0; offset < bytes;) {
    const uint64_t left = part_bytes > 0 ? part_bytes - offset % part_bytes : buffer_bytes;
    size_t got = 0;
    TR_TRY(tr_store_get(from, key, offset, buffer, left < buffer_bytes ? (size_t)left : buffer_bytes, &got, error));
    if (got == 0) return tr_fail(error, TR_ERR_CHANGED, "%s became shorter", key);
    part = tr_crc32c(part, buffer, got);
    offset += got;
    if (part_bytes == 0 || (offset % part_bytes != 0 && offset < bytes)) continue;
    const uint8_t digits[] = {(uint8_t)(part >> 24), (uint8_t)(part >> 16), (uint8_t)(part >> 8), (uint8_t)part};
    whole = tr_crc32c(whole, digits, sizeof digits);
    part = 0;
    parts++;
  }
  part_bytes > 0 ? snprintf(text, 32, "%08x-%llu", whole, (unsigned long long)parts) : snprintf(text, 32, "%08x", part);
  return TR_OK;
}

tr_status same_content(tr_store *from, const char *from_key, tr_store *to, const char *to_key,
                       const tr_object_info *info, void *buffer, size_t part_bytes, bool *same, tr_error *error) {
  uint64_t parts = 0;
  const char *dash = strchr(info->crc32c, '-');
  if (info->crc32c[0] != '\0' && (dash == NULL || tr_parse_u64(dash + 1, &parts))) {
    const uint64_t cut = dash != NULL ? guess_part(info->bytes, parts, part_bytes) : 0;
    char text[32];
    if (dash == NULL || cut > 0) {
      TR_TRY(crc_text_of(from, from_key, info->bytes, cut, buffer, part_bytes, text, error));
      *same = strcmp(text, info->crc32c) == 0;
      return TR_OK;
    }
  }
  if (is_md5(info->etag, &parts)) {
    const uint64_t cut = parts > 0 ? guess_part(info->bytes, parts, part_bytes) : 0;
    char text[2 * DIGEST_BYTES + 1];
    if (parts == 0 || cut > 0) {
      TR_TRY(digest_of(from, from_key, info->bytes, cut, buffer, part_bytes, text, error));
      *same = memcmp(text, info->etag, 2 * DIGEST_BYTES) == 0;
      return TR_OK;
    }
  }
  uint32_t ours, theirs;
  TR_TRY(crc_of(from, from_key, info->bytes, buffer, part_bytes, &ours, error));
  TR_TRY(crc_of(to, to_key, info->bytes, buffer, part_bytes, &theirs, error));
  *same = ours == theirs;
  return TR_OK;
}
