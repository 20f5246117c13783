/* The fetching thread, its requests, and what decoding threads take: see fetch.h. */
#include "fetch.h"

#include <signal.h>

#include "files.h"

enum {
  FETCH_START = 8,
  FETCH_LEAST = 8,
  MEASURED_AFTER = 8, /* requests */
  MEAN_OF = 16,
  LEAST_FORGETS = 256,
  SCAN_ROWS = 4096, /* rows that are looked at for one whose bytes are there */
  EXTENTS_MOST = 8192
};

/* ---- Requests (with the lock, but for the submit itself) --------------------------------------------------------- */

/* The least time to a first byte says how far away the store is; the mean would say how many wait there already, and more
 * would only make it longer. It rises slowly, so that a lucky request is forgotten. See fetch.h. */
static void measure(dl_fetch *fetch, const dl_arrival *arrival, bool others) {
  const uint64_t waited = arrival->throttled_ns + arrival->retry_ns;
  const uint64_t first_at = arrival->first_byte_ns > 0 ? arrival->first_byte_ns : arrival->done_ns;
  const uint64_t whole = first_at > arrival->submitted_ns ? first_at - arrival->submitted_ns : 0;
  const double first = whole > waited ? (double)(whole - waited) : 0;
  if (fetch->ended == 0 || first < fetch->first_byte_ns) {
    fetch->first_byte_ns = first;
  } else {
    fetch->first_byte_ns += (first - fetch->first_byte_ns) / LEAST_FORGETS;
  }
  if (others && fetch->last_end_ns > 0 && arrival->done_ns >= fetch->last_end_ns) {
    const double gap = (double)(arrival->done_ns - fetch->last_end_ns);
    fetch->gap_ns = fetch->gap_ns <= 0 ? gap : fetch->gap_ns + (gap - fetch->gap_ns) / MEAN_OF;
  }
  fetch->last_end_ns = arrival->done_ns;
  if (fetch->ended < MEASURED_AFTER) fetch->ended++;
  if (fetch->ended < MEASURED_AFTER) return;
  double wanted = FETCH_LEAST + 2 * fetch->first_byte_ns / (fetch->gap_ns > 1 ? fetch->gap_ns : 1);
  if (wanted > DL_FETCH_REQUESTS) wanted = DL_FETCH_REQUESTS;
  fetch->under_way_most = (uint32_t)wanted;
}

static void end_request(dl_fetch *fetch, dl_fetch_request *one, bool good) {
  dl_extent *extent = &fetch->extents[one->extent];
  dl_arrival arrival = dl_arrival_of(&one->request);
  if (arrival.done_ns == 0) arrival.done_ns = tr_clock_now_ns(fetch->clock);
  if (arrival.submitted_ns == 0) arrival.submitted_ns = arrival.done_ns;
  fetch->idle[fetch->idle_count++] = (uint32_t)(one - fetch->requests);
  if (good) measure(fetch, &arrival, fetch->idle_count < DL_FETCH_REQUESTS);
  if (!good) extent->failed = true;
  if (arrival.done_ns >= extent->arrival.done_ns) extent->arrival = arrival;
  if (--extent->pieces_left == 0) {
    if (fetch->packed_count > 0) dl_fetch_packed_arrived(fetch, one->extent);
    pthread_cond_signal(fetch->work);
  }
  fetch->events++;
  if (fetch->waiting && (fetch->stop || fetch->submit_extent != fetch->extents_end)) pthread_cond_signal(&fetch->wake);
}

/* On a thread of the store. */
static void arrived(tr_store_request *request) {
  dl_fetch_request *one = request->user;
  dl_fetch *fetch = one->fetch;
  pthread_mutex_lock(fetch->lock);
  end_request(fetch, one, request->status == TR_OK && request->bytes == request->buffer_bytes);
  pthread_mutex_unlock(fetch->lock);
}

