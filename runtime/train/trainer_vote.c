/* The vote: once a step every rank tells all others what it has seen, and all decide alike.
 *
 * The same exchange carries the norm of the gradient: each rank sums the squares of its run of blocks, all add the blocks'
 * sums along the balanced tree. The window of the ledger ends just before, at the point where all ranks are in step. */
#include "trainer.h"

#include <math.h>
#include <stdatomic.h>
#include <string.h>

static tr_ballot *ballot_of(const tr_trainer *trainer, int32_t rank) {
  return (tr_ballot *)(void *)(trainer->ballots + (size_t)rank * trainer->ballot_bytes);
}

static double *partials_of(const tr_trainer *trainer, int32_t rank) {
  return (double *)(void *)(ballot_of(trainer, rank) + 1);
}

static uint32_t asked_to_stop(const tr_trainer *trainer) {
  const tr_session *session = trainer->session;
  const uint32_t own = atomic_load_explicit(&session->stop, memory_order_relaxed);
  if (own != TR_STOP_NONE || session->board.stop == NULL) return own;
  return __atomic_load_n(session->board.stop, __ATOMIC_RELAXED);
}

static void fill_own(tr_trainer *trainer) {
  tr_ballot *own = ballot_of(trainer, trainer->rank);
  memset(own, 0, trainer->ballot_bytes);
  tr_ledger_window(&trainer->session->ledger, own->window.charged_ns);
  own->window.waited_for = trainer->waited_for;
  own->elapsed_ns = tr_ledger_elapsed_ns(&trainer->session->ledger);
  own->ids_bytes = trainer->ids_bytes;
  own->ids_crc32c = trainer->ids_crc32c;
  own->stop = asked_to_stop(trainer);
  own->failed = (uint32_t)trainer->step_status;
  own->save = (uint32_t)tr_trainer_save_state(trainer);
  const uint64_t begin = tr_split_begin(trainer->block_count, (uint64_t)trainer->size, (uint64_t)trainer->rank);
  const uint64_t end = tr_split_end(trainer->block_count, (uint64_t)trainer->size, (uint64_t)trainer->rank);
  if (trainer->step_status == TR_OK && end > begin) {
    tr_flat_square_sums(trainer->gradients[0] + begin * TR_PARAM_BLOCK, (end - begin) * TR_PARAM_BLOCK,
                        partials_of(trainer, trainer->rank));
  }
}

/* The norm of the gradient of TRAINED, before it is divided by the weight. */
static void join_norm(tr_trainer *trainer) {
  for (int32_t r = 0; r < trainer->size; r++) {
    const uint64_t begin = tr_split_begin(trainer->block_count, (uint64_t)trainer->size, (uint64_t)r);
    const uint64_t end = tr_split_end(trainer->block_count, (uint64_t)trainer->size, (uint64_t)r);
    memcpy(trainer->partials + begin, partials_of(trainer, r), (end - begin) * sizeof(double));
  }
  const double squares = tr_flat_tree_sum(trainer->partials, trainer->block_count);
  trainer->grad_norm = sqrt(squares);
  trainer->finite = isfinite(squares) && isfinite(trainer->totals[0]);
}

/* A failed rank tells why; the others only know that it failed, and fail with its text. */
static tr_status share_failure(tr_trainer *trainer, int32_t failed, tr_error *error) {
  tr_error told = {.status = TR_OK, .rank = failed};
  if (trainer->rank == failed) told = trainer->step_error;
  TR_TRY(tr_comm_broadcast(trainer->comm, &told, sizeof told, failed, NULL, error));
  if (error != NULL) *error = told;
  return trainer->rank == failed ? told.status : tr_error_context(error, told.status, "rank %d", (int)failed);
}

tr_status tr_trainer_vote(tr_trainer *trainer, tr_decision *decision, tr_error *error) {
  fill_own(trainer);
  tr_comm_wait_info info = {.last_rank = -1};
  tr_ledger *ledger = &trainer->session->ledger;
  tr_ledger_enter(ledger, TR_CAUSE_COLLECTIVE);
  TR_TRY(tr_comm_all_gather(trainer->comm, ballot_of(trainer, trainer->rank), trainer->ballot_bytes, trainer->ballots,
                            &info, error));
  tr_ledger_enter(ledger, TR_CAUSE_OPTIMIZER);
  tr_ledger_move(ledger, TR_CAUSE_COLLECTIVE, TR_CAUSE_COLLECTIVE_WAIT, info.blocked_for_peers_ns);

  memset(decision, 0, sizeof *decision);
  trainer->batch_crc32c = 0;
  trainer->batch_crc_bytes = 0;
  bool all_durable = true;
  for (int32_t r = 0; r < trainer->size; r++) {
    const tr_ballot *ballot = ballot_of(trainer, r);
    if (ballot->failed != TR_OK) return share_failure(trainer, r, error);
    trainer->windows[r] = ballot->window;
    trainer->batch_crc32c = tr_crc32c_combine(trainer->batch_crc32c, ballot->ids_crc32c, ballot->ids_bytes);
    trainer->batch_crc_bytes += ballot->ids_bytes;
    if (decision->stop == TR_STOP_NONE) decision->stop = (tr_stop_reason)ballot->stop;
    if (ballot->save == TR_SAVE_FAILED) decision->save_failed = true;
    if (ballot->save != TR_SAVE_DURABLE) all_durable = false;
  }
  decision->save_durable = all_durable;
  decision->save_committed = ballot_of(trainer, 0)->save == TR_SAVE_COMMITTED;
  trainer->elapsed_before_ns = trainer->elapsed_ns;
  trainer->elapsed_ns = ballot_of(trainer, 0)->elapsed_ns;
  /* The first step warms caches up and waits for the first bytes: it is charged, and blamed on nobody. */
  if (trainer->step > trainer->first_step) {
    tr_blame_add(&trainer->blame, trainer->windows, (double)trainer->batch.rows * trainer->sample_bytes);
  }
  join_norm(trainer);
  return TR_OK;
}
