/* trainrun store get: objects to files of this machine, or one to standard output.
 *
 * A file of the object's size and time is taken for the object, so a copy that was interrupted goes on: with the next
 * file, and inside a large one with the next range. */
#include "part_file.h"
#include "store_copy.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* ---- Ranges of one object, several under way ----------------------------------------------------------------------- */

typedef struct ranges {
  tr_copy *copy;
  const char *key;
  const tr_object_info *info;
  uint64_t count;
  tr_store_request requests[BUFFERS_MAX];
  uint32_t oldest, pending;
} ranges;

static tr_status ask(ranges *r, uint64_t range, void *buffer, tr_error *error) {
  const uint64_t chunk = r->copy->buffers.bytes, left = r->info->bytes - range * chunk;
  tr_store_request *request = &r->requests[(r->oldest + r->pending) % BUFFERS_MAX];
  *request = (tr_store_request){.struct_bytes = sizeof *request,
                                .verb = TR_STORE_GET,
                                .key = r->key,
                                .offset = range * chunk,
                                .buffer = buffer,
                                .buffer_bytes = (size_t)(left < chunk ? left : chunk),
                                .if_match = r->info->etag[0] != '\0' ? r->info->etag : NULL};
  const tr_status status = tr_store_submit(r->copy->from.store, request, error);
  if (status == TR_OK) {
    r->pending++;
  } else {
    buffers_give(&r->copy->buffers, buffer);
  }
  return status;
}

/* Hands the oldest range to `sink`, unless it (or what came before) failed. */
static tr_status receive(ranges *r, tr_status before,
                         tr_status (*sink)(void *to, uint64_t range, const void *data, size_t bytes, tr_error *error),
                         void *to, tr_error *error) {
  tr_store_request *request = &r->requests[r->oldest];
  tr_status status = tr_store_wait(r->copy->from.store, request, before == TR_OK ? error : NULL);
  if (status == TR_OK && request->bytes != request->buffer_bytes) {
    status = tr_fail(before == TR_OK ? error : NULL, TR_ERR_CHANGED, "%s became shorter while it was read", r->key);
  }
  if (status == TR_OK && before == TR_OK) {
    status = sink(to, request->offset / r->copy->buffers.bytes, request->buffer, request->bytes, error);
    progress_bytes(&r->copy->progress, request->bytes);
  }
  buffers_give(&r->copy->buffers, request->buffer);
  r->oldest = (r->oldest + 1) % BUFFERS_MAX;
  r->pending--;
  return before != TR_OK ? before : status;
}

/* All ranges that `has` does not know (NULL: all), in order. */
static tr_status fetch(tr_copy *copy, const tr_copy_item *item, const tr_part_file *has,
                       tr_status (*sink)(void *to, uint64_t range, const void *data, size_t bytes, tr_error *error),
                       void *to, tr_error *error) {
  ranges r = {.copy = copy, .key = item->key, .info = &item->info};
  const uint64_t chunk = copy->buffers.bytes;
  r.count = (item->info.bytes + chunk - 1) / chunk;
  tr_status status = TR_OK;
  for (uint64_t range = 0; range < r.count && status == TR_OK; range++) {
    if (atomic_load(&copy->stop)) status = tr_fail(error, TR_ERR_STOPPED, "stopped");
    if (has != NULL && part_file_has(has, range)) {
      const uint64_t left = item->info.bytes - range * chunk;
      progress_bytes(&copy->progress, left < chunk ? left : chunk);
      continue;
    }
    void *buffer = NULL;
    while (status == TR_OK && (buffer = buffers_take(&copy->buffers, r.pending == 0)) == NULL) {
      if (r.pending == 0) {
        status = tr_fail_memory(error, "a range of an object", (size_t)chunk);
      } else {
        status = receive(&r, status, sink, to, error);
      }
    }
    if (buffer != NULL) status = ask(&r, range, buffer, error);
  }
  while (r.pending > 0) status = receive(&r, status, sink, to, error);
  return status;
}

/* ---- To files ---------------------------------------------------------------------------------------------------- */

static bool is_folder(const char *path) {
  struct stat found;
  return stat(path, &found) == 0 && S_ISDIR(found.st_mode);
}

/* Where an object goes. A key comes from outside: it stays below the folder. */
static tr_status path_of(const tr_copy *copy, const tr_copy_item *item, char path[PATH_MAX], tr_error *error) {
  const char *to = location_path(copy->to);
  const size_t length = strlen(to);
  const bool slash = length > 0 && to[length - 1] == '/';
  if (copy->from.kind == LOCATION_OBJECT && !slash && !is_folder(to)) {
    snprintf(path, PATH_MAX, "%s", to);
    return TR_OK;
  }
  for (const char *part = item->name;; part++) {
    const size_t bytes = strcspn(part, "/");
    if (bytes == 0 || (bytes == 1 && part[0] == '.') || (bytes == 2 && part[0] == '.' && part[1] == '.')) {
      return tr_fail(error, TR_ERR_INVALID, "'%s' cannot be a path: it has an empty part, '.' or '..'", item->key);
    }
    part += bytes;
    if (*part == '\0') break;
  }
  if ((size_t)snprintf(path, PATH_MAX, "%s%s%s", to, slash || length == 0 ? "" : "/", item->name) >= PATH_MAX) {
    return tr_fail(error, TR_ERR_INVALID, "'%s': the path below '%s' is too long", item->key, to);
  }
  return TR_OK;
}

/* Times of a listing may have parts of a second that those of an answer lack. */
static bool is_there(const char *path, const tr_object_info *info) {
  struct stat found;
  return stat(path, &found) == 0 && S_ISREG(found.st_mode) && (uint64_t)found.st_size == info->bytes &&
         found.st_mtim.tv_sec == info->modified_ns / 1000000000;
}

