/* Reading ahead: many large ranges under way, in the order in which samples need them.
 *
 * The order of this rank's samples is known, so one thread walks it ahead: it takes the next samples as a group, plans
 * which ranges hold them (fetch_plan.h), gives each range memory from an arena of fixed size and asks the store for it. A
 * group ends where all streams of the order end a window, if it can, so that the rest of a window is not read on its own. A
 * group is at most half the arena, so that the next one is under way while this one is decoded; the first is one step's
 * rows and each has four times those of the one before, so that the first batch is there soon and later groups hold whole
 * blocks of the order. Memory comes back by groups, in order.
 *
 * How many requests are under way follows what is measured: a few, and twice as many as end in the time that one takes to
 * its first byte at the least, so that neither latency nor a slow wire leaves the other idle.
 *
 * Ranges that are packed (many samples of one zstd shard, say) are unpacked once, into buffers of which there is a fixed
 * number, and stay there while samples ahead want them.
 *
 * Everything but what a comment says is under the lock of the ring, whose threads decode: they take runs of rows whose
 * bytes are there, and hand them back. A range that could not be read fails no row by itself: its rows are read one by
 * one by who decodes them, so that an error is exactly of the sample that has it. */
#ifndef TRAINRUN_DATALOADER_FETCH_H
#define TRAINRUN_DATALOADER_FETCH_H

#include <pthread.h>

#include "account.h"
#include "dataset.h"
#include "fetch_arena.h"
#include "fetch_plan.h"
#include "plan.h"

enum { DL_FETCH_REQUESTS = 64, DL_FETCH_GROUPS = 32, DL_FETCH_PACKED_MAX = 64 };

typedef enum dl_row_kind {
  DL_ROW_ALONE = 0, /* read by who decodes it, if there is anything to read */
  DL_ROW_EXTENT,
  DL_ROW_PACKED
} dl_row_kind;
typedef enum dl_row_state { DL_ROW_WAITING = 0, DL_ROW_TAKEN, DL_ROW_DONE } dl_row_state;

/* A sample that somebody will decode. Written by the fetching thread before it is planned, then fixed but for `state`. */
typedef struct dl_row {
  uint64_t id, epoch;
  uint64_t ticket;
  uint32_t number; /* in the ticket's micro-batch */
  uint8_t kind, state;
  bool ends_round;    /* it and those before leave no window of the order half read */
  uint32_t unit;      /* the extent or packed range it lies in */
  uint64_t at, bytes; /* there */
} dl_row;

/* A range of a file, read by one request a DL_SPAN_BYTES. Nothing in it changes between its arrival and its release. */
typedef struct dl_extent {
  dl_span span;
  uint8_t *bytes;
  uint32_t pieces_left; /* not arrived */
  uint32_t users;       /* rows, and packed ranges that are not unpacked */
  uint32_t group;
  bool failed;
  dl_arrival arrival; /* of the piece that came last */
} dl_extent;

typedef enum dl_packed_state {
  DL_PACKED_PLANNED = 0, /* has no extent yet */
  DL_PACKED_ARRIVING,
  DL_PACKED_HERE,
  DL_PACKED_UNPACKING, /* `data` is the unpacking thread's */
  DL_PACKED_READY      /* or it failed: status */
} dl_packed_state;

typedef struct dl_packed {
  dl_place place; /* of any of its samples; bytes 0: the entry is free */
  dl_packed_state state;
  uint32_t extent;
  uint32_t users;     /* rows */
  uint64_t last_used; /* counts plans */
  dl_buffer data;
  dl_arrival arrival;
  tr_status status;
  tr_error error;
} dl_packed;

typedef struct dl_fetch_group {
  uint64_t first_extent;
  uint32_t extents_left; /* not released */
  size_t arena_begin;
} dl_fetch_group;

typedef struct dl_fetch dl_fetch;

typedef struct dl_fetch_request {
  tr_store_request request;
  dl_fetch *fetch;
  uint32_t extent;
} dl_fetch_request;

struct dl_fetch {
  /* Set once. */
  const tr_allocator *allocator;
  const tr_clock *clock;
  const tr_dataset *dataset;
  dl_plan plan;
  uint64_t arena_bytes;  /* wanted */
  uint64_t packed_bytes; /* of unpacked ranges together */
  uint32_t row_capacity; /* rows ahead; >= 2 */
  uint32_t ticket_capacity;
  uint64_t mean_bytes; /* of a sample as it is stored */
  uint64_t first_rows; /* of the first group */
  uint64_t round;      /* dl_sampler_round */
  pthread_mutex_t *lock;
  pthread_cond_t *work; /* signalled when there may be rows to decode */
  pthread_t thread;
  bool started;

