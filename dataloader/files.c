/* Finding and reading the objects of a data set: see files.h. */
#include "files.h"

#include <string.h>

#include "account.h"
#include "agree.h"
#include "cache.h"

enum { QUESTIONS = 32, WIDE_PIECE = 8 << 20, WIDE_REQUESTS = 8 };

/* ---- Finding ----------------------------------------------------------------------------------------------------- */

/* Puts the cache in front of a store that is not on this machine anyway. It is named by what stands before the key's
 * first part: the ETag tells apart what two servers have under one name. */
static tr_status wrap(const tr_dataset *dataset, const char *url, tr_store **store, tr_error *error) {
  char identity[256];
  const char *host = strstr(url, "://");
  if (dataset->cache == NULL || host == NULL || strncmp(url, "file:", 5) == 0 || strncmp(url, "memory:", 7) == 0) {
    return TR_OK;
  }
  const size_t length = (size_t)(host - url) + 3 + strcspn(host + 3, "/");
  if (length >= sizeof identity) return TR_OK;
  memcpy(identity, url, length);
  identity[length] = '\0';
  return tr_cache_wrap(dataset->cache, *store, identity, store, error);
}

static tr_status resolve(tr_dataset *dataset, const char *url, dl_file *file, tr_error *error) {
  char key[TR_KEY_BYTES];
  TR_TRY(tr_stores_resolve(dataset->stores, url, &file->store, key, error));
  TR_TRY(wrap(dataset, url, &file->store, error));
  file->url = url;
  file->key = tr_arena_strdup(dataset->arena, key);
  return file->key != NULL ? TR_OK : tr_fail_memory(error, "a key", sizeof key);
}

/* A question under way. */
typedef struct question {
  dl_file file;
  tr_store_request head;
  uint8_t which; /* of the candidate's URLs */
} question;

static tr_status ask(tr_dataset *dataset, const char *url, question *q, tr_error *error) {
  TR_TRY(resolve(dataset, url, &q->file, error));
  q->head = (tr_store_request){.struct_bytes = sizeof q->head, .verb = TR_STORE_HEAD, .key = q->file.key};
  return tr_store_submit(q->file.store, &q->head, error);
}

static tr_status hear(question *q, tr_error *error) {
  const tr_status status = tr_store_wait(q->file.store, &q->head, error);
  return status == TR_OK ? TR_OK : tr_error_context(error, status, "data %s", q->file.url);
}

/* What a rank found out about a candidate, as it travels: u8 which, u64 bytes, the ETag. */
static tr_status note(tr_dataset *dataset, const dl_candidate *candidate, question *q, tr_writer *found,
                      tr_error *error) {
  tr_status status = hear(q, error);
  if (status == TR_ERR_NOT_FOUND && candidate->otherwise != NULL) {
    tr_error second;
    tr_status other = ask(dataset, candidate->otherwise, q, &second);
    if (other == TR_OK) other = hear(q, &second);
    /* Where neither is there, the message names what was asked for first. */
    if (other != TR_ERR_NOT_FOUND) {
      status = other;
      if (other != TR_OK && error != NULL) *error = second;
    }
    q->which = 1;
  }
  if (status != TR_OK) return status;
  q->head.info.etag[TR_ETAG_BYTES - 1] = '\0';
  tr_write_u8(found, q->which);
  tr_write_u64le(found, q->head.info.bytes);
  tr_write_bytes(found, q->head.info.etag, TR_ETAG_BYTES);
  return found->failed ? tr_fail_memory(error, "the list of files", found->bytes) : TR_OK;
}

