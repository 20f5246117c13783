/* Groups of samples: walked ahead, planned, given memory. See fetch.h. */
#include "fetch.h"

enum { GROUP_GROWS = 4 };

/* A want of a packed range carries the number of its entry instead of a row's. */
#define PACKED_WANT ((uint32_t)1 << 31)

/* What the planning of one group works on; the fetching thread's own. */
typedef struct group_plan {
  uint64_t rows; /* that it takes */
  size_t wants;
  size_t spans;
  uint64_t bytes;    /* of all spans, rounded */
  uint64_t most;     /* what the arena has room for, and a group may have */
  size_t spans_most; /* likewise */
} group_plan;

/* ---- Walking ----------------------------------------------------------------------------------------------------- */

/* Whether a batch ends where all streams end a window, or is the first to end behind that. */
static bool ends_round(const dl_fetch *fetch, const dl_ticket *ticket) {
  if (fetch->round == 0 || !ticket->last) return false;
  const uint64_t batch = fetch->plan.batch_size;
  const uint64_t drawn = (ticket->position / batch + 1) * batch;
  return drawn >= fetch->plan.samples || drawn % fetch->round < batch;
}

/* Appends the next rows of this rank until `upto` are known, or there is no room for more tickets. *tickets: those that
 * were begun. */
static uint64_t walk(dl_fetch *fetch, uint64_t from, uint64_t upto, uint64_t tickets_most, uint64_t *tickets) {
  uint64_t row = from;
  while (row < upto) {
    if (fetch->walk_row == fetch->walk_ticket.row_count) {
      if (*tickets == tickets_most) break;
      if (!dl_plan_ticket(&fetch->plan, &fetch->walk_at, &fetch->walk_leaf, &fetch->walk_ticket)) break;
      fetch->walk_row = 0;
      fetch->tickets[*tickets % fetch->ticket_capacity] = fetch->walk_ticket;
      ++*tickets;
    }
    const dl_ticket *ticket = &fetch->walk_ticket;
    const uint32_t number = fetch->walk_row++;
    *dl_fetch_row(fetch, row++) = (dl_row){
        .id = tr_sampler_at(fetch->sampler, ticket->epoch, ticket->position + number),
        .epoch = ticket->epoch,
        .ticket = *tickets - 1,
        .number = number,
        .ends_round = number + 1 == ticket->row_count && ends_round(fetch, ticket),
    };
  }
  return row;
}

/* ---- Collecting -------------------------------------------------------------------------------------------------- */

static void add_want(dl_fetch *fetch, group_plan *plan, const dl_place *place, uint32_t of) {
  fetch->wants[plan->wants] = (dl_want){.offset = place->offset, .bytes = place->bytes, .file = (uint32_t)place->file};
  fetch->want_rows[plan->wants++] = of;
  plan->bytes += dl_fetch_rounded(place->bytes);
}

/* Where nothing is merged over gaps, as with packed ranges, this is exact; elsewhere `merge` sees to the rest. */
static bool fits(const dl_fetch *fetch, const group_plan *plan, const dl_place *place) {
  if (fetch->packed_count > 0 && plan->wants == plan->spans_most) return false;
  return plan->bytes == 0 || plan->bytes + dl_fetch_rounded(place->bytes) <= plan->most;
}

/* Whether the row can be in this group: its range is in an entry, old or new. */
static bool collect_packed(dl_fetch *fetch, group_plan *plan, const dl_place *place, dl_row *row) {
  bool made = false;
  pthread_mutex_lock(fetch->lock);
  const bool room = plan->bytes > 0 || fetch->arena.pieces == 0 ? fits(fetch, plan, place)
                                                                : dl_fetch_rounded(place->bytes) <= plan->most;
  const uint32_t entry = dl_fetch_packed_entry(fetch, place, room, &made);
  if (entry != UINT32_MAX) fetch->packed[entry].users++;
  pthread_mutex_unlock(fetch->lock);
  if (entry == UINT32_MAX) return false;
  if (made) add_want(fetch, plan, place, PACKED_WANT | entry);
  row->kind = DL_ROW_PACKED;
  row->unit = entry;
  row->at = place->inner_offset;
  row->bytes = place->inner_bytes;
  return true;
}