/* The next piece of what is planned, as a request. */
static dl_fetch_request *next_request(dl_fetch *fetch) {
  const uint32_t under_way = DL_FETCH_REQUESTS - fetch->idle_count;
  if (fetch->submit_extent == fetch->extents_end || under_way >= fetch->under_way_most) return NULL;
  dl_fetch_request *one = &fetch->requests[fetch->idle[--fetch->idle_count]];
  one->extent = (uint32_t)(fetch->submit_extent % fetch->extent_capacity);
  const dl_extent *extent = &fetch->extents[one->extent];
  const dl_file *file = &fetch->dataset->files[extent->span.file];
  const uint64_t at = (uint64_t)fetch->submit_piece * DL_SPAN_BYTES, left = extent->span.bytes - at;
  one->fetch = fetch;
  one->request = (tr_store_request){.struct_bytes = sizeof one->request,
                                    .verb = TR_STORE_GET,
                                    .priority = TR_STORE_TRAINING,
                                    .key = file->key,
                                    .offset = extent->span.offset + at,
                                    .buffer = extent->bytes + at,
                                    .buffer_bytes = left < DL_SPAN_BYTES ? (size_t)left : DL_SPAN_BYTES,
                                    .if_match = file->etag[0] != '\0' ? file->etag : NULL,
                                    .done = arrived,
                                    .user = one};
  fetch->submit_piece++;
  if (left <= DL_SPAN_BYTES) {
    fetch->submit_piece = 0;
    fetch->submit_extent++;
  }
  return one;
}

static bool submit_some(dl_fetch *fetch) {
  bool some = false;
  for (dl_fetch_request *one; !fetch->stop && (one = next_request(fetch)) != NULL; some = true) {
    tr_store *store = fetch->dataset->files[fetch->extents[one->extent].span.file].store;
    pthread_mutex_unlock(fetch->lock);
    const tr_status status = tr_store_submit(store, &one->request, NULL);
    pthread_mutex_lock(fetch->lock);
    if (status != TR_OK) end_request(fetch, one, false);
  }
  return some;
}

static void *fetch_ahead(void *self) {
  dl_fetch *fetch = self;
  pthread_mutex_lock(fetch->lock);
  while (!fetch->stop) {
    const uint64_t events = fetch->events;
    bool moved = submit_some(fetch);
    if (!fetch->stop) moved = dl_fetch_plan_group(fetch) || moved;
    if (moved || fetch->stop || events != fetch->events) continue;
    fetch->waiting = true;
    pthread_cond_wait(&fetch->wake, fetch->lock);
    fetch->waiting = false;
  }
  /* The requests write into the arena: it must outlive them. */
  fetch->waiting = true;
  while (fetch->idle_count < DL_FETCH_REQUESTS) pthread_cond_wait(&fetch->wake, fetch->lock);
  pthread_mutex_unlock(fetch->lock);
  return NULL;
}

/* ---- Rows (with the lock) ---------------------------------------------------------------------------------------- */

static bool is_ready(const dl_fetch *fetch, const dl_row *row) {
  if (row->kind == DL_ROW_EXTENT) return fetch->extents[row->unit].pieces_left == 0;
  if (row->kind == DL_ROW_PACKED) return fetch->packed[row->unit].state == DL_PACKED_READY;
  return true;
}

/* From a row that is ready on: as many of its ticket as are ready too. */
static void take_from(dl_fetch *fetch, uint64_t first, uint64_t bytes_most, dl_run *run) {
  const uint64_t ticket = dl_fetch_row(fetch, first)->ticket;
  uint64_t bytes = 0, row = first;
  for (; row < fetch->rows_planned; row++) {
    dl_row *next = dl_fetch_row(fetch, row);
    if (next->ticket != ticket || next->state != DL_ROW_WAITING || !is_ready(fetch, next)) break;
    bytes += next->bytes;
    if (row > first && bytes > bytes_most) break;
    next->state = DL_ROW_TAKEN;
  }
  *run = (dl_run){.first = first, .count = (uint32_t)(row - first)};
}

