/* A job's data sets and loaders for this rank, and the session's communicator as the siblings' callback tables. */
#include "session.h"

#include <stdio.h>
#include <string.h>

/* ---- Callback tables ---- */

static tr_status gather(void *self, const void *in, size_t bytes, void *out, tr_error *error) {
  return tr_comm_all_gather(((tr_session *)self)->comm, in, bytes, out, NULL, error);
}

static tr_status broadcast(void *self, void *buffer, size_t bytes, int32_t root, tr_error *error) {
  return tr_comm_broadcast(((tr_session *)self)->comm, buffer, bytes, root, NULL, error);
}

tr_exchange tr_session_exchange(tr_session *session) {
  return (tr_exchange){.struct_bytes = sizeof(tr_exchange),
                       .rank = session->comm_info.rank,
                       .size = session->comm_info.size,
                       .all_gather = gather,
                       .broadcast = broadcast,
                       .self = session};
}

tr_ckpt_exchange tr_session_ckpt_exchange(tr_session *session) {
  return (tr_ckpt_exchange){.struct_bytes = sizeof(tr_ckpt_exchange),
                            .rank = session->comm_info.rank,
                            .size = session->comm_info.size,
                            .broadcast = broadcast,
                            .self = session};
}

/* ---- Data sets ---- */

enum { URLS_MAX = 4096 };

typedef struct source {
  const char **urls; /* in the scratch arena */
  size_t url_count;
  const char *format;
  tr_field_source fields[TR_FIELDS_MAX];
  size_t field_count;
} source;

static tr_status add_url(tr_session *session, tr_arena *arena, const char *key, const char *url, source *found,
                         tr_error *error) {
  if (found->url_count >= URLS_MAX)
    return tr_fail(error, TR_ERR_CONFIG, "%s: more than %d URLs; use braces", key, URLS_MAX);
  char *path = tr_config_path(session->config, session->allocator, key, url);
  const char *kept = path != NULL ? tr_arena_strdup(arena, path) : NULL;
  tr_free(session->allocator, path);
  if (kept == NULL) return tr_fail_memory(error, key, strlen(url));
  found->urls[found->url_count++] = kept;
  return TR_OK;
}

static tr_status take_fields(const tr_value *fields, const char *key, source *found, tr_error *error) {
  for (size_t i = 0; fields != NULL && i < fields->count; i++) {
    if (i >= TR_FIELDS_MAX) return tr_fail(error, TR_ERR_CONFIG, "%s: more than %d fields", key, TR_FIELDS_MAX);
    found->fields[i] = (tr_field_source){fields->items[i].key, fields->items[i].text};
    found->field_count = i + 1;
  }
  return TR_OK;
}

/* value: a URL, a list of URLs, a table {url, format, fields}, or a list of such tables. */
static tr_status take_value(tr_session *session, tr_arena *arena, const char *key, const tr_value *value, source *found,
                            tr_error *error) {
  switch (value->type) {
    case TR_VALUE_STRING: return add_url(session, arena, key, value->text, found, error);
    case TR_VALUE_ARRAY:
      for (size_t i = 0; i < value->count; i++) TR_TRY(take_value(session, arena, key, &value->items[i], found, error));
      return TR_OK;
    case TR_VALUE_TABLE: break;
    default: return tr_fail(error, TR_ERR_CONFIG, "%s must be a URL, a list or a table", key);
  }
  const tr_value *url = tr_value_get(value, "url"), *format = tr_value_get(value, "format");
  const tr_value *weight = tr_value_get(value, "weight");
  if (url == NULL) return tr_fail(error, TR_ERR_CONFIG, "%s: a table needs 'url'", key);
  if (weight != NULL && weight->real != 1) {
    return tr_fail(error, TR_ERR_UNSUPPORTED, "%s: 'weight': planned, not in this version", key);
  }
  if (format != NULL) found->format = format->text;
  TR_TRY(take_fields(tr_value_get(value, "fields"), key, found, error));
  return take_value(session, arena, key, url, found, error);
}

static const tr_value *find_set(const tr_session *session, const char *set, char key[160]) {
  snprintf(key, 160, "data.%s", set);
  const tr_value *value = tr_config_find(session->config, key);
  /* [data.valid.NAME] tables are sets of their own: "valid" alone means none of them. */
  if (value != NULL && strcmp(set, "valid") == 0 && value->type == TR_VALUE_TABLE &&
      tr_value_get(value, "url") == NULL) {
    return NULL;
  }
  return value;
}

/* Collective: the cache of this node, opened with the first data set. */
static tr_status open_cache(tr_session *session, tr_error *error) {
  const tr_config *config = session->config;
  const char *folder = tr_config_text(config, "data.cache.dir");
  const tr_exchange exchange = tr_session_exchange(session);
  tr_cache_options options = {.struct_bytes = sizeof options,
                              .allocator = session->allocator,
                              .clock = session->clock,
                              .log = session->log,
                              .dir_bytes = tr_config_bytes(config, "data.cache.size"),
                              .memory_bytes = tr_config_bytes(config, "data.cache.memory"),
                              .exchange = &exchange};
  if (session->cache != NULL) return TR_OK;
  if (options.dir_bytes > 0 && folder == NULL) {
    return tr_fail(error, TR_ERR_CONFIG, "data.cache.size is the size of a folder: name it with data.cache.dir");
  }
  if (options.memory_bytes == 0 && folder == NULL) return TR_OK;
  char *path = folder != NULL ? tr_config_path(config, session->allocator, "data.cache.dir", folder) : NULL;
  if (folder != NULL && path == NULL) return tr_fail_memory(error, "data.cache.dir", strlen(folder));
  options.dir = path;
  const tr_status status = tr_cache_open(&options, &session->cache, error);
  tr_free(session->allocator, path);
  return status;
}

