/* trainrun store put: files (or objects of another store, or standard input) to objects.
 *
 * An object that is there with the same size and content is left alone, so a copy that was interrupted goes on with what
 * is missing. */
#include "object_out.h"
#include "same_content.h"
#include "store_copy.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* Through a pipe nobody knows how much will come: larger parts, so that 10,000 of them reach far. */
enum { PIPE_PART_BYTES = 32 << 20, PIPE_PARTS = 6 };

/* The key of an object of the source in the destination. */
static tr_status key_of(const tr_copy *copy, const tr_copy_item *item, char key[TR_KEY_BYTES], tr_error *error) {
  const char *to = copy->to;
  const bool into = copy->from.kind == LOCATION_FOLDER || to[strlen(to) - 1] == '/' ||
                    copy->destination.key[0] == '\0' || copy->destination.kind == LOCATION_FOLDER;
  const int length = into ? snprintf(key, TR_KEY_BYTES, "%s%s", copy->destination.prefix, item->name)
                          : snprintf(key, TR_KEY_BYTES, "%s", copy->destination.key);
  if (length < TR_KEY_BYTES) return TR_OK;
  return tr_fail(error, TR_ERR_INVALID, "'%s': its key below '%s' would be longer than %d bytes", item->name, to,
                 TR_KEY_BYTES - 1);
}

static tr_status is_there(tr_copy *copy, const tr_copy_item *item, const char *key, bool *there, tr_error *error) {
  tr_object_info info;
  *there = false;
  if (copy->cli->force) return TR_OK;
  const tr_status status = tr_store_head(copy->destination.store, key, &info, error);
  if (status == TR_ERR_NOT_FOUND || status == TR_ERR_DENIED) return TR_OK; /* who may only write cannot compare */
  if (status != TR_OK) return status;
  if (info.bytes != item->info.bytes) return TR_OK;
  void *buffer = buffers_take(&copy->buffers, true);
  if (buffer == NULL) return tr_fail_memory(error, "a part of an object", copy->buffers.bytes);
  const tr_status compared = same_content(copy->from.store, item->key, copy->destination.store, key, &info, buffer,
                                          copy->buffers.bytes, there, error);
  buffers_give(&copy->buffers, buffer);
  return compared;
}

/* Reads the source straight into the buffer that is sent. */
static tr_status pour(tr_copy *copy, const tr_copy_item *item, tr_object_out *out, tr_error *error) {
  for (uint64_t offset = 0; offset < item->info.bytes;) {
    uint8_t *room;
    size_t bytes;
    if (atomic_load(&copy->stop)) return tr_fail(error, TR_ERR_STOPPED, "stopped");
    TR_TRY(object_out_room(out, &room, &bytes, error));
    const uint64_t left = item->info.bytes - offset;
    tr_store_request request = {.struct_bytes = sizeof request,
                                .verb = TR_STORE_GET,
                                .key = item->key,
                                .offset = offset,
                                .buffer = room,
                                .buffer_bytes = left < bytes ? (size_t)left : bytes,
                                .if_match = item->info.etag[0] != '\0' ? item->info.etag : NULL};
    TR_TRY(tr_store_submit(copy->from.store, &request, error));
    TR_TRY(tr_store_wait(copy->from.store, &request, error));
    if (request.bytes == 0) return tr_fail(error, TR_ERR_CHANGED, "'%s' became shorter while it was read", item->key);
    object_out_wrote(out, request.bytes);
    offset += request.bytes;
    progress_bytes(&copy->progress, request.bytes);
  }
  return TR_OK;
}

static tr_status put_one(void *self, void *piece, tr_error *error) {
  tr_copy *copy = self;
  const tr_copy_item *item = piece;
  char key[TR_KEY_BYTES];
  bool there;
  TR_TRY(key_of(copy, item, key, error));
  TR_TRY(is_there(copy, item, key, &there, error));
  if (there) {
    atomic_fetch_add(&copy->skipped_objects, 1);
    progress_bytes(&copy->progress, item->info.bytes);
    progress_done(&copy->progress);
    return TR_OK;
  }
  tr_object_out *out = tr_alloc(NULL, sizeof *out);
  if (out == NULL) return tr_fail_memory(error, "an upload", sizeof *out);
  object_out_begin(out, copy->destination.store, key, &copy->buffers);
  tr_status status = pour(copy, item, out, error);
  if (status == TR_OK) {
    status = object_out_commit(out, NULL, NULL, error);
  } else {
    object_out_abort(out);
  }
  tr_free(NULL, out);
  if (status != TR_OK) return status == TR_ERR_STOPPED ? status : tr_error_context(error, status, "%s", item->key);
  atomic_fetch_add(&copy->copied_objects, 1);
  atomic_fetch_add(&copy->copied_bytes, item->info.bytes);
  progress_done(&copy->progress);
  return TR_OK;
}

