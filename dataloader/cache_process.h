/* Who is alive: a process by pid and start time, so that a number that was given again is not taken for the old one. */
#ifndef TRAINRUN_DATALOADER_CACHE_PROCESS_H
#define TRAINRUN_DATALOADER_CACHE_PROCESS_H

#include <stdbool.h>
#include <stdint.h>

/* Clock ticks from boot to the process's start; 0: there is no such process, or it is dead to the last thread. */
uint64_t dl_process_start(int32_t pid);
/* Where there is no /proc everybody counts as alive. */
bool dl_process_alive(int32_t pid, uint64_t start);

#endif
