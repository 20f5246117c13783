/* Reading pieces back, cut as they are wanted, by all ranks together.
 *
 * The saved pieces that anyone wants are walked in the order of their places, chunk by chunk: a chunk is a run of a shard,
 * of one large piece or of many small ones. Chunk k is read from the store by rank k % size, a few of its chunks ahead, and
 * broadcast. Every rank checksums what passes and keeps what it
 * wants. So each byte is read once for the whole job, and all ranks come to the same verdict at the same chunk: a rank
 * that fails alone says so in the head of its next broadcast, and nobody waits for it in vain. */
#include <stdlib.h>
#include <string.h>

#include "checkpoint.h"

/* In flight a rank: enough for a store that is far away, little enough for a hostile manifest. */
enum { CHUNK_BYTES = 8 << 20, HEAD_BYTES = 512, SLOTS = 5 };

/* The head of each message. */
typedef struct message_head {
  uint32_t status;
  uint32_t manifest_crc32c;
  char text[TR_ERROR_MESSAGE_BYTES];
} message_head;
_Static_assert(sizeof(message_head) <= HEAD_BYTES, "the head has its place in every message");

typedef struct ckpt_want {
  uint32_t tensor;
  const tr_piece *piece;
} ckpt_want;

typedef struct ckpt_chunk {
  size_t place;    /* of its first piece */
  uint64_t offset; /* where it begins in that piece; it ends in that one or a later one */
  size_t bytes;
  uint64_t number; /* among all chunks that are read */
} ckpt_chunk;

/* Where a walk over the needed chunks stands. */
typedef struct chunk_walk {
  size_t place;
  uint64_t offset;
  uint64_t next_number;
} chunk_walk;

/* A chunk of this rank's that is being read. */
typedef struct read_slot {
  uint8_t *message; /* head and chunk */
  ckpt_chunk chunk;
  bool busy;
  char key[TR_KEY_BYTES];
  tr_store_request request;
} read_slot;

typedef struct ckpt_reading {
  const tr_ckpt *ckpt;
  const tr_ckpt_exchange *exchange; /* NULL: alone */
  int32_t rank, size;
  uint32_t manifest_crc32c;
  ckpt_want *wants; /* sorted by tensor */
  size_t want_count;
  size_t *first_want; /* of each tensor, and one past the last */
  uint8_t *needed;    /* a bit a piece */
  size_t needed_bytes;
  read_slot slots[SLOTS];
  size_t next_slot; /* the one whose chunk comes first */
  chunk_walk ahead; /* behind the last chunk that was submitted */
  uint8_t *received;
} ckpt_reading;

static bool is_needed(const ckpt_reading *reading, const ckpt_piece *piece) {
  const size_t i = (size_t)(piece - reading->ckpt->manifest.pieces);
  return (reading->needed[i / 8] >> (i % 8) & 1) != 0;
}

/* ---- What this rank wants ------------------------------------------------------------------------------------------ */

static int by_name(const void *name, const void *tensor) {
  return strcmp(name, ((const tr_ckpt_tensor *)tensor)->name);
}

static int by_tensor(const void *a, const void *b) {
  const uint32_t x = ((const ckpt_want *)a)->tensor, y = ((const ckpt_want *)b)->tensor;
  return x < y ? -1 : x > y;
}

