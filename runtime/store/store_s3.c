/* The S3 store: opening it, its table of functions, and what only a bucket can do. */
#include <stdio.h>
#include <string.h>

#include "s3_private.h"
#include "s3_text.h"
#include "store_key.h"

enum {
  DEFAULT_CONNECTIONS = 32,
  MAX_CONNECTIONS = 256,
  DEFAULT_ATTEMPTS = 3,
  DEFAULT_STALL_MS = 10000,
  BUCKET_BYTES = 64,
  REGION_BYTES = 64,
  PRESIGN_MAX_S = 604800
};

#define PART_BYTES_MIN ((uint64_t)5 << 20)

static tr_status submit(void *self, tr_store_request *request, tr_error *error) {
  return s3_engine_submit(self, request, error);
}

static void free_store(s3_store *store) {
  s3_engine_fini(store);
  s3_credentials_fini(store);
  s3_lib_close(&store->lib);
  tr_free(store->allocator, store->bucket);
  tr_free(store->allocator, store->region);
  tr_free(store->allocator, store->ca_file);
  pthread_cond_destroy(&store->answered);
  pthread_mutex_destroy(&store->lock);
  tr_free(store->allocator, store);
}

static void destroy(void *self) {
  s3_store *store = self;
  const tr_s3_credentials_source source = store->source;
  free_store(store);
  if (source.destroy != NULL) source.destroy(source.self);
}

static const tr_store_ops ops = {
    .struct_bytes = sizeof ops,
    .name = "s3",
    .submit = submit,
    .list = s3_list,
    .list_free = s3_list_free,
    .upload_begin = s3_upload_begin,
    .upload_commit = s3_upload_commit,
    .upload_abort = s3_upload_abort,
    .part_bytes_min = PART_BYTES_MIN,
    .upload_sweep = s3_upload_sweep,
    .destroy = destroy,
};

/* ---- Opening ------------------------------------------------------------------------------------------------------- */

