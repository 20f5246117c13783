/* Objects written in parts: an upload is the server's, we keep the numbers, ETags and checksums of its parts, which the
 * commit names. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "s3_private.h"
#include "s3_text.h"
#include "store_key.h"

enum { ANSWER_BYTES = 64 << 10, UPLOADS_ANSWER_BYTES = 16 << 20, PARTS_MAX = 10000, SWEEP_PAGES = 1000 };

typedef struct part {
  uint32_t number, crc;
  uint64_t offset, bytes;
  char etag[TR_ETAG_BYTES];
} part;

typedef struct upload {
  char *key;
  char id[S3_UPLOAD_ID_BYTES];

  /* Under `lock`: the engine notes parts while others may look. */
  pthread_mutex_t lock;
  part *parts;
  size_t count, capacity;
} upload;

static void upload_free(s3_store *store, upload *freed) {
  pthread_mutex_destroy(&freed->lock);
  tr_free(store->allocator, freed->parts);
  tr_free(store->allocator, freed->key);
  tr_free(store->allocator, freed);
}

tr_status s3_upload_begin(void *self, const char *key, void **out, tr_error *error) {
  s3_store *store = self;
  TR_TRY(tr_store_key_check(key, error));
  upload *made = tr_calloc(store->allocator, 1, sizeof *made);
  if (made == NULL) return tr_fail_memory(error, "an upload", sizeof *made);
  pthread_mutex_init(&made->lock, NULL);
  made->key = tr_strdup(store->allocator, key);
  tr_status status = made->key != NULL ? TR_OK : tr_fail_memory(error, "an upload", strlen(key));
  if (status == TR_OK) {
    s3_ask ask = {.limit_bytes = ANSWER_BYTES};
    ask.call = (s3_call){.method = S3_POST, .key = made->key, .query = "uploads=", .begins_upload = true};
    status = s3_ask_run(store, &ask, error);
    if (status == TR_OK && (!s3_answer_member(ask.answer, ask.answer_bytes, "InitiateMultipartUploadResult", "UploadId",
                                              made->id, sizeof made->id) ||
                            made->id[0] == '\0')) {
      status = tr_fail(error, TR_ERR_CORRUPT, "s3: the answer to an upload of '%s' has no UploadId", key);
    }
    s3_ask_fini(store, &ask);
  }
  if (status != TR_OK) {
    upload_free(store, made);
    return status;
  }
  *out = made;
  return TR_OK;
}

/* ---- Parts --------------------------------------------------------------------------------------------------------- */

tr_status s3_upload_call(const tr_store_request *request, s3_call *call, char query[S3_PART_QUERY_BYTES],
                         tr_error *error) {
  const upload *of = request->upload;
  if (request->part > PARTS_MAX) {
    return tr_fail(error, TR_ERR_INVALID, "upload of '%s': part %u: S3 has parts 1 to %d; make them larger", of->key,
                   (unsigned)request->part, (int)PARTS_MAX);
  }
  s3_text text = s3_text_in(query, S3_PART_QUERY_BYTES);
  s3_text_addf(&text, "partNumber=%u&uploadId=", (unsigned)request->part);
  s3_text_encode(&text, of->id, false);
  call->key = of->key;
  call->query = query;
  return TR_OK;
}

/* A part that is sent again takes the place of the first. */
tr_status s3_upload_note(s3_store *store, const tr_store_request *request, uint32_t crc, const char *etag,
                         tr_error *error) {
  upload *of = request->upload;
  part noted = {.number = request->part, .crc = crc, .offset = request->offset, .bytes = request->data_bytes};
  if (etag[0] == '\0') {
    return tr_fail(error, TR_ERR_STORE, "upload of '%s': the server gave part %u no ETag", of->key,
                   (unsigned)request->part);
  }
  snprintf(noted.etag, sizeof noted.etag, "%s", etag);
  pthread_mutex_lock(&of->lock);
  size_t i = 0;
  while (i < of->count && of->parts[i].number != noted.number) i++;
  tr_status status = TR_OK;
  if (i == of->count) {
    status = tr_reserve(store->allocator, (void **)&of->parts, &of->capacity, i + 1, sizeof noted, error);
  }
  if (status == TR_OK) {
    of->parts[i] = noted;
    if (i == of->count) of->count++;
  }
  pthread_mutex_unlock(&of->lock);
  return status;
}

/* ---- The end of an upload ------------------------------------------------------------------------------------------ */

static tr_status abort_by_id(s3_store *store, const char *key, const char *id, tr_error *error) {
  s3_ask ask = {.limit_bytes = ANSWER_BYTES, .brief = true};
  s3_text text = s3_text_in(ask.query, sizeof ask.query);
  s3_text_addf(&text, "uploadId=");
  s3_text_encode(&text, id, false);
  ask.call = (s3_call){.method = S3_DELETE, .key = key, .query = ask.query};
  tr_status status = s3_ask_run(store, &ask, error);
  if (status != TR_OK && ask.http == 404 && strcmp(ask.refusal.code, "NoSuchBucket") != 0) status = TR_OK;
  s3_ask_fini(store, &ask);
  return status;
}

