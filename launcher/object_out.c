/* Writing an object from front to back: see object_out.h. */
#include "object_out.h"

#include <string.h>

void object_out_begin(tr_object_out *out, tr_store *store, const char *key, tr_buffers *buffers) {
  memset(out, 0, sizeof *out);
  out->store = store;
  out->key = key;
  out->buffers = buffers;
}

static tr_status end_oldest(tr_object_out *out, tr_error *error) {
  tr_store_request *request = &out->requests[out->oldest];
  const tr_status status = tr_store_wait(out->store, request, error);
  buffers_give(out->buffers, (void *)request->data);
  out->oldest = (out->oldest + 1) % BUFFERS_MAX;
  out->pending--;
  return status;
}

static tr_status take_buffer(tr_object_out *out, tr_error *error) {
  out->filled = 0;
  for (;;) {
    out->filling = buffers_take(out->buffers, out->pending == 0);
    if (out->filling != NULL) return TR_OK;
    if (out->pending == 0) return tr_fail_memory(error, "a part of an object", out->buffers->bytes);
    TR_TRY(end_oldest(out, error));
  }
}

static tr_status send_part(tr_object_out *out, tr_error *error) {
  void *self;
  const tr_store_ops *ops = tr_store_vtable(out->store, &self);
  if (out->parts == OBJECT_PARTS_MAX) {
    char most[32];
    tr_format_bytes((uint64_t)out->buffers->bytes * OBJECT_PARTS_MAX, most);
    return tr_fail(error, TR_ERR_INVALID, "%s: more than %s cannot be written without knowing the size before",
                   out->key, most);
  }
  if (out->upload == NULL) TR_TRY(ops->upload_begin(self, out->key, &out->upload, error));
  if (out->pending == BUFFERS_MAX) TR_TRY(end_oldest(out, error));
  tr_store_request *request = &out->requests[(out->oldest + out->pending) % BUFFERS_MAX];
  *request = (tr_store_request){.struct_bytes = sizeof *request,
                                .verb = TR_STORE_PART,
                                .key = out->key,
                                .upload = out->upload,
                                .part = out->parts + 1,
                                .offset = out->offset,
                                .data = out->filling,
                                .data_bytes = out->filled};
  TR_TRY(tr_store_submit(out->store, request, error));
  out->parts++;
  out->pending++;
  out->offset += out->filled;
  out->filling = NULL;
  return TR_OK;
}

tr_status object_out_room(tr_object_out *out, uint8_t **data, size_t *bytes, tr_error *error) {
  if (out->filling != NULL && out->filled == out->buffers->bytes) TR_TRY(send_part(out, error));
  if (out->filling == NULL) TR_TRY(take_buffer(out, error));
  *data = out->filling + out->filled;
  *bytes = out->buffers->bytes - out->filled;
  return TR_OK;
}

void object_out_wrote(tr_object_out *out, size_t bytes) {
  out->crc32c = tr_crc32c(out->crc32c, out->filling + out->filled, bytes);
  out->filled += bytes;
}

tr_status object_out_write(tr_object_out *out, const void *data, size_t bytes, tr_error *error) {
  const uint8_t *at = data;
  while (bytes > 0) {
    uint8_t *room;
    size_t free_bytes;
    TR_TRY(object_out_room(out, &room, &free_bytes, error));
    const size_t part = bytes < free_bytes ? bytes : free_bytes;
    memcpy(room, at, part);
    object_out_wrote(out, part);
    at += part;
    bytes -= part;
  }
  return TR_OK;
}

void object_out_abort(tr_object_out *out) {
  while (out->pending > 0) (void)end_oldest(out, NULL);
  if (out->filling != NULL) buffers_give(out->buffers, out->filling);
  out->filling = NULL;
  void *self;
  const tr_store_ops *ops = tr_store_vtable(out->store, &self);
  if (out->upload != NULL) ops->upload_abort(self, out->upload);
  out->upload = NULL;
}

static tr_status commit(tr_object_out *out, tr_error *error) {
  if (out->upload == NULL) return tr_store_put(out->store, out->key, out->filling, out->filled, false, error);
  if (out->filled > 0) TR_TRY(send_part(out, error));
  while (out->pending > 0) TR_TRY(end_oldest(out, error));
  void *self, *upload = out->upload;
  const tr_store_ops *ops = tr_store_vtable(out->store, &self);
  out->upload = NULL;
  return ops->upload_commit(self, upload, false, error);
}

tr_status object_out_commit(tr_object_out *out, uint64_t *bytes, uint32_t *crc32c, tr_error *error) {
  const uint64_t whole = out->offset + out->filled;
  const tr_status status = commit(out, error);
  object_out_abort(out);
  if (status != TR_OK) return status;
  if (bytes != NULL) *bytes = whole;
  if (crc32c != NULL) *crc32c = out->crc32c;
  return TR_OK;
}