static tr_status write_range(void *to, uint64_t range, const void *data, size_t bytes, tr_error *error) {
  return part_file_write(to, range, data, bytes, error);
}

/* A store checks what it reads in one piece; of ranges only whoever has them all can tell. A listing says no checksum. */
static tr_status check_whole(const tr_copy *copy, const tr_copy_item *item, const tr_part_file *file, tr_error *error) {
  tr_object_info info = item->info;
  if (file->ranges <= 1) return TR_OK;
  if (info.crc32c[0] == '\0') TR_TRY(tr_store_head(copy->from.store, item->key, &info, error));
  if (strcmp(info.etag, item->info.etag) != 0) {
    return tr_fail(error, TR_ERR_CHANGED, "it changed while it was read");
  }
  if (part_file_is(file, info.crc32c)) return TR_OK;
  return tr_fail(
      error, TR_ERR_CORRUPT,
      "the bytes do not have the checksum that the store says (CRC32C %s): damaged in the store or on the way",
      info.crc32c);
}

static tr_status get_one(void *self, void *piece, tr_error *error) {
  tr_copy *copy = self;
  const tr_copy_item *item = piece;
  char path[PATH_MAX], url[2 * TR_KEY_BYTES];
  TR_TRY(path_of(copy, item, path, error));
  if (is_folder(path)) return tr_fail(error, TR_ERR_EXISTS, "%s is a folder, '%s' is an object", path, item->key);
  if (!copy->cli->force && is_there(path, &item->info)) {
    atomic_fetch_add(&copy->skipped_objects, 1);
    progress_bytes(&copy->progress, item->info.bytes);
    progress_done(&copy->progress);
    return TR_OK;
  }
  tr_part_file file;
  TR_TRY(part_file_open(&file, path, &item->info, copy->buffers.bytes, error));
  tr_status status = fetch(copy, item, &file, write_range, &file, error);
  if (status == TR_OK) status = check_whole(copy, item, &file, error);
  if (status != TR_OK) {
    /* A large file is gone on with; of one that changed, or has one range, nothing is worth keeping. */
    part_file_leave(&file, status == TR_ERR_CHANGED || status == TR_ERR_CORRUPT || file.ranges <= 1);
    location_url_of(&copy->from, copy->from.kind == LOCATION_FOLDER ? item->name : "", url, sizeof url);
    if (copy->from.kind == LOCATION_OBJECT) snprintf(url, sizeof url, "%s", copy->from.url);
    return status == TR_ERR_STOPPED ? status : tr_error_context(error, status, "%s", url);
  }
  TR_TRY(part_file_finish(&file, item->info.modified_ns, error));
  atomic_fetch_add(&copy->copied_objects, 1);
  atomic_fetch_add(&copy->copied_bytes, item->info.bytes);
  progress_done(&copy->progress);
  return TR_OK;
}

/* ---- To standard output ------------------------------------------------------------------------------------------ */

static tr_status write_out(void *to, uint64_t range, const void *data, size_t bytes, tr_error *error) {
  const char *at = data;
  ((tr_part_file *)to)->crcs[range] = tr_crc32c(0, data, bytes);
  while (bytes > 0) {
    const ssize_t written = write(STDOUT_FILENO, at, bytes);
    if (written < 0 && errno == EINTR) continue;
    if (written <= 0) return tr_fail_errno(error, TR_ERR_IO, errno, "writing to standard output");
    at += written;
    bytes -= (size_t)written;
  }
  return TR_OK;
}

static tr_status print_object(tr_copy *copy, tr_error *error) {
  if (copy->from.kind == LOCATION_FOLDER) {
    return tr_fail(error, TR_ERR_INVALID, "%s is a folder; one object goes to standard output", copy->from.url);
  }
  tr_copy_item item = {.info = copy->from.info};
  snprintf(item.key, sizeof item.key, "%s", copy->from.key);
  TR_TRY(copy_begin(copy, error));
  /* What was written is written; a wrong checksum is at least said. */
  const uint64_t chunk = copy->buffers.bytes;
  tr_part_file sums = {.bytes = item.info.bytes, .chunk = chunk, .ranges = (item.info.bytes + chunk - 1) / chunk};
  sums.crcs = tr_calloc(NULL, (size_t)sums.ranges + 1, sizeof *sums.crcs);
  if (sums.crcs == NULL) return tr_fail_memory(error, "checksums", (size_t)sums.ranges);
  tr_status status = fetch(copy, &item, NULL, write_out, &sums, error);
  if (status == TR_OK) status = check_whole(copy, &item, &sums, error);
  tr_free(NULL, sums.crcs);
  return status == TR_OK ? TR_OK : tr_error_context(error, status, "%s", copy->from.url);
}

int store_get(const tr_cli *cli) {
  tr_copy copy = {.cli = cli, .verb = "get", .to = cli->words[2]};
  tr_error error;
  if (!location_is_local(copy.to)) {
    fprintf(stderr, "trainrun: '%s': get writes to this machine; 'trainrun store put' copies to a bucket\n", copy.to);
    return EXIT_USAGE;
  }
  int code = remote_open(&copy.remote, cli);
  if (code == 0) {
    tr_status status = location_find(copy.remote.stores, cli->words[1], cli->recursive, &copy.from, &error);
    if (status == TR_OK && strcmp(copy.to, "-") == 0) {
      status = print_object(&copy, &error);
    } else if (status == TR_OK) {
      status = copy_begin(&copy, &error);
      if (status == TR_OK) code = copy_run(&copy, get_one);
    }
    if (status != TR_OK) code = remote_failed(&error);
    if (copy.buffers.bytes > 0) buffers_fini(&copy.buffers);
  }
  remote_close(&copy.remote);
  return code;
}