static tr_status find_tensor(const tr_ckpt *ckpt, const tr_piece *piece, uint32_t *tensor, tr_error *error) {
  const ckpt_manifest *manifest = &ckpt->manifest;
  const tr_ckpt_tensor *found = NULL;
  if (piece->name != NULL && manifest->tensor_count > 0) {
    found = bsearch(piece->name, manifest->tensors, manifest->tensor_count, sizeof *manifest->tensors, by_name);
  }
  if (found == NULL) {
    return tr_fail(error, TR_ERR_MISMATCH, "checkpoint %s has no tensor '%s'", ckpt->folder,
                   piece->name != NULL ? piece->name : "");
  }
  if (found->dtype != piece->dtype || found->ndim != piece->ndim ||
      memcmp(found->shape, piece->shape, found->ndim * sizeof found->shape[0]) != 0) {
    char saved[160], wanted[160];
    ckpt_describe_shape(saved, found->dtype, found->ndim, found->shape);
    ckpt_describe_shape(wanted, piece->dtype, piece->ndim, piece->shape);
    return tr_fail(error, TR_ERR_MISMATCH, "checkpoint %s: tensor '%s' was saved as %s and is wanted as %s",
                   ckpt->folder, piece->name, saved, wanted);
  }
  uint64_t elements = 0;
  ckpt_elements(found->dtype, found->ndim, found->shape, &elements);
  if (piece->begin > elements || piece->count > elements - piece->begin || (piece->data == NULL && piece->count > 0)) {
    return tr_fail(error, TR_ERR_INVALID, "checkpoint: the wanted piece of tensor '%s' lies outside of it",
                   piece->name);
  }
  *tensor = (uint32_t)(found - manifest->tensors);
  return TR_OK;
}

static void mark_needed(ckpt_reading *reading, const ckpt_want *want) {
  const ckpt_manifest *manifest = &reading->ckpt->manifest;
  const uint64_t end = want->piece->begin + want->piece->count;
  for (size_t i = manifest->first_piece[want->tensor]; i < manifest->first_piece[want->tensor + 1]; i++) {
    const ckpt_piece *piece = &manifest->pieces[i];
    if (piece->begin < end && piece->begin + piece->count > want->piece->begin) {
      reading->needed[i / 8] |= (uint8_t)(1u << (i % 8));
    }
  }
}

static tr_status collect_wants(ckpt_reading *reading, const tr_piece *pieces, size_t piece_count, tr_error *error) {
  for (size_t i = 0; i < piece_count; i++) {
    ckpt_want *made = &reading->wants[reading->want_count];
    TR_TRY(find_tensor(reading->ckpt, &pieces[i], &made->tensor, error));
    made->piece = &pieces[i];
    reading->want_count++;
    mark_needed(reading, made);
  }
  if (piece_count > 0) qsort(reading->wants, piece_count, sizeof *reading->wants, by_tensor);
  for (size_t t = 0, at = 0; t <= reading->ckpt->manifest.tensor_count; t++) {
    while (at < piece_count && reading->wants[at].tensor < t) at++;
    reading->first_want[t] = at;
  }
  return TR_OK;
}

/* ---- Between the ranks --------------------------------------------------------------------------------------------- */

static void write_head(const ckpt_reading *reading, uint8_t *message, tr_status status, const tr_error *error) {
  message_head head = {.status = (uint32_t)status, .manifest_crc32c = reading->manifest_crc32c};
  if (status != TR_OK) memcpy(head.text, error->message, sizeof head.text);
  memset(message, 0, HEAD_BYTES);
  memcpy(message, &head, sizeof head);
}

static tr_status read_head(const ckpt_reading *reading, const uint8_t *message, int32_t root, tr_error *error) {
  message_head head;
  memcpy(&head, message, sizeof head);
  head.text[sizeof head.text - 1] = '\0';
  if (head.status != TR_OK) return tr_fail(error, (tr_status)head.status, "%s", head.text);
  if (head.manifest_crc32c != reading->manifest_crc32c) {
    return tr_fail(error, TR_ERR_CHANGED, "%s/" MANIFEST_NAME ": rank %d reads another one than rank %d",
                   reading->ckpt->folder, (int)root, (int)reading->rank);
  }
  return TR_OK;
}

static tr_status broadcast(const ckpt_reading *reading, void *buffer, size_t bytes, int32_t root, tr_error *error) {
  return reading->exchange->broadcast(reading->exchange->self, buffer, bytes, root, error);
}

/* Every rank hears of every other before it decides: so all of them go on, or none. `head` has HEAD_BYTES; `status` is
 * this rank's own so far. */
