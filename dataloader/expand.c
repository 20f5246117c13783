/* Folders of shards: see expand.h. */
#include "expand.h"

#include <string.h>

#include "agree.h"

enum { PAGE_KEYS = 1000, SHARDS_MAX = 1000000 };

typedef struct kind {
  const char *format;
  const char *tails[4];
} kind;

static const kind kinds[] = {{"webdataset", {".tar", ".tar.gz", ".tgz"}},
                             {"csv", {".csv", ".csv.gz"}},
                             {"tokens", {".bin"}},
                             {"idx", {"-ubyte", "-ubyte.gz"}}};
enum { KINDS = sizeof kinds / sizeof *kinds };

typedef struct folder {
  const tr_dataset *dataset;
  const char *url, *format; /* format: NULL or "auto" for any */
  tr_store *store;
  char prefix[TR_KEY_BYTES + 1];
  const kind *found;
  const char *first; /* the first shard, for messages */
  size_t shards;
} folder;

static bool ends_with(const char *text, const char *tail) {
  const size_t length = strlen(text), tail_length = strlen(tail);
  return length >= tail_length && strcmp(text + length - tail_length, tail) == 0;
}

static const kind *kind_of(const char *name, const char *format) {
  const bool any = format == NULL || strcmp(format, "auto") == 0;
  for (size_t i = 0; i < KINDS; i++) {
    if (!any && strcmp(kinds[i].format, format) != 0) continue;
    for (size_t j = 0; j < 4 && kinds[i].tails[j] != NULL; j++) {
      if (ends_with(name, kinds[i].tails[j])) return &kinds[i];
    }
  }
  return NULL;
}

/* The URL of a shard, ended by a NUL, behind those of before. */
static tr_status add(folder *f, const char *name, tr_writer *urls, tr_error *error) {
  const kind *is = kind_of(name, f->format);
  if (is == NULL || name[0] == '.') return TR_OK;
  if (f->found != NULL && f->found != is) {
    return tr_fail(error, TR_ERR_CONFIG,
                   "data %s: holds %s ('%s') and %s ('%s'); set data.format, or name the shards as %s{...}", f->url,
                   f->found->format, f->first, is->format, name, f->url);
  }
  if (f->found == NULL) f->first = tr_arena_strdup(f->dataset->arena, name);
  if (f->first == NULL) return tr_fail_memory(error, "a folder of shards", strlen(name));
  if (++f->shards > SHARDS_MAX)
    return tr_fail(error, TR_ERR_CONFIG, "data %s: more than %d shards", f->url, SHARDS_MAX);
  f->found = is;
  tr_write_text(urls, "%s%s%s", f->url, ends_with(f->url, "/") ? "" : "/", name);
  tr_write_u8(urls, 0);
  return TR_OK;
}

/* Behind everything in a sub-folder: no name in it is greater. */
static void pass_folder(const char *key, size_t length, char after[TR_KEY_BYTES]) {
  static const char last_name[] = "\xf4\x8f\xbf\xbd"; /* U+10FFFD */
  if (length + sizeof last_name > TR_KEY_BYTES) return;
  memcpy(after, key, length);
  memcpy(after + length, last_name, sizeof last_name);
}

static tr_status take_page(folder *f, const tr_list_page *page, char after[TR_KEY_BYTES], tr_writer *urls,
                           tr_error *error) {
  const size_t prefix = strlen(f->prefix);
  memcpy(after, page->next, TR_KEY_BYTES);
  for (size_t i = 0; i < page->count; i++) {
    const char *key = page->entries[i].key, *slash = strchr(key + prefix, '/');
    if (slash == NULL) {
      TR_TRY(add(f, key + prefix, urls, error));
    } else if (i + 1 == page->count && page->next[0] != '\0') {
      pass_folder(key, (size_t)(slash + 1 - key), after);
    }
  }
  return TR_OK;
}

/* What a store says names a key; a user knows the URL. */
static tr_status blame(const char *url, tr_status status, tr_error *error) {
  return status == TR_OK ? TR_OK : tr_error_context(error, status, "data %s", url);
}

/* What a store said, with what it was asked about. */
static tr_status about(const char *url, tr_status status, tr_error *error) {
  return status == TR_OK ? TR_OK : tr_error_context(error, status, "data %s", url);
}

static tr_status list(folder *f, tr_writer *urls, tr_error *error) {
  char after[TR_KEY_BYTES] = "";
  void *self;
  const tr_store_ops *ops = tr_store_vtable(f->store, &self);
  tr_status status;
  do {
    tr_list_page page = {0};
    status = ops->list(self, f->prefix, after[0] != '\0' ? after : NULL, PAGE_KEYS, &page, error);
    if (status != TR_OK) return blame(f->url, status, error);
    status = take_page(f, &page, after, urls, error);
    ops->list_free(self, &page);
  } while (status == TR_OK && after[0] != '\0');
  return status;
}

