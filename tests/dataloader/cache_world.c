/* A cache in front of a store that counts: see cache_world.h. */
#include "dataloader/cache_world.h"

#include <dirent.h>
#include <sys/mman.h>
#include <sys/stat.h>

static void note_line(void *self, tr_log_level level, const char *line, size_t bytes) {
  cache_world *w = self;
  if (level > TR_LOG_WARNING) return;
  w->warnings++;
  snprintf(w->last_line, sizeof w->last_line, "%.*s", (int)bytes, line);
}

cache_world *world_make(const tr_allocator *allocator) {
  cache_world *w = calloc(1, sizeof *w);
  w->faults = mmap(NULL, sizeof *w->faults, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (w->faults == MAP_FAILED) abort();
  w->own_faults = true;
  w->allocator = allocator;
  tr_error e = {0};
  const tr_store_memory_options options = {.struct_bytes = sizeof options};
  const tr_log_options log = {
      .struct_bytes = sizeof log, .level = TR_LOG_INFO, .rank = -1, .write = note_line, .write_self = w};
  EXPECT_OK(tr_store_memory_open(&options, &w->memory, &e));
  EXPECT_OK(tr_log_create(&log, &w->log, &e));
  w->inner = ts_fault_store(w->memory, false, w->faults);
  return w;
}

void world_end(cache_world *w) {
  tr_cache_close(w->cache);
  tr_store_destroy(w->inner);
  tr_store_destroy(w->memory);
  tr_log_destroy(w->log);
  if (w->own_faults) munmap(w->faults, sizeof *w->faults);
  free(w);
}

void world_count_in(cache_world *w, ts_faults *faults) {
  tr_store_destroy(w->inner);
  munmap(w->faults, sizeof *w->faults);
  w->faults = faults;
  w->own_faults = false;
  w->inner = ts_fault_store(w->memory, false, faults);
}

static uint64_t word_at(int k, uint64_t version, uint64_t index) {
  uint64_t x = ((uint64_t)k << 48 ^ version << 40 ^ index) * 0x9E3779B97F4A7C15ull;
  x ^= x >> 29;
  return x * 0xBF58476D1CE4E5B9ull;
}

static uint8_t byte_at(int k, uint64_t version, uint64_t offset) {
  return (uint8_t)(word_at(k, version, offset / 8) >> (offset % 8 * 8));
}

bool world_right(int k, uint64_t version, uint64_t offset, const uint8_t *data, size_t count) {
  size_t i = 0;
  for (; i < count && (offset + i) % 8 != 0; i++) {
    if (data[i] != byte_at(k, version, offset + i)) return false;
  }
  for (; i + 8 <= count; i += 8) {
    uint64_t word;
    memcpy(&word, data + i, 8);
    if (word != word_at(k, version, (offset + i) / 8)) return false;
  }
  for (; i < count; i++) {
    if (data[i] != byte_at(k, version, offset + i)) return false;
  }
  return true;
}

static const char *key_of(int k, char key[16]) {
  snprintf(key, 16, "o%d", k);
  return key;
}

void world_put(cache_world *w, int k, uint64_t version, uint64_t size) {
  char key[16];
  tr_error e = {0};
  uint64_t *data = malloc((size + 7) / 8 * 8 + 8);
  for (uint64_t i = 0; i * 8 < size; i++) data[i] = word_at(k, version, i);
  EXPECT_OK(tr_store_put(w->inner, key_of(k, key), data, size, false, &e));
  free(data);
}

tr_status world_cache(cache_world *w, const char *dir, uint64_t dir_bytes, uint64_t memory_bytes,
                      const tr_exchange *exchange, tr_error *error) {
  const tr_cache_options options = {.struct_bytes = sizeof options,
                                    .allocator = w->allocator,
                                    .log = w->log,
                                    .dir = dir,
                                    .dir_bytes = dir_bytes,
                                    .memory_bytes = memory_bytes,
                                    .exchange = exchange};
  tr_cache *cache = NULL;
  TR_TRY(tr_cache_open(&options, &cache, error));
  const tr_status status = tr_cache_wrap(cache, w->inner, "test://bucket", &w->outer, error);
  if (status == TR_OK) {
    w->cache = cache;
  } else {
    tr_cache_close(cache);
  }
  return status;
}

void world_again(cache_world *w, const char *dir, uint64_t dir_bytes, uint64_t memory_bytes) {
  tr_error e = {0};
  tr_cache_close(w->cache);
  w->cache = NULL;
  EXPECT_OK(world_cache(w, dir, dir_bytes, memory_bytes, NULL, &e));
}

void world_etag(cache_world *w, int k, char etag[TR_ETAG_BYTES]) {
  char key[16];
  tr_object_info info;
  tr_error e = {0};
  EXPECT_OK(tr_store_head(w->inner, key_of(k, key), &info, &e));
  memcpy(etag, info.etag, TR_ETAG_BYTES);
}

tr_status world_read(cache_world *w, int k, const char *etag, uint64_t offset, void *buffer, size_t count,
                     size_t *moved, tr_error *error) {
  char key[16];
  tr_store_request request = {.struct_bytes = sizeof request,
                              .verb = TR_STORE_GET,
                              .key = key_of(k, key),
                              .offset = offset,
                              .buffer = buffer,
                              .buffer_bytes = count,
                              .if_match = etag,
                              .fresh = w->fresh};
  TR_TRY(tr_store_submit(w->outer, &request, error));
  TR_TRY(tr_store_wait(w->outer, &request, error));
  *moved = request.bytes;
  /* What the ledger divides a wait by. */
  cr_assert(request.submitted_ns > 0 && request.first_byte_ns >= request.submitted_ns &&
            request.done_ns >= request.first_byte_ns);
  return TR_OK;
}

int world_read_all(cache_world *w, int k, uint64_t version, uint64_t size, uint64_t step) {
  char etag[TR_ETAG_BYTES];
  world_etag(w, k, etag);
  uint8_t *buffer = malloc(step);
  int wrong = 0;
  for (uint64_t at = 0; at < size; at += step) {
    const uint64_t wanted = size - at < step ? size - at : step;
    size_t moved = 0;
    tr_error e = {0};
    if (world_read(w, k, etag, at, buffer, step, &moved, &e) != TR_OK || moved != wanted ||
        !world_right(k, version, at, buffer, moved)) {
      wrong++;
    }
  }
  free(buffer);
  return wrong;
}

tr_cache_stats world_stats(const cache_world *w) {
  tr_cache_stats stats = {.struct_bytes = sizeof stats};
  tr_cache_stats_get(w->cache, &stats);
  return stats;
}

size_t folder_files(const char *dir, char paths[][512], size_t room) {
  size_t count = 0;
  DIR *folder = opendir(dir);
  const struct dirent *entry;
  while (folder != NULL && (entry = readdir(folder)) != NULL) {
    if (strlen(entry->d_name) != 2 || strcmp(entry->d_name, "..") == 0) continue;
    char *inner = ts_format("%s/%s", dir, entry->d_name);
    DIR *sub = opendir(inner);
    const struct dirent *file;
    while (sub != NULL && (file = readdir(sub)) != NULL) {
      if (strstr(file->d_name, ".chunk") == NULL || count == room) continue;
      snprintf(paths[count++], 512, "%s/%s", inner, file->d_name);
    }
    if (sub != NULL) closedir(sub);
    free(inner);
  }
  if (folder != NULL) closedir(folder);
  return count;
}

uint64_t folder_bytes(const char *dir) {
  uint64_t sum = 0;
  struct stat st;
  DIR *folder = opendir(dir);
  const struct dirent *entry;
  while (folder != NULL && (entry = readdir(folder)) != NULL) {
    if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0 ||
        strcmp(entry->d_name, ".trainrun-cache") == 0) {
      continue;
    }
    char *path = ts_format("%s/%s", dir, entry->d_name);
    if (lstat(path, &st) == 0) sum += S_ISDIR(st.st_mode) ? folder_bytes(path) : (uint64_t)st.st_size;
    free(path);
  }
  if (folder != NULL) closedir(folder);
  return sum;
}