static tr_status exchange_heads(const ckpt_reading *reading, uint8_t *head, tr_status status, tr_error *error) {
  tr_error own = {.status = status}, first = {.status = TR_OK};
  if (status != TR_OK) own = *error;
  for (int32_t root = 0; root < reading->size; root++) {
    tr_error found;
    if (root == reading->rank) write_head(reading, head, status, &own);
    TR_TRY(broadcast(reading, head, HEAD_BYTES, root, error));
    if (read_head(reading, head, root, &found) != TR_OK && first.status == TR_OK) first = found;
  }
  if (first.status != TR_OK) *error = first;
  return first.status;
}

/* Whether all can go on; then what each needs, joined. */
static tr_status agree(ckpt_reading *reading, tr_status status, tr_error *error) {
  if (reading->exchange == NULL) return status;
  TR_TRY(exchange_heads(reading, reading->received, status, error));
  uint8_t *others = reading->received;
  uint8_t *mine = reading->slots[0].message;
  memcpy(mine, reading->needed, reading->needed_bytes);
  for (int32_t root = 0; root < reading->size; root++) {
    uint8_t *bits = root == reading->rank ? mine : others;
    TR_TRY(broadcast(reading, bits, reading->needed_bytes, root, error));
    for (size_t i = 0; i < reading->needed_bytes; i++) reading->needed[i] |= bits[i];
  }
  return TR_OK;
}

/* ---- Chunks -------------------------------------------------------------------------------------------------------- */

static bool next_chunk(const ckpt_reading *reading, chunk_walk *walk, ckpt_chunk *chunk) {
  const ckpt_manifest *manifest = &reading->ckpt->manifest;
  chunk->bytes = 0;
  for (; walk->place < manifest->piece_count; walk->place++, walk->offset = 0) {
    const ckpt_piece *piece = manifest->by_place[walk->place];
    const bool needed = walk->offset < piece->bytes && is_needed(reading, piece);
    if (chunk->bytes == 0) {
      if (!needed) continue;
      chunk->place = walk->place;
      chunk->offset = walk->offset;
      chunk->number = walk->next_number++;
    } else if (piece->bytes == 0) {
      continue;
    } else if (!needed || piece->shard != manifest->by_place[chunk->place]->shard) {
      return true;
    }
    /* Pieces of a shard lie back to back. */
    const uint64_t left = piece->bytes - walk->offset;
    const size_t room = CHUNK_BYTES - chunk->bytes, now = left < room ? (size_t)left : room;
    chunk->bytes += now;
    walk->offset += now;
    if (chunk->bytes == CHUNK_BYTES) return true;
  }
  return chunk->bytes > 0;
}

static const ckpt_piece *first_piece(const ckpt_reading *reading, const ckpt_chunk *chunk) {
  return reading->ckpt->manifest.by_place[chunk->place];
}

/* Submits the read of this rank's next chunk, if there is one. */
static tr_status read_ahead(ckpt_reading *reading, read_slot *slot, tr_error *error) {
  ckpt_chunk *chunk = &slot->chunk;
  do {
    if (!next_chunk(reading, &reading->ahead, chunk)) return TR_OK;
  } while (chunk->number % (uint64_t)reading->size != (uint64_t)reading->rank);
  const tr_ckpt *ckpt = reading->ckpt;
  const ckpt_piece *first = first_piece(reading, chunk);
  TR_TRY(ckpt_key(slot->key, error, ckpt->folder, "%s", ckpt->manifest.shards[first->shard].name));
  slot->request = (tr_store_request){.struct_bytes = sizeof slot->request,
                                     .verb = TR_STORE_GET,
                                     .key = slot->key,
                                     .offset = first->offset + chunk->offset,
                                     .buffer = slot->message + HEAD_BYTES,
                                     .buffer_bytes = chunk->bytes};
  TR_TRY(tr_store_submit(ckpt->store, &slot->request, error));
  slot->busy = true;
  return TR_OK;
}

