/* One HTTP exchange: from a call to libcurl's options, and what its callbacks get. */
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "s3_copy.h"
#include "s3_private.h"
#include "s3_text.h"

/* Of the receive buffer 64 to 512 KiB were measured over loopback: 256 costs a fifth less processor than 64, 512 gains no
 * more. Parts of a megabyte and more are copied past the caches. */
enum { RECEIVE_BYTES = 256 << 10, SEND_BYTES = 512 << 10, LARGE_BYTES = 1 << 20 };

static const char *const method_names[] = {"GET", "HEAD", "PUT", "DELETE", "POST"};

/* The phases but the first ask about the same key in another way. */
static s3_method method_now(const s3_slot *slot) {
  if (slot->phase == S3_PHASE_MAIN) return slot->call.method;
  return slot->phase == S3_PHASE_WHY ? S3_GET : S3_HEAD;
}

static bool is_ranged_now(const s3_slot *slot) { return slot->phase == S3_PHASE_MAIN && slot->call.ranged; }

static bool is_success(const s3_reply *reply) { return reply->http >= 200 && reply->http < 300; }

/* ---- What comes back ----------------------------------------------------------------------------------------------- */

static void touch(s3_slot *slot) {
  slot->last_byte_ns = s3_now(slot->store);
  if (slot->first_byte_ns == 0) slot->first_byte_ns = slot->last_byte_ns;
}

/* The answers of a question grow in memory of its own, up to its limit. */
static size_t take_answer(s3_slot *slot, const char *data, size_t bytes) {
  s3_ask *ask = slot->job->request->user;
  if (bytes > ask->limit_bytes - ask->answer_bytes) {
    slot->refusal = S3_REFUSAL_TOO_LARGE;
    return 0;
  }
  if (tr_reserve(slot->store->allocator, (void **)&ask->answer, &ask->answer_capacity, ask->answer_bytes + bytes + 1, 1,
                 NULL) != TR_OK) {
    slot->refusal = S3_REFUSAL_NO_MEMORY;
    return 0;
  }
  memcpy(ask->answer + ask->answer_bytes, data, bytes);
  ask->answer_bytes += bytes;
  ask->answer[ask->answer_bytes] = '\0';
  return bytes;
}

/* Straight from libcurl's buffer to where the caller wants it: the one copy, and the checksum while it is in cache. */
static size_t take_part(s3_slot *slot, const char *data, size_t bytes) {
  if (!slot->head_seen) {
    slot->refusal = s3_job_check_head(slot);
    if (slot->refusal != S3_REFUSAL_NONE) return 0;
    slot->head_seen = true;
  }
  if (slot->twin != NULL) slot->twin->refusal = S3_REFUSAL_CUT;
  if (slot->job->request->first_byte_ns == 0) slot->job->request->first_byte_ns = slot->last_byte_ns;
  if (bytes > slot->expected_bytes - slot->done_bytes) {
    slot->refusal = S3_REFUSAL_TOO_MUCH;
    return 0;
  }
  if (slot->job->request->offset == 0) slot->crc = tr_crc32c(slot->crc, data, bytes);
  if (slot->expected_bytes >= LARGE_BYTES) {
    s3_copy_past_cache(slot->into + slot->done_bytes, data, bytes);
  } else {
    memcpy(slot->into + slot->done_bytes, data, bytes);
  }
  slot->done_bytes += bytes;
  return bytes;
}

static size_t on_body(char *data, size_t size, size_t count, void *user) {
  s3_slot *slot = user;
  const size_t bytes = size * count;
  if (slot->refusal != S3_REFUSAL_NONE) return 0;
  touch(slot);
  slot->store->bytes_read += bytes;
  if (is_success(&slot->reply) && is_ranged_now(slot)) return take_part(slot, data, bytes);
  if (is_success(&slot->reply) && slot->phase == S3_PHASE_MAIN && slot->job->request->verb == S3_ASK) {
    return take_answer(slot, data, bytes);
  }
  /* An error: its beginning is enough. */
  s3_reply *reply = &slot->reply;
  const size_t kept = bytes < S3_BODY_BYTES - reply->body_bytes ? bytes : S3_BODY_BYTES - reply->body_bytes;
  memcpy(reply->body + reply->body_bytes, data, kept);
  reply->body_bytes += kept;
  return bytes;
}

