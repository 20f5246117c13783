/* Building, sharing and keeping an index: see index.h. */
#include "index.h"

#include <inttypes.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>

#include "agree.h"

enum { VERSION = 2, CHECKED_FROM = 16, HEAD_BYTES = 32, PLACES = 2, BUILDERS = 4 };
#define INDEX_BYTES_MAX ((uint64_t)16 << 30)

static const char magic[8] = "TRINDEX";

/* Names and not URLs, so that an index is good for the same shards however they are reached. */
static void write_key(const tr_dataset *dataset, tr_writer *key) {
  tr_write_text(key, "%s\n", dataset->format->name);
  for (size_t i = 0; i < dataset->file_count; i++) {
    const dl_file *file = &dataset->files[i];
    const char *name = file->etag[0] != '\0' ? dl_url_name(file->url) : file->url;
    tr_write_text(key, "%" PRIu64 " %s %s\n", file->bytes, file->etag, name);
  }
  tr_write_u8(key, 0);
}

/* The folder beside the first shard. */
static const char *beside(const tr_dataset *dataset) {
  const char *url = dataset->files[0].url, *name = dl_url_name(url);
  return tr_arena_printf(dataset->arena, "%.*s.trainrun", (int)(name - url), url);
}

/* Where an index of this key may be, the best first; `count` of them. Entries are NULL where memory ran out. */
static size_t index_urls(const tr_dataset *dataset, const tr_writer *key, const char *urls[PLACES]) {
  char name[24];
  static const char digits[] = "0123456789abcdef";
  const uint64_t hash = tr_hash_name((const char *)key->data);
  for (int i = 0; i < 16; i++) name[i] = digits[hash >> (60 - 4 * i) & 15];
  memcpy(name + 16, ".tridx", 7);
  const char *folders[PLACES] = {beside(dataset), dataset->index_folder};
  size_t count = dataset->index_folder != NULL ? 2 : 1;
  if (dataset->index_strict && count == 2) {
    folders[0] = folders[1];
    count = 1;
  }
  for (size_t i = 0; i < count; i++) {
    urls[i] = folders[i] != NULL ? tr_url_join(dataset->arena, folders[i], name) : NULL;
  }
  return count;
}

/* ---- Parts ------------------------------------------------------------------------------------------------------- */

/* Cuts `memory` from `at` on into the shards' parts, each checked by its format. */
static tr_status take_parts(const tr_dataset *dataset, const dl_index_format *format, dl_index *index,
                            tr_reader *reader, tr_error *error) {
  for (size_t i = 0; i < dataset->file_count; i++) {
    const uint64_t bytes = tr_read_u64le(reader);
    const uint8_t *data = bytes <= SIZE_MAX ? tr_read_bytes(reader, (size_t)bytes) : NULL;
    if (data == NULL) return tr_fail(error, TR_ERR_CORRUPT, "the index ends before shard %s", dataset->files[i].url);
    index->parts[i] = (dl_index_part){data, (size_t)bytes};
    TR_TRY(format->check(dataset, i, index->parts[i], error));
  }
  if (tr_reader_left(reader) != 0) return tr_fail(error, TR_ERR_CORRUPT, "the index is longer than its shards");
  return TR_OK;
}

/* What builders of this rank share. */
typedef struct work {
  const tr_dataset *dataset;
  const dl_index_format *format;
  uint64_t begin, end; /* shards */
  tr_writer *parts;    /* [end - begin] */

  /* Under the lock. */
  pthread_mutex_t lock;
  uint64_t next;
  uint64_t failed; /* the first shard that failed; end: none */
  tr_status status;
  tr_error error;
} work;

static void *build_some(void *self) {
  work *w = self;
  pthread_mutex_lock(&w->lock);
  while (w->next < w->failed) {
    const uint64_t shard = w->next++;
    tr_writer *part = &w->parts[shard - w->begin];
    tr_error error;
    pthread_mutex_unlock(&w->lock);
    tr_status status = w->format->build(w->dataset, shard, part, &error);
    if (status == TR_OK && part->failed) status = tr_fail_memory(&error, "an index", part->bytes);
    pthread_mutex_lock(&w->lock);
    if (status != TR_OK && shard < w->failed) {
      w->failed = shard;
      w->status = status;
      w->error = error;
    }
  }
  pthread_mutex_unlock(&w->lock);
  return NULL;
}

/* Several shards at once, so that the wire stays full where shards are small; this thread is one of the builders. */
static void build_in_parallel(work *w) {
  pthread_t threads[BUILDERS];
  size_t count = 0;
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  while (count + 1 < BUILDERS && count + 1 < w->end - w->begin) {
    if (pthread_create(&threads[count], NULL, build_some, w) != 0) break;
    pthread_setname_np(threads[count++], "tr-index");
  }
  pthread_sigmask(SIG_SETMASK, &before, NULL);
  build_some(w);
  for (size_t i = 0; i < count; i++) pthread_join(threads[i], NULL);
}

