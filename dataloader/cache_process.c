/* Reading /proc/PID/stat: see cache_process.h. */
#include "cache_process.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Fields of /proc/PID/stat counted from the one behind the name. */
enum { FIELD_STATE = 0, FIELD_THREADS = 17, FIELD_START = 19 };

static const char *field(const char *text, int number) {
  for (int i = 0; i < number && text != NULL; i++) {
    text = strchr(text, ' ');
    if (text != NULL) text++;
  }
  return text;
}

uint64_t dl_process_start(int32_t pid) {
  char path[64], text[1024];
  snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
  const int fd = open(path, O_RDONLY | O_CLOEXEC);
  if (fd < 0) return 0;
  const ssize_t got = read(fd, text, sizeof text - 1);
  close(fd);
  if (got <= 0) return 0;
  text[got] = '\0';
  /* The name may hold anything, so the fields are counted from its end. */
  const char *name_end = strrchr(text, ')');
  if (name_end == NULL || name_end[1] != ' ') return 0;
  const char *fields = name_end + 2, *threads = field(fields, FIELD_THREADS), *start = field(fields, FIELD_START);
  if (threads == NULL || start == NULL) return 0;
  /* While a killed process still has threads, one of them may be writing in the kernel. */
  const bool dead = fields[FIELD_STATE] == 'Z' || fields[FIELD_STATE] == 'X';
  return dead && strtol(threads, NULL, 10) <= 1 ? 0 : strtoull(start, NULL, 10);
}

bool dl_process_alive(int32_t pid, uint64_t start) {
  if (start == 0) return kill(pid, 0) == 0 || errno != ESRCH;
  return dl_process_start(pid) == start;
}