static tr_status is_mds(const folder *f, bool *yes, tr_error *error) {
  char key[TR_KEY_BYTES];
  tr_object_info info;
  const size_t length = strlen(f->prefix);
  *yes = false;
  if (length + sizeof "index.json" > sizeof key) return TR_OK;
  memcpy(key, f->prefix, length);
  memcpy(key + length, "index.json", sizeof "index.json");
  const tr_status status = tr_store_head(f->store, key, &info, error);
  *yes = status == TR_OK;
  return status == TR_ERR_NOT_FOUND ? TR_OK : blame(f->url, status, error);
}

/* "s3://bucket/train": no shard is called so, but a folder may be. Where it names an object after all, it is that. */
static tr_status may_be_folder(const char *url, tr_store *store, const char *key, bool *yes, tr_error *error) {
  tr_object_info info;
  *yes = ends_with(url, "/") || key[0] == '\0';
  if (*yes || strchr(dl_url_name(url), '.') != NULL || kind_of(url, NULL) != NULL) return TR_OK;
  const tr_status status = tr_store_head(store, key, &info, error);
  *yes = status == TR_ERR_NOT_FOUND;
  return *yes ? TR_OK : blame(url, status, error);
}

static tr_status keep(const char *url, tr_writer *urls) {
  tr_write_bytes(urls, url, strlen(url) + 1);
  return TR_OK;
}

static tr_status expand(const tr_dataset *dataset, const char *url, const char *format, tr_writer *urls,
                        tr_error *error) {
  folder f = {.dataset = dataset, .url = url, .format = format};
  char key[TR_KEY_BYTES];
  bool yes;
  if (format != NULL && strcmp(format, "mds") == 0) return keep(url, urls);
  TR_TRY(tr_stores_resolve(dataset->stores, url, &f.store, key, error));
  TR_TRY(about(url, may_be_folder(url, f.store, key, &yes, error), error));
  if (!yes) return keep(url, urls);
  const size_t length = strlen(key);
  memcpy(f.prefix, key, length + 1);
  if (length > 0) memcpy(f.prefix + length, "/", 2);
  TR_TRY(about(url, is_mds(&f, &yes, error), error));
  if (yes) return keep(url, urls);
  const size_t before = urls->bytes;
  TR_TRY(list(&f, urls, error));
  if (f.shards == 0 && !ends_with(url, "/")) return keep(url, urls); /* an IDX prefix, say */
  if (f.shards == 0) {
    return tr_fail(error, TR_ERR_NOT_FOUND, "data %s: there are no shards directly in this folder%s%s", url,
                   format != NULL && strcmp(format, "auto") != 0 ? " of format " : "",
                   format != NULL && strcmp(format, "auto") != 0 ? format : "");
  }
  if (strcmp(f.found->format, "idx") != 0) return TR_OK;
  /* Which files belong together is a prefix, and a folder may hold several. */
  urls->bytes = before;
  return tr_fail(error, TR_ERR_CONFIG, "data %s: holds IDX files ('%s'); name their prefix, as %s%.*s", url, f.first,
                 url, (int)strcspn(f.first, "-"), f.first);
}

static tr_status take(tr_dataset *dataset, const tr_writer *urls, tr_error *error) {
  char *text = tr_arena_alloc(dataset->arena, urls->bytes + 1);
  size_t capacity = 0, count = 0;
  const char **list_of = NULL;
  if (text == NULL) return tr_fail_memory(error, "the list of shards", urls->bytes);
  memcpy(text, urls->data, urls->bytes);
  for (size_t at = 0; at < urls->bytes; at += strlen(text + at) + 1) {
    const tr_status status = tr_reserve(dataset->allocator, (void **)&list_of, &capacity, count + 1, sizeof *list_of,
                                        error);
    if (status != TR_OK) {
      tr_free(dataset->allocator, list_of);
      return status;
    }
    list_of[count++] = text + at;
  }
  tr_free(dataset->allocator, dataset->urls);
  dataset->urls = list_of;
  dataset->url_count = count;
  return TR_OK;
}

tr_status dl_expand_folders(tr_dataset *dataset, const char *format, tr_error *error) {
  tr_writer urls;
  tr_status status = TR_OK;
  tr_writer_init(&urls, dataset->allocator);
  for (size_t i = 0; dl_rank(dataset->exchange) == 0 && i < dataset->url_count && status == TR_OK; i++) {
    status = expand(dataset, dataset->urls[i], format, &urls, error);
  }
  status = dl_agree_join(dataset->exchange, dataset->allocator, status, &urls, error);
  if (status == TR_OK) status = dl_agree(dataset->exchange, take(dataset, &urls, error), error);
  tr_writer_fini(&urls);
  return status;
}
