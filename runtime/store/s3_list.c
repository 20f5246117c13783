/* Pages of a listing (ListObjectsV2). Keys that no store of ours has (markers of folders, "a//b") are left out. */
#include <string.h>

#include "s3_private.h"
#include "s3_text.h"
#include "store_key.h"

enum { LIST_ANSWER_BYTES = 16 << 20, PAGE_KEYS = 1000, CHUNK_BYTES = 64 << 10 };

typedef struct page_in_making {
  tr_list_page page;
  tr_arena *arena;
  size_t max_keys;
  const char *prefix;
  char last[TR_KEY_BYTES]; /* the last that the server named */
  bool more;               /* there are keys after `last` */
} page_in_making;

static tr_status add_object(void *self, const char *key, const tr_object_info *info, tr_error *error) {
  page_in_making *making = self;
  if (strcmp(key, making->last) <= 0 || strncmp(key, making->prefix, strlen(making->prefix)) != 0) {
    return tr_fail(error, TR_ERR_CORRUPT, "s3: the server's listing is not in order: '%.100s' after '%.100s'", key,
                   making->last);
  }
  if (tr_store_key_check(key, NULL) != TR_OK) {
    memcpy(making->last, key, strlen(key) + 1);
    return TR_OK;
  }
  if (making->page.count == making->max_keys) {
    making->more = true;
    return TR_OK;
  }
  memcpy(making->last, key, strlen(key) + 1);
  tr_list_entry *entry = &making->page.entries[making->page.count];
  entry->key = tr_arena_strdup(making->arena, key);
  if (entry->key == NULL) return tr_fail_memory(error, "a listing", strlen(key));
  entry->info = *info;
  making->page.count++;
  return TR_OK;
}

static void write_query(s3_ask *ask, const char *prefix, const char *after, size_t max_keys) {
  s3_text query = s3_text_in(ask->query, sizeof ask->query);
  s3_text_addf(&query, "encoding-type=url&list-type=2&max-keys=%zu&prefix=", max_keys);
  s3_text_encode(&query, prefix, false);
  if (after[0] != '\0') {
    s3_text_addf(&query, "&start-after=");
    s3_text_encode(&query, after, false);
  }
  ask->call = (s3_call){.method = S3_GET, .query = ask->query};
}

/* One question; *truncated: the server has more. */
static tr_status ask_for_more(s3_store *store, page_in_making *making, bool *truncated, tr_error *error) {
  s3_ask ask = {.limit_bytes = LIST_ANSWER_BYTES};
  char before[TR_KEY_BYTES];
  memcpy(before, making->last, sizeof before);
  /* Asked for one key below a prefix that is a key itself, MinIO says that there are no others. */
  const size_t wanted = making->max_keys - making->page.count;
  write_query(&ask, making->prefix, making->last, wanted > 1 ? wanted : 2);
  tr_status status = s3_ask_run(store, &ask, error);
  if (status == TR_OK) status = s3_answer_objects(ask.answer, ask.answer_bytes, add_object, making, truncated, error);
  s3_ask_fini(store, &ask);
  if (status == TR_OK && *truncated && strcmp(before, making->last) == 0) {
    return tr_fail(error, TR_ERR_CORRUPT, "s3: the server's listing says that there is more, and gives nothing");
  }
  return status;
}

static tr_status fill(s3_store *store, page_in_making *making, tr_error *error) {
  bool truncated = true;
  while (truncated && making->page.count < making->max_keys) TR_TRY(ask_for_more(store, making, &truncated, error));
  making->more = making->more || truncated;
  return TR_OK;
}

tr_status s3_list(void *self, const char *prefix, const char *after, size_t max_keys, tr_list_page *page,
                  tr_error *error) {
  s3_store *store = self;
  if (max_keys == 0 || max_keys > PAGE_KEYS) {
    return tr_fail(error, TR_ERR_INVALID, "store: a page has 1 to %d keys, not %zu", (int)PAGE_KEYS, max_keys);
  }
  if (strlen(prefix) >= TR_KEY_BYTES || (after != NULL && strlen(after) >= TR_KEY_BYTES)) {
    return tr_fail(error, TR_ERR_INVALID, "store: a prefix is longer than %d bytes", TR_KEY_BYTES - 1);
  }
  page_in_making making = {.max_keys = max_keys, .prefix = prefix};
  TR_TRY(tr_arena_create(store->allocator, CHUNK_BYTES, &making.arena, error));
  making.page.memory = making.arena;
  making.page.entries = tr_arena_alloc(making.arena, max_keys * sizeof *making.page.entries);
  if (after != NULL) memcpy(making.last, after, strlen(after) + 1);
  tr_status status = making.page.entries != NULL ? fill(store, &making, error)
                                                 : tr_fail_memory(error, "a listing", max_keys);
  if (status != TR_OK) {
    tr_arena_destroy(making.arena);
    return status;
  }
  if (making.more) memcpy(making.page.next, making.last, sizeof making.page.next);
  *page = making.page;
  return TR_OK;
}

void s3_list_free(void *self, tr_list_page *page) {
  (void)self;
  tr_arena_destroy(page->memory);
  *page = (tr_list_page){0};
}