static tr_status build_mine(const tr_dataset *dataset, const dl_index_format *format, tr_writer *parts,
                            tr_error *error) {
  const uint64_t ranks = (uint64_t)dl_ranks(dataset->exchange), rank = (uint64_t)dl_rank(dataset->exchange);
  work w = {.dataset = dataset, .format = format, .begin = tr_split_begin(dataset->file_count, ranks, rank)};
  w.end = w.failed = tr_split_end(dataset->file_count, ranks, rank);
  w.next = w.begin;
  if (w.begin == w.end) return TR_OK;
  w.parts = tr_calloc(dataset->allocator, w.end - w.begin, sizeof *w.parts);
  if (w.parts == NULL) return tr_fail_memory(error, "an index", (w.end - w.begin) * sizeof *w.parts);
  for (uint64_t i = 0; i < w.end - w.begin; i++) tr_writer_init(&w.parts[i], dataset->allocator);
  pthread_mutex_init(&w.lock, NULL);
  build_in_parallel(&w);
  pthread_mutex_destroy(&w.lock);
  tr_status status = w.status;
  if (status != TR_OK && error != NULL) *error = w.error;
  for (uint64_t i = 0; i < w.end - w.begin; i++) {
    tr_write_u64le(parts, w.parts[i].bytes);
    tr_write_bytes(parts, w.parts[i].data, w.parts[i].bytes);
    tr_writer_fini(&w.parts[i]);
  }
  if (status == TR_OK && parts->failed) status = tr_fail_memory(error, "an index", parts->bytes);
  tr_free(dataset->allocator, w.parts);
  return status;
}

/* ---- The kept file ----------------------------------------------------------------------------------------------- */

static bool head_is_right(const uint8_t *data, size_t bytes, const tr_writer *key) {
  tr_reader reader = tr_reader_of(data, bytes);
  const void *found_magic = tr_read_bytes(&reader, sizeof magic);
  const uint32_t version = tr_read_u32le(&reader), crc = tr_read_u32le(&reader);
  const uint64_t whole = tr_read_u64le(&reader);
  const uint32_t key_bytes = tr_read_u32le(&reader);
  tr_read_u32le(&reader);
  const void *found_key = tr_read_bytes(&reader, key_bytes);
  return found_key != NULL && memcmp(found_magic, magic, sizeof magic) == 0 && version == VERSION && whole == bytes &&
         crc == tr_crc32c(0, data + CHECKED_FROM, bytes - CHECKED_FROM) && key_bytes == key->bytes &&
         memcmp(found_key, key->data, key->bytes) == 0;
}

/* Whether there is one that fits; all that is wrong with it only means that it is built again. */
static bool load_kept(const tr_dataset *dataset, const dl_index_format *format, const tr_writer *key, const char *url,
                      dl_index *index) {
  tr_store *store;
  char name[TR_KEY_BYTES];
  void *data = NULL;
  size_t bytes = 0;
  if (url == NULL || tr_stores_resolve(dataset->stores, url, &store, name, NULL) != TR_OK) return false;
  if (tr_store_get_all(store, dataset->allocator, name, INDEX_BYTES_MAX, &data, &bytes, NULL) != TR_OK) return false;
  if (head_is_right(data, bytes, key)) {
    tr_reader reader = tr_reader_of(data, bytes);
    tr_read_bytes(&reader, HEAD_BYTES + key->bytes);
    if (take_parts(dataset, format, index, &reader, NULL) == TR_OK) {
      index->memory = data;
      return true;
    }
  }
  tr_logf(dataset->log, TR_LOG_WARNING, "the index %s is damaged or of another version: it is built again", url);
  tr_free(dataset->allocator, data);
  return false;
}