/* "name: value\r\n" where the name is the wanted one: its value without blanks around it. */
static bool header_is(const char *line, size_t bytes, const char *name, char *value, size_t capacity) {
  const size_t name_bytes = strlen(name);
  if (bytes <= name_bytes || line[name_bytes] != ':' || strncasecmp(line, name, name_bytes) != 0) return false;
  const char *at = line + name_bytes + 1, *end = line + bytes;
  while (at < end && (*at == ' ' || *at == '\t')) at++;
  while (end > at && (unsigned char)end[-1] <= ' ') end--;
  if ((size_t)(end - at) >= capacity) return false;
  memcpy(value, at, (size_t)(end - at));
  value[end - at] = '\0';
  return true;
}

static void read_range_header(s3_reply *reply, const char *value) {
  unsigned long long begin = 0, last = 0, total = 0;
  if (sscanf(value, "bytes %llu-%llu/%llu", &begin, &last, &total) != 3) return;
  if (last < begin || last >= total) return;
  reply->has_range = true;
  reply->range_begin = begin;
  reply->range_end = last + 1;
  reply->total = total;
}

static int64_t read_date(const s3_store *store, const char *value) {
  const time_t seconds = store->lib.getdate(value, NULL);
  return seconds > 0 && seconds < INT64_MAX / 1000000000 ? (int64_t)seconds * 1000000000 : 0;
}

static uint64_t read_retry_after(const s3_store *store, const char *value) {
  uint64_t seconds = 0;
  if (tr_parse_u64(value, &seconds)) return seconds < 3600 ? seconds * 1000000000 : S3_RETRY_CAP_NS;
  const int64_t until = read_date(store, value) - tr_clock_wall_ns(store->clock);
  return until > 0 ? (uint64_t)until : 0;
}

/* Base64, for an object of parts with "-N" behind it, as tr_object_info has it. */
static void write_crc(const char *value, char text[20]) {
  const size_t length = strcspn(value, "-");
  uint32_t crc;
  uint64_t parts;
  if (!s3_text_read_crc(value, length, &crc)) return;
  if (value[length] == '\0') {
    snprintf(text, 20, "%08x", crc);
  } else if (tr_parse_u64(value + length + 1, &parts) && parts > 0 && parts < 1000000) {
    snprintf(text, 20, "%08x-%u", crc, (unsigned)parts);
  }
}

static void read_header(s3_slot *slot, const char *line, size_t bytes) {
  s3_reply *reply = &slot->reply;
  char value[256];
  if (header_is(line, bytes, "etag", value, sizeof value)) {
    s3_answer_etag(value, strlen(value), reply->info.etag);
  } else if (header_is(line, bytes, "content-length", value, sizeof value)) {
    reply->has_length = tr_parse_u64(value, &reply->length);
  } else if (header_is(line, bytes, "content-range", value, sizeof value)) {
    read_range_header(reply, value);
  } else if (header_is(line, bytes, "last-modified", value, sizeof value)) {
    reply->info.modified_ns = read_date(slot->store, value);
  } else if (header_is(line, bytes, "date", value, sizeof value)) {
    reply->date_ns = read_date(slot->store, value);
  } else if (header_is(line, bytes, "retry-after", value, sizeof value)) {
    reply->retry_after_ns = read_retry_after(slot->store, value);
  } else if (header_is(line, bytes, "x-amz-retry-after", value, sizeof value)) {
    uint64_t milliseconds = 0;
    if (tr_parse_u64(value, &milliseconds) && milliseconds < 3600000)
      reply->retry_after_ns = milliseconds * UINT64_C(1000000);
  } else if (header_is(line, bytes, "x-amz-checksum-crc32c", value, sizeof value)) {
    reply->has_crc = s3_text_read_crc(value, strlen(value), &reply->crc);
    if (!reply->has_crc && strlen(value) < sizeof reply->composite) strcpy(reply->composite, value);
    write_crc(value, reply->info.crc32c);
  } else if (header_is(line, bytes, "x-amz-bucket-region", value, sizeof reply->region)) {
    strcpy(reply->region, value);
  } else if (header_is(line, bytes, "location", value, sizeof reply->location)) {
    strcpy(reply->location, value);
  }
}