bool dl_fetch_take(dl_fetch *fetch, uint64_t tickets, uint64_t bytes_most, dl_run *run) {
  const uint64_t planned = fetch->rows_planned;
  if (fetch->scan_from < fetch->rows_done) fetch->scan_from = fetch->rows_done; /* their places are others' now */
  while (fetch->scan_from < planned && dl_fetch_row(fetch, fetch->scan_from)->state != DL_ROW_WAITING) {
    fetch->scan_from++;
  }
  for (uint64_t row = fetch->scan_from; row < planned && row - fetch->scan_from < SCAN_ROWS; row++) {
    const dl_row *one = dl_fetch_row(fetch, row);
    if (one->ticket >= tickets) return false;
    if (one->state != DL_ROW_WAITING || !is_ready(fetch, one)) continue;
    take_from(fetch, row, bytes_most, run);
    return true;
  }
  return false;
}

void dl_fetch_release(dl_fetch *fetch, uint32_t number) {
  const dl_extent *extent = &fetch->extents[number];
  if (--fetch->extents[number].users > 0) return;
  fetch->groups[extent->group].extents_left--;
  bool freed = false;
  while (fetch->groups_begin < fetch->groups_end) {
    if (fetch->groups[fetch->groups_begin % DL_FETCH_GROUPS].extents_left > 0) break;
    fetch->groups_begin++;
    dl_fetch_arena_give_back(&fetch->arena, fetch->groups[fetch->groups_begin % DL_FETCH_GROUPS].arena_begin);
    freed = true;
  }
  if (!freed) return;
  fetch->events++;
  if (fetch->waiting) pthread_cond_signal(&fetch->wake);
}

static void note_arrival(dl_arrival *arrival, const dl_arrival *other) {
  if (other->done_ns > arrival->done_ns) *arrival = *other;
}

void dl_fetch_done(dl_fetch *fetch, const dl_run *run, dl_arrival *arrival) {
  bool packed_free = false;
  for (uint64_t r = run->first; r < run->first + run->count; r++) {
    dl_row *row = dl_fetch_row(fetch, r);
    row->state = DL_ROW_DONE;
    if (row->kind == DL_ROW_EXTENT) {
      note_arrival(arrival, &fetch->extents[row->unit].arrival);
      dl_fetch_release(fetch, row->unit);
    } else if (row->kind == DL_ROW_PACKED) {
      note_arrival(arrival, &fetch->packed[row->unit].arrival);
      packed_free = --fetch->packed[row->unit].users == 0 || packed_free;
    }
  }
  while (fetch->rows_done < fetch->rows_planned && dl_fetch_row(fetch, fetch->rows_done)->state == DL_ROW_DONE) {
    fetch->rows_done++;
  }
  const uint64_t room = fetch->row_capacity - (fetch->rows_planned - fetch->rows_done);
  if (!packed_free && room < fetch->group_rows && fetch->rows_done != fetch->rows_planned) return;
  fetch->events++;
  if (fetch->waiting) pthread_cond_signal(&fetch->wake);
}

void dl_fetch_forget(dl_fetch *fetch, uint64_t ticket) { fetch->tickets_done = ticket; }

bool dl_fetch_bytes(dl_fetch *fetch, const dl_row *row, const uint8_t **bytes, size_t *count, tr_status *status,
                    tr_error *error) {
  *status = TR_OK;
  if (row->kind == DL_ROW_ALONE) return false;
  *count = (size_t)row->bytes;
  if (row->kind == DL_ROW_EXTENT) {
    const dl_extent *extent = &fetch->extents[row->unit];
    *bytes = extent->bytes + row->at;
    return !extent->failed;
  }
  const dl_packed *packed = &fetch->packed[row->unit];
  *bytes = packed->data.bytes + row->at;
  *status = packed->status;
  if (*status != TR_OK && error != NULL) *error = packed->error;
  return *status == TR_OK;
}