/* The chunk that was read ahead, with its head. A failure travels in the head. */
static void finish_own(ckpt_reading *reading, read_slot *slot) {
  const tr_ckpt *ckpt = reading->ckpt;
  tr_error error = {.status = TR_OK};
  tr_status status = TR_ERR_BUG;
  if (slot->busy) {
    status = tr_store_wait(ckpt->store, &slot->request, &error);
    slot->busy = false;
    status = ckpt_check_read(ckpt, &ckpt->manifest.shards[first_piece(reading, &slot->chunk)->shard],
                             slot->request.offset, slot->chunk.bytes, slot->request.bytes, status, &error);
  } else {
    status = slot->request.status != TR_OK ? slot->request.status : status;
    error = slot->request.error;
  }
  write_head(reading, slot->message, status, &error);
}

/* Elements of a piece that begin at byte `offset` of it. */
static void keep_wanted(const ckpt_reading *reading, const ckpt_piece *saved, uint64_t offset, const uint8_t *data,
                        size_t bytes) {
  const uint32_t tensor = saved->tensor;
  const size_t width = tr_dtype_bytes(reading->ckpt->manifest.tensors[tensor].dtype);
  const uint64_t begin = saved->begin * width + offset, end = begin + bytes;
  for (size_t i = reading->first_want[tensor]; i < reading->first_want[tensor + 1]; i++) {
    const tr_piece *piece = reading->wants[i].piece;
    const uint64_t want_begin = piece->begin * width, want_end = want_begin + piece->count * width;
    const uint64_t low = begin > want_begin ? begin : want_begin, high = end < want_end ? end : want_end;
    if (low < high) memcpy((uint8_t *)piece->data + (low - want_begin), data + (low - begin), high - low);
  }
}

/* Checks and keeps what a chunk has of each of its pieces; *crc is of the piece that it begins in. */
static tr_status take_chunk(const ckpt_reading *reading, const ckpt_chunk *chunk, const uint8_t *data, uint32_t *crc,
                            tr_error *error) {
  uint64_t offset = chunk->offset;
  size_t place = chunk->place;
  for (size_t at = 0; at < chunk->bytes; place++, offset = 0) {
    const ckpt_piece *piece = reading->ckpt->manifest.by_place[place];
    const uint64_t left = piece->bytes - offset;
    const size_t now = left < chunk->bytes - at ? (size_t)left : chunk->bytes - at;
    *crc = tr_crc32c(offset == 0 ? 0 : *crc, data + at, now);
    if (now == left && *crc != piece->crc32c) return ckpt_fail_piece(reading->ckpt, piece, error);
    keep_wanted(reading, piece, offset, data + at, now);
    at += now;
  }
  return TR_OK;
}

/* The message of a chunk, on every rank. */
static tr_status exchange_chunk(ckpt_reading *reading, const ckpt_chunk *chunk, uint8_t **message, tr_error *error) {
  const int32_t root = (int32_t)(chunk->number % (uint64_t)reading->size);
  *message = reading->received;
  if (root == reading->rank) {
    read_slot *slot = &reading->slots[reading->next_slot];
    *message = slot->message;
    finish_own(reading, slot);
  }
  if (reading->exchange != NULL) TR_TRY(broadcast(reading, *message, HEAD_BYTES + chunk->bytes, root, error));
  return read_head(reading, *message, root, error);
}

/* A read that cannot even be submitted is told to the others when its turn comes. */
static void read_ahead_or_note(ckpt_reading *reading, read_slot *slot) {
  tr_error error = {.status = TR_OK};
  const tr_status status = read_ahead(reading, slot, &error);
  if (status != TR_OK) {
    slot->request.status = status;
    slot->request.error = error;
  }
}

static tr_status read_chunks(ckpt_reading *reading, tr_error *error) {
  for (size_t i = 0; i < SLOTS; i++) read_ahead_or_note(reading, &reading->slots[i]);
  chunk_walk walk = {0};
  ckpt_chunk chunk;
  uint32_t crc = 0;
  while (next_chunk(reading, &walk, &chunk)) {
    uint8_t *message = NULL;
    TR_TRY(exchange_chunk(reading, &chunk, &message, error));
    TR_TRY(take_chunk(reading, &chunk, message + HEAD_BYTES, &crc, error));
    if (message != reading->received) {
      read_ahead_or_note(reading, &reading->slots[reading->next_slot]);
      reading->next_slot = (reading->next_slot + 1) % SLOTS;
    }
  }
  return TR_OK;
}