/* ---- From standard input ----------------------------------------------------------------------------------------- */

static tr_status pour_input(tr_copy *copy, tr_object_out *out, tr_error *error) {
  for (;;) {
    uint8_t *room;
    size_t bytes;
    TR_TRY(object_out_room(out, &room, &bytes, error));
    const ssize_t got = read(STDIN_FILENO, room, bytes);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return tr_fail_errno(error, TR_ERR_IO, errno, "reading standard input");
    if (got == 0) return TR_OK;
    object_out_wrote(out, (size_t)got);
    progress_bytes(&copy->progress, (uint64_t)got);
    progress_draw(&copy->progress);
  }
}

static tr_status put_input(tr_copy *copy, tr_error *error) {
  if (copy->destination.key[0] == '\0' || copy->to[strlen(copy->to) - 1] == '/') {
    return tr_fail(error, TR_ERR_INVALID, "%s: standard input is one object; name it", copy->to);
  }
  tr_object_out *out = tr_alloc(NULL, sizeof *out);
  if (out == NULL) return tr_fail_memory(error, "an upload", sizeof *out);
  buffers_init(&copy->buffers, PIPE_PART_BYTES, PIPE_PARTS);
  progress_begin(&copy->progress, copy->cli, "put", "objects", 0, 1);
  object_out_begin(out, copy->destination.store, copy->destination.key, &copy->buffers);
  uint64_t bytes = 0;
  tr_status status = pour_input(copy, out, error);
  if (status == TR_OK) {
    status = object_out_commit(out, &bytes, NULL, error);
  } else {
    object_out_abort(out);
  }
  tr_free(NULL, out);
  progress_end(&copy->progress);
  if (status != TR_OK) return status;
  copy->copied_objects = 1;
  copy->copied_bytes = bytes;
  copy_summary(copy);
  return TR_OK;
}

/* ---- The command ------------------------------------------------------------------------------------------------- */

static tr_status refuse_itself(const tr_copy *copy, tr_error *error) {
  const tr_location *from = &copy->from, *to = &copy->destination;
  const size_t length = strlen(from->prefix);
  if (from->store == to->store && from->kind == LOCATION_FOLDER && strncmp(to->prefix, from->prefix, length) == 0) {
    return tr_fail(error, TR_ERR_INVALID, "%s lies in %s, which would be copied into itself", copy->to, from->url);
  }
  return TR_OK;
}

static tr_status find_destination(tr_copy *copy, tr_error *error) {
  const tr_status status = location_find(copy->remote.stores, copy->to, false, &copy->destination, error);
  if (status != TR_ERR_DENIED) return status;
  return location_resolve(copy->remote.stores, copy->to, &copy->destination, error);
}

int store_put(const tr_cli *cli) {
  tr_copy copy = {.cli = cli, .verb = "put", .to = cli->words[2]};
  const bool input = strcmp(cli->words[1], "-") == 0;
  tr_error error;
  int code = remote_open(&copy.remote, cli);
  if (code == 0) {
    tr_status status = find_destination(&copy, &error);
    if (status == TR_OK && input) {
      status = put_input(&copy, &error);
    } else if (status == TR_OK) {
      status = location_find(copy.remote.stores, cli->words[1], cli->recursive, &copy.from, &error);
      if (status == TR_OK) status = refuse_itself(&copy, &error);
      if (status == TR_OK) status = copy_begin(&copy, &error);
      if (status == TR_OK) code = copy_run(&copy, put_one);
    }
    if (status != TR_OK) code = remote_failed(&error);
    if (copy.buffers.bytes > 0) buffers_fini(&copy.buffers);
  }
  remote_close(&copy.remote);
  return code;
}