/* What the next row wants; false: it does not fit. */
static bool collect_row(dl_fetch *fetch, group_plan *plan, dl_row *row) {
  const tr_dataset *dataset = fetch->dataset;
  const dl_sample sample = dl_dataset_sample(dataset, row->epoch, row->id, NULL);
  dl_place place = {0};
  row->kind = DL_ROW_ALONE;
  if (!dataset->format->place(dataset, sample.shard, sample.index, false, &place) || place.bytes == 0) return true;
  if (place.unpacked_bytes > 0) return collect_packed(fetch, plan, &place, row);
  if (!fits(fetch, plan, &place)) return false;
  add_want(fetch, plan, &place, (uint32_t)plan->rows);
  row->kind = DL_ROW_EXTENT;
  row->bytes = place.bytes;
  return true;
}

/* What the first of `rows` rows want, as far as it fits, and if it can be up to the end of a round. */
static void collect(dl_fetch *fetch, uint64_t first, uint64_t rows, group_plan *plan) {
  uint64_t round_rows = 0;
  size_t round_wants = 0;
  plan->rows = plan->wants = 0;
  plan->bytes = 0;
  while (plan->rows < rows) {
    dl_row *row = dl_fetch_row(fetch, first + plan->rows);
    if (!collect_row(fetch, plan, row)) break;
    plan->rows++;
    if (!row->ends_round) continue;
    round_rows = plan->rows;
    round_wants = plan->wants;
  }
  if (round_rows == 0) return;
  plan->rows = round_rows;
  plan->wants = round_wants;
}

/* Keeps about `part` of the group's rows, up to the end of a round if there is one, else less, so that it fits now. */
static void shorten(dl_fetch *fetch, uint64_t first, double part, group_plan *plan) {
  uint64_t rows = (uint64_t)((double)plan->rows * part);
  while (rows > 0 && !dl_fetch_row(fetch, first + rows - 1)->ends_round) rows--;
  if (rows == 0) rows = (uint64_t)((double)plan->rows * part * 7 / 8);
  plan->rows = rows > 0 ? rows : 1;
  while (plan->wants > 0 && fetch->want_rows[plan->wants - 1] >= plan->rows) plan->wants--;
}

/* Merges what is wanted; where that is too long, because gaps are read, or in too many spans, with fewer rows. */
static void merge(dl_fetch *fetch, uint64_t first, group_plan *plan) {
  const bool read_over = fetch->packed_count == 0;
  for (;;) {
    plan->spans = plan->wants > 0
                      ? dl_fetch_plan(fetch->wants, plan->wants, read_over, fetch->spans, fetch->plan_scratch)
                      : 0;
    plan->bytes = 0;
    for (size_t i = 0; i < plan->spans; i++) plan->bytes += dl_fetch_rounded(fetch->spans[i].bytes);
    if ((plan->bytes <= plan->most && plan->spans <= plan->spans_most) || plan->wants <= 1 || !read_over) return;
    double part = (double)plan->most / (double)plan->bytes;
    if (part * (double)plan->spans > (double)plan->spans_most) part = (double)plan->spans_most / (double)plan->spans;
    shorten(fetch, first, part, plan);
  }
}

/* ---- Publishing (with the lock) ---------------------------------------------------------------------------------- */

static void publish(dl_fetch *fetch, const group_plan *plan) {
  const uint64_t first_extent = fetch->extents_end;
  if (plan->spans > 0) {
    dl_fetch_group *group = &fetch->groups[fetch->groups_end % DL_FETCH_GROUPS];
    group->arena_begin = dl_fetch_arena_take(&fetch->arena, plan->bytes);
    uint8_t *bytes = fetch->arena.bytes + group->arena_begin;
    group->extents_left = (uint32_t)plan->spans;
    group->first_extent = first_extent;
    for (size_t i = 0; i < plan->spans; i++) {
      const dl_span *span = &fetch->spans[i];
      fetch->extents[fetch->extents_end++ % fetch->extent_capacity] = (dl_extent){
          .span = *span,
          .bytes = bytes,
          .pieces_left = (uint32_t)((span->bytes + DL_SPAN_BYTES - 1) / DL_SPAN_BYTES),
          .group = (uint32_t)(fetch->groups_end % DL_FETCH_GROUPS)};
      bytes += dl_fetch_rounded(span->bytes);
    }
    fetch->groups_end++;
  }
  for (size_t i = 0; i < plan->wants; i++) {
    const uint32_t extent = (uint32_t)((first_extent + fetch->wants[i].span) % fetch->extent_capacity);
    fetch->extents[extent].users++;
    if (fetch->want_rows[i] & PACKED_WANT) {
      dl_packed *packed = &fetch->packed[fetch->want_rows[i] & ~PACKED_WANT];
      packed->extent = extent;
      packed->state = DL_PACKED_ARRIVING;
    } else {
      dl_row *row = dl_fetch_row(fetch, fetch->rows_planned + fetch->want_rows[i]);
      row->unit = extent;
      row->at = fetch->wants[i].offset - fetch->extents[extent].span.offset;
    }
  }
  fetch->rows_planned += plan->rows;
  fetch->plans++;
  if (fetch->group_rows < fetch->row_capacity / 2) fetch->group_rows *= GROUP_GROWS;
  if (fetch->group_rows > fetch->row_capacity / 2) fetch->group_rows = fetch->row_capacity / 2;
  pthread_cond_signal(fetch->work);
}

