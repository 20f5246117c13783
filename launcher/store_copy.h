/* What `store get` and `store put` share: the objects of a source, one after the other, to threads that copy them. */
#ifndef TRAINRUN_LAUNCHER_STORE_COPY_H
#define TRAINRUN_LAUNCHER_STORE_COPY_H

#include "buffers.h"
#include "crew.h"
#include "location.h"

typedef struct tr_copy tr_copy;

/* One object on its way. */
typedef struct tr_copy_item {
  char key[TR_KEY_BYTES];  /* in the source */
  char name[TR_KEY_BYTES]; /* below the folder that is copied; of a single object its last part */
  tr_object_info info;
} tr_copy_item;

struct tr_copy {
  const tr_cli *cli;
  const char *verb; /* "get", "put" */
  tr_remote remote;
  tr_location from;
  const char *to;          /* as typed */
  tr_location destination; /* of put */
  tr_buffers buffers;
  tr_progress progress;
  atomic_bool stop;
  uint64_t objects, bytes; /* in the source */
  _Atomic uint64_t copied_objects, copied_bytes, skipped_objects;

  /* Of the walk, one thread at a time. */
  tr_listing listing;
  bool handed; /* the single object was */
};

/* Part and range size, and the number of buffers, for objects of up to this size. */
void copy_make_buffers(tr_copy *copy, uint64_t largest_bytes);
/* Finds the source and counts what is in it. */
tr_status copy_begin(tr_copy *copy, tr_error *error);
/* Copies all of it by `work`, then says how it went; the exit code. */
int copy_run(tr_copy *copy, tr_status (*work)(void *self, void *item, tr_error *error));
/* A last line with the rate, unless quiet. */
void copy_summary(const tr_copy *copy);

#endif