  /* The fetching thread's own. */
  tr_sampler *sampler;
  tr_cursor walk_at;
  uint64_t walk_leaf;
  dl_ticket walk_ticket;
  uint32_t walk_row; /* the next row of walk_ticket */
  uint64_t group_rows;
  /* [row_capacity / 2], the most that a group can have */
  dl_want *wants;
  uint32_t *want_rows; /* offset of the row from rows_planned */
  dl_span *spans;
  uint32_t *plan_scratch; /* twice as many */

  /* Under the lock. Row r is rows[r % row_capacity]; rows below rows_done are done, [rows_done, rows_planned) are
   * planned, [rows_planned, rows_walked) only known. Likewise tickets. */
  pthread_cond_t wake; /* of the fetching thread */
  bool waiting, stop;
  dl_row *rows;
  uint64_t rows_done, rows_planned, rows_walked;
  uint64_t scan_from; /* rows below it are taken */
  dl_ticket *tickets;
  uint64_t tickets_done, tickets_walked;
  dl_extent *extents; /* those of groups that are not given back */
  uint32_t extent_capacity;
  uint64_t extents_end;
  uint64_t submit_extent; /* the next to be asked for */
  uint32_t submit_piece;
  dl_fetch_arena arena;
  dl_fetch_group groups[DL_FETCH_GROUPS];
  uint64_t groups_begin, groups_end;
  dl_packed *packed; /* [packed_count] */
  uint32_t packed_count;
  uint64_t plans;
  uint64_t events; /* that may let the fetching thread go on */

  dl_fetch_request requests[DL_FETCH_REQUESTS];
  uint32_t idle[DL_FETCH_REQUESTS]; /* numbers of those that are not under way */
  uint32_t idle_count;
  uint32_t under_way_most;
  uint32_t ended;               /* requests, while the measure is new */
  double first_byte_ns, gap_ns; /* the least to a first byte; the mean between two that end */
  uint64_t last_end_ns;
};

/* Rows [first, first + count) of one ticket. */
typedef struct dl_run {
  uint64_t first;
  uint32_t count;
} dl_run;

/* Everything "set once" but the thread is filled in, and sampler, walk_at. Without the lock. Where it fails, dl_fetch_stop
 * cleans up. */
tr_status dl_fetch_start(dl_fetch *fetch, tr_error *error);
/* Without the lock, when no thread decodes any more; waits for requests under way. Also what was half started. */
void dl_fetch_stop(dl_fetch *fetch);

/* Takes rows that can be decoded, the first there are, of tickets below `tickets`; bytes_most bounds the run, but for one
 * row. False: there are none now. */
bool dl_fetch_take(dl_fetch *fetch, uint64_t tickets, uint64_t bytes_most, dl_run *run);
/* The rows were decoded. *arrival becomes that of their last bytes, where those are later. */
void dl_fetch_done(dl_fetch *fetch, const dl_run *run, dl_arrival *arrival);
/* All tickets below are done with. */
void dl_fetch_forget(dl_fetch *fetch, uint64_t ticket);

/* Without the lock, for a row that was taken: its bytes, or false where it is to be read alone; *status is not TR_OK where
 * it failed for good. */
bool dl_fetch_bytes(dl_fetch *fetch, const dl_row *row, const uint8_t **bytes, size_t *count, tr_status *status,
                    tr_error *error);

/* How many unpacked ranges are kept where the largest has `largest` bytes; 0: nothing is packed. A few are the least, so
 * that one can come while others are read. */
uint32_t dl_fetch_packed_count(uint64_t packed_bytes, uint64_t largest);
/* A packed range that has arrived and that nobody unpacks yet; false: there is none. */
bool dl_fetch_take_packed(dl_fetch *fetch, uint32_t *packed);
/* Without the lock. */
void dl_fetch_unpack(dl_fetch *fetch, uint32_t packed, dl_scratch *scratch);
void dl_fetch_packed_done(dl_fetch *fetch, uint32_t packed);

/* What the files of the engine share. */
static inline dl_row *dl_fetch_row(dl_fetch *fetch, uint64_t row) { return &fetch->rows[row % fetch->row_capacity]; }
/* One user less; memory of groups that nobody uses comes back. */
void dl_fetch_release(dl_fetch *fetch, uint32_t extent);
/* Walks ahead, plans the next group and publishes it. False: there is nothing to plan, or no room now. Lets go of the lock
 * in between. */
bool dl_fetch_plan_group(dl_fetch *fetch);
/* The entry of a packed range; a new one where it may be made and one is free. UINT32_MAX: there is none. */
uint32_t dl_fetch_packed_entry(dl_fetch *fetch, const dl_place *place, bool may_make, bool *made);
/* The extent has arrived: so have the packed ranges in it. */
void dl_fetch_packed_arrived(dl_fetch *fetch, uint32_t extent);

#endif