/* How many rows the next group may have; 0: not now. Small groups would make small requests: it waits for half the room,
 * but not where there is nothing else to do. */
static uint64_t rows_now(dl_fetch *fetch, group_plan *plan) {
  const uint64_t known = fetch->rows_walked - fetch->rows_planned;
  const uint64_t free_rows = fetch->row_capacity - (fetch->rows_walked - fetch->rows_done);
  const bool idle = fetch->rows_done == fetch->rows_planned;
  uint64_t rows = known + free_rows;
  if (rows > fetch->group_rows) rows = fetch->group_rows;
  if (fetch->groups_end - fetch->groups_begin == DL_FETCH_GROUPS) return 0;
  if (rows < fetch->group_rows && !idle) return 0;
  const uint64_t oldest = fetch->groups_begin < fetch->groups_end
                              ? fetch->groups[fetch->groups_begin % DL_FETCH_GROUPS].first_extent
                              : fetch->extents_end;
  plan->spans_most = fetch->extent_capacity - (fetch->extents_end - oldest);
  if (plan->spans_most == 0) return 0;
  const uint64_t room = dl_fetch_arena_room(&fetch->arena);
  uint64_t expected = rows * fetch->mean_bytes;
  plan->most = fetch->arena.capacity / 2;
  if (expected > plan->most) expected = plan->most;
  if (room < plan->most) plan->most = room;
  return plan->most >= expected / 4 * 3 || idle ? rows : 0;
}

/* One sample is more than a group may be: it gets the arena to itself, and a larger one where it needs that. */
static bool make_room(dl_fetch *fetch, group_plan *plan) {
  if (plan->bytes <= dl_fetch_arena_room(&fetch->arena)) return true;
  if (fetch->arena.pieces > 0) return false;
  if (dl_fetch_arena_grow(&fetch->arena, plan->bytes, NULL) == TR_OK) return true;
  /* Without the memory the row is left to who decodes it, and to what that finds. */
  if (fetch->want_rows[0] & PACKED_WANT) {
    dl_packed *packed = &fetch->packed[fetch->want_rows[0] & ~PACKED_WANT];
    packed->status = tr_fail_memory(&packed->error, "a packed shard", plan->bytes);
    packed->state = DL_PACKED_READY;
  } else {
    dl_fetch_row(fetch, fetch->rows_planned)->kind = DL_ROW_ALONE;
  }
  plan->wants = plan->spans = 0;
  plan->bytes = 0;
  return true;
}

bool dl_fetch_plan_group(dl_fetch *fetch) {
  group_plan plan = {0};
  const uint64_t rows = rows_now(fetch, &plan);
  if (rows == 0) return false;
  const uint64_t planned = fetch->rows_planned;
  uint64_t walked = fetch->rows_walked, tickets = fetch->tickets_walked;
  const uint64_t tickets_most = fetch->tickets_done + fetch->ticket_capacity;
  pthread_mutex_unlock(fetch->lock);
  if (walked < planned + rows) walked = walk(fetch, walked, planned + rows, tickets_most, &tickets);
  const uint64_t known = walked - planned;
  collect(fetch, planned, known < rows ? known : rows, &plan);
  merge(fetch, planned, &plan);
  pthread_mutex_lock(fetch->lock);
  fetch->rows_walked = walked;
  fetch->tickets_walked = tickets;
  if (plan.rows == 0 || !make_room(fetch, &plan)) return false;
  publish(fetch, &plan);
  return true;
}