void s3_upload_abort(void *self, void *handle) {
  if (handle == NULL) return;
  s3_store *store = self;
  upload *ended = handle;
  tr_error error;
  if (abort_by_id(store, ended->key, ended->id, &error) != TR_OK) {
    tr_logf(store->log, TR_LOG_WARNING, "an upload of '%s' is left over: %s", ended->key, error.message);
  }
  upload_free(store, ended);
}

static int by_number(const void *a, const void *b) {
  const uint32_t x = ((const part *)a)->number, y = ((const part *)b)->number;
  return x < y ? -1 : x > y;
}

static tr_status check_parts(upload *of, uint64_t *bytes, tr_error *error) {
  if (of->count > 0) qsort(of->parts, of->count, sizeof *of->parts, by_number);
  uint64_t end = 0;
  for (size_t i = 0; i < of->count; i++) {
    if (of->parts[i].number != i + 1 || of->parts[i].offset != end) {
      return tr_fail(error, TR_ERR_INVALID, "upload of %s: part %zu is missing or does not begin at byte %llu", of->key,
                     i + 1, (unsigned long long)end);
    }
    end += of->parts[i].bytes;
  }
  *bytes = end;
  return TR_OK;
}

static void write_etag(tr_writer *out, const char *etag) {
  tr_write_text(out, "<ETag>&quot;");
  for (; *etag != '\0'; etag++) {
    if (*etag == '&' || *etag == '<' || *etag == '>') {
      tr_write_text(out, "&#%d;", *etag);
    } else {
      tr_write_u8(out, (uint8_t)*etag);
    }
  }
  tr_write_text(out, "&quot;</ETag>");
}