/* Candidates [begin, end), many questions under way; the first failure in their order counts. */
static tr_status find_mine(tr_dataset *dataset, const dl_candidate *candidates, uint64_t begin, uint64_t end,
                           tr_writer *found, tr_error *error) {
  question *questions = tr_calloc(dataset->allocator, QUESTIONS, sizeof *questions);
  if (questions == NULL) return tr_fail_memory(error, "the list of files", QUESTIONS * sizeof *questions);
  tr_status status = TR_OK, asking = TR_OK;
  tr_error why;
  uint64_t asked = begin, heard = begin;
  while (heard < asked || (asked < end && status == TR_OK && asking == TR_OK)) {
    if (status == TR_OK && asking == TR_OK && asked < end && asked < heard + QUESTIONS) {
      questions[asked % QUESTIONS].which = 0;
      asking = ask(dataset, candidates[asked].url, &questions[asked % QUESTIONS], &why);
      if (asking == TR_OK) asked++;
      continue;
    }
    question *q = &questions[heard % QUESTIONS];
    if (status == TR_OK) {
      status = note(dataset, &candidates[heard], q, found, error);
    } else {
      hear(q, NULL);
    }
    heard++;
  }
  if (status == TR_OK && asking != TR_OK) {
    status = asking;
    if (error != NULL) *error = why;
  }
  tr_free(dataset->allocator, questions);
  return status;
}

static tr_status take_found(tr_dataset *dataset, const dl_candidate *candidates, size_t count, const tr_writer *found,
                            tr_error *error) {
  tr_reader reader = tr_reader_of(found->data, found->bytes);
  dataset->files = tr_arena_alloc(dataset->arena, count * sizeof *dataset->files);
  if (dataset->files == NULL) return tr_fail_memory(error, "the list of files", count * sizeof *dataset->files);
  dataset->file_count = count;
  for (size_t i = 0; i < count; i++) {
    dl_file *file = &dataset->files[i];
    const uint8_t which = tr_read_u8(&reader);
    const uint64_t bytes = tr_read_u64le(&reader);
    const char *etag = tr_read_bytes(&reader, TR_ETAG_BYTES);
    if (etag == NULL || (which == 1 && candidates[i].otherwise == NULL)) {
      return tr_fail(error, TR_ERR_PEER, "the list of files came broken from a peer");
    }
    TR_TRY(resolve(dataset, which == 1 ? candidates[i].otherwise : candidates[i].url, file, error));
    file->bytes = bytes;
    memcpy(file->etag, etag, TR_ETAG_BYTES - 1);
    if (dataset->cache != NULL) dl_cache_use(dataset->cache, file->store, file->key, file->etag);
  }
  return TR_OK;
}

tr_status dl_files_find(tr_dataset *dataset, const dl_candidate *candidates, size_t count, tr_error *error) {
  const uint64_t ranks = (uint64_t)dl_ranks(dataset->exchange), rank = (uint64_t)dl_rank(dataset->exchange);
  tr_writer found;
  tr_writer_init(&found, dataset->allocator);
  tr_status status = find_mine(dataset, candidates, tr_split_begin(count, ranks, rank),
                               tr_split_end(count, ranks, rank), &found, error);
  status = dl_agree_join(dataset->exchange, dataset->allocator, status, &found, error);
  if (status == TR_OK) {
    status = dl_agree(dataset->exchange, take_found(dataset, candidates, count, &found, error), error);
  }
  tr_writer_fini(&found);
  return status;
}

/* ---- Reading ----------------------------------------------------------------------------------------------------- */

static tr_status run(tr_store *store, tr_store_request *request, tr_error *error) {
  void *self;
  const tr_store_ops *ops = tr_store_vtable(store, &self);
  if (ops->run == NULL) {
    TR_TRY(tr_store_submit(store, request, error));
    return tr_store_wait(store, request, error);
  }
  ops->run(self, request);
  if (request->status != TR_OK && error != NULL) *error = request->error;
  return request->status;
}

static tr_store_request request_of(const dl_file *file, uint64_t offset, void *buffer, size_t bytes, bool fresh) {
  return (tr_store_request){.struct_bytes = sizeof(tr_store_request),
                            .verb = TR_STORE_GET,
                            .priority = TR_STORE_TRAINING,
                            .key = file->key,
                            .offset = offset,
                            .buffer = buffer,
                            .buffer_bytes = bytes,
                            .if_match = file->etag[0] != '\0' ? file->etag : NULL,
                            .fresh = fresh};
}

