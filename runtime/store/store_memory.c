/* The memory store: objects in a sorted table, for tests and simulations, with the same rules as any other store.
 *
 * A reader holds a reference to an object while it copies from it, so that a put or delete meanwhile takes the name
 * away, never the bytes. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "store_engine.h"
#include "store_key.h"

enum { THREADS = 2 };

typedef struct memory_object {
  uint32_t references; /* under the store's lock */
  tr_object_info info;
  char *key;
  char *data;
} memory_object;

typedef struct memory_store {
  const tr_allocator *allocator;
  const tr_clock *clock;
  uint64_t capacity_bytes;
  tr_store_engine *engine;

  /* Under `lock`. */
  pthread_mutex_t lock;
  memory_object **objects; /* sorted by key */
  size_t count, capacity;
  uint64_t used_bytes;
  uint64_t versions;
} memory_store;

typedef struct memory_part {
  uint32_t number;
  uint64_t offset;
  char *data;
  size_t bytes;
} memory_part;

typedef struct memory_upload {
  char *key;

  /* Under the store's lock. */
  memory_part *parts;
  size_t count, capacity;
} memory_upload;

static void object_free(memory_store *store, memory_object *object) {
  tr_free(store->allocator, object->key);
  tr_free(store->allocator, object->data);
  tr_free(store->allocator, object);
}

/* With the lock held. */
static void object_release(memory_store *store, memory_object *object) {
  if (--object->references == 0) object_free(store, object);
}

