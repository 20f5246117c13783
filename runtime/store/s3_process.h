/* Running a credential_process: a program whose output is keys. Linux.
 *
 * No shell has a part in it. The child gets no descriptor but an empty input and the pipe that is read; what it says on
 * its error stream is dropped, since that may hold secrets. It is killed, with its process group, when its time is over
 * or its output too long. Any thread may call it, whatever signals it blocks. */
#ifndef TRAINRUN_STORE_S3_PROCESS_H
#define TRAINRUN_STORE_S3_PROCESS_H

#include <trainrun/base.h>

typedef struct s3_process {
  const char *command; /* cut into words as a POSIX shell does it, quotes and backslashes included */
  const char *const *environment;
  uint32_t timeout_ms;
  size_t max_bytes;
} s3_process;

/* Output in new memory, a 0 behind it: wipe it. TR_ERR_CONFIG for a command that can never run or went wrong,
 * TR_ERR_TIMEOUT where it took too long. Messages hold the program's name and none of its words. */
tr_status s3_process_run(const tr_allocator *allocator, const s3_process *process, char **output, size_t *bytes,
                         tr_error *error);

#endif