/* ---- The whole ----------------------------------------------------------------------------------------------------- */

static size_t message_bytes(const ckpt_reading *reading) {
  const size_t chunk = HEAD_BYTES + ckpt_data_bytes(&reading->ckpt->manifest, CHUNK_BYTES);
  return reading->needed_bytes > chunk ? reading->needed_bytes : chunk;
}

static tr_status reading_init(ckpt_reading *reading, size_t piece_count, tr_error *error) {
  const tr_allocator *allocator = reading->ckpt->allocator;
  const ckpt_manifest *manifest = &reading->ckpt->manifest;
  reading->needed_bytes = manifest->piece_count / 8 + 1;
  reading->wants = tr_calloc(allocator, piece_count + 1, sizeof *reading->wants);
  reading->first_want = tr_calloc(allocator, manifest->tensor_count + 1, sizeof *reading->first_want);
  reading->needed = tr_calloc(allocator, reading->needed_bytes, 1);
  const size_t bytes = message_bytes(reading);
  bool complete = reading->wants != NULL && reading->first_want != NULL && reading->needed != NULL;
  for (size_t i = 0; i < SLOTS; i++) {
    reading->slots[i].message = tr_alloc(allocator, bytes);
    complete = complete && reading->slots[i].message != NULL;
  }
  reading->received = tr_alloc(allocator, bytes);
  complete = complete && reading->received != NULL;
  return complete ? TR_OK : tr_fail_memory(error, "reading a checkpoint", (SLOTS + 1) * bytes);
}

static void reading_fini(ckpt_reading *reading) {
  const tr_allocator *allocator = reading->ckpt->allocator;
  for (size_t i = 0; i < SLOTS; i++) {
    if (reading->slots[i].busy) tr_store_wait(reading->ckpt->store, &reading->slots[i].request, NULL);
    tr_free(allocator, reading->slots[i].message);
  }
  tr_free(allocator, reading->received);
  tr_free(allocator, reading->needed);
  tr_free(allocator, reading->first_want);
  tr_free(allocator, reading->wants);
}

/* A rank without memory for its part still has to tell the others, with what the stack holds. */
static tr_status tell_failure(const ckpt_reading *reading, tr_status status, tr_error *error) {
  uint8_t head[HEAD_BYTES];
  return reading->exchange != NULL ? exchange_heads(reading, head, status, error) : status;
}

tr_status tr_ckpt_read(tr_ckpt *ckpt, const tr_piece *pieces, size_t piece_count, const tr_ckpt_exchange *exchange,
                       tr_error *error) {
  if (exchange != NULL && (exchange->struct_bytes != sizeof *exchange || exchange->rank < 0 ||
                           exchange->rank >= exchange->size || exchange->broadcast == NULL)) {
    return tr_fail(error, TR_ERR_INVALID, "checkpoint: the exchange is of another version or incomplete");
  }
  tr_error local;
  if (error == NULL) error = &local; /* what goes to the other ranks */
  ckpt_reading reading = {.ckpt = ckpt, .size = 1, .manifest_crc32c = tr_crc32c(0, ckpt->text, ckpt->text_bytes)};
  if (exchange != NULL && exchange->size > 1) {
    reading.exchange = exchange;
    reading.rank = exchange->rank;
    reading.size = exchange->size;
  }
  tr_status status = reading_init(&reading, piece_count, error);
  if (status != TR_OK) {
    status = tell_failure(&reading, status, error);
  } else {
    status = agree(&reading, collect_wants(&reading, pieces, piece_count, error), error);
    if (status == TR_OK) status = read_chunks(&reading, error);
  }
  reading_fini(&reading);
  return status;
}