static tr_status judge(const dl_file *file, const tr_store_request *request, tr_status status, tr_error *error) {
  const unsigned long long offset = (unsigned long long)request->offset;
  if (status != TR_OK) return tr_error_context(error, status, "%s: offset %llu", file->url, offset);
  if (request->bytes == request->buffer_bytes) return TR_OK;
  return tr_fail(error, TR_ERR_CORRUPT, "%s: truncated: %zu bytes at offset %llu, %zu were expected", file->url,
                 request->bytes, offset, request->buffer_bytes);
}

/* Several requests under way; the account is that of the one that ended last, which all of them waited for. */
static tr_status read_wide(const dl_file *file, uint64_t offset, uint8_t *buffer, size_t bytes, bool fresh,
                           tr_store_request *last, tr_error *error) {
  tr_store_request requests[WIDE_REQUESTS];
  tr_status status = TR_OK;
  size_t asked = 0, ended = 0;
  const size_t count = bytes / WIDE_PIECE + (bytes % WIDE_PIECE != 0);
  tr_error why;
  while (ended < asked || (asked < count && status == TR_OK)) {
    if (status == TR_OK && asked < count && asked < ended + WIDE_REQUESTS) {
      tr_store_request *request = &requests[asked % WIDE_REQUESTS];
      const size_t at = asked * WIDE_PIECE, part = bytes - at < WIDE_PIECE ? bytes - at : WIDE_PIECE;
      *request = request_of(file, offset + at, buffer + at, part, fresh);
      status = tr_store_submit(file->store, request, &why);
      if (status == TR_OK) asked++;
      continue;
    }
    tr_store_request *request = &requests[ended++ % WIDE_REQUESTS];
    tr_error first;
    const tr_status one = judge(file, request, tr_store_wait(file->store, request, &first), &first);
    if (status == TR_OK && one != TR_OK) why = first;
    if (status == TR_OK) status = one;
    *last = *request;
  }
  if (status != TR_OK && error != NULL) *error = why;
  return status;
}

static tr_status read_exactly(const dl_file *file, const tr_clock *clock, uint64_t offset, void *buffer, size_t bytes,
                              bool fresh, tr_wait_account *account, tr_error *error) {
  if (offset > file->bytes || bytes > file->bytes - offset) {
    return tr_fail(error, TR_ERR_CORRUPT, "%s: truncated: %zu bytes are expected at offset %llu, the file has %llu",
                   file->url, bytes, (unsigned long long)offset, (unsigned long long)file->bytes);
  }
  if (bytes == 0) return TR_OK;
  tr_store_request request = request_of(file, offset, buffer, bytes, fresh);
  const uint64_t begin_ns = account != NULL ? tr_clock_now_ns(clock) : 0;
  tr_status status;
  if (bytes > 2 * WIDE_PIECE) {
    status = read_wide(file, offset, buffer, bytes, fresh, &request, error);
  } else {
    status = judge(file, &request, run(file->store, &request, error), error);
  }
  if (account != NULL && fresh) account->retry_ns += tr_clock_now_ns(clock) - begin_ns;
  if (account != NULL && !fresh) dl_account_request(account, &request, begin_ns, tr_clock_now_ns(clock));
  return status;
}

tr_status dl_file_read(const dl_file *file, const tr_clock *clock, uint64_t offset, void *buffer, size_t bytes,
                       tr_wait_account *account, tr_error *error) {
  return read_exactly(file, clock, offset, buffer, bytes, false, account, error);
}

tr_status dl_file_read_again(const dl_file *file, const tr_clock *clock, uint64_t offset, void *buffer, size_t bytes,
                             tr_wait_account *account, tr_error *error) {
  return read_exactly(file, clock, offset, buffer, bytes, true, account, error);
}
