/* Listing a folder tree as an object store lists keys: sorted bytewise, below a prefix, after a key, by pages.
 *
 * Within a folder the names are sorted with a '/' behind the folders' ("a.b" < "a/b" < "ab"), so a walk in that order
 * meets the keys in theirs, and whole folders before `after` are passed over unread. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#include "file_private.h"
#include "store_key.h"

typedef struct list_walk {
  const file_store *store;
  const char *prefix;
  const char *after; /* "" for none */
  size_t max_keys;
  tr_arena *arena;
  tr_list_entry *entries;
  size_t count;
  bool full; /* a key beyond max_keys was met */
  tr_error *error;
  char key[TR_KEY_BYTES]; /* the folder being walked, with a slash at its end unless it is the root */
} list_walk;

typedef struct name_list {
  char **items; /* folders end in '/' */
  size_t count, capacity;
} name_list;

static int compare(const void *a, const void *b) { return strcmp(*(char *const *)a, *(char *const *)b); }

static void names_free(const list_walk *walk, name_list *names) {
  for (size_t i = 0; i < names->count; i++) tr_free(walk->store->allocator, names->items[i]);
  tr_free(walk->store->allocator, names->items);
}

/* What an entry is: 0 passed over, 'f' a file (or a link to one), 'd' a folder. */
static char kind_of(int folder, const struct dirent *entry) {
  if (store_file_is_temporary(entry->d_name) || strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
    return 0;
  struct stat found;
  switch (entry->d_type) {
    case DT_REG: return 'f';
    case DT_DIR: return 'd';
    case DT_LNK: return fstatat(folder, entry->d_name, &found, 0) == 0 && S_ISREG(found.st_mode) ? 'f' : 0;
    case DT_UNKNOWN:
      if (fstatat(folder, entry->d_name, &found, AT_SYMLINK_NOFOLLOW) != 0) return 0;
      if (S_ISDIR(found.st_mode)) return 'd';
      return fstatat(folder, entry->d_name, &found, 0) == 0 && S_ISREG(found.st_mode) ? 'f' : 0;
    default: return 0;
  }
}

static tr_status names_add(const list_walk *walk, name_list *names, const char *name, bool folder) {
  const tr_allocator *allocator = walk->store->allocator;
  TR_TRY(tr_reserve(allocator, (void **)&names->items, &names->capacity, names->count + 1, sizeof *names->items,
                    walk->error));
  char *copy = tr_asprintf(allocator, folder ? "%s/" : "%s", name);
  if (copy == NULL) return tr_fail_memory(walk->error, "a listing", strlen(name));
  names->items[names->count++] = copy;
  return TR_OK;
}

static tr_status read_folder(const list_walk *walk, const char *path, name_list *names) {
  DIR *folder = opendir(path);
  if (folder == NULL) {
    /* Not there, or gone meanwhile: no keys. */
    if (errno == ENOENT || errno == ENOTDIR) return TR_OK;
    return tr_fail_errno(walk->error, tr_status_from_errno(errno), errno, "listing %s", path);
  }
  tr_status status = TR_OK;
  while (status == TR_OK) {
    errno = 0;
    const struct dirent *entry = readdir(folder);
    if (entry == NULL) {
      if (errno != 0) status = tr_fail_errno(walk->error, TR_ERR_IO, errno, "listing %s", path);
      break;
    }
    const char kind = kind_of(dirfd(folder), entry);
    if (kind != 0) status = names_add(walk, names, entry->d_name, kind == 'd');
  }
  closedir(folder);
  if (names->count > 0) qsort(names->items, names->count, sizeof *names->items, compare);
  return status;
}

/* Whether a key, or any key below a folder (which ends in '/'), can be in the answer. */
static bool wanted(const list_walk *walk, const char *key, bool folder) {
  const size_t key_bytes = strlen(key), prefix_bytes = strlen(walk->prefix);
  const size_t common = folder && key_bytes < prefix_bytes ? key_bytes : prefix_bytes;
  if (strncmp(key, walk->prefix, common) != 0) return false;
  if (walk->after[0] == '\0') return true;
  if (folder && strncmp(key, walk->after, key_bytes) == 0) return true;
  return strcmp(key, walk->after) > 0;
}

static tr_status add_key(list_walk *walk, const char *path) {
  struct stat found;
  if (stat(path, &found) != 0) {
    if (errno == ENOENT || errno == ELOOP) return TR_OK; /* deleted meanwhile */
    return tr_fail_errno(walk->error, tr_status_from_errno(errno), errno, "listing %s", path);
  }
  if (walk->count == walk->max_keys) {
    walk->full = true;
    return TR_OK;
  }
  tr_list_entry *entry = &walk->entries[walk->count];
  entry->key = tr_arena_strdup(walk->arena, walk->key);
  if (entry->key == NULL) return tr_fail_memory(walk->error, "a listing", strlen(walk->key));
  store_file_info(&found, &entry->info);
  walk->count++;
  return TR_OK;
}

static tr_status walk_folder(list_walk *walk) {
  char path[PATH_MAX];
  const size_t length = strlen(walk->key);
  TR_TRY(store_file_path(walk->store, walk->key, path, walk->error));
  name_list names = {0};
  tr_status status = read_folder(walk, path, &names);
  for (size_t i = 0; i < names.count && status == TR_OK && !walk->full; i++) {
    const size_t name_bytes = strlen(names.items[i]);
    /* Longer than a key may be: no request could name it. */
    if (length + name_bytes >= sizeof walk->key) continue;
    memcpy(walk->key + length, names.items[i], name_bytes + 1);
    const bool folder = names.items[i][name_bytes - 1] == '/';
    if (wanted(walk, walk->key, folder)) {
      if (folder) {
        status = walk_folder(walk);
      } else {
        status = store_file_path(walk->store, walk->key, path, walk->error);
        if (status == TR_OK) status = add_key(walk, path);
      }
    }
    walk->key[length] = '\0';
  }
  names_free(walk, &names);
  return status;
}

tr_status store_file_list(void *self, const char *prefix, const char *after, size_t max_keys, tr_list_page *page,
                          tr_error *error) {
  const file_store *store = self;
  if (prefix == NULL) prefix = "";
  if (max_keys == 0 || max_keys > 1000 || strlen(prefix) >= TR_KEY_BYTES) {
    return tr_fail(error, TR_ERR_INVALID, "store: a page of %zu keys, or a prefix too long", max_keys);
  }
  list_walk walk = {
      .store = store, .prefix = prefix, .after = after != NULL ? after : "", .max_keys = max_keys, .error = error};
  /* The walk starts in the last folder that the prefix names. */
  const char *slash = strrchr(prefix, '/');
  if (slash != NULL) {
    memcpy(walk.key, prefix, (size_t)(slash - prefix));
    TR_TRY(tr_store_key_check(walk.key, error));
    walk.key[slash - prefix] = '/';
  }
  TR_TRY(tr_arena_create(store->allocator, 16 << 10, &walk.arena, error));
  walk.entries = tr_arena_alloc(walk.arena, max_keys * sizeof *walk.entries);
  tr_status status = walk.entries != NULL ? walk_folder(&walk) : tr_fail_memory(error, "a listing", max_keys);
  if (status != TR_OK) {
    tr_arena_destroy(walk.arena);
    return status;
  }
  *page = (tr_list_page){.entries = walk.entries, .count = walk.count, .memory = walk.arena};
  if (walk.full) strcpy(page->next, walk.entries[walk.count - 1].key);
  return TR_OK;
}

void store_file_list_free(void *self, tr_list_page *page) {
  (void)self;
  tr_arena_destroy(page->memory);
  *page = (tr_list_page){0};
}
