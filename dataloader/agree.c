/* Agreement of ranks: see agree.h. What can fail on one rank alone is voted on before anything collective depends on
 * it. */
#include "agree.h"

#include <stdio.h>
#include <string.h>

/* Votes of so many ranks fit on the stack, so that running out of memory can be voted on. */
enum { RANKS_ON_STACK = 1024 };

static tr_status gather_words(const tr_exchange *exchange, uint64_t mine, uint64_t *all, tr_error *error) {
  return exchange->all_gather(exchange->self, &mine, sizeof mine, all, error);
}

static tr_status agree(const tr_exchange *exchange, uint64_t *votes, tr_status status, tr_error *error) {
  TR_TRY(gather_words(exchange, (uint64_t)status, votes, error));
  int32_t first = 0;
  while (first < exchange->size && votes[first] == TR_OK) first++;
  if (first == exchange->size) return TR_OK;
  tr_error shared = {.status = (tr_status)votes[first], .rank = -1};
  if (exchange->rank == first && error != NULL) shared = *error;
  TR_TRY(exchange->broadcast(exchange->self, &shared, sizeof shared, first, error));
  shared.message[sizeof shared.message - 1] = '\0';
  if (error != NULL) *error = shared;
  return (tr_status)votes[first];
}

tr_status dl_agree(const tr_exchange *exchange, tr_status status, tr_error *error) {
  if (exchange == NULL || exchange->size <= 1) return status;
  uint64_t stack[RANKS_ON_STACK];
  if (exchange->size <= RANKS_ON_STACK) return agree(exchange, stack, status, error);
  uint64_t *votes = tr_calloc(NULL, (size_t)exchange->size, sizeof *votes);
  if (votes == NULL) return tr_fail_memory(error, "a vote", (size_t)exchange->size * sizeof *votes);
  status = agree(exchange, votes, status, error);
  tr_free(NULL, votes);
  return status;
}

/* Room for the padded bytes of each rank, cut together afterwards. */
static tr_status make_room(const tr_exchange *exchange, const tr_allocator *allocator, const uint64_t *sizes,
                           uint64_t *padded, uint8_t **all, tr_writer *mine, tr_error *error) {
  uint64_t largest = 0, total;
  for (int32_t rank = 0; rank < exchange->size; rank++) largest = sizes[rank] > largest ? sizes[rank] : largest;
  if (__builtin_mul_overflow(largest, (uint64_t)exchange->size, &total)) {
    return tr_fail(error, TR_ERR_PEER, "a peer sent an index of an impossible size");
  }
  *padded = largest;
  *all = tr_alloc(allocator, total);
  if (*all == NULL) return tr_fail_memory(error, "the index of all ranks", total);
  return tr_reserve(allocator, (void **)&mine->data, &mine->capacity, largest, 1, error);
}

tr_status dl_agree_join(const tr_exchange *exchange, const tr_allocator *allocator, tr_status status, tr_writer *mine,
                        tr_error *error) {
  if (status == TR_OK && mine->failed) status = tr_fail_memory(error, "an index", mine->bytes);
  if (exchange == NULL || exchange->size <= 1) return status;
  uint64_t *sizes = tr_calloc(allocator, (size_t)exchange->size, sizeof *sizes);
  if (sizes == NULL && status == TR_OK) status = tr_fail_memory(error, "sizes", (size_t)exchange->size * sizeof *sizes);
  uint8_t *all = NULL;
  uint64_t padded = 0;
  status = dl_agree(exchange, status, error);
  if (status == TR_OK) status = gather_words(exchange, mine->bytes, sizes, error);
  if (status == TR_OK) {
    status = dl_agree(exchange, make_room(exchange, allocator, sizes, &padded, &all, mine, error), error);
  }
  if (status == TR_OK && padded > 0) {
    if (padded > mine->bytes) memset(mine->data + mine->bytes, 0, padded - mine->bytes);
    status = exchange->all_gather(exchange->self, mine->data, padded, all, error);
  }
  if (status == TR_OK) {
    uint64_t total = 0;
    for (int32_t rank = 0; rank < exchange->size; rank++) {
      if (sizes[rank] > 0) memmove(all + total, all + padded * (uint64_t)rank, sizes[rank]);
      total += sizes[rank];
    }
    tr_free(allocator, mine->data);
    mine->data = all;
    mine->bytes = total;
    mine->capacity = padded * (uint64_t)exchange->size;
    all = NULL;
  }
  tr_free(allocator, all);
  tr_free(allocator, sizes);
  return status;
}