static size_t on_header(char *line, size_t size, size_t count, void *user) {
  s3_slot *slot = user;
  const size_t bytes = size * count;
  /* Of a read the first byte of the object counts, of everything else that of the answer. */
  if (is_ranged_now(slot)) {
    slot->last_byte_ns = s3_now(slot->store);
  } else {
    touch(slot);
  }
  if (bytes > 5 && memcmp(line, "HTTP/", 5) == 0) {
    /* The last answer counts: a 100 may come before it. */
    const char *space = memchr(line, ' ', bytes);
    const size_t kept = slot->reply.body_bytes;
    slot->reply = (s3_reply){.body_bytes = kept};
    if (space != NULL && line + bytes - space > 3) {
      slot->reply.http = (space[1] - '0') * 100 + (space[2] - '0') * 10 + (space[3] - '0');
    }
    return bytes;
  }
  read_header(slot, line, bytes);
  return bytes;
}

static size_t on_send(char *buffer, size_t size, size_t count, void *user) {
  s3_slot *slot = user;
  const size_t left = slot->call.body_bytes - slot->sent_bytes, room = size * count;
  const size_t bytes = left < room ? left : room;
  if (bytes > 0) memcpy(buffer, (const char *)slot->call.body + slot->sent_bytes, bytes);
  slot->sent_bytes += bytes;
  slot->last_byte_ns = s3_now(slot->store);
  return bytes;
}

/* libcurl begins again on a new connection when an idle one turns out to be closed. */
static int on_seek(void *user, curl_off_t offset, int origin) {
  s3_slot *slot = user;
  if (origin != SEEK_SET || offset < 0 || (uint64_t)offset > slot->call.body_bytes) return CURL_SEEKFUNC_FAIL;
  slot->sent_bytes = (size_t)offset;
  return CURL_SEEKFUNC_OK;
}

/* On a kept connection that turns out to be closed libcurl sends the request again by itself. Whether the server had taken
 * the first is not known. */
static int on_connected(void *user, char *ip, char *own_ip, int port, int own_port) {
  (void)ip, (void)own_ip, (void)port, (void)own_port;
  s3_slot *slot = user;
  if (slot->connected) slot->repeated = true;
  slot->connected = true;
  return CURL_PREREQFUNC_OK;
}

/* ---- What is sent -------------------------------------------------------------------------------------------------- */

typedef struct header_list {
  s3_header headers[S3_HEADER_LINES];
  size_t count;
} header_list;

static void add(header_list *list, const char *name, const char *value) {
  list->headers[list->count++] = (s3_header){.name = name, .value = value};
}

/* "/bucket/key", encoded */
static bool write_path(s3_slot *slot) {
  const s3_store *store = slot->store;
  s3_text path = s3_text_in(slot->path, sizeof slot->path);
  if (store->bucket_in_path) s3_text_addf(&path, "/%s", store->bucket);
  if (slot->call.key != NULL || path.bytes == 0) s3_text_addf(&path, "/");
  if (slot->call.key != NULL) s3_text_encode(&path, slot->call.key, true);
  s3_text url = s3_text_in(slot->url, sizeof slot->url);
  s3_text_addf(&url, "%s%s", store->base, slot->path);
  if (slot->call.query != NULL && slot->phase == S3_PHASE_MAIN) s3_text_addf(&url, "?%s", slot->call.query);
  return !path.cut && !url.cut;
}