static tr_status write_kept(const tr_dataset *dataset, const tr_writer *key, const tr_writer *parts, const char *url,
                            tr_error *error) {
  tr_store *store;
  char name[TR_KEY_BYTES];
  if (url == NULL) return tr_fail_memory(error, "a URL", TR_KEY_BYTES);
  TR_TRY(tr_stores_resolve(dataset->stores, url, &store, name, error));
  tr_writer body, file;
  tr_writer_init(&body, dataset->allocator);
  tr_writer_init(&file, dataset->allocator);
  tr_write_u64le(&body, HEAD_BYTES + key->bytes + parts->bytes);
  tr_write_u32le(&body, (uint32_t)key->bytes);
  tr_write_u32le(&body, 0);
  tr_write_bytes(&body, key->data, key->bytes);
  tr_write_bytes(&body, parts->data, parts->bytes);
  tr_write_bytes(&file, magic, sizeof magic);
  tr_write_u32le(&file, VERSION);
  tr_write_u32le(&file, body.failed ? 0 : tr_crc32c(0, body.data, body.bytes));
  if (!body.failed) tr_write_bytes(&file, body.data, body.bytes);
  tr_status status = body.failed || file.failed ? tr_fail_memory(error, "the index", body.bytes) : TR_OK;
  if (status == TR_OK) status = tr_store_put(store, name, file.data, file.bytes, false, error);
  tr_writer_fini(&file);
  tr_writer_fini(&body);
  return status;
}

/* ---- All together ------------------------------------------------------------------------------------------------ */

/* Keeps it in every place that lets us; the one who asked for it by name must get it, others do without. */
static tr_status keep(tr_dataset *dataset, const tr_writer *key, const tr_writer *parts, tr_error *error) {
  const char *urls[PLACES];
  const size_t count = index_urls(dataset, key, urls);
  for (size_t i = 0; i < count; i++) {
    tr_error why;
    const tr_status status = write_kept(dataset, key, parts, urls[i], &why);
    if (status == TR_OK && dataset->index_url == NULL) dataset->index_url = urls[i];
    if (status == TR_OK) continue;
    if (dataset->index_strict) {
      if (error != NULL) *error = why;
      return tr_error_context(error, status, "the index cannot be kept in %s", urls[i] != NULL ? urls[i] : "memory");
    }
    tr_logf(dataset->log, i + 1 == count && count == PLACES ? TR_LOG_WARNING : TR_LOG_DEBUG,
            "the index is not kept in %s: %s", urls[i] != NULL ? urls[i] : "memory", why.message);
  }
  return TR_OK;
}

static tr_status build_together(tr_dataset *dataset, const dl_index_format *format, const tr_writer *key,
                                dl_index *index, tr_error *error) {
  tr_writer parts;
  tr_writer_init(&parts, dataset->allocator);
  tr_status status = build_mine(dataset, format, &parts, error);
  status = dl_agree_join(dataset->exchange, dataset->allocator, status, &parts, error);
  if (status != TR_OK) {
    tr_writer_fini(&parts);
    return status;
  }
  index->memory = parts.data;
  dataset->index_built = true;
  tr_reader reader = tr_reader_of(parts.data, parts.bytes);
  status = take_parts(dataset, format, index, &reader, error);
  if (status == TR_OK && dl_rank(dataset->exchange) == 0) status = keep(dataset, key, &parts, error);
  return dl_agree(dataset->exchange, status, error);
}

/* One rank without a kept index is enough for all to build it: they must not go different ways. */
static tr_status load_or_build(tr_dataset *dataset, const dl_index_format *format, const tr_writer *key,
                               dl_index *index, tr_error *error) {
  const char *urls[PLACES];
  const size_t count = index_urls(dataset, key, urls);
  bool kept = false;
  for (size_t i = 0; i < count && !kept; i++) {
    kept = load_kept(dataset, format, key, urls[i], index);
    if (kept) dataset->index_url = urls[i];
  }
  tr_error quiet = {0};
  const tr_status all = dl_agree(dataset->exchange, kept ? TR_OK : TR_ERR_NOT_FOUND, &quiet);
  if (all == TR_OK) return TR_OK;
  tr_free(dataset->allocator, index->memory);
  index->memory = NULL;
  dataset->index_url = NULL;
  if (all == TR_ERR_NOT_FOUND) return build_together(dataset, format, key, index, error);
  if (error != NULL) *error = quiet;
  return all;
}

tr_status dl_index_open(tr_dataset *dataset, const dl_index_format *format, dl_index *index, tr_error *error) {
  *index = (dl_index){.allocator = dataset->allocator};
  tr_writer key;
  tr_writer_init(&key, dataset->allocator);
  write_key(dataset, &key);
  index->parts = tr_calloc(dataset->allocator, dataset->file_count, sizeof *index->parts);
  tr_status status = TR_OK;
  if (key.failed || index->parts == NULL) {
    status = tr_fail_memory(error, "an index", dataset->file_count * sizeof *index->parts);
  }
  status = dl_agree(dataset->exchange, status, error);
  if (status == TR_OK) status = load_or_build(dataset, format, &key, index, error);
  tr_writer_fini(&key);
  if (status != TR_OK) dl_index_fini(index);
  return status;
}

void dl_index_fini(dl_index *index) {
  tr_free(index->allocator, index->memory);
  tr_free(index->allocator, index->parts);
  *index = (dl_index){0};
}
