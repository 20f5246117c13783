/* Status codes and errors: the one idiom of the whole library.
 *
 * A function that can fail returns a tr_status and takes, last, an optional tr_error that it fills with a message for a
 * person: what happened, where, and what to do. Outputs are written only on success. The library never exits, aborts
 * or prints, and keeps no last error per thread. The codes are grouped by what died, which tells a caller how far
 * to go back: the request (try another), the store, the peer, the communicator, the job.
 *
 * The first that detects an error writes its message; callers pass it on, adding context with tr_error_context(). */
#ifndef TRAINRUN_STATUS_H
#define TRAINRUN_STATUS_H

#include <stdarg.h>
#include <trainrun/macros.h>

TR_BEGIN_C

typedef enum tr_status {
  TR_OK = 0,

  /* The request: nothing else is affected. */
  TR_ERR_INVALID = 1,     /* an argument or a shape is wrong: a bug in the caller */
  TR_ERR_CONFIG = 2,      /* a job file, flag or environment variable is wrong: a mistake of the user (exit 78) */
  TR_ERR_NOT_FOUND = 3,   /* no such object, file, parameter, field */
  TR_ERR_EXISTS = 4,      /* a conditional put found the object there */
  TR_ERR_CORRUPT = 5,     /* bytes from outside are not what they should be: says object and offset */
  TR_ERR_CHANGED = 6,     /* an object changed under a reader (ETag differs) */
  TR_ERR_UNSUPPORTED = 7, /* known and not built: "planned, not in this version" or impossible here */
  TR_ERR_DENIED = 8,      /* permission: credentials, file mode, token */
  TR_ERR_MISMATCH = 9,    /* a resume that does not fit: fingerprint, data lock, shapes */

  /* This process and its host. */
  TR_ERR_NO_MEMORY = 20,   /* an allocation failed, /dev/shm or the device is full */
  TR_ERR_NO_SPACE = 21,    /* the disk or quota is full */
  TR_ERR_IO = 22,          /* the operating system failed a call: says which, with errno's text */
  TR_ERR_UNAVAILABLE = 23, /* something needed is not there: a library, a GPU, a server (exit 69) */

  /* The store, for now: it may answer later. */
  TR_ERR_STORE = 40,     /* gave up after retries */
  TR_ERR_THROTTLED = 41, /* gave up because the store asked to slow down */

  /* A peer or the communicator. */
  TR_ERR_PEER = 60,    /* a peer is gone or broke the protocol; tr_error.rank says which */
  TR_ERR_ABORTED = 61, /* the communicator was aborted: rebuild it */
  TR_ERR_TIMEOUT = 62, /* a deadline passed */

  /* The job. */
  TR_ERR_STOPPED = 80,   /* asked to stop; the state is saved as far as it can be */
  TR_ERR_DIVERGED = 81,  /* the loss or a gradient is not finite */
  TR_ERR_CANCELLED = 82, /* the operation was cancelled by its owner */

  TR_ERR_BUG = 99 /* an invariant of the library is broken */
} tr_status;

enum { TR_ERROR_MESSAGE_BYTES = 500 };

/* What went wrong. Plain memory: copy it, put it on the stack, nothing to free. */
typedef struct tr_error {
  tr_status status;
  int32_t rank; /* the rank to blame, -1 where none is */
  char message[TR_ERROR_MESSAGE_BYTES];
} tr_error;

/* Stable lower-case name of a status ("not-found"); never NULL. */
TR_API const char *tr_status_name(tr_status status);

/* The exit code a program should end with for a status: 0 (also when it was cancelled by its owner), 69, 75, 78 as in
 * sysexits.h, else 1. */
TR_API int tr_status_exit_code(tr_status status);

/* Fills *error (which may be NULL) and returns `status`, so that a detector can `return tr_fail(...)`. A message too
 * long is cut at a character boundary. rank is set to -1. */
TR_API tr_status tr_fail(tr_error *error, tr_status status, const char *format, ...) TR_PRINTF(3, 4);

/* As tr_fail, appending ": " and the text of errno value `errno_value`. */
TR_API tr_status tr_fail_errno(tr_error *error, tr_status status, int errno_value, const char *format, ...)
    TR_PRINTF(4, 5);

/* Status that fits an errno value: ENOENT -> NOT_FOUND, ENOSPC/EDQUOT -> NO_SPACE, EACCES -> DENIED, else IO. */
TR_API tr_status tr_status_from_errno(int errno_value);

/* Puts "context: " before the message of an error that already happened; returns error->status. NULL is allowed and
 * then `status` is returned unchanged. */
TR_API tr_status tr_error_context(tr_error *error, tr_status status, const char *format, ...) TR_PRINTF(3, 4);

/* Return early when `expression` fails: the error has been filled below. For functions without anything to undo. */
#define TR_TRY(expression)                                                                                             \
  do {                                                                                                                 \
    const tr_status tr_try_status_ = (expression);                                                                     \
    if (tr_try_status_ != TR_OK) return tr_try_status_;                                                                \
  } while (0)

TR_END_C
#endif
