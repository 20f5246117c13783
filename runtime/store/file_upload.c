/* Objects written in parts: each part goes straight to its place in one new file, which the commit makes visible. */
#include <pthread.h>
#include <stdlib.h>

#include "file_private.h"

typedef struct part {
  uint32_t number;
  uint64_t offset, bytes;
} part;

typedef struct file_upload {
  new_file file;

  /* Under `lock`: parts may be written by several threads at once. */
  pthread_mutex_t lock;
  part *parts;
  size_t count, capacity;
} file_upload;

tr_status store_file_upload_begin(void *self, const char *key, void **out, tr_error *error) {
  file_store *store = self;
  file_upload *made = tr_calloc(store->allocator, 1, sizeof *made);
  if (made == NULL) return tr_fail_memory(error, "an upload", sizeof *made);
  const tr_status status = store_file_begin(store, key, &made->file, error);
  if (status != TR_OK) {
    tr_free(store->allocator, made);
    return status;
  }
  pthread_mutex_init(&made->lock, NULL);
  *out = made;
  return TR_OK;
}

static void upload_free(file_store *store, file_upload *upload) {
  pthread_mutex_destroy(&upload->lock);
  tr_free(store->allocator, upload->parts);
  tr_free(store->allocator, upload);
}

/* A part that is sent again takes the place of the first. */
static tr_status remember(file_store *store, file_upload *upload, const part *added, tr_error *error) {
  pthread_mutex_lock(&upload->lock);
  size_t i = 0;
  while (i < upload->count && upload->parts[i].number != added->number) i++;
  tr_status status = TR_OK;
  if (i == upload->count) {
    status = tr_reserve(store->allocator, (void **)&upload->parts, &upload->capacity, i + 1, sizeof *added, error);
  }
  if (status == TR_OK) {
    upload->parts[i] = *added;
    if (i == upload->count) upload->count++;
  }
  pthread_mutex_unlock(&upload->lock);
  return status;
}

tr_status store_file_upload_part(file_store *store, tr_store_request *request, tr_error *error) {
  file_upload *upload = request->upload;
  TR_TRY(store_file_write(&upload->file, request->data, request->data_bytes, request->offset, error));
  const part added = {.number = request->part, .offset = request->offset, .bytes = request->data_bytes};
  TR_TRY(remember(store, upload, &added, error));
  request->bytes = request->data_bytes;
  return TR_OK;
}

static int by_number(const void *a, const void *b) {
  const uint32_t x = ((const part *)a)->number, y = ((const part *)b)->number;
  return x < y ? -1 : x > y;
}

/* Parts 1, 2, 3, … must lie back to back: a hole would be bytes that nobody wrote. */
static tr_status check_parts(file_upload *upload, tr_error *error) {
  if (upload->count > 0) qsort(upload->parts, upload->count, sizeof *upload->parts, by_number);
  uint64_t end = 0;
  for (size_t i = 0; i < upload->count; i++) {
    const part *found = &upload->parts[i];
    if (found->number != i + 1 || found->offset != end) {
      return tr_fail(error, TR_ERR_INVALID, "upload of %s: part %zu is missing or does not begin at byte %llu",
                     upload->file.path, i + 1, (unsigned long long)end);
    }
    end += found->bytes;
  }
  return TR_OK;
}

tr_status store_file_upload_commit(void *self, void *handle, bool if_absent, tr_error *error) {
  file_store *store = self;
  file_upload *upload = handle;
  tr_status status = check_parts(upload, error);
  if (status == TR_OK) {
    status = store_file_commit(store, &upload->file, if_absent, NULL, error);
  } else {
    store_file_abort(&upload->file);
  }
  upload_free(store, upload);
  return status;
}

void store_file_upload_abort(void *self, void *handle) {
  if (handle == NULL) return;
  file_upload *upload = handle;
  store_file_abort(&upload->file);
  upload_free(self, upload);
}