/* They live as long as the config. */
static size_t transforms_of(const tr_config *config, const char *set, const char *const **transforms) {
  return tr_config_strings(config, strcmp(set, "train") == 0 ? "data.transforms" : "data.valid-transforms", transforms);
}

static tr_status index_folder(tr_session *session, tr_arena *arena, const char **folder, tr_error *error) {
  *folder = NULL;
  if (!session->facts.open || session->facts.folder[0] == '\0') return TR_OK;
  /* <run-dir>/<name>/index: shared by all runs of the job. */
  const char *slash = strrchr(session->facts.folder, '/');
  const size_t length = slash != NULL ? (size_t)(slash - session->facts.folder) : 0;
  *folder = slash != NULL ? tr_arena_printf(arena, "%.*s/index", (int)length, session->facts.folder) : NULL;
  return slash == NULL || *folder != NULL ? TR_OK : tr_fail_memory(error, "the index folder", length);
}

tr_status tr_session_open_dataset(tr_session *session, const char *set, tr_dataset **out, tr_error *error) {
  char key[160];
  const tr_value *value = find_set(session, set, key);
  if (value == NULL) return tr_fail(error, TR_ERR_NOT_FOUND, "the job names no %s", key);
  TR_TRY(open_cache(session, error));
  tr_arena *arena = NULL;
  TR_TRY(tr_arena_create(session->allocator, 4096, &arena, error));
  source found = {.format = tr_config_text(session->config, "data.format")};
  tr_dataset_options options = {.struct_bytes = sizeof options};
  found.urls = tr_arena_alloc(arena, URLS_MAX * sizeof *found.urls);
  tr_status status = found.urls != NULL ? TR_OK : tr_fail_memory(error, key, URLS_MAX * sizeof *found.urls);
  if (status == TR_OK) status = take_fields(tr_config_find(session->config, "data.fields"), key, &found, error);
  if (status == TR_OK) status = take_value(session, arena, key, value, &found, error);
  if (status == TR_OK) status = index_folder(session, arena, &options.index_folder, error);
  if (status == TR_OK) {
    const tr_exchange exchange = tr_session_exchange(session);
    options.allocator = session->allocator;
    options.clock = session->clock;
    options.log = session->log;
    options.stores = session->stores;
    options.urls = found.urls;
    options.url_count = found.url_count;
    options.format = found.format;
    options.fields = found.fields;
    options.field_count = found.field_count;
    options.exchange = &exchange;
    options.transform_count = transforms_of(session->config, set, &options.transforms);
    if (tr_config_is_set(session->config, "data.sequence-length")) {
      options.sequence_length = (uint64_t)tr_config_integer(session->config, "data.sequence-length");
    }
    options.cache = session->cache;
    status = tr_dataset_open(&options, out, error);
  }
  tr_arena_destroy(arena);
  return status;
}

/* ---- Loaders ---- */

static tr_shuffle shuffle_of(const tr_config *config) {
  const char *text = tr_config_text(config, "data.shuffle");
  return strcmp(text, "full") == 0    ? TR_SHUFFLE_FULL
         : strcmp(text, "false") == 0 ? TR_SHUFFLE_NONE
                                      : TR_SHUFFLE_STREAMS;
}

uint64_t tr_session_micro_batch(const tr_session *session) {
  const uint64_t batch = (uint64_t)tr_config_integer(session->config, "data.batch-size");
  uint64_t rows = (uint64_t)tr_config_integer(session->config, "train.micro-batch");
  if (rows == 0) rows = (batch + 7) / 8;
  return rows < batch ? rows : batch;
}

tr_loader_options tr_session_loader_options(tr_session *session, const char *set, tr_dataset *dataset) {
  const tr_config *config = session->config;
  const bool train = strcmp(set, "train") == 0;
  const char *const *transforms = NULL;
  const size_t transform_count = transforms_of(config, set, &transforms);
  return (tr_loader_options){
      .struct_bytes = sizeof(tr_loader_options),
      .allocator = session->allocator,
      .clock = session->clock,
      .log = session->log,
      .trace = session->trace,
      .device = session->device,
      .dataset = dataset,
      .seed = tr_session_seed(session),
      .shuffle = train ? shuffle_of(config) : TR_SHUFFLE_NONE,
      .streams = (uint64_t)tr_config_integer(config, "data.streams"),
      .batch_size = (uint64_t)tr_config_integer(config, "data.batch-size"),
      .micro_batch = tr_session_micro_batch(session),
      .rank = session->comm_info.rank,
      .size = session->comm_info.size,
      .epochs = train ? 0 : 1,
      .prefetch_bytes = tr_config_bytes(config, "data.prefetch"),
      .threads = 1,
      .skip_corrupt = strcmp(tr_config_text(config, "data.on-corrupt"), "skip") == 0,
      .transforms = transforms,
      .transform_count = transform_count,
  };
}

tr_status tr_session_open_loader(tr_session *session, const char *set, tr_dataset *dataset, const tr_cursor *cursor,
                                 tr_loader **out, tr_error *error) {
  tr_loader_options options = tr_session_loader_options(session, set, dataset);
  if (cursor != NULL) options.cursor = *cursor;
  return tr_loader_open(&options, out, error);
}