/* The first index whose key is not below `key`; with the lock held. */
static size_t lower_bound(const memory_store *store, const char *key) {
  size_t low = 0, high = store->count;
  while (low < high) {
    const size_t middle = low + (high - low) / 2;
    if (strcmp(store->objects[middle]->key, key) < 0) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  return low;
}

static memory_object *find(const memory_store *store, const char *key) {
  const size_t at = lower_bound(store, key);
  return at < store->count && strcmp(store->objects[at]->key, key) == 0 ? store->objects[at] : NULL;
}

static memory_object *acquire(memory_store *store, const char *key) {
  pthread_mutex_lock(&store->lock);
  memory_object *found = find(store, key);
  if (found != NULL) found->references++;
  pthread_mutex_unlock(&store->lock);
  return found;
}

static void release(memory_store *store, memory_object *object) {
  pthread_mutex_lock(&store->lock);
  object_release(store, object);
  pthread_mutex_unlock(&store->lock);
}

static tr_status not_found(const char *key, tr_error *error) {
  return tr_fail(error, TR_ERR_NOT_FOUND, "memory store: '%s' is not there", key);
}

static tr_status get(memory_store *store, tr_store_request *request, tr_error *error) {
  memory_object *found = acquire(store, request->key);
  if (found == NULL) return not_found(request->key, error);
  tr_status status = TR_OK;
  if (request->if_match != NULL && strcmp(request->if_match, found->info.etag) != 0) {
    status = tr_fail(error, TR_ERR_CHANGED, "memory store: '%s' changed: it is no longer the version %s", request->key,
                     request->if_match);
  } else if (request->offset < found->info.bytes) {
    const uint64_t left = found->info.bytes - request->offset;
    request->bytes = left < request->buffer_bytes ? (size_t)left : request->buffer_bytes;
    if (request->bytes > 0) memcpy(request->buffer, found->data + request->offset, request->bytes);
  }
  if (status == TR_OK) {
    request->first_byte_ns = tr_clock_now_ns(store->clock);
    request->info = found->info;
  }
  release(store, found);
  return status;
}

static tr_status head(memory_store *store, tr_store_request *request, tr_error *error) {
  memory_object *found = acquire(store, request->key);
  if (found == NULL) return not_found(request->key, error);
  request->info = found->info;
  release(store, found);
  return TR_OK;
}

static tr_status delete_object(memory_store *store, const char *key) {
  pthread_mutex_lock(&store->lock);
  const size_t at = lower_bound(store, key);
  if (at < store->count && strcmp(store->objects[at]->key, key) == 0) {
    memory_object *removed = store->objects[at];
    store->used_bytes -= removed->info.bytes;
    store->count--;
    memmove(store->objects + at, store->objects + at + 1, (store->count - at) * sizeof *store->objects);
    object_release(store, removed);
  }
  pthread_mutex_unlock(&store->lock);
  return TR_OK;
}

/* Takes its place under its key; with the lock held. The object stays the caller's where this fails. */
static tr_status insert(memory_store *store, memory_object *made, bool if_absent, tr_error *error) {
  const size_t at = lower_bound(store, made->key);
  memory_object *old = at < store->count && strcmp(store->objects[at]->key, made->key) == 0 ? store->objects[at] : NULL;
  if (old != NULL && if_absent) {
    return tr_fail(error, TR_ERR_EXISTS, "memory store: '%s' is already there", made->key);
  }
  const uint64_t used = store->used_bytes - (old != NULL ? old->info.bytes : 0);
  if (store->capacity_bytes != 0 && (used > store->capacity_bytes || made->info.bytes > store->capacity_bytes - used)) {
    return tr_fail(error, TR_ERR_NO_SPACE, "memory store: '%s' needs %llu bytes, %llu of %llu are used", made->key,
                   (unsigned long long)made->info.bytes, (unsigned long long)used,
                   (unsigned long long)store->capacity_bytes);
  }
  if (old == NULL) {
    TR_TRY(tr_reserve(store->allocator, (void **)&store->objects, &store->capacity, store->count + 1,
                      sizeof *store->objects, error));
    memmove(store->objects + at + 1, store->objects + at, (store->count - at) * sizeof *store->objects);
    store->count++;
  } else {
    object_release(store, old);
  }
  store->objects[at] = made;
  store->used_bytes = used + made->info.bytes;
  snprintf(made->info.etag, sizeof made->info.etag, "memory-%llu", (unsigned long long)++store->versions);
  return TR_OK;
}

static memory_object *object_create(memory_store *store, const char *key, uint64_t bytes) {
  memory_object *made = tr_calloc(store->allocator, 1, sizeof *made);
  if (made == NULL) return NULL;
  made->references = 1;
  made->info.bytes = bytes;
  made->info.modified_ns = tr_clock_wall_ns(store->clock);
  made->key = tr_strdup(store->allocator, key);
  made->data = bytes <= SIZE_MAX / 2 ? tr_alloc(store->allocator, (size_t)bytes) : NULL;
  if (made->key != NULL && made->data != NULL) return made;
  object_free(store, made);
  return NULL;
}

static tr_status put(memory_store *store, tr_store_request *request, tr_error *error) {
  memory_object *made = object_create(store, request->key, request->data_bytes);
  if (made == NULL) return tr_fail_memory(error, request->key, request->data_bytes);
  if (request->data_bytes > 0) memcpy(made->data, request->data, request->data_bytes);
  pthread_mutex_lock(&store->lock);
  const tr_status status = insert(store, made, request->if_absent, error);
  if (status == TR_OK) request->info = made->info;
  pthread_mutex_unlock(&store->lock);
  if (status != TR_OK) {
    object_free(store, made);
    return status;
  }
  request->bytes = request->data_bytes;
  return TR_OK;
}

static tr_status put_part(memory_store *store, tr_store_request *request, tr_error *error) {
  memory_upload *upload = request->upload;
  memory_part added = {.number = request->part, .offset = request->offset, .bytes = request->data_bytes};
  added.data = tr_alloc(store->allocator, added.bytes);
  if (added.data == NULL) return tr_fail_memory(error, "a part", added.bytes);
  if (added.bytes > 0) memcpy(added.data, request->data, added.bytes);
  pthread_mutex_lock(&store->lock);
  size_t i = 0;
  while (i < upload->count && upload->parts[i].number != added.number) i++;
  tr_status status = TR_OK;
  if (i < upload->count) {
    tr_free(store->allocator, upload->parts[i].data);
    upload->parts[i] = added;
  } else {
    status = tr_reserve(store->allocator, (void **)&upload->parts, &upload->capacity, i + 1, sizeof added, error);
    if (status == TR_OK) upload->parts[upload->count++] = added;
  }
  pthread_mutex_unlock(&store->lock);
  if (status != TR_OK) {
    tr_free(store->allocator, added.data);
    return status;
  }
  request->bytes = added.bytes;
  return TR_OK;
}

static tr_status execute(void *self, tr_store_request *request, tr_error *error) {
  memory_store *store = self;
  switch (request->verb) {
    case TR_STORE_GET: return get(store, request, error);
    case TR_STORE_PUT: return put(store, request, error);
    case TR_STORE_HEAD: return head(store, request, error);
    case TR_STORE_DELETE: return delete_object(store, request->key);
    case TR_STORE_PART: return put_part(store, request, error);
  }
  return tr_fail(error, TR_ERR_INVALID, "store: verb %d is unknown", (int)request->verb);
}

static tr_status submit(void *self, tr_store_request *request, tr_error *error) {
  return tr_store_engine_submit(((memory_store *)self)->engine, request, error);
}

static void run(void *self, tr_store_request *request) { tr_store_engine_run(((memory_store *)self)->engine, request); }

/* With the lock held: the entries of one page, from index `at` on. */
static tr_status fill_page(const memory_store *store, size_t at, const char *prefix, size_t max_keys, tr_arena *arena,
                           tr_list_page *page, tr_error *error) {
  const size_t prefix_bytes = strlen(prefix);
  for (; at < store->count && strncmp(store->objects[at]->key, prefix, prefix_bytes) == 0; at++) {
    if (page->count == max_keys) {
      strcpy(page->next, page->entries[max_keys - 1].key);
      return TR_OK;
    }
    tr_list_entry *entry = &page->entries[page->count];
    entry->key = tr_arena_strdup(arena, store->objects[at]->key);
    if (entry->key == NULL) return tr_fail_memory(error, "a listing", prefix_bytes);
    entry->info = store->objects[at]->info;
    page->count++;
  }
  return TR_OK;
}

static tr_status list(void *self, const char *prefix, const char *after, size_t max_keys, tr_list_page *page,
                      tr_error *error) {
  memory_store *store = self;
  if (prefix == NULL) prefix = "";
  if (max_keys == 0 || max_keys > 1000 || strlen(prefix) >= TR_KEY_BYTES) {
    return tr_fail(error, TR_ERR_INVALID, "store: a page of %zu keys, or a prefix too long", max_keys);
  }
  tr_arena *arena = NULL;
  TR_TRY(tr_arena_create(store->allocator, 16 << 10, &arena, error));
  tr_list_page made = {.memory = arena};
  made.entries = tr_arena_alloc(arena, max_keys * sizeof *made.entries);
  tr_status status = made.entries != NULL ? TR_OK : tr_fail_memory(error, "a listing", max_keys);
  if (status == TR_OK) {
    pthread_mutex_lock(&store->lock);
    size_t at = lower_bound(store, prefix);
    if (after != NULL && strcmp(after, prefix) >= 0) {
      at = lower_bound(store, after);
      if (at < store->count && strcmp(store->objects[at]->key, after) == 0) at++;
    }
    status = fill_page(store, at, prefix, max_keys, arena, &made, error);
    pthread_mutex_unlock(&store->lock);
  }
  if (status != TR_OK) {
    tr_arena_destroy(arena);
    return status;
  }
  *page = made;
  return TR_OK;
}

static void list_free(void *self, tr_list_page *page) {
  (void)self;
  tr_arena_destroy(page->memory);
  *page = (tr_list_page){0};
}

static tr_status upload_begin(void *self, const char *key, void **upload, tr_error *error) {
  memory_store *store = self;
  TR_TRY(tr_store_key_check(key, error));
  memory_upload *made = tr_calloc(store->allocator, 1, sizeof *made);
  if (made == NULL) return tr_fail_memory(error, "an upload", sizeof *made);
  made->key = tr_strdup(store->allocator, key);
  if (made->key == NULL) {
    tr_free(store->allocator, made);
    return tr_fail_memory(error, "an upload", strlen(key));
  }
  *upload = made;
  return TR_OK;
}

static void upload_abort(void *self, void *handle) {
  if (handle == NULL) return;
  memory_store *store = self;
  memory_upload *upload = handle;
  for (size_t i = 0; i < upload->count; i++) tr_free(store->allocator, upload->parts[i].data);
  tr_free(store->allocator, upload->parts);
  tr_free(store->allocator, upload->key);
  tr_free(store->allocator, upload);
}

static int by_number(const void *a, const void *b) {
  const uint32_t x = ((const memory_part *)a)->number, y = ((const memory_part *)b)->number;
  return x < y ? -1 : x > y;
}

static tr_status join_parts(memory_store *store, memory_upload *upload, memory_object **out, tr_error *error) {
  if (upload->count > 0) qsort(upload->parts, upload->count, sizeof *upload->parts, by_number);
  uint64_t total = 0;
  for (size_t i = 0; i < upload->count; i++) {
    if (upload->parts[i].number != i + 1 || upload->parts[i].offset != total) {
      return tr_fail(error, TR_ERR_INVALID, "upload of %s: part %zu is missing or does not begin at byte %llu",
                     upload->key, i + 1, (unsigned long long)total);
    }
    total += upload->parts[i].bytes;
  }
  memory_object *made = object_create(store, upload->key, total);
  if (made == NULL) return tr_fail_memory(error, upload->key, (size_t)total);
  for (size_t i = 0; i < upload->count; i++) {
    const memory_part *part = &upload->parts[i];
    if (part->bytes > 0) memcpy(made->data + part->offset, part->data, part->bytes);
  }
  *out = made;
  return TR_OK;
}

static tr_status upload_commit(void *self, void *handle, bool if_absent, tr_error *error) {
  memory_store *store = self;
  memory_object *made = NULL;
  tr_status status = join_parts(store, handle, &made, error);
  if (status == TR_OK) {
    pthread_mutex_lock(&store->lock);
    status = insert(store, made, if_absent, error);
    pthread_mutex_unlock(&store->lock);
    if (status != TR_OK) object_free(store, made);
  }
  upload_abort(store, handle);
  return status;
}

static void destroy(void *self) {
  memory_store *store = self;
  tr_store_engine_destroy(store->engine);
  for (size_t i = 0; i < store->count; i++) object_free(store, store->objects[i]);
  tr_free(store->allocator, store->objects);
  pthread_mutex_destroy(&store->lock);
  tr_free(store->allocator, store);
}

static const tr_store_ops ops = {
    .struct_bytes = sizeof ops,
    .name = "memory",
    .submit = submit,
    .run = run,
    .list = list,
    .list_free = list_free,
    .upload_begin = upload_begin,
    .upload_commit = upload_commit,
    .upload_abort = upload_abort,
    .part_bytes_min = 1,
    .destroy = destroy,
};

tr_status tr_store_memory_open(const tr_store_memory_options *options, tr_store **out, tr_error *error) {
  if (options == NULL || options->struct_bytes != sizeof *options) {
    return tr_fail(error, TR_ERR_INVALID, "store: the memory store's options are of another version");
  }
  memory_store *store = tr_calloc(options->allocator, 1, sizeof *store);
  if (store == NULL) return tr_fail_memory(error, "a memory store", sizeof *store);
  store->allocator = options->allocator;
  store->clock = options->clock;
  store->capacity_bytes = options->capacity_bytes;
  pthread_mutex_init(&store->lock, NULL);
  const tr_store_engine_options engine = {
      .allocator = options->allocator, .clock = options->clock, .threads = THREADS, .execute = execute, .self = store};
  tr_status status = tr_store_engine_create(&engine, &store->engine, error);
  if (status == TR_OK) status = tr_store_create(options->allocator, &ops, store, out, error);
  if (status != TR_OK) destroy(store);
  return status;
}