static void write_commit(const upload *of, tr_writer *out) {
  char crc[9];
  tr_write_text(out, "<CompleteMultipartUpload xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">");
  for (size_t i = 0; i < of->count; i++) {
    s3_text_crc(of->parts[i].crc, crc);
    tr_write_text(out, "<Part><PartNumber>%u</PartNumber>", (unsigned)of->parts[i].number);
    write_etag(out, of->parts[i].etag);
    tr_write_text(out, "<ChecksumCRC32C>%s</ChecksumCRC32C></Part>", crc);
  }
  tr_write_text(out, "</CompleteMultipartUpload>");
}

/* S3's checksum of an object of parts: that of the parts' checksums, big-endian, and their number. */
static void composite_crc(const upload *of, char text[32]) {
  uint32_t crc = 0;
  char base64[9];
  for (size_t i = 0; i < of->count; i++) {
    const uint32_t one = of->parts[i].crc;
    const uint8_t bytes[4] = {(uint8_t)(one >> 24), (uint8_t)(one >> 16), (uint8_t)(one >> 8), (uint8_t)one};
    crc = tr_crc32c(crc, bytes, sizeof bytes);
  }
  s3_text_crc(crc, base64);
  snprintf(text, 32, "%s-%zu", base64, of->count);
}

static bool read_hex(const char *text, uint8_t bytes[16]) {
  for (int i = 0; i < 16; i++) {
    unsigned value = 0;
    if (sscanf(text + 2 * i, "%2x", &value) != 1) return false;
    bytes[i] = (uint8_t)value;
  }
  return text[32] == '\0';
}

/* Where the server keeps no checksum: the ETag of an object of parts, by the same rule over MD5. */
static bool composite_etag(const s3_store *store, const upload *of, char etag[TR_ETAG_BYTES]) {
  uint8_t *all = tr_alloc(store->allocator, of->count * 16), hash[16];
  size_t bytes = 0;
  bool good = all != NULL;
  for (size_t i = 0; good && i < of->count; i++) {
    good = strlen(of->parts[i].etag) == 32 && read_hex(of->parts[i].etag, all + 16 * i);
  }
  good = good && store->lib.EVP_Q_digest(NULL, "MD5", NULL, all, of->count * 16, hash, &bytes) == 1;
  tr_free(store->allocator, all);
  if (!good) return false;
  char hex[33];
  s3_text_hex(hash, sizeof hash, hex);
  snprintf(etag, TR_ETAG_BYTES, "%s-%zu", hex, of->count);
  return true;
}

/* Whether what stands under the key is what this upload wrote: its commit was carried out and the answer lost. */
static bool is_ours(s3_store *store, const upload *of, uint64_t bytes) {
  s3_ask ask = {.limit_bytes = ANSWER_BYTES, .call = {.method = S3_HEAD, .key = of->key}};
  char crc[32], etag[TR_ETAG_BYTES];
  const tr_status status = s3_ask_run(store, &ask, NULL);
  s3_ask_fini(store, &ask);
  if (status != TR_OK || ask.info.bytes != bytes) return false;
  composite_crc(of, crc);
  if (ask.composite[0] != '\0') return strcmp(ask.composite, crc) == 0;
  return composite_etag(store, of, etag) && strcmp(ask.info.etag, etag) == 0;
}

static tr_status send_commit(s3_store *store, upload *of, uint64_t bytes, bool if_absent, tr_error *error) {
  tr_writer body;
  tr_writer_init(&body, store->allocator);
  write_commit(of, &body);
  if (body.failed) {
    tr_writer_fini(&body);
    return tr_fail_memory(error, "a commit of many parts", of->count * 100);
  }
  s3_ask ask = {.limit_bytes = ANSWER_BYTES};
  s3_text text = s3_text_in(ask.query, sizeof ask.query);
  s3_text_addf(&text, "uploadId=");
  s3_text_encode(&text, of->id, false);
  ask.call = (s3_call){.method = S3_POST,
                       .key = of->key,
                       .query = ask.query,
                       .body = body.data,
                       .body_bytes = body.bytes,
                       .if_absent = if_absent};
  tr_status status = s3_ask_run(store, &ask, error);
  const bool gone = strcmp(ask.refusal.code, "NoSuchUpload") == 0;
  if (status != TR_OK && ask.repeated && (gone || status == TR_ERR_EXISTS) && is_ours(store, of, bytes)) {
    status = TR_OK;
  } else if (status != TR_OK && gone) {
    status = tr_fail(error, TR_ERR_STORE,
                     "upload of '%s': the server does not know it any more; was it aborted by others?", of->key);
  }
  s3_ask_fini(store, &ask);
  tr_writer_fini(&body);
  return status;
}

tr_status s3_upload_commit(void *self, void *handle, bool if_absent, tr_error *error) {
  s3_store *store = self;
  upload *of = handle;
  uint64_t bytes = 0;
  tr_status status = check_parts(of, &bytes, error);
  if (status == TR_OK && of->count > 0) {
    status = send_commit(store, of, bytes, if_absent, error);
    if (status == TR_OK) {
      upload_free(store, of);
      return TR_OK;
    }
  } else if (status == TR_OK) {
    /* S3 has no upload without parts. */
    s3_ask ask = {.limit_bytes = ANSWER_BYTES};
    ask.call = (s3_call){.method = S3_PUT, .key = of->key, .has_crc = true, .if_absent = if_absent};
    status = s3_ask_run(store, &ask, error);
    s3_ask_fini(store, &ask);
  }
  s3_upload_abort(store, of);
  return status;
}

/* ---- What others left ---------------------------------------------------------------------------------------------- */

typedef struct sweep {
  s3_store *store;
  const char *prefix;
  size_t found;
} sweep;

static tr_status sweep_one(void *self, const char *key, const char *id, tr_error *error) {
  sweep *swept = self;
  if (strncmp(key, swept->prefix, strlen(swept->prefix)) != 0) return TR_OK;
  swept->found++;
  tr_logf(swept->store->log, TR_LOG_INFO, "aborting an upload of s3://%s/%s that was left over", swept->store->bucket,
          key);
  return abort_by_id(swept->store, key, id, error);
}

static tr_status sweep_pages(sweep *swept, const char *listed_prefix, tr_error *error) {
  s3_uploads_answer page = {.truncated = true};
  for (int pages = 0; page.truncated && pages < SWEEP_PAGES; pages++) {
    s3_ask ask = {.limit_bytes = UPLOADS_ANSWER_BYTES};
    s3_text query = s3_text_in(ask.query, sizeof ask.query);
    s3_text_addf(&query, "encoding-type=url&");
    if (page.key_marker[0] != '\0') {
      s3_text_addf(&query, "key-marker=");
      s3_text_encode(&query, page.key_marker, false);
      s3_text_addf(&query, "&");
    }
    s3_text_addf(&query, "prefix=");
    s3_text_encode(&query, listed_prefix, false);
    if (page.upload_marker[0] != '\0') {
      s3_text_addf(&query, "&upload-id-marker=");
      s3_text_encode(&query, page.upload_marker, false);
    }
    s3_text_addf(&query, "&uploads=");
    ask.call = (s3_call){.method = S3_GET, .query = ask.query};
    tr_status status = query.cut ? tr_fail(error, TR_ERR_INVALID, "s3: a prefix is too long")
                                 : s3_ask_run(swept->store, &ask, error);
    if (status == TR_OK) {
      status = s3_answer_uploads(ask.answer, ask.answer_bytes, sweep_one, swept, &page, error);
    }
    s3_ask_fini(swept->store, &ask);
    TR_TRY(status);
    if (page.key_marker[0] == '\0') break;
  }
  return TR_OK;
}

tr_status s3_upload_sweep(void *self, const char *prefix, tr_error *error) {
  sweep swept = {.store = self, .prefix = prefix};
  TR_TRY(sweep_pages(&swept, prefix, error));
  /* MinIO takes the prefix for a whole key, and lists them all only without one. */
  if (swept.found == 0 && prefix[0] != '\0') return sweep_pages(&swept, "", error);
  return TR_OK;
}