/* ---- Making and unmaking ----------------------------------------------------------------------------------------- */

static tr_status make_arrays(dl_fetch *fetch, tr_error *error) {
  const tr_allocator *a = fetch->allocator;
  const size_t rows = fetch->row_capacity, group = fetch->row_capacity / 2;
  fetch->extent_capacity = fetch->row_capacity < EXTENTS_MOST ? fetch->row_capacity : EXTENTS_MOST;
  fetch->rows = tr_calloc(a, rows, sizeof *fetch->rows);
  fetch->tickets = tr_calloc(a, fetch->ticket_capacity, sizeof *fetch->tickets);
  fetch->extents = tr_calloc(a, fetch->extent_capacity, sizeof *fetch->extents);
  fetch->wants = tr_calloc(a, group, sizeof *fetch->wants);
  fetch->want_rows = tr_calloc(a, group, sizeof *fetch->want_rows);
  fetch->spans = tr_calloc(a, group, sizeof *fetch->spans);
  fetch->plan_scratch = tr_calloc(a, 2 * group, sizeof *fetch->plan_scratch);
  fetch->packed = tr_calloc(a, fetch->packed_count, sizeof *fetch->packed);
  if (fetch->rows != NULL && fetch->tickets != NULL && fetch->extents != NULL && fetch->wants != NULL &&
      fetch->want_rows != NULL && fetch->spans != NULL && fetch->plan_scratch != NULL && fetch->packed != NULL) {
    return TR_OK;
  }
  return tr_fail_memory(error, "reading ahead", rows * sizeof *fetch->rows);
}

tr_status dl_fetch_start(dl_fetch *fetch, tr_error *error) {
  pthread_cond_init(&fetch->wake, NULL);
  fetch->group_rows = fetch->first_rows < fetch->row_capacity / 2 ? fetch->first_rows : fetch->row_capacity / 2;
  if (fetch->group_rows == 0) fetch->group_rows = 1;
  fetch->under_way_most = FETCH_START;
  for (uint32_t i = 0; i < DL_FETCH_REQUESTS; i++) fetch->idle[fetch->idle_count++] = i;
  TR_TRY(make_arrays(fetch, error));
  TR_TRY(dl_fetch_arena_init(&fetch->arena, fetch->allocator, fetch->arena_bytes, error));
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  const int code = pthread_create(&fetch->thread, NULL, fetch_ahead, fetch);
  pthread_sigmask(SIG_SETMASK, &before, NULL);
  if (code != 0) return tr_fail_errno(error, TR_ERR_IO, code, "cannot start the thread that reads ahead");
  pthread_setname_np(fetch->thread, "tr-fetch");
  fetch->started = true;
  return TR_OK;
}

void dl_fetch_stop(dl_fetch *fetch) {
  if (fetch->started) {
    pthread_mutex_lock(fetch->lock);
    fetch->stop = true;
    fetch->events++;
    pthread_cond_signal(&fetch->wake);
    pthread_mutex_unlock(fetch->lock);
    pthread_join(fetch->thread, NULL);
  }
  pthread_cond_destroy(&fetch->wake);
  for (uint32_t i = 0; fetch->packed != NULL && i < fetch->packed_count; i++) {
    tr_free(fetch->allocator, fetch->packed[i].data.bytes);
  }
  dl_fetch_arena_fini(&fetch->arena);
  tr_free(fetch->allocator, fetch->packed);
  tr_free(fetch->allocator, fetch->plan_scratch);
  tr_free(fetch->allocator, fetch->spans);
  tr_free(fetch->allocator, fetch->want_rows);
  tr_free(fetch->allocator, fetch->wants);
  tr_free(fetch->allocator, fetch->extents);
  tr_free(fetch->allocator, fetch->tickets);
  tr_free(fetch->allocator, fetch->rows);
}