/* The headers that are signed, sorted by name; values that are made up here lie in `memory`. */
static void list_headers(const s3_slot *slot, const tr_s3_credentials *credentials, const char *stamp, char crc[9],
                         char *if_match, size_t if_match_bytes, header_list *list) {
  const s3_method method = method_now(slot);
  const bool main = slot->phase == S3_PHASE_MAIN;
  add(list, "host", slot->store->host);
  if (slot->call.if_match[0] != '\0' && (main || slot->phase == S3_PHASE_SIZE)) {
    const bool weak = strncmp(slot->call.if_match, "W/", 2) == 0;
    snprintf(if_match, if_match_bytes, weak ? "%s" : "\"%s\"", slot->call.if_match);
    add(list, "if-match", if_match);
  }
  if (main && slot->call.if_absent) add(list, "if-none-match", "*");
  if (main && slot->call.begins_upload) add(list, "x-amz-checksum-algorithm", "CRC32C");
  if (main && slot->call.has_crc) {
    s3_text_crc(slot->call.crc, crc);
    add(list, "x-amz-checksum-crc32c", crc);
  }
  if (slot->call.key != NULL && (method == S3_GET || method == S3_HEAD)) add(list, "x-amz-checksum-mode", "ENABLED");
  if (!slot->store->sign) return;
  add(list, "x-amz-content-sha256", S3_UNSIGNED_PAYLOAD);
  add(list, "x-amz-date", stamp);
  if (credentials->session_token[0] != '\0') add(list, "x-amz-security-token", credentials->session_token);
}

/* Into the slot's own list, which libcurl only reads. */
static bool write_lines(s3_slot *slot, const header_list *list, const char *authorization) {
  s3_text text = s3_text_in(slot->header_text, sizeof slot->header_text);
  size_t count = 0;
  for (size_t i = 0; i < list->count; i++) {
    if (strcmp(list->headers[i].name, "host") == 0) continue; /* libcurl writes the same */
    slot->lines[count++].data = text.at + text.bytes;
    s3_text_addf(&text, "%s: %s", list->headers[i].name, list->headers[i].value);
    text.bytes++; /* keeps the NUL */
  }
  char range[64];
  if (is_ranged_now(slot)) {
    const uint64_t first = slot->call.offset + slot->done_bytes;
    snprintf(range, sizeof range, "range: bytes=%llu-%llu", (unsigned long long)first,
             (unsigned long long)(slot->call.offset + slot->call.wanted - 1));
  } else {
    snprintf(range, sizeof range, "range: bytes=0-0");
  }
  const char *const plain[] = {
      "expect:",
      method_now(slot) == S3_POST ? "content-type: application/xml" : NULL,
      is_ranged_now(slot) || slot->phase == S3_PHASE_WHY ? range : NULL,
      authorization,
  };
  for (size_t i = 0; i < sizeof plain / sizeof *plain; i++) {
    if (plain[i] == NULL) continue;
    slot->lines[count++].data = text.at + text.bytes;
    s3_text_addf(&text, plain[i] == authorization ? "authorization: %s" : "%s", plain[i]);
    text.bytes++;
  }
  for (size_t i = 0; i < count; i++) slot->lines[i].next = i + 1 < count ? &slot->lines[i + 1] : NULL;
  return !text.cut && text.bytes < text.capacity;
}

