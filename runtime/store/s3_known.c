/* What is known of objects seen lately: a head or a put tells the checksum of the whole, and a read of the same version is
 * checked against it. A read by range gets none from the server. */
#include "s3_private.h"

static uint64_t name_of(const char *key, const char *etag) {
  const uint64_t name = tr_hash_name(key) * UINT64_C(0x9E3779B97F4A7C15) ^ tr_hash_name(etag);
  return name != 0 ? name : 1;
}

void s3_known_add(s3_store *store, const char *key, const tr_object_info *info, uint32_t crc) {
  if (info->etag[0] == '\0') return;
  uint64_t bytes = 0;
  uint32_t known = 0;
  if (s3_known_find(store, key, info->etag, &bytes, &known)) return;
  store->known[store->known_next] = (s3_known_object){
      .name = name_of(key, info->etag), .bytes = info->bytes, .crc = crc};
  store->known_next = (store->known_next + 1) % S3_KNOWN_OBJECTS;
}

bool s3_known_find(const s3_store *store, const char *key, const char *etag, uint64_t *bytes, uint32_t *crc) {
  const uint64_t name = name_of(key, etag);
  for (int i = 0; i < S3_KNOWN_OBJECTS; i++) {
    if (store->known[i].name != name) continue;
    *bytes = store->known[i].bytes;
    *crc = store->known[i].crc;
    return true;
  }
  return false;
}