static bool is_name(const char *text, size_t capacity) {
  const size_t bytes = strlen(text);
  static const char letters[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._";
  return bytes > 0 && bytes < capacity && strspn(text, letters) == bytes && text[0] != '.' && text[0] != '-';
}

/* "https://host:port": scheme, host, and what stands in the Host header, which leaves a scheme's own port out. */
static tr_status read_endpoint(s3_store *store, const char *endpoint, bool path_style, tr_error *error) {
  store->tls = strncmp(endpoint, "https://", 8) == 0;
  const bool plain = strncmp(endpoint, "http://", 7) == 0;
  const char *host = strstr(endpoint, "://");
  if (!store->tls && !plain) {
    return tr_fail(error, TR_ERR_CONFIG, "s3: the endpoint '%.100s' is no http:// or https:// URL", endpoint);
  }
  host += 3;
  const char *slash = strchr(host, '/');
  size_t bytes = slash != NULL ? (size_t)(slash - host) : strlen(host);
  static const char letters[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._:[]";
  if (bytes == 0 || bytes > 255 || strspn(host, letters) < bytes || (slash != NULL && slash[1] != '\0')) {
    return tr_fail(error, TR_ERR_CONFIG,
                   "s3: the endpoint '%.100s' should be a server alone, such as https://host:9000; the bucket goes "
                   "elsewhere",
                   strchr(endpoint, '@') != NULL ? "…" : endpoint);
  }
  const char *own_port = store->tls ? ":443" : ":80";
  const size_t port_bytes = strlen(own_port);
  if (bytes > port_bytes && memcmp(host + bytes - port_bytes, own_port, port_bytes) == 0) bytes -= port_bytes;
  /* A certificate for *.host does not cover a bucket with dots in its name. */
  store->bucket_in_path = path_style || (store->tls && strchr(store->bucket, '.') != NULL);
  const char *scheme = store->tls ? "https" : "http";
  snprintf(store->endpoint, sizeof store->endpoint, "%s://%.*s", scheme, (int)bytes, host);
  snprintf(store->host, sizeof store->host, "%s%s%.*s", store->bucket_in_path ? "" : store->bucket,
           store->bucket_in_path ? "" : ".", (int)bytes, host);
  snprintf(store->base, sizeof store->base, "%s://%.300s", scheme, store->host);
  return TR_OK;
}

static tr_status read_names(s3_store *store, const tr_store_s3_options *options, tr_error *error) {
  char amazon[S3_BASE_BYTES];
  const char *region = options->region != NULL ? options->region : "us-east-1";
  if (options->bucket == NULL || !is_name(options->bucket, BUCKET_BYTES)) {
    return tr_fail(error, TR_ERR_CONFIG, "s3: '%.80s' is no name of a bucket",
                   options->bucket != NULL ? options->bucket : "");
  }
  if (!is_name(region, REGION_BYTES))
    return tr_fail(error, TR_ERR_CONFIG, "s3: '%.80s' is no name of a region", region);
  store->bucket = tr_strdup(store->allocator, options->bucket);
  store->region = tr_strdup(store->allocator, region);
  if (options->ca_file != NULL) store->ca_file = tr_strdup(store->allocator, options->ca_file);
  if (store->bucket == NULL || store->region == NULL || (options->ca_file != NULL && store->ca_file == NULL)) {
    return tr_fail_memory(error, "the names of a store", BUCKET_BYTES);
  }
  snprintf(amazon, sizeof amazon, "https://s3.%s.amazonaws.com", region);
  return read_endpoint(store, options->endpoint != NULL ? options->endpoint : amazon, options->path_style, error);
}

static void read_limits(s3_store *store, const tr_store_s3_options *options) {
  const uint32_t connections = options->connections != 0 ? options->connections : DEFAULT_CONNECTIONS;
  store->connections = connections < MAX_CONNECTIONS ? connections : MAX_CONNECTIONS;
  const uint32_t kept = store->connections / 4 > 0 ? store->connections / 4 : 1;
  store->background_limit = store->connections > kept ? store->connections - kept : 1;
  store->stall_timeout_ms = options->stall_timeout_ms != 0 ? options->stall_timeout_ms : DEFAULT_STALL_MS;
  store->policy = (s3_retry_policy){.attempts = options->attempts != 0 ? options->attempts : DEFAULT_ATTEMPTS,
                                    .persistent = options->persistent};
  store->quota = (s3_quota){.tokens = S3_QUOTA_TOKENS};
  /* Jitter alone depends on it. */
  store->random_seed = tr_clock_now_ns(NULL) ^ (uint64_t)(uintptr_t)store;
}

tr_status tr_store_s3_open(const tr_store_s3_options *options, tr_store **out, tr_error *error) {
  if (options == NULL || options->struct_bytes != sizeof *options) {
    return tr_fail(error, TR_ERR_INVALID, "store: the S3 store's options are of another version");
  }
  s3_store *store = tr_calloc(options->allocator, 1, sizeof *store);
  if (store == NULL) return tr_fail_memory(error, "an S3 store", sizeof *store);
  store->allocator = options->allocator;
  store->clock = options->clock;
  store->log = options->log;
  store->source = options->credentials;
  store->sign = options->credentials.get != NULL;
  store->epoll_fd = store->wake_fd = -1;
  pthread_mutex_init(&store->lock, NULL);
  pthread_cond_init(&store->answered, NULL);
  read_limits(store, options);
  tr_status status = read_names(store, options, error);
  if (status == TR_OK) status = s3_lib_open(&store->lib, error);
  if (status == TR_OK) status = s3_engine_init(store, error);
  if (status == TR_OK) status = s3_credentials_first(store, error);
  if (status == TR_OK) status = tr_store_create(options->allocator, &ops, store, out, error);
  if (status != TR_OK) free_store(store);
  return status;
}

/* ---- What only a bucket can do ------------------------------------------------------------------------------------- */

static tr_status store_of(const tr_store *store, s3_store **out, tr_error *error) {
  void *self = NULL;
  if (store == NULL || tr_store_vtable(store, &self)->submit != submit) {
    return tr_fail(error, TR_ERR_INVALID, "store: this is no S3 store");
  }
  *out = self;
  return TR_OK;
}

tr_status tr_store_s3_stats(const tr_store *store, tr_s3_stats *stats, tr_error *error) {
  s3_store *of = NULL;
  TR_TRY(store_of(store, &of, error));
  if (stats->struct_bytes != sizeof *stats) {
    return tr_fail(error, TR_ERR_INVALID, "store: the statistics asked for are of another version");
  }
  stats->requests = of->requests;
  stats->retries = of->retries;
  stats->throttled = of->throttled;
  stats->hedged = of->hedged;
  stats->bytes_read = of->bytes_read;
  stats->bytes_written = of->bytes_written;
  return TR_OK;
}

tr_status tr_store_s3_describe(const tr_store *store, tr_s3_description *description, tr_error *error) {
  s3_store *of = NULL;
  TR_TRY(store_of(store, &of, error));
  if (description->struct_bytes != sizeof *description) {
    return tr_fail(error, TR_ERR_INVALID, "store: the description asked for is of another version");
  }
  tr_s3_description made = {.struct_bytes = sizeof made};
  snprintf(made.endpoint, sizeof made.endpoint, "%s", of->base);
  snprintf(made.region, sizeof made.region, "%s", of->region);
  s3_message_key_id(of, made.key_id, sizeof made.key_id);
  if (of->sign) {
    pthread_mutex_lock(&of->lock);
    snprintf(made.keys_from, sizeof made.keys_from, "%.95s", of->credentials.from);
    pthread_mutex_unlock(&of->lock);
  }
  *description = made;
  return TR_OK;
}

tr_status tr_store_s3_probe_conditional(tr_store *store, const char *key, bool *ignored, tr_error *error) {
  s3_store *of = NULL;
  TR_TRY(store_of(store, &of, error));
  TR_TRY(tr_store_put(store, key, "1", 1, false, error));
  const tr_status second = tr_store_put(store, key, "2", 1, true, error);
  tr_error kept = {.status = TR_OK, .rank = -1};
  if (second != TR_OK && second != TR_ERR_EXISTS && error != NULL) kept = *error;
  const tr_status removed = tr_store_delete(store, key, error);
  if (second != TR_OK && second != TR_ERR_EXISTS) {
    if (error != NULL) *error = kept;
    return second;
  }
  TR_TRY(removed);
  *ignored = second == TR_OK;
  return TR_OK;
}

/* The path of a key as it goes over the wire. */
static bool write_path(const s3_store *store, const char *key, char path[S3_PATH_BYTES]) {
  s3_text text = s3_text_in(path, S3_PATH_BYTES);
  if (store->bucket_in_path) s3_text_addf(&text, "/%s", store->bucket);
  s3_text_addf(&text, "/");
  s3_text_encode(&text, key, true);
  return !text.cut;
}

tr_status tr_store_s3_presign(tr_store *store, const char *key, uint32_t seconds, char *url, size_t url_bytes,
                              tr_error *error) {
  s3_store *of = NULL;
  char path[S3_PATH_BYTES], query[S3_QUERY_BYTES * 2], stamp[S3_STAMP_BYTES];
  TR_TRY(store_of(store, &of, error));
  TR_TRY(tr_store_key_check(key, error));
  if (seconds == 0 || seconds > PRESIGN_MAX_S) {
    return tr_fail(error, TR_ERR_INVALID, "s3: a URL can hold for 1 to %d seconds, not %u", (int)PRESIGN_MAX_S,
                   (unsigned)seconds);
  }
  if (!of->sign) return tr_fail(error, TR_ERR_INVALID, "s3: a store without credentials can sign no URL");
  if (!write_path(of, key, path)) return tr_fail(error, TR_ERR_INVALID, "s3: the URL of '%s' is too long", key);
  s3_sign_stamp(tr_clock_wall_ns(of->clock) + of->skew_ns, stamp);
  pthread_mutex_lock(&of->lock);
  tr_s3_credentials credentials = of->credentials;
  pthread_mutex_unlock(&of->lock);
  const s3_header host = {.name = "host", .value = of->host};
  const s3_sign_input input = {.method = "GET",
                               .path = path,
                               .query = "",
                               .headers = &host,
                               .header_count = 1,
                               .payload_hash = S3_UNSIGNED_PAYLOAD,
                               .region = of->region,
                               .credentials = &credentials,
                               .stamp = stamp};
  tr_status status = s3_sign_query(&of->lib, &input, seconds, query, sizeof query, error);
  explicit_bzero(&credentials, sizeof credentials);
  if (status != TR_OK) return status;
  s3_text text = s3_text_in(url, url_bytes);
  s3_text_addf(&text, "%s%s?%s", of->base, path, query);
  if (text.cut)
    return tr_fail(error, TR_ERR_INVALID, "s3: the URL of '%s' is longer than %zu bytes", key, url_bytes - 1);
  return TR_OK;
}