static tr_status write_request(s3_slot *slot, tr_error *error) {
  s3_store *store = slot->store;
  header_list list = {0};
  char stamp[S3_STAMP_BYTES], crc[9], if_match[TR_ETAG_BYTES + 3], authorization[S3_AUTHORIZATION_BYTES];
  if (!write_path(slot)) return tr_fail(error, TR_ERR_INVALID, "s3: the URL of '%s' is too long", slot->call.key);
  tr_s3_credentials credentials = {0};
  s3_sign_stamp(tr_clock_wall_ns(store->clock) + store->skew_ns, stamp);
  if (store->sign) {
    pthread_mutex_lock(&store->lock);
    credentials = store->credentials;
    slot->signed_with = store->credentials_version;
    pthread_mutex_unlock(&store->lock);
  }
  list_headers(slot, &credentials, stamp, crc, if_match, sizeof if_match, &list);
  tr_status status = TR_OK;
  if (store->sign) {
    const s3_sign_input input = {
        .method = method_names[method_now(slot)],
        .path = slot->path,
        .query = slot->call.query != NULL && slot->phase == S3_PHASE_MAIN ? slot->call.query : "",
        .headers = list.headers,
        .header_count = list.count,
        .payload_hash = S3_UNSIGNED_PAYLOAD,
        .region = store->region,
        .credentials = &credentials,
        .stamp = stamp};
    status = s3_sign(&store->lib, &input, authorization, error);
  }
  if (status == TR_OK && !write_lines(slot, &list, store->sign ? authorization : NULL)) {
    status = tr_fail(error, TR_ERR_INVALID,
                     "s3: the headers of a request are too long; how long is the session token?");
  }
  explicit_bzero(&credentials, sizeof credentials);
  return status;
}

static void set_method(s3_slot *slot) {
  const s3_lib *lib = &slot->store->lib;
  CURL *easy = slot->easy;
  lib->easy_setopt(easy, CURLOPT_HTTPGET, 1L);
  lib->easy_setopt(easy, CURLOPT_CUSTOMREQUEST, NULL);
  switch (method_now(slot)) {
    case S3_GET: break;
    case S3_HEAD: lib->easy_setopt(easy, CURLOPT_NOBODY, 1L); break;
    case S3_PUT:
      lib->easy_setopt(easy, CURLOPT_UPLOAD, 1L);
      lib->easy_setopt(easy, CURLOPT_INFILESIZE_LARGE, (curl_off_t)slot->call.body_bytes);
      break;
    case S3_DELETE: lib->easy_setopt(easy, CURLOPT_CUSTOMREQUEST, "DELETE"); break;
    case S3_POST:
      lib->easy_setopt(easy, CURLOPT_POST, 1L);
      lib->easy_setopt(easy, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)slot->call.body_bytes);
      lib->easy_setopt(easy, CURLOPT_POSTFIELDS, slot->call.body != NULL ? slot->call.body : "");
      break;
  }
}

static void reset_reply(s3_slot *slot) {
  slot->reply = (s3_reply){0};
  slot->refusal = S3_REFUSAL_NONE;
  slot->head_seen = slot->stalled = slot->connected = false;
  slot->sent_bytes = 0;
  slot->first_byte_ns = 0;
  slot->curl_error[0] = '\0';
  if (slot->job->request->verb == S3_ASK) ((s3_ask *)slot->job->request->user)->answer_bytes = 0;
}

void s3_slot_send(s3_slot *slot) {
  s3_store *store = slot->store;
  reset_reply(slot);
  tr_status status = write_request(slot, &slot->job->request->error);
  if (status == TR_OK) {
    set_method(slot);
    store->lib.easy_setopt(slot->easy, CURLOPT_URL, slot->url);
    store->lib.easy_setopt(slot->easy, CURLOPT_HTTPHEADER, &slot->lines[0]);
    slot->sent_ns = slot->last_byte_ns = s3_now(store);
    if (store->lib.multi_add_handle(store->multi, slot->easy) != CURLM_OK) {
      status = tr_fail(&slot->job->request->error, TR_ERR_NO_MEMORY, "s3: libcurl does not take a request");
    }
  }
  if (status != TR_OK) {
    s3_job_slot_done(store, slot, status);
    return;
  }
  slot->state = S3_SLOT_SENT;
  store->requests++;
}

