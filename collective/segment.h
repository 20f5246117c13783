/* The shared segment of a host: what lies where in the memfd, and a process's view of it.
 *
 *     offset 0                 seg_head: version, stop and abort words, who owns which home, rank -> home, beacons
 *     (home + 1) << 38         a home: seg_control of one process, then its heap
 *
 * A process claims a free home when it joins and keeps it over epochs, whatever its rank becomes: so nobody ever writes
 * into words of another, and memory stays where it is. There are more homes than ranks, since the homes of the dead are
 * freed only after the next epoch has begun. Pages are allocated before they are used.
 *
 * Words carry their epoch, so that what an older epoch left behind is never taken for news: a tag is 20 bits of epoch
 * above 44 bits of a counter. */
#ifndef TRAINRUN_COLLECTIVE_SEGMENT_H
#define TRAINRUN_COLLECTIVE_SEGMENT_H

#include <stdatomic.h>
#include <trainrun/collective.h>

enum {
  SEG_CAPACITY_MAX = 1024, /* ranks of a host */
  SEG_HOMES_A_RANK = 8,
  SEG_SLOTS = 128,                     /* a slot an operation, used in turn */
  SEG_IN_FLIGHT = 64,                  /* half of them: see engine.h */
  SEG_SLOT_BYTES = 33 * TR_CACHE_LINE, /* an odd number of lines spreads slots over cache sets */
  SEG_PAYLOAD_BYTES = SEG_SLOT_BYTES - 24,
  SEG_HOME_SHIFT = 38,
#if defined(__x86_64__)
  SEG_PAGE = 4096
#else
  SEG_PAGE = 65536 /* the largest that other machines use */
#endif
};

static inline uint64_t seg_tag(uint64_t epoch, uint64_t counter) {
  return epoch << 44 | (counter & ((1ull << 44) - 1));
}

/* What a rank hands in when it arrives at an operation. Written by its owner, then published by the tag. */
typedef struct seg_slot {
  _Alignas(TR_CACHE_LINE) _Atomic uint64_t tag;
  uint64_t signature; /* of the operation: ranks that disagree are told so */
  uint64_t stamp_ns;  /* 0: not taken */
  _Alignas(8) unsigned char payload[SEG_PAYLOAD_BYTES];
} seg_slot;
_Static_assert(sizeof(seg_slot) == SEG_SLOT_BYTES, "a slot is a whole number of lines");

/* All that the owner of a home writes and its peers read, and the doorbell that peers ring. */
typedef struct seg_control {
  _Alignas(TR_CACHE_LINE) _Atomic uint64_t phase;    /* tag of the phases of work that the owner has finished */
  _Alignas(TR_CACHE_LINE) _Atomic uint32_t doorbell; /* futex the owner sleeps on; counted up by who wakes it */
  _Atomic uint32_t sleeping;
  seg_slot slots[SEG_SLOTS];
} seg_control;
enum {
  SEG_CONTROL_BYTES = (sizeof(seg_control) + SEG_PAGE - 1) / SEG_PAGE * SEG_PAGE,
  SEG_HUGE = 2 << 20,       /* of a large page, where the machine has such */
  SEG_HEAP_START = SEG_HUGE /* of the heap within a home */
};
_Static_assert(SEG_CONTROL_BYTES <= SEG_HEAP_START, "control words end before the heap begins");
#define SEG_HEAP_ROOM ((1ull << SEG_HOME_SHIFT) - SEG_HEAP_START)

typedef struct seg_head {
  uint64_t magic;
  uint32_t version;
  int32_t capacity;
  _Alignas(TR_CACHE_LINE) _Atomic uint32_t stop;
  _Alignas(TR_CACHE_LINE) _Atomic uint32_t abort;
  /* Then: homes, ranks, beacons (seg_homes and so on). */
} seg_head;

/* Tag of the epoch in which the home was last claimed; 0: free. */
_Atomic uint64_t *seg_homes(seg_head *head);
/* Tag whose counter is the home of the rank + 1. */
_Atomic uint64_t *seg_ranks(seg_head *head);
tr_beacon *seg_beacons(seg_head *head);
static inline int32_t seg_home_count(int32_t capacity) { return capacity * SEG_HOMES_A_RANK; }
size_t seg_head_bytes(int32_t capacity);

/* A process's view. Mappings of peers' heaps grow on demand and may move. */
typedef struct seg_view {
  const tr_allocator *allocator;
  int descriptor;
  seg_head *head;
  int32_t capacity;
  int32_t home;           /* ours; -1: none yet */
  seg_control *control;   /* ours */
  seg_control **controls; /* [home], mapped on first use */
  struct seg_heap_map {
    char *base;
    size_t bytes;
  } * heaps; /* [home] */
} seg_view;

TR_MUST_USE tr_status seg_view_open(seg_view *view, const tr_allocator *allocator, int descriptor, tr_error *error);
void seg_view_close(seg_view *view);
/* Takes a free home for this epoch and zeroes its control words. */
TR_MUST_USE tr_status seg_home_claim(seg_view *view, uint64_t epoch, tr_error *error);
/* Undoes a claim that no peer has heard of. */
void seg_home_unclaim(seg_view *view);
/* Gives the heap's pages back. The control words stay, since a peer may still read that we arrived, and so does the
 * claim: both go with the segment, or in the next epoch's sweep. */
void seg_heap_release(seg_view *view);
/* Frees all homes that were last claimed in an older epoch; for one rank, when all have joined. */
void seg_homes_sweep(seg_view *view, uint64_t epoch);
TR_MUST_USE tr_status seg_control_map(seg_view *view, int32_t home, seg_control **out, tr_error *error);
/* Makes [0, end) of a home's heap readable and writable here. */
TR_MUST_USE tr_status seg_heap_map_grow(seg_view *view, int32_t home, uint64_t end, tr_error *error);
/* Maps [offset, offset + bytes) of the file at an address that suits large pages. NULL, with errno, on failure. */
void *seg_map_aligned(int descriptor, uint64_t offset, size_t bytes);
static inline char *seg_heap_at(const seg_view *view, int32_t home, uint64_t offset) {
  return view->heaps[home].base + offset;
}

/* Whether the host has that many bytes left. */
TR_MUST_USE tr_status seg_pages_check(uint64_t bytes, tr_error *error);
/* Pages for [offset, offset + bytes) of the file. */
TR_MUST_USE tr_status seg_pages_allocate(int descriptor, uint64_t offset, uint64_t bytes, tr_error *error);
static inline uint64_t seg_heap_offset(int32_t home) { return ((uint64_t)home + 1) << SEG_HOME_SHIFT | SEG_HEAP_START; }

#endif
