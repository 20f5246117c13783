/* Starting a worker so that it cannot outlive its launcher. */
#ifndef TRAINRUN_LAUNCHER_SPAWN_H
#define TRAINRUN_LAUNCHER_SPAWN_H

#include <trainrun/base.h>

#include <sys/types.h>

enum { SPAWN_KEEP_MAX = 4 };

typedef struct spawn_options {
  const char *path;
  char *const *argv;
  char *const *environment;
  int input, output, error; /* become 0, 1, 2 */
  int guard;                /* from guard_start: the child tells it of its group before it runs anything; -1: none */
  int keep[SPAWN_KEEP_MAX]; /* stay open under their own numbers; all else is closed */
  size_t keep_count;
} spawn_options;

/* A child in a process group of its own (number = its pid) that is killed when the calling thread's process ends. What
 * cannot be executed says so on its standard error and ends with 127 (not found) or 126. -1 and errno where there is no
 * process to be had. Only the main thread may call this: the death signal follows the thread. */
pid_t spawn_worker(const spawn_options *options);

/* A process that waits for the end of this one and then kills the process groups it was told of: children of workers,
 * which the death signal does not reach. Returns a descriptor, or -1. */
int guard_start(pid_t *pid);
void guard_forget(int guard, pid_t group);
/* Ends the guard without killing anything it was told to forget. */
void guard_end(int guard, pid_t pid);

/* Kills what was left to this process by workers that are gone (it is their reaper), and waits for it. */
void reap_strays(void);

#endif