void s3_slot_stop(s3_slot *slot) {
  if (slot->state == S3_SLOT_SENT) slot->store->lib.multi_remove_handle(slot->store->multi, slot->easy);
  slot->state = S3_SLOT_WAITING;
}

void s3_slot_release(s3_slot *slot) {
  s3_slot_stop(slot);
  slot->store->slots_of[slot->job->request->priority]--;
  slot->job->slots--;
  slot->job = NULL;
  slot->state = S3_SLOT_FREE;
}

tr_status s3_slot_init(s3_store *store, s3_slot *slot, tr_error *error) {
  const s3_lib *lib = &store->lib;
  memset(slot, 0, sizeof *slot);
  slot->store = store;
  CURL *easy = slot->easy = lib->easy_init();
  if (easy == NULL) return tr_fail_memory(error, "a handle of libcurl", 1);
  lib->easy_setopt(easy, CURLOPT_PRIVATE, slot);
  lib->easy_setopt(easy, CURLOPT_ERRORBUFFER, slot->curl_error);
  lib->easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
  lib->easy_setopt(easy, CURLOPT_PATH_AS_IS, 1L);
  lib->easy_setopt(easy, CURLOPT_PROTOCOLS_STR, store->tls ? "https" : "http");
  lib->easy_setopt(easy, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
  lib->easy_setopt(easy, CURLOPT_FOLLOWLOCATION, 0L);
  lib->easy_setopt(easy, CURLOPT_PROXY, ""); /* else libcurl would read the environment */
  lib->easy_setopt(easy, CURLOPT_USERAGENT, "trainrun/" TRAINRUN_VERSION);
  lib->easy_setopt(easy, CURLOPT_BUFFERSIZE, (long)RECEIVE_BYTES);
  lib->easy_setopt(easy, CURLOPT_UPLOAD_BUFFERSIZE, (long)SEND_BYTES);
  lib->easy_setopt(easy, CURLOPT_TCP_KEEPALIVE, 1L);
  lib->easy_setopt(easy, CURLOPT_CONNECTTIMEOUT_MS, (long)store->stall_timeout_ms);
  lib->easy_setopt(easy, CURLOPT_WRITEFUNCTION, on_body);
  lib->easy_setopt(easy, CURLOPT_WRITEDATA, slot);
  lib->easy_setopt(easy, CURLOPT_HEADERFUNCTION, on_header);
  lib->easy_setopt(easy, CURLOPT_HEADERDATA, slot);
  lib->easy_setopt(easy, CURLOPT_READFUNCTION, on_send);
  lib->easy_setopt(easy, CURLOPT_READDATA, slot);
  lib->easy_setopt(easy, CURLOPT_SEEKFUNCTION, on_seek);
  lib->easy_setopt(easy, CURLOPT_SEEKDATA, slot);
  lib->easy_setopt(easy, CURLOPT_PREREQFUNCTION, on_connected);
  lib->easy_setopt(easy, CURLOPT_PREREQDATA, slot);
  if (store->ca_file != NULL) lib->easy_setopt(easy, CURLOPT_CAINFO, store->ca_file);
  return TR_OK;
}

s3_slot *s3_slot_free(s3_store *store) {
  for (uint32_t i = 0; i < store->slot_count; i++) {
    if (store->slots[i].state == S3_SLOT_FREE) return &store->slots[i];
  }
  if (store->slot_count == store->connections) return NULL;
  /* Without memory for another it goes on with those that it has. */
  s3_slot *slot = &store->slots[store->slot_count];
  if (s3_slot_init(store, slot, NULL) != TR_OK) return NULL;
  store->slot_count++;
  return slot;
}

void s3_slot_fini(s3_slot *slot) {
  if (slot->easy != NULL) slot->store->lib.easy_cleanup(slot->easy);
  explicit_bzero(slot->header_text, sizeof slot->header_text);
}
