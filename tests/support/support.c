/* Folders, files and JSON for tests: see support.h. */
#include "support/support.h"

#include <errno.h>
#include <ftw.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

/* What was handed out and may be left to the end of the process: reachable from here, so that it is no leak. */
static void **g_handed_out;
static size_t g_handed_out_count;

/* The folders that this process made. A forked child inherits the list but must not remove what is its parent's. */
static char *g_folders[64];
static size_t g_folder_count;
static pid_t g_owner;

static void die(const char *what, const char *name) {
  fprintf(stderr, "test support: %s %s: %s\n", what, name, strerror(errno));
  abort();
}

static void *hand_out(void *memory) {
  void **grown = realloc(g_handed_out, (g_handed_out_count + 1) * sizeof *grown);
  if (grown == NULL) die("no memory", "");
  g_handed_out = grown;
  g_handed_out[g_handed_out_count++] = memory;
  return memory;
}

bool ts_long(void) {
  const char *value = getenv("TRAINRUN_TEST_LONG");
  return value != NULL && value[0] != '\0' && strcmp(value, "0") != 0;
}

static int remove_one(const char *path, const struct stat *status, int type, struct FTW *walk) {
  (void)status, (void)type, (void)walk;
  return remove(path);
}

void ts_remove_tree(const char *path) { nftw(path, remove_one, 16, FTW_DEPTH | FTW_PHYS); }

static void remove_folders(void) {
  if (getpid() != g_owner) return;
  for (size_t i = 0; i < g_folder_count; i++) {
    ts_remove_tree(g_folders[i]);
    free(g_folders[i]);
  }
  g_folder_count = 0;
}

const char *ts_folder(void) {
  if (g_owner != getpid()) {
    g_owner = getpid();
    g_folder_count = 0;
    atexit(remove_folders);
  }
  const char *root = getenv("TMPDIR");
  char *path = ts_format("%s/trainrun-test-XXXXXX", root != NULL && root[0] != '\0' ? root : "/tmp");
  if (mkdtemp(path) == NULL) die("mkdtemp", path);
  if (g_folder_count == sizeof g_folders / sizeof g_folders[0]) die("too many folders", path);
  g_folders[g_folder_count++] = path;
  return path;
}

char *ts_format(const char *format, ...) {
  va_list arguments;
  va_start(arguments, format);
  char *text = NULL;
  if (vasprintf(&text, format, arguments) < 0) die("no memory", format);
  va_end(arguments);
  return hand_out(text);
}

char *ts_built(const char *path) { return ts_format("%s/%s", TRAINRUN_BUILD_DIR, path); }

char *ts_source(const char *path) { return ts_format("%s/%s", TRAINRUN_SOURCE_DIR, path); }

void ts_file_write(const char *path, const void *bytes, size_t count) {
  FILE *file = fopen(path, "wb");
  if (file == NULL) die("cannot write", path);
  if (count > 0 && fwrite(bytes, 1, count, file) != count) die("cannot write", path);
  if (fclose(file) != 0) die("cannot write", path);
}

char *ts_file_read(const char *path, size_t *count) {
  FILE *file = fopen(path, "rb");
  if (file == NULL) return NULL;
  char *bytes = NULL;
  size_t used = 0, room = 0;
  for (;;) {
    if (used + 1 >= room) {
      room = room == 0 ? 4096 : room * 2;
      bytes = realloc(bytes, room);
      if (bytes == NULL) die("no memory", path);
    }
    const size_t got = fread(bytes + used, 1, room - used - 1, file);
    if (got == 0) break;
    used += got;
  }
  fclose(file);
  bytes[used] = '\0';
  if (count != NULL) *count = used;
  return hand_out(bytes);
}

bool ts_exists(const char *path) { return access(path, F_OK) == 0; }

double ts_now_s(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

void ts_sleep_s(double seconds) {
  struct timespec rest = {.tv_sec = (time_t)seconds};
  rest.tv_nsec = (long)((seconds - (double)rest.tv_sec) * 1e9);
  while (nanosleep(&rest, &rest) != 0 && errno == EINTR) continue;
}

json_t *ts_json(const char *path) {
  json_error_t error;
  json_t *root = json_load_file(path, 0, &error);
  if (root == NULL) {
    fprintf(stderr, "test support: %s:%d: %s\n", path, error.line, error.text);
    abort();
  }
  return hand_out(root);
}

static const json_t *member(const json_t *object, const char *path) {
  const json_t *value = object;
  for (const char *key = path; value != NULL;) {
    const size_t length = strcspn(key, ".");
    char name[128];
    snprintf(name, sizeof name, "%.*s", (int)length, key);
    value = json_object_get(value, name);
    if (key[length] == '\0') break;
    key += length + 1;
  }
  if (value == NULL) {
    fprintf(stderr, "test support: no member %s\n", path);
    abort();
  }
  return value;
}

double ts_json_number(const json_t *object, const char *path) { return json_number_value(member(object, path)); }

const char *ts_json_text(const json_t *object, const char *path) { return json_string_value(member(object, path)); }
