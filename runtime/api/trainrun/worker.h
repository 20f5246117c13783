/* The contract between a launcher and the workers it starts: environment, descriptors, messages.
 *
 * A worker finds its place in the environment (TRAINRUN_WORKER_*, all or none), its job in an inherited memfd, its peers
 * in the host's segment (collective.h), and tells its launcher what it did in lines of JSON over an inherited socket.
 * Progress, step by step, is not sent: the launcher reads it off the board of the segment. */
#ifndef TRAINRUN_WORKER_H
#define TRAINRUN_WORKER_H

#include <trainrun/base.h>

TR_BEGIN_C

/* Decimal numbers unless said otherwise. */
#define TR_WORKER_RANK             "TRAINRUN_WORKER_RANK"
#define TR_WORKER_WORLD_SIZE       "TRAINRUN_WORKER_WORLD_SIZE"
#define TR_WORKER_LOCAL_RANK       "TRAINRUN_WORKER_LOCAL_RANK"
#define TR_WORKER_LOCAL_WORLD_SIZE "TRAINRUN_WORKER_LOCAL_WORLD_SIZE"
#define TR_WORKER_NODE_RANK        "TRAINRUN_WORKER_NODE_RANK"
#define TR_WORKER_SEGMENT_FD       "TRAINRUN_WORKER_SEGMENT_FD" /* tr_comm_segment_create */
#define TR_WORKER_JOB_FD           "TRAINRUN_WORKER_JOB_FD" /* memfd: the resolved job, TOML, read from offset 0 by pread */
#define TR_WORKER_RUN_FD           "TRAINRUN_WORKER_RUN_FD"     /* memfd: the run, JSON (below), by pread */
#define TR_WORKER_CONTROL_FD       "TRAINRUN_WORKER_CONTROL_FD" /* stream socket to the launcher */
#define TR_WORKER_EPOCH            "TRAINRUN_WORKER_EPOCH"      /* attempt, from 1; of the communicator's flags too */
#define TR_WORKER_STARTED_NS       "TRAINRUN_WORKER_STARTED_NS" /* CLOCK_MONOTONIC when the command (or this attempt) began */

/* The run, as JSON in RUN_FD: {"name", "run_id", "attempt", "folder", "checkpoint_url" (of this run, without step),
 * "resume": step or -1, "kind": "train"|"eval", "profile": bool, "trace": bool}. */

/* Worker to launcher, one JSON object a line, at most TR_WORKER_LINE_BYTES:
 *   {"type": "metrics", "record": {…}}   a line of metrics.jsonl (rank 0)
 *   {"type": "event", "record": {…}}     a line of events.jsonl (rank 0): checkpoint, resume, evaluation, skipped, …
 *   {"type": "lock", "record": {…}}      data.lock.json (rank 0)
 *   {"type": "trace", "events": "…"}     this rank's part of trace.json
 *   {"type": "result", "record": {…}}    what the worker knows of summary.json (rank 0, once, last)
 *   {"type": "error", "rank": r, "status": "…", "message": "…", "exit_code": n}   before a failing exit (any rank) */
enum { TR_WORKER_LINE_BYTES = 16 * 1024 * 1024 };

/* Why the launcher (or a signal handler) asks for an end; on the board, taken up by the vote. */
typedef enum tr_stop_reason {
  TR_STOP_NONE = 0,
  TR_STOP_INTERRUPT = 1, /* Ctrl-C: checkpoint, status stopped, exit 130 */
  TR_STOP_PREEMPT = 2,   /* SIGTERM: checkpoint, status preempted, exit 75 */
  TR_STOP_REQUEST = 3    /* `trainrun stop`, tr_session_request_stop: checkpoint, status stopped, exit 0 */
} tr_stop_reason;

/* What a rank is doing, for the board. */
typedef enum tr_phase {
  TR_PHASE_STARTING = 0,
  TR_PHASE_INDEXING = 1,
  TR_PHASE_LOADING = 2, /* a checkpoint */
  TR_PHASE_DATA = 3,    /* waits for a batch */
  TR_PHASE_COMPUTE = 4,
  TR_PHASE_COLLECTIVE = 5,
  TR_PHASE_UPDATE = 6,
  TR_PHASE_CHECKPOINT = 7,
  TR_PHASE_EVALUATION = 8,
  TR_PHASE_ENDING = 9
} tr_phase;
TR_API const char *tr_phase_name(tr_phase phase); /* "starting", … */

TR_END_C
#endif
